"""Which command is run with which files, and that the workflow can be started in every promised way."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest
from recorded_calls import calls_of, options

import sfxflow

ROOT = Path(__file__).parents[2]


def test_chunks_cover_the_run(finished_folder):
    calls = [call for call in calls_of(finished_folder, "peaks") if call["--frames"] == ["raw/a_*.h5"]]
    slices = sorted((int(call["--first"][0]), int(call["--count"][0])) for call in calls)
    assert slices == [(0, 100), (100, 100), (200, 50)]
    assert {call["--n-frames"][0] for call in calls} == {"250"}
    assert {call["--mask"][0] for call in calls} == {"raw/mask.h5"}


def test_empty_mask(finished_folder):
    (call,) = [call for call in calls_of(finished_folder, "integration") if call["--frames"] == ["raw/b.h5"]]
    assert call["--mask"] == []


def test_settings_are_json_with_sorted_keys_and_every_default(finished_folder):
    text = calls_of(finished_folder, "merging")[0]["--settings"][0]
    values = json.loads(text)
    assert text == json.dumps(values, sort_keys=True)
    assert values["cycles"] == 4
    assert values["max_excitation"] == 3.5


def test_merging_takes_the_runs_of_its_dataset(finished_folder):
    calls = {call["--dataset"][0]: call for call in calls_of(finished_folder, "merging")}
    runs = {name: {Path(path).parent.name for path in call["--integrated"]} for name, call in calls.items()}
    assert runs == {"lysozyme": {"a", "b"}, "thaumatin": {"c"}}
    assert calls["lysozyme"]["--d-min"] == ["1.8"]
    assert calls["thaumatin"]["--d-min"] == []
    assert calls["thaumatin"]["--cell"] == ["raw/thaumatin.cell"]
    assert calls["thaumatin"]["--space-group"] == ["P41212"]


def test_report_shows_everything(finished_folder):
    (call,) = calls_of(finished_folder, "report")
    assert [Path(path).parent.name for path in call["--frames"]] == ["a", "b", "c"]
    assert len(call["--merged"]) == len(call["--figures-of-merit"]) == 2


def test_reference_is_an_input(finished):
    """Of the figures of merit, and of the ambiguity, where it chooses among the ways to index."""
    after = {"ambiguity", "builtin_merging", "figures_of_merit", "export", "report"}
    (finished.folder / "raw/truth.hkl").write_text("truth")
    finished.config["datasets"]["thaumatin"]["reference"] = "raw/truth.hkl"
    assert finished.planned().keys() == after
    finished.snakemake()
    assert finished.planned() == {}
    assert calls_of(finished.folder, "figures_of_merit")[-1]["--reference"] == ["raw/truth.hkl"]
    assert calls_of(finished.folder, "ambiguity")[-1]["--reference"] == ["raw/truth.hkl"]
    (finished.folder / "raw/truth.hkl").write_text("another truth")
    assert finished.planned().keys() == after


def test_logs_and_benchmarks_lie_where_the_outputs_lie(finished_folder):
    for folder, suffix in (("logs", ".log"), ("benchmarks", ".tsv")):
        found = {str(path.relative_to(finished_folder / folder)) for path in (finished_folder / folder).rglob("*.*")}
        assert f"builtin/runs/a/0002.integrated{suffix}" in found
        assert f"builtin/merged/builtin/lysozyme/merged{suffix}" in found
        assert len(found) == 3 * 5 + 3 + 4 * 2 + 1


def test_single_frame_files(experiment):
    """Where each file holds one frame a chunk depends on its own files only."""
    experiment.config["chunk_size"] = 3
    experiment.runs = experiment.runs[2:]
    experiment.snakemake()
    assert experiment.planned() == {}
    (experiment.folder / "raw/c_3.cbf").write_text("taken again")
    jobs = experiment.planned()
    assert jobs["builtin_peaks"] == {"Finding peaks in chunk 0001 of run c"}
    assert jobs["builtin_integration"] == {"Integrating chunk 0001 of run c"}


@pytest.mark.parametrize("snakefile", ["Snakefile", "workflow/Snakefile"])
def test_from_another_working_directory(finished, snakefile):
    finished.snakefile = ROOT / snakefile
    assert finished.planned() == {}
    finished.config["merging"]["cycles"] = 9
    assert "builtin_merging" in finished.planned()


def test_as_a_module(finished, write_module):
    """As snakedeploy writes it: the workflow is used as a module, with the config of the directory."""
    finished.snakefile = write_module(finished.folder)
    assert finished.planned() == {}
    finished.config["merging"]["cycles"] = 9
    assert finished.planned().keys() == {"builtin_merging", "figures_of_merit", "export", "report"}
    finished.config["peaks"] = {"min_srn": 1}
    assert "peaks.min_srn: no such setting; did you mean min_snr?" in finished.refused()


def test_example_as_committed(experiment):
    """The config of the repository plans the simulated example on a fresh checkout."""
    shutil.copytree(ROOT / "config", experiment.folder / "config")
    experiment.write_stand_in()
    status, text = experiment.call()
    assert status == 0, text
    stages = [call[0] for call in experiment.calls()]
    assert stages[:4] == ["simulate", "peaks", "indexing", "integration"]
    assert stages[-1] == "report"
    status, text = experiment.call()
    assert status == 0
    assert "Nothing to be done" in text
    (table,) = [
        row.split("\t") for row in (ROOT / "config/runs.tsv").read_text().splitlines() if row.startswith("demo\t")
    ]
    assert options(experiment.calls()[0])["--n-frames"] == [table[-1]]


@pytest.mark.parametrize("profile", ["local", "htcondor", "slurm"])
def test_profile_by_link_from_the_root(profile):
    """`snakemake --profile NAME` in the repository itself: Snakemake looks for that name in the working directory."""
    if profile != "local":
        pytest.importorskip(f"snakemake_executor_plugin_{profile}", reason=f"the {profile} plug-in is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--profile", profile, "--dry-run", "--nolock"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"profile {profile}" in done.stderr or f"profiles {profile}" in done.stderr, done.stderr


def test_default_profile_has_built_in_options_only():
    text = (ROOT / "profiles/default/profile.yaml").read_text()
    assert not re.search(r"^(executor|logger|.*-plugin)", text, re.MULTILINE)


def test_container_carries_the_version():
    rules = (ROOT / "workflow/rules/containers.smk").read_text()
    assert f'IMAGES_VERSION = "{sfxflow.__version__}"' in rules


@pytest.mark.parametrize("snakefile", ["Snakefile", "workflow/Snakefile"])
def test_lint_where_the_package_is_not_installed(tmp_path, snakefile):
    """The workflow catalog lints in an environment that holds snakemake and not sfxflow."""
    packages = Path(sysconfig.get_path("purelib"))
    for path in packages.iterdir():
        if "sfxflow" not in path.name.lower():
            (tmp_path / path.name).symlink_to(path)
    # Without -S the interpreter would add its own site-packages, where sfxflow is.
    python = [sys.executable, "-S"]
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(tmp_path)}
    absent = subprocess.run(
        [*python, "-c", "import sfxflow"], cwd=tmp_path, env=environment, capture_output=True, check=False
    )
    assert absent.returncode != 0
    done = subprocess.run(
        [*python, "-m", "snakemake", "--snakefile", str(ROOT / snakefile), "--lint"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Congratulations" in done.stdout + done.stderr


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def test_kill_and_the_same_command_again(experiment):
    """kill -9 of Snakemake and its jobs: what they left is not taken for a result; --unlock, then the same command works."""
    experiment.write()
    (experiment.folder / "sleep").write_text("")
    arguments, environment = experiment.command()
    process = subprocess.Popen(
        [sys.executable, "-m", "snakemake", *arguments],
        cwd=experiment.folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_for(experiment.calls)
    # What a killed job may leave behind: a file under the good name.
    half = experiment.folder / options(experiment.calls()[0])["--output"][0]
    half.parent.mkdir(parents=True, exist_ok=True)
    half.write_text("half")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    (experiment.folder / "sleep").unlink()
    (experiment.folder / "calls.jsonl").unlink()

    status, text = experiment.call()
    assert status != 0
    assert "--unlock" in text
    assert experiment.call("--unlock")[0] == 0
    status, text = experiment.call()
    assert status == 0, text
    assert len([call for call in experiment.calls() if call[0] == "peaks"]) == 5
    assert half.read_text() != "half"
    assert experiment.planned() == {}


def test_killed_job(experiment):
    """kill -9 of one job: Snakemake says so and its output is made again by the same command."""
    experiment.write()
    (experiment.folder / "bin/sfxflow").write_text(
        "#!/bin/sh\n[ $1 = merging ] && kill -9 $$\n" + 'exec bin/real "$@"\n'
    )
    shutil.move(experiment.folder / "bin/sfxflow", experiment.folder / "bin/killed")
    experiment.write_stand_in()
    shutil.move(experiment.folder / "bin/sfxflow", experiment.folder / "bin/real")
    shutil.move(experiment.folder / "bin/killed", experiment.folder / "bin/sfxflow")
    status, text = experiment.call("--keep-going")
    assert status != 0
    assert "builtin_merging" in text
    assert not list(experiment.folder.glob("results/builtin/merged/builtin/*/merged.h5"))
    shutil.move(experiment.folder / "bin/real", experiment.folder / "bin/sfxflow")
    assert experiment.planned().keys() == {"builtin_merging", "figures_of_merit", "export", "report"}
    assert experiment.call()[0] == 0
    assert experiment.planned() == {}


def test_mask_of_the_geometry_is_an_input(finished):
    geometry = finished.folder / finished.runs[0]["geometry"]
    mask = geometry.parent / "bad.h5"
    mask.write_text("mask")
    text = geometry.read_text()
    geometry.write_text(text + "\nm0/mask0_file = bad.h5 ; beside the geometry\n")
    finished.snakemake()
    assert finished.planned() == {}
    mask.write_text("another mask")
    assert {"builtin_peaks", "builtin_integration"} <= finished.planned().keys()


def test_a_stream_is_made_on_request_only(finished):
    assert not (finished.folder / "results/builtin/streams").exists()
    finished.snakemake("results/builtin/streams/lysozyme.stream")
    call = calls_of(finished.folder, "stream")[-1]
    assert [Path(path).parent.name for path in call["--integrated"]] == ["a", "a", "a", "b"]
    assert [Path(path).name.removesuffix(".peaks.h5") for path in call["--peaks"]] == ["0000", "0001", "0002", "0000"]
    assert call["--geometry"] == ["raw/one.geom", "raw/two.geom"] and call["--space-group"] == ["P43212"]
    assert call["--assignment"] == ["results/builtin/ambiguity/lysozyme/assignment.h5"]
    assert finished.planned("results/builtin/streams/lysozyme.stream") == {}
    finished.config["merging"]["cycles"] = 9
    assert finished.planned("results/builtin/streams/lysozyme.stream") == {}
    finished.config["integration"] = {"inner_radius": 2.5}
    assert finished.planned("results/builtin/streams/lysozyme.stream").keys() == {
        "builtin_integration",
        "ambiguity",
        "stream",
    }
