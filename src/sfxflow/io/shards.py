"""Observations in temporary files beside the output, mapped into memory: a dataset of any size in little memory.

A shard is one file with the columns of a block one after the other, widest first, so that each is aligned.
"""

import shutil
import tempfile
from pathlib import Path

import numpy as np

from sfxflow.merging.observations import COLUMNS, Block

_SUFFIX = ".shards"


class Shards:
    """Blocks of observations on disk; a context manager that removes them at its end, also after an error.

    Parameters
    ----------
    output : path-like
        The file that is being made: the folder of the shards lies beside it. What an earlier, killed job for the same output left
        behind is removed.
    """

    def __init__(self, output):
        self._output = Path(output)
        self._folder = None
        self._blocks = []

    def __enter__(self):
        parent, prefix = self._output.parent, f".{self._output.name}."
        parent.mkdir(parents=True, exist_ok=True)
        for left in parent.glob(f"{prefix}*{_SUFFIX}"):
            shutil.rmtree(left, ignore_errors=True)
        self._folder = Path(tempfile.mkdtemp(prefix=prefix, suffix=_SUFFIX, dir=parent))
        return self

    def __exit__(self, *_):
        self._blocks.clear()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __len__(self):
        return len(self._blocks)

    def append(self, block):
        """Write a block.

        Parameters
        ----------
        block : Block
        """
        path = self._folder / f"{len(self._blocks):06d}"
        with open(path, "wb") as handle:
            handle.writelines(np.ascontiguousarray(block.columns[name], dtype).data for name, dtype in COLUMNS.items())
        self._blocks.append((path, block.first_crystal, block.offsets))

    def __getitem__(self, number):
        path, first_crystal, offsets = self._blocks[number]
        n = int(offsets[-1])
        columns = {}
        if n == 0:
            columns = {name: np.empty(0, dtype) for name, dtype in COLUMNS.items()}
            return Block(first_crystal, offsets, columns)
        content = np.asarray(np.memmap(path, dtype=np.uint8, mode="r+"))
        start = 0
        for name, dtype in COLUMNS.items():
            stop = start + n * np.dtype(dtype).itemsize
            columns[name] = content[start:stop].view(dtype)
            start = stop
        return Block(first_crystal, offsets, columns)
