"""Engine crystfel with CrystFEL itself, on frames that CrystFEL's own simulator made: what it finds, and that it fails aloud."""

import csv
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml

from sfxflow.io.frame_account import read_frame_account
from sfxflow.io.merged import read_merged
from sfxflow.io.stream_reader import read_stream
from sfxflow.io.table import open_chunk, read_rows
from sfxflow.reflections import Status

pytestmark = pytest.mark.crystfel

RUN = "crystfel/runs/run1"
MERGERS = ("builtin", "partialator", "process_hkl")
#: Frames of so few photons need a threshold: peakfinder8 of CrystFEL takes the noise for peaks without one.
PEAKS = {"threshold": 4, "max_pix_count": 60, "local_bg_radius": 4}
#: A command in which a run of indexamajig writes its stream to a disk that is full.
FULL_DISK = (
    "import sys; from sfxflow.cli import crystfel_job, main; crystfel_job._STREAM = '/dev/full'; sys.exit(main())"
)


@pytest.fixture(scope="module")
def work(shared_data, init_folder):
    """The experiment as a user sets it up, with engine crystfel and all mergers that take its stream; nothing is processed."""
    data = shared_data / "data/crystfel_sim"
    work = init_folder(
        *("--data", data / "run1_*.h5", "--geometry", data / "det.geom"),
        *("--cell", data / "lyso.cell", "--space-group", "P43212", "--d-min", "2.0"),
    )
    path = work.folder / "config/config.yaml"
    config = yaml.safe_load(path.read_text())
    config |= {"engines": ["crystfel"], "mergers": list(MERGERS), "peaks": PEAKS}
    path.write_text(yaml.safe_dump(config))
    return work


@pytest.fixture(scope="module")
def peaks(work):
    """Peak file, made as a target of its own."""
    text = work.snakemake(f"results/{RUN}/0000.peaks.h5")
    assert "crystfel_indexing" not in text
    return work.result(f"{RUN}/0000.peaks.h5")


@pytest.fixture(scope="module")
def processed(work, peaks):
    """The workflow to its end; the peaks are not searched for again."""
    before = peaks.stat().st_mtime_ns
    work.snakemake()
    assert peaks.stat().st_mtime_ns == before
    return work


def one_file(shared_data):
    return shared_data / "data/crystfel_sim/run1_01.h5"


def peak_search(shared_data, frames, output, *more):
    geometry = shared_data / "data/crystfel_sim/det.geom"
    arguments = ["crystfel_peaks", "--frames", frames, "--geometry", geometry, "--threads", "2", "--output", output]
    return [str(argument) for argument in (*arguments, "--settings", json.dumps({"peaks": PEAKS}), *more)]


# ---- what it finds


def test_hits_and_blanks_are_those_of_the_truth(peaks, shared_data):
    with open(shared_data / "data/crystfel_sim/truth_frames.tsv", newline="") as handle:
        true = {(row["file"], row["event"]): row["kind"] for row in csv.DictReader(handle, delimiter="\t")}
    with open_chunk(peaks) as handle:
        frames = read_rows(handle["frames"])
    for file, event, status in zip(frames["file"], frames["event"], frames["status"], strict=True):
        assert status == (Status.blank if true[Path(file).name, event] == "blank" else Status.hit)


def test_all_hits_are_indexed_and_every_frame_is_accounted_for(processed):
    frames, _ = read_frame_account(processed.result(f"{RUN}/frames.tsv"))
    assert len(frames["frame"]) == 301
    counts = np.bincount(
        [Status[status] if isinstance(status, str) else status for status in frames["status"]], minlength=4
    )
    assert counts[Status.indexed] == 251
    assert counts[Status.blank] == 50


def test_the_peaks_that_indexing_reads_are_those_of_the_search(processed):
    """indexamajig counts from pixel corners, CXI from pixel centres: a mistake of half a pixel shows in the peaks of its stream."""
    with open_chunk(processed.result(f"{RUN}/0000.peaks.h5")) as handle:
        frames = read_rows(handle["frames"])
        x, n = handle["entry_1/result_1/peakXPosRaw"][()], handle["entry_1/result_1/nPeaks"][()]
    row = {
        (os.path.abspath(file), event): i
        for i, (file, event) in enumerate(zip(frames["file"], frames["event"], strict=True))
    }
    n_peaks = 0
    for frame in read_stream(processed.result(f"{RUN}/0000.stream")):
        i = row[frame.file, frame.event]
        # A stream has two decimals.
        np.testing.assert_allclose(frame.peaks.fs, x[i, : n[i]] + 0.5, atol=0.0051)
        n_peaks += len(frame.peaks.fs)
    assert n_peaks > 10000


def test_the_table_holds_what_the_stream_holds(processed):
    with open_chunk(processed.result(f"{RUN}/0000.integrated.h5")) as handle:
        owner = handle["reflections/crystal"][()]
        intensity = handle["reflections/I"][()]
        n_crystals = len(handle["crystals/frame"])
    of_stream = [c for frame in read_stream(processed.result(f"{RUN}/0000.stream")) for c in frame.crystals]
    assert len(of_stream) == n_crystals == 251
    assert sum(len(crystal.hkl) for crystal in of_stream) == len(owner) > 50000
    np.testing.assert_allclose(
        np.sort(np.concatenate([c.values[:, 0] for c in of_stream])), np.sort(intensity), rtol=1e-6, atol=0.006
    )


@pytest.mark.parametrize("merger", MERGERS)
def test_merged_by(processed, merger):
    merged, crystals, _, attrs = read_merged(processed.result(f"crystfel/merged/{merger}/lyso/merged.h5"))
    assert len(crystals["status"]) == 251
    assert len(merged["I"]) > 2000
    assert np.isfinite(merged["I_half1"]).sum() > 500
    assert attrs["space_group"] == "P 43 21 2"
    processed.result(f"crystfel/merged/{merger}/lyso/merged.mtz")
    processed.result(f"crystfel/merged/{merger}/lyso/figures_of_merit.json")


def test_partialator_judges_as_in_its_own_lists(processed, shared_data, tmp_path):
    """The half sets in the merged file are what partialator wrote: compare_hkl finds the same Rsplit in the lists that export writes."""
    folder = processed.folder / "results/crystfel/merged/partialator/lyso"
    cell = shared_data / "data/crystfel_sim/lyso.cell"
    ours = tmp_path / "ours"
    processed.sfxflow(
        *(
            "figures_of_merit",
            "--hkl",
            folder / "merged.hkl",
            "--half1",
            folder / "half1.hkl",
            "--half2",
            folder / "half2.hkl",
        ),
        *("--cell", cell, "--json", tmp_path / "f.json", "--tsv", tmp_path / "f.tsv", "--crystfel-tables", ours),
    )
    for figure in ("Rsplit", "CC", "CCstar"):
        table = tmp_path / f"{figure}.dat"
        status, text = processed.call(
            *("compare_hkl", folder / "half1.hkl", folder / "half2.hkl", "-y", "4/mmm", "-p", cell),
            *(f"--fom={figure}", "--nshells=10", f"--shell-file={table}"),
        )
        assert status == 0, text
        assert table.read_text().split() == (ours / f"{figure}.dat").read_text().split()
    table = tmp_path / "check.dat"
    status, text = processed.call(
        *("check_hkl", folder / "merged.hkl", "-y", "4/mmm", "-p", cell, "--nshells=10", f"--shell-file={table}")
    )
    assert status == 0, text
    assert table.read_text().split() == (ours / "check.dat").read_text().split()


# ---- it fails aloud: each of these ends indexamajig with status 0


def test_a_corrupt_part_of_a_file(work, shared_data, tmp_path):
    """Of 12 frames one is lost, and named."""
    broken = tmp_path / "broken.h5"
    shutil.copy(one_file(shared_data), broken)
    with h5py.File(broken) as handle:
        chunk = handle["/entry/data/data"].id.get_chunk_info_by_coord((7, 0, 0))
        place, size = chunk.byte_offset, chunk.size
    with open(broken, "r+b") as handle:
        handle.seek(place + size // 3)
        handle.write(b"\xff" * (size // 3))
    output = tmp_path / "peaks.h5"
    text = work.sfxflow(*peak_search(shared_data, broken, output, "--count", "12"))
    assert "1 failed" in text
    with open_chunk(output) as handle:
        frames = read_rows(handle["frames"])
    assert np.flatnonzero(frames["status"] == Status.failed).tolist() == [7]
    assert frames["message"][7] == "indexamajig wrote nothing about this frame"


def test_a_bad_file_among_good_ones(work, shared_data, tmp_path):
    """Files of one frame each, of which one is cut short: the others are searched."""
    with h5py.File(one_file(shared_data)) as handle:
        data = handle["/entry/data/data"][:4]
    for i in range(4):
        with h5py.File(tmp_path / f"f{i}.h5", "w") as handle:
            handle["/entry/data/data"] = data[i]
            handle["/entry/instrument/photon_energy_eV"] = 9500.0
    with open(tmp_path / "f2.h5", "r+b") as handle:
        handle.truncate(3000)
    source = shared_data / "data/crystfel_sim"
    shutil.copy(source / "mask.h5", tmp_path)
    lines = (source / "det.geom").read_text().splitlines()
    lines = [line.replace("dim1", "dim0").replace("dim2", "dim1") for line in lines if "dim0" not in line]
    (tmp_path / "det.geom").write_text("\n".join(lines) + "\n")
    output = tmp_path / "peaks.h5"
    work.sfxflow(
        "crystfel_peaks", "--frames", f"{tmp_path}/f?.h5", "--geometry", tmp_path / "det.geom", "--output", output
    )
    with open_chunk(output) as handle:
        frames = read_rows(handle["frames"])
    assert np.flatnonzero(frames["status"] == Status.failed).tolist() == [2]
    assert "f2.h5" in frames["message"][2]


def test_a_full_disk(work, shared_data, tmp_path):
    arguments = peak_search(shared_data, one_file(shared_data), tmp_path / "peaks.h5", "--count", "8")
    status, text = work.call(sys.executable, "-c", FULL_DISK, *arguments)
    assert status == 1
    assert "says it has processed 8 frames, but 0 begin and 0 end in its stream: output was lost" in text
    assert not (tmp_path / "peaks.h5").exists()


def test_a_method_that_is_not_installed(work, peaks, shared_data, tmp_path):
    data = shared_data / "data/crystfel_sim"
    text = work.refused(
        *("crystfel_indexing", "--peaks", peaks, "--frames", data / "run1_*.h5", "--geometry", data / "det.geom"),
        *("--cell", data / "lyso.cell", "--space-group", "P43212", "--output", tmp_path / "integrated.h5"),
        *("--settings", '{"crystfel": {"indexing": "nosuchmethod"}}'),
    )
    assert "indexamajig: ended with status 1" in text
    assert "Bad list of indexing methods: 'nosuchmethod'" in text


def workers(parent):
    """indexamajig's processes below a process: (main one, its workers)."""
    children = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                number, _, rest = (entry / "stat").read_text().partition(" (")
                name, _, fields = rest.rpartition(") ")
            except OSError:
                continue
            if name == "indexamajig" and fields[0] != "Z":
                children.setdefault(int(fields.split()[1]), []).append(int(number))
    for main in children.get(parent, []):
        if children.get(main):
            return main, children[main]
    return None, []


def started(work, shared_data, output):
    """A peak search of 50 frames, its indexamajig and that one's workers, some frames after its start."""
    process = work.start(
        "sfxflow", *peak_search(shared_data, one_file(shared_data), output, "--program-log", output.with_suffix(".log"))
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        main, found = workers(process.pid)
        if found:
            time.sleep(0.5)
            main, found = workers(process.pid)
            if found:
                return process, main, found
        time.sleep(0.02)
    process.kill()
    raise AssertionError("indexamajig did not start")


def test_a_worker_that_is_killed(work, shared_data, tmp_path):
    """indexamajig starts another and goes on; the frame that it had is lost, and named."""
    output = tmp_path / "peaks.h5"
    process, _, found = started(work, shared_data, output)
    os.kill(found[0], signal.SIGKILL)
    text, _ = process.communicate(timeout=300)
    assert process.returncode == 0, text
    with open_chunk(output) as handle:
        frames = read_rows(handle["frames"])
    lost = np.flatnonzero(frames["status"] == Status.failed)
    assert len(lost) == 1
    assert frames["message"][lost[0]] == "indexamajig's worker was killed by signal 9"
    assert "1 failed" in text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_nothing_goes_on_when_the_job_is_stopped(work, shared_data, tmp_path, number):
    process, main, found = started(work, shared_data, tmp_path / "peaks.h5")
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)
    deadline = time.monotonic() + 30
    left = [main, *found]
    while time.monotonic() < deadline and left:
        left = [
            pid
            for pid in left
            if Path(f"/proc/{pid}/stat").exists() and ") Z " not in Path(f"/proc/{pid}/stat").read_text()
        ]
        time.sleep(0.1)
    assert not left
    time.sleep(0.3)
    assert not [name for name in os.listdir("/dev/shm") if str(main) in name]
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".log"]
