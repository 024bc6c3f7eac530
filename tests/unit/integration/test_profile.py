"""Profile fitting: unbiased, with right sigmas, better than sums where spots are weak, and honest where pixels are missing."""

import numpy as np
import pytest
from spot_simulator import BOUNDS, EVERYTHING, SIZE, frame_of_spots

from sfxflow.geometry import panel_arrays
from sfxflow.integration.profile import gaussians, integrate_profiles, learn_profile, radial_axes
from sfxflow.integration.rings import Outcome, integrate_rings
from sfxflow.simulate.presets import preset

RADII = (3.0, 4.0, 6.0)


def fit(frame, gain=1.0, good=None, max_adu=np.inf, data=None, **more):
    data = frame.data if data is None else data
    good = np.ones(data.shape, dtype=bool) if good is None else good
    panel = np.zeros(len(frame.fs), dtype=int)
    return integrate_profiles(
        data,
        good,
        EVERYTHING,
        BOUNDS,
        frame.fs,
        frame.ss,
        panel,
        RADII,
        gain,
        max_adu,
        frame.towards,
        frame.relative_q2,
        **more,
    )


def rings(frame, **more):
    good = np.ones(frame.data.shape, dtype=bool)
    panel = np.zeros(len(frame.fs), dtype=int)
    return integrate_rings(frame.data, good, EVERYTHING, BOUNDS, frame.fs, frame.ss, panel, RADII, 1.0, **more)


def obvious_fit(frame, i, profile, background, variance, n_background, good):
    """The fit of one reflection on a flat background, with numpy on the whole frame."""
    row, column = np.indices(frame.data.shape) + 0.5
    x, y = column - frame.fs[i], row - frame.ss[i]
    radial = x * frame.towards[i, 0] + y * frame.towards[i, 1]
    tangential = -x * frame.towards[i, 1] + y * frame.towards[i, 0]
    s_r = profile.radial[0] + profile.radial[1] * frame.relative_q2[i]
    s_t = profile.tangential[0] + profile.tangential[1] * frame.relative_q2[i]
    shape = np.exp(-(radial**2) / (2 * s_r) - tangential**2 / (2 * s_t)) / (2 * np.pi * np.sqrt(s_r * s_t))
    use = (np.hypot(x, y) <= RADII[0]) & good
    shape, signal = shape[use], frame.data[use] - background
    intensity = 0.0
    for _ in range(3):
        weight = 1.0 / (variance + max(intensity, 0.0) * shape)
        information = np.sum(weight * shape**2)
        before, intensity = intensity, np.sum(weight * shape * signal) / information
        if abs(intensity - before) / (2 * np.pi * np.sqrt(s_r * s_t)) < 0.05 * variance:
            break
    of_background = (np.sum(weight * shape) / information) ** 2 * variance / n_background
    return intensity, np.sqrt(1.0 / information + of_background)


def test_equals_the_obvious_version():
    rng = np.random.default_rng(4)
    frame = frame_of_spots(rng, streak=1.0)
    good = rng.random(frame.data.shape) > 0.01
    found, profile = fit(frame, good=good, background="flat")
    summed = integrate_rings(
        frame.data, good, EVERYTHING, BOUNDS, frame.fs, frame.ss, np.zeros(len(frame.fs), int), RADII, 1.0
    )
    chosen = np.flatnonzero(found.ok)[::20]
    assert (~summed.ok[np.flatnonzero(found.ok)]).any()
    for i in chosen:
        row, column = np.indices(frame.data.shape) + 0.5
        distance = np.hypot(column - frame.fs[i], row - frame.ss[i])
        ring = frame.data[(distance >= RADII[1]) & (distance <= RADII[2]) & good].astype(float)
        low, high = found.background[i] - 4 * ring.std(ddof=1), found.background[i] + 4 * ring.std(ddof=1) + 2.5
        kept = ring[(ring >= low) & (ring <= high)]
        variance = max(kept.var(ddof=1), found.background[i], 1 / len(kept))
        expected = obvious_fit(frame, i, profile, found.background[i], variance, len(kept), good)
        np.testing.assert_allclose((found.I[i], found.sigI[i]), expected, rtol=1e-6)


@pytest.mark.parametrize("level", [0.5, 3.0, 30.0])
@pytest.mark.parametrize("streak", [0.0, 1.2])
def test_a_thousand_spots_are_unbiased_and_scatter_as_their_sigmas_say(level, streak):
    """Sums over spots of a strength within 3 standard errors (1 % more for the shape) of the truth; pulls 0 +- 0.3, width 0.85 to 1.12."""
    rng = np.random.default_rng(5)
    frames = [frame_of_spots(rng, level, streak=streak) for _ in range(4)]
    results = [fit(frame)[0] for frame in frames]
    photons = np.concatenate([frame.photons for frame in frames])
    found, sigma = (np.concatenate([getattr(result, name) for result in results]) for name in ("I", "sigI"))
    assert len(photons) > 1000 and np.isfinite(found).all()
    for low, high in ((0, 1), (1, 30), (30, 300), (300, 3000), (3000, np.inf)):
        of = (photons >= low) & (photons < high)
        error = found[of] - photons[of]
        assert abs(error.mean()) < 3 * error.std() / np.sqrt(of.sum()) + 0.01 * photons[of].mean(), (low, high)
        if low >= 30:
            pull = error / sigma[of]
            assert abs(pull.mean()) < 0.3 and 0.85 < pull.std() < 1.12, (low, high, pull.mean(), pull.std())


@pytest.mark.parametrize(
    ("photons", "level", "least"), [(0, 3.0, 2.0), (100, 30.0, 1.8), (100, 3.0, 1.2), (10000, 3.0, 0.97)]
)
def test_scatters_less_than_a_sum(photons, level, least):
    rng = np.random.default_rng(6)
    frame = frame_of_spots(rng, level, photons)
    strong = frame_of_spots(rng, level, 3000)
    # The left half has strong spots that the profile is learnt from.
    half = frame.fs < SIZE / 2
    data = np.where(np.arange(SIZE) < SIZE / 2, strong.data, frame.data)
    places = np.where(half, strong.fs, frame.fs), np.where(half, strong.ss, frame.ss)
    mixed = frame._replace(data=data, fs=places[0], ss=places[1])
    error = fit(mixed)[0].I[~half] - photons
    of_sum = rings(mixed).I[~half] - photons
    assert of_sum.std() > least * error.std()


def test_shape_is_learnt():
    rng = np.random.default_rng(7)
    for sigma, streak in ((0.5, 0.0), (0.8, 0.0), (0.6, 1.2)):
        frame = frame_of_spots(rng, 1.0, 3000, sigma=sigma, streak=streak)
        _, profile = fit(frame)
        # A pixel adds the variance of its width.
        assert profile.tangential[0] == pytest.approx(sigma**2 + 1 / 12, rel=0.06)
        assert profile.radial[0] == pytest.approx(sigma**2 + 1 / 12, rel=0.12)
        assert abs(profile.tangential[1]) < 0.1
        assert profile.radial[1] == pytest.approx(streak**2, rel=0.2, abs=0.1)
        assert profile.n_spots == 200


def test_spots_in_wrong_places_do_not_spoil_the_shape():
    frame = frame_of_spots(np.random.default_rng(8), 1.0, 3000)
    _, clean = fit(frame)
    places = frame.fs.copy()
    places[::10] += 2.0
    _, spoilt = fit(frame._replace(fs=places))
    assert spoilt.radial[0] < 1.3 * clean.radial[0]


def test_too_few_strong_spots_are_summed():
    frame = frame_of_spots(np.random.default_rng(9), 3.0, 5)
    found, profile = fit(frame, background="flat")
    assert profile is None
    summed = rings(frame)
    np.testing.assert_array_equal(found.I, summed.I)
    assert (
        learn_profile(np.zeros((5, 64)), *np.zeros((3, 5)), 3.0, np.zeros((5, 2)), np.zeros(5), np.zeros((5, 3)))
        is None
    )


@pytest.mark.parametrize("method", ["profile", "rings"])
def test_partly_masked_spots_keep_their_intensity_down_to_70_percent(method):
    frame = frame_of_spots(np.random.default_rng(10), 1.0, 2000)
    whole, _ = fit(frame, method=method)
    row, column = np.floor(frame.ss).astype(int), np.floor(frame.fs).astype(int)
    third = np.arange(len(row)) % 3
    good = np.ones(frame.data.shape, dtype=bool)
    # One pixel beside the brightest, which has 5 to 45 % of the spot, or the brightest and one beside it.
    good[row[third == 1], column[third == 1] + 1] = False
    for step in (0, 1):
        good[row[third == 2], column[third == 2] + step] = False
    found, _ = fit(frame, good=good, data=np.where(good, frame.data, 10**6), method=method)
    assert found.ok[third == 0].all()
    # A spot in the corner of its pixel has less than 30 % there.
    assert (found.outcome[third == 2] == Outcome.incomplete).mean() > 0.9
    assert np.isnan(found.I[~found.ok]).all()
    kept = found.ok & (third == 1)
    assert kept.sum() > 0.7 * np.sum(third == 1)
    error = found.I[kept] / 2000 - 1
    # The shape's own error of a few per cent counts where a fifth is missing.
    assert abs(error.mean()) < 0.03 and error.std() < 0.06
    assert np.median(found.sigI[kept] / whole.sigI[kept]) > 1.03


@pytest.mark.parametrize("method", ["profile", "rings"])
def test_a_masked_pixel_at_the_rim_costs_nothing(method):
    frame = frame_of_spots(np.random.default_rng(11), 1.0, 2000)
    good = np.ones(frame.data.shape, dtype=bool)
    good[np.floor(frame.ss[::2]).astype(int), np.floor(frame.fs[::2]).astype(int) + 2] = False
    before, after = fit(frame, method=method)[0], fit(frame, good=good, method=method)[0]
    assert after.ok.all()
    change = (after.I - before.I) / before.sigI
    assert 0 < np.abs(change[::2]).max() and np.abs(change).mean() < 0.2


def test_saturated_pixels_drop_or_mask_their_reflection():
    rng = np.random.default_rng(12)
    frame = frame_of_spots(rng, 1.0)
    limit = 800.0
    highest = rings(frame).peak
    clipped = np.minimum(frame.data, 900)
    dropped, _ = fit(frame, data=clipped, max_adu=limit)
    np.testing.assert_array_equal(dropped.outcome == Outcome.saturated, highest > limit)
    masked, _ = fit(frame, data=clipped, max_adu=limit, mask_saturated=True)
    assert not (masked.outcome == Outcome.saturated).any()
    recovered = masked.ok & (highest > limit)
    assert 3 < recovered.sum() < (highest > limit).sum()
    # Without their brightest pixel spots are known to some per cent, not lost and not clipped.
    error = masked.I[recovered] / frame.photons[recovered] - 1
    assert abs(np.median(error)) < 0.08 and np.abs(error).max() < 0.35
    plain = (highest <= limit) & dropped.ok
    np.testing.assert_allclose(masked.I[plain], dropped.I[plain], rtol=0.03, atol=3)


@pytest.mark.parametrize("method", ["profile", "rings"])
def test_a_plane_takes_a_slope_away_where_pixels_are_missing(method):
    """Half of the ring is masked, so that the ring's mean lies on one side of the spot."""
    rng = np.random.default_rng(13)
    frame = frame_of_spots(rng, 160.0, 1000, slope=3.0)
    # Not across the steps of the simulated slope.
    inside = np.abs(frame.fs % 100 - 50) < 40
    good = np.ones(frame.data.shape, dtype=bool)
    for x, y in zip(frame.fs, frame.ss, strict=True):
        good[int(y) - 7 : int(y) + 8, int(x) + 4 : int(x) + 8] = False
    bias = {}
    for background in ("flat", "plane", "auto"):
        found, _ = fit(frame, good=good, method=method, background=background)
        error = found.I[inside] - 1000
        bias[background] = error.mean() / (error.std() / np.sqrt(inside.sum()))
        width = (error / found.sigI[inside]).std()
        assert width < 1.15
    assert bias["flat"] > 10
    assert abs(bias["plane"]) < 0.25 * bias["flat"]
    assert abs(bias["auto"]) < 0.5 * bias["flat"]


def test_auto_takes_no_plane_where_there_is_none():
    frame = frame_of_spots(np.random.default_rng(14), 3.0)
    auto, flat = fit(frame, background="auto")[0], fit(frame, background="flat")[0]
    assert (auto.I == flat.I).mean() > 0.97


def test_a_neighbour_is_no_part_of_the_spot():
    """Two spots five pixels apart: each keeps its own photons."""
    rng = np.random.default_rng(15)
    frame = frame_of_spots(rng, 1.0, 500, spacing=30)
    other = frame._replace(fs=frame.fs + 5.0)
    both = frame._replace(
        data=frame.data + np.roll(frame.data, 5, axis=1),
        fs=np.concatenate([frame.fs, other.fs]),
        ss=np.tile(frame.ss, 2),
        towards=np.tile(frame.towards, (2, 1)),
        relative_q2=np.tile(frame.relative_q2, 2),
    )
    found, _ = fit(both)
    assert found.ok.all()
    np.testing.assert_allclose(found.I.mean(), 500, rtol=0.02)


def test_order_and_neighbouring_frames_do_not_matter():
    frame = frame_of_spots(np.random.default_rng(16))
    order = np.random.default_rng(1).permutation(len(frame.fs))
    shuffled = frame._replace(
        fs=frame.fs[order], ss=frame.ss[order], towards=frame.towards[order], relative_q2=frame.relative_q2[order]
    )
    first, second = fit(frame)[0], fit(shuffled)[0]
    np.testing.assert_allclose(first.I[order], second.I, rtol=1e-9)
    np.testing.assert_array_equal(fit(frame)[0].I, first.I)


def test_no_reflections():
    empty = frame_of_spots(np.random.default_rng(17))._replace(
        fs=np.zeros(0), ss=np.zeros(0), towards=np.zeros((0, 2)), relative_q2=np.zeros(0)
    )
    found, profile = fit(empty)
    assert profile is None
    assert [len(column) for column in found] == [0] * 6


def test_radius_points_away_from_the_beam_on_every_panel():
    """Against positions in the laboratory a small step further out, on panels that are turned."""
    experiment = preset("demo", seed=3, panel_rotation=0.1)
    arrays, clen = panel_arrays(experiment.detector), experiment.detector.clen
    rng = np.random.default_rng(18)
    panel = rng.integers(0, len(arrays.bounds), 50)
    fs, ss = rng.uniform(20, 200, (2, 50))
    xyz = arrays.origin[panel] + fs[:, None] * arrays.fs[panel] + ss[:, None] * arrays.ss[panel] + [0, 0, clen]
    direction = xyz / np.linalg.norm(xyz, axis=1)[:, None]
    towards, relative_q2 = radial_axes(arrays, panel, direction)
    moved = xyz + 0.01 * (towards[:, :1] * arrays.fs[panel] + towards[:, 1:] * arrays.ss[panel])
    outwards = np.hypot(*moved.T[:2]) - np.hypot(*xyz.T[:2])
    assert (outwards > 0.98 * 0.01 * np.linalg.norm(arrays.fs[panel], axis=1)).all()
    np.testing.assert_allclose(np.linalg.norm(towards, axis=1), 1.0)
    two_theta = np.arctan2(np.hypot(*xyz.T[:2]), xyz[:, 2])
    q = np.sin(two_theta / 2)
    np.testing.assert_allclose(relative_q2, (q / q.max()) ** 2, rtol=1e-9)


def test_gaussians_are_those_of_exp():
    """Anywhere, those so far out that a series fails included."""
    radial, tangential = np.random.default_rng(61).exponential((4.0, 6.0), (5000, 2)).T * np.geomspace(1e-3, 300, 5000)
    heights = np.empty(len(radial))
    gaussians(radial, tangential, 0.7, 0.4, len(radial), heights)
    exact = np.exp(-0.7 * radial - 0.4 * tangential)
    np.testing.assert_allclose(heights, exact, rtol=0, atol=5e-14)
    near = exact > np.exp(-15)
    np.testing.assert_allclose(heights[near], exact[near], rtol=2e-10)
    assert exact.min() < 1e-300 and near.any()
