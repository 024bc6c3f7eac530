"""`sfxflow report`: one page, self-contained, whose numbers are those of the files."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import h5py
import pytest

from sfxflow.cli import main


class Page(HTMLParser):
    """Text and attributes of a page."""

    def __init__(self, path):
        super().__init__()
        self.words, self.links, self.tags = [], [], []
        self.feed(path.read_text(encoding="utf-8"))
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("href", "src") and value]

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def results(demo, tmp_path_factory):
    """The demo's twenty frames through to figures of merit, laid out as the workflow does."""
    folder = tmp_path_factory.mktemp("results")
    run, merged = folder / "results/builtin/runs/demo", folder / "results/builtin/merged/builtin/demo"
    run.mkdir(parents=True)
    merged.mkdir(parents=True)
    cell = ["--cell", demo.cell, "--space-group", "P43212"]
    chunk = str(demo.integrated)
    assert main(["frames", "--chunks", chunk, "--n-frames", "20", "--output", str(run / "frames.tsv")]) == 0
    assert (
        main(["merging", "--integrated", chunk, "--dataset", "demo", *cell, "--output", str(merged / "merged.h5")]) == 0
    )
    out = ["--json", str(merged / "f.json"), "--tsv", str(merged / "f.tsv")]
    assert main(["figures_of_merit", "--merged", str(merged / "merged.h5"), *out]) == 0
    return {"frames": run / "frames.tsv", "merged": merged / "merged.h5", "figures": merged / "f.json", "chunk": chunk}


def arguments(results, output, **changed):
    files = results | changed
    return [
        "report", "--frames", str(files["frames"]), "--n-frames", str(changed.get("n_frames", 20)),
        "--integrated", str(files["chunk"]), "--merged", str(files["merged"]), "--figures-of-merit", str(files["figures"]),
        "--output", str(output),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def page(results, tmp_path_factory):
    output = tmp_path_factory.mktemp("page") / "index.html"
    assert main(arguments(results, output)) == 0
    return Page(output)


def test_the_page_needs_no_other_file(page):
    assert all(link.startswith("#") for link in page.links)
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert page.tags.count("svg") >= 8


def test_frame_account_and_rates(page, results):
    statuses = [line.split("\t")[3] for line in results["frames"].read_text().splitlines()[2:]]
    blank, indexed = statuses.count("blank"), statuses.count("indexed")
    assert blank + indexed == 20
    row = re.search(r"demo 20 0 (\d+) 0 (\d+) 20 ✓ ([\d.]+) ([\d.]+)", page.text)
    assert row, page.text[:3000]
    assert (int(row[1]), int(row[2])) == (blank, indexed)
    assert float(row[3]) == pytest.approx(100 * indexed / 20, abs=0.05)
    assert float(row[4]) == 100.0


def test_figures_are_those_of_the_file(page, results):
    figures = json.loads(results["figures"].read_text())
    assert f"{figures['overall']['r_split'] * 100:.2f}" in page.text
    assert f"{figures['overall']['cc_half']:.4f}" in page.text
    for shell in figures["shells"]:
        assert f"{shell['completeness'] * 100:.1f}" in page.text


def test_cells_and_origins(page, results):
    assert "Unit cells of the crystals" in page.text
    assert "sfxflow 0.1.0" in page.text
    assert str(results["merged"].name) in page.text


def test_incomplete_data_are_told(page):
    assert re.search(r"Completeness [\d.]+ % overall \([\d.]+ to [\d.]+ angstrom\)", page.text)


def test_a_cell_that_does_not_fit_is_loud(results, tmp_path, capsys):
    chunk = tmp_path / "chunk.h5"
    chunk.write_bytes(Path(results["chunk"]).read_bytes())
    with h5py.File(chunk, "r+") as handle:
        handle.attrs["warning"] = "the cell 1 2 3 90 90 90 does not fit: 0 of 16 frames"
    account = tmp_path / "frames.tsv"
    assert main(["frames", "--chunks", str(chunk), "--n-frames", "20", "--output", str(account)]) == 0
    assert main(arguments(results, tmp_path / "p.html", chunk=chunk, frames=account)) == 0
    assert "The cell 1 2 3 90 90 90 does not fit" in Page(tmp_path / "p.html").text
    assert "WARNING" in capsys.readouterr().out


def test_a_sum_that_is_wrong_is_told(results, tmp_path):
    assert main(arguments(results, tmp_path / "p.html", n_frames=21)) == 0
    text = Page(tmp_path / "p.html").text
    assert "20 frames are accounted for, but the table of the runs says 21." in text


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--output", "x.html"], "nothing to report"),
        (["--frames", "none.tsv", "--output", "x.html"], "none.tsv: the frame account can't be read"),
        (["--merged", "none.h5", "--output", "x.html"], "none.h5"),
        (["--frames", "none.tsv", "--n-frames", "1", "2", "--output", "x.html"], "--n-frames: 2 numbers"),
    ],
)
def test_bad_input(tmp_path, monkeypatch, capsys, given, message):
    monkeypatch.chdir(tmp_path)
    assert main(["report", *given]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x.html").exists()
