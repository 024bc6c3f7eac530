"""Uncertainties of reflections that were recorded once: nothing else tells of their intensity, on which the uncertainty depends.

The error of a partiality adds (s I)^2 to the variance of a measurement. Where the one measurement is low because the partiality was, so
is the intensity, and its uncertainty comes out too small. Here all intensities count that may lie behind: the likelihood of I, given
y = g I + noise with g ~ N(g0, s^2), is that of a normal distribution with the mean g0 I and the variance v(I) = background + photons +
(s I)^2 (the Gaussian error of g integrated out), which for large s I falls with 1/I only. On a grid of intensities it is multiplied over
all measurements, also those of which hardly anything was recorded, and with Wilson's distribution (for one measurement of normal error
that is French & Wilson 1978, Acta Cryst. A34, 517-525, doi:10.1107/S0567739478001114). The mean square distance of this posterior from
the merged intensity is what that is uncertain by; the intensity itself stays as it was measured.
"""

import numpy as np
from numba import njit

from sfxflow.merging.kernels import (
    NUMBER_MASK,
    background_variance,
    factors,
    moved,
    narrowness_and_base,
)
from sfxflow.merging.observations import POLARISATION_UNIT

#: Intensities of the grid, in mean intensities at the resolution: even in their square root; Wilson leaves 1e-7 beyond the end.
GRID = (np.arange(64) + 0.5) ** 2 * (4.0 / 64) ** 2


def wilson(centric):
    """Wilson's distribution on `GRID`, for each reflection.

    Wilson (1949), Acta Cryst. 2, 318-321, doi:10.1107/S0365110X49000813, equations 9 and 13.

    Parameters
    ----------
    centric : ndarray of bool, shape (n,)

    Returns
    -------
    ndarray of float64, shape (n, len(GRID))
        Natural logarithms of the probabilities, but for a constant.
    """
    # the steps of the grid go with the root of the intensity, which is just the singularity of the centric distribution
    acentric = np.log(GRID) / 2 - GRID
    return np.where(np.asarray(centric)[:, None], -GRID / 2, acentric)


@njit(cache=True, nogil=True)
def count_block(offsets, reflection, weight, active, slot, counts):
    """Add the measurements of the crystals that count, without those rejected, to `counts`, shape (n_groups, n_reflections)."""
    for c in range(len(offsets) - 1):
        if active[c] != 1:
            continue
        own = counts[slot[c] >> 1]
        for j in range(offsets[c], offsets[c + 1]):
            own[reflection[j] & NUMBER_MASK] += weight[j] > 0


@njit(cache=True, nogil=True)
def likelihood_block(
    offsets, reflection, excitation, intensity, sigma, polarisation, azimuth, weight,
    state, shape, active, q, place, prior, curve, spread, numbers, likelihood,
):  # fmt: skip
    """Add a block's measurements to the logarithms of the likelihoods of some reflections. See `kernels`.

    Parameters
    ----------
    place : int64, shape (n_reflections,)
        Row of `likelihood` of each reflection, -1 for those that are not asked for.
    prior : float64, shape (n_reflections,)
        Expected intensity of each reflection.
    likelihood : float64, shape (n_asked_for, len(GRID))
        Out, added: at the intensities `GRID` times `prior`.
    """
    nodes, rows = curve.shape[1], curve.shape[0]
    for c in range(len(offsets) - 1):
        if active[c] != 1:
            continue
        own_state, own_shape = state[c], shape[c]
        narrowing, scale = factors(own_state, numbers)
        for j in range(offsets[c], offsets[c + 1]):
            h = reflection[j] & NUMBER_MASK
            if place[h] < 0 or weight[j] == 0:
                continue
            q2 = q[h] * q[h]
            narrowness, base = narrowness_and_base(q2, own_state, own_shape, numbers, narrowing, scale)
            along = abs(moved(excitation[j], azimuth[j], q[h], q2, own_state, own_shape[3])) * narrowness * numbers[0]
            node = int(along)
            if node >= nodes - 1:
                continue
            row = min(int(q2 * numbers[1]), rows - 1)
            part = along - node
            g = base * (curve[row, node] + part * (curve[row, node + 1] - curve[row, node]))
            uncertain = base * base * (spread[row, node] + part * (spread[row, node + 1] - spread[row, node]))
            gain = own_shape[4] * POLARISATION_UNIT / polarisation[j]
            background = background_variance(intensity[j], sigma[j], gain)
            own = likelihood[place[h]]
            for k in range(len(own)):
                level = GRID[k] * prior[h]
                variance = background + gain * g * level + uncertain * level * level
                residual = intensity[j] - g * level
                own[k] -= 0.5 * (np.log(variance) + residual * residual / variance)


def root_mean_square_error(merged, likelihood, centric, prior):
    """Root of the mean square distance of the posterior from merged intensities.

    Parameters
    ----------
    merged : ndarray, shape (n,)
    likelihood : ndarray, shape (n, len(GRID))
        From `likelihood_block`.
    centric : ndarray of bool, shape (n,)
    prior : ndarray, shape (n,)
        Expected intensity of each reflection.

    Returns
    -------
    ndarray, shape (n,)
    """
    posterior = likelihood + wilson(centric)
    posterior = np.exp(posterior - posterior.max(axis=1, keepdims=True))
    posterior /= posterior.sum(axis=1, keepdims=True)
    return np.sqrt(np.sum(posterior * (GRID * prior[:, None] - merged[:, None]) ** 2, axis=1))
