"""`sfxflow figures_of_merit`: the recorded tables of CrystFEL to the digit, other input, and bad input."""

import gzip
import json

import gemmi
import h5py
import numpy as np
import pytest

from sfxflow.cli import main
from sfxflow.io.hkl import write_hkl
from sfxflow.io.merged import CRYSTALS, MERGED, write_merged
from sfxflow.io.mtz import Header, write_merged_mtz
from sfxflow.point_group import is_centric, point_group, possible_reflections
from sfxflow.statistics.shells import reciprocal_metric

CELL = (40.0, 40.0, 60.0, 90.0, 90.0, 90.0)
CELL_FILE = """CrystFEL unit cell file version 1.0

lattice_type = tetragonal
centering = P
unique_axis = c
a = 40 A
b = 40 A
c = 60 A
al = 90 deg
be = 90 deg
ga = 90 deg
"""

#: Recorded table to the one that is written.
TABLES = {
    "check": "check", "CC": "CC", "CCstar": "CCstar", "Rsplit": "Rsplit", "truthCC": "reference_CC", "truthR1I": "reference_R1I",
}  # fmt: skip


@pytest.fixture
def out(tmp_path):
    return ["--json", str(tmp_path / "f.json"), "--tsv", str(tmp_path / "f.tsv")]


@pytest.fixture
def cell(tmp_path):
    path = tmp_path / "a.cell"
    path.write_text(CELL_FILE)
    return str(path)


def truth(seed=1, d_min=3.0, name="4/mmm"):
    hkl = possible_reflections(reciprocal_metric(CELL), (0, 1 / d_min), point_group(name), "P")
    return hkl, np.random.default_rng(seed).exponential(100, len(hkl)) + 50.0


def lists(tmp_path, n=None, name="4/mmm", noise=4.0):
    """Merged list and half sets on disk; the half sets have the first n reflections."""
    hkl, intensity = truth(name=name)
    rng = np.random.default_rng(5)
    for file in ("a.hkl", "a.hkl1", "a.hkl2"):
        rows = slice(None) if file == "a.hkl" else slice(0, n)
        measured = intensity + rng.normal(0, noise, len(intensity))
        write_hkl(
            tmp_path / file, name, hkl[rows], measured[rows], np.full(len(hkl), 4.0)[rows], np.full(len(hkl), 6)[rows]
        )
    return [
        argument
        for o, f in (("--hkl", "a.hkl"), ("--half1", "a.hkl1"), ("--half2", "a.hkl2"))
        for argument in (o, str(tmp_path / f))
    ]


def merged_file(path, n=None, anomalous=False, halves=False):
    hkl, intensity = truth()
    hkl, intensity = hkl[:n], intensity[:n]
    rng = np.random.default_rng(5)
    columns = {c.name: np.full(len(hkl), 4.0 if c.name.startswith("sigI") else 6) for c in MERGED}
    columns |= {"h": hkl[:, 0], "k": hkl[:, 1], "l": hkl[:, 2], "I": intensity}
    columns |= {f"I_half{i}": intensity + rng.normal(0, 4, len(hkl)) for i in (1, 2)}
    if anomalous:
        difference = rng.normal(0, 10, len(hkl))
        parts = ("", "_half1", "_half2") if halves else ("",)
        for part in parts:
            for sign, word in ((1, "plus"), (-1, "minus")):
                columns[f"I_{word}{part}"] = intensity + sign * difference + rng.normal(0, 1, len(hkl)) * (part != "")
                columns[f"sigI_{word}{part}"], columns[f"n_{word}{part}"] = np.full(len(hkl), 4.0), np.full(len(hkl), 3)
    crystals = {c.name: [] if c.dtype == "str" else np.empty(0) for c in CRYSTALS}
    attrs = {
        "provenance": "{}",
        "dataset": "d",
        "space_group": "P 43 21 2",
        "cell": CELL,
        "wavelength": 1.3,
        "integrated": [],
    }
    write_merged(path, columns, crystals, {}, attrs | {"anomalous": anomalous})
    return str(path)


def figures(tmp_path):
    return json.loads((tmp_path / "f.json").read_text())


@pytest.mark.parametrize("name", ["phns", "ph", "unity", "xsphere"])
def test_every_digit_of_the_recorded_tables(shared_data, tmp_path, out, name):
    """Byte for byte: values, numbers of reflections and of possible ones, limits and centres of the shells."""
    recorded = shared_data / "reference/crystfel"
    simulated = shared_data / "data/crystfel_sim"
    arguments = ["--hkl", recorded / f"{name}.hkl.gz", "--cell", simulated / "lyso.cell"]
    arguments += ["--half1", recorded / f"{name}.hkl1.gz", "--half2", recorded / f"{name}.hkl2.gz"]
    arguments += ["--reference", simulated / "truth_4mmm.hkl", "--point-group", "4/mmm", "--settings", '{"d_min": 2.3}']
    arguments += ["--crystfel-tables", tmp_path / "tables"]
    assert main(["figures_of_merit", *map(str, arguments), *out]) == 0
    for theirs, ours in TABLES.items():
        expected = (recorded / f"{name}.{theirs}.2.3.dat").read_text()
        assert (tmp_path / "tables" / f"{ours}.dat").read_text() == expected, theirs
    overall = figures(tmp_path)["overall"]
    # the overall figures that README.txt of the recorded tables states
    stated = {"phns": (67.1, 0.759), "ph": (59.1, 0.790), "unity": (60.4, 0.747), "xsphere": (9.6, 0.989)}[name]
    assert round(100 * overall["r_split"], 1) == stated[0]
    assert round(overall["reference_cc"], 3) == stated[1]
    if name == "xsphere":
        assert overall["n_pairs"] == 677
        assert round(100 * overall["completeness"], 1) == 63.0


def test_lists_and_merged_file_of_the_same_data_agree(tmp_path, out, cell):
    merged = merged_file(tmp_path / "m.h5")
    assert main(["figures_of_merit", "--merged", merged, *out]) == 0
    by_merged = figures(tmp_path)
    assert main(["figures_of_merit", *lists(tmp_path), "--cell", cell, *out]) == 0
    by_hand = figures(tmp_path)
    assert by_hand["point_group"] == by_merged["point_group"] == "4/mmm"
    for name in ("n_reflections", "n_possible", "completeness", "multiplicity", "n_pairs"):
        assert by_hand["overall"][name] == by_merged["overall"][name]
    for name in ("d_max", "d_min"):
        assert [s[name] for s in by_hand["shells"]] == [s[name] for s in by_merged["shells"]]


def test_table_and_json_say_the_same_and_carry_their_origin(tmp_path, out, cell, capsys):
    assert main(["figures_of_merit", *lists(tmp_path), "--cell", cell, "--settings", '{"n_shells": 5}', *out]) == 0
    assert "cc_half" in capsys.readouterr().out
    result = figures(tmp_path)
    first, head, *rows = (tmp_path / "f.tsv").read_text().splitlines()
    assert json.loads(first.removeprefix("# ")) == result["provenance"]
    assert result["provenance"]["settings"]["n_shells"] == 5
    assert len(result["provenance"]["inputs"]) == 4
    names = head.split("\t")
    assert [row.split("\t")[0] for row in rows] == ["1", "2", "3", "4", "5", "overall"]
    for row, expected in zip(rows, [*result["shells"], result["overall"]], strict=True):
        for name, text in list(zip(names, row.split("\t"), strict=True))[1:]:
            assert float(text) == pytest.approx(expected[name], rel=1e-6) if text else expected[name] is None
    assert set(result["definitions"]) | {"d_max", "d_min"} == set(result["overall"])
    assert all(entry["definition"] and entry["from"] for entry in result["definitions"].values())
    assert result["overall"]["r_split"] == pytest.approx(0.021, abs=0.005)
    assert result["overall"]["cc_half"] > 0.99
    assert result["overall"]["n_reflections"] == sum(shell["n_reflections"] for shell in result["shells"])


@pytest.mark.parametrize("kind", ["hkl", "hkl.gz", "mtz", "amplitudes"])
def test_reference_in_every_form(tmp_path, out, kind):
    hkl, intensity = truth()
    path = tmp_path / ("r.mtz" if kind == "amplitudes" else f"r.{kind}")
    header = Header("t", "d", gemmi.SpaceGroup("P 43 21 2"), CELL, 1.3, [])
    if kind.startswith("hkl"):
        write_hkl(tmp_path / "r.hkl", "4/mmm", hkl, intensity, np.ones(len(hkl)), np.ones(len(hkl), int))
        if kind == "hkl.gz":
            path.write_bytes(gzip.compress((tmp_path / "r.hkl").read_bytes()))
    elif kind == "mtz":
        write_merged_mtz(path, header, hkl, [("IMEAN", "J", intensity)])
    else:
        write_merged_mtz(path, header, hkl, [("F", "F", np.sqrt(intensity))])
    merged = merged_file(tmp_path / "m.h5")
    assert main(["figures_of_merit", "--merged", merged, "--reference", str(path), *out]) == 0
    result = figures(tmp_path)
    assert result["inputs"]["reference"] == str(path)
    assert result["overall"]["reference_cc"] > 0.9999
    assert result["overall"]["reference_r1_i"] < 1e-3
    assert result["overall"]["n_reference"] == len(hkl)


@pytest.mark.parametrize("anomalous", [False, True])
def test_reflections_never_well_recorded_are_not_judged(tmp_path, out, anomalous):
    """The first 50 are absent from one file and have n = 0 in the other: the figures are the same."""
    found = []
    for change in ("n", "left out"):
        merged_file(tmp_path / "m.h5", anomalous=anomalous, halves=anomalous)
        with h5py.File(tmp_path / "m.h5", "r+") as handle:
            group = handle["merged"]
            if change == "n":
                group["n"][:50] = 0
            else:
                for name in list(group):
                    kept = group[name][50:]
                    del group[name]
                    group[name] = kept
        assert main(["figures_of_merit", "--merged", str(tmp_path / "m.h5"), *out]) == 0
        found.append(figures(tmp_path))
    assert found[0]["overall"] == found[1]["overall"]
    assert found[0]["shells"] == found[1]["shells"]
    assert found[0]["overall"]["n_reflections"] == len(truth()[0]) - 50


def test_anomalous_figures(tmp_path, out):
    for halves in (True, False):
        merged = merged_file(tmp_path / "m.h5", anomalous=True, halves=halves)
        assert main(["figures_of_merit", "--merged", merged, *out]) == 0
        overall = figures(tmp_path)["overall"]
        hkl, _ = truth()
        assert overall["n_bijvoet_pairs"] == np.count_nonzero(~is_centric(hkl, point_group("422")))
        assert 0.08 < overall["r_ano"] < 0.12
        assert (overall["cc_ano"] is None) != halves
    assert main(["figures_of_merit", "--merged", merged_file(tmp_path / "m.h5"), *out]) == 0
    assert figures(tmp_path)["overall"]["r_ano"] is None


def test_anomalous_figures_of_lists(tmp_path, out, cell):
    arguments = [*lists(tmp_path, name="422"), "--cell", cell, "--crystfel-tables", str(tmp_path / "t")]
    assert main(["figures_of_merit", *arguments, *out]) == 0
    assert figures(tmp_path)["overall"]["cc_ano"] > 0.9
    assert (tmp_path / "t/CRDano.dat").exists()


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_common_reflections_give_null_and_a_remark(tmp_path, out, cell, n):
    assert (
        main(["figures_of_merit", *lists(tmp_path, n), "--cell", cell, "--crystfel-tables", str(tmp_path / "t"), *out])
        == 0
    )
    result = figures(tmp_path)
    assert result["overall"]["n_pairs"] == n
    assert result["shells"][-1]["cc_half"] is None
    assert result["overall"]["completeness"] > 0.9
    assert f"share {n} reflections" in result["remarks"][0]


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_nearly_empty_merged_file(tmp_path, out, n):
    merged = merged_file(tmp_path / "m.h5", n, anomalous=True, halves=True)
    reference = tmp_path / "r.hkl"
    write_hkl(reference, "4/mmm", *truth(), np.ones(len(truth()[0])), np.ones(len(truth()[0]), int))
    assert main(["figures_of_merit", "--merged", merged, "--reference", str(reference), *out]) == 0
    result = figures(tmp_path)
    assert result["overall"]["n_reflections"] == n
    assert len(result["shells"]) == 10
    assert bool(result["remarks"]) == (n < 3)


def test_half_sets_alone(tmp_path, out, cell):
    assert main(["figures_of_merit", *lists(tmp_path)[2:], "--cell", cell, *out]) == 0
    overall = figures(tmp_path)["overall"]
    assert overall["n_reflections"] is None
    assert overall["cc_half"] > 0.99


def failing(capsys, tmp_path, arguments, out):
    assert main(["figures_of_merit", *arguments, *out]) == 1
    assert not (tmp_path / "f.json").exists()
    assert not (tmp_path / "f.tsv").exists()
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error


@pytest.mark.parametrize("limits", [{"d_min": 30.0, "d_max": 2.0}, {"d_min": 3.0, "d_max": 3.0}])
def test_limits_the_wrong_way_round_name_both(capsys, tmp_path, out, limits):
    merged = merged_file(tmp_path / "m.h5")
    error = failing(capsys, tmp_path, ["--merged", merged, "--settings", json.dumps(limits)], out)
    assert f"d_min = {limits['d_min']}" in error
    assert f"d_max = {limits['d_max']}" in error


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"d_min": 0}, "d_min: 0.0 is not a resolution"),
        ({"d_min": -1}, "d_min: -1.0 is below 0"),
        ({"n_shells": 0}, "n_shells: 0 is below 1"),
        ({"n_shels": 5}, "did you mean n_shells?"),
    ],
)
def test_bad_settings(capsys, tmp_path, out, settings, message):
    merged = merged_file(tmp_path / "m.h5")
    assert message in failing(capsys, tmp_path, ["--merged", merged, "--settings", json.dumps(settings)], out)


def test_missing_and_contradicting_input(capsys, tmp_path, out, cell):
    arguments = lists(tmp_path)
    hkl, half1 = arguments[:2], arguments[2:4]
    for given, message in [
        ([], "nothing to judge: give --merged FILE"),
        ([*half1, "--cell", cell], "--half1 and --half2: both are needed"),
        (hkl, "--cell: reflection lists hold no unit cell"),
        ([*hkl, "--cell", str(tmp_path / "none.cell")], "none.cell"),
        ([*hkl, "--cell", cell, "--point-group", "5/mmm"], "'5/mmm' is not a point group"),
        ([*hkl, "--cell", cell, "--merged", str(tmp_path / "none.h5")], "none.h5: can't be opened"),
        (["--merged", merged_file(tmp_path / "m.h5"), "--reference", hkl[1] + "x"], "a.hklx: can't be read"),
        (
            ["--merged", merged_file(tmp_path / "m.h5"), "--reference", "nowhere.mtz"],
            "nowhere.mtz: can't be read as MTZ",
        ),
        ([*arguments[2:], "--cell", cell, "--reference", hkl[1]], "give --hkl as well"),
    ]:
        assert message in failing(capsys, tmp_path, given, out)


def test_lists_in_other_point_groups(capsys, tmp_path, out, cell):
    arguments = [*lists(tmp_path, name="4/m"), "--cell", cell]
    error = failing(capsys, tmp_path, [*arguments, "--point-group", "4/mmm"], out)
    assert "a.hkl: is not merged in point group 4/mmm: it holds both" in error
    text = (tmp_path / "a.hkl2").read_text()
    (tmp_path / "a.hkl2").write_text(text.replace("Symmetry: 4/m", "Symmetry: 4"))
    assert "a.hkl2: 4)" in failing(capsys, tmp_path, arguments, out)
    (tmp_path / "a.hkl2").write_text(text.replace("Symmetry: 4/m", "Symmetry: unknown"))
    assert "a.hkl2, line 2: 'unknown' is" in failing(
        capsys, tmp_path, ["--hkl", str(tmp_path / "a.hkl2"), "--cell", cell], out
    )
    merged = merged_file(tmp_path / "m.h5")
    error = failing(capsys, tmp_path, ["--merged", merged, "--reference", str(tmp_path / "a.hkl2")], out)
    assert "a.hkl2, line 2: 'unknown' is not a point group" in error


def reference_mtz(path, cell=CELL, group="P 43 21 2", intensities=None):
    hkl, intensity = truth()
    header = Header("t", "d", gemmi.SpaceGroup(group), cell, 1.0, [])
    values = intensity if intensities is None else intensities(intensity)
    write_merged_mtz(path, header, hkl, [("IMEAN", "J", values), ("SIGIMEAN", "Q", np.full(len(hkl), 4.0))])
    return str(path)


@pytest.mark.parametrize(
    ("reference", "remark"),
    [
        ({"cell": (40, 40, 66, 90, 90, 90)}, "The reference has the cell 40 40 66 90 90 90, the data have 40 40 60 90 90 90"),
        ({"cell": (40, 40, 60, 90, 90, 94)}, "The reference has the cell"),
        ({"group": "P 3 2 1", "cell": (40, 40, 60, 90, 90, 120)}, "merged in a point group that does not fit"),
        ({"intensities": lambda i: np.random.default_rng(9).permutation(i)}, "the reference is of another crystal, or indexed"),
    ],
)  # fmt: skip
def test_a_reference_of_another_crystal(tmp_path, out, capsys, reference, remark):
    path = reference_mtz(tmp_path / "r.mtz", **reference)
    assert main(["figures_of_merit", "--merged", merged_file(tmp_path / "m.h5"), "--reference", path, *out]) == 0
    assert any(remark in found for found in figures(tmp_path)["remarks"])
    assert f"WARNING: {figures(tmp_path)['remarks'][0]}" in capsys.readouterr().out


@pytest.mark.parametrize("group", ["P 43 21 2", "P 43"])
def test_a_reference_of_this_crystal_has_no_remark(tmp_path, out, group):
    path = reference_mtz(tmp_path / "r.mtz", cell=(40.3, 40.3, 60.5, 90, 90, 90), group=group)
    assert main(["figures_of_merit", "--merged", merged_file(tmp_path / "m.h5"), "--reference", path, *out]) == 0
    assert figures(tmp_path)["remarks"] == []
    assert figures(tmp_path)["overall"]["reference_cc"] > 0.99
