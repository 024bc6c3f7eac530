"""Find peaks with CrystFEL's indexamajig, or take those of another engine.

--settings is a JSON object with the sections peaks and crystfel of config.yaml; of the latter only peak_search and peaks_extra count.
With --taken the peak file of another engine is passed on as it is. indexamajig runs in a directory of its own; its stream is counted: a
frame that is not in it has failed.
"""

import shutil
import sys
from collections import Counter

import numpy as np

from sfxflow.cli import crystfel_job, options, program_job
from sfxflow.errors import InputError
from sfxflow.io.files import provenance_json, written_whole
from sfxflow.io.frames import open_frames
from sfxflow.io.geometry import read_geometry
from sfxflow.io.hdf5 import hdf5_written_whole
from sfxflow.io.peaks import PEAK_GROUP, PeakWriter
from sfxflow.io.table import open_chunk
from sfxflow.peaks import PEAK, strongest
from sfxflow.programs.crystfel import peak_options
from sfxflow.reflections import Status

#: Frames that are written at once.
_BLOCK = 128


def add_arguments(parser):
    """Arguments of the sub-command."""
    options.add_frames(parser)
    parser.add_argument(
        "--taken", nargs="?", metavar="FILE", help="peak file of another engine, where crystfel.peak_search says so"
    )
    program_job.add_program(parser)
    options.add_job(parser, "peak file (HDF5, CXI layout)")


def run(args):
    """Find the peaks; see the module's docstring."""
    settings, crystfel = program_job.sections(args, "peaks", "crystfel")
    if args.taken:
        _take(args)
        return
    if crystfel.peak_search == "builtin":
        raise InputError("crystfel.peak_search is builtin: give the peak file of the engine builtin with --taken")
    if settings.threshold is None:
        print(
            "WARNING: peaks.threshold is not set: on frames of few photons indexamajig's peakfinder8 then takes noise for peaks",
            file=sys.stderr,
        )
    detector = read_geometry(args.geometry)
    chosen = peak_options(settings, crystfel)
    with (
        program_job.working_directory(args) as (directory, log),
        open_frames(args.frames, detector, args.mask, near=args.first) as frames,
    ):
        wanted = options.frame_range(args, frames.n_frames)
        shown, failed = crystfel_job.shown_frames(frames, wanted.start, range(len(wanted)))
        detector, gain_from = crystfel_job.gain_of_every_panel(detector, frames, wanted)
        outcome = crystfel_job.run_indexamajig(
            directory, log, chosen, frames, detector, wanted.start, len(wanted), shown, args, label="frames searched"
        )
        peaks = {}
        for rows, _, tables in crystfel_job.blocks_of_stream(outcome):
            lists = tables.peaks or [np.zeros(0, PEAK)] * len(rows)
            peaks |= {row: strongest(found, settings.max_peaks) for row, found in zip(rows, lists, strict=True)}
        failed |= crystfel_job.lost_frames(outcome, shown, peaks)
        beam = {frame.row: frame for frame in shown}
        rows = [
            _row(frames, wanted.start, row, peaks.get(row), beam.get(row), failed.get(row), settings)
            for row in range(len(wanted))
        ]
        files = frames.files_of(wanted)
        crystfel_job.tell_remarks(outcome)
        counts = Counter(Status(row["status"]) for row in rows)
        try:
            options.check_failures(counts[Status.failed], len(wanted), settings.max_bad_frames, list(failed.values()))
        except InputError as error:
            raise crystfel_job.with_log(error, outcome) from None
    inputs = [args.geometry, *([args.mask] if args.mask else []), *files]
    with hdf5_written_whole(args.output) as handle:
        writer = PeakWriter(handle, provenance_json(dict(vars(settings)), inputs))
        handle.attrs["program"] = outcome.program
        handle.attrs["options"] = " ".join(chosen)
        handle.attrs["gain_from"] = gain_from
        none = np.zeros(0, PEAK)
        for start in range(0, len(rows), _BLOCK):
            block = rows[start : start + _BLOCK]
            columns = {name: [row[name] for row in block] for name in block[0]}
            writer.append(
                columns,
                [none if row["status"] == Status.failed else peaks[start + i] for i, row in enumerate(block)],
            )
    print(
        f"{len(wanted)} frames: {counts[Status.hit]} hits, {counts[Status.blank]} blanks, {counts[Status.failed]} failed ({outcome.program})",
        file=sys.stderr,
    )


def _take(args):
    with open_chunk(args.taken, "frames", PEAK_GROUP) as handle:
        n = len(handle["frames/frame"])
    with written_whole(args.output) as temporary:
        shutil.copyfile(args.taken, temporary)
    print(f"peaks of {n} frames taken from {args.taken}", file=sys.stderr)


def _row(frames, first, row, peaks, beam, reason, settings):
    file, event = frames.origin(first + row)
    n_peaks = 0 if peaks is None or reason else len(peaks)
    status = Status.failed if reason else Status.hit if n_peaks >= settings.min_peaks else Status.blank
    return {
        "frame": first + row,
        "file": file,
        "event": event,
        "status": int(status),
        "n_peaks": n_peaks,
        "n_lattices": 0,
        "resolution": np.nan,
        "photon_energy": beam.photon_energy if beam else np.nan,
        "clen": beam.clen if beam else np.nan,
        "message": reason or "",
    }
