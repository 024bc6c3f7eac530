"""Speed of the passes of merging, one thread: the merging pass, the pass that fits six parameters a crystal, and a whole run."""

import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/unit/merging"))

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
    """CPU seconds of each pass of a run, by its name."""
    times = {"merge": [], "fit": [], "assess": []}
    methods = {name: getattr(Run, name) for name in times}
    for name, method in methods.items():

        def timed(*args, _name=name, _method=method, **kwargs):
            begin = time.process_time()
            result = _method(*args, **kwargs)
            times[_name].append(time.process_time() - begin)
            return result

        setattr(Run, name, timed)
    try:
        merge.merge_blocks([block], collector, Merging())
    finally:
        for name, method in methods.items():
            setattr(Run, name, method)
    return times


def measure():
    """Rows for `benchmarks/run.py`."""
    merge.merge_blocks([(small := repeated(20, 1))[0]], small[1], Merging())
    block, collector = repeated()
    n = int(block.offsets[-1])
    times = pass_times(block, collector)
    note = f"{n / 1e6:.2f} million observations, best of {len(times['merge'])}, CPU time of one thread"
    fastest = n / min(times["merge"]) / 1e6
    total = sum(sum(seconds) for seconds in times.values())
    cycles = Merging().cycles
    return [
        Row("merging pass, one core", ">= 20", fastest, "M obs/s", bool(fastest >= 20), note),
        Row(
            "pass that fits six parameters a crystal, one core",
            "",
            n / min(times["fit"][1:]) / 1e6,
            "M obs/s",
            None,
            note,
        ),
        Row("last pass: uncertainties and delta-CC1/2, one core", "", n / min(times["assess"]) / 1e6, "M obs/s"),
        Row(
            "cycles of one pass each, one core",
            "",
            n * cycles / total / 1e6,
            "M obs/s",
            None,
            f"{cycles} cycles and the last pass",
        ),
        Row("scaling and merging from start to end, one core", "", n / total / 1e6, "M obs/s", None, f"{total:.1f} s"),
    ]


if __name__ == "__main__":
    main(measure)
