"""Definitions of the figures, and the files, commands and settings behind the numbers."""

from sfxflow.report.markup import NONE, element, joined, table
from sfxflow.report.parts import section

#: Inputs of a file that are named; the others are counted.
_MOST_INPUTS = 4


def definitions_section(datasets):
    """What each figure of merit is, as the files of the figures say themselves."""
    definitions = {}
    for dataset in datasets:
        if dataset.figures:
            definitions |= dataset.figures["definitions"]
    if not definitions:
        return None
    rows = [
        [name, values.get("definition", ""), values.get("from", ""), values.get("unit", "") or NONE]
        for name, values in definitions.items()
    ]
    return section(
        "Definitions",
        "definitions",
        table(
            "Figures of merit, with their names in figures_of_merit.json.",
            ["name", "definition", "from", "unit"],
            rows,
            class_="text",
        ),
    )


def origins_section(origins):
    """Files, program, command, settings and inputs behind the page.

    Parameters
    ----------
    origins : list of sfxflow.report.contents.Origin
    """
    if not origins:
        return None
    return section(
        "Where the numbers come from",
        "origins",
        element(
            "p",
            "As the files say of themselves. Files that were made alike, with the same program and settings, stand together: command "
            "and inputs are those of the first.",
        ),
        [_origin(origin) for origin in origins],
    )


def _origin(origin):
    made = origin.provenance
    inputs = made.get("inputs", [])
    names = [
        element("li", element("code", item.get("name", "")), f", {_size(item.get('size'))}, {item.get('modified', '')}")
        for item in inputs[:_MOST_INPUTS]
    ]
    if len(inputs) > _MOST_INPUTS:
        names.append(element("li", f"and {len(inputs) - _MOST_INPUTS} more"))
    files = [element("code", origin.files[0])]
    if len(origin.files) > 1:
        files += [f" and {len(origin.files) - 1} more, the last ", element("code", origin.files[-1])]
    terms = [
        ("Files" if len(origin.files) > 1 else "File", joined(files)),
        ("Program", made.get("program") or NONE),
        ("Command", element("code", made.get("command") or NONE)),
        ("Settings", _settings(made.get("settings"))),
        ("Inputs", element("ul", names) if names else NONE),
    ]
    return element(
        "article",
        element("h3", origin.what),
        element("dl", [joined([element("dt", term), element("dd", text)]) for term, text in terms]),
    )


def _settings(settings):
    if not settings:
        return NONE
    return joined(
        [
            [", " if number else "", element("code", f"{name}: {'none' if value is None else value}")]
            for number, (name, value) in enumerate(sorted(settings.items()))
        ]
    )


def _size(size):
    if not isinstance(size, int | float):
        return NONE
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.3g} {unit}"
        size /= 1000
    return NONE
