"""sfxflow ambiguity: chunk files in, the way to index of each crystal out, and what merging and export make of it."""

import re
import shutil
import time

import gemmi
import numpy as np
import pytest
from ambiguous_crystals import CASES, simulate
from chunk_files import remove, truncate, write_chunk

from sfxflow.ambiguity.operators import reindexed
from sfxflow.cell import Cell
from sfxflow.cli import main
from sfxflow.io.assignment import read_assignment
from sfxflow.io.cell_file import lattice_of, write_cell
from sfxflow.io.hkl import write_hkl
from sfxflow.io.merged import read_merged
from sfxflow.io.mtz import Header, write_merged_mtz
from sfxflow.point_group import asymmetric, order, point_group, point_group_name
from sfxflow.symmetry import reflection_key, space_group, to_asu


@pytest.fixture(scope="module")
def simulated():
    return simulate("P63", 120, 100, seed=31)


@pytest.fixture
def folder(tmp_path):
    write_case_cell(tmp_path / "it.cell", "P63")
    return tmp_path


def write_case_cell(path, case):
    cell, name, _ = CASES[case]
    write_cell(path, Cell(*cell, *lattice_of(space_group(name))), "{}")


def resolve(folder, files, *more, group="P63", output="assignment.h5"):
    """Exit status."""
    command = ["ambiguity", "--integrated", *files, "--cell", str(folder / "it.cell"), "--space-group", group]
    return main([*command, "--output", str(folder / output), *more])


def merge(folder, files, *more, output="merged.h5"):
    command = ["merging", "--integrated", *files, "--dataset", "it", "--cell", str(folder / "it.cell")]
    return main([*command, "--space-group", "P63", "--output", str(folder / output), *more])


def write_truth(path, simulated, hkl=None, name=None):
    """The true intensities as a reflection list; with other indices, or merged in another point group."""
    name = name or point_group_name(simulated.group)
    unique = asymmetric(simulated.hkl if hkl is None else hkl, point_group(name))
    _, first = np.unique(reflection_key(unique), return_index=True)
    rows = first[order(unique[first])]
    write_hkl(path, name, unique[rows], 1000 * simulated.intensity[rows], np.ones(len(rows)), np.ones(len(rows), int))
    return str(path)


def correlation_with_truth(folder, simulated, output="merged.h5"):
    merged, _, _, _ = read_merged(folder / output)
    keys = reflection_key(to_asu(np.stack([merged[name] for name in "hkl"], axis=1), simulated.group))
    truth = dict(zip(reflection_key(simulated.hkl).tolist(), simulated.intensity, strict=True))
    return np.corrcoef(merged["I"], [truth[key] for key in keys.tolist()])[0, 1]


def complains(capsys, message):
    said = capsys.readouterr().err
    assert said.startswith("sfxflow ")
    assert "Traceback" not in said
    assert re.search(message, said), said


def test_files_in_and_modes_out(folder, simulated, capsys):
    files = [
        write_chunk(folder / "a.h5", simulated, range(50)),
        write_chunk(folder / "none.h5", simulated, []),
        write_chunk(folder / "b.h5", simulated, range(50, 120)),
    ]
    assert resolve(folder, files, "--reference") == 0
    said = capsys.readouterr().out
    assert "P 63 in this cell: 2 ways to index: h,k,l; k,h,-l" in said
    assert "WARNING" not in said
    found = read_assignment(folder / "assignment.h5")
    assert found.crystals["chunk"].tolist() == [0] * 50 + [2] * 70
    assert found.crystals["crystal"].tolist() == [*range(50), *range(70)]
    assert simulated.right(found.operators, found.crystals["mode"]) == 1.0
    assert np.median(found.crystals["margin"]) > 20
    assert not found.crystals["left_out"].any()
    assert found.integrated == files
    assert list(found.attrs["operator_names"]) == ["h,k,l", "k,h,-l"]
    assert found.attrs["told_apart"]


def test_merged_as_assigned(folder, simulated, capsys):
    """Merged intensities agree with the truth (in the reference's indices), and not at all without the assignment."""
    files = [
        write_chunk(folder / "a.h5", simulated, range(60)),
        write_chunk(folder / "b.h5", simulated, range(60, 120)),
    ]
    # the truth in the other indices: all crystals have to be turned to it
    turned = reindexed(simulated.hkl, simulated.operators[1])
    reference = write_truth(folder / "truth.hkl", simulated, turned)
    assert resolve(folder, files, "--reference", reference) == 0
    assert "reference: correlation" in capsys.readouterr().out
    found = read_assignment(folder / "assignment.h5")
    assert np.mean(found.crystals["mode"] != simulated.mode) == 1.0
    assert merge(folder, files, "--assignment", str(folder / "assignment.h5")) == 0
    _, crystals, _, attrs = read_merged(folder / "merged.h5")
    simulated_turned = simulate("P63", 120, 100, seed=31)
    simulated_turned.hkl = to_asu(turned, simulated.group)
    good = correlation_with_truth(folder, simulated_turned)
    assert good > 0.9
    np.testing.assert_array_equal(crystals["mode"], found.crystals["mode"])
    assert attrs["ambiguity_reference_used"] == "global"
    assert merge(folder, files, output="plain.h5") == 0
    assert correlation_with_truth(folder, simulated_turned, "plain.h5") < 0.8 * good


def test_export_has_the_indices_that_were_merged(folder, simulated):
    files = [write_chunk(folder / "a.h5", simulated, range(60))]
    assert resolve(folder, files) == 0
    assert merge(folder, files, "--assignment", str(folder / "assignment.h5")) == 0
    outputs = {name: str(folder / name) for name in ("merged.mtz", "unmerged.mtz", "all.hkl", "half1.hkl", "half2.hkl")}
    options = zip(("--mtz", "--unmerged", "--hkl", "--half1", "--half2"), outputs.values(), strict=True)
    assert main(["export", "--merged", str(folder / "merged.h5"), "--integrated", *files, *sum(options, ())]) == 0
    unmerged = gemmi.read_mtz_file(outputs["unmerged.mtz"])
    unmerged.switch_to_original_hkl()
    hkl, batch = unmerged.make_miller_array(), np.array(unmerged.column_with_label("BATCH")).astype(int) - 1
    found = read_assignment(folder / "assignment.h5")
    for c in (0, 30, int(batch.max())):
        rows = simulated.reflections["crystal"] == c
        own = np.stack([simulated.reflections[letter][rows] for letter in "hkl"], axis=1)
        expected = own @ found.operators[found.crystals["mode"][c]]
        assert {tuple(map(int, row)) for row in hkl[batch == c]} == {tuple(map(int, row)) for row in expected}


def test_reference_tells_each_of_a_few_crystals(folder, capsys):
    few = simulate("P63", 12, 40, seed=32)
    files = [write_chunk(folder / "a.h5", few, range(12))]
    reference = write_truth(folder / "truth.hkl", few)
    assert resolve(folder, files, "--reference", reference, "--settings", '{"reference": "crystals"}') == 0
    found = read_assignment(folder / "assignment.h5")
    assert np.mean(found.crystals["mode"] == few.mode) > 0.9
    assert found.attrs["reference_used"] == "crystals"
    assert resolve(folder, files) == 0
    assert "WARNING: the crystals can't be told apart" in capsys.readouterr().out
    assert not read_assignment(folder / "assignment.h5").attrs["told_apart"]


def test_reference_of_another_crystal_is_not_used(folder, simulated, capsys):
    files = [write_chunk(folder / "a.h5", simulated, range(120))]
    other = write_truth(folder / "other.hkl", simulate("P63", 1, 10, seed=77))
    for used in ("global", "crystals"):
        assert resolve(folder, files, "--reference", other, "--settings", f'{{"reference": "{used}"}}') == 0
        assert "WARNING: the reference does not agree with the data in any way to index" in capsys.readouterr().out
        found = read_assignment(folder / "assignment.h5")
        assert found.attrs["reference_used"] == "none"
        assert "was not used" in found.attrs["remarks"]
        assert simulated.right(found.operators, found.crystals["mode"]) == 1.0


def test_reference_with_another_cell_or_too_much_symmetry_is_refused(folder, simulated, capsys):
    files = [write_chunk(folder / "a.h5", simulated, range(20))]
    path = folder / "reference.mtz"
    hkl = simulated.hkl[np.all(simulated.hkl >= 0, axis=1)]
    columns = [("IMEAN", "J", np.ones(len(hkl))), ("SIGIMEAN", "Q", np.ones(len(hkl)))]
    cell = (70.0, 70.0, 111.0, 90.0, 90.0, 120.0)
    write_merged_mtz(path, Header("t", "d", simulated.group, cell, 1.3, []), hkl, columns)
    assert resolve(folder, files, "--reference", str(path)) == 1
    complains(
        capsys, r"reference\.mtz: has the cell 70, 70, 111, .* but --cell says 62\.8, 62\.8, 111.* another crystal"
    )
    twinned = write_truth(folder / "twinned.hkl", simulated, name="6/mmm")
    assert resolve(folder, files, "--reference", twinned) == 1
    complains(capsys, r"twinned\.hkl: is merged in a symmetry that space group P 63 has not \(12 operations more\)")
    assert resolve(folder, files, "--reference", twinned, "--settings", '{"reference": "none"}') == 0
    assert not (folder / ".assignment.h5.part").exists()


def test_one_way_to_index_costs_nothing(tmp_path, capsys):
    write_case_cell(tmp_path / "it.cell", "P43212")
    one = simulate("P43212", 30, 60)
    files = [write_chunk(tmp_path / "a.h5", one, range(30))]
    start = time.process_time()
    assert resolve(tmp_path, files, group="P43212") == 0
    assert time.process_time() - start < 1.0
    assert "one way to index, nothing to resolve" in capsys.readouterr().out
    found = read_assignment(tmp_path / "assignment.h5")
    assert not found.crystals["mode"].any()
    assert not found.crystals["left_out"].any()
    assert len(found.operators) == 1


def test_left_as_they_are(folder, simulated, capsys):
    files = [write_chunk(folder / "a.h5", simulated, range(20))]
    assert resolve(folder, files, "--settings", '{"resolve": false}') == 0
    assert "WARNING: the ways to index were left as they are" in capsys.readouterr().out
    assert not read_assignment(folder / "assignment.h5").crystals["mode"].any()


def test_more_crystals_than_are_compared_with_each_other(folder, simulated, capsys):
    """The rest is compared with those, also through a reference's indices."""
    files = [
        write_chunk(folder / "a.h5", simulated, range(50)),
        write_chunk(folder / "b.h5", simulated, range(50, 120)),
    ]
    reference = write_truth(folder / "truth.hkl", simulated, reindexed(simulated.hkl, simulated.operators[1]))
    assert resolve(folder, files, "--reference", reference, "--settings", '{"max_crystals": 60}') == 0
    assert "60 of 120 crystals are compared with each other" in capsys.readouterr().out
    found = read_assignment(folder / "assignment.h5")
    assert np.mean(found.crystals["mode"] != simulated.mode) > 0.97


def test_uncertain_crystals_are_not_merged(folder, simulated):
    files = [write_chunk(folder / "a.h5", simulated, range(120))]
    assert resolve(folder, files, "--settings", '{"min_margin": 140.0}') == 0
    found = read_assignment(folder / "assignment.h5")
    left_out = found.crystals["left_out"]
    np.testing.assert_array_equal(left_out, found.crystals["margin"] < 140)
    assert 20 < left_out.sum() < 100
    assert merge(folder, files, "--assignment", str(folder / "assignment.h5")) == 0
    _, crystals, _, _ = read_merged(folder / "merged.h5")
    status = np.array(crystals["status"], object)
    np.testing.assert_array_equal(status == "way to index uncertain", left_out)
    assert np.all(np.asarray(crystals["n_observations"])[left_out] == 0)


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_crystals(folder, simulated, capsys, n):
    files = [write_chunk(folder / "a.h5", simulated, range(n))]
    assert resolve(folder, files) == 0
    assert f"WARNING: {n} crystals with usable observations" in capsys.readouterr().out
    assert len(read_assignment(folder / "assignment.h5").crystals["mode"]) == n


def test_all_crystals_identical(folder, simulated, capsys):
    files = [write_chunk(folder / "a.h5", simulated, [4] * 10)]
    assert resolve(folder, files) == 0
    assert "WARNING: all 10 crystals are identical" in capsys.readouterr().out
    assert not read_assignment(folder / "assignment.h5").crystals["mode"].any()


def test_intensities_that_are_not_numbers(folder, simulated):
    rng = np.random.default_rng(1)
    spoilt = simulated.reflections["I"].copy()
    spoilt[rng.random(len(spoilt)) < 0.1] = np.nan
    files = [write_chunk(folder / "a.h5", simulated, range(120), reflections={"I": spoilt})]
    assert resolve(folder, files) == 0
    found = read_assignment(folder / "assignment.h5")
    assert simulated.right(found.operators, found.crystals["mode"]) > 0.98
    assert found.attrs["n_unusable"] == np.isnan(spoilt).sum()
    files = [write_chunk(folder / "none.h5", simulated, range(120), reflections={"I": spoilt * np.nan})]
    assert resolve(folder, files) == 0
    assert "0 crystals with usable observations" in read_assignment(folder / "assignment.h5").attrs["remarks"]


def test_assignment_of_other_files(folder, simulated, capsys):
    files = [write_chunk(folder / "a.h5", simulated, range(20))]
    assert resolve(folder, files) == 0
    assignment = str(folder / "assignment.h5")
    other = write_chunk(folder / "b.h5", simulated, range(20))
    capsys.readouterr()
    assert merge(folder, [other], "--assignment", assignment) == 1
    complains(capsys, r"assignment\.h5: tells the ways to index of the crystals of 1 files \(.*a\.h5\), but 1 others")
    write_chunk(folder / "a.h5", simulated, range(21))
    assert merge(folder, files, "--assignment", assignment) == 1
    complains(capsys, r"assignment\.h5: has 20 crystals of .*a\.h5, which holds 21; make it again")
    assert merge(folder, files, "--assignment", files[0]) == 1
    complains(capsys, r"a\.h5: is not a file of ways to index")
    assert not (folder / "merged.h5").exists()


def test_files_may_move_together(folder, simulated):
    files = [write_chunk(folder / "a.h5", simulated, range(20))]
    assert resolve(folder, files) == 0
    (folder / "elsewhere").mkdir()
    moved = shutil.move(files[0], folder / "elsewhere/a.h5")
    assert merge(folder, [str(moved)], "--assignment", str(folder / "assignment.h5")) == 0


def not_hdf5(folder, simulated):
    (folder / "bad.h5").write_text("not HDF5")


def truncated(folder, simulated):
    write_chunk(folder / "bad.h5", simulated, range(60))
    truncate(folder / "bad.h5")


def without_a_column(folder, simulated):
    write_chunk(folder / "bad.h5", simulated, range(6))
    remove(folder / "bad.h5", "reflections/sigI")


def mixed(folder, simulated):
    n = int(np.sum(simulated.reflections["crystal"] < 3))
    write_chunk(folder / "bad.h5", simulated, range(3), reflections={"crystal": np.arange(n) % 3})


def peaks_only(folder, simulated):
    write_chunk(folder / "bad.h5", simulated, range(3))
    remove(folder / "bad.h5", "reflections")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (not_hdf5, r"bad\.h5: can't be opened as HDF5"),
        (truncated, r"bad\.h5"),
        (without_a_column, r"bad\.h5: incomplete or damaged"),
        (mixed, r"bad\.h5: reflections do not lie crystal after crystal"),
        (peaks_only, r"bad\.h5: has no reflections"),
    ],
)
def test_bad_files(folder, simulated, capsys, make, message):
    make(folder, simulated)
    assert resolve(folder, [str(folder / "bad.h5")]) == 1
    complains(capsys, message)
    assert not (folder / "assignment.h5").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--settings", '{"min_margn": 3}'), "ambiguity.min_margn: no such setting; did you mean min_margin"),
        (("--settings", '{"reference": "some"}'), "'some' is not one of global, crystals, none"),
        (("--settings", '{"max_crystals": 1}'), "ambiguity.max_crystals: 1 is below 2"),
        (("--reference", "none.mtz"), r"none\.mtz: can't be read as MTZ"),
        (("--reference", "none.hkl"), r"none\.hkl"),
    ],
)
def test_bad_options(folder, simulated, capsys, options, message):
    files = [write_chunk(folder / "a.h5", simulated, range(3))]
    assert resolve(folder, files, *options) == 1
    complains(capsys, message)
    assert not (folder / "assignment.h5").exists()


def test_index_out_of_range(folder, simulated, capsys):
    few = np.sum(simulated.reflections["crystal"] < 3)
    files = [write_chunk(folder / "a.h5", simulated, range(3), reflections={"h": np.full(few, 900)})]
    assert resolve(folder, files) == 1
    complains(capsys, "a Miller index beyond 511")


def test_full_disk(folder, simulated, small_disk, capsys):
    files = [write_chunk(folder / "a.h5", simulated, range(120))]
    (small_disk / "filled").write_bytes(bytes(60000))
    assert resolve(folder, files, output=str(small_disk / "assignment.h5")) == 1
    complains(capsys, "No space left on device")
    assert [path.name for path in small_disk.iterdir()] == ["filled"]
