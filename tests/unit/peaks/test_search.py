import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from reference import add_spots, background, flat_detector, peakfinder8, spread_positions
from scipy.spatial import cKDTree

from sfxflow.errors import InputError
from sfxflow.peaks import find_peaks, prepare, search_peaks, strongest
from sfxflow.peaks.search import range_minima
from sfxflow.peaks.threshold import as_type, frame_statistics, smoothed
from sfxflow.settings import Peaks

SHAPE, CENTRE = (520, 400), (190.0, 262.0)
BOUNDS = [[0, 255, 0, 400], [265, 520, 0, 198], [265, 520, 202, 400]]
COUNTS = (0, np.inf)


@pytest.fixture(scope="module")
def prepared():
    return prepare(flat_detector(BOUNDS, CENTRE), np.ones(SHAPE, dtype=bool), 0.1)


def simulated(seed, n=60, level=2.0):
    """Photons, and the spots' fs, ss and photons."""
    rng = np.random.default_rng(seed)
    expected = background(SHAPE, CENTRE, level=level)
    fs, ss = spread_positions(rng, SHAPE, n)
    photons = np.exp(rng.uniform(np.log(60), np.log(5000), len(fs)))
    add_spots(expected, fs, ss, photons)
    data = rng.poisson(expected)
    data.ravel()[rng.choice(data.size, 60, replace=False)] = 0
    data.ravel()[rng.choice(data.size, 12, replace=False)] = 400
    return data, fs, ss, photons


def in_gaps():
    outside = np.ones(SHAPE, dtype=bool)
    for r0, r1, c0, c1 in BOUNDS:
        outside[r0:r1, c0:c1] = False
    return outside


def matched(a, b, within):
    distance, _ = cKDTree(np.c_[b["fs"], b["ss"]] if b.dtype.names else b[:, :2]).query(
        np.c_[a["fs"], a["ss"]] if a.dtype.names else a[:, :2]
    )
    return distance < within


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_peaks_equal_those_of_the_obvious_version_where_statistics_play_no_part(prepared, seed):
    data, *_ = simulated(seed)
    settings = Peaks(threshold=16.0, max_pix_count=60, local_bg_radius=4)
    found = search_peaks(data.astype(np.int32), prepared, settings, COUNTS, gain=1.0)
    mean, _ = smoothed(*frame_statistics(data.astype(np.int32), prepared, COUNTS, gain=1.0)[0])
    bins = prepared.bins.reshape(SHAPE)
    expected = peakfinder8(data, BOUNDS, bins, prepared.n_bins, settings, COUNTS, mean_for_centre=mean)
    assert len(found) == len(expected) > 30
    found = found[np.lexsort((found["fs"], found["panel"]))]
    expected = expected[np.lexsort((expected[:, 0], expected[:, 6]))]
    for column, name in enumerate(found.dtype.names[:8]):
        np.testing.assert_allclose(found[name], expected[:, column], rtol=1e-6, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("threshold", [None, 5.0])
def test_sampled_statistics_find_the_peaks_of_full_statistics(prepared, threshold):
    settings = Peaks(threshold=threshold)
    n_missed = n_more = n_all = 0
    for seed in (4, 5, 6):
        data, *_ = simulated(seed)
        found = search_peaks(data.astype(np.uint16), prepared, settings, COUNTS, gain=1.0)
        expected = peakfinder8(data, BOUNDS, prepared.bins.reshape(SHAPE), prepared.n_bins, settings, COUNTS)
        n_all += len(expected)
        n_missed += (~matched(expected, found, 1.0)).sum()
        n_more += (~matched(found, expected, 1.0)).sum()
    assert n_all > 120
    assert n_missed <= 0.03 * n_all
    assert n_more <= 0.03 * n_all


def test_peaks_are_where_the_spots_are(prepared):
    data, fs, ss, photons = simulated(7)
    found = search_peaks(data.astype(np.uint16), prepared, Peaks(), COUNTS)
    distance, spot = cKDTree(np.c_[fs, ss]).query(np.c_[found["fs"], found["ss"]])
    assert (distance < 1.5).mean() > 0.95
    strong = (distance < 1.5) & (photons[spot] > 500) & (found["n_pixels"] > 8)
    assert strong.sum() > 10
    assert abs(np.mean(found["fs"][strong] - fs[spot[strong]])) < 0.05
    assert abs(np.mean(found["ss"][strong] - ss[spot[strong]])) < 0.05
    assert np.median(found["intensity"][strong] / photons[spot[strong]]) == pytest.approx(0.97, abs=0.05)


@pytest.mark.parametrize("gain", [None, 1.0])
@pytest.mark.parametrize("level", [0.02, 0.3, 3.0, 100.0])
def test_blank_frames_have_two_peaks_at_most(prepared, level, gain):
    rng = np.random.default_rng(11)
    for _ in range(5):
        data = rng.poisson(background(SHAPE, CENTRE, level=level, ring=level / 2)).astype(np.uint16)
        assert len(find_peaks(data, prepared, Peaks(), COUNTS, gain=gain)) <= 2


@pytest.mark.parametrize("gain", [0.1, 25.0])
def test_peaks_do_not_depend_on_the_detector_unit(prepared, gain):
    data, *_ = simulated(12)
    photons = search_peaks(data.astype(np.float32), prepared, Peaks(), COUNTS, gain=1.0)
    scaled = search_peaks((gain * data).astype(np.float32), prepared, Peaks(), COUNTS, gain=gain)
    assert len(photons) == len(scaled)
    np.testing.assert_allclose(scaled["fs"], photons["fs"], atol=1e-4)
    np.testing.assert_allclose(scaled["intensity"], gain * photons["intensity"], rtol=1e-4)


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "u8", "i2", "i4", "i8", "f4", "f8", ">i4", ">f4", "f2"])
def test_every_type_gives_the_same_peaks(prepared, dtype):
    data, *_ = simulated(13)
    data = np.minimum(data, 200)
    expected = search_peaks(data.astype(np.int32), prepared, Peaks(), COUNTS, gain=1.0)
    dtype = np.dtype(dtype)
    data = data.astype(dtype)
    data[in_gaps()] = np.nan if dtype.kind == "f" else (-1 if dtype.kind == "i" else np.iinfo(dtype).max)
    found = search_peaks(data, prepared, Peaks(), COUNTS, gain=1.0)
    assert len(expected) > 20
    for name in expected.dtype.names:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-6, err_msg=name)


def test_negative_values_of_a_detector_with_pedestal_are_valid(prepared):
    data, *_ = simulated(14)
    noise = np.random.default_rng(14).normal(0, 3.0, SHAPE)
    as_is = search_peaks(np.rint(10 * data + noise).astype(np.int32), prepared, Peaks(), gain=10.0)
    lower = search_peaks(np.rint(10 * data + noise - 30).astype(np.int16), prepared, Peaks(), gain=10.0)
    assert len(as_is) > 20
    assert lower["background"].min() < -5
    assert matched(as_is, lower, 1.5).mean() > 0.95


def hand_made():
    """An even background of alternating 1 and 2 and nothing on it."""
    return (np.indices(SHAPE).sum(axis=0) % 2 + 1).astype(np.int32)


def test_hot_pixel_alone_is_no_peak_but_two_pixels_are(prepared):
    data = hand_made()
    data[100, 100] = 5000
    assert len(search_peaks(data, prepared, Peaks(), COUNTS, gain=1.0)) == 0
    data[101, 101] = 3000
    (peak,) = search_peaks(data, prepared, Peaks(), COUNTS, gain=1.0)
    assert (peak["n_pixels"], peak["maximum"], peak["panel"]) == (2, 5000, 0)
    assert peak["fs"] == pytest.approx(100.5 + 3 / 8)
    assert peak["ss"] == pytest.approx(100.5 + 3 / 8)
    assert peak["background"] == pytest.approx(1.5, abs=0.05)


def test_pixels_of_two_panels_are_not_connected(prepared):
    arrays = flat_detector([[0, 260, 0, 400], [260, 520, 0, 400]], CENTRE)
    touching = prepare(arrays, np.ones(SHAPE, dtype=bool), 0.1)
    data = hand_made()
    data[256:264, 100:102] = 500
    peaks = search_peaks(data, touching, Peaks(), COUNTS, gain=1.0)
    assert sorted(peaks["panel"]) == [0, 1]
    np.testing.assert_allclose(sorted(peaks["ss"]), [258.0, 262.0])


def test_peak_of_border_pixels_only_is_left_out(prepared):
    data = hand_made()
    data[0, 50:54] = 500
    data[100:104, 0] = 500
    data[254, 50:54] = 500
    assert len(search_peaks(data, prepared, Peaks(), COUNTS, gain=1.0)) == 0
    data[1, 51] = 500
    (peak,) = search_peaks(data, prepared, Peaks(), COUNTS, gain=1.0)
    assert peak["n_pixels"] == 5


def test_number_of_pixels_is_limited_at_both_ends(prepared):
    data = hand_made()
    data[50:53, 50:53] = 500
    assert len(search_peaks(data, prepared, Peaks(min_pix_count=9, max_pix_count=9), COUNTS, gain=1.0)) == 1
    assert len(search_peaks(data, prepared, Peaks(min_pix_count=10), COUNTS, gain=1.0)) == 0
    assert len(search_peaks(data, prepared, Peaks(max_pix_count=8), COUNTS, gain=1.0)) == 0


def test_masked_pixels_belong_to_no_peak():
    good = np.ones(SHAPE, dtype=bool)
    good[40:60, 40:60] = False
    masked = prepare(flat_detector(BOUNDS, CENTRE), good, 0.1)
    data = hand_made()
    data[45:48, 45:48] = 500
    data[145:148, 145:148] = 500
    assert list(search_peaks(data, masked, Peaks(), COUNTS, gain=1.0)["ss"]) == [146.5]
    good_now = np.ones(SHAPE, dtype=bool)
    good_now[140:150] = False
    assert len(search_peaks(data, masked, Peaks(), COUNTS, good=good_now, gain=1.0)) == 0


def test_values_outside_the_valid_range_belong_to_no_peak(prepared):
    data = hand_made().astype(np.uint16)
    data[100:103, 100:103] = 65535
    data[200:203, 100:103] = 60000
    assert list(search_peaks(data, prepared, Peaks(), (0, 65000), gain=1.0)["ss"]) == [201.5]


def test_saturated_peaks_are_flagged_or_left_out(prepared):
    data = hand_made()
    data[100:103, 100:103] = 500
    data[300:303, 100:103] = 500
    per_panel = np.array([400.0, 600.0, 600.0])
    assert list(search_peaks(data, prepared, Peaks(), COUNTS, gain=1.0, max_adu=per_panel)["saturated"]) == [
        True,
        False,
    ]
    kept = search_peaks(data, prepared, Peaks(use_saturated=False), COUNTS, gain=1.0, max_adu=per_panel)
    assert list(kept["panel"]) == [1]
    assert not search_peaks(data, prepared, Peaks(), COUNTS, gain=1.0)["saturated"].any()


def test_peaks_outside_the_resolution_limits_are_left_out(prepared):
    data, *_ = simulated(15)
    peaks = search_peaks(data, prepared, Peaks(min_res=80, max_res=160), COUNTS, gain=1.0)
    radius = np.hypot(peaks["fs"] - CENTRE[0], peaks["ss"] - CENTRE[1])
    assert len(peaks) > 3
    assert radius.min() > 78
    assert radius.max() < 162


def test_many_peaks_fit_and_leave_no_trace(prepared):
    data = hand_made()
    data[5:250:7, 5:195:12] = 900
    data[6:250:7, 5:195:12] = 800
    settings = Peaks(max_peaks=100)
    everything = search_peaks(data, prepared, settings, COUNTS, gain=1.0)
    assert len(everything) == 35 * 16
    assert len(find_peaks(data, prepared, settings, COUNTS, gain=1.0)) == 100
    assert not prepared.state.any()
    np.testing.assert_array_equal(everything, search_peaks(data, prepared, settings, COUNTS, gain=1.0))


def test_huge_bright_region_fits_and_leaves_no_trace(prepared):
    data = hand_made()
    data[270:515, 5:190] = 7000
    data[100:103, 100:103] = 7000
    peaks = search_peaks(data, prepared, Peaks(min_snr=1.0), COUNTS, gain=1.0)
    assert list(peaks["panel"]) == [0]
    assert not prepared.state.any()


@pytest.mark.parametrize("value", [0, 1, 1000])
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_frame_of_one_value_has_no_peaks(prepared, value, dtype):
    assert len(search_peaks(np.full(SHAPE, value, dtype), prepared, Peaks())) == 0


def test_frame_without_any_valid_pixel_has_no_peaks(prepared):
    assert len(search_peaks(np.full(SHAPE, np.nan, np.float32), prepared, Peaks())) == 0
    assert len(search_peaks(np.full(SHAPE, -1, np.int32), prepared, Peaks(), COUNTS)) == 0


def test_noise_in_its_corner_of_a_nearly_empty_frame_has_no_infinite_snr(prepared):
    data = np.zeros(SHAPE, dtype=np.int32)
    data[100:103, 100:103] = 50
    (peak,) = search_peaks(data, prepared, Peaks(), COUNTS, gain=1.0)
    assert 0 < peak["snr"] < 1e5


def test_strongest_keeps_the_order_of_the_slab(prepared):
    data, *_ = simulated(16)
    peaks = search_peaks(data, prepared, Peaks(), COUNTS)
    kept = strongest(peaks, 10)
    assert (
        np.diff(np.searchsorted(peaks["intensity"], kept["intensity"], sorter=np.argsort(peaks["intensity"]))) != 0
    ).all()
    assert set(kept["intensity"]) == set(np.sort(peaks["intensity"])[-10:])
    np.testing.assert_array_equal(peaks[np.isin(peaks["intensity"], kept["intensity"])], kept)


def test_frame_of_another_shape_is_refused(prepared):
    with pytest.raises(InputError, match=r"frame has shape \(10, 400\).*\(520, 400\)"):
        search_peaks(np.zeros((10, 400)), prepared, Peaks())


def test_complex_frame_is_refused(prepared):
    with pytest.raises(InputError, match="complex64"):
        search_peaks(np.zeros(SHAPE, np.complex64), prepared, Peaks())


def test_mask_of_another_shape_is_refused(prepared):
    with pytest.raises(InputError, match=r"mask has shape \(5, 5\)"):
        search_peaks(np.zeros(SHAPE), prepared, Peaks(), good=np.ones((5, 5), bool))


@given(
    st.floats(allow_nan=False),
    st.sampled_from(["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8"]),
    st.lists(st.integers(-(2**70), 2**70), max_size=5),
)
def test_threshold_in_whole_numbers_says_the_same(limit, dtype, offsets):
    dtype = np.dtype(dtype)
    limits = np.iinfo(dtype)
    above = as_type(limit, dtype, np.floor)[()]
    near = [] if not np.isfinite(limit) else [int(limit) + k for k in (-1, 0, 1)]
    for value in [*near, *offsets, limits.min, limits.max]:
        if limits.min < value < limits.max and abs(value) < 2**53:
            assert (dtype.type(value) > above) == (value > limit)


@hypothesis_settings(deadline=None)
@given(hnp.arrays(np.int32, st.integers(1, 70), elements=st.integers(-1000, 1000)), st.data())
def test_range_minima(values, data):
    low = data.draw(st.integers(0, len(values) - 1))
    high = data.draw(st.integers(low, len(values) - 1))
    table = range_minima(values)
    level = (high - low + 1).bit_length() - 1
    assert min(table[level, low], table[level, high + 1 - (1 << level)]) == values[low : high + 1].min()
