"""Chunk files of simulated observations, for the tests of the commands that read them."""

import h5py
import numpy as np

from sfxflow.io.table import ChunkWriter
from sfxflow.reflections import TABLES


def write_chunk(path, simulated, chosen, tables=("frames", "crystals", "reflections"), **changed):
    """A chunk file with the chosen crystals, each on its own frame, and one blank frame more.

    Parameters
    ----------
    path : Path
    simulated : observation_simulator.Simulated or ambiguous_crystals.Simulated
    chosen : sequence of int
    tables : sequence of str
        Those that the file has.
    **changed : dict of str to ndarray
        Columns of each table to put in place of the simulated ones.

    Returns
    -------
    str
        The path.
    """
    chosen = np.asarray(chosen, int)
    n = len(chosen) + 1
    rows = [np.flatnonzero(simulated.reflections["crystal"] == c) for c in chosen]
    owner = np.repeat(np.arange(len(chosen)), [len(r) for r in rows])
    rows = np.concatenate([np.empty(0, int), *rows])
    contents = {
        "frames": {
            "frame": np.arange(n),
            "file": ["frames.h5"] * n,
            "event": [f"//{i}" for i in range(n)],
            "status": [3] * (n - 1) + [1],
            "n_peaks": [40] * n,
            "n_lattices": [1] * (n - 1) + [0],
            "resolution": [2.0] * n,
            "photon_energy": [9500.0] * n,
            "clen": [0.1] * n,
            "message": [""] * n,
        },
        "crystals": {
            "frame": np.arange(n - 1),
            "cell": np.tile(np.array(simulated.cell), (n - 1, 1)),
            **{name: values[chosen] for name, values in simulated.crystals.items() if name != "photon_energy"},
        },
        "reflections": {name: values[rows] for name, values in simulated.reflections.items()} | {"crystal": owner},
    }
    for table, columns in contents.items():
        # what these commands don't read
        length = len(next(iter(columns.values())))
        for column in TABLES[table]:
            columns.setdefault(column.name, np.zeros((length, *column.shape)))
    for table, columns in changed.items():
        contents[table] |= columns
    with h5py.File(path, "w") as handle:
        writer = ChunkWriter(handle, "{}", tables)
        for table in tables:
            writer.append(table, contents[table])
    return str(path)


def truncate(path):
    """Leave the first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def remove(path, name):
    """Take a table or a column out of a file."""
    with h5py.File(path, "a") as handle:
        del handle[name]
