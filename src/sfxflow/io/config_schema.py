"""The schema of the config file, made from the settings classes, so that what the workflow accepts and what the stages accept agree.

`python -m sfxflow.io.config_schema` writes workflow/schemas/config.schema.yaml and docs/reference/config.md of the checkout;
with `--check` it only says whether they are in step.
"""

import argparse
import json
import sys
from pathlib import Path

from sfxflow.io.files import written_whole
from sfxflow.licences import LICENCES
from sfxflow.settings import STAGES, schema_of

ENGINES = ("builtin", "crystfel", "dials")
MERGERS = ("builtin", "partialator", "process_hkl", "dials_scale", "cctbx_xfel_merge")

_SCHEMA = Path("workflow/schemas/config.schema.yaml")
_PAGE = Path("docs/reference/config.md")


def _names(choices, meaning):
    return {
        "type": "array",
        "description": meaning,
        "default": ["builtin"],
        "minItems": 1,
        "uniqueItems": True,
        "items": {"type": "string", "enum": list(choices)},
    }


def _split():
    return {
        "split": {
            "type": ["string", "null"],
            "description": "what groups are merged apart by: a column of the runs, an HDF5 path in the frame files (/entry_1/laser_on), "
            "or a table of your own (.tsv)",
            "default": None,
            "minLength": 1,
        },
        "split_groups": {
            "type": ["array", "object", "null"],
            "description": "the groups: a list of values, or name of each group to its value; by default all values of a column",
            "default": None,
            "minItems": 1,
            "minProperties": 1,
            "items": {"type": ["string", "number"], "description": "a value; on, off, yes and no need quotes"},
            "additionalProperties": {
                "type": ["string", "number"],
                "description": "the value of a group; on, off, yes and no need quotes",
            },
        },
        "split_bins": {
            "type": ["array", "null"],
            "description": "limits of bins that numbers are sorted into, ascending, in place of split_groups",
            "default": None,
            "minItems": 2,
            "items": {"type": "number", "description": "a limit; a bin holds its lower one"},
        },
        "split_reference": {
            "type": ["string", "null"],
            "description": "the group that is subtracted from each other one; by default the first",
            "default": None,
        },
    }


def _datasets():
    properties = {
        "cell": {
            "type": ["string", "null"],
            "description": "file with the unit cell (CrystFEL .cell, or a PDB file with CRYST1); none: it is found from the peaks",
            "default": None,
            "minLength": 1,
        },
        "space_group": {
            "type": ["string", "null"],
            "description": "space group, as P43212; none: the one with all rotations of the lattice, which may be too many",
            "default": None,
            "minLength": 1,
        },
        "d_min": {
            "type": ["number", "null"],
            "description": "highest resolution of the merged data, angstrom; none: all that was integrated",
            "default": None,
            "exclusiveMinimum": 0,
        },
        "reference": {
            "type": ["string", "null"],
            "description": "file of reference intensities (.hkl or .mtz) that the merged ones are compared with",
            "default": None,
        },
        **_split(),
    }
    return {
        "type": "object",
        "description": "what is merged together: one cell and one space group a dataset; runs.tsv says which runs belong to it",
        "default": {},
        "minProperties": 1,
        "propertyNames": {"pattern": "^[A-Za-z0-9][A-Za-z0-9_.+-]*$"},
        "additionalProperties": {
            "type": "object",
            "description": "one dataset",
            "additionalProperties": False,
            "properties": properties,
        },
    }


def _licences():
    properties = {
        name: {
            "type": "object",
            "default": {},
            "description": f"{licence.program}, for CrystFEL's method {name}; read before: {licence.read}",
            "additionalProperties": False,
            "properties": {
                "accepted_by": {
                    "type": "string",
                    "description": "who accepted the terms; empty: nobody",
                    "default": "",
                },
                "date": {
                    "type": ["string", "null"],
                    "description": "when, as 2026-01-31",
                    "default": None,
                    "pattern": r"^\d{4}-\d{2}-\d{2}$",
                },
            },
        }
        for name, licence in LICENCES.items()
    }
    return {
        "type": "object",
        "description": "terms of other people's programs that were accepted, and by whom; without the line these programs are not started",
        "default": {},
        "additionalProperties": False,
        "properties": properties,
    }


def config_schema():
    """Schema (JSON schema, draft 2020-12) of config/config.yaml as a dict."""
    properties = {
        "engines": _names(
            ENGINES, "programs that go from frames to integrated reflections; each gets results of its own"
        ),
        "mergers": _names(
            MERGERS, "programs that go from integrated to merged reflections; each gets results of its own"
        ),
        "runs": {"type": "string", "description": "table of the runs", "default": "config/runs.tsv"},
        "chunk_size": {
            "type": "integer",
            "description": "frames that one job processes",
            "default": 2000,
            "minimum": 1,
        },
        "datasets": _datasets(),
        "licences": _licences(),
    }
    properties.update({stage: schema_of(stage) for stage in STAGES})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "sfxflow config",
        "type": "object",
        "additionalProperties": False,
        "required": ["datasets"],
        "properties": properties,
    }


def schema_text():
    """The schema file's text: JSON, which is YAML as well, and which each start of Snakemake reads ten times as fast."""
    head = {"$comment": "Made from src/sfxflow/settings.py by `python -m sfxflow.io.config_schema`; not to be edited."}
    return json.dumps(head | config_schema(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _row(name, entry):
    kind = entry["type"] if isinstance(entry["type"], str) else " or ".join(entry["type"])
    if "enum" in entry:
        kind = " or ".join(f"`{choice}`" for choice in entry["enum"])
    limits = [
        f"{word} {entry[key]}"
        for key, word in (("minimum", "from"), ("exclusiveMinimum", "above"), ("maximum", "to"))
        if key in entry
    ]
    default = entry["default"]
    default = "required" if default == "" else {None: "none", True: "true", False: "false"}.get(default, default)
    return f"| `{name}` | {kind} | {' '.join(limits)} | {default} | {entry['description']} |"


def page_text():
    """The reference page's text: one table a section."""
    properties = config_schema()["properties"]
    head = "| key | type | limits | default | meaning |\n|---|---|---|---|---|"
    lines = [
        "# Config reference",
        "",
        "Every key of `config/config.yaml`. A section or key that is left out has its default. This page is made by",
        "`python -m sfxflow.io.config_schema` from `src/sfxflow/settings.py`; how each default was chosen stands in the page of its stage.",
        "",
        "## Top level",
        "",
        head,
    ]
    for name in ("engines", "mergers", "runs", "chunk_size"):
        entry = dict(properties[name])
        if entry["type"] == "array":
            entry["type"], entry["default"] = "list of names", ", ".join(entry["default"])
        lines.append(_row(name, entry))
    lines += ["", "## datasets", "", "One section a dataset, under its name.", "", head]
    dataset = properties["datasets"]["additionalProperties"]["properties"]
    lines += [_row(name, entry) for name, entry in dataset.items()]
    lines += [
        "",
        "## licences",
        "",
        f"{properties['licences']['description'].capitalize()} ([licences](../licences.md)).",
        "`licences: {mosflm: {accepted_by: NAME, date: 2026-01-31}}`; the date may be left out.",
        "",
        "| key | what it is about |",
        "|---|---|",
    ]
    lines += [f"| `{name}` | {entry['description']} |" for name, entry in properties["licences"]["properties"].items()]
    for stage in STAGES:
        entry = properties[stage]
        lines += ["", f"## {stage}", "", entry["description"], "", head]
        lines += [_row(name, value) for name, value in entry["properties"].items()]
    return "\n".join(lines) + "\n"


def main(argv=None):
    """Write or check the two files; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m sfxflow.io.config_schema", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 when a file is out of step")
    parser.add_argument("--root", type=Path, default=Path(), help="the checkout")
    args = parser.parse_args(argv)
    status = 0
    for path, text in ((args.root / _SCHEMA, schema_text()), (args.root / _PAGE, page_text())):
        if args.check:
            if not path.is_file() or path.read_text() != text:
                print(
                    f"{path}: out of step with src/sfxflow/settings.py; run: python -m sfxflow.io.config_schema",
                    file=sys.stderr,
                )
                status = 1
            continue
        with written_whole(path) as temporary:
            temporary.write_text(text)
    return status


if __name__ == "__main__":
    sys.exit(main())
