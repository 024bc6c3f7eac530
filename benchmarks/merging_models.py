"""R1 on intensities against the truth of each partiality model, for three forms of lattice points, on simulated observations."""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/unit/merging"))

from observation_simulator import CELL, SPACE_GROUP, agreement, simulate
from table import Row, main

from sfxflow.merging.merge import merge_observations
from sfxflow.settings import Merging
from sfxflow.symmetry import space_group

PROFILES = ("gaussian", "sphere", "block")
MODELS = ("empirical", "gaussian", "xsphere", "unity")
#: Crystals, and seeds that nothing was chosen on.
SETS = ((4, (711, 712, 713)), (60, (721, 722)), (250, (731,)))


def r1(simulated, model):
    """R1 in % and the number of reflections recorded at least twice; of a few crystals also of those recorded once."""
    fewest = 1 if len(simulated.scale) < 10 else 2
    settings = Merging(partiality=model, min_measurements=fewest)
    merged = merge_observations(
        simulated.crystals, simulated.reflections, CELL, space_group(SPACE_GROUP), settings
    ).reflections
    own = merged["n"] >= fewest
    hkl = np.stack([merged[name] for name in "hkl"], axis=1)[own]
    return (100 * agreement(hkl, merged["I"][own], simulated)[0] if len(hkl) > 5 else np.nan), len(hkl)


def measure():
    """Rows for `benchmarks/run.py`."""
    rows = []
    for n, seeds in SETS:
        for profile in PROFILES:
            sets = [simulate(n, seed=seed, profile=profile) for seed in seeds]
            found = {model: np.mean([r1(simulated, model) for simulated in sets], axis=0) for model in MODELS}
            for model, (value, count) in found.items():
                wanted = model == "empirical" and n >= 60
                best = wanted and value <= 1.05 * min(other for other, _ in found.values())
                rows.append(
                    Row(
                        f"R1(I), {profile} lattice points, {n} crystals, {model}",
                        "lowest + 5 %" if wanted else "",
                        float(value),
                        "%",
                        bool(best) if wanted else None,
                        f"{count:.0f} reflections",
                    )
                )
    return rows


if __name__ == "__main__":
    main(measure)
