"""The ways to index by CrystFEL's ambigator: as the truth says, and messages where it can't tell."""

import os
import sys

import numpy as np
import pytest
from ambiguous_crystals import simulate
from chunk_files import write_chunk
from test_ambiguity import write_case_cell

from sfxflow.cli import main
from sfxflow.io.assignment import read_assignment

STAND_IN = f"""#!{sys.executable} -SE
import os, sys
if "--version" in sys.argv:
    print("CrystFEL: 0.12.0")
    sys.exit()
open(os.environ["CALLS"], "w").write(" ".join(sys.argv[1:]))
n = open("crystals.stream").read().count("--- Begin crystal")
how = os.environ["STAND_IN"]
print("WARNING: %i crystals had no correlation" % (n if how == "alone" else 2), file=sys.stderr)
path = [word.partition("=")[2] for word in sys.argv if word.startswith("--end-assignments=")][0]
with open(path, "w") as handle:
    handle.write("".join("%i\\n" % (i % 2) for i in range(n - (how == "short"))))
"""


@pytest.fixture
def case(tmp_path):
    """A function that resolves simulated crystals of a space group: exit status, the file, and the truth."""

    def resolve(group="P63", settings='{"program": "ambigator"}', n=120, n_each=200):
        simulated = simulate(group, n, n_each, seed=41)
        write_case_cell(tmp_path / "it.cell", group)
        path = write_chunk(tmp_path / "chunk.h5", simulated, range(n))
        arguments = ["ambiguity", "--integrated", path, "--cell", str(tmp_path / "it.cell"), "--space-group", group]
        status = main([*arguments, "--settings", settings, "--output", str(tmp_path / "out.h5")])
        return status, tmp_path / "out.h5", simulated.mode

    return resolve


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Put a stand-in for ambigator on PATH that behaves as asked for."""

    def put(how):
        path = tmp_path / "bin/ambigator"
        path.parent.mkdir()
        path.write_text(STAND_IN)
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}/usr/bin:/bin")
        monkeypatch.setenv("STAND_IN", how)
        monkeypatch.setenv("CALLS", str(tmp_path / "calls"))

    return put


@pytest.mark.crystfel
def test_as_the_truth_says(case):
    status, path, true = case()
    assert status == 0
    mode = read_assignment(path).crystals["mode"]
    same = np.mean(mode == true)
    assert max(same, 1 - same) > 0.97


def test_what_it_is_told_and_what_is_believed(case, stand_in, tmp_path, capsys):
    stand_in("well")
    status, path, _ = case(settings='{"program": "ambigator", "d_min": 3.5, "min_margin": 5}', n=9)
    assert status == 0
    found = read_assignment(path)
    assert found.crystals["mode"].tolist() == [0, 1] * 4 + [0]
    assert found.crystals["n_observations"].tolist() == [200] * 9
    assert not found.crystals["left_out"].any()
    words = (tmp_path / "calls").read_text().split()
    assert {"-y", "6/m", "--operator=k,h,-l", "--highres=3.5", "--ncorr=1000"} <= set(words)
    said = capsys.readouterr().out
    assert "resolved by ambigator (CrystFEL 0.12.0), which does not say how certain it is" in said
    assert "2 crystals have too little in common with others: their way to index is by chance" in said


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("alone", "ambigator: could compare none of 9 crystals with another"),
        ("short", "says the way to index of 8 crystals, not of 9"),
    ],
)
def test_it_failed_with_status_0(case, stand_in, capsys, how, words):
    stand_in(how)
    status, path, _ = case(n=9)
    assert status == 1
    assert words in capsys.readouterr().err
    assert not path.exists()


def test_more_than_two_ways(case, stand_in, capsys):
    stand_in("well")
    status, _, _ = case("P3", n=9)
    assert status == 1
    assert "ambigator tells two ways to index apart, here are 4; set it to builtin" in capsys.readouterr().err


def test_it_is_missing(case, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "/nowhere")
    assert case(n=9)[0] == 1
    assert "ambigator: no such program on PATH; it is part of CrystFEL" in capsys.readouterr().err
