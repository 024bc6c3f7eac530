"""Ending a program with everything that it started, also when the process that started it was killed.

Run as a script (`python ending.py PID SIGNAL PATIENCE [DIRECTORY]`) it is the keeper of the program PID: a line on its standard input says that
the program has ended; an input that just closes means that whoever started both is gone, and then the keeper ends the program and
removes its directory. It needs only the standard library, so that it starts at once.
"""

import os
import re
import shutil
import signal
import sys
import time
from pathlib import Path

#: Seconds that a program has after its own stop signal, and after SIGTERM, until the next signal follows.
PATIENCE = 10.0
_SHARED_MEMORY = Path("/dev/shm")
_PROCESSES = Path("/proc")


def members(session):
    """Processes of a session that still run (zombies do not).

    Parameters
    ----------
    session : int
        Process number of the program that leads the session.

    Returns
    -------
    list of int
        Where the system does not list its processes: the negative number of the program's group, which stands for all of it.
    """
    if not _PROCESSES.joinpath("self/stat").exists():
        try:
            os.kill(-session, 0)
        except (ProcessLookupError, PermissionError):
            return []
        return [-session]
    found = []
    for entry in os.listdir(_PROCESSES):
        if entry.isdecimal():
            try:
                state, _, _, of_session = (_PROCESSES / entry / "stat").read_text().rpartition(")")[2].split()[:4]
            except OSError:
                continue
            if int(of_session) == session and state != "Z":
                found.append(int(entry))
    return found


def end_session(leader, stop_signal, reap=lambda: None, patience=PATIENCE):
    """End a program and all processes of its session: its own stop signal first, to itself only, then SIGTERM and SIGKILL to all.

    Parameters
    ----------
    leader : int
        Process number of the program, which leads a session of its own.
    stop_signal : int
        Signal upon which the program ends in order.
    reap : function
        Called again and again, takes the status of an ended child.
    patience : float
        Seconds to wait after each signal.
    """
    for signum, everyone in ((stop_signal, False), (signal.SIGTERM, True), (signal.SIGKILL, True)):
        told = [process for process in members(leader) if everyone or abs(process) == leader]
        if not told:
            continue
        for process in told:
            _send(process, signum)
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            reap()
            if not members(leader):
                return
            time.sleep(0.05)


def remove_shared_memory(process):
    """Remove what a program left in shared memory: files of this user with its process number in their names."""
    number = re.compile(rf"(?<!\d){process}(?!\d)")
    for path in _SHARED_MEMORY.glob("*") if _SHARED_MEMORY.is_dir() else []:
        try:
            if number.search(path.name) and path.stat().st_uid == os.getuid():
                path.unlink()
        except OSError:
            continue


def _send(process, signum):
    try:
        os.kill(process, signum)
    except (ProcessLookupError, PermissionError):
        pass


def _keep(stop_signal, patience, *directories):
    """Wait for the program's number and then for 'ended'; where this does not come, whoever says it was killed."""
    told = sys.stdin.readline().strip()
    process = int(told) if told.isdigit() else None
    if process is not None:
        told = sys.stdin.readline().strip()
    if told:
        return
    if process is not None:
        end_session(process, stop_signal, patience=patience)
        remove_shared_memory(process)
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    _keep(int(sys.argv[1]), float(sys.argv[2]), *sys.argv[3:])
