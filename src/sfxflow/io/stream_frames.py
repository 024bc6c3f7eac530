"""What the lines of a CrystFEL stream say: header, frames, crystals, in sfxflow's units.

Lines beside the tables are of the form 'key = value'; what is not known here is kept and counted.
"""

import re
from typing import NamedTuple

import numpy as np

from sfxflow.errors import InputError

_FIRST_LINE = re.compile(rb"CrystFEL stream format (\d+)\.(\d+)")
_GEOMETRY = "----- Begin geometry file -----\n", "----- End geometry file -----\n"
_CELL = "----- Begin unit cell -----\n", "----- End unit cell -----\n"
_METHODS = "Indexing methods selected: "
#: So many different unknown fields are named.
_MOST_UNKNOWN = 100
#: The first line is looked for in this many bytes.
_START = 4096
FRAME_KEYS = frozenset(
    (
        "Image filename", "Event", "Image serial number", "hit", "indexed_by", "n_indexing_tries", "photon_energy_eV",
        "beam_divergence", "beam_bandwidth", "average_camera_length", "num_peaks", "peak_resolution", "num_saturated_peaks",
    )
)  # fmt: skip
CRYSTAL_KEYS = frozenset(
    (
        "astar", "bstar", "cstar", "lattice_type", "centering", "unique_axis", "profile_radius", "predict_refine/det_shift x",
        "diffraction_resolution_limit", "num_reflections", "num_saturated_reflections", "num_implausible_reflections",
        "Cell parameters", "No integrated reflections.",
    )
)  # fmt: skip
#: Starts of lines that are not of the form 'key = value'.
_OTHER_STARTS = (
    "Image filename: ",
    "Event: ",
    "Image serial number: ",
    "Cell parameters ",
    "No integrated reflections.",
)
_KNOWN_GROUPS = ("header/", "hdf5/", "camera_length_", "predict_refine/", "sfxflow/")


class Header(NamedTuple):
    """What stands before the first frame.

    Attributes
    ----------
    version : tuple of int
    generator, command : str
        'CrystFEL 0.12.0', and the command line; empty where there is none.
    geometry : str
        Text of the geometry file; empty where there is none.
    cell : str
        Text of the target cell's file; empty where there is none.
    methods : str
        Indexing methods that were selected.
    text : str
        All of it as it stands in the file.
    """

    version: tuple
    generator: str
    command: str
    geometry: str
    cell: str
    methods: str
    text: str


class StreamPeaks(NamedTuple):
    """Peaks of a frame; arrays of shape (n,).

    Attributes
    ----------
    fs, ss : ndarray of float64
        Pixel, corner-based, in the arrays of the frame's file, not in the slab.
    inverse_d : ndarray of float64
        1/angstrom.
    intensity : ndarray of float64
    panel : ndarray of int32
        Row of the reader's `panels`; zeros in streams before 2.3, which do not name panels.
    """

    fs: np.ndarray
    ss: np.ndarray
    inverse_d: np.ndarray
    intensity: np.ndarray
    panel: np.ndarray


class StreamCrystal(NamedTuple):
    """A crystal as the stream has it, in sfxflow's units.

    Attributes
    ----------
    reciprocal : ndarray, shape (3, 3)
        Columns a*, b*, c* in the laboratory, 1/angstrom.
    cell : ndarray, shape (6,)
        Angstrom and degree.
    lattice_type, centering, unique_axis : str
    profile_radius : float
        1/angstrom, NaN where there is none.
    shift : tuple of 2 floats
        Of the detector, along x and y, metre: the opposite of `sfxflow.reflections.CRYSTALS`.
    resolution : float
        Resolution limit, angstrom; NaN where there is none.
    n_reflections : int
        What the crystal's own line says; -1 where there is none.
    hkl : ndarray of int32, shape (n, 3)
    values : ndarray of float64, shape (n, 6)
        I, sigma(I), peak, background, fs, ss; positions as in `StreamPeaks`.
    panel : ndarray of int32, shape (n,)
    has_table : bool
        False where there are 'No integrated reflections.'
    notes : dict
        Every 'key = value' line.
    text : str
        All lines beside the table, without the markers.
    """

    reciprocal: np.ndarray
    cell: np.ndarray
    lattice_type: str
    centering: str
    unique_axis: str
    profile_radius: float
    shift: tuple
    resolution: float
    n_reflections: int
    hkl: np.ndarray
    values: np.ndarray
    panel: np.ndarray
    has_table: bool
    notes: dict
    text: str


class StreamFrame(NamedTuple):
    """A frame ('chunk') of a stream.

    Attributes
    ----------
    file, event : str
        The event as //N, as it stands; '//' or nothing where the file holds one frame.
    serial : int
    is_hit : bool
        Where the stream does not say (before CrystFEL 0.7): whether it has crystals or peaks.
    indexed_by : str
    photon_energy : float
        eV.
    bandwidth, divergence : float
        Fraction, radian; NaN where there is none.
    clen : float
        Mean of the panels' distances, metre; NaN where there is none.
    n_peaks : int
        What the frame's own line says, or else the rows of its table.
    peak_resolution : float
        d to which the peaks reach, angstrom; NaN where there is none.
    peaks : StreamPeaks or None
        None where the stream has no table.
    crystals : tuple of StreamCrystal
    notes : dict
        Every 'key = value' line.
    text : str
        All lines beside the peaks and crystals, without the markers.
    """

    file: str
    event: str
    serial: int
    is_hit: bool
    indexed_by: str
    photon_energy: float
    bandwidth: float
    divergence: float
    clen: float
    n_peaks: int
    peak_resolution: float
    peaks: StreamPeaks | None
    crystals: tuple
    notes: dict
    text: str


class BadField(ValueError):
    """A line of a frame that can't be understood."""


def notes_of(text, known, unknown):
    """The lines of a frame or crystal as keys and values.

    Parameters
    ----------
    text : str
    known : collection of str
        `FRAME_KEYS` or `CRYSTAL_KEYS`.
    unknown : collections.Counter
        Other keys are counted in it.

    Returns
    -------
    dict

    Raises
    ------
    BadField
        It is no text.
    """
    if "\0" in text:
        raise BadField("it holds bytes of value 0, which are no text")
    notes = {}
    for line in text.split("\n"):
        key, separator, value = line.partition(" = ")
        if key in known and separator:
            notes[key] = value
        elif line:
            key, value = _other_note(line)
            notes[key] = value
            if key not in known and not key.startswith(_KNOWN_GROUPS):
                # What is no stream at all has as many of them as lines.
                is_new = key not in unknown and len(unknown) >= _MOST_UNKNOWN
                unknown["others" if is_new else key] += 1
    return notes


def frame_of_notes(notes, text, peaks, crystals):
    """`StreamFrame` of its lines, peaks and crystals.

    Raises
    ------
    BadField
        File or photon energy are missing, or a value is no number.
    """
    for key in ("Image filename", "photon_energy_eV"):
        if key not in notes:
            raise BadField(f"it has no line {key!r}")
    energy = _first_number(notes, "photon_energy_eV")
    if not 0.0 < energy < np.inf:
        raise BadField(f"photon_energy_eV: {energy:g} is no energy of a photon")
    n_peaks = _whole(notes, "num_peaks", 0 if peaks is None else len(peaks.fs))
    hit = notes.get("hit")
    resolution = _first_number(notes, "peak_resolution", np.nan)
    return StreamFrame(
        file=notes["Image filename"],
        event=notes.get("Event", ""),
        serial=_whole(notes, "Image serial number", -1),
        is_hit=hit == "1" if hit is not None else bool(crystals or n_peaks),
        indexed_by=notes.get("indexed_by", "none"),
        photon_energy=energy,
        bandwidth=_first_number(notes, "beam_bandwidth", np.nan),
        divergence=_first_number(notes, "beam_divergence", np.nan),
        clen=_first_number(notes, "average_camera_length", np.nan),
        n_peaks=n_peaks,
        peak_resolution=10.0 / resolution if resolution > 0.0 else np.nan,
        peaks=peaks,
        crystals=crystals,
        notes=notes,
        text=text,
    )


def crystal_of_notes(notes, text, indices, values, panel, has_table):
    """`StreamCrystal` of its lines and the columns of its table.

    Raises
    ------
    BadField
        Axes are missing, a value is no number, or an index is no whole number.
    """
    with np.errstate(invalid="ignore"):
        hkl = indices.astype(np.int32)
    if not np.array_equal(hkl, indices):
        raise BadField(f"{indices[np.argmax((hkl != indices).any(axis=1))].tolist()} are no indices of a reflection")
    limit = _first_number(notes, "diffraction_resolution_limit", np.nan)
    return StreamCrystal(
        reciprocal=np.array([_numbers(notes, name, 3) for name in ("astar", "bstar", "cstar")]).T / 10.0,
        cell=_cell_parameters(notes),
        lattice_type=notes.get("lattice_type", "triclinic"),
        centering=notes.get("centering", "P"),
        unique_axis=notes.get("unique_axis", "*"),
        profile_radius=_first_number(notes, "profile_radius", np.nan) / 10.0,
        shift=_shift(notes),
        resolution=10.0 / limit if limit > 0.0 else np.nan,
        n_reflections=_whole(notes, "num_reflections", -1),
        hkl=hkl,
        values=values,
        panel=panel,
        has_table=has_table,
        notes=notes,
        text=text,
    )


def version_of(path, start):
    """(major, minor) of the first line."""
    if not start:
        raise InputError(f"{path}: is empty (0 bytes); a CrystFEL stream is expected")
    found = _FIRST_LINE.match(start[:_START])
    if not found:
        first = shown(start[:_START].partition(b"\n")[0])
        raise InputError(
            f"{path}: is not a CrystFEL stream: the first line is {first}, not 'CrystFEL stream format 2.3'"
        )
    return int(found[1]), int(found[2])


def parse_header(path, text):
    """`Header` of the lines before the first frame; `path` names them in messages.

    Raises
    ------
    InputError
        They are cut off.
    """
    version = version_of(path, text[:_START].encode("utf-8", "surrogateescape"))
    if "\0" in text:
        raise InputError(f"{path}: its header holds bytes of value 0, which are no text; write or copy it again")
    lines = text.split("\n")
    generator = next((line for line in lines[1:2] if line.startswith("Generated by ")), "")
    command = lines[2] if generator and len(lines) > 2 and not lines[2].startswith("-----") else ""
    methods = next((line for line in reversed(lines) if line.startswith(_METHODS)), "")
    return Header(
        version=version,
        generator=generator.removeprefix("Generated by "),
        command=command,
        geometry=_between(path, text, _GEOMETRY, "geometry"),
        cell=_between(path, text, _CELL, "target cell"),
        methods=methods.removeprefix(_METHODS),
        text=text,
    )


def _between(path, text, markers, what):
    _, begin, rest = text.partition(markers[0])
    if not begin:
        return ""
    inside, end, _ = rest.partition(markers[1])
    if not end:
        raise InputError(
            f"{path}: is cut off within its {what} (no line {markers[1].strip()!r}); write or copy it again"
        )
    return inside


def shown(data):
    """A line for a message: its beginning, quoted."""
    line = data.decode("utf-8", "replace").strip("\n")
    return repr(line if len(line) <= 80 else line[:77] + "...")


def _other_note(line):
    """Key and value of a line that is not 'key = value' of a known key."""
    for start in _OTHER_STARTS:
        if line.startswith(start):
            return start.rstrip(": "), line[len(start) :]
    key, _, value = line.partition(" = ")
    return key, value


def _first_number(notes, key, default=None):
    value = notes.get(key)
    if value is None:
        if default is None:
            raise BadField(f"it has no line {key!r}")
        return default
    try:
        return float(value.partition(" ")[0])
    except ValueError:
        raise BadField(f"{key}: {value!r} does not begin with a number") from None


def _whole(notes, key, default):
    """The number that a line begins with, which has to be a whole one."""
    value = _first_number(notes, key, default)
    if not -(2**31) <= value < 2**31 or value != int(value):
        raise BadField(f"{key}: {notes[key]!r} is not a whole number")
    return int(value)


def _numbers(notes, key, n):
    words = notes.get(key, "").split()
    try:
        return [float(word) for word in words[:n]] if len(words) >= n else _no_numbers(notes, key, n)
    except ValueError:
        return _no_numbers(notes, key, n)


def _no_numbers(notes, key, n):
    raise BadField(f"{key}: {notes.get(key, '')!r} does not begin with {n} numbers")


def _cell_parameters(notes):
    """The six cell parameters, NaN where there is no such line."""
    text = notes.get("Cell parameters")
    if text is None:
        return np.full(6, np.nan)
    words = text.replace(",", " ").replace("nm", " ").replace("deg", " ")
    values = np.array(_numbers({"Cell parameters": words}, "Cell parameters", 6))
    values[:3] *= 10.0
    return values


def _shift(notes):
    """Shift of the detector, metre; NaN where there is none."""
    text = notes.get("predict_refine/det_shift x")
    if text is None:
        return (np.nan, np.nan)
    x, _, y = text.removesuffix(" mm").partition(" y = ")
    try:
        return (float(x) * 1e-3, float(y) * 1e-3)
    except ValueError:
        raise BadField(f"predict_refine/det_shift x = {text!r} is not a shift") from None
