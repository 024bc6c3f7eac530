"""Datasets without a cell: who needs the found one, when it is found again, and that a file put in its place stays."""

import os
import shutil

import pytest
from recorded_calls import calls_of

FOUND = "results/builtin/cell/lysozyme/found.cell"
AFTER_PEAKS = {
    "builtin_indexing",
    "builtin_integration",
    "frames",
    "ambiguity",
    "builtin_merging",
    "figures_of_merit",
    "export",
}
FINDING = {"Finding the unit cell of lysozyme (builtin)"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, experiment_in):
    """A working directory where everything is done; one of its two datasets has neither cell nor space group."""
    folder = tmp_path_factory.mktemp("without_cell")
    experiment = experiment_in(folder)
    experiment.config["datasets"]["lysozyme"] = {"d_min": 1.8}
    experiment.config["cell"] = {"search_frames": 150}
    experiment.snakemake()
    return folder


@pytest.fixture
def without_cell(folder, tmp_path, experiment_in):
    """A copy of it, modification times included."""
    shutil.copytree(folder, tmp_path / "work", symlinks=True)
    experiment = experiment_in(tmp_path / "work")
    experiment.config["datasets"]["lysozyme"] = {"d_min": 1.8}
    experiment.config["cell"] = {"search_frames": 150}
    return experiment


def test_finished_is_finished(without_cell):
    assert without_cell.planned() == {}


def test_who_gets_the_found_cell(without_cell):
    (call,) = calls_of(without_cell.folder, "cell")
    assert call["--peaks"] == [f"results/builtin/runs/{chunk}.peaks.h5" for chunk in ("a/0000", "a/0001")]
    assert call["--geometry"] == ["raw/one.geom"] * 2
    assert call["--space-group"] == [] and call["--output"] == [FOUND]
    for stage in ("indexing", "merging"):
        cells = [(call["--cell"][0], *call["--space-group"]) for call in calls_of(without_cell.folder, stage)]
        assert set(cells) == {(FOUND,), ("raw/thaumatin.cell", "P41212")}
    (call,) = calls_of(without_cell.folder, "report")
    assert call["--cells"] == ["results/builtin/cell/lysozyme/clusters.json"]


def test_the_target_stops_at_the_cell(experiment):
    experiment.config["datasets"]["lysozyme"] = {}
    jobs = experiment.planned("cell")
    assert jobs.keys() == {"builtin_peaks", "find_cell"}
    assert jobs["find_cell"] == FINDING and len(jobs["builtin_peaks"]) == 4
    experiment.config["datasets"]["lysozyme"] = {"cell": "raw/lysozyme.cell"}
    assert experiment.planned("cell").keys() <= {"cell"}


def test_null_is_the_same_as_nothing(without_cell):
    without_cell.config["datasets"]["lysozyme"] |= {"cell": None, "space_group": None}
    assert without_cell.planned() == {}


def test_more_chunks_are_searched_for_more_frames(without_cell):
    without_cell.config["cell"]["search_frames"] = 251
    assert without_cell.planned()["find_cell"] == FINDING


def test_a_run_more_does_not_find_the_cell_again(without_cell):
    """As long as the first chunks hold enough frames."""
    without_cell.runs.append(without_cell.runs[1] | {"run": "d"})
    jobs = without_cell.planned()
    assert "find_cell" not in jobs
    assert jobs["builtin_indexing"] == {"Indexing chunk 0000 of run d"}


def test_a_setting_finds_the_cell_again_and_not_the_peaks(without_cell):
    without_cell.config["cell"]["min_frames"] = 10
    jobs = without_cell.planned()
    assert jobs.keys() == {"find_cell", "report"} | AFTER_PEAKS
    assert jobs["find_cell"] == FINDING and len(jobs["builtin_indexing"]) == 4


def test_a_space_group_finds_the_cell_again_in_its_setting(without_cell):
    without_cell.config["datasets"]["lysozyme"]["space_group"] = "P212121"
    assert without_cell.planned()["find_cell"] == FINDING


def test_a_file_put_in_its_place_stays_and_is_used(without_cell):
    path = without_cell.folder / FOUND
    path.write_text("my own")
    later = path.stat().st_mtime + 10
    os.utime(path, (later, later))
    jobs = without_cell.planned()
    assert jobs.keys() == {"report"} | AFTER_PEAKS
    assert len(jobs["builtin_indexing"]) == 4


def test_new_peaks_find_the_cell_again(without_cell):
    peaks = without_cell.folder / "results/builtin/runs/a/0000.peaks.h5"
    peaks.write_text("other peaks")
    later = (without_cell.folder / FOUND).stat().st_mtime + 10
    os.utime(peaks, (later, later))
    assert without_cell.planned()["find_cell"] == FINDING


def test_a_cell_in_the_config_takes_over(without_cell):
    without_cell.config["datasets"]["lysozyme"]["cell"] = "raw/lysozyme.cell"
    jobs = without_cell.planned()
    assert "find_cell" not in jobs and len(jobs["builtin_indexing"]) == 4


def test_other_stages_leave_the_cell_alone(without_cell):
    without_cell.config["merging"]["cycles"] = 5
    assert "find_cell" not in without_cell.planned()
    without_cell.config["indexing"] = {"max_lattices": 2}
    assert "find_cell" not in without_cell.planned()
