"""Find peaks in the frames of a run, or of a part of it, and say which frames are hits."""

import sys

import numpy as np

from sfxflow.cli import options
from sfxflow.errors import FrameError
from sfxflow.geometry import panel_arrays
from sfxflow.io.files import provenance_json
from sfxflow.io.frames import open_frames
from sfxflow.io.geometry import read_geometry
from sfxflow.io.hdf5 import hdf5_written_whole
from sfxflow.io.peaks import PeakWriter
from sfxflow.parallel import ordered_map
from sfxflow.peaks import PEAK, find_peaks, prepare
from sfxflow.progress import Progress
from sfxflow.reflections import Status

#: Frames that are gathered before they are written.
_BLOCK = 128


def add_arguments(parser):
    """Arguments of the sub-command."""
    options.add_frames(parser)
    options.add_job(parser, "peak file (HDF5, CXI layout)")


def run(args):
    """Find the peaks; see the module's docstring."""
    settings = options.stage_settings("peaks", args)
    detector = read_geometry(args.geometry)
    with open_frames(args.frames, detector, args.mask, near=args.first) as frames:
        wanted = options.frame_range(args, frames.n_frames)
        files = frames.files_of(wanted)
    results = ordered_map(
        _peaks_of_frame, _open, (args.frames, detector, args.mask, settings, args.first), wanted, args.threads
    )
    inputs = [args.geometry, *([args.mask] if args.mask else []), *files]
    progress = Progress("frames searched", len(wanted))
    counts = np.zeros(len(Status), dtype=int)
    messages = []
    with hdf5_written_whole(args.output) as handle:
        writer = PeakWriter(handle, provenance_json(vars_of(settings), inputs))
        block = []
        for row, peaks in results:
            counts[row["status"]] += 1
            if row["status"] == Status.failed:
                messages.append(row["message"])
            block.append((row, peaks))
            progress.add()
            if len(block) == _BLOCK:
                _write(writer, block)
                block = []
        _write(writer, block)
        options.check_failures(counts[Status.failed], len(wanted), settings.max_bad_frames, messages)
    progress.finish()
    print(
        f"{len(wanted)} frames: {counts[Status.hit]} hits, {counts[Status.blank]} blanks, {counts[Status.failed]} failed",
        file=sys.stderr,
    )


def vars_of(settings):
    """Settings as a dict."""
    return dict(vars(settings))


def _write(writer, block):
    if block:
        rows = [row for row, _ in block]
        writer.append({name: [row[name] for row in rows] for name in rows[0]}, [peaks for _, peaks in block])


class _Search:
    """What a worker needs: its own open files, and the search prepared for the geometry."""

    def __init__(self, pattern, detector, mask, settings, near):
        self.frames = open_frames(pattern, detector, mask, near)
        self.memory = self.frames.memory()
        self.detector = detector
        self.arrays = panel_arrays(detector)
        self.settings = settings
        self.max_adu = options.highest_values(detector)
        self._prepared = (None, None)

    def prepared(self, clen):
        clen = options.clen_of_bins(self.detector, clen)
        if self._prepared[0] != clen:
            self._prepared = (clen, prepare(self.arrays, self.frames.mask, clen))
        return self._prepared[1]


def _open(pattern, detector, mask, settings, near):
    return _Search(pattern, detector, mask, settings, near)


def _peaks_of_frame(search, index):
    file, event = search.frames.origin(index)
    row = {
        "frame": index,
        "file": file,
        "event": event,
        "status": int(Status.failed),
        "n_peaks": 0,
        "n_lattices": 0,
        "resolution": np.nan,
        "photon_energy": np.nan,
        "clen": np.nan,
        "message": "",
    }
    try:
        frame = search.frames.read(index, search.memory)
    except FrameError as error:
        row["message"] = str(error)
        return row, np.zeros(0, PEAK)
    search.frames.announce(index + 1)
    peaks = find_peaks(
        frame.data,
        search.prepared(frame.clen),
        search.settings,
        valid_range=search.frames.valid_range,
        good=frame.good,
        gain=options.header_gain(search.detector, frame.photon_energy),
        max_adu=search.max_adu,
    )
    row["photon_energy"], row["clen"], row["n_peaks"] = frame.photon_energy, frame.clen, len(peaks)
    row["status"] = int(Status.hit if len(peaks) >= search.settings.min_peaks else Status.blank)
    return row, peaks
