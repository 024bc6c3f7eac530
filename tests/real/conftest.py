"""Data that the project did not make: `sfxflow init` and `snakemake --profile local` as a user calls them, once for each set."""

import pytest

from sfxflow.io.cell_file import read_cell


@pytest.fixture(scope="session")
def thaumatin(shared_data, init_folder):
    """Ten real frames, eight of which diffract, of one crystal that was hardly turned; processed."""
    data = shared_data / "data/thaumatin_i24"
    work = init_folder(
        *("--data", data / "thaumatin_i24.h5", "--geometry", data / "thaumatin_i24.geom"),
        *("--cell", data / "thaumatin.cell", "--space-group", "P41212"),
    )
    work.snakemake()
    return work


@pytest.fixture(scope="session")
def crystfel_sim(shared_data, init_folder):
    """251 hits and 50 blanks of another program's simulation; processed."""
    data = shared_data / "data/crystfel_sim"
    work = init_folder(
        *("--data", data / "run1_*.h5", "--geometry", data / "det.geom"),
        *("--cell", data / "lyso.cell", "--space-group", "P43212", "--d-min", "2.0"),
    )
    work.snakemake()
    return work


@pytest.fixture(scope="session")
def find_cell():
    """A function that runs `sfxflow cell` in a folder: the cell that it finds, and what it says."""

    def find(work, peaks, geometry, *more):
        text = work.sfxflow(
            *("cell", "--peaks", work.result(peaks), "--geometry", geometry),
            *("--output", "found.cell", "--clusters", "clusters.json", *more),
        )
        return read_cell(work.folder / "found.cell"), text

    return find
