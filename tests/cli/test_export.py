"""`sfxflow export`: everything that it writes is read back; nearly empty data, bad input and a full disk."""

import json
import os
import warnings

import gemmi
import h5py
import numpy as np
import pytest

from sfxflow.cell import inverse_resolution, reciprocal_matrix
from sfxflow.cli import main
from sfxflow.io.hkl import read_hkl
from sfxflow.io.merged import ANOMALOUS, CRYSTALS, MERGED, write_merged
from sfxflow.io.table import ChunkWriter
from sfxflow.point_group import asymmetric, point_group
from sfxflow.reflections import TABLES
from sfxflow.symmetry import space_group

CELL = (79.1, 79.1, 37.9, 90.0, 90.0, 90.0)
CELL_FILE = """CrystFEL unit cell file version 1.0
lattice_type = tetragonal
centering = P
unique_axis = c
a = 79.1 A
b = 79.1 A
c = 37.9 A
al = 90 deg
be = 90 deg
ga = 90 deg
"""
FILES = {
    "--mtz": "merged.mtz",
    "--unmerged": "unmerged.mtz",
    "--hkl": "merged.hkl",
    "--half1": "half1.hkl",
    "--half2": "half2.hkl",
}


def chunk(path, n_crystals, n_observations=40, seed=0):
    """An integrated file; returns its reflections."""
    rng = np.random.default_rng(seed)

    def rows(table, n, **known):
        made = {}
        for column in TABLES[table]:
            values = [""] * n if column.dtype == "str" else np.zeros((n, *column.shape))
            made[column.name] = known.get(column.name, values)
        return made

    n = n_crystals * n_observations
    hkl = rng.integers(-12, 13, (n, 3)) + [0, 0, 40]
    reflections = rows(
        "reflections", n, crystal=np.repeat(np.arange(n_crystals), n_observations), h=hkl[:, 0], k=hkl[:, 1], l=hkl[:, 2],
        I=rng.normal(100, 30, n), sigI=np.full(n, 10.0), excitation_error=rng.normal(0, 4e-4, n),
        polarisation=rng.uniform(0.6, 1, n), fs=rng.uniform(0, 100, n), ss=rng.uniform(0, 100, n),
    )  # fmt: skip
    with h5py.File(path, "w") as handle:
        writer = ChunkWriter(handle, "{}", ["frames", "crystals", "reflections"])
        # every second frame is blank
        writer.append("frames", rows("frames", 2 * n_crystals, photon_energy=np.full(2 * n_crystals, 9500.0)))
        writer.append(
            "crystals",
            rows(
                "crystals",
                n_crystals,
                frame=2 * np.arange(n_crystals),
                cell=np.tile(CELL, (n_crystals, 1)),
                reciprocal=np.tile(reciprocal_matrix(CELL), (n_crystals, 1, 1)),
                profile_radius=np.full(n_crystals, 4e-4),
                mosaicity=np.full(n_crystals, 1e-3),
            ),
        )
        writer.append("reflections", reflections)
    return reflections


def merged(path, chunks, statuses, n=60, anomalous=False, curve=None, unrecorded=0, **attrs):
    """A merged file with n reflections, the last `unrecorded` with n = 0, and crystals of `statuses`, a list for each chunk."""
    rng = np.random.default_rng(1)
    group = space_group("P43212")
    asu, operations = gemmi.ReciprocalAsu(group), group.operations()
    candidates = [[h, k, l] for h in range(12) for k in range(12) for l in range(12)]
    hkl = np.array([o for o in candidates if asu.is_in(o) and not operations.is_systematically_absent(o)])[:n]
    columns = {}
    for column in MERGED + (ANOMALOUS if anomalous else ()):
        columns[column.name] = (
            rng.uniform(1, 9, len(hkl)).round() if column.dtype == "i4" else rng.normal(100, 10, len(hkl))
        )
    columns |= {name: hkl[:, i] for i, name in enumerate("hkl")}
    columns["I_half1"][:7], columns["n_half1"][:7] = np.nan, 0
    columns["n"][len(hkl) - unrecorded :] = 0
    number = np.concatenate([np.full(len(s), i) for i, s in enumerate(statuses)]) if statuses else np.empty(0)
    crystal = np.concatenate([np.arange(len(s)) for s in statuses]) if statuses else np.empty(0)
    crystals = {c.name: rng.uniform(0.5, 2.0, len(number)) for c in CRYSTALS}
    crystals |= {"chunk": number, "crystal": crystal, "status": [text for s in statuses for text in s]}
    provenance = {"program": "sfxflow 0", "settings": {"partiality": "empirical", "cycles": 8}}
    write_merged(
        path, columns, crystals, curve or {},
        {
            "provenance": json.dumps(provenance), "dataset": "lyso", "space_group": group.xhm(), "cell": CELL,
            "wavelength": 1.3051, "anomalous": anomalous, "integrated": [str(c) for c in chunks], **attrs,
        },
    )  # fmt: skip
    return columns, crystals


def export(tmp_path, chunks, *more, folder="out"):
    arguments = [part for option, name in FILES.items() for part in (option, str(tmp_path / folder / name))]
    given = ["--merged", str(tmp_path / "m.h5"), "--integrated", *map(str, chunks)]
    return main(["export", *given, *arguments, *more])


@pytest.fixture
def chunks(tmp_path):
    return [tmp_path / "a.integrated.h5", tmp_path / "b.integrated.h5"]


def test_merged_mtz_and_lists(tmp_path, chunks):
    for path in chunks:
        chunk(path, 2)
    columns, _ = merged(tmp_path / "m.h5", chunks, [["merged"] * 2] * 2)
    assert export(tmp_path, chunks) == 0
    mtz = gemmi.read_mtz_file(str(tmp_path / "out/merged.mtz"))
    assert [(c.label, c.type) for c in mtz.columns[3:]] == [("IMEAN", "J"), ("SIGIMEAN", "Q"), ("N", "I")]
    found = dict(zip(map(tuple, mtz.make_miller_array().tolist()), mtz.array[:, 3:].tolist(), strict=True))
    for row in range(60):
        hkl = tuple(int(columns[name][row]) for name in "hkl")
        expected = np.float32([columns["I"][row], columns["sigI"][row], columns["n"][row]])
        assert found[hkl] == expected.tolist()
    assert (mtz.spacegroup.hm, mtz.cell.parameters) == ("P 43 21 2", pytest.approx(CELL))
    assert mtz.datasets[1].dataset_name == "lyso"
    assert mtz.datasets[1].wavelength == pytest.approx(1.3051)
    history = "\n".join(mtz.history)
    assert "merged by sfxflow 0" in history
    assert '"cycles": 8' in history
    assert "a.integrated.h5: " in history
    asu = gemmi.ReciprocalAsu(mtz.spacegroup)
    assert all(asu.is_in(hkl) for hkl in mtz.make_miller_array().tolist())
    for name, suffix, n in (("merged", "", 60), ("half1", "_half1", 53), ("half2", "_half2", 60)):
        listed = read_hkl(tmp_path / f"out/{name}.hkl")
        assert listed.point_group == "4/mmm"
        assert len(listed.hkl) == n
        np.testing.assert_array_equal(asymmetric(listed.hkl, point_group("4/mmm")), listed.hkl)
        np.testing.assert_allclose(
            np.sort(listed.I), np.sort(columns[f"I{suffix}"][np.isfinite(columns[f"I{suffix}"])]), atol=0.006
        )
        assert json.loads(listed.notes[1])["inputs"][0]["name"] == str(tmp_path / "m.h5")


def test_reflections_never_well_recorded_are_in_the_mtz_and_in_no_list(tmp_path, chunks):
    for path in chunks:
        chunk(path, 2)
    columns, _ = merged(tmp_path / "m.h5", chunks, [["merged"] * 2] * 2, unrecorded=5)
    assert np.sum(columns["n"] == 0) == 5
    assert export(tmp_path, chunks) == 0
    mtz = gemmi.read_mtz_file(str(tmp_path / "out/merged.mtz"))
    assert np.sum(mtz.column_with_label("N").array == 0) == 5
    assert np.isfinite(mtz.column_with_label("IMEAN").array).all()
    written = read_hkl(tmp_path / "out/merged.hkl")
    assert len(written.hkl) == 55
    assert written.n.min() > 0


def test_half_lists_give_the_figures_of_the_merged_file(tmp_path, chunks):
    """What other programs get tells them what we tell."""
    merged(tmp_path / "m.h5", [], [])
    assert export(tmp_path, []) == 0
    (tmp_path / "a.cell").write_text(CELL_FILE)
    lists = [
        part for option in ("--hkl", "--half1", "--half2") for part in (option, str(tmp_path / "out" / FILES[option]))
    ]
    for name, given in (
        ("one", ["--merged", str(tmp_path / "m.h5")]),
        ("two", [*lists, "--cell", str(tmp_path / "a.cell")]),
    ):
        out = ["--json", str(tmp_path / f"{name}.json"), "--tsv", str(tmp_path / f"{name}.tsv")]
        assert main(["figures_of_merit", *given, "--settings", '{"n_shells": 2}', *out]) == 0
    one, two = (json.loads((tmp_path / f"{name}.json").read_text())["overall"] for name in ("one", "two"))
    for name in ("n_reflections", "n_pairs", "r_split", "cc_half", "mean_i", "l_test_mean_abs"):
        assert two[name] == pytest.approx(one[name], rel=2e-3), name


def test_anomalous_columns(tmp_path, chunks):
    columns, _ = merged(tmp_path / "m.h5", [], [], anomalous=True)
    assert export(tmp_path, []) == 0
    mtz = gemmi.read_mtz_file(str(tmp_path / "out/merged.mtz"))
    labels = ["IMEAN", "SIGIMEAN", "I(+)", "SIGI(+)", "I(-)", "SIGI(-)", "N"]
    assert [c.label for c in mtz.columns[3:]] == labels
    assert "".join(c.type for c in mtz.columns[3:]) == "JQKMKMI"
    np.testing.assert_allclose(np.sort(mtz.column_with_label("I(-)").array), np.sort(columns["I_minus"]).astype("f4"))


def test_free_flags_are_a_fraction_and_stay_when_reflections_are_added(tmp_path):
    flags = []
    for n in (100, 400):
        merged(tmp_path / "m.h5", [], [], n=n)
        assert export(tmp_path, [], "--settings", '{"free_fraction": 0.1}') == 0
        mtz = gemmi.read_mtz_file(str(tmp_path / "out/merged.mtz"))
        column = mtz.column_with_label("FreeR_flag")
        assert column.type == "I"
        flags.append(dict(zip(map(tuple, mtz.make_miller_array().tolist()), column.array.tolist(), strict=True)))
    assert flags[0].items() <= flags[1].items()
    values = list(flags[1].values())
    assert set(values) <= set(range(10))
    # 10 % of 400: three standard deviations of a binomial are 18
    assert abs(values.count(0) - 0.1 * len(values)) < 18


def test_unmerged_observations_are_scaled_as_merging_does(tmp_path, chunks):
    seen = [chunk(path, 3, seed=i) for i, path in enumerate(chunks)]
    curve = {"x": np.linspace(0, 4, 65), "q": np.linspace(0.05, 1.5, 30)}
    curve["partiality"] = np.tile(np.exp(-(curve["x"] ** 2) / 2), (30, 1))
    statuses = [["merged", "too few observations", "merged"], ["merged"] * 3]
    _, crystals = merged(tmp_path / "m.h5", chunks, statuses, curve=curve | {"reference_width": 4e-4})
    assert export(tmp_path, chunks) == 0
    mtz = gemmi.read_mtz_file(str(tmp_path / "out/unmerged.mtz"))
    assert [b.number for b in mtz.batches] == [1, 3, 4, 5, 6]
    assert mtz.batches[1].title.endswith("a.integrated.h5 crystal 2")
    assert mtz.switch_to_original_hkl()
    rows = mtz.array
    labels = {label: i for i, label in enumerate(mtz.column_labels())}
    start = 0
    for number, status in enumerate(crystals["status"]):
        table = {
            name: np.asarray(values)[(number % 3) * 40 : (number % 3 + 1) * 40]
            for name, values in seen[number // 3].items()
        }
        if status != "merged":
            continue
        own = rows[start : start + 40]
        start += 40
        assert np.all(own[:, labels["BATCH"]] == number + 1)
        hkl = np.column_stack([table[name] for name in "hkl"])
        np.testing.assert_array_equal(own[:, :3], hkl)
        q = inverse_resolution(hkl, CELL)
        g, b, width = (crystals[name][number] for name in ("scale", "B", "width"))
        model = table["polarisation"] * g * np.exp(-2 * b * (q / 2) ** 2)
        np.testing.assert_allclose(own[:, labels["I"]], table["I"] / model, rtol=1e-5)
        np.testing.assert_allclose(own[:, labels["SIGI"]], table["sigI"] / model, rtol=1e-5)
        np.testing.assert_allclose(own[:, labels["SCALEUSED"]], 1 / model, rtol=1e-5)
        sigma_q = width * np.sqrt(4e-4**2 + (1e-3 * q) ** 2)
        expected = 4e-4 / sigma_q * np.exp(-((table["excitation_error"] / sigma_q) ** 2) / 2)
        far = np.abs(table["excitation_error"]) > 4 * sigma_q
        np.testing.assert_allclose(own[:, labels["FRACTIONCALC"]], np.where(far, 0, expected), atol=1e-3)
        np.testing.assert_allclose(own[:, labels["XDET"]], table["fs"], rtol=1e-6)
    assert start == len(rows)


def test_merging_the_unmerged_file_gives_the_merged_one(tmp_path, chunks):
    """Scale, B factor, width, tilt and curve are applied as the merger does: here with the real merger and little noise."""
    chunk(chunks[0], 60, 300, seed=3)
    rng = np.random.default_rng(7)
    with h5py.File(chunks[0], "a") as handle:
        group = handle["reflections"]
        hkl = np.column_stack([group[name][()] for name in "hkl"]) - [0, 0, 35]
        group["l"][()] = hkl[:, 2]
        unique, inverse = np.unique(asymmetric(hkl, point_group("4/mmm")), axis=0, return_inverse=True)
        truth = rng.exponential(1000, len(unique))[inverse.reshape(-1)]
        q = inverse_resolution(hkl, CELL)
        sigma_q = np.sqrt(4e-4**2 + (1e-3 * q) ** 2)
        x = rng.uniform(-3, 3, len(q))
        full = truth * np.repeat(rng.lognormal(0, 0.4, 60), 300) * np.exp(-(x**2) / 2) * 4e-4 / sigma_q
        group["excitation_error"][()] = x * sigma_q
        group["I"][()] = full * group["polarisation"][()] + rng.normal(0, 1, len(q))
        group["sigI"][()] = 1.0 + 0.01 * full
    (tmp_path / "a.cell").write_text(CELL_FILE)
    arguments = ["--dataset", "lyso", "--cell", str(tmp_path / "a.cell"), "--space-group", "P43212"]
    assert main(["merging", "--integrated", str(chunks[0]), *arguments, "--output", str(tmp_path / "m.h5")]) == 0
    assert export(tmp_path, chunks[:1]) == 0
    merged_mtz, unmerged = (
        gemmi.read_mtz_file(str(tmp_path / "out" / name)) for name in ("merged.mtz", "unmerged.mtz")
    )
    mean = dict(zip(map(tuple, merged_mtz.make_miller_array().tolist()), merged_mtz.array[:, 3].tolist(), strict=True))
    column = {c.label: c.array for c in unmerged.columns}
    above, below = {}, {}
    for index, value, part in zip(
        map(tuple, unmerged.make_miller_array().tolist()), column["I"], column["FRACTIONCALC"], strict=True
    ):
        above[index] = above.get(index, 0.0) + value * part
        below[index] = below.get(index, 0.0) + part**2
    ours = np.array([above[index] / below[index] for index in mean])
    theirs = np.array(list(mean.values()))
    strong = theirs > 300
    assert np.count_nonzero(strong) > 200
    # the merger's weights are others, the model is the same
    assert np.median(ours[strong] / theirs[strong]) == pytest.approx(1.0, abs=0.01)
    assert np.median(np.abs(ours[strong] / theirs[strong] - 1.0)) < 0.01


@pytest.mark.parametrize("attrs", [{}, {"partiality_model": "unity"}])
def test_no_curve_no_partiality(tmp_path, chunks, attrs):
    chunk(chunks[0], 1)
    curve = {"x": np.arange(3.0), "q": np.ones(1), "partiality": np.full((1, 3), 0.5)} if attrs else {}
    merged(tmp_path / "m.h5", chunks[:1], [["merged"]], curve=curve, **attrs)
    assert export(tmp_path, chunks[:1]) == 0
    mtz = gemmi.read_mtz_file(str(tmp_path / "out/unmerged.mtz"))
    assert (mtz.column_with_label("FRACTIONCALC").array == 1).all()


@pytest.mark.parametrize(("n_crystals", "n"), [(0, 0), (1, 0), (1, 1), (1, 3)])
def test_nearly_empty_data_give_valid_files(tmp_path, chunks, n_crystals, n):
    chunk(chunks[0], n_crystals, n_observations=3)
    status = "merged" if n else "too few observations"
    merged(tmp_path / "m.h5", chunks[:1], [[status] * n_crystals], n=n, wavelength=1.3 if n_crystals else np.nan)
    assert export(tmp_path, chunks[:1], "--settings", '{"free_fraction": 0.05}') == 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rs = pytest.importorskip(
            "reciprocalspaceship", reason="reciprocalspaceship is not installed", exc_type=Exception
        )
    for name in ("merged.mtz", "unmerged.mtz"):
        path = str(tmp_path / "out" / name)
        mtz = gemmi.read_mtz_file(path)
        assert len(rs.read_mtz(path)) == mtz.nreflections > 0
        assert np.isfinite(mtz.array).any(axis=0)[3:].any() or not n
        assert len(mtz.batches) == (name == "unmerged.mtz")
    for name in ("merged.hkl", "half1.hkl", "half2.hkl"):
        assert len(read_hkl(tmp_path / "out" / name).hkl) <= n


def test_chunk_files_that_moved_together_are_found(tmp_path, chunks):
    for path in chunks:
        chunk(path, 1)
    merged(tmp_path / "m.h5", [f"elsewhere/{path.name}" for path in chunks], [["merged"], ["merged"]])
    assert export(tmp_path, chunks) == 0


def failing(capsys, tmp_path, *arguments):
    assert export(tmp_path, *arguments) == 1
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error


def test_bad_input_is_told_and_leaves_no_unmerged_file(capsys, tmp_path, chunks):
    for path in chunks:
        chunk(path, 2)
    merged(tmp_path / "m.h5", chunks, [["merged"] * 2, ["merged"] * 3])
    assert "1 files were given" in failing(capsys, tmp_path, chunks[:1])
    assert "b.integrated.h5: holds 2 crystals, the merged file counts on more" in failing(capsys, tmp_path, chunks)
    chunks[1].write_bytes(chunks[1].read_bytes()[:5000])
    assert "b.integrated.h5: can't be opened as HDF5" in failing(capsys, tmp_path, chunks)
    with h5py.File(chunks[1], "w") as handle:
        ChunkWriter(handle, "{}", ["frames"])
    assert "b.integrated.h5: incomplete or damaged" in failing(capsys, tmp_path, chunks)
    chunks[1].unlink()
    assert "b.integrated.h5" in failing(capsys, tmp_path, chunks)
    assert list((tmp_path / "out").iterdir()) == []
    assert "free_fraction: 0.9 is above 0.5" in failing(
        capsys, tmp_path, chunks, "--settings", '{"free_fraction": 0.9}'
    )
    (tmp_path / "m.h5").unlink()
    assert "m.h5: can't be opened" in failing(capsys, tmp_path, chunks)
    assert [path for path in tmp_path.rglob("*.part")] == []


@pytest.mark.parametrize("large", ["--mtz", "--unmerged", "--hkl"])
def test_full_disk_is_told_and_leaves_no_file(capsys, tmp_path, chunks, small_disk, large):
    chunk(chunks[0], 40, n_observations=200)
    merged(tmp_path / "m.h5", chunks[:1], [["merged"] * 40], n=5000)
    fill = {"--mtz": 40_000, "--unmerged": 0, "--hkl": 40_000}[large]
    (small_disk / "other").write_bytes(bytes(fill))
    assert export(tmp_path, chunks[:1], large, str(small_disk / "result")) == 1
    error = capsys.readouterr().err
    assert f"{small_disk / 'result'}: No space left on device" in error
    assert "Traceback" not in error
    assert os.listdir(small_disk) == ["other"]
