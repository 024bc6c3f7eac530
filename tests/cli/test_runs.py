"""`sfxflow runs add`: a row for a run that arrived later, and what is refused."""

import csv

import pytest

from sfxflow.cli import main


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for seed, name in ((1, "first"), (2, "second")):
        arguments = [
            "--preset",
            "demo",
            "--n-frames",
            str(2 + seed),
            "--seed",
            str(seed),
            "--output",
            str(folder / name),
        ]
        assert main(["simulate", *arguments]) == 0
    return folder


@pytest.fixture
def folder(simulated, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = simulated / "first"
    arguments = [
        "--data",
        f"{first}/frames_*.h5",
        "--geometry",
        f"{first}/detector.geom",
        "--cell",
        f"{first}/demo.cell",
    ]
    assert main(["init", *arguments, "--space-group", "P43212"]) == 0
    return tmp_path


def rows(folder):
    with open(folder / "config/runs.tsv", encoding="utf-8") as handle:
        return list(csv.DictReader((line for line in handle if not line.startswith("#")), delimiter="\t"))


def test_a_row_is_added(folder, simulated):
    before = (folder / "config/runs.tsv").read_text()
    assert main(["runs", "add", "--data", f"{simulated}/second/frames_*.h5", "--name", "later"]) == 0
    assert (folder / "config/runs.tsv").read_text().startswith(before)
    first, added = rows(folder)
    assert added["run"] == "later"
    assert added["n_frames"] == "4"
    assert added["frames"] == f"{simulated}/second/frames_*.h5"
    assert (added["dataset"], added["geometry"]) == (first["dataset"], first["geometry"])


def test_more_columns_are_kept(folder, simulated):
    table = folder / "config/runs.tsv"
    lines = table.read_text().splitlines()
    table.write_text(
        "\n".join(
            line if line.startswith("#") else f"{line}\t{'laser' if 'n_frames' in line else 'on'}" for line in lines
        )
    )
    assert main(["runs", "add", "--data", f"{simulated}/second/frames_*.h5"]) == 0
    assert [row["laser"] for row in rows(folder)] == ["on", ""]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "{0}/first/frames_*.h5"], "frames_*.h5 is run frames_00 of config/runs.tsv already"),
        (["--data", "{0}/second/frames_*.h5", "--name", "frames_00"], "has a run frames_00 already"),
        (["--data", "{0}/nowhere_*.h5"], "nowhere_*.h5"),
        (["--data", "{0}/second/frames_*.h5", "--table", "none.tsv"], "none.tsv: can't be read"),
        (["--data", "{0}/second/frames_*.h5", "--geometry", "{0}/first/demo.cell"], "demo.cell"),
    ],
)
def test_refused(folder, simulated, capsys, arguments, message):
    before = (folder / "config/runs.tsv").read_text()
    assert main(["runs", "add", *(argument.format(simulated) for argument in arguments)]) == 1
    assert message in capsys.readouterr().err
    assert (folder / "config/runs.tsv").read_text() == before
