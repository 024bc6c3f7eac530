"""The proposal: numbers for people and for the report."""

import json

import numpy as np
import pytest

from sfxflow.geometry_refinement.proposal import proposal
from sfxflow.geometry_refinement.refine import refine_geometry
from sfxflow.settings import Geometry


@pytest.fixture(scope="module")
def values(panels_off):
    refined = refine_geometry(
        panels_off.crystals,
        panels_off.made.stated_detector,
        panels_off.cell,
        panels_off.profile,
        Geometry(),
        panels_off.pixel_size,
    )
    return proposal(refined, panels_off.made.stated_detector, panels_off.pixel_size)


def test_it_is_json_without_special_numbers(values):
    assert json.loads(json.dumps(values, allow_nan=False)) == values


def test_shifts_are_those_that_mend_the_geometry(values):
    overall = values["overall"]
    assert overall["shift_x"] == pytest.approx(0.8, abs=0.1) and overall["shift_y"] == pytest.approx(-0.6, abs=0.1)
    assert 0.0 < overall["shift_x_sigma"] < 0.05
    assert overall["clen_change"] == 0.0 and not overall["clen_refined"]
    assert overall["clen_change_indicated"] == pytest.approx(-0.005 * 0.107, abs=5e-5)
    assert overall["clen"] == overall["clen_given"]


def test_residuals_before_and_after(values):
    before, after = values["residuals"]["before"], values["residuals"]["after"]
    assert before["systematic"] > 0.25 and after["systematic"] < 0.08
    assert after["rms"] < 0.8 * before["rms"] and after["peaks"] >= 0.99 * before["peaks"]
    rows = np.array(values["map"])
    assert rows.shape[1] == 7 and len(rows) > 100
    assert rows[:, 2].sum() == pytest.approx(after["peaks"], rel=0.02)
    weight = rows[:, 2] / rows[:, 2].sum()
    assert weight @ np.hypot(rows[:, 5], rows[:, 6]) < 0.3 * weight @ np.hypot(rows[:, 3], rows[:, 4])


def test_panels_and_groups(values, panels_off):
    assert [panel["name"] for panel in values["panels"]] == [p.name for p in panels_off.made.detector.panels]
    assert values["groups"][0]["name"] == "detector" and values["groups"][0]["parent"] is None
    for panel, group in zip(values["panels"], values["groups"][1:], strict=True):
        assert group["name"] == panel["name"] and group["parent"] == "detector"
        # A group's value is against the whole detector; the turn is in milliradian in both.
        assert group["turn"]["value"] == pytest.approx(panel["turn"], abs=0.02)
        assert group["x"]["value"] + values["overall"]["shift_x"] == pytest.approx(panel["shift_x"], abs=0.02)
        assert 0.0 < group["x"]["sigma"] < 0.1
        assert np.shape(panel["corners"]) == (4, 2)


def test_what_is_known_least(values):
    assert values["eigenvalues"] == sorted(values["eigenvalues"]) and values["eigenvalues"][0] > 0
    assert values["weakest"]["sigma"] == pytest.approx(values["eigenvalues"][0] ** -0.5, rel=1e-3)
    assert all(abs(pair["correlation"]) > 0.5 for pair in values["correlations"])
