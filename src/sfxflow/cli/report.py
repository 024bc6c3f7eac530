"""Write the HTML report: one page that needs no other file and no script.

Frames and their fate, cells, figures of merit and what merging found, with warnings first and the origin of every number last. Engines,
runs, mergers and datasets are told apart by their folders (results/{engine}/runs/{run}, results/{engine}/merged/{merger}/{dataset}).
"""

import json
import os
import shlex
from dataclasses import asdict
from itertools import chain
from pathlib import Path

import numpy as np

import sfxflow
from sfxflow.cli.result_names import names_in
from sfxflow.errors import InputError
from sfxflow.io.comparison import read_comparison
from sfxflow.io.figures_of_merit import read_difference, read_figures_of_merit
from sfxflow.io.files import provenance, written_whole
from sfxflow.io.found_cell import read_found_cell
from sfxflow.io.frame_account import count_by_status, read_frame_account
from sfxflow.io.geometry_proposal import read_proposal
from sfxflow.io.merged import read_merged
from sfxflow.io.provenance import parse_provenance, read_provenance
from sfxflow.io.table import open_chunk, read_rows
from sfxflow.report.cell import FoundCell, cell_warnings
from sfxflow.report.contents import Dataset, Origin, Run, reasons_of
from sfxflow.report.geometry import Proposal
from sfxflow.report.page import page
from sfxflow.report.warnings import dataset_warnings, run_warnings
from sfxflow.settings import settings_from_json

#: Option of a stage's command that names the file of the stage before.
_EARLIER = {"integration": "--indexed", "indexing": "--peaks", "crystfel_indexing": "--peaks"}
_STAGE_WORDS = {
    "peaks": "Peaks and hits",
    "indexing": "Lattices",
    "integration": "Intensities of the crystals",
    "crystfel_peaks": "Peaks and hits, by CrystFEL",
    "crystfel_indexing": "Lattices and their intensities, by CrystFEL",
}


def add_arguments(parser):
    """Arguments of `sfxflow report`."""
    parser.add_argument("--frames", nargs="*", default=[], metavar="TSV", help="frame accounts of the runs")
    parser.add_argument(
        "--n-frames", nargs="*", type=int, default=[], metavar="N", help="frames that each of these runs should hold"
    )
    parser.add_argument(
        "--integrated", nargs="*", default=[], metavar="FILE", help="chunk files, for cells and warnings"
    )
    parser.add_argument(
        "--cells",
        nargs="*",
        default=[],
        metavar="JSON",
        help="crystal forms of datasets whose cell was found (sfxflow cell)",
    )
    parser.add_argument(
        "--geometries",
        default="",
        metavar="DIR",
        help="folder of proposed geometries (DIR/{dataset}/{geometry}/proposal.json); those that are there are shown",
    )
    parser.add_argument("--merged", nargs="*", default=[], metavar="FILE", help="merged files")
    parser.add_argument(
        "--figures-of-merit", nargs="*", default=[], metavar="JSON", help="figures of merit of the merged files"
    )
    parser.add_argument(
        "--groups", nargs="*", default=[], metavar="JSON", help="figures of merit of the groups of split datasets"
    )
    parser.add_argument(
        "--differences", nargs="*", default=[], metavar="JSON", help="figures of the differences of these groups"
    )
    parser.add_argument("--comparison", nargs="?", metavar="JSON", help="comparison of engines and mergers")
    parser.add_argument(
        "--settings", default="", metavar="JSON", help="settings of the stage; the defaults where not given"
    )
    parser.add_argument("--output", required=True, metavar="HTML", help="page to write")


def run(args):
    """Read everything, write the page."""
    settings = settings_from_json("report", args.settings)
    if not args.frames and not args.merged and not args.figures_of_merit:
        raise InputError("nothing to report: give --frames, --merged or --figures-of-merit")
    if args.n_frames and len(args.n_frames) != len(args.frames):
        raise InputError(f"--n-frames: {len(args.n_frames)} numbers are given for {len(args.frames)} frame accounts")
    chunks = {_same_name(path): _read_chunk(path) for path in args.integrated}
    expected = args.n_frames or [None] * len(args.frames)
    runs = [_read_run(path, n, chunks) for path, n in zip(args.frames, expected, strict=True)]
    datasets = _with_groups(_read_datasets(args.merged, args.figures_of_merit, runs, chunks), args)
    cells = [_read_cell(path) for path in args.cells]
    proposals = _read_proposals(args.geometries)
    compared = read_comparison(args.comparison) if args.comparison else None
    inputs = [
        *args.frames,
        *args.cells,
        *(proposal.path for proposal in proposals),
        *args.integrated,
        *args.merged,
        *args.figures_of_merit,
        *args.groups,
        *args.differences,
        *([args.comparison] if args.comparison else []),
    ]
    this = provenance(asdict(settings), inputs)
    origins = _grouped("Unit cells", {cell.path: cell.values["provenance"] for cell in cells}, apart=True)
    origins += _origins(runs, datasets, chunks)
    origins += _grouped("Proposed geometries", {p.path: p.values["provenance"] for p in proposals}, apart=True)
    if compared:
        origins.append(Origin("Comparison", [args.comparison], compared["provenance"]))
    origins.append(Origin("This page", [args.output], this))
    text = page(settings.title, f"sfxflow {sfxflow.__version__}", runs, datasets, origins, cells, proposals, compared)
    with written_whole(args.output) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(f"{args.output}: {_number(len(runs), 'run')}, {_number(len(datasets), 'dataset')}")
    for warning in [
        *chain(*map(cell_warnings, cells)),
        *chain(*map(run_warnings, runs)),
        *chain(*map(dataset_warnings, datasets)),
    ]:
        if warning.serious:
            print(f"WARNING: {warning.where}: {warning.text}")


def _number(n, what):
    return f"{n} {what}{'s' * (n != 1)}"


def _same_name(path):
    """One name for each file, however it is written."""
    return os.path.abspath(path)


def _read_chunk(path):
    """Crystals, warning and origin of a chunk file; the reflections are not read."""
    with open_chunk(path) as handle:
        try:
            crystals = read_rows(handle["crystals"], columns=("cell", "reciprocal"))
            warning = str(handle.attrs.get("warning", ""))
            origin = parse_provenance(handle.attrs.get("provenance", ""), path)
        except (KeyError, OSError) as error:
            raise InputError(
                f"{path}: holds no crystals ({error}); a file of integrated reflections is expected"
            ) from None
    return {"path": path, "warning": warning, "provenance": origin, **crystals}


def _read_cell(path):
    engine, name = names_in(path, "cell", 1)
    return FoundCell(engine, name[0], str(path), read_found_cell(path))


def _read_proposals(folder):
    """Every proposed geometry under `folder`, sorted by name; the engine is that of results/{engine}/geometry."""
    if not folder:
        return []
    proposals = []
    for path in sorted(Path(folder).glob("*/*/proposal.json")):
        engine, names = names_in(path, "geometry", 2)
        proposals.append(Proposal(engine, *names, str(path), read_proposal(path)))
    return proposals


def _read_run(path, n_expected, chunks):
    frames, text = read_frame_account(path)
    made = parse_provenance(text, path)
    own = [chunks[name] for name in (_same_name(item["name"]) for item in made["inputs"]) if name in chunks]
    texts = [chunk["warning"] for chunk in own if chunk["warning"]]
    engine, name = names_in(path, "runs", 1)
    return Run(
        engine,
        name[0],
        str(path),
        count_by_status(frames["status"]),
        n_expected,
        sum(frames["n_lattices"]),
        reasons_of(frames),
        made,
        [(texts[0], len(texts))] if texts else [],
        len(own),
    )


def _read_datasets(merged_paths, figures_paths, runs, chunks):
    """Datasets of all merged files and of the figures of merit, which belong together where the figures say so."""
    files = {_same_name(path): {"merged": str(path)} for path in merged_paths}
    for path in figures_paths:
        figures = read_figures_of_merit(path)
        judged = figures["inputs"].get("merged") or figures["inputs"].get("hkl")
        own = files.get(_same_name(judged)) if judged else None
        if own is None or "figures" in own:
            own = files.setdefault(_same_name(path), {})
        own |= {"figures": str(path), "contents": figures}
    return [_read_dataset(found, runs, chunks) for found in files.values()]


def _with_groups(datasets, args):
    """The datasets with the figures of their groups and differences, by the merged file that these were made from."""
    places = {_same_name(dataset.files["merged"]): dataset for dataset in datasets if "merged" in dataset.files}
    for name, paths, read in (
        ("groups", args.groups, read_figures_of_merit),
        ("differences", args.differences, read_difference),
    ):
        for path in paths:
            figures = read(path)
            own = places.get(_same_name(figures["inputs"].get("merged", "")))
            if own is None or "group" not in figures:
                raise InputError(f"--{name}: {path}: is not of a group of the merged files that are given")
            getattr(own, name).append(figures)
    return datasets


def _read_dataset(found, runs, chunks):
    path = found.get("merged") or found["figures"]
    engine, (merger, name) = names_in(path, "merged", 2)
    figures = found.pop("contents", None)
    if engine == "by hand":
        merger, name = "by hand", (figures or {}).get("dataset") or name
    values = {"engine": engine, "merger": merger, "name": name, "folder": str(Path(path).parent), "files": found}
    values["figures"] = figures
    if "merged" not in found:
        return Dataset(**values)
    merged, crystals, partiality, attrs = read_merged(path)
    if engine == "by hand":
        values |= {"name": attrs["dataset"], "folder": str(path)}
    names = [_same_name(chunk) for chunk in attrs["integrated"]]
    own = [chunks[chunk] for chunk in names if chunk in chunks]
    if own:
        values["cells"] = np.concatenate([chunk["cell"] for chunk in own]).astype(float)
        values["reciprocal"] = np.concatenate([chunk["reciprocal"] for chunk in own])
    wanted = set(names)
    values["runs"] = [
        run for run in runs if any(_same_name(item["name"]) in wanted for item in run.provenance["inputs"])
    ]
    return Dataset(
        **values,
        attrs=attrs,
        merged=merged,
        crystals=crystals,
        partiality=partiality,
        chunks_missing=len(names) - len(own),
    )


def _origins(runs, datasets, chunks):
    """Origins of all files, those made alike together, in the order of the work."""
    stages = {stage: [] for stage in _STAGE_WORDS}
    for chunk in chunks.values():
        path, made = chunk["path"], chunk["provenance"]
        while made:
            stage, earlier = _stage_of(made["command"])
            if stage in stages:
                stages[stage].append((path, made))
            path, made = earlier, _read_if_there(earlier)
    origins = []
    for stage, found in stages.items():
        origins += _grouped(_STAGE_WORDS[stage], dict(found))
    origins += _grouped("Frame account", {run.path: run.provenance for run in runs})
    merged = {
        d.files["merged"]: parse_provenance(d.attrs["provenance"], d.files["merged"]) for d in datasets if d.attrs
    }
    origins += _grouped("Merged data", merged, apart=True)
    figures = {d.files["figures"]: d.figures["provenance"] for d in datasets if d.figures}
    return origins + _grouped("Figures of merit", figures, apart=True)


def _stage_of(command):
    """The stage that a recorded command is of, and the file of the stage before that it names."""
    try:
        words = shlex.split(command)
    except ValueError:
        return None, None
    stage = words[1] if len(words) > 1 else None
    option = _EARLIER.get(stage)
    if option in words[:-1]:
        return stage, words[words.index(option) + 1]
    return stage, None


def _read_if_there(path):
    """Origin of an intermediate file; None where it is not kept."""
    if path is None or not os.path.exists(path):
        return None
    try:
        return read_provenance(path)
    except InputError:
        return None


def _grouped(what, provenances, apart=False):
    """One origin for all files of the same program and settings, or one a file."""
    groups = {}
    for path, made in provenances.items():
        key = path if apart else json.dumps([made["program"], made["settings"]], sort_keys=True)
        groups.setdefault(key, []).append((path, made))
    return [Origin(what, [path for path, _ in files], files[0][1]) for files in groups.values()]
