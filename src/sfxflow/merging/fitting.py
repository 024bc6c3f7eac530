"""Fit of the crystals' parameters, compiled: one crystal at a time against what all other observations say of its reflections.

For arguments that are not explained see `sfxflow.merging.kernels`.
"""

import numpy as np
from numba import njit

from sfxflow.merging.kernels import (
    AZIMUTH_SHIFT,
    CAUCHY,
    COSINE,
    N_PARAMETERS,
    NUMBER_MASK,
    REJECTED,
    SINE,
    across_beam,
    background_variance,
    exponential,
    factors,
    narrowness_and_base,
    tells,
)
from sfxflow.merging.observations import FULL_WEIGHT, MINUS, POLARISATION_UNIT
from sfxflow.small_matrices import solve_in_place

#: The first scale is found from observations with at least so much of the curve's peak.
_WELL_RECORDED = 0.2
#: Rows of what the fit needs of the observations of one crystal: q^2, the derivatives of the excitation error with the rotations and
#: with the energy, the excitation error as given, the intensity, what the others say of it, with its variance, the variance of
#: the background, the gain, the variance of the comparison, 1/sigma(q), and the mean intensity at the resolution.
(
    Q2,
    ABOUT_X,
    ABOUT_Y,
    ENERGY,
    EXCITATION,
    OBSERVED,
    MEAN,
    UNCERTAINTY,
    BACKGROUND,
    PHOTON,
    VARIANCE,
    NARROWNESS,
    USUAL,
) = range(13)
N_PACKED = 13
#: A step that gains less of log likelihood than this is taken without a look at where it leads, and is the last one: the cost is
#: quadratic there.
_TRUSTED_GAIN = 0.5


@njit(cache=True, nogil=True)
def pack(
    first, last, reflection, excitation, intensity, sigma, polarisation, azimuth, weight,
    state, shape, counts, q, current, total, prior, curve, spread, numbers, packed, source,
):  # fmt: skip
    """Pack what the fit needs of the observations `first` to `last` of one crystal, with its present parameters.

    The intensity of a reflection without the observation itself is the posterior mean of a Gaussian with the merged sums as
    likelihood and Wilson's distribution (mean and standard deviation `prior`) as prior: its error is then independent of the
    observation and of the Berkson kind, which does not bias the scale.

    Parameters
    ----------
    counts : bool
        The crystal is part of the merged sums: its observations are taken out of them.
    packed : float64, shape (N_PACKED, at least last - first)
        Out.
    source : int64, shape (at least last - first,)
        Out: the row of each packed observation.

    Returns
    -------
    n, used : int
        Observations packed, and those within the curve.
    above, below : float
        Sums of the observed and of the expected of those that are well recorded.
    """
    nodes, rows = curve.shape[1], curve.shape[0]
    narrowing, scale = factors(state, numbers)
    n = 0
    used = 0
    above, below = 0.0, 0.0
    for j in range(first, last):
        h = reflection[j] & NUMBER_MASK
        q2 = q[h] * q[h]
        narrowness, base = narrowness_and_base(q2, state, shape, numbers, narrowing, scale)
        turn = (int(azimuth[j]) + 32) >> AZIMUTH_SHIFT & 1023
        across = across_beam(q[h], q2, shape[3])
        about_x, about_y, energy = -across * SINE[turn], across * COSINE[turn], -0.5 * shape[3] * q2
        error = excitation[j] + about_x * state[3] + about_y * state[4] + energy * state[5]
        gain = shape[4] * POLARISATION_UNIT / polarisation[j]
        background = background_variance(intensity[j], sigma[j], gain)
        height, uncertain = 0.0, 0.0
        place = abs(error) * narrowness * numbers[0]
        node = int(place)
        row = min(int(q2 * numbers[1]), rows - 1)
        if node < nodes - 1:
            part = place - node
            height = curve[row, node] + part * (curve[row, node + 1] - curve[row, node])
            uncertain = spread[row, node] + part * (spread[row, node + 1] - spread[row, node])
        g = base * height
        own_a, own_b = 0.0, 0.0
        if tells(height, uncertain, curve[row, 0], numbers) and weight[j] > 0 and counts:
            level = max(current[h], 0.0)
            merged_variance = background + gain * g * level + uncertain * (base * level) ** 2
            w = weight[j] / (FULL_WEIGHT * merged_variance)
            own_a, own_b = w * g * intensity[j], w * g * g
        known = 1.0 / (prior[h] * prior[h])
        others = total[h, int(reflection[j] >= MINUS)]
        information = max(others[1] - own_b, 0.0) + known
        mean = max((others[0] - own_a + prior[h] * known) / information, 0.0)
        square = mean * mean + 1.0 / information
        packed[Q2, n] = q2
        packed[ABOUT_X, n] = about_x
        packed[ABOUT_Y, n] = about_y
        packed[ENERGY, n] = energy
        packed[EXCITATION, n] = excitation[j]
        packed[OBSERVED, n] = intensity[j]
        packed[MEAN, n] = mean
        packed[UNCERTAINTY, n] = 1.0 / information
        packed[BACKGROUND, n] = background
        packed[PHOTON, n] = gain
        packed[VARIANCE, n] = background + gain * g * mean + uncertain * base * base * square + g * g / information
        packed[NARROWNESS, n] = narrowness / narrowing
        packed[USUAL, n] = prior[h]
        source[n] = j
        n += 1
        if height > 0.0:
            used += 1
            if height > _WELL_RECORDED * curve[row, 0]:
                # neither the strongest nor the tails: each reflection counts about the same
                even = 1.0 / (g * mean + np.sqrt(background))
                above += intensity[j] * even
                below += g * mean * even
    return n, used, above, below


@njit(cache=True, nogil=True, inline="always")
def _excitation_error(packed, i, state):
    return (
        packed[EXCITATION, i]
        + packed[ABOUT_X, i] * state[3]
        + packed[ABOUT_Y, i] * state[4]
        + packed[ENERGY, i] * state[5]
    )


@njit(cache=True, nogil=True, inline="always")
def _packed_narrowness_and_base(packed, i, state, numbers, narrowing, scale):
    narrowness = narrowing * packed[NARROWNESS, i]
    base = scale * exponential(-0.5 * state[1] * packed[Q2, i])
    return narrowness, base * narrowness if numbers[4] > 0.0 else base


@njit(cache=True, nogil=True, inline="always")
def gradient(packed, i, state, shape, curve, slope, numbers, narrowing, scale, derivative):
    """What a packed observation records of an intensity of 1, and its derivatives with the crystal's parameters.

    Returns
    -------
    base, height : float
        Their product is recorded; the height, from the curve, is -1 beyond the curve's end.
    """
    q2 = packed[Q2, i]
    narrowness, base = _packed_narrowness_and_base(packed, i, state, numbers, narrowing, scale)
    x = _excitation_error(packed, i, state) * narrowness
    place = abs(x) * numbers[0]
    node = int(place)
    if node >= curve.shape[1] - 1:
        return base, -1.0
    row = min(int(q2 * numbers[1]), curve.shape[0] - 1)
    part = place - node
    height = curve[row, node] + part * (curve[row, node + 1] - curve[row, node])
    steep = slope[row, node] + part * (slope[row, node + 1] - slope[row, node])
    toward = steep * base * narrowness
    if x < 0.0:
        toward = -toward
    derivative[0] = base * height
    derivative[1] = -0.5 * q2 * base * height
    derivative[2] = -(numbers[4] * height + abs(x) * steep) * base
    derivative[3] = toward * packed[ABOUT_X, i]
    derivative[4] = toward * packed[ABOUT_Y, i]
    derivative[5] = toward * packed[ENERGY, i]
    return base, height


@njit(cache=True, nogil=True)
def normal_equations(packed, n, state, shape, curve, slope, numbers, precision, fitted, matrix, vector):
    """Cost of one crystal's parameters; fills the normal equations of a Gauss-Newton step."""
    # the cost is a sum of logarithms: one logarithm of a product is quicker
    product, logarithms = 1.0, 0.0
    narrowing, scale = factors(state, numbers)
    derivative = np.zeros(N_PARAMETERS)
    # plain numbers, which stay in registers as elements of an array would not
    m00 = m10 = m11 = m20 = m21 = m22 = m30 = m31 = m32 = m33 = m40 = 0.0
    m41 = m42 = m43 = m44 = m50 = m51 = m52 = m53 = m54 = m55 = 0.0
    v0 = v1 = v2 = v3 = v4 = v5 = 0.0
    for i in range(n):
        base, height = gradient(packed, i, state, shape, curve, slope, numbers, narrowing, scale, derivative)
        mean, variance = packed[MEAN, i], packed[VARIANCE, i]
        residual = packed[OBSERVED, i] - base * max(height, 0.0) * mean
        stretched = 1.0 + residual * residual / (variance * CAUCHY * CAUCHY)
        product *= stretched
        if product > 1e200:
            logarithms += np.log(product)
            product = 1.0
        if height < 0.0:
            continue
        d0, d1, d2, d3, d4, d5 = (
            derivative[0], derivative[1], derivative[2], derivative[3], derivative[4], derivative[5],
        )  # fmt: skip
        w = mean / (variance * stretched)
        wr, w = w * residual, w * mean
        v0 += wr * d0
        v1 += wr * d1
        v2 += wr * d2
        v3 += wr * d3
        v4 += wr * d4
        v5 += wr * d5
        wd = w * d0
        m00 += wd * d0
        wd = w * d1
        m10 += wd * d0
        m11 += wd * d1
        wd = w * d2
        m20 += wd * d0
        m21 += wd * d1
        m22 += wd * d2
        wd = w * d3
        m30 += wd * d0
        m31 += wd * d1
        m32 += wd * d2
        m33 += wd * d3
        wd = w * d4
        m40 += wd * d0
        m41 += wd * d1
        m42 += wd * d2
        m43 += wd * d3
        m44 += wd * d4
        wd = w * d5
        m50 += wd * d0
        m51 += wd * d1
        m52 += wd * d2
        m53 += wd * d3
        m54 += wd * d4
        m55 += wd * d5
    matrix[0, 0] = m00
    matrix[1, 0], matrix[1, 1] = m10, m11
    matrix[2, 0], matrix[2, 1], matrix[2, 2] = m20, m21, m22
    matrix[3, 0], matrix[3, 1], matrix[3, 2], matrix[3, 3] = m30, m31, m32, m33
    matrix[4, 0], matrix[4, 1], matrix[4, 2], matrix[4, 3], matrix[4, 4] = m40, m41, m42, m43, m44
    matrix[5, 0], matrix[5, 1], matrix[5, 2], matrix[5, 3], matrix[5, 4], matrix[5, 5] = m50, m51, m52, m53, m54, m55
    vector[0], vector[1], vector[2], vector[3], vector[4], vector[5] = v0, v1, v2, v3, v4, v5
    for a in range(N_PARAMETERS):
        for b in range(a):
            matrix[b, a] = matrix[a, b]
    cost = 0.5 * CAUCHY * CAUCHY * (logarithms + np.log(product))
    for a in range(N_PARAMETERS):
        cost += 0.5 * precision[a] * state[a] * state[a]
        matrix[a, a] += precision[a]
        vector[a] -= precision[a] * state[a]
    for a in range(N_PARAMETERS):
        if not fitted[a]:
            for b in range(N_PARAMETERS):
                matrix[a, b] = 0.0
                matrix[b, a] = 0.0
            matrix[a, a] = 1.0
            vector[a] = 0.0
    return cost


@njit(cache=True, nogil=True)
def _copy(source, target):
    for a in range(N_PARAMETERS):
        for b in range(N_PARAMETERS):
            target[a, b] = source[a, b]


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
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
    source = np.empty(longest, np.int64)
    n_bins = curve_sums.shape[1]
    bins_per_node = n_bins / (nodes - 1)
    for c in range(len(offsets) - 1):
        if not active[c]:
            continue
        own_state, own_shape = state[c], shape[c]
        n, used, ratio_above, ratio_below = pack(
            offsets[c], offsets[c + 1], reflection, excitation, intensity, sigma, polarisation, azimuth, weight,
            own_state, own_shape, active[c] == 1, q, current, total[part_of[c]], prior, curve, spread, numbers, packed,
            source,
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
            narrowness, base = _packed_narrowness_and_base(packed, i, own_state, numbers, narrowing, scale)
            error = _excitation_error(packed, i, own_state)
            place = abs(error) * narrowness * numbers[0]
            node = int(place)
            if node >= nodes - 1:
                continue
            row = min(int(q2 * numbers[1]), rows - 1)
            part = place - node
            height = curve[row, node] + part * (curve[row, node + 1] - curve[row, node])
            uncertain = spread[row, node] + part * (spread[row, node + 1] - spread[row, node])
            g = base * height
            square = mean * mean + uncertainty
            plain = background + photon * g * mean + g * g * uncertainty
            full = plain + uncertain * base * base * square
            residual = observed - g * mean
            inverse = 1.0 / full
            deviation = residual * residual * inverse
            if robust:
                w = 1.0 / (1.0 + deviation / (CAUCHY * CAUCHY))
                weight[source[i]] = 0 if deviation > REJECTED * REJECTED else max(1, int(FULL_WEIGHT * w + 0.5))
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
