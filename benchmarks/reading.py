"""From frames of 4.5 Mpx, bitshuffle/LZ4, to a file of integrated reflections on one core: reading, and everything else.

    python benchmarks/reading.py

The lysozyme preset of the simulator with larger panels (uint16, about 0.4 photon of background a pixel, 20 % blanks). CPU time of one
process that runs the stages one after the other as the workflow does; the compiled code and the frames are in memory. What a frame takes is
the difference between chunks of 240 and of 60 frames (60 different ones, once and four times), so that what a job does once, whatever
the number of its frames, stands in a row of its own. Two stages read the frames: peaks all of them, integration the indexed ones; to tell the
system which frame comes next belongs to it. The
decoders are compared on the same frames.
"""

import tempfile
import time
from collections import Counter
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
from stages import NAMES, call, split, stages
from table import Row, main

from sfxflow.io.chunks import PlaneReader
from sfxflow.io.frame_account import gather_frames
from sfxflow.io.frames import open_frames
from sfxflow.io.geometry import read_geometry
from sfxflow.reflections import Status

PANELS = ("panel_ss=550", "panel_fs=1024")
N_FRAMES = 60
REPEATED = 4

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
    names = {"frames": "frames_00.h5", "geometry": "detector.geom", "cell": "lysozyme.cell", "truth": "truth.hkl"}
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


def parts(data, folder):
    """CPU seconds of each part of the work, and the frames of the integrated file."""
    seconds = Counter()
    start = time.process_time()
    with split(seconds):
        for command in stages(data, folder):
            call(*command)
    seconds["all"] = time.process_time() - start
    seconds["other"] = 2 * seconds["all"] - seconds.total()
    return seconds, gather_frames([folder / "r.h5"])[0]


def measure():
    """Rows of the figures."""
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        once = simulated(scratch / "frames")
        for copy in range(1, REPEATED):
            (scratch / f"frames/frames_0{copy}.h5").symlink_to("frames_00.h5")
        repeated = once | {"frames": once["frames"].replace("_00", "_*")}
        for command in stages(once, scratch, 8):
            call(*command)
        few, _ = parts(once, scratch)
        many, frames = parts(repeated, scratch)
        found = decoders(once, scratch)
    n = len(frames["frame"])
    each = {name: 1e3 * (many[name] - few[name]) / (n - n // REPEATED) for name in NAMES}
    rest = each["all"] - each["read"]
    indexed = int(np.count_nonzero(np.array(frames["status"]) == Status.indexed))
    note = f"{n} frames, {indexed} indexed, {int(sum(frames['n_lattices']))} lattices"
    rows = [
        Row("4.5 Mpx bslz4, frame to integrated, without reading", "<= 8 ms", rest, "ms CPU", bool(rest <= 8.0), note),
        Row("4.5 Mpx bslz4, frame to integrated, all", "", each["all"], "ms CPU"),
    ]
    for name, value in each.items():
        if name != "all":
            of = "peaks stage and integration stage" if name == "read" else ""
            rows.append(Row(f"    of it: {name}", "", value, "ms CPU", note=of))
    start = few["all"] - 1e-3 * each["all"] * n / REPEATED
    rows.append(Row("what three jobs take once, for any number of frames", "", start, "s CPU", note="imports apart"))
    for name, (direct, filters) in found.items():
        rows.append(Row(f"read 4.5 Mpx uint16, {name}", "", direct, "ms CPU", note=f"h5py: {filters:.1f} ms"))
    return rows


if __name__ == "__main__":
    main(measure)
