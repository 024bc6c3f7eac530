"""Reader of CrystFEL streams, formats 2.0 to 2.3: frame by frame, in memory that does not grow with the file.

Format 2.3 is that of CrystFEL 0.6 to 0.12 (White et al., J. Appl. Cryst. 49, 680 (2016), doi:10.1107/S1600576716004751). In 2.2 neither table names
the panels, before it the reflections have a phase and a count in place of peak and background. Files may be gzip'ed and may have Windows line ends.
"""

import gzip
import re
from collections import Counter
from typing import NamedTuple

import numpy as np

from sfxflow.errors import InputError
from sfxflow.io.number_rows import BadRow, Names, read_rows

_FIRST_LINE = re.compile(rb"CrystFEL stream format (\d+)\.(\d+)")
_BEGIN, _END = b"----- Begin chunk -----\n", b"----- End chunk -----\n"
_PEAKS, _END_OF_PEAKS = b"Peaks from peak search\n", b"End of peak list\n"
_CRYSTAL, _END_OF_CRYSTAL = b"--- Begin crystal\n", b"--- End crystal\n"
_REFLECTIONS, _END_OF_REFLECTIONS = b"Reflections measured after indexing\n", b"End of reflections\n"
_GEOMETRY = "----- Begin geometry file -----\n", "----- End geometry file -----\n"
_CELL = "----- Begin unit cell -----\n", "----- End unit cell -----\n"
_METHODS = "Indexing methods selected: "
_GZIP = b"\x1f\x8b"
_BLOCK = 8 << 20
#: The first line is looked for in this many bytes.
_START = 4096
_PANEL = re.compile(r"^\s*([^/;=\s]+)/[^=]*=", re.MULTILINE)

#: Numbers in a row of reflections, and where h k l I sigma(I) peak background fs ss stand in it (-1: nowhere).
_COLUMNS = {
    3: (9, (0, 1, 2, 3, 4, 5, 6, 7, 8)),
    2: (9, (0, 1, 2, 3, 4, 5, 6, 7, 8)),
    1: (9, (0, 1, 2, 3, 5, -1, -1, 7, 8)),
    0: (9, (0, 1, 2, 3, 5, -1, -1, 7, 8)),
}
_FRAME_KEYS = frozenset(
    (
        "Image filename", "Event", "Image serial number", "hit", "indexed_by", "n_indexing_tries", "photon_energy_eV",
        "beam_divergence", "beam_bandwidth", "average_camera_length", "num_peaks", "peak_resolution", "num_saturated_peaks",
    )
)  # fmt: skip
_CRYSTAL_KEYS = frozenset(
    (
        "astar", "bstar", "cstar", "lattice_type", "centering", "unique_axis", "profile_radius", "predict_refine/det_shift x",
        "diffraction_resolution_limit", "num_reflections", "num_saturated_reflections", "num_implausible_reflections",
    )
)  # fmt: skip
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


class StreamReader:
    """Frames of a stream, one after the other: iterate over it, once.

    Parameters
    ----------
    path : path-like
    skip_damaged : bool
        Leave out frames that are cut off or can't be read, and tell them in `damaged`, instead of raising.

    Attributes
    ----------
    header : Header
    n_begun, n_ended : int
        Frames whose first and whose last line was met so far.
    damaged : list of str
        What was left out, with line numbers.
    unknown : collections.Counter
        Fields that are not known here, with how often they occur; they are in `text` of their frame or crystal.
    n_miscounted : int
        Tables with other numbers of rows than their frame or crystal says.

    Raises
    ------
    InputError
        The file can't be read, is no stream or one of another format, or is cut off. The message names the line.
    """

    def __init__(self, path, skip_damaged=False):
        self.path = path
        self.n_begun, self.n_ended, self.n_miscounted = 0, 0, 0
        self.damaged, self.unknown = [], Counter()
        self._skip_damaged = skip_damaged
        self._blocks = _blocks(path)
        start = next(self._blocks, b"")
        version = _version(path, start)
        if version != (2, 3):
            if version[0] != 2 or version[1] not in _COLUMNS:
                raise InputError(
                    f"{path}: is a CrystFEL stream of format {version[0]}.{version[1]}; formats 2.0 to 2.3 can be read. "
                    "Write it again with CrystFEL 0.6 to 0.12"
                )
        while _BEGIN not in start:
            block = next(self._blocks, b"")
            if not block:
                break
            start += block
        length = start.find(_BEGIN)
        self._rest, self._offset = (b"", len(start)) if length < 0 else (start[length:], length)
        text = _text(start if length < 0 else start[:length])
        self.header = _header(path, text, version)
        self._names = Names(
            dict.fromkeys(name for name in _PANEL.findall(self.header.geometry) if not name.startswith("bad"))
        )

    @property
    def panels(self):
        """Names of the panels: those of the geometry in its order, then any others that were met."""
        return self._names.names

    def __iter__(self):
        data, place, wanted = self._rest, 0, _BLOCK
        self._rest = b""
        while True:
            numbers = np.frombuffer(data, dtype=np.uint8)
            while True:
                begin = data.find(_BEGIN, place)
                if begin < 0:
                    # The next block may bring the rest of a first line.
                    self._stray(data, place, keep := max(place, data.rfind(b"\n", place) + 1))
                    place = keep
                    break
                self._stray(data, place, begin)
                end = data.find(_END, begin)
                if end < 0:
                    place = begin
                    break
                again = data.find(_BEGIN, begin + len(_BEGIN), end)
                if again >= 0:
                    self.n_begun += 1
                    self._report(self._offset + again, "another frame begins before the one above it has ended")
                    place = again
                    continue
                place = end + len(_END)
                self.n_begun += 1
                self.n_ended += 1
                frame = self._frame_or_none(data, numbers, begin + len(_BEGIN), end)
                if frame is not None:
                    yield frame
            block = self._more(wanted)
            if not block and data.endswith(_END[:-1]):
                block = b"\n"
            if not block:
                self._finish(data, place)
                return
            del numbers
            self._offset += place
            data, place = data[place:] + block, 0
            # Twice as much each time while one frame is larger than what is read at a time.
            wanted = max(_BLOCK, len(data))

    def _more(self, wanted):
        parts, size = [], 0
        while size < wanted:
            block = next(self._blocks, b"")
            if not block:
                break
            parts.append(block)
            size += len(block)
        return b"".join(parts)

    def _stray(self, data, start, stop):
        """Note lines that stand outside of frames."""
        if stop - start > 1 and data[start:stop].strip():
            self.unknown["text between frames"] += 1

    def _finish(self, data, place):
        """At the end of the file: whether a frame is left that has begun."""
        begin = data.find(_BEGIN, place)
        tail = data[place:]
        if begin < 0:
            if tail.strip():
                self._report(self._offset + len(data), f"the stream is cut off within a line ({_shown(tail)})")
            return
        self.n_begun += 1
        again = data.find(_BEGIN, begin + 1)
        if again >= 0:
            self._report(self._offset + again, "another frame begins before the one above it has ended")
            self._finish(data, again)
            return
        self._report(self._offset + len(data), f"the stream is cut off {_where_cut(data[begin:])}")

    def _report(self, offset, what):
        message = f"{self.path}, line {_line_number(self.path, offset)}: {what}"
        if not self._skip_damaged:
            raise InputError(f"{message}; run the program that wrote it again, or copy the file again")
        self.damaged.append(message)

    def _frame_or_none(self, data, numbers, start, stop):
        try:
            return self._frame(data, numbers, start, stop)
        except BadRow as error:
            end = data.find(b"\n", error.offset)
            line = _shown(data[error.offset : end])
            self._report(
                self._offset + error.offset,
                f"{line} is not a row of the table (of stream format 2.{self.header.version[1]})",
            )
        except _BadField as error:
            self._report(self._offset + start, f"in the frame that begins here: {error}")
        return None

    def _frame(self, data, numbers, start, stop):
        crystal = data.find(_CRYSTAL, start, stop)
        head_end = stop if crystal < 0 else crystal
        peaks, text = None, ""
        table = data.find(_PEAKS, start, head_end)
        if table >= 0:
            end = data.find(_END_OF_PEAKS, table, head_end)
            if end < 0:
                raise _BadField(f"its peak list has no line {_shown(_END_OF_PEAKS)}")
            peaks = self._peaks(numbers, data.find(b"\n", table + len(_PEAKS)) + 1, end)
            text = _text(data[start:table] + data[end + len(_END_OF_PEAKS) : head_end])
        else:
            text = _text(data[start:head_end])
        crystals = []
        while crystal >= 0:
            end = data.find(_END_OF_CRYSTAL, crystal, stop)
            if end < 0:
                raise _BadField(f"a crystal has no line {_shown(_END_OF_CRYSTAL)}")
            crystals.append(self._crystal(data, numbers, crystal + len(_CRYSTAL), end))
            crystal = data.find(_CRYSTAL, end, stop)
            after = data[end + len(_END_OF_CRYSTAL) : stop if crystal < 0 else crystal]
            text += _text(after) if after else ""
        return self._made_frame(text, peaks, tuple(crystals))

    def _made_frame(self, text, peaks, crystals):
        notes = self._notes(text, _FRAME_KEYS)
        for key in ("Image filename", "photon_energy_eV"):
            if key not in notes:
                raise _BadField(f"it has no line {key!r}")
        rows = 0 if peaks is None else len(peaks.fs)
        n_peaks = int(_first_number(notes, "num_peaks", rows))
        self.n_miscounted += peaks is not None and n_peaks != rows
        hit = notes.get("hit")
        resolution = _first_number(notes, "peak_resolution", np.nan)
        return StreamFrame(
            file=notes["Image filename"],
            event=notes.get("Event", ""),
            serial=int(_first_number(notes, "Image serial number", -1)),
            is_hit=hit == "1" if hit is not None else bool(crystals or n_peaks),
            indexed_by=notes.get("indexed_by", "none"),
            photon_energy=_first_number(notes, "photon_energy_eV"),
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

    def _notes(self, text, known):
        notes = {}
        for line in text.split("\n"):
            key, separator, value = line.partition(" = ")
            if not separator or key.startswith(("Image filename: ", "Event: ")):
                key, separator, value = line.partition(": ")
                if not separator:
                    if line and not line.startswith(("Cell parameters ", "No integrated reflections")):
                        self.unknown[line] += 1
                    elif line.startswith("Cell"):
                        notes["Cell parameters"] = line[16:]
                    continue
            notes[key] = value
            if key not in known and not key.startswith(_KNOWN_GROUPS):
                self.unknown[key] += 1
        return notes

    def _peaks(self, numbers, start, stop):
        values, panel = self._rows(numbers, start, stop, 4)
        return StreamPeaks(values[:, 0], values[:, 1], values[:, 2] / 10.0, values[:, 3], panel)

    def _rows(self, numbers, start, stop, n_columns):
        return read_rows(numbers, start, stop, n_columns, self._names if self.header.version == (2, 3) else None)

    def _crystal(self, data, numbers, start, stop):
        table = data.find(_REFLECTIONS, start, stop)
        n_columns, places = _COLUMNS[self.header.version[1]]
        values, panel = np.empty((0, n_columns)), np.empty(0, dtype=np.int32)
        if table < 0:
            text = _text(data[start:stop])
        else:
            end = data.find(_END_OF_REFLECTIONS, table, stop)
            if end < 0:
                raise _BadField(f"a crystal's reflections have no line {_shown(_END_OF_REFLECTIONS)}")
            values, panel = self._rows(numbers, data.find(b"\n", table + len(_REFLECTIONS)) + 1, end, n_columns)
            text = _text(data[start:table] + data[end + len(_END_OF_REFLECTIONS) : stop])
        if -1 in places:
            values = np.column_stack([values, np.full(len(values), np.nan)])
        notes = self._notes(text, _CRYSTAL_KEYS)
        n_reflections = int(_first_number(notes, "num_reflections", -1))
        self.n_miscounted += table >= 0 and n_reflections not in (-1, len(values))
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
            n_reflections=n_reflections,
            hkl=values[:, places[:3]].astype(np.int32),
            values=values[:, places[3:]],
            panel=panel,
            has_table=table >= 0,
            notes=notes,
            text=text,
        )


def read_stream(path, skip_damaged=False):
    """A `StreamReader` of the file."""
    return StreamReader(path, skip_damaged)


class _BadField(ValueError):
    """A line of a frame that can't be understood."""


def _blocks(path):
    """Content of a file, in blocks, with line feeds only at the ends of lines."""
    try:
        with open(path, "rb") as raw:
            is_packed = raw.read(2) == _GZIP
            raw.seek(0)
            handle = gzip.GzipFile(fileobj=raw) if is_packed else raw
            held = b""
            while block := handle.read(_BLOCK):
                block = held + block
                held = b"\r" if block.endswith(b"\r") else b""
                if b"\r" in block:
                    block = block[: len(block) - len(held)].replace(b"\r\n", b"\n")
                yield block
            if held:
                yield held
    except EOFError:
        raise InputError(f"{path}: the gzip'ed stream is cut off; write or copy it again") from None
    except OSError as error:
        raise InputError(f"{path}: the stream can't be read ({error.strerror or error})") from None


def _line_number(path, offset):
    """Number of the line at a place of the file (as `_blocks` gives it)."""
    number = 1
    for block in _blocks(path):
        number += block[:offset].count(b"\n")
        offset -= len(block)
        if offset <= 0:
            break
    return number


def _version(path, start):
    """(major, minor) of the first line."""
    if not start:
        raise InputError(f"{path}: is empty (0 bytes); a CrystFEL stream is expected")
    found = _FIRST_LINE.match(start[:_START])
    if not found:
        first = _shown(start[:_START].partition(b"\n")[0])
        raise InputError(
            f"{path}: is not a CrystFEL stream: the first line is {first}, not 'CrystFEL stream format 2.3'"
        )
    return int(found[1]), int(found[2])


def _header(path, text, version):
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
    before, begin, rest = text.partition(markers[0])
    if not begin:
        return ""
    inside, end, _ = rest.partition(markers[1])
    if not end:
        raise InputError(
            f"{path}: is cut off within its {what} (no line {markers[1].strip()!r}); write or copy it again"
        )
    return inside


def _text(data):
    return data.decode("utf-8", "surrogateescape")


def _shown(data):
    """A line for a message: its beginning, quoted."""
    line = data.decode("utf-8", "replace").strip("\n")
    return repr(line if len(line) <= 80 else line[:77] + "...")


def _where_cut(data):
    """Where within a frame the file ends."""
    if data.rfind(_PEAKS) > data.rfind(_END_OF_PEAKS):
        part = "in a list of peaks"
    elif data.rfind(_REFLECTIONS) > data.rfind(_END_OF_REFLECTIONS):
        part = "in a table of reflections"
    elif data.rfind(_CRYSTAL) > data.rfind(_END_OF_CRYSTAL):
        part = "in a crystal"
    else:
        part = "in a frame"
    return part + (
        "" if data.endswith(b"\n") else f", within a line ({_shown(data[data.rfind(chr(10).encode()) + 1 :])})"
    )


def _first_number(notes, key, default=None):
    value = notes.get(key)
    if value is None:
        if default is None:
            raise _BadField(f"it has no line {key!r}")
        return default
    try:
        return float(value.partition(" ")[0])
    except ValueError:
        raise _BadField(f"{key}: {value!r} does not begin with a number") from None


def _numbers(notes, key, n):
    words = notes.get(key, "").split()
    try:
        return [float(word) for word in words[:n]] if len(words) >= n else _no_numbers(notes, key, n)
    except ValueError:
        return _no_numbers(notes, key, n)


def _no_numbers(notes, key, n):
    raise _BadField(f"{key}: {notes.get(key, '')!r} does not begin with {n} numbers")


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
    x, separator, y = text.removesuffix(" mm").partition(" y = ")
    try:
        return (float(x) * 1e-3, float(y) * 1e-3)
    except ValueError:
        raise _BadField(f"predict_refine/det_shift x = {text!r} is not a shift") from None
