"""`sfxflow run` on this machine, with programs that stand in for clusters; tests/clusters has real ones."""

import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("snakemake", reason="Snakemake is not installed")

from sfxflow.cli import main, run
from sfxflow.io.attempts import PATH as ATTEMPTS
from sfxflow.io.attempts import read_attempts
from sfxflow.io.run_lock import PATH as LOCK

SNAKEFILE = """
rule out:
    output: "out"
    log: "logs/out.log"
    shell: "(echo start >> count; {does}) > {{log}} 2>&1"
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a workflow of one job; `does` is its command."""
    monkeypatch.chdir(tmp_path)
    Path("local").mkdir()
    Path("local/profile.yaml").write_text("executor: local\ncores: 1\nrerun-incomplete: true\n")

    def make(does="touch {output}"):
        Path("Snakefile").write_text(SNAKEFILE.format(does=does))
        return tmp_path

    return make


def profile(name, executor):
    Path(name).mkdir()
    Path(name, "profile.yaml").write_text(f"executor: {executor}\njobs: 1\n")


def program(folder, monkeypatch, name, text):
    """A program of a cluster, first on the search path."""
    path = folder / "bin"
    path.mkdir(exist_ok=True)
    (path / name).write_text(f"#!/bin/sh\n{text}\n")
    (path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{path}:{os.environ['PATH']}")


def test_one_profile(folder, capfd):
    folder()
    assert main(["run", "--profiles", "local"]) == 0
    (row,) = read_attempts()
    assert (row["profile"], row["executor"], row["outcome"], row["steps_done"], row["steps"]) == (
        *("local", "local", "finished"),
        *("1", "1"),
    )
    assert Path(row["log"]).exists()
    assert not LOCK.exists()


def test_profile_without_its_plug_in(folder, capfd):
    folder()
    profile("cloud", "no-such-executor")
    assert main(["run", "--profiles", "cloud,local"]) == 0
    first, second = read_attempts()
    assert first["outcome"] == "cluster"
    assert "plug-in for no-such-executor is not installed: python -m pip install" in first["reason"]
    assert second["outcome"] == "finished"
    assert "cloud could not finish: Snakemake's plug-in" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ('File specified in CONDOR_CONFIG environment variable: "/x" does not exist.', "HTCondor has no configuration"),
        ("Error: the condor_schedd is not running", "no schedd answers"),
    ],
)
def test_pool_that_can_not_be_reached(folder, monkeypatch, said, words):
    """Nothing is submitted then."""
    pytest.importorskip("snakemake_executor_plugin_htcondor", reason="the htcondor plug-in is not installed")
    where = folder()
    profile("htcondor", "htcondor")
    for name in ("condor_q", "condor_rm", "condor_status"):
        program(where, monkeypatch, name, f"echo '{said}' >&2; exit 1")
    assert main(["run", "--profiles", "htcondor"]) == 1
    (row,) = read_attempts()
    assert row["outcome"] == "cluster"
    assert row["reason"].startswith(words)
    assert row["log"] == ""


def test_job_that_fails_by_itself(folder, capfd):
    """The other profile is not tried: it would fail there too."""
    folder("echo 'sfxflow peaks: no panels'; exit 1")
    profile("local2", "local")
    assert main(["run", "--profiles", "local,local2"]) == 1
    (row,) = read_attempts()
    assert (row["outcome"], row["reason"]) == (
        "failed",
        "out failed by itself, as it would anywhere: sfxflow peaks: no panels",
    )


def test_workflow_that_can_not_be_planned(folder, capfd):
    """A wrong Snakefile is wrong on every cluster."""
    folder()
    Path("Snakefile").write_text("rule out:\n    input: 'missing'\n    output: 'out'\n    shell: 'true'\n")
    profile("local2", "local")
    assert main(["run", "--profiles", "local,local2"]) == 1
    (row,) = read_attempts()
    assert row["reason"] == "Snakemake ended with status 1"


def start(where, *argv):
    """Start `sfxflow run` beside this process, and wait until its job works."""
    process = subprocess.Popen(
        [sys.executable, "-c", "from sfxflow.cli import main; raise SystemExit(main())", "run", "--grace", "10", *argv],
        cwd=where,
        start_new_session=True,
    )
    give_up = time.monotonic() + 60
    while not (where / "count").exists():
        assert time.monotonic() < give_up
        assert process.poll() is None
        time.sleep(0.1)
    return process


def test_killed_run_is_gone_on_with(folder, capfd):
    """Of the killed one a process still works, which would write the same file: it is ended; and Snakemake's lock is left."""
    import psutil

    where = folder("test $(wc -l < count) -gt 1 || sleep 50; touch {output}")
    process = start(where)
    (snakemake,) = (child for child in psutil.Process(process.pid).children() if "snakemake" in child.cmdline())
    process.kill()
    process.wait()
    left = [child.pid for child in snakemake.children(recursive=True)]
    assert main(["run"]) == 1
    assert f"a Snakemake that `sfxflow run` has started works here (process {snakemake.pid})" in capfd.readouterr().err
    snakemake.kill()
    snakemake.wait(10)
    assert list((where / ".snakemake/locks").iterdir())
    assert any(psutil.pid_exists(pid) for pid in left)
    assert main(["run"]) == 0
    said = capfd.readouterr().err
    assert "processes that were left on this machine are ended" in said
    assert "Snakemake's lock of the interrupted run has been taken away" in said
    assert not any(psutil.pid_exists(pid) for pid in left)
    assert (where / "count").read_text() == "start\nstart\n"
    assert read_attempts(where / ATTEMPTS)[-1]["outcome"] == "finished"


def test_interruption(folder):
    """By SIGTERM, as at a shutdown; Ctrl-C: tests/unit/clusters/test_attempt.py."""
    where = folder("test $(wc -l < count) -gt 1 || sleep 50; touch {output}")
    process = start(where)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 130
    assert [row["outcome"] for row in read_attempts(where / ATTEMPTS)] == ["interrupted"]
    assert not (where / LOCK).exists()
    assert main(["run"]) == 0


def test_interrupted_run_whose_cluster_does_not_answer(folder, monkeypatch, capfd):
    """Its jobs may still write the same files."""
    where = folder()
    LOCK.parent.mkdir()
    gone = '{"pid": 1, "started": 1.0}'
    text = f'{{"host": "{platform.node()}", "run": {gone}, "snakemake": {gone}, "executors": ["htcondor"]}}'
    LOCK.write_text(text)
    for name in ("condor_q", "condor_rm", "condor_status"):
        program(where, monkeypatch, name, "echo 'no schedd' >&2; exit 1")
    assert main(["run"]) == 1
    assert "jobs of the interrupted run may still work on htcondor, which does not answer" in capfd.readouterr().err
    assert '"executors": ["htcondor"]' in LOCK.read_text()
    # As if the one above had not been this process.
    LOCK.write_text(text)
    assert main(["run", "--take-over"]) == 0
    assert not LOCK.exists()


def test_jobs_that_can_not_be_ended(folder, monkeypatch, capfd):
    """Of an interrupted run: nothing is started beside them, and the next start looks again."""
    where = folder()
    LOCK.parent.mkdir()
    gone = '{"pid": 1, "started": 1.0}'
    LOCK.write_text(f'{{"host": "{platform.node()}", "run": {gone}, "snakemake": {gone}, "executors": ["slurm"]}}')
    for name in ("sbatch", "scancel", "sinfo"):
        program(where, monkeypatch, name, "exit 0")
    program(where, monkeypatch, "squeue", f"echo '11|COMPLETING|4|4G|rule_out|None|{where}'")
    real = run.removed
    monkeypatch.setattr(run, "removed", lambda cluster, folder: real(cluster, folder, 0.3, 0.1))
    assert main(["run"]) == 1
    said = capfd.readouterr().err
    assert "1 jobs of this folder can't be ended on slurm: 11; two jobs must not write one result" in said
    assert "scancel --signal=KILL" in said
    assert LOCK.exists()
    assert not (where / "count").exists()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--profile", "local"], "--profile: not with `sfxflow run`: --profiles"),
        (["--unlock"], "--unlock: not with `sfxflow run`"),
        (["--nolock"], "--nolock: not with `sfxflow run`"),
        (["--directory", "x"], "--directory: not with `sfxflow run`: start Snakemake in that folder"),
        (["--profiles", ","], "--profiles: a name or several"),
        (["--profiles", "nowhere"], "profile nowhere: there is no folder or file of that name here"),
        (["--profiles", "broken"], "broken/profile.yaml: can't be read as YAML"),
        (["--profiles", "text"], "text/profile.yaml: keys and values are expected"),
    ],
)
def test_bad_input(folder, capsys, argv, words):
    folder()
    for name, text in (("broken", "a: [\n"), ("text", "just text\n")):
        Path(name).mkdir()
        Path(name, "profile.yaml").write_text(text)
    assert main(["run", *argv]) == 1
    assert words in capsys.readouterr().err
    assert not LOCK.exists()


def test_dry_run(folder, capfd):
    """Nothing is looked for, cleaned up or written down."""
    where = folder()
    (where / ".snakemake/locks").mkdir(parents=True)
    (where / ".snakemake/locks/0.input.lock").write_text("x")
    code = "from sfxflow.cli import main; raise SystemExit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "run", "-n", "--nolock"], capture_output=True, text=True, check=False
    )
    assert "--nolock: not with" in done.stderr
    done = subprocess.run([sys.executable, "-c", code, "run", "-n"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "rule out:" in done.stdout + done.stderr
    assert not LOCK.exists()
    assert not ATTEMPTS.exists()


def test_limit_that_is_none(folder, capsys):
    folder()
    with pytest.raises(SystemExit):
        main(["run", "--queue-limit", "0"])
    assert "0: a number of minutes, more than 0, is expected" in capsys.readouterr().err


def test_options_of_other_commands_are_still_checked(capsys):
    """Only `sfxflow run` hands on what it does not know."""
    with pytest.raises(SystemExit):
        main(["doctor", "--no-such-option"])
    assert "unrecognized arguments: --no-such-option" in capsys.readouterr().err
