import numpy as np
import pytest
from reference import background, flat_detector
from scipy.stats import norm, poisson

from sfxflow.peaks import estimate_gain, gain_from_statistics, prepare
from sfxflow.peaks.threshold import bin_statistics, bin_thresholds, smoothed
from sfxflow.settings import Peaks

SHAPE, CENTRE = (400, 420), (200.0, 190.0)
EVERYTHING = (-np.inf, np.inf)


@pytest.fixture(scope="module")
def prepared():
    return prepare(flat_detector([[0, 400, 0, 420]], CENTRE), np.ones(SHAPE, dtype=bool), 0.1)


def clipped(values):
    """Obvious version of the clipping."""
    inside = values
    for _ in range(5):
        mean, sigma = inside.mean(), inside.std()
        inside = values[np.abs(values - mean) <= 4 * sigma + 1e-6 * abs(mean)]
    return mean, sigma


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.int16, np.int32, np.float32, np.float64])
def test_statistics_are_those_of_the_obvious_version(prepared, dtype):
    rng = np.random.default_rng(5)
    data = rng.poisson(background(SHAPE, CENTRE, level=20.0))
    data.ravel()[rng.choice(data.size, 300, replace=False)] = 250
    data = data.astype(dtype)
    mean, squares, count = bin_statistics(data, prepared, EVERYTHING)
    for b in range(prepared.n_bins):
        values = data.ravel()[prepared.sample[prepared.sample_start[b] : prepared.sample_start[b + 1]]].astype(float)
        if len(values) == 0:
            assert count[b] == 0
            continue
        expected = clipped(values)
        np.testing.assert_allclose(mean[b], expected[0], rtol=1e-5)
        np.testing.assert_allclose(np.sqrt(squares[b] / count[b]), expected[1], rtol=1e-4, atol=1e-4)


def test_gaps_and_bad_values_do_not_count(prepared):
    rng = np.random.default_rng(6)
    data = rng.normal(5.0, 1.0, SHAPE).astype(np.float32)
    data[::3] = np.nan
    data[1::9] = -1e9
    data[4::9] = np.inf
    good = np.ones(SHAPE, dtype=bool)
    good[7::9] = False
    data[7::9] = 300.0
    mean, squares, count = bin_statistics(data, prepared, (-100.0, 1e9), good)
    assert abs(np.average(mean, weights=count) - 5.0) < 0.02
    assert abs(squares.sum() / (count - 1).clip(0).sum() - 1.0) < 0.03


def test_huge_outliers_do_not_cost_precision(prepared):
    rng = np.random.default_rng(7)
    data = rng.normal(0.0, 1.0, SHAPE)
    data.ravel()[rng.choice(data.size, data.size // 100, replace=False)] = 3e7
    _, squares, count = bin_statistics(data, prepared, EVERYTHING)
    full = count > 60
    assert np.median(squares[full] / (count[full] - 1)) == pytest.approx(1.0, abs=0.05)


def test_smoothing_keeps_a_straight_line_and_pools_the_variance():
    mean, variance = smoothed(np.arange(20.0), np.full(20, 30.0), np.full(20, 11.0))
    np.testing.assert_allclose(mean[2:-2], np.arange(20.0)[2:-2])
    np.testing.assert_allclose(variance, 3.0)


def test_smoothing_has_no_answer_far_from_any_pixel():
    count = np.zeros(20)
    count[:3] = 5
    mean, variance = smoothed(np.ones(20), np.ones(20), count)
    assert np.isnan(mean[5:]).all()
    assert np.isfinite(variance[:5]).all()


@pytest.mark.parametrize(
    ("gain", "noise", "dtype"),
    [
        (1.0, 0.0, np.int32),
        (1.0, 0.0, np.float32),
        (8.0, 0.0, np.int32),
        (8.0, 6.0, np.int32),
        (8.0, 6.0, np.float32),
        (0.25, 0.1, np.float32),
    ],
)
def test_gain_is_recovered(prepared, gain, noise, dtype):
    rng = np.random.default_rng(8)
    data = gain * rng.poisson(background(SHAPE, CENTRE, level=4.0)) + rng.normal(0, noise, SHAPE)
    assert abs(estimate_gain(data.astype(dtype), prepared) / gain - 1.0) < 0.1


def test_gain_of_an_even_background_comes_from_the_origin(prepared):
    rng = np.random.default_rng(9)
    data = 3.0 * rng.poisson(20.0, SHAPE).astype(np.float32)
    assert abs(estimate_gain(data, prepared) / 3.0 - 1.0) < 0.1


@pytest.mark.parametrize("gain", [1.0, 8.0, 0.3])
def test_gain_of_a_frame_with_hardly_a_photon_is_the_step(prepared, gain):
    rng = np.random.default_rng(9)
    data = rng.poisson(0.01, SHAPE).astype(np.float32) * np.float32(gain)
    assert estimate_gain(data, prepared) == pytest.approx(gain, rel=0.02)


def test_gain_of_whole_numbers_is_one_at_least(prepared):
    assert estimate_gain(np.zeros(SHAPE, np.int16), prepared) == 1.0


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_gain_of_a_frame_without_noise_is_zero(prepared, value):
    assert estimate_gain(np.full(SHAPE, value, dtype=np.float32), prepared) == 0.0


def test_gain_of_too_few_pixels_is_zero():
    assert gain_from_statistics(np.ones(4), np.ones(4), np.full(4, 3.0)) == 0.0


def test_gain_of_electronic_noise_alone_does_not_exceed_it(prepared):
    data = np.random.default_rng(10).normal(0.0, 5.0, SHAPE).astype(np.float32)
    assert 0.0 <= estimate_gain(data, prepared) <= 5.0


@pytest.mark.parametrize("mean", [0.05, 0.2, 1.0, 5.0, 50.0, 500.0])
def test_threshold_lets_no_more_noise_through_than_a_normal_distribution_would(mean):
    limit = bin_thresholds(np.array([mean]), np.array([mean]), 1.0, Peaks(min_snr=4.0))[0]
    assert poisson.sf(np.floor(limit), mean) < 1.2 * norm.sf(4.0)


def test_absolute_threshold_is_that_of_peakfinder8():
    limits = bin_thresholds(np.array([1.0, 100.0]), np.array([1.0, 100.0]), 1.0, Peaks(min_snr=4.0, threshold=12.0))
    np.testing.assert_allclose(limits, [12.0, 140.0])


def test_nothing_is_bright_outside_the_resolution_limits_or_without_statistics():
    mean = np.ones(50)
    mean[20] = np.nan
    limits = bin_thresholds(mean, np.ones(50), 1.0, Peaks(min_res=10, max_res=40))
    assert np.isinf(limits[:10]).all()
    assert np.isinf(limits[41:]).all()
    assert np.isinf(limits[20])
    assert np.isfinite(limits[10:20]).all()
