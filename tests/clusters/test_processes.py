"""What the tests start ends with them."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

from processes import end_guard, processes_of, start_guard

HERE = Path(__file__).parent


def start_sleeper(folder):
    """A process of a session of its own whose environment names the folder, as a daemon's does; it does not mind being asked to end."""
    ignoring = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(100)"
    sleeper = subprocess.Popen(
        [sys.executable, "-S", "-c", ignoring],
        env=os.environ | {"OF_FOLDER": str(folder / "x")},
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    sleeper.stdout.readline()
    return sleeper


def test_guard_ends_the_processes_of_its_folder_only(tmp_path):
    guard = start_guard(tmp_path / "one")
    one, other = start_sleeper(tmp_path / "one"), start_sleeper(tmp_path / "other")
    try:
        assert processes_of(tmp_path / "one") == [one.pid]
        end_guard(guard)
        assert one.wait(timeout=5) == -signal.SIGKILL
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_guard_outlives_killed_tests(tmp_path):
    program = f"""
        import sys, time
        sys.path.insert(0, {str(HERE)!r})
        from pathlib import Path
        from processes import start_guard
        guard = start_guard(Path({str(tmp_path)!r}))
        print(guard.pid, flush=True)
        time.sleep(100)
        """
    tests = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE)
    tests.stdout.readline()
    sleeper = start_sleeper(tmp_path)
    tests.send_signal(signal.SIGKILL)
    tests.wait()
    assert sleeper.wait(timeout=30) == -signal.SIGKILL
    time.sleep(0.2)
    assert processes_of(tmp_path) == []
