"""Powder rings: where and how strong, against published patterns; how often; what a frame gets of them."""

import numpy as np
import pytest

from sfxflow.simulate import frames, rings
from sfxflow.simulate.detector import pixel_directions
from sfxflow.simulate.presets import preset
from sfxflow.units import wavelength

SMALL = {"panel_rows": 2, "panel_ss": 256, "panel_fs": 256, "clen": 0.06, "d_min": 6.0, "beamstop": 0.0}


def with_rings(**overrides):
    return preset("demo", seed=1, **{**SMALL, "blank_fraction": 1.0, "ice_fraction": 1.0, **overrides})


def inverse_d_of_pixels(experiment):
    direction, _ = pixel_directions(experiment.detector)
    return np.sqrt(np.maximum(2 - 2 * direction[..., 2], 0)) / wavelength(experiment.photon_energy)


# Spacings of ice Ih (100, 002, 101, 102, 110, 103, 112) from its cell; of NaCl (111, 200, 220, 311, 222, 400) from a = 5.640.
@pytest.mark.parametrize(
    ("kind", "spacings"),
    [
        ("ice", (3.907, 3.673, 3.449, 2.676, 2.2555, 2.075, 1.922)),
        ("salt", (3.256, 2.820, 1.994, 1.7005, 1.628, 1.410)),
    ],
)
def test_rings_are_where_the_powder_has_them(kind, spacings):
    inverse_d, strength = rings.powder_lines(kind, 1.4)
    for d in spacings:
        assert np.abs(1 / inverse_d - d).min() < 0.003
    assert len(inverse_d) == len(strength) and strength.max() == 1.0 and np.all(np.diff(inverse_d) > 0)


def test_strengths_follow_the_powder_diffractogram():
    """Peak heights of a diffractometer are the ring's photons over sin(theta) cos(theta); published for NaCl: 13, 100, 55, 2, 15, 6."""
    inverse_d, strength = rings.powder_lines("salt", 1.4)
    theta = np.arcsin(1.5406 * inverse_d / 2)
    # A monochromator's polarisation is left out on both sides of the comparison: (1 + cos^2 2 theta) / 2.
    height = strength / (np.sin(theta) * np.cos(theta)) * (1 + np.cos(2 * theta) ** 2) / 2
    height *= 100 / height.max()
    for d, published in ((3.256, 13), (2.820, 100), (1.994, 55), (1.628, 15), (1.410, 6)):
        assert height[np.abs(1 / inverse_d - d).argmin()] == pytest.approx(published, rel=0.4, abs=2)


def test_rings_come_as_often_as_asked():
    experiment = with_rings(ice_fraction=0.3, salt_fraction=0.2)
    kinds = [
        truth.rings.kind if truth.rings else "none" for truth in (frames.frame_truth(experiment, i) for i in range(400))
    ]
    for kind, share in (("ice", 0.3), ("salt", 0.2), ("none", 0.5)):
        assert abs(kinds.count(kind) - 400 * share) < 4 * np.sqrt(400 * share * (1 - share))
    assert frames.frame_truth(preset("demo"), 0).rings is None


def test_the_smooth_part_lies_on_the_rings_with_its_texture():
    experiment = with_rings(ring_spots=0.0, ring_background=10.0, ring_texture=0.8)
    truth = frames.frame_truth(experiment, 0)
    pixels, expected = frames.ring_photons(experiment, truth)
    image = np.zeros(experiment.detector.shape)
    image.ravel()[pixels] = expected
    inverse_d = inverse_d_of_pixels(experiment)
    on, off = np.abs(1 / inverse_d - 3.907) < 0.006, np.abs(1 / inverse_d - 3.1) < 0.1
    assert image[off].max() == 0.0
    direction, _ = pixel_directions(experiment.detector)
    phi = np.arctan2(direction[..., 1], direction[..., 0])[on]
    texture = 1 + 0.8 * np.cos(2 * (phi - truth.rings.azimuth))
    # On a narrow ring nothing but the texture, the polarisation and a little of the crest's width is left.
    assert np.corrcoef(texture, image[on])[0, 1] > 0.98
    assert image.max() == pytest.approx(truth.rings.strength * 10.0 * 1.8, rel=0.1)


def test_sharp_spots_hold_their_photons_on_the_rings():
    experiment = with_rings(ring_background=0.0, ring_spots=40.0)
    truth = frames.frame_truth(experiment, 2)
    pixels, expected = frames.ring_photons(experiment, truth)
    direction, photons = rings.spot_directions(truth.rings, wavelength(truth.photon_energy))
    assert 20 < len(photons) < 65 and len(direction) == len(photons)
    assert 0.3 * photons.sum() < expected.sum(dtype=float) < photons.sum()
    bright = pixels[expected > 20.0]
    lines = experiment.powder_lines["ice"][0]
    inverse_d = inverse_d_of_pixels(experiment).ravel()[bright]
    off = np.abs(inverse_d[:, None] / lines - 1).min(axis=1)
    # A pixel of 0.1 mm at 60 mm is 0.5 % of a ring; strain is 0.1 %.
    assert len(bright) > 10 and np.all(off < 0.02)


def test_frames_get_the_rings_photons():
    experiment, plain = with_rings(ring_background=3.0), preset("demo", seed=1, **SMALL, blank_fraction=1.0)
    image, truth = frames.simulate_frame(experiment, 3)
    without, _ = frames.simulate_frame(plain, 3)
    pixels, expected = frames.ring_photons(experiment, truth)
    good = ~(experiment.bad_pixels_map.known | experiment.bad_pixels_map.hot)
    more = (image.astype(int) - without)[good].sum()
    wanted = np.bincount(pixels, expected, image.size).reshape(image.shape)[good].sum()
    assert abs(more - wanted) < 5 * np.sqrt(wanted)
    assert np.all(image.astype(int) >= without)


def test_rings_are_the_same_for_the_same_seed():
    one, other = frames.simulate_frame(with_rings(), 4)[0], frames.simulate_frame(with_rings(), 4)[0]
    np.testing.assert_array_equal(one, other)
