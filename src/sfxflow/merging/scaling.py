"""Parameters of the crystals: their start, their priors, which crystals count."""

import numpy as np

#: Order as in the kernels' `state`; units: 1, angstrom^2, 1, radian, radian, 1.
PARAMETERS = ("ln_scale", "B", "ln_width", "rotation_x", "rotation_y", "energy")
#: Standard deviations of the priors before any data. Later they are estimated from the crystals, starting as so many crystals.
_FIRST_PRIORS = np.array([3.0, 10.0, 0.25, 2e-4, 2e-4, 3e-4])
_PRIOR_CRYSTALS = 10.0
#: Fewest observations of a crystal, and in how many standard deviations its scale must be positive.
FEWEST_OBSERVATIONS = 10
_LEAST_SIGNIFICANCE = 5.0
#: Crystals whose scale is so many standard deviations (robust, of ln scale) off the median are left out.
_LARGEST_DEVIATION = 6.0
_N_SHELLS = 20


def first_priors():
    """Standard deviations of the parameters' priors, ndarray of shape (6,)."""
    return _FIRST_PRIORS.copy()


def first_status(counts):
    """Reason for which each crystal is left out from the start, '' for those that count."""
    few = f"fewer than {FEWEST_OBSERVATIONS} usable observations"
    return np.array([few if n < FEWEST_OBSERVATIONS else "" for n in counts], dtype=object)


def mean_intensity(run):
    """Mean intensity at the resolution of each reflection when all scales are 1: the start, ndarray of shape (n,)."""
    edges = np.linspace(0, run.curve.q2_max, _N_SHELLS + 1)
    above, below = np.zeros(_N_SHELLS), np.zeros(_N_SHELLS)
    for i in range(len(run.blocks)):
        block = run.blocks[i]
        number = np.asarray(block.columns["reflection"]) & np.uint32(0x7FFFFFFF)
        q2 = run.q[number] ** 2
        crystal = block.first_crystal + np.repeat(np.arange(len(block.offsets) - 1), np.diff(block.offsets))
        shape = run.shape[crystal]
        width = np.sqrt(shape[:, 0] + shape[:, 1] * q2 + shape[:, 2] * q2**2)
        x = np.abs(block.columns["excitation"]) / width
        height = np.exp(-(x**2) / 2) * run.reference_width / width if run.model != "unity" else np.ones_like(x)
        height *= run.active[crystal]
        shell = np.minimum((q2 / edges[1]).astype(int), _N_SHELLS - 1)
        above += np.bincount(shell, height * block.columns["intensity"], _N_SHELLS)
        below += np.bincount(shell, height**2, _N_SHELLS)
    return _interpolated(run.q, edges, above, below)


def prior_intensity(q, merged, information, previous):
    """Mean intensity at the resolution of each reflection, from merged intensities (`information` is 1/variance)."""
    edges = np.linspace(0, q.max() ** 2 * 1.0001, _N_SHELLS + 1)
    shell = np.minimum((q**2 / edges[1]).astype(int), _N_SHELLS - 1)
    # the intensities scatter about their mean by Wilson's law (standard deviation = mean) besides their own uncertainty
    weight = information / (information * previous**2 + 1.0)
    above = np.bincount(shell, weight * merged, _N_SHELLS)
    below = np.bincount(shell, weight, _N_SHELLS)
    return _interpolated(q, edges, above, below)


def _interpolated(q, edges, above, below):
    good = (below > 0) & (above > 0)
    if not good.any():
        return np.ones(len(q))
    centres = (edges[1:] + edges[:-1])[good] / 2
    return np.exp(np.interp(q**2, centres, np.log(above[good] / below[good])))


def fix_gauge(run):
    """Mean ln scale and B of the crystals that count become 0, and the intensities follow.

    The mean ln width becomes 0 as well where the curve is empirical and can follow.

    Returns
    -------
    float
        Factor by which the widths were divided: the curve has to be stretched by it.
    """
    good = run.active > 0
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
    good = run.active > 0
    n = good.sum()
    found = np.sum(run.state[good] ** 2 + run.quality[good, 4:], axis=0)
    found[3] = found[4] = (found[3] + found[4]) / 2
    updated = np.sqrt((found + _PRIOR_CRYSTALS * _FIRST_PRIORS**2) / (n + _PRIOR_CRYSTALS))
    updated[0] = _FIRST_PRIORS[0]
    return np.where(fitted > 0, updated, run.priors)


def judged(run):
    """Which crystals count: status texts and the kernels' `active`.

    A crystal counts when its scale is significantly above zero (the crystal agrees with the others at all) and is not absurd.
    """
    status = first_status(run.counts)
    tried = run.active > 0
    used, above, below = run.quality[:, 0], run.quality[:, 1], run.quality[:, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        significance = np.where(below > 0, above / np.sqrt(below), 0.0)
    status[tried & (used < FEWEST_OBSERVATIONS)] = "too few observations in common with other crystals"
    unlike = tried & (status == "") & ~(significance > _LEAST_SIGNIFICANCE)
    status[unlike] = "intensities do not agree with the other crystals"
    good = tried & (status == "")
    if good.sum() > 10:
        scale = run.state[:, 0]
        median = np.median(scale[good])
        deviation = max(1.4826 * np.median(np.abs(scale[good] - median)), 0.1)
        status[good & (np.abs(scale - median) > _LARGEST_DEVIATION * deviation)] = "absurd scale"
    earlier = ~tried & (run.status != "")
    status[earlier] = run.status[earlier]
    return status, (status == "").astype(np.uint8)
