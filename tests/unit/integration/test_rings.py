import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spot_simulator import BOUNDS, EVERYTHING, SIZE, add_spot

from sfxflow.errors import InputError
from sfxflow.integration.rings import integrate_rings

RADII = (3.0, 4.0, 6.0)


def integrate(data, fs, ss, gain=1.0, good=None, valid_range=EVERYTHING, bounds=BOUNDS, panel=None, **more):
    good = np.ones(data.shape, dtype=bool) if good is None else good
    panel = np.zeros(len(fs), dtype=int) if panel is None else panel
    return integrate_rings(data, good, valid_range, bounds, np.array(fs), np.array(ss), panel, RADII, gain, **more)


def obvious(data, good, valid_range, fs, ss, gain):
    """Masks of the whole frame for every reflection, numpy statistics; one panel."""
    data = data.astype(float)
    row, column = np.indices(data.shape) + 0.5
    with np.errstate(invalid="ignore"):
        usable = good & (data >= valid_range[0]) & (data <= valid_range[1])
    distance = np.array([np.hypot(column - x, row - y) for x, y in zip(fs, ss, strict=True)])
    nearest = distance.argmin(axis=0)
    within = (distance <= RADII[0]).any(axis=0)
    rows = []
    for i in range(len(fs)):
        others = np.delete(np.hypot(fs - fs[i], ss - ss[i]), i)
        peak = (distance[i] <= RADII[0]) & (nearest == i)
        ring = (distance[i] >= RADII[1]) & (distance[i] <= RADII[2]) & ~within & usable
        off = min(fs[i], ss[i], data.shape[1] - fs[i], data.shape[0] - ss[i]) < RADII[0] - 0.5
        if ring.sum() < 4:
            rows.append((np.nan, np.nan, np.nan, np.nan))
            continue
        values = data[ring].astype(float)
        centre = np.sort(values)[len(values) // 2]
        variance = max(np.mean((values[values <= centre] - centre) ** 2), gain * centre)
        for _ in range(3):
            reach = 4 * np.sqrt(variance) + 1e-6 * abs(centre)
            kept = values[(values >= centre - reach) & (values <= centre + reach + 2.5 * gain)]
            centre, variance = kept.mean(), kept.var(ddof=1)
        intensity = data[peak].sum() - peak.sum() * centre
        variance = max(variance, gain * centre, gain**2 / len(kept))
        sigma = np.sqrt(gain * max(intensity, 0) + peak.sum() * variance * (1 + peak.sum() / len(kept)))
        if not usable[peak].all() or off or others.min(initial=np.inf) < RADII[0] / 2:
            intensity = sigma = np.nan
        rows.append((intensity, sigma, data[peak & usable].max(initial=-np.inf), centre))
    return np.array(rows)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_equals_the_obvious_version_in_a_crowd_with_gaps_and_hot_pixels(dtype):
    rng = np.random.default_rng(1)
    size = 120
    fs, ss = rng.uniform(1, size - 1, (2, 90))
    expected = np.full((size, size), 2.0)
    for x, y in zip(fs, ss, strict=True):
        if 8 < x < size - 8 and 8 < y < size - 8:
            add_spot(expected, x, y, rng.uniform(0, 300))
    data = rng.poisson(expected).astype(dtype)
    data.ravel()[rng.choice(data.size, 30, replace=False)] = 900
    good = np.ones(data.shape, dtype=bool)
    good.ravel()[rng.choice(data.size, 60, replace=False)] = False
    data[~good] = 0 if dtype == np.uint16 else (np.nan if dtype == np.float32 else -1)
    data[50:53, 30:70] = 5000
    found = integrate(data, fs, ss, good=good, valid_range=(0, 4000), bounds=np.array([[0, size, 0, size]]))
    truth = obvious(data, good, (0, 4000), fs, ss, 1.0)
    assert 15 < found.ok.sum() < 80
    np.testing.assert_array_equal(found.ok, np.isfinite(truth[:, 0]))
    np.testing.assert_allclose(found.I, truth[:, 0], rtol=1e-6, atol=1e-4)
    np.testing.assert_allclose(found.sigI, truth[:, 1], rtol=1e-5)
    np.testing.assert_allclose(found.background, truth[:, 3], rtol=1e-6)
    np.testing.assert_allclose(found.peak[found.ok], truth[found.ok, 2])


@pytest.mark.parametrize(("gain", "noise"), [(1.0, 0.0), (8.0, 0.0), (8.0, 12.0)])
@pytest.mark.parametrize("level", [0.5, 3.0, 30.0])
def test_pulls_are_standard_normal(gain, noise, level):
    """Mean 0 +- 0.05, standard deviation 0.95 to 1.05 over all strengths: the sigmas are right, and the intensities unbiased."""
    rng = np.random.default_rng(2)
    pulls = []
    for _ in range(8):
        grid = np.arange(12, SIZE - 12, 16)
        fs, ss = (g.ravel() + rng.uniform(-0.5, 0.5, g.size) for g in np.meshgrid(grid, grid))
        photons = np.where(rng.random(len(fs)) < 0.2, 0.0, np.exp(rng.uniform(np.log(2), np.log(20000), len(fs))))
        expected = np.full((SIZE, SIZE), level)
        for x, y, n in zip(fs, ss, photons, strict=True):
            add_spot(expected, x, y, n)
        data = gain * rng.poisson(expected) + noise * rng.standard_normal(expected.shape)
        found = integrate(data.astype(np.float32), fs, ss, gain)
        assert found.ok.all()
        pulls.append((found.I - gain * photons) / found.sigI)
    pulls = np.concatenate(pulls)
    assert len(pulls) > 4000
    assert abs(pulls.mean()) < 0.05
    assert 0.95 < pulls.std() < 1.05


def test_sum_of_absent_reflections_is_unbiased():
    """Where there are few photons, clipping must not take them for outliers: a lower background would make reflections of nothing."""
    rng = np.random.default_rng(3)
    grid = np.arange(8, SIZE - 8, 13.0)
    fs, ss = (g.ravel() for g in np.meshgrid(grid, grid))
    for level in (0.02, 0.1, 0.5, 2.0):
        intensities = np.concatenate([integrate(rng.poisson(level, (SIZE, SIZE)), fs, ss).I for _ in range(5)])
        assert abs(intensities.mean()) < 4 * intensities.std() / np.sqrt(len(intensities))


def even():
    return np.full((SIZE, SIZE), 10, dtype=np.int32)


def test_hot_pixels_in_the_ring_do_not_count():
    data = even()
    before = integrate(data, [100.5], [100.5])
    data[105, 100] = data[100, 95] = data[96, 103] = 100000
    after = integrate(data, [100.5], [100.5])
    assert after.I[0] == pytest.approx(before.I[0], abs=1e-6)
    assert after.sigI[0] == pytest.approx(before.sigI[0], rel=0.05)


def test_ring_leaves_out_the_peak_of_a_neighbour():
    data = even()
    data[100, 105] = 12
    alone = integrate(data, [100.5], [100.5])
    together = integrate(data, [100.5, 105.5], [100.5, 100.5])
    assert together.background[0] == 10.0
    assert alone.background[0] > 10.02


def test_shared_pixels_belong_to_the_nearer_reflection():
    data = even()
    data[100, 100] += 1000
    data[100, 104] += 3000
    found = integrate(data, [100.5, 104.5], [100.5, 100.5])
    np.testing.assert_allclose(found.I, [1000, 3000], atol=1e-6)


def test_reflections_that_cannot_be_told_apart_are_rejected():
    found = integrate(even(), [100.5, 101.5, 200.5, 202.5], [100.5, 100.5, 200.5, 200.5])
    assert list(found.ok) == [False, False, True, True]
    assert np.isnan(found.I[:2]).all()


def test_reflection_of_another_panel_is_no_neighbour():
    bounds = np.array([[0, 200, 0, SIZE], [200, SIZE, 0, SIZE]])
    data = even()
    found = integrate(data, [100.5, 100.5], [196.5, 203.9], bounds=bounds, panel=np.array([0, 1]))
    alone = integrate(data, [100.5], [196.5], bounds=bounds)
    assert found.ok.all()
    assert found.I[0] == alone.I[0]


@pytest.mark.parametrize("bad", ["mask", "nan", "gap"])
def test_bad_pixel_in_the_peak_rejects_and_in_the_ring_does_not(bad):
    data, good = even().astype(np.float32), np.ones((SIZE, SIZE), dtype=bool)
    for row in (101, 205):
        if bad == "mask":
            good[row, 100] = False
            data[row, 100] = 1e9
        else:
            data[row, 100] = np.nan if bad == "nan" else -1.0
    found = integrate(data, [100.5, 100.5], [100.5, 200.5], good=good, valid_range=(0, np.inf))
    assert list(found.ok) == [False, True]
    assert found.background[1] == pytest.approx(10.0, abs=1e-9)


def test_peak_that_reaches_over_the_panel_edge_is_rejected():
    found = integrate(even(), [2.0, 3.0, SIZE - 2.0, 200.0, 200.0], [200.0, 100.0, 200.0, 2.0, SIZE - 2.0])
    assert list(found.ok) == [False, True, False, False, False]


def test_saturated_reflection_is_rejected_and_its_peak_tells_why():
    data = even()
    data[100, 100] = 5000
    found = integrate(data, [100.5, 200.5], [100.5, 200.5], max_adu=np.array([4000.0]))
    assert list(found.ok) == [False, True]
    assert list(found.peak) == [5000, 10]


def test_too_few_background_pixels_reject():
    good = np.zeros((SIZE, SIZE), dtype=bool)
    good[97:104, 97:104] = True
    good[97, 97] = False
    found = integrate(even(), [100.5], [100.5], good=good)
    assert not found.ok[0]


def test_empty_surroundings_have_an_uncertainty():
    found = integrate(np.zeros((SIZE, SIZE), dtype=np.uint16), [100.5], [100.5])
    assert found.ok[0]
    assert found.I[0] == 0
    assert 0.3 < found.sigI[0] < 3


def test_no_noise_at_all_is_rejected():
    assert not integrate(np.full((SIZE, SIZE), 3.0), [100.5], [100.5], gain=0.0).ok[0]


def test_no_reflections():
    found = integrate(even(), [], [])
    assert [len(column) for column in found] == [0] * 6


def test_order_of_the_reflections_does_not_matter():
    rng = np.random.default_rng(5)
    fs, ss = rng.uniform(10, SIZE - 10, (2, 200))
    data = rng.poisson(5.0, (SIZE, SIZE))
    order = rng.permutation(200)
    first, second = integrate(data, fs, ss), integrate(data, fs[order], ss[order])
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a[order], b)


@settings(deadline=None, max_examples=40)
@given(st.floats(10, SIZE - 10), st.floats(10, SIZE - 10), st.floats(-1000, 1000), st.floats(0.1, 100))
def test_level_and_scale_carry_over(fs, ss, level, scale):
    data = np.random.default_rng(6).normal(0, 1, (SIZE, SIZE))
    plain = integrate(data, [fs], [ss], gain=0.0)
    changed = integrate(scale * data + level, [fs], [ss], gain=0.0)
    np.testing.assert_allclose(changed.I, scale * plain.I, rtol=1e-6, atol=1e-6 * scale + 1e-8 * abs(level))
    np.testing.assert_allclose(changed.sigI, scale * plain.sigI, rtol=1e-5)


def test_mask_of_another_shape_is_refused():
    with pytest.raises(InputError, match=r"mask has shape \(5, 5\), the frame \(400, 400\)"):
        integrate(even(), [100.5], [100.5], good=np.ones((5, 5), bool))
