"""The workflow's config file with every default filled in, and the table of the runs, for commands outside of the workflow."""

import copy
import csv
import datetime

from sfxflow.errors import InputError
from sfxflow.io.config_schema import config_schema
from sfxflow.io.documents import read_yaml


def read_config(path):
    """Config with every default filled in, as the workflow reads it.

    Parameters
    ----------
    path : path

    Returns
    -------
    dict
        Unknown keys and values of a wrong type are left as they are: the workflow refuses them.

    Raises
    ------
    InputError
        Not there, or not YAML with sections.
    """
    values = read_yaml(path, "`sfxflow init` writes a config")
    if not isinstance(values, dict):
        raise InputError(f"{path}: a config with sections is expected")
    values = {key: {} if value is None and key != "runs" else value for key, value in values.items()}
    return _plain(_with_defaults(values, config_schema()))


def read_runs(path):
    """Rows of the table of the runs, as dicts of text.

    Raises
    ------
    InputError
        Not there, or without the columns that the workflow needs.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as handle:
            lines = [line for line in handle if line.strip() and line[0] != "#"]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: can't be read ({getattr(error, 'strerror', None) or error})") from None
    rows = list(csv.DictReader(lines, delimiter="\t"))
    for column in ("run", "dataset", "frames", "geometry", "n_frames"):
        if not rows or column not in rows[0]:
            raise InputError(f"{path}: no column {column}; a table of runs is expected, with tabs between the columns")
    return [{key: (value or "").strip() for key, value in row.items() if key} for row in rows]


def _with_defaults(value, schema):
    """`value` with the defaults of a JSON schema, section by section."""
    if not isinstance(value, dict):
        return value
    filled = dict(value)
    for name, entry in schema.get("properties", {}).items():
        if name not in filled and "default" in entry:
            filled[name] = copy.deepcopy(entry["default"])
        if name in filled:
            filled[name] = _with_defaults(filled[name], entry)
    others = schema.get("additionalProperties")
    if isinstance(others, dict):
        known = schema.get("properties", {})
        filled |= {name: _with_defaults(entry, others) for name, entry in filled.items() if name not in known}
    return filled


def _plain(value):
    """Dates as text: JSON has none."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return value.isoformat() if isinstance(value, datetime.date) else value
