"""The demo experiment on a real Slurm, as `snakemake --profile slurm` runs it from the folder of `sfxflow init`."""

import pytest
from work_folder import assert_same_results, on_slurm


@pytest.fixture(scope="module")
def work_on_slurm(slurm, prepared, tmp_path_factory):
    """The experiment processed on Slurm."""
    work = prepared.copy_to(tmp_path_factory.mktemp("slurm_run") / "work", **on_slurm(slurm, groups=()))
    work.snakemake()
    return work


def test_results_are_those_of_the_local_run(work_on_slurm, local_run):
    assert_same_results(work_on_slurm, local_run)


def test_slurm_ran_the_jobs(slurm, work_on_slurm):
    """Three stages of five chunks in one job, with the time of all fifteen; ambiguity, merging, export."""
    jobs = [job for job in slurm.finished_jobs() if job.get("WorkDir") == str(work_on_slurm.folder)]
    assert {(job["JobState"], job["ExitCode"]) for job in jobs} == {("COMPLETED", "0:0")}
    limits = sorted(job["TimeLimit"] for job in jobs)
    assert limits == sorted([str(5 * 3 * 5), "60", "120", "60"])
