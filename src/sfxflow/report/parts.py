"""Pieces that several sections of the report are made of: headings, drawings with captions, histograms of cells, columns of figures."""

from sfxflow.report import figures as draw
from sfxflow.report.contents import robust_spread
from sfxflow.report.markup import count, element, fixed, is_number, percent

#: Constants of a cell and their units.
CELL_CONSTANTS = (("a", "Å"), ("b", "Å"), ("c", "Å"), ("α", "°"), ("β", "°"), ("γ", "°"))

#: Figures of merit: heading of the column, and how a value is written.
_COLUMNS = {
    "n_reflections": ("reflections", count),
    "n_possible": ("possible", count),
    "completeness": ("completeness (%)", percent),
    "multiplicity": ("multiplicity", lambda v: fixed(v, 2)),
    "i_over_sigma": ("I/σ(I)", lambda v: fixed(v, 2)),
    "r_split": ("Rsplit (%)", lambda v: percent(v, 2)),
    "cc_half": ("CC1/2", lambda v: fixed(v, 4)),
    "cc_star": ("CC*", lambda v: fixed(v, 4)),
    "r_ano": ("Rano (%)", lambda v: percent(v, 2)),
    "cc_ano": ("CCano", lambda v: fixed(v, 4)),
    "crd_ano": ("CRDano", lambda v: fixed(v, 4)),
    "reference_cc": ("CC, reference", lambda v: fixed(v, 4)),
    "reference_r1_i": ("R1(I), reference (%)", lambda v: percent(v, 2)),
}


def figure_columns(always, where_known, rows):
    """Columns of a table of figures of merit.

    Parameters
    ----------
    always, where_known : sequence of str
        Names of the figures; the latter only where a row has a number.
    rows : sequence of dict

    Returns
    -------
    list of (heading, name, how it is written)
    """
    shown = [*always, *(name for name in where_known if any(is_number(row.get(name)) for row in rows))]
    return [(_COLUMNS[name][0], name, _COLUMNS[name][1]) for name in shown]


def section(heading, anchor, *content, **attributes):
    """A section under a heading that links can lead to."""
    title = element("h2", heading, id=anchor)
    return element("section", title, *content, aria_labelledby=anchor, **attributes)


def figure(svg, caption, source=None):
    """A drawing with its caption; None where there is no drawing."""
    if svg is None:
        return None
    return element("figure", svg, element("figcaption", caption, element("small", f" {source}") if source else None))


def figure_grid(figures):
    """Drawings side by side; None where there are none."""
    figures = [one for one in figures if one is not None]
    return element("div", figures, class_="figures") if figures else None


def quiet(text):
    """A remark in small letters."""
    return element("p", text, class_="quiet")


def cell_histogram(anchor, constant, values, what, expected, said=""):
    """Histogram of one constant of the cells, with what is expected dashed.

    Parameters
    ----------
    anchor : str
        Name of the drawing.
    constant : int
        Row of `CELL_CONSTANTS`.
    values : ndarray, shape (n,)
        Angstrom or degree.
    what : str
        What the values are of, 'crystals' for example.
    expected : float or None
    said : str
        What the words for those who don't see the drawing end with.

    Returns
    -------
    Html or None
        None where all values are the same.
    """
    name, unit = CELL_CONSTANTS[constant]
    median, spread = robust_spread(values)
    label = f"Histogram of {name} of {len(values)} {what}: median {median:.3f} {unit}, spread {spread:.3f} {unit}{said}"
    return draw.histogram(anchor, label, values, f"{name} ({unit})", expected)
