"""Progress on a terminal and in a log file."""

import io

import pytest

from sfxflow import progress
from sfxflow.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_log_gets_a_line_now_and_then(clock):
    log = io.StringIO()
    shown = Progress("frames searched", 1000, log)
    for second in range(100):
        clock[0] = float(second)
        shown.add(10)
    clock[0] = 100.0
    shown.finish()
    lines = log.getvalue().splitlines()
    # Every 30 s, and at the end.
    assert len(lines) == 4
    assert lines[0] == "frames searched: 310 of 1000 (10.3 a second)"
    assert lines[-1] == "frames searched: 1000 of 1000 (10.0 a second)"
    assert "\r" not in log.getvalue()


def test_terminal_gets_a_bar_on_one_line(clock):
    terminal = Terminal()
    shown = Progress("hits indexed", 4, terminal)
    for step in range(4):
        clock[0] = 1.0 + step
        shown.add()
    shown.finish()
    text = terminal.getvalue()
    assert text.count("\n") == 1 and text.endswith("\n")
    bars = text.strip("\n").split("\r")[1:]
    assert bars[0].startswith("[########......................] hits indexed: 1 of 4")
    assert bars[-1].startswith(f"[{'#' * 30}] hits indexed: 4 of 4")
    assert {len(bar.split("]")[0]) for bar in bars} == {31}


def test_bar_is_not_drawn_for_each_frame(clock):
    terminal = Terminal()
    shown = Progress("frames", 1000, terminal)
    for step in range(1000):
        clock[0] = step / 1000
        shown.add()
    assert terminal.getvalue().count("\r") <= 5


def test_nothing_to_do_is_no_error(clock):
    for stream in (io.StringIO(), Terminal()):
        Progress("frames", 0, stream).finish()
        assert "frames: 0 of 0" in stream.getvalue()
