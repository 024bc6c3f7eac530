"""`sfxflow peaks`: every frame accounted for, whatever happens to some of them."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from sfxflow.cli import main
from sfxflow.io.peaks import read_peaks
from sfxflow.io.table import open_chunk, read_rows
from sfxflow.reflections import Status

DATA = "/entry_1/data_1/data"


def read(path):
    with open_chunk(path) as handle:
        return read_rows(handle["frames"]), read_peaks(handle)


def positions(peaks):
    return sorted(zip(np.round(peaks["fs"], 2), np.round(peaks["ss"], 2), strict=True))


def copy_of(demo, tmp_path):
    shutil.copy(demo.frames, tmp_path / "frames.h5")
    return str(tmp_path / "frames.h5")


def corrupt(path, frames):
    """Overwrite the middle of the compressed chunks of some frames."""
    with h5py.File(path) as handle:
        stored = [handle[DATA].id.get_chunk_info_by_coord((i, 0, 0)) for i in frames]
    with open(path, "r+b") as handle:
        for chunk in stored:
            handle.seek(chunk.byte_offset + chunk.size // 3)
            handle.write(b"\xff" * (chunk.size // 3))


def run_on(demo, frames, output, *more, geometry=None):
    arguments = demo.arguments("peaks", None, output, *more)
    arguments[arguments.index("--frames") + 1] = str(frames)
    if geometry:
        arguments[arguments.index("--geometry") + 1] = str(geometry)
    return main(arguments)


def test_every_frame_is_accounted_for(demo):
    rows, peaks = read(demo.peaks)
    truth = pd.read_csv(demo.folder / "truth.tsv", sep="\t", comment="#").drop_duplicates("frame").set_index("frame")
    assert list(rows["frame"]) == list(range(20)) == list(truth.index)
    assert rows["event"] == [f"//{i}" for i in range(20)] and set(rows["file"]) == {demo.frames}
    assert list(rows["n_peaks"]) == [len(found) for found in peaks]
    hits = rows["status"] == Status.hit
    assert np.all(hits == (rows["n_peaks"] >= 15)) and np.all(hits | (rows["status"] == Status.blank))
    assert not np.any(hits & (truth["kind"] == "blank").to_numpy())
    assert hits.sum() >= 0.8 * (truth["kind"] != "blank").sum()
    np.testing.assert_allclose(rows["photon_energy"], truth["photon_energy_eV"], atol=1e-3)
    np.testing.assert_allclose(rows["clen"], 0.107)
    with h5py.File(demo.peaks) as handle:
        provenance = json.loads(handle.attrs["provenance"])
    assert provenance["settings"]["min_snr"] == 4.0
    assert {os.path.basename(entry["name"]) for entry in provenance["inputs"]} == {"frames_00.h5", "detector.geom"}


def test_two_threads_give_the_same_file(demo, tmp_path):
    demo.ok("peaks", None, tmp_path / "two.h5", "--threads", "2")
    (rows, peaks), (same_rows, same_peaks) = read(demo.peaks), read(tmp_path / "two.h5")
    for name, values in rows.items():
        np.testing.assert_array_equal(values, same_rows[name])
    for found, same in zip(peaks, same_peaks, strict=True):
        np.testing.assert_array_equal(found, same)


def test_parts_of_a_run_make_the_whole(demo, tmp_path):
    _, peaks = read(demo.peaks)
    demo.ok("peaks", None, tmp_path / "a.h5", "--count", "7", "--n-frames", "20")
    demo.ok("peaks", None, tmp_path / "b.h5", "--first", "7", "--n-frames", "20")
    parts = [read(tmp_path / name) for name in ("a.h5", "b.h5")]
    assert [len(part[1]) for part in parts] == [7, 13]
    assert np.concatenate([part[0]["frame"] for part in parts]).tolist() == list(range(20))
    for found, same in zip(peaks, parts[0][1] + parts[1][1], strict=True):
        np.testing.assert_array_equal(found, same)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_corrupt_chunk_is_one_failed_frame(demo, tmp_path, threads, capsys):
    frames = copy_of(demo, tmp_path)
    corrupt(frames, [9])
    assert run_on(demo, frames, tmp_path / "p.h5", "--threads", threads) == 0
    (rows, peaks), (_, whole) = read(tmp_path / "p.h5"), read(demo.peaks)
    assert np.flatnonzero(rows["status"] == Status.failed).tolist() == [9]
    assert "frames.h5" in rows["message"][9] and "//9" in rows["message"][9] and len(peaks[9]) == 0
    assert np.isnan(rows["photon_energy"][9])
    assert all(not text for i, text in enumerate(rows["message"]) if i != 9)
    for i in set(range(20)) - {9}:
        np.testing.assert_array_equal(peaks[i], whole[i])
    assert ", 1 failed" in capsys.readouterr().err


def test_too_many_failed_frames_fail_the_job(demo, tmp_path, capsys):
    frames = copy_of(demo, tmp_path)
    corrupt(frames, [3, 4, 9])
    settings = '{"max_bad_frames": 0.1}'
    assert run_on(demo, frames, tmp_path / "p.h5", "--settings", settings) == 1
    message = capsys.readouterr().err
    assert "3 of 20 frames failed (max_bad_frames: 0.1)" in message and "//3" in message
    assert [path.name for path in tmp_path.iterdir()] == ["frames.h5"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--n-frames", "21"], "holds 20 frames, but the runs table"),
        (["--first", "15", "--count", "6"], "frames 15 to 20 are wanted, but"),
        (["--first", "20"], "holds frames 0 to 19"),
        (["--settings", '{"min_srn": 5}'], "peaks.min_srn: no such setting; did you mean min_snr?"),
        (["--settings", '{"min_snr": -1}'], "peaks.min_snr: -1.0 is below 0"),
        (["--settings", '{"min_snr": "five"}'], "peaks.min_snr: 'five' is not a number"),
        (["--settings", '{"min_peaks": 2.5}'], "peaks.min_peaks: 2.5 is not a whole number"),
        (["--settings", '{"max_bad_frames": 1.5}'], "peaks.max_bad_frames: 1.5 is above 1"),
        (["--settings", "{min_snr: 5}"], "--settings: not JSON"),
        (["--settings", "[1]"], "a JSON object with the stage's settings is expected"),
        (["--mask", "none.h5"], "none.h5"),
    ],
)
def test_bad_options_are_told_and_leave_nothing(demo, tmp_path, capsys, options, message):
    assert demo.run("peaks", None, tmp_path / "p.h5", *options) == 1
    said = capsys.readouterr().err
    assert message in said and said.startswith("sfxflow peaks: ") and "Traceback" not in said
    assert not list(tmp_path.iterdir())


def test_geometry_of_another_detector(demo, tmp_path, capsys):
    geometry = tmp_path / "large.geom"
    text = Path(demo.geometry).read_text().replace("p7/max_ss = 2047", "p7/max_ss = 2060")
    assert "2060" in text
    geometry.write_text(text)
    assert run_on(demo, demo.frames, tmp_path / "p.h5", geometry=geometry) == 1
    said = capsys.readouterr().err
    assert "2048" in said and "2061" in said and not (tmp_path / "p.h5").exists()


def test_no_hits_make_a_valid_file(demo, tmp_path, capsys):
    demo.ok("peaks", None, tmp_path / "p.h5", "--settings", '{"min_peaks": 1000}')
    rows, _ = read(tmp_path / "p.h5")
    assert np.all(rows["status"] == Status.blank)
    assert "20 frames: 0 hits, 20 blanks, 0 failed" in capsys.readouterr().err


def with_data(demo, tmp_path, change, dtype=None):
    """A copy of the demo's frames with other pixels."""
    path = str(tmp_path / "changed.h5")
    with h5py.File(demo.frames) as source, h5py.File(path, "w") as target:
        data = source[DATA][()]
        target[DATA] = change(data.astype(dtype or data.dtype))
        for name in ("/entry_1/instrument_1/source_1/photon_energy_eV", "/entry_1/data_1/mask"):
            target[name] = source[name][()]
    return path


def outside(peaks, rows, columns):
    """Peaks outside a rectangle of the slab."""
    inside = (peaks["ss"] > rows[0] - 8) & (peaks["ss"] < rows[1] + 8)
    inside &= (peaks["fs"] > columns[0] - 8) & (peaks["fs"] < columns[1] + 8)
    return peaks[~inside]


@pytest.mark.parametrize(
    ("dtype", "value"), [("float32", np.nan), ("float32", np.inf), ("int16", -30), ("float32", -7.5)]
)
def test_nan_and_negative_pixels(demo, tmp_path, dtype, value):
    """A rectangle of bad values: no peak in it, and nearly the same peaks elsewhere."""
    rows, columns = (300, 330), (100, 140)

    def change(data):
        data[:, rows[0] : rows[1], columns[0] : columns[1]] = value
        return data

    assert run_on(demo, with_data(demo, tmp_path, change, dtype), tmp_path / "p.h5") == 0
    (table, peaks), (_, whole) = read(tmp_path / "p.h5"), read(demo.peaks)
    assert not np.any(table["status"] == Status.failed)
    for found, before in zip(peaks, whole, strict=True):
        inside = (
            (found["ss"] > rows[0]) & (found["ss"] < rows[1]) & (found["fs"] > columns[0]) & (found["fs"] < columns[1])
        )
        assert not inside.any()
        kept, expected = set(positions(outside(found, rows, columns))), set(positions(outside(before, rows, columns)))
        assert len(kept ^ expected) <= 0.1 * len(expected) + 2


def test_frames_of_nothing_but_nan_are_blanks(demo, tmp_path):
    def change(data):
        data[5] = np.nan
        return data

    assert run_on(demo, with_data(demo, tmp_path, change, "float32"), tmp_path / "p.h5") == 0
    rows, peaks = read(tmp_path / "p.h5")
    assert rows["status"][5] == Status.blank and len(peaks[5]) == 0


def test_saturated_peaks_are_kept_or_left_out(demo, tmp_path):
    def change(data):
        data[:, 100:102, 200:203] = 31000
        return data

    frames = with_data(demo, tmp_path, change)
    assert run_on(demo, frames, tmp_path / "kept.h5") == 0
    assert run_on(demo, frames, tmp_path / "out.h5", "--settings", '{"use_saturated": false}') == 0
    for found in read(tmp_path / "kept.h5")[1]:
        near = found[(np.abs(found["fs"] - 201.5) < 1) & (np.abs(found["ss"] - 101) < 1)]
        assert len(near) == 1 and near["saturated"][0]
    for found in read(tmp_path / "out.h5")[1]:
        assert not found["saturated"].any()


def test_camera_length_of_each_frame(demo, tmp_path):
    """A length in mm beside the frames; one frame has none that is possible."""
    frames = copy_of(demo, tmp_path)
    lengths = np.full(20, 107.0)
    lengths[4], lengths[6] = 130.0, np.nan
    with h5py.File(frames, "a") as handle:
        handle["/detector/distance"] = lengths
    geometry = tmp_path / "per_event.geom"
    geometry.write_text(Path(demo.geometry).read_text().replace("clen = 0.107 m", "clen = /detector/distance mm"))
    for threads in (1, 2):
        assert run_on(demo, frames, tmp_path / f"p{threads}.h5", "--threads", threads, geometry=geometry) == 0
    (rows, peaks), (_, whole) = read(tmp_path / "p1.h5"), read(demo.peaks)
    np.testing.assert_allclose(rows["clen"], lengths / 1000)
    assert np.flatnonzero(rows["status"] == Status.failed).tolist() == [6]
    assert "camera length" in rows["message"][6]
    for found, before in zip(peaks[7:], whole[7:], strict=True):
        # Radial bins of another sample of the pixels: a few weak peaks differ.
        assert len(set(positions(found)) ^ set(positions(before))) <= 0.1 * len(before) + 3
    # Which process met the odd frame first makes no difference.
    for found, same in zip(peaks, read(tmp_path / "p2.h5")[1], strict=True):
        np.testing.assert_array_equal(found, same)


def test_a_killed_worker_ends_the_job(demo, repeated, tmp_path):
    demo.frames, kept = repeated(10), demo.frames
    try:
        child = demo.child("peaks", None, tmp_path / "p.h5", "--threads", "2")
    finally:
        demo.frames = kept
    workers = []
    while len(workers) < 2:
        assert child.poll() is None
        with open(f"/proc/{child.pid}/task/{child.pid}/children") as handle:
            workers = [int(word) for word in handle.read().split()]
        time.sleep(0.01)
    os.kill(workers[0], signal.SIGKILL)
    said, _ = child.communicate(timeout=60)
    assert child.returncode == 1
    assert "sfxflow peaks: a worker process died (killed, or out of memory)" in said and "Traceback" not in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["frames_10.h5"]
    assert not any(os.path.exists(f"/proc/{pid}") for pid in workers)


def test_a_killed_job_leaves_no_half_file_and_runs_again(demo, repeated, tmp_path):
    demo.frames, kept = repeated(10), demo.frames
    try:
        child = demo.child("peaks", None, tmp_path / "p.h5")
    finally:
        demo.frames = kept
    while not list(tmp_path.glob(".p.h5.*.part")):
        assert child.poll() is None
        time.sleep(0.01)
    child.kill()
    child.communicate()
    assert not (tmp_path / "p.h5").exists()
    demo.ok("peaks", None, tmp_path / "p.h5")
    assert len(read(tmp_path / "p.h5")[1]) == 20


#: Starts a command and says its peak of memory, in kB. Started from here, the command's peak would not be below that of this process.
PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_chunk(demo, repeated, tmp_path):
    """20 and 120 frames of 2 MB, in one process: the same peak of memory within 40 MB, and below 1 GB."""
    used = []
    for times in (1, 6):
        arguments = demo.arguments("peaks", None, tmp_path / f"{times}.h5")
        arguments[arguments.index("--frames") + 1] = repeated(times)
        command = [sys.executable, "-c", "import sys; from sfxflow.cli import main; sys.exit(main())", *arguments]
        said = subprocess.run([sys.executable, "-c", PEAK, *command], check=True, stdout=subprocess.PIPE).stdout
        used.append(int(said) * 1024)
    assert 1e8 < max(used) < 1e9 + 4 * 2.1e6
    assert used[1] - used[0] < 40e6


@pytest.mark.parametrize("stage", ["peaks", "indexing", "integration"])
def test_full_disk(demo, small_disk, stage):
    """HDF5 can't close a file on a full disk, and crashes the interpreter at its end if it has to (status 139)."""
    child = demo.child(stage, demo.source[stage], small_disk / "out.h5")
    said, _ = child.communicate(timeout=120)
    assert child.returncode == 1, said
    assert f"sfxflow {stage}: {small_disk / 'out.h5'}: No space left on device" in said and "Traceback" not in said
    assert not list(small_disk.iterdir())


@pytest.mark.parametrize("stage", ["peaks", "indexing", "integration"])
def test_file_larger_than_allowed(demo, tmp_path, stage):
    """The same without root: the system refuses to let the file grow."""
    child = demo.child(
        stage,
        demo.source[stage],
        tmp_path / "out.h5",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (60000, 60000)),
    )
    said, _ = child.communicate(timeout=120)
    assert child.returncode == 1, said
    assert f"sfxflow {stage}: {tmp_path / 'out.h5'}: File too large" in said and "Traceback" not in said
    assert not list(tmp_path.iterdir())
