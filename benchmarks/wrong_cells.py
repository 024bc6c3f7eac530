"""Right and wrong cells on simulated peak lists: on how many frames a lattice is accepted.

For each preset of the simulator the right cell, multiples and parts of it, a cell 4 % off and other proteins' cells are tried on the
same peaks. `docs/indexing.md` quotes what this prints.
"""

from dataclasses import replace

from index_runs import cell_of, index_run, simulated_run
from table import Row, main

from sfxflow.cell import Cell
from sfxflow.settings import Indexing

#: Not those on which anything was chosen.
SEED = 9073
NAMES = ("lysozyme", "hexagonal", "monoclinic", "triclinic", "orthorhombic", "cubic", "large")
SCENARIOS = ((10, 0), (25, 25), (60, 10))
OTHERS = {
    "thaumatin": Cell(58.4, 58.4, 152.3, lattice_type="tetragonal", unique_axis="c"),
    "lysozyme": Cell(79.1, 79.1, 37.9, lattice_type="tetragonal", unique_axis="c"),
    "monoclinic": Cell(51.0, 42.0, 66.0, beta=104.5, lattice_type="monoclinic", unique_axis="b"),
}


def target_cells(experiment, name):
    """Name and cell of what is tried: the right cell first."""
    right = cell_of(experiment)
    lattice, centering = right.lattice_type, right.centering
    # A cubic cell with another c is tetragonal.
    one_axis = replace(right, lattice_type="tetragonal", unique_axis="c") if lattice == "cubic" else right
    cells = {
        "right": right,
        "c doubled": replace(one_axis, c=2 * right.c, centering="P"),
        "c halved": replace(one_axis, c=right.c / 2, centering="P"),
        "4 % off": replace(right, a=1.04 * right.a, b=1.04 * right.b, c=1.04 * right.c),
    }
    if centering != "P":
        cells["primitive"] = replace(right, centering="P")
    elif lattice in ("orthorhombic", "tetragonal"):
        cells["I centred"] = replace(right, centering="I")
    return cells | {f"other: {other}": cell for other, cell in OTHERS.items() if other != name}


def accepted_frames(names=NAMES, n_frames=30):
    """Frames in all and those with a lattice, for each preset, scenario and cell.

    Returns
    -------
    list of (name, (n_peaks, n_outliers), what, frames, accepted)
    """
    counts = []
    for name in names:
        for scenario in SCENARIOS:
            experiment, lists = simulated_run(name, n_frames, *scenario, 1, SEED)
            for what, cell in target_cells(experiment, name).items():
                indexed = index_run(lists, cell, experiment.pixel_size, Indexing())
                counts.append((name, scenario, what, len(lists), sum(map(bool, indexed.lattices))))
    return counts


def rows_of(counts):
    """Rows for the table: one for each kind of cell, all presets together.

    Parameters
    ----------
    counts : list
        What `accepted_frames` gives.
    """
    kinds = list(dict.fromkeys(what.split(":")[0] for _, _, what, _, _ in counts))
    rows = []
    for kind in kinds:
        of_kind = [row for row in counts if row[2].split(":")[0] == kind]
        n_frames, n_accepted = (sum(row[i] for row in of_kind) for i in (3, 4))
        share = 100 * n_accepted / n_frames
        each = []
        for scenario in SCENARIOS:
            numbers = [row for row in of_kind if row[1] == scenario]
            each.append(f"{scenario[0]}+{scenario[1]}: {sum(r[4] for r in numbers)} of {sum(r[3] for r in numbers)}")
        if kind == "right":
            reach, ok, worst = ">= 98 %", share >= 98.0, min(of_kind, key=lambda row: row[4] / row[3])
        else:
            reach, ok, worst = "<= 1 %", share <= 1.0, max(of_kind, key=lambda row: row[4] / row[3])
        note = f"{', '.join(each)}; farthest off: {worst[0]} {worst[1][0]}+{worst[1][1]}, {worst[4]} of {worst[3]}"
        rows.append(Row(f"frames that accept a lattice, cell {kind}", reach, share, "%", ok, note))
    return rows


def measure():
    """Rows for the table."""
    return rows_of(accepted_frames())


if __name__ == "__main__":
    main(measure)
