"""HTML is escaped, numbers are written for people, drawings stand alone."""

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfxflow.report import figures
from sfxflow.report.markup import NONE, count, element, fixed, percent, share, table


@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"))))
def test_text_survives(text):
    assert ElementTree.fromstring(element("p", text, title=text)).text in (text, None if not text else text)
    assert ElementTree.fromstring(element("p", "x", title=text)).get("title") == text


def test_numbers():
    assert fixed(-1.234, 2) == "\N{MINUS SIGN}1.23"
    assert percent(0.1234) == "12.3"
    assert count(1234567) == "1\N{NARROW NO-BREAK SPACE}234\N{NARROW NO-BREAK SPACE}567"
    assert [fixed(None, 1), percent(math.nan), count(None)] == [NONE] * 3
    assert share(1, 0) is None


def test_table_has_headers_and_a_caption():
    root = ElementTree.fromstring(table("Cells", ["axis", "length"], [["a", 1], ["b", 2]], [["sum", 3]]))
    assert root.get("aria-label") == "Cells"
    assert [cell.text for cell in root.iter("th") if cell.get("scope") == "col"] == ["axis", "length"]
    assert [cell.text for cell in root.iter("th") if cell.get("scope") == "row"] == ["a", "b", "sum"]


def drawings():
    rng = np.random.default_rng(0)
    return {
        "histogram": figures.histogram("h", "Lengths", rng.normal(79.1, 0.1, 200), "a", expected=79.1),
        "scales": figures.histogram("s", "Scales", np.exp(rng.normal(0, 0.6, 200)), "G", logarithmic=True),
        "wilson": figures.wilson("w", "Wilson plot", np.linspace(0, 0.06, 20), np.linspace(1, -1, 20)),
    }


@pytest.mark.parametrize("name", list(drawings()))
def test_drawings_stand_alone(name):
    svg = drawings()[name]
    root = ElementTree.fromstring(svg)
    assert root.get("role") == "img"
    assert root.get("aria-label")
    assert not re.search(r"(?:href|src)=\"(?!#)", svg)
    assert svg == drawings()[name], "the same data give the same text"


def test_ticks_of_a_logarithmic_axis_are_plain_numbers():
    words = [text.text for text in ElementTree.fromstring(drawings()["scales"]).iter() if text.tag.endswith("text")]
    ticks = [float(word) for word in words if word and re.fullmatch(r"[\d.]+", word)]
    assert {0.5, 1.0, 2.0} <= set(ticks)


@pytest.mark.parametrize("values", [[], [np.nan, np.nan], [90.0] * 5])
def test_nothing_to_draw(values):
    assert figures.histogram("e", "One value", np.array(values, dtype=float), "alpha") is None
