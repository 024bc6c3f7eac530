import pytest

from sfxflow.clusters.verdict import own_fault

EXITED = "Job 2 with HTCondor Cluster ID 2 completed but failed with ExitCode 1."


@pytest.mark.parametrize(
    ("printed", "cause"),
    [
        ("sfxflow peaks: det.geom: no panels\n", "sfxflow peaks: det.geom: no panels"),
        ("10 of 20\nsfxflow check-lock: moved\n", "sfxflow check-lock: moved"),
        ("Traceback (most recent call last):\n  File x\nKeyError: 'cell'\n", "KeyError: 'cell'"),
    ],
)
def test_job_that_says_why(printed, cause):
    assert own_fault(EXITED, printed) == cause
    assert own_fault("", printed) == cause


@pytest.mark.parametrize(
    "printed",
    [
        None,
        "",
        "100 of 2000 frames\n",
        "sfxflow peaks: x.h5: No space left on device\n",
        "/bin/bash: line 1: sfxflow: command not found\n",
        "ModuleNotFoundError: No module named 'numba'\n",
        "line 1: 4242 Killed  sfxflow peaks\n",
        "OSError: [Errno 5] Input/output error\n",
        "numpy._core._exceptions._ArrayMemoryError: Unable to allocate\nMemoryError: x\n",
        "FATAL:   while extracting image: root filesystem extraction failed\n",
    ],
)
def test_machine_that_is_to_blame(printed):
    """Also where the command never started, or was cut off."""
    assert own_fault(EXITED, printed) == ""


@pytest.mark.parametrize(
    "message",
    [
        "Job 2 with HTCondor Cluster ID 2 was removed/aborted.",
        "Job 2 with HTCondor Cluster ID 2 is held: memory usage exceeded request_memory",
        "Job 2 with HTCondor Cluster ID 2 has been held for 0.2 hours (timeout: 0.2 hours). Hold reason: x",
        "Job 2 with HTCondor Cluster ID 2 was terminated by signal 9.",
        "SLURM-job '3' failed, SLURM status is: 'TIMEOUT'. Reason: x",
        "SLURM-job '3' failed due to a node failure, SLURM status is: 'NODE_FAIL'. ",
        "SLURM sbatch failed. The error message was 'sbatch: error: invalid partition'",
    ],
)
def test_cluster_that_says_it_did_it(message):
    """Whatever an earlier attempt of the job had printed."""
    assert own_fault(message, "sfxflow peaks: det.geom: no panels\n") == ""


def test_only_what_was_printed_last_counts():
    assert own_fault("", "No space left on device\n" + 4000 * "." + "\nsfxflow peaks: no panels\n")
