"""The part of a dataset's section about its groups: what each is worth, and what their differences are."""

from sfxflow.report import figures as draw
from sfxflow.report.markup import count, element, fixed, joined, percent, table
from sfxflow.report.parts import figure, figure_columns, figure_grid

#: Figures in the table of groups; those in the second line only where there are any.
_ALWAYS = ("n_reflections", "completeness", "multiplicity", "i_over_sigma", "r_split", "cc_half")
_WHERE_KNOWN = ("cc_ano", "reference_cc")
#: Columns of the table of differences: heading, name of the figure, how it is written.
_DIFFERENCE_COLUMNS = (
    ("reflections", "n_reflections", count),
    ("mean |ΔI|/σ(ΔI)", "mean_abs_over_sigma", lambda v: fixed(v, 2)),
    ("χ²", "chi_squared", lambda v: fixed(v, 2)),
    ("Riso (%)", "r_iso", lambda v: percent(v, 1)),
    ("CC of half sets", "cc_difference", lambda v: fixed(v, 4)),
    ("over reflections", "n_in_halves", count),
)


def split_part(dataset, anchor):
    """Groups and differences of a dataset.

    Parameters
    ----------
    dataset : sfxflow.report.contents.Dataset
    anchor : str
        Drawings' names begin with it.

    Returns
    -------
    Html or None
        None where the dataset is not split.
    """
    if not dataset.groups:
        return None
    parts = [element("h3", f"Groups by {dataset.groups[0]['split_by']}"), _groups(dataset)]
    if dataset.differences:
        parts += [_differences(dataset), _shells(dataset, anchor)]
    return joined(parts)


def _groups(dataset):
    columns = figure_columns(_ALWAYS, _WHERE_KNOWN, [group["overall"] for group in dataset.groups])

    def cells(name, n_crystals, figures):
        return [name, count(n_crystals), *(write(figures.get(key)) for _, key, write in columns)]

    merged = sum(status == "merged" for status in dataset.crystals.get("status", ()))
    whole = [cells("all", merged, dataset.overall)] if dataset.figures else []
    return table(
        "Groups of crystals: scaled together, merged apart.",
        ["group", "crystals", *(heading for heading, _, _ in columns)],
        [cells(group["group"], group["n_crystals"], group["overall"]) for group in dataset.groups],
        whole,
        class_="numbers",
    )


def _differences(dataset):
    return table(
        "Differences of intensities. Where there is none, the mean of |ΔI|/σ is 0.80 and χ² is 1; differences from the two half "
        "sets correlate only where they are real.",
        ["difference", *(heading for heading, _, _ in _DIFFERENCE_COLUMNS)],
        [
            [_name(found), *(write(found["overall"].get(key)) for _, key, write in _DIFFERENCE_COLUMNS)]
            for found in dataset.differences
        ],
        class_="numbers",
    )


def _shells(dataset, anchor):
    shells = max((found["shells"] for found in dataset.differences), key=len)
    if not shells:
        return None
    series = {
        _name(found): [shell["cc_difference"] for shell in found["shells"]]
        for found in dataset.differences
        if len(found["shells"]) == len(shells)
    }
    drawn = draw.against_resolution(
        f"{anchor}-differences",
        f"Correlation of differences from half sets against 1/d for {dataset.name}",
        [(shell["d_max"], shell["d_min"]) for shell in shells],
        series,
        "CC of differences",
        None,
        1.02,
    )
    return figure_grid([figure(drawn, "Correlation of the differences from the two half sets against 1/d.")])


def _name(found):
    return f"{found['group']} − {found['minus']}"
