"""What a file of sfxflow says of its own origin."""

import json

import h5py

from sfxflow.errors import InputError


def read_provenance(path):
    """Origin of a file as `sfxflow.io.files.provenance` wrote it.

    Parameters
    ----------
    path : path
        HDF5 file, JSON file, or table whose first line begins with '#'.

    Returns
    -------
    dict
        program, command, settings and inputs.

    Raises
    ------
    InputError
        The file is not there, or does not say where it comes from.
    """
    try:
        if h5py.is_hdf5(path):
            with h5py.File(path, "r") as handle:
                return parse_provenance(handle.attrs.get("provenance", ""), path)
        with open(path, encoding="utf-8") as handle:
            first = handle.readline()
            if first.startswith("#"):
                return parse_provenance(first[first.find("{") :], path)
            return checked_provenance(json.loads(first + handle.read())["provenance"], path)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: can't be read ({getattr(error, 'strerror', None) or error})") from None
    except (json.JSONDecodeError, KeyError, TypeError):
        raise InputError(f"{path}: does not say where it comes from; a file of sfxflow is expected") from None


def parse_provenance(text, path):
    """`checked_provenance` of JSON text."""
    try:
        return checked_provenance(json.loads(text), path)
    except (json.JSONDecodeError, TypeError):
        raise InputError(f"{path}: does not say where it comes from; a file of sfxflow is expected") from None


def checked_provenance(values, path):
    """`values` with every key of a provenance.

    Raises
    ------
    InputError
        It is something else.
    """
    if not isinstance(values, dict):
        raise InputError(f"{path}: does not say where it comes from; a file of sfxflow is expected")
    return {
        "program": str(values.get("program", "")),
        "command": str(values.get("command", "")),
        "settings": values.get("settings") or {},
        "inputs": values.get("inputs") or [],
    }
