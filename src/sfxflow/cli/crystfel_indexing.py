"""Index and integrate with CrystFEL's indexamajig the hits of a peak file, whatever engine found the peaks.

--settings is a JSON object with the sections crystfel and integration of config.yaml; of the latter only the radii, d_min, push_res and
the polarisation count. indexamajig runs in a directory of its own; its stream is counted: a hit that is not in it has failed.
"""

import os
import sys
from collections import Counter

import numpy as np

from sfxflow.cli import crystfel_job, options, program_job
from sfxflow.errors import InputError
from sfxflow.io.cell_file import write_cell
from sfxflow.io.crystfel_frames import row_of_event
from sfxflow.io.files import provenance_json, written_whole
from sfxflow.io.frames import open_frames
from sfxflow.io.geometry import read_geometry
from sfxflow.io.hdf5 import hdf5_written_whole
from sfxflow.io.peaks import PEAK_GROUP
from sfxflow.io.table import ChunkWriter, open_chunk, read_rows
from sfxflow.licences import accepted_licences, require_licences
from sfxflow.programs.crystfel import indexing_options
from sfxflow.reflections import TABLES, Status

_CELL = "target.cell"
#: A hit with so many peaks should be indexable; if nearly none of several such hits is, cell or geometry are wrong.
_STRONG_PEAKS = 25
_STRONG_HITS = 3
_FITTING_SHARE = 0.1


def add_arguments(parser):
    """Arguments of the sub-command."""
    parser.add_argument("--peaks", required=True, help="peak file")
    options.add_frames(parser)
    options.add_cell(parser)
    parser.add_argument("--kept-stream", metavar="FILE", help="indexamajig's stream, to write")
    parser.add_argument(
        "--licences",
        default="{}",
        metavar="JSON",
        help="terms of other people's programs that were accepted: the section licences of config.yaml",
    )
    program_job.add_program(parser)
    options.add_job(parser, "file of the integrated reflections (HDF5)")


def run(args):
    """Index and integrate; see the module's docstring."""
    settings, integration = program_job.sections(args, "crystfel", "integration")
    licences = require_licences(settings.indexing, accepted_licences(args.licences))
    detector = read_geometry(args.geometry)
    cell, group = options.cell_and_group(args.cell, args.space_group)
    chosen = ["-p", _CELL, *indexing_options(settings, integration)]
    with open_chunk(args.peaks, "frames", PEAK_GROUP) as handle:
        account = read_rows(handle["frames"])
    hits = [row for row, status in enumerate(account["status"]) if status == Status.hit]
    with (
        program_job.working_directory(args) as (directory, log),
        open_frames(args.frames, detector, args.mask, near=args.first) as frames,
    ):
        wanted = options.frame_range(args, frames.n_frames)
        if list(account["frame"]) != list(wanted):
            raise InputError(
                f"{args.peaks}: does not hold the frames {wanted.start} to {wanted.stop - 1}; find the peaks of this chunk again"
            )
        shown, failed = crystfel_job.shown_frames(frames, wanted.start, hits)
        detector, gain_from = crystfel_job.gain_of_every_panel(detector, frames, [wanted[row] for row in hits])
        write_cell(directory / _CELL, cell)
        outcome = crystfel_job.run_indexamajig(
            directory,
            log,
            chosen,
            frames,
            detector,
            wanted.start,
            len(wanted),
            shown,
            args,
            peaks=args.peaks,
            label="hits processed",
        )
        found = _Found(outcome, integration)
        failed |= crystfel_job.lost_frames(outcome, shown, found.rows)
        _note(account, found, failed)
        crystfel_job.tell_remarks(outcome)
        try:
            options.check_failures(len(failed), max(len(hits), 1), settings.max_bad_frames, list(failed.values()))
        except InputError as error:
            raise crystfel_job.with_log(error, outcome) from None
        files = frames.files_of(wanted)
        if args.kept_stream:
            _keep(outcome, args.kept_stream, account)
    warning = _misfit(account, cell)
    inputs = [args.peaks, args.geometry, args.cell, *([args.mask] if args.mask else []), *files]
    with hdf5_written_whole(args.output) as handle:
        writer = ChunkWriter(
            handle,
            provenance_json(
                {"crystfel": vars(settings), "integration": vars(integration)}
                | ({"licences": licences} if licences else {}),
                inputs,
            ),
            ["frames", "crystals", "reflections"],
        )
        handle.attrs["warning"] = warning
        handle.attrs["cell"] = cell.parameters
        handle.attrs["space_group"] = group.xhm()
        handle.attrs["program"] = outcome.program
        handle.attrs["options"] = " ".join(chosen)
        handle.attrs["gain_from"] = gain_from
        crystals, reflections = found.tables(failed)
        for table, rows in (("frames", account), ("crystals", crystals), ("reflections", reflections)):
            writer.append(table, rows)
    counts = Counter(Status(status) for status in account["status"])
    print(
        f"{len(hits)} hits: {counts[Status.indexed]} indexed, {len(crystals['frame'])} lattices, {len(reflections['h'])} reflections; "
        f"{len(failed)} failed ({outcome.program})",
        file=sys.stderr,
    )
    if warning:
        print(f"WARNING: {warning}", file=sys.stderr)


class _Found:
    """What a stream holds, in the order of the frames: indexamajig writes them as its workers end."""

    def __init__(self, outcome, integration):
        self.rows, self.n_peaks, self._blocks = [], {}, []
        polarisation = {
            "polarisation_fraction": integration.polarisation_fraction,
            "polarisation_angle": np.radians(integration.polarisation_angle),
        }
        for rows, frames, tables in crystfel_job.blocks_of_stream(outcome, **polarisation):
            self.rows += rows
            self.n_peaks |= {row: frame.n_peaks for row, frame in zip(rows, frames, strict=True)}
            self._blocks.append(tables)
        self._crystals = _joined([_empty("crystals"), *(tables.crystals for tables in self._blocks)])
        self._reflections = _joined([_empty("reflections"), *(tables.reflections for tables in self._blocks)])
        self._crystals["frame"] = np.array(self.rows, dtype=np.int32)[self._crystals["frame"]]

    def lattices(self):
        """Number of lattices and best resolution of each row that has any."""
        found = {}
        for row, resolution in zip(
            self._crystals["frame"].tolist(), self._crystals["resolution"].tolist(), strict=True
        ):
            n, best = found.get(row, (0, np.nan))
            found[row] = n + 1, np.fmin(best, resolution)
        return found

    def tables(self, left_out):
        """Crystals and reflections, frame after frame, without the rows that are left out."""
        use = ~np.isin(self._crystals["frame"], list(left_out))
        order = np.argsort(self._crystals["frame"], kind="stable")
        order = order[use[order]]
        starts = np.searchsorted(self._reflections["crystal"], np.arange(len(use) + 1))
        n = np.diff(starts)[order]
        rows = np.arange(n.sum()) + np.repeat(starts[order] - np.cumsum(n) + n, n)
        reflections = {name: values[rows] for name, values in self._reflections.items()}
        reflections["crystal"] = np.repeat(np.arange(len(order), dtype=np.uint32), n)
        return {name: values[order] for name, values in self._crystals.items()}, reflections


def _joined(tables):
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}


def _empty(table):
    return {column.name: np.zeros((0, *column.shape), column.dtype) for column in TABLES[table]}


def _note(account, found, failed):
    """What became of each hit, into the frame account."""
    for row, (n, resolution) in found.lattices().items():
        account["status"][row], account["n_lattices"][row], account["resolution"][row] = Status.indexed, n, resolution
    for row, reason in failed.items():
        account["status"][row], account["n_lattices"][row], account["resolution"][row] = Status.failed, 0, np.nan
        account["message"][row] = reason
    for row, n in found.n_peaks.items():
        if n != account["n_peaks"][row] and row not in failed:
            account["message"][row] = f"indexamajig read {n} of {account['n_peaks'][row]} peaks"


def _misfit(account, cell):
    """A sentence that says that the cell does not fit, empty if it does or if too few strong hits can tell."""
    status = account["status"]
    strong = (account["n_peaks"] >= _STRONG_PEAKS) & ((status == Status.hit) | (status == Status.indexed))
    indexed = int(np.count_nonzero(strong & (status == Status.indexed)))
    n = int(np.count_nonzero(strong))
    if n < _STRONG_HITS or indexed >= _FITTING_SHARE * n:
        return ""
    given = " ".join(f"{value:g}" for value in cell.parameters)
    return (
        f"{indexed} of {n} frames with {_STRONG_PEAKS} peaks or more are indexed with the cell {given}: check the cell, then the camera "
        "length, the beam centre and the photon energy, and whether the indexing method suits"
    )


def _keep(outcome, path, account):
    """The stream with the names of the frames' own files and events; one without frames where there was nothing to do."""
    with written_whole(path) as temporary, open(temporary, "wb") as target:
        if outcome.stream is None:
            target.write(f"CrystFEL stream format 2.3\nGenerated by {outcome.program}\n".encode())
            return
        with open(outcome.stream, "rb") as source:
            for line in source:
                if line.startswith(b"Image filename: "):
                    row = row_of_event(next(source).decode().strip().removeprefix("Event: "))
                    file, event = os.path.abspath(account["file"][row]), account["event"][row] or "//"
                    line = f"Image filename: {file}\nEvent: {event}\n".encode()
                target.write(line)
