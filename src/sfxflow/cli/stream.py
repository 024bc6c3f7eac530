"""Write integrated reflections as a CrystFEL stream, for partialator, ambigator and other programs that read streams.

The stream holds every frame that was read, blanks too, its peaks where --peaks is given, and its crystals with their reflections. Intensities are as they were
summed: not scaled, not corrected for polarisation or partiality. With --assignment (of `sfxflow ambiguity`) each crystal stands in the way to
index that it says, and crystals that it leaves out of merging are left out here too.

A stream carries one geometry. Runs may have geometries of their own as long as their panels have the same names and places in the
files; the first is written.
"""

import io
import shlex
import sys

import numpy as np

from sfxflow.ambiguity.operators import reindexed_each, reindexed_reciprocal
from sfxflow.cell import parameters_of
from sfxflow.cli import options
from sfxflow.errors import InputError
from sfxflow.geometry import lab_positions, panel_arrays, scattering_vectors, states_gain, with_gain
from sfxflow.io.assignment import read_assignment
from sfxflow.io.files import written_whole
from sfxflow.io.geom_writer import write_geom
from sfxflow.io.geometry import read_geometry
from sfxflow.io.peaks import read_peaks
from sfxflow.io.stream import Peaks, StreamWriter
from sfxflow.io.table import open_chunk, read_rows
from sfxflow.progress import Progress
from sfxflow.reflections import CRYSTALS, Status
from sfxflow.units import wavelength

#: Frames of which reflections and peaks are in memory at a time.
_FRAMES_AT_A_TIME = 256
_CRYSTAL_COLUMNS = tuple(column.name for column in CRYSTALS)
_REFLECTION_COLUMNS = ("h", "k", "l", "I", "sigI", "peak", "background", "fs", "ss", "panel")
_NO_GAIN = "; added: the geometry states no gain, and CrystFEL's programs open no stream without one"
_PLACE = ("name", "min_fs", "max_fs", "min_ss", "max_ss", "slab_fs", "slab_ss")


def add_arguments(parser):
    """Arguments of `sfxflow stream`."""
    parser.add_argument("--integrated", nargs="+", required=True, metavar="FILE", help="chunk files with reflections")
    parser.add_argument(
        "--peaks", nargs="*", default=[], metavar="FILE", help="peak files of the same chunks, in the same order"
    )
    parser.add_argument(
        "--geometry", nargs="+", required=True, metavar="FILE", help="geometry (.geom or NXmx) of the runs"
    )
    options.add_cell(parser)
    parser.add_argument(
        "--assignment", nargs="?", metavar="FILE", help="ways to index of the crystals, from sfxflow ambiguity"
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="stream to write")


def run(args):
    """Write the stream."""
    cell, _ = options.cell_and_group(args.cell, args.space_group)
    if args.peaks and len(args.peaks) != len(args.integrated):
        raise InputError(
            f"--peaks: {len(args.peaks)} files were given, but --integrated has {len(args.integrated)}; give one peak file for each"
        )
    detector = _common_geometry(args.geometry)
    ways = read_assignment(args.assignment) if args.assignment else None
    if ways:
        ways.check_files(args.integrated)
    counts = dict.fromkeys(("frames", "failed", "crystals", "reflections", "left_out", "uncertain"), 0)
    progress = Progress("chunk files written", len(args.integrated))
    with written_whole(args.output) as temporary, open(temporary, "wb", buffering=1 << 20) as handle:
        command = shlex.join(["sfxflow", *sys.argv[1:]])
        writer = StreamWriter(handle, detector, geometry_text(args.geometry[0], detector), cell, command)
        for number, path in enumerate(args.integrated):
            peaks = args.peaks[number] if args.peaks else None
            try:
                _write_chunk(writer, path, peaks, panel_arrays(detector), counts, _ways_of(ways, number))
            except (KeyError, OSError, IndexError) as error:
                raise InputError(f"{path}: incomplete or damaged ({error}); remove it and run again") from None
            progress.add()
    progress.finish()
    print(
        f"{counts['frames']} frames, {counts['crystals']} crystals, {counts['reflections']} reflections: {args.output}"
    )
    if counts["failed"]:
        print(f"{counts['failed']} frames that could not be read are not in the stream")
    if counts["uncertain"]:
        print(f"{counts['uncertain']} crystals whose way to index is too uncertain are not in the stream")
    if counts["left_out"]:
        print(f"WARNING: {counts['left_out']} reflections without a finite intensity and uncertainty were left out")


def _ways_of(ways, number):
    """A function of the number of crystals of chunk file `number`: operators, and each crystal's mode and whether it is left out."""

    def of_crystals(n_crystals):
        if ways is None:
            return np.eye(3)[None], np.zeros(n_crystals, np.int64), np.zeros(n_crystals, bool)
        return ways.operators, *ways.of_file(number, n_crystals)

    return of_crystals


def _common_geometry(paths):
    """The detector of the first geometry; the others must have the same panels."""
    first, *others = (read_geometry(path) for path in paths)
    for path, other in zip(paths[1:], others, strict=True):
        if [_place(panel) for panel in other.panels] != [_place(panel) for panel in first.panels]:
            raise InputError(
                f"{path}: its panels are not those of {paths[0]}; a stream has one geometry: write a stream for each detector"
            )
    return first


def _place(panel):
    return [getattr(panel, name) for name in _PLACE]


def geometry_text(path, detector):
    """The geometry file as it is; one made from it where it is an NXmx file."""
    if str(path).endswith(".geom"):
        with open(path, encoding="utf-8", errors="replace") as handle:
            as_it_is = handle.read()
        # What stands before the panels is for those that say nothing of their own.
        return as_it_is if states_gain(detector) else f"{_NO_GAIN}\nadu_per_photon = 1\n{as_it_is}"
    text = io.StringIO()
    write_geom(text, with_gain(detector, 1.0))
    return text.getvalue()


def _write_chunk(writer, path, peak_path, arrays, counts, ways_of_crystals):
    with open_chunk(path, "frames", "crystals", "reflections") as handle:
        frames = read_rows(handle["frames"])
        crystals = read_rows(handle["crystals"], columns=_CRYSTAL_COLUMNS)
        owner = handle["reflections/crystal"][()]
        n_crystals = len(crystals["frame"])
        if np.any(np.diff(owner.astype(np.int64)) < 0) or (len(owner) and owner[-1] >= n_crystals):
            raise InputError(f"{path}: reflections do not lie crystal after crystal; remove the file and run again")
        if np.any(np.diff(crystals["frame"]) < 0):
            raise InputError(f"{path}: crystals do not lie frame after frame; remove the file and run again")
        _check_panels(path, handle["reflections/panel"][()], len(arrays.bounds))
        operators, mode, left_out = ways_of_crystals(n_crystals)
        counts["uncertain"] += int(np.count_nonzero(left_out))
        _turn(crystals, operators, mode)
        starts = np.searchsorted(owner, np.arange(n_crystals + 1))
        of_frame = np.searchsorted(crystals["frame"], np.arange(len(frames["frame"]) + 1))
        for first in range(0, len(frames["frame"]), _FRAMES_AT_A_TIME):
            last = min(first + _FRAMES_AT_A_TIME, len(frames["frame"]))
            peaks = peaks_of_frames(peak_path, path, frames, first, last, arrays) if peak_path else None
            start, stop = starts[of_frame[first]], starts[of_frame[last]]
            rows = read_rows(handle["reflections"], start, stop, _REFLECTION_COLUMNS)
            hkl = np.column_stack([rows[name] for name in "hkl"])
            hkl = reindexed_each(hkl, operators, mode[owner[start:stop]])
            rows |= dict(zip("hkl", hkl.T, strict=True))
            for frame in range(first, last):
                if frames["status"][frame] == Status.failed:
                    counts["failed"] += 1
                    continue
                own = [c for c in range(of_frame[frame], of_frame[frame + 1]) if not left_out[c]]
                begin(writer, frames, frame, peaks[frame - first] if peaks else None, bool(own))
                for c in own:
                    some = {name: values[starts[c] - start : starts[c + 1] - start] for name, values in rows.items()}
                    counts["left_out"] += writer.add_crystal({name: crystals[name][c] for name in crystals}, some)
                    counts["reflections"] += len(some["h"])
                writer.end_frame()
                counts["frames"] += 1
                counts["crystals"] += len(own)


def _turn(crystals, operators, mode):
    """Bring axes and cells of the crystals, in place, to the ways to index that the modes say."""
    turned = np.flatnonzero(mode)
    axes = reindexed_reciprocal(crystals["reciprocal"][turned].astype(np.float64), operators[mode[turned]])
    for c, reciprocal in zip(turned, axes, strict=True):
        crystals["reciprocal"][c] = reciprocal
        crystals["cell"][c] = parameters_of(reciprocal)


def begin(writer, frames, frame, peaks, is_indexed):
    """The first lines of a row of the table `frames`."""
    writer.begin_frame(
        frames["file"][frame],
        frames["event"][frame],
        frames["status"][frame] >= Status.hit,
        is_indexed,
        float(frames["photon_energy"][frame]),
        float(frames["clen"][frame]),
        peaks,
        int(frames["n_peaks"][frame]),
        int(frames["frame"][frame]),
        frames["resolution"][frame],
    )


def _check_panels(path, panel, n_panels):
    if len(panel) and int(panel.max()) >= n_panels:
        raise InputError(
            f"{path}: has reflections on panel {int(panel.max())}, but --geometry has {n_panels} panels; give the geometry that was"
            " integrated with"
        )


def peaks_of_frames(peak_path, path, frames, first, last, arrays):
    """Peaks of some rows of `frames`, the table of the file `path`, as the stream needs them: list of Peaks."""
    with open_chunk(peak_path, "frames") as handle:
        numbers = handle["frames/frame"][first:last]
        if list(numbers) != list(frames["frame"][first:last]):
            raise InputError(f"{peak_path}: does not hold the frames of {path}; give the peak files in the same order")
        found = read_peaks(handle, first, last)
    columns = []
    for frame, peaks in zip(range(first, last), found, strict=True):
        panel = peaks["panel"].astype(np.int64)
        place = lab_positions(arrays, panel, peaks["fs"], peaks["ss"], float(frames["clen"][frame]))
        q = scattering_vectors(place, wavelength(float(frames["photon_energy"][frame])))
        inverse_d = np.linalg.norm(q, axis=1)
        columns.append(Peaks(peaks["fs"], peaks["ss"], inverse_d, peaks["intensity"], panel))
    return columns
