"""The rows of a stream that CrystFEL 0.12 wrote, written again: the same text to the last digit."""

import gzip
import re

import numpy as np
import pytest

from sfxflow.io.fixed_columns import text_rows
from sfxflow.io.stream import _PEAK_FORMATS, _PEAK_GAPS, _REFLECTION_FORMATS, _REFLECTION_GAPS


@pytest.fixture(scope="module")
def text(shared_data):
    with gzip.open(shared_data / "reference/crystfel/asdf.stream.gz", "rt") as handle:
        return handle.read()


def again(table, n_integers, formats, gaps):
    """The rows of a table read and written."""
    rows = [line.split() for line in table.splitlines()]
    names = sorted({row[-1] for row in rows})
    integers = np.array([row[:n_integers] for row in rows], dtype=np.int64).reshape(len(rows), n_integers)
    values = np.array([row[n_integers:-1] for row in rows], dtype=np.float64)
    return text_rows(integers, values, formats, names, np.array([names.index(row[-1]) for row in rows]), gaps).decode()


def test_reflections(text):
    table = "".join(re.findall(r"fs/px  ss/px panel\n(.*?)End of reflections", text, re.DOTALL))
    assert len(table.splitlines()) == 60817
    assert again(table, 3, _REFLECTION_FORMATS, _REFLECTION_GAPS) == table


def test_peaks(text):
    table = "".join(re.findall(r"Intensity  Panel\n(.*?)End of peak list", text, re.DOTALL))
    assert len(table.splitlines()) > 10000
    assert again(table, 0, _PEAK_FORMATS, _PEAK_GAPS) == table
