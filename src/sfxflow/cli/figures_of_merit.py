"""Figures of merit of merged data, by resolution shell and overall.

Either of a merged file of sfxflow (--merged), or of CrystFEL reflection lists from whatever program (--hkl, --half1 and --half2,
with --cell and --point-group): one code judges all of them, and its figures are those of compare_hkl and check_hkl to every
printed digit when these are given the same resolution limits. --crystfel-tables writes the tables in their layout, each with the
limits that the program itself would take.
"""

import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np

from sfxflow.errors import InputError
from sfxflow.io.cell_file import read_cell
from sfxflow.io.crystfel_tables import ANOMALOUS_FIGURES, PAIR_FIGURES, pair_text, single_text
from sfxflow.io.files import provenance, written_whole
from sfxflow.io.hkl import read_hkl
from sfxflow.io.merged import read_merged
from sfxflow.io.mtz import read_intensities
from sfxflow.point_group import centering_of, is_centric, is_centrosymmetric, point_group, point_group_name
from sfxflow.settings import settings_from_json
from sfxflow.statistics.definitions import DEFINITIONS, OVERALL_DEFINITIONS
from sfxflow.statistics.tables import (
    Crystal,
    Reflections,
    anomalous_table,
    matched_reference,
    pair_table,
    repeated,
    single_table,
    wilson_and_l_test,
)
from sfxflow.symmetry import rotations, space_group


def add_arguments(parser):
    """Arguments of `sfxflow figures_of_merit`."""
    parser.add_argument("--merged", metavar="FILE", help="merged file of sfxflow (merged.h5)")
    parser.add_argument("--hkl", metavar="FILE", help="by hand: merged reflection list (.hkl)")
    parser.add_argument("--half1", metavar="FILE", help="by hand: reflection list of the first half of the data")
    parser.add_argument("--half2", metavar="FILE", help="by hand: reflection list of the second half of the data")
    parser.add_argument("--cell", metavar="FILE", help="by hand: unit cell (.cell)")
    parser.add_argument(
        "--point-group", metavar="NAME", help="by hand: as CrystFEL writes it; by default the files' own"
    )
    parser.add_argument(
        "--reference", nargs="?", metavar="FILE", help="reference intensities (.hkl or .mtz) to compare with"
    )
    parser.add_argument(
        "--settings", default="", metavar="JSON", help="settings of the stage; the defaults where not given"
    )
    parser.add_argument("--json", required=True, metavar="FILE", help="figures with their definitions, to write")
    parser.add_argument("--tsv", required=True, metavar="FILE", help="table of the figures by shell, to write")
    parser.add_argument(
        "--crystfel-tables", metavar="FOLDER", help="also write compare_hkl's and check_hkl's tables there"
    )


def run(args):
    """Read, compute, write; prints the overall figures."""
    settings = settings_from_json("figures_of_merit", args.settings)
    s_range = _s_range(settings)
    source = _from_merged(args.merged) if args.merged else _from_lists(args)
    reference = args.reference or settings.reference
    if reference:
        source["reference"], source["reference_columns"] = _read_reference(reference, source)
        source["inputs"]["reference"] = reference
    limits = _common_range(source, s_range)
    tables = _tables(source, *limits, settings.n_shells)
    result = _result(source, tables, settings, limits)
    if args.crystfel_tables:
        _write_crystfel_tables(Path(args.crystfel_tables), source, *s_range, settings.n_shells)
    _write_json(args.json, result)
    _write_tsv(args.tsv, result)
    for name in ("n_reflections", "completeness", "multiplicity", "i_over_sigma", "r_split", "cc_half", "cc_star"):
        value = result["overall"].get(name)
        print(f"{name:16s}{'-' if value is None else format(value, '.6g')}")
    for remark in result["remarks"]:
        print(remark)


def _s_range(settings):
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


def _from_merged(path):
    merged, _, _, attrs = read_merged(path)
    group = space_group(attrs["space_group"])
    hkl = np.column_stack([merged["h"], merged["k"], merged["l"]]).astype(np.int32)
    source = {
        "inputs": {"merged": path},
        "crystal": Crystal(attrs["cell"], centering_of(group), rotations(group)),
        "point_group": point_group_name(group),
        "dataset": attrs["dataset"],
        "space_group": group.xhm(),
        "data": Reflections(hkl, merged["I"], merged["sigI"], merged["n"]),
        "halves": [
            Reflections(hkl, merged[f"I_{half}"], merged[f"sigI_{half}"], merged[f"n_{half}"])
            for half in ("half1", "half2")
        ],
    }
    if attrs["anomalous"]:
        apart = Crystal(attrs["cell"], centering_of(group), rotations(group, friedel=False))
        suffixes = ("_half1", "_half2") if "I_plus_half1" in merged else ("", "")
        source["anomalous"] = (apart, [_mates(merged, hkl, suffix, apart) for suffix in suffixes])
        source["anomalous_halves"] = bool(suffixes[0])
    return source


def _mates(merged, hkl, suffix, crystal):
    """Both mates of every acentric reflection as reflections of their own."""
    acentric = ~is_centric(hkl, crystal.operations)
    columns = [
        np.concatenate([merged[f"{word}_plus{suffix}"][acentric], merged[f"{word}_minus{suffix}"][acentric]])
        for word in ("I", "sigI", "n")
    ]
    return Reflections(np.concatenate([hkl[acentric], -hkl[acentric]]), *columns)


def _from_lists(args):
    if not args.hkl and not (args.half1 and args.half2):
        raise InputError("nothing to judge: give --merged FILE, or --hkl FILE, or --half1 FILE and --half2 FILE")
    if bool(args.half1) != bool(args.half2):
        raise InputError("--half1 and --half2: both are needed, or none")
    if not args.cell:
        raise InputError("--cell: reflection lists hold no unit cell; give a .cell file")
    paths = {name: getattr(args, name) for name in ("hkl", "half1", "half2") if getattr(args, name)}
    lists = {name: read_hkl(path) for name, path in paths.items()}
    name = args.point_group or _common_point_group(lists, paths)
    cell = read_cell(args.cell)
    crystal = Crystal(cell.parameters, cell.centering, point_group(name))
    for which, path in paths.items():
        _check_unique(path, lists[which].hkl, crystal.operations, name)
    loaded = {which: _reflections(contents) for which, contents in lists.items()}
    source = {
        "inputs": {**paths, "cell": args.cell},
        "crystal": crystal,
        "point_group": name,
        "dataset": None,
        "space_group": None,
        "data": loaded.get("hkl"),
        "halves": [loaded["half1"], loaded["half2"]] if args.half1 else None,
    }
    if args.half1 and not is_centrosymmetric(crystal.operations):
        source["anomalous"] = (crystal, source["halves"])
        source["anomalous_halves"] = True
    return source


def _common_point_group(lists, paths):
    names = {contents.point_group for contents in lists.values()}
    if len(names) > 1:
        found = ", ".join(f"{paths[which]}: {contents.point_group}" for which, contents in lists.items())
        raise InputError(f"the lists are merged in different point groups ({found}); merge them alike")
    return names.pop()


def _check_unique(path, hkl, operations, name):
    rows = repeated(hkl, operations)
    if rows is not None:
        one, other = (" ".join(str(index) for index in hkl[row]) for row in rows)
        raise InputError(
            f"{path}: is not merged in point group {name}: it holds both {one} and {other}; give its own point group"
        )


def _reflections(contents):
    """compare_hkl and check_hkl hold what they read in single precision: to agree to the last digit, so does this."""
    return Reflections(contents.hkl, _single(contents.I), _single(contents.sigI), contents.n)


def _single(values):
    return values.astype(np.float32).astype(np.float64)


def _read_reference(path, source):
    if str(path).lower().endswith(".mtz"):
        intensities = read_intensities(path)
        reference = Reflections(
            intensities.hkl, intensities.I, intensities.sigI, np.ones(len(intensities.hkl), dtype=np.int64)
        )
        operations, columns = rotations(intensities.group), intensities.columns
    else:
        contents = read_hkl(path)
        reference, operations, columns = _reflections(contents), point_group(contents.point_group), "I"
    if source["data"] is None:
        raise InputError("--reference: is compared with the merged reflections; give --hkl as well")
    return matched_reference(source["data"], reference, operations, source["crystal"]), columns


def _common_range(source, s_range):
    """The settings' limits, or else those of the merged list, so that all figures of a table are of the same shells."""
    if None not in s_range:
        return s_range
    if source["data"] is not None:
        limits = single_table(source["data"], source["crystal"], *s_range, n_shells=1).limits
    else:
        limits = pair_table(*source["halves"], source["crystal"], *s_range, n_shells=1).limits
    return tuple(float(limit) if np.isfinite(limit) else None for limit in limits)


def _tables(source, s_min, s_max, n_shells):
    """Group of figures to its table; groups that the input can't give are left out."""
    ranged = {"s_min": s_min, "s_max": s_max, "n_shells": n_shells}
    tables = {}
    if source["data"] is not None:
        tables["data"] = single_table(source["data"], source["crystal"], **ranged)
    if source["halves"] is not None:
        tables["halves"] = pair_table(*source["halves"], source["crystal"], **ranged)
    if "anomalous" in source:
        crystal, mates = source["anomalous"]
        tables["anomalous"] = anomalous_table(*mates, crystal, **ranged)
    if "reference" in source:
        tables["reference"] = pair_table(source["data"], source["reference"], source["crystal"], **ranged)
    return tables


#: Our names of a pair table's figures, for half sets and for a reference.
_HALF_NAMES = {"n_pairs": "n_pairs", "r_split": "r_split", "cc": "cc_half", "cc_star": "cc_star"}
_REFERENCE_NAMES = {
    "n_pairs": "n_reference", "cc": "reference_cc", "r1_i": "reference_r1_i", "r1_f": "reference_r1_f", "r2": "reference_r2",
}  # fmt: skip


def _result(source, tables, settings, limits):
    shells, overall = {}, {}
    for group, table in tables.items():
        names = {"halves": _HALF_NAMES, "reference": _REFERENCE_NAMES}.get(group) or {
            name: name for name in table.shells
        }
        if group == "anomalous" and not source["anomalous_halves"]:
            names = {name: name for name in ("n_bijvoet_pairs", "r_ano")}
        for theirs, ours in names.items():
            shells[ours], overall[ours] = table.shells[theirs], table.overall[theirs]
    if source["data"] is not None:
        overall.update(wilson_and_l_test(source["data"], source["crystal"], *limits))
    edges = next(iter(tables.values())).limits
    rows = [
        {
            "d_max": _plain(1.0 / edges[i] if edges[i] > 0 else math.nan),
            "d_min": _plain(1.0 / edges[i + 1] if edges[i + 1] > 0 else math.nan),
            **{name: _plain(shells[name][i], name) if name in shells else None for name in DEFINITIONS},
        }
        for i in range(len(edges) - 1)
    ]
    whole = {"d_max": rows[0]["d_max"], "d_min": rows[-1]["d_min"]}
    definitions = {**DEFINITIONS, **OVERALL_DEFINITIONS}
    whole |= {name: _plain(overall[name], name) if name in overall else None for name in definitions}
    return {
        "provenance": provenance(asdict(settings), source["inputs"].values()),
        "dataset": source["dataset"],
        "space_group": source["space_group"],
        "point_group": source["point_group"],
        "cell": list(source["crystal"].parameters),
        "inputs": {name: str(path) for name, path in source["inputs"].items()},
        "reference_columns": source.get("reference_columns"),
        "definitions": {
            name: {"definition": text, "from": origin, "unit": unit}
            for name, (text, origin, unit) in definitions.items()
        },
        "overall": whole,
        "shells": rows,
        "remarks": _remarks(source, whole),
    }


def _plain(value, name=""):
    """A number for JSON: null for what is not defined, whole for a count."""
    if not math.isfinite(value):
        return None
    return round(value) if name.startswith("n_") or name.endswith("_n_pairs") else float(value)


def _remarks(source, overall):
    remarks = []
    if overall["n_reflections"] == 0:
        remarks.append("There are no merged reflections in this range of resolution: no figure is defined.")
    if source["halves"] is not None and (overall["n_pairs"] or 0) < 3:
        remarks.append(
            f"The half sets share {overall['n_pairs'] or 0} reflections: too few for Rsplit, CC1/2 and CC* to mean anything."
        )
    if "reference" in source and (overall["n_reference"] or 0) < 3:
        remarks.append(f"Data and reference share {overall['n_reference'] or 0} reflections: too few to compare.")
    return remarks


def _write_crystfel_tables(folder, source, s_min, s_max, n_shells):
    """Every table by itself, with the limits that compare_hkl or check_hkl would take from its own list."""
    tables = _tables(source, s_min, s_max, n_shells)
    texts = {}
    if "data" in tables:
        texts["check"] = single_text(tables["data"])
    for group, prefix, figures in (
        ("halves", "", PAIR_FIGURES),
        ("anomalous", "", ANOMALOUS_FIGURES if source.get("anomalous_halves") else {"Rano": None}),
        ("reference", "reference_", PAIR_FIGURES),
    ):
        if group in tables:
            texts |= {prefix + fom: pair_text(tables[group], fom) for fom in figures}
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
