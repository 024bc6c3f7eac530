"""Whole files or none, and what every file says of its origin."""

import contextlib
import errno
import glob
import json
import os
import platform
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path

import sfxflow
from sfxflow.errors import InputError
from sfxflow.io.urls import identity_of, is_remote

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def written_whole(path):
    """Give a temporary name beside `path`; rename it to `path` when the block ends well, remove it otherwise.

    A killed job leaves no half file behind a good name, and a full disk is noticed because the file is flushed to it first. What
    killed jobs left behind under their temporary names is removed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    temporary = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.part")
    try:
        yield temporary
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.errno in _DISK_FULL:
            # Neither a plain write nor HDF5 says which file it was, or says it in one line.
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _remove_leftovers(path):
    """Remove the temporary files of jobs for the same `path` that do not run any more: of those on this machine, others can't be asked."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.{glob.escape(platform.node())}.*.part"):
        number = left.name.rsplit(".", 2)[1]
        if number.isdecimal() and not _is_running(int(number)):
            left.unlink(missing_ok=True)


def _is_running(process):
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def provenance(settings=None, inputs=()):
    """Origin of a file: program version, command, settings, and name, size and modification time of each input.

    Parameters
    ----------
    settings : dict, optional
        Settings of the stage.
    inputs : iterable of path

    Returns
    -------
    dict
        Strings, numbers and lists only, for JSON.

    Raises
    ------
    InputError
        An input is not there.
    """
    described = []
    for name in inputs:
        if is_remote(name):
            known = identity_of(name)
            described.append({"name": str(name), **({"size": int(known["bytes"])} if "bytes" in known else {})})
            continue
        try:
            stat = os.stat(name)
        except OSError as error:
            raise InputError(f"{name}: can't be read ({error.strerror})") from None
        modified = datetime.fromtimestamp(stat.st_mtime, UTC).isoformat(timespec="seconds")
        described.append({"name": str(name), "size": stat.st_size, "modified": modified})
    return {
        "program": f"sfxflow {sfxflow.__version__}",
        "command": shlex.join(["sfxflow", *sys.argv[1:]]),
        "settings": settings or {},
        "inputs": described,
    }


def provenance_json(settings=None, inputs=()):
    """`provenance` as one line of JSON with sorted keys."""
    return json.dumps(provenance(settings, inputs), sort_keys=True)
