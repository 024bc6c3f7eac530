"""One call of Snakemake, with programs that stand in for it."""

import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from sfxflow.clusters.attempt import Attempt
from sfxflow.clusters.queues import HELD, Job, Unreachable
from sfxflow.clusters.watch import Limits


class Queue:
    """A cluster with one job, held or out of reach, until it is removed."""

    name = "stand-in"

    def __init__(self, reachable=True):
        self.reachable, self.left, self.looks = reachable, [Job("1", HELD, "why")], 0

    def jobs(self, folder):
        self.looks += 1
        if not self.reachable:
            raise Unreachable("nobody home")
        return self.left

    def remove(self, jobs):
        self.left = []


def started(code):
    """Start Python code in place of Snakemake, and wait until it comes to where it says READY."""
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready"
        code = code.replace("READY", f"open({str(ready)!r}, 'w')")
        attempt = Attempt([sys.executable, "-c", code], dict(os.environ))
        while str(ready) in code and not ready.exists():
            time.sleep(0.01)
    return attempt


STUBBORN = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); READY; time.sleep(60)"
POLITE = "import sys, time\ntry: READY; time.sleep(60)\nexcept KeyboardInterrupt: sys.exit(5)"


def test_its_exit_status():
    said = []
    assert started("raise SystemExit(3)").wait(None, "/w", None, said.append) == 3
    assert said == []


def test_cluster_that_holds_all_is_given_up():
    attempt, said = started(POLITE), []
    limits = Limits(held=0.3)
    attempt.wait(Queue(), "/w", limits, said.append, grace=30, look_every=0.1)
    assert attempt.given_up == "all 1 jobs have been held for 0 s: why"
    assert said == [f"given up: {attempt.given_up}"]


def test_cluster_out_of_reach_is_given_up():
    attempt = started(POLITE)
    attempt.wait(Queue(reachable=False), "/w", Limits(unreachable=0.3), lambda text: None, grace=30, look_every=0.1)
    assert attempt.given_up.endswith("nobody home")


def test_last_cluster_is_not_given_up():
    """But the user is told that it does not answer."""
    said = []
    attempt = started("import time; time.sleep(1.5)")
    assert attempt.wait(Queue(reachable=False), "/w", None, said.append, look_every=0.05) == 0
    assert len(said) == 1
    assert "does not answer (nobody home); it is the last profile" in said[0]


@pytest.fixture(params=["heeds", "ignores"])
def interrupts(request):
    """A shell has its background jobs ignore SIGINT, and with them what they start."""
    old = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler if request.param == "heeds" else signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, old)


@pytest.mark.parametrize(("code", "status", "grace"), [(POLITE, 5, 30), (STUBBORN, -9, 0.5)])
def test_interruption(code, status, grace, interrupts):
    """Snakemake is asked first, and killed where it hangs."""
    attempt, said = started(code), []
    threading.Timer(0.3, attempt.interrupt).start()
    begun = time.monotonic()
    assert attempt.wait(None, "/w", None, said.append, grace=grace) == status
    assert time.monotonic() - begun < 20
    assert any("is killed" in line for line in said) is (status == -9)


def test_jobs_left_elsewhere_are_removed_when_that_is_possible():
    elsewhere = Queue(reachable=False)
    threading.Timer(0.4, lambda: setattr(elsewhere, "reachable", True)).start()
    left = [elsewhere]
    assert started("import time; time.sleep(2)").wait(None, "/w", None, print, look_every=0.1, left=left) == 0
    assert elsewhere.left == []
    assert left == []
