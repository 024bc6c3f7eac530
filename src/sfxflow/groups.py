"""Groups of frames: which values of a column of the runs, or of a number or word that each frame has, belong together."""

import math
from dataclasses import dataclass

from sfxflow.errors import InputError

#: Number of the group of a frame that belongs to none.
NO_GROUP = -1


@dataclass(frozen=True)
class Groups:
    """What a dataset is split by.

    Attributes
    ----------
    by : str
        Column of the runs, HDF5 path in the frame files, or file with a table.
    definitions : dict
        Name of each group to its value (str or number), or to the limits (low, high) of its values: low <= value < high.
    reference : str
        The group that is subtracted from each other one.
    """

    by: str
    definitions: dict
    reference: str

    @property
    def names(self):
        """Names in the order of the groups' numbers."""
        return tuple(self.definitions)

    def number(self, value):
        """Number of the group that a value belongs to, `NO_GROUP` where there is none or the value is missing ('' or NaN)."""
        text = canonical(value)
        if not text:
            return NO_GROUP
        for number, wanted in enumerate(self.definitions.values()):
            if isinstance(wanted, list | tuple):
                try:
                    if wanted[0] <= float(text) < wanted[1]:
                        return number
                except ValueError:
                    continue
            elif canonical(wanted) == text:
                return number
        return NO_GROUP


def canonical(value):
    """One text for each value: numbers that are equal are written alike (1, 1.0, true: '1'), NaN is missing ('')."""
    text = str(value).strip()
    if text in ("True", "False"):
        return str(int(text == "True"))
    try:
        number = float(text)
    except ValueError:
        return text
    return "" if math.isnan(number) else format(number, ".12g")


def value_text(wanted):
    """The value or the range of a group, as text."""
    return f"from {wanted[0]:g} to below {wanted[1]:g}" if isinstance(wanted, list) else canonical(wanted)


def groups_from(values, where):
    """Groups of a mapping with `by`, `groups` and `reference`, as the config gives it.

    Parameters
    ----------
    values : dict
    where : str
        Option or file, for messages.

    Raises
    ------
    InputError
        A key is missing, there is no group, or the reference is none of them.
    """
    missing = [key for key in ("by", "groups", "reference") if not isinstance(values, dict) or key not in values]
    if missing:
        raise InputError(f"{where}: {', '.join(missing)} missing; by, groups and reference are expected")
    definitions = values["groups"]
    if not isinstance(definitions, dict) or not definitions:
        raise InputError(f"{where}: groups: name of each group to its value or [low, high] is expected")
    for name, wanted in definitions.items():
        if isinstance(wanted, list) and not (len(wanted) == 2 and wanted[0] < wanted[1]):
            raise InputError(f"{where}: groups: {name}: {wanted} are not two limits, the lower one first")
    if values["reference"] not in definitions:
        raise InputError(f"{where}: reference: {values['reference']!r} is none of the groups {', '.join(definitions)}")
    return Groups(str(values["by"]), definitions, values["reference"])
