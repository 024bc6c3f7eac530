"""MTZ files, read back by gemmi and reciprocalspaceship."""

import warnings

import gemmi
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfxflow.errors import InputError
from sfxflow.io import mtz as module
from sfxflow.io.mtz import AsuFinder, Batch, Header, read_intensities, write_merged_mtz, write_unmerged_mtz

CELL = (79.1, 79.1, 37.9, 90.0, 90.0, 90.0)


def header(group="P 43 21 2", cell=CELL):
    return Header("a title", "lyso", gemmi.SpaceGroup(group), cell, 1.305, ["first line", "second line"])


def blocks(sizes, seed=1):
    """Blocks of observations, and all of them together."""
    rng = np.random.default_rng(seed)
    made, batch = [], 1
    for size in sizes:
        columns = {label: rng.normal(50, 30, size) for label, _ in module.UNMERGED_COLUMNS if label != "M/ISYM"}
        columns["hkl"] = rng.integers(-30, 31, (size, 3))
        columns["BATCH"] = np.full(size, batch)
        made.append(([Batch(batch, f"crystal {batch}", CELL)], columns))
        batch += 2
    return made, {name: np.concatenate([c[name] for _, c in made]) for name in (made[0][1] if made else ())}


def test_merged_file_holds_what_was_given(tmp_path):
    hkl = np.array([[3, 1, 2], [1, 0, 1], [2, 1, 0]])
    columns = [("IMEAN", "J", [10.0, 20.0, 30.0]), ("SIGIMEAN", "Q", [1.0, 2.0, np.nan]), ("N", "I", [4, 5, 6])]
    write_merged_mtz(tmp_path / "m.mtz", header(), hkl, columns)
    mtz = gemmi.read_mtz_file(str(tmp_path / "m.mtz"))
    assert mtz.spacegroup.hm == "P 43 21 2"
    assert mtz.cell.parameters == pytest.approx(CELL)
    assert [c.label for c in mtz.columns] == ["H", "K", "L", "IMEAN", "SIGIMEAN", "N"]
    assert [c.type for c in mtz.columns] == ["H", "H", "H", "J", "Q", "I"]
    assert mtz.array[:, :3].tolist() == [[1, 0, 1], [2, 1, 0], [3, 1, 2]]
    assert mtz.array[:, 3].tolist() == [20, 30, 10]
    assert np.isnan(mtz.array[1, 4])
    assert mtz.history == ["first line", "second line"]
    assert mtz.title == "a title"
    assert [d.dataset_name for d in mtz.datasets] == ["HKL_base", "lyso"]
    assert [d.wavelength for d in mtz.datasets] == pytest.approx([1.305, 1.305])
    assert len(mtz.batches) == 0


@pytest.mark.parametrize("sizes", [[1], [5], [400, 1, 300], [50] * 20])
def test_unmerged_file_written_in_blocks_is_the_one_that_gemmi_writes_at_once(tmp_path, sizes):
    made, everything = blocks(sizes)
    write_unmerged_mtz(tmp_path / "u.mtz", header(), iter(made))
    mtz = gemmi.read_mtz_file(str(tmp_path / "u.mtz"))
    assert mtz.nreflections == sum(sizes)
    assert [b.number for b in mtz.batches] == [1 + 2 * i for i in range(len(sizes))]
    assert mtz.batches[0].title.endswith("crystal 1")
    assert mtz.batches[0].cell.parameters == pytest.approx(CELL)
    assert mtz.batches[0].wavelength == pytest.approx(1.305)
    for label, kind in module.UNMERGED_COLUMNS:
        column = mtz.column_with_label(label)
        assert column.type == kind
        if label != "M/ISYM":
            np.testing.assert_array_equal(column.array, everything[label].astype(np.float32))
    # the ranges in the header come from a few rows only: they have to be those of all
    at_once = gemmi.read_mtz_file(str(tmp_path / "u.mtz"))
    for batch in at_once.batches:
        batch.title = batch.title.removeprefix("TITLE ")  # gemmi reads the keyword as part of the title
    at_once.set_data(mtz.array.copy())
    at_once.write_to_file(str(tmp_path / "at_once.mtz"))
    assert (tmp_path / "at_once.mtz").read_bytes() == (tmp_path / "u.mtz").read_bytes()
    assert mtz.switch_to_original_hkl()
    np.testing.assert_array_equal(mtz.array[:, :3], everything["hkl"])


@given(
    st.sampled_from(["P 43 21 2", "P 1", "P -1", "C 1 2 1", "P 63", "P 31 2 1", "P 3 1 m", "R 3:H", "R 3 2:R", "I 2 3", "F 4 3 2", "P 1 1 21"]),
    st.lists(st.tuples(*[st.integers(-40, 40)] * 3), max_size=30),
)  # fmt: skip
def test_asymmetric_unit_and_isym_are_gemmi_s(name, hkl):
    group = gemmi.SpaceGroup(name)
    asu, operations = gemmi.ReciprocalAsu(group), group.operations()
    moved, isym = AsuFinder(group)(np.array(hkl, dtype=int).reshape(-1, 3))
    expected = [asu.to_asu(one, operations) for one in hkl]
    assert moved.tolist() == [one for one, _ in expected]
    assert isym.tolist() == [number for _, number in expected]


@pytest.mark.parametrize("group", ["P 43 21 2", "P 1", "C 1 2 1", "P 63", "F 4 3 2", "R 3:H", "I 41 2 2"])
def test_files_without_reflections_open(tmp_path, group):
    head = header(group, (60.0, 60.0, 60.0, 90, 90, 90))._replace(wavelength=float("nan"))
    write_merged_mtz(tmp_path / "m.mtz", head, np.empty((0, 3), int), [("IMEAN", "J", []), ("N", "I", [])])
    write_unmerged_mtz(tmp_path / "u.mtz", head, [])
    for name in ("m.mtz", "u.mtz"):
        mtz = gemmi.read_mtz_file(str(tmp_path / name))
        assert mtz.nreflections == 1
        assert np.isnan(mtz.column_with_label("IMEAN" if name == "m.mtz" else "I").array).all()
        assert mtz.history[0] == module.NO_REFLECTIONS
        hkl = mtz.make_miller_array()[0].tolist()
        assert not mtz.spacegroup.operations().is_systematically_absent(hkl)
        assert len(mtz.batches) == (name == "u.mtz")


def test_beyond_2_to_the_31_words_the_position_is_where_gemmi_looks_for_it():
    """Not written to disk: the first bytes of such a file."""
    mtz = module._empty(header(), module.UNMERGED_COLUMNS)
    n_rows = 2**31 // 12 + 1
    start, text = module._header_text(mtz, np.zeros((1, 12), np.float32), n_rows)
    assert np.frombuffer(start[4:8], "<i4")[0] == -1
    assert np.frombuffer(start[12:20], "<i8")[0] == 21 + 12 * n_rows
    assert f"NCOL {12:8d} {n_rows:12d} {0:8d}".encode() in text


def test_reciprocalspaceship_reads_both(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rs = pytest.importorskip(
            "reciprocalspaceship", reason="reciprocalspaceship is not installed", exc_type=Exception
        )
    made, everything = blocks([3000, 2000])
    write_unmerged_mtz(tmp_path / "u.mtz", header(), made)
    write_merged_mtz(tmp_path / "m.mtz", header(), [[1, 0, 1]], [("IMEAN", "J", [5.0]), ("SIGIMEAN", "Q", [1.0])])
    unmerged, merged = (rs.read_mtz(str(tmp_path / name)) for name in ("u.mtz", "m.mtz"))
    assert merged.merged
    assert merged.loc[(1, 0, 1), "IMEAN"] == 5.0
    assert not unmerged.merged
    np.testing.assert_allclose(np.sort(unmerged["I"].to_numpy()), np.sort(everything["I"].astype(np.float32)))
    assert merged.wavelength == pytest.approx(1.305)


def test_reference_columns_in_the_order_of_choice(tmp_path):
    hkl, path = [[1, 0, 1], [2, 1, 0]], tmp_path / "r.mtz"
    amplitude = [("FP", "F", [3.0, 4.0]), ("SIGFP", "Q", [0.5, 0.25])]
    pair = [
        ("I(+)", "K", [8.0, 5.0]),
        ("SIGI(+)", "M", [3.0, 1.0]),
        ("I(-)", "K", [12.0, np.nan]),
        ("SIGI(-)", "M", [4.0, np.nan]),
    ]
    mean = [("IOBS", "J", [7.0, np.nan]), ("SIGIOBS", "Q", [1.0, np.nan])]
    write_merged_mtz(path, header(), hkl, amplitude)
    found = read_intensities(path)
    assert found.columns == "FP squared"
    assert found.I.tolist() == [9.0, 16.0]
    assert found.sigI.tolist() == [3.0, 2.0]
    write_merged_mtz(path, header(), hkl, amplitude + pair)
    found = read_intensities(path)
    assert found.columns == "mean of I(+) and I(-)"
    assert found.I.tolist() == [10.0, 5.0]
    assert found.sigI.tolist() == [2.5, 1.0]
    write_merged_mtz(path, header(), hkl, amplitude + pair + mean)
    found = read_intensities(path)
    assert (found.columns, found.I.tolist(), found.hkl.tolist()) == ("IOBS", [7.0], [[1, 0, 1]])
    write_merged_mtz(path, header(), hkl, mean + [("IMEAN", "J", [1.0, 2.0])])
    found = read_intensities(path)
    assert (found.columns, found.sigI.tolist()) == ("IMEAN", [0.0, 0.0])


def test_references_that_are_none(tmp_path):
    path = tmp_path / "r.mtz"
    with pytest.raises(InputError, match=r"r\.mtz: can't be read as MTZ"):
        read_intensities(path)
    path.write_text("hello")
    with pytest.raises(InputError, match=r"r\.mtz: can't be read as MTZ"):
        read_intensities(path)
    write_merged_mtz(path, header(), [[1, 0, 1]], [("PHI", "P", [1.0])])
    with pytest.raises(InputError, match=r"r\.mtz: has no column of intensities .* it has H, K, L, PHI"):
        read_intensities(path)
    write_unmerged_mtz(path, header(), blocks([3])[0])
    with pytest.raises(InputError, match=r"r\.mtz: holds unmerged data"):
        read_intensities(path)
