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
_MARKS = {
    line: line
    for line in (
        _BEGIN, _END, _PEAKS, _END_OF_PEAKS, _CRYSTAL, _END_OF_CRYSTAL, _REFLECTIONS, _END_OF_REFLECTIONS,
    )
}  # fmt: skip
_IS_FIRST_LETTER = np.isin(np.arange(256), [line[0] for line in _MARKS])
_EDGES = (_BEGIN, _END)
#: Where a stream is cut off, by the last mark in it.
_IN_PART = {
    _PEAKS: "in a list of peaks",
    _CRYSTAL: "in a crystal",
    _REFLECTIONS: "in a table of reflections",
    _END_OF_REFLECTIONS: "in a crystal",
}
_GEOMETRY = "----- Begin geometry file -----\n", "----- End geometry file -----\n"
_CELL = "----- Begin unit cell -----\n", "----- End unit cell -----\n"
_METHODS = "Indexing methods selected: "
_GZIP = b"\x1f\x8b"
_NEW_LINE = b"\n"
_BLOCK = 8 << 20
#: So many different unknown fields are named.
_MOST_UNKNOWN = 100
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


class _Mark(NamedTuple):
    """A line at which a part begins or ends: the line, its place in the block, and its number in the block, from 0."""

    what: bytes
    start: int
    stop: int
    line: int


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
        length = start.rfind(_NEW_LINE) + 1 if length < 0 else length
        self._rest, text = start[length:], _text(start[:length])
        self._n_lines = text.count("\n")
        self.header = parse_header(path, text)
        self._names = Names(
            dict.fromkeys(name for name in _PANEL.findall(self.header.geometry) if not name.startswith("bad"))
        )

    @property
    def panels(self):
        """Names of the panels: those of the geometry in its order, then any others that were met."""
        return self._names.names

    def __iter__(self):
        data, self._rest = self._rest, b""
        while True:
            numbers = np.frombuffer(data, dtype=np.uint8)
            marks, n_lines = _marks(data, numbers)
            done, i = 0, 0
            while i < len(marks):
                last = next((j for j in range(i + 1, len(marks)) if marks[j].what in _EDGES), None)
                if marks[i].what != _BEGIN:
                    if marks[i].what == _END:
                        self._report(marks[i].line, "a frame ends that has not begun")
                    i += 1
                    continue
                if last is None:
                    break
                self._note_stray(data[done : marks[i].start])
                self.n_begun += 1
                if marks[last].what == _BEGIN:
                    self._report(marks[last].line, "another frame begins before the one above it has ended")
                    i, done = last, marks[last].start
                    continue
                self.n_ended += 1
                frame = self._frame_or_none(data, numbers, marks[i : last + 1])
                i, done = last + 1, marks[last].stop
                if frame is not None:
                    yield frame
            # What follows is a frame whose end is not read yet, or no frame at all.
            keep = marks[i] if i < len(marks) else _Mark(b"", *_last_line(data), n_lines)
            self._note_stray(data[done : keep.start])
            rest = data[keep.start :]
            # Twice as much each time while one frame is larger than what is read at a time.
            block = self._more(max(_BLOCK, len(rest)))
            if not block and rest.endswith(_END[:-1]):
                block = b"\n"
            if not block:
                self._finish(rest, marks[i:], n_lines)
                return
            self._n_lines += keep.line
            data = rest + block

    def _more(self, wanted):
        parts, size = [], 0
        while size < wanted:
            block = next(self._blocks, b"")
            if not block:
                break
            parts.append(block)
            size += len(block)
        return b"".join(parts)

    def _note_stray(self, between):
        """Note text that stands outside of frames: the header of a second stream, where two were put together."""
        if between.strip():
            self.unknown["text between frames"] += 1

    def _finish(self, rest, marks, n_lines):
        """At the end of the file: whether a frame or a line is left that has begun."""
        if not rest.strip():
            return
        self.n_begun += bool(marks)
        where = _IN_PART.get(marks[-1].what, "in a frame") if marks else ""
        if not rest.endswith(b"\n"):
            where += f"{', ' if where else ''}within a line ({_shown(rest[rest.rfind(_NEW_LINE) + 1 :])})"
        self._report(n_lines, f"the stream is cut off {where}")

    def _report(self, line, what):
        """A frame that is damaged at a line of the block, counted from 0."""
        message = f"{self.path}, line {self._n_lines + line + 1}: {what}"
        if not self._skip_damaged:
            raise InputError(f"{message}; run the program that wrote it again, or copy the file again")
        self.damaged.append(message)

    def _frame_or_none(self, data, numbers, marks):
        try:
            return self._frame(data, numbers, marks)
        except BadRow as error:
            line = data.count(b"\n", 0, error.offset)
            row = _shown(data[error.offset : data.find(b"\n", error.offset)])
            self._report(line, f"{row} is not a row of this table (stream format 2.{self.header.version[1]})")
        except _BadField as error:
            self._report(marks[0].line, f"in the frame that begins here: {error}")
        return None

    def _frame(self, data, numbers, marks):
        peaks, crystals, i = None, [], 1
        parts, at = [], marks[0].stop
        while i < len(marks) - 1:
            start = marks[i]
            if start.what == _PEAKS and peaks is None and marks[i + 1].what == _END_OF_PEAKS:
                values, panel = self._rows(data, numbers, start, marks[i + 1], 4)
                peaks = StreamPeaks(values[:, 0], values[:, 1], values[:, 2] / 10.0, values[:, 3], panel)
                last = i + 1
            elif start.what == _CRYSTAL:
                last = next((j for j in range(i, len(marks)) if marks[j].what == _END_OF_CRYSTAL), None)
                if last is None:
                    raise _BadField(f"a crystal has no line {_shown(_END_OF_CRYSTAL)}")
                crystals.append(self._crystal(data, numbers, marks[i : last + 1]))
            else:
                raise _BadField(f"{_shown(start.what)} does not belong where it stands, or its end is missing")
            parts.append(data[at : start.start])
            at, i = marks[last].stop, last + 1
        parts.append(data[at : marks[-1].start])
        return self._made_frame(_text(b"".join(parts)), peaks, tuple(crystals))

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
        """The lines as keys and values; those that are not known are counted."""
        if "\0" in text:
            raise _BadField("it holds bytes of value 0, which are no text")
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
                    is_new = key not in self.unknown and len(self.unknown) >= _MOST_UNKNOWN
                    self.unknown["others" if is_new else key] += 1
        return notes

    def _rows(self, data, numbers, start, end, n_columns):
        """Numbers and panels of the rows between two marks, of which the first line says what the columns are."""
        first = data.find(b"\n", start.stop, end.start) + 1 or start.stop
        names = self._names if self.header.version == (2, 3) else None
        return read_rows(numbers, first, end.start, max(end.line - start.line - 2, 0), n_columns, names)

    def _crystal(self, data, numbers, marks):
        n_columns, places = _COLUMNS[self.header.version[1]]
        what = [mark.what for mark in marks]
        has_table = what == [_CRYSTAL, _REFLECTIONS, _END_OF_REFLECTIONS, _END_OF_CRYSTAL]
        if has_table:
            values, panel = self._rows(data, numbers, marks[1], marks[2], n_columns)
            text = _text(data[marks[0].stop : marks[1].start] + data[marks[2].stop : marks[3].start])
        elif len(what) == 2:
            values, panel = np.empty((0, n_columns)), np.empty(0, dtype=np.int32)
            text = _text(data[marks[0].stop : marks[1].start])
        else:
            raise _BadField(f"a crystal's table of reflections has no line {_shown(_END_OF_REFLECTIONS)}")
        if -1 in places:
            values = np.column_stack([values, np.full(len(values), np.nan)])
        notes = self._notes(text, _CRYSTAL_KEYS)
        n_reflections = int(_first_number(notes, "num_reflections", -1))
        self.n_miscounted += has_table and n_reflections not in (-1, len(values))
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
            has_table=has_table,
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


def _last_line(data):
    """Place of the last line, where it has no end, and of the end of the data."""
    return data.rfind(b"\n") + 1, len(data)


def _marks(data, numbers):
    """The lines at which a frame, a crystal or a table begins or ends, and the number of all whole lines."""
    stops = np.flatnonzero(numbers == 10) + 1
    starts = np.concatenate([[0], stops[:-1]]) if len(stops) else stops
    # Rows of the tables begin with a blank.
    lines = np.flatnonzero(_IS_FIRST_LETTER[numbers[starts]])
    marks = []
    for start, stop, line in zip(starts[lines].tolist(), stops[lines].tolist(), lines.tolist(), strict=True):
        what = _MARKS.get(data[start:stop])
        if what is not None:
            marks.append(_Mark(what, start, stop, line))
    return marks, len(stops)


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


def parse_header(path, text):
    """`Header` of the lines before the first frame; `path` names them in messages.

    Raises
    ------
    InputError
        They are cut off.
    """
    version = _version(path, text[:_START].encode("utf-8", "surrogateescape"))
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


def _text(data):
    return data.decode("utf-8", "surrogateescape")


def _shown(data):
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
    x, _, y = text.removesuffix(" mm").partition(" y = ")
    try:
        return (float(x) * 1e-3, float(y) * 1e-3)
    except ValueError:
        raise _BadField(f"predict_refine/det_shift x = {text!r} is not a shift") from None
