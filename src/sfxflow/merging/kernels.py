"""Passes over the observations, compiled: plain loops over plain arrays.

Arithmetic is done on chunks of observations that lie one number after the other: there the compiler works on several at a time. What
is looked up in tables, or is added to sums, has loops of its own.

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

N_PARAMETERS = 6
NUMBER_MASK = np.uint32(MINUS - 1)
COSINE = np.cos(2 * np.pi * np.arange(1024) / 1024)
SINE = np.sin(2 * np.pi * np.arange(1024) / 1024)
AZIMUTH_SHIFT = 6
assert FULL_TURN >> AZIMUTH_SHIFT == 1024
#: The part of a variance that is certainly not due to the reflection's own photons.
_LEAST_BACKGROUND = 0.1
#: Observations of a chunk, and its rows while observations are merged.
CHUNK = 64
(
    _LENGTH, _SINE, _COSINE, _EXCITATION, _INTENSITY, _SIGMA, _UNIT, _WEIGHT, _LEVEL, _Q2, _BASE, _PLACE, _PEAK, _HEIGHT, _UNCERTAIN,
    _ABOVE, _BELOW, _SQUARE, _COUNTED,
) = range(19)  # fmt: skip
#: Sums may be added in any order; NaN and infinity stay what they are. Kernels with it that others call are part of these (`forceinline`):
#: the order would otherwise depend on what was compiled before (tests/unit/test_kernels.py).
ANY_ORDER = {"reassoc", "contract", "nsz", "arcp"}

#: Residuals beyond so many standard deviations lose weight (Cauchy); beyond the second number the observation is rejected.
CAUCHY = 3.0
REJECTED = 8.0


@njit(cache=True, nogil=True, inline="always")
def across_beam(q, q2, wavelength):
    """Part of q across the beam, q cos(theta); the series is good to 2e-4 of it as far as lambda q = 1."""
    u = 0.25 * wavelength * wavelength * q2
    return q * (1.0 - u * (0.5 + u * (0.125 + u * 0.0625)))


@njit(cache=True, nogil=True, inline="always")
def moved(excitation, azimuth, q, q2, state, wavelength):
    """Excitation error after the crystal's rotations and change of energy."""
    turn = (int(azimuth) + 32) >> AZIMUTH_SHIFT & 1023
    turned = state[4] * COSINE[turn] - state[3] * SINE[turn]
    return excitation + across_beam(q, q2, wavelength) * turned - 0.5 * wavelength * q2 * state[5]


@njit(cache=True, nogil=True, inline="always")
def exponential(x):
    """exp(x) as (exp(x / 256) by its series)^256, good to 2e-6 for |x| below 16; |x| above 30 is taken for 30."""
    part = min(max(x, -30.0), 30.0) / 256.0
    root = 1.0 + part * (1.0 + part * (0.5 + part * (1.0 / 6.0 + part / 24.0)))
    power2 = root * root
    power4 = power2 * power2
    power8 = power4 * power4
    power16 = power8 * power8
    power32 = power16 * power16
    power64 = power32 * power32
    power128 = power64 * power64
    return power128 * power128


@njit(cache=True, nogil=True, inline="always")
def factors(state, numbers):
    """Of a crystal: the factor on 1/width, and its scale with all that does not depend on the observation."""
    return np.exp(-state[2]), np.exp(state[0]) * (numbers[2] if numbers[4] > 0.0 else 1.0)


@njit(cache=True, nogil=True, inline="always")
def narrowness_and_base(q2, state, shape, numbers, narrowing, scale):
    """1/width, and everything of the prediction but the curve and the intensity."""
    narrowness = narrowing / np.sqrt(shape[0] + (shape[1] + shape[2] * q2) * q2)
    base = scale * exponential(-0.5 * state[1] * q2)
    return narrowness, base * narrowness if numbers[4] > 0.0 else base


@njit(cache=True, nogil=True, inline="always")
def background_variance(intensity, sigma, gain):
    """Variance without the reflection's own photons."""
    variance = sigma * sigma
    return max(variance - gain * max(intensity, 0.0), _LEAST_BACKGROUND * variance)


@njit(cache=True, nogil=True, inline="always")
def tells(height, uncertain, peak, numbers):
    """An observation is merged where the curve is high enough, and its error small enough against it."""
    return (height > numbers[3] * peak) & (uncertain < numbers[5] * height * height)


@njit(cache=True, nogil=True, inline="always")
def looked_up(table, row, place):
    """Linear between two nodes of a row; `place` lies before the last node."""
    node = int(place)
    return table[row, node] + (place - node) * (table[row, node + 1] - table[row, node])


@njit(cache=True, nogil=True, inline="always")
def plain_six(values):
    """Six numbers apart from their array: the compiler then knows that nothing in a loop changes them."""
    return values[0], values[1], values[2], values[3], values[4], values[5]


@njit(cache=True, nogil=True, error_model="numpy")
def first_block(
    offsets, reflection, excitation, intensity, shape, active, q, reference, scale, shell_q2, by_crystal, by_shell
):  # fmt: skip
    """Add a block's observations to the sums for the first scales, with a Gaussian partiality of the widths as given.

    Parameters
    ----------
    reference : float
        Reference width; 0 where the partiality is 1 everywhere.
    scale : float64, shape (n_crystals,)
        With which the second sums are made.
    shell_q2 : float
        Step of q^2 of the shells.
    by_crystal : float64, shape (n_crystals, 2)
        Out, added: sums of the roots of partiality times intensity, so that a few outliers don't make the scale, and of the partiality.
    by_shell : float64, shape (n_shells, 2)
        Out, added: sums of partiality f times intensity, and of f^2.
    """
    for c in range(len(offsets) - 1):
        if active[c] != 1:
            continue
        for j in range(offsets[c], offsets[c + 1]):
            own_q = q[reflection[j] & NUMBER_MASK]
            q2 = own_q * own_q
            height = 1.0
            if reference > 0.0:
                width2 = shape[c, 0] + (shape[c, 1] + shape[c, 2] * q2) * q2
                height = np.exp(-0.5 * excitation[j] * excitation[j] / width2) * reference / np.sqrt(width2)
            by_crystal[c, 0] += np.sqrt(height * max(intensity[j], 0.0))
            by_crystal[c, 1] += height
            shell = min(int(q2 / shell_q2), len(by_shell) - 1)
            by_shell[shell, 0] += height * intensity[j] / scale[c]
            by_shell[shell, 1] += height * height


@njit(cache=True, nogil=True, fastmath=ANY_ORDER, error_model="numpy")
def merge_block(
    offsets, reflection, excitation, intensity, sigma, polarisation, azimuth, weight,
    state, shape, active, slot, q, current, curve, spread, numbers, sums,
):  # fmt: skip
    """Add a block's observations to the sums of the unique reflections.

    Parameters
    ----------
    slot : uint16, shape (n_crystals,)
        The part of the data that each crystal belongs to: 2 group + half set.
    current : float64, shape (n_reflections,)
        Intensities that the variances are computed with.
    sums : float64, shape (n_slots, n_reflections, 1 or 2, 4)
        Out, added: sum of g y / var, of g^2 / var, of y^2 / var, and n; Friedel mates have their own if there is place for them.
    """
    nodes, rows = curve.shape[1], curve.shape[0]
    last_mate = sums.shape[2] - 1
    fixed = plain_six(numbers)
    chunk = np.ones((_COUNTED + 1, CHUNK))
    number, mate = np.zeros((2, CHUNK), np.int64)
    # one slot after the other: the sums of one fit into a cache
    for part in range(len(sums)):
        own_sums = sums[part]
        for c in range(len(offsets) - 1):
            if active[c] != 1 or slot[c] != part:
                continue
            narrowing, scale = factors(state[c], numbers)
            parameters, widths = plain_six(state[c]), (shape[c, 0], shape[c, 1], shape[c, 2])
            wavelength, photon = shape[c, 3], shape[c, 4] * POLARISATION_UNIT
            for start in range(offsets[c], offsets[c + 1], CHUNK):
                n = min(CHUNK, offsets[c + 1] - start)
                for k in range(n):
                    j = start + k
                    h = reflection[j] & NUMBER_MASK
                    number[k], mate[k] = h, min(int(reflection[j] >= MINUS), last_mate)
                    turn = (int(azimuth[j]) + 32) >> AZIMUTH_SHIFT & 1023
                    chunk[_LENGTH, k], chunk[_LEVEL, k] = q[h], current[h]
                    chunk[_SINE, k], chunk[_COSINE, k] = SINE[turn], COSINE[turn]
                    chunk[_EXCITATION, k], chunk[_INTENSITY, k], chunk[_SIGMA, k] = (
                        excitation[j],
                        intensity[j],
                        sigma[j],
                    )
                    chunk[_UNIT, k], chunk[_WEIGHT, k] = polarisation[j], weight[j]
                for k in range(CHUNK):
                    length = chunk[_LENGTH, k]
                    q2 = length * length
                    narrowness, base = narrowness_and_base(q2, parameters, widths, fixed, narrowing, scale)
                    turned = parameters[4] * chunk[_COSINE, k] - parameters[3] * chunk[_SINE, k]
                    error = chunk[_EXCITATION, k] + across_beam(length, q2, wavelength) * turned
                    error -= 0.5 * wavelength * q2 * parameters[5]
                    chunk[_Q2, k], chunk[_BASE, k], chunk[_PLACE, k] = q2, base, abs(error) * narrowness * fixed[0]
                for k in range(CHUNK):
                    row = min(int(chunk[_Q2, k] * fixed[1]), rows - 1)
                    chunk[_PEAK, k] = curve[row, 0]
                    chunk[_HEIGHT, k], chunk[_UNCERTAIN, k] = 0.0, 0.0
                    if chunk[_PLACE, k] < nodes - 1:
                        chunk[_HEIGHT, k] = looked_up(curve, row, chunk[_PLACE, k])
                        chunk[_UNCERTAIN, k] = looked_up(spread, row, chunk[_PLACE, k])
                for k in range(CHUNK):
                    base, height, uncertain = chunk[_BASE, k], chunk[_HEIGHT, k], chunk[_UNCERTAIN, k]
                    observed, share = chunk[_INTENSITY, k], chunk[_WEIGHT, k] / FULL_WEIGHT
                    told = tells(height, uncertain, chunk[_PEAK, k], fixed) & (share > 0.0)
                    g = base * height
                    gain = photon / chunk[_UNIT, k]
                    level = max(chunk[_LEVEL, k], 0.0)
                    variance = (
                        background_variance(observed, chunk[_SIGMA, k], gain)
                        + gain * g * level
                        + uncertain * (base * level) ** 2
                    )
                    w = share / variance if told else 0.0
                    chunk[_ABOVE, k], chunk[_BELOW, k] = w * g * observed, w * g * g
                    chunk[_SQUARE, k], chunk[_COUNTED, k] = w * observed * observed, 1.0 if told else 0.0
                for k in range(n):
                    own = own_sums[number[k], mate[k]]
                    own[0] += chunk[_ABOVE, k]
                    own[1] += chunk[_BELOW, k]
                    own[2] += chunk[_SQUARE, k]
                    own[3] += chunk[_COUNTED, k]
