"""The demo experiment on a real HTCondor pool, as `snakemake --profile htcondor` runs it from the folder of `sfxflow init`."""

import re

import pytest
from work_folder import assert_same_results, on_pool

#: Name of the job of a chunk: its group and its rules.
CHUNK = "chunk_builtin_indexing_builtin_integration_builtin_peaks"


@pytest.fixture(scope="module")
def on_htcondor(pool, prepared, tmp_path_factory):
    """The experiment processed on the pool, and the pool's own records of its jobs."""
    work = prepared.copy_to(tmp_path_factory.mktemp("htcondor_run") / "work", **on_pool(pool, groups=()))
    work.snakemake()
    return work, [job for job in pool.history() if job["Iwd"] == str(work.folder)]


def test_results_are_those_of_the_local_run(on_htcondor, local_run):
    assert_same_results(on_htcondor[0], local_run)


def test_the_pool_ran_the_jobs(on_htcondor):
    """One for the three stages of all five chunks, and those that are not short."""
    _, jobs = on_htcondor
    names = sorted(job["JobBatchName"].split("-")[0] for job in jobs)
    assert names == ["ambiguity", "builtin_merging", CHUNK, "export"]
    assert {job["ExitCode"] for job in jobs} == {0}
    assert all(job["LastRemoteHost"].startswith("slot1_") for job in jobs)


def test_jobs_ask_for_what_their_rules_state(on_htcondor):
    """Of the stages of five chunks, which run one after the other, the largest counts."""
    asked = {job["JobBatchName"].split("-")[0]: (job["RequestCpus"], job["RequestMemory"]) for job in on_htcondor[1]}
    assert asked[CHUNK] == (1, 2000)
    assert asked["builtin_merging"] == (8, 8000)
    assert {job["RequestDisk"] for job in on_htcondor[1]} == {1000 * 1024}


def test_stages_of_a_job_run_one_after_the_other(on_htcondor):
    """As it has one core."""
    (printed,) = on_htcondor[0].folder.glob(f".snakemake/htcondor/{CHUNK}/*.err")
    assert re.findall(r"^Execute (\d+) jobs", printed.read_text(), re.MULTILINE) == ["1"] * 15


def test_jobs_get_no_secrets(on_htcondor):
    """Of the submitting shell's variables those of the profile only; a job ad can be read by everybody."""
    allowed = {"PATH", "HOME", "LANG", "LC_ALL", "APPTAINER_CACHEDIR", "NUMBA_CACHE_DIR"}
    for job in on_htcondor[1]:
        assert {item.split("=")[0] for item in job["Environment"].split() if "=" in item} <= allowed
