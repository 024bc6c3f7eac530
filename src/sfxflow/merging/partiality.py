"""The partiality curve: how much of a reflection is recorded at a distance from the Ewald sphere, estimated from the data.

Distances are in widths, x = |excitation error| / (w sigma(q)). A lattice point is recorded with its density at the sphere, and
whatever smears the density (mosaic spread, bandwidth, errors of the orientation) leaves its integral along the normal as it is:
the curve of every resolution range has the same area in 1/angstrom, so its height goes with 1/sigma(q).

Models with a form of their own: a Gaussian in the distance (Kabsch 2014, Acta Cryst. D70, 2204-2216,
doi:10.1107/S1399004714013534), and the section of a sphere, averaged over the spectrum (White 2014, Phil. Trans. R. Soc. B 369,
20130330, doi:10.1098/rstb.2013.0330; Ginn et al. 2015, Acta Cryst. D71, 1400-1410, doi:10.1107/S1399004715006902). Here its radius
grows with q as sigma(q) does without the bandwidth.
"""

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.special import ndtr

#: Nodes of the tables for each unit of x, and rows for q^2.
NODES_PER_UNIT = 16
N_ROWS = 32
#: Bins of the estimate: resolution ranges, and bins of x for each unit.
N_RANGES = 4
#: Fewer crystals than this can't tell the curve's form: a Gaussian is taken.
FEWEST_CRYSTALS_FOR_CURVE = 5
BINS_PER_UNIT = 4
#: Relative uncertainty that a bin's own resolution range is given against the mean of all ranges.
_RANGE_SPREAD = 0.1
#: Relative uncertainty that the mean curve is given against a Gaussian.
_GAUSSIAN_SPREAD = 0.3
#: The spread that stands before any data: relative error of the partiality, and the weight in strong observations that it keeps.
FIRST_SPREAD = 0.2
_SPREAD_WEIGHT = 10.0
_LEAST_SPREAD = 0.02
_GAUSSIAN_AREA = np.sqrt(np.pi / 2)


@dataclass(frozen=True)
class PartialityCurve:
    """Tables for the kernels.

    Attributes
    ----------
    model : str
        'empirical', 'gaussian', 'xsphere' or 'unity'.
    values, slopes, spread : ndarray, shape (N_ROWS, n_nodes)
        Partiality, its derivative with x, and the variance of its error.
    q2_max : float
        q^2 at the end of the last row, 1/angstrom^2.
    x_max : float
        Widths at the last node; beyond it nothing is recorded.
    """

    model: str
    values: np.ndarray
    slopes: np.ndarray
    spread: np.ndarray
    q2_max: float
    x_max: float

    @property
    def rows_per_q2(self):
        """Rows for a unit of q^2."""
        return N_ROWS / self.q2_max

    def arrays(self):
        """Arrays for a file: x, q (centres of the rows), partiality and the standard deviation of its error."""
        rows = (np.arange(N_ROWS) + 0.5) / self.rows_per_q2
        return {
            "x": np.arange(self.values.shape[1]) / NODES_PER_UNIT,
            "q": np.sqrt(rows),
            "partiality": self.values,
            "error": np.sqrt(self.spread),
        }


def n_bins(x_max):
    """Bins of x in which the curve is estimated."""
    return max(2, int(np.ceil(x_max * BINS_PER_UNIT)))


def range_edges(q2_max):
    """Upper limits of q^2 of the resolution ranges but the last: equal steps of q^2."""
    return q2_max * np.arange(1, N_RANGES) / N_RANGES


def usable_model(wanted, n_crystals):
    """The partiality model that so many crystals allow, and why it is not the one that was wanted ('' where it is).

    Parameters
    ----------
    wanted : str
    n_crystals : int
        Those with enough observations.

    Returns
    -------
    model, reason : str
    """
    if wanted != "empirical" or n_crystals >= FEWEST_CRYSTALS_FOR_CURVE:
        return wanted, ""
    return "gaussian", (
        f"{n_crystals} crystals are fewer than the {FEWEST_CRYSTALS_FOR_CURVE} that tell the form of the partiality curve: "
        "a Gaussian was taken instead of an empirical curve"
    )


def first_curve(model, q2_max, x_max, shape=None):
    """The curve before any data.

    Parameters
    ----------
    model : str
        'empirical' starts with a Gaussian, as 'gaussian'; 'xsphere'; 'unity' is 1 everywhere.
    q2_max, x_max : float
    shape : sequence of 3 or more floats, optional
        R0^2, eta^2, (bandwidth lambda / 2)^2 of a usual crystal, for 'xsphere'.

    Returns
    -------
    PartialityCurve
    """
    x = np.arange(int(np.ceil(x_max * NODES_PER_UNIT)) + 2) / NODES_PER_UNIT
    if model == "xsphere":
        q2 = (np.arange(N_ROWS) + 0.5) * q2_max / N_ROWS
        by_spectrum = shape[2] * q2**2 / (shape[0] + shape[1] * q2 + shape[2] * q2**2)
        values, slopes = (np.array(rows) for rows in zip(*(_sphere(x, part) for part in by_spectrum), strict=True))
    else:
        row = np.ones_like(x) if model == "unity" else np.exp(-(x**2) / 2)
        slope = np.zeros_like(x) if model == "unity" else -x * row
        values, slopes = np.tile(row, (N_ROWS, 1)), np.tile(slope, (N_ROWS, 1))
    # the last node is the end: nothing is recorded from there on
    return PartialityCurve(model, values, slopes, (FIRST_SPREAD * values) ** 2, q2_max, x_max)


def _sphere(x, by_spectrum):
    """Section of a sphere at x, averaged over a Gaussian spectrum, and its derivative; the variance along the normal is 1.

    `by_spectrum` is the spectrum's part of the variance. The section at a distance e of the centre has the area pi (R^2 - e^2), and
    a sphere's variance along any direction is R^2 / 5.
    """
    radius, width = np.sqrt(5.0 * (1.0 - by_spectrum)), np.sqrt(max(by_spectrum, 1e-6))
    first, last = (-radius - x) / width, (radius - x) / width
    within = ndtr(last) - ndtr(first)
    at_first, at_last = (np.exp(-(end**2) / 2) / np.sqrt(2 * np.pi) for end in (first, last))
    moment = at_first - at_last
    section = (1.0 - (x**2 + width**2) / radius**2) * within - 2.0 * x * width / radius**2 * moment
    section -= (width / radius) ** 2 * (first * at_first - last * at_last)
    height = 2.0 * _GAUSSIAN_AREA * 0.75 / radius
    return height * np.maximum(section, 0.0), -2.0 * height / radius**2 * (x * within + width * moment)


def decreasing(values, weights):
    """Weighted least-squares fit that never increases (pool adjacent violators).

    Parameters
    ----------
    values, weights : ndarray, shape (n,)

    Returns
    -------
    ndarray, shape (n,)
    """
    level, weight, length = [], [], []
    for value, w in zip(values, weights, strict=True):
        level.append(value)
        weight.append(w)
        length.append(1)
        while len(level) > 1 and level[-2] < level[-1]:
            total = weight[-2] + weight[-1]
            mean = (level[-2] * weight[-2] + level[-1] * weight[-1]) / total if total > 0 else level[-1]
            level[-2:], weight[-2:], length[-2:] = [mean], [total], [length[-2] + length[-1]]
    return np.repeat(level, length)


def estimate(sums, previous, stretch=1.0):
    """The curve and its spread from the sums of a pass.

    Parameters
    ----------
    sums : ndarray, shape (N_RANGES, n_bins, 4)
        From `kernels.fit_block`.
    previous : PartialityCurve
        The curve with which the sums were made.
    stretch : float
        Factor on x since then: the crystals' widths were divided by it.

    Returns
    -------
    PartialityCurve

    Notes
    -----
    A bin's partiality is the least-squares ratio of what was observed to what is expected of a full reflection. Ranges are drawn
    towards their mean, and the mean towards a Gaussian, by their uncertainties; then made decreasing, smoothed by [1 2 1] / 4 and
    brought to the area of a Gaussian of width 1.
    """
    n = sums.shape[1]
    centres = (np.arange(n) + 0.5) * previous.x_max / n * stretch
    above, below = sums[:, :, 0], sums[:, :, 1]
    pooled_above, pooled_below = above.sum(axis=0), below.sum(axis=0)
    gaussian = np.exp(-(centres**2) / 2)
    known = pooled_below > 0
    # the height of the Gaussian that it is drawn to is free: the data's scale is arbitrary here
    height = np.sum(pooled_above * gaussian) / max(np.sum(pooled_below * gaussian**2), 1e-300) if known.any() else 1.0
    if not height > 0:
        return previous
    prior = gaussian * height
    precision = 1.0 / (_GAUSSIAN_SPREAD * (prior + 0.02 * height)) ** 2
    pooled = (pooled_above + precision * prior) / (pooled_below + precision)
    pooled = np.maximum(decreasing(pooled, pooled_below + precision), 0.0)
    precision = 1.0 / (_RANGE_SPREAD * (pooled + 0.02 * pooled[0])) ** 2
    curves = (above + precision * pooled) / (below + precision)
    curves = np.array([decreasing(row, w) for row, w in zip(curves, below + precision, strict=True)])
    curves = np.maximum(_smoothed(curves), 0.0)
    area = curves.sum(axis=1) * (centres[1] - centres[0])
    if not np.all(area > 0):
        return previous
    scale = _GAUSSIAN_AREA / area[:, None]
    curves *= scale
    spread = _estimated_spread(sums, curves)
    x = np.arange(previous.values.shape[1]) / NODES_PER_UNIT
    values, slopes = _on_nodes(centres, curves, x)
    variance, _ = _on_nodes(centres, spread, x)
    return PartialityCurve(
        "empirical",
        _on_rows(values),
        _on_rows(slopes),
        np.maximum(_on_rows(variance), (_LEAST_SPREAD * _on_rows(values)) ** 2),
        previous.q2_max,
        previous.x_max,
    )


def estimate_spread(sums, previous):
    """`previous` with a spread from the data and the curve as it is: one relative error where the model is unity."""
    n = sums.shape[1]
    x = np.arange(previous.values.shape[1]) / NODES_PER_UNIT
    centres = (np.arange(n) + 0.5) * previous.x_max / n
    curves = np.array([np.interp(centres, x, previous.values[0])] * len(sums))
    if previous.model == "unity":
        sums = np.broadcast_to(sums.sum(axis=(0, 1)), sums.shape)
    variance, _ = _on_nodes(centres, _estimated_spread(sums, curves), x)
    variance = np.maximum(_on_rows(variance), (_LEAST_SPREAD * previous.values) ** 2)
    return PartialityCurve(previous.model, previous.values, previous.slopes, variance, previous.q2_max, previous.x_max)


def _estimated_spread(sums, curves):
    """Variance of the partiality's error in each range and bin, drawn to the mean of the ranges and to `FIRST_SPREAD`."""
    above, below = sums[:, :, 2], sums[:, :, 3]
    first = (FIRST_SPREAD * np.maximum(curves.mean(axis=0), 0.05 * curves.max())) ** 2
    keep = _SPREAD_WEIGHT / first**2
    pooled = np.maximum((above.sum(axis=0) + keep * first) / (below.sum(axis=0) + keep), 0.01 * first)
    keep = _SPREAD_WEIGHT / pooled**2
    return np.maximum(_smoothed((above + keep * pooled) / (below + keep)), 0.0)


def _smoothed(rows):
    """[1 2 1] / 4 along the rows; a curve is even about 0, and its last value stays."""
    padded = np.concatenate([rows[:, :1], rows, rows[:, -1:]], axis=1)
    return (padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]) / 4


def _on_nodes(centres, rows, x):
    """Values and slopes of monotone cubics through the bins, even about 0, at the nodes x."""
    mirrored = np.concatenate([-centres[::-1], centres])
    values, slopes = [], []
    for row in rows:
        cubic = PchipInterpolator(mirrored, np.concatenate([row[::-1], row]))
        inside = np.minimum(x, centres[-1])
        values.append(cubic(inside))
        slopes.append(np.where(x < centres[-1], cubic(inside, 1), 0.0))
    return np.array(values), np.array(slopes)


def _on_rows(ranges):
    """Curves of the resolution ranges, interpolated to the rows of the table (linear in q^2, constant at both ends)."""
    place = np.clip((np.arange(N_ROWS) + 0.5) * N_RANGES / N_ROWS - 0.5, 0, N_RANGES - 1)
    low = np.minimum(place.astype(int), N_RANGES - 2)
    part = (place - low)[:, None]
    return (1 - part) * ranges[low] + part * ranges[low + 1]
