"""What an engine must provide: the tables of a `{chunk}.integrated.h5` file, their columns, types and units.

A chunk file holds three groups of equally long columns. `crystals/frame` is a row number of `frames`, `reflections/crystal` a row
number of `crystals`; reflections lie crystal after crystal. Peak files hold `frames` too, so that every frame is accounted for
from the first stage on.
"""

from enum import IntEnum
from typing import NamedTuple


class Status(IntEnum):
    """What became of a frame. The order is that of progress through the stages."""

    failed = 0
    blank = 1
    hit = 2
    indexed = 3


class Column(NamedTuple):
    """Name, numpy type ('str' for text), unit ('' where there is none), trailing shape and meaning of a column."""

    name: str
    dtype: str
    unit: str
    shape: tuple
    meaning: str


FRAMES = (
    Column("frame", "i8", "", (), "number of the frame within its run, from 0"),
    Column("file", "str", "", (), "file that holds the frame"),
    Column("event", "str", "", (), "event within the file, as //N; empty in single-frame files"),
    Column("status", "u1", "", (), "0 failed, 1 blank, 2 hit, 3 indexed"),
    Column("n_peaks", "i4", "", (), "peaks found"),
    Column("n_lattices", "i4", "", (), "lattices indexed"),
    Column("resolution", "f4", "angstrom", (), "d to which the indexed peaks reach, NaN where there is none"),
    Column("photon_energy", "f8", "eV", (), "photon energy of the frame"),
    Column("clen", "f8", "metre", (), "camera length of the frame, to which each panel's coffset is added"),
    Column("message", "str", "", (), "why the frame failed, or a remark"),
)

CRYSTALS = (
    Column("frame", "i4", "", (), "row of `frames`"),
    Column(
        "reciprocal", "f8", "1/angstrom", (3, 3), "columns a*, b*, c* in the laboratory: q = reciprocal @ (h, k, l)"
    ),
    Column("cell", "f4", "angstrom, degree", (6,), "a b c alpha beta gamma"),
    Column("profile_radius", "f4", "1/angstrom", (), "R0: width (sigma) of the excitation error at q = 0"),
    Column("mosaicity", "f4", "radian", (), "eta: sigma(q)^2 = R0^2 + (eta q)^2 + (bandwidth lambda q^2 / 2)^2"),
    Column("bandwidth", "f4", "", (), "relative sigma of the photon energy within the frame"),
    Column("shift", "f4", "metre", (2,), "of the pattern against the geometry, along x and y"),
    Column(
        "excess",
        "f4",
        "",
        (),
        "relative excess e of the camera length: rays are built with lambda (1 + e) and clen / (1 + e)",
    ),
    Column("n_peaks", "i4", "", (), "peaks that the lattice explains"),
    Column("log10_p", "f4", "", (), "significance: log10 of the chance that random peaks fit as well"),
    Column("rms_position", "f4", "pixel", (), "root mean square distance of the matched peaks from their predictions"),
    Column("resolution", "f4", "angstrom", (), "d to which the matched peaks reach"),
)

REFLECTIONS = (
    Column("crystal", "u4", "", (), "row of `crystals`"),
    Column("h", "i2", "", (), ""),
    Column("k", "i2", "", (), ""),
    Column("l", "i2", "", (), ""),
    Column("I", "f4", "detector unit", (), "background-subtracted sum, neither scaled nor corrected for anything"),
    Column("sigI", "f4", "detector unit", (), "standard uncertainty of I from counting statistics"),
    Column(
        "excitation_error",
        "f4",
        "1/angstrom",
        (),
        "k - |q + k z|, k = 1 / (lambda (1 + excess)): signed distance from the Ewald sphere",
    ),
    Column("polarisation", "f4", "", (), "polarisation factor: I / polarisation is the corrected intensity"),
    Column("fs", "f4", "pixel", (), "predicted position"),
    Column("ss", "f4", "pixel", (), "predicted position"),
    Column("panel", "u2", "", (), "number of the panel in the geometry"),
    Column("peak", "f4", "detector unit", (), "largest pixel value in the peak region"),
    Column("background", "f4", "detector unit", (), "background per pixel"),
)

TABLES = {"frames": FRAMES, "crystals": CRYSTALS, "reflections": REFLECTIONS}
