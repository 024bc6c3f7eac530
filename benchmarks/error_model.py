"""Uncertainties of merged intensities: chi squared in ten ranges of intensity, on simulated observations.

Against the other half set, when the half sets are scaled apart: (I1 - I2)^2 / (sigma1^2 + sigma2^2), ranges by (I1 + I2) / 2; and
against the simulator's truth: (I - truth)^2 / sigma^2, ranges by the truth. Three forms of lattice points, each with as many
crystals as `CRYSTALS`, pooled; what was simulated differs from every set that a constant was chosen on.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/unit/merging"))

from observation_simulator import CELL, SPACE_GROUP, agreement, simulate, true_on_scale
from table import Row, main

from sfxflow.merging.merge import merge_observations
from sfxflow.settings import Merging
from sfxflow.symmetry import space_group

PROFILES = ("gaussian", "sphere", "block")
CRYSTALS = (250, 1000)
N_RANGES = 10


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


def rows(n, seed):
    """Chi squared of `n` crystals of each form of lattice points."""
    halves, truths, common = [], [], []
    for number, profile in enumerate(PROFILES):
        simulated, result = merged(profile, n, seed + number, independent_halves=True)
        table = result.reflections
        halves.append(in_ranges(*half_sets(table)))
        hkl = np.stack([table[name] for name in "hkl"], axis=1)
        true = true_on_scale(hkl, table["I"], table["sigI"], simulated)
        truths.append(in_ranges(((table["I"] - true) / table["sigI"]) ** 2, true))
        common.append((agreement(hkl, table["I"], simulated)[0], *figures(table)))
        shared = merge_observations(
            simulated.crystals, simulated.reflections, CELL, space_group(SPACE_GROUP), Merging()
        ).reflections
        common[-1] += figures(shared)
    found = []
    for what, values in (("other half set", halves), ("truth", truths)):
        mean = np.mean(values, axis=0)
        error = np.sqrt(2 / 750 / len(PROFILES))
        for i, value in enumerate(mean):
            found.append(
                Row(
                    f"chi squared against the {what}, {n} crystals, range {i + 1}",
                    "0.9 to 1.1",
                    float(value),
                    ok=bool(0.9 <= value <= 1.1),
                    note=f"sampling error {error:.2f}; by form " + ", ".join(f"{v[i]:.2f}" for v in values),
                )
            )
    mean = np.mean(common, axis=0)
    names = ("scaled apart", "with common scales")
    for i, name in enumerate(names):
        found.append(Row(f"CC1/2, {n} crystals, half sets {name}", "", float(mean[1 + 2 * i])))
        found.append(Row(f"Rsplit, {n} crystals, half sets {name}", "", float(100 * mean[2 + 2 * i]), "%"))
    return found


def figures(table):
    """CC1/2 and Rsplit."""
    both = (table["n_half1"] > 0) & (table["n_half2"] > 0)
    first, second = table["I_half1"][both], table["I_half2"][both]
    return np.corrcoef(first, second)[0, 1], np.sqrt(2) * np.abs(first - second).sum() / (first + second).sum()


def measure():
    """Rows for `benchmarks/run.py`."""
    return [row for n in CRYSTALS for row in rows(n, 900 + n)]


if __name__ == "__main__":
    main(measure)
