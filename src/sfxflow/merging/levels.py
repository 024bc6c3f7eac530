"""Cycles until the intensities stay as they are, first on few of the crystals, then on more and more of them.

What all crystals have in common (the curve, the spread of their parameters, intensities to a few percent) a part of a large dataset
tells as well. The others are then fitted to it, and few cycles over all of them are left.
"""

import numpy as np

#: Each level has so many times the crystals of the one before.
_FACTOR = 8
#: Fewest observations for each reflection (and group), and fewest crystals, of a level.
_FEWEST_OBSERVATIONS, _FEWEST_CRYSTALS = 10, 300
#: Cycles end when the intensities change by less than this part of their sum: of all crystals, and of the levels before.
TOLERANCE, TOLERANCE_BEFORE = 1e-4, 2e-3
#: Cycle (from 0) from which groups of crystals are compared each with its own, if there are two more: by then all are on one scale.
_GROUPS_FROM = 4
#: Cycles of the first level before an end is looked for: by then all parameters are fitted. Groups need so many on their own.
_FEWEST_CYCLES, _FEWEST_OF_GROUPS = 6, 4
_GOLDEN = (5**0.5 - 1) / 2


def parts_of(n_observations, n_reflections, n_crystals):
    """The part of the crystals that each level has, the last of them 1.

    Parameters
    ----------
    n_observations, n_crystals : int
    n_reflections : int
        Intensities to be found: unique reflections times groups.

    Returns
    -------
    list of float
    """
    parts = [1.0]
    while (
        n_observations * parts[0] >= _FACTOR * _FEWEST_OBSERVATIONS * n_reflections
        and n_crystals * parts[0] >= _FACTOR * _FEWEST_CRYSTALS
    ):
        parts.insert(0, parts[0] / _FACTOR)
    return parts


def level_of(n_crystals, parts):
    """First level that each crystal takes part in, spread evenly whatever their order is; ndarray of int, shape (n_crystals,)."""
    place = np.arange(n_crystals) * _GOLDEN % 1.0
    return np.searchsorted(parts, place, side="right")


def converge(run, cycles, group=None, n_groups=1, progress=None):
    """Bring all crystals of a run to one scale; afterwards `run` holds the merged sums that belong to its state.

    Parameters
    ----------
    run : sfxflow.merging.cycles.Run
    cycles : int
        The most of each level.
    group, n_groups
        As for `Run.merge`.
    progress : callable, optional
        Called with a line of text after each cycle.
    """
    good = run.active == 1
    parts = parts_of(int(run.counts[good].sum()), len(run.q) * n_groups, int(good.sum()))
    level = np.full(len(good), len(parts))
    level[good] = level_of(int(good.sum()), parts)
    run.keep_waiting(good & (level > 0))
    groups_from = max(1, min(_GROUPS_FROM, cycles - 2))
    fewest = _FEWEST_CYCLES if group is None else groups_from + _FEWEST_OF_GROUPS
    for number in range(len(parts)):
        first = number == 0
        if not first:
            run.admit(level == number)
        tolerance = TOLERANCE if number == len(parts) - 1 else TOLERANCE_BEFORE
        for cycle in range(cycles + 1):
            if cycle or not first:
                run.merge(*((group, n_groups) if not first or cycle >= groups_from else ()))
            settled = not first or cycle >= fewest
            if cycle == cycles or (settled and run.change < tolerance):
                break
            run.fit_cycle(cycle if first else cycles + cycle)
            if progress:
                progress(run.describe(cycle, f"level {number + 1} of {len(parts)}, " if len(parts) > 1 else ""))
