"""Refinement of a geometry against the simulator's truth, and what is done where crystals or panels are not as they should be."""

import re
from dataclasses import replace

import numpy as np
import pytest

from sfxflow.errors import InputError
from sfxflow.geometry import panel_arrays
from sfxflow.geometry_refinement.crystals import PeakList
from sfxflow.geometry_refinement.groups import moved, with_arrays
from sfxflow.geometry_refinement.refine import refine_geometry
from sfxflow.settings import Geometry


def refined(case, crystals=None, detector=None, cell=None, threads=1, **settings):
    return refine_geometry(
        case.crystals if crystals is None else crystals,
        detector or case.made.stated_detector,
        cell or case.cell,
        case.profile,
        Geometry(**settings),
        case.pixel_size,
        threads,
    )


def turned_panel(case, number, degrees):
    arrays = panel_arrays(case.made.stated_detector)
    motions = np.zeros((len(arrays.bounds), 6))
    motions[number, 5] = np.radians(degrees)
    return with_arrays(case.made.stated_detector, moved(arrays, motions))


def recropped(crystal, kept):
    """A crystal with a part of its peaks."""
    columns = (getattr(crystal.peaks, name)[kept] for name in ("panel", "fs", "ss", "intensity"))
    return replace(crystal, peaks=PeakList(*columns, crystal.peaks.wavelength, crystal.peaks.clen))


@pytest.fixture(scope="module")
def plain(panels_off):
    return refined(panels_off)


def test_panels_are_where_they_are(panels_off, plain):
    assert panels_off.left(panels_off.made.stated_detector) > 0.4
    assert panels_off.left(plain.detector) < 0.03
    turns = []
    for true, found in zip(panels_off.made.detector.panels, plain.detector.panels, strict=True):
        turns.append(np.cross(true.fs, found.fs)[2] / np.dot(true.fs, true.fs))
        # In the plane only.
        assert found.origin[2] == pytest.approx(true.origin[2], abs=1e-6)
    # What all have in common is not observable; the rest was wrong by a milliradian.
    assert np.std(turns) < 2e-4
    shift = np.mean(
        [
            np.subtract(f.origin, t.origin)[:2]
            for t, f in zip(panels_off.made.detector.panels, plain.detector.panels, strict=True)
        ],
        axis=0,
    )
    assert np.linalg.norm(shift) < 0.1 * panels_off.pixel_size
    assert plain.passes <= 5


def test_uncertainties_are_honest(panels_off, plain):
    """Errors left are of the size that the covariance says, also of the camera length."""
    arrays, truth = panel_arrays(plain.detector), panel_arrays(panels_off.made.detector)
    errors = (
        arrays.origin
        + 0.5 * (512 * arrays.fs + 256 * arrays.ss)
        - truth.origin
        - 0.5 * (512 * truth.fs + 256 * truth.ss)
    )[:, :2]
    errors -= errors.mean(axis=0)
    sigma = [
        s * p.unit
        for s, p in zip(plain.sigma, plain.parameters, strict=True)
        if p.freedom in ("x", "y") and p.group > 0
    ]
    ratio = np.sqrt((errors**2).mean()) / np.sqrt(np.mean(np.square(sigma)))
    assert 0.4 < ratio < 3.0
    true_stretch = panels_off.made.clen - panels_off.made.stated_detector.clen
    assert abs(plain.stretch - true_stretch) < 5.0 * plain.stretch_sigma
    assert plain.stretch_sigma < 3e-4 * panels_off.made.clen


def test_camera_length_is_left_alone_unless_asked_for(panels_off, plain):
    assert plain.detector.clen == panels_off.made.stated_detector.clen
    assert plain.stretch / panels_off.made.stated_detector.clen == pytest.approx(1.0 / 1.005 - 1.0, abs=5e-4)
    assert any(re.search(r"the camera length seems to be 0\.[45]\d % too long", note) for note in plain.notes)


def test_camera_length_with_the_cell_held(panels_off):
    found = refined(panels_off, distance=True)
    assert found.detector.clen == pytest.approx(panels_off.made.clen, rel=5e-4)
    assert found.notes == ()
    assert panels_off.left(found.detector) < 0.03


def test_camera_length_of_each_frame(panels_off):
    """Where frames have their own, the panels are moved along the beam."""
    found = refined(panels_off, detector=replace(panels_off.made.stated_detector, clen="/clen"), distance=True)
    assert found.detector.clen == "/clen"
    moved_by = [
        np.subtract(f.origin, g.origin)[2]
        for f, g in zip(found.detector.panels, panels_off.made.stated_detector.panels, strict=True)
    ]
    np.testing.assert_allclose(
        moved_by, panels_off.made.clen - panels_off.made.stated_detector.clen, rtol=0, atol=5e-4 * 0.107
    )


def test_threads_do_not_change_the_result(panels_off, plain):
    again = refined(panels_off, threads=2)
    np.testing.assert_allclose(again.value, plain.value, rtol=0, atol=1e-6)


def test_residuals_get_smaller(plain):
    before, after = plain.before.maps.sum(axis=(0, 1, 2)), plain.after.maps.sum(axis=(0, 1, 2))
    assert np.sqrt(after[3] / after[0]) < 0.8 * np.sqrt(before[3] / before[0])
    assert plain.after.n_matched.sum() >= 0.99 * plain.before.n_matched.sum()


def test_tilts_where_they_are_determined(panels_off):
    found = refined(panels_off, out_of_plane=True)
    assert {p.freedom for p in found.parameters if p.group > 0} == {"x", "y", "z", "tilt_x", "tilt_y", "turn"}
    assert found.notes == tuple(note for note in found.notes if "camera length" in note)
    assert panels_off.left(found.detector) < 0.05
    # The panels lie in one plane in truth: 0.1 mm is a pixel, and the uncertainties say half of it.
    heights = np.array(
        [
            np.subtract(f.origin, t.origin)[2]
            for f, t in zip(found.detector.panels, panels_off.made.detector.panels, strict=True)
        ]
    )
    assert np.std(heights) < panels_off.pixel_size


def test_equal_crystals_do_not_determine_tilts(panels_off):
    rng = np.random.default_rng(0)
    one = panels_off.crystals[7]
    same = [
        replace(one, peaks=replace(one.peaks, fs=one.peaks.fs + 0.1 * rng.standard_normal(len(one.peaks.fs))))
        for _ in range(60)
    ]
    found = refined(panels_off, crystals=same, out_of_plane=True)
    assert not {"z", "tilt_x", "tilt_y"} & {p.freedom for p in found.parameters if p.group > 0}
    assert any("were asked for but not refined" in note and "smallest eigenvalue" in note for note in found.notes)


def test_few_crystals_give_the_overall_shift_only(panels_off):
    found = refined(panels_off, crystals=panels_off.crystals[:20])
    assert len(found.groups) == 1
    assert "20 crystals are fewer than min_crystals (50): only the overall shift was refined" in found.notes[0]
    moves = [
        np.subtract(f.origin, g.origin)
        for f, g in zip(found.detector.panels, panels_off.made.stated_detector.panels, strict=True)
    ]
    np.testing.assert_allclose(moves, [moves[0]] * 8, rtol=0, atol=1e-12)
    np.testing.assert_allclose(moves[0][:2] / panels_off.pixel_size, [0.8, -0.6], atol=0.3)


def test_too_few_crystals_are_refused(panels_off):
    with pytest.raises(InputError, match=r"3 crystals are too few .* 5 are the least .* 50 \(min_crystals\)"):
        refined(panels_off, crystals=panels_off.crystals[:3])


def test_crystals_of_another_geometry_are_refused(panels_off):
    far = replace(panels_off.made.stated_detector, clen=0.3)
    crystals = [replace(c, peaks=replace(c.peaks, clen=0.3)) for c in panels_off.crystals[:12]]
    with pytest.raises(InputError, match=r"of 12 crystals fit this geometry and cell"):
        refined(panels_off, crystals=crystals, detector=far)


def test_a_panel_without_peaks_goes_with_the_others(panels_off):
    crystals = [recropped(c, c.peaks.panel != 3) for c in panels_off.crystals]
    found = refined(panels_off, crystals=crystals)
    assert any("not moved by themselves" in note and "p3 (0)" in note for note in found.notes)
    given, proposed = panels_off.made.stated_detector.panels[3], found.detector.panels[3]
    np.testing.assert_allclose(np.subtract(proposed.fs, given.fs) / panels_off.pixel_size, 0.0, atol=1e-3)
    np.testing.assert_allclose(
        np.subtract(proposed.origin, given.origin)[:2] / panels_off.pixel_size, [0.8, -0.6], atol=0.5
    )
    others = replace(found.detector, panels=tuple(p for p in found.detector.panels if p.name != "p3"))
    true = replace(panels_off.made.detector, panels=tuple(p for p in panels_off.made.detector.panels if p.name != "p3"))
    errors = panel_arrays(others).origin - panel_arrays(true).origin
    assert np.std(errors[:, :2] / panels_off.pixel_size, axis=0).max() < 0.2


def test_a_cell_that_is_wrong_is_named(panels_off):
    large = replace(panels_off.cell, a=79.1 * 1.01, b=79.1 * 1.01, c=37.9 * 1.01)
    free = refined(panels_off, cell=large)
    assert any("cells are 0.9" in n or "cells are 1.0" in n for n in free.notes)
    assert any("smaller than the given one" in n for n in free.notes)
    held = refined(panels_off, cell=large, distance=True)
    assert any("do not fit together" in n and "too large" in n for n in held.notes)


@pytest.mark.parametrize("degrees", [1.0, 3.0])
def test_a_panel_turned_by_degrees_is_turned_back(panels_off, degrees):
    detector = turned_panel(panels_off, 2, degrees)
    found = refined(panels_off, detector=detector)
    assert panels_off.left(found.detector) < 0.04
    # The others are not turned for it.
    turn = [
        np.cross(g.fs, f.fs)[2] / np.dot(g.fs, g.fs)
        for g, f in zip(detector.panels, found.detector.panels, strict=True)
    ]
    assert turn[2] == pytest.approx(-np.radians(degrees), abs=2e-3) and np.median(np.abs(turn)) < 2e-3


def test_a_panel_turned_a_lot_is_named_and_left(panels_off):
    detector = turned_panel(panels_off, 2, 15.0)
    found = refined(panels_off, detector=detector)
    assert any("hardly more peaks than chance on p2" in n and "look at them first" in n for n in found.notes)
    np.testing.assert_allclose(
        np.subtract(found.detector.panels[2].fs, detector.panels[2].fs) / panels_off.pixel_size, 0, atol=2e-3
    )


def test_quadrants_move_as_one(make_case):
    groups = {"rigid_group_top": ("p0", "p1", "p2", "p3"), "rigid_group_bottom": ("p4", "p5", "p6", "p7")}
    case = make_case("demo", 8, 70)
    shifted = panel_arrays(case.made.detector)
    motions = np.zeros((8, 6))
    motions[:4, 0], motions[4:, 0] = 0.5e-4, -0.5e-4
    wrong = replace(with_arrays(case.made.detector, moved(shifted, motions)), rigid_groups=groups)
    found = refined(case, detector=wrong)
    assert [g.name for g in found.groups] == ["detector", "top", "bottom"] or [g.name for g in found.groups] == [
        "detector",
        "bottom",
        "top",
    ]
    assert case.left(found.detector) < 0.03
    fs = (
        np.array([np.subtract(f.fs, g.fs) for f, g in zip(found.detector.panels, wrong.panels, strict=True)])
        / case.pixel_size
    )
    np.testing.assert_allclose(np.abs(fs), 0.0, atol=3e-4)
