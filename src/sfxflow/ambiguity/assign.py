"""All steps of the assignment of a way to index to each crystal of a dataset."""

from dataclasses import dataclass, field

import numpy as np

from sfxflow.ambiguity.factors import with_merged_factors
from sfxflow.ambiguity.likelihood import Knowledge, compared, merged_intensities, wilson
from sfxflow.ambiguity.observations import observations_of
from sfxflow.ambiguity.operators import composition
from sfxflow.ambiguity.reference import (
    LEAST_CORRELATION,
    LEAST_SIGNIFICANCE,
    agreement,
    knowledge_of,
    reference_of,
    way_of_all,
)
from sfxflow.ambiguity.resolve import margins, resolve
from sfxflow.symmetry import reflection_key

#: Relative deviation of matrices of crystals that are the same one.
_SAME_CRYSTAL = 1e-6


@dataclass
class Assignment:
    """Ways to index the crystals of a dataset.

    Attributes
    ----------
    mode : ndarray of int64, shape (n_crystals,)
        Number of the operator by which the crystal's indices are to be multiplied.
    margin : ndarray of float64, shape (n_crystals,)
        Log likelihood of that mode above that of the second best.
    n_observations : ndarray of int64, shape (n_crystals,)
        Observations that told it.
    summary : dict
        Numbers and remarks for people: told_apart, median_margin, chance_margin, n_rounds, reference_used, reference_correlation,
        reference_ways, remarks (list of str), n_unusable.
    intensities : tuple of (hkl, Knowledge) or None
        What the crystals say together, for others to be compared with, before `turn`.
    turn : ndarray of int64, shape (n_modes,) or None
        What each mode became when all crystals were turned to the reference.
    """

    mode: np.ndarray
    margin: np.ndarray
    n_observations: np.ndarray
    summary: dict = field(default_factory=dict)
    intensities: tuple | None = None
    turn: np.ndarray | None = None


def assign(crystals, reflections, cell, group, operators, settings, reference=None, threads=1):
    """Compare crystals with each other, and with a reference if there is one.

    Parameters
    ----------
    crystals : dict of ndarray
        reciprocal, profile_radius, mosaicity, bandwidth, photon_energy: as `sfxflow.reflections.CRYSTALS`; photon energy in eV.
    reflections : dict of ndarray
        crystal, h, k, l, I, sigI, excitation_error, polarisation: as `sfxflow.reflections.REFLECTIONS`.
    cell : sequence of 6 floats
        Angstrom and degree.
    group : gemmi.SpaceGroup
    operators : ndarray, shape (n_modes, 3, 3)
        As from `ambiguity_operators`.
    settings : sfxflow.settings.Ambiguity
    reference : (ndarray of int, shape (n, 3), ndarray, shape (n,)), optional
        Indices and intensities.
    threads : int

    Returns
    -------
    Assignment
    """
    observations = observations_of(crystals, reflections, cell, group, operators, settings.d_min)
    counts = np.diff(observations.offsets)
    n_crystals = observations.n_crystals
    summary = {"n_unusable": observations.n_unusable, "n_rounds": 0, "reference_used": "none", "remarks": []}
    trivial = _nothing_to_compare(crystals, counts, len(operators))
    if trivial is not None:
        summary |= {"told_apart": len(operators) < 2, "median_margin": 0.0, "chance_margin": 0.0}
        summary["remarks"] += [trivial] if trivial else []
        return Assignment(np.zeros(n_crystals, np.int64), np.zeros(n_crystals), counts, summary)
    known, rho = None, 0.0
    if reference is not None and settings.reference != "none":
        known = reference_of(*reference, cell, group)
        known, rho = _checked_reference(observations, known, summary)
    use_each = known is not None and settings.reference == "crystals"
    result, observations = _rounds(
        observations,
        lambda columns: knowledge_of(columns, known, rho) if use_each else None,
        (crystals, reflections, cell, group, operators),
        settings.cycles,
        threads,
        summary,
    )
    knowledge = knowledge_of(observations, known, rho) if use_each else wilson(observations)
    merged = merged_intensities(observations, result.probability, knowledge)
    turn = np.arange(len(operators))
    if known is not None:
        summary["reference_used"] = settings.reference
        ways = way_of_all(observations, merged, known, operators)
        summary["reference_ways"] = ways.tolist()
        if not use_each:
            turn = _turn(ways, composition(operators, group))
    summary |= {
        "told_apart": bool(result.told_apart),
        "median_margin": result.median_margin,
        "chance_margin": result.chance_margin,
    }
    if not result.told_apart:
        summary["remarks"].append(
            f"the crystals can't be told apart: their median margin is {result.median_margin:.1f}, and {result.chance_margin:.1f} where "
            "there is nothing to tell; more crystals, more observations or a reference are needed"
        )
    return Assignment(turn[result.mode], result.margin, counts, summary, (observations.hkl, merged), turn)


def assign_by_others(crystals, reflections, cell, group, operators, settings, others):
    """Compare crystals with what others say of the intensities.

    Parameters
    ----------
    crystals, reflections, cell, group, operators, settings
        As in `assign`.
    others : Assignment
        With intensities.

    Returns
    -------
    Assignment
    """
    observations = observations_of(crystals, reflections, cell, group, operators, settings.d_min)
    hkl, known = others.intensities
    key = reflection_key(hkl)
    order = np.argsort(key)
    wanted = reflection_key(observations.hkl)
    place = order[np.minimum(np.searchsorted(key, wanted, sorter=order), len(key) - 1)]
    there = key[place] == wanted
    # both have a mean intensity at each resolution: their ratio is that of the scales
    ratio = np.sum(observations.prior[there]) / np.sum(known.mean[place[there]]) if there.any() else 1.0
    mean = np.where(there, ratio * known.mean[place], observations.prior)
    variance = np.where(there, ratio**2 * known.variance[place], observations.prior**2)
    uniform = np.full((observations.n_crystals, len(operators)), 1.0 / len(operators))
    probability, log_likelihood = compared(observations, uniform, Knowledge(mean, variance))
    mode = np.argmax(probability, axis=1)
    return Assignment(others.turn[mode], margins(log_likelihood, mode), np.diff(observations.offsets))


def _nothing_to_compare(crystals, counts, n_modes):
    """Why there is nothing to be found ('' where it needs no words), None where there is something."""
    if n_modes < 2:
        return ""
    matrices = np.asarray(crystals["reciprocal"], float)[counts > 0]
    if len(matrices) < 2:
        return f"{len(matrices)} crystals with usable observations: with fewer than 2 there is nothing to compare"
    scale = np.abs(matrices[0]).max()
    if np.all(np.abs(matrices - matrices[0]) < _SAME_CRYSTAL * scale):
        return f"all {len(matrices)} crystals are identical, so there is nothing to compare: is one frame there many times?"
    return None


def _checked_reference(observations, known, summary):
    """The reference and its correlation, or None where it is not one of this crystal."""
    rho, significance = agreement(observations, known)
    summary["reference_correlation"] = rho
    if rho >= LEAST_CORRELATION and significance >= LEAST_SIGNIFICANCE:
        return known, rho
    said = "has no reflections in common with the data" if not np.isfinite(rho) else (
        f"does not agree with the data in any way to index (correlation {rho:.2f}, {significance:.1f} standard deviations)"
    )  # fmt: skip
    summary["remarks"].append(f"the reference {said}: is it another crystal's? It was not used")
    return None, 0.0


def _rounds(observations, knowledge, tables, cycles, threads, summary):
    """Resolve, merge in the modes found, resolve with what merging tells of the crystals, and so on; the clearest result counts."""
    best = resolve(observations, knowledge(observations))
    best_observations, last = observations, best
    # a merge in modes that are not clear describes the crystals so that they stay in these modes
    for number in range(cycles if best.told_apart else 0):
        refined, _ = with_merged_factors(observations, *tables, last.mode, threads)
        if refined is observations:
            break
        result = resolve(refined, knowledge(refined), start=last.mode)
        summary["n_rounds"] = number + 1
        stable = np.array_equal(result.mode, last.mode)
        if result.clearness > best.clearness:
            best, best_observations = result, refined
        last = result
        if stable:
            break
    return best, best_observations


def _turn(ways, table):
    """What each mode becomes if all crystals are turned into the way that agrees best with the reference."""
    possible = np.all(table >= 0, axis=0) & np.isfinite(ways)
    if not possible.any():
        return np.arange(len(table))
    return table[:, int(np.argmax(np.where(possible, ways, -np.inf)))]
