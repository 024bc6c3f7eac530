"""Files at a server, fetched into a folder of this machine: once, whole, for all jobs of one user there.

The folder is `$SFXFLOW_CACHE/frames`, or without that variable a folder of the user's among the temporary files, which on HTCondor is the
job's own. A file has its name there only when it is whole and the one that is meant; until then it has a temporary one. Of several jobs one
fetches, the others wait for it. Where room is short, what nobody has used for ten minutes goes first.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from sfxflow.errors import InputError
from sfxflow.io.files import written_whole
from sfxflow.io.servers import TryAgain, open_remote
from sfxflow.io.urls import file_name, identity_of, is_remote, with_identity, without_identity

#: Seconds before each further try.
PAUSES = (2, 10, 30)
#: Bytes that are left free beside a file.
_MARGIN = 64 << 20
#: Seconds since its last use after which a file may give room to others.
_UNUSED = 600


def cache_folder():
    """Where fetched files are kept; made, and the user's own.

    Raises
    ------
    InputError
        It can't be made, or belongs to somebody else.
    """
    named = os.environ.get("SFXFLOW_CACHE")
    folder = Path(named) / "frames" if named else Path(tempfile.gettempdir()) / f"sfxflow-frames-{os.getuid()}"
    remedy = "SFXFLOW_CACHE names another folder"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = folder.stat().st_uid
    except OSError as error:
        raise InputError(f"{folder}: the folder for fetched files can't be made ({error.strerror}); {remedy}") from None
    if owner != os.getuid():
        raise InputError(f"{folder}: the folder for fetched files belongs to another user; {remedy}")
    return folder


def local_file(name):
    """
    A file that can be opened: itself, or for an address its copy on this machine, which is fetched where it is not there yet.

    Parameters
    ----------
    name : str
        Path or address.

    Returns
    -------
    str

    Raises
    ------
    InputError
        It can't be fetched, is not the file that the address says, or there is no room for it.
    """
    if not is_remote(name):
        return name
    copy = _place(name)
    if not _is_there(copy):
        with _alone(copy):
            if not _is_there(copy):
                _fetch(name, copy)
    return str(copy)


def is_here(name):
    """Whether a file can be opened without being fetched."""
    return _place(name).exists() if is_remote(name) else os.path.exists(name)


def identified(url):
    """
    An address together with the identity that its file has now, after it was fetched; which one it had before is not asked.

    Raises
    ------
    InputError
        As by `local_file`.
    """
    url = without_identity(url)
    copy = _place(url)
    with _alone(copy):
        remote = _fetch(url, copy)
    found = with_identity(url, copy.stat().st_size, remote.etag, remote.modified)
    os.replace(copy, _place(found))
    return found


def _place(url):
    key = hashlib.sha256(url.encode()).hexdigest()[:16]
    return cache_folder() / f"{key}-{file_name(url)}"


def _is_there(copy):
    """Whether a copy is there; its time of use is noted."""
    try:
        modified = copy.stat().st_mtime
        os.utime(copy, (time.time(), modified))
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _alone(copy):
    """Only one process of the user fetches a file."""
    with open(copy.with_name(f".{copy.name}.lock"), "a") as handle:
        # Where the file system has no locks two may fetch: each has a temporary name of its own.
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _fetch(url, copy):
    """Fetch a file, trying again what may pass; returns what the server says of it (`RemoteFile`)."""
    started, said = time.monotonic(), ""
    for pause in (*PAUSES, None):
        try:
            return _fetch_once(url, copy)
        except TryAgain as error:
            said = str(error)
        if pause is not None:
            print(f"{without_identity(url)}: {said}; next try in {pause} s", file=sys.stderr, flush=True)
            time.sleep(pause)
    raise InputError(
        f"{without_identity(url)}: can't be fetched: {said} ({len(PAUSES) + 1} tries in "
        f"{time.monotonic() - started:.0f} s)"
    )


def _fetch_once(url, copy):
    wanted, n_bytes = identity_of(url), 0
    started = time.monotonic()
    with open_remote(url) as found:
        _require_same(url, wanted, found, found.size)
        _make_room(copy, found.size or 0)
        with written_whole(copy) as temporary:
            with open(temporary, "wb") as handle:
                for block in found.blocks:
                    handle.write(block)
                    n_bytes += len(block)
            if found.size is not None and n_bytes != found.size:
                raise TryAgain(f"only {n_bytes} of {found.size} bytes came")
            _require_same(url, wanted, found, n_bytes)
            if found.modified is not None:
                os.utime(temporary, (time.time(), found.modified))
    seconds = time.monotonic() - started
    print(f"fetched {without_identity(url)}: {n_bytes / 1e6:.0f} MB in {seconds:.1f} s", file=sys.stderr, flush=True)
    return found


def _require_same(url, wanted, remote, size):
    """InputError if a server has another file than the address says; what it does not tell is not compared."""
    told = {"bytes": size, "etag": remote.etag or None}
    told["modified"] = None if remote.modified is None else int(remote.modified)
    found = {name: None if value is None else str(value) for name, value in told.items()}
    for name, value in wanted.items():
        if found[name] is not None and found[name] != value:
            raise InputError(
                f"{without_identity(url)}: the server has another file than was meant ({name} is {found[name]}, not {value}): "
                "it was replaced. `sfxflow runs refresh` writes what is there now into the table, and its frames are computed again"
            )


def _make_room(copy, size):
    """Remove copies that have not been used for a while until there is room for `size` bytes.

    Raises
    ------
    InputError
        There is none.
    """
    folder = copy.parent

    def free():
        return shutil.disk_usage(folder).free

    if free() >= size + _MARGIN:
        return
    others = [(path.stat().st_atime, path) for path in folder.iterdir() if not path.name.startswith(".")]
    for used, path in sorted(others):
        if time.time() - used > _UNUSED:
            path.unlink(missing_ok=True)
        if free() >= size + _MARGIN:
            return
    raise InputError(
        f"{folder}: No space left on device: {copy.name.partition('-')[2]} has {size / 1e6:.0f} MB, {free() / 1e6:.0f} MB are free; make "
        "room, or name another folder: export SFXFLOW_CACHE=FOLDER"
    )
