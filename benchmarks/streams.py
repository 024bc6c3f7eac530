"""Streams read and written, megabytes a second of one core, and what a conversion keeps.

    python benchmarks/streams.py

Frames of the simulator's lysozyme preset, processed by the built-in engine, are written as one stream again and again, up to some 60 MB; the
files are in memory (page cache). CPU time of one process, the least of three rounds.
"""

import tempfile
import time
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
from stages import call, stages
from table import Row, main

from sfxflow.io.stream_reader import read_stream
from sfxflow.io.stream_tables import tables_of_stream
from sfxflow.io.table import read_rows

SEED = 41227
N_FRAMES = 48
COPIES = 30
WANTED = 100.0


def least(work):
    """CPU seconds of a call, the least of three, after one that compiles."""
    work()
    rounds = []
    for _ in range(3):
        start = time.process_time()
        work()
        rounds.append(time.process_time() - start)
    return min(rounds)


def rate(path, work):
    """Megabytes a second at which `work` goes through a file."""
    return path.stat().st_size / 1e6 / least(work)


def read_all(path):
    for _ in read_stream(path):
        pass


def tables_of(path):
    for _ in tables_of_stream(read_stream(path)):
        pass


def peak_memory(path):
    """Megabytes that reading holds at most."""
    tracemalloc.start()
    try:
        read_all(path)
        return tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()


def rewritten(path):
    """Whether a stream that is read and written again is the same, byte for byte."""
    again = path.with_name("again.stream")
    call("convert", "--input", path, "--output", again)
    same = again.read_bytes() == path.read_bytes()
    again.unlink()
    return same


def largest_differences(first, second):
    """Largest difference of each column of the reflections of two chunk files."""
    with h5py.File(first) as one, h5py.File(second) as other:
        tables = [read_rows(handle["reflections"]) for handle in (one, other)]
    return {
        name: float(np.max(np.abs(tables[0][name].astype(float) - tables[1][name].astype(float)), initial=0.0))
        for name in tables[0]
    }


def peaks_only(data, folder):
    """A stream of all frames with peaks and without crystals."""
    call("convert", "--input", folder / "p.peaks.h5", "--output", folder / "p.stream", "--geometry", data["geometry"])
    text = (folder / "p.stream").read_bytes()
    start = text.index(b"----- Begin chunk -----")
    (folder / "p.stream").write_bytes(text[:start] + text[start:] * COPIES)
    return folder / "p.stream"


def measure():
    """Rows of the figures."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        preset = ("--preset", "lysozyme", "--seed", SEED, "--n-frames", N_FRAMES)
        call("simulate", *preset, "--output", folder / "frames")
        names = {"frames": "frames_00.h5", "geometry": "detector.geom", "cell": "lysozyme.cell"}
        data = {"space_group": "P43212", **{key: str(folder / "frames" / name) for key, name in names.items()}}
        for command in stages(data, folder):
            call(*command)
        (folder / "p.h5").rename(folder / "p.peaks.h5")
        (folder / "r.h5").rename(folder / "r.integrated.h5")
        cell = ("--cell", data["cell"], "--space-group", data["space_group"])
        write = ("stream", "--geometry", data["geometry"], *cell, "--output")
        sources = ("--integrated", *[folder / "r.integrated.h5"] * COPIES, "--peaks", *[folder / "p.peaks.h5"] * COPIES)
        stream = folder / "all.stream"
        writing = least(lambda: call(*write, stream, *sources))
        size = stream.stat().st_size / 1e6
        reader = read_stream(stream)
        counts = np.array([(len(f.crystals), sum(len(c.hkl) for c in f.crystals), f.n_peaks) for f in reader]).sum(
            axis=0
        )
        note = (
            f"{size:.0f} MB, {reader.n_ended} frames, {counts[0]} crystals, {counts[1]} reflections, {counts[2]} peaks"
        )
        reading = rate(stream, lambda: read_all(stream))
        tables = rate(stream, lambda: tables_of(stream))
        converting = rate(stream, lambda: call("convert", "--input", stream, "--output", folder / "x.integrated.h5"))
        peaks = peaks_only(data, folder)
        reading_peaks = rate(peaks, lambda: read_all(peaks))
        memory = peak_memory(stream)
        same = rewritten(stream)
        call(*write, folder / "one.stream", "--integrated", folder / "r.integrated.h5")
        call("convert", "--input", folder / "one.stream", "--output", folder / "y.integrated.h5")
        differ = largest_differences(folder / "r.integrated.h5", folder / "y.integrated.h5")
    return [
        Row("read a stream, every field and number", f">= {WANTED:.0f} MB/s", reading, "MB/s", bool(reading >= WANTED), note),
        Row("read a stream into the tables", "", tables, "MB/s", note="excitation errors and polarisation computed"),
        Row("sfxflow convert, stream to integrated table", "", converting, "MB/s", note="HDF5 written, lines kept"),
        Row("read a stream of peaks without crystals", "", reading_peaks, "MB/s", note=f"{N_FRAMES * COPIES} frames"),
        Row("write a stream (sfxflow stream)", "", size / writing, "MB/s", note="chunk and peak files read"),
        Row("memory that reading holds at most", "", memory, "MB", note=f"stream of {size:.0f} MB"),
        Row("read and written again: the same bytes", "yes", float(same), "", same),
        Row("table to stream to table: intensity, largest change", "<= 0.0051", differ["I"], "", bool(differ["I"] <= 0.0051)),
        Row(
            "table to stream to table: excitation error", "<= 1e-6 1/A", differ["excitation_error"], "1/A",
            bool(differ["excitation_error"] <= 1e-6), "the largest change; axes have seven decimals in 1/nm",
        ),
        Row("table to stream to table: position", "<= 0.051 pixel", max(differ["fs"], differ["ss"]), "pixel", bool(max(differ["fs"], differ["ss"]) <= 0.051)),
    ]  # fmt: skip


if __name__ == "__main__":
    main(measure)
