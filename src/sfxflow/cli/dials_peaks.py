"""Find peaks with dials.find_spots.

--settings is a JSON object with the sections peaks and dials of config.yaml. Frames are shown to DIALS as an NXmx file; each is read once
before, so that those that can't be read are known. Limits of resolution, number and saturation of the peaks are applied to what DIALS
finds, so that a hit is a hit for every engine.
"""

import sys
from collections import Counter

import numpy as np

from sfxflow.cli import dials_job, options
from sfxflow.cli.program_job import add_program, photons_of, seconds_of, sections, tell_gain, working_directory
from sfxflow.geometry import panel_arrays
from sfxflow.io.dials_job import EXPERIMENTS, STRONG, peaks_of_spots, present
from sfxflow.io.files import provenance_json
from sfxflow.io.frames import open_frames
from sfxflow.io.geometry import read_geometry
from sfxflow.io.hdf5 import hdf5_written_whole
from sfxflow.io.peaks import PeakWriter
from sfxflow.peaks import PEAK, strongest
from sfxflow.programs.dials import environment, find_spots_arguments, require_dials
from sfxflow.progress import Progress
from sfxflow.reflections import Status

#: Frames that are written at once.
_BLOCK = 128


def add_arguments(parser):
    """Arguments of the sub-command."""
    options.add_frames(parser)
    add_program(parser)
    options.add_job(parser, "peak file (HDF5, CXI layout)")


def run(args):
    """Find the peaks; see the module's docstring."""
    settings, dials = sections(args, "peaks", "dials")
    find_spots_arguments(settings, dials, 1.0, "", "")
    detector = read_geometry(args.geometry)
    program = require_dials("dials.find_spots")
    with (
        working_directory(args) as (directory, log),
        open_frames(args.frames, detector, args.mask, near=args.first) as frames,
    ):
        wanted = options.frame_range(args, frames.n_frames)
        files = frames.files_of(wanted)
        gain, origin = photons_of(detector, frames, wanted, dials.gain)
        tell_gain(gain, origin)
        programs = dials_job.Programs(log, environment(directory), seconds_of(args.time_limit))
        arguments = find_spots_arguments(settings, dials, gain, EXPERIMENTS, STRONG)

        def search(part_directory, numbers):
            return _search(part_directory, numbers, args, detector, programs, arguments, settings)

        progress = Progress("frames searched", len(wanted))
        results, failed = dials_job.process_parts(search, directory, list(wanted), args.threads, progress)
        progress.finish()
        rows = [_row(frames, number, results.get(number), failed.get(number), settings) for number in wanted]
    counts = Counter(Status(row["status"]) for row, _ in rows)
    messages = [row["message"] for row, _ in rows if row["status"] == Status.failed]
    options.check_failures(counts[Status.failed], len(wanted), settings.max_bad_frames, messages)
    inputs = [args.geometry, *([args.mask] if args.mask else []), *files]
    with hdf5_written_whole(args.output) as handle:
        writer = PeakWriter(handle, provenance_json({"peaks": vars(settings), "dials": vars(dials)}, inputs))
        handle.attrs["program"] = program
        handle.attrs["options"] = " ".join(arguments)
        handle.attrs["gain"], handle.attrs["gain_from"] = gain, origin
        for start in range(0, len(rows), _BLOCK):
            block = rows[start : start + _BLOCK]
            columns = {name: [row[name] for row, _ in block] for name in block[0][0]}
            writer.append(columns, [peaks for _, peaks in block])
    print(
        f"{len(wanted)} frames: {counts[Status.hit]} hits, {counts[Status.blank]} blanks, {counts[Status.failed]} failed ({program})",
        file=sys.stderr,
    )


def _search(directory, numbers, args, detector, programs, arguments, settings):
    """Number to (peaks or why it failed, beam) of a part's frames."""
    with open_frames(args.frames, detector, args.mask, near=args.first) as frames:
        presented = present(directory, frames, numbers)
    found = {number: (reason, None) for number, reason in presented.failed.items()}
    if not presented.numbers:
        return found
    programs.run(directory, arguments, STRONG)
    arrays = panel_arrays(detector)
    for number, peaks in zip(
        presented.numbers,
        peaks_of_spots(directory / STRONG, detector, len(presented.numbers)),
        strict=True,
    ):
        beam = presented.beams[number]
        peaks = peaks[dials_job.resolution_limits(peaks, arrays, beam[1], settings)]
        if not settings.use_saturated:
            peaks = peaks[~peaks["saturated"]]
        found[number] = strongest(peaks, settings.max_peaks), beam
    return found


def _row(frames, number, result, reason, settings):
    """The row of the frame account and the peaks of a frame."""
    file, event = frames.origin(number)
    peaks, beam = result or (reason or "dials.find_spots says nothing about this frame", None)
    if isinstance(peaks, str):
        peaks, reason = np.zeros(0, PEAK), peaks
    status = Status.failed if reason else Status.hit if len(peaks) >= settings.min_peaks else Status.blank
    energy, clen = beam or (np.nan, np.nan)
    return {
        "frame": number,
        "file": file,
        "event": event,
        "status": int(status),
        "n_peaks": len(peaks),
        "n_lattices": 0,
        "resolution": np.nan,
        "photon_energy": energy,
        "clen": clen,
        "message": reason or "",
    }, peaks
