"""From simulated frames to merged files: by hand, through the workflow, and through what goes wrong on the way."""

import csv
import json
import os
import shutil
import signal
import time
from pathlib import Path

import gemmi
import h5py
import numpy as np
import pytest
import yaml

from sfxflow.cli import main
from sfxflow.io.frame_account import read_frame_account
from sfxflow.io.table import read_rows
from sfxflow.reflections import Status
from sfxflow.symmetry import reflection_key, space_group, to_asu

SPACE_GROUP = ("--space-group", "P43212")
#: Runs of the good dataset: frame file, and (first, count) of each chunk.
RUNS = {"a": ("frames_00.h5", ((0, 20), (20, 20))), "b": ("frames_01.h5", ((0, 20),))}
WRONG_CELL = """CrystFEL unit cell file version 1.0

lattice_type = tetragonal
centering = P
unique_axis = c
a = 58.4 A
b = 58.4 A
c = 152.3 A
al = 90 deg
be = 90 deg
ga = 90 deg
"""


def sfxflow(*argv):
    """A command that has to succeed."""
    assert main([str(argument) for argument in argv]) == 0


def simulate(folder, n_frames, *options):
    sfxflow("simulate", "--preset", "demo", "--n-frames", n_frames, "--seed", 5, "--output", folder, *options)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Sixty frames in two files, six blanks, one frame with one crystal, and a wrong cell."""
    folder = tmp_path_factory.mktemp("raw")
    simulate(folder, 60, "--frames-per-file", 40)
    simulate(folder / "blanks", 6, "--set", "blank_fraction=1")
    simulate(folder / "one", 1, "--set", "blank_fraction=0", "multi_fraction=0")
    (folder / "wrong.cell").write_text(WRONG_CELL)
    return folder


def process(raw, frames, geometry, folder, chunk, first=0, count=None, threads=1, method="profile"):
    """Peaks, indexing and integration of a chunk; the path of its integrated file."""
    paths = {stage: folder / f"{chunk}.{stage}.h5" for stage in ("peaks", "indexed", "integrated")}
    of_frames = ("--frames", frames, "--geometry", geometry, "--first", first, "--threads", threads)
    if count is not None:
        of_frames += ("--count", count)
    cell = ("--cell", raw / "demo.cell", *SPACE_GROUP)
    sfxflow("peaks", *of_frames, "--output", paths["peaks"])
    sfxflow("indexing", "--peaks", paths["peaks"], "--geometry", geometry, *cell, "--output", paths["indexed"])
    settings = ("--settings", json.dumps({"method": method}))
    sfxflow("integration", "--indexed", paths["indexed"], *of_frames, *settings, "--output", paths["integrated"])
    return paths["integrated"]


@pytest.fixture(scope="module")
def by_hand(raw, tmp_path_factory):
    """Folder with the good dataset, processed command by command."""
    folder = tmp_path_factory.mktemp("by_hand")
    integrated = []
    for run, (file, chunks) in RUNS.items():
        of_run = [
            process(raw, raw / file, raw / "detector.geom", folder, f"{run}_{first}", first, count, threads=2)
            for first, count in chunks
        ]
        n_frames = sum(count for _, count in chunks)
        sfxflow("frames", "--chunks", *of_run, "--n-frames", n_frames, "--output", folder / f"{run}.tsv")
        integrated += of_run
    cell = ("--cell", raw / "demo.cell", *SPACE_GROUP)
    merged = folder / "merged.h5"
    ways = folder / "assignment.h5"
    sfxflow("ambiguity", "--integrated", *integrated, *cell, "--reference", raw / "truth.hkl", "--output", ways)
    of_dataset = ("--integrated", *integrated, "--dataset", "good", *cell, "--assignment", ways)
    sfxflow("merging", *of_dataset, "--threads", 2, "--output", merged)
    figures = ("--json", folder / "figures.json", "--tsv", folder / "figures.tsv")
    sfxflow("figures_of_merit", "--merged", merged, "--reference", raw / "truth.hkl", *figures)
    files = {"mtz": "merged.mtz", "unmerged": "unmerged.mtz"} | {
        name: f"{name}.hkl" for name in ("hkl", "half1", "half2")
    }
    outputs = [argument for option, name in files.items() for argument in (f"--{option}", folder / name)]
    sfxflow("export", "--merged", merged, "--integrated", *integrated, *outputs)
    return folder


def true_lattices(raw):
    """Number of lattices on each frame of the simulated files, in order: (file, event) to number."""
    with open(raw / "truth.tsv", newline="") as handle:
        rows = csv.DictReader((line for line in handle if not line.startswith("#")), delimiter="\t")
        counts = {}
        for row in rows:
            key = (row["file"], row["event"])
            counts[key] = counts.get(key, 0) + (row["lattice"] != "none")
    return counts


def test_what_became_of_every_frame_by_hand(raw, by_hand):
    true = true_lattices(raw)
    for run, (file, _) in RUNS.items():
        frames, _ = read_frame_account(by_hand / f"{run}.tsv")
        expected = [count for (name, _), count in true.items() if name == file]
        assert [status == Status.indexed for status in frames["status"]] == [count > 0 for count in expected]
        assert all(found <= count for found, count in zip(frames["n_lattices"], expected, strict=True))


def recorded(mtz):
    """Number of reflections of a merged MTZ file that were well recorded: the figures of merit are about these."""
    return int(np.sum(gemmi.read_mtz_file(str(mtz)).column_with_label("N").array > 0))


def test_merged_by_hand(by_hand):
    overall = json.loads((by_hand / "figures.json").read_text())["overall"]
    assert overall["n_reference"] == overall["n_reflections"] > 2000
    assert overall["reference_cc"] > 0.99
    assert overall["reference_r1_i"] < 0.1
    assert recorded(by_hand / "merged.mtz") == overall["n_reflections"]
    unmerged = gemmi.read_mtz_file(str(by_hand / "unmerged.mtz"))
    assert unmerged.nreflections >= overall["n_measurements"]


def test_a_single_crystal(raw, tmp_path, capsys):
    """It is merged and exported, with a warning; most figures of merit need more and say so."""
    integrated = process(raw, raw / "one/frames_00.h5", raw / "detector.geom", tmp_path, "one")
    sfxflow("frames", "--chunks", integrated, "--n-frames", 1, "--output", tmp_path / "frames.tsv")
    assert read_frame_account(tmp_path / "frames.tsv")[0]["status"] == [Status.indexed]
    cell = ("--cell", raw / "demo.cell", *SPACE_GROUP)
    merged, lists = tmp_path / "merged.h5", ("mtz", "hkl", "half1", "half2")
    sfxflow("ambiguity", "--integrated", integrated, *cell, "--output", tmp_path / "a.h5")
    of_dataset = ("--integrated", integrated, "--dataset", "one", *cell, "--assignment", tmp_path / "a.h5")
    sfxflow("merging", *of_dataset, "--output", merged)
    assert "WARNING" in capsys.readouterr().out
    sfxflow("figures_of_merit", "--merged", merged, "--json", tmp_path / "f.json", "--tsv", tmp_path / "f.tsv")
    figures = json.loads((tmp_path / "f.json").read_text())
    assert figures["overall"]["n_reflections"] > 0 and figures["overall"]["cc_half"] is None
    sfxflow("export", "--merged", merged, *(word for name in lists for word in (f"--{name}", tmp_path / name)))
    assert recorded(tmp_path / "mtz") == figures["overall"]["n_reflections"]


@pytest.mark.parametrize("method", ["rings", "profile"])
def test_formats_give_the_same_intensities(raw, tmp_path, method):
    """NXmx (bitshuffle, geometry in the file) and CXI (gzip, .geom) of the same frames."""
    simulate(tmp_path, 16, "--format", "nxmx", "--compression", "bitshuffle")
    master = tmp_path / "frames_master.h5"
    # NXmx does not say how much one photon is: with neither format saying it both estimate it, and from the same pixels.
    geometry = (raw / "detector.geom").read_text().splitlines(keepends=True)
    (tmp_path / "detector.geom").write_text("".join(line for line in geometry if "adu_per_photon" not in line))
    first = process(raw, master, master, tmp_path, "nxmx", method=method)
    other = process(raw, raw / "frames_00.h5", tmp_path / "detector.geom", tmp_path, "cxi", 0, 16, method=method)
    nxmx, cxi = reflections_by_name(first), reflections_by_name(other)
    common = sorted(nxmx.keys() & cxi.keys())
    assert len(common) > 5000
    assert len(common) > 0.99 * max(len(nxmx), len(cxi))
    ours, theirs = (np.array([values[name] for name in common]) for values in (nxmx, cxi))
    off = np.abs(ours[:, 0] - theirs[:, 0]) / theirs[:, 1]
    # The geometries differ by the rounding of their numbers, which the fit of a profile shows and a sum over pixels does not.
    assert np.median(off) == 0.0 if method == "rings" else np.median(off) < 1e-3
    assert np.quantile(off, 0.99) < 0.3
    assert np.corrcoef(ours[:, 0], theirs[:, 0])[0, 1] > 0.9999


def reflections_by_name(path):
    """(frame, unique indices, pixel) to (I, sigI) of a file of integrated reflections."""
    with h5py.File(path) as handle:
        columns = read_rows(handle["reflections"])
        frame = handle["crystals/frame"][:][columns["crystal"]]
    hkl = np.column_stack([columns[index] for index in "hkl"]).astype(np.int32)
    key = reflection_key(to_asu(hkl, space_group("P43212")))
    # A lattice may be indexed in one of several equivalent ways: unique indices, and where on the frame, tell a spot from its mates.
    place = np.rint(np.column_stack([columns["fs"], columns["ss"]]) / 4).astype(int)
    names = zip(frame.tolist(), key.tolist(), *place.T.tolist(), strict=True)
    return dict(zip(names, zip(columns["I"], columns["sigI"], strict=True), strict=True))


# ---- what goes wrong


def test_a_job_that_is_killed_leaves_nothing_and_can_be_repeated(work, raw, by_hand, tmp_path):
    user = type(work)(tmp_path)
    frames = ("--frames", raw / "frames_00.h5", "--geometry", raw / "detector.geom", "--first", 0, "--count", 20)
    for stage, before in (("peaks", ()), ("integration", ("--indexed", by_hand / "a_0.indexed.h5"))):
        command = ("sfxflow", stage, *before, *frames, "--output", "out.h5")
        process = user.start(*command)
        wait_for(lambda: list(tmp_path.glob(".out.h5.*")))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert not (tmp_path / "out.h5").exists()
        user.sfxflow(*command[1:])
        name = {"peaks": "peaks", "integration": "integrated"}[stage]
        assert os.listdir(tmp_path) == ["out.h5"]
        assert different_columns(tmp_path / "out.h5", by_hand / f"a_0.{name}.h5") == set()
        (tmp_path / "out.h5").unlink()


def test_truncated_integrated_file(raw, by_hand, tmp_path, capsys):
    whole = by_hand / "a_0.integrated.h5"
    broken = tmp_path / "0000.integrated.h5"
    broken.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    arguments = ("--dataset", "good", "--cell", raw / "demo.cell", *SPACE_GROUP, "--output", tmp_path / "merged.h5")
    assert main(["merging", "--integrated", str(whole), str(broken), *map(str, arguments)]) == 1
    message = capsys.readouterr().err
    assert str(broken) in message and str(whole) not in message
    assert "Traceback" not in message
    assert os.listdir(tmp_path) == ["0000.integrated.h5"]


def test_fewer_frames_than_the_table_says(raw, tmp_path, capsys):
    arguments = ("--frames", raw / "frames_01.h5", "--geometry", raw / "detector.geom", "--n-frames", 21)
    assert main(["peaks", *map(str, arguments), "--output", str(tmp_path / "p.h5")]) == 1
    message = capsys.readouterr().err
    assert f"{raw / 'frames_01.h5'}: holds 20 frames" in message and "runs.tsv says 21" in message
    assert not os.listdir(tmp_path)


# ---- the workflow


def wait_for(condition, seconds=60.0):
    """Wait until `condition()` is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited for too long"
        time.sleep(0.005)


def different_columns(one, other):
    """Names of the columns of two HDF5 files that differ; attributes hold names of inputs and are not compared."""
    with h5py.File(one) as first, h5py.File(other) as second:
        names, others = [], []
        first.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        second.visititems(lambda name, item: others.append(name) if isinstance(item, h5py.Dataset) else None)
        different = set(names) ^ set(others)
        for name in set(names) & set(others):
            if first[name].dtype == object:
                continue
            if not np.array_equal(first[name][()], second[name][()], equal_nan=True):
                different.add(name)
        return different


@pytest.fixture(scope="module")
def work(raw, init_folder):
    """Folder of a user with two good runs, to which runs that give nothing were added by hand."""
    files = ("--geometry", raw / "detector.geom", "--cell", raw / "demo.cell", *SPACE_GROUP, "--dataset", "good")
    user = init_folder("--data", raw / "frames_00.h5", "--data", raw / "frames_01.h5", *files)
    path = user.folder / "config/config.yaml"
    config = yaml.safe_load(path.read_text())
    config["datasets"]["nothing"] = {"cell": str(raw / "wrong.cell"), "space_group": "P41212"}
    config["chunk_size"] = 20
    path.write_text(yaml.safe_dump(config))
    table = user.folder / "config/runs.tsv"
    geometry = raw / "detector.geom"
    for run, dataset, frames, n_frames in (
        ("blanks", "nothing", "blanks/frames_00.h5", 6),
        ("wrong", "nothing", "frames_01.h5", 20),
    ):
        with table.open("a") as handle:
            handle.write(f"{run}\t{dataset}\t{raw / frames}\t{geometry}\t\t{n_frames}\n")
    return user


@pytest.fixture(scope="module")
def finished(work):
    """What was printed: after kill -9 of Snakemake the same command, --unlock, and the same command again."""
    process = work.start(*work.workflow)
    wait_for(lambda: list(work.folder.glob("results/builtin/runs/*/.*.part")))
    process.kill()
    process.communicate()
    status, refused = work.call(*work.workflow)
    return {
        "killed": process.returncode,
        "refused": (status, refused),
        "unlocked": work.call(*work.workflow, "--unlock"),
        "finished": work.call(*work.workflow),
    }


def test_snakemake_is_killed_and_called_again(finished):
    """It says that the folder is locked and how to go on; then the same command finishes the work."""
    assert finished["killed"] == -signal.SIGKILL
    status, text = finished["refused"]
    assert status != 0 and "--unlock" in text and "Traceback" not in text
    assert finished["unlocked"][0] == 0
    status, text = finished["finished"]
    assert status == 0, text


def test_the_terminal_says_what_is_wrong(finished):
    """Exit status 0 and a page that nobody opens would hide that a cell does not fit."""
    text = finished["finished"][1].splitlines()
    assert any(line.startswith("results/report/index.html: 4 runs, 2 datasets") for line in text)
    warnings = [line for line in text if line.startswith("WARNING: ")]
    assert any("run wrong: The cell 58.4 58.4 152.3 90 90 90 does not fit" in line for line in warnings)
    assert any("blanks" in line for line in warnings)


def test_all_results_of_every_dataset_are_there(work, finished):
    for dataset in ("good", "nothing"):
        for name in ("merged.mtz", "unmerged.mtz", "merged.hkl", "half1.hkl", "half2.hkl"):
            work.result(f"builtin/merged/builtin/{dataset}/{name}")
        for name in ("merged.h5", "figures_of_merit.json", "figures_of_merit.tsv"):
            work.result(f"builtin/merged/builtin/{dataset}/{name}")
    work.result("report/index.html")
    assert not [name for name in work.folder.glob("logs/**/*.log") if "Traceback" in name.read_text()]


def test_the_workflow_does_what_the_commands_do(work, finished, by_hand):
    assert different_columns(work.result("builtin/merged/builtin/good/merged.h5"), by_hand / "merged.h5") == set()


def test_frames_of_every_run_are_accounted_for(work, finished):
    counts = {}
    for run in ("frames_00", "frames_01", "blanks", "wrong"):
        frames, _ = read_frame_account(work.result(f"builtin/runs/{run}/frames.tsv"))
        counts[run] = {status.name: frames["status"].count(status) for status in Status}
    assert [sum(count.values()) for count in counts.values()] == [40, 20, 6, 20]
    assert counts["blanks"] == {"failed": 0, "blank": 6, "hit": 0, "indexed": 0}
    assert counts["wrong"]["indexed"] == 0 and counts["wrong"]["hit"] > 10


def test_loud_warnings(work, finished):
    page = work.result("report/index.html").read_text()
    assert "WARNING: the cell 58.4 58.4 152.3 90 90 90 does not fit" in work.log("builtin/runs/wrong/0000.indexed.log")
    assert "does not fit" in page
    assert "WARNING: nothing was merged" in work.log("builtin/merged/builtin/nothing/merged.log")
    figures = json.loads(work.result("builtin/merged/builtin/nothing/figures_of_merit.json").read_text())
    assert figures["overall"]["n_reflections"] == 0 and figures["remarks"]


def test_then_there_is_nothing_to_be_done(work, finished):
    assert "Nothing to be done" in work.snakemake()


def test_the_number_of_frames_is_no_longer_true(work, finished, raw, tmp_path):
    """A file that grew: the job fails with a message that names the file and the table, and nothing is written."""
    user = type(work)(tmp_path / "work")
    shutil.copytree(work.folder / "config", user.folder / "config")
    shutil.copytree(work.folder / "profiles", user.folder / "profiles")
    (user.folder / "local").symlink_to("profiles/local")
    table = user.folder / "config/runs.tsv"
    rows = [line for line in table.read_text().splitlines() if line.startswith(("run\t", "blanks\t"))]
    table.write_text("\n".join(rows)[:-1] + "7\n")
    status, text = user.call(*user.workflow)
    assert status != 0
    assert str(raw / "blanks/frames_00.h5") in text and "runs.tsv says 7" in text
    assert "Traceback" not in text
    assert not list(Path(user.folder).glob("results/**/*.h5"))
