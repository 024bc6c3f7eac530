"""Cells found without being told, on real frames and on another program's simulation. No constant was chosen on them."""

import pytest

from sfxflow.io.cell_file import read_cell


def found(work, peaks, geometry, *more):
    """The cell that `sfxflow cell` finds, and what it says."""
    text = work.sfxflow(
        *("cell", "--peaks", work.result(peaks), "--geometry", geometry),
        *("--output", "found.cell", "--clusters", "clusters.json", *more),
    )
    return read_cell(work.folder / "found.cell"), text


def test_thaumatin(thaumatin, shared_data):
    geometry = shared_data / "data/thaumatin_i24/thaumatin_i24.geom"
    cell, text = found(thaumatin, "builtin/runs/thaumatin_i24/0000.peaks.h5", geometry)
    assert (cell.lattice_type, cell.centering, cell.unique_axis) == ("tetragonal", "P", "c")
    assert cell.parameters[:3] == pytest.approx((58.4, 58.4, 152.3), rel=0.01)
    assert cell.parameters[3:] == (90.0, 90.0, 90.0)
    assert "it indexes 8 of 8 hits" in text and "crystal forms" not in text


def test_crystfel_sim(crystfel_sim, shared_data):
    geometry = shared_data / "data/crystfel_sim/det.geom"
    cell, text = found(crystfel_sim, "builtin/runs/run1/0000.peaks.h5", geometry, "--settings", '{"n_frames": 40}')
    assert (cell.lattice_type, cell.centering) == ("tetragonal", "P")
    assert cell.parameters[:3] == pytest.approx((79.1, 79.1, 37.9), rel=0.01)
    assert "40 of 251 hits looked at: a lattice in 40" in text and "crystal forms" not in text
