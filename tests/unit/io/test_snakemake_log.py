from sfxflow.io.snakemake_log import FailedJob, failed_jobs, refusals, steps

#: Of Snakemake 9.27 with the HTCondor plug-in: a group that failed, a job that did, and the same job once more.
LOG = """\
rule solo:
    output: b
    log: logs/b.log
    jobid: 2
[Sat Nov 21 14:59:03 2026]
    message: Error in group chunk
    jobs:
        rule bad:
            jobid: 1
            output: a, a.extra
            log: logs/a.log (check log file(s) for error details)
Logfile logs/a.log:
================================
Error in rule invented:
    message: by what the job printed
sfxflow peaks: geometry is wrong
================================
        rule after:
            jobid: 3
            input: a
            output: c
            log: logs/c.log (check log file(s) for error details)
Logfile logs/c.log not found.
    [Sat Nov 21 14:59:03 2026]
    Error in rule bad:
        message: None
        jobid: 1
        output: a, a.extra
        log: logs/a.log (check log file(s) for error details)
        shell:
            exit 1
            (command exited with non-zero exit code)
    Logfile logs/a.log: empty file
3 of 10 steps (30%) done
[Sat Nov 21 14:59:03 2026]
Error in rule solo:
    message: Job 2 with HTCondor Cluster ID 2 was removed/aborted.
    jobid: 2
    output: b
    log: logs/b.log (check log file(s) for error details)
Trying to restart job 2.
Error in rule solo:
    message: Job 2 with HTCondor Cluster ID 3 completed but failed with ExitCode 1.
    jobid: 2
    output: b
    log: logs/b.log (check log file(s) for error details)
Error in rule silent:
    message: None
    jobid: 9
    output: d
4 of 10 steps (40%) done
"""


def test_failed_jobs():
    """A group is one job with all that its members write; of a job that was repeated the last word counts; shown logs do not."""
    group, solo, silent = failed_jobs(LOG)
    assert group == FailedJob("chunk bad after", "", ("a", "a.extra", "c"), ("logs/a.log", "logs/c.log"))
    assert solo.message == "Job 2 with HTCondor Cluster ID 3 completed but failed with ExitCode 1."
    assert (solo.outputs, solo.logs) == (("b",), ("logs/b.log",))
    assert silent == FailedJob("silent", "", ("d",), ())


def test_steps():
    assert steps(LOG) == (4, 10)
    assert steps("") == (0, 0)


def test_refusals():
    text = "WorkflowError:\nFailed to submit HTCondor job: no\n    message: SLURM sbatch failed. The error message was 'x'.\nok\n"
    assert refusals(text) == [
        "Failed to submit HTCondor job: no",
        "message: SLURM sbatch failed. The error message was 'x'.",
    ]
    assert refusals(LOG) == []
