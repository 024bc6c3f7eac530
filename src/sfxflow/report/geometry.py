"""Proposed geometries: what would change, and the residuals of the indexed peaks before and after."""

from dataclasses import dataclass

import numpy as np

from sfxflow.report import figures as draw
from sfxflow.report.markup import NONE, count, element, fixed, joined, table
from sfxflow.report.parts import figure, figure_grid, quiet, section
from sfxflow.report.warnings import Warning_

#: Of more parts of panels than this only each panel's mean is drawn.
_MOST_ARROWS = 1000
#: Panels whose shifts are listed, those that move most.
_MOST_PANELS = 16


@dataclass(frozen=True)
class Proposal:
    """A geometry that was proposed.

    Attributes
    ----------
    engine, dataset, name, path : str
        `name` is the geometry's.
    values : dict
        `sfxflow.io.geometry_proposal.read_proposal`.
    """

    engine: str
    dataset: str
    name: str
    path: str
    values: dict


def geometry_warnings(proposal):
    """Fallbacks and doubts of a proposal, as notes: nothing uses it yet."""
    where = f"{proposal.engine}, dataset {proposal.dataset}, proposed geometry {proposal.name}"
    return [Warning_(False, where, text[:1].upper() + text[1:] + ".") for text in proposal.values["notes"]]


def geometry_section(proposals):
    """The section of all proposals; None where there are none.

    Parameters
    ----------
    proposals : sequence of Proposal
    """
    if not proposals:
        return None
    return section(
        "Proposed geometries",
        "geometries",
        element(
            "p",
            "Panels, overall shift and, where asked for, camera length as they fit the indexed crystals best. Nothing on this page was "
            "computed with them: a proposal is used when the column geometry of the runs table names it. Residuals are the "
            "distances of the peaks from where their lattices predict them; the systematic part is their mean over parts of a panel. "
            "Before: with the given geometry, or where the search found the beam centre and the camera length.",
        ),
        [_of_proposal(proposal, f"geometry{number}") for number, proposal in enumerate(proposals)],
    )


def _of_proposal(proposal, anchor):
    values = proposal.values
    return joined(
        [
            element("h3", f"{proposal.dataset}, {proposal.name} ({proposal.engine})"),
            table(
                f"What {proposal.path} changes in {values['geometry']}; {count(values['crystals'])} crystals.",
                ["", "value", "uncertainty", "unit"],
                _overall(values),
                class_="numbers",
            ),
            _maps(values, anchor),
            _panels(values),
            _least_known(values),
        ]
    )


def _overall(values):
    overall, residuals = values["overall"], values["residuals"]
    rows = [
        ["shift along x", fixed(overall["shift_x"], 3), fixed(overall["shift_x_sigma"], 3), "pixel"],
        ["shift along y", fixed(overall["shift_y"], 3), fixed(overall["shift_y_sigma"], 3), "pixel"],
    ]
    length = "camera length" if overall["clen_refined"] else "camera length, not in the proposal"
    change, sigma = 1e3 * overall["clen_change_indicated"], 1e3 * overall["clen_change_sigma"]
    rows.append([length, fixed(change, 3), fixed(sigma, 3), "mm"])
    for key, words in (("rms", "residuals, root mean square"), ("systematic", "residuals, systematic part")):
        before, after = (residuals[when][key] for when in ("before", "after"))
        rows.append([words, f"{fixed(before, 3)} \N{RIGHTWARDS ARROW} {fixed(after, 3)}", NONE, "pixel"])
    rows.append(["matched peaks", count(residuals["after"]["peaks"]), NONE, ""])
    return rows


def _maps(values, anchor):
    """Mean residuals over the detector before and after, as arrows of one scale."""
    arrows = _arrows(values)
    if not len(arrows):
        return None
    lengths = np.hypot(arrows[:, 2], arrows[:, 3])
    outlines = [np.array(panel["corners"]) for panel in values["panels"]]
    extent = np.ptp(np.concatenate(outlines), axis=0).max()
    scale = 0.1 * extent / max(np.percentile(lengths, 95), 1e-3)
    plots = []
    for when, first, colour in (("before", 2, draw.ORANGE), ("after", 4, draw.BLUE)):
        shifts = arrows[:, first : first + 2]
        mean = np.sqrt((shifts**2).sum(axis=1).mean())
        label = f"Map of the mean residuals {when}: {mean:.3f} pixel root mean square over {len(arrows)} parts of the detector"
        svg = draw.residual_map(f"{anchor}-{when}", label, outlines, arrows[:, :2], scale * shifts, colour)
        caption = f"{when.capitalize()}: {mean:.3f} pixel; arrows are {scale:.0f} times as long as the residuals."
        plots.append(figure(svg, caption))
    return figure_grid(plots)


def _arrows(values):
    """Places and mean residuals before and after, shape (n, 6)."""
    rows = np.array(values["map"], dtype=float).reshape(-1, 7)
    if len(rows) <= _MOST_ARROWS:
        return np.delete(rows, 2, axis=1)
    means = [
        [*np.mean(panel["corners"], axis=0), *panel["before"], *panel["after"]]
        for panel in values["panels"]
        if panel["before"] and panel["after"]
    ]
    return np.array(means)


def _panels(values):
    """Shifts of the panels against the whole, the largest first."""
    if len(values["panels"]) < 2:
        return None
    overall = values["overall"]
    own = [
        (panel, panel["shift_x"] - overall["shift_x"], panel["shift_y"] - overall["shift_y"])
        for panel in values["panels"]
    ]
    own.sort(key=lambda entry: -np.hypot(*entry[1:]))
    rows = [
        [
            panel["name"],
            fixed(x, 3),
            fixed(y, 3),
            fixed(panel["turn"], 3),
            count(panel["peaks"]),
            count(panel["matched"]),
        ]
        for panel, x, y in own[:_MOST_PANELS]
    ]
    shown = f"the {_MOST_PANELS} that move most of {len(own)}" if len(own) > _MOST_PANELS else "the largest first"
    return table(
        f"Panels against the overall shift, {shown}.",
        ["panel", "x (pixel)", "y (pixel)", "turn (mrad)", "peaks", "matched"],
        rows,
        class_="numbers",
    )


def _least_known(values):
    """What the crystals say least about, and the strongest correlation."""
    weakest, strongest = values.get("weakest"), values.get("correlations")
    if not weakest or weakest["sigma"] is None:
        return None
    parts = ", ".join(f"{fixed(part['part'], 2)} {part['freedom']} of {part['group']}" for part in weakest["parts"][:3])
    text = f"Known least, to {fixed(weakest['sigma'], 3)} pixel: {parts}."
    if strongest:
        pair = strongest[0]
        text += f" Strongest correlation: {fixed(pair['correlation'], 2)} between {pair['first']} and {pair['second']}."
    return quiet(text)
