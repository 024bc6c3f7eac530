"""The comparison: made where there is more than one engine or merger, again when what it compares changes, and never for more."""

import json
import shutil

import pytest
from recorded_calls import calls_of

#: Rules that take frames or lattices: no change of a merger may run them again.
ENGINES = {
    "builtin_peaks", "builtin_indexing", "builtin_integration", "crystfel_peaks", "crystfel_indexing", "frames", "ambiguity",
}  # fmt: skip


@pytest.fixture(scope="module")
def compared_folder(experiment_in, tmp_path_factory):
    """Two engines and two mergers, everything done, on the run of four frames."""
    experiment = experiment_in(tmp_path_factory.mktemp("compared"))
    chosen(experiment)
    experiment.snakemake()
    assert experiment.planned() == {}
    return experiment.folder


def chosen(experiment):
    experiment.config |= {"engines": ["builtin", "crystfel"], "mergers": ["builtin", "process_hkl"]}
    experiment.runs = experiment.runs[2:]


@pytest.fixture
def compared(compared_folder, experiment_in, tmp_path):
    folder = tmp_path / "compared"
    shutil.copytree(compared_folder, folder, symlinks=True)
    experiment = experiment_in(folder)
    chosen(experiment)
    return experiment


def test_one_engine_and_merger_are_not_compared(finished_folder):
    assert calls_of(finished_folder, "comparison") == []
    assert calls_of(finished_folder, "report")[0]["--comparison"] == []


def test_what_is_compared(compared_folder):
    (call,) = calls_of(compared_folder, "comparison")
    assert call["--merged"] == [
        f"results/{engine}/merged/{merger}/thaumatin/merged.h5"
        for engine in ("builtin", "crystfel")
        for merger in ("builtin", "process_hkl")
    ]
    assert call["--frames"] == [f"results/{engine}/runs/c/frames.tsv" for engine in ("builtin", "crystfel")]
    assert json.loads(call["--datasets"][0]) == {"thaumatin": {"reference": None, "runs": ["c"]}}
    assert calls_of(compared_folder, "report")[-1]["--comparison"] == ["results/comparison.json"]


def test_another_merger_runs_no_engine(finished):
    finished.config["mergers"] = ["builtin", "process_hkl"]
    jobs = finished.planned()
    assert jobs.keys() == {"stream", "process_hkl", "figures_of_merit", "export", "comparison", "report"}
    assert len(jobs["process_hkl"]) == 2


def test_another_engine_leaves_the_first_alone(finished):
    finished.config["engines"] = ["builtin", "crystfel"]
    jobs = finished.planned()
    assert "comparison" in jobs
    assert not {"builtin_peaks", "builtin_indexing", "builtin_integration"} & jobs.keys()
    assert all("(crystfel)" in job or "crystfel" in job for job in jobs["builtin_merging"])


def test_a_merging_setting_runs_no_engine(compared):
    compared.config["merging"]["cycles"] = 5
    jobs = compared.planned()
    assert jobs.keys() == {"builtin_merging", "figures_of_merit", "export", "comparison", "report"}
    assert len(jobs["builtin_merging"]) == 2
    assert not jobs.keys() & ENGINES


def test_a_setting_of_the_other_merger(compared):
    compared.config["process_hkl"] = {"min_measurements": 3}
    assert compared.planned().keys() == {"process_hkl", "figures_of_merit", "export", "comparison", "report"}


def test_shells_change_the_figures_only(compared):
    compared.config["figures_of_merit"] = {"n_shells": 15}
    assert compared.planned().keys() == {"figures_of_merit", "comparison", "report"}


def test_title_of_the_report(compared):
    compared.config["report"] = {"title": "Beamtime"}
    assert compared.planned().keys() == {"report"}


def test_an_engine_less(compared):
    compared.config["engines"] = ["builtin"]
    assert compared.planned().keys() == {"comparison", "report"}


def test_costs_are_no_input(compared):
    """They change with every run of a job, without changing any result."""
    for path in (compared.folder / "benchmarks").rglob("*.tsv"):
        path.write_text("other seconds")
    shutil.rmtree(compared.folder / "logs")
    assert compared.planned() == {}


def test_reference_is_compared_with(compared):
    (compared.folder / "raw/truth.hkl").write_text("truth")
    compared.config["datasets"]["thaumatin"]["reference"] = "raw/truth.hkl"
    compared.config["ambiguity"] = {"reference": "none"}
    compared.snakemake()
    call = calls_of(compared.folder, "comparison")[-1]
    assert json.loads(call["--datasets"][0])["thaumatin"]["reference"] == "raw/truth.hkl"
    (compared.folder / "raw/truth.hkl").write_text("another truth")
    assert compared.planned().keys() == {"figures_of_merit", "comparison", "report"}
