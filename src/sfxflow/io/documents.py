"""JSON and YAML files: what they hold, or a message for people."""

import json

import yaml

from sfxflow.errors import InputError


def read_json(path, advice):
    """Contents of a JSON file.

    Parameters
    ----------
    path : path
    advice : str
        What to do where it is something else.

    Raises
    ------
    InputError
        It can't be read, or is not JSON.
    """
    try:
        return json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: is not JSON ({error}); {advice}") from None


def read_yaml(path, where_from):
    """Contents of a YAML file.

    Parameters
    ----------
    path : path
    where_from : str
        What writes such files: for those who have none.

    Raises
    ------
    InputError
        It can't be read, or is not YAML.
    """
    try:
        return yaml.safe_load(_text(path, f"; {where_from}"))
    except yaml.YAMLError as error:
        raise InputError(f"{path}: is not YAML: {' '.join(str(error).split())}") from None


def _text(path, more=""):
    try:
        with open(path, encoding="utf-8") as handle:
            return handle.read()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: can't be read ({getattr(error, 'strerror', None) or error}){more}") from None
