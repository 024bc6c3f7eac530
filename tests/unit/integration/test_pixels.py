"""Pixels of a peak and of its ring: runs of them and one by one, by the definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from sfxflow.integration.pixels import BLOCK, peak_offsets, surface_of, take_pixels
from sfxflow.prefetch import prefetch

SHAPE = (40, 50)
BOUNDS = np.array([0, SHAPE[0], 0, SHAPE[1]])
#: Tenths and halves of pixels: the ends of a circle's chord fall on pixels' centres there.
PLACE = st.one_of(st.floats(10, 30), st.integers(20, 60).map(lambda n: n / 2))
RADII = st.tuples(st.floats(1, 4), st.floats(0, 2), st.floats(0.5, 4)).map(
    lambda r: (r[0], r[0] + r[1], r[0] + r[1] + r[2])
)


def taken(frame, surface, place, radii, lowest=-np.inf, top=np.inf):
    """Ring (values, x, y) and peak (values, x, y), and the number of bad pixels."""
    ring, peak = np.full((3, 400), -1.0), np.full(400, -1.0)
    where = np.full((2, 400), np.nan)
    fs, ss = np.array([place[0]]), np.array([place[1]])
    n_ring, n_peak, n_bad = take_pixels(
        frame.ravel(), *surface, BOUNDS, lowest, top, fs, ss, 0, np.zeros(0, dtype=np.int64), radii, *ring, peak
    )
    assert peak_offsets(fs[0], ss[0], radii[0], *where) == n_peak
    return ring[:, :n_ring], np.vstack([peak[:n_peak], where[:, :n_peak]]), n_bad


def by_definition(frame, place, radii, lowest, top):
    row, column = np.indices(frame.shape)
    x, y = column + 0.5 - place[0], row + 0.5 - place[1]
    distance2 = x * x + y * y
    in_peak = distance2 <= radii[0] ** 2
    valid = (frame >= lowest) & (frame <= top)
    in_ring = (distance2 >= radii[1] ** 2) & (distance2 <= radii[2] ** 2) & ~in_peak & valid
    values = np.where(valid, frame, np.nan)
    return [np.vstack([values[which], x[which], y[which]]) for which in (in_ring, in_peak)], (in_peak & ~valid).sum()


@settings(max_examples=300)
@given(PLACE, PLACE, RADII, st.sampled_from([np.uint16, np.int32, np.float32]), st.integers(0, 9))
def test_runs_are_the_pixels_of_the_definition(fs, ss, radii, dtype, lowest):
    frame = np.random.default_rng(3).integers(0, 100, SHAPE).astype(dtype)
    whole = surface_of(np.ones(SHAPE, dtype=bool))
    ring, peak, n_bad = taken(frame, whole, (fs, ss), radii, lowest, 90)
    (expected_ring, expected_peak), expected_bad = by_definition(frame, (fs, ss), radii, lowest, 90)
    # Whether a pixel lies on a circle is a matter of the last bit, and may be seen otherwise there.
    distance = np.hypot(*(np.indices(SHAPE)[::-1] + 0.5 - np.array([fs, ss])[:, None, None]))
    if min(np.abs(distance - radius).min() for radius in radii) > 1e-9:
        np.testing.assert_array_equal(ring[0], expected_ring[0])
        np.testing.assert_array_equal(peak[0], expected_peak[0])
        np.testing.assert_allclose(ring[1:], expected_ring[1:], atol=1e-12)
        np.testing.assert_allclose(peak[1:], expected_peak[1:], atol=1e-12)
        assert n_bad == expected_bad


@settings(max_examples=200)
@given(PLACE, PLACE, st.sampled_from([(3.0, 4.0, 6.0), (2.0, 2.0, 5.0), (2.5, 3.5, 4.5)]))
def test_one_by_one_they_are_the_same(fs, ss, radii):
    """On circles that hit pixels' centres too."""
    frame = np.random.default_rng(5).integers(0, 100, SHAPE).astype(np.uint16)
    good = np.ones(SHAPE, dtype=bool)
    nothing_whole = np.zeros_like(surface_of(good).is_whole)
    runs, singly = taken(frame, surface_of(good), (fs, ss), radii), taken(frame, (good, nothing_whole), (fs, ss), radii)
    distance = np.hypot(*(np.indices(SHAPE)[::-1] + 0.5 - np.array([fs, ss])[:, None, None]))
    nearest = min(np.abs(distance - radius)[np.abs(distance - radius) > 0].min() for radius in radii)
    if nearest > 1e-9:
        np.testing.assert_array_equal(runs[0][0], singly[0][0])
        np.testing.assert_array_equal(runs[1][0], singly[1][0])
        assert runs[2] == singly[2] == 0


@pytest.mark.parametrize("shape", [(BLOCK, BLOCK), (BLOCK + 1, 2 * BLOCK - 1), (5, 3), (3 * BLOCK, 70)])
def test_blocks_with_a_bad_pixel_are_not_whole(shape):
    good = np.random.default_rng(7).random(shape) > 0.004
    good[-1, -1] = False
    surface = surface_of(good)
    is_whole = surface.is_whole
    for i, j in np.ndindex(is_whole.shape):
        block = good[i * BLOCK : (i + 1) * BLOCK, j * BLOCK : (j + 1) * BLOCK]
        assert is_whole[i, j] == block.all()
    assert is_whole.shape == (-(-shape[0] // BLOCK), -(-shape[1] // BLOCK))
    assert surface_of(surface) is surface


@njit
def prefetched(array, index):
    prefetch(array, index)
    return array[0]


@pytest.mark.parametrize("index", [0, 9, 10**6, -(10**6)])
def test_a_hint_changes_nothing_wherever_it_points(index):
    assert prefetched(np.arange(5.0, 15.0), index) == 5.0
