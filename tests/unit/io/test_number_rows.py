"""Rows of numbers in text: every digit, names, and what is no row."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfxflow.io.fixed_columns import text_rows
from sfxflow.io.number_rows import BadRow, Names, read_rows

numbers = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.decimals(min_value=-(10**12), max_value=10**12, places=2, allow_nan=False).map(str),
    st.integers(-(10**20), 10**20),
    st.sampled_from(["-0.00", "+1.5", ".5", "5.", "1e3", "nan", "-nan", "inf", "123456789.123456789"]),
)
names = st.sampled_from(["m0", "m1", "m10", "p", "panel-with-a-long-name", "q2a3"])


def parse(text, n_columns, known=None):
    data = text.encode()
    return read_rows(np.frombuffer(data, np.uint8), 0, len(data), text.count("\n"), n_columns, known)


@given(st.lists(st.tuples(numbers, numbers, names), max_size=20), st.integers(1, 5))
def test_as_python_reads_them(rows, gap):
    """The nearest double to the decimal number, as float() gives it, whatever the number of blanks; names get numbers as they come."""
    blanks = " " * gap
    text = "".join(f"{blanks}{a}{blanks}{b} {name}\n" for a, b, name in rows)
    known = Names(["m0"])
    values, number = parse(text, 2, known)
    expected = np.array([[float(a), float(b)] for a, b, _ in rows]).reshape(-1, 2)
    assert np.array_equal(values, expected, equal_nan=True)
    assert np.array_equal(np.signbit(values[expected == 0]), np.signbit(expected[expected == 0]))
    assert [known.names[i] for i in number] == [name for _, _, name in rows]
    assert known.names[0] == "m0" and len(set(known.names)) == len(known.names)


@given(st.integers(0, 2**31), st.integers(0, 30))
def test_what_is_written_comes_back(seed, n):
    """Tables of `fixed_columns`, read and written, are the same text."""
    rng = np.random.default_rng(seed)
    panels = ["a", "b7", "c"]
    hkl = rng.integers(-999, 999, (n, 3))
    values = np.round(rng.normal(0, 10.0 ** rng.integers(0, 7, (n, 6))), 2)
    formats, gaps = ((10, 2),) * 4 + ((6, 1),) * 2, (1,) * 7
    text = text_rows(hkl, values, formats, panels, rng.integers(0, 3, n), gaps).decode()
    known = Names(panels)
    read, number = parse(text, 9, known)
    assert text_rows(read[:, :3].astype(np.int64), read[:, 3:], formats, known.names, number, gaps).decode() == text


def test_a_dash_is_no_number_and_tabs_are_blanks():
    values, number = parse("1\t2.5 - m0 \n3 4 1e-2 m1\n", 3, Names())
    assert values[0, :2].tolist() == [1.0, 2.5] and math.isnan(values[0, 2])
    assert values[1].tolist() == [3.0, 4.0, 0.01]
    assert number.tolist() == [0, 1]


def test_without_names():
    values, number = parse(" 1 2\n 3 4\n", 2)
    assert values.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert number.tolist() == [0, 0]


@pytest.mark.parametrize(
    "line",
    ["1 2\n", "1 2 m0 m1\n", "1 x m0\n", "1 2 3 m0\n", "\n", "--1 2 m0\n", "1.2.3 4 m0\n", "1 2\x00m0\n", "m0\n"],
)
def test_what_is_no_row_is_told_with_its_place(line):
    good = "1 2 m0\n"
    with pytest.raises(BadRow) as error:
        parse(good + good + line + good, 2, Names())
    assert error.value.offset == 2 * len(good)


def test_many_names_of_one_length():
    """As a detector of many panels has them, known before or not."""
    rng = np.random.default_rng(1)
    panels = [f"p{i}a{j}" for i in range(10) for j in range(8)] + [f"{i:03d}" for i in range(300)]
    rows = rng.permutation(np.repeat(np.arange(len(panels)), 2))
    text = "".join(f"{row} {panels[row]}\n" for row in rows)
    for known in (Names(panels), Names(panels[:50]), Names()):
        values, number = parse(text, 1, known)
        assert [known.names[i] for i in number] == [panels[int(value)] for value in values[:, 0]]
        assert sorted(known.names) == sorted(panels)
