"""Simulated peak lists and target cells."""

import importlib.util
from pathlib import Path

import pytest

from sfxflow.cell import Cell
from sfxflow.io.cell_file import lattice_of
from sfxflow.simulate.presets import preset

_spec = importlib.util.spec_from_file_location("peak_lists", Path(__file__).parents[3] / "benchmarks" / "peak_lists.py")
_peak_lists = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_peak_lists)


class Simulated:
    """Experiments of one seed, made once, with what indexing needs of them."""

    peak_list = staticmethod(_peak_lists.peak_list)

    def __init__(self):
        self._made = {}

    def experiment(self, name, **overrides):
        key = (name, *sorted(overrides.items()))
        if key not in self._made:
            self._made[key] = preset(name, seed=5, **{"blank_fraction": 0.0, "multi_fraction": 0.0, **overrides})
        return self._made[key]

    @staticmethod
    def cell(experiment):
        lattice, centering, axis = lattice_of(experiment.gemmi_group)
        return Cell(*experiment.cell_parameters, lattice_type=lattice, centering=centering, unique_axis=axis)


@pytest.fixture(scope="session")
def simulated():
    """Simulated experiments (`Simulated`)."""
    return Simulated()
