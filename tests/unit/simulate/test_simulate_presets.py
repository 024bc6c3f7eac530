"""Presets, and messages for settings that can't be."""

from dataclasses import fields
from pathlib import Path

import gemmi
import numpy as np
import pytest

from sfxflow.errors import InputError
from sfxflow.simulate import frames
from sfxflow.simulate.experiment import Experiment
from sfxflow.simulate.presets import PRESETS, preset


@pytest.mark.parametrize("name", sorted(set(PRESETS) - {"large"}))
def test_every_preset_makes_a_frame(name):
    experiment = preset(name, seed=1, blank_fraction=0.0)
    image, truth = frames.simulate_frame(experiment, 0)
    assert image.shape == experiment.detector.shape
    assert image.dtype == np.dtype(experiment.dtype)
    assert truth.lattices
    assert experiment.name == name
    assert (frames.simulate_spots(experiment, 0).photons > 20).sum() > 30
    group = gemmi.find_spacegroup_by_name(experiment.space_group)
    assert gemmi.UnitCell(*experiment.cell_parameters).is_compatible_with_spacegroup(group)


def test_demo_is_small_and_reaches_its_resolution():
    experiment = preset("demo")
    rows, columns = experiment.detector.shape
    assert rows * columns == 2**20
    assert len(experiment.detector.panels) == 8
    assert 2.1 < experiment.outer_resolution < 2.3


def test_large_scatters_to_its_resolution_without_running_into_the_next_spot():
    experiment = preset("large")
    # Neighbours along the longest axis are farther apart than a spot is wide.
    spacing = experiment.clen * 12398.41984 / experiment.photon_energy / experiment.c / experiment.pixel_size
    assert spacing > 8 * experiment.psf


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("lysozym", {}, "preset: 'lysozym' is not one of demo, lysozyme"),
        ("demo", {"photon": 3}, "photon: no such setting; did you mean photons?"),
        ("demo", {"photons": "many"}, "photons: 'many' is not a number"),
        ("demo", {"panel_ss": 100.5}, "panel_ss: 100.5 is not a whole number"),
        ("demo", {"blank_fraction": 1.2}, "blank_fraction: 1.2 is above 1"),
        ("demo", {"seed": -1}, "seed: -1 is below 0"),
        ("demo", {"photons": float("nan")}, "photons: nan"),
        ("demo", {"spectrum": "white"}, "spectrum: 'white' is not one of gaussian, tophat, sase"),
        ("demo", {"space_group": "P43213"}, "space_group: 'P43213' is not a space group"),
        ("demo", {"b": 80.0}, "the cell 79.1 80 37.9 90 90 90 is impossible in space group P43212"),
        ("demo", {"bad_pixels": "nan"}, "bad_pixels: 'nan' is impossible in pixels of type int16"),
        ("triclinic", {"alpha": 40.0, "beta": 40.0, "gamma": 120.0}, "no cell has the angles 40 40 120"),
        ("demo", {"saturation": 40000.0}, "saturation: 40000 photons of 1 are more than a pixel of type int16 holds"),
        ("demo", {"clen": 5.0, "beamstop": 3000.0}, "beamstop: no pixel is left"),
        ("demo", {"name": "a/b"}, "name: 'a/b'"),
        (
            "integrating",
            {"geometry_panel_error": 0.5},
            "geometry_panel_error, geometry_panel_rotation: the modules are one",
        ),
    ],
)
def test_bad_settings_are_named(name, overrides, message):
    with pytest.raises(InputError) as error:
        preset(name, **overrides)
    assert message in str(error.value)


def test_docs_list_every_setting_and_preset():
    text = (Path(__file__).parents[3] / "docs" / "simulator.md").read_text()
    rows = {}
    for line in text[text.index("\n## Settings") :].splitlines():
        if line.startswith("| `"):
            name, default, meaning = (cell.strip() for cell in line.strip("|").split("|"))
            rows[name.strip("`")] = (default, meaning)
    assert rows.keys() == {field.name for field in fields(Experiment)}
    for field in fields(Experiment):
        default, meaning = rows[field.name]
        written = str(field.default).lower() if isinstance(field.default, bool) else field.default
        assert default == (f"{written:g}" if isinstance(written, float) else str(written))
        assert meaning.startswith(field.metadata["meaning"])
    for name in PRESETS:
        assert f"`{name}`" in text[: text.index("\n## The model")]
