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

N_PARAMETERS = 6
NUMBER_MASK = np.uint32(MINUS - 1)
COSINE = np.cos(2 * np.pi * np.arange(1024) / 1024)
SINE = np.sin(2 * np.pi * np.arange(1024) / 1024)
AZIMUTH_SHIFT = 6
assert FULL_TURN >> AZIMUTH_SHIFT == 1024
#: The part of a variance that is certainly not due to the reflection's own photons.
_LEAST_BACKGROUND = 0.1
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


@njit(cache=True, nogil=True, error_model="numpy")
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
                narrowness, base = narrowness_and_base(q2, own_state, own_shape, numbers, narrowing, scale)
                x = abs(moved(excitation[j], azimuth[j], q[h], q2, own_state, own_shape[3])) * narrowness
                place = x * numbers[0]
                node = int(place)
                if node >= nodes - 1:
                    continue
                row = min(int(q2 * numbers[1]), rows - 1)
                part = place - node
                height = curve[row, node] + part * (curve[row, node + 1] - curve[row, node])
                uncertain = spread[row, node] + part * (spread[row, node + 1] - spread[row, node])
                # a factor, no branch: which way it goes can't be foreseen
                counted = 1.0 if tells(height, uncertain, curve[row, 0], numbers) & (weight[j] > 0) else 0.0
                g = base * height
                gain = photon / polarisation[j]
                level = max(current[h], 0.0)
                variance = (
                    background_variance(intensity[j], sigma[j], gain)
                    + gain * g * level
                    + uncertain * (base * level) ** 2
                )
                w = counted * weight[j] / (FULL_WEIGHT * variance)
                own = own_sums[h, half + mates * (reflection[j] >= MINUS)]
                own[0] += w * g * intensity[j]
                own[1] += w * g * g
                own[2] += w * intensity[j] * intensity[j]
                own[3] += counted
