"""The queues, with programs that stand in for the clusters' own; tests/clusters has real ones."""

import json
import os

import pytest

from sfxflow.clusters.queues import (
    CLUSTERS,
    HELD,
    RUNNING,
    WAITING,
    Job,
    Unreachable,
    answer_of,
    missing_program,
    removed,
)

ADS = [
    {"ClusterId": 7, "ProcId": 0, "JobStatus": 1, "Args": "-m snakemake --snakefile S", "RequestCpus": 4, "RequestMemory": 4000, "RequestDisk": 2048},
    {"ClusterId": 8, "ProcId": 0, "JobStatus": 5, "HoldReason": "why", "Args": "-m snakemake --snakefile S", "RequestMemory": "/Expr(x)/"},
    {"ClusterId": 9, "ProcId": 0, "JobStatus": 3, "Args": "-m snakemake --snakefile S"},
    {"ClusterId": 10, "ProcId": 0, "JobStatus": 2, "Args": "somebody's own"},
]  # fmt: skip

ROWS = """\
11|RUNNING|4|4000M|rule_export|None|/w
12|PENDING|4|4000M|rule_export|Priority|/w
13|PENDING|4|4000M|rule_export|JobHeldUser|/w
14|RUNNING|1|1G|rule_export|None|/other
15|RUNNING|1|1G|(null)|None|/w
16|COMPLETING|1|1G|rule_peaks_wildcards_a|b|None|/w
"""


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Make programs that alone are on the search path, from name and what they do; their arguments are kept in the file `calls`."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def make(name, text):
        (tmp_path / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {tmp_path}/calls\n{text}\n')
        (tmp_path / name).chmod(0o755)
        return tmp_path / "calls"

    return make


def test_jobs_of_htcondor(programs):
    """Held and waiting are told apart, a removed one still works; what somebody submitted by hand is not Snakemake's."""
    calls = programs("condor_q", f"/bin/cat <<'E'\n{json.dumps(ADS)}\nE")
    jobs = CLUSTERS["htcondor"].jobs('/w "x"')
    assert jobs == [
        Job("7.0", WAITING, "", {"cores": 4, "memory": 4000, "disk": 2}),
        Job("8.0", HELD, "why", {}),
        Job("9.0", RUNNING, "", {}),
    ]
    assert 'Iwd == "/w \\"x\\""' in calls.read_text()


def test_empty_queue_of_htcondor(programs):
    programs("condor_q", "exit 0")
    assert CLUSTERS["htcondor"].jobs("/w") == []


def test_jobs_of_slurm(programs):
    calls = programs("squeue", f"/bin/cat <<'E'\n{ROWS}E")
    jobs = CLUSTERS["slurm"].jobs("/w")
    assert [(job.number, job.state, job.reason) for job in jobs] == [
        ("11", RUNNING, ""),
        ("12", WAITING, "Priority"),
        ("13", HELD, "JobHeldUser"),
    ]
    assert jobs[0].asks == {"cores": 4, "memory": "4000M"}
    assert f"--user={os.getuid()}" in calls.read_text()


def test_program_that_fails(programs):
    programs("condor_q", "echo 'no  schedd' >&2; exit 1")
    with pytest.raises(Unreachable, match="^no schedd$"):
        CLUSTERS["htcondor"].jobs("/w")


def test_program_that_fails_without_a_word(programs):
    programs("sinfo", "exit 3")
    with pytest.raises(Unreachable, match="sinfo ended with status 3 and no message"):
        CLUSTERS["slurm"].ask()


def test_slurm_without_partitions(programs):
    programs("sinfo", "exit 0")
    with pytest.raises(Unreachable, match="sinfo lists no partition"):
        CLUSTERS["slurm"].ask()


def test_program_that_hangs(programs):
    programs("squeue", "exec /bin/sleep 30")
    with pytest.raises(Unreachable, match="squeue did not answer in 0.3 s"):
        answer_of(["squeue"], 0.3)


def test_programs_that_are_missing(programs):
    programs("condor_q", "")
    programs("condor_rm", "")
    assert missing_program(CLUSTERS["htcondor"]) == "condor_status"
    assert missing_program(CLUSTERS["slurm"]) == "sbatch"
    with pytest.raises(Unreachable, match="squeue: No such file"):
        CLUSTERS["slurm"].jobs("/w")


def test_removal_waits_until_jobs_are_gone(programs, tmp_path):
    """The queue lists them once more after they were removed."""
    line = "11|RUNNING|4|4000M|rule_export|None|/w"
    programs(
        "squeue",
        f"test -e {tmp_path}/second && exit 0; test -e {tmp_path}/cancelled && : > {tmp_path}/second; echo '{line}'",
    )
    calls = programs("scancel", f": > {tmp_path}/cancelled")
    found, left = removed(CLUSTERS["slurm"], "/w", patience=10, pause=0.01)
    assert ([job.number for job in found], left) == (["11"], [])
    asked = [line.split()[0] for line in calls.read_text().splitlines()]
    assert asked == ["squeue", "scancel", "squeue", "squeue"]


def test_removal_that_does_not_work(programs):
    programs("squeue", "echo '11|COMPLETING|4|4000M|rule_export|None|/w'")
    programs("scancel", "")
    found, left = removed(CLUSTERS["slurm"], "/w", patience=0.2, pause=0.05)
    assert found == left != []
