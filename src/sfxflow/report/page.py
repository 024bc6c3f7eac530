"""The page: warnings, summary, frame account, a section for each dataset, and where each number comes from."""

from sfxflow.reflections import Status
from sfxflow.report.cell import cell_section, cell_warnings
from sfxflow.report.comparison import comparison_section
from sfxflow.report.contents import merged_reasons, total
from sfxflow.report.dataset import dataset_section, dataset_title
from sfxflow.report.figures import STATUS_COLOURS, status_bar
from sfxflow.report.geometry import geometry_section, geometry_warnings
from sfxflow.report.markup import NONE, Html, count, element, fixed, joined, percent, share, table
from sfxflow.report.origins import definitions_section, origins_section
from sfxflow.report.parts import section
from sfxflow.report.style import CSS
from sfxflow.report.summary import summary_section
from sfxflow.report.warnings import dataset_warnings, run_warnings

#: Different messages that are shown; the rest is counted in one line.
_MOST_REASONS = 20
_STATUS_WORDS = {
    Status.failed: "failed",
    Status.blank: "blank",
    Status.hit: "hit, not indexed",
    Status.indexed: "indexed",
}


def page(title, program, runs, datasets, origins, cells=(), proposals=(), compared=None):
    """The whole page.

    Parameters
    ----------
    title, program : str
    runs : list of sfxflow.report.contents.Run
    datasets : list of sfxflow.report.contents.Dataset
    origins : list of sfxflow.report.contents.Origin
    cells : sequence of sfxflow.report.cell.FoundCell
    proposals : sequence of sfxflow.report.geometry.Proposal
    compared : dict, optional
        As in comparison.json.

    Returns
    -------
    Html
    """
    sections = [
        _warnings_section(
            [w for cell in cells for w in cell_warnings(cell)]
            + [w for run in runs for w in run_warnings(run)]
            + [w for d in datasets for w in dataset_warnings(d)]
            + [w for proposal in proposals for w in geometry_warnings(proposal)]
        ),
        summary_section(datasets, runs),
        comparison_section(compared),
        _frames_section(runs),
        cell_section(cells),
        geometry_section(proposals),
        [dataset_section(dataset, f"d{number}") for number, dataset in enumerate(datasets)],
        definitions_section(datasets),
        origins_section(origins),
    ]
    links = [
        ("summary", "Summary"),
        *([("comparison", "Engines and mergers side by side")] if compared else []),
        ("frames", "Frames"),
        *([("cells", "Unit cells that were found")] if cells else []),
        *([("geometries", "Proposed geometries")] if proposals else []),
        *((f"d{number}", dataset_title(dataset)) for number, dataset in enumerate(datasets)),
        ("definitions", "Definitions"),
        ("origins", "Where the numbers come from"),
    ]
    body = [
        element("header", element("h1", title), element("p", f"Serial crystallography, processed with {program}.")),
        element(
            "nav",
            element("ul", [element("li", element("a", text, href=f"#{to}")) for to, text in links]),
            aria_label="Contents",
        ),
        element("main", sections),
    ]
    head = element(
        "head",
        Html('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
        element("title", title),
        element("style", Html(CSS)),
    )
    return Html("<!DOCTYPE html>\n" + element("html", head, element("body", body), lang="en") + "\n")


def _warnings_section(found):
    serious = [w for w in found if w.serious]
    notes = [w for w in found if not w.serious]
    return joined(
        [
            _warning_box("warnings", f"Warnings ({len(serious)})", serious) if serious else None,
            _warning_box("notes", f"Notes ({len(notes)})", notes) if notes else None,
            None if found else element("p", "No warnings.", class_="quiet"),
        ]
    )


def _warning_box(kind, heading, found):
    items = [element("li", element("strong", f"{w.where}: "), w.text) for w in found]
    return element("section", element("h2", heading, id=kind), element("ul", items), class_=kind, aria_labelledby=kind)


def _frames_section(runs):
    if not runs:
        return None
    engines = list(dict.fromkeys(run.engine for run in runs))
    return section(
        "Frames",
        "frames",
        element(
            "p",
            "Every frame is failed (it could not be read or processed), blank (too few peaks), a hit that was not indexed, or indexed. "
            "Hit rate: hits, indexed or not, of the frames that did not fail. Index rate: indexed frames of the hits.",
        ),
        _legend(),
        [_account(engine, [run for run in runs if run.engine == engine]) for engine in engines],
    )


def _legend():
    return element(
        "p",
        [
            element("span", element("i", style=f"background:{STATUS_COLOURS[status.name]}"), f" {word}", class_="key")
            for status, word in _STATUS_WORDS.items()
        ],
        class_="legend",
        aria_hidden="true",
    )


def _account(engine, runs):
    head = ["run", "frames", "=", "failed", "+ blank", "+ hit, not indexed", "+ indexed", "in runs table"]
    head += ["", "hit rate (%)", "index rate (%)", "lattices", "per indexed frame"]
    whole = total(runs)
    rows = [_account_row(run) for run in runs]
    foot = [_account_row(whole)] if len(runs) > 1 else []
    return joined(
        [
            element("h3", f"Engine {engine}"),
            table(
                f"Frame account, engine {engine}. From {', '.join(run.path for run in runs[:3])}"
                + (f" and {len(runs) - 3} more." if len(runs) > 3 else "."),
                [name for name in head if name != "="],
                rows,
                foot,
                class_="numbers",
            ),
            _reasons_table(engine, runs),
        ]
    )


def _account_row(run):
    agreement = NONE
    if run.n_expected is not None:
        agrees = run.n_expected == run.n_frames
        agreement = (
            f"{count(run.n_expected)} ✓" if agrees else element("strong", f"{count(run.n_expected)} ✗", class_="wrong")
        )
    indexed = run.counts[Status.indexed]
    return [
        run.name,
        count(run.n_frames),
        *(count(run.counts[status]) for status in Status),
        agreement,
        status_bar({status.name: run.counts[status] for status in Status}),
        percent(share(run.n_hits, run.n_read)),
        percent(share(indexed, run.n_hits)),
        count(run.n_lattices),
        fixed(share(run.n_lattices, indexed), 2),
    ]


def _reasons_table(engine, runs):
    reasons = merged_reasons([reason for run in runs for reason in run.reasons])
    if not reasons:
        return element("p", "No frame of this engine has a message.", class_="quiet")
    first = {}
    for run in runs:
        for reason in run.reasons:
            first.setdefault((reason.status, reason.text), f"run {run.name}, frame {reason.first}")
    rows = [[_STATUS_WORDS[r.status], r.text, count(r.count), first[r.status, r.text]] for r in reasons[:_MOST_REASONS]]
    rest = reasons[_MOST_REASONS:]
    if rest:
        rows.append(["any", f"{len(rest)} other messages", count(sum(r.count for r in rest)), NONE])
    return table(
        f"Messages of the frames, engine {engine}: why frames failed or were not indexed.",
        ["status", "message", "frames", "first"],
        rows,
        class_="text",
    )
