"""Where pixels are in the laboratory, and which panels get in each other's way."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfxflow.geometry import (
    Detector,
    Panel,
    PanelArrays,
    lab_positions,
    overlapping_panels,
    panel_arrays,
    panel_of,
    placed_in_slab,
    polarisation_factor,
    scattering_vectors,
)

PANEL = Panel(
    name="a",
    data="/data",
    dims=("%", "ss", "fs"),
    min_fs=0,
    max_fs=99,
    min_ss=0,
    max_ss=49,
    origin=(-0.01, 0.002, 0.001),
    fs=(1e-4, 0.0, 0.0),
    ss=(0.0, 1e-4, 0.0),
    slab_fs=0,
    slab_ss=0,
)


def two_panels():
    second = replace(
        PANEL, name="b", min_ss=50, max_ss=89, origin=(0.01, -0.003, 0.0), fs=(0.0, 2e-4, 0.0), ss=(-2e-4, 0.0, 0.0)
    )
    return placed_in_slab([PANEL, second])


def test_positions_are_corner_plus_steps_as_written_out_for_each_point():
    panels = two_panels()
    arrays = panel_arrays(Detector(panels, 9500.0, 0.1))
    rng = np.random.default_rng(1)
    fs, ss = rng.uniform(0, 100, 50), rng.uniform(0, 90, 50)
    number = panel_of(arrays.bounds, fs, ss)
    expected = []
    for f, s in zip(fs, ss, strict=True):
        panel = panels[0] if s < 50 else panels[1]
        f_in, s_in = f - panel.slab_fs, s - panel.slab_ss
        expected.append(
            [panel.origin[k] + f_in * panel.fs[k] + s_in * panel.ss[k] + (0.1 if k == 2 else 0.0) for k in range(3)]
        )
    np.testing.assert_allclose(lab_positions(arrays, number, fs, ss, 0.1), expected, rtol=0, atol=1e-15)


def test_panel_of_is_minus_one_off_the_panels_and_ends_are_half_open():
    arrays = panel_arrays(Detector(two_panels(), 9500.0, 0.1))
    fs, ss = [0, 99.999, 100, 50, 50, 50, -0.1], [0, 0, 0, 49.999, 50, 90, 0]
    assert panel_of(arrays.bounds, fs, ss).tolist() == [0, 0, -1, 0, 1, -1, -1]


@given(st.floats(0.01, 1.4), st.floats(-3.1, 3.1), st.floats(0.5, 3.0))
def test_scattering_vectors_obey_braggs_law_and_lie_on_the_ewald_sphere(two_theta, azimuth, wavelength):
    direction = np.array(
        [[np.sin(two_theta) * np.cos(azimuth), np.sin(two_theta) * np.sin(azimuth), np.cos(two_theta)]]
    )
    q = scattering_vectors(0.37 * direction, wavelength)[0]
    assert np.linalg.norm(q) == pytest.approx(2 * np.sin(two_theta / 2) / wavelength, rel=1e-9)
    assert np.linalg.norm(q + [0, 0, 1 / wavelength]) == pytest.approx(1 / wavelength, rel=1e-12)


def test_polarisation_factor_in_the_cases_that_are_known():
    two_theta = 0.6
    along_x = np.array([[np.sin(two_theta), 0.0, np.cos(two_theta)]])
    along_y = np.array([[0.0, np.sin(two_theta), np.cos(two_theta)]])
    c2 = np.cos(two_theta) ** 2
    assert polarisation_factor(along_x, 1.0)[0] == pytest.approx(c2)
    assert polarisation_factor(along_y, 1.0)[0] == pytest.approx(1.0)
    assert polarisation_factor(along_x, 0.5)[0] == pytest.approx((1 + c2) / 2)
    assert polarisation_factor(along_y, 1.0, np.pi / 2)[0] == pytest.approx(c2)


def test_one_dataset_is_its_own_slab_and_others_are_stacked_below():
    upper = replace(PANEL, name="u", data="/two", min_ss=5, max_ss=9)
    third = replace(PANEL, name="t", dims=("%", 3, "ss", "fs"))
    second = replace(PANEL, name="s", dims=("%", 1, "ss", "fs"))
    a, u, t, s = placed_in_slab([PANEL, upper, third, second])
    assert (a.slab_ss, s.slab_ss, t.slab_ss, u.slab_ss) == (0, 50, 100, 155)


def test_no_two_pixels_share_a_place_in_the_slab():
    panels = placed_in_slab(
        replace(PANEL, name=f"{d}{k}{h}", data=d, dims=("%", k, "ss", "fs"), min_fs=50 * h, max_fs=50 * h + 49)
        for h in (0, 1)
        for k in (2, 0, 1)
        for d in ("/x", "/y")
    )
    taken = np.zeros(Detector(panels, 1.0, 1.0).shape, dtype=int)
    for p in panels:
        taken[p.slab_ss : p.slab_ss + p.n_ss, p.slab_fs : p.slab_fs + p.n_fs] += 1
    assert taken.max() == 1
    assert taken.sum() == 12 * 50 * 50


@pytest.mark.parametrize(
    ("shift", "expected"),
    [
        ((0, 0.0051, 0), []),
        ((0, 0.0048, 0), []),
        ((0, 0.0035, 0), ["laboratory"]),
        ((0, 0, 0), ["laboratory"]),
        ((0, 0, 0.01), []),
    ],
)
def test_overlap_in_the_laboratory_is_found_where_it_is_more_than_a_few_pixels(shift, expected):
    other = replace(PANEL, name="b", min_ss=50, max_ss=99, origin=tuple(np.add(PANEL.origin, shift)))
    assert [what for *_, what in overlapping_panels(placed_in_slab([PANEL, other]))] == expected


def test_a_small_panel_that_lies_on_a_large_one_is_found():
    small = replace(
        PANEL, name="b", min_ss=50, max_ss=52, max_fs=3, origin=tuple(np.add(PANEL.origin, (0.005, 0.002, 0)))
    )
    assert overlapping_panels(placed_in_slab([PANEL, small])) == [("a", "b", "laboratory")]


def test_overlap_in_the_data_is_found():
    other = replace(PANEL, name="b", min_ss=49, max_ss=60, origin=(1.0, 0, 0))
    assert overlapping_panels(placed_in_slab([PANEL, other])) == [("a", "b", "data")]


def test_lab_positions_of_no_panel():
    arrays = PanelArrays(np.array([[0, 4, 0, 4]]), np.zeros((1, 3)), np.eye(3)[:1], np.eye(3)[1:2])
    with pytest.raises(IndexError, match="panel 1 of 1"):
        lab_positions(arrays, np.array([0, 1]), np.zeros(2), np.zeros(2), 0.1)
