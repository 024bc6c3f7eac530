"""The JSON files of figures of merit and of differences."""

from sfxflow.errors import InputError
from sfxflow.io.documents import read_json

_DIFFERENCE_KEYS = ("provenance", "inputs", "split_by", "group", "minus", "n_crystals", "overall", "shells", "remarks")
_KEYS = ("provenance", "definitions", "overall", "shells", "remarks", "inputs")


def read_figures_of_merit(path):
    """Read figures_of_merit.json.

    Parameters
    ----------
    path : path

    Returns
    -------
    dict
        As `sfxflow figures_of_merit` wrote it: provenance, inputs, dataset, space_group, cell, definitions, overall, shells,
        remarks. None stands for a figure that is not defined.

    Raises
    ------
    InputError
        Not there, not JSON, or without the figures.
    """
    return _read(path, _KEYS, "figures of merit")


def read_difference(path):
    """Read difference.json as `sfxflow difference` wrote it; `read_figures_of_merit` tells what can go wrong."""
    return _read(path, _DIFFERENCE_KEYS, "figures of a difference")


def _read(path, keys, what):
    figures = read_json(path, "remove it and run again")
    missing = [key for key in keys if key not in figures] if isinstance(figures, dict) else list(keys)
    if missing:
        raise InputError(f"{path}: holds no {what} ({', '.join(missing)} missing); remove it and run again")
    return figures
