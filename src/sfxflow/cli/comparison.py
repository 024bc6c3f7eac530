"""Compare engines and mergers: one table of what each made of the same frames.

For each dataset hits, lattices, figures of merit by shell, CPU seconds and memory of every engine and merger, on all of its reflections
and on those that all have in common, in the same shells; how they agree with each other, and with the reference where there is one.
docs/comparison.md says how to read it.
"""

import json
from collections import defaultdict
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sfxflow.ambiguity.operators import ambiguity_operators, described
from sfxflow.cli.figures_of_merit import lists_of_merged, read_reference, resolution_range
from sfxflow.cli.result_names import names_in
from sfxflow.errors import InputError
from sfxflow.io.comparison import write_comparison_table
from sfxflow.io.files import provenance, written_whole
from sfxflow.io.frame_account import count_by_status, read_frame_account
from sfxflow.io.job_costs import cost_of_job, together
from sfxflow.io.merged import read_merged
from sfxflow.io.provenance import parse_provenance
from sfxflow.reflections import Status
from sfxflow.settings import settings_from_json
from sfxflow.statistics.comparison import Merge, compare, turned_by, way_to_index
from sfxflow.symmetry import space_group

#: Fewer reflections than this part of the possible ones: what all have in common says little about all data.
_FEW = 0.3
#: Results before merging: the endings of their names, to the stage that they are of.
_STAGES = {"peaks": "peaks", "indexed": "indexing", "integrated": "integration"}


def add_arguments(parser):
    """Arguments of `sfxflow comparison`."""
    parser.add_argument(
        "--merged", nargs="+", required=True, metavar="FILE", help="merged files of all that is compared"
    )
    parser.add_argument("--frames", nargs="*", default=[], metavar="TSV", help="frame accounts of the runs")
    parser.add_argument(
        "--datasets",
        default="{}",
        metavar="JSON",
        help='of each dataset its runs and its reference, if it has one: {"NAME": {"runs": [...], "reference": FILE}}',
    )
    parser.add_argument("--settings", default="", metavar="JSON", help="settings of figures_of_merit: the shells")
    parser.add_argument("--tsv", required=True, metavar="FILE", help="table to write")
    parser.add_argument("--json", required=True, metavar="FILE", help="the same for the report, to write")


class _Merged(NamedTuple):
    """A merged file, and what its path says."""

    path: str
    engine: str
    merger: str
    dataset: str
    crystals: dict
    attrs: dict
    crystal: object
    merge: Merge

    @property
    def name(self):
        return f"{self.engine}/{self.merger}"


def run(args):
    """Read, compare, write; prints what a person has to know."""
    settings = settings_from_json("figures_of_merit", args.settings)
    limits = resolution_range(settings)
    datasets = _read_datasets(args.datasets)
    accounts = {}
    for path in args.frames:
        engine, (name,) = names_in(path, "runs", 1)
        accounts[engine, name] = path
    by_dataset = defaultdict(list)
    for path in args.merged:
        merged = _read_merged(path)
        by_dataset[merged.dataset].append(merged)
    references = [values["reference"] for values in datasets.values() if values.get("reference")]
    result = {
        "provenance": provenance(asdict(settings), [*args.merged, *args.frames, *references]),
        "datasets": [
            _compared(name, files, datasets.get(name, {}), accounts, limits, settings.n_shells)
            for name, files in by_dataset.items()
        ],
    }
    with written_whole(args.json) as temporary:
        temporary.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    write_comparison_table(args.tsv, result)
    for dataset in result["datasets"]:
        print(f"{dataset['name']}: {', '.join(row['name'] for row in dataset['rows'])}")
        for remark in dataset["remarks"]:
            print(f"  {remark}")


def _read_datasets(text):
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"--datasets: not JSON: {error}") from None
    if not isinstance(values, dict) or not all(isinstance(value, dict) for value in values.values()):
        raise InputError('--datasets: {"NAME": {"runs": [...], "reference": FILE}} is expected')
    return values


def _read_merged(path):
    merged, crystals, _, attrs = read_merged(path)
    engine, (merger, name) = names_in(path, "merged", 2)
    if engine == "by hand":
        merger, name = path, attrs["dataset"]
    crystal, data, halves = lists_of_merged(merged, attrs)
    return _Merged(path, engine, merger, name, crystals, attrs, crystal, Merge(data, halves))


def _compared(name, files, known, accounts, limits, n_shells):
    """Everything about one dataset, ready for JSON."""
    first = files[0]
    remarks = []
    alike = [file for file in files if _same_group(file, first)]
    for file in files:
        if file not in alike:
            remarks.append(
                f"{file.name} is merged in {file.attrs['space_group']}, {first.name} in {first.attrs['space_group']}: "
                "their reflections are not the same ones, so it is left out here"
            )
    reference = read_reference(known["reference"]) if known.get("reference") else None
    merges = _indexed_alike(alike, reference, remarks)
    found = compare(merges, first.crystal, reference, *limits, n_shells)
    remarks += _remarks(found, alike)
    rows = [
        {
            "name": file.name,
            "engine": file.engine,
            "merger": file.merger,
            "frames": _frames(file, known.get("runs", []), accounts),
            "crystals": len(file.crystals["status"]),
            "crystals_merged": sum(status == "merged" for status in file.crystals["status"]),
            "cost": _cost(file, known.get("runs", []), accounts),
            "own": {"overall": own[0], "shells": own[1]},
            "common": None if common is None else {"overall": common[0], "shells": common[1]},
        }
        for file, own, common in zip(alike, found.own, found.common, strict=True)
    ]
    return {
        "name": name,
        "space_group": first.attrs["space_group"],
        "cell": list(first.crystal.parameters),
        "reference": known.get("reference") or None,
        "n_common": found.n_common,
        "n_common_pairs": found.n_common_pairs,
        "n_possible": found.own[0][0]["n_possible"],
        "rows": rows,
        "pairs": [
            pair | {"first": alike[pair["first"]].name, "second": alike[pair["second"]].name} for pair in found.pairs
        ],
        "remarks": remarks,
    }


def _same_group(one, other):
    return np.array_equal(np.unique(one.crystal.operations, axis=0), np.unique(other.crystal.operations, axis=0))


def _indexed_alike(files, reference, remarks):
    """The merges with all crystals indexed as the reference has them, or else as the first merge has them."""
    first = files[0]
    operators = ambiguity_operators(first.crystal.parameters, space_group(first.attrs["space_group"]))
    anchor = reference or first.merge.data
    merges = []
    for file in files:
        data, halves = file.merge
        way = way_to_index(data, anchor, first.crystal, operators)
        if way:
            data, *halves = (turned_by(each, operators[way]) for each in (data, *halves))
            remarks.append(
                f"{file.name} indexed all crystals in another way than {'the reference' if reference else first.name}; "
                f"here its reflections are {described(operators[way])}"
            )
        merges.append(Merge(data, tuple(halves)))
    return merges


def _remarks(found, files):
    for number in found.without_reflections:
        yield f"{files[number].name} has no merged reflections: those in common are of the others"
    for number in found.without_halves:
        yield f"{files[number].name} has no reflection in both half sets: those in common are of the others"
    possible = found.own[0][0]["n_possible"]
    shared = found.n_common_pairs / possible if possible else 0.0
    if len(files) > 1 and shared < _FEW:
        yield (
            f"Rsplit, CC1/2 and CC* of the reflections in common rest on {found.n_common_pairs} reflections, {100 * shared:.0f} % of the "
            "possible ones: they say little about the rest"
        )


# ---- frames and costs -----------------------------------------------------------------------------------------------


def _own_accounts(file, runs, accounts):
    return [accounts[file.engine, run] for run in runs if (file.engine, run) in accounts]


def _frames(file, runs, accounts):
    """Frames of the dataset's runs by what became of them; None where an account is missing."""
    paths = _own_accounts(file, runs, accounts)
    if not paths or len(paths) < len(runs):
        return None
    frames = [read_frame_account(path)[0] for path in paths]
    counts = count_by_status(chain.from_iterable(each["status"] for each in frames))
    return {
        "frames": sum(counts.values()),
        "failed": counts[Status.failed],
        "hits": counts[Status.hit] + counts[Status.indexed],
        "indexed": counts[Status.indexed],
        "lattices": sum(sum(each["n_lattices"]) for each in frames),
    }


def _cost(file, runs, accounts):
    """CPU seconds by stage and the highest memory of a job; None for what was not recorded."""
    chunks = []
    for path in _own_accounts(file, runs, accounts):
        made = parse_provenance(read_frame_account(path)[1], path)
        chunks += [item["name"].removesuffix(".integrated.h5") for item in made["inputs"]]
    before = {}
    for ending, stage in _STAGES.items():
        # Engines that index and integrate in one go have no job of their own for indexing.
        costs = [cost_of_job(f"{chunk}.{ending}") for chunk in chunks]
        if any(cost != (None, None) for cost in costs):
            before[stage] = together(costs)
    if "integration" not in before:
        before["integration"] = together([])
    ambiguity = Path(file.path).parents[3] / "ambiguity" / file.dataset / "assignment"
    merging = [cost_of_job(ambiguity), cost_of_job(file.path.removesuffix(".h5"))]
    if file.merger != "builtin":
        made = parse_provenance(file.attrs["provenance"], file.path)
        merging += [
            cost_of_job(i["name"].removesuffix(".stream")) for i in made["inputs"] if i["name"].endswith(".stream")
        ]
    costs = before | {"merging": together(merging)}
    whole = together(costs.values())
    return {
        "cpu": {stage: cost.cpu for stage, cost in costs.items()},
        "cpu_total": whole.cpu,
        "memory": whole.memory,
    }
