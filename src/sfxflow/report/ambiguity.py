"""The part of a dataset's section on its indexing ambiguity: ways to index, margins, and whether the merged data look twinned."""

import numpy as np

from sfxflow.report import figures as draw
from sfxflow.report.markup import NONE, count, element, fixed, is_number, joined, percent, table
from sfxflow.report.parts import figure, figure_grid
from sfxflow.statistics.twinning import twin_figures
from sfxflow.symmetry import rotations, space_group

#: From this correlation of intensities that an operator relates, the data look as if the crystals were merged in several ways.
TWINNED = 0.3
#: The mean margin's value beyond which the histogram's logarithm begins.
_LEAST_SHOWN = 0.1


def has_ambiguity(dataset):
    """Whether cell and space group of a dataset admit several ways to index.

    Parameters
    ----------
    dataset : sfxflow.report.contents.Dataset
    """
    return bool(dataset.attrs) and len(dataset.attrs.get("operators", ())) > 1


def twinning_of(dataset):
    """Twin figures of the merged data for each operator but the identity: list of (name, dict)."""
    attrs, merged = dataset.attrs, dataset.merged
    # what was never well recorded lies near the mean, as if it were twinned
    merged = {name: merged[name][merged["n"] > 0] for name in ("h", "k", "l", "I", "sigI")}
    hkl = np.stack([merged[letter] for letter in "hkl"], axis=1)
    operations = rotations(space_group(attrs["space_group"]))
    return [
        (str(name), twin_figures(hkl, merged["I"], merged["sigI"], operations, operator, attrs["cell"]))
        for name, operator in list(zip(attrs["operator_names"], attrs["operators"], strict=True))[1:]
    ]


def ambiguity_part(dataset, anchor):
    """Ways to index, margins and twinning of a dataset.

    Parameters
    ----------
    dataset : sfxflow.report.contents.Dataset
    anchor : str
        Names of drawings begin with it.

    Returns
    -------
    Html or None
        None where there is one way to index only.
    """
    if not has_ambiguity(dataset):
        return None
    attrs, crystals = dataset.attrs, dataset.crystals
    mode, margin = np.asarray(crystals["mode"]), np.asarray(crystals["mode_margin"])
    counts = np.bincount(mode, minlength=len(attrs["operators"]))
    merged = np.bincount(mode[np.asarray(crystals["status"], object) == "merged"], minlength=len(attrs["operators"]))
    names = [str(name) for name in attrs["operator_names"]]
    margins = None
    if attrs["ambiguity_resolved"]:
        label = (
            f"Histogram of the margins of {len(margin)} crystals: median {np.median(margin) if len(margin) else 0:.3g}"
        )
        drawn = draw.histogram(
            f"{anchor}-margin",
            label,
            np.maximum(margin, _LEAST_SHOWN),
            "margin (log likelihood ratio)",
            logarithmic=True,
        )
        caption = "How much more likely each crystal's way to index is than the second best."
        margins = figure_grid([figure(drawn, caption)])
    return joined(
        [
            element("h3", "Indexing ambiguity"),
            element("p", _in_words(attrs)),
            table(
                f"Ways to index. From {dataset.files['merged']}.",
                ["operator", "crystals", "merged"],
                [(name, count(n), count(m)) for name, n, m in zip(names, counts, merged, strict=True)],
                class_="numbers",
            ),
            _twinning(dataset),
            margins,
        ]
    )


def _in_words(attrs):
    if not attrs["ambiguity_resolved"]:
        return "The ways to index were left as they are."
    text = (
        f"Median margin {attrs['ambiguity_median_margin']:.1f}; {attrs['ambiguity_chance_margin']:.1f} is what crystals get that can't be "
        "told apart."
    )
    used = {"global": "A reference chose the way of all.", "crystals": "A reference told the way of each crystal."}
    return f"{text} {used.get(attrs['ambiguity_reference_used'], 'No reference was used: all may be turned together.')}"


def _twinning(dataset):
    rows = [
        (
            name,
            count(found["n_pairs"]),
            fixed(found["correlation"], 3),
            fixed(found["mean_abs_h"], 3),
            percent(found["twin_fraction"]),
        )
        for name, found in twinning_of(dataset)
    ]
    caption = (
        "Merged intensities that each operator relates: correlation (0 of one way to index, 1 of an even mixture), mean |H| "
        "(0.5 and 0) and the twin fraction that follows from it."
    )
    mean_l = dataset.overall.get("l_test_mean_abs")
    if is_number(mean_l):
        caption += f" L-test: mean |L| {mean_l:.3f} (0.5 untwinned, 0.375 an even mixture)."
    head = ["operator", "pairs", "correlation", "mean |H|", "twin fraction (%)"]
    return table(caption, head, rows or [(NONE,) * len(head)], class_="numbers")


def ambiguity_warnings(dataset):
    """Pairs of (serious, text)."""
    if not has_ambiguity(dataset):
        return
    attrs = dataset.attrs
    for remark in filter(None, str(attrs["ambiguity_remarks"]).split("\n")):
        yield bool(attrs["ambiguity_resolved"]), f"Indexing ambiguity: {remark}."
    if not len(dataset.merged["I"]):
        return
    for name, found in twinning_of(dataset):
        if is_number(found["correlation"]) and found["correlation"] > TWINNED:
            text = (
                f"Merged intensities that {name} relates have a correlation of {found['correlation']:.2f}, and a twin fraction of "
                f"{percent(found['twin_fraction'])} % by the H-test: the crystals are twinned, were merged in several ways to index, or are "
                "nearly of higher symmetry."
            )
            yield True, text
