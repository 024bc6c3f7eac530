"""Unit cells that were found from the peaks: the crystal forms, and the cells of the single frames about them."""

from dataclasses import dataclass

import numpy as np

from sfxflow.report.contents import robust_spread
from sfxflow.report.markup import NONE, count, element, fixed, joined, percent, table
from sfxflow.report.parts import CELL_CONSTANTS, cell_histogram, figure, figure_grid, quiet, section
from sfxflow.report.warnings import Warning_


@dataclass(frozen=True)
class FoundCell:
    """The cell of a dataset as `sfxflow cell` found it.

    Attributes
    ----------
    engine, name, path : str
        `name` is the dataset's.
    values : dict
        `sfxflow.io.found_cell.read_found_cell`.
    """

    engine: str
    name: str
    path: str
    values: dict


def cell_warnings(found):
    """What is doubtful about a found cell, as `sfxflow.report.warnings.Warning_`."""
    where = f"{found.engine}, dataset {found.name}, unit cell"
    return [Warning_(True, where, text[:1].upper() + text[1:] + ".") for text in found.values["warnings"]]


def cell_section(cells):
    """The section of all found cells; None where all cells were given.

    Parameters
    ----------
    cells : sequence of FoundCell
    """
    if not cells:
        return None
    return section(
        "Unit cells that were found",
        "cells",
        element(
            "p",
            "No cell was given for these datasets. A lattice was looked for on each hit for itself; cells on which frames agree were then "
            "used to index these frames. Lengths are those for the camera length as given. The cell that the data were indexed with "
            "stands in each dataset's section: the file may have been replaced by hand since.",
        ),
        [_of_dataset(found, f"cell{number}") for number, found in enumerate(cells)],
    )


def _of_dataset(found, anchor):
    values = found.values
    given = "given" if values["space_group_given"] else "assumed: all rotations of the lattice"
    rows = [_row(number, form, values["hits"]) for number, form in enumerate(values["forms"], 1)]
    accepted = [form for form in values["forms"] if form["accepted"]]
    return joined(
        [
            element("h3", f"{found.name} ({found.engine})"),
            table(
                f"Crystal forms of {found.name}. {count(values['hits_with_a_lattice'])} of {count(values['hits'])} hits that were looked "
                f"at show a lattice. Space group {values['space_group']} ({given}). From {found.path}.",
                [
                    "form",
                    "a b c (Å)",
                    "α β γ (°)",
                    "lattice",
                    "frames that agree",
                    "of these indexed (%)",
                    "hits indexed",
                    "",
                ],
                rows,
                class_="numbers",
            ),
            [_histograms(form, f"{anchor}-{number}", number) for number, form in enumerate(accepted, 1)],
        ]
    )


def _row(number, form, n_hits):
    cell = form["cell"]
    verdict = "used" if number == 1 else "another crystal form" if form["accepted"] else _why(form["refused"])
    return [
        str(number),
        " ".join(fixed(x, 2) for x in cell["parameters"][:3]),
        " ".join(fixed(x, 2) for x in cell["parameters"][3:]),
        f"{cell['lattice_type']} {cell['centering']}",
        count(form["frames_that_agree"]),
        percent(form["indexed_share_of_those"], 0),
        f"{count(form['indexed'])} of {count(n_hits)}",
        verdict,
    ]


def _why(refused):
    reasons = ", ".join(f"{reason}: {n}" for reason, n in refused.items())
    return f"refused ({reasons})" if reasons else NONE


def _histograms(form, anchor, number):
    values = np.array(form["parameters"], dtype=float).reshape(-1, 6)
    if not len(values):
        return None
    plots = []
    for column, (name, unit) in enumerate(CELL_CONSTANTS):
        found = form["cell"]["parameters"][column]
        _, spread = robust_spread(values[:, column])
        said = f", found cell {found:.3f} {unit}"
        svg = cell_histogram(f"{anchor}-{column}", column, values[:, column], "frames", found, said)
        plots.append(figure(svg, f"{name}: found {found:.3f} {unit}, spread {spread:.3f} {unit}."))
    caption = (
        f"Form {number}: cells of {count(len(values))} frames, each refined without symmetry. Dashed: the cell found."
    )
    return joined([quiet(caption), figure_grid(plots)])
