"""External programs: what is raised when they fail, and that nothing of them is left."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sfxflow.programs import ending
from sfxflow.programs.running import ProgramError, require_program, run_program, with_last_lines

SOURCE = Path(__file__).parents[3] / "src"


@pytest.fixture
def program(tmp_path):
    """Write a program and put its folder on PATH: `program(name, text)`; the text is Python unless it begins with #!."""

    def write(name, text):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text if text.startswith("#!") else f"#!{sys.executable} -SE\n{text}")
        path.chmod(0o755)
        return path

    return write


@pytest.fixture
def on_path(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")


def shell(tmp_path, script, **options):
    return run_program(["sh", "-c", script], directory=tmp_path, log=tmp_path / "log", **options)


def is_running(process):
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def number_in(path):
    assert wait_until(lambda: path.is_file() and path.read_text().strip())
    return int(path.read_text())


# ---- a program that ends by itself


def test_output_goes_to_the_log_and_line_by_line_to_the_caller(tmp_path):
    lines = []
    (tmp_path / "log").write_text("of the program before\n")
    done = shell(tmp_path, "echo one; echo two >&2; printf 'half\\rthree'", on_line=lines.append)
    assert lines == ["one", "two", "half", "three"]
    assert done.last_lines == ("one", "two", "half", "three")
    assert (tmp_path / "log").read_bytes() == b"of the program before\none\ntwo\nhalf\rthree"
    assert done.returncode == 0


def test_it_runs_in_its_directory_with_the_environment_given(tmp_path):
    (tmp_path / "here").mkdir()
    done = run_program(
        ["sh", "-c", "pwd; echo $WORD"], directory=tmp_path / "here", log=tmp_path / "log", environment={"WORD": "said"}
    )
    assert done.last_lines == (str(tmp_path / "here"), "said")


def test_cpu_time_is_that_of_its_children_too(tmp_path):
    busy = f"{sys.executable} -SEc 'sum(range(12_000_000))'"
    done = shell(tmp_path, f"{busy}; {busy}")
    once = shell(tmp_path, f"exec {busy}")
    assert 1.3 < done.cpu_seconds / once.cpu_seconds < 3.5


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo the reason; exit 3", "sh: ended with status 3 after"),
        ("echo the reason; kill -SEGV $$", "sh: was killed by SIGSEGV after"),
        ("echo the reason; kill -KILL $$", "sh: was killed by SIGKILL, perhaps for want of memory after"),
    ],
)
def test_a_failure_is_told_with_the_last_lines(tmp_path, script, words):
    with pytest.raises(ProgramError) as error:
        shell(tmp_path, script)
    assert words in str(error.value)
    assert str(error.value).endswith(f"its last lines ({tmp_path / 'log'}):\n  | the reason")


def test_a_program_that_said_nothing(tmp_path):
    with pytest.raises(ProgramError, match="it said nothing"):
        shell(tmp_path, "exit 1")


def test_a_status_that_is_accepted(tmp_path):
    assert shell(tmp_path, "exit 5", accepted=(0, 5)).returncode == 5


def test_a_log_that_goes_with_its_directory_is_not_named(tmp_path):
    done = shell(tmp_path, "echo one", temporary=True)
    assert with_last_lines("wrong", done) == "wrong; its last lines:\n  | one"


@pytest.mark.parametrize("name", ["no-such-program", "/no/such/program"])
def test_a_program_that_is_not_there(tmp_path, name):
    with pytest.raises(ProgramError, match="no such program"):
        run_program([name], directory=tmp_path, log=tmp_path / "log")


# ---- a program that has to be ended


def test_time_limit_ends_everything_that_the_program_started(tmp_path):
    script = "trap '' TERM; sleep 100 & echo $! >child; echo working; sleep 100"
    started = time.monotonic()
    with pytest.raises(ProgramError, match=r"sh: did not end within 0\.5 s and was stopped") as error:
        shell(tmp_path, script, time_limit=0.5, patience=0.3)
    assert "| working" in str(error.value)
    assert time.monotonic() - started < 15
    assert not is_running(number_in(tmp_path / "child"))


def test_a_system_that_does_not_list_its_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(ending, "_PROCESSES", tmp_path / "nothing")
    with pytest.raises(ProgramError, match="did not end"):
        shell(tmp_path, "sleep 100 & echo $! >child; wait", time_limit=0.5, patience=0.3)
    assert not is_running(number_in(tmp_path / "child"))


def test_the_stop_signal_comes_first(tmp_path):
    script = "trap 'echo in order; exit 7' USR1; while :; do sleep 0.05; done"
    with pytest.raises(ProgramError, match="in order"):
        shell(tmp_path, script, time_limit=0.5, stop_signal=signal.SIGUSR1)


def test_what_a_program_leaves_behind_is_ended(tmp_path):
    shell(tmp_path, "sleep 100 & echo $! >child", patience=0.3)
    assert not is_running(number_in(tmp_path / "child"))


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="this system has no /dev/shm")
def test_shared_memory_of_the_program_is_removed_and_no_other(tmp_path):
    other = Path(f"/dev/shm/sfxflow-test-{os.getpid()}0")
    other.write_text("")
    try:
        shell(tmp_path, "echo $$ >number; touch /dev/shm/sem.sfxflow-test-q$$ /dev/shm/sfxflow-test.$$")
        number = number_in(tmp_path / "number")
        assert not [name for name in os.listdir("/dev/shm") if str(number) in name and "sfxflow-test" in name]
        assert other.exists()
    finally:
        other.unlink()


RUNNER = """
import sys
from sfxflow.programs import ending
from sfxflow.programs.running import run_program
script = "echo $$ >number; echo $$ >/dev/shm/sfxflow-test.$$; trap '' TERM; sleep 100 & echo $! >child; wait; wait; sleep 100"
run_program(["sh", "-c", script], directory="work", log="log", patience=0.5, temporary=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_nothing_is_left_when_this_process_is_told_to_end_or_killed(tmp_path, number):
    (tmp_path / "work").mkdir()
    runner = subprocess.Popen(
        [sys.executable, "-c", RUNNER],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
        stderr=subprocess.PIPE,
        text=True,
    )
    program, child = number_in(tmp_path / "work/number"), number_in(tmp_path / "work/child")
    runner.send_signal(number)
    _, said = runner.communicate(timeout=30)
    if number == signal.SIGKILL:
        assert runner.returncode == -signal.SIGKILL
        assert wait_until(lambda: not (tmp_path / "work").exists())
    else:
        assert runner.returncode == 128 + number
        assert f"sh: stopped by {number.name}" in said
    assert not is_running(program)
    assert not is_running(child)
    assert not Path(f"/dev/shm/sfxflow-test.{program}").exists()


# ---- which programs are there


def test_a_program_and_its_version(program, on_path):
    path = program("tool", "print('Tool: 0.12.0-113-g80f24855+')")
    found = require_program("tool", "0.9.1")
    assert found == ("tool", str(path), "0.12.0")


def test_a_program_that_is_missing(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(
        ProgramError, match="no such program on PATH; it is part of CrystFEL .*install it.*sfxflow doctor"
    ):
        require_program("indexamajig")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("print('tool 0.9.1')", r"bin/tool: is version 0\.9\.1, but 0\.10\.0 or newer is needed"),
        ("print('hello')", r"does not say its version \(status 0\); its last lines:\n  \| hello"),
        ("import sys; sys.exit('libgsl.so.27: cannot open')", r"does not say its version \(status 1\).*libgsl"),
        ("#!/no/such/interpreter\n", r"bin/tool: does not start \(No such file or directory\)"),
    ],
)
def test_a_program_that_will_not_do(program, on_path, text, words):
    program("tool", text)
    with pytest.raises(ProgramError, match=f"(?s){words}"):
        require_program("tool", "0.10.0")
