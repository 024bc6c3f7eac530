"""Files are written whole or not at all, and say where they come from."""

import json
import os
import platform
import subprocess
import sys

import pytest

from sfxflow.errors import InputError
from sfxflow.io.files import provenance, provenance_json, written_whole


def test_the_file_is_there_when_the_block_ends(tmp_path):
    path = tmp_path / "new folder/a.txt"
    with written_whole(path) as temporary:
        temporary.write_text("all")
        assert not path.exists()
    assert path.read_text() == "all"
    assert os.listdir(path.parent) == ["a.txt"]


def test_an_error_leaves_the_earlier_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("earlier")
    with pytest.raises(ValueError, match="in the middle"), written_whole(path) as temporary:
        temporary.write_text("half")
        raise ValueError("in the middle")
    assert path.read_text() == "earlier"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_what_killed_jobs_left_is_removed(tmp_path):
    """But not what a job that still runs is writing, here or on another machine, nor what belongs to another file."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    running = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    here = platform.node()
    left, kept = (
        f".a[1].h5.{here}.{ended.pid}.part",
        {
            f".a[1].h5.{here}.{running.pid}.part",
            f".a[1].h5.elsewhere.{ended.pid}.part",
            f".b.h5.{here}.{ended.pid}.part",
            f".a[1].h5.{here}.x.part",
        },
    )
    for name in (left, *kept):
        (tmp_path / name).write_text("half")
    with written_whole(tmp_path / "a[1].h5") as temporary:
        temporary.write_text("all")
    running.communicate()
    assert set(os.listdir(tmp_path)) == {"a[1].h5", *kept}


def test_provenance(tmp_path):
    path = tmp_path / "in.txt"
    path.write_text("four")
    found = provenance({"cycles": 3}, [path])
    assert found["settings"] == {"cycles": 3}
    assert found["program"].startswith("sfxflow ")
    assert [(item["name"], item["size"]) for item in found["inputs"]] == [(str(path), 4)]
    assert json.loads(provenance_json({"cycles": 3}, [path])) == found


def test_provenance_of_an_input_that_is_missing(tmp_path):
    with pytest.raises(InputError, match="gone.h5: can't be read"):
        provenance(inputs=[tmp_path / "gone.h5"])
