"""The files of the comparison: comparison.tsv for people and tables, comparison.json for the report."""

import csv
import json

from sfxflow.errors import InputError
from sfxflow.io.documents import read_json
from sfxflow.io.files import written_whole

#: Columns of comparison.tsv. A row is a shell, or all shells together (`shell` is overall), of one engine and merger: on its own
#: reflections (`reflections` is all), on those that all have (common), or beside another engine and merger (`beside`).
COLUMNS = (
    "dataset", "engine", "merger", "reflections", "beside", "shell", "d_max", "d_min",
    "frames", "failed", "hits", "indexed", "lattices", "crystals", "crystals_merged",
    "n_reflections", "n_possible", "completeness", "n_measurements", "multiplicity", "i_over_sigma",
    "n_pairs", "r_split", "cc_half", "cc_star", "n_reference", "reference_cc", "reference_r1_i",
    "n_beside", "cc_beside", "r1_i_beside",
    "cpu_peaks", "cpu_indexing", "cpu_integration", "cpu_merging", "cpu_total", "memory_mib",
)  # fmt: skip

_KEYS = ("provenance", "datasets")
_NOT_KNOWN = "not known"


def write_comparison_table(path, contents):
    """Write comparison.tsv.

    Parameters
    ----------
    path : path
    contents : dict
        As in comparison.json. What is not defined is left empty; CPU seconds and memory that nobody recorded are 'not known'.
    """
    with written_whole(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as handle:
        handle.write("# provenance: " + json.dumps(contents["provenance"], sort_keys=True) + "\n")
        writer = csv.DictWriter(handle, COLUMNS, delimiter="\t", restval="", lineterminator="\n")
        writer.writeheader()
        for dataset in contents["datasets"]:
            for row in _rows(dataset):
                writer.writerow({name: _text(value) for name, value in row.items()})


def read_comparison(path):
    """Read comparison.json.

    Returns
    -------
    dict
        provenance; datasets, a list of dict with name, space_group, cell, reference, n_common, n_common_pairs, n_possible, rows
        (name, engine, merger, frames, crystals, crystals_merged, cost, own and common with overall and shells), pairs and remarks.

    Raises
    ------
    InputError
        Not there, not JSON, or something else.
    """
    contents = read_json(path, "remove it and run again")
    if not isinstance(contents, dict) or any(key not in contents for key in _KEYS):
        raise InputError(f"{path}: holds no comparison of engines and mergers; remove it and run again")
    return contents


def _rows(dataset):
    for row in dataset["rows"]:
        of_row = {"dataset": dataset["name"], "engine": row["engine"], "merger": row["merger"]}
        for which, judged in (("all", row["own"]), ("common", row["common"])):
            if judged is None:
                continue
            first = of_row | {"reflections": which, "shell": "overall"} | judged["overall"]
            yield first | (_whole(row) if which == "all" else {})
            for number, shell in enumerate(judged["shells"], 1):
                yield of_row | {"reflections": which, "shell": number} | shell
    for pair in dataset["pairs"]:
        engine, merger = pair["first"].split("/", 1)
        for which, ending in (("all", ""), ("common", "_common")):
            yield {
                "dataset": dataset["name"],
                "engine": engine,
                "merger": merger,
                "reflections": which,
                "beside": pair["second"],
                "shell": "overall",
                "n_beside": pair["n" + ending],
                "cc_beside": pair["cc" + ending],
                "r1_i_beside": pair["r1_i" + ending],
            }


def _whole(row):
    """What is said once of an engine and merger: frames, crystals, costs."""
    cost = row["cost"]
    cpu = {f"cpu_{stage}": _NOT_KNOWN if value is None else value for stage, value in cost["cpu"].items()}
    memory = _NOT_KNOWN if cost["memory"] is None else cost["memory"]
    total = _NOT_KNOWN if cost["cpu_total"] is None else cost["cpu_total"]
    frames = row["frames"] or {}
    return {
        **frames,
        "crystals": row["crystals"],
        "crystals_merged": row["crystals_merged"],
        **cpu,
        "cpu_total": total,
        "memory_mib": memory,
    }


def _text(value):
    if value is None:
        return ""
    return format(value, ".7g") if isinstance(value, float) else str(value)
