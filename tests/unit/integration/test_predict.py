"""Prediction against brute force over all reflections, and against the simulator's own spots."""

import itertools
from dataclasses import replace

import gemmi
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from sfxflow.cell import reciprocal_matrix
from sfxflow.geometry import panel_arrays
from sfxflow.indexing.frame import panel_inverses
from sfxflow.indexing.refine import sigma_of_q
from sfxflow.indexing.residuals import ray_offset
from sfxflow.integration.predict import highest_q, predict
from sfxflow.simulate.frames import frame_truth, simulate_spots
from sfxflow.simulate.presets import preset
from sfxflow.units import wavelength

WAVELENGTH = 1.3
WIDTHS = (6e-4, 1e-3, 1e-3)


@pytest.fixture(scope="module")
def demo():
    return preset("demo", seed=5, blank_fraction=0.0, multi_fraction=0.0)


def brute_force(reciprocal, offsets, widths, arrays, clen, q_max, max_excitation, allowed=lambda h: True):
    """All reflections one by one, each ray met with each panel by solving three equations."""
    k = 1 / (WAVELENGTH * (1 + offsets[2]))
    largest = np.ceil(q_max * np.linalg.norm(np.linalg.inv(reciprocal), axis=1)).astype(int)
    ranges = [range(-n, n + 1) for n in largest]
    hkl = np.array([h for h in itertools.product(*ranges) if any(h) and allowed(h)])
    q = hkl @ reciprocal.T
    length = np.linalg.norm(q, axis=1)
    error = k - np.linalg.norm(q + [0, 0, k], axis=1)
    sigma = sigma_of_q(length, *widths, WAVELENGTH * (1 + offsets[2]))
    found = {}
    for i in np.flatnonzero((length <= q_max) & (np.abs(error) <= max_excitation * sigma)):
        mosaic = (widths[1] * length[i]) ** 2 / sigma[i] ** 2
        spectral = (0.5 * widths[2] * length[i] ** 2 / k) ** 2 / sigma[i] ** 2
        ray = q[i] + [0, 0, k] + error[i] * np.array(ray_offset(*q[i], k, mosaic, spectral))
        for p, (origin, fs, ss, bounds) in enumerate(
            zip(arrays.origin, arrays.fs, arrays.ss, arrays.bounds, strict=True)
        ):
            start = origin + [0, 0, clen]
            start = start - [offsets[0], offsets[1], start[2] * offsets[2] / (1 + offsets[2])]
            x, y, t = np.linalg.solve(np.column_stack([fs, ss, -ray]), -start)
            if t > 0 and 0 <= x < bounds[3] - bounds[2] and 0 <= y < bounds[1] - bounds[0]:
                found[tuple(hkl[i].tolist())] = (
                    x + bounds[2],
                    y + bounds[0],
                    p,
                    error[i],
                    *(ray / np.linalg.norm(ray)),
                )
    return found


def predicted_as_dict(predicted):
    rows = zip(
        predicted.hkl.tolist(),
        predicted.fs,
        predicted.ss,
        predicted.panel,
        predicted.excitation_error,
        predicted.direction,
        strict=True,
    )
    return {tuple(h): (fs, ss, panel, error, *direction) for h, fs, ss, panel, error, direction in rows}


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10000),
    cell=st.tuples(st.floats(15, 30), st.floats(15, 30), st.floats(15, 40), *[st.floats(75, 105)] * 3),
    offsets=st.tuples(st.floats(-2e-4, 2e-4), st.floats(-2e-4, 2e-4), st.floats(-0.02, 0.02)),
    widths=st.tuples(st.floats(1e-5, 3e-3), st.floats(0, 5e-3), st.floats(0, 5e-3)),
    q_max=st.floats(0.15, 0.3),
)
def test_prediction_is_brute_force(demo, seed, cell, offsets, widths, q_max):
    arrays, clen = panel_arrays(demo.detector), demo.detector.clen
    reciprocal = Rotation.random(random_state=seed).as_matrix() @ reciprocal_matrix(cell)
    got = predict(
        reciprocal,
        np.array(offsets),
        widths,
        WAVELENGTH,
        arrays.bounds,
        panel_inverses(arrays, clen),
        "P",
        q_max,
        3.5,
    )
    expected = brute_force(reciprocal, np.array(offsets), widths, arrays, clen, q_max, 3.5)
    found = predicted_as_dict(got)
    assert found.keys() == expected.keys()
    assert len(got.fs) == len(found)
    for h, row in expected.items():
        np.testing.assert_allclose(found[h][:2], row[:2], atol=1e-6)
        assert found[h][2] == row[2]
        np.testing.assert_allclose(found[h][3:], row[3:], atol=1e-12)


def test_axis_along_the_beam_is_no_error(demo):
    """A row of reflections exactly on the beam's axis: their rays have no azimuth, and hit no panel."""
    arrays, clen = panel_arrays(demo.detector), demo.detector.clen
    reciprocal = reciprocal_matrix((40, 50, 300, 90, 90, 90))
    got = predict(
        reciprocal,
        np.zeros(3),
        (3e-3, 1e-3, 1e-3),
        WAVELENGTH,
        arrays.bounds,
        panel_inverses(arrays, clen),
        "P",
        0.3,
        3.5,
    )
    assert len(got.fs) > 0 and np.all(np.isfinite(got.fs))


@pytest.mark.parametrize(
    ("centering", "group"),
    [
        ("P", "P1"),
        ("A", "A 1 2 1"),
        ("B", "B 1 1 2"),
        ("C", "C121"),
        ("I", "I23"),
        ("F", "F23"),
        ("H", "R 3:H"),
        ("R", "R 3:R"),
    ],
)
def test_centring_leaves_out_what_gemmi_says(demo, centering, group):
    arrays, clen = panel_arrays(demo.detector), demo.detector.clen
    reciprocal = Rotation.random(random_state=4).as_matrix() @ reciprocal_matrix((40, 45, 50, 90, 90, 90))
    arguments = (np.zeros(3), WIDTHS, WAVELENGTH, arrays.bounds, panel_inverses(arrays, clen))
    everything = predict(reciprocal, *arguments, "P", 0.3, 3.5)
    some = predict(reciprocal, *arguments, centering, 0.3, 3.5)
    translations = gemmi.GroupOps([gemmi.Op()])
    translations.cen_ops = gemmi.SpaceGroup(group).operations().cen_ops
    allowed = [h for h in map(tuple, everything.hkl.tolist()) if not translations.is_systematically_absent(h)]
    assert list(map(tuple, some.hkl.tolist())) == allowed


@pytest.mark.parametrize("index", [0, 1, 2])
def test_positions_are_the_simulators(demo, index):
    """Spots within half a sigma of the Ewald sphere: 0.1 pixel, apart from the one or other near a panel's edge."""
    truth, spots = frame_truth(demo, index), simulate_spots(demo, index)
    lattice = truth.lattices[0]
    length = wavelength(truth.photon_energy)
    arrays, clen = panel_arrays(demo.detector), demo.detector.clen
    widths = (lattice.profile_radius, lattice.mosaicity, demo.bandwidth)
    q_max = highest_q(arrays, clen, length)
    got = predicted_as_dict(
        predict(
            lattice.reciprocal,
            np.zeros(3),
            widths,
            length,
            arrays.bounds,
            panel_inverses(arrays, clen),
            "P",
            q_max,
            3.5,
        )
    )
    sigma = sigma_of_q(np.linalg.norm(spots.hkl @ lattice.reciprocal.T, axis=1), *widths, length)
    near = np.abs(spots.excitation_error) < 0.5 * sigma
    assert near.sum() > 30
    distances = []
    for h, fs, ss, panel, error in zip(
        spots.hkl[near].tolist(),
        spots.fs[near],
        spots.ss[near],
        spots.panel[near],
        spots.excitation_error[near],
        strict=True,
    ):
        if tuple(h) not in got:
            # Its rays fall on both sides of an edge.
            size = arrays.bounds[panel]
            edge = min(fs - size[2], size[3] - fs, ss - size[0], size[1] - ss)
            assert edge < 3.0
            continue
        x, y, p, e, *_ = got[tuple(h)]
        assert p == panel
        assert e == pytest.approx(error, abs=1e-7)
        distances.append(np.hypot(x - fs, y - ss))
    assert np.quantile(distances, 0.98) < 0.1
    assert max(distances) < 0.3


def test_few_of_the_simulators_strong_spots_are_not_predicted(demo):
    truth, spots = frame_truth(demo, 0), simulate_spots(demo, 0)
    lattice = truth.lattices[0]
    length = wavelength(truth.photon_energy)
    arrays, clen = panel_arrays(demo.detector), demo.detector.clen
    widths = (lattice.profile_radius, lattice.mosaicity, demo.bandwidth)
    got = predict(
        lattice.reciprocal,
        np.zeros(3),
        widths,
        length,
        arrays.bounds,
        panel_inverses(arrays, clen),
        "P",
        highest_q(arrays, clen, length),
        3.5,
    )
    predicted = set(map(tuple, got.hkl.tolist()))
    share = np.array([tuple(h) in predicted for h in spots.hkl.tolist()]) @ spots.photons / spots.photons.sum()
    assert share > 0.995


def test_highest_q_is_that_of_the_farthest_corner(demo):
    arrays, clen = panel_arrays(demo.detector), demo.detector.clen
    assert highest_q(arrays, clen, wavelength(demo.photon_energy)) == pytest.approx(
        1 / demo.outer_resolution, rel=1e-12
    )


def test_predictions_lie_on_their_panels(demo):
    arrays = panel_arrays(demo.detector)
    got = predict(
        Rotation.random(random_state=1).as_matrix() @ reciprocal_matrix(demo.cell_parameters),
        np.zeros(3),
        WIDTHS,
        WAVELENGTH,
        arrays.bounds,
        panel_inverses(arrays, demo.detector.clen),
        "P",
        0.45,
        3.5,
    )
    bounds = arrays.bounds[got.panel]
    assert np.all(
        (got.ss >= bounds[:, 0]) & (got.ss < bounds[:, 1]) & (got.fs >= bounds[:, 2]) & (got.fs < bounds[:, 3])
    )
    assert len(set(got.panel.tolist())) == len(arrays.bounds)
    np.testing.assert_allclose(np.linalg.norm(got.direction, axis=1), 1.0, atol=1e-12)


def test_more_predictions_than_the_first_buffer_holds(demo):
    arrays = panel_arrays(demo.detector)
    reciprocal = Rotation.random(random_state=1).as_matrix() @ reciprocal_matrix((150, 160, 170, 90, 90, 90))
    arguments = (np.zeros(3), WIDTHS, WAVELENGTH, arrays.bounds, panel_inverses(arrays, demo.detector.clen), "P", 0.45)
    many, few = predict(reciprocal, *arguments, 3.5), predict(reciprocal, *arguments, 0.5)
    assert len(many.fs) > 5000 > len(few.fs) > 0
    assert set(map(tuple, few.hkl.tolist())) < set(map(tuple, many.hkl.tolist()))


def test_a_moved_panel_moves_its_predictions(demo):
    arrays, clen = panel_arrays(demo.detector), demo.detector.clen
    reciprocal = Rotation.random(random_state=2).as_matrix() @ reciprocal_matrix(demo.cell_parameters)

    def of(arrays, offsets):
        found = predict(
            reciprocal, offsets, WIDTHS, WAVELENGTH, arrays.bounds, panel_inverses(arrays, clen), "P", 0.4, 3.5
        )
        return predicted_as_dict(found)

    shift = np.array([3e-5, -4e-5, 0.0])
    by_offset = of(arrays, shift)
    by_geometry = of(replace(arrays, origin=arrays.origin - shift), np.zeros(3))
    assert by_offset.keys() == by_geometry.keys()
    for h, row in by_offset.items():
        np.testing.assert_allclose(row[:2], by_geometry[h][:2], atol=1e-8)
