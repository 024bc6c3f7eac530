"""The lock: what a run was made with, which frames are pinned, and what they gave. YAML for people to read."""

import hashlib
import os

import yaml

from sfxflow.errors import InputError
from sfxflow.io.documents import read_yaml
from sfxflow.io.files import written_whole

FORMAT = "sfxflow lock 1"
_KEYS = ("format", "provenance", "versions", "parameters", "inputs", "pinned", "seen")
_BLOCK = 1 << 20

_HEAD = """\
# What this analysis was made with, written by `sfxflow lock`. `sfxflow check-lock` runs the pinned frames again with the programs and
# parameters of today and fails when hit rate, index rate or CC1/2 moved more than the config's section `lock` tolerates.
"""


def write_lock(path, contents):
    """Write a lock.

    Parameters
    ----------
    path : path
    contents : dict
        provenance; versions; parameters (the config with every default); inputs (name to size and sha256); pinned (dataset to run to
        lines 'file //event'); seen (dataset to engine to rates and mergers).
    """
    text = _HEAD + yaml.safe_dump({"format": FORMAT} | contents, sort_keys=False, allow_unicode=True, width=140)
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_lock(path):
    """Read a lock.

    Raises
    ------
    InputError
        Not there, or something else.
    """
    contents = read_yaml(path, "`sfxflow lock` writes it")
    if not isinstance(contents, dict) or contents.get("format") != FORMAT:
        raise InputError(f"{path}: is not a lock of sfxflow ({FORMAT!r} expected); `sfxflow lock` writes one")
    if missing := [key for key in _KEYS if key not in contents]:
        raise InputError(f"{path}: {', '.join(missing)} missing; write the lock again: sfxflow lock")
    return contents


def described_file(path):
    """Size and SHA-256 of a file, or that it is missing."""
    try:
        digest = hashlib.sha256()
        with open(path, "rb") as handle:
            while block := handle.read(_BLOCK):
                digest.update(block)
        return {"size": os.path.getsize(path), "sha256": digest.hexdigest()}
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror})") from None
