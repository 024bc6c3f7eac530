"""Right and wrong cells on simulated peak lists: how many lattices are accepted, and how well they fit.

For each preset of the simulator the right cell, multiples and parts of it, a cell 4 % off and other proteins' cells are tried on the
same peaks. `docs/indexing.md` quotes what this prints.
"""

import argparse
from collections import Counter
from dataclasses import replace

import numpy as np
from peak_lists import peak_list

from sfxflow.cell import Cell
from sfxflow.indexing import frame
from sfxflow.indexing.known_cell import index_lattice
from sfxflow.io.cell_file import lattice_of
from sfxflow.settings import Indexing
from sfxflow.simulate.presets import preset

NAMES = ("lysozyme", "hexagonal", "monoclinic", "triclinic", "orthorhombic", "cubic", "large")
SCENARIOS = ((10, 0), (25, 25), (60, 10))
OTHERS = {
    "thaumatin": Cell(58.4, 58.4, 152.3, lattice_type="tetragonal", unique_axis="c"),
    "lysozyme": Cell(79.1, 79.1, 37.9, lattice_type="tetragonal", unique_axis="c"),
    "monoclinic": Cell(51.0, 42.0, 66.0, beta=104.5, lattice_type="monoclinic", unique_axis="b"),
}


def target_cells(experiment, name):
    """Name and cell of what is tried: the right cell first."""
    lattice, centering, axis = lattice_of(experiment.gemmi_group)
    right = Cell(*experiment.cell_parameters, lattice_type=lattice, centering=centering, unique_axis=axis)
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
    return cells | {other: cell for other, cell in OTHERS.items() if other != name}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--presets", nargs="+", default=NAMES)
    parser.add_argument("--n-frames", type=int, default=40)
    args = parser.parse_args()
    settings = Indexing()
    ratios = {"right": [], "wrong": []}
    print(
        "preset        peaks  cell         significant accepted  log10 ratio a peak (5 %, median, 95 %)  refused because"
    )
    for name in args.presets:
        experiment = preset(name, seed=5, blank_fraction=0.0, multi_fraction=0.0)
        for n_peaks, n_outliers in SCENARIOS:
            lists = [peak_list(experiment, i, n_peaks, n_outliers) for i in range(args.n_frames)]
            lists = [made for made in lists if len(made[0]) >= 8]
            for what, cell in target_cells(experiment, name).items():
                per_peak, reasons = tried(lists, frame.prepare_target(cell), experiment.pixel_size, settings)
                ratios["right" if what == "right" else "wrong"] += per_peak
                accepted = reasons.pop("", 0)
                spread = " ".join(f"{x:6.2f}" for x in np.percentile(per_peak, (5, 50, 95))) if per_peak else ""
                why = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
                print(
                    f"{name:12} {n_peaks:3}+{n_outliers:<3} {what:12} {len(per_peak):4} of {len(lists):<4} {accepted:8}  {spread:38}  {why}",
                    flush=True,
                )
    for what, found in ratios.items():
        if found:
            spread = " ".join(f"{x:.2f}" for x in np.percentile(found, (0, 1, 5, 50, 95, 99, 100)))
            print(f"all {what}: {len(found)} significant, log10 ratio a peak at 0 1 5 50 95 99 100 %: {spread}")


def tried(lists, target, pixel_size, settings):
    """log10 ratio a peak of each significant lattice, and how often each reason was given ('' where it was accepted)."""
    per_peak, reasons = [], Counter()
    for peaks, to_panel, wavelength, _ in lists:
        weight = frame.strength_weights(peaks.intensity)
        reduced, log10_p, tolerance = index_lattice(peaks.q, weight, target.lattice, settings.max_log10_p)
        if reduced is None or log10_p >= settings.max_log10_p:
            reasons["not significant"] += 1
            continue
        refined = frame.refined_from_search(reduced, tolerance, peaks, target, to_panel, wavelength, pixel_size)
        members = frame.lattice_members(refined, peaks.q, target.lattice, wavelength)
        reasons[frame.refusal(refined, members, peaks, target, settings)] += 1
        per_peak.append(refined.log10_ratio / max((refined.inlier > 0.5).sum(), 1))
    return per_peak, reasons


if __name__ == "__main__":
    main()
