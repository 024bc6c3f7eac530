"""Engine crystfel and its mergers beside the built-in ones: what is computed, and what is computed again when something changes."""

import json
import shutil

import pytest

#: What follows the peaks, the integration and the merging of one engine.
AFTER = {"figures_of_merit", "export", "report"}
ENGINE = {"crystfel_peaks", "crystfel_indexing"}
MERGERS = {"partialator", "process_hkl"}


@pytest.fixture(scope="module")
def done_folder(experiment_in, tmp_path_factory):
    """A working directory in which two engines and three mergers have run."""
    experiment = experiment_in(tmp_path_factory.mktemp("both") / "work")
    experiment.config |= {"engines": ["builtin", "crystfel"], "mergers": ["builtin", *sorted(MERGERS)]}
    experiment.snakemake()
    assert experiment.planned() == {}
    return experiment.folder


@pytest.fixture
def done(done_folder, experiment_in, copied):
    experiment = experiment_in(copied(done_folder))
    experiment.config |= {"engines": ["builtin", "crystfel"], "mergers": ["builtin", *sorted(MERGERS)]}
    return experiment


@pytest.fixture
def copied(tmp_path):
    """A copy of a folder, modification times included."""

    def copy(folder):
        shutil.copytree(folder, tmp_path / "work", symlinks=True)
        return tmp_path / "work"

    return copy


def engines_of(jobs):
    """Engine that each job's message ends with, where it ends with one."""
    return {
        message.rpartition("(")[2].rstrip(")")
        for messages in jobs.values()
        for message in messages
        if message.endswith(")")
    }


def without_common(jobs):
    return {
        rule: found
        for rule, found in jobs.items()
        if rule in ENGINE | MERGERS | {"builtin_peaks", "builtin_merging", "stream", "ambiguity"}
    }


def test_adding_the_engine_leaves_the_other_alone(finished):
    finished.config["engines"] = ["builtin", "crystfel"]
    jobs = finished.planned()
    assert not {rule for rule in jobs if rule.startswith("builtin_")} - {"builtin_merging"}
    assert {rule: len(jobs[rule]) for rule in ENGINE} == dict.fromkeys(ENGINE, 5)
    assert all("crystfel" in message for message in jobs["builtin_merging"] | jobs["frames"] | jobs["figures_of_merit"])


def test_peaks_and_indexing_are_separate_targets(experiment):
    experiment.config["engines"] = ["crystfel"]
    assert experiment.planned("results/crystfel/runs/b/0000.peaks.h5").keys() == {"crystfel_peaks"}
    jobs = experiment.planned("results/crystfel/runs/b/0000.integrated.h5")
    assert {rule: len(found) for rule, found in jobs.items()} == {"crystfel_peaks": 1, "crystfel_indexing": 1}


def test_peaks_of_the_built_in_engine(experiment):
    experiment.config |= {"engines": ["crystfel"], "crystfel": {"peak_search": "builtin"}}
    jobs = experiment.planned("results/crystfel/runs/b/0000.integrated.h5")
    assert jobs.keys() == {"builtin_peaks", *ENGINE}


def test_adding_a_merger_reruns_no_engine(finished):
    finished.config["mergers"] = ["builtin", "partialator"]
    assert without_common(finished.planned()).keys() == {"stream", "partialator"}


def test_setting_of_a_merger(done):
    done.config["partialator"] = {"iterations": 5}
    jobs = done.planned()
    assert without_common(jobs).keys() == {"partialator"}
    assert len(jobs["partialator"]) == 4
    assert all("partialator" in message for message in jobs["figures_of_merit"] | jobs["export"])


def test_setting_of_the_built_in_merger(done):
    done.config["merging"]["cycles"] = 5
    assert without_common(done.planned()).keys() == {"builtin_merging"}


@pytest.mark.parametrize(
    ("setting", "rules"),
    [
        ({"indexing": "xgandalf"}, {"crystfel_indexing"}),
        ({"extra": "--fix-divergence=0.1"}, {"crystfel_indexing"}),
        ({"peaks_extra": "--median-filter=3"}, ENGINE),
    ],
)
def test_setting_of_the_engine(done, setting, rules):
    done.config["crystfel"] = setting
    jobs = done.planned()
    assert {rule for rule in jobs if rule in ENGINE or rule.startswith("builtin_")} == rules | {"builtin_merging"}
    assert engines_of({rule: jobs[rule] for rule in ("builtin_merging", "frames", "ambiguity", "stream")}) == {
        "crystfel"
    }


def test_setting_that_only_the_built_in_engine_has(done):
    done.config["integration"] = {"method": "rings"}
    jobs = done.planned()
    assert not jobs.keys() & ENGINE
    assert engines_of({rule: jobs[rule] for rule in ("builtin_merging", "stream")}) == {"builtin"}


def test_radii_are_of_both_engines(done):
    done.config["integration"] = {"inner_radius": 2.5}
    jobs = done.planned()
    assert {"builtin_integration", "crystfel_indexing"} <= jobs.keys()
    assert not jobs.keys() & {"crystfel_peaks", "builtin_peaks", "builtin_indexing"}


def test_polarisation_is_known_to_the_mergers(done):
    done.config["integration"] = {"polarisation_fraction": 0.9}
    assert jobs_of(done) >= MERGERS | {"crystfel_indexing", "builtin_integration"}


def test_friedel_mates_apart_are_of_three_mergers(done):
    """Of merging CrystFEL's mergers know this alone."""
    done.config["merging"] = {"anomalous": True}
    jobs = jobs_of(done)
    assert jobs >= MERGERS | {"builtin_merging"}
    assert not any(job.endswith(("_peaks", "_indexing", "_integration")) or job == "stream" for job in jobs)
    done.config["merging"] = {"cycles": 4}
    assert not jobs_of(done) & MERGERS


def jobs_of(experiment):
    return experiment.planned().keys()


def test_what_the_commands_are_told(done):
    calls = {call[0]: call for call in done.calls()}
    told = dict(zip(calls["crystfel_peaks"][1:], calls["crystfel_peaks"][2:], strict=False))
    assert json.loads(told["--settings"])["crystfel"] == {"peak_search": "peakfinder8", "peaks_extra": ""}
    assert json.loads(told["--settings"])["peaks"]["min_snr"] == 4
    assert told["--program-log"].startswith("logs/crystfel/runs/")
    assert told["--time-limit"] == "60"
    told = dict(zip(calls["crystfel_indexing"][1:], calls["crystfel_indexing"][2:], strict=False))
    settings = json.loads(told["--settings"])
    assert settings["crystfel"]["indexing"] == "asdf"
    assert settings["integration"]["inner_radius"] == 3
    assert "method" not in settings["integration"]
    assert "peak_search" not in settings["crystfel"]
    for merger in MERGERS:
        told = dict(zip(calls[merger][1:], calls[merger][2:], strict=False))
        assert told["--stream"].endswith(f"/streams/{told['--dataset']}.stream")
        assert told["--space-group"] in ("P43212", "P41212")
        assert set(json.loads(told["--settings"])) == {merger, "integration", "merging"}


# ---- what can't work


def test_a_split_without_the_built_in_merger(experiment):
    experiment.config["mergers"] = ["partialator", "process_hkl"]
    experiment.config["datasets"]["lysozyme"] |= {"split": "run"}
    text = experiment.refused()
    assert (
        "datasets.lysozyme.split: only the merger builtin merges groups apart, and mergers has partialator, process_hkl"
        in text
    )
    assert "add builtin to mergers" in text


def test_a_split_with_another_merger_beside(experiment):
    experiment.config["mergers"] = ["builtin", "partialator"]
    experiment.config["datasets"]["lysozyme"] |= {"split": "run"}
    jobs = experiment.planned()
    assert len(jobs["group_export"]) == 2
    assert len(jobs["partialator"]) == 2


@pytest.mark.parametrize(
    ("section", "setting", "words"),
    [
        (
            "crystfel",
            {"peak_search": "peakfinder9"},
            "crystfel.peak_search: 'peakfinder9' is not one of peakfinder8, builtin",
        ),
        ("crystfel", {"indexer": "asdf"}, "crystfel.indexer: no such setting; did you mean indexing?"),
        ("partialator", {"model": "sphere"}, "partialator.model: 'sphere' is not one of unity, xsphere"),
        ("process_hkl", {"min_measurements": 0}, "process_hkl.min_measurements: 0 is below 1"),
    ],
)
def test_a_wrong_setting(experiment, section, setting, words):
    experiment.config[section] = setting
    assert words in experiment.refused()


def test_an_unknown_engine(experiment):
    experiment.config["engines"] = ["crystfell"]
    assert "engines[0]: 'crystfell' is not one of builtin, crystfel" in experiment.refused()
