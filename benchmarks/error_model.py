"""Uncertainties of merged intensities: chi squared in ten ranges of intensity, on simulated observations.

Against the other half set, when the half sets are scaled apart: (I1 - I2)^2 / (sigma1^2 + sigma2^2), ranges by (I1 + I2) / 2; and
against the simulator's truth: (I - truth)^2 / sigma^2, ranges by the truth; reflections that were never well recorded (n = 0) are among these,
and in a row of their own. Each of three forms of lattice points by itself, with as many
crystals as `SETS` says, in as many sets; what was simulated differs from every set that a constant was chosen on. A row is the range
that is farthest from 1; its note has all ten.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/unit/merging"))

from observation_simulator import CELL, SPACE_GROUP, simulate, true_on_scale
from table import Row, main

from sfxflow.merging.merge import merge_observations
from sfxflow.settings import Merging
from sfxflow.symmetry import space_group

PROFILES = ("gaussian", "sphere", "block")
#: Crystals, and sets of so many.
SETS = {250: 6, 1000: 3}
N_RANGES = 10
#: Reflections never well recorded that tell a chi squared.
FEWEST = 500


def merged(profile, n, seed, **settings):
    """Simulated and merged."""
    simulated = simulate(n, seed=seed, profile=profile)
    return simulated, merge_observations(
        simulated.crystals, simulated.reflections, CELL, space_group(SPACE_GROUP), Merging(**settings)
    )


def in_ranges(squares, intensities):
    """Mean of `squares` in as many ranges of intensity with as many reflections each."""
    return np.array([np.mean(squares[own]) for own in np.array_split(np.argsort(intensities), N_RANGES)])


def half_sets(table):
    """Squares of the half sets' differences in units of their uncertainty, and the mean intensities."""
    both = (table["n_half1"] > 0) & (table["n_half2"] > 0)
    first, second = table["I_half1"][both], table["I_half2"][both]
    return (first - second) ** 2 / (table["sigI_half1"][both] ** 2 + table["sigI_half2"][both] ** 2), first + second


def rows(n, n_sets, seed):
    """Chi squared of `n` crystals of each form of lattice points, and what common scales do to figures of merit."""
    found, common, everywhere = [], [], []
    for number, profile in enumerate(PROFILES):
        halves, truths, unrecorded, n_pairs, n_reflections = [], [], [], 0, 0
        for own_seed in range(seed + number, seed + number + n_sets * len(PROFILES), len(PROFILES)):
            simulated, result = merged(profile, n, own_seed, independent_halves=True)
            table = result.reflections
            squares, intensities = half_sets(table)
            halves.append(in_ranges(squares, intensities))
            n_pairs += len(squares)
            hkl = np.stack([table[name] for name in "hkl"], axis=1)
            recorded = table["n"] > 0
            true = true_on_scale(hkl, np.where(recorded, table["I"], 0.0), table["sigI"], simulated)
            squares = ((table["I"] - true) / table["sigI"]) ** 2
            truths.append(in_ranges(squares, true))
            unrecorded.append(squares[~recorded])
            n_reflections += len(true)
        shared = merge_observations(
            simulated.crystals, simulated.reflections, CELL, space_group(SPACE_GROUP), Merging()
        ).reflections
        common.append((*figures(table), *figures(shared)))
        found += [
            _row(f"truth, {n} crystals, {profile}", truths, n_reflections),
            _row(f"other half set, {n} crystals, {profile}", halves, n_pairs),
        ]
        everywhere += unrecorded
    found.append(_unrecorded_row(n, np.concatenate(everywhere)))
    mean = np.mean(common, axis=0)
    for i, name in enumerate(("scaled apart", "with common scales")):
        found.append(Row(f"CC1/2, {n} crystals, half sets {name}", "", float(mean[2 * i])))
        found.append(Row(f"Rsplit, {n} crystals, half sets {name}", "", float(100 * mean[2 * i + 1]), "%"))
    return found


def _unrecorded_row(n, squares):
    """Chi squared of reflections that were never well recorded, to be reached where there are enough of them."""
    error = float(np.std(squares) / np.sqrt(max(len(squares), 1)))
    chi_squared, enough = float(np.mean(squares)) if len(squares) else np.nan, len(squares) >= FEWEST
    return Row(
        f"chi squared against the truth, {n} crystals, never well recorded",
        "0.9 to 1.1" if enough else "",
        chi_squared,
        "",
        bool(0.9 <= chi_squared <= 1.1) if enough else None,
        f"{len(squares)} reflections of three forms; sampling error {error:.2f}",
    )


def _row(what, of_sets, n):
    """The range that is farthest from 1, of the mean of the sets with `n` reflections together."""
    mean = np.mean(of_sets, axis=0)
    worst = float(mean[np.argmax(np.abs(mean - 1))])
    note = (
        f"weak to strong {' '.join(f'{value:.2f}' for value in mean)}; sampling error {np.sqrt(2 * N_RANGES / n):.3f}"
    )
    return Row(f"chi squared against the {what}", "0.9 to 1.1", worst, "", bool(0.9 <= worst <= 1.1), note)


def figures(table):
    """CC1/2 and Rsplit."""
    both = (table["n_half1"] > 0) & (table["n_half2"] > 0)
    first, second = table["I_half1"][both], table["I_half2"][both]
    return np.corrcoef(first, second)[0, 1], np.sqrt(2) * np.abs(first - second).sum() / (first + second).sum()


def measure():
    """Rows for `benchmarks/run.py`."""
    return [row for n, n_sets in SETS.items() for row in rows(n, n_sets, 900 + n)]


if __name__ == "__main__":
    main(measure)
