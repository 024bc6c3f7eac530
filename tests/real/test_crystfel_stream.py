"""A stream that CrystFEL 0.12 wrote, and what its programs made of it: read, written and merged to the digit."""

import gzip
import shutil
import subprocess

import h5py
import numpy as np
import pytest

from sfxflow.cli import main
from sfxflow.geometry import lab_positions, panel_arrays
from sfxflow.io.hkl import read_hkl
from sfxflow.io.stream_reader import read_stream
from sfxflow.io.stream_tables import detector_of_header, tables_of_stream
from sfxflow.point_group import asymmetric, point_group
from sfxflow.reflections import Status
from sfxflow.symmetry import rotations, space_group
from sfxflow.units import wavelength


@pytest.fixture(scope="module")
def recorded(shared_data):
    return shared_data / "reference/crystfel"


@pytest.fixture(scope="module")
def table(recorded, tmp_path_factory):
    """The stream as an integrated table and as a peak file."""
    folder = tmp_path_factory.mktemp("recorded")
    source = str(recorded / "asdf.stream.gz")
    for name in ("all.integrated.h5", "all.peaks.h5"):
        assert main(["convert", "--input", source, "--output", str(folder / name)]) == 0
    return folder


def test_counts(recorded):
    reader = read_stream(recorded / "asdf.stream.gz")
    frames = list(reader)
    assert (len(frames), reader.n_begun, reader.n_ended) == (301, 301, 301)
    assert sum(frame.is_hit for frame in frames) == 251
    crystals = [crystal for frame in frames for crystal in frame.crystals]
    assert len(crystals) == 251 and {frame.indexed_by for frame in frames} == {"asdf", "none"}
    assert sum(len(crystal.hkl) for crystal in crystals) == 60817
    assert sum(crystal.n_reflections for crystal in crystals) == 60817
    assert sum(len(frame.peaks.fs) for frame in frames) == sum(frame.n_peaks for frame in frames) == 16597
    assert not reader.unknown and not reader.n_miscounted


def test_what_is_read_is_written_again(recorded, tmp_path):
    """The whole file, byte for byte."""
    source, again = recorded / "asdf.stream.gz", tmp_path / "again.stream"
    assert main(["convert", "--input", str(source), "--output", str(again)]) == 0
    with gzip.open(source) as handle:
        assert again.read_bytes() == handle.read()


def test_through_a_table_and_a_peak_file(recorded, table, tmp_path):
    """All lines are the same again but the 1/d of some peaks, which is computed from positions of two decimals."""
    argv = ["--input", str(table / "all.integrated.h5"), "--peaks", str(table / "all.peaks.h5")]
    assert main(["convert", *argv, "--output", str(tmp_path / "again.stream")]) == 0
    with gzip.open(recorded / "asdf.stream.gz", "rt") as handle:
        expected = handle.read().splitlines()
    found = (tmp_path / "again.stream").read_text().splitlines()
    assert len(found) == len(expected)
    differ = [(a.split(), b.split()) for a, b in zip(found, expected, strict=True) if a != b]
    assert len(differ) < 40
    for a, b in differ:
        assert (*a[:2], *a[3:]) == (*b[:2], *b[3:])
        assert abs(float(a[2]) - float(b[2])) < 0.011


def plain_mean(hkl, intensity):
    """Mean and its uncertainty of reflections measured twice and more, as process_hkl has them: indices to (I, sigma, n)."""
    unique, of_unique = np.unique(hkl, axis=0, return_inverse=True)
    of_unique = of_unique.reshape(-1)
    n = np.bincount(of_unique)
    mean = np.bincount(of_unique, intensity) / n
    variance = np.bincount(of_unique, (intensity - mean[of_unique]) ** 2) / n
    rows = zip(unique.tolist(), mean, np.sqrt(variance / n), n, strict=True)
    return {tuple(index): values for index, *values in rows if values[2] >= 2}


def test_what_mergers_get_is_what_crystfel_s_own_got(recorded):
    """The plain mean of what is read, for all and for every second crystal, is the list that process_hkl wrote: each reflection, to the digit.

    Indices, intensities and polarisation factors of all 60817 observations stand behind it. process_hkl reads single precision, which can
    turn a rounding of the last digit.
    """
    blocks = [
        found.reflections
        for _, found in tables_of_stream(read_stream(recorded / "asdf.stream.gz"), polarisation_fraction=1.0)
    ]
    columns = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    hkl = asymmetric(np.column_stack([columns[name] for name in "hkl"]), point_group("4/mmm"))
    intensity = columns["I"].astype(float) / columns["polarisation"]
    chosen = {
        "phns.hkl": columns["crystal"] >= 0,
        "phns.hkl1": columns["crystal"] % 2 == 0,
        "phns.hkl2": columns["crystal"] % 2 == 1,
    }
    for name, use in chosen.items():
        expected = read_hkl(recorded / f"{name}.gz")
        merged = plain_mean(hkl[use], intensity[use])
        assert len(merged) == len(expected.hkl)
        found = np.array([merged[tuple(index)] for index in expected.hkl.tolist()])
        np.testing.assert_array_equal(found[:, 2], expected.n)
        np.testing.assert_allclose(found[:, 0], expected.I, atol=0.00501, rtol=2e-7)
        np.testing.assert_allclose(found[:, 1], expected.sigI, atol=0.00501, rtol=2e-7)


def crystfel_s_positions(q, k, bandwidth, profile_radius):
    """Where CrystFEL predicts lattice points q: the weighted mean of each and of its projection on the Ewald sphere, each width a weight.

    Directions (n, 3) with z = 1. libcrystfel/src/geometry.c, check_reflection.
    """
    on_sphere = q + k[:, None] * [0, 0, 1]
    towards = on_sphere / np.linalg.norm(on_sphere, axis=1)[:, None]
    width = (1.0 - towards[:, 2]) * bandwidth * k
    weights = np.array([profile_radius**-2.0, width**-2.0])
    flattened = q * [1, 1, 0] + np.minimum(q, 0.0) * [0, 0, 1]
    nearest = k[:, None] * (towards - [0, 0, 1])
    point = np.einsum("in,inj->nj", weights / weights.sum(axis=0), np.array([flattened, nearest]))
    own_k = -np.sum(point**2, axis=1) / (2.0 * point[:, 2])
    out = q + own_k[:, None] * [0, 0, 1]
    return out / out[:, 2:]


def test_positions_follow_from_axes_wavelength_widths_and_geometry(recorded):
    """All 60817 predicted positions, from what the tables hold of crystals, frames and panels: within the rounding of 0.1 pixel."""
    reader = read_stream(recorded / "asdf.stream.gz")
    detector = detector_of_header(reader.header, reader.path)
    n = 0
    for frames, found in tables_of_stream(reader):
        rows, crystals = found.reflections, found.crystals
        crystal = rows["crystal"] - (rows["crystal"][0] if len(rows["crystal"]) else 0)
        frame = (crystals["frame"] - found.frames["frame"][0])[crystal]
        hkl = np.column_stack([rows[name] for name in "hkl"]).astype(float)
        q = np.einsum("nij,nj->ni", crystals["reciprocal"][crystal], hkl)
        k = 1.0 / wavelength(found.frames["photon_energy"][frame])
        bandwidth = np.array([f.bandwidth for f in frames])[frame]
        radius = 1.1 * crystals["profile_radius"][crystal].astype(float)
        expected = crystfel_s_positions(q, k, bandwidth, radius) * found.frames["clen"][frame][:, None]
        place = lab_positions(panel_arrays(detector), rows["panel"], rows["fs"], rows["ss"], detector.clen)
        # Half of the last digit along fs and ss, and what the rounding of the profile radius moves.
        assert np.linalg.norm(place - expected, axis=1).max() < 0.08 * 75e-6
        np.testing.assert_allclose(
            rows["excitation_error"], k - np.linalg.norm(q + k[:, None] * [0, 0, 1], axis=1), atol=1e-9
        )
        n += len(rows["h"])
    assert n == 60817


def test_the_built_in_engine_indexes_crystfel_s_peaks(recorded, shared_data, tmp_path):
    """The 251 hits of the stream, from their peaks alone: the same lattices, turned by less than 0.1 degree."""
    data = shared_data / "data/crystfel_sim"
    peaks, indexed = str(tmp_path / "all.peaks.h5"), str(tmp_path / "all.indexed.h5")
    assert main(["convert", "--input", str(recorded / "asdf.stream.gz"), "--output", peaks]) == 0
    argv = ["--peaks", peaks, "--geometry", str(data / "det.geom"), "--cell", str(data / "lyso.cell")]
    assert main(["indexing", *argv, "--space-group", "P43212", "--output", indexed]) == 0
    with h5py.File(indexed) as handle:
        frame, own = handle["crystals/frame"][()], handle["crystals/reciprocal"][()]
    expected = {
        i: f.crystals[0].reciprocal for i, f in enumerate(read_stream(recorded / "asdf.stream.gz")) if f.crystals
    }
    assert len(expected) == 251
    assert set(frame) == set(expected) and len(frame) == 251
    operations = rotations(space_group("P43212"), friedel=False)
    for i, matrix in zip(frame, own, strict=True):
        turned = matrix @ np.transpose(operations, (0, 2, 1)) @ np.linalg.inv(expected[i])
        nearest = turned[np.argmax(np.trace(turned, axis1=1, axis2=2))]
        # Lengths of the axes differ by some 1e-4, so that the turn is seen in what is not symmetric.
        assert np.degrees(np.linalg.norm(nearest - nearest.T) / np.sqrt(8.0)) < 0.1


@pytest.mark.crystfel
@pytest.mark.skipif(shutil.which("indexamajig") is None, reason="CrystFEL's programs are not on PATH")
def test_engine_crystfel_indexes_the_peaks_of_a_stream(recorded, shared_data, tmp_path):
    """Fifty frames, last one first in the stream: all 46 hits, from peaks that went through a peak file."""
    data = shared_data / "data/crystfel_sim"
    mark, peaks = "----- Begin chunk -----\n", str(tmp_path / "one.peaks.h5")
    with gzip.open(recorded / "asdf.stream.gz", "rt") as handle:
        header, *frames = handle.read().split(mark)
    own = [mark + frame for frame in frames if "run1_01.h5" in frame.partition("\n")[0]][::-1]
    (tmp_path / "one.stream").write_text(header + "".join(own))
    run = ["--frames", str(data / "run1_01.h5"), "--geometry", str(data / "det.geom")]
    assert main(["convert", "--input", str(tmp_path / "one.stream"), "--output", peaks, *run]) == 0
    target = [
        "--cell",
        str(data / "lyso.cell"),
        "--space-group",
        "P43212",
        "--output",
        str(tmp_path / "one.integrated.h5"),
    ]
    assert main(["crystfel_indexing", "--peaks", peaks, *run, *target]) == 0
    with h5py.File(tmp_path / "one.integrated.h5") as handle:
        assert len(handle["frames/frame"]) == 50
        assert np.count_nonzero(handle["frames/status"][()] == Status.indexed) == 46


@pytest.mark.crystfel
@pytest.mark.skipif(shutil.which("process_hkl") is None, reason="CrystFEL's programs are not on PATH")
@pytest.mark.parametrize("through", [(), ("all.integrated.h5",)])
def test_crystfel_merges_the_stream_as_it_merged_its_own(recorded, table, tmp_path, through):
    """process_hkl on the stream that was read and written, directly and from the tables: the recorded list, line for line."""
    source = table / through[0] if through else recorded / "asdf.stream.gz"
    assert main(["convert", "--input", str(source), "--output", str(tmp_path / "a.stream")]) == 0
    command = ["process_hkl", "-i", "a.stream", "-o", "a.hkl", "-y", "4/mmm"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with gzip.open(recorded / "phns.hkl.gz", "rt") as handle:
        expected = handle.read().partition("End of reflections")[0]
    assert (tmp_path / "a.hkl").read_text().partition("End of reflections")[0] == expected
