"""Values and the groups they belong to."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfxflow.errors import InputError
from sfxflow.groups import NO_GROUP, Groups, canonical, groups_from, value_text


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((1, 1.0, "1", "1.0", " 01 ", True, np.True_, np.uint8(1), np.float32(1)), "1"),
        ((0, False, "0.00", -0.0 + 0), "0"),
        ((0.1, "0.1", "1e-1"), "0.1"),
        (("on", " on", "on\n"), "on"),
        (("", "nan", math.nan, np.float64("nan"), "  "), ""),
        ((1234567890, "1234567890"), "1234567890"),
    ],
)
def test_equal_values_are_written_alike(values, text):
    assert {canonical(value) for value in values} == {text}


@given(st.integers(-(10**9), 10**9))
def test_whole_numbers_keep_their_digits(value):
    assert canonical(value) == canonical(float(value)) == str(value)


def test_values_and_ranges():
    groups = Groups("laser", {"dark": 0, "light": "on", "late": [5, 10.0]}, "dark")
    assert groups.names == ("dark", "light", "late")
    found = [groups.number(value) for value in ("0", False, "on", 5, 9.99, 10, "off", "", math.nan)]
    assert found == [0, 0, 1, 2, 2, NO_GROUP, NO_GROUP, NO_GROUP, NO_GROUP]


@given(st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_bins_are_disjoint_and_leave_no_gap(value):
    limits = [-1.5, 0.0, 0.25, 100.0]
    groups = Groups("delay", {f"bin{i}": limits[i : i + 2] for i in range(3)}, "bin0")
    expected = np.searchsorted(limits, value, side="right") - 1
    assert groups.number(value) == (expected if -1 < expected < 3 else NO_GROUP)


def test_value_as_text():
    assert value_text([0, 2.5]) == "from 0 to below 2.5"
    assert value_text(True) == "1"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"by": "x", "groups": {"a": 1}}, "reference missing"),
        ([], "by, groups, reference missing"),
        ({"by": "x", "groups": {}, "reference": "a"}, "name of each group"),
        ({"by": "x", "groups": ["a"], "reference": "a"}, "name of each group"),
        ({"by": "x", "groups": {"a": [2, 1]}, "reference": "a"}, r"a: \[2, 1\] are not two limits"),
        ({"by": "x", "groups": {"a": [1]}, "reference": "a"}, "are not two limits"),
        ({"by": "x", "groups": {"a": 1}, "reference": "b"}, "'b' is none of the groups a"),
    ],
)
def test_what_are_no_groups(values, message):
    with pytest.raises(InputError, match=message):
        groups_from(values, "--settings")
