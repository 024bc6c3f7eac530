"""Real frames (Diamond I24, Pilatus 6M) from `sfxflow init` to the report."""

import gemmi
import h5py
import numpy as np
import pytest

from sfxflow.io.frame_account import read_frame_account
from sfxflow.reflections import Status

#: P41212 thaumatin, as the data's README gives it.
CELL = (58.4, 58.4, 152.3)


def test_frames_that_diffract_are_indexed_and_blanks_are_not(thaumatin):
    frames, _ = read_frame_account(thaumatin.result("builtin/runs/thaumatin_i24/frames.tsv"))
    assert frames["status"] == [Status.indexed] * 8 + [Status.blank] * 2
    assert frames["n_lattices"] == [1] * 8 + [0] * 2


def test_median_cell(thaumatin):
    with h5py.File(thaumatin.result("builtin/runs/thaumatin_i24/0000.integrated.h5")) as handle:
        median = np.median(handle["crystals/cell"][:], axis=0)
        assert handle.attrs.get("warning", "") == ""
    assert median[:3] == pytest.approx(CELL, rel=0.003)
    assert median[3:] == pytest.approx([90.0, 90.0, 90.0], abs=0.5)


def test_mtz_opens(thaumatin):
    mtz = gemmi.read_mtz_file(str(thaumatin.result("builtin/merged/builtin/thaumatin/merged.mtz")))
    assert mtz.spacegroup.hm == "P 41 21 2"
    assert mtz.nreflections > 0
    assert [mtz.cell.a, mtz.cell.b, mtz.cell.c] == pytest.approx(CELL, rel=0.003)
    assert mtz.dataset(1).wavelength == pytest.approx(0.96859, abs=1e-4)


def test_nearly_empty_data_are_called_so(thaumatin):
    """One orientation: a tenth of the reflections. Whoever opens the report must not take them for a data set."""
    page = thaumatin.result("report/index.html").read_text()
    assert "nearly empty" in page


def test_the_report_says_where_its_numbers_came_from(thaumatin):
    page = thaumatin.result("report/index.html").read_text()
    for stage in ("peaks", "indexing", "integration", "frames", "merging", "figures_of_merit", "report"):
        assert f"sfxflow {stage} --" in page


def test_a_second_call_has_nothing_to_do(thaumatin):
    assert "Nothing to be done" in thaumatin.snakemake()


def test_the_cell_of_another_protein_is_refused(thaumatin, shared_data):
    """Lysozyme's cell: at most 2 % of the frames may accept a lattice, which is none of ten, and the run says why."""
    text = thaumatin.sfxflow(
        *("indexing", "--peaks", thaumatin.result("builtin/runs/thaumatin_i24/0000.peaks.h5")),
        *("--geometry", shared_data / "data/thaumatin_i24/thaumatin_i24.geom"),
        *(
            "--cell",
            shared_data / "data/crystfel_sim/lyso.cell",
            "--space-group",
            "P43212",
            "--output",
            "wrong_cell.h5",
        ),
    )
    assert "WARNING: the cell 79.1 79.1 37.9 90 90 90 does not fit: 0 of 8 frames" in text
    with h5py.File(thaumatin.folder / "wrong_cell.h5") as handle:
        assert "does not fit" in handle.attrs["warning"]
        assert handle["frames/n_lattices"][:].sum() == 0
        assert (handle["frames/status"][:] != Status.indexed).all()


def test_the_cell_is_found(thaumatin, shared_data, find_cell):
    """Without being told; no constant was chosen on these frames."""
    geometry = shared_data / "data/thaumatin_i24/thaumatin_i24.geom"
    cell, text = find_cell(thaumatin, "builtin/runs/thaumatin_i24/0000.peaks.h5", geometry)
    assert (cell.lattice_type, cell.centering, cell.unique_axis) == ("tetragonal", "P", "c")
    assert cell.parameters[:3] == pytest.approx(CELL, rel=0.01)
    assert cell.parameters[3:] == (90.0, 90.0, 90.0)
    assert "it indexes 8 of 8 hits" in text and "crystal forms" not in text
