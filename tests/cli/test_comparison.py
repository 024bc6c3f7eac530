"""`sfxflow comparison`: paths tell engines and mergers apart, costs are read where they lie, the report shows it."""

import csv
import json
import shutil

import h5py
import numpy as np
import pytest

from sfxflow.cli import main
from sfxflow.io.job_costs import cost_line

MERGED = "results/{}/merged/{}/demo/merged.h5"


@pytest.fixture(scope="module")
def made(demo, tmp_path_factory):
    """The demo's merged file as engine builtin and merger builtin, and two of fewer reflections."""
    folder = tmp_path_factory.mktemp("compared")
    merged = folder / MERGED.format("builtin", "builtin")
    of_run = folder / "results/builtin/runs/demo"
    merged.parent.mkdir(parents=True)
    of_run.mkdir(parents=True)
    chunk = of_run / "0000.integrated.h5"
    shutil.copy(demo.integrated, chunk)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run = "results/builtin/runs/demo"
        chunks = ["--chunks", f"{run}/0000.integrated.h5", "--n-frames", "20"]
        assert main(["frames", *chunks, "--output", f"{run}/frames.tsv"]) == 0
        cell = ["--cell", demo.cell, "--space-group", "P43212"]
        integrated = ["--integrated", f"{run}/0000.integrated.h5", "--dataset", "demo"]
        assert main(["merging", *integrated, *cell, "--output", MERGED.format("builtin", "builtin")]) == 0
    shutil.copytree(folder / "results/builtin/runs", folder / "results/crystfel/runs")
    with h5py.File(merged) as handle:
        intensity = handle["merged/I"][()]
    fewer(merged, folder / MERGED.format("crystfel", "partialator"), intensity > np.median(intensity))
    shutil.copy(demo.folder / "truth.hkl", folder / "truth.hkl")
    return folder


def fewer(source, target, keep):
    """A copy of a merged file with some of its reflections."""
    target.parent.mkdir(parents=True)
    shutil.copy(source, target)
    with h5py.File(target, "r+") as handle:
        for name in list(handle["merged"]):
            values = handle["merged"][name][()][keep]
            attrs = dict(handle["merged"][name].attrs)
            del handle["merged"][name]
            handle["merged"][name] = values
            handle["merged"][name].attrs.update(attrs)


@pytest.fixture
def work(made, tmp_path, monkeypatch):
    folder = tmp_path / "work"
    shutil.copytree(made, folder)
    monkeypatch.chdir(folder)
    return folder


def compare(*more, files=("builtin/builtin", "crystfel/partialator"), engines=("builtin", "crystfel")):
    merged = [MERGED.format(*name.split("/")) for name in files]
    frames = [f"results/{engine}/runs/demo/frames.tsv" for engine in engines]
    known = json.dumps({"demo": {"runs": ["demo"], "reference": "truth.hkl"}})
    tables = ["--tsv", "results/comparison.tsv", "--json", "results/comparison.json"]
    return main(["comparison", "--merged", *merged, "--frames", *frames, "--datasets", known, *tables, *more])


def rows(**wanted):
    with open("results/comparison.tsv", newline="") as handle:
        assert handle.readline().startswith("# provenance: ")
        found = list(csv.DictReader(handle, delimiter="\t"))
    return [row for row in found if all(row[name] == value for name, value in wanted.items())]


def test_table(work):
    assert compare() == 0
    with h5py.File(MERGED.format("crystfel", "partialator")) as handle:
        # Reflections that were never well recorded (n = 0) are no measurements to judge.
        n = np.count_nonzero(handle["merged/n"][()] > 0)
    overall = rows(shell="overall", beside="")
    assert [(r["engine"], r["merger"], r["reflections"]) for r in overall] == [
        ("builtin", "builtin", "all"), ("builtin", "builtin", "common"),
        ("crystfel", "partialator", "all"), ("crystfel", "partialator", "common"),
    ]  # fmt: skip
    assert int(overall[0]["n_reflections"]) > int(overall[1]["n_reflections"]) == n
    assert overall[0]["frames"] == "20"
    assert overall[0]["hits"] == overall[2]["hits"]
    # The same reflections of the same file: the same figures.
    same = ("n_pairs", "r_split", "cc_half", "reference_cc", "completeness")
    assert [overall[1][name] for name in same] == [overall[3][name] for name in same]
    assert overall[0]["r_split"] != overall[1]["r_split"]
    for which in ("all", "common"):
        shells = [rows(engine=engine, reflections=which, beside="")[1:] for engine in ("builtin", "crystfel")]
        assert [row["d_min"] for row in shells[0]] == [row["d_min"] for row in shells[1]]
        assert len(shells[0]) == 10
    (pair,) = rows(beside="crystfel/partialator", reflections="all")
    assert (pair["engine"], pair["n_beside"], float(pair["cc_beside"])) == ("builtin", str(n), pytest.approx(1.0))


def test_shells_of_the_settings(work):
    assert compare("--settings", '{"n_shells": 4, "d_min": 3.0}') == 0
    shells = [row for row in rows(engine="builtin", reflections="all", beside="") if row["shell"] != "overall"]
    assert len(shells) == 4
    assert float(shells[-1]["d_min"]) == pytest.approx(3.0)


def test_costs_that_nobody_recorded(work):
    assert compare() == 0
    (row,) = rows(engine="builtin", shell="overall", reflections="all", beside="")
    assert (row["cpu_integration"], row["cpu_merging"], row["cpu_total"]) == ("not known",) * 3
    assert row["memory_mib"] == "not known"


def test_costs_by_stage(work):
    """Of engine crystfel, which has no stage of its own for indexing; the stream is a part of partialator's work."""
    seconds = {
        "builtin/runs/demo/0000.peaks": 1, "builtin/runs/demo/0000.indexed": 2, "builtin/runs/demo/0000.integrated": 4,
        "builtin/ambiguity/demo/assignment": 8, "builtin/merged/builtin/demo/merged": 16,
        "crystfel/runs/demo/0000.peaks": 100, "crystfel/runs/demo/0000.integrated": 200,
        "crystfel/ambiguity/demo/assignment": 400, "crystfel/merged/partialator/demo/merged": 800, "crystfel/streams/demo": 1600,
    }  # fmt: skip
    for name, value in seconds.items():
        for path, text in (
            (work / f"logs/{name}.log", cost_line(value) + "\n"),
            (work / f"benchmarks/{name}.tsv", f"s\tmax_rss\tmax_pss\tcpu_time\n1\t9\t{value}\t0.1\n"),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    with h5py.File(MERGED.format("crystfel", "partialator"), "r+") as handle:
        made = json.loads(handle.attrs["provenance"])
        made["inputs"].append({"name": "results/crystfel/streams/demo.stream", "size": 1, "modified": ""})
        handle.attrs["provenance"] = json.dumps(made)
    # The account of engine crystfel names the chunks of its own.
    account = work / "results/crystfel/runs/demo/frames.tsv"
    account.write_text(account.read_text().replace("results/builtin/runs", "results/crystfel/runs"))
    assert compare() == 0
    names = ("cpu_peaks", "cpu_indexing", "cpu_integration", "cpu_merging", "cpu_total", "memory_mib")
    of = {r["engine"]: [r[n] for n in names] for r in rows(shell="overall", reflections="all", beside="")}
    assert of["builtin"] == ["1", "2", "4", "24", "31", "16"]
    assert of["crystfel"] == ["100", "", "200", "2800", "3100", "1600"]


def test_another_space_group_is_left_out(work, capsys):
    with h5py.File(MERGED.format("crystfel", "partialator"), "r+") as handle:
        handle.attrs["space_group"] = "P 43"
    assert compare() == 0
    assert "crystfel/partialator is merged in P 43, builtin/builtin in P 43 21 2" in capsys.readouterr().out
    assert rows(engine="crystfel") == []


def test_few_in_common_is_said(work, capsys):
    path = MERGED.format("crystfel", "partialator")
    with h5py.File(path, "r+") as handle:
        half = handle["merged/I_half2"]
        half[200:] = np.nan
    assert compare() == 0
    assert "they say little about the rest" in capsys.readouterr().out


def test_one_engine_alone(work):
    assert compare(files=["builtin/builtin"], engines=["builtin"]) == 0
    assert rows(beside="crystfel/partialator") == []
    all_, common = rows(shell="overall")
    assert all_["r_split"] == common["r_split"]


def test_report_shows_it(work):
    assert compare() == 0
    argv = ["report", "--merged", MERGED.format("builtin", "builtin"), "--comparison", "results/comparison.json"]
    assert main([*argv, "--output", "index.html"]) == 0
    page = (work / "index.html").read_text()
    assert '<a href="#comparison">Engines and mergers side by side</a>' in page
    assert "crystfel/partialator" in page


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "can't be read"), ("{", "is not JSON"), ("{}", "holds no comparison of engines and mergers")],
)
def test_report_of_a_damaged_comparison(work, capsys, text, message):
    if text is not None:
        (work / "c.json").write_text(text)
    argv = ["report", "--merged", MERGED.format("builtin", "builtin"), "--comparison", "c.json"]
    assert main([*argv, "--output", "index.html"]) == 1
    assert f"sfxflow report: c.json: {message}" in capsys.readouterr().err
    assert not (work / "index.html").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--datasets", "{"), "--datasets: not JSON"),
        (("--datasets", "[1]"), '--datasets: {"NAME": {"runs": [...], "reference": FILE}} is expected'),
        (("--datasets", '{"demo": {"reference": "no.hkl"}}'), "no.hkl: can't be read"),
        (("--merged", "truth.hkl"), "truth.hkl: can't be opened as HDF5"),
        (("--settings", '{"d_min": 3, "d_max": 2}'), "d_min = 3.0 has to be smaller than d_max = 2.0"),
    ],
)
def test_bad_input(work, capsys, more, message):
    assert compare(*more) == 1
    assert message in capsys.readouterr().err
    assert not (work / "results/comparison.tsv").exists()
    assert not (work / "results/comparison.json").exists()
