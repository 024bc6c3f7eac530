"""
Who works in a folder: a file that `sfxflow run` keeps while it does, with machine and process, so that a second one does not begin.

Snakemake has locks of its own, which say neither who made them nor whether he still lives. They are taken away only when this file
says that they are from a run of this machine that has ended.
"""

import contextlib
import json
import os
import platform
from pathlib import Path

from sfxflow.errors import InputError
from sfxflow.io.files import written_whole

PATH = Path(".snakemake/sfxflow_run.json")
_DOOR = Path(".snakemake/sfxflow_run.door")

#: Variable that tells the processes of a run, and its folder.
MARK = "SFXFLOW_RUN"


def identity(process):
    """Id of a process with the time that it started at: ids are used again."""
    import psutil

    return {"pid": process, "started": round(psutil.Process(process).create_time(), 1)}


def lives(recorded):
    """Whether a process of `identity` still runs on this machine."""
    import psutil

    try:
        process = psutil.Process(recorded["pid"])
        same = abs(process.create_time() - recorded["started"]) < 2
        return same and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, KeyError, TypeError):
        return False
    except psutil.AccessDenied:
        return True


def read_lock(path=PATH):
    """What the last run left behind: a dict with host, run and snakemake (`identity`), executors; None where it ended in order."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}


def write_lock(snakemake=None, executors=(), path=PATH):
    """Say that this process works here, with which Snakemake (`identity`), and where jobs of it may be."""
    content = {
        "host": platform.node(),
        "run": identity(os.getpid()),
        "snakemake": snakemake,
        "executors": list(executors),
    }
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")


def remove_lock(path=PATH):
    """Say that nobody works here any more."""
    path.unlink(missing_ok=True)


@contextlib.contextmanager
def one_at_a_time():
    """A few moments that no two runs have at once: to look whether somebody works here, and to say so."""
    _DOOR.parent.mkdir(parents=True, exist_ok=True)
    with open(_DOOR, "w") as door:
        try:
            import fcntl

            fcntl.flock(door, fcntl.LOCK_EX)
        except (ImportError, OSError):
            # A file system without such locks: then it is only improbable.
            pass
        yield


def take_over(force=False, path=PATH):
    """
    Begin to work in this folder, unless somebody does.

    Parameters
    ----------
    force : bool
        The user knows that the run of another machine is over.

    Returns
    -------
    dict or None
        What an interrupted run left behind, as `read_lock`.

    Raises
    ------
    InputError
        A run, or a Snakemake, works here, or nobody knows since it was started on another machine.
    """
    folder = Path.cwd()
    with one_at_a_time():
        left = read_lock(path)
        if left:
            host = left.get("host")
            if host != platform.node() and not force:
                raise InputError(
                    f"{folder}: a run was started here on {host}, and whether it has ended can't be seen from {platform.node()}: "
                    f"start on {host}; if that machine is gone, --take-over says that nothing of it works here any more"
                )
            if host == platform.node():
                for what, words in (
                    ("run", "`sfxflow run`"),
                    ("snakemake", "a Snakemake that `sfxflow run` has started"),
                ):
                    if left.get(what) and lives(left[what]):
                        pid = left[what]["pid"]
                        raise InputError(
                            f"{folder}: {words} works here (process {pid}): wait for it, or end it: kill -INT {pid}"
                        )
        if other := other_snakemake(folder):
            raise InputError(
                f"{folder}: a Snakemake works here (process {other}): wait for it, or end it: kill -INT {other}"
            )
        if left is None and snakemake_locks():
            raise InputError(
                f"{folder} is locked by a Snakemake that `sfxflow run` did not start; no process of it is to be seen on "
                f"{platform.node()}: if none works here on another machine either, `snakemake --unlock` takes the lock away"
            )
        write_lock(executors=(left or {}).get("executors", ()), path=path)
    return left


def snakemake_locks():
    """Files by which Snakemake says that it works here."""
    return [path for path in Path(".snakemake/locks").glob("*") if path.is_file()]


def other_snakemake(folder):
    """Id of a Snakemake of this machine and user that works in a folder and is no job of another; None where there is none."""
    import psutil

    for process in psutil.process_iter(["pid", "cmdline", "cwd"]):
        words = process.info["cmdline"] or []
        named = any(Path(word).name == "snakemake" for word in words[:4])
        if (
            named
            and process.info["cwd"] == str(folder)
            and "--mode" not in words
            and process.info["pid"] != os.getpid()
        ):
            return process.info["pid"]
    return None


def processes_left(folder):
    """Processes of this machine that a run of a folder has started, and this one has not: their ids."""
    import psutil

    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter(["pid", "status"]):
        if process.info["pid"] in own or process.info["status"] == psutil.STATUS_ZOMBIE:
            continue
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == str(folder):
                found.append(process.info["pid"])
    return found
