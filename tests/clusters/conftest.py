"""
Real clusters of one machine, started and ended by the tests, and the demo experiment on them.

`make test-clusters` runs this folder; `make test` does not. What a machine can't have is skipped with the reason.
"""

import re

import pytest
import tools
from htcondor_pool import APART, Pool
from slurm_cluster import Slurm
from work_folder import ROOT, WorkFolder


def _or_skip(get):
    try:
        return get()
    except tools.Missing as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def apptainer():
    """Path of the program `apptainer`."""
    return _or_skip(tools.apptainer)


@pytest.fixture(scope="session")
def pool(tmp_path_factory):
    """A real HTCondor pool."""
    prefix = _or_skip(tools.htcondor)
    try:
        container_program = tools.apptainer()
    except tools.Missing:
        container_program = None
    pool = Pool(tmp_path_factory.mktemp("htcondor"), prefix, container_program)
    try:
        pool.start()
        yield pool
    finally:
        pool.stop()


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """A folder that the machine of `pool_apart` does not see."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def pool_apart(home, tmp_path_factory):
    """A pool whose machine sees neither `home` nor the checkout."""
    prefix = _or_skip(tools.htcondor)
    try:
        path = f"{tools.apptainer().parent}:/usr/local/bin:/usr/bin:/bin"
    except tools.Missing:
        path = "/usr/local/bin:/usr/bin:/bin"
    more = f'{APART}STARTER_JOB_ENVIRONMENT = "PATH={path}"\n'
    pool = Pool(tmp_path_factory.mktemp("htcondor_apart"), prefix, hidden=[home, ROOT], more=more)
    try:
        pool.start()
        yield pool
    finally:
        pool.stop()


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    """A real Slurm."""
    _or_skip(tools.slurm)
    slurm = Slurm(tmp_path_factory.mktemp("slurm"))
    try:
        slurm.start()
        yield slurm
    finally:
        slurm.stop()


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """A folder as `sfxflow init` makes it for 120 simulated frames, in five chunks; nothing is computed yet."""
    raw = tmp_path_factory.mktemp("raw")
    folder = tmp_path_factory.mktemp("user") / "prepared"
    user = WorkFolder(raw)
    simulate = (
        "--preset",
        "demo",
        "--n-frames",
        120,
        "--seed",
        51,
        "--compression",
        "bitshuffle",
        "--frames-per-file",
        40,
    )
    user.sfxflow("simulate", *simulate, "--output", raw)
    init = (
        "--data",
        raw / "*.h5",
        "--geometry",
        raw / "detector.geom",
        "--cell",
        raw / "demo.cell",
        "--space-group",
        "P43212",
    )
    user.sfxflow("init", *init, "--output", folder)
    config = folder / "config/config.yaml"
    text, n_changed = re.subn(r"(?m)^chunk_size: \d+$", "chunk_size: 24", config.read_text())
    assert n_changed == 1
    config.write_text(text)
    return WorkFolder(folder)


@pytest.fixture(scope="session")
def local_run(prepared, tmp_path_factory):
    """The experiment processed by `snakemake --profile local`."""
    work = prepared.copy_to(tmp_path_factory.mktemp("local") / "work", options=("--profile", "local"))
    work.snakemake()
    return work
