"""The first table of the page: each dataset in one column, as in a paper."""

from sfxflow.reflections import Status
from sfxflow.report.contents import robust_spread, total
from sfxflow.report.markup import NONE, count, fixed, is_number, percent, share, table
from sfxflow.report.parts import section


def summary_section(datasets, runs):
    """Table of the datasets; values of the highest resolution shell in parentheses."""
    if not datasets:
        return None
    columns = [_column(dataset) for dataset in datasets]
    names = list(columns[0])
    rows = [[name, *(column[name] for column in columns)] for name in names if any(c[name] != NONE for c in columns)]
    return section(
        "Summary",
        "summary",
        table(
            "Data collection and merging statistics. In parentheses: highest resolution shell.",
            ["", *(f"{d.name} ({d.engine}, {d.merger})" for d in datasets)],
            rows,
            class_="numbers summary",
        ),
    )


def _column(dataset):
    overall, last = dataset.overall, (dataset.shells or [{}])[-1]

    def both(name, write):
        value = overall.get(name)
        if not is_number(value):
            return NONE
        return f"{write(value)} ({write(last.get(name))})" if last else write(value)

    account = _account(dataset)
    column = {
        "Space group": dataset.space_group or NONE,
        "Cell a, b, c (Å)": _triple(dataset.cell, slice(0, 3)),
        "Cell α, β, γ (°)": _triple(dataset.cell, slice(3, 6)),
        "Median of the crystals a, b, c (Å)": _medians(dataset, slice(0, 3)),
        "Median of the crystals α, β, γ (°)": _medians(dataset, slice(3, 6)),
        "Wavelength (Å)": fixed((dataset.attrs or {}).get("wavelength"), 5),
        **account,
        "Crystals": count(len(dataset.crystals["status"])) if dataset.crystals else NONE,
        "Crystals merged": count(sum(status == "merged" for status in dataset.crystals["status"]))
        if dataset.crystals
        else NONE,
        "Resolution (Å)": _range(overall) + (f" ({_range(last)})" if last and _range(last) != NONE else ""),
        "Measurements": both("n_measurements", count),
        "Unique reflections": both("n_reflections", count),
        "Completeness (%)": both("completeness", percent),
        "Multiplicity": both("multiplicity", lambda v: fixed(v, 1)),
        "Mean I/σ(I)": both("i_over_sigma", lambda v: fixed(v, 1)),
        "Rsplit (%)": both("r_split", percent),
        "CC1/2": both("cc_half", lambda v: fixed(v, 3)),
        "CC*": both("cc_star", lambda v: fixed(v, 3)),
        "CCano": both("cc_ano", lambda v: fixed(v, 3)),
        "R1(I) against the reference (%)": both("reference_r1_i", percent),
        "CC against the reference": both("reference_cc", lambda v: fixed(v, 3)),
        "Wilson B (Å²)": fixed(overall.get("wilson_b_squared"), 1),
    }
    return column


def _account(dataset):
    if not dataset.runs:
        return dict.fromkeys(("Runs", "Frames", "Hits (%)", "Indexed frames (% of the hits)", "Lattices"), NONE)
    whole = total(dataset.runs)
    indexed = whole.counts[Status.indexed]
    return {
        "Runs": count(len(dataset.runs)),
        "Frames": count(whole.n_frames),
        "Hits (%)": f"{count(whole.n_hits)} ({percent(share(whole.n_hits, whole.n_read))})",
        "Indexed frames (% of the hits)": f"{count(indexed)} ({percent(share(indexed, whole.n_hits))})",
        "Lattices": count(whole.n_lattices),
    }


def _triple(cell, part):
    return ", ".join(f"{value:g}" for value in cell[part]) if cell else NONE


def _medians(dataset, part):
    if not len(dataset.cells):
        return NONE
    return ", ".join(f"{robust_spread(values)[0]:.2f}" for values in dataset.cells.T[part])


def _range(figures):
    if not is_number(figures.get("d_min")):
        return NONE
    return f"{fixed(figures.get('d_max'), 2)} to {fixed(figures['d_min'], 2)}"
