"""The demo experiment on a real HTCondor pool, as `snakemake --profile htcondor` runs it from the folder of `sfxflow init`."""

import pytest
from work_folder import assert_same_results, on_pool


@pytest.fixture(scope="module")
def on_htcondor(pool, prepared, tmp_path_factory):
    """The experiment processed on the pool, and the pool's own records of its jobs."""
    work = prepared.copy_to(tmp_path_factory.mktemp("htcondor_run") / "work", **on_pool(pool))
    work.snakemake()
    return work, [job for job in pool.history() if job["Iwd"] == str(work.folder)]


def test_results_are_those_of_the_local_run(on_htcondor, local_run):
    assert_same_results(on_htcondor[0], local_run)


def test_the_pool_ran_the_jobs(on_htcondor):
    _, jobs = on_htcondor
    names = sorted(job["JobBatchName"].split("-")[0] for job in jobs)
    assert names == []
    assert {job["ExitCode"] for job in jobs} == {0}
    assert all("slot1" in job["LastRemoteHost"] for job in jobs)
