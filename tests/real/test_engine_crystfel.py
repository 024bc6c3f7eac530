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

from sfxflow import cli
from sfxflow.io.frame_account import read_frame_account
from sfxflow.io.merged import read_merged
from sfxflow.io.stream_reader import read_stream
from sfxflow.io.table import open_chunk, read_rows
from sfxflow.reflections import Status

pytestmark = [pytest.mark.crystfel, pytest.mark.long]

RUN = "crystfel/runs/run1"
CHUNKS = ("0000", "0001", "0002", "0003")
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
    config |= {"engines": ["crystfel"], "mergers": list(MERGERS), "peaks": PEAKS, "chunk_size": 76}
    # The model that takes seconds, not minutes.
    config["partialator"] = {"model": "unity"}
    path.write_text(yaml.safe_dump(config))
    return work


@pytest.fixture(scope="module")
def peaks(work):
    """Peak files, made as targets of their own."""
    text = work.snakemake(*(f"results/{RUN}/{chunk}.peaks.h5" for chunk in CHUNKS))
    assert "crystfel_indexing" not in text
    return [work.result(f"{RUN}/{chunk}.peaks.h5") for chunk in CHUNKS]


@pytest.fixture(scope="module")
def processed(work, peaks):
    """The workflow to its end, in steps of minutes; the peaks are not searched for again."""
    before = [path.stat().st_mtime_ns for path in peaks]
    for chunk in CHUNKS:
        assert "crystfel_peaks" not in work.snakemake(f"results/{RUN}/{chunk}.integrated.h5")
    for merger in MERGERS:
        work.snakemake(f"results/crystfel/merged/{merger}/lyso/merged.h5")
    work.snakemake()
    assert [path.stat().st_mtime_ns for path in peaks] == before
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
    n = 0
    for path in peaks:
        with open_chunk(path) as handle:
            frames = read_rows(handle["frames"])
        for file, event, status in zip(frames["file"], frames["event"], frames["status"], strict=True):
            assert status == (Status.blank if true[Path(file).name, event] == "blank" else Status.hit)
            n += 1
    assert n == 301


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
    n_peaks = 0
    for chunk in CHUNKS:
        with open_chunk(processed.result(f"{RUN}/{chunk}.peaks.h5")) as handle:
            frames = read_rows(handle["frames"])
            x, n = handle["entry_1/result_1/peakXPosRaw"][()], handle["entry_1/result_1/nPeaks"][()]
        names = zip(frames["file"], frames["event"], strict=True)
        row = {(os.path.abspath(file), event): i for i, (file, event) in enumerate(names)}
        for frame in read_stream(processed.result(f"{RUN}/{chunk}.stream")):
            i = row[frame.file, frame.event]
            # A stream has two decimals.
            np.testing.assert_allclose(frame.peaks.fs, x[i, : n[i]] + 0.5, atol=0.0051)
            n_peaks += len(frame.peaks.fs)
    assert n_peaks > 10000


def test_the_table_holds_what_the_stream_holds(processed):
    n_crystals = n_reflections = 0
    for chunk in CHUNKS:
        with open_chunk(processed.result(f"{RUN}/{chunk}.integrated.h5")) as handle:
            intensity = handle["reflections/I"][()]
            n_crystals += len(handle["crystals/frame"])
        of_stream = [c for frame in read_stream(processed.result(f"{RUN}/{chunk}.stream")) for c in frame.crystals]
        theirs = np.concatenate([crystal.values[:, 0] for crystal in of_stream])
        np.testing.assert_allclose(np.sort(theirs), np.sort(intensity), rtol=1e-6, atol=0.006)
        n_reflections += len(theirs)
    assert n_crystals == 251
    # One run that searches and indexes at once gives 60817.
    assert abs(n_reflections - 60817) < 600


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


def test_panels_in_planes_of_their_own(work, shared_data, tmp_path):
    """As detectors at XFELs write them: fs and ss alone do not say which panel a peak is on."""
    source = shared_data / "data/crystfel_sim"
    with h5py.File(one_file(shared_data)) as handle, h5py.File(tmp_path / "stack.h5", "w") as stack:
        stack["/entry/data/data"] = handle["/entry/data/data"][:6].reshape(6, 8, 512, 512)
    with h5py.File(source / "mask.h5") as handle, h5py.File(tmp_path / "mask.h5", "w") as stack:
        stack["/mask"] = handle["/mask"][()].reshape(8, 512, 512)
    lines = []
    for line in (source / "det.geom").read_text().splitlines():
        key, _, value = (part.strip() for part in line.partition("="))
        name, _, what = key.rpartition("/")
        if key == "photon_energy":
            line = "photon_energy = 9500 eV"
        elif what in ("min_ss", "max_ss"):
            line = f"{key} = {int(value) % 512}"
            lines += [f"{name}/dim1 = {int(value) // 512}"] if what == "min_ss" else []
        elif key.startswith("dim"):
            line = {"dim0": line, "dim1": "dim2 = ss", "dim2": "dim3 = fs"}[key]
        lines.append(line)
    (tmp_path / "det.geom").write_text("\n".join(lines) + "\n")
    search = peak_search(shared_data, one_file(shared_data), tmp_path / "slab.h5", "--count", "6")
    work.sfxflow(*search)
    crystal = ("--cell", source / "lyso.cell", "--space-group", "P43212")
    again = [*search[:1], "--frames", tmp_path / "stack.h5", "--geometry", tmp_path / "det.geom", *search[5:-2]]
    again[again.index(str(tmp_path / "slab.h5"))] = tmp_path / "peaks.h5"
    work.sfxflow(*again)
    with h5py.File(tmp_path / "slab.h5") as slab, h5py.File(tmp_path / "peaks.h5") as stack:
        for name in ("nPeaks", "peakXPosRaw", "peakYPosRaw", "peakPanel"):
            np.testing.assert_array_equal(slab[f"entry_1/result_1/{name}"][()], stack[f"entry_1/result_1/{name}"][()])
    frames = ("--frames", tmp_path / "stack.h5", "--geometry", tmp_path / "det.geom")
    text = work.sfxflow(
        "crystfel_indexing", "--peaks", tmp_path / "peaks.h5", *frames, *crystal, "--output", tmp_path / "i.h5"
    )
    with open_chunk(tmp_path / "i.h5") as handle:
        status = handle["frames/status"][()]
    assert (status == Status.indexed).sum() >= 5, text
    assert not (status == Status.hit).any()


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
        *("crystfel_indexing", "--peaks", peaks[0], "--frames", data / "run1_*.h5", "--geometry", data / "det.geom"),
        *("--cell", data / "lyso.cell", "--space-group", "P43212", "--output", tmp_path / "integrated.h5"),
        *("--count", "76", "--settings", '{"crystfel": {"indexing": "nosuchmethod"}}'),
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


def test_nxmx_frames_that_bitshuffle_compressed(tmp_path):
    """CrystFEL has no filter for them, and the geometry no gain: both come from sfxflow."""
    arguments = [
        "--preset",
        "demo",
        "--n-frames",
        "12",
        "--seed",
        "41",
        "--format",
        "nxmx",
        "--compression",
        "bitshuffle",
    ]
    assert cli.main(["simulate", *arguments, "--output", str(tmp_path)]) == 0
    master = str(tmp_path / "frames_master.h5")
    frames = ["--frames", master, "--geometry", master]
    peaks, integrated, stream, merged = (str(tmp_path / name) for name in ("p.h5", "i.h5", "all.stream", "m.h5"))
    settings = ["--settings", '{"peaks": {"threshold": 20}}']
    assert cli.main(["crystfel_peaks", *frames, *settings, "--output", peaks]) == 0
    crystal = ["--cell", str(tmp_path / "demo.cell"), "--space-group", "P43212"]
    assert cli.main(["crystfel_indexing", "--peaks", peaks, *frames, *crystal, "--output", integrated]) == 0
    kinds = [line.split("\t") for line in (tmp_path / "truth.tsv").read_text().splitlines() if line[0] != "#"]
    single = [row[kinds[0].index("kind")] == "single" for row in kinds[1:]]
    with h5py.File(integrated) as handle:
        assert [status == Status.indexed for status in handle["frames/status"]] == single
        assert handle.attrs["gain_from"].endswith("estimated from frame 0")
    # The stream of such files opens in CrystFEL's mergers too.
    assert cli.main(["stream", "--integrated", integrated, "--geometry", master, *crystal, "--output", stream]) == 0
    given = ["--stream", stream, "--integrated", integrated, "--dataset", "demo", *crystal]
    assert cli.main(["process_hkl", *given, "--output", merged]) == 0
    assert len(read_merged(merged)[0]["I"]) > 100
