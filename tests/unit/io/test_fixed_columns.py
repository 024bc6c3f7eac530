"""Numbers in columns against C's formats, which Python's f-strings follow."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfxflow.io.fixed_columns import LARGEST, text_rows

FORMATS, GAPS = ((10, 2), (6, 1), (7, 2)), (1, 1, 2, 3)


def formatted(integers, values, names, name_of_row):
    """The obvious way."""
    rows = []
    for i, v, n in zip(integers.tolist(), values.tolist(), name_of_row, strict=True):
        rows.append(f"{i[0]:4d} {i[1]:4d} {v[0]:10.2f} {v[1]:6.1f}  {v[2]:7.2f}   {names[n]}\n")
    return "".join(rows).encode()


numbers = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-(2.0**42), max_value=2.0**42),
    st.sampled_from([0.0, -0.0, 0.125, 0.375, -0.004, 0.995, 9.995, 999999.99, np.nan]),
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(-40000, 40000), st.integers(-999, 999), numbers, numbers, numbers, st.integers(0, 2)),
        max_size=8,
    )
)
def test_rows_are_those_of_printf(rows):
    integers = np.array([row[:2] for row in rows], dtype=np.int64).reshape(-1, 2)
    # As they come from a file: float32.
    values = np.array([row[2:5] for row in rows], dtype=np.float32).astype(np.float64).reshape(-1, 3)
    names, owner = ["p0", "a longer one", "q"], [row[5] for row in rows]
    expected = formatted(integers, values, names, owner)
    assert text_rows(integers, values, FORMATS, names, np.array(owner, dtype=np.int64), GAPS) == expected


def test_halves_are_rounded_to_even():
    values = np.array([[0.125, 0.25, 0.375]])
    got = text_rows(np.zeros((1, 0), np.int64), values, FORMATS, ["p"], np.zeros(1, np.int64), (0, 1, 1, 1))
    assert got == b"      0.12    0.2    0.38 p\n"


def test_too_large_numbers_are_refused():
    with pytest.raises(ValueError, match="can't be written"):
        text_rows(np.zeros((1, 0), np.int64), np.array([[LARGEST, 0, 0]]), FORMATS, ["p"], np.zeros(1, np.int64), GAPS)


def test_no_rows_no_text():
    assert text_rows(np.zeros((0, 3), np.int64), np.zeros((0, 3)), FORMATS, ["p"], np.zeros(0, np.int64), GAPS) == b""
