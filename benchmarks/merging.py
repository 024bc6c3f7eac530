"""Speed of the passes of merging, and its accuracy on simulated observations. Prints; run as `python benchmarks/merging.py`."""

import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/unit/merging"))

from observation_simulator import CELL, SPACE_GROUP, agreement, simulate

from sfxflow.merging import merge
from sfxflow.merging.cycles import Run
from sfxflow.merging.observations import Block, Collector
from sfxflow.settings import Merging
from sfxflow.symmetry import space_group


def speed(n_crystals=300, copies=30):
    """Observations a second of one thread, in the merging pass and in the pass that fits crystals, curve and weights."""
    simulated = simulate(n_crystals)
    settings = Merging(cycles=1)
    collector = Collector(CELL, space_group(SPACE_GROUP))
    block = collector.add(simulated.crystals, simulated.reflections, 0)
    merge.merge_blocks([block], collector, settings)
    for _ in range(copies - 1):
        collector.add(simulated.crystals, simulated.reflections, 0)
    columns = {name: np.tile(values, copies) for name, values in block.columns.items()}
    counts = np.tile(np.diff(block.offsets), copies)
    large = Block(0, np.concatenate([[0], np.cumsum(counts)]), columns)
    times = {"merge": [], "fit": []}
    methods = {name: getattr(Run, name) for name in times}
    for name, method in methods.items():

        def timed(*args, _name=name, _method=method, **kwargs):
            begin = time.process_time()
            result = _method(*args, **kwargs)
            times[_name].append(time.process_time() - begin)
            return result

        setattr(Run, name, timed)
    merge.merge_blocks([large], collector, Merging(cycles=8))
    for name, method in methods.items():
        setattr(Run, name, method)
    n = int(counts.sum())
    for name, seconds in times.items():
        print(
            f"{name:6s} pass: {n / min(seconds[2:]) / 1e6:6.1f} million observations a second of one core (best of {len(seconds) - 2})"
        )
    total = sum(times["merge"]) + sum(times["fit"])
    print(
        f"all 8 cycles: {total:.2f} s for {n / 1e6:.2f} million observations, {n * 8 / total / 1e6:.1f} million a second a cycle"
    )


def accuracy(numbers=(60, 250), seeds=(1, 2)):
    """R1 on intensities and correlation with the truth."""
    print("profile   crystals  model      reflections  R1(I) %   CC")
    for profile in ("gaussian", "sphere", "block"):
        for n in numbers:
            for model in ("unity", "empirical"):
                rows = []
                for seed in seeds:
                    simulated = simulate(n, seed=seed, profile=profile)
                    found = merge.merge_observations(
                        simulated.crystals,
                        simulated.reflections,
                        CELL,
                        space_group(SPACE_GROUP),
                        Merging(partiality=model),
                    )
                    hkl = np.stack([found.reflections[name] for name in "hkl"], axis=1)
                    rows.append((len(hkl), *agreement(hkl, found.reflections["I"], simulated)))
                count, r1, cc = np.mean(rows, axis=0)
                print(f"{profile:9s} {n:8d}  {model:9s} {count:12.0f} {100 * r1:8.2f} {cc:8.4f}")


if __name__ == "__main__":
    speed()
    if "--accuracy" in sys.argv:
        accuracy()
