"""The mergers dials_scale and cctbx_xfel_merge with stand-ins for their programs: means, half sets, and what is said when one fails."""

import sys

import h5py
import numpy as np
import pytest
from dials_stand_ins import settings, write_stand_ins

from sfxflow.cli import main
from sfxflow.io.merged import read_merged
from sfxflow.io.table import open_chunk, read_rows
from sfxflow.merging.means import weighted_means
from sfxflow.merging.observations import ccp4_asymmetric_unit
from sfxflow.symmetry import space_group

#: Writes plain means as cctbx.xfel.merge's MTZ files, of what the .refl files hold; odd files are one half.
XFEL_MERGE = """#!{python}
import glob, os, re, sys
import numpy as np
from sfxflow.io.dials_files import read_expt, read_refl
from sfxflow.io.mtz import Header, write_merged_mtz
from sfxflow.merging.means import weighted_means
from sfxflow.merging.observations import ccp4_asymmetric_unit
from sfxflow.symmetry import space_group

print(" ".join(sys.argv[1:]))
if os.environ.get("STAND_IN") == "cctbx.xfel.merge nothing":
    sys.exit(0)
group = space_group("P43212")
parts = {{"all": [], "odd": [], "even": []}}
for path in sorted(glob.glob("*.refl")):
    columns, _ = read_refl(path)
    assert len(read_expt(path[:-5] + ".expt")[0]) == columns["id"].max() + 1
    hkl, _ = ccp4_asymmetric_unit(columns["miller_index"], group)
    rows = hkl, columns["intensity.sum.value"] * columns["lp"], np.sqrt(columns["intensity.sum.variance"]) * columns["lp"]
    parts["all"].append(rows)
    parts["odd" if int(re.findall("[0-9]", path)[-1]) % 2 else "even"].append(rows)
for name, tables in parts.items():
    hkl, mean, error, _ = weighted_means(*(np.concatenate([t[i] for t in tables]) for i in range(3)))
    header = Header("t", "d", group, (40, 40, 40, 90, 90, 90), 1.0, [])
    write_merged_mtz("iobs_" + name + ".mtz", header, hkl, [("IMEAN", "J", mean), ("SIGIMEAN", "Q", error)])
"""
#: Starts the program once, whatever number is asked for.
MPIRUN = '#!/bin/sh\n[ "$1" = -n ] && shift 2\nexec "$@"\n'


@pytest.fixture
def programs(tmp_path, monkeypatch):
    folder = write_stand_ins(tmp_path / "programs")
    for name, text in (("cctbx.xfel.merge", XFEL_MERGE.format(python=sys.executable)), ("mpirun", MPIRUN)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return folder


def merge(command, demo, output, *more, integrated=None):
    arguments = ["--integrated", integrated or demo.integrated, "--geometry", demo.geometry, "--dataset", "demo"]
    arguments += ["--cell", demo.cell, "--space-group", demo.group, "--output", output]
    return main([command, *map(str, arguments), *map(str, more)])


def observations(path):
    """(crystal, hkl in the asymmetric unit, corrected intensity, its sigma) of a chunk file."""
    with open_chunk(path) as handle:
        rows = read_rows(handle["reflections"])
    hkl, _ = ccp4_asymmetric_unit(np.column_stack([rows[name] for name in "hkl"]), space_group("P43212"))
    corrected = rows["I"] / rows["polarisation"].astype(float)
    return rows["crystal"].astype(int), hkl, corrected, rows["sigI"] / rows["polarisation"].astype(float)


def slow_means(hkl, intensity, sigma):
    sums = {}
    for index, i, s in zip(hkl.tolist(), intensity, sigma, strict=True):
        total = sums.setdefault(tuple(index), [0.0, 0.0, 0])
        total[0] += i / s**2
        total[1] += 1 / s**2
        total[2] += 1
    return {index: (a / b, b**-0.5, n) for index, (a, b, n) in sums.items()}


def compare(table, expected, part=""):
    found = {
        tuple(index): values
        for *index, i, s, n in zip(
            *(table[c] for c in ("h", "k", "l", f"I{part}", f"sigI{part}", f"n{part}")), strict=True
        )
        if n > 0
        for values in [(i, s, n)]
    }
    for index, values in found.items():
        assert values == pytest.approx(expected[index], rel=1e-4), index
    return found


def test_weighted_means():
    rng = np.random.default_rng(3)
    hkl = rng.integers(0, 3, (60, 3))
    intensity, sigma = rng.normal(10, 5, 60), rng.uniform(0.5, 2, 60)
    unique, mean, error, count = weighted_means(hkl, intensity, sigma)
    expected = slow_means(hkl, intensity, sigma)
    assert len(unique) == len(expected)
    for index, *values in zip(unique.tolist(), mean, error, count, strict=True):
        assert tuple(values) == pytest.approx(expected[tuple(index)])


def test_scaled_observations_are_averaged_by_crystals(demo, programs, tmp_path, capfd):
    """The stand-in scales everything by 2 and rejects every tenth observation."""
    chosen = settings(dials_scale={"partiality": False, "min_measurements": 1})
    assert merge("dials_scale", demo, tmp_path / "m.h5", "--settings", chosen) == 0
    crystal, hkl, intensity, sigma = observations(demo.integrated)
    kept = np.arange(len(crystal)) % 10 != 9
    merged, crystals, _, attrs = read_merged(tmp_path / "m.h5")
    assert "DIALS 3.12 dials.scale" in attrs["program"]
    np.testing.assert_allclose(crystals["scale"], 2.0)
    np.testing.assert_array_equal(crystals["n_observations"], np.bincount(crystal[kept]))
    for part, chosen in (("", kept), ("_half1", kept & (crystal % 2 == 0)), ("_half2", kept & (crystal % 2 == 1))):
        expected = slow_means(hkl[chosen], intensity[chosen] / 2, sigma[chosen] / 2)
        found = compare(merged, expected, part)
        assert len(found) > 0.9 * len(expected)
    assert f"{len(crystals['scale'])} of {len(crystals['scale'])} crystals merged" in capfd.readouterr().out


def test_partiality_is_divided_by(demo, programs, tmp_path):
    both = {}
    for partiality in (True, False):
        path = tmp_path / f"{partiality}.h5"
        assert merge("dials_scale", demo, path, "--settings", settings(dials_scale={"partiality": partiality})) == 0
        both[partiality] = read_merged(path)
    assert [both[p][3]["partiality_model"] for p in (True, False)] == ["gaussian", "unity"]
    positive = both[False][0]["I"] > 0
    assert np.median(both[True][0]["I"][positive] / both[False][0]["I"][positive]) > 1.05


def test_friedel_mates_apart(demo, programs, tmp_path):
    """Against means of the mates that are sought one by one; `mate` is of `ccp4_asymmetric_unit`, which the command does not average by."""
    chosen = settings(dials_scale={"partiality": False, "min_measurements": 1}, merging={"anomalous": True})
    assert merge("dials_scale", demo, tmp_path / "m.h5", "--settings", chosen) == 0
    with open_chunk(demo.integrated) as handle:
        rows = read_rows(handle["reflections"])
    given = np.column_stack([rows[name] for name in "hkl"])
    mate = ccp4_asymmetric_unit(given, space_group("P43212"))[1]
    crystal, hkl, intensity, sigma = observations(demo.integrated)
    kept = np.arange(len(crystal)) % 10 != 9
    merged, _, _, attrs = read_merged(tmp_path / "m.h5")
    assert attrs["anomalous"]
    assert "anomalous=True" in attrs["options"]
    for part, half in (("", kept), ("_half1", kept & (crystal % 2 == 0))):
        for sign, wanted in (("plus", ~mate), ("minus", mate)):
            of_sign = half & wanted
            expected = slow_means(hkl[of_sign], intensity[of_sign] / 2, sigma[of_sign] / 2)
            assert len(compare(merged, expected, f"_{sign}{part}")) > 0.9 * len(expected) > 50


def test_cctbx_xfel_merge(demo, programs, tmp_path, capfd):
    assert merge("cctbx_xfel_merge", demo, tmp_path / "m.h5", "--d-min", 3, "--tasks", 2) == 0
    crystal, hkl, intensity, sigma = observations(demo.integrated)
    merged, crystals, _, attrs = read_merged(tmp_path / "m.h5")
    assert "scaling.algorithm=mark1" in attrs["options"]
    for part, chosen in (("", crystal >= 0), ("_half1", crystal % 2 == 1), ("_half2", crystal % 2 == 0)):
        expected = slow_means(hkl[chosen], intensity[chosen], sigma[chosen])
        # The number of observations in a half is not known to the MTZ: n is that of all.
        everything = slow_means(hkl, intensity, sigma)
        compare(merged, {index: (*values[:2], everything[index][2]) for index, values in expected.items()}, part)
    assert len(merged["I"]) > 100
    assert set(crystals["status"]) == {"merged"}
    assert "Friedel" not in capfd.readouterr().err
    anomalous = settings(merging={"anomalous": True})
    assert merge("cctbx_xfel_merge", demo, tmp_path / "m.h5", "--d-min", 3, "--settings", anomalous) == 0
    assert "WARNING: demo: cctbx_xfel_merge merges Friedel mates" in capfd.readouterr().err


def test_cctbx_xfel_merge_with_a_reference(demo, programs, tmp_path):
    reference = demo.folder / "truth.hkl"
    assert merge("cctbx_xfel_merge", demo, tmp_path / "m.h5", "--d-min", 3, "--reference", reference) == 0
    options = read_merged(tmp_path / "m.h5")[3]["options"]
    assert "scaling.algorithm=mark0 scaling.model=reference.mtz" in options
    assert "postrefinement.enable=True" in options


def test_no_crystal(demo, programs, tmp_path, capfd):
    empty = tmp_path / "empty.h5"
    with h5py.File(demo.integrated) as source, h5py.File(empty, "w") as target:
        target.attrs.update(source.attrs)
        source.copy("frames", target)
        for table in ("crystals", "reflections"):
            for name, dataset in source[table].items():
                target.create_dataset(f"{table}/{name}", data=dataset[:0])
    for command in ("dials_scale", "cctbx_xfel_merge"):
        assert merge(command, demo, tmp_path / "m.h5", integrated=empty) == 0
        assert "0 of 0 crystals merged: 0 reflections" in capfd.readouterr().out
        assert len(read_merged(tmp_path / "m.h5")[0]["I"]) == 0


def refused(capfd, call):
    assert call == 1
    text = capfd.readouterr().err
    assert "Traceback" not in text
    return text


def test_programs_that_do_nothing(demo, programs, tmp_path, monkeypatch, capfd):
    for command, name, file in (
        ("dials_scale", "dials.scale", "scaled.expt"),
        ("cctbx_xfel_merge", "cctbx.xfel.merge", "iobs_all.mtz"),
    ):
        monkeypatch.setenv("STAND_IN", f"{name} nothing")
        text = refused(capfd, merge(command, demo, tmp_path / "m.h5", "--d-min", 3))
        assert f"and wrote no {file}" in text
        assert not (tmp_path / "m.h5").exists()


def test_programs_that_are_missing(demo, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("PATH", str(tmp_path))
    text = refused(capfd, merge("dials_scale", demo, tmp_path / "m.h5"))
    assert "dials.version: no such program on PATH; it is part of DIALS" in text
    text = refused(capfd, merge("cctbx_xfel_merge", demo, tmp_path / "m.h5"))
    assert "cctbx.xfel.merge: no such program on PATH; it is part of cctbx.xfel" in text
    (tmp_path / "cctbx.xfel.merge").write_text("#!/bin/sh\n")
    (tmp_path / "cctbx.xfel.merge").chmod(0o755)
    text = refused(capfd, merge("cctbx_xfel_merge", demo, tmp_path / "m.h5", "--mpi", "srun --mpi=pmix"))
    assert "srun: no such program on PATH, which starts the processes" in text


def test_what_cctbx_xfel_merge_needs(demo, programs, tmp_path, capfd):
    text = refused(capfd, merge("cctbx_xfel_merge", demo, tmp_path / "m.h5"))
    assert "cctbx.xfel.merge needs the highest resolution: set datasets.NAME.d_min" in text


def test_settings_that_cannot_be_meant(demo, programs, tmp_path, capfd):
    text = refused(
        capfd, merge("dials_scale", demo, tmp_path / "m.h5", "--settings", settings(dials_scale={"extra": "model"}))
    )
    assert "dials_scale.extra: 'model' is not of the form name=value" in text
    text = refused(capfd, merge("dials_scale", demo, tmp_path / "m.h5", "--d-min", -1))
    assert "--d-min -1.0: a resolution in angstrom above 0 is expected" in text
    text = refused(capfd, merge("dials_scale", demo, tmp_path / "m.h5", "--settings", settings(dials={})))
    assert "dials: no such section" in text
