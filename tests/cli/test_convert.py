"""`sfxflow convert`: what both formats can hold comes back, in every direction, and bad input has its message."""

import gzip
import os
from pathlib import Path

import gemmi
import h5py
import numpy as np
import pytest
from made_streams import CELL, GEOMETRY, stream_of, tables

from sfxflow.cli import main
from sfxflow.io.cell_file import write_cell
from sfxflow.io.hdf5 import hdf5_written_whole
from sfxflow.io.peaks import PeakWriter, read_peaks
from sfxflow.io.stream_reader import read_stream
from sfxflow.io.stream_tables import StreamTables
from sfxflow.io.table import read_rows
from sfxflow.io.table_blocks import write_table
from sfxflow.reflections import TABLES


@pytest.fixture
def made(tmp_path):
    """A table with its peaks, the stream of both, geometry and cell, as files in a folder."""
    frames, crystals, reflections, peaks = tables(11, n_frames=40)
    with hdf5_written_whole(tmp_path / "a.integrated.h5") as handle:
        write_table(handle, "{}", [(StreamTables(frames, crystals, reflections, None), None)])
    with hdf5_written_whole(tmp_path / "a.peaks.h5") as handle:
        PeakWriter(handle, "{}").append(frames, peaks)
    (tmp_path / "a.stream").write_bytes(stream_of(frames, crystals, reflections, peaks))
    (tmp_path / "made.geom").write_text(GEOMETRY)
    write_cell(tmp_path / "a.cell", CELL, "{}")
    return tmp_path


def convert(folder, source, target, **options):
    """The file that a conversion writes; its exit status has to be 0."""
    argv = [item for name, value in options.items() for item in (f"--{name.replace('_', '-')}", str(value))]
    assert main(["convert", "--input", str(folder / source), "--output", str(folder / target), *argv]) == 0
    return folder / target


def refused(capsys, folder, source, target, **options):
    """The message with which a conversion ends; nothing is written."""
    sources = [str(folder / name) for name in source.split()]
    argv = [item for name, value in options.items() for item in (f"--{name.replace('_', '-')}", str(value))]
    assert main(["convert", "--input", *sources, "--output", str(folder / target), *argv]) == 1
    assert not os.path.exists(folder / target) or folder / target in [Path(path) for path in sources]
    return capsys.readouterr().err


def columns(path, table):
    with h5py.File(path) as handle:
        return read_rows(handle[table])


def crystals_of(path):
    """Numbers of every crystal of a stream as text, in order."""
    return [(c.text, c.hkl.tolist(), c.values.tolist()) for frame in read_stream(path) for c in frame.crystals]


def test_a_stream_through_a_table_is_the_same_stream(made, monkeypatch, capsys):
    """Lines and rows to the last digit, blocks of frames or not."""
    monkeypatch.setattr("sfxflow.cli.convert_streams.FRAMES_AT_A_TIME", 7)
    monkeypatch.setattr("sfxflow.io.table_blocks.FRAMES_AT_A_TIME", 7)
    convert(made, "a.stream", "b.integrated.h5")
    assert "40 frames, " in capsys.readouterr().out
    convert(made, "a.stream", "b.peaks.h5")
    again = convert(made, "b.integrated.h5", "b.stream", peaks=made / "b.peaks.h5")
    peaks = [frame.peaks for frame in read_stream(made / "a.stream")]
    for found, expected in zip(read_stream(again), peaks, strict=True):
        # 1/d is not kept in peak files but computed again from the positions.
        for name in ("fs", "ss", "intensity", "panel"):
            np.testing.assert_array_equal(getattr(found.peaks, name), getattr(expected, name))
    without = convert(made, "b.integrated.h5", "c.stream")
    assert [frame.text for frame in read_stream(without)] == [frame.text for frame in read_stream(made / "a.stream")]
    assert crystals_of(without) == crystals_of(made / "a.stream")
    assert read_stream(without).header.text == read_stream(made / "a.stream").header.text


def test_a_table_through_a_stream(made):
    options = {"geometry": made / "made.geom", "cell": made / "a.cell", "space_group": "P43212"}
    convert(made, "a.integrated.h5", "b.stream", **options)
    convert(made, "b.stream", "b.integrated.h5")
    for table, exact in (
        ("frames", TABLES["frames"]),
        ("crystals", [c for c in TABLES["crystals"] if c.name not in ("reciprocal", "cell")]),
    ):
        first, second = columns(made / "a.integrated.h5", table), columns(made / "b.integrated.h5", table)
        for column in exact:
            assert np.array_equal(
                np.array(first[column.name]), np.array(second[column.name]), column.dtype[0] == "f"
            ), column
    first, second = (columns(made / f"{name}.integrated.h5", "reflections") for name in "ab")
    np.testing.assert_allclose(second["I"], first["I"], atol=0.00501, rtol=2e-7)
    np.testing.assert_allclose(second["fs"], first["fs"], atol=0.0501)
    assert np.array_equal(first["h"], second["h"])
    with h5py.File(made / "b.integrated.h5") as handle:
        np.testing.assert_allclose(handle.attrs["cell"], CELL.parameters)
        assert handle.attrs["space_group"] == "P 4 2 2"


def test_a_table_through_an_unmerged_mtz(made):
    """Every observation and orientation, in single precision; the widths of the crystals have no place there."""
    mtz = convert(made, "a.integrated.h5", "a.mtz", cell=made / "a.cell", space_group="P43212")
    convert(made, "a.mtz", "b.integrated.h5", geometry=made / "made.geom")
    first, second = columns(made / "a.integrated.h5", "reflections"), columns(made / "b.integrated.h5", "reflections")
    used = np.unique(first["crystal"], return_inverse=True)[1]
    assert np.array_equal(np.unique(second["crystal"], return_inverse=True)[1], used)
    for name in ("h", "k", "l", "panel"):
        assert np.array_equal(first[name], second[name])
    for name in ("I", "sigI", "excitation_error", "polarisation", "fs", "ss", "peak", "background"):
        np.testing.assert_array_equal(first[name], second[name])
    first, second = columns(made / "a.integrated.h5", "crystals"), columns(made / "b.integrated.h5", "crystals")
    np.testing.assert_allclose(second["reciprocal"], first["reciprocal"], atol=5e-9)
    np.testing.assert_array_equal(second["cell"], first["cell"])
    assert np.isnan(second["profile_radius"]).all()
    frames, got = columns(made / "a.integrated.h5", "frames"), columns(made / "b.integrated.h5", "frames")
    indexed = frames["status"] == 3
    excess = second["excess"][np.unique(second["frame"], return_index=True)[1]]
    own = first["excess"][np.unique(first["frame"], return_index=True)[1]]
    np.testing.assert_allclose(
        got["photon_energy"] / (1 + excess), frames["photon_energy"][indexed] / (1 + own), rtol=2e-7
    )
    assert got["event"] == [event for event, use in zip(frames["event"], indexed, strict=True) if use]
    read = gemmi.read_mtz_file(str(mtz))
    assert len(read.batches) == len(first["frame"]) and read.spacegroup.xhm() == "P 43 21 2"


def test_a_stream_to_an_unmerged_mtz_is_that_of_its_table(made):
    options = {"cell": made / "a.cell", "space_group": "P43212"}
    convert(made, "a.stream", "b.integrated.h5")
    first = gemmi.read_mtz_file(str(convert(made, "a.stream", "a.mtz", **options)))
    second = gemmi.read_mtz_file(str(convert(made, "b.integrated.h5", "b.mtz", **options)))
    np.testing.assert_array_equal(first.array, second.array)
    # Without --cell the target cell of the stream is taken, whose lattice has all rotations of P422.
    assert gemmi.read_mtz_file(str(convert(made, "a.stream", "c.mtz"))).spacegroup.xhm() == "P 4 2 2"


def test_a_table_through_dials_files(made):
    """Crystals, observations and frames with a crystal; DIALS has no place for the highest pixel, nor for other frames."""
    options = {"geometry": made / "made.geom", "cell": made / "a.cell", "space_group": "P43212"}
    convert(made, "a.integrated.h5", "a.expt", **options)
    sources = [str(made / "a.refl"), str(made / "a.expt")]
    target = str(made / "b.integrated.h5")
    assert main(["convert", "--input", *sources, "--output", target, "--geometry", str(made / "made.geom")]) == 0
    first, second = columns(made / "a.integrated.h5", "reflections"), columns(target, "reflections")
    for name in ("crystal", "h", "k", "l", "panel"):
        assert np.array_equal(first[name], second[name]), name
    for name in ("I", "sigI", "fs", "ss", "background"):
        np.testing.assert_allclose(second[name], first[name], rtol=3e-7)
    crystals, got = columns(made / "a.integrated.h5", "crystals"), columns(target, "crystals")
    scale = (1 + crystals["excess"].astype(float))[:, None, None]
    np.testing.assert_allclose(got["reciprocal"], crystals["reciprocal"] * scale, atol=1e-12)
    for name in ("profile_radius", "mosaicity"):
        np.testing.assert_allclose(got[name], crystals[name], rtol=1e-6)
    # The excess is in the axes, so that rays are the same, and distances from the Ewald sphere but for the factor 1 + excess.
    np.testing.assert_allclose(second["polarisation"], first["polarisation"], atol=1e-6)
    excess = crystals["excess"][first["crystal"]].astype(float)
    np.testing.assert_allclose(second["excitation_error"], first["excitation_error"] * (1 + excess), atol=1e-7)
    frames, got = columns(made / "a.integrated.h5", "frames"), columns(target, "frames")
    indexed = np.flatnonzero(frames["status"] == 3)
    assert got["file"] == [frames["file"][i] for i in indexed] and got["event"] == [frames["event"][i] for i in indexed]
    for name in ("photon_energy", "clen"):
        np.testing.assert_allclose(got[name], frames[name][indexed], rtol=1e-9)


def test_through_a_table_where_there_is_no_other_way(made):
    options = {"geometry": made / "made.geom", "cell": made / "a.cell", "space_group": "P43212"}
    convert(made, "a.stream", "a.refl", **options)
    argv = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    sources = ["--input", str(made / "a.refl"), str(made / "a.expt")]
    assert main(["convert", *sources, "--output", str(made / "b.stream"), *argv]) == 0
    crystals = [[c for frame in read_stream(made / f"{name}.stream") for c in frame.crystals] for name in "ab"]
    for own, found in zip(*crystals, strict=True):
        assert np.array_equal(found.hkl, own.hkl)
        np.testing.assert_allclose(found.values[:, [0, 1, 4, 5]], own.values[:, [0, 1, 4, 5]], rtol=3e-7, atol=1e-5)
        np.testing.assert_allclose(found.reciprocal, own.reciprocal, atol=6e-9)
    convert(made, "a.stream", "a.mtz", **options)
    convert(made, "a.mtz", "c.expt", **options)
    assert sorted(path.name for path in made.glob("c.*")) == ["c.expt", "c.refl"]
    assert not list(made.glob(".convert*"))


def test_a_scaled_unmerged_mtz_becomes_what_was_measured(demo, tmp_path):
    """The unmerged MTZ of `sfxflow export` holds scaled intensities; divided by the scale they are the table's."""
    merged, mtz = tmp_path / "merged.h5", tmp_path / "unmerged.mtz"
    common = ["--integrated", str(demo.integrated)]
    options = ["--dataset", "demo", "--cell", demo.cell, "--space-group", "P43212", "--output", str(merged)]
    assert main(["merging", *common, *options]) == 0
    outputs = [f"--{name}={tmp_path / name}" for name in ("mtz", "hkl", "half1", "half2")]
    assert main(["export", "--merged", str(merged), *common, f"--unmerged={mtz}", *outputs]) == 0
    back = columns(convert(tmp_path, "unmerged.mtz", "back.integrated.h5", geometry=demo.geometry), "reflections")
    table = columns(demo.integrated, "reflections")
    keys = [zip(*(rows[name].tolist() for name in ("h", "k", "l", "fs", "ss")), strict=True) for rows in (table, back)]
    measured = dict(zip(keys[0], table["I"].tolist(), strict=True))
    expected = [measured[key] for key in keys[1]]
    assert len(expected) > 1000
    np.testing.assert_allclose(back["I"], expected, rtol=1e-5, atol=1e-3)


def test_peaks_through_a_stream(made):
    convert(made, "a.peaks.h5", "b.stream", geometry=made / "made.geom")
    convert(made, "b.stream", "b.peaks.h5")
    with h5py.File(made / "a.peaks.h5") as first, h5py.File(made / "b.peaks.h5") as second:
        for found, own in zip(read_peaks(second), read_peaks(first), strict=True):
            assert np.array_equal(found["panel"], own["panel"])
            for name in ("fs", "ss", "intensity"):
                np.testing.assert_allclose(found[name], own[name], atol=0.0051, rtol=1e-6)
            assert np.isnan(found["snr"]).all() and not found["saturated"].any() and np.all(found["n_pixels"] == -1)
        own, got = read_rows(first["frames"]), read_rows(second["frames"])
    for name in ("frame", "file", "event", "n_peaks", "photon_energy", "clen"):
        assert np.array_equal(own[name], got[name]), name
    # What is indexed in the table is a hit in a peak file.
    assert np.array_equal(np.minimum(own["status"], 2), got["status"])


def test_the_built_in_engine_indexes_the_peaks_of_a_stream(demo, stages_of, tmp_path):
    """Peaks of the built-in engine, rounded to the digits of a stream: the same frames are indexed, at nearly the same orientation."""
    (tmp_path / "p.peaks.h5").write_bytes(Path(demo.peaks).read_bytes())
    convert(tmp_path, "p.peaks.h5", "p.stream", geometry=demo.geometry)
    peaks = convert(tmp_path, "p.stream", "q.peaks.h5")
    indexed = demo.ok("indexing", peaks, tmp_path / "indexed.h5")
    own, got = columns(demo.indexed, "frames"), columns(indexed, "frames")
    assert np.array_equal(own["n_lattices"], got["n_lattices"]) and own["n_lattices"].sum() > 5
    own, got = columns(demo.indexed, "crystals"), columns(indexed, "crystals")
    np.testing.assert_allclose(got["reciprocal"], own["reciprocal"], atol=2e-5)
    integrated = demo.ok("integration", indexed, tmp_path / "integrated.h5")
    assert len(columns(integrated, "crystals")["frame"]) == len(own["frame"])


@pytest.fixture
def shuffled(demo, tmp_path):
    """The demo's stream as a program with several workers writes it, seen from elsewhere, and without one of its blanks."""
    argv = [
        "--integrated",
        str(demo.integrated),
        "--peaks",
        str(demo.peaks),
        "--geometry",
        demo.geometry,
        "--cell",
        demo.cell,
    ]
    assert main(["stream", *argv, "--space-group", "P43212", "--output", str(tmp_path / "a.stream")]) == 0
    mark = "----- Begin chunk -----\n"
    header, *frames = (tmp_path / "a.stream").read_text().replace(demo.frames, "../there/frames_00.h5").split(mark)
    frames = ["".join(line for line in frame.splitlines(keepends=True) if "sfxflow/" not in line) for frame in frames]
    lacks = next(i for i, frame in enumerate(frames) if "\nhit = 0\n" in frame)
    order = [i for i in np.random.default_rng(2).permutation(len(frames)) if i != lacks]
    (tmp_path / "a.stream").write_text(header + "".join(mark + frames[i] for i in order))
    return tmp_path, lacks


def test_frames_in_the_order_of_the_run(demo, shuffled, capsys):
    """Rows of tables are those of the run, so that later stages take them."""
    folder, lacks = shuffled
    peaks = convert(folder, "a.stream", "a.peaks.h5", frames=demo.frames)
    assert "1 of 20 frames are not in the stream" in capsys.readouterr().err
    table = convert(folder, "a.stream", "a.integrated.h5", frames=demo.frames)
    own, got = columns(demo.integrated, "frames"), columns(table, "frames")
    assert got["status"][lacks] == 0 and got["message"][lacks] == "not in the stream"
    assert np.delete(got["status"], lacks).tolist() == np.delete(own["status"], lacks).tolist()
    for name in ("frame", "file", "event"):
        assert np.array_equal(own[name], got[name])
    for name in ("crystals", "reflections"):
        own, got = columns(demo.integrated, name), columns(table, name)
        for column in ("frame",) if name == "crystals" else ("crystal", "h", "k", "l", "panel"):
            assert np.array_equal(own[column], got[column])
    np.testing.assert_allclose(got["I"], own["I"], atol=0.0051, rtol=2e-7)
    with h5py.File(demo.peaks) as first, h5py.File(peaks) as second:
        for i, (one, other) in enumerate(zip(read_peaks(first), read_peaks(second), strict=True)):
            np.testing.assert_allclose(other["fs"], one["fs"] if i != lacks else [], atol=0.0051)
    indexed = demo.ok("indexing", peaks, folder / "indexed.h5")
    integrated = demo.ok("integration", indexed, folder / "b.integrated.h5")
    assert len(columns(integrated, "crystals")["frame"]) == len(columns(demo.integrated, "crystals")["frame"])


def test_frames_that_are_not_of_the_run(demo, shuffled, capsys):
    folder, _ = shuffled
    text = (folder / "a.stream").read_text()
    one, other = [line + "\n" for line in text.splitlines() if line.startswith("Event: ")][:2]
    (folder / "b.stream").write_text(text.replace(one, "Event: //400\n"))
    message = refused(capsys, folder, "b.stream", "x.peaks.h5", frames=demo.frames)
    assert "the frame ../there/frames_00.h5 //400 is not one of --frames" in message
    (folder / "b.stream").write_text(text.replace(one, other))
    assert f"{other.split()[1]} is in the stream twice" in refused(
        capsys, folder, "b.stream", "x.integrated.h5", frames=demo.frames
    )
    for name in ("a", "b"):
        (folder / name).mkdir()
        (folder / name / "frames_00.h5").symlink_to(demo.frames)
    message = refused(capsys, folder, "a.stream", "x.peaks.h5", frames=folder / "*/frames_00.h5")
    assert "may be one of 2 frames of --frames, whose files have the same name" in message
    assert "--frames: is for streams that become" in refused(capsys, folder, "a.stream", "x.mtz", frames=demo.frames)


def test_lines_in_any_bytes(made):
    data = (made / "a.stream").read_bytes().replace(b"raw/run 1.h5", b"raw/\xff\xfe\xc3\xa9.h5")
    data = data.replace(b"made for a test", b"made \xff for a test")
    (made / "b.stream").write_bytes(data)
    convert(made, "b.stream", "b.peaks.h5")
    convert(made, "b.stream", "b.integrated.h5")
    again = convert(made, "b.integrated.h5", "c.stream")
    assert [frame.text for frame in read_stream(again)] == [frame.text for frame in read_stream(made / "b.stream")]
    assert again.read_bytes().startswith(data[: data.index(b"----- Begin geometry")])
    assert convert(made, "b.stream", "d.mtz")


@pytest.mark.parametrize("change", ["windows", "gzip", "blank lines at the end"])
def test_streams_as_users_have_them(made, change, capsys):
    data = (made / "a.stream").read_bytes()
    name = "b.stream.gz" if change == "gzip" else "b.stream"
    changed = {
        "windows": data.replace(b"\n", b"\r\n"),
        "gzip": gzip.compress(data),
        "blank lines at the end": data + b"\n\n",
    }
    (made / name).write_bytes(changed[change])
    again = convert(made, name, "c.stream")
    assert again.read_bytes() == data
    assert "WARNING" not in capsys.readouterr().err


def test_an_old_stream_becomes_one_that_names_panels(made):
    """Format 2.2 of a detector that is one array: panels are where the positions lie."""
    geometry = (
        GEOMETRY.replace("dim1 = 0\n", "dim1 = ss\n").replace("dim2 = ss\ndim3 = fs", "").replace("b1/dim1 = 1", "")
    )
    geometry = geometry.replace("a0/dim1 = ss\n", "").replace("dim0 = %", "dim0 = ss\ndim1 = fs")
    geometry = geometry.replace("b1/min_ss = 0", "b1/min_ss = 256").replace("b1/max_ss = 255", "b1/max_ss = 511")
    data = stream_of(*tables(11), text=geometry)
    old = data.replace(b"format 2.3", b"format 2.2").replace(b" a0\n", b"\n").replace(b" b1\n", b"\n")
    (made / "old.stream").write_bytes(old)
    assert convert(made, "old.stream", "new.stream").read_bytes() == data
    convert(made, "old.stream", "old.integrated.h5")
    assert set(columns(made / "old.integrated.h5", "reflections")["panel"].tolist()) == {0, 1}


def test_unknown_lines_are_told_and_kept(made, capsys):
    data = (made / "a.stream").read_bytes().replace(b"hit = 1\n", b"hit = 1\nlaser = on\n")
    (made / "b.stream").write_bytes(data)
    convert(made, "b.stream", "b.integrated.h5")
    assert "lines that are not known here and were passed over: 'laser' (" in capsys.readouterr().err
    assert (
        convert(made, "b.integrated.h5", "c.stream").read_bytes().count(b"laser = on") == data.count(b"laser = on") > 0
    )


def test_a_stream_without_crystals(made, capsys):
    convert(made, "a.peaks.h5", "b.stream", geometry=made / "made.geom")
    convert(made, "b.stream", "b.integrated.h5")
    assert "WARNING: no frame has a crystal" in capsys.readouterr().err
    assert len(columns(made / "b.integrated.h5", "frames")["frame"]) == 40
    assert len(columns(made / "b.integrated.h5", "crystals")["frame"]) == 0


def test_bad_streams(made, capsys):
    data = (made / "a.stream").read_bytes()
    cases = {
        "empty": (b"", "is empty (0 bytes)"),
        "cut": (data[: len(data) * 2 // 3], "the stream is cut off"),
        "version": (data.replace(b"format 2.3", b"format 3.0"), "is a CrystFEL stream of format 3.0"),
        "other": (b"hello", "is not a CrystFEL stream"),
        "header": (
            data[: data.index(b"----- Begin chunk")],
            "holds no frame; the program that wrote it processed none",
        ),
    }
    for name, (text, message) in cases.items():
        (made / f"{name}.stream").write_bytes(text)
        for target in ("x.integrated.h5", "x.peaks.h5", "x.mtz", "x.stream"):
            told = refused(capsys, made, f"{name}.stream", target, cell=made / "a.cell")
            assert f"{name}.stream" in told and message in told
    (made / "no_peaks.stream").write_bytes(stream_of(*tables(11)[:3]))
    assert "has no peak lists" in refused(capsys, made, "no_peaks.stream", "x.peaks.h5")


def test_what_is_missing_is_told(made, capsys):
    assert "--geometry: " in refused(capsys, made, "a.integrated.h5", "x.stream")
    assert "--cell: " in refused(capsys, made, "a.integrated.h5", "x.stream", geometry=made / "made.geom")
    assert "--cell: " in refused(capsys, made, "a.integrated.h5", "x.expt", geometry=made / "made.geom")
    assert "--geometry: " in refused(capsys, made, "a.integrated.h5", "x.expt")
    assert "a.integrated.h5 does not say cell and space group; give the target cell" in refused(
        capsys, made, "a.integrated.h5", "x.mtz"
    )
    assert "--geometry: " in refused(capsys, made, "a.peaks.h5", "x.stream")
    convert(made, "a.integrated.h5", "a.mtz", cell=made / "a.cell", space_group="P43212")
    assert "--geometry: " in refused(capsys, made, "a.mtz", "x.integrated.h5")
    message = refused(capsys, made, "a.stream", "x.mtz", cell=made / "a.cell", space_group="P212121")
    assert "lattice_type is tetragonal, but space group P 21 21 21 is orthorhombic" in message


def test_ways_that_there_are_not(made, capsys):
    assert "its name has none of the ends that are known here: .stream" in refused(capsys, made, "a.stream", "x.txt")
    message = refused(capsys, made, "a.peaks.h5", "x.mtz")
    assert (
        "a peak file (.peaks.h5) can't be converted to an unmerged MTZ (.mtz); it can be to: a stream (.stream)"
        in message
    )
    (made / "a.expt").write_text("{}")
    assert "an .expt and an .refl file belong together; give both" in refused(capsys, made, "a.expt", "x.integrated.h5")
    assert "2 files were given; one is expected" in refused(capsys, made, "a.stream a.peaks.h5", "x.integrated.h5")
    assert "is the file to be converted; give another name" in refused(capsys, made, "a.stream", "a.stream")


def test_mtz_files_that_are_of_no_use(made, capsys):
    mtz = gemmi.Mtz(with_base=True)
    mtz.spacegroup = gemmi.SpaceGroup("P 43 21 2")
    mtz.set_cell_for_all(gemmi.UnitCell(79, 79, 38, 90, 90, 90))
    mtz.add_dataset("d")
    mtz.add_column("IMEAN", "J")
    mtz.set_data(np.array([[1, 2, 3, 4.0]], dtype=np.float32))
    mtz.write_to_file(str(made / "merged.mtz"))
    options = {"geometry": made / "made.geom"}
    assert "merged.mtz: holds merged data" in refused(capsys, made, "merged.mtz", "x.integrated.h5", **options)
    (made / "text.mtz").write_text("hello")
    assert "text.mtz: can't be read as MTZ" in refused(capsys, made, "text.mtz", "x.integrated.h5", **options)
    batch = gemmi.Mtz.Batch()
    batch.number = 1
    mtz.batches.append(batch)
    mtz.write_to_file(str(made / "few.mtz"))
    assert "few.mtz: has no column M/ISYM; it has H, K, L, IMEAN" in refused(
        capsys, made, "few.mtz", "x.integrated.h5", **options
    )


def test_a_table_whose_lines_do_not_belong_to_it(made, capsys):
    convert(made, "a.stream", "b.integrated.h5")
    with h5py.File(made / "b.integrated.h5", "r+") as handle:
        handle["stream/crystals"].resize(2, axis=0)
    assert "the stream's lines do not belong to its tables" in refused(capsys, made, "b.integrated.h5", "x.stream")
