"""The section of a dataset: figures of merit, cells, merging."""

import numpy as np

from sfxflow.cell import inverse_resolution
from sfxflow.point_group import epsilon
from sfxflow.report import figures as draw
from sfxflow.report.ambiguity import ambiguity_part
from sfxflow.report.contents import robust_spread
from sfxflow.report.markup import NONE, count, element, fixed, is_number, joined, table
from sfxflow.report.parts import CELL_CONSTANTS, cell_histogram, figure, figure_columns, figure_grid, quiet, section
from sfxflow.report.split import split_part
from sfxflow.statistics.wilson import FIT_FROM, wilson_b, wilson_plot
from sfxflow.symmetry import rotations, space_group

#: Figures in the table of shells; those in the second line only where there are any.
_ALWAYS = (
    "n_reflections",
    "n_possible",
    "completeness",
    "multiplicity",
    "i_over_sigma",
    "r_split",
    "cc_half",
    "cc_star",
)
_WHERE_KNOWN = ("r_ano", "cc_ano", "crd_ano", "reference_cc", "reference_r1_i")
_ADVICE = "nothing to draw"


def dataset_title(dataset):
    """What tells a dataset from the others on the page."""
    return f"{dataset.name} ({dataset.engine}, merged by {dataset.merger})"


def dataset_section(dataset, anchor):
    """Everything about a dataset.

    Parameters
    ----------
    dataset : sfxflow.report.contents.Dataset
    anchor : str
        Identifier of the section; drawings' names begin with it.

    Returns
    -------
    Html
    """
    return section(
        dataset_title(dataset),
        anchor,
        element("p", f"Files in {dataset.folder}."),
        element("h3", "Figures of merit"),
        _figures_of_merit(dataset, anchor),
        element("h3", "Unit cells of the crystals"),
        _cells(dataset, anchor),
        element("h3", "Merging"),
        _merging(dataset, anchor),
        ambiguity_part(dataset, anchor),
        split_part(dataset, anchor),
        class_="dataset",
    )


# ---- figures of merit -----------------------------------------------------------------------------------------------


def _figures_of_merit(dataset, anchor):
    if dataset.figures is None:
        return quiet("There is no file of figures of merit for this dataset.")
    return joined([_shell_table(dataset), _shell_figures(dataset, anchor)])


def _shell_table(dataset):
    columns = figure_columns(_ALWAYS, _WHERE_KNOWN, [*dataset.shells, dataset.overall])

    def cells(row):
        return [f"{fixed(row.get('d_max'), 2)} – {fixed(row.get('d_min'), 2)}"] + [
            write(row.get(name)) for _, name, write in columns
        ]

    return table(
        f"Figures of merit by resolution shell, the whole in the last row. From {dataset.files['figures']}.",
        ["d (Å)", *(heading for heading, _, _ in columns)],
        [cells(row) for row in dataset.shells],
        [cells(dataset.overall)],
        class_="numbers",
    )


def _shell_figures(dataset, anchor):
    shells = dataset.shells
    limits = [(shell["d_max"], shell["d_min"]) for shell in shells]

    def of(name, factor=1.0):
        return [None if shell.get(name) is None else factor * shell[name] for shell in shells]

    plots = [
        (
            "cc",
            "CC1/2 and CC*.",
            {"CC1/2": of("cc_half"), "CC*": of("cc_star"), "CC, reference": of("reference_cc")},
            "correlation",
            None,
            1.02,
        ),
        ("rsplit", "Rsplit.", {"Rsplit": of("r_split", 100.0)}, "Rsplit (%)", 0, None),
        ("isigma", "Mean I/σ(I).", {"I/σ(I)": of("i_over_sigma")}, "I/σ(I)", None, None),
        ("completeness", "Completeness.", {"completeness": of("completeness", 100.0)}, "completeness (%)", 0, 105),
        ("multiplicity", "Multiplicity.", {"multiplicity": of("multiplicity")}, "multiplicity", 0, None),
    ]
    if any(is_number(shell.get("cc_ano")) for shell in shells):
        series = {"CCano": of("cc_ano"), "Rano/Rsplit": of("r_ano_over_r_split")}
        plots.append(("anomalous", "CCano and Rano/Rsplit.", series, "CCano, Rano/Rsplit", None, None))
    made = [
        figure(
            draw.against_resolution(
                f"{anchor}-{name}",
                f"{caption[:-1]} against 1/d for {dataset.name}: {_in_words(limits, series)}",
                limits,
                series,
                y_label,
                low,
                high,
            ),
            f"{caption[:-1]} against 1/d.",
        )
        for name, caption, series, y_label, low, high in plots
    ]
    made.append(_wilson(dataset, anchor))
    return figure_grid(made) or quiet(f"No figure of merit is defined: {_ADVICE}.")


def _in_words(limits, series):
    """First and last value of each series, for those who don't see the drawing."""
    words = []
    for name, values in series.items():
        known = [(pair, value) for pair, value in zip(limits, values, strict=True) if is_number(value)]
        if known:
            ends = [f"{value:.3g} at {fixed(pair[1], 2)} angstrom" for pair, value in (known[0], known[-1])]
            words.append(f"{name} from {ends[0]} to {ends[1]}")
    return "; ".join(words)


def _wilson(dataset, anchor):
    if not dataset.merged or not len(dataset.merged["I"]):
        return None
    merged = dataset.merged
    hkl = np.column_stack([merged[name] for name in "hkl"]).astype(np.int32)
    use = np.isfinite(merged["I"]) & np.isfinite(merged["sigI"]) & (merged["n"] > 0)
    hkl, intensity = hkl[use], merged["I"][use]
    if not len(hkl):
        return None
    operations = rotations(space_group(dataset.space_group))
    x, y, _ = wilson_plot(intensity, inverse_resolution(hkl, dataset.cell), epsilon(hkl, operations), squared=True)
    b = wilson_b(x, y)
    line = {}
    if np.isfinite(b):
        first = (FIT_FROM / 2.0) ** 2
        fitted = np.isfinite(y) & (x > first - 0.5 * (x[1] - x[0]))
        line = {"slope": -2.0 * b, "middle": (x[fitted].mean(), y[fitted].mean()), "fit_from": max(first, x[0])}
    text = f"B = {b:.1f} Å²" if np.isfinite(b) else "no B factor can be fitted"
    return figure(
        draw.wilson(f"{anchor}-wilson", f"Wilson plot of {dataset.name}: {text}", x, y, **line),
        f"Wilson plot of the merged intensities, {text} (line: d < 3.2 Å).",
        f"From {dataset.files['merged']}.",
    )


# ---- cells ----------------------------------------------------------------------------------------------------------


def _cells(dataset, anchor):
    cells = dataset.cells
    missing = (
        quiet(
            f"{dataset.chunks_missing} chunk files of this dataset were not given: their crystals are not shown here."
        )
        if dataset.chunks_missing
        else None
    )
    if not len(cells):
        return joined([missing or quiet(f"No crystals: {_ADVICE}.")])
    rows, plots, fixed_ones = [], [], []
    for number, (name, unit) in enumerate(CELL_CONSTANTS):
        values = cells[:, number]
        median, spread = robust_spread(values)
        expected = dataset.cell[number] if dataset.cell else None
        rows.append(
            [
                f"{name} ({unit})",
                f"{expected:g}" if expected is not None else NONE,
                fixed(median, 3),
                fixed(100 * (median / expected - 1), 2) if expected else NONE,
                fixed(spread, 3),
                fixed(values.min(), 2),
                fixed(values.max(), 2),
            ]
        )
        svg = cell_histogram(f"{anchor}-cell{number}", number, values, "crystals", expected)
        if svg is None:
            fixed_ones.append(f"{name} = {median:g} {unit}")
        plots.append(figure(svg, f"{name}: median {median:.3f} {unit}, spread {spread:.3f} {unit}."))
    return joined(
        [
            missing,
            table(
                f"Cells of {count(len(cells))} crystals as refined, before merging. Spread: 1.4826 times the median absolute "
                f"deviation. From the chunk files of {count(len(dataset.runs))} run(s).",
                ["", "target", "median", "deviation (%)", "spread", "smallest", "largest"],
                rows,
                class_="numbers",
            ),
            quiet(
                f"The same in all crystals (the symmetry fixes it, or there is one crystal): {', '.join(fixed_ones)}."
            )
            if fixed_ones
            else None,
            figure_grid(plots),
            quiet("Dashed: the cell that was indexed with. Crystals far outside are counted in the bins at the ends.")
            if figure_grid(plots)
            else None,
        ]
    )


# ---- merging --------------------------------------------------------------------------------------------------------


def _unrecorded(attrs):
    return " (kept, N = 0)" if attrs.get("unrecorded_kept") else " (left out)" if attrs.get("n_never_recorded") else ""


def _merging(dataset, anchor):
    if dataset.attrs is None:
        return quiet("There is no merged file of sfxflow for this dataset.")
    attrs, crystals, partiality = dataset.attrs, dataset.crystals, dataset.partiality
    status = np.asarray(crystals["status"], dtype=object)
    kept = status == "merged"
    source = f"From {dataset.files['merged']}."
    reasons, counts = np.unique(status[~kept].astype(str), return_counts=True)
    facts = [
        ("Partiality model", attrs.get("partiality_model", NONE)),
        ("Observations", count(attrs.get("n_observations"))),
        ("Crystals merged", f"{count(kept.sum())} of {count(len(kept))}"),
        *((f"Left out: {reason}", count(n)) for reason, n in zip(reasons, counts, strict=True)),
        ("Observations rejected", count(np.sum(crystals["n_rejected"]))),
        ("Reflections well recorded once", count(attrs.get("n_recorded_once"))),
        (f"Measured, never well recorded{_unrecorded(attrs)}", count(attrs.get("n_never_recorded"))),
        ("Observations of absent reflections", count(attrs.get("n_absent"))),
        ("Their mean I/σ(I)", fixed(attrs.get("absent_mean_i_over_sigma"), 2)),
        ("Detector units a photon, estimated", fixed(attrs.get("gain"), 2)),
    ]
    plots = [
        figure(_histogram(anchor, "scale", "scale factor G", crystals["scale"][kept], None, True), "Scale factors."),
        figure(_histogram(anchor, "B", "B (Å²)", crystals["B"][kept], 0.0, False), "Relative B factors."),
        figure(
            _histogram(anchor, "width", "factor on σ(q)", crystals["width"][kept], 1.0, False),
            "Widths of the excitation error, relative to those of the peaks.",
        ),
    ]
    if kept.any() and {"x", "q", "partiality"} <= partiality.keys():
        plots.insert(
            0,
            figure(
                draw.partiality_curves(
                    f"{anchor}-partiality",
                    f"Partiality against the distance from the Ewald sphere, model {attrs.get('partiality_model', 'not named')}",
                    partiality["x"],
                    partiality["q"],
                    partiality["partiality"],
                    partiality.get("error"),
                ),
                "Partiality against the distance from the Ewald sphere, at a low, a middle and the highest resolution; bands: its error.",
            ),
        )
    return joined(
        [
            table(f"Merging. {source}", ["", ""], [fact for fact in facts if fact[1] != NONE], class_="numbers facts"),
            figure_grid(plots) or (None if kept.any() else quiet(f"No crystal was merged: {_ADVICE}.")),
        ]
    )


def _histogram(anchor, name, x_label, values, expected, logarithmic):
    known = np.isfinite(values)
    if len(values) and not known.any():
        # Not every merger says it.
        return None
    values = np.asarray(values)[known]
    label = f"Histogram of the {x_label} of {len(values)} crystals"
    if len(values):
        label += f": median {np.median(values):.3g}"
    return draw.histogram(f"{anchor}-{name}", label, values, x_label, expected, logarithmic)
