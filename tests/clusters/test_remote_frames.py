"""Frames that jobs fetch from a server: here, on a real HTCondor pool, and on one whose machine sees neither the folder nor the checkout."""

import pytest
from file_server import FileServer
from work_folder import FRAMES, MTZ, assert_same_results, on_pool, replace_in, small_experiment

TARGETS = (MTZ, FRAMES)
FILES = ("frames_00.h5", "frames_01.h5")
IN_FILE = 20


@pytest.fixture(scope="module")
def from_files(home):
    """The experiment with its frames in files, processed here."""
    work = small_experiment(home / "from_files", n_frames=2 * IN_FILE, n_chunks=2)
    work.options = ("--profile", "local")
    work.snakemake(*TARGETS)
    return work


@pytest.fixture
def server(from_files):
    with FileServer(from_files.folder / "raw") as running:
        yield running


@pytest.fixture
def from_server(from_files, server):
    """Make a folder in which the same frames are a list of addresses; nothing is computed yet."""

    def make(folder, environment=None, **options):
        work = from_files.copy_to(folder, environment=environment, **options)
        for path in ("results", "logs", ".snakemake"):
            (work.folder / path).rename(work.folder / f"old_{path}")
        size = {name: (work.folder / "raw" / name).stat().st_size for name in FILES}
        lines = [f"{server.url(name)}#bytes={size[name]} //{event}" for name in FILES for event in range(IN_FILE)]
        (work.folder / "raw/frames.lst").write_text("\n".join(lines) + "\n")
        replace_in(work.folder / "config/runs.tsv", "raw/*.h5", "raw/frames.lst")
        for name in FILES:
            (work.folder / "raw" / name).unlink()
        work.environment["no_proxy"] = "127.0.0.1"
        return work

    return make


def test_here(from_server, from_files, server, tmp_path):
    work = from_server(tmp_path / "work", {"SFXFLOW_CACHE": str(tmp_path / "cache")}, options=("--profile", "local"))
    work.snakemake(*TARGETS)
    assert_same_results(work, from_files)
    assert [server.n_asked(name) for name in FILES] == [1, 1]
    assert "Nothing to be done" in work.snakemake("-n", *TARGETS)


def test_on_htcondor(from_server, from_files, server, pool, tmp_path):
    """What the server does not have is said; when it is there again the rest is computed, and nothing is fetched twice."""
    own = on_pool(pool, "--retries", "0")
    own["environment"] = own["environment"] | {"SFXFLOW_CACHE": str(tmp_path / "cache")}
    work = from_server(tmp_path / "work", **own)
    second = server.folder / FILES[1]
    second.rename(second.with_suffix(".away"))
    try:
        assert work.finish(work.start(*TARGETS)) != 0
    finally:
        second.with_suffix(".away").rename(second)
    assert f"{server.url(FILES[1])}: the server has no such file (404 Not Found)" in work.printed()
    assert (work.folder / "results/builtin/runs/frames/0000.integrated.h5").exists()
    n_before = server.n_asked(FILES[1])
    work.snakemake(*TARGETS)
    assert_same_results(work, from_files)
    assert server.n_asked(FILES[0]) == 1
    assert server.n_asked(FILES[1]) == n_before + 1
    jobs = [job for job in pool.history() if job["Iwd"] == str(work.folder)]
    assert sorted(job["ExitCode"] for job in jobs) == [0, 0, 0, 0, 0, 1]


def test_without_shared_files(from_server, from_files, server, pool_apart, home):
    """Neither frames nor their list's files are sent; what was fetched is gone with the job."""
    server.failures = ["dropped"]
    work = from_server(home / "from_server", **on_pool(pool_apart, profile="htcondor-transfer"))
    work.snakemake(*TARGETS)
    assert_same_results(work, from_files)
    jobs = [job for job in pool_apart.history() if job["Iwd"] == str(work.folder)]
    assert {job["ExitCode"] for job in jobs} == {0}
    assert [job for job in jobs if ".h5" in job["TransferInput"] and "raw/frames_" in job["TransferInput"]] == []
    logs = "".join(path.read_text() for path in (work.folder / "logs").rglob("*.log"))
    assert "Remote end closed connection without response; next try in 2 s" in logs
