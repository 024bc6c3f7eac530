"""Datasets split into groups: which files, which jobs run again, and messages for what can't be."""

import json
import os
import shutil

import pytest

AFTER_MERGING = {"figures_of_merit", "export", "report", "group_figures_of_merit", "group_export", "difference"}


def write_split(experiment, **keys):
    """Lysozyme's runs a and b differ in the column laser."""
    for row, value in zip(experiment.runs, ("off", "on", ""), strict=True):
        row["laser"] = value
    experiment.config["datasets"]["lysozyme"] |= {"split": "laser"} | keys
    return experiment


@pytest.fixture(scope="module")
def split_folder(tmp_path_factory, finished_folder, experiment_in):
    """A dataset that was merged as a whole, and then split."""
    folder = tmp_path_factory.mktemp("split") / "work"
    shutil.copytree(finished_folder, folder, symlinks=True)
    experiment = write_split(experiment_in(folder))
    experiment.snakemake()
    assert experiment.planned() == {}
    return folder


@pytest.fixture
def split(split_folder, tmp_path, experiment_in):
    """A copy of a finished experiment with a split dataset."""
    shutil.copytree(split_folder, tmp_path / "split", symlinks=True)
    return write_split(experiment_in(tmp_path / "split"))


def option(call, name):
    return call[call.index(name) + 1]


def test_files_of_groups_and_of_the_difference(split):
    folder = split.folder / "results/builtin/merged/builtin/lysozyme/split"
    assert sorted(path.name for path in folder.iterdir()) == ["off", "on", "on_minus_off"]
    names = ["figures_of_merit.json", "figures_of_merit.tsv", "half1.hkl", "half2.hkl", "merged.hkl", "merged.mtz"]
    assert sorted(path.name for path in (folder / "on").iterdir()) == names
    assert sorted(path.name for path in (folder / "on_minus_off").iterdir()) == ["difference.json", "difference.mtz"]
    assert not (split.folder / "results/splits/thaumatin.tsv").exists()


def test_what_the_commands_are_told(split):
    calls = split.calls()
    [command] = [call for call in calls if call[0] == "split"]
    assert json.loads(option(command, "--settings")) == {
        "by": "laser", "groups": {"off": "off", "on": "on"}, "reference": "off",
    }  # fmt: skip
    runs = json.loads(option(command, "--runs"))
    assert runs == [
        {"frames": "raw/a_*.h5", "run": "a", "value": "off"},
        {"frames": "raw/b.h5", "run": "b", "value": "on"},
    ]
    merging = {option(call, "--dataset"): call for call in calls if call[0] == "merging"}
    assert option(merging["lysozyme"], "--groups") == "results/splits/lysozyme.tsv"
    assert option(merging["thaumatin"], "--groups").startswith("--")
    [difference] = [call for call in calls if call[0] == "difference"]
    assert "--group=on" in difference
    assert "--minus=off" in difference
    report = [call for call in calls if call[0] == "report"][-1]
    assert "results/builtin/merged/builtin/lysozyme/split/on_minus_off/difference.json" in report
    assert "results/builtin/merged/builtin/lysozyme/split/off/figures_of_merit.json" in report


def test_another_value_of_a_run(split):
    """No engine runs, and the other dataset stays as it is."""
    split.runs[0]["laser"] = "dark"
    split.config["datasets"]["lysozyme"]["split_groups"] = {"off": "dark", "on": "on"}
    jobs = split.planned()
    assert jobs.keys() == {"split", "builtin_merging"} | AFTER_MERGING
    assert jobs["builtin_merging"] == {"Scaling and merging lysozyme (builtin)"}
    assert jobs["figures_of_merit"] == {"Computing figures of merit of lysozyme (builtin, builtin)"}


def test_another_reference(split):
    split.config["datasets"]["lysozyme"]["split_reference"] = "on"
    jobs = split.planned()
    assert jobs["difference"] == {"Subtracting group on from off of lysozyme (builtin)"}
    assert jobs.keys() == {"split", "builtin_merging"} | AFTER_MERGING


def test_another_column_that_nothing_is_split_by(split):
    for row in split.runs:
        row["temperature"] = "293"
    assert split.planned() == {}


def test_the_split_of_one_dataset_more(split):
    for row in split.runs:
        row["laser"] = row["laser"] or "on"
    split.config["datasets"]["thaumatin"] |= {"split": "laser", "split_groups": ["on", "off"]}
    jobs = split.planned()
    assert jobs["split"] == {"Splitting the frames of thaumatin"}
    assert jobs["builtin_merging"] == {"Scaling and merging thaumatin (builtin)"}
    assert "builtin_integration" not in jobs


def test_figures_setting_and_export_setting(split):
    split.config["figures_of_merit"] = {"n_shells": 20}
    assert split.planned().keys() == {"figures_of_merit", "group_figures_of_merit", "difference", "report"}
    split.config["figures_of_merit"] = {}
    split.config["export"] = {"free_fraction": 0.05}
    assert split.planned().keys() == {"export", "group_export"}


def test_no_split_any_more(split):
    del split.config["datasets"]["lysozyme"]["split"]
    jobs = split.planned()
    assert jobs["builtin_merging"] == {"Scaling and merging lysozyme (builtin)"}
    assert jobs.keys() == {"builtin_merging", "figures_of_merit", "export", "report"}


def test_table_of_the_user(split):
    table = split.folder / "raw/groups.tsv"
    table.write_text("run\tframe\tgroup\na\t0\ton\n")
    split.config["datasets"]["lysozyme"] |= {"split": "raw/groups.tsv", "split_groups": ["on", "off"]}
    split.snakemake()
    command = [call for call in split.calls() if call[0] == "split"][-1]
    assert json.loads(option(command, "--runs"))[1] == {"frames": "raw/b.h5", "geometry": "raw/two.geom", "run": "b"}
    assert split.planned() == {}
    table.write_text("run\tframe\tgroup\na\t0\toff\n")
    os.utime(table)
    assert split.planned().keys() == {"split", "builtin_merging"} | AFTER_MERGING


def test_bins_and_their_names(experiment):
    write_split(experiment, split="/entry_1/delay", split_bins=[-1, 0, 0.5, 100])
    experiment.snakemake("--until", "split")
    [command] = experiment.calls()
    assert json.loads(option(command, "--settings")) == {
        "by": "/entry_1/delay",
        "groups": {"-1_to_0": [-1, 0], "0_to_0.5": [0, 0.5], "0.5_to_100": [0.5, 100]},
        "reference": "-1_to_0",
    }
    assert experiment.planned().keys() >= {"difference", "group_export"}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"split": "lazer"}, "datasets.lysozyme.split: config/runs.tsv has no column lazer; did you mean laser?"),
        ({"split": "mask_of"}, "has no column mask_of"),
        ({"split": "dataset"}, "column dataset of config/runs.tsv: all runs with a value have 'lysozyme': nothing to split"),
        ({"split": "mask"}, "column mask of config/runs.tsv: all runs with a value have 'raw/mask.h5'"),
        ({"split": "geometry"}, "'raw/one.geom' can't be the name of a folder; name the groups: split_groups"),
        ({"split": "/entry_1/laser_on"}, "the values of /entry_1/laser_on are known only from the frames: name those"),
        ({"split": "raw/none.tsv", "split_groups": ["a", "b"]}, "datasets.lysozyme.split: no such file: raw/none.tsv"),
        ({"split": None, "split_groups": ["a"]}, "split_groups: there is nothing to split by: split is missing"),
        ({"split_groups": [True, False]}, "True is not text or a number (a value; on, off, yes and no need quotes)"),
        ({"split_groups": {True: 1}}, "split_groups: True is not text; put on, off, yes and no in quotes"),
        ({"split_groups": ["on_minus_off", "x"]}, "'on_minus_off' can't be the name of a folder"),
        ({"split_groups": ["on"], "split_bins": [0, 1]}, "split_bins: either bins or split_groups, not both"),
        ({"split_bins": [0, 2, 1]}, "split_bins: [0, 2, 1] do not ascend"),
        ({"split_reference": "dark"}, "split_reference: dark is none of the groups off, on"),
    ],
)  # fmt: skip
def test_what_can_not_be_split(experiment, keys, message):
    write_split(experiment, **keys)
    said = experiment.refused()
    assert message in said, said
