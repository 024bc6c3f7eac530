"""What the report shows: runs and datasets as plain values, and the numbers that are made from them."""

import dataclasses
from dataclasses import dataclass, field

import numpy as np

from sfxflow.reflections import Status
from sfxflow.symmetry import rotations, space_group

#: Crystals count as equally oriented within so many degrees.
SAME_ORIENTATION = 10.0
_REFERENCES = 10


@dataclass(frozen=True)
class Run:
    """The frame account of a run.

    Attributes
    ----------
    engine, name, path : str
        `path` is that of frames.tsv.
    counts : dict
        `Status` to number of frames.
    n_expected : int or None
        Frames that the table of the runs states.
    n_lattices : int
    reasons : list of Reason
    provenance : dict
    warnings : list of (text, n_chunks)
        What the chunk files warn of, and how many of them.
    n_chunks : int
    """

    engine: str
    name: str
    path: str
    counts: dict
    n_expected: int | None = None
    n_lattices: int = 0
    reasons: list = field(default_factory=list)
    provenance: dict = field(default_factory=dict)
    warnings: list = field(default_factory=list)
    n_chunks: int = 0

    @property
    def n_frames(self):
        """Frames in the account."""
        return sum(self.counts.values())

    @property
    def n_read(self):
        """Frames that did not fail."""
        return self.n_frames - self.counts[Status.failed]

    @property
    def n_hits(self):
        """Frames with enough peaks, indexed or not."""
        return self.counts[Status.hit] + self.counts[Status.indexed]


@dataclass(frozen=True)
class Reason:
    """A message that frames of one status have in common.

    Attributes
    ----------
    status : Status
    text : str
    count : int
    first : int
        Number of the first such frame.
    """

    status: Status
    text: str
    count: int
    first: int


@dataclass(frozen=True)
class Dataset:
    """What was merged together.

    Attributes
    ----------
    engine, merger, name, folder : str
    attrs : dict or None
        Attributes of merged.h5; None where there is no such file.
    merged, crystals, partiality : dict of ndarray
        Tables of merged.h5.
    figures : dict or None
        figures_of_merit.json.
    cells : ndarray, shape (n, 6)
        Of the crystals found, angstrom and degree.
    reciprocal : ndarray, shape (n, 3, 3)
    chunks_missing : int
        Chunk files of the dataset whose crystals are not among these.
    runs : list of Run
        Whose chunk files were merged.
    files : dict
        'merged', 'figures', 'provenance' (of the merged file).
    groups, differences : list of dict
        figures_of_merit.json of each group and difference.json of each difference, where the dataset is split.
    """

    engine: str
    merger: str
    name: str
    folder: str
    attrs: dict | None = None
    merged: dict = field(default_factory=dict)
    crystals: dict = field(default_factory=dict)
    partiality: dict = field(default_factory=dict)
    figures: dict | None = None
    cells: np.ndarray = field(default_factory=lambda: np.zeros((0, 6)))
    reciprocal: np.ndarray = field(default_factory=lambda: np.zeros((0, 3, 3)))
    chunks_missing: int = 0
    runs: list = field(default_factory=list)
    files: dict = field(default_factory=dict)
    groups: list = field(default_factory=list)
    differences: list = field(default_factory=list)

    @property
    def overall(self):
        """Overall figures; empty where there are none."""
        return self.figures["overall"] if self.figures else {}

    @property
    def shells(self):
        """Figures by shell, low resolution first; empty where there are none."""
        return self.figures["shells"] if self.figures else []

    @property
    def cell(self):
        """Cell that was merged with, or None."""
        if self.attrs:
            return self.attrs["cell"]
        return tuple(self.figures["cell"]) if self.figures and self.figures.get("cell") else None

    @property
    def space_group(self):
        """Name, or None."""
        return (self.attrs or self.figures or {}).get("space_group")


@dataclass(frozen=True)
class Origin:
    """A file, or several that were made alike, and where it comes from.

    Attributes
    ----------
    what : str
        What the file gives to the report.
    files : list of str
    provenance : dict
        Of the first file.
    """

    what: str
    files: list
    provenance: dict


def total(runs):
    """A run that is all of `runs` together; `n_expected` is None if that of one is not known."""
    expected = [run.n_expected for run in runs]
    return Run(
        runs[0].engine,
        "total",
        "",
        {status: sum(run.counts[status] for run in runs) for status in Status},
        None if None in expected else sum(expected),
        sum(run.n_lattices for run in runs),
        [reason for run in runs for reason in run.reasons],
    )


def reasons_of(frames):
    """Messages of frames.tsv, counted; the most frequent first.

    Parameters
    ----------
    frames : dict of list
        Columns of frames.tsv.

    Returns
    -------
    list of Reason
        The frame's own file and event are taken out of the text, so that equal troubles count as one.
    """
    found = {}
    for number, file, event, status, text in zip(
        *(frames[name] for name in ("frame", "file", "event", "status", "message")), strict=True
    ):
        text = _without_frame(text, file, event) or ("no reason given" if status == Status.failed else "")
        if text:
            tally = found.setdefault((status, text), [0, number])
            tally[0] += 1
    reasons = [Reason(status, text, n, first) for (status, text), (n, first) in found.items()]
    return sorted(reasons, key=lambda reason: (reason.status, -reason.count, reason.text))


def merged_reasons(reasons):
    """Reasons of several runs, equal ones added up (`first` is that of the first run)."""
    found = {}
    for reason in reasons:
        key = (reason.status, reason.text)
        known = found.get(key)
        found[key] = dataclasses.replace(known, count=known.count + reason.count) if known else reason
    return sorted(found.values(), key=lambda reason: (reason.status, -reason.count, reason.text))


def _without_frame(text, file, event):
    for prefix in (f"{file} {event}:", f"{file}:"):
        text = text.removeprefix(prefix)
    if event:
        text = text.replace(f"{file} {event}", "the frame")
    return text.replace(file, "the file").strip() if file else text.strip()


def same_orientation(reciprocal, name):
    """Largest fraction of the crystals that are oriented like one of them, up to the symmetry.

    Parameters
    ----------
    reciprocal : ndarray, shape (n, 3, 3)
        Columns a*, b*, c* of each crystal, 1/angstrom.
    name : str
        Space group.

    Returns
    -------
    float
        Of crystals within `SAME_ORIENTATION` degrees of the one that has most such neighbours, among a few that are spread over
        the list; NaN for fewer than two crystals.
    """
    if len(reciprocal) < 2:
        return np.nan
    operations = rotations(space_group(name))
    proper = [operation.T for operation in operations if np.linalg.det(operation) > 0]
    best = 0.0
    for reference in reciprocal[:: max(1, len(reciprocal) // _REFERENCES)]:
        inverse = np.linalg.inv(reference)
        # trace of the rotation that takes the reference into each crystal, the largest of all equivalent ones
        trace = np.max([np.einsum("nij,ji->n", reciprocal, operation @ inverse) for operation in proper], axis=0)
        best = max(best, float(np.mean((trace - 1) / 2 > np.cos(np.radians(SAME_ORIENTATION)))))
    return best


def robust_spread(values):
    """Median and 1.4826 times the median absolute deviation (the standard deviation of a normal distribution)."""
    median = np.median(values)
    return float(median), float(1.4826 * np.median(np.abs(values - median)))
