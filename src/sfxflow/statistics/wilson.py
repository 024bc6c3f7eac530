"""Wilson plot and B factor: once as check_hkl --wilson has it, once with the squares of the form factors."""

import gemmi
import numpy as np

#: Average atoms of an amino acid residue (Rupp, Biomolecular Crystallography, 2010, p. 356).
_RESIDUE = {"C": 5.00, "N": 1.35, "O": 1.50, "H": 8.00}

#: The fit starts at d = 3.2 angstrom: below, the solvent and the fold bend the plot.
FIT_FROM = 0.3125

#: The range of the plot is this much wider than that of the data at either end, 1/angstrom.
_WIDER = 1e-4


def wilson_plot(intensity, s, epsilon, s_min=None, s_max=None, n_bins=50, squared=False):
    """ln(<I / (epsilon E)>) in bins that are equally wide in (sin(theta) / lambda)^2.

    Parameters
    ----------
    intensity : ndarray, shape (n,)
    s : ndarray, shape (n,)
        1/d, 1/angstrom.
    epsilon : ndarray of int, shape (n,)
        Rotations of the point group that map the reflection onto itself (`point_group.epsilon`).
    s_min, s_max : float, optional
        Range; by default a little more than that of the data.
    n_bins : int
    squared : bool
        False: E is the sum of the form factors of a residue's atoms, as in check_hkl. True: of their squares, as Wilson's
        statistics ask for.

    Returns
    -------
    x, y : ndarray, shape (n_bins,)
        (s / 2)^2 in 1/angstrom^2 at the bins' centres, and the logarithm; NaN for an empty bin or a negative mean.
    n : ndarray of int, shape (n_bins,)
        Reflections in each bin.

    References
    ----------
    Wilson (1942), Nature 150, 151-152, doi:10.1038/150152a0.
    """
    if not len(s):
        return np.full(n_bins, np.nan), np.full(n_bins, np.nan), np.zeros(n_bins, dtype=np.int64)
    low = ((s.min() - _WIDER if s_min is None else s_min) / 2.0) ** 2
    high = ((s.max() + _WIDER if s_max is None else s_max) / 2.0) ** 2
    step = (high - low) / n_bins
    x = (s / 2.0) ** 2
    bins = np.clip(np.trunc((x - low) / step) if step > 0 else np.zeros(len(x)), 0, n_bins - 1).astype(np.int64)
    normalised = intensity / (epsilon * _expected(x, squared))
    n = np.bincount(bins, minlength=n_bins)
    with np.errstate(invalid="ignore", divide="ignore"):
        y = np.log(np.bincount(bins, weights=normalised, minlength=n_bins) / n)
    y[~np.isfinite(y)] = np.nan
    return low + (np.arange(n_bins) + 0.5) * step, y, n


def wilson_b(x, y):
    """B factor in angstrom^2 from a Wilson plot with equally spaced x; NaN where fewer than three bins lie beyond 3.2 angstrom."""
    step = x[1] - x[0] if len(x) > 1 else np.nan
    if not step > 0 or x[-1] + step / 2.0 < (FIT_FROM / 2.0) ** 2:
        return np.nan
    start = int(((FIT_FROM / 2.0) ** 2 - (x[0] - step / 2.0)) / step + 1)
    x, y = x[max(start, 0) :], y[max(start, 0) :]
    use = np.isfinite(y)
    if np.count_nonzero(use) < 3:
        return np.nan
    x, y = x[use] - x[use].mean(), y[use]
    return float(-0.5 * np.sum(x * (y - y.mean())) / np.sum(x * x))


def _expected(x, squared):
    total = np.zeros(len(x))
    for element, count in _RESIDUE.items():
        factor = _tabulated(element, x) if squared else _check_hkl(element, x)
        total += count * (factor**2 if squared else factor)
    return total


def _tabulated(element, x):
    """Form factor at (sin(theta) / lambda)^2 = x (International Tables C, 6.1.1.4, as gemmi holds them)."""
    return _gaussians(gemmi.Element(element).it92.get_coefs(), x)


def _check_hkl(element, x):
    """Form factor as check_hkl has it: hydrogen as the isolated atom, and one exponent of oxygen ten times that of the tables."""
    if element == "H":
        return _gaussians((0.489918, 0.262003, 0.196767, 0.049879, 20.6593, 7.74039, 49.5519, 2.20159, 0.001305), x)
    # Six digits: gemmi holds the tables in single precision.
    coefficients = [float(f"{c:.6g}") for c in gemmi.Element(element).it92.get_coefs()]
    if element == "O":
        coefficients[7] = 322.9098
    return _gaussians(coefficients, x)


def _gaussians(coefficients, x):
    heights, widths, constant = coefficients[:4], coefficients[4:8], coefficients[8]
    return sum(a * np.exp(-b * x) for a, b in zip(heights, widths, strict=True)) + constant
