"""`sfxflow lock` and `sfxflow check-lock`: a stand-in for the workflow's commands, and once the real ones.

The stand-in makes frame accounts and figures of merit from the index rate and CC1/2 that it is told through the environment: a program
that works differently today, with the same parameters.
"""

import json
import os
import shutil
import sys

import pytest
import yaml

from sfxflow.cli import chunk_lists, main

STAND_IN = """\
#!{python} -SE
import json, os, runpy, sys
arguments = runpy.run_path("{chunk_lists}")["expanded"](sys.argv[1:])
stage = arguments[0]
if stage == os.environ.get("FAILING"):
    sys.exit("stand-in: this stage fails")

def values(option):
    found = []
    for argument in arguments[arguments.index(option) + 1:]:
        if argument.startswith("--"):
            break
        found.append(argument)
    return found

def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as handle:
        handle.write(text)

if stage == "peaks":
    # The list of frames goes on from file to file.
    write(values("--output")[0], open(values("--frames")[0]).read())
elif stage in ("indexing", "integration"):
    write(values("--output")[0], open(values("--peaks" if stage == "indexing" else "--indexed")[0]).read())
elif stage == "frames":
    lines = [line.rstrip() for path in values("--chunks") for line in open(path)]
    rows, hits = [], 0
    for number, line in enumerate(lines):
        file, event = line.split()
        status = "blank"
        if int(event.strip("/")) % 2:
            # Odd events are hits; of 100 so many are indexed.
            status = "indexed" if hits % 100 < float(os.environ.get("INDEX_RATE", "0.9")) * 100 else "hit"
            hits += 1
        rows.append([str(number), file, event, status, "20", "1" if status == "indexed" else "0", "", ""])
    columns = ["frame", "file", "event", "status", "n_peaks", "n_lattices", "resolution", "message"]
    table = "".join("\\t".join(row) + "\\n" for row in [columns, *rows])
    write(values("--output")[0], '# provenance: {{"inputs": []}}\\n' + table)
elif stage == "figures_of_merit":
    overall = {{"cc_half": float(os.environ.get("CC_HALF", "0.95")), "r_split": 0.1, "n_pairs": 1000}}
    figures = dict.fromkeys(("provenance", "definitions", "shells", "inputs"), {{}}) | {{"overall": overall, "remarks": []}}
    write(values("--json")[0], json.dumps(figures))
    write(values("--tsv")[0], "")
else:
    write(values("--output")[0], stage)
"""

CONFIG = """
datasets:
  lysozyme: {cell: raw/lysozyme.cell, space_group: P43212}
merging: {cycles: 4}
lock: {frames: 40}
"""


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A working directory whose results are there: two runs of 200 and 100 frames, half of them hits, 90 % of these indexed."""
    folder = tmp_path / "work"
    (folder / "bin").mkdir(parents=True)
    monkeypatch.chdir(folder)
    (folder / "bin/sfxflow").write_text(STAND_IN.format(python=sys.executable, chunk_lists=chunk_lists.__file__))
    (folder / "bin/sfxflow").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
    for name in ("one.h5", "two.h5", "a.geom", "mask.h5", "lysozyme.cell"):
        (folder / "raw").mkdir(exist_ok=True)
        (folder / "raw" / name).write_text(name)
    (folder / "config").mkdir()
    (folder / "config/config.yaml").write_text(CONFIG)
    rows = ["run\tdataset\tframes\tgeometry\tmask\tn_frames", "a\tlysozyme\traw/one.h5\traw/a.geom\traw/mask.h5\t200"]
    (folder / "config/runs.tsv").write_text("\n".join([*rows, "b\tlysozyme\traw/two.h5\traw/a.geom\t\t100"]) + "\n")
    write_accounts(folder)
    return folder


def write_accounts(folder, index_rate=0.9):
    for run, file, n in (("a", "raw/one.h5", 200), ("b", "raw/two.h5", 100)):
        path = folder / f"results/builtin/runs/{run}/frames.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = ['# provenance: {"inputs": []}', "frame\tfile\tevent\tstatus\tn_peaks\tn_lattices\tresolution\tmessage"]
        for i in range(n):
            indexed = "indexed" if (i // 2) % 100 < 100 * index_rate else "hit"
            lines.append(f"{i}\t{file}\t//{i}\t{indexed if i % 2 else 'blank'}\t20\t0\t\t")
        path.write_text("\n".join(lines) + "\n")


def lock(*more):
    return main(["lock", "--cores", "2", *more])


def check(*more):
    return main(["check-lock", "--cores", "2", *more])


@pytest.fixture(scope="module")
def locked_text():
    """The lock of `work`, once it is written."""
    return {}


@pytest.fixture
def locked(work, locked_text):
    if "lock" not in locked_text:
        assert lock() == 0
        locked_text["lock"] = (work / "config/lock.yaml").read_text().replace(str(work), "@")
    (work / "config/lock.yaml").write_text(locked_text["lock"].replace("@", str(work)))
    return work


def test_what_a_lock_says(locked, capsys):
    found = yaml.safe_load((locked / "config/lock.yaml").read_text())
    pinned = found["pinned"]["lysozyme"]
    assert {run: len(lines) for run, lines in pinned.items()} == {"a": 27, "b": 13}
    assert pinned["a"][0].startswith(f"{locked}/raw/one.h5 //")
    events = [int(line.split("//")[-1]) for lines in pinned.values() for line in lines]
    assert sum(event % 2 for event in events) == 30
    assert found["parameters"]["merging"]["cycles"] == 4
    assert found["parameters"]["merging"]["max_excitation"] == 3.5
    assert found["parameters"]["lock"]["hit_share"] == 0.75
    assert found["inputs"].keys() == {"raw/a.geom", "raw/mask.h5", "raw/lysozyme.cell"}
    assert {"sfxflow", "Python", "numpy", "numba", "snakemake"} <= found["versions"].keys()
    seen = found["seen"]["lysozyme"]["builtin"]
    assert (seen["frames"], seen["hits"], seen["hit_rate"]) == (40, 30, 0.75)
    assert seen["mergers"]["builtin"]["cc_half"] == 0.95


def test_nothing_changed(locked, capfd):
    assert check("--keep", "kept") == 0
    out = capfd.readouterr().out
    assert "versions, parameters and input files are those of the lock" in out
    assert "MOVED" not in out
    assert len((locked / "kept/pinned/a.lst").read_text().splitlines()) == 27
    assert (locked / "kept/results/builtin/runs/a/frames.tsv").is_file()
    # Neither results nor anything else of the working directory is touched.
    assert not (locked / "results/report").exists()
    assert not (locked / ".snakemake").exists()


def test_an_index_rate_of_zero_with_identical_parameters(locked, monkeypatch, capfd):
    monkeypatch.setenv("INDEX_RATE", "0")
    assert check() == 1
    said = capfd.readouterr()
    assert "MOVED    lysozyme, builtin: index rate 1.0000 then, 0.0000 now" in said.out
    assert "as then  lysozyme, builtin: hit rate 0.7500 then, 0.7500 now" in said.out
    assert "something else changed under the analysis" in said.out
    assert "sfxflow check-lock: 1 of 3 figures moved more than tolerated" in said.err


def test_a_small_move_is_tolerated_unless_the_config_says_otherwise(locked, monkeypatch, capfd):
    monkeypatch.setenv("CC_HALF", "0.94")
    assert check() == 0
    capfd.readouterr()
    assert check("--settings", '{"cc_half_tolerance": 0.005}') == 1
    assert "CC1/2 0.9500 then, 0.9400 now, moved -0.0100 (tolerated 0.005)" in capfd.readouterr().err


def test_what_differs_is_said(locked, capfd):
    """A version, a parameter, a file; none of them is a failure while the figures stay."""
    path = locked / "config/lock.yaml"
    found = yaml.safe_load(path.read_text())
    found["versions"]["numpy"] = "1.0"
    path.write_text(yaml.safe_dump(found))
    (locked / "config/config.yaml").write_text(CONFIG.replace("cycles: 4", "cycles: 5"))
    (locked / "raw/a.geom").write_text("another geometry")
    assert check() == 0
    out = capfd.readouterr().out
    assert "version of numpy: 1.0 in the lock, " in out
    assert "parameter merging.cycles: 4 in the lock, 5 now" in out
    assert "input raw/a.geom: another content (6 bytes in the lock, 16 now)" in out


def test_a_merging_that_fails(locked, monkeypatch, capfd):
    """The rates are still told; CC1/2 is not defined any more."""
    monkeypatch.setenv("FAILING", "merging")
    assert check() == 1
    assert "CC1/2 0.9500 then, not defined now" in capfd.readouterr().err


def test_frames_that_can_not_be_processed(locked, monkeypatch, capfd):
    monkeypatch.setenv("FAILING", "peaks")
    assert check() == 1
    error = capfd.readouterr().err
    assert "the pinned frames of run a could not be processed by engine builtin; the workflow's last lines:" in error
    assert "Traceback" not in error


def test_a_config_that_the_workflow_refuses(locked, capfd):
    (locked / "config/config.yaml").write_text(CONFIG + "peaks: {min_srn: 5}\n")
    assert check() == 1
    assert "peaks.min_srn: no such setting; did you mean min_snr?" in capfd.readouterr().err


def test_results_of_other_programs_are_noticed(work, capfd):
    write_accounts(work, index_rate=0.5)
    assert lock() == 0
    out = capfd.readouterr().out
    assert "WARNING: the results that are there were made with other programs or settings than those of now" in out


@pytest.mark.parametrize(
    ("change", "argv", "message"),
    [
        (lambda f: shutil.rmtree(f / "results"), ["lock"], "frames.tsv is not there: the lock takes its frames from results"),
        (lambda f: (f / "config/config.yaml").unlink(), ["lock"], "`sfxflow init` writes a config"),
        (lambda f: (f / "raw/lysozyme.cell").unlink(), ["lock"], "raw/lysozyme.cell: can't be read"),
        (lambda f: None, ["lock", "--settings", '{"frame": 3}'], "lock.frame: no such setting; did you mean frames?"),
        (lambda f: None, ["lock", "--settings", "{"], "--settings: not JSON"),
        (lambda f: None, ["lock", "--snakefile", "no"], "--snakefile: no is not there"),
        (lambda f: None, ["lock", "--keep", "raw"], "--keep: raw is not empty"),
        (lambda f: None, ["check-lock", "no.yaml"], "no.yaml: can't be read (No such file or directory); `sfxflow lock` writes it"),
        (lambda f: (f / "raw/two.h5").unlink(), ["check-lock"], "two.h5, which holds pinned frames of run b, is not there"),
        (lambda f: drop_run_b(f), ["check-lock"], "run b is not in the table of the runs any more"),
        (lambda f: only_blanks(f), ["lock"], "dataset lysozyme: none of its frames is a hit with engine builtin"),
    ],
)  # fmt: skip
def test_bad_input(locked, capfd, change, argv, message):
    change(locked)
    before = (locked / "config/lock.yaml").read_text()
    assert main(argv) == 1
    error = capfd.readouterr().err
    assert f"sfxflow {argv[0]}: " in error
    assert message in error
    assert (locked / "config/lock.yaml").read_text() == before


def drop_run_b(folder):
    table = folder / "config/runs.tsv"
    table.write_text("\n".join(table.read_text().splitlines()[:-1]) + "\n")


def only_blanks(folder):
    for path in folder.glob("results/builtin/runs/*/frames.tsv"):
        path.write_text(path.read_text().replace("\tindexed\t", "\tblank\t").replace("\thit\t", "\tblank\t"))


# ---- once with the real commands ------------------------------------------------------------------------------------

#: Today's program: its indexing asks for a significance that no lattice has.
CHANGED = """\
#!{python}
import json, sys
from sfxflow.cli import main
arguments = sys.argv[1:]
if arguments[0] == "indexing":
    place = arguments.index("--settings") + 1
    arguments[place] = json.dumps(json.loads(arguments[place]) | {{"max_log10_p": -1e6}})
sys.exit(main(arguments))
"""


def test_the_real_workflow_and_a_changed_program(demo, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    (tmp_path / "bin").mkdir()
    config = {"datasets": {"demo": {"cell": str(demo.cell), "space_group": "P43212"}}, "lock": {"frames": 12}}
    (tmp_path / "config/config.yaml").write_text(json.dumps(config))
    row = ["demo", "demo", demo.frames, demo.geometry, "", "20"]
    head = ["run", "dataset", "frames", "geometry", "mask", "n_frames"]
    (tmp_path / "config/runs.tsv").write_text("\t".join(head) + "\n" + "\t".join(row) + "\n")
    account = tmp_path / "results/builtin/runs/demo/frames.tsv"
    assert main(["frames", "--chunks", str(demo.integrated), "--n-frames", "20", "--output", str(account)]) == 0
    assert lock() == 0
    seen = yaml.safe_load((tmp_path / "config/lock.yaml").read_text())["seen"]["demo"]["builtin"]
    assert seen["index_rate"] == 1.0
    assert seen["mergers"]["builtin"]["cc_half"] > 0.5
    capfd.readouterr()
    (tmp_path / "bin/sfxflow").write_text(CHANGED.format(python=sys.executable))
    (tmp_path / "bin/sfxflow").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    assert check() == 1
    said = capfd.readouterr()
    assert "versions, parameters and input files are those of the lock" in said.out
    assert "MOVED    demo, builtin: index rate 1.0000 then, 0.0000 now" in said.out
