"""`sfxflow run` on a real pool and a real Slurm: other clusters are tried, interrupted runs are gone on with, no job works twice at once."""

import re
import signal

import faults
import pytest
from tiny_workflow import Tiny, attempts, kill_all, sfxflow_run, start_run, wait_until
from work_folder import EACH_CHUNK, FRAMES, LOOK, MTZ, assert_same_results, on_pool

POLL = (*EACH_CHUNK, *LOOK)


@pytest.fixture
def tiny(pool, tmp_path):
    """The workflow of two jobs on the pool; `slowly` is what the first does."""
    return lambda slowly="true": Tiny(
        tmp_path / "work", slowly, environment=pool.environment, wrap=on_pool(pool)["wrap"]
    )


def test_first_profile_that_works_is_the_only_one(pool, tiny):
    work = tiny()
    assert sfxflow_run(work, "--profiles", "htcondor,local", *POLL) == 0, work.printed()
    (row,) = attempts(work)
    assert (row["profile"], row["outcome"], row["steps_done"], row["steps"]) == ("htcondor", "finished", "3", "3")
    assert len([job for job in pool.history() if job["Iwd"] == str(work.folder)]) == 2
    assert not (work.folder / ".snakemake/sfxflow_run.json").exists()


def test_pool_that_holds_all_jobs(pool, tiny):
    """The held job is taken away, so that nobody who releases it later has two write one file."""
    work = tiny()
    work.profile("holds", "htcondor", [("default-resources:", "default-resources:\n  htcondor_submit_hold: True")])
    assert sfxflow_run(work, "--profiles", "holds,local", "--held-limit", "0.05", *POLL) == 0, work.printed()
    first, second = attempts(work)
    assert (first["profile"], first["outcome"], second["profile"], second["outcome"]) == (
        "holds",
        "cluster",
        "local",
        "finished",
    )
    assert re.match(r"all 1 jobs have been held for \d+ s: submitted on hold", first["reason"])
    assert faults.jobs_of(pool, work) == []
    assert work.counts() == [1, 1]


def test_jobs_that_wait_too_long(pool, tiny):
    work = tiny()
    work.profile("waits", "htcondor", added="set-resources:\n  first:\n    htcondor_request_mem_mb: 900000\n")
    assert sfxflow_run(work, "--profiles", "waits,local", "--queue-limit", "0.1", *POLL) == 0, work.printed()
    assert re.match(r"1 jobs have waited for \d+ s and none runs", attempts(work)[0]["reason"])
    assert faults.jobs_of(pool, work) == []


def test_job_that_fails_by_itself_ends_the_run(pool, tiny):
    """It would fail on any cluster; what it said is repeated."""
    work = tiny("echo 'sfxflow peaks: detector.geom: no panels'; exit 1")
    assert sfxflow_run(work, "--profiles", "htcondor,local", "--retries", "0", *POLL) == 1
    (row,) = attempts(work)
    assert row["outcome"] == "failed"
    assert row["reason"] == "first failed by itself, as it would anywhere: sfxflow peaks: detector.geom: no panels"
    assert "no other profile is tried" in work.printed()


def test_job_whose_machine_is_to_blame_moves_on(tiny):
    """Only the first machine has no room."""
    work = tiny("test -e tried || (touch tried; echo 'sfxflow peaks: x.h5: No space left on device'; exit 1)")
    assert sfxflow_run(work, "--profiles", "htcondor,local", "--retries", "0", *POLL) == 0, work.printed()
    assert [row["outcome"] for row in attempts(work)] == ["cluster", "finished"]
    assert work.counts() == [2, 1]


def test_interrupted_by_the_user(pool, tiny):
    """Ctrl-C, or SIGTERM: jobs are removed, the same command goes on."""
    for number in (signal.SIGINT, signal.SIGTERM):
        work = Tiny(
            pool.folder.parent / f"interrupted_{number}",
            "sleep 15",
            environment=pool.environment,
            wrap=on_pool(pool)["wrap"],
        )
        process = start_run(work, "--profiles", "htcondor", *POLL)
        wait_until(lambda work=work: work.counts() == [1, 0], work)
        process.send_signal(number)
        assert work.finish(process) == 130, work.printed()
        assert faults.jobs_of(pool, work) == []
        assert attempts(work)[-1]["outcome"] == "interrupted"
    assert sfxflow_run(work, "--profiles", "htcondor", *POLL) == 0, work.printed()
    assert work.counts() == [2, 1]


@pytest.fixture
def without_chunks(pool, local_run, tmp_path):
    """The finished experiment without two of its chunks and without merged data, on the pool."""
    work = local_run.copy_to(tmp_path / "work", environment=pool.environment, wrap=on_pool(pool)["wrap"])
    for chunk in ("0001", "0003"):
        for stage in ("peaks", "indexed", "integrated"):
            (work.folder / f"results/builtin/runs/frames/{chunk}.{stage}.h5").unlink()
    for path in (MTZ, FRAMES):
        (work.folder / path).unlink()
    return work


def test_killed_run_is_gone_on_with(pool, without_chunks, local_run):
    """Its job is taken away before a new one computes the same chunk; meanwhile nobody else may begin."""
    work = without_chunks
    process = start_run(work, "--profiles", "htcondor,local", *POLL, MTZ, FRAMES)
    job = faults.wait_for_running_job(pool, work, process)
    assert sfxflow_run(work, "--profiles", "local", MTZ) == 1
    assert "`sfxflow run` works here (process" in work.printed()
    kill_all(process)
    assert job["ClusterId"] in [other["ClusterId"] for other in faults.jobs_of(pool, work)]
    assert sfxflow_run(work, "--profiles", "htcondor,local", *POLL, MTZ, FRAMES) == 0, work.printed()
    assert_same_results(work, local_run)
    records = [other for other in pool.history() if other["Iwd"] == str(work.folder)]
    (old,) = [other for other in records if other["ClusterId"] == job["ClusterId"]]
    assert old["JobStatus"] == 3
    chunk = faults.chunk_of(job)
    later = [other for other in records if faults.chunk_of(other) == chunk and other["ClusterId"] != job["ClusterId"]]
    assert [other["ExitCode"] for other in later] == [0]
    assert all(other["QDate"] >= old["EnteredCurrentStatus"] for other in later)


def test_pool_that_goes_away_in_the_middle(pool, without_chunks, local_run):
    """The rest is computed here. What the pool still has in its queue when it comes back is taken away by the next run."""
    work = without_chunks
    limits = ("--unreachable-limit", "0.1")
    # The pool that is back gives up the workers of before when the lease is over.
    profile = work.folder / "htcondor/profile.yaml"
    profile.write_text(profile.read_text().replace("lease_duration: 600", "lease_duration: 20"))
    process = start_run(work, "--profiles", "htcondor,local", *limits, *POLL, MTZ, FRAMES)
    job = faults.wait_for_running_job(pool, work, process)
    pool.stop_daemons()
    try:
        assert work.finish(process) == 0, work.printed()
    finally:
        pool.start_daemons()
    assert_same_results(work, local_run)
    first, second = attempts(work)
    assert (first["outcome"], second["profile"], second["outcome"]) == ("cluster", "local", "finished")
    assert "its queue has not answered for" in first["reason"]
    assert "its jobs could not be removed" in first["reason"]
    assert sfxflow_run(work, "--profiles", "local", MTZ, FRAMES) == 0, work.printed()
    assert job["ClusterId"] not in [other["ClusterId"] for other in faults.jobs_of(pool, work)]
    assert_same_results(work, local_run)


# ---- Slurm


@pytest.fixture
def tiny_on_slurm(slurm, tmp_path):
    """The workflow of two jobs on Slurm."""

    def make(slowly="true"):
        work = Tiny(tmp_path / "work", slowly, environment=slurm.environment)
        site = "slurm-status-command: squeue\nslurm-no-account: true\n"
        changes = [("slurm-init-seconds-before-status-checks: 10", "slurm-init-seconds-before-status-checks: 1")]
        work.profile("site", "slurm", changes, site)
        work.profile("wrong", "slurm", [*changes, ('# slurm_partition: "name" ', 'slurm_partition: "nowhere" ')], site)
        return work

    return make


def test_slurm_that_refuses_jobs(tiny_on_slurm):
    work = tiny_on_slurm()
    assert sfxflow_run(work, "--profiles", "wrong,local", "--retries", "0", *POLL) == 0, work.printed()
    first, second = attempts(work)
    assert (first["outcome"], second["outcome"]) == ("cluster", "finished")
    assert "partition" in first["reason"]


def test_killed_run_on_slurm_is_gone_on_with(slurm, tiny_on_slurm):
    work = tiny_on_slurm("sleep 12")
    process = start_run(work, "--profiles", "site", *POLL)
    wait_until(lambda: work.counts() == [1, 0], work)
    kill_all(process)
    assert sfxflow_run(work, "--profiles", "site", *POLL) == 0, work.printed()
    assert "1 jobs that were left on slurm have been removed" in work.printed()
    states = [job["JobState"] for job in slurm.finished_jobs() if job.get("WorkDir") == str(work.folder)]
    assert sorted(states) == ["CANCELLED", "COMPLETED", "COMPLETED"]
    assert work.counts() == [2, 1]
