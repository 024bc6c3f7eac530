"""Figures of merit of merged data, by resolution shell and overall.

Either of a merged file of sfxflow (--merged), or of CrystFEL reflection lists from whatever program (--hkl, --half1 and --half2,
with --cell and --point-group): one code judges all of them, and its figures are those of compare_hkl and check_hkl to every
printed digit when these are given the same resolution limits. --crystfel-tables writes the tables in their layout, each with the
limits that the program itself would take.
"""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from sfxflow.errors import InputError
from sfxflow.io.cell_file import read_cell
from sfxflow.io.crystfel_tables import ANOMALOUS_FIGURES, PAIR_FIGURES, pair_text, single_text
from sfxflow.io.files import provenance, written_whole
from sfxflow.io.hkl import read_hkl
from sfxflow.io.merged import read_groups, read_merged
from sfxflow.io.mtz import read_intensities
from sfxflow.point_group import centering_of, is_centric, is_centrosymmetric, point_group, point_group_name
from sfxflow.settings import settings_from_json
from sfxflow.statistics.definitions import DEFINITIONS, OVERALL_DEFINITIONS
from sfxflow.statistics.summary import Dataset, figures, remarks, tables
from sfxflow.statistics.tables import Crystal, Reflections, matched_reference, repeated
from sfxflow.symmetry import rotations, space_group

_SHOWN = (
    "n_reflections",
    "completeness",
    "multiplicity",
    "i_over_sigma",
    "r_split",
    "cc_half",
    "cc_star",
    "reference_cc",
)


def add_arguments(parser):
    """Arguments of `sfxflow figures_of_merit`."""
    parser.add_argument("--merged", metavar="FILE", help="merged file of sfxflow (merged.h5)")
    parser.add_argument(
        "--group", metavar="NAME", help="of the merged file only this group, where the dataset is split"
    )
    parser.add_argument("--hkl", metavar="FILE", help="by hand: merged reflection list (.hkl)")
    parser.add_argument("--half1", metavar="FILE", help="by hand: reflection list of the first half of the data")
    parser.add_argument("--half2", metavar="FILE", help="by hand: reflection list of the second half of the data")
    parser.add_argument("--cell", metavar="FILE", help="by hand: unit cell (.cell)")
    parser.add_argument(
        "--point-group", metavar="NAME", help="by hand: as CrystFEL writes it; by default the files' own"
    )
    parser.add_argument(
        "--reference", nargs="?", metavar="FILE", help="reference intensities (.hkl, .mtz) to compare with"
    )
    parser.add_argument(
        "--settings", default="", metavar="JSON", help="settings of the stage; the defaults if not given"
    )
    parser.add_argument("--json", required=True, metavar="FILE", help="figures with their definitions, to write")
    parser.add_argument("--tsv", required=True, metavar="FILE", help="table of the figures by shell, to write")
    parser.add_argument(
        "--crystfel-tables", metavar="FOLDER", help="also write compare_hkl's and check_hkl's tables there"
    )


def run(args):
    """Read, compute, write; prints the overall figures."""
    settings = settings_from_json("figures_of_merit", args.settings)
    s_range = resolution_range(settings)
    if args.group and not args.merged:
        raise InputError("--group: groups are parts of a merged file; give --merged")
    dataset, origin = _from_merged(args.merged, args.group) if args.merged else _from_lists(args)
    if args.reference:
        dataset, origin = _with_reference(dataset, origin, args.reference)
    overall, shells = figures(dataset, *s_range, settings.n_shells)
    result = {
        "provenance": provenance(asdict(settings), origin["inputs"].values()),
        **origin,
        "cell": list(dataset.crystal.parameters),
        "definitions": {
            name: {"definition": text, "from": source, "unit": unit}
            for name, (text, source, unit) in {**DEFINITIONS, **OVERALL_DEFINITIONS}.items()
        },
        "overall": overall,
        "shells": shells,
        "remarks": remarks(dataset, overall),
    }
    if args.crystfel_tables:
        _write_crystfel_tables(Path(args.crystfel_tables), dataset, *s_range, settings.n_shells)
    _write_json(args.json, result)
    _write_tsv(args.tsv, result)
    for name in _SHOWN:
        if name in overall and (overall[name] is not None or name != "reference_cc"):
            print(f"{name:16s}{'-' if overall[name] is None else format(overall[name], '.6g')}")
    for remark in result["remarks"]:
        print(f"WARNING: {remark}")


def resolution_range(settings):
    """Lowest and highest s = 1/d that the settings ask for, None where they leave it to the data."""
    d_max, d_min = settings.d_max, settings.d_min
    for name, value in (("d_max", d_max), ("d_min", d_min)):
        if value is not None and not value > 0:
            raise InputError(f"figures_of_merit.{name}: {value} is not a resolution in angstrom; it has to be above 0")
    if d_max is not None and d_min is not None and not d_min < d_max:
        raise InputError(
            f"figures_of_merit: d_min = {d_min} has to be smaller than d_max = {d_max} (d_min is the high-resolution limit)"
        )
    return (None if d_max is None else 1.0 / d_max), (None if d_min is None else 1.0 / d_min)


def _from_merged(path, part=None):
    merged, _, _, attrs = read_merged(path)
    of_group = {}
    if part:
        groups = read_groups(path, part)
        merged = groups.tables[part]
        of_group = {"group": part, "split_by": groups.by, "n_crystals": groups.n_crystals[part]}
    merged = _recorded(merged)
    crystal, data, halves = lists_of_merged(merged, attrs)
    group, hkl = space_group(attrs["space_group"]), data.hkl
    dataset = Dataset(crystal, data, halves)
    if attrs["anomalous"]:
        apart = crystal._replace(operations=rotations(group, friedel=False))
        are_halves = "I_plus_half1" in merged
        mates = tuple(_mates(merged, hkl, s, apart) for s in (("_half1", "_half2") if are_halves else ("", "")))
        if not is_centrosymmetric(apart.operations):
            dataset = dataset._replace(bijvoet_crystal=apart, bijvoet_halves=mates, bijvoet_are_halves=are_halves)
    origin = {
        "inputs": {"merged": path},
        "dataset": attrs["dataset"],
        "space_group": group.xhm(),
        "point_group": point_group_name(group),
        **of_group,
    }
    return dataset, origin


def lists_of_merged(merged, attrs):
    """The lists of a merged file, without reflections that were never well recorded: these are no measurements to judge.

    Parameters
    ----------
    merged, attrs : dict
        As `sfxflow.io.merged.read_merged` gives them.

    Returns
    -------
    crystal : Crystal
    data : Reflections
    halves : tuple of two Reflections
    """
    group = space_group(attrs["space_group"])
    merged = _recorded(merged)
    hkl = np.column_stack([merged["h"], merged["k"], merged["l"]]).astype(np.int32)
    crystal = Crystal(attrs["cell"], centering_of(group), rotations(group))
    data = Reflections(hkl, merged["I"], merged["sigI"], merged["n"])
    halves = tuple(
        Reflections(hkl, *(merged[f"{word}_{half}"] for word in ("I", "sigI", "n"))) for half in ("half1", "half2")
    )
    return crystal, data, halves


def _recorded(merged):
    return {name: values[merged["n"] > 0] for name, values in merged.items()}


def _mates(merged, hkl, suffix, crystal):
    """Both mates of every acentric reflection as reflections of their own."""
    acentric = ~is_centric(hkl, crystal.operations)
    columns = [
        np.concatenate([merged[f"{word}_plus{suffix}"][acentric], merged[f"{word}_minus{suffix}"][acentric]])
        for word in ("I", "sigI", "n")
    ]
    return Reflections(np.concatenate([hkl[acentric], -hkl[acentric]]), *columns)


def _from_lists(args):
    if bool(args.half1) != bool(args.half2):
        raise InputError("--half1 and --half2: both are needed, or none")
    paths = {name: getattr(args, name) for name in ("hkl", "half1", "half2") if getattr(args, name)}
    if not paths:
        raise InputError("nothing to judge: give --merged FILE, or --hkl FILE, or --half1 FILE and --half2 FILE")
    if not args.cell:
        raise InputError("--cell: reflection lists hold no unit cell; give a .cell file")
    lists = {name: read_hkl(path) for name, path in paths.items()}
    name = args.point_group or _common_point_group(lists, paths)
    operations = point_group(name) if args.point_group else _group_in_file(next(iter(paths.values())), name)
    cell = read_cell(args.cell)
    crystal = Crystal(cell.parameters, cell.centering, operations)
    for which, path in paths.items():
        _check_unique(path, lists[which].hkl, crystal.operations, name)
    loaded = {which: _reflections(contents) for which, contents in lists.items()}
    dataset = Dataset(crystal, loaded.get("hkl"))
    if args.half1:
        dataset = dataset._replace(halves=(loaded["half1"], loaded["half2"]))
        if not is_centrosymmetric(crystal.operations):
            dataset = dataset._replace(bijvoet_crystal=crystal, bijvoet_halves=dataset.halves, bijvoet_are_halves=True)
    return dataset, {"inputs": {**paths, "cell": args.cell}, "dataset": None, "space_group": None, "point_group": name}


def _common_point_group(lists, paths):
    names = {contents.point_group for contents in lists.values()}
    if len(names) > 1:
        found = ", ".join(f"{paths[which]}: {contents.point_group}" for which, contents in lists.items())
        raise InputError(f"the lists are merged in different point groups ({found}); merge them alike")
    return names.pop()


def _group_in_file(path, name):
    try:
        return point_group(name)
    except InputError as error:
        raise InputError(f"{path}, line 2: {error}") from None


def _check_unique(path, hkl, operations, name):
    rows = repeated(hkl, operations)
    if rows is not None:
        one, other = (" ".join(str(index) for index in hkl[row]) for row in rows)
        raise InputError(
            f"{path}: is not merged in point group {name}: it holds both {one} and {other}; give its own point group"
        )


def _reflections(contents):
    """compare_hkl and check_hkl hold what they read in single precision: to agree to the last digit, so does this."""
    intensity, sigma = (values.astype(np.float32).astype(np.float64) for values in (contents.I, contents.sigI))
    return Reflections(contents.hkl, intensity, sigma, contents.n)


def _with_reference(dataset, origin, path):
    if dataset.data is None:
        raise InputError(f"{path}: a reference is compared with the merged reflections; give --hkl as well")
    reference, operations, columns, cell = _read_reference(path)
    matched = matched_reference(dataset.data, reference, operations, dataset.crystal)
    origin = origin | {"inputs": origin["inputs"] | {"reference": path}, "reference_columns": columns}
    dataset = dataset._replace(reference=matched, reference_cell=cell, reference_operations=np.asarray(operations))
    return dataset, origin


def read_reference(path):
    """Reference intensities, and the rotations of the point group that they are merged in.

    Raises
    ------
    InputError
        Not there, or neither a reflection list (.hkl) nor an MTZ file with intensities.
    """
    return _read_reference(path)[:2]


def _read_reference(path):
    """Reflections, rotations, names of the columns, and the cell where the file has one."""
    if str(path).lower().endswith(".mtz"):
        contents = read_intensities(path)
        n = np.ones(len(contents.hkl), dtype=np.int64)
        reference = Reflections(contents.hkl, contents.I, contents.sigI, n)
        return reference, rotations(contents.group), contents.columns, contents.cell
    contents = read_hkl(path)
    return _reflections(contents), _group_in_file(path, contents.point_group), "I", None


def _write_crystfel_tables(folder, dataset, s_min, s_max, n_shells):
    """Every table by itself, with the limits that compare_hkl or check_hkl would take from its own list."""
    made = tables(dataset, s_min, s_max, n_shells)
    texts = {}
    if "data" in made:
        texts["check"] = single_text(made["data"])
    bijvoet_figures = ANOMALOUS_FIGURES if dataset.bijvoet_are_halves else ("Rano",)
    for group, prefix, names in (
        ("halves", "", PAIR_FIGURES),
        ("bijvoet", "", bijvoet_figures),
        ("reference", "reference_", PAIR_FIGURES),
    ):
        if group in made:
            texts |= {prefix + fom: pair_text(made[group], fom) for fom in names}
    for name, text in texts.items():
        with written_whole(folder / f"{name}.dat") as temporary:
            temporary.write_text(text, encoding="utf-8")


def _write_json(path, result):
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _write_tsv(path, result):
    names = ["d_max", "d_min", *DEFINITIONS]
    lines = ["# " + json.dumps(result["provenance"], sort_keys=True), "\t".join(["shell", *names])]
    for label, row in [*enumerate(result["shells"], 1), ("overall", result["overall"])]:
        lines.append(
            "\t".join([str(label), *("" if row[name] is None else format(row[name], ".7g") for name in names)])
        )
    with written_whole(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
