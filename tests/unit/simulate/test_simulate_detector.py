"""The simulated detector: panels in place, rays and pixels in step, polarisation and background as physics has them."""

import numpy as np
import pytest

from sfxflow.simulate import detector, spots
from sfxflow.simulate.presets import PRESETS, preset


@pytest.mark.parametrize("name", PRESETS)
def test_rays_through_pixels_meet_those_pixels(name):
    """Positions from the panel's corner and steps, traced back as rays: the way there shares nothing with the way back."""
    experiment = preset(name, seed=4)
    p = experiment.planes
    rng = np.random.default_rng(0)
    for number, panel in enumerate(experiment.detector.panels):
        for fs, ss in rng.random((5, 2)) * (panel.n_fs, panel.n_ss):
            point = np.array(panel.origin) + (0, 0, experiment.clen) + fs * np.array(panel.fs) + ss * np.array(panel.ss)
            found = spots.meet(*(3.0 * point), p.corner, p.normal, p.along_fs, p.along_ss, p.size)
            assert found[0] == number
            np.testing.assert_allclose(found[1:], (fs, ss), atol=1e-6)


def test_panels_do_not_overlap_and_surround_the_beam():
    experiment = preset("demo", seed=1)
    quadrants = set()
    boxes = []
    for panel in experiment.detector.panels:
        corners = np.array(
            [
                np.array(panel.origin) + i * panel.n_fs * np.array(panel.fs) + j * panel.n_ss * np.array(panel.ss)
                for i in (0, 1)
                for j in (0, 1)
            ]
        )
        boxes.append((corners[:, :2].min(axis=0), corners[:, :2].max(axis=0)))
        quadrants.add(tuple(np.sign(corners[:, :2].mean(axis=0))))
    assert len(quadrants) == 4
    for i, (low, high) in enumerate(boxes):
        for other_low, other_high in boxes[:i]:
            assert np.any(high < other_low) or np.any(low > other_high)


def test_half_of_the_stacked_panels_are_upside_down():
    steps = [panel.fs[0] for panel in preset("demo").detector.panels]
    assert sum(step < 0 for step in steps) == len(steps) // 2
    for panel in preset("demo").detector.panels:
        # A rotation, not a mirror image: fs x ss points downstream.
        assert np.cross(panel.fs, panel.ss)[2] > 0
        assert np.linalg.norm(panel.fs) == pytest.approx(1e-4) and np.linalg.norm(panel.ss) == pytest.approx(1e-4)


def test_polarisation_of_simple_beams():
    two_theta = 0.6
    in_plane = np.array([np.sin(two_theta), 0.0, np.cos(two_theta)])
    across = np.array([0.0, np.sin(two_theta), np.cos(two_theta)])
    assert detector.polarisation(in_plane, 1.0) == pytest.approx(np.cos(two_theta) ** 2)
    assert detector.polarisation(across, 1.0) == pytest.approx(1.0)
    for direction in (in_plane, across):
        assert detector.polarisation(direction, 0.5) == pytest.approx((1 + np.cos(two_theta) ** 2) / 2)


def test_solid_angles_fall_with_the_cube_of_the_cosine():
    experiment = preset("photon_counting", panel_rotation=0.0)
    direction, solid_angle = detector.pixel_directions(experiment.detector)
    np.testing.assert_allclose(np.linalg.norm(direction, axis=2), 1.0, rtol=1e-5)
    np.testing.assert_allclose(solid_angle, direction[..., 2] ** 3, rtol=1e-5)


def test_water_ring_is_where_water_has_it():
    experiment = preset("photon_counting", water=1.0, polarised_fraction=0.5)
    shape = experiment.background_shape
    assert shape.mean() == pytest.approx(1.0, rel=1e-4)
    direction, solid_angle = detector.pixel_directions(experiment.detector)
    q = np.sqrt(2 - 2 * np.clip(direction[..., 2], -1, 1)) / (12398.41984 / experiment.photon_energy)
    corrected = shape / solid_angle / detector.polarisation(direction, 0.5)
    assert q.ravel()[corrected.argmax()] == pytest.approx(0.31, abs=0.01)


def test_gaps_and_beam_stop_are_dark():
    experiment = preset("photon_counting", seed=1, dead_fraction=0.0, hot_fraction=0.0)
    bad = experiment.bad_pixels_map
    # 8 x 3 modules of 195 x 487 pixels.
    lit = 8 * 195 * 3 * 487
    stop = (~bad.shadow).sum() - lit
    assert -np.pi * 21**2 < stop <= 0
    assert not bad.shadow[:195, :487].any() and bad.shadow[195:205].all()


def test_outer_resolution_is_that_of_the_farthest_pixel():
    experiment = preset("lysozyme", seed=1)
    direction, _ = detector.pixel_directions(experiment.detector)
    q = np.sqrt(2 - 2 * direction[..., 2].min()) / (12398.41984 / experiment.photon_energy)
    assert experiment.outer_resolution == pytest.approx(1 / q, rel=2e-3)
