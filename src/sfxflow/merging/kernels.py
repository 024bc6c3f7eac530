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
numbers : float64, shape (5,)
    Nodes per unit of x, rows per unit of q^2, reference width R, min_partiality, and 1 where the height goes with 1/width,
    0 where it is the same everywhere.
"""

import numpy as np
from numba import njit

from sfxflow.merging.observations import FULL_TURN, FULL_WEIGHT, MINUS, POLARISATION_UNIT

N_PARAMETERS = 6
_NUMBER_MASK = np.uint32(MINUS - 1)
_COSINE = np.cos(2 * np.pi * np.arange(1024) / 1024)
_SINE = np.sin(2 * np.pi * np.arange(1024) / 1024)
_AZIMUTH_SHIFT = 6
assert FULL_TURN >> _AZIMUTH_SHIFT == 1024
#: The part of a variance that is certainly not due to the reflection's own photons.
_LEAST_BACKGROUND = 0.1
#: The first scale is found from observations with at least so much of the curve's peak.
_WELL_RECORDED = 0.2
#: Residuals beyond so many standard deviations lose weight (Cauchy); beyond the second number the observation is rejected.
CAUCHY = 3.0
REJECTED = 8.0


@njit(cache=True, nogil=True, inline="always")
def _predicted(excitation, azimuth, q, state, shape, numbers):
    """Excitation error in widths (signed), width, and everything of the prediction but the curve and the intensity."""
    q2 = q * q
    turn = (int(azimuth) + 32) >> _AZIMUTH_SHIFT & 1023
    wavelength = shape[3]
    across = q * np.sqrt(max(0.0, 1.0 - 0.25 * wavelength * wavelength * q2))
    moved = excitation + across * (state[4] * _COSINE[turn] - state[3] * _SINE[turn]) - 0.5 * wavelength * q2 * state[5]
    width = np.sqrt(shape[0] + shape[1] * q2 + shape[2] * q2 * q2) * np.exp(state[2])
    height = numbers[2] / width if numbers[4] > 0.0 else 1.0
    return moved / width, width, height * np.exp(state[0] - 0.5 * state[1] * q2)


@njit(cache=True, nogil=True, inline="always")
def _background(intensity, sigma, gain):
    """Variance without the reflection's own photons."""
    variance = sigma * sigma
    return max(variance - gain * max(intensity, 0.0), _LEAST_BACKGROUND * variance)


@njit(cache=True, nogil=True)
def merge_block(
    offsets, reflection, excitation, intensity, sigma, polarisation, azimuth, weight,
    state, shape, active, half, q, current, curve, spread, numbers, sums,
):  # fmt: skip
    """Add a block's observations to the sums of the unique reflections.

    Parameters
    ----------
    half : uint8, shape (n_crystals,)
    current : float64, shape (n_reflections,)
        Intensities that the variances are computed with.
    sums : float64, shape (n_reflections, 3, 4)
        For all observations, the second half set and the Friedel mates: sum of g y / var, of g^2 / var, of y^2 / var, and n.
    """
    nodes, rows = curve.shape[1], curve.shape[0]
    for c in range(len(offsets) - 1):
        if active[c] != 1:
            continue
        own_state, own_shape = state[c], shape[c]
        for j in range(offsets[c], offsets[c + 1]):
            if weight[j] == 0:
                continue
            h = reflection[j] & _NUMBER_MASK
            x, _, base = _predicted(excitation[j], azimuth[j], q[h], own_state, own_shape, numbers)
            place = abs(x) * numbers[0]
            node = int(place)
            if node >= nodes - 1:
                continue
            row = min(int(q[h] * q[h] * numbers[1]), rows - 1)
            part = place - node
            height = curve[row, node] + part * (curve[row, node + 1] - curve[row, node])
            if height <= numbers[3] * curve[row, 0]:
                continue
            uncertain = spread[row, node] + part * (spread[row, node + 1] - spread[row, node])
            g = base * height
            gain = own_shape[4] * POLARISATION_UNIT / polarisation[j]
            level = max(current[h], 0.0)
            variance = _background(intensity[j], sigma[j], gain) + gain * g * level + uncertain * (base * level) ** 2
            w = weight[j] / (FULL_WEIGHT * variance)
            a, b, e = w * g * intensity[j], w * g * g, w * intensity[j] * intensity[j]
            sums[h, 0, 0] += a
            sums[h, 0, 1] += b
            sums[h, 0, 2] += e
            sums[h, 0, 3] += 1.0
            if half[c]:
                sums[h, 1, 0] += a
                sums[h, 1, 1] += b
                sums[h, 1, 2] += e
                sums[h, 1, 3] += 1.0
            if reflection[j] >= MINUS:
                sums[h, 2, 0] += a
                sums[h, 2, 1] += b
                sums[h, 2, 2] += e
                sums[h, 2, 3] += 1.0


@njit(cache=True, nogil=True)
def _normal_equations(
    first, last, reflection, excitation, intensity, azimuth, state, shape, q, mean, variance,
    curve, slope, numbers, precision, fitted, matrix, vector,
):  # fmt: skip
    """Cost of one crystal's parameters; fills the normal equations of a Gauss-Newton step."""
    nodes, rows = curve.shape[1], curve.shape[0]
    matrix[:] = 0.0
    vector[:] = 0.0
    cost = 0.0
    derivative = np.zeros(N_PARAMETERS)
    wavelength = shape[3]
    for j in range(first, last):
        i = j - first
        if variance[i] <= 0.0:
            continue
        h = reflection[j] & _NUMBER_MASK
        q2 = q[h] * q[h]
        x, width, base = _predicted(excitation[j], azimuth[j], q[h], state, shape, numbers)
        place = abs(x) * numbers[0]
        node = int(place)
        if node >= nodes - 1:
            height, steep = 0.0, 0.0
        else:
            row = min(int(q2 * numbers[1]), rows - 1)
            part = place - node
            height = curve[row, node] + part * (curve[row, node + 1] - curve[row, node])
            steep = slope[row, node] + part * (slope[row, node + 1] - slope[row, node])
        expected = base * height * mean[i]
        residual = intensity[j] - expected
        scaled = residual * residual / (variance[i] * CAUCHY * CAUCHY)
        cost += 0.5 * CAUCHY * CAUCHY * np.log1p(scaled)
        w = 1.0 / (variance[i] * (1.0 + scaled))
        derivative[0] = expected
        derivative[1] = -0.5 * q2 * expected
        derivative[2] = -(numbers[4] * height + abs(x) * steep) * base * mean[i]
        toward = steep * base * mean[i] / width
        if x < 0.0:
            toward = -toward
        turn = (int(azimuth[j]) + 32) >> _AZIMUTH_SHIFT & 1023
        across = q[h] * np.sqrt(max(0.0, 1.0 - 0.25 * wavelength * wavelength * q2))
        derivative[3] = -toward * across * _SINE[turn]
        derivative[4] = toward * across * _COSINE[turn]
        derivative[5] = -toward * 0.5 * wavelength * q2
        for a in range(N_PARAMETERS):
            vector[a] += w * derivative[a] * residual
            for b in range(a + 1):
                matrix[a, b] += w * derivative[a] * derivative[b]
    for a in range(N_PARAMETERS):
        cost += 0.5 * precision[a] * state[a] * state[a]
        matrix[a, a] += precision[a]
        vector[a] -= precision[a] * state[a]
        for b in range(a):
            matrix[b, a] = matrix[a, b]
    for a in range(N_PARAMETERS):
        if not fitted[a]:
            for b in range(N_PARAMETERS):
                matrix[a, b] = 0.0
                matrix[b, a] = 0.0
            matrix[a, a] = 1.0
            vector[a] = 0.0
    return cost


@njit(cache=True, nogil=True)
def fit_block(
    offsets, reflection, excitation, intensity, sigma, polarisation, azimuth, weight,
    state, shape, active, q, current, total, prior, curve, slope, spread, numbers,
    precision, fitted, steps, robust, quality, curve_sums, row_edges,
):  # fmt: skip
    """Fit the parameters of each crystal of a block to what all other observations say of its reflections.

    The intensity of a reflection without the observation itself is the posterior mean of a Gaussian with the merged sums as
    likelihood and Wilson's distribution (mean and standard deviation `prior`) as prior: its error is then independent of the
    observation and of the Berkson kind, which does not bias the scale. Changes `state` and `weight` in place.

    The gain of log likelihood compares the crystal's observations under what the others say of the reflections with the same
    under Wilson's distribution alone: it is positive for a crystal that agrees with the others, negative for a wrong lattice.

    Parameters
    ----------
    total : float64, shape (n_reflections, 2)
        Sums of g y / var and g^2 / var of the last merge, which had the same state, weights and `current`.
    prior : float64, shape (n_reflections,)
        Mean intensity at the reflection's resolution.
    precision : float64, shape (6,)
        1/variance of the parameters' prior, about zero.
    fitted : uint8, shape (6,)
        Parameters to fit.
    steps : int
        Steps of the fit; with 0 only a first scale is found, as a ratio.
    robust : int
        Set the weights of the observations.
    quality : float64, shape (n_crystals, 4 + 6)
        Out: observations used, sum of y g m / var, of (g m)^2 / var, gain of log likelihood (see below), and the posterior
        variances of the parameters.
    curve_sums : float64, shape (n_q, n_x, 4)
        Out, added: sums for the curve (y b m / var, (b m)^2 / var) and for its spread.
    row_edges : float64, shape (n_q - 1,)
        Upper limits of q^2 of the sums' rows, but the last.
    """
    nodes, rows = curve.shape[1], curve.shape[0]
    longest = 0
    for c in range(len(offsets) - 1):
        longest = max(longest, offsets[c + 1] - offsets[c])
    mean = np.empty(longest)
    uncertainty = np.empty(longest)
    variance = np.empty(longest)
    matrix = np.empty((N_PARAMETERS, N_PARAMETERS))
    vector = np.empty(N_PARAMETERS)
    new_matrix = np.empty((N_PARAMETERS, N_PARAMETERS))
    new_vector = np.empty(N_PARAMETERS)
    trial = np.empty(N_PARAMETERS)
    n_bins = curve_sums.shape[1]
    bins_per_x = n_bins / ((nodes - 1) / numbers[0])
    for c in range(len(offsets) - 1):
        if not active[c]:
            continue
        first, last = offsets[c], offsets[c + 1]
        own_state, own_shape = state[c], shape[c]
        used = 0
        ratio_above, ratio_below = 0.0, 0.0
        for j in range(first, last):
            i = j - first
            h = reflection[j] & _NUMBER_MASK
            x, _, base = _predicted(excitation[j], azimuth[j], q[h], own_state, own_shape, numbers)
            gain = own_shape[4] * POLARISATION_UNIT / polarisation[j]
            background = _background(intensity[j], sigma[j], gain)
            height, uncertain = 0.0, 0.0
            place = abs(x) * numbers[0]
            node = int(place)
            row = min(int(q[h] * q[h] * numbers[1]), rows - 1)
            if node < nodes - 1:
                part = place - node
                height = curve[row, node] + part * (curve[row, node + 1] - curve[row, node])
                uncertain = spread[row, node] + part * (spread[row, node + 1] - spread[row, node])
            g = base * height
            own_a, own_b = 0.0, 0.0
            if height > numbers[3] * curve[row, 0] and weight[j] > 0 and active[c] == 1:
                level = max(current[h], 0.0)
                merged_variance = background + gain * g * level + uncertain * (base * level) ** 2
                w = weight[j] / (FULL_WEIGHT * merged_variance)
                own_a, own_b = w * g * intensity[j], w * g * g
            known = 1.0 / (prior[h] * prior[h])
            information = max(total[h, 1] - own_b, 0.0) + known
            mean[i] = max((total[h, 0] - own_a + prior[h] * known) / information, 0.0)
            uncertainty[i] = 1.0 / information
            square = mean[i] * mean[i] + uncertainty[i]
            variance[i] = background + gain * g * mean[i] + uncertain * base * base * square + g * g * uncertainty[i]
            if height > 0.0:
                used += 1
                if steps == 0 and height > _WELL_RECORDED * curve[row, 0]:
                    # neither the strongest nor the tails: each reflection counts about the same
                    even = 1.0 / (g * mean[i] + np.sqrt(background))
                    ratio_above += intensity[j] * even
                    ratio_below += g * mean[i] * even
        quality[c, 0] = used
        if used < 3 or (steps == 0 and ratio_below <= 0.0):
            quality[c, 1:] = 0.0
            continue
        if steps == 0:
            # a first scale, in closed form
            own_state[0] += np.log(min(max(ratio_above / ratio_below, 1e-3), 1e3))
        else:
            cost = _normal_equations(
                first, last, reflection, excitation, intensity, azimuth, own_state, own_shape, q, mean, variance,
                curve, slope, numbers, precision, fitted, matrix, vector,
            )  # fmt: skip
            damping = 1e-3
            for _ in range(steps):
                new_matrix[:] = matrix
                for a in range(N_PARAMETERS):
                    new_matrix[a, a] *= 1.0 + damping
                step = np.linalg.solve(new_matrix, vector)
                for a in range(N_PARAMETERS):
                    trial[a] = own_state[a] + step[a]
                trial[0] = min(max(trial[0], own_state[0] - 1.0), own_state[0] + 1.0)
                new_cost = _normal_equations(
                    first, last, reflection, excitation, intensity, azimuth, trial, own_shape, q, mean, variance,
                    curve, slope, numbers, precision, fitted, new_matrix, new_vector,
                )  # fmt: skip
                if new_cost < cost:
                    gained = cost - new_cost
                    own_state[:] = trial
                    matrix[:] = new_matrix
                    vector[:] = new_vector
                    cost = new_cost
                    damping *= 0.1
                    if gained < 1e-3:
                        break
                else:
                    damping = max(10.0 * damping, 0.1)
            inverse = np.linalg.inv(matrix)
            for a in range(N_PARAMETERS):
                quality[c, 4 + a] = inverse[a, a]
        quality[c, 1:4] = 0.0
        for j in range(first, last):
            i = j - first
            h = reflection[j] & _NUMBER_MASK
            x, _, base = _predicted(excitation[j], azimuth[j], q[h], own_state, own_shape, numbers)
            place = abs(x) * numbers[0]
            node = int(place)
            if node >= nodes - 1:
                continue
            row = min(int(q[h] * q[h] * numbers[1]), rows - 1)
            part = place - node
            height = curve[row, node] + part * (curve[row, node + 1] - curve[row, node])
            uncertain = spread[row, node] + part * (spread[row, node + 1] - spread[row, node])
            gain = own_shape[4] * POLARISATION_UNIT / polarisation[j]
            g = base * height
            square = mean[i] * mean[i] + uncertainty[i]
            plain = _background(intensity[j], sigma[j], gain) + gain * g * mean[i] + g * g * uncertainty[i]
            full = plain + uncertain * base * base * square
            residual = intensity[j] - g * mean[i]
            deviation = residual * residual / full
            w = 1.0 / (1.0 + deviation / (CAUCHY * CAUCHY))
            if robust:
                rejected = deviation > REJECTED * REJECTED
                weight[j] = 0 if rejected else max(1, int(FULL_WEIGHT * w + 0.5))
            quality[c, 1] += intensity[j] * g * mean[i] / full
            quality[c, 2] += (g * mean[i]) ** 2 / full
            alone = _background(intensity[j], sigma[j], gain) + gain * g * prior[h]
            alone += (g * g + 2.0 * uncertain * base * base) * prior[h] * prior[h]
            unexplained = (intensity[j] - g * prior[h]) ** 2 / alone
            quality[c, 3] += 0.5 * np.log(alone / full) + 0.5 * CAUCHY * CAUCHY * (
                np.log1p(unexplained / (CAUCHY * CAUCHY)) - np.log1p(deviation / (CAUCHY * CAUCHY))
            )
            if active[c] != 1:
                continue
            k = 0
            while k < len(row_edges) and q[h] * q[h] > row_edges[k]:
                k += 1
            b = min(int(abs(x) * bins_per_x), n_bins - 1)
            bm = base * mean[i]
            curve_sums[k, b, 0] += intensity[j] * bm / full
            curve_sums[k, b, 1] += bm * bm / full
            capped = min(residual * residual, CAUCHY * CAUCHY * full)
            strength = base * base * square / full
            curve_sums[k, b, 2] += (capped - plain) / full * strength
            curve_sums[k, b, 3] += strength * strength
