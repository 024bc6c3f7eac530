"""Ways of `sfxflow convert` from tables, peak files, unmerged MTZ and DIALS' files."""

import shlex
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np

from sfxflow.cli import options
from sfxflow.cli import stream as stream_command
from sfxflow.errors import InputError
from sfxflow.geometry import panel_arrays
from sfxflow.io.dials_chunks import read_dials
from sfxflow.io.dials_chunks import write_dials as write_dials_files
from sfxflow.io.files import provenance, provenance_json, written_whole
from sfxflow.io.geometry import read_geometry
from sfxflow.io.hdf5 import hdf5_written_whole
from sfxflow.io.mtz import Header, write_unmerged_mtz
from sfxflow.io.peaks import PEAK_GROUP
from sfxflow.io.stream import StreamWriter, frame_bytes
from sfxflow.io.stream_frames import parse_header
from sfxflow.io.stream_tables import StreamTables, detector_of_header, mean_coffset
from sfxflow.io.table import open_chunk, read_rows
from sfxflow.io.table_blocks import (
    FRAMES_AT_A_TIME,
    MTZ_COLUMNS,
    batches_of_table,
    table_blocks,
    tables_of_batches,
    texts_of,
    write_table,
)
from sfxflow.io.unmerged_mtz import read_unmerged_mtz
from sfxflow.reflections import Status
from sfxflow.symmetry import space_group


def say(text):
    """A line of the log."""
    print(text, file=sys.stderr)


def note_cell(handle, cell, group):
    """Cell and space group as attributes of an integrated file, where they are known."""
    handle.attrs["warning"] = ""
    if cell is not None:
        handle.attrs["cell"] = cell.parameters
        handle.attrs["space_group"] = group.xhm()


def tell_counts(counts, output):
    """What was written, and a warning where there is no crystal in it."""
    if not counts["crystals"]:
        say("WARNING: no frame has a crystal")
    print(f"{counts['frames']} frames, {counts['crystals']} crystals, {counts['reflections']} reflections: {output}")


def table_to_stream(args):
    """The stream that the table was made from, or a new one (`sfxflow stream`)."""
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
    tell_counts(counts, args.output)


def table_to_mtz(args):
    """One batch a crystal; intensities neither scaled nor corrected."""
    path = args.input[0]
    with open_chunk(path, "frames", "crystals", "reflections") as handle:
        cell, group = _cell_and_group_of_table(args, handle)
        write_mtz(args, table_blocks(handle, path), cell, group, [path])


def _cell_and_group_of_table(args, handle):
    """Cell parameters and space group: as given, or else as the table has them."""
    if args.cell:
        cell, group = options.cell_and_group(args.cell, args.space_group)
        return cell.parameters, group
    if "cell" not in handle.attrs or "space_group" not in handle.attrs:
        raise InputError(
            f"--cell: {handle.filename} does not say cell and space group; give the target cell, and --space-group"
        )
    group = space_group(args.space_group or str(handle.attrs["space_group"]))
    return tuple(float(value) for value in handle.attrs["cell"]), group


def write_mtz(args, blocks, cell, group, inputs):
    """An unmerged MTZ of (first frame, first crystal, StreamTables)."""
    origin = provenance(inputs=inputs)
    counts = dict.fromkeys(("frames", "crystals", "reflections"), 0)

    def batches():
        for first_frame, first_crystal, tables in blocks:
            counts["frames"] += len(tables.frames["frame"])
            counts["crystals"] += len(tables.crystals["frame"])
            made, columns = batches_of_table(tables, first_crystal, first_frame)
            counts["reflections"] += len(columns["hkl"])
            yield made, columns

    lines = [f"{origin['program']} convert", *(f"input {described['name'][-72:]}" for described in origin["inputs"])]
    name = Path(args.output).name.removesuffix(".mtz")
    header = Header(f"{name} by {origin['program']}", name, group, cell, np.nan, lines)
    write_unmerged_mtz(args.output, header, batches(), [(label, kind) for label, kind, _ in MTZ_COLUMNS])
    tell_counts(counts, args.output)


def mtz_to_table(args):
    """What was measured, from an unmerged MTZ: scaled intensities are divided by SCALEUSED."""
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
        say(
            f"WARNING: {n_lost} observations without a distance from the Ewald sphere: {path} has neither orientations nor EXCITATION"
        )
    tell_counts(counts, args.output)


def table_to_dials(args):
    """Experiments and reflections beside each other."""
    path = args.input[0]
    if not args.geometry:
        raise InputError(f"--geometry: {path} does not describe the detector, DIALS' files do; give the geometry")
    with open_chunk(path, "frames", "crystals", "reflections") as handle:
        _, group = _cell_and_group_of_table(args, handle)
        write_dials(args, table_blocks(handle, path), read_geometry(args.geometry), group)


def write_dials(args, blocks, detector, group):
    """.expt and .refl of (first frame, first crystal, StreamTables)."""
    stem = Path(args.output).with_suffix("")
    counts = dict.fromkeys(("frames", "crystals", "reflections"), 0)

    def chunks():
        for first_frame, first_crystal, tables in blocks:
            crystals, reflections = dict(tables.crystals), dict(tables.reflections)
            crystals["frame"] = crystals["frame"] - first_frame
            reflections["crystal"] = reflections["crystal"].astype(np.int64) - first_crystal
            # DIALS knows one wavelength a shot: times (1 + excess) the axes give the same rays with it.
            scale = 1.0 + crystals["excess"].astype(np.float64)
            crystals["reciprocal"] = crystals["reciprocal"] * scale[:, None, None]
            counts["frames"] += len(np.unique(crystals["frame"]))
            counts["crystals"] += len(crystals["frame"])
            counts["reflections"] += len(reflections["crystal"])
            yield tables.frames, crystals, reflections

    write_dials_files(f"{stem}.expt", f"{stem}.refl", chunks(), detector, group.hall)
    tell_counts(counts, f"{stem}.expt, {stem}.refl")


def dials_to_table(args):
    """Integrated stills of DIALS."""
    files = {Path(path).suffix.lower(): path for path in args.input}
    if len(files) != 2:
        raise InputError(f"--input: {', '.join(args.input)}: an .expt and an .refl file belong together; give both")
    detector = read_geometry(args.geometry) if args.geometry else None
    angle = np.radians(args.polarisation_angle)
    *tables, found = read_dials(files[".expt"], files[".refl"], detector, args.polarisation_fraction, angle)
    # DIALS' files have the panels' mean distance; a geometry's camera length is that without the mean coffset.
    tables[0]["clen"] = tables[0]["clen"] - (mean_coffset(found) if found else 0.0)
    with hdf5_written_whole(args.output) as handle:
        inputs = [*args.input, *([args.geometry] if args.geometry else [])]
        counts = write_table(handle, provenance_json(inputs=inputs), [(StreamTables(*tables, None), None)])
        handle.attrs["warning"] = ""
        if args.cell:
            cell, group = options.cell_and_group(args.cell, args.space_group)
            note_cell(handle, cell, group)
    tell_counts(counts, args.output)


def peaks_to_stream(args):
    """A stream of frames with peaks and without crystals."""
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
        say(f"{n_failed} frames that could not be read are not in the stream")
    print(f"{n_frames} frames, {n_peaks} peaks: {args.output}")
