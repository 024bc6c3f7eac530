"""Where spots fall and how bright they are: by hand, by brute force and by quadrature."""

import numpy as np
import pytest
from scipy import integrate

from sfxflow.simulate import crystals, spots
from sfxflow.simulate.crystals import Lattice
from sfxflow.simulate.detector import planes
from sfxflow.simulate.presets import preset

R0 = 4e-4


def small_experiment(**overrides):
    values = {"panel_rows": 2, "panel_ss": 500, "panel_fs": 500, "dead_fraction": 0.0, "hot_fraction": 0.0, **overrides}
    return preset("demo", seed=3, **values)


def lattice_of(reciprocal, mosaicity=0.0, tilts=None):
    return Lattice(reciprocal, 1.0, 0.0, R0, mosaicity, np.eye(3)[None] if tilts is None else tilts)


def one_wave(wavelength):
    return {"wavelengths": np.array([wavelength]), "weights": np.ones(1), "mean_wavelength": wavelength}


def test_a_reflection_by_hand():
    """Ewald's construction: a* = 0.02 / angstrom, lambda = 1 angstrom, order h = 15 tilted by theta onto the sphere.

    lambda / 2d = 0.15 = sin(theta), so sin(2 theta) = 2 * 0.15 * sqrt(1 - 0.0225) = 0.2966058 and cos(2 theta) = 0.955: the ray
    meets a detector at 0.1 m at 0.1 m * 0.3105820 = 31.05820 mm from the beam, 310.5820 pixels of 0.1 mm.
    """
    experiment = small_experiment(stacked=False, gap=0, clen=0.1, panel_rotation=0.0)
    theta = np.arcsin(0.15)
    a_star = 0.02 * np.array([np.cos(theta), 0.0, -np.sin(theta)])
    reciprocal = np.column_stack([a_star, [0.0, 0.02, 0.0], [0.02 * np.sin(theta), 0.0, 0.02 * np.cos(theta)]])
    rays = spots.trace(
        np.array([[15, 0, 0]], dtype=np.int32),
        lattice_of(reciprocal),
        **one_wave(1.0),
        planes=experiment.planes,
        model="gaussian",
    )
    assert len(rays.row) == 1
    assert rays.excitation_error[0] == pytest.approx(0.0, abs=1e-12)
    assert rays.partiality[0] == pytest.approx(1.0)
    corner = experiment.detector.panels[0].origin
    assert rays.fs[0] + corner[0] / 1e-4 == pytest.approx(310.5820, abs=2e-4)
    assert rays.ss[0] + corner[1] / 1e-4 == pytest.approx(0.0, abs=1e-9)
    np.testing.assert_allclose(rays.direction[0], [np.sin(2 * theta), 0, np.cos(2 * theta)], atol=1e-12)


def brute_force(hkl, reciprocal, wavelength, detector):
    """Every reflection near the sphere, its ray and the panel by solving three equations for each panel."""
    found = {}
    k = np.array([0.0, 0.0, 1.0 / wavelength])
    for h in hkl:
        out = reciprocal @ h + k
        error = 1.0 / wavelength - np.linalg.norm(out)
        if abs(error) > 4.4 * R0:
            continue
        for number, panel in enumerate(detector.panels):
            corner = np.array(panel.origin) + [0, 0, detector.clen]
            # t out = corner + fs * step_fs + ss * step_ss
            t, fs, ss = np.linalg.solve(np.column_stack([out, -np.array(panel.fs), -np.array(panel.ss)]), corner)
            if t > 0 and 0 <= fs < panel.n_fs and 0 <= ss < panel.n_ss:
                found[tuple(h)] = (number, fs + panel.slab_fs, ss + panel.slab_ss, error)
                break
    return found


@pytest.mark.parametrize("seed", [0, 1])
def test_brute_force_finds_the_same_spots_at_the_same_places(seed):
    experiment = small_experiment(panel_rotation=0.02, d_min=4.0)
    reciprocal = crystals.random_rotation(np.random.default_rng(seed)) @ np.diag([1 / 79.1, 1 / 79.1, 1 / 37.9])
    hkl = experiment.structure_factors.hkl
    rays = spots.trace(hkl, lattice_of(reciprocal), **one_wave(1.3), planes=experiment.planes, model="gaussian")
    expected = brute_force(hkl, reciprocal, 1.3, experiment.detector)
    assert len(expected) > 30
    assert {tuple(h) for h in hkl[rays.row]} == expected.keys()
    for row, panel, fs, ss, error in zip(rays.row, rays.panel, rays.fs, rays.ss, rays.excitation_error, strict=True):
        assert (panel, *np.round([fs, ss], 8), round(error, 12)) == (
            expected[tuple(hkl[row])][0],
            *np.round(expected[tuple(hkl[row])][1:3], 8),
            round(expected[tuple(hkl[row])][3], 12),
        )


def test_partiality_is_the_integral_over_the_spectrum():
    """Gaussian lattice points in a beam of 0.3 % (sigma), against adaptive quadrature over the photon energy."""
    bandwidth, eta, mean = 0.003, 6e-4, 1.3
    experiment = small_experiment(bandwidth=bandwidth, d_min=3.0)
    relative, weights = crystals.spectrum("gaussian", bandwidth, 41, np.random.default_rng(0))
    reciprocal = crystals.random_rotation(np.random.default_rng(4)) @ np.diag([1 / 79.1, 1 / 79.1, 1 / 37.9])
    hkl = experiment.structure_factors.hkl
    rays = spots.trace(hkl, lattice_of(reciprocal, eta), mean / relative, weights, mean, experiment.planes, "gaussian")
    bright = np.flatnonzero(rays.partiality > 0.02)
    assert len(bright) > 50

    def excited(x, q):
        k = (1 + bandwidth * x) / mean
        error = k - np.sqrt(q[0] ** 2 + q[1] ** 2 + (q[2] + k) ** 2)
        variance = R0**2 + eta**2 * (q @ q)
        return np.exp(-0.5 * x**2) / np.sqrt(2 * np.pi) * R0 / np.sqrt(variance) * np.exp(-0.5 * error**2 / variance)

    for spot in bright[:: max(1, len(bright) // 25)]:
        q = reciprocal @ hkl[rays.row[spot]]
        expected = integrate.quad(excited, -6, 6, args=(q,), epsabs=1e-10, limit=200)[0]
        # The spectrum ends at 3.2 sigma, which leaves out 0.14 %.
        assert rays.partiality[spot] == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("spread", [0.0, 3e-4, 2e-3])
def test_a_wide_lattice_point_scatters_as_much_as_a_narrow_one(spread):
    area = integrate.quad(lambda e: spots.gaussian_section(e, R0, spread), -0.03, 0.03, points=[0.0], limit=400)[0]
    assert area == pytest.approx(np.sqrt(2 * np.pi) * R0, rel=1e-6)


def test_a_ball_is_cut_as_geometry_says():
    # Area of the circle that a plane cuts out of a sphere, over the largest: 1 - (e/R)^2.
    assert spots.ball_section(0.0, R0) == 1.0
    assert spots.ball_section(0.6 * R0, R0) == pytest.approx(0.64)
    assert spots.ball_section(1.01 * R0, R0) == 0.0
    assert integrate.quad(lambda e: spots.ball_section(e, R0), -R0, R0)[0] == pytest.approx(4 / 3 * R0)


def test_a_sphere_is_cut_once_by_each_wavelength():
    experiment = small_experiment(d_min=4.0)
    rng = np.random.default_rng(4)
    reciprocal = crystals.random_rotation(rng) @ np.diag([1 / 79.1, 1 / 79.1, 1 / 37.9])
    relative, weights = crystals.spectrum("sase", 0.002, 41, rng)
    hkl = experiment.structure_factors.hkl
    rays = spots.trace(hkl, lattice_of(reciprocal), 1.3 / relative, weights, 1.3, experiment.planes, "sphere")
    expected = np.zeros(len(hkl))
    for k, weight in zip(relative / 1.3, weights, strict=True):
        error = k - np.linalg.norm(hkl @ reciprocal.T + [0, 0, k], axis=1)
        expected += weight * np.maximum(0, 1 - (error / R0) ** 2)
    assert len(rays.row) > 40
    np.testing.assert_allclose(rays.partiality, expected[rays.row], atol=1e-12)


def test_a_sphere_has_no_mosaicity():
    experiment = small_experiment(profile_model="sphere")
    lattice = crystals.draw_lattice(
        experiment.cell_parameters, experiment.gemmi_group, experiment, 1.0, np.random.default_rng(1)
    )
    assert lattice.mosaicity == 0.0 and lattice.block_tilts.shape == (1, 3, 3)


def test_mosaic_blocks_are_followed_one_by_one():
    experiment = small_experiment(d_min=4.0)
    tilts = crystals.block_tilts(25, 1.5e-3, np.random.default_rng(8))
    reciprocal = crystals.random_rotation(np.random.default_rng(4)) @ np.diag([1 / 79.1, 1 / 79.1, 1 / 37.9])
    hkl = experiment.structure_factors.hkl
    rays = spots.trace(
        hkl, lattice_of(reciprocal, 1.5e-3, tilts), **one_wave(1.3), planes=experiment.planes, model="mosaic_blocks"
    )
    expected = np.zeros(len(hkl))
    for tilt in tilts:
        out = hkl @ (tilt @ reciprocal).T + [0, 0, 1 / 1.3]
        error = 1 / 1.3 - np.linalg.norm(out, axis=1)
        expected += np.maximum(0, 1 - (error / R0) ** 2) / len(tilts)
    np.testing.assert_allclose(rays.partiality, expected[rays.row], atol=1e-12)
    missed = np.delete(np.arange(len(hkl)), rays.row)
    on_detector = brute_force(hkl[missed[expected[missed] > 0.05]], reciprocal, 1.3, experiment.detector)
    # A reflection is only left out where its blocks' rays miss the panels: at most at their edges.
    assert len(on_detector) < 0.02 * len(rays.row)


@pytest.mark.parametrize("model", ["gaussian", "mosaic_blocks"])
def test_rays_add_up_to_their_spot(model):
    experiment = small_experiment(bandwidth=0.01, spectrum="tophat", profile_model=model, mosaicity=2e-3)
    rng = np.random.default_rng(2)
    relative, weights = crystals.spectrum("tophat", 0.01, 61, rng)
    reciprocal = crystals.random_rotation(rng) @ np.diag([1 / 79.1, 1 / 79.1, 1 / 37.9])
    tilts = crystals.block_tilts(10, 2e-3, rng) if model == "mosaic_blocks" else None
    hkl = experiment.structure_factors.hkl
    rays = spots.trace(hkl, lattice_of(reciprocal, 2e-3, tilts), 1.3 / relative, weights, 1.3, experiment.planes, model)
    assert np.all(np.diff(rays.row) > 0)
    sums = np.bincount(rays.ray_spot, rays.ray_partiality, len(rays.row))
    assert np.all(sums <= rays.partiality * (1 + 1e-9))
    whole = np.isclose(sums, rays.partiality, rtol=1e-9)
    assert whole.mean() > 0.9
    mean_fs = np.bincount(rays.ray_spot, rays.ray_partiality * rays.ray_fs, len(rays.row)) / sums
    one_panel = whole & (np.bincount(rays.ray_spot, rays.ray_panel != rays.panel[rays.ray_spot], len(rays.row)) == 0)
    np.testing.assert_allclose(mean_fs[one_panel], rays.fs[one_panel], atol=1e-6)
    place, size = experiment.planes.place, experiment.planes.size
    assert np.all(rays.fs >= place[rays.panel, 0]) and np.all(rays.fs < (place + size)[rays.panel, 0])
    assert np.all(rays.ss >= place[rays.panel, 1]) and np.all(rays.ss < (place + size)[rays.panel, 1])


def test_mosaicity_smears_spots_around_the_beam():
    experiment = small_experiment(stacked=False, gap=0, panel_rotation=0.0, d_min=3.0)
    reciprocal = crystals.random_rotation(np.random.default_rng(1)) @ np.diag([1 / 79.1, 1 / 79.1, 1 / 37.9])
    eta = 3e-3
    hkl = experiment.structure_factors.hkl
    rays = spots.trace(hkl, lattice_of(reciprocal, eta), **one_wave(1.3), planes=experiment.planes, model="gaussian")
    corner = np.array(experiment.detector.panels[0].origin[:2]) / 1e-4
    x, y = rays.fs + corner[0], rays.ss + corner[1]
    for spot in np.flatnonzero((np.abs(x) < 300) & (np.abs(y) < 300) & (np.hypot(x, y) > 150))[:20]:
        own = rays.ray_spot == spot
        weight = rays.ray_partiality[own] / rays.ray_partiality[own].sum()
        across = (
            -y[spot] * (rays.ray_fs[own] - rays.fs[spot]) + x[spot] * (rays.ray_ss[own] - rays.ss[spot])
        ) / np.hypot(x[spot], y[spot])
        along = (
            x[spot] * (rays.ray_fs[own] - rays.fs[spot]) + y[spot] * (rays.ray_ss[own] - rays.ss[spot])
        ) / np.hypot(x[spot], y[spot])
        q = np.linalg.norm(reciprocal @ hkl[rays.row[spot]])
        sideways = q * np.sqrt(1 - (1.3 * q / 2) ** 2)
        # The lattice point is eta q wide; seen from the beam that is the angle eta q / (q cos theta).
        assert np.sqrt(weight @ across**2) == pytest.approx(eta * q / sideways * np.hypot(x[spot], y[spot]), rel=0.02)
        assert np.sqrt(weight @ along**2) < 0.02


def test_a_ray_in_the_plane_or_away_from_the_detector_meets_nothing():
    p = planes(small_experiment().detector)
    arguments = (p.corner, p.normal, p.along_fs, p.along_ss, p.size)
    assert spots.meet(0.0, 0.0, -1.0, *arguments)[0] == -1
    assert spots.meet(1.0, 0.0, 1e-9, *arguments)[0] == -1
