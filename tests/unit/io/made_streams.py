"""Tables of made-up crystals, and streams written from them, for the tests of streams."""

import io

import numpy as np

from sfxflow.cell import Cell, parameters_of, reciprocal_matrix
from sfxflow.geometry import panel_arrays, polarisation_factor
from sfxflow.io.geom import parse_geom
from sfxflow.io.stream import Peaks, StreamWriter
from sfxflow.peaks import PEAK
from sfxflow.reflections import CRYSTALS, FRAMES, REFLECTIONS, Status
from sfxflow.units import wavelength

CELL = Cell(79.1, 79.1, 37.9, lattice_type="tetragonal", unique_axis="c")
#: Two panels of one dataset with an index of their own, so that places in the file and in the slab differ.
GEOMETRY = """photon_energy = 9500 eV
clen = 0.0753 m
res = 10000
bandwidth = 0.001
adu_per_photon = 1
max_adu = 60000
data = /data
dim0 = %
dim2 = ss
dim3 = fs

a0/dim1 = 0
a0/min_fs = 0
a0/max_fs = 511
a0/min_ss = 0
a0/max_ss = 255
a0/corner_x = -520
a0/corner_y = 10
a0/coffset = 0.001
a0/fs = +1.0x
a0/ss = +1.0y

b1/dim1 = 1
b1/min_fs = 0
b1/max_fs = 511
b1/min_ss = 0
b1/max_ss = 255
b1/corner_x = 15
b1/corner_y = 10
b1/fs = +1.0x +0.002y
b1/ss = -0.002x +1.0y
"""
PANELS = ["a0", "b1"]


def detector(text=GEOMETRY):
    return parse_geom(text, "made.geom")


def _rotation(rng):
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q *= np.sign(np.diag(r))
    return q * np.linalg.det(q)


def tables(seed, n_frames=6, most_lattices=2, most_reflections=40):
    """Columns of frames, crystals and reflections as an engine gives them, and the peaks of each frame."""
    rng = np.random.default_rng(seed)
    lattices = rng.integers(0, most_lattices + 1, n_frames)
    frames = {
        "frame": np.cumsum(rng.integers(1, 4, n_frames)),
        "file": [f"raw/run {i // 3}.h5" for i in range(n_frames)],
        "event": [f"//{i}" if i % 4 else "" for i in range(n_frames)],
        "status": np.where(lattices > 0, Status.indexed, rng.choice([Status.blank, Status.hit], n_frames)).astype("u1"),
        "n_peaks": rng.integers(0, 12, n_frames).astype("i4"),
        "n_lattices": lattices.astype("i4"),
        "resolution": np.where(lattices > 0, rng.uniform(1.5, 4, n_frames), np.nan).astype("f4"),
        "photon_energy": np.round(rng.uniform(9000, 10000, n_frames), 6),
        "clen": rng.uniform(0.0752, 0.0754, n_frames),
        "message": [""] * n_frames,
    }
    n = int(lattices.sum())
    frame = np.repeat(np.arange(n_frames), lattices)
    reciprocal = np.array([_rotation(rng) @ reciprocal_matrix(CELL.parameters) for _ in range(n)]).reshape(-1, 3, 3)
    crystals = {
        "frame": frame.astype("i4"),
        "reciprocal": reciprocal,
        "cell": np.array([parameters_of(matrix) for matrix in reciprocal]).reshape(-1, 6).astype("f4"),
        "profile_radius": rng.uniform(1e-4, 4e-4, n).astype("f4"),
        "mosaicity": rng.uniform(0, 1e-3, n).astype("f4"),
        "bandwidth": rng.uniform(0, 1e-3, n).astype("f4"),
        "shift": rng.normal(0, 2e-5, (n, 2)).astype("f4"),
        "excess": rng.normal(0, 1e-3, n).astype("f4"),
        "n_peaks": rng.integers(5, 90, n).astype("i4"),
        "log10_p": rng.uniform(-90, -15, n).astype("f4"),
        "rms_position": rng.uniform(0.1, 0.9, n).astype("f4"),
        "resolution": rng.uniform(1.5, 4, n).astype("f4"),
    }
    counts = rng.integers(0, most_reflections + 1, n)
    owner = np.repeat(np.arange(n), counts)
    m = len(owner)
    hkl = rng.integers(-40, 41, (m, 3))
    panel = rng.integers(0, 2, m)
    intensity = rng.normal(100, 1000, m) * 10.0 ** rng.integers(-2, 3, m)
    length = wavelength(frames["photon_energy"][frame]) * (1.0 + crystals["excess"].astype("f8"))
    out = np.einsum("nij,nj->ni", reciprocal[owner], hkl.astype("f8"))
    out[:, 2] += 1.0 / length[owner]
    reflections = {
        "crystal": owner.astype("u4"),
        **{name: hkl[:, i].astype("i2") for i, name in enumerate("hkl")},
        "I": intensity.astype("f4"),
        "sigI": np.abs(intensity * 0.1 + 1).astype("f4"),
        "excitation_error": (1.0 / length[owner] - np.linalg.norm(out, axis=1)).astype("f4"),
        "polarisation": polarisation_factor(out, 0.99).astype("f4"),
        "fs": rng.uniform(1, 511, m).astype("f4"),
        "ss": (256 * panel + rng.uniform(1, 255, m)).astype("f4"),
        "panel": panel.astype("u2"),
        "peak": rng.integers(0, 70000, m).astype("f4"),
        "background": rng.uniform(0, 20, m).astype("f4"),
    }
    for columns, described in ((frames, FRAMES), (crystals, CRYSTALS), (reflections, REFLECTIONS)):
        assert list(columns) == [column.name for column in described]
    return frames, crystals, reflections, [_peaks(rng, k) for k in frames["n_peaks"]]


def _peaks(rng, n):
    peaks = np.zeros(n, PEAK)
    peaks["panel"] = rng.integers(0, 2, n)
    peaks["fs"], peaks["ss"] = rng.uniform(1, 511, n), 256 * peaks["panel"] + rng.uniform(1, 255, n)
    peaks["intensity"] = rng.uniform(1, 1e5, n)
    return peaks


def stream_of(frames, crystals, reflections, peaks=None, text=GEOMETRY):
    """The stream of some tables as bytes."""
    handle = io.BytesIO()
    found = detector(text)
    writer = StreamWriter(handle, found, text, CELL, "made for a test")
    arrays = panel_arrays(found)
    for i in range(len(frames["frame"])):
        own = np.flatnonzero(crystals["frame"] == i)
        place = None
        if peaks is not None:
            p = peaks[i]
            place = Peaks(p["fs"], p["ss"], np.full(len(p), 0.2), p["intensity"], p["panel"].astype(np.int64))
        writer.begin_frame(
            frames["file"][i], frames["event"][i], frames["status"][i] >= Status.hit, len(own) > 0,
            float(frames["photon_energy"][i]), float(frames["clen"][i]), place, int(frames["n_peaks"][i]),
            int(frames["frame"][i]), frames["resolution"][i],
        )  # fmt: skip
        for c in own:
            rows = reflections["crystal"] == c
            some = {name: values[rows] for name, values in reflections.items()}
            writer.add_crystal({name: values[c] for name, values in crystals.items()}, some)
        writer.end_frame()
    assert len(arrays.bounds) == 2
    return handle.getvalue()
