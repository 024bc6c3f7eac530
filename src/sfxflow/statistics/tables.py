"""Tables of figures of merit by resolution shell and overall, from lists of reflections."""

from typing import NamedTuple

import numpy as np

from sfxflow.cell import inverse_resolution
from sfxflow.point_group import asymmetric, epsilon, is_centrosymmetric
from sfxflow.statistics.l_test import l_test
from sfxflow.statistics.pairs import (
    anomalous_figures,
    anomalous_sums,
    bijvoet_pairs,
    overall,
    pair_figures,
    pair_sums,
    relative_scale,
)
from sfxflow.statistics.shells import possible_per_shell, shell_limits, shell_of
from sfxflow.statistics.single import single_figures, single_sums
from sfxflow.statistics.wilson import wilson_b, wilson_plot
from sfxflow.symmetry import reflection_key


class Crystal(NamedTuple):
    """What makes reflections equivalent, absent and of a certain resolution.

    Attributes
    ----------
    parameters : tuple of 6 floats
        Angstrom and degree.
    centering : str
    operations : ndarray of int, shape (m, 3, 3)
        Rotations of the point group in which the lists are merged.
    """

    parameters: tuple
    centering: str
    operations: np.ndarray


class Reflections(NamedTuple):
    """A list of merged reflections.

    Attributes
    ----------
    hkl : ndarray of int32, shape (n, 3)
    I, sigI : ndarray of float64, shape (n,)
    n : ndarray of int, shape (n,)
        Measurements.
    """

    hkl: np.ndarray
    I: np.ndarray
    sigI: np.ndarray
    n: np.ndarray

    def take(self, rows):
        """The list with some of its rows."""
        return Reflections(*(column[rows] for column in self))


class Table(NamedTuple):
    """Figures of merit.

    Attributes
    ----------
    limits : ndarray, shape (n_shells + 1,)
        s = 1/d, 1/angstrom.
    shells : dict of ndarray, shape (n_shells,)
    overall : dict of float
    """

    limits: np.ndarray
    shells: dict
    overall: dict


def single_table(data, crystal, s_min=None, s_max=None, n_shells=10):
    """Completeness, multiplicity, I/sigma, mean I: the table of check_hkl.

    Parameters
    ----------
    data : Reflections
    crystal : Crystal
    s_min, s_max : float, optional
        Range of s = 1/d that counts, 1/angstrom; by default that of the data.
    n_shells : int
    """
    data, s = _within(data, crystal, s_min, s_max)
    limits = _limits(s, s_min, s_max, n_shells)
    sums = single_sums(data.I, data.sigI, data.n, shell_of(s, limits), n_shells)
    sums["possible"] = possible_per_shell(crystal.parameters, crystal.centering, crystal.operations, limits)
    return Table(limits, single_figures(sums), _scalars(single_figures(overall(sums))))


def pair_table(first, second, crystal, s_min=None, s_max=None, n_shells=10):
    """Rsplit, CC, CC*, R1 and others of two lists: the tables of compare_hkl. The second list is scaled to the first.

    Parameters
    ----------
    first, second : Reflections
    crystal : Crystal
    s_min, s_max : float, optional
        Range of s = 1/d that counts, 1/angstrom; by default that of the common reflections.
    n_shells : int
    """
    first, second, s = common(first, second, crystal, s_min, s_max)
    limits = _limits(s, s_min, s_max, n_shells)
    correction = _scale_factor(first, second, s)
    shell = shell_of(s, limits)
    sums = pair_sums(first.I, first.sigI, second.I * correction, second.sigI * correction, shell, n_shells)
    return Table(limits, pair_figures(sums), _scalars(pair_figures(overall(sums))))


def anomalous_table(first, second, crystal, s_min=None, s_max=None, n_shells=10):
    """CCano, CRDano, Rano and Rano/Rsplit of two half sets in which Bijvoet mates are apart.

    Parameters are those of `pair_table`; the point group must not have a centre of symmetry.
    """
    if is_centrosymmetric(crystal.operations):
        raise ValueError("Bijvoet mates are equivalent in a centrosymmetric point group")
    first, second, s = common(first, second, crystal, s_min, s_max)
    one, other = bijvoet_pairs(first.hkl, crystal.operations)
    # compare_hkl drops reflections without a mate before it takes the limits and the scale.
    both = np.sort(np.concatenate([one, other]))
    limits = _limits(s[both], s_min, s_max, n_shells)
    correction = np.full(len(s), np.nan)
    correction[both] = _scale_factor(first.take(both), second.take(both), s[both])
    scaled = second.I * correction
    shell = shell_of(s[one], limits)
    sums = anomalous_sums(first.I[one], first.I[other], scaled[one], scaled[other], shell, n_shells)
    return Table(limits, anomalous_figures(sums), _scalars(anomalous_figures(overall(sums))))


def wilson_and_l_test(data, crystal, s_min=None, s_max=None):
    """Wilson B factor and L-test of a list.

    Returns
    -------
    dict
        wilson_b (as check_hkl --wilson), wilson_b_squared (with the squares of the form factors), angstrom^2;
        l_test_mean_abs, l_test_mean_square, l_test_n_pairs.
    """
    unique, s = _within(data, crystal, s_min, s_max)
    multiplicity = epsilon(unique.hkl, crystal.operations)
    b, b_squared = (
        wilson_b(*wilson_plot(unique.I, s, multiplicity, s_min, s_max, squared=squared)[:2])
        for squared in (False, True)
    )
    mean_abs, mean_square, n_pairs = l_test(unique.hkl, unique.I, crystal.operations, crystal.centering)
    return {
        "wilson_b": b,
        "wilson_b_squared": b_squared,
        "l_test_mean_abs": mean_abs,
        "l_test_mean_square": mean_square,
        "l_test_n_pairs": n_pairs,
    }


def common(first, second, crystal, s_min=None, s_max=None):
    """Reflections that both lists hold with finite values, under the same unique indices in CrystFEL's order, and their s."""
    first, s = _within(first, crystal, s_min, s_max)
    second, _ = _within(second, crystal, s_min, s_max)
    keys = [reflection_key(table.hkl[:, ::-1]) for table in (first, second)]
    _, rows_first, rows_second = np.intersect1d(*keys, assume_unique=True, return_indices=True)
    return first.take(rows_first), second.take(rows_second), s[rows_first]


def matched_reference(data, reference, reference_operations, crystal):
    """Reference intensities of the reflections of `data`, to be compared by `pair_table`.

    Equivalents in the reference are averaged. Where the reference is merged in a higher symmetry than the data, its value
    stands for each of the data's reflections that are equivalent there.

    Parameters
    ----------
    data, reference : Reflections
    reference_operations : ndarray of int, shape (m, 3, 3)
        Point group of the reference.
    crystal : Crystal
        Of the data.

    Returns
    -------
    Reflections
    """
    ours = {tuple(rotation.ravel()) for rotation in crystal.operations}
    theirs = {tuple(rotation.ravel()) for rotation in reference_operations}
    operations = reference_operations if ours <= theirs else crystal.operations
    use = np.isfinite(reference.I) & np.isfinite(reference.sigI)
    reference = reference.take(use)
    keys, inverse = np.unique(reflection_key(asymmetric(reference.hkl, operations)[:, ::-1]), return_inverse=True)
    if not len(keys):
        return reference
    count = np.bincount(inverse)
    mean = np.bincount(inverse, weights=reference.I) / count
    sigma = np.sqrt(np.bincount(inverse, weights=reference.sigI**2)) / count
    n = np.bincount(inverse, weights=reference.n).astype(np.int64)
    hkl = np.unique(asymmetric(data.hkl, crystal.operations), axis=0)
    wanted = reflection_key(asymmetric(hkl, operations)[:, ::-1])
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    there = keys[place] == wanted
    place = place[there]
    return Reflections(hkl[there], mean[place], sigma[place], n[place])


def repeated(hkl, operations):
    """Rows of two equivalent reflections of a list, or None where every reflection is unique in the point group."""
    key = reflection_key(asymmetric(hkl, operations)[:, ::-1])
    sort = np.argsort(key, kind="stable")
    same = np.flatnonzero(np.diff(key[sort]) == 0)
    return (int(sort[same[0]]), int(sort[same[0] + 1])) if len(same) else None


def _within(data, crystal, s_min, s_max):
    """Finite values within the range, with unique indices, and their s = 1/d."""
    hkl = asymmetric(data.hkl, crystal.operations)
    s = inverse_resolution(hkl, crystal.parameters)
    use = np.isfinite(data.I) & np.isfinite(data.sigI)
    if s_min is not None:
        use &= s >= s_min
    if s_max is not None:
        use &= s <= s_max
    return data._replace(hkl=hkl).take(use), s[use]


def _limits(s, s_min, s_max, n_shells):
    low = s_min if s_min is not None else (s.min() if len(s) else np.nan)
    high = s_max if s_max is not None else (s.max() if len(s) else np.nan)
    return shell_limits(low, high, n_shells)


def _scale_factor(first, second, s):
    scale, b = relative_scale(first.I, second.I, s)
    return scale * np.exp(2.0 * b * (s / 2.0) ** 2)


def _scalars(figures):
    return {name: float(values[0]) for name, values in figures.items()}
