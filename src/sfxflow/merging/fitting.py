"""Fit of the crystals' parameters, compiled: one crystal at a time against what all other observations say of its reflections.

For arguments that are not explained see `sfxflow.merging.kernels`.
"""

import numpy as np
from numba import njit

from sfxflow.merging.kernels import CAUCHY, N_PARAMETERS, REJECTED, factors
from sfxflow.merging.observations import FULL_WEIGHT
from sfxflow.merging.packing import (
    BACKGROUND,
    MEAN,
    N_PACKED,
    OBSERVED,
    PHOTON,
    Q2,
    UNCERTAINTY,
    USUAL,
    excitation_error,
    looked_up,
    normal_equations,
    pack,
    packed_narrowness_and_base,
)
from sfxflow.small_matrices import solve_in_place

#: A step that gains less of log likelihood than this is taken without a look at where it leads, and is the last one: the cost is
#: quadratic there.
_TRUSTED_GAIN = 0.5


@njit(cache=True, nogil=True, error_model="numpy")
def _copy(source, target):
    for a in range(N_PARAMETERS):
        for b in range(N_PARAMETERS):
            target[a, b] = source[a, b]


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _fit_crystal(packed, n, state, shape, curve, slope, numbers, precision, fitted, steps, posterior):
    """Levenberg-Marquardt steps of one crystal; changes `state`, fills the posterior variances."""
    matrix = np.empty((N_PARAMETERS, N_PARAMETERS))
    vector = np.empty(N_PARAMETERS)
    new_matrix = np.empty((N_PARAMETERS, N_PARAMETERS))
    new_vector = np.empty(N_PARAMETERS)
    trial = np.empty(N_PARAMETERS)
    step = np.empty((N_PARAMETERS, 1))
    cost = normal_equations(packed, n, state, shape, curve, slope, numbers, precision, fitted, matrix, vector)
    damping = 1e-3
    for _ in range(steps):
        _copy(matrix, new_matrix)
        for a in range(N_PARAMETERS):
            new_matrix[a, a] *= 1.0 + damping
            step[a, 0] = vector[a]
        solve_in_place(new_matrix, step)
        gain = 0.0
        for a in range(N_PARAMETERS):
            gain += step[a, 0] * vector[a]
        for a in range(N_PARAMETERS):
            trial[a] = state[a] + step[a, 0]
        if gain < _TRUSTED_GAIN:
            state[:] = trial
            break
        trial[0] = min(max(trial[0], state[0] - 1.0), state[0] + 1.0)
        new_cost = normal_equations(
            packed, n, trial, shape, curve, slope, numbers, precision, fitted, new_matrix, new_vector
        )
        if new_cost < cost:
            for a in range(N_PARAMETERS):
                state[a], vector[a] = trial[a], new_vector[a]
            _copy(new_matrix, matrix)
            cost = new_cost
            damping *= 0.1
        else:
            damping = max(10.0 * damping, 0.1)
    inverse = np.eye(N_PARAMETERS)
    solve_in_place(matrix, inverse)
    for a in range(N_PARAMETERS):
        posterior[a] = inverse[a, a]


@njit(cache=True, nogil=True, error_model="numpy")
def fit_block(
    offsets, reflection, excitation, intensity, sigma, polarisation, azimuth, weight,
    state, shape, active, part_of, q, current, total, prior, curve, slope, spread, numbers,
    precision, fitted, steps, robust, quality, curve_sums, row_edges,
):  # fmt: skip
    """Fit the parameters of each crystal of a block to what all other observations say of its reflections.

    Changes `state` and `weight` in place; `pack` says what is compared with what.

    The gain of log likelihood compares the crystal's observations under what the others say of the reflections with the same
    under Wilson's distribution alone: it is positive for a crystal that agrees with the others, negative for a wrong lattice.

    Parameters
    ----------
    part_of : uint16, shape (n_crystals,)
        Which of `total` holds for each crystal.
    total : float64, shape (n_parts, n_reflections, 2, 2)
        Sums of g y / var and g^2 / var of the last merge, which had the same state, weights and `current`, as they hold for the
        reflection and for its Friedel mate in each part of the data.
    prior : float64, shape (n_reflections,)
        Mean intensity at the reflection's resolution.
    precision : float64, shape (6,)
        1/variance of the parameters' prior, about zero.
    fitted : uint8, shape (6,)
        Parameters to fit.
    steps : int
        Most steps of the fit; with 0 only the closed-form factor on the scale is applied.
    robust : int
        Set the weights of the observations.
    quality : float64, shape (n_crystals, 4 + 6)
        Out: observations used, sum of y g m / var, of (g m)^2 / var, gain of log likelihood, and the posterior variances of the
        parameters.
    curve_sums : float64, shape (n_q, n_x, 4)
        Out, added: sums for the curve (y b m / var, (b m)^2 / var) and for its spread.
    row_edges : float64, shape (n_q - 1,)
        Upper limits of q^2 of the sums' rows, but the last.
    """
    nodes, rows = curve.shape[1], curve.shape[0]
    longest = 0
    for c in range(len(offsets) - 1):
        longest = max(longest, offsets[c + 1] - offsets[c])
    packed = np.empty((N_PACKED, longest))
    n_bins = curve_sums.shape[1]
    bins_per_node = n_bins / (nodes - 1)
    for c in range(len(offsets) - 1):
        if not active[c]:
            continue
        own_state, own_shape = state[c], shape[c]
        n = offsets[c + 1] - offsets[c]
        used, ratio_above, ratio_below = pack(
            offsets[c], offsets[c + 1], reflection, excitation, intensity, sigma, polarisation, azimuth, weight,
            own_state, own_shape, active[c] == 1, q, current, total[part_of[c]], prior, curve, spread, numbers, packed,
        )  # fmt: skip
        quality[c, 0] = used
        if used < 3 or ratio_below <= 0.0:
            quality[c, 1:] = 0.0
            continue
        if steps == 0:
            own_state[0] += np.log(min(max(ratio_above / ratio_below, 1e-3), 1e3))
        else:
            _fit_crystal(
                packed, n, own_state, own_shape, curve, slope, numbers, precision, fitted, steps, quality[c, 4:]
            )
        above, below = 0.0, 0.0
        narrowing, scale = factors(own_state, numbers)
        product_alone, product_full, product_variance, logarithms = 1.0, 1.0, 1.0, 0.0
        for i in range(n):
            q2 = packed[Q2, i]
            mean, uncertainty = packed[MEAN, i], packed[UNCERTAINTY, i]
            observed, background, photon = packed[OBSERVED, i], packed[BACKGROUND, i], packed[PHOTON, i]
            narrowness, base = packed_narrowness_and_base(packed, i, own_state, numbers, narrowing, scale)
            error = excitation_error(packed, i, own_state)
            place = abs(error) * narrowness * numbers[0]
            if place >= nodes - 1:
                continue
            row = min(int(q2 * numbers[1]), rows - 1)
            height, uncertain = looked_up(curve, row, place), looked_up(spread, row, place)
            g = base * height
            square = mean * mean + uncertainty
            plain = background + photon * g * mean + g * g * uncertainty
            full = plain + uncertain * base * base * square
            residual = observed - g * mean
            inverse = 1.0 / full
            deviation = residual * residual * inverse
            if robust:
                # where Wilson's distribution is all that is known, nothing: its tail is far longer than a normal one's
                known = 1.0 - uncertainty / (packed[USUAL, i] * packed[USUAL, i])
                w = 1.0 / (1.0 + known * deviation / (CAUCHY * CAUCHY))
                limit = REJECTED * REJECTED * (4.0 - 3.0 * known)
                weight[offsets[c] + i] = 0 if deviation > limit else max(1, int(FULL_WEIGHT * w + 0.5))
            above += observed * g * mean * inverse
            below += (g * mean) ** 2 * inverse
            usual = packed[USUAL, i]
            alone = background + photon * g * usual + (g * g + 2.0 * uncertain * base * base) * usual * usual
            unexplained = (observed - g * usual) ** 2 / alone
            # log likelihoods: of the variance, and Cauchy's function of the residual as products
            product_alone *= 1.0 + unexplained / (CAUCHY * CAUCHY)
            product_full *= 1.0 + deviation / (CAUCHY * CAUCHY)
            product_variance *= alone * inverse
            if max(product_alone, product_full, product_variance) > 1e150 or product_variance < 1e-150:
                logarithms += 0.5 * CAUCHY * CAUCHY * np.log(product_alone / product_full)
                logarithms += 0.5 * np.log(product_variance)
                product_alone, product_full, product_variance = 1.0, 1.0, 1.0
            if active[c] != 1:
                continue
            k = 0
            while k < len(row_edges) and q2 > row_edges[k]:
                k += 1
            b = min(int(place * bins_per_node), n_bins - 1)
            bm = base * mean
            curve_sums[k, b, 0] += observed * bm * inverse
            curve_sums[k, b, 1] += bm * bm * inverse
            capped = min(residual * residual, CAUCHY * CAUCHY * full)
            strength = base * base * square * inverse
            curve_sums[k, b, 2] += (capped - plain) * inverse * strength
            curve_sums[k, b, 3] += strength * strength
        quality[c, 1], quality[c, 2] = above, below
        logarithms += 0.5 * np.log(product_variance)
        quality[c, 3] = logarithms + 0.5 * CAUCHY * CAUCHY * np.log(product_alone / product_full)
