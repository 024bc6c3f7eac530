"""Merging runs stopped in the middle, for tests of single passes."""

from observation_simulator import CELL, SPACE_GROUP

from sfxflow.merging.cycles import Run
from sfxflow.merging.observations import Collector
from sfxflow.settings import Merging
from sfxflow.symmetry import space_group


def run_after(simulated, cycles, **settings):
    """A run of one block and thread after so many cycles; `merge` and what follows are still to be called."""
    collector = Collector(CELL, space_group(SPACE_GROUP))
    block = collector.add(simulated.crystals, simulated.reflections, 0)
    run = Run([block], collector, Merging(**settings), threads=1)
    for cycle in range(cycles):
        run.cycle(cycle)
    return run


def spoil(run):
    """Let two crystals not count, in either way, and reject every seventeenth observation."""
    run.active[3], run.active[4] = 0, 2
    run.blocks[0].columns["weight"][::17] = 0
