"""Known intensities of the same crystal: do they agree with the observations, and in which way to index?"""

from dataclasses import dataclass

import numpy as np

from sfxflow.ambiguity.likelihood import Knowledge
from sfxflow.ambiguity.observations import mean_by_resolution
from sfxflow.ambiguity.operators import reindexed
from sfxflow.ambiguity.spectral import standardised
from sfxflow.cell import inverse_resolution
from sfxflow.symmetry import reflection_key, to_asu

_MOST = 3.0
#: A reference counts as one of the same crystal from this correlation on, if it is so many standard deviations above none.
LEAST_CORRELATION = 0.2
LEAST_SIGNIFICANCE = 4.0
_HIGHEST = 0.95


@dataclass(frozen=True)
class Reference:
    """Intensities, each over the mean at its resolution.

    Attributes
    ----------
    key : ndarray of int64, shape (n,)
        Sorted keys of the unique reflections.
    ratio : ndarray of float64, shape (n,)
    group : gemmi.SpaceGroup
    """

    key: np.ndarray
    ratio: np.ndarray
    group: object

    def at(self, hkl):
        """Ratio less 1 of reflections, NaN where there is none: ndarray of shape (n,)."""
        key = reflection_key(to_asu(hkl, self.group))
        place = np.minimum(np.searchsorted(self.key, key), len(self.key) - 1)
        return np.where(self.key[place] == key, np.minimum(self.ratio[place] - 1.0, _MOST), np.nan)


def reference_of(hkl, intensity, cell, group):
    """A `Reference` of a list of intensities; equivalents are averaged, what is not finite is left out.

    Parameters
    ----------
    hkl : ndarray of int, shape (n, 3)
    intensity : ndarray, shape (n,)
    cell : sequence of 6 floats
    group : gemmi.SpaceGroup
        Of the dataset.
    """
    good = np.isfinite(intensity) & np.any(np.asarray(hkl) != 0, axis=1)
    asu, intensity = to_asu(np.asarray(hkl)[good], group), np.asarray(intensity, float)[good]
    q = inverse_resolution(asu, cell)
    ratio = intensity / mean_by_resolution(np.ones(len(q)), intensity, q, q)
    key, inverse = np.unique(reflection_key(asu), return_inverse=True)
    return Reference(key, np.bincount(inverse, ratio) / np.maximum(np.bincount(inverse), 1), group)


def agreement(observations, reference):
    """Correlation of the observations with a reference, whatever the ways in which the crystals are indexed.

    Every observation is compared with the mean of the reference over all ways to index it.

    Parameters
    ----------
    observations : sfxflow.ambiguity.observations.Observations
    reference : Reference

    Returns
    -------
    correlation : float
        Of the true intensities with the reference, estimated; NaN where they have too little in common.
    significance : float
        In standard deviations; 0 where they have nothing in common.
    """
    value, information = standardised(observations, with_information=True)
    known = _in_each_mode(observations, reference)
    expected = known.mean(axis=1)
    use = np.isfinite(expected)
    above = np.sum(value[use] * expected[use])
    below = np.sum(information[use] * expected[use] ** 2)
    noise = np.sqrt(np.sum((value[use] * expected[use]) ** 2))
    if not (below > 0 and noise > 0):
        return np.nan, 0.0
    return float(above / below), float(above / noise)


def _in_each_mode(observations, reference):
    at_unique = reference.at(observations.hkl) if len(reference.key) else np.full(len(observations.hkl), np.nan)
    return at_unique[observations.number]


def correlations(observations, reference):
    """Correlation of each crystal's observations with the reference in each mode.

    Parameters
    ----------
    observations : Observations
    reference : Reference

    Returns
    -------
    ndarray, shape (n_crystals, n_modes)
        NaN for crystals with fewer than three observations in common with the reference.
    """
    value = standardised(observations)
    known = _in_each_mode(observations, reference)
    use = np.all(np.isfinite(known), axis=1)
    owner, n_crystals = observations.crystal[use], observations.n_crystals
    n = np.bincount(owner, minlength=n_crystals)

    def mean(values):
        return np.bincount(owner, values, n_crystals) / np.maximum(n, 1)

    x = value[use] - mean(value[use])[owner]
    result = np.full((n_crystals, known.shape[1]), np.nan)
    for m in range(known.shape[1]):
        y = known[use, m] - mean(known[use, m])[owner]
        norm = np.sqrt(mean(x * x) * mean(y * y))
        good = (n >= 3) & (norm > 0)
        result[good, m] = mean(x * y)[good] / norm[good]
    return result


def knowledge_of(observations, reference, correlation):
    """What a reference of this correlation with the truth says of the intensities.

    Returns
    -------
    sfxflow.ambiguity.likelihood.Knowledge
        Wilson's distribution where the reference has no value.
    """
    ratio = reference.at(observations.hkl)
    there = np.isfinite(ratio)
    rho = min(correlation, _HIGHEST)
    mean = np.where(there, 1.0 + rho * np.where(there, ratio, 0.0), 1.0)
    variance = np.where(there, 1.0 - rho**2, 1.0)
    return Knowledge(observations.prior * mean, observations.prior**2 * variance)


def way_of_all(observations, merged, reference, operators):
    """Correlation of merged intensities with the reference, if all are indexed in each of the ways.

    Parameters
    ----------
    observations : Observations
    merged : sfxflow.ambiguity.likelihood.Knowledge
        As from `merged_intensities`.
    reference : Reference
    operators : ndarray, shape (n_modes, 3, 3)

    Returns
    -------
    ndarray, shape (n_modes,)
    """
    ratio = np.minimum(merged.mean / observations.prior - 1.0, _MOST)
    found = []
    for operator in operators:
        known = reference.at(reindexed(observations.hkl, operator))
        use = np.isfinite(known)
        varied = use.sum() > 2 and np.std(known[use]) > 0 and np.std(ratio[use]) > 0
        found.append(np.corrcoef(ratio[use], known[use])[0, 1] if varied else np.nan)
    return np.array(found)
