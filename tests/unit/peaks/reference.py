"""peakfinder8 as it is usually explained: statistics of every pixel, plain numpy, slow. And frames to try it on."""

import numpy as np
from scipy.ndimage import label

from sfxflow.geometry import PanelArrays

PIXEL = 75e-6


def flat_detector(bounds, centre, pixel=PIXEL):
    """Panels of one plane that lie in the laboratory as in the slab; `centre` = (fs, ss) of the beam."""
    bounds = np.array(bounds, dtype=np.int32)
    n = len(bounds)
    origin = np.zeros((n, 3))
    origin[:, 0] = (bounds[:, 2] - centre[0]) * pixel
    origin[:, 1] = (bounds[:, 0] - centre[1]) * pixel
    return PanelArrays(bounds, origin, np.tile([pixel, 0.0, 0.0], (n, 1)), np.tile([0.0, pixel, 0.0], (n, 1)))


def background(shape, centre, level=2.0, ring=1.0):
    """Photons a pixel: scattering that falls off with the radius, and a ring."""
    ss, fs = np.indices(shape) + 0.5
    radius = np.hypot(fs - centre[0], ss - centre[1])
    return level * np.exp(-radius / 150.0) + ring * np.exp(-(((radius - 180.0) / 40.0) ** 2))


def add_spots(expected, fs, ss, photons, sigma=0.7):
    """Add Gaussian spots, integrated over pixels, to the expected photons of each pixel."""
    from scipy.special import ndtr

    for x, y, n in zip(fs, ss, photons, strict=True):
        first_c, first_r = int(x) - 7, int(y) - 7
        along_c = np.diff(ndtr((np.arange(first_c, first_c + 16) - x) / sigma))
        along_r = np.diff(ndtr((np.arange(first_r, first_r + 16) - y) / sigma))
        r0, c0 = max(first_r, 0), max(first_c, 0)
        r1, c1 = min(first_r + 15, expected.shape[0]), min(first_c + 15, expected.shape[1])
        spot = n * np.outer(along_r, along_c)
        expected[r0:r1, c0:c1] += spot[r0 - first_r : r1 - first_r, c0 - first_c : c1 - first_c]


def spread_positions(rng, shape, n, apart=16.0, margin=12.0):
    """Up to n random positions that keep a distance; fs, ss."""
    kept = []
    for _ in range(20 * n):
        p = rng.uniform(margin, np.array(shape)[::-1] - margin)
        if all(np.hypot(*(p - q)) >= apart for q in kept):
            kept.append(p)
            if len(kept) == n:
                break
    return np.array(kept).T


def peakfinder8(data, bounds, bins, n_bins, settings, valid_range=(-np.inf, np.inf), gain=1.0, mean_for_centre=None):
    """Rows (fs, ss, intensity, snr, n_pixels, maximum, panel, background); `bins` is a map with n_bins for bad pixels.

    mean_for_centre replaces the means that weight the centre of the local background (where that is rounded to a pixel, a small
    difference of the means matters).
    """
    data = data.astype(float)
    with np.errstate(invalid="ignore"):
        usable = (bins < n_bins) & (data >= valid_range[0]) & (data <= valid_range[1])
    mean, sigma = np.full(n_bins, np.nan), np.full(n_bins, np.nan)
    for b in range(n_bins):
        values = data[usable & (bins == b)]
        inside = values
        for _ in range(5):
            if len(inside) == 0:
                break
            mean[b], sigma[b] = inside.mean(), inside.std()
            inside = values[np.abs(values - mean[b]) <= settings.min_snr * sigma[b]]
    z = settings.min_snr
    if settings.threshold is None:
        limit = mean + z * sigma + gain * (z * z - 1) / 6
    else:
        limit = np.maximum(mean + z * sigma, settings.threshold)
    limit = np.append(np.where(np.isfinite(limit), limit, np.inf), np.inf)
    mean = np.append(mean if mean_for_centre is None else mean_for_centre, 0.0)
    bright = usable & (np.where(usable, data, -np.inf) > limit[bins])
    rows = []
    for panel, (r0, r1, c0, c1) in enumerate(bounds):
        regions, n_regions = label(bright[r0:r1, c0:c1], structure=np.ones((3, 3)))
        for region in range(1, n_regions + 1):
            rr, cc = np.nonzero(regions == region)
            rr, cc = rr + r0, cc + c0
            inner = (rr > r0) & (rr < r1 - 1) & (cc > c0) & (cc < c1 - 1)
            if not inner.any() or not settings.min_pix_count <= len(rr) <= settings.max_pix_count:
                continue
            values = data[rr, cc]
            height = np.abs(values - mean[bins[rr, cc]])
            row, column = np.rint((height * rr).sum() / height.sum()), np.rint((height * cc).sum() / height.sum())
            reach = 2 * settings.local_bg_radius
            around_r, around_c = np.ogrid[r0:r1, c0:c1]
            around = (around_r - row) ** 2 + (around_c - column) ** 2 <= reach**2
            around &= usable[r0:r1, c0:c1] & ~bright[r0:r1, c0:c1]
            ring = data[r0:r1, c0:c1][around]
            if len(ring) < 10:
                continue
            offset = ring.mean()
            spread = np.sqrt(max(ring.var(), gain * offset, gain**2 / len(ring)))
            total = (values - offset).sum()
            if total < settings.min_snr * spread or values.max() < ring.max():
                continue
            fs, ss = (values * cc).sum() / values.sum() + 0.5, (values * rr).sum() / values.sum() + 0.5
            rows.append((fs, ss, total, total / spread, len(rr), values.max(), panel, offset))
    return np.array(rows).reshape(-1, 8)
