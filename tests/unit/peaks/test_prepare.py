import numpy as np
import pytest
from reference import flat_detector
from scipy.spatial.transform import Rotation

from sfxflow.errors import InputError
from sfxflow.geometry import PanelArrays, lab_positions
from sfxflow.peaks.prepare import BLOCK, _windows, prepare, radius_in_pixels


@pytest.fixture(scope="module")
def two_panels():
    arrays = flat_detector([[0, 100, 0, 150], [110, 200, 0, 150]], centre=(70.3, 105.0))
    good = np.ones((200, 150), dtype=bool)
    good[20:30, 40:130] = False
    good[150, 75] = False
    return arrays, good


def test_bins_are_rounded_radii_and_bad_pixels_have_none(two_panels):
    arrays, good = two_panels
    prepared = prepare(arrays, good, clen=0.1)
    ss, fs = np.indices(good.shape) + 0.5
    radius = np.hypot(fs - 70.3, ss - 105.0)
    on_panel = good.copy()
    on_panel[100:110] = False
    bins = prepared.bins.reshape(good.shape)
    assert (bins[~on_panel] == prepared.n_bins).all()
    assert np.abs(bins[on_panel] - radius[on_panel]).max() <= 0.5 + 1e-4


def test_window_of_a_block_has_the_bins_of_its_good_pixels_and_few_more(two_panels):
    arrays, good = two_panels
    prepared = prepare(arrays, good, clen=0.1)
    kinds = set()
    for block, (power, first) in enumerate(prepared.windows[prepared.block_window]):
        bins = prepared.bins[block * BLOCK : (block + 1) * BLOCK].astype(int)
        usable = bins[bins < prepared.n_bins]
        kinds.add((len(usable) > 0, bool(prepared.block_is_whole[block])))
        assert prepared.block_is_whole[block] == (len(usable) == len(bins))
        if len(usable) == 0:
            assert (power, first) == (0, prepared.n_bins)
            continue
        assert first <= usable.min() < first + 4
        assert usable.max() < first + 2**power
        assert 2**power <= 2 * max(usable.max() - first, 1)
    assert kinds == {(False, False), (True, False), (True, True)}


def test_windows_are_few_enough_for_their_numbers_on_a_detector_with_very_many_bins():
    low = np.arange(200_000)
    windows, of_block = _windows(low, low + low % 97, 200_200)
    power, first = windows[of_block].T
    assert len(windows) <= 65535
    assert (first <= low).all()
    assert (first + 2**power > low + low % 97).all()


def test_sample_holds_pixels_of_its_bin_once_and_few_of_one_block(two_panels):
    arrays, good = two_panels
    prepared = prepare(arrays, good, clen=0.1, samples_per_bin=20)
    assert len(np.unique(prepared.sample)) == len(prepared.sample)
    for b in range(prepared.n_bins):
        pixels = prepared.sample[prepared.sample_start[b] : prepared.sample_start[b + 1]]
        assert (prepared.bins[pixels] == b).all()
        assert len(pixels) <= 20
        if len(pixels):
            assert np.bincount(pixels // BLOCK).max() <= 2
    assert np.diff(prepared.sample_start).max() == 20


def test_sample_of_everything_is_every_good_pixel(two_panels):
    arrays, good = two_panels
    prepared = prepare(arrays, good, clen=0.1, samples_per_bin=good.size)
    assert (np.sort(prepared.sample) == np.flatnonzero(prepared.bins < prepared.n_bins)).all()


def test_radius_of_a_tilted_panel_is_that_of_its_scattering_angle():
    tilt = Rotation.from_euler("xyz", [0.3, -0.4, 0.2])
    fs, ss = tilt.apply([7.5e-5, 0, 0]), tilt.apply([0, 7.5e-5, 0])
    arrays = PanelArrays(np.array([[0, 30, 0, 40]], np.int32), np.array([[0.01, -0.02, 0.004]]), fs[None], ss[None])
    column, row = np.array([0.5, 17.5, 39.5]), np.array([0.5, 3.5, 29.5])
    xyz = lab_positions(arrays, np.zeros(3, dtype=int), column, row, 0.1)
    expected = 0.1 * np.hypot(xyz[:, 0], xyz[:, 1]) / xyz[:, 2] / 7.5e-5
    np.testing.assert_allclose(
        radius_in_pixels(arrays, 0, 0.1)[row.astype(int), column.astype(int)], expected, rtol=1e-12
    )


def test_radius_goes_on_growing_behind_the_sample():
    # A panel that stands upright beside the beam, from 2 theta = 34 to 153 degrees.
    arrays = PanelArrays(
        np.array([[0, 1, 0, 2000]], np.int32),
        np.array([[0.05, 0, -0.025]]),
        np.array([[0, 0, -1e-4]]),
        np.array([[0, 1e-4, 0]]),
    )
    radius = radius_in_pixels(arrays, 0, 0.1)[0]
    assert np.isfinite(radius).all()
    assert (np.diff(radius) > 0).all()
    assert np.diff(radius).max() < 2 * np.median(np.diff(radius)) + 20


def test_too_small_mask_is_refused(two_panels):
    with pytest.raises(InputError, match=r"mask has shape \(150, 150\).*need \(200, 150\)"):
        prepare(two_panels[0], np.ones((150, 150), dtype=bool), 0.1)


def test_mask_without_good_pixels_is_refused(two_panels):
    with pytest.raises(InputError, match="no good pixel is left"):
        prepare(two_panels[0], np.zeros((200, 150), dtype=bool), 0.1)
