"""Running an external program: watched, with a time limit, and ended with everything that it started.

A program's exit status says that it ended, not that it did its work: whoever calls `run_program` counts the output.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from typing import NamedTuple

import hdf5plugin

from sfxflow.errors import InputError
from sfxflow.programs import ending

#: Lines of a program's output that a message shows.
_SHOWN_LINES = 12
_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

#: Programs to the package that has them and where that is had.
PACKAGES = {
    **dict.fromkeys(
        ("indexamajig", "partialator", "process_hkl", "ambigator", "compare_hkl", "check_hkl"),
        "CrystFEL (https://www.desy.de/~twhite/crystfel)",
    ),
    **dict.fromkeys(
        ("dials.version", "dials.scale"),
        "DIALS (https://dials.github.io, or the package dials of Debian and conda-forge)",
    ),
    "cctbx.xfel.merge": "cctbx.xfel (https://cci.lbl.gov/xfel), which DIALS' own installer has and Debian's package has not",
}


class ProgramError(InputError):
    """An external program is missing, too old, was killed, hangs or failed; the message has the last lines of its output."""


class Finished(NamedTuple):
    """What became of a program.

    Attributes
    ----------
    returncode : int
        Exit status.
    seconds, cpu_seconds : float
        Wall time; user and system time with that of its children.
    last_lines : tuple of str
        Of its output.
    log : path or None
        Where all of its output is; None where that goes with its directory.
    """

    returncode: int
    seconds: float
    cpu_seconds: float
    last_lines: tuple
    log: object = None


class Program(NamedTuple):
    """An installed program: name, path, and version as text ('0.12.0')."""

    name: str
    path: str
    version: str


def require_program(name, minimum=None, version_arguments=("--version",)):
    """The program called `name`, after it said its version.

    Parameters
    ----------
    name : str
        Looked for on PATH.
    minimum : str, optional
        Lowest version that will do, as '0.10.0'.
    version_arguments : sequence of str
        What makes the program print its version.

    Returns
    -------
    Program

    Raises
    ------
    ProgramError
        It is not installed, does not start, or is too old.
    """
    path = shutil.which(name)
    package = PACKAGES.get(name, "")
    if path is None:
        belongs = f"; it is part of {package}" if package else ""
        raise ProgramError(
            f"{name}: no such program on PATH{belongs}: install it, or load its module, and start again; "
            "`sfxflow doctor` shows what is found"
        )
    try:
        said = subprocess.run(
            [path, *version_arguments],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
            text=True,
            errors="replace",
        )
    except subprocess.TimeoutExpired:
        raise ProgramError(
            f"{path}: did not say its version within 120 s; try `{name} {' '.join(version_arguments)}`"
        ) from None
    except OSError as error:
        raise ProgramError(f"{path}: does not start ({error.strerror})") from None
    found = re.search(r"\d+(\.\d+)+", said.stdout)
    if said.returncode != 0 or found is None:
        raise ProgramError(
            f"{path}: does not say its version (status {said.returncode}){_quoted(said.stdout.splitlines())}"
        )
    if minimum and version_tuple(found[0]) < version_tuple(minimum):
        raise ProgramError(
            f"{path}: is version {found[0]}, but {minimum} or newer is needed; install a newer {package or name}"
        )
    return Program(name, path, found[0])


def version_tuple(text):
    """'0.12.0' as (0, 12, 0)."""
    return tuple(int(part) for part in text.split("."))


def hdf5_filters():
    """Variable with which a program's HDF5 reads bitshuffle, LZ4 and zstd: it looks for filters it lacks there, whoever has built it."""
    folders = [hdf5plugin.PLUGINS_PATH, *filter(None, [os.environ.get("HDF5_PLUGIN_PATH")])]
    return {"HDF5_PLUGIN_PATH": os.pathsep.join(folders)}


def run_program(
    arguments,
    *,
    directory,
    log,
    time_limit=None,
    environment=None,
    stop_signal=signal.SIGTERM,
    on_line=None,
    accepted=(0,),
    patience=ending.PATIENCE,
    temporary=False,
):
    """Run a program to its end, in a session of its own, its output appended to a log file.

    When this process is told to end (SIGTERM, SIGINT, SIGHUP), or the time limit is over, the program gets `stop_signal`, then
    everything that it started SIGTERM and then SIGKILL; what it left in /dev/shm is removed. When this process is killed so that it
    can't do that (SIGKILL), a small keeper process does.

    Parameters
    ----------
    arguments : sequence of str or path
        Program and arguments.
    directory : path
        Working directory of the program.
    log : path
        File that gets the program's output and error output.
    time_limit : float, optional
        Seconds.
    environment : dict, optional
        Variables beside those of this process.
    stop_signal : int
        Signal upon which the program ends in order.
    on_line : function, optional
        Called with each line that the program writes.
    accepted : sequence of int
        Exit statuses that are no error.
    patience : float
        Seconds that the program has to end after each signal.
    temporary : bool
        The directory is of no use to anybody else: it is removed if this process is killed.

    Returns
    -------
    Finished

    Raises
    ------
    ProgramError
        The program can't be started, is killed, runs into the time limit, or ends with a status that is not accepted.
    SystemExit
        This process was told to end; the program has been ended.
    """
    name = Path(arguments[0]).name
    started = time.monotonic()
    with open(log, "ab") as sink, open(log, "rb") as source, _noted_signals() as stopped:
        source.seek(0, os.SEEK_END)
        lines = _Lines(source, on_line)
        # The keeper is there first: between the program's start and its own nobody would end what was started.
        with _keeper(stop_signal, patience, [os.path.abspath(directory)] if temporary else []) as keep:
            try:
                process = subprocess.Popen(
                    [os.fspath(argument) for argument in arguments],
                    cwd=directory,
                    env={**os.environ, **(environment or {})},
                    stdin=subprocess.DEVNULL,
                    stdout=sink,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except FileNotFoundError:
                raise ProgramError(f"{arguments[0]}: no such program") from None
            except OSError as error:
                raise ProgramError(f"{arguments[0]}: does not start ({error.strerror})") from None
            keep(process.pid)
            child = _Child(process)
            late = False
            try:
                pause = 0.002
                while not child.ended() and not stopped and not late:
                    time.sleep(pause)
                    pause = min(2 * pause, 0.2)
                    lines.read()
                    late = time_limit is not None and time.monotonic() - started > time_limit
            finally:
                ending.end_session(process.pid, stop_signal, reap=child.ended, patience=patience)
                child.wait()
                ending.remove_shared_memory(process.pid)
        lines.finish()
    seconds = time.monotonic() - started
    if stopped:
        print(f"{name}: stopped by {signal.Signals(stopped[0]).name}", file=sys.stderr)
        raise SystemExit(128 + stopped[0])
    kept_log = None if temporary and Path(directory).absolute() in Path(log).absolute().parents else log
    finished = Finished(child.status, seconds, child.cpu_seconds, tuple(lines.last), kept_log)
    if late:
        raise ProgramError(
            with_last_lines(
                f"{name}: did not end within {time_limit:g} s and was stopped: it hangs, or the job needs more time (its resource runtime)",
                finished,
            )
        )
    if child.status < 0:
        killer = signal.Signals(-child.status).name
        reason = ", perhaps for want of memory" if child.status == -signal.SIGKILL else ""
        raise ProgramError(with_last_lines(f"{name}: was killed by {killer}{reason} after {seconds:.0f} s", finished))
    if child.status not in accepted:
        raise ProgramError(with_last_lines(f"{name}: ended with status {child.status} after {seconds:.0f} s", finished))
    return finished


def with_last_lines(message, finished, log=None):
    """A message for people with the last lines of a program's output; `log` names the file where it is not that of the run."""
    return message + _quoted(finished.last_lines, log or finished.log)


def _quoted(lines, log=None):
    """The last lines of an output, each on its own line, as the end of a message."""
    shown = [line for line in lines if line.strip()][-_SHOWN_LINES:]
    where = f" ({log})" if log else ""
    if not shown:
        return f"; it said nothing{where}"
    return f"; its last lines{where}:\n" + "\n".join(f"  | {line}" for line in shown)


class _Child:
    """The status and CPU time of a child process, taken once."""

    def __init__(self, process):
        self.process = process
        self.status = None
        self.cpu_seconds = 0.0

    def ended(self, options=os.WNOHANG):
        if self.status is None:
            number, status, usage = os.wait4(self.process.pid, options)
            if number:
                self.status = self.process.returncode = os.waitstatus_to_exitcode(status)
                self.cpu_seconds = usage.ru_utime + usage.ru_stime
        return self.status is not None

    def wait(self):
        self.ended(options=0)


class _Lines:
    """Follows what a program writes into its log: calls a function for each line, and keeps the last ones."""

    def __init__(self, source, on_line):
        self.source = source
        self.on_line = on_line
        self.rest = ""
        self.last = deque(maxlen=50)

    def read(self):
        *lines, self.rest = re.split(r"[\r\n]", self.rest + self.source.read().decode(errors="replace"))
        for line in lines:
            self.last.append(line)
            if self.on_line:
                self.on_line(line)

    def finish(self):
        self.read()
        if self.rest:
            self.rest += "\n"
            self.read()


@contextlib.contextmanager
def _noted_signals():
    """Signals that tell this process to end are noted in the list that is given, in place of ending it at once."""
    noted = []
    try:
        before = {number: signal.signal(number, lambda received, _: noted.append(received)) for number in _STOPPING}
    except ValueError:
        # Not the main thread: signals arrive there.
        before = {}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _keeper(stop_signal, patience, directories):
    """A process that ends the program if this process is killed before the block ends; gives what tells it the program's number."""
    keeper = subprocess.Popen(
        [sys.executable, "-I", "-S", ending.__file__, str(int(stop_signal)), str(patience), *directories],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )

    def keep(process):
        with contextlib.suppress(BrokenPipeError):
            keeper.stdin.write(f"{process}\n".encode())
            keeper.stdin.flush()

    try:
        yield keep
    finally:
        with contextlib.suppress(BrokenPipeError):
            keeper.communicate(b"ended\n")
