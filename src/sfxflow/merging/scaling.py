"""Parameters of the crystals: their start, their priors, which crystals count."""

import numpy as np

from sfxflow.merging import kernels

#: Order as in the kernels' `state`; units: 1, angstrom^2, 1, radian, radian, 1.
PARAMETERS = ("ln_scale", "B", "ln_width", "rotation_x", "rotation_y", "energy")
#: Standard deviations of the priors before any data. Later they are estimated from the crystals, starting as so many crystals.
_FIRST_PRIORS = np.array([3.0, 10.0, 0.25, 2e-4, 2e-4, 3e-4])
_PRIOR_CRYSTALS = 10.0
#: Fewest observations of a crystal, and in how many standard deviations its scale must be positive.
FEWEST_OBSERVATIONS = 10
_LEAST_SIGNIFICANCE = 5.0
#: A scale that is by more than this factor off the median is absurd.
_ABSURD = 1e4
_N_SHELLS = 20
#: Order of a relative difference of Friedel mates or of groups, for the weights with which its mean square is found.
_DIFFERENCE_SCALE = 0.05
NOT_ASKED_FOR = "left out of this run"
WAITING = "not fitted yet"
LOWERS_CC = "lowers CC1/2"
_UNLIKE = "intensities do not agree with the other crystals"


def first_priors():
    """Standard deviations of the parameters' priors, ndarray of shape (6,)."""
    return _FIRST_PRIORS.copy()


def first_status(counts):
    """Reason for which each crystal is left out from the start, '' for those that count."""
    few = f"fewer than {FEWEST_OBSERVATIONS} usable observations"
    return np.array([few if n < FEWEST_OBSERVATIONS else "" for n in counts], dtype=object)


def start(run):
    """First scale of each crystal, and the mean intensity at the resolution of each reflection.

    Returns
    -------
    ln_scale : ndarray, shape (n_crystals,)
    mean : ndarray, shape (n_reflections,)
        Expected intensity of each reflection.
    """
    peak = 0.0 if run.model == "unity" else run.reference_width

    def passed(scale, by_crystal, by_shell):
        for i in range(len(run.blocks)):
            block = run.blocks[i]
            own = slice(block.first_crystal, block.first_crystal + len(block.offsets) - 1)
            columns = (block.columns[name] for name in ("reflection", "excitation", "intensity"))
            kernels.first_block(
                block.offsets, *columns, run.shape[own], run.active[own], run.q, peak, scale[own], edges[1], by_crystal[own], by_shell
            )  # fmt: skip

    edges = np.linspace(0, run.curve.q2_max, _N_SHELLS + 1)
    scale = np.ones(len(run.state))
    by_crystal, by_shell = np.zeros((len(scale), 2)), np.zeros((_N_SHELLS, 2))
    passed(scale, by_crystal, by_shell)
    positive = (by_crystal > 0).all(axis=1) & (run.active == 1)
    scale[positive] = (by_crystal[positive, 0] / by_crystal[positive, 1]) ** 2
    scale[~positive] = np.median(scale[positive]) if positive.any() else 1.0
    by_shell[:] = 0.0
    passed(scale, by_crystal, by_shell)
    return np.log(scale), run.epsilon * _interpolated(run.q, edges, *by_shell.T)


def prior_intensity(q, merged, information, previous, epsilon):
    """Expected intensity of each reflection, from merged intensities (`information` is 1/variance) at its resolution.

    The scatter about it is that of Wilson (1949), Acta Cryst. 2, 318-321, doi:10.1107/S0365110X49000813. It is higher by the
    factor `epsilon` where operations of the point group leave the reflection as it is.
    """
    edges = np.linspace(0, q.max() ** 2 * 1.0001, _N_SHELLS + 1)
    shell = np.minimum((q**2 / edges[1]).astype(int), _N_SHELLS - 1)
    # the intensities scatter about their mean by Wilson's law (standard deviation = mean) besides their own uncertainty
    weight = information / (information * previous**2 + 1.0)
    above = np.bincount(shell, weight * epsilon * merged, _N_SHELLS)
    below = np.bincount(shell, weight * epsilon**2, _N_SHELLS)
    return epsilon * _interpolated(q, edges, above, below)


def _interpolated(q, edges, above, below):
    good = (below > 0) & (above > 0)
    if not good.any():
        return np.ones(len(q))
    centres = (edges[1:] + edges[:-1])[good] / 2
    return np.exp(np.interp(q**2, centres, np.log(above[good] / below[good])))


def known_of_mates(sums, anomalous):
    """What the merged sums say of each reflection and of its Friedel mate.

    Parameters
    ----------
    sums : ndarray, shape (n, 4, 4)
        As `kernels.merge_block` fills them.
    anomalous : bool
        Friedel mates differ: each tells of the other only as far as the mean anomalous difference, found from the data, lets it.

    Returns
    -------
    ndarray, shape (n, 2, 2)
        Sums of g y / var and of g^2 / var, for the reflection and the mate.
    """
    own = (sums[:, ::2] + sums[:, 1::2])[:, :, :2]
    if not anomalous:
        return np.ascontiguousarray(own + own[:, ::-1])
    return own + _loosened(own[:, ::-1], _relative_difference(own[:, 0], own[:, 1]))


def known_of_groups(apart, anomalous):
    """What the merged sums say of each reflection and its Friedel mate in each group of crystals.

    The groups may differ: the others tell of one only as far as the mean difference from them, found from the data, lets them.
    Scaled to what all have in common, each group would be drawn towards the mean, and differences would come out too small.

    Parameters
    ----------
    apart : ndarray, shape (n, 2, n_groups, 2, 4)
        Sums by mate, group and half set.
    anomalous : bool
        As for `known_of_mates`.

    Returns
    -------
    ndarray, shape (n_groups, n, 2, 2)
        As `known_of_mates` for each group.
    """
    n, _, n_groups = apart.shape[:3]
    total = apart.sum(axis=2)
    known = np.empty((n_groups, n, 2, 2))
    for g in range(n_groups):
        own, others = (
            known_of_mates(sums.reshape(n, 4, -1), anomalous) for sums in (apart[:, :, g], total - apart[:, :, g])
        )
        known[g] = own + _loosened(others, _relative_difference(own.mean(axis=1), others.mean(axis=1)))
    return known


def _merged(sums):
    """Intensity and variance from sums (..., 2), 0 where there is nothing, and where there is something."""
    there = sums[..., 1] > 0
    intensity = np.divide(sums[..., 0], sums[..., 1], where=there, out=np.zeros(there.shape))
    return intensity, np.divide(1.0, sums[..., 1], where=there, out=np.zeros(there.shape)), there


def _relative_difference(one, other):
    """Mean square of the relative difference of two sets of intensities, sums (n, 2), that is more than their noise."""
    both = (one[:, 1] > 0) & (other[:, 1] > 0)
    (first, first_variance, _), (second, second_variance, _) = (_merged(sums[both]) for sums in (one, other))
    difference, mean, noise = first - second, (first + second) / 2, first_variance + second_variance
    weight = mean**2 / (noise + (_DIFFERENCE_SCALE * mean) ** 2) ** 2
    return max(np.sum(weight * (difference**2 - noise)) / max(np.sum(weight * mean**2), 1e-300), 0.0)


def _loosened(sums, relative):
    """What sums tell of intensities that differ from theirs by `relative` (mean square of the relative difference)."""
    intensity, variance, there = _merged(sums)
    information = np.divide(1.0, variance + relative * intensity**2, where=there, out=np.zeros(there.shape))
    return np.stack([information * intensity, information], axis=-1)


def fix_gauge(run):
    """Mean ln scale and B of the crystals that count become 0, and the intensities follow.

    The mean ln width becomes 0 as well where the curve is empirical and can follow.

    Returns
    -------
    float
        Factor by which the widths were divided: the curve has to be stretched by it.
    """
    good = run.active == 1
    if not good.any():
        return 1.0
    shift = run.state[good, :3].mean(axis=0)
    if run.model != "empirical":
        shift[2] = 0.0
    run.state[:, :3] -= shift
    factor = np.exp(shift[0] - 0.5 * shift[1] * run.q**2)
    run.current *= factor
    run.prior *= factor
    return float(np.exp(shift[2]))


def updated_priors(run, fitted):
    """Standard deviations of the priors from the crystals' parameters and their posterior variances (one step of EM)."""
    good = run.active == 1
    n = good.sum()
    found = np.sum(run.state[good] ** 2 + run.quality[good, 4:], axis=0)
    found[3] = found[4] = (found[3] + found[4]) / 2
    updated = np.sqrt((found + _PRIOR_CRYSTALS * _FIRST_PRIORS**2) / (n + _PRIOR_CRYSTALS))
    updated[0] = _FIRST_PRIORS[0]
    return np.where(fitted > 0, updated, run.priors)


def judged(run, agreement):
    """Which crystals count: status texts and the kernels' `active`.

    A crystal counts when its scale is significantly above zero and not absurd, and, where `agreement` is asked for, when the other
    crystals predict its intensities better than Wilson's distribution does. Crystals that fail go on being fitted.
    """
    status = first_status(run.counts)
    for text in (NOT_ASKED_FOR, LOWERS_CC, WAITING):
        status[run.status == text] = text
    tried = status == ""
    used, above, below, gained = run.quality[:, :4].T
    with np.errstate(divide="ignore", invalid="ignore"):
        significance = np.where(below > 0, above / np.sqrt(below), 0.0)
    status[tried & (used < FEWEST_OBSERVATIONS)] = "too few observations in common with other crystals"
    status[(status == "") & ~(significance > _LEAST_SIGNIFICANCE)] = "scale not significantly above zero"
    if agreement and tried.sum() > 1:
        status[(status == "") & (gained < 0)] = _UNLIKE
    good = status == ""
    if good.any():
        ratio = run.state[:, 0] - np.median(run.state[good, 0])
        status[good & (np.abs(ratio) > np.log(_ABSURD))] = "absurd scale"
    return status, np.where(status == "", 1, np.where(tried, 2, 0)).astype(np.uint8)
