import math

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfxflow.errors import InputError
from sfxflow.io.frame_account import (
    COLUMNS,
    check_complete,
    count_by_status,
    gather_frames,
    read_frame_account,
    write_frame_account,
)
from sfxflow.io.table import ChunkWriter
from sfxflow.reflections import FRAMES, Status


def write_chunk(path, numbers, status=Status.blank):
    """A chunk file with a frames table and nothing else of interest."""
    n = len(numbers)
    rows = {column.name: ["" if column.dtype == "str" else 0] * n for column in FRAMES}
    rows |= {"frame": list(numbers), "status": [int(status)] * n, "resolution": [np.nan] * n}
    rows["event"] = [f"//{number}" for number in numbers]
    with h5py.File(path, "w") as handle:
        ChunkWriter(handle, "{}", ["frames"]).append("frames", rows)
    return str(path)


def test_frames_are_ordered_whatever_the_order_of_the_chunks(tmp_path):
    second = write_chunk(tmp_path / "1.h5", range(5, 8), Status.indexed)
    first = write_chunk(tmp_path / "0.h5", range(5), Status.failed)
    frames, chunk = gather_frames([second, first])
    assert frames["frame"] == list(range(8))
    assert frames["event"] == [f"//{number}" for number in range(8)]
    assert frames["status"] == [Status.failed] * 5 + [Status.indexed] * 3
    assert chunk.tolist() == [1] * 5 + [0] * 3
    check_complete(frames["frame"], 8, chunk, [second, first])


def test_an_empty_chunk_is_no_error(tmp_path):
    frames, chunk = gather_frames([write_chunk(tmp_path / "0.h5", range(2)), write_chunk(tmp_path / "1.h5", [])])
    check_complete(frames["frame"], 2, chunk, ["0.h5", "1.h5"])


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ([0, 1, 3, 4], "1 of the run's 5 frames are in none of the 2 chunk files, the first is frame 2"),
        ([0, 1, 2, 2, 3, 4], "frame 2 is counted twice, in a.h5 and in b.h5"),
        ([0, 1, 2, 3, 4, 5], "b.h5: holds frame 5, but the run has 5 frames"),
        ([], "5 of the run's 5 frames are in none of the 2 chunk files, the first is frame 0"),
    ],
)
def test_counts_that_do_not_add_up(numbers, message):
    chunk = np.arange(len(numbers)) // 3
    with pytest.raises(InputError, match=message.replace("'", ".")):
        check_complete(numbers, 5, chunk, ["a.h5", "b.h5"])


def test_chunk_without_frames(tmp_path):
    with h5py.File(tmp_path / "0.h5", "w") as handle:
        handle.attrs["format"] = "sfxflow chunk 1"
    with pytest.raises(InputError, match="0.h5: has no table 'frames'"):
        gather_frames([tmp_path / "0.h5"])


def test_counts_add_up():
    counts = count_by_status([Status.blank, Status.indexed, Status.blank, Status.failed])
    assert counts == {Status.failed: 1, Status.blank: 2, Status.hit: 0, Status.indexed: 1}


texts = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), max_size=20)


@given(
    rows=st.lists(
        st.tuples(
            st.integers(0, 2**40),
            texts,
            texts,
            st.sampled_from(Status),
            st.integers(0, 10**6),
            st.integers(0, 10),
            st.one_of(st.just(math.nan), st.floats(0.5, 99).map(lambda value: round(value, 3))),
            texts.map(lambda text: " ".join(text.split())),
        ),
        max_size=6,
    )
)
def test_written_and_read_back(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("account") / "frames.tsv"
    columns = [list(values) for values in zip(*rows, strict=True)] or [[] for _ in COLUMNS]
    frames = dict(zip(COLUMNS, columns, strict=True))
    write_frame_account(path, frames, '{"program": "sfxflow"}')
    again, provenance = read_frame_account(path)
    assert provenance == '{"program": "sfxflow"}'
    for name in COLUMNS:
        assert [str(value) for value in again[name]] == [str(value) for value in frames[name]], name


def test_a_message_with_tabs_and_line_breaks_stays_on_its_line(tmp_path):
    frames = dict(
        zip(COLUMNS, ([0], ["a\tb.h5"], [""], [Status.failed], [0], [0], [math.nan], ["one\ttwo\nthree"]), strict=True)
    )
    write_frame_account(tmp_path / "frames.tsv", frames, "{}")
    again, _ = read_frame_account(tmp_path / "frames.tsv")
    assert again["message"] == ["one two three"]
    assert again["file"] == ["a b.h5"]


@pytest.mark.parametrize("text", ["", "frame\tfile\n", "# provenance: {}\nframe\tfile\n"])
def test_not_a_frame_account(tmp_path, text):
    (tmp_path / "frames.tsv").write_text(text)
    with pytest.raises(InputError, match="frames.tsv: is not a frame account"):
        read_frame_account(tmp_path / "frames.tsv")


def test_a_row_that_is_cut_off(tmp_path):
    path = tmp_path / "frames.tsv"
    path.write_text("# provenance: {}\n" + "\t".join(COLUMNS) + "\n0\tx.h5\t//0\tblank\t3\n")
    with pytest.raises(InputError, match="frames.tsv, line 3: is not a row of a frame account"):
        read_frame_account(path)


def test_not_there(tmp_path):
    with pytest.raises(InputError, match="the frame account can't be read"):
        read_frame_account(tmp_path / "frames.tsv")


def test_quotes_are_ordinary_characters(tmp_path):
    message = 'dataset "/entry/data" is not there'
    frames = dict(
        zip(COLUMNS, ([0], ['the "best".h5'], [""], [Status.failed], [0], [0], [math.nan], [message]), strict=True)
    )
    write_frame_account(tmp_path / "frames.tsv", frames, "{}")
    again, _ = read_frame_account(tmp_path / "frames.tsv")
    assert (again["file"], again["message"]) == (['the "best".h5'], [message])
