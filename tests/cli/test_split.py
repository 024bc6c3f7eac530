"""Splitting a dataset: sfxflow split, and what merging, figures of merit, export, difference and report make of groups."""

import json
import shutil

import gemmi
import h5py
import numpy as np
import pytest
from chunk_files import write_chunk
from observation_simulator import simulate
from test_merging import CELL_FILE, merge

from sfxflow.cli import main
from sfxflow.groups import Groups
from sfxflow.io.hkl import read_hkl
from sfxflow.io.merged import read_groups, read_merged
from sfxflow.io.splits import ALL_EVENTS, read_split, write_split

GROUPS = Groups("/entry_1/laser_on", {"dark": 0, "light": 1}, "dark")


@pytest.fixture
def frames(demo, tmp_path):
    """The demo's frames with a laser that is on in every second frame, off in the others, and unknown in the last two."""
    path = tmp_path / "frames.h5"
    shutil.copy(demo.frames, path)
    with h5py.File(path, "a") as handle:
        laser = np.arange(20) % 2.0
        laser[18:] = np.nan
        handle["entry_1/laser_on"] = laser
    return str(path)


def split(demo, tmp_path, frames, by="/entry_1/laser_on", groups=None, **run):
    runs = [{"run": "r1", "frames": frames, "geometry": demo.geometry} | run]
    settings = {"by": by, "groups": groups or {"dark": 0, "light": 1}, "reference": "dark"}
    return main([
        "split", "--dataset", "demo", "--runs", json.dumps(runs), "--settings", json.dumps(settings),
        "--output", str(tmp_path / "split.tsv"),
    ])  # fmt: skip


def test_values_in_the_frame_files(demo, tmp_path, frames, capsys):
    assert split(demo, tmp_path, frames) == 0
    said = capsys.readouterr().out
    assert "demo: 20 frames by /entry_1/laser_on: dark: 9, light: 9" in said
    assert "WARNING: 2 of 20 frames belong to no group; /entry_1/laser_on is there missing (2)" in said
    found = read_split(tmp_path / "split.tsv")
    numbers, known = found.numbers([frames] * 20, [f"//{i}" for i in range(20)])
    assert numbers.tolist() == [0, 1] * 9 + [-1, -1]
    assert known.all()


def test_an_empty_group_is_told(demo, tmp_path, frames, capsys):
    assert split(demo, tmp_path, frames, groups={"dark": 0, "light": 1, "strong": 2}) == 0
    said = capsys.readouterr().out
    assert "WARNING: group strong of demo is empty: none of 20 frames has the value 2 in /entry_1/laser_on" in said
    assert read_split(tmp_path / "split.tsv").groups.names == ("dark", "light", "strong")


def test_column_of_the_runs(demo, tmp_path, frames, capsys):
    assert split(demo, tmp_path, frames, by="laser", groups={"dark": "off", "light": "on"}, value="on") == 0
    assert "demo: 1 files by laser: dark: 0, light: 1" in capsys.readouterr().out
    assert read_split(tmp_path / "split.tsv").numbers([frames] * 2, ["//0", "//19"])[0].tolist() == [1, 1]


def test_table_of_the_user(demo, tmp_path, frames):
    table = tmp_path / "mine.tsv"
    table.write_text("frame\tgroup\n3\t1\n4\t0\n")
    assert split(demo, tmp_path, frames, by=str(table)) == 0
    numbers, known = read_split(tmp_path / "split.tsv").numbers([frames] * 20, [f"//{i}" for i in range(20)])
    assert numbers.tolist() == [-1, -1, -1, 1, 0] + [-1] * 15
    assert known.all()
    text = (tmp_path / "split.tsv").read_text()
    assert str(table) in text.splitlines()[0], "the table is one of the inputs"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"by": "/entry_1/lazer"}, "none of 1 frame files holds the dataset /entry_1/lazer; "),
        ({"groups": {"dark": "off"}}, "no frame belongs to a group: /entry_1/laser_on has the values 0 (9), 1 (9), missing (2)"),
        ({"by": "none.tsv"}, "none.tsv: can't be read"),
        ({"frames": ""}, "--runs: r1: frames missing"),
        ({"frames": "nothing*.h5", "by": "laser"}, "nothing*.h5: no file matches"),
    ],
)  # fmt: skip
def test_what_can_not_be_split(demo, tmp_path, frames, change, message, capsys):
    assert split(demo, tmp_path, change.pop("frames", frames), **change) == 1
    said = capsys.readouterr().err
    assert message in said, said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "split.tsv").exists()


@pytest.mark.parametrize("option", ["--runs", "--settings"])
def test_json_that_is_none(option, tmp_path, capsys):
    values = {"--runs": "[]", "--settings": "{}"} | {option: "{off"}
    command = [part for pair in values.items() for part in pair]
    assert main(["split", "--dataset", "x", *command, "--output", str(tmp_path / "x.tsv")]) == 1
    assert "not JSON" in capsys.readouterr().err or option == "--runs"


# ---- groups after merging -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_states(tmp_path_factory):
    """90 crystals, the odd ones lit and in a state that differs by 40 %; merged with a group that nobody is in."""
    folder = tmp_path_factory.mktemp("states")
    (folder / "lyso.cell").write_text(CELL_FILE.format(a=79.1))
    simulated = simulate(90, seed=5, d_min=3.2, state_difference=0.4)
    chunk = write_chunk(folder / "all.h5", simulated, range(90))
    groups = Groups("/entry_1/laser_on", {"dark": 0, "light": 1, "strong": 2}, "dark")
    # the frame of crystal 7 is unknown to the table
    rows = [("r", i, "frames.h5", f"//{i}", i % 2) for i in range(91) if i != 7]
    write_split(folder / "groups.tsv", groups, rows, "{}")
    assert merge(folder, [chunk], "--groups", str(folder / "groups.tsv")) == 0
    return folder


def test_groups_in_the_merged_file(two_states):
    merged, _, more, _ = read_merged(two_states / "merged.h5")
    groups = read_groups(two_states / "merged.h5")
    assert (groups.by, groups.reference) == ("/entry_1/laser_on", "dark")
    assert list(groups.tables) == ["dark", "light", "strong"]
    assert groups.n_crystals == {"dark": 45, "light": 44, "strong": 0}
    assert more["crystal_group"].tolist() == [-1 if i == 7 else i % 2 for i in range(90)]
    assert len(groups.tables["strong"]["I"]) == 0
    assert 0 < groups.tables["dark"]["n"].sum() < merged["n"].sum()


def test_merging_tells_what_the_groups_hold(two_states, capsys):
    chunk = str(two_states / "all.h5")
    more = ["--groups", str(two_states / "groups.tsv")]
    assert merge(two_states, [chunk], *more, output="again.h5") == 0
    said = capsys.readouterr().out
    assert "group light: 44 crystals merged" in said
    assert "WARNING: 1 of 90 crystals are on frames that" in said
    assert "WARNING: 1 of 90 crystals belong to no group and are merged with the whole only" in said
    assert "WARNING: group strong of lyso is empty: none of 90 crystals has the value 2 in /entry_1/laser_on" in said
    assert "has 0 (46), 1 (44)" in said


def test_table_of_other_frames(two_states, tmp_path, capsys):
    write_split(tmp_path / "other.tsv", GROUPS, [("r", "*", "elsewhere.h5", ALL_EVENTS, 1)], "{}")
    assert (
        merge(two_states, [str(two_states / "all.h5")], "--groups", str(tmp_path / "other.tsv"), output="none.h5") == 1
    )
    assert "other.tsv: has none of the frames of 90 crystals" in capsys.readouterr().err
    assert not (two_states / "none.h5").exists()


def test_a_dataset_without_crystals_has_empty_groups(two_states, tmp_path):
    chunk = write_chunk(tmp_path / "none.h5", simulate(2, seed=1, d_min=6), [])
    more = ["--groups", str(two_states / "groups.tsv")]
    assert merge(two_states, [chunk], *more, output=str(tmp_path / "empty.h5")) == 0
    assert [len(t["I"]) for t in read_groups(tmp_path / "empty.h5").tables.values()] == [0, 0, 0]
    files = ["--mtz", str(tmp_path / "d.mtz"), "--json", str(tmp_path / "d.json")]
    assert (
        main(["difference", "--merged", str(tmp_path / "empty.h5"), "--group", "light", "--minus", "dark", *files]) == 0
    )
    assert json.loads((tmp_path / "d.json").read_text())["overall"]["n_reflections"] == 0


def figures(folder, group, output, *more):
    files = ["--json", str(output), "--tsv", str(output.with_suffix(".tsv"))]
    return main(["figures_of_merit", "--merged", str(folder / "merged.h5"), f"--group={group}", *files, *more])


def test_figures_of_a_group(two_states, tmp_path):
    assert figures(two_states, "light", tmp_path / "light.json") == 0
    found = json.loads((tmp_path / "light.json").read_text())
    table = read_groups(two_states / "merged.h5", "light").tables["light"]
    assert found["overall"]["n_measurements"] == table["n"].sum()
    assert (found["group"], found["split_by"], found["n_crystals"]) == ("light", "/entry_1/laser_on", 44)
    assert figures(two_states, "strong", tmp_path / "strong.json") == 0
    found = json.loads((tmp_path / "strong.json").read_text())
    assert found["overall"]["n_reflections"] == 0
    assert "There are no merged reflections" in found["remarks"][0]


def test_export_of_a_group(two_states, tmp_path):
    names = ("mtz", "hkl", "half1", "half2")
    command = ["export", "--merged", str(two_states / "merged.h5"), "--group=dark"]
    for name in names:
        command += [f"--{name}", str(tmp_path / name)]
    assert main(command) == 0
    table = read_groups(two_states / "merged.h5", "dark").tables["dark"]
    mtz = gemmi.read_mtz_file(str(tmp_path / "mtz"))
    assert "dark" in mtz.title
    # 32-bit numbers
    np.testing.assert_allclose(np.sort(mtz.column_with_label("IMEAN")), np.sort(table["I"]), rtol=1e-6)
    counts = [read_hkl(tmp_path / name).n.sum() for name in ("half1", "half2")]
    assert counts == [table["n_half1"].sum(), table["n_half2"].sum()]


def test_difference(two_states, tmp_path, capsys):
    files = ["--mtz", str(tmp_path / "d.mtz"), "--json", str(tmp_path / "d.json"), "--settings", '{"n_shells": 4}']
    assert (
        main(["difference", "--merged", str(two_states / "merged.h5"), "--group", "light", "--minus", "dark", *files])
        == 0
    )
    mtz = gemmi.read_mtz_file(str(tmp_path / "d.mtz"))
    assert [column.label for column in mtz.columns] == ["H", "K", "L", "DI", "SIGDI", "DF", "SIGDF", "W"]
    assert [column.type for column in mtz.columns][3:] == ["J", "Q", "F", "Q", "W"]
    groups = read_groups(two_states / "merged.h5")
    place = {hkl: i for i, hkl in enumerate(zip(*(groups.tables["dark"][name] for name in "hkl"), strict=True))}
    light = groups.tables["light"]
    expected = {
        hkl: light["I"][i] - groups.tables["dark"]["I"][place[hkl]]
        for i, hkl in enumerate(zip(*(light[name] for name in "hkl"), strict=True))
        if hkl in place
    }
    found = dict(zip(map(tuple, mtz.make_miller_array().tolist()), mtz.column_with_label("DI"), strict=True))
    assert found.keys() == expected.keys()
    assert [found[hkl] for hkl in expected] == pytest.approx(list(expected.values()), rel=1e-4, abs=1e-2)
    figures = json.loads((tmp_path / "d.json").read_text())
    assert (figures["group"], figures["minus"], figures["n_crystals"]) == ("light", "dark", [44, 45])
    assert len(figures["shells"]) == 4
    assert figures["overall"]["chi_squared"] > 1.5
    assert figures["definitions"].keys() == figures["overall"].keys() - {"d_max", "d_min"}
    assert "cc_difference" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["difference", "--group", "light", "--minus", "lihgt"], "has no group lihgt; its groups are dark, light, strong"),
        (["difference", "--group", "light", "--minus", "light"], "--group and --minus are both light"),
        (["figures_of_merit", "--group", "on", "--tsv", "t"], "has no group on; its groups are dark"),
    ],
)  # fmt: skip
def test_groups_that_are_not_there(two_states, tmp_path, command, message, capsys):
    more = ["--json", str(tmp_path / "j")] + (["--mtz", str(tmp_path / "m")] if command[0] == "difference" else [])
    assert main([*command, "--merged", str(two_states / "merged.h5"), *more]) == 1
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_merged_file_without_groups(two_states, tmp_path, capsys):
    assert (
        merge(two_states, [str(two_states / "all.h5")], "--settings", '{"cycles": 1}', output=str(tmp_path / "m.h5"))
        == 0
    )
    files = ["--json", str(tmp_path / "a"), "--tsv", str(tmp_path / "b")]
    assert main(["figures_of_merit", "--merged", str(tmp_path / "m.h5"), "--group", "dark", *files]) == 1
    assert "m.h5: holds no groups: the dataset was not split when it was merged" in capsys.readouterr().err


def test_unmerged_file_of_a_group_is_refused(two_states, tmp_path, capsys):
    command = ["export", "--merged", str(two_states / "merged.h5"), "--group=dark", "--unmerged", "u.mtz"]
    assert main([*command, "--mtz", "m", "--hkl", "h", "--half1", "a", "--half2", "b"]) == 1
    assert "--unmerged: the unmerged file is of the whole dataset" in capsys.readouterr().err


def test_report_on_groups(two_states, tmp_path, capsys):
    figures(two_states, "dark", tmp_path / "dark.json")
    figures(two_states, "light", tmp_path / "light.json")
    figures(two_states, "strong", tmp_path / "strong.json")
    merged = str(two_states / "merged.h5")
    files = ["--mtz", str(tmp_path / "d.mtz"), "--json", str(tmp_path / "d.json")]
    assert main(["difference", "--merged", merged, "--group", "light", "--minus", "dark", *files]) == 0
    capsys.readouterr()
    groups = [str(tmp_path / f"{name}.json") for name in ("dark", "light", "strong")]
    more = ["--groups", *groups, "--differences", str(tmp_path / "d.json")]
    page = tmp_path / "index.html"
    assert main(["report", "--merged", merged, *more, "--output", str(page)]) == 0
    text = page.read_text()
    for expected in ("Groups by /entry_1/laser_on", "light − dark", ">44<", "CC of half sets"):
        assert expected in text
    assert "Group strong (by /entry_1/laser_on) is empty" in capsys.readouterr().out
    assert main(["report", "--figures-of-merit", groups[0], "--groups", groups[1], "--output", str(page)]) == 1
    assert "is not of a group of the merged files that are given" in capsys.readouterr().err
