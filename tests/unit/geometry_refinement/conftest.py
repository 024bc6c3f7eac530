"""Experiments whose written geometry is wrong, and the crystals that are found with it."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("misplaced", Path(__file__).parents[3] / "benchmarks" / "misplaced.py")
_misplaced = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_misplaced)


@dataclass(frozen=True)
class Case:
    """An experiment, its target cell, peak lists and crystals of the stated geometry."""

    made: object
    cell: object
    lists: list
    crystals: list
    profile: object

    @property
    def pixel_size(self):
        return self.made.pixel_size

    def left(self, detector, with_turn=True):
        """Errors of the panels that are left, pixel."""
        return _misplaced.errors_left(self.made.detector, detector, self.pixel_size, with_turn)


def case(name, seed, n_frames, n_peaks=60, **changes):
    made, cell = _misplaced.experiment(name, seed, **changes)
    lists = _misplaced.peak_lists(made, n_frames, n_peaks=n_peaks)
    crystals, _, profile = _misplaced.indexed(lists, made.stated_detector, cell, made.pixel_size)
    return Case(made, cell, lists, crystals, profile)


@pytest.fixture(scope="session")
def misplaced():
    """The module benchmarks/misplaced.py."""
    return _misplaced


@pytest.fixture(scope="session")
def make_case():
    """The function `case`."""
    return case


@pytest.fixture(scope="session")
def panels_off():
    """Panels off by 0.5 pixel each and turned by a milliradian, all by a pixel, the camera length by 0.5 %."""
    return case(
        "demo",
        31,
        120,
        geometry_panel_error=0.5,
        geometry_panel_rotation=0.001,
        geometry_shift_x=-0.8,
        geometry_shift_y=0.6,
        geometry_clen_error=0.005,
    )
