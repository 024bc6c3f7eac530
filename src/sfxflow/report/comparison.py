"""The section that sets engines and mergers side by side: on all reflections of each, and on those that all have."""

import math

from sfxflow.report import figures as draw
from sfxflow.report.markup import NONE, count, element, fixed, is_number, joined, percent, share, table
from sfxflow.report.parts import figure, figure_grid, section

#: Columns of the tables of figures: words, name, how it is written.
_FIGURES = (
    ("Reflections", "n_reflections", count),
    ("Completeness (%)", "completeness", percent),
    ("Multiplicity", "multiplicity", lambda v: fixed(v, 1)),
    ("I/σ(I)", "i_over_sigma", lambda v: fixed(v, 1)),
    ("In both half sets", "n_pairs", count),
    ("Rsplit (%)", "r_split", percent),
    ("CC1/2", "cc_half", lambda v: fixed(v, 4)),
    ("CC*", "cc_star", lambda v: fixed(v, 4)),
    ("CC, reference", "reference_cc", lambda v: fixed(v, 4)),
    ("R1(I), reference (%)", "reference_r1_i", percent),
)
_STAGES = (("peaks", "Peaks"), ("indexing", "Indexing"), ("integration", "Integration"), ("merging", "Merging"))

#: Drawings: name of the figure, words, factor, limits of the axis.
_DRAWN = (("cc_half", "CC1/2", 1.0), ("r_split", "Rsplit (%)", 100.0))


def comparison_section(compared):
    """Everything about engines and mergers side by side.

    Parameters
    ----------
    compared : dict or None
        As in comparison.json; None where there is nothing to compare.

    Returns
    -------
    Html or None
    """
    if not compared:
        return None
    return section(
        "Engines and mergers side by side",
        "comparison",
        element(
            "p",
            "Who keeps only the best measured reflections has the better figures. So each figure stands here twice: on the reflections "
            "that the engine and merger has kept, and on those that all of them have. The second tells who measures better; the first, "
            "with its completeness, what one gets. All are in the same resolution shells.",
        ),
        [_dataset(dataset, number) for number, dataset in enumerate(compared["datasets"])],
    )


def _dataset(dataset, number):
    rows = dataset["rows"]
    possible = dataset["n_possible"]
    shared = (
        f"Of {count(possible)} possible reflections all have {count(dataset['n_common'])} "
        f"({percent(share(dataset['n_common'], possible))} %), and all have {count(dataset['n_common_pairs'])} "
        f"({percent(share(dataset['n_common_pairs'], possible))} %) in both half sets."
    )
    return joined(
        [
            element("h3", dataset["name"]),
            element("p", shared),
            element("ul", [element("li", remark) for remark in dataset["remarks"]]) if dataset["remarks"] else None,
            _figures_tables(dataset, rows),
            _drawings(dataset, number),
            _work_table(dataset, rows),
            _pairs_table(dataset),
        ]
    )


def _figures_tables(dataset, rows):
    shown = [
        (words, name, write)
        for words, name, write in _FIGURES
        if any(is_number(row["own"]["overall"].get(name)) for row in rows)
        and (dataset["reference"] or "reference" not in name)
    ]
    return joined(
        [
            table(
                f"{dataset['name']}: figures of merit of all shells together, {on}.",
                ["engine/merger", *(words for words, _, _ in shown)],
                [
                    [row["name"], *(write(row[which]["overall"].get(name)) for _, name, write in shown)]
                    for row in rows
                    if row[which]
                ],
                class_="numbers",
            )
            for which, on in (("own", "on all reflections of each"), ("common", "on the reflections that all have"))
        ]
    )


def _drawings(dataset, number):
    rows = dataset["rows"]
    limits = [(shell["d_max"], shell["d_min"]) for shell in rows[0]["own"]["shells"]]

    def series(which, name, factor):
        return {
            row["name"]: [None if shell[name] is None else factor * shell[name] for shell in row[which]["shells"]]
            for row in rows
            if row[which]
        }

    pictures = []
    for name, words, factor in _DRAWN:
        both = {which: series(which, name, factor) for which in ("own", "common")}
        low, high = _axis(both.values())
        for which, on in (("own", "all reflections of each"), ("common", "the reflections that all have")):
            svg = draw.compared_by_resolution(
                f"c{number}{name}{which}", f"{words} by resolution, on {on}", limits, both[which], words, low, high
            )
            pictures.append(figure(svg, f"{words} on {on}."))
        if name == "cc_half":
            # Third in the row: how much of the data the second drawing is about.
            pictures.append(_completeness(rows, number, limits, series("own", "completeness", 100.0)))
    return figure_grid(pictures)


def _completeness(rows, number, limits, lines):
    in_common = next((row["common"] for row in rows if row["common"]), None)
    if in_common:
        lines = lines | {
            "all have": [None if s["completeness"] is None else 100.0 * s["completeness"] for s in in_common["shells"]]
        }
    svg = draw.compared_by_resolution(
        f"c{number}completeness", "Completeness by resolution", limits, lines, "completeness (%)", 0, 102
    )
    return figure(svg, "Completeness, and which part of the possible reflections all have.")


def _axis(groups):
    """Limits that hold the values of both drawings, so that they can be compared by eye."""
    values = [v for group in groups for line in group.values() for v in line if v is not None and math.isfinite(v)]
    if not values:
        return None, None
    low, high = min(0.0, *values), max(values)
    return low, high * 1.05 if high > 0 else None


def _work_table(dataset, rows):
    lines = []
    for row in rows:
        frames, cost = row["frames"] or {}, row["cost"]
        hits, read = frames.get("hits"), frames.get("frames", 0) - frames.get("failed", 0)
        lines.append(
            [
                row["name"],
                count(frames.get("frames")),
                count(frames.get("failed")),
                f"{count(hits)} ({percent(share(hits, read))} %)" if hits is not None else NONE,
                f"{count(frames['indexed'])} ({percent(share(frames['indexed'], hits))} %)" if frames else NONE,
                count(frames.get("lattices")),
                count(row["crystals_merged"]),
                *(_known(cost["cpu"].get(stage), stage in cost["cpu"]) for stage, _ in _STAGES),
                _known(cost["cpu_total"]),
                _known(cost["memory"]),
            ]
        )
    return table(
        f"{dataset['name']}: frames and lattices, CPU seconds of each stage's jobs together, and the highest memory of a job in MiB. "
        "Where one program indexes and integrates in one go, its seconds stand under integration.",
        ["", "frames", "failed", "hits", "indexed", "lattices", "crystals merged"]
        + [f"{words} (s)" for _, words in _STAGES]
        + ["all (s)", "memory (MiB)"],
        lines,
        class_="numbers",
    )


def _known(value, there=True):
    if not there:
        return NONE
    return "not known" if value is None else fixed(value, 0 if value >= 100 else 1)


def _pairs_table(dataset):
    if not dataset["pairs"]:
        return None
    rows = [
        [
            f"{pair['first']} and {pair['second']}",
            *(
                write(pair[name + ending])
                for ending in ("", "_common")
                for name, write in (("n", count), ("cc", lambda v: fixed(v, 4)), ("r1_i", percent))
            ),
        ]
        for pair in dataset["pairs"]
    ]
    return table(
        f"{dataset['name']}: how merged intensities agree, after scaling the second to the first, on the reflections that both have and on "
        "those that all have.",
        ["", "both have", "CC", "R1(I) (%)", "all have", "CC", "R1(I) (%)"],
        rows,
        class_="numbers",
    )
