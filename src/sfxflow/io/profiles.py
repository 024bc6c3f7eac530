"""What a profile of Snakemake says: where it is, which executor it names."""

import importlib
from dataclasses import dataclass
from pathlib import Path

import yaml

from sfxflow.errors import InputError


@dataclass(frozen=True)
class Profile:
    """
    A profile.

    Attributes
    ----------
    name : str
        As it was given.
    path : Path
        Its file, absolute.
    executor : str
        "local" where none is named.
    content : dict
        Its keys as they stand.
    """

    name: str
    path: Path
    executor: str
    content: dict


def read_profile(name):
    """
    Find and read a profile, where Snakemake would.

    Raises
    ------
    InputError
        There is none of that name, or it can't be read.
    """
    if importlib.util.find_spec("snakemake") is None:
        raise InputError("snakemake is not installed: python -m pip install 'snakemake>=9.25,<10'")
    from snakemake.cli import get_profile_dir

    found = get_profile_dir(name)
    if found is None:
        here = sorted(path.parent.name for path in Path("profiles").glob("*/profile.yaml"))
        there = f"; profiles/ has {', '.join(here)}: --profile profiles/NAME, or a link NAME to it" if here else ""
        raise InputError(
            f"profile {name}: there is no folder or file of that name here with a profile.yaml{there}; "
            "`sfxflow init` makes copies of sfxflow's own"
        )
    path = Path(found[1]).absolute()
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: can't be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: keys and values are expected, as in `executor: htcondor`")
    return Profile(name, path, str(content.get("executor") or "local"), content)
