"""Is a refined lattice believed? Tests of each lattice alone, and of all lattices of a run together.

A lattice of few peaks can't tell the right cell from its multiples and parts: by chance, or because the beam is along an axis, all of
them lie on a sub-lattice. The run can: with the right cell few lattices look so, with a multiple of it nearly all do; and with a part of
it the peaks that it leaves over lie between its points, on frame after frame.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit

from sfxflow.cell import parameters_of
from sfxflow.indexing.lattice import reduce_basis, reduced_reciprocal, sublattice_basis, sublattice_tests
from sfxflow.indexing.search import log10_binomial_tail
from sfxflow.small_matrices import inverse3, solve_in_place

#: log10 of the likelihood ratio (true pairs among chance ones, against chance alone) that a refined lattice must reach, in all and for
#: each of its peaks. Simulated right lattices have 2.4 or more a peak, wide mosaicity and many false peaks included; wrong cells, whose
#: fits are broad, 1.0 or less in 95 % (docs/indexing.md).
LEAST_RATIO = 15.0
LEAST_RATIO_PER_PEAK = 1.2
#: Share of a lattice's peaks that must lie off each of its sub-lattices. A true primitive lattice has 1/2 and 2/3 of them off those of
#: index 2 and 3, a supercell of the true one only what chance peaks give it, some per cent (docs/indexing.md).
OFF_SUBLATTICE = 0.08
#: log10 of the chance at which peaks between the lattice points are no accident: the cell is a part of a larger one.
SUPERLATTICE_LOG10_P = -4.0
SUPERLATTICE_TOLERANCE = 0.1
#: ... and they are at least this many for each peak of the lattice: a true larger cell has one (index 2) or two (index 3).
SUPERLATTICE_SHARE = 0.25
#: So many lattices are a run that can be judged.
LEAST_LATTICES = 5
#: Shares of a run's lattices that seem to lie on a sub-lattice: above the first the cell is a multiple of the true one, below the second
#: it is not, and what seems so on single frames is chance.
MOSTLY = 0.5
SELDOM = 0.2
#: The same as SUPERLATTICE_... for all lattices of a run together, which says more.
RUN_SUPERLATTICE_LOG10_P = -6.0
RUN_SUPERLATTICE_SHARE = 0.1

_FORMS, _MODULI = sublattice_tests()


@dataclass(frozen=True)
class Evidence:
    """What a lattice says about the multiples and parts of its cell: counts for the 7 sub-lattices of index 2 and the 13 of index 3.

    Attributes
    ----------
    n_pairs : int
        Peaks that are true pairs.
    off : ndarray of int, shape (20,)
        True pairs off each sub-lattice.
    n_members : int
        Peaks that belong to the lattice.
    n_others : int
        Peaks of the frame that don't.
    between : ndarray of int, shape (20,)
        Those of them that lie a half or a third of the way between lattice points, where a cell that is larger by each of the forms has
        points.
    """

    n_pairs: int
    off: np.ndarray
    n_members: int
    n_others: int
    between: np.ndarray

    @property
    def on_sublattice(self):
        """Whether nearly all true pairs lie on it, for each sub-lattice."""
        return self.off < OFF_SUBLATTICE * self.n_pairs

    @property
    def doubt(self):
        """'sub-lattice' or 'super-lattice' where the lattice alone speaks for a smaller or a larger cell, otherwise ''."""
        if np.any(self.on_sublattice):
            return "sub-lattice"
        if self.n_others >= 3 and superlattice_log10_p(self, SUPERLATTICE_SHARE) < SUPERLATTICE_LOG10_P:
            return "super-lattice"
        return ""


@dataclass(frozen=True)
class Verdict:
    """What all lattices of a run say about the cell.

    Attributes
    ----------
    refusal : str
        'sub-lattice' or 'super-lattice' if the cell is a multiple or a part of the true one: no lattice of the run is believed.
    form, modulus : ndarray of int, shape (3,), and int
        Which one: reflections of the sub-lattice have (form . hkl_reduced) divisible by `modulus`; the points of the larger cell are at
        hkl_reduced + form / modulus.
    dismissed : ndarray of bool, shape (20,)
        Sub-lattices that the run as a whole excludes: a lattice that seems to lie on one is believed.
    """

    refusal: str = ""
    form: np.ndarray = None
    modulus: int = 1
    dismissed: np.ndarray = None


def evidence_of(refined, members, q, lattice):
    """`Evidence` of a refined lattice.

    Parameters
    ----------
    refined : RefinedLattice
    members : ndarray of bool, shape (n,)
    q : ndarray, shape (n, 3)
        Of all peaks that it was refined against, 1/angstrom.
    lattice : Lattice
    """
    true_pairs = refined.inlier > 0.5
    # Primitive indices: conventional ones of a centred cell would always lie on a sub-lattice.
    primitive = np.rint(refined.hkl[true_pairs] @ lattice.to_reduced.T)
    off = np.zeros(len(_FORMS), dtype=np.int64)
    count_off(primitive, _FORMS, _MODULI, off)
    indices = q[~members] @ inverse3(reduced_reciprocal(refined.reciprocal, lattice)).T
    between = np.zeros(len(_FORMS), dtype=np.int64)
    count_between(indices, _FORMS, _MODULI, SUPERLATTICE_TOLERANCE, between)
    return Evidence(int(true_pairs.sum()), off, int(members.sum()), len(indices), between)


@njit(cache=True)
def count_off(hkl, forms, moduli, counts):
    """Add to `counts` the number of reflections off each sub-lattice, (form . hkl) divisible by its modulus."""
    for i in range(hkl.shape[0]):
        for j in range(forms.shape[0]):
            value = (forms[j, 0] * hkl[i, 0] + forms[j, 1] * hkl[i, 1] + forms[j, 2] * hkl[i, 2]) / moduli[j]
            # Whole where it is divisible, and off by a third at least where it is not: no rounding can hide that.
            counts[j] += abs(value - np.rint(value)) > 0.1


@njit(cache=True)
def count_between(indices, forms, moduli, tolerance, counts):
    """Add to `counts` the number of points within `tolerance` of hkl + form / modulus or hkl - form / modulus, for whole hkl."""
    for i in range(indices.shape[0]):
        for j in range(forms.shape[0]):
            near = False
            for sign in (-1.0, 1.0):
                distance2 = 0.0
                for r in range(3):
                    away = indices[i, r] + sign * forms[j, r] / moduli[j]
                    distance2 += (away - np.rint(away)) ** 2
                near |= distance2 < tolerance * tolerance
            counts[j] += near


def superlattice_log10_p(evidence, least_share):
    """log10 of the chance that as many of the other peaks lie half or a third of the way between lattice points.

    If the true cell is a multiple of the target, the target explains a part of the peaks perfectly, and the others lie on the finer
    lattice. The smallest chance over the 7 lattices of index 2 and the 13 of index 3 is given, multiplied by their number. Those with
    fewer such peaks than `least_share` for each peak of the lattice are no larger cells.
    """
    return _strongest_superlattice(evidence, least_share)[0]


def _strongest_superlattice(evidence, least_share):
    smallest, strongest = 0.0, 0
    for i, (count, modulus) in enumerate(zip(evidence.between, _MODULI, strict=True)):
        if count == 0 or count < least_share * evidence.n_members:
            continue
        chance = (modulus - 1) * 4.0 / 3.0 * np.pi * SUPERLATTICE_TOLERANCE**3
        log10_p = log10_binomial_tail(int(count), evidence.n_others, chance)
        if log10_p < smallest:
            smallest, strongest = log10_p, i
    return min(0.0, smallest + np.log10(len(_FORMS))), strongest


def judge_run(evidence):
    """What the lattices of a run say together.

    Parameters
    ----------
    evidence : sequence of Evidence
        Of all lattices that pass the tests of `refusal`, with doubts or without.

    Returns
    -------
    Verdict
        Without refusal or dismissal where there are too few lattices.
    """
    if len(evidence) < LEAST_LATTICES:
        return Verdict(dismissed=np.zeros(len(_FORMS), dtype=bool))
    share = np.mean([lattice.on_sublattice for lattice in evidence], axis=0)
    if share.max() > MOSTLY:
        worst = int(share.argmax())
        return Verdict("sub-lattice", _FORMS[worst], int(_MODULI[worst]), np.zeros(len(_FORMS), dtype=bool))
    together = Evidence(
        n_pairs=sum(lattice.n_pairs for lattice in evidence),
        off=sum(lattice.off for lattice in evidence),
        n_members=sum(lattice.n_members for lattice in evidence),
        n_others=sum(lattice.n_others for lattice in evidence),
        between=sum(lattice.between for lattice in evidence),
    )
    log10_p, strongest = _strongest_superlattice(together, RUN_SUPERLATTICE_SHARE)
    if log10_p < RUN_SUPERLATTICE_LOG10_P:
        return Verdict("super-lattice", _FORMS[strongest], int(_MODULI[strongest]), np.zeros(len(_FORMS), dtype=bool))
    return Verdict(dismissed=share < SELDOM)


def believed(evidence, verdict):
    """Why a lattice is not believed, given what the run says; '' if it is."""
    if verdict.refusal:
        return verdict.refusal
    doubt = evidence.doubt
    if doubt == "sub-lattice" and np.all(verdict.dismissed[evidence.on_sublattice]):
        return ""
    return doubt


def proposed_cell(verdict, lattice):
    """Reduced primitive cell (angstrom, degree) that the lattices of a refused run speak for, shape (6,)."""
    basis = sublattice_basis(verdict.form, verdict.modulus)
    if verdict.refusal == "sub-lattice":
        larger_reciprocal = basis @ np.linalg.inv(lattice.reduced).T
        real = np.linalg.inv(larger_reciprocal).T
    else:
        real = basis @ lattice.reduced
    return parameters_of(np.linalg.inv(reduce_basis(real)))


def refusal(refined, peaks, target, settings, wavelength, pixel_size):
    """Why a refined lattice is not believed, whatever the run says; '' if nothing is wrong with it."""
    true_pairs = refined.inlier > 0.5
    if true_pairs.sum() < settings.min_peaks:
        return "too few peaks explained"
    if not np.all(np.isfinite(refined.reciprocal)):
        return "refinement failed"
    if refined.log10_ratio < max(LEAST_RATIO, LEAST_RATIO_PER_PEAK * true_pairs.sum()):
        return "poor fit"
    cell = unrestrained_cell(refined, peaks, wavelength, pixel_size)
    difference = cell_difference(cell, target.cell.parameters)
    if difference[0] > settings.cell_tolerance or difference[1] > settings.angle_tolerance:
        return "cell differs"
    return ""


def unrestrained_cell(refined, peaks, wavelength, pixel_size):
    """Cell (angstrom, degree) by linear least squares on the true pairs, without symmetry or restraint.

    A scattering vector is known to the error of position across the Ewald sphere's normal, and along it only to the width of the
    reflections; each counts with its own weight. A weak ridge keeps directions that the peaks do not determine where the refined
    lattice has them.

    Parameters
    ----------
    refined : RefinedLattice
    peaks : FramePeaks
    wavelength, pixel_size : float
        Angstrom, metre.
    """
    scale = 1.0 / (wavelength * peaks.distance)
    q = peaks.q - scale * np.array([refined.offsets[0], refined.offsets[1], 0.0])
    across = (refined.position_sigma * pixel_size * scale) ** 2
    weight = refined.inlier + 1e-9
    along = max(across, weight @ refined.excitation_error**2 / weight.sum())
    left, right = _unrestrained_equations(q, refined.hkl, refined.inlier, across / along, 1.0 / wavelength)
    ridge = 1e-3 * np.trace(left) / 9.0
    left += ridge * np.eye(9)
    right += ridge * refined.reciprocal.reshape(9, 1)
    if not solve_in_place(left, right):
        return np.full(6, np.nan)
    return parameters_of(right.reshape(3, 3))


@njit(cache=True)
def _unrestrained_equations(q, hkl, inlier, along_weight, k):
    """Normal equations for the nine elements of B in q = B h, row by row.

    Weights are 1 across the normal of the Ewald sphere and `along_weight` along it, times the probability of a true pair.
    """
    left, right = np.zeros((9, 9)), np.zeros((9, 1))
    normal, weight = np.empty(3), np.empty((3, 3))
    for i in range(q.shape[0]):
        if inlier[i] < 1e-3:
            continue
        norm = np.sqrt(q[i, 0] ** 2 + q[i, 1] ** 2 + (q[i, 2] + k) ** 2)
        for r in range(3):
            normal[r] = (q[i, r] + (k if r == 2 else 0.0)) / norm
        for r in range(3):
            for s in range(3):
                weight[r, s] = inlier[i] * ((1.0 if r == s else 0.0) + (along_weight - 1.0) * normal[r] * normal[s])
        for r in range(3):
            for s in range(3):
                for a in range(3):
                    right[3 * r + a, 0] += weight[r, s] * q[i, s] * hkl[i, a]
                    for b in range(3):
                        left[3 * r + a, 3 * s + b] += weight[r, s] * hkl[i, a] * hkl[i, b]
    return left, right


def cell_difference(first, second):
    """Largest relative difference of the lengths and largest difference of the angles (degree)."""
    first, second = np.asarray(first), np.asarray(second)
    return np.abs(first[:3] / second[:3] - 1.0).max(), np.abs(first[3:] - second[3:]).max()
