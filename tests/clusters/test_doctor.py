"""`sfxflow doctor --profile` on a real pool, a real Slurm and with real Apptainer: what is wrong is said in words, and nothing is left behind."""

import os
import re
import subprocess

import pytest
from tiny_workflow import Tiny
from work_folder import on_pool

import sfxflow


def doctor(work, name, *argv, **environment):
    """What it says, and its exit status."""
    done = subprocess.run(
        work.wrap(["sfxflow", "doctor", "--profile", name, *argv]),
        cwd=work.folder,
        env=work.environment | environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    assert not list(work.folder.glob(".sfxflow_doctor_*"))
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def work(pool, tmp_path_factory):
    """A folder with profiles, for the pool."""
    return Tiny(tmp_path_factory.mktemp("doctor") / "work", environment=pool.environment, wrap=on_pool(pool)["wrap"])


def jobs_of_trials(pool, work):
    return [job for job in pool.jobs() if job["Iwd"].startswith(str(work.folder))]


def test_pool_that_works(pool, work):
    status, text = doctor(work, "htcondor")
    assert status == 0, text
    assert "snakemake --profile htcondor works from here" in text
    trials = [job for job in pool.history() if job["Iwd"].startswith(f"{work.folder}/.sfxflow_doctor_")]
    assert [(job["ExitCode"], job["RequestCpus"], job["RequestMemory"]) for job in trials] == [(0, 8, 8000)]


def test_job_that_no_slot_can_serve(pool, work):
    work.profile("large", "htcondor", added="set-resources:\n  trial:\n    htcondor_request_mem_mb: 900000\n")
    status, text = doctor(work, "large", "--time-limit", "20")
    assert status == 1
    assert "no slot is that large: the job asks for 8 cores, 900000 MB of memory" in text
    assert jobs_of_trials(pool, work) == []


def test_job_that_is_held(pool, work):
    work.profile("held", "htcondor", [("default-resources:", "default-resources:\n  htcondor_submit_hold: True")])
    status, text = doctor(work, "held")
    assert status == 1
    assert "the job is held: submitted on hold at user's request" in text
    assert jobs_of_trials(pool, work) == []


def test_job_without_its_programs(work):
    work.profile("bare", "htcondor", [("'PATH,HOME,LANG", "'LANG")])
    status, text = doctor(work, "bare")
    assert status == 1
    assert "the job does not find the program sfxflow" in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("COLLECTOR_HOST = .*", "COLLECTOR_HOST = 127.0.0.1:1", "LOCAL_DIR *= .*", "LOCAL_DIR = @"), "no schedd answers"),
        (
            ("SEC_TOKEN_DIRECTORY *= .*", "SEC_TOKEN_DIRECTORY = @", "METHODS *= .*", "METHODS = IDTOKENS"),
            "the pool refuses: it does not know who you are",
        ),
        (("FILESYSTEM_DOMAIN *= .*", "FILESYSTEM_DOMAIN = elsewhere"), "the file system domain differs: this machine is in elsewhere"),
    ],
)  # fmt: skip
def test_configuration_that_does_not_fit_the_pool(pool, work, tmp_path, change, words):
    text = pool.configuration.read_text()
    for old, new in zip(change[::2], change[1::2], strict=True):
        text, n_changed = re.subn(old, new.replace("@", str(tmp_path)), text)
        assert n_changed
    (tmp_path / "condor_config").write_text(text)
    status, said = doctor(work, "htcondor", CONDOR_CONFIG=str(tmp_path / "condor_config"))
    assert status == 1
    assert words in said


def test_no_configuration(work):
    status, text = doctor(work, "htcondor", CONDOR_CONFIG="/nowhere/condor_config")
    assert status == 1
    assert "HTCondor has no configuration here (CONDOR_CONFIG)" in text


@pytest.mark.skipif(os.getuid() != 0, reason="only root is refused")
def test_root_is_refused(pool, work):
    as_root = Tiny.__new__(Tiny)
    as_root.__dict__ = work.__dict__ | {"wrap": lambda argv: argv}
    status, text = doctor(as_root, "htcondor")
    assert status == 1
    assert "HTCondor takes no jobs of root" in text


def test_image_that_is_corrupt(pool, work, apptainer):
    (work.folder / "containers").mkdir()
    image = work.folder / f"containers/builtin-{sfxflow.__version__}.sif"
    image.write_bytes(b"no image" * 1000)
    path = f"{apptainer.parent}:{work.environment['PATH']}"
    status, text = doctor(work, "local", "--apptainer", PATH=path)
    assert status == 1
    assert "the image is corrupt or not an image" in text


# ---- Slurm


@pytest.fixture(scope="module")
def on_slurm(slurm, tmp_path_factory):
    """A folder with profiles, for Slurm."""
    work = Tiny(tmp_path_factory.mktemp("doctor") / "work", environment=slurm.environment)
    site = "slurm-status-command: squeue\nslurm-no-account: true\n"
    work.profile("site", "slurm", added=site)
    work.profile("wrong", "slurm", [('# slurm_partition: "name" ', 'slurm_partition: "nowhere" ')], site)
    work.profile("large", "slurm", added=site + "set-resources:\n  trial:\n    mem_mb: 900000\n")
    return work


def test_slurm_that_works(on_slurm):
    status, text = doctor(on_slurm, "site")
    assert status == 0, text


def test_wrong_partition(on_slurm):
    status, text = doctor(on_slurm, "wrong")
    assert status == 1
    assert "Slurm has no such partition" in text


def test_no_node_that_large(on_slurm):
    status, text = doctor(on_slurm, "large")
    assert status == 1
    assert "no node of the partition is that large" in text
