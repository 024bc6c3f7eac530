"""`sfxflow cell`: the simulator's cell found, and what it says where there is none."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from sfxflow.cell import Cell
from sfxflow.cli import cell as stage
from sfxflow.cli import main
from sfxflow.indexing.forms import Checked, Form
from sfxflow.io.cell_file import read_cell
from sfxflow.io.found_cell import read_found_cell
from sfxflow.settings import Cell as Settings

#: Few hits and a small ball: the tests are about the command.
QUICK = {"n_frames": 8, "max_length": 100.0}


def call(folder, *more, peaks, geometry, settings=None):
    """Exit status of the command; the cell goes to found.cell."""
    values = json.dumps(QUICK | (settings or {}))
    files = ("--output", str(folder / "found.cell"), "--clusters", str(folder / "clusters.json"))
    where = ("--peaks", *map(str, peaks), "--geometry", *map(str, geometry))
    return main(["cell", *where, "--settings", values, *files, *map(str, more)])


def nothing_written(folder):
    return not (folder / "found.cell").exists() and not (folder / "clusters.json").exists()


@pytest.fixture
def changed_peaks(demo, tmp_path):
    """A copy of the peak file to change: `changed_peaks(function)`."""

    def change(function, name="changed.h5"):
        path = tmp_path / name
        shutil.copyfile(demo.peaks, path)
        with h5py.File(path, "r+") as handle:
            function(handle)
        return path

    return change


def test_the_simulated_cell(demo, tmp_path, capsys):
    assert call(tmp_path, peaks=[demo.peaks], geometry=[demo.geometry]) == 0
    cell = read_cell(tmp_path / "found.cell")
    assert (cell.lattice_type, cell.centering, cell.unique_axis) == ("tetragonal", "P", "c")
    assert cell.parameters[:3] == pytest.approx((79.1, 79.1, 37.9), rel=0.005)
    assert cell.parameters[3:] == (90, 90, 90)
    values = read_found_cell(tmp_path / "clusters.json")
    assert values["cell"]["parameters"] == pytest.approx(cell.parameters, abs=1e-4)
    assert values["hits"] == 8 and values["space_group"] == "P 4 2 2" and not values["space_group_given"]
    form = values["forms"][0]
    assert form["accepted"] and form["indexed"] >= 7
    assert np.shape(form["parameters"]) == (form["indexed"], 6) and len(form["frames"]) == form["indexed"]
    assert [entry["name"] for entry in values["provenance"]["inputs"]] == [str(demo.peaks), demo.geometry]
    said = capsys.readouterr().err
    assert "cell: 79." in said and "(tetragonal P); it indexes" in said
    assert "WARNING: no space group is given: P 4 2 2 is assumed" in said


def test_a_space_group_gives_the_setting_and_takes_the_warning_away(demo, tmp_path, capsys):
    assert call(tmp_path, "--space-group", "P212121", peaks=[demo.peaks], geometry=[demo.geometry]) == 0
    cell = read_cell(tmp_path / "found.cell")
    assert cell.lattice_type == "orthorhombic"
    assert sorted(cell.parameters[:3]) == pytest.approx([37.9, 79.1, 79.1], rel=0.005)
    assert "WARNING" not in capsys.readouterr().err
    assert read_found_cell(tmp_path / "clusters.json")["space_group"] == "P 21 21 21"


def test_a_space_group_that_contradicts_the_lattice(demo, tmp_path, capsys):
    assert call(tmp_path, "--space-group", "P63", peaks=[demo.peaks], geometry=[demo.geometry]) == 1
    message = capsys.readouterr().err
    assert "space_group: P 63 needs a hexagonal lattice with centring P, but the cell found is 79." in message
    assert nothing_written(tmp_path)


def test_several_peak_files_with_geometries_of_their_own(demo, tmp_path):
    other = tmp_path / "other.geom"
    shutil.copyfile(demo.geometry, other)
    both = {"peaks": [demo.peaks, demo.peaks], "geometry": [demo.geometry, other]}
    assert call(tmp_path, **both, settings={"n_frames": 7}) == 0
    values = read_found_cell(tmp_path / "clusters.json")
    assert values["hits"] == 7
    assert set(values["forms"][0]["files"]) == {0, 1}


def test_geometries_that_are_not_one_for_each_file(demo, tmp_path, capsys):
    assert call(tmp_path, peaks=[demo.peaks], geometry=[demo.geometry, demo.geometry]) == 1
    assert "--geometry: 2 files for 1 peak files; one for all or one for each is expected" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("available", "wanted", "taken"),
    [
        ([10, 10], 8, [4, 4]),
        ([2, 10, 10], 12, [2, 5, 5]),
        ([3, 1], 8, [3, 1]),
        ([0, 5], 2, [0, 2]),
        ([5, 5, 5], 4, None),
    ],
)
def test_hits_are_spread_over_the_files(available, wanted, taken):
    shares = stage._shares(available, wanted)
    assert sum(shares) == min(wanted, sum(available))
    assert all(0 <= share <= n for share, n in zip(shares, available, strict=True))
    assert taken is None or shares == taken


# ---- bad input


def test_all_frames_blank(demo, changed_peaks, tmp_path, capsys):
    def blank(handle):
        handle["frames/status"][:] = 1
        handle["entry_1/result_1/nPeaks"][:] = 0
        handle["frames/n_peaks"][:] = 0

    assert call(tmp_path, peaks=[changed_peaks(blank)], geometry=[demo.geometry]) == 1
    message = capsys.readouterr().err
    assert "0 of 20 frames are hits with 15 peaks or more (cell: min_peaks)" in message
    assert "Look at the peak search first" in message and "set datasets.NAME.cell" in message
    assert nothing_written(tmp_path)


def test_too_few_hits(demo, tmp_path, capsys):
    settings = {"min_peaks": 10000}
    assert call(tmp_path, peaks=[demo.peaks], geometry=[demo.geometry], settings=settings) == 1
    assert "0 of 20 frames are hits with 10000 peaks or more" in capsys.readouterr().err
    assert nothing_written(tmp_path)


def test_random_peaks_give_no_cell(demo, changed_peaks, tmp_path, capsys):
    def shuffle(handle):
        rng = np.random.default_rng(1)
        group = handle["entry_1/result_1"]
        for i, n in enumerate(group["nPeaks"][:]):
            # Positions of all peaks of the run, in any order and combination.
            for name in ("peakXPosRaw", "peakYPosRaw"):
                panel_size = 128
                old = group[name][i, :n]
                group[name][i, :n] = panel_size * np.floor(old / panel_size) + panel_size * rng.random(n)

    assert call(tmp_path, peaks=[changed_peaks(shuffle)], geometry=[demo.geometry]) == 1
    message = capsys.readouterr().err
    assert "no unit cell found: " in message and "beam centre" in message
    assert nothing_written(tmp_path)


def test_peaks_of_another_geometry(demo, tmp_path, capsys):
    lines = Path(demo.geometry).read_text().splitlines(keepends=True)
    names = list(dict.fromkeys(line.split("/")[0] for line in lines if "/min_fs" in line))
    small = tmp_path / "small.geom"
    small.write_text("".join(line for line in lines if not any(line.startswith(f"{name}/") for name in names[1:])))
    assert call(tmp_path, peaks=[demo.peaks], geometry=[small]) == 1
    assert "has peaks on more panels than the geometry has" in capsys.readouterr().err
    assert nothing_written(tmp_path)


def test_limits_the_wrong_way_round(demo, tmp_path, capsys):
    settings = {"min_length": 90.0, "max_length": 80.0}
    assert call(tmp_path, peaks=[demo.peaks], geometry=[demo.geometry], settings=settings) == 1
    assert "cell: min_length (90) must be below max_length (80)" in capsys.readouterr().err


def test_a_file_that_is_no_peak_file(demo, tmp_path, capsys):
    assert call(tmp_path, peaks=[demo.cell], geometry=[demo.geometry]) == 1
    assert "demo.cell" in capsys.readouterr().err
    assert nothing_written(tmp_path)


# ---- what is said of the forms


def form(n_members, n_indexed, accepted=True, reasons=None, pseudo=None):
    cell = Cell(50.0, 60.0, 70.0, lattice_type="orthorhombic")
    indexed = np.arange(n_indexed)
    return Form(cell, np.arange(n_members), indexed, n_indexed / n_members, reasons or {}, accepted, pseudo=pseudo)


def test_warning_of_two_forms():
    text = " ".join(stage._warnings([form(30, 30), form(6, 6)], 40, group=object()))
    assert text.startswith("two crystal forms: 50.00 60.00 70.00") and "on 30 hits" in text and "on 6 hits" in text


def test_warning_of_a_near_miss_and_of_few_hits():
    near, few = stage._warnings([form(6, 6, pseudo=0.00524)], 40, group=object())
    assert "all frames miss it by 0.52 % in length, or 0.30 degrees" in near
    assert few == "the cell indexes only 6 of 40 hits that were looked at"


def test_why_nothing_was_found():
    settings = Settings()
    assert "none of 9 hits shows a lattice with axes of 20 to 340 angstrom" in stage._nothing_found([], 9, 0, settings)
    assert "7 of 9 hits show a lattice, but no 5 of them agree" in stage._nothing_found([], 9, 7, settings)
    refused = stage._nothing_found([form(7, 1, accepted=False, reasons={"super-lattice": 6})], 9, 7, settings)
    assert "on which 7 frames agree, indexes 14 % of them (super-lattice: 6)" in refused


def test_the_check_is_used(demo, tmp_path, capsys, monkeypatch):
    """A cell on which frames agree, but that indexes none of them, is not written."""
    monkeypatch.setattr(stage, "check_frame", lambda *_: Checked("sub-lattice", None))
    assert call(tmp_path, peaks=[demo.peaks], geometry=[demo.geometry]) == 1
    assert "indexes 0 % of them (sub-lattice: " in capsys.readouterr().err
    assert nothing_written(tmp_path)
