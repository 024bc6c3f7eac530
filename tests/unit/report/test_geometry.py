"""Proposed geometries in the report."""

import json
import re

import pytest

from sfxflow.errors import InputError
from sfxflow.io.geometry_proposal import read_proposal, write_proposal
from sfxflow.report.geometry import Proposal, geometry_section, geometry_warnings


def values(n_parts=4, **changes):
    panels = [
        {
            "name": f"p{i}", "shift_x": 0.5 * i - 3.0, "shift_y": 0.1, "shift_z": 0.0, "turn": 0.25, "peaks": 2000, "matched": 1500,
            "before": [0.5, 0.1], "after": [0.01, 0.0], "corners": [[i * 100.0, 0.0], [i * 100.0 + 90, 0.0], [i * 100.0 + 90, 50.0],
            [i * 100.0, 50.0]],
        }
        for i in range(2)
    ]  # fmt: skip
    return {
        "geometry": "raw/det.geom",
        "crystals": 1234,
        "notes": ["20 crystals are few"],
        "residuals": {
            "before": {"peaks": 3000, "rms": 0.638, "systematic": 0.589},
            "after": {"peaks": 3010, "rms": 0.163, "systematic": 0.014},
        },
        "overall": {
            "shift_x": -3.0, "shift_x_sigma": 0.012, "shift_y": 0.1, "shift_y_sigma": 0.011, "clen_change": 0.0,
            "clen_change_sigma": 8e-6, "clen_change_indicated": -1.065e-3, "clen_refined": False,
        },
        "panels": panels,
        "map": [[10.0 * i, 20.0, 5, 0.6, 0.0, 0.02, 0.0] for i in range(n_parts)],
        "weakest": {"sigma": 0.031, "parts": [{"group": "p1", "freedom": "turn", "part": -0.9}]},
        "correlations": [{"first": "p0: x", "second": "p1: x", "correlation": -0.83}],
        "provenance": {},
    } | changes  # fmt: skip


def section(**changes):
    text = geometry_section([Proposal("builtin", "lysozyme", "det", "r/proposal.json", values(**changes))])
    return re.sub(r"<svg.*?</svg>", "[drawing]", text, flags=re.DOTALL), text


def test_what_would_change_and_how_well_it_is_known():
    text, _ = section()
    assert "What r/proposal.json changes in raw/det.geom; 1" in text
    assert "<td>\N{MINUS SIGN}3.000</td><td>0.012</td>" in text
    assert (
        "camera length, not in the proposal" in text and "<td>\N{MINUS SIGN}1.065</td><td>0.008</td><td>mm</td>" in text
    )
    assert "0.638 \N{RIGHTWARDS ARROW} 0.163" in text and "0.589 \N{RIGHTWARDS ARROW} 0.014" in text
    # Panels against the overall shift, the one that moves most first.
    assert text.index(">p1<") < text.index(">p0<") and "<td>0.500</td><td>0.000</td><td>0.250</td>" in text
    assert "Known least, to 0.031 pixel: \N{MINUS SIGN}0.90 turn of p1" in text
    assert "\N{MINUS SIGN}0.83 between p0: x and p1: x" in text


def test_maps_before_and_after():
    text, whole = section()
    assert text.count("[drawing]") == 2 and "Before: 0.600 pixel" in text and "After: 0.020 pixel" in text
    assert (
        'aria-label="Map of the mean residuals before: 0.600 pixel root mean square over 4 parts of the detector"'
        in whole
    )
    # Of very many parts only the means of the panels.
    assert "over 2 parts of the detector" in section(n_parts=1200)[1]
    assert "[drawing]" not in section(n_parts=0)[0]


def test_notes_are_not_serious():
    (note,) = geometry_warnings(Proposal("builtin", "lysozyme", "det", "x", values()))
    assert not note.serious and note.text == "20 crystals are few." and "proposed geometry det" in note.where


def test_without_proposals_there_is_no_section():
    assert geometry_section([]) is None


def test_reading_and_writing(tmp_path):
    path = tmp_path / "proposal.json"
    write_proposal(path, values())
    assert read_proposal(path) == values()
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_proposal(path, values(crystals=float("nan")))
    path.write_text(json.dumps({"geometry": "x"}))
    with pytest.raises(InputError, match=r"proposal\.json: is not a proposed geometry: crystals is missing"):
        read_proposal(path)
    path.write_text("{")
    with pytest.raises(InputError, match=r"proposal\.json: is not JSON"):
        read_proposal(path)
    with pytest.raises(InputError, match=r"none\.json: can't be read"):
        read_proposal(tmp_path / "none.json")
