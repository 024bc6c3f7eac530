"""Whole frames: reproducible, in the right numbers, and with the photons that the truth says."""

import numpy as np
import pytest

from sfxflow.simulate import frames
from sfxflow.simulate.presets import preset

SMALL = {"panel_rows": 2, "panel_ss": 256, "panel_fs": 256, "clen": 0.06, "d_min": 3.0}


def small(seed=1, **overrides):
    return preset("demo", seed=seed, **{**SMALL, **overrides})


@pytest.fixture(scope="module")
def hits():
    """An experiment whose every frame has a crystal."""
    return small(blank_fraction=0.0, multi_fraction=0.0)


def test_same_seed_same_frame_in_any_order_and_number_of_threads():
    first, again, other = small(), small(), small(seed=2)
    in_order = [frames.simulate_frame(first, i)[0] for i in range(4)]
    backwards = [frames.simulate_frame(again, i)[0] for i in reversed(range(4))][::-1]
    threaded = [image for image, _ in frames.simulate_many(small(), 4, threads=3)]
    for a, b, c in zip(in_order, backwards, threaded, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)
    assert not np.array_equal(in_order[0], in_order[1])
    assert not np.array_equal(in_order[0], frames.simulate_frame(other, 0)[0])


def test_images_and_spots_tell_the_same_truth(hits):
    image_truth = frames.simulate_frame(hits, 3)[1]
    truth = frames.frame_truth(hits, 3)
    np.testing.assert_array_equal(image_truth.lattices[0].reciprocal, truth.lattices[0].reciprocal)
    assert image_truth.photon_energy == truth.photon_energy


def test_blanks_have_no_lattices_and_kinds_come_as_often_as_asked():
    experiment = small(blank_fraction=0.3, multi_fraction=0.25, max_lattices=4)
    truths = [frames.frame_truth(experiment, i) for i in range(600)]
    for truth in truths:
        n = len(truth.lattices)
        assert {"blank": n == 0, "single": n == 1, "multi": 2 <= n <= 4}[truth.kind]
    kinds = [truth.kind for truth in truths]
    # Four standard deviations of a binomial count.
    assert abs(kinds.count("blank") - 180) < 4 * np.sqrt(600 * 0.3 * 0.7)
    n_hits = 600 - kinds.count("blank")
    assert abs(kinds.count("multi") - 0.25 * n_hits) < 4 * np.sqrt(n_hits * 0.25 * 0.75)
    assert {len(truth.lattices) for truth in truths} == {0, 1, 2, 3, 4}


def test_photon_energies_jitter_as_asked():
    experiment = small(energy_jitter=0.002, blank_fraction=1.0)
    energies = np.array([frames.frame_truth(experiment, i).photon_energy for i in range(400)])
    assert energies.mean() == pytest.approx(9500, abs=5 * 19 / 20)
    assert energies.std() == pytest.approx(19, rel=0.2)


def test_photons_of_a_reflection_are_the_product_of_its_factors(hits):
    truth = frames.frame_truth(hits, 0)
    spots = frames.simulate_spots(hits, 0)
    lattice = truth.lattices[0]
    intensity = dict(
        zip(map(tuple, hits.structure_factors.hkl.tolist()), hits.structure_factors.intensity, strict=True)
    )
    q = spots.hkl @ lattice.reciprocal.T
    sine_over_wavelength = np.linalg.norm(q, axis=1) / 2
    expected = (
        lattice.scale
        * np.exp(-2 * lattice.b_factor * sine_over_wavelength**2)
        * [intensity[tuple(h)] for h in spots.hkl.tolist()]
        * spots.polarisation
        * spots.partiality
    )
    assert len(expected) > 50
    np.testing.assert_allclose(spots.photons, expected, rtol=1e-12)


def test_noise_free_spots_hold_their_photons(hits):
    """Every spot far from others and from edges: the sum around it against its photons, within 1 %."""
    truth = frames.frame_truth(hits, 1)
    spots = frames.simulate_spots(hits, 1)
    image, lit = frames.expected_photons(hits, truth)
    assert set(lit.tolist()) == set(np.flatnonzero(image).tolist())
    checked = 0
    for fs, ss, photons, panel in zip(spots.fs, spots.ss, spots.photons, spots.panel, strict=True):
        distance = np.hypot(spots.fs - fs, spots.ss - ss)
        others = spots.photons[(distance > 0) & (distance < 14)].sum()
        left, top = hits.planes.place[panel]
        inside = left + 6 < fs < left + 250 and top + 6 < ss < top + 250
        if photons < 1 or others > 0.001 * photons or not inside:
            continue
        column, row = int(fs), int(ss)
        assert image[row - 5 : row + 6, column - 5 : column + 6].sum() == pytest.approx(photons, rel=0.01)
        checked += 1
    assert checked > 10


def test_photons_of_a_whole_frame_are_those_of_its_spots(hits):
    spots = frames.simulate_spots(hits, 2)
    image, _ = frames.expected_photons(hits, frames.frame_truth(hits, 2))
    # Spots at panel edges lose a part into the gaps.
    assert 0.96 * spots.photons.sum() < image.sum(dtype=np.float64) < 1.0001 * spots.photons.sum()


def test_mean_background_is_the_stated_one():
    experiment = small(blank_fraction=1.0, background=0.8, hot_fraction=0.0, dead_fraction=0.0, beamstop=0.0)
    for i in range(3):
        image, truth = frames.simulate_frame(experiment, i)
        assert abs(image.mean() - truth.background) < 4 * np.sqrt(truth.background / image.size)
    centre = experiment.background_shape > 1.5
    image, truth = frames.simulate_frame(experiment, 0)
    expected = truth.background * experiment.background_shape[centre].mean()
    assert abs(image[centre].mean() - expected) < 5 * np.sqrt(expected / centre.sum())


def test_a_frame_is_poisson_noise_around_its_expectation(hits):
    image, truth = frames.simulate_frame(hits, 5)
    expected = frames.expected_photons(hits, truth)[0] + truth.background * hits.background_shape
    bad = hits.bad_pixels_map
    good = ~(bad.known | bad.hot) & (expected > 0.05)
    residual = (image - expected)[good] / np.sqrt(expected[good])
    assert abs(residual.mean()) < 5 / np.sqrt(residual.size)
    assert residual.var() == pytest.approx(1.0, rel=0.02)
    lit = good & (frames.expected_photons(hits, truth)[0] > 1.0)
    bright = (image - expected)[lit] / np.sqrt(expected[lit])
    assert abs(bright.mean()) < 5 / np.sqrt(bright.size)
    assert bright.var() == pytest.approx(1.0, abs=6 * np.sqrt(3 / bright.size))


def test_noisy_intensities_scatter_as_their_sigmas_say(hits):
    deviations = []
    for i in range(20):
        spots = frames.simulate_spots(hits, i)
        strong = spots.photons > 30
        deviations.append(((spots.intensity - spots.photons) / spots.sigma)[strong])
    deviations = np.concatenate(deviations)
    assert len(deviations) > 300
    assert abs(deviations.mean()) < 0.25
    assert deviations.std() == pytest.approx(1.0, abs=0.1)


def test_spots_of_a_blank_are_empty_columns():
    spots = frames.simulate_spots(small(blank_fraction=1.0), 0)
    assert all(len(column) == 0 for column in spots)
    assert spots.hkl.shape == (0, 3)


def test_lattices_of_a_frame_have_spots_of_their_own():
    experiment = small(blank_fraction=0.0, multi_fraction=1.0, max_lattices=2)
    spots = frames.simulate_spots(experiment, 0)
    truth = frames.frame_truth(experiment, 0)
    assert set(spots.lattice) == {0, 1}
    k = truth.photon_energy / 12398.41984
    for number, lattice in enumerate(truth.lattices):
        q = spots.hkl[spots.lattice == number] @ lattice.reciprocal.T
        error = k - np.linalg.norm(q + [0, 0, k], axis=1)
        np.testing.assert_allclose(error, spots.excitation_error[spots.lattice == number], atol=1e-12)


def test_the_laser_is_on_as_often_as_asked_and_delays_decide_the_state():
    experiment = small(laser_fraction=0.4, delay_low=-5.0, delay_high=10.0)
    truths = [frames.frame_truth(experiment, i) for i in range(500)]
    is_on = np.array([truth.laser_on for truth in truths])
    delays = np.array([truth.delay for truth in truths])
    assert abs(is_on.sum() - 200) < 4 * np.sqrt(500 * 0.4 * 0.6)
    assert np.all(np.isnan(delays[~is_on])) and -5 < delays[is_on].min() < -4 and 9 < delays[is_on].max() < 10
    assert [truth.state for truth in truths] == [
        int(on and delay >= 0) for on, delay in zip(is_on, delays, strict=True)
    ]


def test_a_crystal_in_the_second_state_scatters_with_its_structure_factors():
    experiment = small(laser_fraction=0.5, laser_atoms=0.3, blank_fraction=0.0, multi_fraction=0.0)
    off, on = experiment.structure_factors, experiment.laser_structure_factors
    np.testing.assert_array_equal(off.hkl, on.hkl)
    assert 0.3 < np.corrcoef(off.intensity, on.intensity)[0, 1] < 0.99
    for i in range(6):
        truth, spots = frames.frame_truth(experiment, i), frames.simulate_spots(experiment, i)
        table = dict(zip(map(tuple, on.hkl.tolist()), (on if truth.state else off).intensity, strict=True))
        q = np.linalg.norm(spots.hkl @ truth.lattices[0].reciprocal.T, axis=1)
        falling = np.exp(-truth.lattices[0].b_factor * q**2 / 2)
        expected = [table[tuple(h)] for h in spots.hkl.tolist()]
        got = spots.photons / (truth.lattices[0].scale * falling * spots.polarisation * spots.partiality)
        np.testing.assert_allclose(got, expected, rtol=1e-9)


def test_laser_and_forms_leave_everything_else_as_it_was():
    plain, lasered = small(), small(laser_fraction=0.5, drift_x=2.0)
    for i in range(10):
        one, other = frames.frame_truth(plain, i), frames.frame_truth(lasered, i)
        assert (one.kind, one.photon_energy, one.background) == (other.kind, other.photon_energy, other.background)
        for a, b in zip(one.lattices, other.lattices, strict=True):
            np.testing.assert_array_equal(a.reciprocal, b.reciprocal)


def test_lattices_of_two_forms_have_the_cells_asked_for():
    experiment = small(second_fraction=0.3, blank_fraction=0.0, multi_fraction=0.0, cell_spread=0.0)
    lattices = [frames.frame_truth(experiment, i).lattices[0] for i in range(200)]
    forms = np.array([lattice.form for lattice in lattices])
    assert abs(forms.sum() - 60) < 4 * np.sqrt(200 * 0.3 * 0.7)
    for lattice in lattices:
        lengths = np.linalg.norm(np.linalg.inv(lattice.reciprocal), axis=1)
        np.testing.assert_allclose(lengths, [(79.1, 79.1, 37.9), (48, 60, 77)][lattice.form], rtol=1e-9)
    spots = frames.simulate_spots(experiment, int(np.flatnonzero(forms)[0]))
    known = set(map(tuple, experiment.second_structure_factors.hkl.tolist()))
    assert len(spots.hkl) > 20 and set(map(tuple, spots.hkl.tolist())) <= known


def test_the_pattern_drifts_from_half_of_it_to_minus_half():
    drifting = small(
        drift_x=6.0, drift_y=-2.0, drift_clen=0.01, drift_frames=10, blank_fraction=0.0, multi_fraction=0.0
    )
    fixed = small(blank_fraction=0.0, multi_fraction=0.0)
    for index, part in ((0, 0.5), (5, 0.0), (10, -0.5)):
        truth = frames.frame_truth(drifting, index)
        np.testing.assert_allclose(np.array(truth.shift) / 1e-4, (6 * part, -2 * part), atol=1e-12)
        assert truth.clen == pytest.approx(fixed.clen * (1 + 0.01 * part))
        moved, still = frames.simulate_spots(drifting, index), frames.simulate_spots(fixed, index)
        both = sorted(set(map(tuple, moved.hkl.tolist())) & set(map(tuple, still.hkl.tolist())))
        assert len(both) > 20
        positions = []
        for spots in (moved, still):
            row = {tuple(h): i for i, h in enumerate(spots.hkl.tolist())}
            chosen = [row[h] for h in both]
            fs, ss, panel = spots.fs[chosen], spots.ss[chosen], spots.panel[chosen]
            panels = [fixed.detector.panels[p] for p in panel]
            corner = np.array([p.origin for p in panels])
            step_fs, step_ss = np.array([p.fs for p in panels]), np.array([p.ss for p in panels])
            fs, ss = fs - [p.slab_fs for p in panels], ss - [p.slab_ss for p in panels]
            positions.append((corner + fs[:, None] * step_fs + ss[:, None] * step_ss)[:, :2] / 1e-4)
        # The pattern is larger by the camera length and moved by the shift, within what the panels' tilts leave.
        expected = positions[1] * (1 + 0.01 * part) + np.array([6, -2]) * part
        off = np.abs(positions[0] - expected).max(axis=1)
        # A spot that a panel's edge cuts has its middle elsewhere.
        assert np.mean(off < 0.05) > 0.98
