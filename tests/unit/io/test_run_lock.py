import json
import os
import platform
import subprocess
import sys
import threading

import pytest

pytest.importorskip("psutil", reason="it comes with Snakemake, which is not installed")

from sfxflow.errors import InputError
from sfxflow.io import run_lock
from sfxflow.io.run_lock import (
    MARK,
    PATH,
    identity,
    lives,
    processes_left,
    read_lock,
    remove_lock,
    take_over,
    write_lock,
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sleeper(*argv, **options):
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", *argv], **options)


@pytest.fixture
def other():
    """Another process that lives."""
    process = sleeper()
    yield process
    process.kill()
    process.wait()


def interrupted(**changes):
    """Write what a killed run leaves behind."""
    gone = {"pid": os.getpid(), "started": 1.0}
    PATH.parent.mkdir(exist_ok=True)
    PATH.write_text(json.dumps({"host": platform.node(), "run": gone, "snakemake": gone, "executors": []} | changes))


def snakemake_lock(folder):
    (folder / ".snakemake/locks").mkdir(parents=True)
    (folder / ".snakemake/locks/0.input.lock").write_text("x")


def test_first_run_of_a_folder():
    assert take_over() is None
    assert read_lock()["run"]["pid"] == os.getpid()
    remove_lock()
    assert read_lock() is None


def test_number_of_a_process_is_used_again(other):
    """The same number with another start is another process."""
    assert lives(identity(other.pid))
    assert not lives({"pid": other.pid, "started": 1.0})
    assert not lives({})
    other.kill()
    other.wait()
    assert not lives(identity_of_gone(other.pid))


def identity_of_gone(pid):
    return {"pid": pid, "started": 1.0}


def test_interrupted_run_is_taken_over(folder):
    """Its Snakemake's locks are no obstacle; where its jobs may be stays written down."""
    snakemake_lock(folder)
    interrupted(executors=["htcondor"])
    left = take_over()
    assert left["executors"] == ["htcondor"]
    assert read_lock()["executors"] == ["htcondor"]
    assert read_lock()["run"]["pid"] == os.getpid()


@pytest.mark.parametrize(
    ("who", "words"), [("run", "`sfxflow run` works here"), ("snakemake", "a Snakemake that `sfxflow run` has started")]
)
def test_run_that_lives(other, who, words):
    """Also where only its Snakemake has survived."""
    interrupted(**{who: identity(other.pid)})
    with pytest.raises(InputError, match=f"{words}.* \\(process {other.pid}\\): wait for it, or end it: kill -INT"):
        take_over()


def test_run_of_another_machine():
    interrupted(host="login2")
    with pytest.raises(InputError, match="started here on login2.*start on login2.*--take-over"):
        take_over()
    assert take_over(force=True)["host"] == "login2"


def test_lock_that_can_not_be_read(folder):
    """It is a run that was interrupted, nobody knows where; unless a Snakemake is there."""
    PATH.parent.mkdir()
    PATH.write_text("{ half")
    assert take_over() == {}


def test_snakemake_that_somebody_started_by_hand(folder):
    process = sleeper("snakemake", cwd=folder)
    try:
        with pytest.raises(InputError, match=f"a Snakemake works here \\(process {process.pid}\\)"):
            take_over()
        assert read_lock() is None
    finally:
        process.kill()
        process.wait()


def test_snakemake_of_a_job_is_none(folder):
    process = sleeper("snakemake", "--mode", "remote", cwd=folder)
    try:
        assert take_over() is None
    finally:
        process.kill()
        process.wait()


def test_lock_of_a_snakemake_that_is_not_to_be_seen(folder):
    """It may work on another machine: that is for the user to say."""
    snakemake_lock(folder)
    with pytest.raises(
        InputError, match="is locked by a Snakemake that .sfxflow run. did not start.*snakemake --unlock"
    ):
        take_over()
    assert (folder / ".snakemake/locks/0.input.lock").exists()


def test_processes_of_a_run(folder):
    process = sleeper(env=os.environ | {MARK: str(folder)})
    try:
        assert processes_left(folder) == [process.pid]
        assert processes_left(folder / "other") == []
    finally:
        process.kill()
        process.wait()


def test_two_runs_at_once(monkeypatch):
    """Of several that begin at the same moment one wins; here the lock is theirs for as long as they look."""
    inside, most = [], []
    real = run_lock.read_lock

    def slowly(path):
        inside.append(1)
        most.append(len(inside))
        threading.Event().wait(0.05)
        inside.pop()
        return real(path)

    monkeypatch.setattr(run_lock, "read_lock", slowly)
    refused = []

    def begin():
        try:
            take_over()
        except InputError as error:
            refused.append(error)

    threads = [threading.Thread(target=begin) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert len(refused) == 3


def test_lock_is_a_file_of_one_line():
    write_lock(identity(os.getpid()), ["slurm"])
    content = json.loads(PATH.read_text())
    assert content["host"] == platform.node()
    assert content["executors"] == ["slurm"]
