"""Passes over the observations, compiled: plain loops over plain arrays.

Arguments that several kernels share:

offsets, reflection, excitation, intensity, sigma, polarisation, azimuth, weight
    A block (`observations.Block`).
state : float64, shape (n_crystals, 6)
    ln G, B, ln w, rotations about x and y (radian), relative change of the energy of each crystal of the block.
shape : float64, shape (n_crystals, 5)
    R0^2, eta^2, (bandwidth lambda / 2)^2, lambda, gain (detector units a photon).
active : uint8, shape (n_crystals,)
    0: left out, 1: counts, 2: fitted, but not merged.
q : float64, shape (n_reflections,)
    1/d.
curve, slope, spread : float64, shape (n_rows, n_nodes)
    Partiality, its derivative with x, and the variance of the partiality's error, at nodes of x, rows by q^2.
numbers : float64, shape (6,)
    Nodes per unit of x, rows per unit of q^2, reference width R, min_partiality, 1 where the height goes with 1/width and
    0 where it is the same everywhere, and the largest square of a partiality's relative error with which an observation is merged.
"""

import numpy as np
from numba import njit

from sfxflow.merging.observations import FULL_TURN, FULL_WEIGHT, MINUS, POLARISATION_UNIT
from sfxflow.small_matrices import solve_in_place

N_PARAMETERS = 6
NUMBER_MASK = np.uint32(MINUS - 1)
_COSINE = np.cos(2 * np.pi * np.arange(1024) / 1024)
_SINE = np.sin(2 * np.pi * np.arange(1024) / 1024)
_AZIMUTH_SHIFT = 6
assert FULL_TURN >> _AZIMUTH_SHIFT == 1024
#: The part of a variance that is certainly not due to the reflection's own photons.
_LEAST_BACKGROUND = 0.1
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
#: Steps that can gain less of log likelihood than this are not taken.
_SMALL_GAIN = 0.01
#: Residuals beyond so many standard deviations lose weight (Cauchy); beyond the second number the observation is rejected.
CAUCHY = 3.0
REJECTED = 8.0


@njit(cache=True, nogil=True, inline="always")
def _across(q, q2, wavelength):
    """Part of q across the beam, q cos(theta); the series is good to 2e-4 of it as far as lambda q = 1."""
    u = 0.25 * wavelength * wavelength * q2
    return q * (1.0 - u * (0.5 + u * (0.125 + u * 0.0625)))


@njit(cache=True, nogil=True, inline="always")
def _moved(excitation, azimuth, q, q2, state, wavelength):
    """Excitation error after the crystal's rotations and change of energy."""
    turn = (int(azimuth) + 32) >> _AZIMUTH_SHIFT & 1023
    turned = state[4] * _COSINE[turn] - state[3] * _SINE[turn]
    return excitation + _across(q, q2, wavelength) * turned - 0.5 * wavelength * q2 * state[5]


@njit(cache=True, nogil=True, inline="always")
def _exponential(x):
    """exp(x), quicker where |x| is below 4: (exp(x / 64) by its series)^64, good to 1e-6."""
    if abs(x) > 4.0:
        return np.exp(x)
    part = x / 64.0
    root = 1.0 + part * (1.0 + part * (0.5 + part * (1.0 / 6.0 + part / 24.0)))
    power2 = root * root
    power4 = power2 * power2
    power8 = power4 * power4
    power16 = power8 * power8
    power32 = power16 * power16
    return power32 * power32


@njit(cache=True, nogil=True, inline="always")
def factors(state, numbers):
    """Of a crystal: the factor on 1/width, and its scale with all that does not depend on the observation."""
    return np.exp(-state[2]), np.exp(state[0]) * (numbers[2] if numbers[4] > 0.0 else 1.0)


@njit(cache=True, nogil=True, inline="always")
def _narrowness_and_base(q2, state, shape, numbers, narrowing, scale):
    """1/width, and everything of the prediction but the curve and the intensity."""
    narrowness = narrowing / np.sqrt(shape[0] + (shape[1] + shape[2] * q2) * q2)
    base = scale * _exponential(-0.5 * state[1] * q2)
    return narrowness, base * narrowness if numbers[4] > 0.0 else base


@njit(cache=True, nogil=True, inline="always")
def _background(intensity, sigma, gain):
    """Variance without the reflection's own photons."""
    variance = sigma * sigma
    return max(variance - gain * max(intensity, 0.0), _LEAST_BACKGROUND * variance)


@njit(cache=True, nogil=True, inline="always")
def _tells(height, uncertain, peak, numbers):
    """An observation is merged where the curve is high enough, and its error small enough against it."""
    return (height > numbers[3] * peak) & (uncertain < numbers[5] * height * height)


@njit(cache=True, nogil=True)
def merge_block(
    offsets, reflection, excitation, intensity, sigma, polarisation, azimuth, weight,
    state, shape, active, slot, mates_apart, q, current, curve, spread, numbers, sums,
):  # fmt: skip
    """Add a block's observations to the sums of the unique reflections.

    Parameters
    ----------
    slot : uint16, shape (n_crystals,)
        The part of the data that each crystal belongs to: 2 group + half set.
    mates_apart : bool
        Friedel mates have sums of their own; otherwise they are added to those of the reflections.
    current : float64, shape (n_reflections,)
        Intensities that the variances are computed with.
    sums : float64, shape (n_groups, n_reflections, 4, 4)
        Of both half sets, then the same of the Friedel mates: sum of g y / var, of g^2 / var, of y^2 / var, and n.
    """
    nodes, rows = curve.shape[1], curve.shape[0]
    mates = 2 if mates_apart else 0
    # one group after the other: the sums of one fit into a cache
    for group in range(len(sums)):
        for c in range(len(offsets) - 1):
            if active[c] != 1 or slot[c] >> 1 != group:
                continue
            own_state, own_shape, own_sums = state[c], shape[c], sums[group]
            half = slot[c] & 1
            narrowing, scale = factors(own_state, numbers)
            photon = own_shape[4] * POLARISATION_UNIT
            for j in range(offsets[c], offsets[c + 1]):
                h = reflection[j] & NUMBER_MASK
                q2 = q[h] * q[h]
                narrowness, base = _narrowness_and_base(q2, own_state, own_shape, numbers, narrowing, scale)
                x = abs(_moved(excitation[j], azimuth[j], q[h], q2, own_state, own_shape[3])) * narrowness
                place = x * numbers[0]
                node = int(place)
                if node >= nodes - 1:
                    continue
                row = min(int(q2 * numbers[1]), rows - 1)
                part = place - node
                height = curve[row, node] + part * (curve[row, node + 1] - curve[row, node])
                uncertain = spread[row, node] + part * (spread[row, node + 1] - spread[row, node])
                # a factor, no branch: which way it goes can't be foreseen
                counted = 1.0 if _tells(height, uncertain, curve[row, 0], numbers) & (weight[j] > 0) else 0.0
                g = base * height
                gain = photon / polarisation[j]
                level = max(current[h], 0.0)
                variance = (
                    _background(intensity[j], sigma[j], gain) + gain * g * level + uncertain * (base * level) ** 2
                )
                w = counted * weight[j] / (FULL_WEIGHT * variance)
                own = own_sums[h, half + mates * (reflection[j] >= MINUS)]
                own[0] += w * g * intensity[j]
                own[1] += w * g * g
                own[2] += w * intensity[j] * intensity[j]
                own[3] += counted


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
        narrowness, base = _narrowness_and_base(q2, state, shape, numbers, narrowing, scale)
        turn = (int(azimuth[j]) + 32) >> _AZIMUTH_SHIFT & 1023
        across = _across(q[h], q2, shape[3])
        about_x, about_y, energy = -across * _SINE[turn], across * _COSINE[turn], -0.5 * shape[3] * q2
        error = excitation[j] + about_x * state[3] + about_y * state[4] + energy * state[5]
        gain = shape[4] * POLARISATION_UNIT / polarisation[j]
        background = _background(intensity[j], sigma[j], gain)
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
        if _tells(height, uncertain, curve[row, 0], numbers) and weight[j] > 0 and counts:
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
    base = scale * _exponential(-0.5 * state[1] * packed[Q2, i])
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
    # derivatives and residuals in units of their errors: the sums are one product of matrices
    scaled_rows = np.empty((n, N_PARAMETERS + 1))
    for i in range(n):
        base, height = gradient(packed, i, state, shape, curve, slope, numbers, narrowing, scale, derivative)
        mean, variance = packed[MEAN, i], packed[VARIANCE, i]
        residual = packed[OBSERVED, i] - base * max(height, 0.0) * mean
        stretched = 1.0 + residual * residual / (variance * CAUCHY * CAUCHY)
        product *= stretched
        w = 1.0 / np.sqrt(variance * stretched)
        scaled_rows[i, N_PARAMETERS] = residual * w
        w *= mean
        if height < 0.0:
            w = 0.0
        for a in range(N_PARAMETERS):
            scaled_rows[i, a] = w * derivative[a]
        if product > 1e200:
            logarithms += np.log(product)
            product = 1.0
    products = np.dot(scaled_rows.T, scaled_rows)
    matrix[:] = products[:N_PARAMETERS, :N_PARAMETERS]
    vector[:] = products[:N_PARAMETERS, N_PARAMETERS]
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
        if not gain >= _SMALL_GAIN:
            break
        for a in range(N_PARAMETERS):
            trial[a] = state[a] + step[a, 0]
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
        quality[c, 1:4] = 0.0
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
            quality[c, 1] += observed * g * mean * inverse
            quality[c, 2] += (g * mean) ** 2 * inverse
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
        logarithms += 0.5 * np.log(product_variance)
        quality[c, 3] = logarithms + 0.5 * CAUCHY * CAUCHY * np.log(product_alone / product_full)
