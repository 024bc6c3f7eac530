"""Opening and writing HDF5 files, with messages for people when that does not work."""

import contextlib
import io
import os
import re

import h5py
import hdf5plugin  # noqa: F401 -- registers the bitshuffle/LZ4, zstd and other filters

from sfxflow.errors import InputError
from sfxflow.io.files import written_whole

_MOST_LISTED = 12
#: What each file that is being written lies on.
_disks = {}


def open_hdf5(path):
    """An HDF5 file, open for reading.

    Raises
    ------
    InputError
        The file is missing, empty, cut short, not HDF5 or may not be read.
    """
    try:
        return h5py.File(path, "r")
    except OSError as error:
        if "lock" in str(error):
            # Some network disks have no locks, and nothing here writes.
            with contextlib.suppress(OSError):
                return h5py.File(path, "r", locking=False)
        raise InputError(unreadable(path, error)) from None


@contextlib.contextmanager
def hdf5_written_whole(path, **options):
    """An HDF5 file, open for writing under a temporary name that becomes `path` when the block ends well (`written_whole`).

    Parameters
    ----------
    path : path-like
    **options
        Of h5py.File.

    Raises
    ------
    OSError
        The disk is full, or can't be written for another reason.

    Notes
    -----
    The HDF5 library can't close a file that it can't write any more: it forgets the error, or crashes the interpreter at its end. So
    it never learns of it: from the first error on the file is kept in memory, and the error is raised when the library is done.
    """
    with written_whole(path) as temporary, open(temporary, "w+b", buffering=0) as raw:
        disk = _Disk(raw)
        with h5py.File(temporary, "w", driver="fileobj", fileobj=disk, **options) as handle:
            _disks[handle] = disk
            try:
                yield handle
            finally:
                del _disks[handle]
        disk.raise_error()


def raise_if_full(handle):
    """Raise OSError if a file of `hdf5_written_whole` could not be written, so that the work ends at once."""
    if handle in _disks:
        _disks[handle].raise_error()


class _Disk:
    """The file that HDF5 writes to, until that fails; then a copy of it in memory."""

    def __init__(self, raw):
        self._file, self._error = raw, None
        self.seek, self.readinto, self.tell = raw.seek, raw.readinto, raw.tell

    def raise_error(self):
        if self._error is not None:
            raise self._error

    def write(self, data):
        """Write all of `data`."""
        view = memoryview(data)
        start = self.tell()
        try:
            written = 0
            while written < len(view):
                written += self._file.write(view[written:])
        except OSError as error:
            self._to_memory(error)
            self.seek(start)
            self._file.write(view)
        return len(view)

    def truncate(self, size):
        """Set the size."""
        try:
            return self._file.truncate(size)
        except OSError as error:
            self._to_memory(error)
            return self._file.truncate(size)

    def flush(self):
        """Nothing is buffered here."""

    def _to_memory(self, error):
        self._error = error
        self.seek(0)
        self._file = io.BytesIO(self._file.read())
        self.seek, self.readinto, self.tell = self._file.seek, self._file.readinto, self._file.tell


def unreadable(path, error):
    """Why a file can't be opened, as one sentence for people."""
    if isinstance(error, PermissionError):
        return f"{path}: no permission to read this file; ask its owner, or check the permissions of its folder"
    if not os.path.exists(path):
        target = f" (a link to {os.readlink(path)})" if os.path.islink(path) else ""
        return f"{path}: there is no such file{target}"
    if os.path.isdir(path):
        return f"{path}: is a folder, a file is expected"
    if os.path.getsize(path) == 0:
        return f"{path}: is empty (0 bytes); copy it again"
    sizes = re.search(r"truncated file: eof = (\d+).*stored_eof = (\d+)", str(error))
    if sizes:
        return f"{path}: is cut short ({sizes[1]} of {sizes[2]} bytes); copy it again"
    if not h5py.is_hdf5(path):
        return f"{path}: is not an HDF5 file"
    return f"{path}: can't be opened as HDF5 ({error})"


def dataset_at(handle, path, purpose):
    """The dataset at `path`.

    Parameters
    ----------
    handle : h5py.File
    path : str
    purpose : str
        What it is for, for the message.

    Raises
    ------
    InputError
        There is none; the message says which the file has.
    """
    found = dataset_or_none(handle, path)
    if found is None:
        missing = missing_link(handle, path)
        if missing:
            raise InputError(f"{handle.filename}: {path} ({purpose}) is a link to {missing}, which can't be opened")
        raise InputError(f"{handle.filename}: no dataset {path} ({purpose}); the file has {listing(handle)}")
    return found


def dataset_or_none(handle, path):
    """The dataset at `path`, or None where there is none, or one behind a broken link."""
    try:
        found = handle.get(path)
    except (KeyError, OSError, ValueError):
        return None
    return found if isinstance(found, h5py.Dataset) else None


def missing_link(handle, path):
    """File that an external link on the way to `path` names but that can't be opened, or None."""
    parts = path.strip("/").split("/")
    for n in range(1, len(parts) + 1):
        link = handle.get("/".join(parts[:n]), getlink=True)
        if isinstance(link, h5py.ExternalLink) and dataset_or_none(handle, "/".join(parts)) is None:
            target = os.path.join(os.path.dirname(handle.file.filename), link.filename)
            if not h5py.is_hdf5(target):
                return target
        if link is None:
            return None
    return None


def listing(handle):
    """The datasets of a file with type and shape, for a message; arrays of two and more dimensions first."""
    found = []

    def note(name, thing):
        if isinstance(thing, h5py.Dataset):
            found.append((-thing.ndim, f"/{name}", f"/{name} {thing.dtype} {thing.shape}"))

    handle.visititems(note)
    if not found:
        return "no dataset at all"
    described = [text for _, _, text in sorted(found)]
    more = f" and {len(described) - _MOST_LISTED} more" if len(described) > _MOST_LISTED else ""
    return ", ".join(described[:_MOST_LISTED]) + more


def linked_files(path):
    """Files that an HDF5 file takes data from, by external links or virtual data sets.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    list of str
        Without repetition; empty for what is not HDF5.
    """
    if not h5py.is_hdf5(path):
        return []
    folder = os.path.dirname(str(path))
    found = {}
    with open_hdf5(path) as handle:
        # visititems does not follow external links, so those are looked for group by group.
        groups = [handle]
        while groups:
            group = groups.pop()
            for name in group:
                link = group.get(name, getlink=True)
                if isinstance(link, h5py.ExternalLink):
                    found[os.path.join(folder, link.filename)] = True
                elif isinstance(link, h5py.HardLink):
                    thing = group[name]
                    if isinstance(thing, h5py.Group):
                        groups.append(thing)
                    elif isinstance(thing, h5py.Dataset) and thing.is_virtual:
                        found |= {os.path.join(folder, source.file_name): True for source in thing.virtual_sources()}
    return list(found)
