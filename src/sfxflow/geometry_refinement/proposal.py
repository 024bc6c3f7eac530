"""What a refined geometry changes, how well it is known, and what it leaves: numbers for people and for the report."""

import numpy as np

from sfxflow.geometry import panel_arrays
from sfxflow.geometry_refinement.crystals import BINS
from sfxflow.geometry_refinement.groups import ROWS, panel_centres

#: Correlations above this, at most so many.
STRONG = 0.5
_MOST = 20


def proposal(refined, given, pixel_size):
    """Summary of a refinement.

    Parameters
    ----------
    refined : sfxflow.geometry_refinement.refine.Refined
    given : sfxflow.geometry.Detector
        As the file has it, before any search.
    pixel_size : float
        Metre.

    Returns
    -------
    dict
        Strings, numbers, lists and dicts only, for JSON. Shifts and residuals are in pixels, turns in milliradian, lengths in metre.
    """
    return {
        "crystals": len(refined.used),
        "passes": refined.passes,
        "notes": list(refined.notes),
        "cell": [round(float(x), 4) for x in refined.cell],
        "residuals": {"before": residuals(refined.before), "after": residuals(refined.after)},
        "overall": _overall(refined, given, pixel_size),
        "groups": _groups(refined, pixel_size),
        "panels": _panels(refined, given, pixel_size),
        "eigenvalues": [float(f"{value:.4g}") for value in refined.eigenvalues[:10]],
        "weakest": _weakest(refined),
        "correlations": _correlations(refined),
        "map": residual_map(refined, given, pixel_size),
    }


def residuals(sums):
    """Root mean square distance of the matched peaks from their predictions, and that of its mean over parts of a panel, pixel."""
    weight, x, y, squares = (sums.maps[..., i] for i in range(4))
    total = weight.sum()
    if not total:
        return {"peaks": 0, "rms": None, "systematic": None}
    mean_squares = (x**2 + y**2)[weight > 0] / weight[weight > 0]
    return {
        "peaks": int(sums.n_matched.sum()),
        "rms": float(np.sqrt(squares.sum() / total)),
        "systematic": float(np.sqrt(mean_squares.sum() / total)),
    }


def _overall(refined, given, pixel_size):
    centres = panel_centres(panel_arrays(refined.detector)) - panel_centres(panel_arrays(given))
    x, y = centres[:, :2].mean(axis=0) / pixel_size
    values = {
        "shift_x": float(x),
        "shift_x_sigma": float(refined.sigma[0]),
        "shift_y": float(y),
        "shift_y_sigma": float(refined.sigma[1]),
        "clen_change": float(centres[:, 2].mean()),
        "clen_change_sigma": float(refined.stretch_sigma),
    }
    if not isinstance(given.clen, str):
        values["clen_change"] += refined.detector.clen - given.clen
        values |= {"clen_given": given.clen, "clen": refined.detector.clen}
    values["clen_refined"] = refined.distance
    # What the crystals say of the camera length, whether it was asked for or not.
    values["clen_change_indicated"] = values["clen_change"] if refined.distance else float(refined.stretch)
    return values


def _groups(refined, pixel_size):
    found = []
    for number, group in enumerate(refined.groups):
        own = [(i, p) for i, p in enumerate(refined.parameters) if p.group == number]
        entry = {
            "name": group.name,
            "parent": refined.groups[group.parent].name if group.parent >= 0 else None,
            "panels": len(group.panels),
            "matched": int(refined.after.n_matched[list(group.panels)].sum()),
        }
        for i, parameter in own:
            scale = 1e3 if ROWS[parameter.freedom] > 2 else 1.0 / pixel_size
            entry[parameter.freedom] = {
                "value": float(refined.value[i] * parameter.unit * scale),
                "sigma": float(refined.sigma[i] * parameter.unit * scale),
            }
        found.append(entry)
    return found


def _panels(refined, given, pixel_size):
    old, new = panel_arrays(given), panel_arrays(refined.detector)
    moved = (panel_centres(new) - panel_centres(old)) / pixel_size
    turned = np.arctan2(
        old.fs[:, 0] * new.fs[:, 1] - old.fs[:, 1] * new.fs[:, 0], (old.fs[:, :2] * new.fs[:, :2]).sum(axis=1)
    )
    size = old.bounds[:, [3, 1]] - old.bounds[:, [2, 0]]
    entries = []
    for i, panel in enumerate(given.panels):
        along, across = size[i, 0] * old.fs[i], size[i, 1] * old.ss[i]
        corners = np.array([old.origin[i] + a * along + b * across for a, b in ((0, 0), (1, 0), (1, 1), (0, 1))])
        entries.append(
            {
                "name": panel.name,
                "shift_x": float(moved[i, 0]),
                "shift_y": float(moved[i, 1]),
                "shift_z": float(moved[i, 2]),
                "turn": float(1e3 * turned[i]),
                "peaks": int(refined.before.n_peaks[i]),
                "matched": int(refined.after.n_matched[i]),
                "before": _mean(refined.before.maps[i]),
                "after": _mean(refined.after.maps[i]),
                "corners": (corners[:, :2] / pixel_size).round(1).tolist(),
            }
        )
    return entries


def _mean(maps):
    weight, x, y, _ = maps.reshape(-1, 4).sum(axis=0)
    return [float(x / weight), float(y / weight)] if weight else None


def residual_map(refined, given, pixel_size):
    """Mean displacement (observed minus predicted, pixel) of the matched peaks in parts of each panel, before and after.

    Returns
    -------
    list of list
        Place x, y in the laboratory (pixel), matched peaks, x and y before, x and y after; parts without peaks are left out.
    """
    arrays = panel_arrays(given)
    size = arrays.bounds[:, [3, 1]] - arrays.bounds[:, [2, 0]]
    rows = []
    for panel in range(len(arrays.bounds)):
        for i in range(BINS):
            for j in range(BINS):
                before, after = refined.before.maps[panel, i, j], refined.after.maps[panel, i, j]
                if not before[0] or not after[0]:
                    continue
                fs, ss = (j + 0.5) / BINS * size[panel, 0], (i + 0.5) / BINS * size[panel, 1]
                place = (arrays.origin[panel] + fs * arrays.fs[panel] + ss * arrays.ss[panel])[:2] / pixel_size
                means = [*(before[1:3] / before[0]), *(after[1:3] / after[0])]
                rows.append([*place.round(1).tolist(), round(float(after[0])), *np.round(means, 4).tolist()])
    return rows


def _weakest(refined):
    """What the direction that is known least is made of, largest part first."""
    order = np.argsort(-np.abs(refined.weakest))[:5]
    value = refined.eigenvalues[0]
    return {
        "sigma": float(value**-0.5) if value > 0 else None,
        "parts": [
            {"group": _name(refined, i), "freedom": refined.parameters[i].freedom, "part": float(refined.weakest[i])}
            for i in order
        ],
    }


def _name(refined, i):
    return refined.groups[refined.parameters[i].group].name


def _correlations(refined):
    """The strongest correlations between parameters."""
    sigma = np.maximum(refined.sigma, 1e-300)
    correlation = refined.covariance / np.outer(sigma, sigma)
    pairs = np.argwhere(np.triu(np.abs(correlation) > STRONG, 1))
    pairs = sorted(pairs.tolist(), key=lambda pair: -abs(correlation[tuple(pair)]))[:_MOST]
    return [
        {
            "first": f"{_name(refined, i)}: {refined.parameters[i].freedom}",
            "second": f"{_name(refined, j)}: {refined.parameters[j].freedom}",
            "correlation": float(correlation[i, j]),
        }
        for i, j in pairs
    ]
