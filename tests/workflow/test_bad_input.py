"""Config and runs that are wrong: one clear message, exit status not 0, no traceback."""

import pytest


def test_misspelt_key(experiment):
    experiment.config["peaks"] = {"min_srn": 4}
    assert "config/config.yaml: peaks.min_srn: no such setting; did you mean min_snr?" in experiment.refused()


def test_misspelt_section(experiment):
    experiment.config["peeks"] = {}
    assert "config/config.yaml: peeks: no such setting; did you mean peaks?" in experiment.refused()


def test_unknown_key_like_no_other(experiment):
    experiment.config["report"] = {"xyz": 1}
    assert "config/config.yaml: report.xyz: no such setting; known are: title" in experiment.refused()


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        (
            "peaks",
            {"min_snr": "five"},
            "peaks.min_snr: 'five' is not a number (signal-to-noise ratio that a peak must reach)",
        ),
        ("peaks", {"min_pix_count": 2.5}, "peaks.min_pix_count: 2.5 is not a whole number (fewest connected pixels"),
        ("peaks", {"use_saturated": 1}, "peaks.use_saturated: 1 is not true or false ("),
        ("peaks", {"min_snr": True}, "peaks.min_snr: True is not a number ("),
        ("peaks", {"max_bad_frames": 1.5}, "peaks.max_bad_frames: 1.5 is above 1 (fraction of failed frames"),
        ("merging", {"cycles": 0}, "merging.cycles: 0 is below 1 (most cycles of scaling and merging"),
        (
            "merging",
            {"partiality": "sphere"},
            "merging.partiality: 'sphere' is not one of empirical, gaussian, xsphere, unity (",
        ),
        ("merging", 5, "merging: 5 is not a section with keys of its own ("),
        ("engines", ["bulitin"], "engines[0]: 'bulitin' is not one of builtin"),
        ("engines", [], "engines: is empty ("),
        ("chunk_size", 0, "chunk_size: 0 is below 1 (frames that one job processes)"),
        ("datasets", {}, "datasets: is empty ("),
        ("datasets", {"lysozyme": None}, "datasets.lysozyme: None is not a section with keys of its own (one dataset)"),
        (
            "datasets",
            {"lysozyme": {"cell": 79.1}},
            "datasets.lysozyme.cell: 79.1 is not text or null (file with the unit cell",
        ),
        (
            "datasets",
            {"lysozyme": {"cell": "raw/lysozyme.cell", "space_group": 96}},
            "datasets.lysozyme.space_group: 96 is not text or null (",
        ),
        (
            "datasets",
            {"lysozyme": {"cell": "raw/lysozyme.cell", "space_group": "P43212", "d_min": -1}},
            "datasets.lysozyme.d_min: -1 is not above 0 (",
        ),
    ],
)
def test_value(experiment, section, values, message):
    experiment.config[section] = values
    assert f"config/config.yaml: {message}" in experiment.refused()


@pytest.mark.parametrize(
    ("section", "low", "high"),
    [
        ("figures_of_merit", {"d_min": 20.0}, {"d_max": 1.5}),
        ("peaks", {"min_res": 500}, {"max_res": 200}),
        ("peaks", {"min_pix_count": 30}, {"max_pix_count": 20}),
        ("integration", {"inner_radius": 5}, {"middle_radius": 4}),
        ("integration", {"middle_radius": 7}, {"outer_radius": 6}),
    ],
)
def test_limits_the_wrong_way_round(experiment, section, low, high):
    experiment.config[section] = low | high
    [(low_name, low_value)], [(high_name, high_value)] = low.items(), high.items()
    message = f"{section}: {low_name} ({low_value}) must not be above {high_name} ({high_value})"
    assert f"config/config.yaml: {message}" in experiment.refused()


def test_section_without_keys(experiment):
    """A section whose keys are all commented out has the defaults."""
    experiment.config["peaks"] = None
    assert "builtin_peaks" in experiment.planned()


def test_config_is_not_there(experiment):
    experiment.write()
    (experiment.folder / "config/config.yaml").unlink()
    assert "config/config.yaml but it is not present" in experiment.refused_as_it_stands()


def test_config_is_not_yaml(experiment):
    experiment.write()
    (experiment.folder / "config/config.yaml").write_text("peaks: {min_snr: 4\n")
    assert "Config file is not valid JSON or YAML" in experiment.refused_as_it_stands()


def test_duplicate_run(experiment):
    experiment.runs[2]["run"] = "a"
    assert "config/runs.tsv, line 4 (run a): there is another run of this name" in experiment.refused()


def test_missing_column(experiment):
    for row in experiment.runs:
        del row["geometry"]
    assert "config/runs.tsv: no column geometry; it has: run, dataset, frames, mask, n_frames" in experiment.refused()


def test_no_tabs(experiment):
    experiment.write()
    path = experiment.folder / "config/runs.tsv"
    path.write_text(path.read_text().replace("\t", " "))
    assert "are the columns separated by tabs?" in experiment.refused_as_it_stands()


@pytest.mark.parametrize("text", ["", "# only a comment\n", "run\tdataset\tframes\tgeometry\tmask\tn_frames\n"])
def test_no_runs(experiment, text):
    experiment.write()
    (experiment.folder / "config/runs.tsv").write_text(text)
    assert "config/runs.tsv: no runs in the table" in experiment.refused_as_it_stands()


def test_table_is_not_there(experiment):
    experiment.config["runs"] = "config/rums.tsv"
    assert "config/rums.tsv: the table of the runs can't be read (No such file or directory)" in experiment.refused()


def test_too_many_values_in_a_row(experiment):
    experiment.write()
    path = experiment.folder / "config/runs.tsv"
    path.write_text(path.read_text().replace("\t60\n", "\t60\t61\n"))
    message = "config/runs.tsv, line 3 (run b): 7 values, but the table has 6 columns"
    assert message in experiment.refused_as_it_stands()


@pytest.mark.parametrize("n_frames", ["many", "2.5", "-3", ""])
def test_number_of_frames_is_no_number(experiment, n_frames):
    experiment.runs[1]["n_frames"] = n_frames
    assert f"config/runs.tsv, line 3 (run b): n_frames: {n_frames!r} is not a whole number" in experiment.refused()


def test_no_frames(experiment):
    experiment.runs[1]["n_frames"] = 0
    assert "config/runs.tsv, line 3 (run b): n_frames: 0 is below 1 (number of frames" in experiment.refused()


def test_name_of_a_run(experiment):
    experiment.runs[1]["run"] = "b/1"
    assert "config/runs.tsv, line 3 (run b/1): run: 'b/1' is not a name of letters, digits" in experiment.refused()


def test_comment_lines_count(experiment):
    """The message names the line of the file, comments and empty lines included."""
    experiment.runs[1]["n_frames"] = "x"
    experiment.write()
    path = experiment.folder / "config/runs.tsv"
    path.write_text("# a comment\n\n" + path.read_text())
    assert "config/runs.tsv, line 5 (run b)" in experiment.refused_as_it_stands()


def test_unknown_dataset(experiment):
    experiment.runs[1]["dataset"] = "lysozym"
    message = (
        "config/runs.tsv, line 3 (run b): dataset lysozym does not stand in config/config.yaml; did you mean lysozyme?"
    )
    assert message in experiment.refused()


def test_all_missing_files_at_once(experiment):
    experiment.runs[0]["frames"] = "raw/x_*.h5"
    experiment.runs[1]["frames"] = "raw/y.h5"
    experiment.runs[0]["mask"] = "raw/musk.h5"
    experiment.runs[2]["geometry"] = "raw/three.geom"
    experiment.config["datasets"]["thaumatin"]["cell"] = "raw/thaumatine.cell"
    experiment.config["datasets"]["thaumatin"]["reference"] = "raw/truth.hkl"
    text = experiment.refused()
    for line in (
        "config/runs.tsv, run a: frames: no file matches raw/x_*.h5",
        "config/runs.tsv, run a: mask: no such file: raw/musk.h5",
        "config/runs.tsv, run b: frames: no such file: raw/y.h5",
        "config/runs.tsv, run c: geometry: no such file: raw/three.geom",
        "config/config.yaml: datasets.thaumatin.cell: no such file: raw/thaumatine.cell",
        "config/config.yaml: datasets.thaumatin.reference: no such file: raw/truth.hkl",
    ):
        assert line in text


def test_nothing_is_written(experiment):
    experiment.config["peaks"] = {"min_srn": 4}
    experiment.write()
    status, _ = experiment.call()
    assert status != 0
    assert not (experiment.folder / "results").exists()
    assert experiment.calls() == []


def test_failed_stage(experiment):
    """The message of the command reaches the terminal, and the exit status is not 0."""
    experiment.environment["FAILING_STAGE"] = "frames"
    experiment.write()
    status, text = experiment.call("--keep-going")
    assert status != 0
    assert "stand-in: this stage fails" in text
    assert (experiment.folder / "results/builtin/merged/builtin/lysozyme/merged.mtz").exists()
    assert not (experiment.folder / "results/report/index.html").exists()
