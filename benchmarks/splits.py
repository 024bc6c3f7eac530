"""Differences of groups that are merged apart, and anomalous differences, against the truth of simulated observations.

Two states whose intensities differ by some per cent, in crystals that alternate; the same without a difference; Friedel mates that
differ. Seeds are not those that anything was chosen on. With --cycles instead: what the number of cycles in which groups are compared
each with its own was chosen from.
"""

import sys
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "tests/unit/merging")]

from observation_simulator import CELL, SPACE_GROUP, simulate
from table import Row, main

from sfxflow.merging import levels, scaling
from sfxflow.merging.merge import Parts, merge_observations
from sfxflow.point_group import is_centric
from sfxflow.settings import Merging
from sfxflow.statistics.differences import difference_figures, differences
from sfxflow.statistics.summary import Dataset, figures
from sfxflow.statistics.tables import Crystal, Reflections
from sfxflow.symmetry import rotations, space_group

GROUP = space_group(SPACE_GROUP)
N_CRYSTALS, D_MIN = 400, 3.2


def of_states(relative, seed):
    """Slope and correlation of the differences against the true ones, errors in sigma, and the figures."""
    simulated = simulate(N_CRYSTALS, seed=seed, d_min=D_MIN, state_difference=relative)
    parts = Parts(("dark", "light"), np.arange(N_CRYSTALS) % 2)
    merged = merge_observations(simulated.crystals, simulated.reflections, CELL, GROUP, Merging(), parts=parts)
    light, dark = merged.groups["light"], merged.groups["dark"]
    found = differences(light, dark)
    true = dict(zip(map(tuple, simulated.hkl.tolist()), simulated.truth["second_state"], strict=True))
    expected = np.array([true[tuple(row)] for row in found.hkl.tolist()])
    weight = found.sigDI**-2.0
    overall, _ = difference_figures(found, light, dark, CELL)
    slope = np.sum(weight * found.DI * expected) / np.sum(weight * expected**2) if relative else np.nan
    cc = np.corrcoef(found.DI, expected)[0, 1] if relative else np.nan
    error = np.median(np.abs(found.DI - expected) / found.sigDI) / 0.6745
    return slope, cc, error, overall


def of_mates(relative, seed):
    """Slope and correlation of anomalous differences against the true ones, and the figures of merit."""
    simulated = simulate(N_CRYSTALS, seed=seed, d_min=D_MIN, anomalous=relative)
    r = merge_observations(simulated.crystals, simulated.reflections, CELL, GROUP, Merging(anomalous=True)).reflections
    hkl = np.stack([r[name] for name in "hkl"], axis=1)
    true = dict(
        zip(map(tuple, simulated.hkl.tolist()), simulated.truth["difference"] * simulated.intensity, strict=True)
    )
    apart = Crystal(CELL, "P", rotations(GROUP, friedel=False))
    acentric = ~is_centric(hkl, apart.operations)
    both = acentric & np.isfinite(r["I_plus"]) & np.isfinite(r["I_minus"])
    found = (r["I_plus"] - r["I_minus"])[both]
    weight = 1 / (r["sigI_plus"] ** 2 + r["sigI_minus"] ** 2)[both]
    expected = 2 * np.array([true[tuple(row)] for row in hkl[both].tolist()])
    slope = np.sum(weight * found * expected) / np.sum(weight * expected**2) if relative else np.nan
    cc = np.corrcoef(found, expected)[0, 1] if relative else np.nan
    halves = []
    for half in ("_half1", "_half2"):
        columns = [
            np.concatenate([r[f"{w}_{m}{half}"][acentric] for m in ("plus", "minus")]) for w in ("I", "sigI", "n")
        ]
        halves.append(Reflections(np.concatenate([hkl[acentric], -hkl[acentric]]), *columns))
    crystal = Crystal(CELL, "P", rotations(GROUP))
    data = Reflections(hkl, r["I"], r["sigI"], r["n"])
    overall, _ = figures(
        Dataset(crystal, data, bijvoet_crystal=apart, bijvoet_halves=tuple(halves), bijvoet_are_halves=True)
    )
    return slope, cc, overall


def cycles_of_groups():
    """Rows with other numbers of cycles in which each group is compared with its own; 0: all with the whole."""
    known_of_groups, groups_from = scaling.known_of_groups, levels._GROUPS_FROM

    def of_the_whole(apart, anomalous):
        whole = apart.sum(axis=2)
        known = scaling.known_of_mates(whole.reshape(len(whole), 4, -1), anomalous)
        return np.stack([known] * apart.shape[2])

    rows = []
    for n in (0, 2, 4, 6):
        scaling.known_of_groups = known_of_groups if n else of_the_whole
        levels._GROUPS_FROM = 8 - n
        for relative in (0.1, 0.25, 0.0):
            slope, cc, _, overall = of_states(relative, seed=71)
            what, halves = f"{n} cycles, difference of {100 * relative:.0f} %", overall["cc_difference"]
            note = f"correlation with the true one {cc:.3f}, of half sets {halves:.3f}"
            if relative:
                rows.append(Row(f"{what}: size against the true one", "", slope, "", None, note))
            else:
                rows.append(Row(f"{what}: correlation of half sets", "", halves))
    scaling.known_of_groups, levels._GROUPS_FROM = known_of_groups, groups_from
    return rows


def measure():
    """Rows of the benchmark."""
    rows = []
    conditions = f"{N_CRYSTALS} crystals in two groups, 75 observations each, to {D_MIN} angstrom"
    for relative in (0.05, 0.1, 0.25):
        slope, cc, error, overall = of_states(relative, seed=301)
        what = f"difference of {100 * relative:.0f} %"
        rows += [
            Row(f"{what}: size against the true one", "", slope, "", None, conditions),
            Row(f"{what}: correlation with the true one", "", cc),
            Row(f"{what}: error in sigma (median / 0.67)", "", error),
            Row(f"{what}: correlation of half sets", "", overall["cc_difference"]),
        ]
    _, _, error, overall = of_states(0.0, seed=302)
    chance = 1 / np.sqrt(overall["n_in_halves"])
    rows += [
        Row("no difference: chi squared", "", overall["chi_squared"]),
        Row(
            "no difference: correlation of half sets",
            f"+- {3 * chance:.2f}",
            overall["cc_difference"],
            "",
            abs(overall["cc_difference"]) < 3 * chance,
        ),
    ]
    for relative in (0.03, 0.1):
        slope, cc, overall = of_mates(relative, seed=303)
        what = f"anomalous difference of {100 * relative:.0f} %"
        rows += [
            Row(f"{what}: size against the true one", "", slope),
            Row(f"{what}: correlation with the true one", "", cc),
            Row(f"{what}: CCano", "", overall["cc_ano"]),
            Row(f"{what}: Rano / Rsplit", "", overall["r_ano_over_r_split"]),
        ]
    _, _, overall = of_mates(0.0, seed=304)
    chance = 1 / np.sqrt(overall["n_bijvoet_pairs"])
    rows.append(
        Row(
            "no anomalous difference: CCano",
            f"+- {3 * chance:.2f}",
            overall["cc_ano"],
            "",
            abs(overall["cc_ano"]) < 3 * chance,
        )
    )
    return rows


if __name__ == "__main__":
    main(cycles_of_groups if "--cycles" in sys.argv else measure)
