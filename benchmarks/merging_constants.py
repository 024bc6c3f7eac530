"""What the constants of merging change: R1 on intensities and the number of reflections recorded at least twice, on simulated observations.

docs/merging.md quotes its output. One constant at a time is set to other values; nothing else changes.
"""

import sys
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/unit/merging"))

from observation_simulator import CELL, SPACE_GROUP, agreement, simulate

from sfxflow.merging import cycles, merge, partiality, scaling
from sfxflow.settings import Merging
from sfxflow.symmetry import space_group

CASES = [(profile, n, seeds) for profile in ("gaussian", "sphere", "block") for n, seeds in ((60, (8, 9)), (250, (8,)))]
OTHER_VALUES = (
    (partiality, "FIRST_SPREAD", (0.1, 0.4)),
    (partiality, "_SPREAD_WEIGHT", (2.0, 50.0)),
    (partiality, "_LEAST_SPREAD", (0.005, 0.05, 0.1)),
    (partiality, "_RANGE_SPREAD", (0.03, 0.3)),
    (partiality, "_GAUSSIAN_SPREAD", (0.1, 1.0)),
    (partiality, "N_RANGES", (2, 8)),
    (partiality, "BINS_PER_UNIT", (3, 6)),
    (cycles, "_LARGEST_ERROR", (0.25, 0.5, 1.0)),
    (scaling, "_PRIOR_CRYSTALS", (3.0, 30.0)),
    (scaling, "_FIRST_PRIORS", tuple(scaling.first_priors() * np.array([1, f, f, f, f, f]) for f in (0.5, 2.0))),
)


@cache
def observations(profile, n, seed):
    """Simulated once."""
    return simulate(n, profile=profile, seed=seed)


@contextmanager
def changed(module, name, value):
    """A module's constant with another value for a while."""
    before = getattr(module, name)
    setattr(module, name, value)
    yield
    setattr(module, name, before)


@contextmanager
def fitted_only(mask):
    """Only some of the crystals' parameters are fitted."""
    fit = cycles.Run.fit

    def restricted(self, fitted, steps, robust):
        return fit(self, (fitted * np.array(mask)).astype(np.uint8), steps, robust)

    with changed(cycles.Run, "fit", restricted):
        yield


def line(label, settings=None, cases=CASES):
    """Print R1 in % and the number of reflections for every case."""
    texts = []
    for profile, n, seeds in cases:
        rows = []
        for seed in seeds:
            s = observations(profile, n, seed)
            merged = merge.merge_observations(s.crystals, s.reflections, CELL, space_group(SPACE_GROUP), settings)
            own = merged.reflections["n"] >= 2
            hkl = np.stack([merged.reflections[name] for name in "hkl"], axis=1)[own]
            rows.append((100 * agreement(hkl, merged.reflections["I"][own], s)[0], len(hkl)))
        r1, count = np.mean(rows, axis=0)
        texts.append(f"{r1:5.2f}/{count:4.0f}")
    print(f"{label:38s}", "  ".join(texts), flush=True)


def main():
    """All tables."""
    print("R1(I) % / reflections of:", ", ".join(f"{profile} {n}" for profile, n, _ in CASES))
    line("as it is")
    for module, name, values in OTHER_VALUES:
        for value in values:
            with changed(module, name, value):
                line(f"{name.strip('_').lower()} = {np.round(value, 5) if np.ndim(value) else value}")
    for number in (4, 6, 12, 40):
        line(f"cycles = {number}", Merging(cycles=number))
    parts = {
        "no rotations, no energy": [1, 1, 1, 0, 0, 0],
        "no energy": [1, 1, 1, 1, 1, 0],
        "no width": [1, 1, 0, 1, 1, 1],
    }
    for label, mask in (parts | {"scale and B": [1, 1, 0, 0, 0, 0], "scale": [1, 0, 0, 0, 0, 0]}).items():
        with fitted_only(mask):
            line(f"fitted: {label}")
    for n in (5, 10, 20, 45):
        few = [(profile, n, (21, 22, 23)) for profile in ("gaussian", "sphere", "block")]
        for label, fewest in (("empirical", 2), ("gaussian", 10**6)):
            with changed(partiality, "FEWEST_CRYSTALS_FOR_CURVE", fewest):
                line(f"{n} crystals, {label} curve", cases=few)


if __name__ == "__main__":
    main()
