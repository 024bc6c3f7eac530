"""Tables of a stream in the order of a run's frames: programs with several workers write frames as they are done."""

from pathlib import PurePath

import numpy as np

from sfxflow.errors import InputError
from sfxflow.io.stream_tables import StreamTables
from sfxflow.peaks import PEAK
from sfxflow.reflections import Status

_MISSING = "not in the stream"


def numbers_in_run(files, events, origins, where):
    """Number within the run of each frame of a stream.

    Parameters
    ----------
    files, events : sequence of str
        Of the stream's frames.
    origins : sequence of (str, str)
        File and event of the run's frames. Where the paths differ (a stream has them as they were seen from its working directory), the names of
        the files decide.
    where : str
        The stream, for messages.

    Returns
    -------
    ndarray of int64

    Raises
    ------
    InputError
        A frame is not of the run, or twice in the stream; or paths differ and names are not unique.
    """
    by_path = {origin: number for number, origin in enumerate(origins)}
    by_name = {}
    for number, (file, event) in enumerate(origins):
        by_name.setdefault((PurePath(file).name, event), []).append(number)
    numbers = np.empty(len(files), dtype=np.int64)
    seen = set()
    for i, (file, event) in enumerate(zip(files, events, strict=True)):
        found = [by_path[file, event]] if (file, event) in by_path else by_name.get((PurePath(file).name, event), [])
        frame = f"{file} {event}".strip()
        if not found:
            raise InputError(
                f"{where}: the frame {frame} is not one of --frames; give the files that the stream was made from"
            )
        if len(found) > 1:
            raise InputError(
                f"{where}: {frame} may be one of {len(found)} frames of --frames, whose files have the same name; give the paths as the stream has them"
            )
        if found[0] in seen:
            raise InputError(f"{where}: the frame {frame} is in the stream twice; convert each stream by itself")
        seen.add(found[0])
        numbers[i] = found[0]
    return numbers


def in_order_of_run(blocks, origins, where):
    """All tables of a stream as one block with a row for each frame of the run; those that the stream lacks have failed.

    Parameters
    ----------
    blocks : list of StreamTables
        Rows counted through all of them.
    origins : sequence of (str, str)
        File and event of the run's frames.
    where : str
        The stream, for messages.

    Returns
    -------
    StreamTables
    frames, crystals : ndarray of int64
        Row of the stream of each of its frames (-1: it has none) and crystals.

    Raises
    ------
    InputError
        As `numbers_in_run`.
    """
    frames, crystals, reflections = (
        _joined([getattr(block, name) for block in blocks]) for name in StreamTables._fields[:3]
    )
    number = numbers_in_run(frames["file"], frames["event"], origins, where)
    row = np.full(len(origins), -1, dtype=np.int64)
    row[number] = np.arange(len(number))
    frame_of_crystal = number[crystals["frame"]]
    order = np.argsort(frame_of_crystal, kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    owner = rank[reflections["crystal"]]
    rows = np.argsort(owner, kind="stable")
    crystals = {name: values[order] for name, values in crystals.items()} | {
        "frame": frame_of_crystal[order].astype("i4")
    }
    reflections = {name: values[rows] for name, values in reflections.items()}
    reflections["crystal"] = owner[rows].astype(np.uint32)
    peaks = None
    if blocks[0].peaks is not None:
        found = [peaks for block in blocks for peaks in block.peaks]
        peaks = [found[i] if i >= 0 else np.zeros(0, PEAK) for i in row]
    return StreamTables(_frames_of_run(frames, row, origins), crystals, reflections, peaks), row, order


def _joined(parts):
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _frames_of_run(frames, row, origins):
    n, there = len(row), row >= 0
    filler = {
        "status": Status.failed,
        "n_peaks": 0,
        "n_lattices": 0,
        "resolution": np.nan,
        "photon_energy": np.nan,
        "clen": np.nan,
    }
    made = {"frame": np.arange(n, dtype=np.int64)}
    made["file"], made["event"] = [file for file, _ in origins], [event for _, event in origins]
    for name, value in filler.items():
        made[name] = np.full(n, value, dtype=frames[name].dtype)
        made[name][there] = frames[name][row[there]]
    return made | {"message": ["" if here else _MISSING for here in there]}
