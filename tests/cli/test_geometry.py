"""`sfxflow geometry`: from frames with a wrong geometry to a proposed one, and input that is wrong."""

import json
import re
import shutil

import h5py
import numpy as np
import pytest

from sfxflow.cell import Cell
from sfxflow.cli import main
from sfxflow.io.cell_file import write_cell
from sfxflow.io.geom import read_geom
from sfxflow.io.geometry import read_geometry


class Wrong:
    """A folder of simulated frames whose written geometry is wrong, processed up to the indexed crystals."""

    def __init__(self, folder, *changes, n_frames=60, file_format="cxi"):
        self.folder = folder
        assert main(["simulate", "--preset", "demo", "--n-frames", str(n_frames), "--seed", "9", "--output", str(folder),
                     "--format", file_format, "--set", "blank_fraction=0.1", *changes]) == 0  # fmt: skip
        self.geometry, self.frames = folder / "detector.geom", folder / "frames_00.h5"
        if file_format != "cxi":
            self.geometry = self.frames = next(folder.glob("*master*.h5"))
        self.cell = folder / "demo.cell"
        self.peaks, self.indexed = folder / "peaks.h5", folder / "indexed.h5"
        assert self.stage("peaks", "--frames", self.frames, "--geometry", self.geometry, "--output", self.peaks) == 0
        assert self.index() == 0

    @staticmethod
    def stage(name, *arguments):
        return main([name, *map(str, arguments)])

    def index(self):
        cell = ("--cell", self.cell, "--space-group", "P43212")
        return self.stage(
            "indexing", "--peaks", self.peaks, "--geometry", self.geometry, *cell, "--output", self.indexed
        )

    def propose(self, folder, settings=None, **other):
        """Exit status and paths of the proposal."""
        use = {"peaks": self.peaks, "indexed": self.indexed, "geometry": self.geometry, "cell": self.cell} | other
        folder.mkdir(exist_ok=True)
        status = self.stage(
            "geometry", "--peaks", use["peaks"], "--indexed", use["indexed"], "--geometry", use["geometry"], "--cell", use["cell"],
            "--space-group", "P43212", "--settings", json.dumps(settings or {}), "--proposal", folder / "proposal.json",
            "--output", folder / "proposed.geom",
        )  # fmt: skip
        return status, folder / "proposed.geom", folder / "proposal.json"


@pytest.fixture(scope="module")
def wrong(tmp_path_factory):
    """Centre off by 3.5 pixels, panels by half a pixel."""
    return Wrong(tmp_path_factory.mktemp("wrong"), "geometry_shift_x=3.5", "geometry_panel_error=0.5")


def panel_errors(true, found):
    errors = [np.subtract(f.origin, t.origin)[:2] for t, f in zip(true.panels, found.panels, strict=True)]
    return np.array(errors) / 1e-4


#: A quick search: along the centre only, with few frames.
QUICK = {"search": "always", "search_frames": 12, "search_shift": 5.0, "search_distance": 0.0}


def test_a_wrong_centre_and_wrong_panels_are_mended(wrong, tmp_path, capsys):
    before = wrong.geometry.read_bytes()
    status, proposed, proposal = wrong.propose(tmp_path / "p", QUICK)
    assert status == 0
    true, given, found = (read_geom(path) for path in (wrong.folder / "true.geom", wrong.geometry, proposed))
    assert np.abs(panel_errors(true, given)).max() > 3.0
    assert np.sqrt((panel_errors(true, found) ** 2).mean()) < 0.15
    # Only what was refined differs, and the given file stays.
    assert wrong.geometry.read_bytes() == before
    old, new = before.decode().splitlines(), proposed.read_text().splitlines()
    different = [line for line in new if line not in old]
    assert len(old) == len(new) and different
    assert all(re.match(r"p\d/(corner_x|corner_y|fs|ss) = |clen = ", line) for line in different)
    values = json.loads(proposal.read_text())
    assert values["search"]["shift_x"] == pytest.approx(-3.5, abs=1.1)
    assert values["overall"]["shift_x"] == pytest.approx(-3.5, abs=0.1)
    assert values["residuals"]["after"]["systematic"] < 0.3 * values["residuals"]["before"]["systematic"]
    assert {entry["name"] for entry in values["provenance"]["inputs"]} >= {str(wrong.geometry), str(wrong.indexed)}
    told = capsys.readouterr().out
    assert "shift of all panels: x -3." in told and "runs.tsv" in told and "were searched" in told

    # Indexed with the proposal: no fewer, and better.
    arguments = ("--peaks", wrong.peaks, "--cell", wrong.cell, "--space-group", "P43212")
    assert wrong.stage("indexing", *arguments, "--geometry", proposed, "--output", tmp_path / "again.h5") == 0

    def crystals(path):
        with h5py.File(path) as handle:
            return len(handle["crystals/frame"]), float(np.median(handle["crystals/rms_position"]))

    given, mended = crystals(wrong.indexed), crystals(tmp_path / "again.h5")
    assert mended[0] >= given[0] and mended[1] < 0.8 * given[1]


def test_without_a_search_the_indexed_crystals_are_used(wrong, tmp_path):
    status, _, proposal = wrong.propose(tmp_path / "p", {"search": "never", "level": "overall"})
    assert status == 0
    values = json.loads(proposal.read_text())
    with h5py.File(wrong.indexed) as handle:
        assert values["crystals"] <= len(handle["crystals/frame"])
    assert values["search"] is None and [group["name"] for group in values["groups"]] == ["detector"]


def test_an_nxmx_geometry_gives_a_geom_file(tmp_path):
    right = Wrong(tmp_path / "n", n_frames=20, file_format="nxmx")
    status, proposed, _ = right.propose(tmp_path / "p", {"min_crystals": 5, "min_peaks": 20})
    assert status == 0
    given, found = read_geometry(right.geometry), read_geom(proposed)
    assert [p.name for p in found.panels] == [p.name for p in given.panels]
    assert 0.0 < np.sqrt((panel_errors(given, found) ** 2).mean()) < 0.2
    assert proposed.read_text().startswith("; provenance: ")
    # The frames are read with it as with the file itself.
    again = tmp_path / "again.h5"
    assert right.stage("peaks", "--frames", right.frames, "--geometry", proposed, "--output", again) == 0
    with h5py.File(right.peaks) as one, h5py.File(again) as two:
        assert two["frames/n_peaks"][()].sum() == pytest.approx(one["frames/n_peaks"][()].sum(), rel=0.02)


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    """A few frames of a right geometry."""
    return Wrong(tmp_path_factory.mktemp("right"), n_frames=16)


def test_few_crystals_fall_back_and_say_so_in_the_report_too(right, tmp_path, capsys):
    folder = tmp_path / "results/builtin/geometry/demo/detector"
    folder.parent.mkdir(parents=True)
    status, _, proposal = right.propose(folder)
    assert status == 0
    values = json.loads(proposal.read_text())
    assert any("fewer than min_crystals (50): only the overall shift" in note for note in values["notes"])
    assert "NOTE: " in capsys.readouterr().out
    account, page = tmp_path / "results/builtin/runs/one/frames.tsv", tmp_path / "index.html"
    account.parent.mkdir(parents=True)
    assert right.stage("frames", "--chunks", right.indexed, "--n-frames", 16, "--output", account) == 0
    report = ("--frames", account, "--output", page, "--geometries")
    assert right.stage("report", *report, tmp_path / "results/builtin/geometry") == 0
    text = page.read_text()
    assert "Proposed geometries" in text and "builtin, dataset demo, proposed geometry detector" in text
    # A folder that is not there holds no proposals.
    assert right.stage("report", *report, tmp_path / "none") == 0
    assert "Proposed geometries" not in page.read_text()


def test_files_that_do_not_belong_together(right, tmp_path, capsys):
    shorter = tmp_path / "short.h5"
    shutil.copy(right.indexed, shorter)
    with h5py.File(shorter, "r+") as handle:
        for name in list(handle["frames"]):
            values = handle[f"frames/{name}"][:-1]
            dtype = handle[f"frames/{name}"].dtype
            del handle[f"frames/{name}"]
            handle["frames"].create_dataset(name, data=values, dtype=dtype)
    text = right.geometry.read_text()
    other = tmp_path / "other.geom"
    other.write_text(re.sub(r"clen = .*", "clen = 0.2 m", text))
    one = tmp_path / "one.geom"
    one.write_text("\n".join(line for line in text.splitlines() if not line.startswith(("p7/", "rigid"))))
    for wrong_file, message in (
        ({"indexed": shorter}, r"holds 15 frames, but .*peaks\.h5 16; index these peaks again"),
        (
            {"geometry": other},
            r"indexed\.h5: was indexed with another geometry \(clen 0\.107 m, now 0\.2 m\); index again",
        ),
        ({"geometry": one}, r"peaks\.h5: has peaks on more panels than the geometry has"),
        ({"indexed": right.peaks}, r"has no crystals"),
        ({"peaks": right.indexed}, r"has no entry_1/result_1"),
        ({"geometry": tmp_path / "none.geom"}, r"none\.geom: the geometry can't be read"),
    ):
        status, _, proposal = right.propose(tmp_path, **wrong_file)
        text = capsys.readouterr().err
        assert status == 1 and re.search(message, text), text
        assert not proposal.exists() and not (tmp_path / "proposed.geom").exists()


def test_a_wrong_cell_ends_with_a_message(right, tmp_path, capsys):
    cell = tmp_path / "wrong.cell"
    write_cell(cell, Cell(61.0, 61.0, 43.0, lattice_type="tetragonal", centering="P", unique_axis="c"))
    indexed = tmp_path / "i.h5"
    arguments = ["--peaks", right.peaks, "--geometry", right.geometry, "--cell", str(cell), "--space-group", "P43212"]
    assert main(["indexing", *map(str, arguments), "--output", str(indexed)]) == 0
    status, _, proposal = right.propose(
        tmp_path, {"search_shift": 4.0, "search_distance": 0.0}, indexed=indexed, cell=cell
    )
    text = capsys.readouterr().err
    assert status == 1 and not proposal.exists()
    assert (
        "no crystals to refine the geometry with" in text
        and "found no place where lattices are significant: check the cell" in text
    )


def test_numbers_of_files_must_agree(right, tmp_path, capsys):
    arguments = [
        "--peaks",
        right.peaks,
        right.peaks,
        "--indexed",
        right.indexed,
        "--geometry",
        right.geometry,
        "--cell",
        right.cell,
    ]
    arguments += ["--space-group", "P43212", "--proposal", tmp_path / "p.json", "--output", tmp_path / "p.geom"]
    assert main(["geometry", *map(str, arguments)]) == 1
    assert "--indexed: 1 files are given for 2 peak files" in capsys.readouterr().err
