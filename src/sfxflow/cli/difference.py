"""Isomorphous difference of two groups that were scaled together and merged apart, with uncertainties.

difference.mtz holds H K L, DI SIGDI (intensity of --group less that of --minus), DF SIGDF (of amplitudes: the most probable F for
intensities that can't be negative, no French & Wilson) and W, a weight for difference maps (1 / (1 + sigma^2 / <sigma^2> +
DF^2 / <DF^2>)). The groups are on one scale: nothing is scaled here. The table (.json) tells how significant the differences are, and
how well those from the two half sets agree.
"""

import json

import numpy as np

from sfxflow.errors import InputError
from sfxflow.io.files import provenance, written_whole
from sfxflow.io.merged import read_groups, read_merged
from sfxflow.io.mtz import Header, write_merged_mtz
from sfxflow.settings import settings_from_json
from sfxflow.statistics.differences import (
    DEFINITIONS,
    OVERALL_DEFINITIONS,
    difference_figures,
    differences,
    remarks,
)
from sfxflow.symmetry import space_group


def add_arguments(parser):
    """Arguments of `sfxflow difference`."""
    parser.add_argument("--merged", required=True, metavar="FILE", help="merged file (merged.h5) of a split dataset")
    parser.add_argument("--group", required=True, metavar="NAME", help="the group")
    parser.add_argument("--minus", required=True, metavar="NAME", help="the group that is subtracted")
    parser.add_argument(
        "--settings", default="", metavar="JSON", help="settings of figures_of_merit; of these n_shells is used"
    )
    parser.add_argument("--mtz", required=True, metavar="FILE", help="differences, to write")
    parser.add_argument("--json", required=True, metavar="FILE", help="figures of the differences, to write")


def run(args):
    """Write the two files, print the overall figures."""
    settings = settings_from_json("figures_of_merit", args.settings)
    if args.group == args.minus:
        raise InputError(f"--group and --minus are both {args.group}: two groups are expected")
    groups = read_groups(args.merged, args.group, args.minus)
    _, _, _, attrs = read_merged(args.merged)
    first, second = groups.tables[args.group], groups.tables[args.minus]
    found = differences(first, second)
    overall, shells = difference_figures(found, first, second, attrs["cell"], settings.n_shells)
    origin = provenance({"n_shells": settings.n_shells}, [args.merged])
    result = {
        "provenance": origin,
        "inputs": {"merged": args.merged},
        "dataset": attrs["dataset"],
        "split_by": groups.by,
        "group": args.group,
        "minus": args.minus,
        "n_crystals": [groups.n_crystals[args.group], groups.n_crystals[args.minus]],
        "definitions": {
            name: {"definition": text, "unit": unit}
            for name, (text, unit) in {**DEFINITIONS, **OVERALL_DEFINITIONS}.items()
        },
        "overall": overall,
        "shells": shells,
        "remarks": remarks(overall, args.group, args.minus),
    }
    header = Header(
        title=f"{attrs['dataset']}: {args.group} minus {args.minus}",
        dataset=attrs["dataset"],
        group=space_group(attrs["space_group"]),
        cell=attrs["cell"],
        wavelength=attrs["wavelength"],
        history=[f"{origin['program']} difference: {args.group} minus {args.minus}"[:80]],
    )
    names = (("DI", "J"), ("sigDI", "Q"), ("DF", "F"), ("sigDF", "Q"), ("weight", "W"))
    labels = ("DI", "SIGDI", "DF", "SIGDF", "W")
    columns = [(label, kind, getattr(found, name)) for label, (name, kind) in zip(labels, names, strict=True)]
    write_merged_mtz(args.mtz, header, np.asarray(found.hkl).reshape(-1, 3), columns)
    with written_whole(args.json) as temporary:
        temporary.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    for name, value in overall.items():
        print(f"{name:20s}{'-' if value is None else format(value, '.6g')}")
    for remark in result["remarks"]:
        print(remark)
