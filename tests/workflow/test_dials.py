"""Engine dials and its mergers beside the built-in ones: what is computed, and what is computed again when something changes."""

import json
import shutil

import pytest

#: What follows the merging of one engine.
AFTER = {"figures_of_merit", "export", "report", "comparison"}
ENGINE = {"dials_peaks", "dials_indexing"}
MERGERS = {"dials_scale_merging", "cctbx_xfel_merging"}
CONFIG = {"engines": ["builtin", "dials"], "mergers": ["builtin", "dials_scale", "cctbx_xfel_merge"]}


@pytest.fixture(scope="module")
def done_folder(experiment_in, tmp_path_factory):
    """A working directory in which two engines and three mergers have run."""
    experiment = experiment_in(tmp_path_factory.mktemp("dials") / "work")
    experiment.config |= CONFIG
    experiment.snakemake()
    assert experiment.planned() == {}
    return experiment.folder


@pytest.fixture
def done(done_folder, experiment_in, tmp_path):
    """A copy of it, modification times included."""
    shutil.copytree(done_folder, tmp_path / "work", symlinks=True)
    experiment = experiment_in(tmp_path / "work")
    experiment.config |= CONFIG
    return experiment


def engines_of(jobs):
    """Engine that the message of each job ends with."""
    return {m.rpartition("(")[2].rstrip(")") for found in jobs.values() for m in found if m.endswith(")")}


def of_engines(jobs):
    """Jobs before merging."""
    return {
        rule for rule in jobs if rule in ENGINE | {"builtin_peaks", "builtin_indexing", "builtin_integration", "frames"}
    }


def test_what_was_called(done_folder, experiment_in):
    calls = experiment_in(done_folder).calls()
    settings = {call[0]: json.loads(call[call.index("--settings") + 1]) for call in calls if "--settings" in call}
    peaks = settings["dials_peaks"]
    assert peaks["peaks"]["min_pix_count"] == 2
    assert set(peaks["dials"]) == {"threshold", "sigma_background", "sigma_strong", "gain", "extra_find_spots"}
    indexing = settings["dials_indexing"]
    assert indexing["peaks"] == {}
    assert "extra_find_spots" not in indexing["dials"]
    merge = next(call for call in calls if call[0] == "cctbx_xfel_merge")
    assert merge[merge.index("--mpi") + 1] == "mpirun"
    assert merge[merge.index("--tasks") + 1] == "8"


def test_adding_the_engine_leaves_the_other_alone(finished):
    finished.config["engines"] = ["builtin", "dials"]
    jobs = finished.planned()
    assert of_engines(jobs) == {*ENGINE, "frames"}
    assert {len(jobs[rule]) for rule in ENGINE} == {5}
    assert engines_of({rule: jobs[rule] for rule in ("builtin_merging", "frames", "ambiguity")}) == {"dials"}


def test_peaks_and_indexing_are_separate_targets(experiment):
    experiment.config["engines"] = ["dials"]
    assert experiment.planned("results/dials/runs/b/0000.peaks.h5").keys() == {"dials_peaks"}
    assert experiment.planned("results/dials/runs/b/0000.integrated.h5").keys() == ENGINE


@pytest.mark.parametrize(
    ("setting", "rules"),
    [
        ({"sigma_strong": 4.0}, ENGINE),
        ({"extra_find_spots": "a=1"}, ENGINE),
        ({"extra_index": "a=1"}, {"dials_indexing"}),
        ({"max_lattices": 2}, {"dials_indexing"}),
        ({"indexing": "stills_process"}, {"dials_indexing"}),
    ],
)
def test_a_setting_of_dials_reruns_only_that_engine(done, setting, rules):
    done.config["dials"] = setting
    jobs = done.planned()
    assert of_engines(jobs) == rules | {"frames"}
    assert engines_of({rule: found for rule, found in jobs.items() if rule not in AFTER}) == {"dials"}


def test_a_setting_of_the_peaks_reruns_both_engines(done):
    done.config["peaks"] = {"min_pix_count": 3}
    assert of_engines(done.planned()) >= {"dials_peaks", "builtin_peaks", "dials_indexing"}


def test_what_dials_does_not_use_of_the_shared_settings(done):
    """Radii are of the built-in integration and CrystFEL's."""
    done.config["integration"] = {"outer_radius": 7.0}
    assert of_engines(done.planned()) == {"builtin_integration", "frames"}
    done.config["integration"] = {"d_min": 2.5}
    assert of_engines(done.planned()) == {"builtin_integration", "dials_indexing", "frames"}


@pytest.mark.parametrize(
    ("section", "setting", "rule"),
    [
        ("dials_scale", {"model": "physical"}, "dials_scale_merging"),
        ("cctbx_xfel_merge", {"post_refinement": False}, "cctbx_xfel_merging"),
    ],
)
def test_a_setting_of_a_merger_reruns_no_engine(done, section, setting, rule):
    done.config[section] = setting
    jobs = done.planned()
    assert jobs.keys() - AFTER == {rule}
    assert len(jobs[rule]) == 4


def test_adding_the_merger_runs_no_engine(finished):
    finished.config["mergers"] = ["builtin", "dials_scale"]
    jobs = finished.planned()
    assert jobs.keys() - AFTER == {"dials_scale_merging"}
