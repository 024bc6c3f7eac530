"""The frame account (frames.tsv): what became of every frame of a run, one line a frame.

A table with tabs between the columns; the lines before it begin with '#', the first of them holds the provenance as JSON.
"""

import csv
import math

import numpy as np

from sfxflow.errors import InputError
from sfxflow.io.files import written_whole
from sfxflow.io.table import open_chunk, read_rows
from sfxflow.reflections import Status

#: Columns of frames.tsv, in this order; `status` as text, `resolution` in angstrom and empty where there is none.
COLUMNS = ("frame", "file", "event", "status", "n_peaks", "n_lattices", "resolution", "message")

_PROVENANCE = "# provenance: "


def gather_frames(chunks):
    """The frames of all chunks of a run, in the order of their numbers.

    Parameters
    ----------
    chunks : iterable of path
        Chunk files (peaks, indexed or integrated).

    Returns
    -------
    frames : dict
        `COLUMNS` to equally long lists; `status` as `Status`.
    chunk : ndarray of int, shape (n,)
        Position in `chunks` of the file that each frame comes from.

    Raises
    ------
    InputError
        A file that is not a chunk file, or has no frames table.
    """
    gathered = {name: [] for name in COLUMNS}
    chunk_of_frame = []
    for number, path in enumerate(chunks):
        with open_chunk(path) as handle:
            if "frames" not in handle:
                raise InputError(f"{path}: has no table 'frames'; remove the file and run again")
            rows = read_rows(handle["frames"], columns=COLUMNS)
        for name in COLUMNS:
            gathered[name].extend(np.asarray(rows[name]).tolist())
        chunk_of_frame.extend([number] * len(rows["frame"]))
    order = np.argsort(np.asarray(gathered["frame"], dtype=np.int64), kind="stable")
    frames = {name: [values[i] for i in order] for name, values in gathered.items()}
    frames["status"] = [Status(value) for value in frames["status"]]
    return frames, np.asarray(chunk_of_frame, dtype=np.int64)[order]


def check_complete(numbers, n_frames, chunk_of_frame, chunks):
    """Check that the frames 0 to `n_frames` - 1 are there, each once.

    Parameters
    ----------
    numbers : sequence of int, ascending
        Frame numbers found.
    n_frames : int
        Frames that the run holds.
    chunk_of_frame, chunks
        Where each was found, for the message (see `gather_frames`).

    Raises
    ------
    InputError
        Frames are missing, counted twice or beyond the end.
    """
    numbers = np.asarray(numbers, dtype=np.int64)
    advice = "remove the chunk files of this run and run again"
    twice = np.flatnonzero(numbers[1:] == numbers[:-1])
    if len(twice):
        first, second = (chunks[chunk_of_frame[i]] for i in (twice[0], twice[0] + 1))
        raise InputError(f"frame {numbers[twice[0]]} is counted twice, in {first} and in {second}; {advice}")
    beyond = np.flatnonzero((numbers < 0) | (numbers >= n_frames))
    if len(beyond):
        where = chunks[chunk_of_frame[beyond[0]]]
        raise InputError(f"{where}: holds frame {numbers[beyond[0]]}, but the run has {n_frames} frames; {advice}")
    if len(numbers) != n_frames:
        expected = np.arange(n_frames)
        first = expected[~np.isin(expected, numbers)][0]
        raise InputError(
            f"{n_frames - len(numbers)} of the run's {n_frames} frames are in none of the {len(chunks)} chunk files, "
            f"the first is frame {first}; {advice}"
        )


def count_by_status(statuses):
    """Number of frames of each status: `Status` to int; the counts add up to the number of frames."""
    counts = {status: 0 for status in Status}
    for status in statuses:
        counts[status] += 1
    return counts


def write_frame_account(path, frames, provenance):
    """Write frames.tsv.

    Parameters
    ----------
    path : path
    frames : dict
        `COLUMNS` to equally long lists; `status` as `Status`.
    provenance : str
        JSON text on one line.
    """
    with written_whole(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as handle:
        handle.write(f"{_PROVENANCE}{provenance}\n")
        writer = csv.writer(handle, delimiter="\t", quoting=csv.QUOTE_NONE, quotechar=None, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in zip(*(frames[name] for name in COLUMNS), strict=True):
            writer.writerow([_text(name, value) for name, value in zip(COLUMNS, row, strict=True)])


def read_frame_account(path):
    """Read frames.tsv.

    Returns
    -------
    frames : dict
        `COLUMNS` to lists; `status` as `Status`, `resolution` NaN where there is none.
    provenance : str
        JSON text.

    Raises
    ------
    InputError
        Not there, or not a frame account.
    """
    try:
        with open(path, newline="", encoding="utf-8") as handle:
            first = handle.readline()
            rows = list(csv.reader(handle, delimiter="\t", quoting=csv.QUOTE_NONE, quotechar=None))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: the frame account can't be read ({error})") from None
    if not first.startswith(_PROVENANCE) or not rows or tuple(rows[0]) != COLUMNS:
        raise InputError(f"{path}: is not a frame account; columns {', '.join(COLUMNS)} are expected")
    columns = {name: [] for name in COLUMNS}
    for number, row in enumerate(rows[1:], 3):
        try:
            for name, value in zip(COLUMNS, row, strict=True):
                columns[name].append(_value(name, value))
        except (ValueError, KeyError):
            raise InputError(
                f"{path}, line {number}: is not a row of a frame account; remove the file and run again"
            ) from None
    return columns, first.removeprefix(_PROVENANCE).strip()


def _text(name, value):
    if name == "status":
        return value.name
    if name == "resolution":
        return f"{value:.3f}" if math.isfinite(value) else ""
    # A tab or a line break in a file's name or a message must not break the table.
    return (
        " ".join(str(value).split())
        if name == "message"
        else str(value).replace("\t", " ").replace("\n", " ").replace("\r", " ")
    )


def _value(name, text):
    if name == "status":
        return Status[text]
    if name == "resolution":
        return float(text) if text else math.nan
    return int(text) if name in ("frame", "n_peaks", "n_lattices") else text
