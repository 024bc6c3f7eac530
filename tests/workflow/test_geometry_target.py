"""`snakemake geometry`: one proposal for each geometry of a dataset, and what repeats it."""


def test_one_proposal_for_each_geometry_of_a_dataset(finished):
    text = finished.snakemake("geometry")
    calls = {call[call.index("--output") + 1]: call for call in finished.calls() if call[0] == "geometry"}
    folder = "results/builtin/geometry"
    assert calls.keys() == {
        f"{folder}/{name}/proposed.geom" for name in ("lysozyme/one", "lysozyme/two", "thaumatin/two")
    }
    call = calls[f"{folder}/lysozyme/one/proposed.geom"]
    first, second, after = (call.index(option) for option in ("--peaks", "--indexed", "--geometry"))
    runs = "results/builtin/runs"
    assert call[first + 1 : second] == [f"{runs}/<a:3>.peaks.h5"]
    assert call[second + 1 : after] == [f"{runs}/<a:3>.indexed.h5"]
    assert call[call.index("--proposal") + 1] == f"{folder}/lysozyme/one/proposal.json"
    assert "Proposed geometries" in text


def test_geometries_of_the_same_name_are_numbered(experiment):
    (experiment.folder / "raw/later").mkdir()
    (experiment.folder / "raw/later/one.geom").write_text("later")
    experiment.runs[1]["geometry"] = "raw/later/one.geom"
    jobs = experiment.planned("geometry")
    assert jobs["builtin_geometry"] == {
        "Refining geometry one of lysozyme",
        "Refining geometry one_2 of lysozyme",
        "Refining geometry two of thaumatin",
    }
    assert not jobs.keys() & {"builtin_integration", "builtin_merging", "report"}


def test_a_finished_experiment_does_not_ask_for_proposals(finished):
    finished.config["geometry"] = {"distance": True}
    assert finished.planned() == {}


def test_what_repeats_a_proposal(finished):
    finished.snakemake("geometry")
    assert finished.planned() == {}
    finished.config["merging"]["cycles"] = 5
    assert finished.planned("geometry").keys() == {"geometry"}
    finished.config["geometry"] = {"level": "panels"}
    assert finished.planned("geometry").keys() == {"builtin_geometry", "geometry"}
    finished.config["geometry"] = {}
    finished.config["indexing"] = {"max_lattices": 2}
    assert finished.planned("geometry").keys() == {"builtin_indexing", "builtin_geometry", "geometry"}


def test_a_proposal_is_used_as_a_copy(experiment):
    experiment.runs[1]["geometry"] = "results/builtin/geometry/lysozyme/one/proposed.geom"
    text = experiment.refused()
    assert "run b: geometry: results/builtin/geometry/lysozyme/one/proposed.geom is a result" in text
    assert "copy it beside the other geometry and name the copy" in text
