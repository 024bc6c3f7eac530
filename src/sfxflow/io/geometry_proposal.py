"""Proposals of a geometry: JSON that `sfxflow geometry` writes beside the proposed .geom and the report reads."""

import json
from pathlib import Path

from sfxflow.errors import InputError
from sfxflow.io.documents import read_json

#: What a proposal holds at least.
_KEYS = ("geometry", "crystals", "notes", "residuals", "overall", "panels", "map", "provenance")


def write_proposal(path, values):
    """Write a proposal; `values` holds strings, finite numbers, lists and dicts only."""
    Path(path).write_text(json.dumps(values, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_proposal(path):
    """A proposal as a dict.

    Raises
    ------
    InputError
        It can't be read, or is something else.
    """
    values = read_json(path, "remove it, or run `snakemake geometry` again")
    missing = [key for key in _KEYS if not isinstance(values, dict) or key not in values]
    if missing:
        raise InputError(
            f"{path}: is not a proposed geometry: {missing[0]} is missing; remove it, or run `snakemake geometry` again"
        )
    return values
