"""
HTCondor without a shared file system: the pool's machine sees neither the folder of the user nor this checkout, an empty file system lies
over both. What the jobs need travels, results, logs and benchmark files come back.
"""

import pytest
from work_folder import FRAMES, MTZ, assert_same_results, on_pool, replace_in, small_experiment

TARGETS = (MTZ, FRAMES)


@pytest.fixture(scope="module")
def prepared_here(home):
    """The experiment with its frames below the working directory, in three chunks."""
    return small_experiment(home / "prepared")


@pytest.fixture(scope="module")
def local(prepared_here, home):
    work = prepared_here.copy_to(home / "local", options=("--profile", "local"))
    work.snakemake(*TARGETS)
    return work


@pytest.fixture(scope="module")
def transferred(pool_apart, prepared_here, home):
    """The experiment processed on the pool, and the pool's records of its jobs."""
    work = prepared_here.copy_to(home / "transferred", **on_pool(pool_apart, profile="htcondor-transfer"))
    work.snakemake(*TARGETS)
    return work, [job for job in pool_apart.history() if job["Iwd"] == str(work.folder)]


def test_results_are_those_of_the_local_run(transferred, local):
    assert_same_results(transferred[0], local)


def test_jobs_ran_where_the_folder_is_not_seen(transferred, home):
    _, jobs = transferred
    assert len(jobs) == 3 + 3
    assert {job["ExitCode"] for job in jobs} == {0}
    for job in jobs:
        assert job["ShouldTransferFiles"] == "YES"
        assert ".snakemake/packed/sfxflow.tar.gz" in job["TransferInput"]


def test_logs_and_benchmarks_come_back(transferred):
    folder = transferred[0].folder
    for chunk in ("0000", "0001", "0002"):
        for stage in ("peaks", "indexed", "integrated"):
            assert "used" in (folder / f"logs/builtin/runs/frames/{chunk}.{stage}.log").read_text()
            assert (folder / f"benchmarks/builtin/runs/frames/{chunk}.{stage}.tsv").read_text().startswith("s\t")


def test_nothing_is_left_to_do(transferred):
    work, _ = transferred
    assert "Nothing to be done" in work.snakemake("-n", *TARGETS)


def test_frames_are_read_in_place(pool_apart, prepared_here, local, home, tmp_path_factory):
    """Frames, geometry and cell in a folder that all machines see under the same path; nothing of them is sent."""
    work = prepared_here.copy_to(home / "in_place", **on_pool(pool_apart, profile="htcondor-transfer"))
    store = tmp_path_factory.mktemp("store")
    (work.folder / "raw").rename(store / "raw")
    replace_in(work.folder / "config/runs.tsv", "\traw/", f"\t{store}/raw/")
    replace_in(work.folder / "config/config.yaml", "cell: raw/", f"cell: {store}/raw/")
    assert work.finish(work.start(*TARGETS)) != 0
    assert f"htcondor-shared-fs-prefixes: {store}/raw" in work.printed()
    profile = work.folder / "profiles/htcondor-transfer/profile.yaml"
    replace_in(profile, 'shared-fs-prefixes: "../,"', f'shared-fs-prefixes: "../,{store}"')
    work.snakemake(*TARGETS)
    assert_same_results(work, local)
    jobs = [job for job in pool_apart.history() if job["Iwd"] == str(work.folder)]
    assert len(jobs) == 3 + 3
    assert not [job for job in jobs if str(store) in job["TransferInput"] or "frames_0" in job["TransferInput"]]


def test_failing_job_tells_why(pool_apart, prepared_here, home):
    """Its log comes back although its results are missing, and the pool does not put it on hold."""
    work = prepared_here.copy_to(home / "failing", **on_pool(pool_apart, "--retries", "0", profile="htcondor-transfer"))
    table = work.folder / "config/runs.tsv"
    table.write_text(table.read_text().replace("\t60\n", "\t59\n"))
    assert work.finish(work.start(MTZ)) != 0
    log = (work.folder / "logs/builtin/runs/frames/0000.peaks.log").read_text()
    assert "holds 60 frames, but the runs table" in log
    assert "is held" not in work.printed()
    assert not (work.folder / "results/builtin/runs/frames/0000.peaks.h5").exists()


def test_profile_for_a_shared_file_system_ends_with_a_message(pool_apart, prepared_here, home):
    """Where the machine does not see the folder its jobs fail at once and say so; nothing waits for ever."""
    work = prepared_here.copy_to(home / "shared", **on_pool(pool_apart, "--retries", "0"))
    assert work.finish(work.start(MTZ)) != 0
    assert "jobs ran on machines that do not see this folder" in work.printed()
    assert "--profile htcondor-transfer" in work.printed()
