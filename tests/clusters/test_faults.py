"""
What pools do to jobs, on a real pool: the merged data are those of the local run to the last bit, and the frame account is whole.
"""

import signal
import sys
import time
from pathlib import Path

import classad2
import faults
import pytest
from work_folder import FRAMES, MTZ, assert_same_results, on_pool

#: What is asked for here: all that is computed, without reports of it.
TARGETS = (MTZ, FRAMES)

#: Seconds until Snakemake gives up a held job.
HELD_TIMEOUT = 20

REMOVED = 3


@pytest.fixture(scope="module")
def troubled(pool, prepared, tmp_path_factory):
    """
    A run in which something happens to the job of each chunk: one is removed, of one the process is killed, of one the starter, one is
    held and released, one is held for good.
    """
    options = on_pool(pool, "--htcondor-held-timeout", HELD_TIMEOUT)
    work = prepared.copy_to(tmp_path_factory.mktemp("troubled") / "work", **options)
    process = work.start(*TARGETS)
    first = faults.apply(
        pool,
        work,
        process,
        {
            "0000": faults.remove,
            "0001": faults.kill_job,
            "0002": faults.kill_starter,
            "0003": faults.hold,
            "0004": faults.hold,
        },
    )
    give_up = time.monotonic() + 30
    while not {first["0003"], first["0004"]} <= {job["ClusterId"] for job in faults.jobs_of(pool, work, faults.HELD)}:
        assert time.monotonic() < give_up, work.printed()
        time.sleep(0.3)
    pool.call("condor_release", first["0003"])
    status = work.finish(process)
    assert status == 0, work.printed()
    held = faults.jobs_of(pool, work)
    for job in held:
        pool.call("condor_rm", job["ClusterId"])
    return Troubled(work, first, held, faults.records_of(pool, work))


class Troubled:
    """What came of it: folder, first job of each chunk, jobs that were still in the queue at the end, records of all."""

    def __init__(self, work, first, held, records):
        self.work, self.first, self.held, self.records = work, first, held, records

    def record(self, chunk):
        """The pool's record of the chunk's first job."""
        (record,) = [job for job in self.records if job["ClusterId"] == self.first[chunk]]
        return record

    def later(self, chunk):
        """The pool's records of the chunk's later jobs."""
        return [job for job in self.records if faults.chunk_of(job) == chunk and job["ClusterId"] != self.first[chunk]]


def test_results_after_trouble(troubled, local_run):
    assert_same_results(troubled.work, local_run)
    assert len(troubled.work.account()) == 120


def test_removed_job_is_submitted_again(troubled):
    assert troubled.record("0000")["JobStatus"] == REMOVED
    assert [job["ExitCode"] for job in troubled.later("0000")] == [0]


def test_killed_job_is_submitted_again(troubled):
    assert troubled.record("0001")["ExitSignal"] == signal.SIGKILL
    assert [job["ExitCode"] for job in troubled.later("0001")] == [0]


def test_job_without_its_starter_is_started_again_by_the_pool(troubled):
    record = troubled.record("0002")
    assert record["NumJobStarts"] == 2
    assert record["ExitCode"] == 0
    assert troubled.later("0002") == []


def test_released_job_goes_on(troubled):
    record = troubled.record("0003")
    assert record["NumHolds"] == 1
    assert record["ExitCode"] == 0
    assert troubled.later("0003") == []


def test_held_job_is_given_up_with_the_reason(troubled):
    """The reason is told while it waits; meanwhile the others went on."""
    assert f"HTCondor Cluster ID {troubled.first['0004']} is held: via condor_hold" in troubled.work.printed()
    assert [job["ClusterId"] for job in troubled.held] == [troubled.first["0004"]]
    (later,) = troubled.later("0004")
    assert later["ExitCode"] == 0
    assert troubled.record("0002")["JobStartDate"] < later["QDate"]


def test_the_pool_takes_away_what_was_given_up(troubled):
    """A minute after the profile's time-out; what was held until then."""
    (job,) = troubled.held
    expression = classad2.ExprTree(job["PeriodicRemove"].removeprefix("/Expr(").removesuffix(")/"))
    for status, seconds, removed in ((5, 1000, True), (5, 700, False), (2, 1000, False)):
        ad = classad2.ClassAd({"JobStatus": status, "EnteredCurrentStatus": int(time.time()) - seconds})
        assert expression.eval(ad) is removed


@pytest.fixture
def partly_done(pool, local_run, tmp_path):
    """A copy of the finished experiment without two of its chunks and without merged data, on the pool."""

    def make(*options):
        work = local_run.copy_to(tmp_path / "work", **on_pool(pool, *options))
        for chunk in ("0001", "0003"):
            for stage in ("peaks", "indexed", "integrated"):
                (work.folder / f"results/builtin/runs/frames/{chunk}.{stage}.h5").unlink()
        for path in (MTZ, FRAMES):
            (work.folder / path).unlink()
        return work

    return make


def for_chunks(resource):
    """Options that set a resource of the stages of a chunk."""
    stages = ("builtin_peaks", "builtin_indexing", "builtin_integration")
    return ("--set-resources", *(f"{stage}:{resource}" for stage in stages), "--")


#: `sfxflow` that holds 300 MB for some seconds first: the pool looks at a job's memory every few seconds only.
GREEDY = """\
#!{python} -SE
import os, sys, time
if sys.argv[1] == "peaks":
    held = b"x" * 300_000_000
    time.sleep(12)
os.execv("{sfxflow}", ["{sfxflow}", *sys.argv[1:]])
"""


def test_job_over_its_memory_gets_more(pool, partly_done, local_run):
    """The pool holds it; it is given up and submitted with twice the memory, again if need be."""
    work = partly_done("--htcondor-held-timeout", "5", *for_chunks("mem_mb=200"))
    greedy = work.folder / "bin/sfxflow"
    greedy.parent.mkdir()
    greedy.write_text(GREEDY.format(python=sys.executable, sfxflow=Path(sys.executable).with_name("sfxflow")))
    greedy.chmod(0o755)
    work.environment["PATH"] = f"{greedy.parent}:{work.environment['PATH']}"
    work.snakemake(*TARGETS)
    assert_same_results(work, local_run)
    assert "is held: " in work.printed()
    held = faults.jobs_of(pool, work)
    for job in held:
        assert job["HoldReasonCode"] == 34 or "memory" in job["HoldReason"], job["HoldReason"]
        pool.call("condor_rm", job["ClusterId"])
    done = [record for record in faults.records_of(pool, work) if faults.chunk_of(record)]
    asked = {
        chunk: sorted(job["RequestMemory"] for job in done if faults.chunk_of(job) == chunk)
        for chunk in ("0001", "0003")
    }
    assert all(values in ([200, 400], [200, 400, 800]) for values in asked.values()), asked


def test_restart_of_the_pool_in_the_middle(pool, partly_done, local_run):
    """Jobs are out of reach then; when their lease is over, the pool starts them again."""
    work = partly_done(*for_chunks("htcondor_submit_job_lease_duration=20"))
    process = work.start(*TARGETS)
    job = faults.wait_for_running_job(pool, work, process)
    pool.stop_daemons()
    pool.start_daemons()
    assert work.finish(process) == 0, work.printed()
    assert_same_results(work, local_run)
    (record,) = [other for other in pool.history() if other["ClusterId"] == job["ClusterId"]]
    assert record["JobLeaseDuration"] == 20
    assert record["NumShadowStarts"] >= 2
    assert record["ExitCode"] == 0


def test_killed_snakemake_is_started_again(pool, partly_done, local_run):
    """Its job goes on, and is removed as docs/clusters.md says before the next one starts. Here both chunks are one job."""
    work = partly_done("--group-components", "chunk=2", "--retries", "2")
    process = work.start(*TARGETS)
    job = faults.wait_for_running_job(pool, work, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert work.finish(work.start(*TARGETS)) != 0
    assert "--unlock" in work.printed()
    pool.call("condor_rm", "-constraint", f'Iwd == "{work.folder}"')
    faults.wait_until_gone(pool, work)
    work.snakemake("--unlock")
    work.snakemake(*TARGETS)
    assert_same_results(work, local_run)
    first, *others = sorted(faults.records_of(pool, work), key=lambda record: record["ClusterId"])
    assert first["ClusterId"] == job["ClusterId"]
    assert first["JobStatus"] == REMOVED
    assert {record["ExitCode"] for record in others} == {0}
    # One chunk after the other.
    again = [record for record in others if faults.chunk_of(record)]
    assert [(record["RequestCpus"], record["RequestMemory"]) for record in again] == [(1, 2000)]
