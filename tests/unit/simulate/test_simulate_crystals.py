"""Crystals and pulses: orientations, cells and spectra have the distributions that they should."""

import gemmi
import numpy as np
import pytest

from sfxflow.simulate import crystals


def test_rotations_are_rotations_and_uniform():
    rng = np.random.default_rng(0)
    matrices = np.array([crystals.random_rotation(rng) for _ in range(4000)])
    np.testing.assert_allclose(
        matrices @ matrices.transpose(0, 2, 1), np.broadcast_to(np.eye(3), (4000, 3, 3)), atol=1e-12
    )
    np.testing.assert_allclose(np.linalg.det(matrices), 1.0)
    # Each element of a uniform rotation has mean 0 and mean square 1/3, and trace 0 on average; 5 standard errors.
    assert np.abs(matrices.mean(axis=0)).max() < 5 / np.sqrt(3 * 4000)
    assert np.abs((matrices**2).mean(axis=0) - 1 / 3).max() < 5 * np.sqrt(4 / 45 / 4000)
    assert abs(np.trace(matrices, axis1=1, axis2=2).mean()) < 5 / np.sqrt(4000)


def test_reciprocal_axes_are_those_of_the_textbook():
    a, b, c, beta = 51.0, 42.0, 66.0, np.radians(104.5)
    reciprocal = crystals.standard_reciprocal((a, b, c, 90.0, 104.5, 90.0))
    lengths = np.linalg.norm(reciprocal, axis=0)
    np.testing.assert_allclose(lengths, [1 / (a * np.sin(beta)), 1 / b, 1 / (c * np.sin(beta))], rtol=1e-12)
    assert reciprocal[:, 0] @ reciprocal[:, 2] == pytest.approx(-np.cos(beta) * lengths[0] * lengths[2])


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("P43212", (79.1, 79.1, 37.9, 90, 90, 90)),
        ("P63", (62.8, 62.8, 111, 90, 90, 120)),
        ("I23", (103, 103, 103, 90, 90, 90)),
        ("P1211", (51, 42, 66, 90, 104.5, 90)),
        ("R3:H", (81, 81, 34, 90, 90, 120)),
        ("R3:R", (49, 49, 49, 112, 112, 112)),
        ("P1", (38, 46, 55, 82, 77, 69)),
    ],
)
def test_jittered_cells_keep_their_symmetry(name, cell):
    group = gemmi.find_spacegroup_by_name(name)
    rng = np.random.default_rng(1)
    cells = np.array([crystals.jittered_cell(cell, group, 0.002, rng) for _ in range(300)])
    for one in cells[:20]:
        assert gemmi.UnitCell(*one).is_compatible_with_spacegroup(group)
    relative = cells[:, :3] / np.array(cell[:3]) - 1
    assert np.abs(relative.mean(axis=0)).max() < 0.001
    spread = relative.std(axis=0)
    assert 0.0015 < spread.min() and spread.max() < 0.0035
    np.testing.assert_array_equal(cells[:, 3:], np.broadcast_to(cell[3:], (300, 3)))


@pytest.mark.parametrize(("shape", "n"), [("gaussian", 9), ("gaussian", 61), ("tophat", 9), ("tophat", 61)])
def test_spectrum_has_the_stated_width(shape, n):
    relative, weights = crystals.spectrum(shape, 0.004, n, np.random.default_rng(0))
    assert weights.sum() == pytest.approx(1.0)
    assert weights @ relative == pytest.approx(1.0, abs=1e-12)
    width = np.sqrt(weights @ (relative - 1) ** 2)
    # The Gaussian's ends are cut, and nine points of a top hat are a coarse one.
    assert width == pytest.approx(0.004, rel=0.02)


def test_sase_spectra_differ_from_pulse_to_pulse():
    rng = np.random.default_rng(0)
    spectra = [crystals.spectrum("sase", 0.003, 41, rng) for _ in range(200)]
    weights = np.array([w for _, w in spectra])
    assert np.abs(weights[0] - weights[1]).max() > 0.01
    mean = weights.mean(axis=0)
    relative = spectra[0][0] - 1
    assert np.sqrt(mean @ relative**2) == pytest.approx(0.003 / np.sqrt(2), rel=0.15)


def test_no_bandwidth_is_one_wavelength():
    relative, weights = crystals.spectrum("sase", 0.0, 41, np.random.default_rng(0))
    assert relative.tolist() == [1.0] and weights.tolist() == [1.0]


def test_block_tilts_have_the_stated_mosaicity():
    tilts = crystals.block_tilts(5000, 2e-3, np.random.default_rng(0))
    about_x = (tilts[:, 2, 1] - tilts[:, 1, 2]) / 2
    assert about_x.std() == pytest.approx(2e-3, rel=0.05)
    np.testing.assert_allclose(np.linalg.det(tilts), 1.0)
