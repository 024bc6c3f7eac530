"""Observations in temporary files."""

import numpy as np
import pytest

from sfxflow.io.shards import Shards
from sfxflow.merging.observations import COLUMNS, Block


def block_of(n, first=0, seed=1):
    rng = np.random.default_rng(seed)
    columns = {name: rng.integers(0, 200, n).astype(dtype) for name, dtype in COLUMNS.items()}
    return Block(first, np.array([0, n // 3, n]), columns)


def test_blocks_come_back_and_the_folder_goes(tmp_path):
    blocks = [block_of(1001, 0, 1), block_of(0, 2, 2), block_of(5, 4, 3)]
    with Shards(tmp_path / "new" / "merged.h5") as shards:
        for block in blocks:
            shards.append(block)
        assert len(shards) == 3
        for i, block in enumerate(blocks):
            assert shards[i].first_crystal == block.first_crystal
            np.testing.assert_array_equal(shards[i].offsets, block.offsets)
            assert list(shards[i].columns) == list(COLUMNS)
            for name, values in block.columns.items():
                np.testing.assert_array_equal(shards[i].columns[name], values)
                assert shards[i].columns[name].dtype == values.dtype
        size = sum(path.stat().st_size for path in (tmp_path / "new").rglob("*") if path.is_file())
        assert size == 21 * 1006
    assert list((tmp_path / "new").iterdir()) == []


def test_weights_that_are_written_stay(tmp_path):
    with Shards(tmp_path / "merged.h5") as shards:
        shards.append(block_of(10))
        shards[0].columns["weight"][3] = 77
        assert shards[0].columns["weight"][3] == 77


def test_folder_goes_after_an_error_and_what_a_killed_job_left(tmp_path):
    left = tmp_path / ".merged.h5.abc.shards"
    left.mkdir()
    (left / "000000").write_bytes(b"old")
    other = tmp_path / ".other.h5.abc.shards"
    other.mkdir()
    with pytest.raises(RuntimeError), Shards(tmp_path / "merged.h5") as shards:
        assert not left.exists()
        shards.append(block_of(10))
        raise RuntimeError
    assert list(tmp_path.iterdir()) == [other]
