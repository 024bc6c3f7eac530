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
from sfxflow.io.stream_frames import (
    CRYSTAL_KEYS,
    FRAME_KEYS,
    BadField,
    StreamPeaks,
    crystal_of_notes,
    frame_of_notes,
    notes_of,
    parse_header,
    shown,
    version_of,
)

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
_GZIP = b"\x1f\x8b"
_NEW_LINE = b"\n"
_BLOCK = 8 << 20
_PANEL = re.compile(r"^\s*([^/;=\s]+)/[^=]*=", re.MULTILINE)

#: Numbers in a row of reflections, besides the panel.
_N_COLUMNS = 9
#: Where h k l I sigma(I) peak background fs ss stand among them (-1: nowhere), by the second number of the format.
_COLUMNS = dict.fromkeys((2, 3), tuple(range(_N_COLUMNS))) | dict.fromkeys((0, 1), (0, 1, 2, 3, 5, -1, -1, 7, 8))


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
        version = version_of(path, start)
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
            where += f"{', ' if where else ''}within a line ({shown(rest[rest.rfind(_NEW_LINE) + 1 :])})"
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
            row = shown(data[error.offset : data.find(b"\n", error.offset)])
            self._report(line, f"{row} is not a row of this table (stream format 2.{self.header.version[1]})")
        except BadField as error:
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
                    raise BadField(f"a crystal has no line {shown(_END_OF_CRYSTAL)}")
                crystals.append(self._crystal(data, numbers, marks[i : last + 1]))
            else:
                raise BadField(f"{shown(start.what)} does not belong where it stands, or its end is missing")
            parts.append(data[at : start.start])
            at, i = marks[last].stop, last + 1
        parts.append(data[at : marks[-1].start])
        text = _text(b"".join(parts))
        frame = frame_of_notes(notes_of(text, FRAME_KEYS, self.unknown), text, peaks, tuple(crystals))
        self.n_miscounted += peaks is not None and frame.n_peaks != len(peaks.fs)
        return frame

    def _rows(self, data, numbers, start, end, n_columns):
        """Numbers and panels of the rows between two marks, of which the first line says what the columns are."""
        first = data.find(b"\n", start.stop, end.start) + 1 or start.stop
        names = self._names if self.header.version == (2, 3) else None
        return read_rows(numbers, first, end.start, max(end.line - start.line - 2, 0), n_columns, names)

    def _crystal(self, data, numbers, marks):
        places = _COLUMNS[self.header.version[1]]
        what = [mark.what for mark in marks]
        has_table = what == [_CRYSTAL, _REFLECTIONS, _END_OF_REFLECTIONS, _END_OF_CRYSTAL]
        if has_table:
            values, panel = self._rows(data, numbers, marks[1], marks[2], _N_COLUMNS)
            text = _text(data[marks[0].stop : marks[1].start] + data[marks[2].stop : marks[3].start])
        elif len(what) == 2:
            values, panel = np.empty((0, _N_COLUMNS)), np.empty(0, dtype=np.int32)
            text = _text(data[marks[0].stop : marks[1].start])
        else:
            raise BadField(f"a crystal's table of reflections has no line {shown(_END_OF_REFLECTIONS)}")
        if -1 in places:
            values = np.column_stack([values, np.full(len(values), np.nan)])
        crystal = crystal_of_notes(
            notes_of(text, CRYSTAL_KEYS, self.unknown),
            text,
            values[:, places[:3]],
            values[:, places[3:]],
            panel,
            has_table,
        )
        self.n_miscounted += has_table and crystal.n_reflections not in (-1, len(values))
        return crystal


def read_stream(path, skip_damaged=False):
    """A `StreamReader` of the file."""
    return StreamReader(path, skip_damaged)


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


def _text(data):
    return data.decode("utf-8", "surrogateescape")
