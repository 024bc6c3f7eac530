"""Which group each frame of a dataset belongs to: the table that `sfxflow split` writes and `sfxflow merging` reads.

Tabs between the columns; the first line holds the provenance, the second what the groups are, both as JSON behind '#'. A row whose
event is '*' stands for all frames of its file.
"""

import csv
import json
from collections import Counter
from dataclasses import asdict

import h5py
import numpy as np

from sfxflow.errors import InputError
from sfxflow.groups import NO_GROUP, canonical, groups_from, value_text
from sfxflow.io.files import written_whole
from sfxflow.io.hdf5 import dataset_or_none, listing, open_hdf5

COLUMNS = ("run", "frame", "file", "event", "value", "group")
#: Event of a row that stands for all frames of a file.
ALL_EVENTS = "*"

_PROVENANCE, _GROUPS = "# provenance: ", "# groups: "
_SHOWN = 6


class Split:
    """Groups, and the group of each frame.

    Parameters
    ----------
    path : path
    groups : Groups
    values : Counter
        Values found, to the number of rows with it ('' for frames without a value).
    of_file : dict
        File to a dict of event to the group's number.
    """

    def __init__(self, path, groups, values, of_file):
        self.path, self.groups, self.values = path, groups, values
        self._of_file = of_file

    def numbers(self, files, events):
        """Number of the group of each frame, and whether the table has the frame.

        Parameters
        ----------
        files, events : sequence of str

        Returns
        -------
        numbers : ndarray of int, shape (n,)
        known : ndarray of bool, shape (n,)
        """
        numbers, known = np.full(len(files), NO_GROUP), np.zeros(len(files), bool)
        for i, (file, event) in enumerate(zip(files, events, strict=True)):
            events_of = self._of_file.get(file, {})
            found = events_of.get(event, events_of.get(ALL_EVENTS))
            if found is not None:
                numbers[i], known[i] = found, True
        return numbers, known


def write_split(path, groups, rows, provenance):
    """Write the table, which must have a frame in one of the groups at least.

    Parameters
    ----------
    path : path
    groups : Groups
    rows : iterable of tuple
        run, frame, file, event, value; the group is looked up.
    provenance : str
        JSON text on one line.

    Returns
    -------
    counts : dict
        Name of each group, and '' for none, to its number of rows.
    left : Counter
        Values of the rows without a group.

    Raises
    ------
    InputError
        No row belongs to a group.
    """
    counts, left = dict.fromkeys((*groups.names, ""), 0), Counter()
    with written_whole(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as handle:
        handle.write(f"{_PROVENANCE}{provenance}\n")
        handle.write(f"{_GROUPS}{json.dumps(_as_config(groups))}\n")
        writer = csv.writer(handle, delimiter="\t", quoting=csv.QUOTE_NONE, quotechar=None, lineterminator="\n")
        writer.writerow(COLUMNS)
        for run, frame, file, event, value in rows:
            number = groups.number(value)
            name = "" if number == NO_GROUP else groups.names[number]
            counts[name] += 1
            if number == NO_GROUP:
                left[canonical(value)] += 1
            texts = (str(text).replace("\t", " ").replace("\n", " ") for text in (run, frame, file, event))
            writer.writerow([*texts, canonical(value).replace("\t", " ").replace("\n", " "), name])
        if not any(counts[name] for name in groups.names):
            raise InputError(
                f"no frame belongs to a group: {groups.by} has the values {shown(left)}; "
                f"the groups are {described(groups)}"
            )
    return counts, left


def shown(values):
    """The commonest of some values with their counts, as text."""
    texts = [f"{value or 'missing'} ({count})" for value, count in values.most_common(_SHOWN)]
    return ", ".join(texts) + (f" and {len(values) - _SHOWN} more" if len(values) > _SHOWN else "")


def described(groups):
    """Groups with their values, as text."""
    return ", ".join(f"{name} ({value_text(wanted)})" for name, wanted in groups.definitions.items())


def _as_config(groups):
    values = asdict(groups)
    return {"by": values["by"], "groups": values["definitions"], "reference": values["reference"]}


def read_split(path):
    """Read the table.

    Returns
    -------
    Split

    Raises
    ------
    InputError
        Not there, not such a table, or a frame that stands in two groups.
    """
    try:
        with open(path, newline="", encoding="utf-8") as handle:
            handle.readline()
            described = handle.readline()
            rows = csv.reader(handle, delimiter="\t", quoting=csv.QUOTE_NONE, quotechar=None)
            if not described.startswith(_GROUPS) or tuple(next(rows, ())) != COLUMNS:
                raise InputError(
                    f"{path}: is not a table of groups as `sfxflow split` writes it; remove it and run again"
                )
            groups = groups_from(json.loads(described.removeprefix(_GROUPS)), f"{path}, line 2")
            numbers = {name: number for number, name in enumerate(groups.names)} | {"": NO_GROUP}
            values, of_file = Counter(), {}
            for line, row in enumerate(rows, 4):
                _, _, file, event, value, name = row
                values[value] += 1
                events = of_file.setdefault(file, {})
                if events.setdefault(event, numbers[name]) != numbers[name]:
                    where = f"{path}, line {line}: {file} {event}".rstrip()
                    raise InputError(f"{where} stands in two groups; each frame belongs to one run and one group")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: can't be read ({getattr(error, 'strerror', None) or error})") from None
    except (ValueError, KeyError) as error:
        raise InputError(f"{path}: is damaged ({error}); remove it and run again") from None
    return Split(path, groups, values, of_file)


class EventValues:
    """Values of the events in the frame files, for example /entry_1/laser_on; one file is open at a time.

    Parameters
    ----------
    dataset : str
        HDF5 path; a scalar holds for all events of the file. '%' stands for what '%' stands for in the geometry's path.
    """

    def __init__(self, dataset):
        self.dataset = dataset
        self._read, self._values = (None, None), None
        self._files, self._found = set(), False
        self._first_listing = ""

    def value(self, file, event):
        """Value of an event ('name//i' as CrystFEL writes it, '' in files of one frame); '' where there is none."""
        names, _, numbers = event.rpartition("//")
        path = self.dataset
        for name in names.split("/"):
            path = path.replace("%", name, 1)
        if (file, path) != self._read:
            self._open(file, path)
        if self._values is None:
            return ""
        indices = iter([int(text) for text in numbers.split("/") if text.isdecimal()])
        # as for the photon energy: dimensions of size 1 are passed over, the others take the event's indices in turn
        try:
            value = self._values[tuple(0 if size == 1 else next(indices) for size in self._values.shape)]
        except (StopIteration, IndexError):
            return ""
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value

    def require_some(self):
        """Raise InputError if files were looked into and none holds the dataset."""
        if self._files and not self._found:
            raise InputError(
                f"none of {len(self._files)} frame files holds the dataset {self.dataset}; {self._first_listing}"
            )

    def _open(self, file, path):
        self._read, self._values = (file, path), None
        self._files.add(file)
        if not h5py.is_hdf5(file):
            self._first_listing = self._first_listing or f"{file} is not HDF5"
            return
        with open_hdf5(file) as handle:
            dataset = dataset_or_none(handle, path)
            if dataset is None:
                self._first_listing = self._first_listing or f"{file} has {listing(handle)}"
                return
            if dataset.dtype.kind not in "biufSO" or dataset.ndim > 3:
                raise InputError(
                    f"{file}: {path}: {dataset.dtype} {dataset.shape}: a number or word for each frame is expected to split by"
                )
            self._values = np.asarray(dataset[()])
            self._found = True


def read_values(path, runs):
    """Values of frames from a user's table: columns `frame` (and `run`, with more than one run), or `file` (and `event`), and `group`.

    Parameters
    ----------
    path : path
        Tabs between the columns, '#' before comments.
    runs : list of str
        Runs of the dataset.

    Returns
    -------
    callable
        (run, frame, file, event) to the value, '' where the table has none.

    Raises
    ------
    InputError
        Not there, without these columns, a row that is no row, or a frame with two values.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as handle:
            lines = [(n, line.rstrip("\r\n").split("\t")) for n, line in enumerate(handle, 1) if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: can't be read ({getattr(error, 'strerror', None) or error})") from None
    lines = [(n, [text.strip() for text in row]) for n, row in lines if not row[0].startswith("#")]
    columns = lines[0][1] if lines else []
    if "group" not in columns or not {"frame", "file"} & set(columns):
        raise InputError(
            f"{path}: columns frame (and run) or file (and event), and group are expected, separated by tabs; "
            f"it has: {', '.join(columns) or 'nothing'}"
        )
    by_frame = "frame" in columns
    if by_frame and "run" not in columns and len(runs) > 1:
        raise InputError(f"{path}: the dataset has {len(runs)} runs: a column run beside frame is expected")
    values = {}
    for number, row in lines[1:]:
        cells = dict(zip(columns, row, strict=False))
        if len(row) != len(columns) or (by_frame and not cells["frame"].isdecimal()):
            raise InputError(f"{path}, line {number}: {len(columns)} cells with whole numbers in `frame` are expected")
        if by_frame:
            key = (cells.get("run", runs[0]), int(cells["frame"]))
        else:
            key = (cells["file"], cells.get("event", ALL_EVENTS))
        if values.setdefault(key, cells["group"]) != cells["group"]:
            raise InputError(
                f"{path}, line {number}: a second group, {cells['group']!r}, for {' '.join(map(str, key))}"
            )

    def value(run, frame, file, event):
        if by_frame:
            return values.get((run, frame), "")
        return values.get((file, event), values.get((file, ALL_EVENTS), ""))

    return value
