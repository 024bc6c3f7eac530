"""Speed of the passes of merging, one thread: the merging pass, the pass that fits six parameters a crystal, and a whole run."""

import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/unit/merging"))

from merging_scale import pass_speed, timed_pass
from observation_simulator import CELL, SPACE_GROUP, simulate
from table import Row, main

from sfxflow.merging import merge
from sfxflow.merging.cycles import Run
from sfxflow.merging.observations import Block, Collector
from sfxflow.settings import Merging
from sfxflow.symmetry import space_group


def repeated(n_crystals=300, copies=30, seed=1):
    """A block of simulated crystals, many times over, and its collector."""
    simulated = simulate(n_crystals, seed=seed)
    collector = Collector(CELL, space_group(SPACE_GROUP))
    for _ in range(copies):
        block = collector.add(simulated.crystals, simulated.reflections, 0)
    columns = {name: np.tile(values, copies) for name, values in block.columns.items()}
    counts = np.tile(np.diff(block.offsets), copies)
    return Block(0, np.concatenate([[0], np.cumsum(counts)]), columns), collector


def pass_times(block, collector):
    """Of each pass of a run, by its name, the observations and CPU seconds of each call; and the CPU seconds of all."""
    times = {"merge": [], "fit": [], "assess": []}
    methods = {name: getattr(Run, name) for name in times}
    for name, method in methods.items():
        setattr(Run, name, timed_pass(method, times[name]))
    begin = time.process_time()
    try:
        merge.merge_blocks([block], collector, Merging())
    finally:
        for name, method in methods.items():
            setattr(Run, name, method)
    return times, time.process_time() - begin


def measure():
    """Rows for `benchmarks/run.py`."""
    merge.merge_blocks([(small := repeated(20, 1))[0]], small[1], Merging())
    block, collector = repeated()
    n = int(block.offsets[-1])
    times, total = pass_times(block, collector)
    speed = {name: pass_speed(spent, max) / 1e6 for name, spent in times.items()}
    note = f"{n / 1e6:.2f} million observations, best pass over all of them, CPU time of one thread"
    passes = f"{total:.1f} s, {sum(of_them for of_them, _ in times['fit']) / n:.1f} fits of all observations"
    return [
        Row("merging pass, one core", ">= 20", speed["merge"], "M obs/s", speed["merge"] >= 20, note),
        Row("pass that fits six parameters a crystal, one core", "", speed["fit"], "M obs/s", None, note),
        Row("last pass: uncertainties and delta-CC1/2, one core", "", speed["assess"], "M obs/s"),
        Row("scaling and merging from start to end, one core", "", n / total / 1e6, "M obs/s", None, passes),
    ]


if __name__ == "__main__":
    main(measure)
