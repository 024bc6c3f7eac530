"""What the stages share that run another program: its arguments, settings of several sections, a directory of the job's own."""

import json
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from sfxflow.cli import options
from sfxflow.errors import FrameError, InputError
from sfxflow.geometry import panel_arrays
from sfxflow.peaks import estimate_gain, prepare
from sfxflow.settings import settings_from

#: What is left of a job's time to end a program in order.
_RESERVE = 30.0


def add_program(parser):
    """Arguments of a stage that runs one of CrystFEL's programs."""
    parser.add_argument(
        "--program-log", metavar="FILE", help="file for what the program writes; the end of it is in messages"
    )
    parser.add_argument(
        "--time-limit", type=float, metavar="MINUTES", help="end the program shortly before so many minutes are over"
    )


def sections(args, *stages):
    """Settings of several stages from `--settings`, a JSON object with a section for each.

    Raises
    ------
    InputError
        It is no such object, or a section has an unknown key or a wrong value.
    """
    try:
        values = json.loads(args.settings) if args.settings else {}
    except json.JSONDecodeError as error:
        raise InputError(f"--settings: not JSON: {error}") from None
    if not isinstance(values, dict) or not all(isinstance(section, dict) for section in values.values()):
        raise InputError(f"--settings: a JSON object with the sections {', '.join(stages)} is expected")
    if unknown := values.keys() - set(stages):
        raise InputError(f"--settings: {min(unknown)}: no such section here; it has: {', '.join(stages)}")
    return [settings_from(stage, values.get(stage, {})) for stage in stages]


def seconds_of(minutes):
    """Time limit of a program in a job of so many minutes; None for None."""
    return None if minutes is None else max(60.0 * minutes - _RESERVE, 30.0 * minutes)


@contextmanager
def working_directory(args):
    """A directory of the job's own, removed in the end, and the program's log file: the one asked for, or else one in there.

    The directory lies in the folder for temporary files (TMPDIR).
    """
    with tempfile.TemporaryDirectory(prefix="sfxflow-") as name:
        asked_for = getattr(args, "program_log", None)
        log = Path(asked_for).absolute() if asked_for else Path(name, "program.log")
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"")
        yield Path(name), log


def photons_of(detector, frames, numbers, stated=None):
    """Detector units a photon: as stated, or as the geometry says, or else estimated from the first of these frames.

    Parameters
    ----------
    detector : sfxflow.geometry.Detector
    frames : sfxflow.io.frames_of_files.Frames
    numbers : sequence of int
    stated : float or None

    Returns
    -------
    gain : float
    origin : str
        Where it comes from.
    """
    if stated is not None:
        return stated, "settings"
    for number in numbers:
        try:
            energy, clen = frames.beam(number)
            known = options.header_gain(detector, energy)
            if known is not None:
                return known, "geometry"
            frame = frames.read(number)
        except FrameError:
            continue
        prepared = prepare(panel_arrays(detector), frames.mask, clen)
        return float(
            estimate_gain(frame.data, prepared, frames.valid_range, frame.good)
        ), f"estimated from frame {number}"
    return 1.0, "no frame could be read"


def tell_gain(gain, origin):
    """Say what a photon counts."""
    print(f"gain: {gain:.3g} detector units a photon ({origin})", file=sys.stderr)
