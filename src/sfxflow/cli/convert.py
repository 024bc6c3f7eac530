"""Convert between CrystFEL streams, integrated tables, peak files, unmerged MTZ and DIALS' files.

The ends of the names say what is what: .stream (or .stream.gz, to read), .integrated.h5, .peaks.h5 or .cxi, .mtz (unmerged), and .expt with .refl
beside it. What both formats can hold is kept, to the digits that they have; docs/streams.md says what each can't hold.

A stream brings its geometry and its target cell; other files need --geometry, and --cell to become a stream. An integrated table that was
made from a stream keeps the stream's lines beside the tables, and becomes the same stream again. With --peaks the peaks of a peak file go into a
stream, and those of a stream into a peak file.

  sfxflow convert --input run.stream --output run.integrated.h5
  sfxflow convert --input run.stream --output run.peaks.h5
  sfxflow convert --input 0000.integrated.h5 --output run.mtz --cell lyso.cell --space-group P43212
"""

import itertools
import shlex
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np

from sfxflow.cli import options
from sfxflow.cli import stream as stream_command
from sfxflow.errors import InputError
from sfxflow.geometry import panel_arrays
from sfxflow.io.cell_file import check_cell, parse_cell
from sfxflow.io.files import provenance, provenance_json, written_whole
from sfxflow.io.geometry import read_geometry
from sfxflow.io.hdf5 import hdf5_written_whole
from sfxflow.io.mtz import Header, write_unmerged_mtz
from sfxflow.io.peaks import PEAK_GROUP, PeakWriter
from sfxflow.io.stream import StreamWriter, frame_bytes, geometry_block
from sfxflow.io.stream_reader import parse_header, read_stream
from sfxflow.io.stream_tables import PanelPlaces, detector_of_header, tables_of_stream
from sfxflow.io.table import open_chunk, read_rows
from sfxflow.io.table_blocks import (
    FRAMES_AT_A_TIME,
    MTZ_COLUMNS,
    Texts,
    batches_of_table,
    table_blocks,
    tables_of_batches,
    texts_of,
    write_table,
)
from sfxflow.io.unmerged_mtz import read_unmerged_mtz
from sfxflow.reflections import Status
from sfxflow.symmetry import lattice_group, space_group

#: Ends of names, and what such a file is.
_ENDS = {
    ".stream": "stream",
    ".stream.gz": "stream",
    ".peaks.h5": "peaks",
    ".cxi": "peaks",
    ".h5": "table",
    ".mtz": "mtz",
    ".expt": "dials",
    ".refl": "dials",
}
_MOST_NAMED = 5


def add_arguments(parser):
    """Arguments of `sfxflow convert`."""
    parser.add_argument(
        "--input", nargs="+", required=True, metavar="FILE", help="file to convert; .expt and .refl together"
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="file to write; its end says the format")
    parser.add_argument("--geometry", metavar="FILE", help="geometry (.geom or NXmx); a stream's own where not given")
    parser.add_argument("--peaks", metavar="FILE", help="peak file of the same frames, to go into a stream")
    parser.add_argument("--cell", metavar="FILE", help="target cell; a stream's own where not given")
    parser.add_argument("--space-group", nargs="?", default="", help="space group, for an MTZ file, for example P43212")
    parser.add_argument(
        "--polarisation-fraction",
        type=float,
        default=0.99,
        help="fraction of the beam that is polarised along the main direction",
    )
    parser.add_argument(
        "--polarisation-angle",
        type=float,
        default=0.0,
        help="main direction of the electric field, degree from +x to +y",
    )


def run(args):
    """Convert; see the module's docstring."""
    source, target = _kind_of_input(args.input), _kind(args.output)
    if Path(args.output).resolve() in [Path(path).resolve() for path in args.input]:
        raise InputError(f"--output: {args.output} is the file to be converted; give another name")
    way = _WAYS.get((source, target))
    if way is None:
        possible = ", ".join(sorted({_NAMES[end] for start, end in _WAYS if start == source}))
        raise InputError(f"{_NAMES[source]} can't be converted to {_NAMES[target]}; it can be to: {possible}")
    way(args)


_NAMES = {
    "stream": "a stream (.stream)",
    "table": "an integrated table (.integrated.h5)",
    "peaks": "a peak file (.peaks.h5)",
    "mtz": "an unmerged MTZ (.mtz)",
    "dials": "DIALS' files (.expt, .refl)",
}


def _kind(path):
    name = str(path).lower()
    for end, kind in _ENDS.items():
        if name.endswith(end):
            return kind
    raise InputError(f"{path}: its name has none of the ends that are known here: {', '.join(_ENDS)}")


def _kind_of_input(paths):
    kinds = {_kind(path) for path in paths}
    if len(paths) > 1 and (kinds != {"dials"} or len(paths) > 2):
        raise InputError(f"--input: {len(paths)} files were given; one is expected, or an .expt and an .refl file")
    return kinds.pop()


# ---- what comes in


class _Stream:
    """A stream, and what its frames are made into."""

    def __init__(self, args):
        self.args, self.path = args, args.input[0]
        self.reader = read_stream(self.path)
        self.detector = (
            read_geometry(args.geometry) if args.geometry else detector_of_header(self.reader.header, self.path)
        )
        self.inputs = [self.path, *([args.geometry] if args.geometry else [])]

    def blocks(self):
        """Frames and their tables, some at a time."""
        angle = np.radians(self.args.polarisation_angle)
        yield from tables_of_stream(
            self.reader, self.detector, self.args.polarisation_fraction, angle, FRAMES_AT_A_TIME
        )

    def cell_and_group(self):
        """Target cell and space group, None where there is none."""
        if self.args.cell:
            return options.cell_and_group(self.args.cell, self.args.space_group)
        if not self.reader.header.cell.strip():
            return None, None
        where = f"{self.path}, its target cell"
        cell = parse_cell(self.reader.header.cell.strip().splitlines(), where)
        if not self.args.space_group:
            return cell, lattice_group(cell)
        group = space_group(self.args.space_group)
        check_cell(cell, group, where)
        return cell, group

    def tell(self):
        """Log lines about what was passed over."""
        reader = self.reader
        if reader.unknown:
            named = [f"{name!r} ({n} times)" for name, n in reader.unknown.most_common(_MOST_NAMED)]
            more = f" and {len(reader.unknown) - _MOST_NAMED} more" if len(reader.unknown) > _MOST_NAMED else ""
            _say(f"{self.path}: lines that are not known here and were passed over: {', '.join(named)}{more}")
        if reader.n_miscounted:
            _say(
                f"WARNING: {self.path}: {reader.n_miscounted} tables have another number of rows than the line above them says"
            )


def _say(text):
    print(text, file=sys.stderr)


def _stream_with_frames(args):
    stream = _Stream(args)
    blocks = stream.blocks()
    first = next(blocks, None)
    if first is None:
        raise InputError(
            f"{stream.path}: holds no frame; the program that wrote it processed none, or was stopped at once"
        )
    return stream, itertools.chain([first], blocks)


# ---- ways


def _stream_to_table(args):
    stream, blocks = _stream_with_frames(args)
    cell, group = stream.cell_and_group()
    header = stream.reader.header.text

    def with_texts():
        for frames, tables in blocks:
            yield tables, Texts(header, [f.text for f in frames], [c.text for f in frames for c in f.crystals])

    with hdf5_written_whole(args.output) as handle:
        counts = write_table(handle, provenance_json(inputs=stream.inputs), with_texts())
        _note_cell(handle, cell, group)
        handle.attrs["options"] = stream.reader.header.command
        handle.attrs["program"] = stream.reader.header.generator
    stream.tell()
    _tell_counts(counts, args.output)


def _note_cell(handle, cell, group):
    handle.attrs["warning"] = ""
    if cell is not None:
        handle.attrs["cell"] = cell.parameters
        handle.attrs["space_group"] = group.xhm()


def _tell_counts(counts, output):
    if not counts["crystals"]:
        _say("WARNING: no frame has a crystal")
    print(f"{counts['frames']} frames, {counts['crystals']} crystals, {counts['reflections']} reflections: {output}")


def _stream_to_peaks(args):
    stream, blocks = _stream_with_frames(args)
    n_frames = n_peaks = 0
    with hdf5_written_whole(args.output) as handle:
        writer = PeakWriter(handle, provenance_json(inputs=stream.inputs))
        for frames, tables in blocks:
            if tables.peaks is None:
                raise InputError(f"{stream.path}: has no peak lists; write it without --no-peaks-in-stream")
            status = np.where([frame.is_hit for frame in frames], Status.hit, Status.blank).astype(np.uint8)
            none = np.zeros(len(frames), dtype=np.int32)
            unknown = np.full(len(frames), np.nan, dtype=np.float32)
            writer.append(tables.frames | {"status": status, "n_lattices": none, "resolution": unknown}, tables.peaks)
            n_frames += len(frames)
            n_peaks += sum(len(peaks) for peaks in tables.peaks)
    stream.tell()
    print(f"{n_frames} frames, {n_peaks} peaks: {args.output}")


def _stream_to_stream(args):
    """Format 2.3 with the line ends of Unix; lines beside the tables stay as they are."""
    reader = read_stream(args.input[0])
    header = reader.header
    places = None
    if args.geometry or header.version != (2, 3):
        detector = read_geometry(args.geometry) if args.geometry else detector_of_header(header, reader.path)
        panels = [panel.name for panel in detector.panels]
        places = PanelPlaces(reader.panels, detector, header.version, reader.path)
    lines = header.text.split("\n")
    lines[0] = "CrystFEL stream format 2.3"
    text = "\n".join(lines)
    if args.geometry:
        block = geometry_block(stream_command.geometry_text(args.geometry, detector))
        own = geometry_block(header.geometry)
        text = text.replace(own, block) if own in text else text.rstrip("\n") + "\n" + block
    counts = dict.fromkeys(("frames", "crystals", "reflections"), 0)
    with written_whole(args.output) as temporary, open(temporary, "wb", buffering=1 << 20) as handle:
        handle.write(text.encode("utf-8", "surrogateescape"))
        for frame in reader:
            peaks = frame.peaks
            if places and peaks is not None:
                peaks = peaks._replace(panel=places.number(peaks.panel, peaks.fs, peaks.ss))
            crystals = []
            for c in frame.crystals:
                panel = places.number(c.panel, c.values[:, 4], c.values[:, 5]) if places else c.panel
                crystals.append((c.text, c.hkl, c.values, panel if c.has_table else None))
                counts["reflections"] += len(c.hkl)
            handle.write(frame_bytes(frame.text, peaks, crystals, panels if places else reader.panels))
            counts["frames"] += 1
            counts["crystals"] += len(crystals)
        if not counts["frames"]:
            raise InputError(
                f"{reader.path}: holds no frame; the program that wrote it processed none, or was stopped at once"
            )
    _tell_counts(counts, args.output)


def _table_to_stream(args):
    path = args.input[0]
    with open_chunk(path, "frames", "crystals", "reflections") as handle:
        texts = texts_of(handle)
        if texts is not None:
            _texts_to_stream(args, handle, texts)
            return
    if not args.geometry or not args.cell:
        missing = "--cell" if args.geometry else "--geometry"
        raise InputError(
            f"{missing}: {path} was not made from a stream and carries none; give the one that was integrated with"
        )
    stream_command.run(
        Namespace(
            integrated=[path], peaks=[args.peaks] if args.peaks else [], geometry=[args.geometry],
            cell=args.cell, space_group=args.space_group, assignment=None, output=args.output,
        )
    )  # fmt: skip


def _texts_to_stream(args, handle, texts):
    """The stream again from which a table was made: its lines, with the rows of the table."""
    path = args.input[0]
    detector = detector_of_header(parse_header(path, texts.header), path)
    account = read_rows(handle["frames"])
    arrays, names = panel_arrays(detector), [panel.name for panel in detector.panels]
    to_file = np.array([(p.min_fs - p.slab_fs, p.min_ss - p.slab_ss) for p in detector.panels], dtype=np.float64)
    counts = dict.fromkeys(("frames", "crystals", "reflections"), 0)
    with written_whole(args.output) as temporary, open(temporary, "wb", buffering=1 << 20) as out:
        out.write(texts.header.encode("utf-8", "surrogateescape"))
        for first_frame, first_crystal, tables in table_blocks(handle, path):
            n = len(tables.frames["frame"])
            peaks = [None] * n
            if args.peaks:
                stop = first_frame + n
                peaks = stream_command.peaks_of_frames(args.peaks, path, account, first_frame, stop, arrays)
            crystals = [[] for _ in range(n)]
            starts = np.searchsorted(
                tables.reflections["crystal"], first_crystal + np.arange(len(tables.crystals["frame"]) + 1)
            )
            hkl = np.column_stack([tables.reflections[name] for name in "hkl"])
            values = np.column_stack(
                [
                    tables.reflections[name].astype(np.float64)
                    for name in ("I", "sigI", "peak", "background", "fs", "ss")
                ]
            )
            panel = tables.reflections["panel"].astype(np.int64)
            values[:, 4:] += to_file[panel]
            for c, frame in enumerate(tables.crystals["frame"] - first_frame):
                rows = slice(starts[c], starts[c + 1])
                lines = texts.crystals[first_crystal + c]
                has_table = "No integrated reflections." not in lines
                crystals[frame].append((lines, hkl[rows], values[rows], panel[rows] if has_table else None))
            for i in range(n):
                found = peaks[i]
                if found is not None:
                    moved = to_file[found.panel]
                    found = found._replace(fs=found.fs + moved[:, 0], ss=found.ss + moved[:, 1])
                out.write(frame_bytes(texts.frames[first_frame + i], found, crystals[i], names))
            counts["frames"] += n
            counts["crystals"] += len(starts) - 1
            counts["reflections"] += len(panel)
    _tell_counts(counts, args.output)


def _table_to_mtz(args):
    path = args.input[0]
    if not args.cell:
        raise InputError("--cell: an MTZ file has a cell and a space group; give the target cell, and --space-group")
    cell, group = options.cell_and_group(args.cell, args.space_group)
    with open_chunk(path, "frames", "crystals", "reflections") as handle:
        _write_mtz(args, ((c, f, t) for f, c, t in table_blocks(handle, path)), cell, group, [path])


def _stream_to_mtz(args):
    stream, blocks = _stream_with_frames(args)
    cell, group = stream.cell_and_group()
    if cell is None:
        raise InputError(f"--cell: {stream.path} carries no target cell; give one, and --space-group")
    if not args.space_group and not args.cell:
        _say(f"WARNING: {options.assumed_group(group)}")

    def counted():
        frame = crystal = 0
        for _, tables in blocks:
            yield crystal, frame, tables
            frame += len(tables.frames["frame"])
            crystal += len(tables.crystals["frame"])

    _write_mtz(args, counted(), cell, group, stream.inputs)
    stream.tell()


def _write_mtz(args, blocks, cell, group, inputs):
    origin = provenance(inputs=inputs)
    counts = dict.fromkeys(("frames", "crystals", "reflections"), 0)

    def batches():
        for first_crystal, first_frame, tables in blocks:
            counts["frames"] += len(tables.frames["frame"])
            counts["crystals"] += len(tables.crystals["frame"])
            made, columns = batches_of_table(tables, first_crystal, first_frame)
            counts["reflections"] += len(columns["hkl"])
            yield made, columns

    lines = [f"{origin['program']} convert", *(f"input {described['name'][-72:]}" for described in origin["inputs"])]
    name = Path(args.output).name.removesuffix(".mtz")
    header = Header(f"{name} by {origin['program']}", name, group, cell.parameters, np.nan, lines)
    write_unmerged_mtz(args.output, header, batches(), [(label, kind) for label, kind, _ in MTZ_COLUMNS])
    _tell_counts(counts, args.output)


def _mtz_to_table(args):
    path = args.input[0]
    if not args.geometry:
        raise InputError(f"--geometry: {path} has positions on a detector that it does not describe; give its geometry")
    detector = read_geometry(args.geometry)
    observations = read_unmerged_mtz(path)
    tables = tables_of_batches(observations, detector, args.polarisation_fraction, np.radians(args.polarisation_angle))
    with hdf5_written_whole(args.output) as handle:
        counts = write_table(handle, provenance_json(inputs=[path, args.geometry]), [(tables, None)])
        handle.attrs["warning"] = ""
        handle.attrs["cell"], handle.attrs["space_group"] = observations.cell, observations.group.xhm()
    n_lost = int(np.count_nonzero(~np.isfinite(tables.reflections["excitation_error"])))
    if n_lost:
        _say(
            f"WARNING: {n_lost} observations without a distance from the Ewald sphere: {path} has neither orientations nor EXCITATION"
        )
    _tell_counts(counts, args.output)


def _peaks_to_stream(args):
    path = args.input[0]
    if not args.geometry:
        raise InputError(f"--geometry: {path} does not describe the detector, a stream does; give the geometry")
    detector = read_geometry(args.geometry)
    cell = options.cell_and_group(args.cell, args.space_group)[0] if args.cell else None
    arrays, n_frames, n_peaks, n_failed = panel_arrays(detector), 0, 0, 0
    with (
        open_chunk(path, "frames", PEAK_GROUP) as handle,
        written_whole(args.output) as temporary,
        open(temporary, "wb", buffering=1 << 20) as out,
    ):
        frames = read_rows(handle["frames"])
        command = shlex.join(["sfxflow", *sys.argv[1:]])
        writer = StreamWriter(out, detector, stream_command.geometry_text(args.geometry, detector), cell, command)
        for start in range(0, len(frames["frame"]), FRAMES_AT_A_TIME):
            stop = min(start + FRAMES_AT_A_TIME, len(frames["frame"]))
            found = stream_command.peaks_of_frames(path, path, frames, start, stop, arrays)
            for i, peaks in zip(range(start, stop), found, strict=True):
                if frames["status"][i] == Status.failed:
                    n_failed += 1
                    continue
                stream_command.begin(writer, frames, i, peaks, False)
                writer.end_frame()
                n_frames += 1
                n_peaks += len(peaks.fs)
    if n_failed:
        _say(f"{n_failed} frames that could not be read are not in the stream")
    print(f"{n_frames} frames, {n_peaks} peaks: {args.output}")


_WAYS = {
    ("stream", "stream"): _stream_to_stream,
    ("stream", "table"): _stream_to_table,
    ("stream", "peaks"): _stream_to_peaks,
    ("stream", "mtz"): _stream_to_mtz,
    ("table", "stream"): _table_to_stream,
    ("table", "mtz"): _table_to_mtz,
    ("mtz", "table"): _mtz_to_table,
    ("peaks", "stream"): _peaks_to_stream,
}
