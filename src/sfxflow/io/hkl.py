"""CrystFEL's reflection lists (.hkl, version 2.0)."""

import gzip
import math
from typing import NamedTuple

import numpy as np

from sfxflow.errors import InputError
from sfxflow.io.files import written_whole

HEADER = "CrystFEL reflection list version 2.0"
_COLUMNS = "   h    k    l          I    phase   sigma(I)   nmeas"
_END = "End of reflections"
_GZIP = b"\x1f\x8b"


class ReflectionList(NamedTuple):
    """What a .hkl file holds.

    Attributes
    ----------
    point_group : str
        CrystFEL's name, as the file has it.
    hkl : ndarray of int32, shape (n, 3)
    I, sigI : ndarray of float64, shape (n,)
    n : ndarray of int32, shape (n,)
        Measurements.
    phase : ndarray of float64, shape (n,)
        Degree; NaN where there is none.
    notes : list of str
        Lines after the reflections.
    """

    point_group: str
    hkl: np.ndarray
    I: np.ndarray
    sigI: np.ndarray
    n: np.ndarray
    phase: np.ndarray
    notes: list


def read_hkl(path):
    """Read a reflection list, gzip'ed or not.

    Parameters
    ----------
    path : path

    Returns
    -------
    ReflectionList

    Raises
    ------
    InputError
        The file can't be read, is no reflection list, ends before its end mark or has a row that is none; names the row.
    """
    lines = _lines(path)
    if not lines or lines[0].strip() != HEADER:
        raise InputError(f"{path}: is not a CrystFEL reflection list: the first line has to be {HEADER!r}")
    if len(lines) < 3 or not lines[1].startswith("Symmetry:"):
        raise InputError(f"{path}, line 2: 'Symmetry: <point group>' is expected in a CrystFEL reflection list")
    try:
        end = lines.index(_END)
    except ValueError:
        raise InputError(f"{path}: ends without {_END!r}: the file is cut off; write or copy it again") from None
    rows = [_row(path, number, line) for number, line in enumerate(lines[3:end], 4)]
    values = np.array(rows, dtype=np.float64).reshape(-1, 7)
    return ReflectionList(
        point_group=lines[1].partition(":")[2].strip(),
        hkl=values[:, :3].astype(np.int32),
        I=values[:, 3],
        sigI=values[:, 5],
        n=values[:, 6].astype(np.int32),
        phase=values[:, 4],
        notes=lines[end + 1 :],
    )


def write_hkl(path, point_group, hkl, intensity, sigma, n, notes=()):
    """Write a reflection list, whole or not at all.

    Parameters
    ----------
    path : path
    point_group : str
        CrystFEL's name of the point group in which the reflections are unique.
    hkl : array_like of int, shape (n, 3)
    intensity, sigma : array_like, shape (n,)
        Rows without a finite intensity and uncertainty are left out.
    n : array_like of int, shape (n,)
        Measurements; rows with 0 are left out, as CrystFEL does.
    notes : iterable of str
        Lines to stand after the reflections.

    Notes
    -----
    CrystFEL writes two decimals and reads any number of them. On a scale where that would blur the uncertainties,
    more are written.
    """
    hkl = np.asarray(hkl, dtype=np.int64).reshape(-1, 3)
    intensity, sigma, n = np.asarray(intensity, dtype=np.float64), np.asarray(sigma, dtype=np.float64), np.asarray(n)
    use = np.isfinite(intensity) & np.isfinite(sigma) & (n > 0)
    decimals = _decimals(sigma[use])
    with written_whole(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as handle:
        handle.write(f"{HEADER}\nSymmetry: {point_group}\n{_COLUMNS}\n")
        handle.writelines(
            f"{h:4d} {k:4d} {l:4d} {i:10.{decimals}f}        - {s:10.{decimals}f} {count:7d}\n"
            for (h, k, l), i, s, count in zip(hkl[use], intensity[use], sigma[use], n[use], strict=True)
        )
        handle.write(_END + "\n")
        for note in notes:
            handle.writelines(f"{line}\n" for line in note.splitlines())


def _lines(path):
    try:
        with open(path, "rb") as handle:
            data = handle.read()
        if data.startswith(_GZIP):
            data = gzip.decompress(data)
        return data.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not a CrystFEL reflection list: it is not text") from None
    except EOFError:
        raise InputError(f"{path}: the gzip'ed file is cut off; write or copy it again") from None
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror or error})") from None


def _row(path, number, line):
    words = line.split()
    try:
        if len(words) < 7:
            raise ValueError
        phase = math.nan if words[4] == "-" else float(words[4])
        return (int(words[0]), int(words[1]), int(words[2]), float(words[3]), phase, float(words[5]), int(words[6]))
    except ValueError:
        raise InputError(
            f"{path}, line {number}: {line.strip()!r} is not a reflection (h k l I phase sigma(I) nmeas expected)"
        ) from None


def _decimals(sigma):
    """At least two, and so many that the middle uncertainty keeps three digits."""
    positive = sigma[sigma > 0]
    if not len(positive):
        return 2
    return int(min(max(2, 2 - math.floor(math.log10(np.median(positive)))), 12))
