"""
Processes that belong to a folder, found by their environment and ended by their ids; and a guard that does so when its caller is gone.

Daemons of a cluster leave the group and the session of whoever starts them; the environment goes along with them and with their jobs.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def environment_of(pid):
    """Environment that a process was started with, as bytes; empty where it is gone or another's."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def arguments_of(pid):
    """Command line of a process; empty where it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def parent_of(pid):
    """Id of a process' parent; None where it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except (OSError, IndexError):
        return None


def all_processes():
    """Ids of this machine's processes, but for this one."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]


def processes_of(folder):
    """Ids of the processes whose environment names a file in a folder."""
    mark = f"{folder}/".encode()
    return [pid for pid in all_processes() if mark in environment_of(pid)]


def descendants(pid):
    """Ids of a process' children, their children, ..."""
    parents = {other: parent_of(other) for other in all_processes()}
    found = [pid]
    for ancestor in found:
        found += [child for child, parent in parents.items() if parent == ancestor]
    return found[1:]


def send(signal_number, pids):
    """Send a signal to processes, some of which may be gone."""
    for pid in pids:
        try:
            os.kill(pid, signal_number)
        except ProcessLookupError:
            pass


def end_processes_of(folder, patience=5):
    """End the processes of a folder: asked first, killed after `patience` seconds."""
    send(signal.SIGTERM, processes_of(folder))
    give_up = time.monotonic() + patience
    while left := processes_of(folder):
        if time.monotonic() > give_up:
            send(signal.SIGKILL, left)
        time.sleep(0.1)


def start_guard(folder):
    """Start a process that ends those of a folder when its standard input is closed: by `end_guard`, or since this process is gone."""
    return subprocess.Popen(
        [sys.executable, "-S", __file__, str(folder)], stdin=subprocess.PIPE, start_new_session=True
    )


def end_guard(guard):
    """Have a guard end the processes of its folder, and wait for it."""
    guard.stdin.close()
    guard.wait(timeout=60)


if __name__ == "__main__":
    sys.stdin.read()
    end_processes_of(sys.argv[1])
