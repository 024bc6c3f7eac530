"""`sfxflow stream`: every frame, crystal and reflection of the chunk files is in the stream, and bad input has its message."""

import os
import re
import shlex
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest

from sfxflow.cell import parameters_of
from sfxflow.cli import main
from sfxflow.geometry import lab_positions, panel_arrays, scattering_vectors
from sfxflow.io.assignment import write_assignment
from sfxflow.io.geometry import read_geometry
from sfxflow.io.peaks import read_peaks
from sfxflow.reflections import Status
from sfxflow.units import wavelength


def arguments(demo, output, chunk=None, **options):
    values = {"integrated": [chunk or demo.integrated], "peaks": [demo.peaks], "geometry": [demo.geometry]}
    values |= {"cell": [demo.cell], "space_group": ["P43212"], "output": [output]} | options
    return [
        "stream",
        *(str(item) for name, value in values.items() for item in (f"--{name.replace('_', '-')}", *value)),
    ]


@pytest.fixture(scope="module")
def stream(demo, tmp_path_factory):
    path = tmp_path_factory.mktemp("stream") / "demo.stream"
    assert main(arguments(demo, path)) == 0
    return path


@pytest.fixture
def damaged(demo, tmp_path):
    """A copy of the integrated file, to be changed."""
    return shutil.copy(demo.integrated, tmp_path / "integrated.h5")


def chunks(path):
    return path.read_text().split("----- Begin chunk -----\n")[1:]


def reflection_rows(chunk):
    """Rows of each crystal of a chunk."""
    tables = re.findall(r"fs/px  ss/px panel\n(.*?)End of reflections", chunk, re.DOTALL)
    return [[line.split() for line in table.splitlines()] for table in tables]


def test_every_frame_crystal_and_reflection_is_there(demo, stream):
    found = chunks(stream)
    with h5py.File(demo.integrated) as handle:
        status = handle["frames/status"][()]
        files = [name.decode() for name in handle["frames/file"][()]]
        events = [name.decode() for name in handle["frames/event"][()]]
        of_frame, owner = handle["crystals/frame"][()], handle["reflections/crystal"][()]
        columns = {name: handle[f"reflections/{name}"][()] for name in ("h", "k", "l", "I", "sigI", "fs", "ss")}
    assert len(found) == len(status) == 20
    assert {Status.blank, Status.indexed} <= set(status)
    tables = []
    for row, chunk in enumerate(found):
        assert f"Image filename: {files[row]}\nEvent: {events[row]}\nImage serial number: {row + 1}\n" in chunk
        assert f"\nhit = {int(status[row] >= Status.hit)}\n" in chunk
        assert chunk.count("--- Begin crystal") == np.count_nonzero(of_frame == row)
        tables += reflection_rows(chunk)
    rows = [line for table in tables for line in table]
    assert [len(table) for table in tables] == np.bincount(owner).tolist()
    numbers = np.array([[float(value) for value in line[:9]] for line in rows])
    for column, (name, tolerance) in enumerate(
        (
            ("h", 0),
            ("k", 0),
            ("l", 0),
            ("I", 0.0051),
            ("sigI", 0.0051),
            (None, 0),
            (None, 0),
            ("fs", 0.051),
            ("ss", 0.051),
        )
    ):
        if name:
            np.testing.assert_allclose(numbers[:, column], columns[name], rtol=1e-6, atol=tolerance)


def test_peaks_are_those_of_the_peak_file(demo, stream):
    arrays = panel_arrays(read_geometry(demo.geometry))
    with h5py.File(demo.peaks) as handle:
        peaks, energies = read_peaks(handle), handle["frames/photon_energy"][()]
        clen = handle["frames/clen"][()]
    for number, chunk in enumerate(chunks(stream)):
        table = re.search(r"Panel\n(.*?)End of peak list", chunk, re.DOTALL)[1].splitlines()
        assert len(table) == len(peaks[number])
        if not table:
            continue
        read = np.array([[float(value) for value in line.split()[:4]] for line in table])
        own = peaks[number]
        place = lab_positions(arrays, own["panel"], own["fs"], own["ss"], clen[number])
        q = np.linalg.norm(scattering_vectors(place, wavelength(energies[number])), axis=1)
        expected = np.column_stack([own["fs"], own["ss"], 10 * q, own["intensity"]])
        np.testing.assert_allclose(read, expected, rtol=1e-6, atol=0.0051)
        assert [line.split()[4] for line in table] == [f"p{panel}" for panel in own["panel"]]


def test_the_geometry_is_carried_as_it_is(demo, stream):
    text = stream.read_text()
    with open(demo.geometry) as handle:
        assert f"----- Begin geometry file -----\n{handle.read().rstrip()}\n----- End geometry file -----" in text
    assert text.splitlines()[2] == shlex.join(["sfxflow", *sys.argv[1:]])


def test_without_peak_files_their_number_stands(demo, tmp_path):
    assert main(arguments(demo, tmp_path / "x.stream", peaks=[])) == 0
    with h5py.File(demo.integrated) as handle:
        expected = handle["frames/n_peaks"][()]
    text = (tmp_path / "x.stream").read_text()
    assert [int(n) for n in re.findall(r"num_peaks = (\d+)", text)] == expected.tolist()
    assert "Peaks from peak search" not in text


def test_frames_that_failed_are_not_there_but_told(demo, damaged, tmp_path, capsys):
    with h5py.File(damaged, "r+") as handle:
        blank = int(np.flatnonzero(handle["frames/status"][()] == Status.blank)[0])
        handle["frames/status"][blank] = Status.failed
    assert main(arguments(demo, tmp_path / "x.stream", damaged)) == 0
    assert len(chunks(tmp_path / "x.stream")) == 19
    assert "1 frames that could not be read are not in the stream" in capsys.readouterr().out


def test_several_chunks_and_more_frames_than_are_read_at_a_time(demo, tmp_path, monkeypatch, stream):
    monkeypatch.setattr("sfxflow.cli.stream._FRAMES_AT_A_TIME", 3)
    twice = {"integrated": [demo.integrated] * 2, "peaks": [demo.peaks] * 2}
    assert main(arguments(demo, tmp_path / "x.stream", **twice)) == 0
    both = chunks(tmp_path / "x.stream")
    once = [re.sub(r"serial number: \d+", "", chunk) for chunk in chunks(stream)]
    assert [re.sub(r"serial number: \d+", "", chunk) for chunk in both] == once * 2


def test_intensities_that_are_no_numbers_are_told(demo, damaged, tmp_path, capsys):
    with h5py.File(damaged, "r+") as handle:
        handle["reflections/I"][5:8] = np.nan
    assert main(arguments(demo, tmp_path / "x.stream", damaged)) == 0
    assert "WARNING: 3 reflections without a finite intensity" in capsys.readouterr().out


@pytest.fixture
def assignment(demo, tmp_path):
    """Every second crystal in another way to index, and the third left out."""
    with h5py.File(demo.integrated) as handle:
        n = handle["crystals/frame"].shape[0]
    mode = np.arange(n) % 2
    columns = {"chunk": np.zeros(n), "crystal": np.arange(n), "mode": mode, "left_out": np.arange(n) == 2}
    columns |= {"margin": np.zeros(n), "n_observations": np.zeros(n)}
    operators = np.array([np.eye(3), [[0, 1, 0], [0, 0, 1], [1, 0, 0]]])
    attrs = {"integrated": [str(demo.integrated)], "operator_names": ["h,k,l", "l,h,k"]}
    write_assignment(tmp_path / "assignment.h5", columns, operators, attrs)
    return tmp_path / "assignment.h5"


def test_crystals_as_they_are_assigned(demo, stream, assignment, tmp_path, capsys):
    """Indices, axes and cell are those of the other way to index, scattering vectors what they were; what is left out is told."""
    assert main(arguments(demo, tmp_path / "x.stream", assignment=[assignment])) == 0
    assert "1 crystals whose way to index is too uncertain are not in the stream" in capsys.readouterr().out

    def crystals(path):
        tables, found = reflection_rows(path.read_text()), []
        for text, table in zip(path.read_text().split("--- Begin crystal")[1:], tables, strict=True):
            axes = [
                [float(v) for v in re.search(rf"{name} = (.*) nm", text)[1].split()]
                for name in ("astar", "bstar", "cstar")
            ]
            cell = [float(v) for v in re.findall(r"[\d.]+", re.search(r"Cell parameters (.*) deg", text)[1])]
            found.append((np.array(axes).T, cell, np.array([[int(v) for v in line[:3]] for line in table])))
        return found

    before, after = crystals(stream), crystals(tmp_path / "x.stream")
    del before[2]
    assert len(before) == len(after) > 5
    modes = [mode for row, mode in enumerate([0, 1] * len(before)) if row != 2]
    for (old_axes, old_cell, old), (axes, cell, hkl), mode in zip(before, after, modes, strict=False):
        assert np.array_equal(hkl, old[:, [2, 0, 1]] if mode else old)
        np.testing.assert_allclose(axes @ hkl.T, old_axes @ old.T, atol=1e-5)
        np.testing.assert_allclose(cell[:3], np.roll(old_cell[:3], mode), rtol=1e-4)
        np.testing.assert_allclose(cell[:3], 0.1 * parameters_of(0.1 * axes)[:3], rtol=2e-4)


def test_an_assignment_of_other_files(demo, assignment, tmp_path, capsys):
    other = shutil.copy(demo.integrated, tmp_path / "other.h5")
    message = refused(
        capsys, arguments(demo, tmp_path / "x.stream", other, assignment=[assignment]), tmp_path / "x.stream"
    )
    assert "assignment.h5: tells the ways to index of the crystals of 1 files" in message


def refused(capsys, argv, output):
    assert main(argv) == 1
    assert not os.path.exists(output)
    return capsys.readouterr().err


def test_files_of_another_stage(demo, tmp_path, capsys):
    output = tmp_path / "x.stream"
    assert "has no crystals" in refused(capsys, arguments(demo, output, demo.peaks), output)
    assert "has no reflections" in refused(capsys, arguments(demo, output, demo.indexed), output)


def test_peak_files_that_do_not_belong(demo, damaged, tmp_path, capsys):
    output = tmp_path / "x.stream"
    argv = arguments(demo, output, peaks=[demo.peaks, demo.peaks])
    assert "--peaks: 2 files were given, but --integrated has 1" in refused(capsys, argv, output)
    with h5py.File(damaged, "r+") as handle:
        handle["frames/frame"][...] = handle["frames/frame"][()] + 100
    message = refused(capsys, arguments(demo, output, damaged), output)
    assert f"{demo.peaks}: does not hold the frames of {damaged}" in message


def test_geometries_that_differ(demo, tmp_path, capsys):
    output, other = tmp_path / "x.stream", tmp_path / "other.geom"
    with open(demo.geometry) as handle:
        text = handle.read()
    other.write_text(text.replace("clen = 0.107", "clen = 0.108"))
    assert main(arguments(demo, output, geometry=[demo.geometry, other])) == 0
    output.unlink()
    other.write_text(text.replace("p3/max_fs = 511", "p3/max_fs = 400"))
    message = refused(capsys, arguments(demo, output, geometry=[demo.geometry, other]), output)
    assert f"{other}: its panels are not those of {demo.geometry}" in message


def test_a_geometry_with_fewer_panels(demo, tmp_path, capsys):
    output, other = tmp_path / "x.stream", tmp_path / "other.geom"
    with open(demo.geometry) as handle:
        kept = [line for line in handle if not line.startswith("p7/") and "rigid_group" not in line]
    other.write_text("".join(kept))
    message = refused(capsys, arguments(demo, output, geometry=[other], peaks=[]), output)
    assert "has reflections on panel 7, but --geometry has 7 panels" in message


def test_rows_out_of_order(demo, damaged, tmp_path, capsys):
    output = tmp_path / "x.stream"
    with h5py.File(damaged, "r+") as handle:
        handle["reflections/crystal"][...] = handle["reflections/crystal"][()][::-1]
    assert "reflections do not lie crystal after crystal" in refused(capsys, arguments(demo, output, damaged), output)


@pytest.mark.skipif(shutil.which("partialator") is None, reason="CrystFEL is not installed")
def test_partialator_merges_it(demo, stream, tmp_path):
    done = subprocess.run(
        ["partialator", "-i", stream, "-o", "x.hkl", "-y", "4/mmm", "--model=unity", "--iterations=1", "--no-deltacchalf"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with h5py.File(demo.integrated) as handle:
        n = handle["crystals/frame"].shape[0]
    assert f"crystals used out of {n}" in done.stderr
    assert len((tmp_path / "x.hkl").read_text().splitlines()) > 500
