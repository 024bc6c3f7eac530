"""Drift of programs: which frames are pinned, what they gave and what they give now, and whether that is more than stated."""

from typing import NamedTuple

import numpy as np

from sfxflow.reflections import Status

#: Figures that must not move: name to words, and the setting with the largest move that is tolerated.
GUARDED = {
    "hit_rate": ("hit rate", "hit_rate_tolerance"),
    "index_rate": ("index rate", "index_rate_tolerance"),
    "cc_half": ("CC1/2", "cc_half_tolerance"),
}


class Movement(NamedTuple):
    """A figure then and now.

    Attributes
    ----------
    where : str
        Dataset, engine and merger.
    what : str
        Key of `GUARDED`.
    then, now : float or None
        None where it is not defined.
    tolerance : float
    """

    where: str
    what: str
    then: float | None
    now: float | None
    tolerance: float

    @property
    def too_far(self):
        """Whether the figure moved more than is tolerated, or is defined only once."""
        if self.then is None or self.now is None:
            return self.then is not self.now
        return abs(self.now - self.then) > self.tolerance + 1e-9

    @property
    def text(self):
        """A line for people."""
        then, now = ("not defined" if value is None else f"{value:.4f}" for value in (self.then, self.now))
        moved = "" if None in (self.then, self.now) else f", moved {self.now - self.then:+.4f}"
        return f"{self.where}: {GUARDED[self.what][0]} {then} then, {now} now{moved} (tolerated {self.tolerance:g})"


def pinned_frames(statuses, n_frames, hit_share):
    """Rows of frames that are pinned: hits and blanks, each spread evenly; frames that failed are left out.

    Parameters
    ----------
    statuses : sequence of Status
        Of all frames of a dataset.
    n_frames : int
        How many frames are wanted.
    hit_share : float
        Which part of them are hits, as far as there are so many; there have to be enough to index and merge.

    Returns
    -------
    ndarray of int
        Ascending.
    """
    statuses = np.asarray(statuses, dtype=int)
    hits = np.flatnonzero((statuses == Status.hit) | (statuses == Status.indexed))
    blanks = np.flatnonzero(statuses == Status.blank)
    n_hits = min(len(hits), max(round(n_frames * hit_share), n_frames - len(blanks)))
    n_blanks = min(len(blanks), n_frames - n_hits)
    return np.sort(np.concatenate([_evenly(hits, n_hits), _evenly(blanks, n_blanks)]))


def _evenly(rows, n):
    """`n` of the rows, evenly spread."""
    return rows[((np.arange(n) + 0.5) * len(rows) / max(n, 1)).astype(int)]


def rates(statuses):
    """Hit rate and index rate, with the numbers behind them.

    Parameters
    ----------
    statuses : sequence of Status

    Returns
    -------
    dict
        frames, failed, hits, indexed, hit_rate (hits of the frames that did not fail), index_rate (indexed frames of the hits);
        None for a rate that is not defined.
    """
    statuses = np.asarray(statuses, dtype=int)
    failed = int(np.count_nonzero(statuses == Status.failed))
    indexed = int(np.count_nonzero(statuses == Status.indexed))
    hits = indexed + int(np.count_nonzero(statuses == Status.hit))
    read = len(statuses) - failed
    return {
        "frames": len(statuses),
        "failed": failed,
        "hits": hits,
        "indexed": indexed,
        "hit_rate": hits / read if read else None,
        "index_rate": indexed / hits if hits else None,
    }


def movements(then, now, tolerances):
    """Every guarded figure then and now.

    Parameters
    ----------
    then, now : dict
        Dataset to engine to `rates` and 'mergers', a dict of merger to cc_half and more.
    tolerances : dict
        Settings of `GUARDED` to values.

    Returns
    -------
    list of Movement
    """
    found = []
    for dataset, engines in then.items():
        for engine, old in engines.items():
            new = now.get(dataset, {}).get(engine, {})
            where = f"{dataset}, {engine}"
            found += [
                Movement(where, what, old[what], new.get(what), tolerances[GUARDED[what][1]])
                for what in ("hit_rate", "index_rate")
            ]
            for merger, figures in old["mergers"].items():
                value = new.get("mergers", {}).get(merger, {}).get("cc_half")
                tolerance = tolerances[GUARDED["cc_half"][1]]
                found.append(Movement(f"{where}, {merger}", "cc_half", figures["cc_half"], value, tolerance))
    return found


def differences(then, now, path=""):
    """Where two nested dicts differ: lines 'key.key: old in the lock, new now'."""
    lines = []
    for key in dict.fromkeys([*then, *now]):
        name = f"{path}{key}"
        old, new = then.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            lines += differences(old, new, f"{name}.")
        elif key not in now:
            lines.append(f"{name}: {_shown(old)} in the lock, not there now")
        elif key not in then:
            lines.append(f"{name}: not in the lock, {_shown(new)} now")
        elif old != new:
            lines.append(f"{name}: {_shown(old)} in the lock, {_shown(new)} now")
    return lines


def _shown(value):
    return "none" if value is None else value
