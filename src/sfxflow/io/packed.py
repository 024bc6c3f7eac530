"""Packages of Python and the workflow in one archive, for machines that see neither."""

import hashlib
import importlib.metadata
import io
import json
import re
import sys
import tarfile
from pathlib import Path, PurePosixPath

from packaging.requirements import InvalidRequirement, Requirement

from sfxflow.errors import InputError
from sfxflow.io.files import written_whole

#: Distributions that no job needs: figures are drawn where Snakemake runs, and its job scheduling is not asked.
_LEFT_OUT = frozenset({"matplotlib"})
#: Files of distributions that no job needs: tests, sources, solvers, and filters of HDF5 that lose information (200 MB).
_NOT_NEEDED = re.compile(
    r"(^|/)(tests?|solverdir)/|\.(pyx|pxd|a|hpp)$|/libh5(sz|sz3|sperr|fcidecomp|htj2k)\.so$|^(scipy|numpy).*\.(h|c)$"
)
#: What of the checkout a job needs beside its packages.
_WORKFLOW = ("Snakefile", "workflow")
_PROGRAM = '#!/bin/sh\nexec "$SFXFLOW_PYTHON" -S -m sfxflow "$@"\n'


def needed_distributions(names):
    """Installed distributions and all that they require.

    Parameters
    ----------
    names : iterable of str
        With extras in brackets, if any.

    Returns
    -------
    list of importlib.metadata.Distribution
        Sorted by name. What is required but not installed is left out, as pip did.

    Raises
    ------
    InputError
        One of `names` is not installed.
    """
    found, seen = {}, set()
    wanted = [(Requirement(name), True) for name in names]
    while wanted:
        requirement, asked = wanted.pop()
        if _normal(requirement.name) in _LEFT_OUT:
            continue
        key = (_normal(requirement.name), frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        try:
            distribution = importlib.metadata.distribution(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            if asked:
                raise InputError(f"{requirement.name}: not installed in {sys.prefix}, so it can't be packed") from None
            continue
        found[key[0]] = distribution
        for text in distribution.requires or []:
            try:
                further = Requirement(text)
            except InvalidRequirement:
                continue
            extras = [*requirement.extras, ""]
            if further.marker is None or any(further.marker.evaluate({"extra": extra}) for extra in extras):
                wanted.append((further, False))
    return [found[name] for name in sorted(found)]


def _normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def files_to_pack(distributions, checkout):
    """Files of the archive.

    Parameters
    ----------
    distributions : iterable of importlib.metadata.Distribution
    checkout : Path
        Folder with the Snakefile and src/sfxflow.

    Returns
    -------
    dict of str to Path
        Name in the archive to the file.
    """
    files = {}
    for distribution in distributions:
        for path in distribution.files or []:
            name, source = PurePosixPath(path).as_posix(), Path(path.locate())
            if name.startswith("..") or _NOT_NEEDED.search(name) or not source.is_file():
                continue
            files[f"packages/{name}"] = source
    files |= {
        f"packages/sfxflow/{path.relative_to(checkout / 'src/sfxflow').as_posix()}": path
        for path in sorted((checkout / "src/sfxflow").rglob("*"))
        if path.is_file() and _is_current(path)
    }
    for part in _WORKFLOW:
        whole = checkout / part
        for path in [whole] if whole.is_file() else sorted(whole.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                files[f"workflow/{path.relative_to(checkout).as_posix()}"] = path
    return files


def _is_current(path):
    """False for what numba compiled of an earlier version of a module: it says itself what belongs to the present one only in part."""
    if path.parent.name != "__pycache__" or path.suffix not in (".nbi", ".nbc"):
        return path.suffix != ".tmp"
    source = path.parent.parent / f"{path.name.split('.')[0]}.py"
    return source.exists() and path.stat().st_mtime >= source.stat().st_mtime


def fingerprint(files):
    """What an archive of these files is: changes when one of them does, compiled ones aside. Text of 64 characters."""
    state = [
        (name, path.stat().st_size, path.stat().st_mtime_ns)
        for name, path in sorted(files.items())
        if "__pycache__" not in name
    ]
    return hashlib.sha256(json.dumps([sys.version, state]).encode()).hexdigest()


def write_packed(path, files):
    """Write the archive, a gzipped tar that a shell script unpacks. It names the version of Python that it needs.

    Parameters
    ----------
    path : path
    files : dict of str to Path

    Returns
    -------
    int
        Bytes of the archive.
    """
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    texts = {"bin/sfxflow": _PROGRAM, "python": f"{version}\n", "fingerprint": f"{fingerprint(files)}\n"}
    # PAX: fractions of seconds, which numba compares. Level 1: more makes it hardly smaller.
    with (
        written_whole(path) as temporary,
        tarfile.open(temporary, "w:gz", compresslevel=1, format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, text in texts.items():
            _add_text(archive, name, text)
        for name, source in sorted(files.items()):
            try:
                archive.add(source.resolve(), name, recursive=False)
            except FileNotFoundError:
                # What numba compiled may be replaced at any time.
                if "__pycache__" not in name:
                    raise InputError(f"{source}: went away while it was packed; start again") from None
    return Path(path).stat().st_size


def _add_text(archive, name, text):
    data = text.encode()
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o755
    archive.addfile(member, io.BytesIO(data))


def packed_fingerprint(path):
    """Fingerprint of an archive, None if it is not there or is none."""
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                if member.name == "fingerprint":
                    return archive.extractfile(member).read().decode().strip()
                if member.name not in ("bin/sfxflow", "python"):
                    return None
    except (OSError, tarfile.TarError, EOFError):
        return None
    return None
