"""Ways of `sfxflow convert` from streams."""

import itertools

import numpy as np

from sfxflow.cli import options
from sfxflow.cli import stream as stream_command
from sfxflow.cli.convert_tables import note_cell, say, tell_counts, write_dials, write_mtz
from sfxflow.errors import InputError
from sfxflow.io.cell_file import check_cell, parse_cell
from sfxflow.io.files import provenance_json, written_whole
from sfxflow.io.frames import open_frames
from sfxflow.io.geometry import read_geometry
from sfxflow.io.hdf5 import hdf5_written_whole
from sfxflow.io.peaks import PeakWriter
from sfxflow.io.run_order import in_order_of_run
from sfxflow.io.stream import frame_bytes, geometry_block
from sfxflow.io.stream_reader import read_stream
from sfxflow.io.stream_tables import PanelPlaces, detector_of_header, readable, tables_of_stream
from sfxflow.io.table_blocks import FRAMES_AT_A_TIME, Texts, write_table
from sfxflow.reflections import Status
from sfxflow.symmetry import lattice_group, space_group

_MOST_NAMED = 5


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
            say(f"{self.path}: lines that are not known here and were passed over: {', '.join(named)}{more}")
        if reader.n_miscounted:
            say(
                f"WARNING: {self.path}: {reader.n_miscounted} tables have another number of rows than the line above them says"
            )


def _stream_with_frames(args):
    stream = _Stream(args)
    blocks = stream.blocks()
    first = next(blocks, None)
    if first is None:
        raise InputError(
            f"{stream.path}: holds no frame; the program that wrote it processed none, or was stopped at once"
        )
    return stream, itertools.chain([first], blocks)


def _counted(blocks):
    """Blocks of a stream as `table_blocks` gives them: first frame, first crystal, tables."""
    frame = crystal = 0
    for _, tables in blocks:
        yield frame, crystal, tables
        frame += len(tables.frames["frame"])
        crystal += len(tables.crystals["frame"])


def _cell_and_group_of_stream(args, stream):
    cell, group = stream.cell_and_group()
    if cell is None:
        raise InputError(f"--cell: {stream.path} carries no target cell; give one, and --space-group")
    if not args.space_group and not args.cell:
        say(f"WARNING: {options.assumed_group(group)}")
    return cell, group


def _of_run(args, stream, blocks):
    """`in_order_of_run` of all frames of --frames, and a log line about those that the stream lacks."""
    with open_frames(args.frames, stream.detector) as run:
        origins = [run.origin(i) for i in range(run.n_frames)]
    found = in_order_of_run([tables for _, tables in blocks], origins, stream.path)
    missing = int(np.count_nonzero(found[1] < 0))
    if missing:
        say(f"{missing} of {len(origins)} frames are not in the stream")
    return found


def stream_to_table(args):
    """Tables, with the stream's lines beside them."""
    stream, blocks = _stream_with_frames(args)
    cell, group = stream.cell_and_group()
    header = stream.reader.header.text

    def with_texts():
        if args.frames:
            yield _of_run(args, stream, blocks)[0], None
            return
        for frames, tables in blocks:
            yield tables, Texts(header, [f.text for f in frames], [c.text for f in frames for c in f.crystals])

    with hdf5_written_whole(args.output) as handle:
        counts = write_table(handle, provenance_json(inputs=stream.inputs), with_texts())
        note_cell(handle, cell, group)
        handle.attrs["options"] = readable(stream.reader.header.command)
        handle.attrs["program"] = readable(stream.reader.header.generator)
    stream.tell()
    tell_counts(counts, args.output)


def stream_to_peaks(args):
    """The peaks of every frame; what is indexed in the stream is a hit."""
    stream, blocks = _stream_with_frames(args)
    n_frames = n_peaks = 0
    with hdf5_written_whole(args.output) as handle:
        writer = PeakWriter(handle, provenance_json(inputs=stream.inputs))
        for tables in [_of_run(args, stream, blocks)[0]] if args.frames else (tables for _, tables in blocks):
            if tables.peaks is None:
                raise InputError(f"{stream.path}: has no peak lists; write it without --no-peaks-in-stream")
            n = len(tables.peaks)
            columns = {"n_lattices": np.zeros(n, dtype=np.int32), "resolution": np.full(n, np.nan, dtype=np.float32)}
            columns["status"] = np.minimum(tables.frames["status"], Status.hit)
            writer.append(tables.frames | columns, tables.peaks)
            n_frames += n
            n_peaks += sum(len(peaks) for peaks in tables.peaks)
    stream.tell()
    print(f"{n_frames} frames, {n_peaks} peaks: {args.output}")


def stream_to_stream(args):
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
    tell_counts(counts, args.output)


def stream_to_mtz(args):
    """As from the stream's table."""
    stream, blocks = _stream_with_frames(args)
    cell, group = _cell_and_group_of_stream(args, stream)
    write_mtz(args, _counted(blocks), cell.parameters, group, stream.inputs)
    stream.tell()


def stream_to_dials(args):
    """As from the stream's table."""
    stream, blocks = _stream_with_frames(args)
    _, group = _cell_and_group_of_stream(args, stream)
    write_dials(args, _counted(blocks), stream.detector, group)
    stream.tell()
