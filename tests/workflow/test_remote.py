"""Frames at a server, as the plan sees them: nothing is asked there, and which content is meant stands in the address."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
URL = "http://127.0.0.1:9/b.h5"


def write_list(experiment, *names):
    """A list of a hundred frames in each of some files, as the run a."""
    lines = [f"{name} //{event}" for name in names for event in range(100)]
    (experiment.folder / "raw/a.lst").write_text("\n".join(lines) + "\n")
    experiment.runs[0] |= {"frames": "raw/a.lst", "n_frames": 100 * len(names)}


def test_frames_at_a_server_need_no_file_here(experiment):
    """Nobody listens there: the plan does not ask."""
    experiment.runs[1]["frames"] = f"{URL}#bytes=5"
    (experiment.folder / "raw/b.h5").unlink()
    experiment.snakemake()
    assert experiment.planned() == {}
    called = [call for call in experiment.calls() if f"{URL}#bytes=5" in call]
    assert [call[0] for call in called if call[0] in ("peaks", "integration")] == ["peaks", "integration"]


def test_another_content_is_another_input(experiment):
    """Of its run, and of nothing else."""
    experiment.runs[1]["frames"] = f"{URL}#bytes=5"
    experiment.snakemake()
    experiment.runs[1]["frames"] = f"{URL}#bytes=6"
    planned = experiment.planned()
    assert planned["builtin_peaks"] == {"Finding peaks in chunk 0000 of run b"}
    assert planned["builtin_integration"] == {"Integrating chunk 0000 of run b"}
    assert all("thaumatin" not in message for messages in planned.values() for message in messages)


def test_list_of_files_here_and_there(experiment):
    """Those here are inputs, those there are not."""
    write_list(experiment, "raw/a_1.h5", f"{URL}#bytes=5")
    experiment.snakemake()
    assert experiment.planned() == {}
    (experiment.folder / "raw/a_1.h5").write_text("changed")
    assert experiment.planned()["builtin_peaks"] == {"Finding peaks in chunk 0000 of run a"}


def test_a_pattern_at_a_server(experiment):
    experiment.runs[1]["frames"] = "s3://bucket/b_*.h5"
    said = experiment.refused()
    assert (
        "run b: frames: s3://bucket/b_*.h5: which files a server has can't be looked up; name one file, or a list"
        in said
    )


def test_profile_that_sends_files(experiment):
    """Nothing of such frames is to be sent."""
    pytest.importorskip("snakemake_executor_plugin_htcondor", reason="the htcondor plug-in is not installed")
    experiment.runs[1]["frames"] = "root://host//b.h5"
    assert "builtin_peaks" in experiment.planned("--profile", str(ROOT / "profiles/htcondor-transfer"))
