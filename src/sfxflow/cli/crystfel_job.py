"""What the two stages of the engine crystfel share: a run of indexamajig, and its stream."""

import shutil
import sys
from pathlib import Path
from typing import NamedTuple

from sfxflow.cli.program_job import photons_of, seconds_of, tell_gain
from sfxflow.errors import FrameError, InputError
from sfxflow.geometry import states_gain, with_gain
from sfxflow.io.crystfel_frames import GEOMETRY, LIST, Shown, present_frames, row_of_event
from sfxflow.io.stream_reader import read_stream
from sfxflow.io.stream_tables import tables_of_stream
from sfxflow.programs.crystfel import MINIMUM, NOTHING_PROCESSED, STOP_SIGNAL, Account, check_stream
from sfxflow.programs.running import hdf5_filters, require_program, run_program, with_last_lines
from sfxflow.progress import Progress

_STREAM = "frames.stream"
#: Remarks of indexamajig that are shown.
_SHOWN_REMARKS = 5


class Outcome(NamedTuple):
    """What a run of indexamajig gave.

    Attributes
    ----------
    stream : path or None
        None where no frame was given.
    account : sfxflow.programs.crystfel.Account
    finished : sfxflow.programs.running.Finished or None
    program : str
        'CrystFEL 0.12.0'.
    """

    stream: Path | None
    account: Account
    finished: object
    program: str


def shown_frames(frames, first, rows):
    """Frames that can be shown to indexamajig, and of the others row to the reason.

    Parameters
    ----------
    frames : sfxflow.io.frames_of_files.Frames
    first : int
        Number of the frame in row 0.
    rows : iterable of int
    """
    shown, unreadable = [], {}
    for row in rows:
        try:
            shown.append(Shown(row, *frames.beam(first + row)))
        except FrameError as error:
            unreadable[row] = str(error)
    return shown, unreadable


def gain_of_every_panel(detector, frames, numbers):
    """The detector with a gain for every panel, without which CrystFEL does not start, and where the gain comes from.

    Parameters
    ----------
    detector : sfxflow.geometry.Detector
    frames : sfxflow.io.frames_of_files.Frames
    numbers : sequence of int
        Frames from which it may be estimated.
    """
    if states_gain(detector):
        return detector, "geometry"
    gain, origin = photons_of(detector, frames, numbers)
    tell_gain(gain, origin)
    return with_gain(detector, gain), f"{gain:.6g}, {origin}"


def run_indexamajig(directory, log, options, frames, detector, first, n_rows, shown, args, *, peaks=None, label):
    """Run indexamajig on some frames in a directory that has all it needs.

    Raises
    ------
    InputError
        indexamajig is missing, too old, fails or hangs.
    """
    program = require_program("indexamajig", MINIMUM)
    name = f"CrystFEL {program.version}"
    progress = Progress(label, len(shown))
    account = Account(progress.add)
    if not shown:
        return Outcome(None, account, None, name)
    present_frames(directory, frames, detector, first, n_rows, shown, peaks)
    arguments = [
        program.path, "-i", LIST, "-g", GEOMETRY, "-o", _STREAM, "-j", str(max(1, min(args.threads, len(shown)))), "--temp-dir=.",
        *options,
    ]  # fmt: skip
    finished = run_program(
        arguments,
        directory=directory,
        log=log,
        time_limit=seconds_of(args.time_limit),
        environment=hdf5_filters(),
        stop_signal=STOP_SIGNAL,
        on_line=account.line,
        accepted=(0, NOTHING_PROCESSED),
        temporary=True,
    )
    progress.finish()
    return Outcome(directory / _STREAM, account, finished, name)


def blocks_of_stream(outcome, **polarisation):
    """Yield (rows, frames, tables) of a run's stream, some frames at a time: rows of the file of all frames, what
    `sfxflow.io.stream_tables.tables_of_stream` gives.

    Raises
    ------
    InputError
        The stream does not hold what indexamajig says it has processed, or a frame twice.
    """
    if outcome.stream is None:
        return
    free = shutil.disk_usage(outcome.stream.parent).free
    if not outcome.stream.is_file() or outcome.stream.stat().st_size == 0:
        check_stream(0, 0, outcome.account, outcome.finished, free)
        raise InputError(
            with_last_lines("indexamajig: ended as if all were well, but wrote no stream", outcome.finished)
        )
    reader = read_stream(outcome.stream, skip_damaged=True)
    seen = set()
    for frames, tables in tables_of_stream(reader, **polarisation):
        rows = [row_of_event(frame.event) for frame in frames]
        if len(set(rows)) < len(rows) or not seen.isdisjoint(rows):
            raise InputError(with_last_lines("indexamajig: a frame stands twice in its stream", outcome.finished))
        seen.update(rows)
        yield rows, frames, tables
    check_stream(reader.n_begun, reader.n_ended, outcome.account, outcome.finished, free)


def lost_frames(outcome, shown, found):
    """Row of each frame that indexamajig was given and did not write, or of which it says that it failed, to the reason."""
    lost = {frame.row: "indexamajig wrote nothing about this frame" for frame in shown if frame.row not in found}
    return lost | outcome.account.reasons


def tell_remarks(outcome):
    """indexamajig's warnings, for people."""
    for line, count in list(outcome.account.remarks.items())[:_SHOWN_REMARKS]:
        print(f"indexamajig: {line}" + (f" ({count} times)" if count > 1 else ""), file=sys.stderr)


def with_log(error, outcome):
    """The same error with the last lines of indexamajig's output, where it ran."""
    if outcome.finished is None:
        return error
    return InputError(with_last_lines(str(error), outcome.finished))
