"""Probability of each way to index a crystal, given what all other crystals say of the intensities.

An observation is y = g I + noise, g the crystal's scale times the partiality. What the other crystals say of I is a Gaussian: the
merged sums of their observations, each crystal with its probability of each mode, and Wilson's distribution (mean and standard deviation
`prior`, 1949, Acta Cryst. 2, 318-321, doi:10.1107/S0365110X49000813) as prior. A crystal's own observations are taken out of the sums before it
is judged. Crystals follow each other, each with what is known by then of the ones before: the cavity method, or belief
propagation, on the graph of crystals and reflections.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit

#: Residuals beyond so many standard deviations count less (Cauchy).
_CAUCHY = 3.0
_SWEEPS = 40
#: Log likelihoods are multiplied by these first: from an uncertain start certainty has to grow slowly.
_SOFT = (0.3, 0.5, 0.7)
_STABLE = 1e-3


@dataclass(frozen=True)
class Knowledge:
    """What is known of the intensities before any crystal is looked at.

    Attributes
    ----------
    mean, variance : ndarray of float64, shape (n_reflections,)
    """

    mean: np.ndarray
    variance: np.ndarray


def wilson(observations):
    """Wilson's distribution as `Knowledge`."""
    return Knowledge(observations.prior, observations.prior**2)


def compared(observations, probability, knowledge, sweeps=_SWEEPS, soft=_SOFT):
    """Compare all crystals with each other until nothing changes.

    Parameters
    ----------
    observations : sfxflow.ambiguity.observations.Observations
    probability : ndarray, shape (n_crystals, n_modes)
        Of each mode, to begin with.
    knowledge : Knowledge
    sweeps : int
        Most passes over all crystals.
    soft : tuple of float
        Factors on the log likelihood in the first passes.

    Returns
    -------
    probability : ndarray, shape (n_crystals, n_modes)
    log_likelihood : ndarray, shape (n_crystals, n_modes)
    """
    probability = np.array(probability, np.float64)
    log_likelihood = np.zeros_like(probability)
    sums = np.zeros((len(observations.hkl), 2))
    current = knowledge.mean.astype(np.float64)
    columns = (
        observations.offsets, observations.number, observations.intensity, observations.background, observations.gain,
        observations.factor, observations.error,
    )  # fmt: skip
    for sweep in range(sweeps if probability.shape[1] > 1 else 0):
        before = probability.copy()
        sums[:] = 0.0
        _add_all(*columns, probability, current, sums)
        power = soft[sweep] if sweep < len(soft) else 1.0
        _sweep(*columns, probability, current, sums, knowledge.mean, knowledge.variance, power, log_likelihood)
        precision = sums[:, 1] + 1.0 / knowledge.variance
        current = np.maximum((sums[:, 0] + knowledge.mean / knowledge.variance) / precision, 0.0)
        if sweep >= len(soft) and np.abs(probability - before).max(initial=0.0) < _STABLE:
            break
    return probability, log_likelihood


def merged_intensities(observations, probability, knowledge):
    """What all crystals together say of each reflection, in the modes that are probable.

    Parameters
    ----------
    observations : Observations
    probability : ndarray, shape (n_crystals, n_modes)
    knowledge : Knowledge
        Also what the variances of the observations are computed with.

    Returns
    -------
    Knowledge
    """
    sums = np.zeros((len(observations.hkl), 2))
    _add_all(
        observations.offsets, observations.number, observations.intensity, observations.background, observations.gain,
        observations.factor, observations.error, np.asarray(probability, np.float64), knowledge.mean.astype(np.float64), sums,
    )  # fmt: skip
    precision = sums[:, 1] + 1.0 / knowledge.variance
    return Knowledge((sums[:, 0] + knowledge.mean / knowledge.variance) / precision, 1.0 / precision)


@njit(cache=True, inline="always")
def _variance(background, gain, factor, error, intensity):
    """Of an observation of a reflection of this intensity."""
    expected = factor * max(intensity, 0.0)
    return background + gain * expected + (error * expected) ** 2


@njit(cache=True)
def _add_crystal(first, last, number, intensity, background, gain, factor, error, probability, current, sums, sign):
    for j in range(first, last):
        for m in range(number.shape[1]):
            h = number[j, m]
            g = factor[j]
            w = sign * probability[m] * g / _variance(background[j], gain[j], g, error[j], current[h])
            sums[h, 0] += w * intensity[j]
            sums[h, 1] += w * g


@njit(cache=True)
def _add_all(offsets, number, intensity, background, gain, factor, error, probability, current, sums):
    for c in range(len(offsets) - 1):
        _add_crystal(
            offsets[c], offsets[c + 1], number, intensity, background, gain, factor, error, probability[c], current, sums, 1.0
        )  # fmt: skip


@njit(cache=True)
def _sweep(
    offsets, number, intensity, background, gain, factor, error, probability, current, sums, mean, variance, power,
    log_likelihood,
):  # fmt: skip
    n_modes = number.shape[1]
    for c in range(len(offsets) - 1):
        first, last = offsets[c], offsets[c + 1]
        _add_crystal(
            first, last, number, intensity, background, gain, factor, error, probability[c], current, sums, -1.0
        )  # fmt: skip
        for m in range(n_modes):
            total = 0.0
            for j in range(first, last):
                h = number[j, m]
                precision = max(sums[h, 1], 0.0) + 1.0 / variance[h]
                expected = (sums[h, 0] + mean[h] / variance[h]) / precision
                g = factor[j]
                spread = _variance(background[j], gain[j], g, error[j], expected) + g * g / precision
                residual = intensity[j] - g * expected
                total -= 0.5 * np.log(spread)
                total -= 0.5 * _CAUCHY**2 * np.log(1.0 + residual * residual / (spread * _CAUCHY**2))
            log_likelihood[c, m] = total
        highest = log_likelihood[c].max()
        norm = 0.0
        for m in range(n_modes):
            probability[c, m] = np.exp(power * (log_likelihood[c, m] - highest))
            norm += probability[c, m]
        for m in range(n_modes):
            probability[c, m] /= norm
        _add_crystal(
            first, last, number, intensity, background, gain, factor, error, probability[c], current, sums, 1.0
        )  # fmt: skip
