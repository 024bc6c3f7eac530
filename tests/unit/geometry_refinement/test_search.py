"""Search for beam centre and camera length against the simulator's truth."""

from dataclasses import replace

import numpy as np
import pytest

from sfxflow.cell import Cell
from sfxflow.geometry import panel_arrays
from sfxflow.geometry_refinement.refine import refine_geometry
from sfxflow.geometry_refinement.search import Place, _grid, at_place, index_all, scored, search_beam
from sfxflow.indexing.frame import prepare_target
from sfxflow.settings import Geometry, Indexing


@pytest.fixture(scope="module")
def gross(misplaced):
    """A centre off by (4, -3) pixels and a camera length off by -2 %."""
    made, cell = misplaced.experiment(
        "demo", 77, geometry_shift_x=4.0, geometry_shift_y=-3.0, geometry_clen_error=-0.02
    )
    return made, cell, misplaced.peak_lists(made, 40, n_peaks=40)


def test_after_the_search_frames_index_as_with_the_true_geometry(gross):
    made, cell, lists = gross
    target, arrays = prepare_target(cell), panel_arrays(made.stated_detector)
    wide = Geometry(search_shift=6.0, search_distance=0.02)
    found = search_beam(lists[:10], arrays, target, wide, made.pixel_size)
    assert found.moved and found.found and found.n_frames == 10
    np.testing.assert_allclose(np.array(found.best.shift) / made.pixel_size, [-4.0, 3.0], atol=1.5)
    assert found.best.score > 1.5 * found.given.score

    def index(detector):
        own = [replace(peaks, clen=detector.clen) for peaks in lists]
        return index_all(own, panel_arrays(detector), target, Indexing(), made.pixel_size)

    start = at_place(made.stated_detector, found.best)
    crystals, n_found, profile = index(start)
    settings = Geometry(level="overall", distance=True)
    refined = refine_geometry(crystals, start, cell, profile, settings, made.pixel_size)
    assert index(made.stated_detector)[1] <= index(made.detector)[1]
    assert min(n_found, index(refined.detector)[1]) >= index(made.detector)[1]
    left = np.subtract(refined.detector.panels[0].origin, made.detector.panels[0].origin)[:2]
    assert np.linalg.norm(left) < 0.1 * made.pixel_size
    assert refined.detector.clen == pytest.approx(made.clen, rel=5e-4)


def test_a_right_geometry_stays(misplaced):
    made, cell = misplaced.experiment("demo", 77)
    lists = misplaced.peak_lists(made, 12, n_peaks=40)
    settings = Geometry(search_shift=4.0, search_distance=0.015)
    found = search_beam(lists, panel_arrays(made.detector), prepare_target(cell), settings, made.pixel_size)
    assert np.abs(found.best.shift).max() <= 1.0 * made.pixel_size and abs(found.best.stretch) < 0.008
    assert found.given.share == 1.0


def test_a_wrong_cell_is_found_nowhere(gross):
    made, _, lists = gross
    wrong = prepare_target(Cell(61.0, 67.0, 43.0, lattice_type="orthorhombic"))
    settings = Geometry(search_shift=4.0, search_distance=0.0)
    found = search_beam(lists[:8], panel_arrays(made.stated_detector), wrong, settings, made.pixel_size)
    assert not found.found and not found.moved


def test_nothing_to_search(gross):
    """With a reach of zero only the given place is scored."""
    made, cell, lists = gross
    settings = Geometry(search_shift=0.0, search_distance=0.0)
    found = search_beam(lists[:5], panel_arrays(made.stated_detector), prepare_target(cell), settings, made.pixel_size)
    assert not found.moved and found.best.shift == (0.0, 0.0)


def test_threads_score_alike(gross):
    made, cell, lists = gross
    arrays, target = panel_arrays(made.stated_detector), prepare_target(cell)
    places = [Place((x * 1e-4, 0.0), 0.0) for x in range(-6, 6)]
    one, two = (scored(places, lists[:3], arrays, target, threads) for threads in (1, 2))
    assert one == two and one[2].score > one[8].score


@pytest.mark.parametrize(("reach", "step", "n"), [(8.0, 4.0, 5), (8.0, 3.9, 7), (0.0, 1.0, 1), (1.0, 4.0, 3)])
def test_grids_hold_zero_and_both_ends(reach, step, n):
    grid = _grid(reach, step)
    assert len(grid) == n and grid[0] == -reach and grid[-1] == reach and grid[n // 2] == 0.0
    assert n == 1 or grid[1] - grid[0] <= step


def test_where_frames_have_their_own_camera_length_panels_move(gross):
    made, *_ = gross
    detector = replace(made.detector, clen="/clen")
    there = at_place(detector, Place((1e-4, -2e-4), 0.01), clen=0.1)
    assert there.clen == "/clen"
    moves = [np.subtract(a.origin, b.origin) for a, b in zip(there.panels, detector.panels, strict=True)]
    np.testing.assert_allclose(moves, [[1e-4, -2e-4, 1e-3]] * 8, atol=1e-15)
