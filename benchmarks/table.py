"""Rows that every benchmark gives: what was measured, what is to be reached, what was seen."""

import json
import sys
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Row:
    """One measured figure.

    Attributes
    ----------
    what : str
        Words for a person, for example 'index rate, 8 peaks'.
    reach : str
        What is to be reached, for example '>= 98 %'; empty where the figure is only reported.
    seen : float
    unit : str
        '%', 'ms CPU', 'pixel', ...; empty for a plain number.
    ok : bool or None
        Whether `reach` is reached; None where there is nothing to reach.
    note : str
        Conditions: number of frames, what it was compared with.
    """

    what: str
    reach: str
    seen: float
    unit: str = ""
    ok: bool | None = None
    note: str = ""


def printed(rows):
    """Rows as lines of text."""
    marks = {True: "yes", False: "NO", None: ""}
    return [
        f"{row.what:58s} {row.seen:10.4g} {row.unit:8s} {row.reach:16s} {marks[row.ok]:4s} {row.note}".rstrip()
        for row in rows
    ]


def main(measure):
    """Print what `measure()` gives; with `--json FILE` also write it there."""
    rows = measure()
    print("\n".join(printed(rows)))
    if "--json" in sys.argv:
        with open(sys.argv[sys.argv.index("--json") + 1], "w", encoding="utf-8") as handle:
            # numpy's numbers and truth values as Python's
            json.dump([asdict(row) for row in rows], handle, indent=1, default=lambda value: value.item())
