"""docs/performance.md and its figure, from the measured rows."""

from datetime import UTC, datetime

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

_HEAD = """# Performance

Every figure comes from `make benchmark`, which writes `docs/performance.json` and draws this page from it; `python benchmarks/run.py NAME` repeats
one part, `python benchmarks/NAME.py` only prints it. Frames and peak lists are the simulator's, with seeds that nothing was chosen on; times are
CPU time. Where CrystFEL is on `PATH`, its programs run in the same run on the same input. Shared machines are noisy: ratios within a run say
more than seconds.

Last written {date}.

| what | version |
|---|---|
{versions}

![What was reached of what is to be reached](performance.svg)
"""


def write_page(results, titles, folder):
    """Write performance.md and performance.svg.

    Parameters
    ----------
    results : dict
        versions, and benchmarks: name to seconds and rows.
    titles : dict
        Name of each benchmark to its heading, in the order of the page.
    folder : Path
    """
    versions = "\n".join(f"| {name} | {value} |" for name, value in results["versions"].items())
    parts = [_HEAD.format(date=datetime.now(UTC).date(), versions=versions)]
    for name, title in titles.items():
        found = results["benchmarks"].get(name)
        if not found:
            continue
        parts.append(f"## {title}\n\n`python benchmarks/{name}.py`, {found['seconds']:.0f} s.\n")
        parts.append("| what | seen | to reach | reached | conditions |\n|---|---|---|---|---|")
        parts += [_line(row) for row in found["rows"]]
        parts.append("")
    (folder / "performance.md").write_text("\n".join(parts), encoding="utf-8")
    _draw(results["benchmarks"], titles, folder / "performance.svg")


def _line(row):
    reached = {True: "yes", False: "**no**", None: ""}[row["ok"]]
    cells = (row["what"], f"{row['seen']:.4g} {row['unit']}".strip(), row["reach"], reached, row["note"])
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def _draw(benchmarks, titles, path):
    """A bar a benchmark: figures that reach what is asked for, and those that don't."""
    names = [
        name for name in titles if any(row["ok"] is not None for row in benchmarks.get(name, {"rows": []})["rows"])
    ]
    reached = [sum(row["ok"] is True for row in benchmarks[name]["rows"]) for name in names]
    missed = [sum(row["ok"] is False for row in benchmarks[name]["rows"]) for name in names]
    with plt.rc_context({"svg.hashsalt": "sfxflow", "font.size": 9}):
        figure, axes = plt.subplots(figsize=(7, 0.6 + 0.3 * len(names)), layout="constrained")
        places = range(len(names))
        axes.barh(places, reached, color="#2b6a99", label="reached")
        axes.barh(places, missed, left=reached, color="#d1783c", label="not reached")
        axes.set_yticks(places, [titles[name] for name in names])
        axes.invert_yaxis()
        axes.set_xlabel("figures")
        axes.legend(frameon=False)
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)
