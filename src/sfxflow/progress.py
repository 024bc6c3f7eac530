"""Progress for people: a bar on a terminal, a line now and then in a log file."""

import sys
import time

#: Seconds between two lines in a log file, and between two updates of the bar.
_LOG_INTERVAL = 30.0
_BAR_INTERVAL = 0.2


class Progress:
    """Counts what is done and says so on standard error.

    Parameters
    ----------
    label : str
        What is being counted.
    total : int
    stream : file, optional
    """

    def __init__(self, label, total, stream=None):
        self.label, self.total, self.done = label, total, 0
        self.stream = stream or sys.stderr
        self.is_terminal = self.stream.isatty()
        self.started = self.last = time.monotonic()

    def add(self, count=1):
        """Count `count` more as done."""
        self.done += count
        now = time.monotonic()
        if now - self.last >= (_BAR_INTERVAL if self.is_terminal else _LOG_INTERVAL):
            self.last = now
            self._show(now)

    def finish(self):
        """Say that all is done."""
        self._show(time.monotonic())
        if self.is_terminal:
            self.stream.write("\n")

    def _show(self, now):
        seconds = now - self.started
        rate = self.done / seconds if seconds > 0 else 0.0
        text = f"{self.label}: {self.done} of {self.total} ({rate:.1f} a second)"
        if self.is_terminal:
            filled = round(30 * self.done / max(self.total, 1))
            self.stream.write(f"\r[{'#' * filled}{'.' * (30 - filled)}] {text}")
        else:
            self.stream.write(text + "\n")
        self.stream.flush()
