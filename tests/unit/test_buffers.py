"""Arrays that grow."""

import numpy as np

from sfxflow.buffers import doubled, doubled_rows


def test_doubled():
    array = np.arange(5, dtype=np.int64)
    larger = doubled(array)
    assert larger.shape == (10,)
    assert larger.dtype == array.dtype
    assert np.array_equal(larger[:5], array)


def test_doubled_rows():
    array = np.arange(6, dtype=np.int16).reshape(2, 3)
    larger = doubled_rows(array)
    assert larger.shape == (4, 3)
    assert larger.dtype == array.dtype
    assert np.array_equal(larger[:2], array)
