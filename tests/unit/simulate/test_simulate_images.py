"""From rays to pixels: spots keep their photons, noise has Poisson's distribution, bad pixels read what they should."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import erf

from sfxflow.simulate import images
from sfxflow.simulate.presets import preset

SIZE = np.array([[40, 30]], dtype=np.int64)
PLACE = np.array([[5, 8]], dtype=np.int64)


def draw(fs, ss, photons, psf):
    image = np.zeros((50, 60), dtype=np.float32)
    touched = np.empty(image.size, dtype=np.int64)
    n = images.draw_rays(image, touched, np.zeros(len(fs), dtype=np.int64), fs, ss, photons, psf, SIZE, PLACE)
    return image, touched[:n]


@pytest.mark.parametrize("psf", [0.4, 0.65, 1.3])
def test_a_spot_keeps_its_photons_and_its_place(psf):
    image, touched = draw(np.array([20.37]), np.array([19.81]), np.array([1000.0]), psf)
    rows, columns = np.indices(image.shape) + 0.5
    assert image.sum() == pytest.approx(1000.0, rel=1e-3)
    # Pixels undersample a narrow spot: by Poisson's sum formula its centroid moves by up to this.
    undersampled = np.exp(-2 * np.pi**2 * psf**2) / np.pi
    assert (image * columns).sum() / image.sum() == pytest.approx(20.37, abs=1e-3 + undersampled)
    assert (image * rows).sum() / image.sum() == pytest.approx(19.81, abs=1e-3 + undersampled)
    assert sorted(touched) == np.flatnonzero(image).tolist()
    if psf >= 0.65:
        width = np.sqrt((image * (columns - 20.37) ** 2).sum() / image.sum())
        # Pixels add the variance of a box, 1/12.
        assert width == pytest.approx(np.sqrt(psf**2 + 1 / 12), rel=0.01)


def test_each_pixel_holds_the_integral_over_its_area():
    image, _ = draw(np.array([20.37]), np.array([19.81]), np.array([1000.0]), 0.65)
    edges = (np.arange(61) - 20.37) / 0.65 / np.sqrt(2), (np.arange(51) - 19.81) / 0.65 / np.sqrt(2)
    expected = 250.0 * np.outer(np.diff(erf(edges[1])), np.diff(erf(edges[0])))
    np.testing.assert_allclose(image, expected, atol=0.1)


def test_spots_add_up():
    both, _ = draw(np.array([20.3, 21.6]), np.array([19.8, 20.1]), np.array([100.0, 50.0]), 0.6)
    first, _ = draw(np.array([20.3]), np.array([19.8]), np.array([100.0]), 0.6)
    second, _ = draw(np.array([21.6]), np.array([20.1]), np.array([50.0]), 0.6)
    np.testing.assert_allclose(both, first + second, atol=1e-4)


def test_light_stays_on_its_panel():
    image, _ = draw(np.array([5.0, 44.999]), np.array([8.0, 37.999]), np.array([1000.0, 1000.0]), 0.8)
    on_panel = np.zeros(image.shape, dtype=bool)
    on_panel[8:38, 5:45] = True
    assert image[~on_panel].sum() == 0.0
    # A quarter of a spot in a corner is on the panel.
    assert image.sum() == pytest.approx(500.0, rel=0.01)


@pytest.mark.parametrize("mean", [0.0, 0.03, 0.7, 12.0, 480.0, 900.0])
def test_background_has_poissons_distribution(mean):
    n = 200_000
    means = np.full(256, mean)
    counts = np.empty(n, dtype=np.int32)
    bits = np.random.default_rng(3).integers(0, 2**32, n, dtype=np.uint32)
    images.poisson_background(np.random.default_rng(4).integers(0, 256, n, dtype=np.uint8), means, bits, counts)
    if mean == 0.0:
        assert not counts.any()
        return
    values = np.arange(counts.max() + 1)
    expected = stats.poisson.pmf(values, mean) * n
    often = expected > 20
    observed = np.bincount(counts, minlength=len(values))
    observed = np.append(observed[often], n - observed[often].sum())
    expected = np.append(expected[often], n - expected[often].sum())
    chi_squared = ((observed - expected) ** 2 / np.maximum(expected, 1e-9))[expected > 5].sum()
    assert stats.chi2.sf(chi_squared, (expected > 5).sum() - 1) > 1e-4


def test_inversion_of_chosen_numbers_is_that_of_scipy():
    """The extremes of 32 bits too: neither a negative count nor a search past the table's end."""
    bits = np.array([0, 1, 2**31, 2**32 - 2, 2**32 - 1], dtype=np.uint32)
    counts = np.empty(5, dtype=np.int32)
    images.poisson_background(np.zeros(5, dtype=np.uint8), np.full(256, 3.7), bits, counts)
    middle = stats.poisson.ppf((bits[1:4].astype(float) + 0.5) / 2**32, 3.7)
    assert counts[0] == 0
    assert counts[1:4].tolist() == middle.tolist()
    assert counts[4] >= counts[3]


def test_levels_keep_the_mean_and_every_pixel_nearly():
    shape = np.random.default_rng(0).gamma(2.0, 1.0, (200, 300)).astype(np.float32)
    level, mean = images.background_levels(shape)
    assert mean[level].mean() == pytest.approx(shape.mean(), rel=1e-5)
    assert np.abs(mean[level] - shape).max() <= (shape.max() - shape.min()) / 256 * 1.001


def test_a_flat_background_is_one_level():
    level, mean = images.background_levels(np.full((10, 10), 2.5, dtype=np.float32))
    np.testing.assert_allclose(mean[level], 2.5)


def detector(**overrides):
    values = {
        "panel_rows": 1,
        "panel_columns": 2,
        "panel_ss": 60,
        "panel_fs": 60,
        "dead_fraction": 0.01,
        "hot_fraction": 0.01,
    }
    return preset("demo", seed=2, **{**values, **overrides})


def read(experiment, value):
    photons = np.full(experiment.detector.shape, value, dtype=np.int32)
    return images.read_out(photons, experiment, np.random.default_rng(0))


def test_dead_and_hot_pixels_read_what_they_should():
    experiment = detector()
    image, bad = read(experiment, 7), experiment.bad_pixels_map
    assert image.dtype == np.int16
    assert bad.dead.sum() > 20 and bad.hot.sum() > 20
    assert not image[(bad.dead | bad.shadow) & ~bad.hot].any()
    assert np.all(image[bad.hot] > 300)
    assert np.all(image[~(bad.dead | bad.hot | bad.shadow)] == 7)
    # Some hot pixels are in no mask, as in life; all dead ones are.
    assert 0 < (bad.hot & ~bad.known).sum() < bad.hot.sum()
    assert bad.known[bad.dead | bad.shadow].all()


@pytest.mark.parametrize(
    ("bad_pixels", "dtype", "told"),
    [("negative", "int32", -1), ("largest", "uint16", 65535), ("nan", "float32", np.nan)],
)
def test_bad_pixels_are_told_by_their_value(bad_pixels, dtype, told):
    experiment = detector(bad_pixels=bad_pixels, dtype=dtype)
    image = read(experiment, 7)
    assert image.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(image[experiment.bad_pixels_map.known], told)
    assert np.all(image[~(experiment.bad_pixels_map.known | experiment.bad_pixels_map.hot)] == 7)


def test_a_full_pixel_stays_full():
    assert read(detector(saturation=500.0), 10_000).max() == 500


def test_gain_and_read_noise():
    experiment = detector(dtype="float32", adu_per_photon=9.5, read_noise=0.1)
    good = ~(experiment.bad_pixels_map.known | experiment.bad_pixels_map.hot)
    values = read(experiment, 4)[good]
    assert values.mean() == pytest.approx(38.0, abs=5 * 0.95 / np.sqrt(values.size))
    assert values.std() == pytest.approx(0.95, rel=0.05)
    whole = read(detector(adu_per_photon=2.5, saturation=1000.0), 3)
    assert whole.dtype == np.int16
    assert np.bincount(whole.ravel().astype(np.int64)).argmax() == 8
