"""What the fit of a crystal needs of its observations, packed, and the normal equations of a step, compiled.

For chunks and arguments that are not explained see `sfxflow.merging.kernels`.
"""

import numpy as np
from numba import njit

from sfxflow.merging.kernels import (
    ANY_ORDER,
    AZIMUTH_SHIFT,
    CAUCHY,
    CHUNK,
    COSINE,
    N_PARAMETERS,
    NUMBER_MASK,
    SINE,
    across_beam,
    background_variance,
    exponential,
    factors,
    looked_up,
    narrowness_and_base,
    plain_six,
    tells,
)
from sfxflow.merging.observations import FULL_WEIGHT, MINUS, POLARISATION_UNIT

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
    VARIANCE,
    NARROWNESS,
    UNCERTAINTY,
    BACKGROUND,
    PHOTON,
    USUAL,
) = range(13)
N_PACKED = 13
#: Rows of a chunk after those that are packed, while they are made.
(
    _LENGTH, _SINE, _COSINE, _SIGMA, _UNIT, _WEIGHT, _LEVEL, _ALL_ABOVE, _ALL_BELOW, _BASE, _PLACE, _PEAK, _HEIGHT, _UNCERTAIN, _EVEN,
    _EXPECTED,
) = range(N_PACKED, N_PACKED + 16)  # fmt: skip
#: Packed rows that the normal equations take, and those that follow in a chunk.
_N_TAKEN = NARROWNESS + 1
_NARROW, _PRODUCT, _X, _CURVE, _SLOPE, _RESIDUAL, _STRETCHED, _DERIVATIVES = range(_N_TAKEN, _N_TAKEN + 8)


@njit(cache=True, nogil=True, fastmath=ANY_ORDER, error_model="numpy", forceinline=True)
def pack(
    first, last, reflection, excitation, intensity, sigma, polarisation, azimuth, weight,
    state, shape, counts, q, current, total, prior, curve, spread, numbers, packed,
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

    Returns
    -------
    used : int
        Observations within the curve.
    above, below : float
        Sums of the observed and of the expected of those that are well recorded.
    """
    nodes, rows = curve.shape[1], curve.shape[0]
    narrowing, scale = factors(state, numbers)
    used, above, below = 0, 0.0, 0.0
    fixed, moved = plain_six(numbers), plain_six(state)
    widths = shape[0], shape[1], shape[2]
    wavelength, photon = shape[3], shape[4] * POLARISATION_UNIT
    own = np.zeros((N_PACKED + 16, CHUNK))
    own[_LENGTH] = 1.0
    own[_SIGMA] = 1.0
    own[_UNIT] = 1.0
    own[USUAL] = 1.0
    for start in range(first, last, CHUNK):
        n = min(CHUNK, last - start)
        for k in range(n):
            j = start + k
            h, mate = reflection[j] & NUMBER_MASK, int(reflection[j] >= MINUS)
            turn = (int(azimuth[j]) + 32) >> AZIMUTH_SHIFT & 1023
            own[_LENGTH, k] = q[h]
            own[_SINE, k], own[_COSINE, k] = SINE[turn], COSINE[turn]
            own[EXCITATION, k], own[OBSERVED, k] = excitation[j], intensity[j]
            own[_SIGMA, k], own[_UNIT, k], own[_WEIGHT, k] = sigma[j], polarisation[j], weight[j]
            own[_LEVEL, k], own[USUAL, k] = current[h], prior[h]
            own[_ALL_ABOVE, k], own[_ALL_BELOW, k] = total[h, mate, 0], total[h, mate, 1]
        for k in range(CHUNK):
            length = own[_LENGTH, k]
            q2 = length * length
            across = across_beam(length, q2, wavelength)
            narrowness, base = narrowness_and_base(q2, moved, widths, fixed, narrowing, scale)
            own[Q2, k], own[_BASE, k], own[NARROWNESS, k] = q2, base, narrowness / narrowing
            own[ABOUT_X, k], own[ABOUT_Y, k] = -across * own[_SINE, k], across * own[_COSINE, k]
            own[ENERGY, k] = -0.5 * wavelength * q2
            error = (
                own[EXCITATION, k] + own[ABOUT_X, k] * moved[3] + own[ABOUT_Y, k] * moved[4] + own[ENERGY, k] * moved[5]
            )
            own[_PLACE, k] = abs(error) * narrowness * fixed[0]
        for k in range(CHUNK):
            row = min(int(own[Q2, k] * fixed[1]), rows - 1)
            own[_PEAK, k] = curve[row, 0]
            own[_HEIGHT, k], own[_UNCERTAIN, k] = 0.0, 0.0
            if own[_PLACE, k] < nodes - 1:
                own[_HEIGHT, k] = looked_up(curve, row, own[_PLACE, k])
                own[_UNCERTAIN, k] = looked_up(spread, row, own[_PLACE, k])
        for k in range(CHUNK):
            base, height, uncertain, usual = own[_BASE, k], own[_HEIGHT, k], own[_UNCERTAIN, k], own[USUAL, k]
            gain = photon / own[_UNIT, k]
            background = background_variance(own[OBSERVED, k], own[_SIGMA, k], gain)
            g = base * height
            level = max(own[_LEVEL, k], 0.0)
            merged_variance = background + gain * g * level + uncertain * (base * level) ** 2
            told = counts & tells(height, uncertain, own[_PEAK, k], fixed)
            w = own[_WEIGHT, k] / (FULL_WEIGHT * merged_variance) if told else 0.0
            known = 1.0 / (usual * usual)
            information = max(own[_ALL_BELOW, k] - w * g * g, 0.0) + known
            uncertainty = 1.0 / information
            mean = max((own[_ALL_ABOVE, k] - w * g * own[OBSERVED, k] + usual * known) * uncertainty, 0.0)
            square = mean * mean + uncertainty
            own[MEAN, k], own[UNCERTAINTY, k], own[BACKGROUND, k], own[PHOTON, k] = mean, uncertainty, background, gain
            own[VARIANCE, k] = background + gain * g * mean + uncertain * base * base * square + g * g * uncertainty
            # neither the strongest nor the tails: each reflection counts about the same
            even = 1.0 / (g * mean + np.sqrt(background))
            own[_EVEN, k] = even if height > _WELL_RECORDED * own[_PEAK, k] else 0.0
            own[_EXPECTED, k] = g * mean
        for row in range(N_PACKED):
            for k in range(n):
                packed[row, start - first + k] = own[row, k]
        for k in range(n):
            used += own[_HEIGHT, k] > 0.0
            above += own[OBSERVED, k] * own[_EVEN, k]
            below += own[_EXPECTED, k] * own[_EVEN, k]
    return used, above, below


@njit(cache=True, nogil=True, inline="always")
def excitation_error(packed, i, state):
    """Excitation error of a packed observation with the crystal's parameters."""
    return (
        packed[EXCITATION, i]
        + packed[ABOUT_X, i] * state[3]
        + packed[ABOUT_Y, i] * state[4]
        + packed[ENERGY, i] * state[5]
    )


@njit(cache=True, nogil=True, inline="always")
def packed_narrowness_and_base(packed, i, state, numbers, narrowing, scale):
    """As `kernels.narrowness_and_base` of a packed observation."""
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
    narrowness, base = packed_narrowness_and_base(packed, i, state, numbers, narrowing, scale)
    x = excitation_error(packed, i, state) * narrowness
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


@njit(cache=True, nogil=True, fastmath=ANY_ORDER, error_model="numpy", forceinline=True)
def normal_equations(packed, n, state, shape, curve, slope, numbers, precision, fitted, matrix, vector):
    """Cost of one crystal's parameters; fills the normal equations of a Gauss-Newton step."""
    nodes, rows = curve.shape[1], curve.shape[0]
    narrowing, scale = factors(state, numbers)
    fixed, moved = plain_six(numbers), plain_six(state)
    own = np.zeros((_N_TAKEN + 13, CHUNK))
    matrix[:] = 0.0
    vector[:] = 0.0
    # the cost is a sum of logarithms: one logarithm of a product is quicker
    logarithms = 0.0
    for start in range(0, n, CHUNK):
        here = min(CHUNK, n - start)
        for row in range(_N_TAKEN):
            for k in range(here):
                own[row, k] = packed[row, start + k]
        for k in range(here, CHUNK):
            own[OBSERVED, k], own[MEAN, k], own[VARIANCE, k] = 0.0, 0.0, 1.0
        for k in range(CHUNK):
            narrowness, base = packed_narrowness_and_base(own, k, moved, fixed, narrowing, scale)
            own[_NARROW, k], own[_PRODUCT, k] = narrowness, base
            own[_X, k] = excitation_error(own, k, moved) * narrowness
        for k in range(CHUNK):
            place = abs(own[_X, k]) * fixed[0]
            row = min(int(own[Q2, k] * fixed[1]), rows - 1)
            own[_CURVE, k], own[_SLOPE, k] = 0.0, 0.0
            if place < nodes - 1:
                own[_CURVE, k] = looked_up(curve, row, place)
                own[_SLOPE, k] = looked_up(slope, row, place)
        for k in range(CHUNK):
            x, base, mean, variance = own[_X, k], own[_PRODUCT, k], own[MEAN, k], own[VARIANCE, k]
            g, steep = base * own[_CURVE, k], base * own[_SLOPE, k]
            residual = own[OBSERVED, k] - g * mean
            stretched = 1.0 + residual * residual / (variance * (CAUCHY * CAUCHY))
            root = np.sqrt(1.0 / (variance * stretched))
            times = root * mean
            toward = steep * own[_NARROW, k] * times
            toward = -toward if x < 0.0 else toward
            own[_DERIVATIVES, k] = times * g
            own[_DERIVATIVES + 1, k] = -0.5 * own[Q2, k] * times * g
            own[_DERIVATIVES + 2, k] = -(fixed[4] * g + abs(x) * steep) * times
            own[_DERIVATIVES + 3, k] = toward * own[ABOUT_X, k]
            own[_DERIVATIVES + 4, k] = toward * own[ABOUT_Y, k]
            own[_DERIVATIVES + 5, k] = toward * own[ENERGY, k]
            own[_RESIDUAL, k], own[_STRETCHED, k] = residual * root, stretched
        for a in range(N_PARAMETERS):
            for b in range(a + 1):
                added = 0.0
                for k in range(CHUNK):
                    added += own[_DERIVATIVES + a, k] * own[_DERIVATIVES + b, k]
                matrix[a, b] += added
            added = 0.0
            for k in range(CHUNK):
                added += own[_DERIVATIVES + a, k] * own[_RESIDUAL, k]
            vector[a] += added
        for part in range(0, CHUNK, 16):
            product = 1.0
            for k in range(16):
                product *= own[_STRETCHED, part + k]
            logarithms += np.log(product)
    cost = 0.5 * CAUCHY * CAUCHY * logarithms
    for a in range(N_PARAMETERS):
        cost += 0.5 * precision[a] * state[a] * state[a]
        matrix[a, a] += precision[a]
        vector[a] -= precision[a] * state[a]
        for b in range(a):
            matrix[b, a] = matrix[a, b]
    for a in range(N_PARAMETERS):
        if not fitted[a]:
            matrix[a, :] = 0.0
            matrix[:, a] = 0.0
            matrix[a, a] = 1.0
            vector[a] = 0.0
    return cost
