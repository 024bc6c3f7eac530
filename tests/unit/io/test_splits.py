"""The table of the groups, values from frame files and from a user's table."""

from collections import Counter

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sfxflow.errors import InputError
from sfxflow.groups import NO_GROUP, Groups
from sfxflow.io.splits import ALL_EVENTS, EventValues, read_split, read_values, shown, write_split

GROUPS = Groups("laser", {"dark": 0, "light": 1, "late": [5, 10]}, "dark")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8", exclude_characters="\t\n\r#"), min_size=1, max_size=8),
            st.integers(0, 99),
            st.sampled_from([0, 1, 5.5, 77, "", "word"]),
        ),
        min_size=1,
        unique_by=lambda row: row[:2],
    )
)
def test_what_was_written_is_read(tmp_path, frames):
    rows = [("r", i, file, f"//{event}", value) for i, (file, event, value) in enumerate(frames)]
    if not any(GROUPS.number(value) >= 0 for *_, value in rows):
        rows.append(("r", 0, "more", "", 0))
    counts, left = write_split(tmp_path / "s.tsv", GROUPS, rows, "{}")
    split = read_split(tmp_path / "s.tsv")
    expected = [GROUPS.number(row[4]) for row in rows]
    numbers, known = split.numbers([row[2] for row in rows], [row[3] for row in rows])
    assert numbers.tolist() == expected
    assert known.all()
    assert [counts[name] for name in GROUPS.names] == [expected.count(g) for g in range(3)]
    assert counts[""] == left.total() == expected.count(NO_GROUP)
    assert split.groups == GROUPS
    assert split.values.total() == len(rows)


def test_a_row_for_all_events_and_frames_that_are_not_there(tmp_path):
    write_split(tmp_path / "s.tsv", GROUPS, [("r", "*", "a.h5", ALL_EVENTS, 1), ("r", 0, "b.h5", "//0", 0)], "{}")
    numbers, known = read_split(tmp_path / "s.tsv").numbers(
        ["a.h5", "a.h5", "b.h5", "b.h5", "c.h5"], ["//7", "", "//0", "//1", ""]
    )
    assert numbers.tolist() == [1, 1, 0, NO_GROUP, NO_GROUP]
    assert known.tolist() == [True, True, True, False, False]


def test_no_frame_in_any_group_is_refused_and_nothing_is_written(tmp_path):
    rows = [("r", i, "a.h5", f"//{i}", value) for i, value in enumerate([70, 70, 80, "", "nan"])]
    message = r"no frame belongs to a group: laser has the values 70 \(2\), missing \(2\), 80 \(1\); the groups are dark \(0\), light \(1\), late"
    with pytest.raises(InputError, match=message):
        write_split(tmp_path / "s.tsv", GROUPS, rows, "{}")
    assert list(tmp_path.iterdir()) == []


def test_values_shown():
    assert shown(Counter("aaabbcdefgh")) == "a (3), b (2), c (1), d (1), e (1), f (1) and 2 more"


def damaged(text):
    return text.replace("dark\n", "drak\n")


def twice(text):
    return text + "other\t0\ta.h5\t//0\t1\tlight\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "", "is not a table of groups"),
        (lambda text: "run\tgroup\n1\tdark\n", "is not a table of groups"),
        (damaged, "is damaged"),
        (lambda text: text[: text.rindex("\t")] + "\n", "is damaged"),
        (lambda text: text.replace('"by"', '"bye"'), "line 2: by missing"),
        (twice, r"line 5: a\.h5 //0 stands in two groups"),
    ],
)
def test_tables_that_are_none(tmp_path, change, message):
    write_split(tmp_path / "s.tsv", GROUPS, [("r", 0, "a.h5", "//0", 0)], "{}")
    (tmp_path / "s.tsv").write_text(change((tmp_path / "s.tsv").read_text()))
    with pytest.raises(InputError, match=message):
        read_split(tmp_path / "s.tsv")


def test_table_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"none\.tsv: can't be read"):
        read_split(tmp_path / "none.tsv")


@pytest.fixture
def frames(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as handle:
        handle["entry/laser"] = np.array([0, 1, 1], np.uint8)
        handle["entry/code"] = ["probe", "pump", "probe"]
        handle["entry/column"] = np.array([[0.5], [np.nan], [2.5]])
        handle["entry/scalar"] = 7
        handle["entry/image"] = np.zeros((3, 2, 4, 4))
        handle["x/laser"], handle["y/laser"] = 1, 0
    return str(tmp_path / "a.h5")


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        ("/entry/laser", [0, 1, 1, ""]),
        ("/entry/code", ["probe", "pump", "probe", ""]),
        ("/entry/scalar", [7, 7, 7, 7]),
        ("/entry/nothing", ["", "", "", ""]),
    ],
)
def test_values_of_events(frames, dataset, expected):
    values = EventValues(dataset)
    assert [values.value(frames, f"//{i}") for i in range(4)] == expected


def test_values_of_other_shapes(frames):
    column = EventValues("/entry/column")
    assert column.value(frames, "//0") == 0.5
    assert np.isnan(column.value(frames, "//1"))
    named = EventValues("/%/laser")
    assert [named.value(frames, event) for event in ("x//", "y//", "x//", "z//")] == [1, 0, 1, ""]
    named.require_some()


def test_values_that_no_file_has(frames, tmp_path):
    (tmp_path / "b.cbf").write_text("image")
    values = EventValues("/entry/nothing")
    assert [values.value(path, "") for path in (frames, str(tmp_path / "b.cbf"))] == ["", ""]
    with pytest.raises(
        InputError, match="none of 2 frame files holds the dataset /entry/nothing; .*a.h5 has /entry/image"
    ):
        values.require_some()


def test_an_array_of_images_is_no_value(frames):
    with pytest.raises(InputError, match=r"/entry/image: float64 \(3, 2, 4, 4\): a number or word for each frame"):
        EventValues("/entry/image").value(frames, "//0")


def test_users_tables(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text("# by hand\nrun\tframe\tgroup\na\t0\ton\na\t2\toff\nb\t0\t\n")
    value = read_values(path, ["a", "b"])
    assert [value("a", frame, "f.h5", "//9") for frame in range(3)] == ["on", "", "off"]
    assert value("b", 0, "f.h5", "//0") == ""
    path.write_text("frame\tgroup\n3\ton\n")
    assert read_values(path, ["only"])("only", 3, "f", "") == "on"
    path.write_text("file\tevent\tgroup\nf.h5\t//1\ton\n")
    assert [read_values(path, ["a"])("a", i, "f.h5", f"//{i}") for i in range(2)] == ["", "on"]
    path.write_text("file\tgroup\nf.h5\ton\n")
    assert read_values(path, ["a"])("a", 5, "f.h5", "//5") == "on"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it has: nothing"),
        ("frame group\n0 on\n", "separated by tabs; it has: frame group"),
        ("run\tgroup\na\ton\n", r"columns frame \(and run\) or file \(and event\), and group are expected"),
        ("frame\tgroup\n0\ton\n", "the dataset has 2 runs: a column run beside frame is expected"),
        ("run\tframe\tgroup\na\tfirst\ton\n", "line 2: 3 cells with whole numbers"),
        ("run\tframe\tgroup\na\t1\n", "line 2: 3 cells"),
        ("run\tframe\tgroup\na\t1\ton\na\t1\toff\n", "line 3: a second group, 'off', for a 1"),
    ],
)
def test_users_tables_that_are_none(tmp_path, text, message):
    (tmp_path / "t.tsv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_values(tmp_path / "t.tsv", ["a", "b"])
