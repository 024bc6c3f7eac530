"""`sfxflow indexing`: lattices against the simulator's truth, wrong cells, and frames that give nothing."""

import json
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from sfxflow.cell import Cell
from sfxflow.cli import main
from sfxflow.indexing.frame import misorientation, prepare_target
from sfxflow.io.cell_file import write_cell
from sfxflow.io.table import open_chunk, read_rows
from sfxflow.reflections import Status


def read(path):
    with open_chunk(path) as handle:
        return read_rows(handle["frames"]), read_rows(handle["crystals"]), dict(handle.attrs)


def true_lattices(demo):
    """Reciprocal matrices of each frame of the truth table."""
    table = pd.read_csv(demo.folder / "truth.tsv", sep="\t", comment="#", keep_default_na=False)
    found = {}
    for row in table[table["kind"] != "blank"].itertuples():
        matrix = [[float(getattr(row, f"{axis}star_{x}")) for axis in "abc"] for x in "xyz"]
        found.setdefault(row.frame, []).append(np.array(matrix))
    return found


def test_lattices_are_the_simulated_ones(demo):
    frames, crystals, attributes = read(demo.indexed)
    lattice = prepare_target(Cell(79.1, 79.1, 37.9, lattice_type="tetragonal", unique_axis="c")).lattice
    truth = true_lattices(demo)
    for row, reciprocal in zip(crystals["frame"], crystals["reciprocal"], strict=True):
        angles = [misorientation(reciprocal, true, lattice) for true in truth[frames["frame"][row]]]
        assert min(angles) < 0.1
    np.testing.assert_allclose(crystals["cell"][:, :3], [[79.1, 79.1, 37.9]] * len(crystals["cell"]), rtol=0.01)
    np.testing.assert_allclose(crystals["cell"][:, 3:], 90.0, atol=1e-3)
    assert attributes["warning"] == "" and tuple(attributes["cell"]) == (79.1, 79.1, 37.9, 90, 90, 90)
    assert attributes["space_group"] == "P 43 21 2"
    assert np.all(crystals["n_peaks"] >= 6) and np.all(crystals["log10_p"] < attributes["max_log10_p"])
    assert np.all(crystals["rms_position"] < 1.5) and np.all(crystals["resolution"] > 1.8)
    provenance = json.loads(attributes["provenance"])
    assert {os.path.basename(entry["name"]) for entry in provenance["inputs"]} == {
        "peaks.h5",
        "detector.geom",
        "demo.cell",
    }
    assert provenance["settings"]["max_lattices"] == 8


def test_every_frame_is_accounted_for(demo):
    frames, crystals, _ = read(demo.indexed)
    with open_chunk(demo.peaks) as handle:
        before = read_rows(handle["frames"])
    assert list(frames["frame"]) == list(before["frame"])
    hits = before["status"] == Status.hit
    np.testing.assert_array_equal(frames["status"][~hits], before["status"][~hits])
    assert np.all(frames["status"][hits] >= Status.hit)
    indexed = frames["status"] == Status.indexed
    assert indexed.sum() >= 0.95 * hits.sum()
    np.testing.assert_array_equal(np.bincount(crystals["frame"], minlength=len(indexed)), frames["n_lattices"])
    np.testing.assert_array_equal(frames["n_lattices"] > 0, indexed)
    assert np.all(np.isfinite(frames["resolution"]) == indexed)


def test_two_threads_give_the_same_file(demo, tmp_path):
    demo.ok("indexing", demo.peaks, tmp_path / "two.h5", "--threads", "2")
    for one, two in zip(read(demo.indexed)[:2], read(tmp_path / "two.h5")[:2], strict=True):
        assert one.keys() == two.keys()
        for name, values in one.items():
            np.testing.assert_array_equal(values, two[name])


def with_cell(demo, tmp_path, *parameters, group="P43212", lattice="tetragonal", axis="c", centering="P"):
    write_cell(tmp_path / "other.cell", Cell(*parameters, lattice_type=lattice, unique_axis=axis, centering=centering))
    arguments = demo.arguments("indexing", demo.peaks, tmp_path / "i.h5")
    arguments[arguments.index("--cell") + 1] = str(tmp_path / "other.cell")
    arguments[arguments.index("--space-group") + 1] = group
    return arguments


@pytest.mark.parametrize(
    "parameters", [(58.4, 58.4, 152.3), (79.1, 79.1, 75.8), (79.1, 79.1, 18.95), (82.3, 82.3, 39.4)], ids=str
)
def test_a_wrong_cell_is_told(demo, tmp_path, capsys, parameters):
    assert main(with_cell(demo, tmp_path, *parameters)) == 0
    frames, crystals, attributes = read(tmp_path / "i.h5")
    assert len(crystals["frame"]) == 0
    said = capsys.readouterr().err
    described = " ".join(f"{value:g}" for value in (*parameters, 90, 90, 90))
    assert f"WARNING: the cell {described} does not fit: 0 of" in said
    assert attributes["warning"] in said and "camera length" in attributes["warning"]
    assert not np.any(frames["status"] == Status.indexed)
    refused = [text for text, status in zip(frames["message"], frames["status"], strict=True) if status == Status.hit]
    assert all(refused)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ((79.1, 79.1, 75.8), "2 times smaller, 37.9 79.1 79.1 90 90 90 when reduced"),
        ((79.1, 79.1, 18.95), "2 times larger, 37.9 79.1 79.1 90 90 90 when reduced"),
    ],
    ids=["doubled", "halved"],
)
def test_the_run_says_which_multiple_of_the_cell_fits(demo, tmp_path, capsys, parameters, said):
    assert main(with_cell(demo, tmp_path, *parameters)) == 0
    _, crystals, attributes = read(tmp_path / "i.h5")
    assert said in capsys.readouterr().err and said in attributes["warning"]
    assert len(crystals["frame"]) == 0


def test_the_significance_comes_from_the_run_or_from_the_settings(demo, tmp_path, capsys):
    _, _, attributes = read(demo.indexed)
    assert -20.0 < attributes["max_log10_p"] < -11.0
    assert attributes["max_log10_p_from"] == "1% of 48 copies of hits with scrambled azimuths"
    demo.ok("indexing", demo.peaks, tmp_path / "i.h5", "--settings", '{"max_log10_p": -20}')
    _, crystals, attributes = read(tmp_path / "i.h5")
    assert attributes["max_log10_p"] == -20.0 and attributes["max_log10_p_from"] == "settings"
    assert "log10 P below -20.0 (settings)" in capsys.readouterr().err
    assert np.all(crystals["log10_p"] < -20.0)
    # One hit gives 12 copies: too few, and it is said.
    first = int(crystals["frame"][0])
    one = demo.ok("peaks", None, tmp_path / "p.h5", "--first", str(first), "--count", "1")
    demo.ok("indexing", one, tmp_path / "one.h5")
    _, _, attributes = read(tmp_path / "one.h5")
    assert attributes["max_log10_p"] == -15.5
    assert attributes["max_log10_p_from"] == "default: 12 copies of hits are too few to calibrate it"


def test_no_hits_and_no_lattices_make_valid_files(demo, tmp_path, capsys):
    blank = demo.ok("peaks", None, tmp_path / "blank.h5", "--settings", '{"min_peaks": 1000}')
    demo.ok("indexing", blank, tmp_path / "i.h5")
    frames, crystals, attributes = read(tmp_path / "i.h5")
    assert len(crystals["reciprocal"]) == 0 and attributes["warning"] == ""
    assert np.all(frames["status"] == Status.blank) and "0 hits: 0 indexed" in capsys.readouterr().err
    demo.ok("indexing", demo.peaks, tmp_path / "none.h5", "--settings", '{"max_log10_p": -5000}')
    frames, crystals, attributes = read(tmp_path / "none.h5")
    assert len(crystals["frame"]) == 0 and "does not fit" in attributes["warning"]
    for source in ("i.h5", "none.h5"):
        demo.ok("integration", tmp_path / source, tmp_path / "integrated.h5")


def test_one_crystal(demo, tmp_path):
    one = demo.ok("peaks", None, tmp_path / "p.h5", "--first", int(read(demo.indexed)[1]["frame"][0]), "--count", "1")
    demo.ok("indexing", one, tmp_path / "i.h5")
    frames, crystals, _ = read(tmp_path / "i.h5")
    assert len(frames["frame"]) == len(crystals["frame"]) == 1
    # Too few lattices to pool offsets from: the file still is complete.
    assert np.all(np.isfinite(crystals["excess"])) and np.all(np.isfinite(crystals["profile_radius"]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--settings", '{"max_latices": 2}'], "indexing.max_latices: no such setting; did you mean max_lattices?"),
        (["--settings", '{"cell_tolerance": 0.5}'], "indexing.cell_tolerance: 0.5 is above 0.2"),
        (["--settings", '{"min_peaks": 3}'], "indexing.min_peaks: 3 is below 4"),
        (["--settings", '{"max_log10_p": true}'], "indexing.max_log10_p: True is not a number"),
        (["--space-group", "P43213"], "'P43213' is not a space group"),
        (["--space-group", "P6122"], "but space group P 61 2 2 is hexagonal"),
        (["--space-group", "I41"], "centering is P, but space group I 41 has I"),
        (["--cell", "none.cell"], "none.cell: the cell can't be read"),
    ],
)
def test_bad_options_are_told_and_leave_nothing(demo, tmp_path, capsys, options, message):
    assert demo.run("indexing", demo.peaks, tmp_path / "i.h5", *options) == 1
    said = capsys.readouterr().err
    assert message in said and said.startswith("sfxflow indexing: ")
    assert not list(tmp_path.iterdir())


def test_files_that_are_no_peak_files(demo, tmp_path, capsys):
    (tmp_path / "text.h5").write_text("hello")
    (tmp_path / "empty.h5").write_bytes(b"")
    (tmp_path / "cut.h5").write_bytes(Path(demo.peaks).read_bytes()[:40000])
    for source, message in (
        (tmp_path / "none.h5", "none.h5: can't be opened as HDF5: there is no such file"),
        (tmp_path / "text.h5", "text.h5: can't be opened as HDF5: is not an HDF5 file"),
        (tmp_path / "empty.h5", "empty.h5: can't be opened as HDF5: is empty"),
        (tmp_path / "cut.h5", "cut.h5: can't be opened as HDF5: is cut short"),
        (demo.frames, "is not a chunk file of sfxflow"),
        (demo.indexed, "indexed.h5: has no entry_1/result_1"),
    ):
        assert demo.run("indexing", source, tmp_path / "i.h5") == 1
        assert message in capsys.readouterr().err
    assert not (tmp_path / "i.h5").exists()


def test_geometry_with_fewer_panels_than_the_peaks(demo, tmp_path, capsys):
    geometry = tmp_path / "few.geom"
    text = Path(demo.geometry).read_text()
    geometry.write_text("\n".join(line for line in text.splitlines() if not line.startswith(("p6/", "p7/"))))
    assert demo.run("indexing", demo.peaks, tmp_path / "i.h5", "--geometry", geometry) == 1
    assert "peaks on more panels than the geometry has" in capsys.readouterr().err


def test_energy_and_camera_length_of_each_frame_are_used(demo, tmp_path):
    """Frames whose camera length or energy is 20 % wrong are lost; the others stay right."""
    shutil.copy(demo.peaks, tmp_path / "p.h5")
    geometry = tmp_path / "per_event.geom"
    geometry.write_text(Path(demo.geometry).read_text().replace("clen = 0.107 m", "clen = /detector/distance mm"))
    indexed = np.flatnonzero(read(demo.indexed)[0]["status"] == Status.indexed)
    with h5py.File(tmp_path / "p.h5", "a") as handle:
        handle["frames/clen"][indexed[0]] = 1.2 * 0.107
        handle["frames/photon_energy"][indexed[1]] *= 0.8
    demo.ok("indexing", tmp_path / "p.h5", tmp_path / "i.h5", "--geometry", geometry)
    frames, _, _ = read(tmp_path / "i.h5")
    assert np.all(frames["status"][indexed[:2]] == Status.hit)
    assert np.all(frames["status"][indexed[2:]] == Status.indexed)


def test_a_camera_length_one_per_cent_wrong_is_told(demo, tmp_path):
    """A number in the geometry holds, whatever the peaks were found with; the excess is pooled and recovered."""
    geometry = tmp_path / "long.geom"
    geometry.write_text(Path(demo.geometry).read_text().replace("clen = 0.107 m", "clen = 0.10807 m"))
    demo.ok("indexing", demo.peaks, tmp_path / "i.h5", "--geometry", geometry)
    frames, crystals, _ = read(tmp_path / "i.h5")
    assert np.median(crystals["excess"]) == pytest.approx(0.01, abs=0.002)
    np.testing.assert_allclose(np.median(crystals["cell"][:, :3], axis=0) / [79.1, 79.1, 37.9], 1.01, atol=2e-3)
    np.testing.assert_allclose(frames["clen"], 0.10807)
    before = read(demo.indexed)[0]["status"]
    assert (frames["status"] == Status.indexed).sum() >= (before == Status.indexed).sum() - 1


def test_a_photon_energy_in_the_geometry_holds(demo, tmp_path):
    geometry = tmp_path / "fixed.geom"
    text = Path(demo.geometry).read_text()
    old = next(line for line in text.splitlines() if line.startswith("photon_energy ="))
    geometry.write_text(text.replace(old, "photon_energy = 9595 eV"))
    demo.ok("indexing", demo.peaks, tmp_path / "i.h5", "--geometry", geometry)
    frames, crystals, _ = read(tmp_path / "i.h5")
    np.testing.assert_allclose(frames["photon_energy"], 9595)
    # 1 % more energy is 1 % less wavelength: the same positions belong to a cell that is 1 % smaller.
    np.testing.assert_allclose(np.median(crystals["cell"][:, :3], axis=0) / [79.1, 79.1, 37.9], 0.99, atol=2e-3)


def test_rhombohedral_crystals_on_hexagonal_axes(stages_of, tmp_path):
    """From frames to reflections with centring H: the engine and the simulator agree on which reflections there are."""
    folder = tmp_path / "r3"
    changed = {"a": 66.0, "b": 66.0, "c": 104.0, "gamma": 120.0, "space_group": "R 3:H", "blank_fraction": 0.0}
    settings = [f"{key}={value}" for key, value in changed.items()]
    options = ["--n-frames", "6", "--seed", "1", "--output", str(folder)]
    assert main(["simulate", "--preset", "demo", *options, "--set", *settings]) == 0
    stages = stages_of(folder, group="R3")
    stages.ok("peaks", None, folder / "p.h5")
    stages.ok("indexing", folder / "p.h5", folder / "i.h5")
    stages.ok("integration", folder / "i.h5", folder / "o.h5")
    frames, crystals, attributes = read(folder / "i.h5")
    assert attributes["space_group"] == "R 3:H" and (frames["status"] == Status.indexed).sum() >= 5
    with open_chunk(folder / "o.h5") as handle:
        reflections = read_rows(handle["reflections"])
    h, k, l = (reflections[name].astype(int) for name in "hkl")
    assert np.all((-h + k + l) % 3 == 0)
    strong = reflections["I"] > 10 * reflections["sigI"]
    assert strong.sum() > 100
    # Obverse and not reverse: with the other setting no reflection would be strong.
    truth = true_lattices(stages)
    lattice = prepare_target(Cell(66, 66, 104, 90, 90, 120, "hexagonal", "H", "c")).lattice
    for row, reciprocal in zip(crystals["frame"], crystals["reciprocal"], strict=True):
        assert min(misorientation(reciprocal, true, lattice) for true in truth[row]) < 0.1


def test_a_warm_start_takes_less_than_three_seconds_of_cpu(demo, tmp_path):
    child = demo.child("indexing", demo.peaks, tmp_path / "i.h5")
    child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    child.stdout.close()
    assert child.returncode == 0
    # Imports, kernels from the cache and twenty frames.
    assert usage.ru_utime + usage.ru_stime < 3.0
