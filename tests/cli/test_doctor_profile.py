"""`sfxflow doctor --profile` with programs that stand in for clusters and containers; tests/clusters/test_doctor.py has real ones."""

import json
import os
from pathlib import Path

import pytest

pytest.importorskip("snakemake", reason="Snakemake is not installed")

import sfxflow
from sfxflow.cli import main

HTCONDOR_PLUGIN = "snakemake_executor_plugin_htcondor"
SLURM_PLUGIN = "snakemake_executor_plugin_slurm"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder with a profile for this machine."""
    monkeypatch.chdir(tmp_path)
    profile("local", "executor: local\ncores: 8\n")
    return tmp_path


def profile(name, text):
    Path(name).mkdir()
    Path(name, "profile.yaml").write_text(text)


@pytest.fixture
def program(folder, monkeypatch):
    """Make programs that are first on the search path, from name and text."""
    path = folder / "bin"
    path.mkdir()
    monkeypatch.setenv("PATH", f"{path}:{os.environ['PATH']}")

    def make(name, text="exit 0"):
        (path / name).write_text(f"#!/bin/sh\n{text}\n")
        (path / name).chmod(0o755)

    return make


def doctor(capsys, *argv):
    """What it says, and its exit status."""
    status = main(["doctor", "--profile", *argv])
    return status, capsys.readouterr().out


def answer(folder, capsys, **question):
    """What the job's command writes on its machine."""
    asked = {"token": "t", "paths": [], "images": [], "arguments": ""} | question
    (folder / "question.json").write_text(json.dumps(asked))
    assert main(["doctor", "--question", "question.json", "--answer", "answer.json"]) == 0
    return json.loads((folder / "answer.json").read_text())


def test_profile_that_works(folder, capsys):
    """Nothing of it is left behind."""
    before = sorted(folder.iterdir())
    status, text = doctor(capsys, "local")
    assert status == 0, text
    assert "a job ran on" in text
    assert "snakemake --profile local works from here" in text
    assert sorted(folder.iterdir()) == before


def test_frames_that_are_not_there(folder, capsys):
    (folder / "config").mkdir()
    (folder / "config/runs.tsv").write_text("# runs\nrun\tframes\tgeometry\nr1\t/gone/*.h5\tdetector.geom\n")
    (folder / "detector.geom").touch()
    status, text = doctor(capsys, "local")
    assert status == 1
    assert "can't read /gone/*.h5" in text
    assert "detector.geom" not in text


def test_job_that_takes_too_long(folder, capsys):
    status, text = doctor(capsys, "local", "--time-limit", "0.1")
    assert status == 1
    assert "the job did not end within 0 s" in text
    assert not list(folder.glob(".sfxflow_doctor_*"))


def test_plug_in_that_is_missing(folder, capsys):
    profile("cloud", "executor: no-such-executor\n")
    status, text = doctor(capsys, "cloud")
    assert status == 1
    assert "plug-in snakemake-executor-plugin-no-such-executor is not installed" in text
    assert "python -m pip install snakemake-executor-plugin-no-such-executor" in text


def test_programs_that_are_missing(folder, capsys, monkeypatch):
    pytest.importorskip(HTCONDOR_PLUGIN, reason="the htcondor plug-in is not installed")
    profile("htcondor", "executor: htcondor\n")
    monkeypatch.setenv("PATH", str(folder))
    status, text = doctor(capsys, "htcondor")
    assert status == 1
    assert "the program condor_q is not on the search path" in text


def test_other_file_system_domain(folder, program, capsys):
    pytest.importorskip(HTCONDOR_PLUGIN, reason="the htcondor plug-in is not installed")
    profile("htcondor", "executor: htcondor\n")
    program("condor_q")
    program("condor_rm")
    program("condor_status", "echo site.org; echo site.org")
    program("condor_config_val", "echo login.site.org")
    status, text = doctor(capsys, "htcondor")
    assert status == 1
    assert "the file system domain differs: this machine is in login.site.org, the pool's machines in site.org" in text


def test_partition_that_is_not_there(folder, program, capsys):
    """sbatch's own words, of Slurm 22.05."""
    pytest.importorskip(SLURM_PLUGIN, reason="the slurm plug-in is not installed")
    text = "executor: slurm\njobs: 1\nslurm-no-account: true\ndefault-resources:\n  slurm_partition: nowhere\n"
    profile("slurm", text)
    for name in ("squeue", "scancel", "sacct", "scontrol", "sacctmgr"):
        program(name)
    program("sinfo", "echo main")
    said = "sbatch: error: invalid partition specified: nowhere"
    program("sbatch", f"echo '{said}' >&2; exit 1")
    status, text = doctor(capsys, "slurm")
    assert status == 1
    assert "Slurm has no such partition" in text
    assert "set slurm_partition in default-resources of the profile" in text


# ---- what the job sees


def test_paths_and_folders_that_are_bound(folder, capsys):
    (folder / "there").touch()
    seen = answer(folder, capsys, paths=["there", "gone"], arguments=f"--bind {folder},/no/such/folder:/x")
    assert seen["missing"] == ["gone"]
    assert seen["missing_binds"] == ["/no/such/folder"]
    assert (seen["token"], seen["version"]) == ("t", sfxflow.__version__)


@pytest.mark.parametrize(
    ("text", "problem", "said"),
    [
        (f"echo sfxflow {sfxflow.__version__}", "", sfxflow.__version__),
        ("echo sfxflow 0.0.1", "version", "0.0.1"),
        ("echo 'FATAL: image format not recognized' >&2; exit 255", "does not start", "FATAL: image format not recognized\n"),
    ],
)  # fmt: skip
def test_images(folder, program, capsys, text, problem, said):
    """apptainer-args of the profile are given to it."""
    program("apptainer", f'test "$1 $2" = "exec -u" || exit 9\n{text}')
    (folder / "x.sif").touch()
    (seen,) = answer(folder, capsys, images=["x.sif"], arguments="-u")["images"]
    assert (seen["problem"], seen["said"]) == (problem, said)


def test_image_that_is_not_there(folder, program, capsys):
    program("apptainer")
    (seen,) = answer(folder, capsys, images=["x.sif"])["images"]
    assert seen["problem"] == "absent"


def test_no_apptainer(folder, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(folder))
    (seen,) = answer(folder, capsys, images=["x.sif"])["images"]
    assert seen["problem"] == "no apptainer"


def test_images_are_tried_where_the_profile_uses_them(folder, program, capsys, monkeypatch):
    monkeypatch.setattr("sfxflow.cli.doctor_profile.folders_of_images", lambda: [Path("containers")])
    profile("with_images", "executor: local\ncores: 1\nsoftware-deployment-method: apptainer\n")
    program("apptainer")
    status, text = doctor(capsys, "with_images")
    assert status == 1
    assert f"containers/builtin-{sfxflow.__version__}.sif is not there on" in text
    assert "make containers builds it" in text


def test_image_of_the_repository_is_tried(folder, program, capsys, monkeypatch, tmp_path):
    """The workflow takes it where the working directory has none; a merger's image is one of those in use."""
    repository = tmp_path / "repository"
    repository.mkdir()
    for name in ("builtin", "crystfel"):
        (repository / f"{name}-{sfxflow.__version__}.sif").touch()
    monkeypatch.setattr("sfxflow.cli.doctor_profile.folders_of_images", lambda: [Path("containers"), repository])
    Path("config").mkdir(exist_ok=True)
    Path("config/config.yaml").write_text("mergers: [builtin, partialator]\n")
    profile("with_images", "executor: local\ncores: 1\nsoftware-deployment-method: apptainer\n")
    program("apptainer", f"echo $2 >>{tmp_path}/tried; echo sfxflow {sfxflow.__version__}")
    status, text = doctor(capsys, "with_images")
    assert status == 0, text
    tried = (tmp_path / "tried").read_text().split()
    assert tried == [str(repository / f"{name}-{sfxflow.__version__}.sif") for name in ("builtin", "crystfel")]


# ---- bad input


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--profile", "nowhere"], "profile nowhere: there is no folder or file of that name here"),
        (["--profile", "local", "--time-limit", "0"], "--time-limit: 0 s: more than 0 is expected"),
        (["--question", "gone.json", "--answer", "a.json"], "gone.json: is not the question"),
    ],
)
def test_bad_input(folder, capsys, argv, words):
    assert main(["doctor", *argv]) == 1
    assert words in capsys.readouterr().err
