"""Lists of frames: files and events, and the frames that they name."""

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sfxflow.errors import FrameError, InputError
from sfxflow.io.frame_list import read_frame_list, write_frame_list
from sfxflow.io.frames import open_frames
from sfxflow.io.geometry import read_geometry

GEOMETRY = """photon_energy = 9000
clen = 0.1
res = 10000
data = /data
dim0 = %
dim1 = ss
dim2 = fs
p/min_fs = 0
p/max_fs = 3
p/min_ss = 0
p/max_ss = 2
p/corner_x = -2
p/corner_y = -2
p/fs = x
p/ss = y
"""
_NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1).filter(
    lambda t: "//" not in t
)
_FILES = st.lists(_NAMES, min_size=1, max_size=3).map(" ".join)
_EVENTS = st.one_of(st.just(""), st.builds("{}//{}".format, st.sampled_from(["", "a/b"]), st.integers(0, 10**6)))


@given(frames=st.lists(st.tuples(_FILES, _EVENTS), min_size=1))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_what_is_written_is_read(tmp_path, frames):
    write_frame_list(tmp_path / "a.lst", frames)
    assert read_frame_list(tmp_path / "a.lst") == frames


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Two files with three and two frames, whose pixels say which frame it is."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.geom").write_text(GEOMETRY)
    for name, first, n in (("one.h5", 0, 3), ("two.h5", 10, 2)):
        with h5py.File(tmp_path / name, "w") as handle:
            handle["data"] = np.arange(first, first + n, dtype=np.uint16)[:, None, None] + np.zeros(
                (n, 3, 4), np.uint16
            )
    return tmp_path


def frames_of(lines):
    with open("f.lst", "w") as handle:
        handle.write("\n".join(lines) + "\n")
    return open_frames("f.lst", read_geometry("a.geom"))


def test_frames_of_a_list_in_its_order(files):
    with frames_of(["two.h5 //1", "one.h5 //2", "", "one.h5 //0", "two.h5 //1"]) as frames:
        assert frames.n_frames == 4
        assert [int(frames.read(i).data[0, 0]) for i in range(4)] == [11, 2, 0, 11]
        assert frames.origin(1) == ("one.h5", "//2")
        with pytest.raises(IndexError):
            frames.read(4)


def test_a_file_without_event_is_all_of_its_frames(files):
    with frames_of(["one.h5", "two.h5 //0"]) as frames:
        assert [int(frames.read(i).data[0, 0]) for i in range(frames.n_frames)] == [0, 1, 2, 10]


def test_an_event_that_is_not_there(files):
    with pytest.raises(InputError, match=r"f\.lst: one\.h5 has no event //3; it holds 3 frames"):
        frames_of(["one.h5 //3"])


def test_an_empty_list(files):
    with pytest.raises(InputError, match=r"f\.lst: the list of frames is empty"):
        frames_of(["", " "])


def test_a_list_that_is_not_there(files):
    with pytest.raises(InputError, match=r"no\.lst: the list of frames can't be read \(No such file"):
        open_frames("no.lst", read_geometry("a.geom"))


def test_a_file_that_is_not_here_fails_its_own_frames_only(files):
    """Another machine may have the files of one chunk only; origins are those of the list."""
    (files / "one.h5").unlink()
    with frames_of(["one.h5 //1", "two.h5 //0", "one.h5 //2", "two.h5 //1"]) as frames:
        assert frames.n_frames == 4
        assert [int(frames.read(i).data[0, 0]) for i in (1, 3)] == [10, 11]
        assert [frames.origin(i) for i in range(3)] == [("one.h5", "//1"), ("two.h5", "//0"), ("one.h5", "//2")]
        with pytest.raises(FrameError, match=r"one\.h5: there is no such file"):
            frames.read(2)


def test_none_of_the_files_is_here(files):
    (files / "one.h5").unlink()
    with pytest.raises(InputError, match=r"one\.h5: there is no such file"):
        frames_of(["one.h5 //1"])
