"""The report's drawings: SVG text from arrays.

Text stays text, nothing is rasterised, and equal input gives equal output. Colours can be told apart by colour-blind readers and
in print; lines differ in their markers as well.
"""

import io
import re
import warnings

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from sfxflow.report.markup import Html, element

BLUE, ORANGE, GREY, RED, GREEN = "#0072b2", "#d55e00", "#6b6b6b", "#b00020", "#009e73"

#: Lines of engines and mergers: colours that colour-blind readers tell apart (Okabe & Ito), each with a marker of its own.
_LINE_COLOURS = (BLUE, ORANGE, GREEN, "#cc79a7", "#e69f00", "#000000", "#56b4e9")
_MARKERS, _LINE_STYLES = "osD^vPX", ("-", "--", ":")

#: What became of a frame, in the colours of the bar.
STATUS_COLOURS = {"failed": RED, "blank": "#d9d9d9", "hit": "#e69f00", "indexed": BLUE}

_STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#444444",
    "axes.linewidth": 0.8,
    "axes.labelcolor": "#222222",
    "axes.unicode_minus": True,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "path.simplify": True,
}
_WIDTH, _HEIGHT = 3.6, 2.5
_FONTS = "system-ui,-apple-system,'Segoe UI','Helvetica Neue',Arial,'DejaVu Sans',sans-serif"
_D_TICKS = (20, 10, 6, 5, 4, 3.5, 3, 2.5, 2.2, 2, 1.8, 1.6, 1.5, 1.4, 1.3, 1.2, 1.1, 1, 0.9, 0.8, 0.7, 0.6)
_BINS = 40
#: More lines than these have their legend below the axes, in rows of this height, inch.
_FEW_LINES, _LEGEND_ROW = 4, 0.17


def drawing(name, label, draw):
    """An inline SVG.

    Parameters
    ----------
    name : str
        Unique on the page: identifiers within the drawing are made from it.
    label : str
        What the drawing shows, for those who don't see it.
    draw : callable
        Draws on the matplotlib Axes that it is given.

    Returns
    -------
    Html
    """
    with rc_context({**_STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        # A font's metrics are all that is used here: the browser draws the text with its own.
        warnings.filterwarnings("ignore", message=".*[Gg]lyph.*")
        figure = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.add_subplot())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return _inline(buffer.getvalue(), label)


def _inline(text, label):
    """An SVG file's text as an element of a page: as wide as its place, with a label, without what a page does not need."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    view = re.search(r'viewBox="[^"]*"', text).group(0)
    referred = set(re.findall(r'(?:url\(|href=")#([^")]+)', text))
    text = re.sub(r' id="([^"]*)"', lambda m: m.group(0) if m.group(1) in referred else "", text)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"(?<=\d)px ('DejaVu Sans'[^;\"]*)", f"px {_FONTS}", text)
    text = re.sub(r"<g>\s*</g>\s*", "", text)
    text = re.sub(r"\n\s*", "\n", text)
    content = text[text.index(">") + 1 : text.rindex("</svg>")].replace("xlink:href", "href")
    opening = element("svg", role="img", aria_label=label, xmlns="http://www.w3.org/2000/svg")
    return Html(opening.replace(">", f" {view}>", 1).replace("</svg>", "") + content.strip() + "</svg>")


def against_resolution(name, label, limits, series, y_label, low=None, high=None):
    """Figures by shell against 1/d, with d along the top.

    Parameters
    ----------
    name, label : str
        See `drawing`.
    limits : sequence of (d_max, d_min)
        Of each shell, angstrom; None for no limit.
    series : dict
        Name to one value a shell; None where it is not defined.
    y_label : str
    low, high : float, optional
        Limits of the axis.

    Returns
    -------
    Html or None
        None if nothing is defined.
    """
    edges = np.array([[1.0 / d if d else np.nan for d in pair] for pair in limits], dtype=float).reshape(-1, 2)
    middle = edges.mean(axis=1)
    lines = {key: np.array([np.nan if v is None else v for v in values], float) for key, values in series.items()}
    lines = {key: values for key, values in lines.items() if np.any(np.isfinite(values) & np.isfinite(middle))}
    if not lines:
        return None

    def draw(axes):
        for (key, values), colour, marker, style in zip(
            lines.items(), (BLUE, ORANGE, GREEN), "osD", ("-", "--", ":"), strict=False
        ):
            axes.plot(middle, values, color=colour, marker=marker, linestyle=style, label=key)
        axes.set_xlim(0, np.nanmax(edges) * 1.02)
        axes.set_ylim(low, high)
        _resolution_axes(axes)
        axes.set_ylabel(y_label)
        if len(lines) > 1:
            axes.legend(loc="best")

    return drawing(name, label, draw)


def compared_by_resolution(name, label, limits, series, y_label, low=None, high=None):
    """As `against_resolution`, for more lines: one for each engine and merger, the same on every drawing.

    Parameters
    ----------
    series : dict
        Name of each engine and merger to one value a shell; None where it is not defined.
    """
    edges = np.array([[1.0 / d if d else np.nan for d in pair] for pair in limits], dtype=float).reshape(-1, 2)
    middle = edges.mean(axis=1)
    lines = {key: np.array([np.nan if v is None else v for v in values], float) for key, values in series.items()}
    if not any(np.any(np.isfinite(values) & np.isfinite(middle)) for values in lines.values()):
        return None

    def draw(axes):
        for number, (key, values) in enumerate(lines.items()):
            axes.plot(
                middle,
                values,
                color=_LINE_COLOURS[number % len(_LINE_COLOURS)],
                marker=_MARKERS[number % len(_MARKERS)],
                linestyle=_LINE_STYLES[number // len(_LINE_COLOURS) % len(_LINE_STYLES)],
                label=key,
            )
        axes.set_xlim(0, np.nanmax(edges) * 1.02)
        axes.set_ylim(low, high)
        _resolution_axes(axes)
        axes.set_ylabel(y_label)
        if len(lines) <= _FEW_LINES:
            axes.legend(loc="best")
            return
        rows = -(-len(lines) // 2)
        axes.figure.set_figheight(_HEIGHT + _LEGEND_ROW * rows)
        axes.figure.legend(loc="outside lower center", ncols=2)

    return drawing(name, label, draw)


def _resolution_axes(axes):
    end = axes.get_xlim()[1]
    axes.set_xlabel("1/d (Å⁻¹)")
    axes.grid(axis="y", color="#e5e5e5", linewidth=0.6)
    axes.set_axisbelow(True)
    chosen, last = [], 0.0
    for d in _D_TICKS:
        if 1.0 / d < 0.96 * end and 1.0 / d - last > 0.11 * end:
            chosen.append(d)
            last = 1.0 / d
    top = axes.twiny()
    top.set_xlim(0, end)
    top.set_xticks([1.0 / d for d in chosen], [f"{d:g}" for d in chosen])
    top.spines["top"].set_visible(True)
    top.set_xlabel("d (Å)", fontsize=8)
    top.tick_params(labelsize=8)


def histogram(name, label, values, x_label, expected=None, logarithmic=False):
    """A histogram, the outermost hundredths at either end gathered in the end bins if they lie far off.

    Parameters
    ----------
    name, label : str
        See `drawing`.
    values : ndarray, shape (n,)
    x_label : str
    expected : float, optional
        Drawn as a dashed line.
    logarithmic : bool
        Bins equally wide in the logarithm; values that are not positive are left out.

    Returns
    -------
    Html or None
        None without a finite value, or where all are the same.
    """
    values = np.asarray(values, dtype=float)
    values = values[np.isfinite(values)]
    if logarithmic:
        values = values[values > 0]
    if not len(values) or np.ptp(values) <= 1e-6 * np.max(np.abs(values)):
        return None
    scaled = np.log10(values) if logarithmic else values
    low, high = bulk_range(scaled)
    bins = np.linspace(low, high, min(_BINS, max(8, int(2 * np.sqrt(len(values))))) + 1)
    bins = 10**bins if logarithmic else bins
    shown = np.clip(values, bins[0], bins[-1])

    def draw(axes):
        axes.hist(shown, bins=bins, histtype="stepfilled", facecolor="#9ecae1", edgecolor=BLUE, linewidth=0.9)
        if expected is not None and bins[0] <= expected <= bins[-1]:
            axes.axvline(expected, color=ORANGE, linestyle="--", linewidth=1.2)
        if logarithmic:
            axes.set_xscale("log")
            # Ticks within a decade too: scales of one data set often span less.
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
        else:
            axes.xaxis.set_major_locator(MaxNLocator(5))
            axes.ticklabel_format(axis="x", style="plain", useOffset=False)
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_xlabel(x_label)
        axes.set_ylabel("crystals")

    return drawing(name, label, draw)


def bulk_range(values):
    """Range that holds the values but for outliers: the 1 to 99 percentiles widened by half, within the whole range."""
    low, high = np.percentile(values, [1, 99])
    margin = 0.5 * (high - low) if high > low else 0.5 * np.ptp(values)
    return max(low - margin, values.min()), min(high + margin, values.max())


def wilson(name, label, x, y, slope=None, middle=None, fit_from=None):
    """Wilson plot.

    Parameters
    ----------
    name, label : str
        See `drawing`.
    x, y : ndarray, shape (n,)
        (sin(theta) / lambda)^2 in 1/angstrom^2, and the logarithm; NaN for an empty bin.
    slope, middle, fit_from : float, (float, float) and float, optional
        Of the fitted line: slope, a point on it, and where it starts.

    Returns
    -------
    Html or None
    """
    use = np.isfinite(x) & np.isfinite(y)
    if np.count_nonzero(use) < 2:
        return None

    def draw(axes):
        axes.plot(x[use], y[use], color=BLUE, marker="o", markersize=3, linewidth=0.8)
        if slope is not None:
            ends = np.array([fit_from, x[use][-1]])
            axes.plot(ends, middle[1] + slope * (ends - middle[0]), color=ORANGE, linestyle="--")
        axes.grid(axis="y", color="#e5e5e5", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.set_xlabel("(sin θ / λ)² (Å⁻²)")
        axes.set_ylabel("ln ⟨I / (ε Σ f²)⟩")

    return drawing(name, label, draw)


def partiality_curves(name, label, x, q, rows, error=None):
    """The partiality curve of a few resolutions.

    Parameters
    ----------
    name, label : str
        See `drawing`.
    x : ndarray, shape (n,)
        Distance from the Ewald sphere in widths.
    q : ndarray, shape (m,)
        1/angstrom.
    rows : ndarray, shape (m, n)
    error : ndarray, shape (m, n), optional
        Drawn as a band.

    Returns
    -------
    Html or None
    """
    if not rows.size or not np.any(np.isfinite(rows)):
        return None
    alike = np.allclose(rows, rows[0], rtol=1e-3)
    chosen = [0] if alike else [0, len(q) // 2, len(q) - 1]

    def draw(axes):
        for row, colour, style in zip(chosen, (BLUE, ORANGE, GREEN), ("-", "--", ":"), strict=False):
            axes.plot(
                x, rows[row], color=colour, linestyle=style, label="all d" if alike else f"d = {1 / q[row]:.1f} Å"
            )
            if error is not None:
                axes.fill_between(
                    x, rows[row] - error[row], rows[row] + error[row], color=colour, alpha=0.15, linewidth=0
                )
        axes.set_xlim(0, x[-1])
        axes.set_ylim(0, None)
        axes.set_xlabel("|excitation error| / (w σ(q))")
        axes.set_ylabel("relative partiality")
        axes.legend(loc="upper right")

    return drawing(name, label, draw)


def residual_map(name, label, outlines, places, arrows, colour):
    """Arrows on the outlines of the panels, looking along x and y as the geometry has them.

    Parameters
    ----------
    name, label : str
        See `drawing`.
    outlines : list of ndarray, shape (4, 2)
    places, arrows : ndarray, shape (n, 2)
        Where arrows begin, and how long they are drawn.
    colour : str

    Returns
    -------
    Html
    """

    def draw(axes):
        axes.add_collection(PolyCollection(outlines, facecolors="none", edgecolors="#b8b8b8", linewidths=0.6))
        axes.quiver(*places.T, *arrows.T, color=colour, angles="xy", scale_units="xy", scale=1.0, width=0.006)
        axes.set_aspect("equal")
        corners = np.concatenate([*outlines, places])
        low, high = corners.min(axis=0), corners.max(axis=0)
        margin = 0.04 * (high - low).max()
        axes.set_xlim(low[0] - margin, high[0] + margin)
        axes.set_ylim(low[1] - margin, high[1] + margin)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("x (pixel)")
        axes.set_ylabel("y (pixel)")

    return drawing(name, label, draw)


def status_bar(counts):
    """A bar that shows the parts of the frames, for a cell of a table.

    Parameters
    ----------
    counts : dict
        Name of a status to number of frames.

    Returns
    -------
    Html
    """
    whole = sum(counts.values())
    pieces, start = [], 0.0
    for status, n in counts.items():
        width = 100.0 * n / whole if whole else 0.0
        if width:
            pieces.append(
                element("rect", x=f"{start:.2f}", y="0", width=f"{width:.2f}", height="10", fill=STATUS_COLOURS[status])
            )
        start += width
    label = ", ".join(f"{n} {status}" for status, n in counts.items())
    return element(
        "svg",
        pieces,
        class_="bar",
        viewBox="0 0 100 10",
        preserveAspectRatio="none",
        role="img",
        aria_label=label,
    )
