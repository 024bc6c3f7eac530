"""A CrystFEL geometry file with refined values: the old text, in which only the numbers that changed are others.

Order, comments, spaces and line ends stay as they are. A panel that has a value from a line for all panels gets a line of its own.
"""

import re
from pathlib import Path

import numpy as np

from sfxflow.errors import InputError
from sfxflow.io.geom import parse_geom

#: Digits after the point: corners to a millionth of a pixel, directions to as much at the far side of a panel, lengths to a nanometre.
CORNER_DIGITS = 6
DIRECTION_DIGITS = 9
LENGTH_DIGITS = 9
_KEYS = ("corner_x", "corner_y", "fs", "ss", "coffset", "res", "clen")
_LINE = re.compile(r"(?P<before>[^=;]*=\s*)(?P<value>[^;\r\n]*?)(?P<after>\s*(;.*)?)", re.DOTALL)


def read_text(path):
    """Text of a geometry file with its line ends as they are.

    Raises
    ------
    InputError
        It can't be read, or is not text.
    """
    try:
        return Path(path).read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not a text file; a CrystFEL geometry (.geom) is expected") from None
    except OSError as error:
        raise InputError(f"{path}: the geometry can't be read ({error.strerror})") from None


def edited_geom(text, refined, where):
    """The text of a geometry file with the panels, and the camera length, where `refined` has them.

    Parameters
    ----------
    text : str
        Of the old file.
    refined : sfxflow.geometry.Detector
        The same panels in other places; nothing else may differ.
    where : str
        Name of the file, for messages.

    Returns
    -------
    str
        Values that agree to the digits that would be printed are left alone.

    Raises
    ------
    InputError
        The text is not a geometry, or has other panels.
    """
    given = parse_geom(text, where)
    if [p.name for p in given.panels] != [p.name for p in refined.panels]:
        raise InputError(f"{where}: has other panels than the refined geometry; refine this geometry again")
    lines = text.splitlines(keepends=True)
    top_clen, panels, last_line = _places(lines)
    end = next((line[len(line.rstrip("\r\n")) :] for line in lines if line.endswith(("\n", "\r"))), "\n")
    added = {}
    for old, new in zip(given.panels, refined.panels, strict=True):
        places = panels[old.name]
        for key, value in _changed(old, new, places, lines).items():
            number, own = places.get(key, (None, False))
            if own:
                lines[number] = _with_value(lines[number], value)
            else:
                added.setdefault(last_line[old.name], []).append(f"{old.name}/{key} = {value}")
    if not isinstance(given.clen, str) and abs(refined.clen / given.clen - 1.0) > 0.5e-9:
        numbers = [top_clen] if top_clen is not None else sorted({p["clen"][0] for p in panels.values()})
        for number in numbers:
            old = _value(lines[number]).split(" ", 1)
            unit = "".join(f" {rest}" for rest in old[1:])
            scaled = float(old[0]) * refined.clen / given.clen
            lines[number] = _with_value(lines[number], f"{scaled:.10g}{unit}")
    for number, more in added.items():
        if not lines[number].endswith(("\n", "\r")):
            lines[number] += end
        lines[number] += "".join(line + end for line in more)
    return "".join(lines)


def _places(lines):
    """Line of the camera length for all; lines of each panel's values and whether they are its own; last line of each panel."""
    defaults, top_clen, panels, last_line = {}, None, {}, {}
    for number, raw in enumerate(lines):
        line = raw.partition(";")[0]
        if "=" not in line:
            continue
        name = line.split("=", 1)[0].strip()
        owner, slash, key = name.partition("/")
        if not slash:
            if name == "clen":
                top_clen = number
            elif name in _KEYS:
                defaults[name] = (number, False)
        elif not owner.startswith("bad"):
            places = panels.setdefault(owner, dict(defaults))
            last_line[owner] = number
            if key in _KEYS:
                places[key] = (number, True)
    return top_clen, panels, last_line


def _value(line):
    return _LINE.fullmatch(line)["value"]


def _with_value(line, value):
    parts = _LINE.fullmatch(line)
    return f"{parts['before']}{value}{parts['after']}"


def _changed(old, new, places, lines):
    """Texts of the values of a panel that differ by more than the digits that are printed."""
    res = float(_value(lines[places["res"][0]]))
    values = {}
    for axis, key in enumerate(("corner_x", "corner_y")):
        moved = (new.origin[axis] - old.origin[axis]) * res
        if abs(moved) >= 0.5 * 10.0**-CORNER_DIGITS:
            values[key] = f"{float(_value(lines[places[key][0]])) + moved:.{CORNER_DIGITS}f}"
    for key in ("fs", "ss"):
        before, after = np.multiply(getattr(old, key), res), np.multiply(getattr(new, key), res)
        if np.abs(after - before).max() >= 0.5 * 10.0**-DIRECTION_DIGITS:
            values[key] = _direction(after, _value(lines[places[key][0]]))
    if abs(new.origin[2] - old.origin[2]) >= 0.5 * 10.0**-LENGTH_DIGITS:
        values["coffset"] = f"{new.origin[2]:.{LENGTH_DIGITS}f}"
    return values


def _direction(components, written):
    """A direction as text; z only where it says something or was written before."""
    shown = [f"{component:+.{DIRECTION_DIGITS}f}{axis}" for component, axis in zip(components, "xyz", strict=True)]
    if "z" not in written and not float(shown[2][:-1]):
        shown.pop()
    return " ".join(shown)
