"""
The demo experiment in the container of the built-in engine, with real Apptainer: here, on a real HTCondor pool and on a real Slurm; and the
image itself: any user, no home, no network, read-only, its kernels compiled.

The image is not built here, for that takes minutes: `make containers CONTAINERS=builtin`.
"""

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from work_folder import FRAMES, MTZ, ROOT, WorkFolder, on_pool, on_slurm, small_experiment

#: Bytes that the image may have.
LARGEST = 400e6


#: Relative difference of merged values: kernels for x86-64-v3 may add up in another order than those for the processor itself.
TOLERANCE = 1e-6


def assert_same_results(found, expected):
    """Merged data of two folders are equal within `TOLERANCE`, the frame account is equal."""
    labels, values = found.merged()
    expected_labels, expected_values = expected.merged()
    assert labels == expected_labels
    np.testing.assert_allclose(values, expected_values, rtol=TOLERANCE)
    assert found.account() == expected.account()


def module_of(path):
    """A script as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BUILD = module_of(ROOT / "containers/build.py")


def path_with(apptainer):
    """Variables with which Apptainer is found, and the programs for images that come with it."""
    return {"PATH": os.pathsep.join([str(apptainer.parent), os.environ["PATH"]])}


def call(apptainer, *argv, user=None, timeout=300):
    """Run Apptainer; a `user` that root becomes in a name space of its own, since its rights may be cut down."""
    own = (
        ["unshare", "--user", f"--map-user={user}", f"--map-group={user}"]
        if os.getuid() == 0 and user is not None
        else []
    )
    return subprocess.run(
        [*own, *map(str, (apptainer, *argv))],
        stdin=subprocess.DEVNULL,
        env=os.environ | path_with(apptainer),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.fixture(scope="session")
def image(apptainer):
    """The image of the built-in engine, of the present sources."""
    path = BUILD.image("builtin")
    if not path.exists():
        pytest.skip(f"{path} is not there: make containers CONTAINERS=builtin builds it")
    if f"sfxflow.sources: {BUILD.sources()}" not in call(apptainer, "inspect", "--labels", path).stdout:
        pytest.skip(f"{path} was built of other sources: make containers CONTAINERS=builtin")
    return path


@pytest.fixture(scope="session")
def environment(apptainer):
    """`path_with`."""
    return path_with(apptainer)


def options(in_name_space=False):
    """Options of Snakemake; root whose rights are cut down can start a container only in a user name space, where it may be already."""
    own = ["--apptainer-args=-u"] if os.getuid() == 0 and not in_name_space else []
    return ("--sdm", "apptainer", *own)


def started_in(work, image):
    """How often jobs were started in the image, as Snakemake says here and in the logs of jobs on a cluster."""
    logs = [path.read_text(errors="replace") for path in work.folder.glob(".snakemake/htcondor/**/*.err")]
    logs += [path.read_text(errors="replace") for path in work.folder.glob(".snakemake/slurm_logs/**/*.log")]
    return sum(text.count(f"Activating singularity image {image}") for text in [work.printed(), *logs])


def execute(apptainer, image, *argv, user=7, bind=(), environment=None):
    """Run a command in the image alone: no home, no network, nothing of this machine but what is bound, and a user with nothing of his own."""
    alone = ["--containall", "--no-home", "--net", "--network", "none"]
    binds = [f"--bind={path}" for path in bind]
    given = [f"--env={name}={value}" for name, value in (environment or {}).items()]
    return call(apptainer, "exec", *alone, *binds, *given, image, *argv, user=user)


# ---- the workflow ---------------------------------------------------------------------------------------------------


def test_here(image, environment, prepared, local_run, tmp_path):
    """The frames lie outside of the working directory; the merged data are those without containers."""
    own = {"environment": environment, "options": ("--profile", "local", *options())}
    work = prepared.copy_to(tmp_path / "work", **own)
    work.snakemake()
    assert_same_results(work, local_run)
    assert started_in(work, image) >= 21


def test_on_htcondor(image, environment, pool, prepared, local_run, tmp_path):
    own = on_pool(pool, *options(in_name_space=True))
    own["environment"] = own["environment"] | {
        "PATH": os.pathsep.join([environment["PATH"].split(os.pathsep)[0], own["environment"]["PATH"]])
    }
    work = prepared.copy_to(tmp_path / "work", **own)
    work.snakemake()
    assert_same_results(work, local_run)
    jobs = [job for job in pool.history() if job["Iwd"] == str(work.folder)]
    assert len(jobs) == 8
    assert {job["ExitCode"] for job in jobs} == {0}
    assert started_in(work, image) >= 21


def test_on_htcondor_without_shared_files(image, environment, pool_apart, home):
    """The image is sent with each job; docs/containers.md tells how else it gets there."""
    local = small_experiment(home / "of_image", n_frames=40, n_chunks=2)
    own = on_pool(pool_apart, *options(in_name_space=True), profile="htcondor-transfer")
    own["environment"] = own["environment"] | {
        "PATH": os.pathsep.join([environment["PATH"].split(os.pathsep)[0], own["environment"]["PATH"]])
    }
    work = local.copy_to(home / "in_image", **own)
    local.options = ("--profile", "local")
    local.snakemake(MTZ, FRAMES)
    (work.folder / "containers").mkdir()
    (work.folder / "containers" / image.name).symlink_to(image)
    work.snakemake("--", MTZ, FRAMES)
    assert_same_results(work, local)
    jobs = [job for job in pool_apart.history() if job["Iwd"] == str(work.folder)]
    assert {job["ExitCode"] for job in jobs} == {0}
    assert len(jobs) == 2 + 3
    assert {f"containers/{image.name}" in job["TransferInput"].split(",") for job in jobs} == {True}
    assert started_in(work, f"containers/{image.name}") >= 9


def test_on_slurm(image, environment, slurm, prepared, local_run, tmp_path):
    own = on_slurm(slurm, *options())
    own["environment"] = own["environment"] | environment
    work = prepared.copy_to(tmp_path / "work", **own)
    work.snakemake()
    assert_same_results(work, local_run)
    jobs = [job for job in slurm.finished_jobs() if job.get("WorkDir") == str(work.folder)]
    assert len(jobs) == 8
    assert {(job["JobState"], job["ExitCode"]) for job in jobs} == {("COMPLETED", "0:0")}


# ---- the image ------------------------------------------------------------------------------------------------------


def test_size(image):
    assert image.stat().st_size <= LARGEST


def test_any_user_without_home_and_network_and_nothing_is_compiled(image, apptainer, prepared, tmp_path):
    """Peaks of the demo's frames, as a system user; every kernel comes from the image, and the image stays as it is."""
    (frames, *_) = sorted(prepared.folder.parents[1].glob("raw*/frames_*.h5"))
    done = execute(apptainer, image, "id", "-u")
    assert done.stdout.strip() == "7", done.stderr
    data = ("--frames", frames, "--geometry", frames.parent / "detector.geom", "--first", 0, "--count", 40)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    done = execute(
        apptainer,
        image,
        *("sfxflow", "peaks", *data, "--n-frames", 40, "--output", tmp_path / "peaks.h5"),
        bind=(f"{frames.parent}:{frames.parent}:ro", tmp_path),
        environment={"TMPDIR": temporary},
    )
    assert done.returncode == 0, done.stderr
    assert "40 frames: " in done.stdout + done.stderr
    (links,) = temporary.glob("sfxflow-kernels-7-*")
    kernels = [path for path in links.rglob("*") if path.suffix in (".nbc", ".nbi")]
    assert len(kernels) > 50
    assert [path.name for path in kernels if not path.is_symlink()] == []


def test_it_is_read_only(image, apptainer):
    done = execute(apptainer, image, "touch", "/opt/sfxflow/kernels/x")
    assert done.returncode != 0
    assert "Read-only file system" in done.stderr


def test_no_network(image, apptainer):
    """What runs in it needs none: only loopback is there."""
    done = execute(apptainer, image, "cat", "/proc/net/dev")
    assert re.findall(r"^ *(\w+):", done.stdout, re.MULTILINE) == ["lo"], done.stderr


def test_packages_of_the_machine_stay_outside(image, apptainer, tmp_path):
    """A PYTHONPATH of the shell that starts it comes along, and must not."""
    (tmp_path / "numpy.py").write_text("raise SystemExit('the numpy of this machine')")
    variables = {"PYTHONPATH": tmp_path, "PYTHONHOME": tmp_path}
    done = execute(apptainer, image, "sfxflow", "peaks", "--help", bind=[tmp_path], environment=variables)
    assert done.returncode == 0, done.stderr


def test_nowhere_to_write(image, apptainer):
    """A container whose temporary folders are all read-only says so."""
    script = "cd /; TMPDIR=/usr exec sfxflow --version"
    closed = ["--no-mount", "tmp,devpts", "--no-home", "--contain", "--bind", "/usr/share:/dev/shm:ro"]
    done = call(apptainer, "exec", *closed, image, "sh", "-c", script, user=1, timeout=60)
    if done.returncode == 0:
        pytest.skip("this Apptainer gives every container a writable folder")
    assert "no folder for temporary files can be written to in the container" in done.stderr


# ---- the definitions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(BUILD.CONTAINERS))
def test_a_definition_is_read(apptainer, name, tmp_path):
    """Up to the image of a registry that it starts from: nobody listens there."""
    source = ("--build-arg", "from=127.0.0.1:1/none")
    done = call(apptainer, "build", *source, tmp_path / "x.sif", ROOT / f"containers/{name}.def", user=0, timeout=60)
    assert "Fetching OCI image" in done.stderr
    assert "connection refused" in done.stderr


# ---- what is wrong, in the words of the real program ----------------------------------------------------------------


@pytest.fixture(scope="session")
def small_image(apptainer, tmp_path_factory):
    """Make an image that holds one file and says a version: `small_image(folder, version)`."""

    def make(folder, version):
        root = tmp_path_factory.mktemp("root")
        shutil.copy("/bin/true", root)
        definition = f"Bootstrap: localimage\nFrom: {root}\n%labels\n    org.opencontainers.image.version {version}\n"
        (root.parent / "small.def").write_text(definition)
        (folder / "containers").mkdir(parents=True, exist_ok=True)
        path = folder / f"containers/builtin-{BUILD.version()}.sif"
        done = call(apptainer, "build", "--force", path, root.parent / "small.def", user=0, timeout=120)
        assert done.returncode == 0, done.stderr
        return path

    return make


def refused(prepared, environment, folder, *more):
    """What Snakemake prints that must not start, in a copy of the experiment."""
    work = WorkFolder(folder, environment, options=("--profile", "local", "--sdm", "apptainer", *more))
    assert work.finish(work.start()) != 0
    assert "Traceback" not in work.printed()
    assert not (work.folder / "results").exists()
    return work.printed()


@pytest.fixture
def folder(prepared, tmp_path):
    """A copy of the experiment."""
    return Path(prepared.copy_to(tmp_path / "work").folder)


def test_an_image_of_another_version(small_image, prepared, environment, folder):
    path = small_image(folder, "0.0.9")
    assert f"containers/{path.name}: it is of version 0.0.9, and {BUILD.version()} is expected" in refused(
        prepared, environment, folder
    )


def test_an_image_that_was_cut(small_image, prepared, environment, folder):
    path = small_image(folder, BUILD.version())
    path.write_bytes(path.read_bytes()[:-4096])
    assert "not an image of Apptainer, or only a part of one" in refused(prepared, environment, folder)


def test_a_bind_path_that_does_not_exist(small_image, prepared, environment, folder):
    small_image(folder, BUILD.version())
    text = refused(prepared, environment, folder, "--apptainer-args=--bind /nowhere/data")
    assert "--apptainer-args: /nowhere/data can't be bound: there is no such file or folder on this machine" in text


# ---- doctor ---------------------------------------------------------------------------------------------------------


def says(environment, folder):
    """What `sfxflow doctor` says of the built-in engine's container."""
    done = subprocess.run(
        ["sfxflow", "doctor"],
        cwd=folder,
        env=WorkFolder(folder, environment).environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    text = done.stdout.partition("\nContainers")[2]
    return text[: text.index(f"crystfel-{BUILD.version()}.sif")]


def test_doctor_and_an_image_without_sfxflow(small_image, environment, folder):
    small_image(folder, BUILD.version())
    text = says(environment, folder)
    assert re.search(r"missing  containers/builtin-\S+\.sif\n +it does not start: ", text), text


def test_doctor_and_an_image_that_changed(small_image, environment, folder):
    path = small_image(folder, BUILD.version())
    path.with_name(f"{path.name}.sha256").write_text(f"{'0' * 64}  {path.name}\n")
    assert "it is not what was built: its SHA-256 differs" in says(environment, folder)
