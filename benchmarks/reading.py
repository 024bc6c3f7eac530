"""From frames of 4.5 Mpx, bitshuffle/LZ4, to a file of integrated reflections on one core: reading, and everything else.

    python benchmarks/reading.py

The lysozyme preset of the simulator with larger panels (uint16, about 0.5 photon of background a pixel, 20 % blanks). CPU time of one
process that runs the stages one after the other as the workflow does; the compiled code and the frames are in memory. Two stages read the
frames: peaks all of them, integration the indexed ones. The decoders are compared on the same frames.
"""

import tempfile
import time
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
from engine import engine
from stages import call
from table import Row, main

from sfxflow.io.chunks import PlaneReader
from sfxflow.io.frames import open_frames
from sfxflow.io.geometry import read_geometry

PANELS = ("panel_ss=550", "panel_fs=1024")
N_FRAMES = 60

#: Name to the HDF5 options of a compression.
COMPRESSIONS = {
    "none": {},
    "gzip 1, shuffle": {"compression": "gzip", "compression_opts": 1, "shuffle": True},
    "LZ4": hdf5plugin.LZ4(),
    "bitshuffle/LZ4": hdf5plugin.Bitshuffle(),
    "zstd": hdf5plugin.Zstd(),
}


def simulated(folder, n_frames=N_FRAMES, seed=90817):
    """Frames that nothing was chosen on."""
    preset = ("--preset", "lysozyme", "--seed", seed, "--compression", "bitshuffle", "--set", *PANELS)
    call("simulate", *preset, "--n-frames", n_frames, "--output", folder)
    names = {"frames": "frames_*.h5", "geometry": "detector.geom", "cell": "lysozyme.cell", "truth": "truth.hkl"}
    return {"space_group": "P43212", **{key: str(folder / name) for key, name in names.items()}}


def milliseconds(call_once, repetitions):
    """Mean CPU time of call_once(i) over `repetitions`, the least of three rounds."""
    rounds = []
    for _ in range(3):
        start = time.process_time_ns()
        for i in range(repetitions):
            call_once(i)
        rounds.append((time.process_time_ns() - start) / repetitions / 1e6)
    return min(rounds)


def decoders(data, folder, n_frames=12):
    """Milliseconds a frame of each compression, decoded here and by HDF5's filters, into memory that is there already."""
    with open_frames(data["frames"], read_geometry(data["geometry"])) as frames:
        images = np.stack([frames.read(i).data for i in range(n_frames)])
    found = {}
    out = np.empty(images.shape[1:], images.dtype)
    with h5py.File(folder / "compressions.h5", "w") as handle:
        for name, options in COMPRESSIONS.items():
            chunks = {"chunks": (1, *out.shape)} if options else {}
            dataset = handle.create_dataset(name.replace("/", "-"), data=images, **chunks, **options)
            handle.flush()
            reader = PlaneReader(dataset, ("%", "ss", "fs"))
            reader.read((0,), out)
            found[name] = (
                milliseconds(lambda i, r=reader: r.read((i,), out), n_frames),
                milliseconds(lambda i, d=dataset: d[i], n_frames),
            )
    return found


def measure():
    """Rows of the figures."""
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        data = simulated(scratch / "frames")
        result = engine(data, scratch)
        found = decoders(data, scratch)
    each = result["milliseconds"]
    rest = each["all"] - each["read"]
    note = f"{result['frames']} frames, {result['hits']} hits, {result['lattices']} lattices"
    rows = [
        Row("4.5 Mpx bslz4, frame to integrated, without reading", "<= 8 ms", rest, "ms CPU", bool(rest <= 8.0), note),
        Row("4.5 Mpx bslz4, frame to integrated, all", "", each["all"], "ms CPU"),
    ]
    for name, value in each.items():
        if name != "all":
            of = " (peaks stage and integration stage)" if name == "read" else ""
            rows.append(Row(f"    of it: {name}", "", value, "ms CPU", note=of.strip()))
    for name, (direct, filters) in found.items():
        rows.append(Row(f"read 4.5 Mpx uint16, {name}", "", direct, "ms CPU", note=f"h5py: {filters:.1f} ms"))
    return rows


if __name__ == "__main__":
    main(measure)
