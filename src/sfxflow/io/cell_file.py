"""Unit cell files: CrystFEL's .cell, or the CRYST1 line of a PDB file; and whether a cell and a space group agree."""

import math
from pathlib import Path

import gemmi

from sfxflow.cell import Cell
from sfxflow.errors import InputError
from sfxflow.io.files import provenance_json, written_whole

_FIRST_LINE = "CrystFEL unit cell file version 1.0"
_LENGTHS = {"A": 1.0, "nm": 10.0, "m": 1e10}
_ANGLES = {"deg": 1.0, "rad": 180.0 / math.pi}
_PARAMETERS = {"a": "a", "b": "b", "c": "c", "al": "alpha", "be": "beta", "ga": "gamma"}
_LATTICES = ("triclinic", "monoclinic", "orthorhombic", "tetragonal", "rhombohedral", "hexagonal", "cubic")
_CENTERINGS = "PABCIFRH"
_AXES = "abc*?"
#: Cells from refinement are rounded, or not symmetrised to the last digit: this much is not called a contradiction.
_LENGTH_TOLERANCE = 1e-3
_ANGLE_TOLERANCE = 0.1


def read_cell(path):
    """Unit cell of a CrystFEL .cell file or of a PDB file's CRYST1 line.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    Cell

    Raises
    ------
    InputError
        The file can't be read, lacks a parameter, or describes no possible cell.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not a text file; a CrystFEL .cell or a PDB file is expected") from None
    except OSError as error:
        raise InputError(f"{path}: the cell can't be read ({error.strerror})") from None
    if lines and lines[0].strip() == _FIRST_LINE:
        return parse_cell(lines, path)
    for line in lines:
        if line.startswith("CRYST1"):
            return _checked(_from_cryst1(line, path), path)
    raise InputError(f"{path}: is neither a CrystFEL cell file (first line {_FIRST_LINE!r}) nor a PDB file with CRYST1")


def parse_cell(lines, where):
    """Unit cell of the lines of a CrystFEL .cell file; `where` names it in messages.

    Raises
    ------
    InputError
        They lack a parameter, or describe no possible cell.
    """
    return _checked(_from_crystfel(lines, where), where)


def write_cell(path, cell, provenance=None):
    """Write a CrystFEL .cell file.

    Parameters
    ----------
    path : path-like
    cell : Cell
    provenance : str, optional
        JSON text for a comment; by default that of this process (`sfxflow.io.files.provenance_json`).
    """
    lines = [
        _FIRST_LINE,
        f"; provenance: {provenance or provenance_json()}",
        "",
        f"lattice_type = {cell.lattice_type}",
        f"centering = {cell.centering}",
    ]
    if cell.unique_axis != "*":
        lines.append(f"unique_axis = {cell.unique_axis}")
    lines.append("")
    for key, name in _PARAMETERS.items():
        lines.append(f"{key} = {getattr(cell, name)!r} {'A' if len(key) == 1 else 'deg'}")
    with written_whole(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _from_crystfel(lines, path):
    values = {}
    for number, line in enumerate(lines[1:], start=2):
        text = line.partition(";")[0].strip()
        if not text:
            continue
        at = f"{path}, line {number}"
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not value:
            raise InputError(f"{at}: {text!r} is not of the form 'key = value'")
        if key in _PARAMETERS:
            values[_PARAMETERS[key]] = _quantity(value, _LENGTHS if len(key) == 1 else _ANGLES, f"{at}: {key}")
        elif key == "lattice_type":
            values[key] = _choice(value, _LATTICES, f"{at}: {key}")
        elif key == "centering":
            values[key] = _choice(value, _CENTERINGS, f"{at}: {key}")
        elif key == "unique_axis":
            values[key] = _choice(value, _AXES, f"{at}: {key}").replace("?", "*")
        else:
            known = ", ".join(("lattice_type", "centering", "unique_axis", *_PARAMETERS))
            raise InputError(f"{at}: unknown key {key!r}; a cell file has {known}")
    missing = [key for key, name in _PARAMETERS.items() if name not in values]
    if missing:
        raise InputError(f"{path}: no {', '.join(missing)}; a cell file needs a, b, c (A) and al, be, ga (deg)")
    if "lattice_type" not in values:
        parameters = [values[name] for name in _PARAMETERS.values()]
        lattice, centering, axis = _lattice_of_parameters(parameters)
        return Cell(**({"lattice_type": lattice, "centering": centering, "unique_axis": axis} | values))
    values.setdefault("unique_axis", _usual_axis(values["lattice_type"]))
    return Cell(**values)


def _choice(value, choices, what):
    if value not in choices or (isinstance(choices, str) and len(value) != 1):
        raise InputError(f"{what}: {value!r} is not one of {', '.join(choices)}")
    return value


def _quantity(value, units, what):
    amount, _, unit = value.partition(" ")
    unit = unit.strip()
    if unit not in units:
        raise InputError(f"{what}: {value!r} has no unit that is known here; one of {', '.join(units)} is expected")
    try:
        return float(amount) * units[unit]
    except ValueError:
        raise InputError(f"{what}: {amount!r} is not a number") from None


def _from_cryst1(line, path):
    """Cell of a CRYST1 line; lattice type and centering from its space group, or without one from the parameters."""
    try:
        numbers = [
            float(line[start : start + width])
            for start, width in zip((6, 15, 24, 33, 40, 47), (9, 9, 9, 7, 7, 7), strict=True)
        ]
    except ValueError:
        raise InputError(f"{path}: the CRYST1 line holds no six numbers: {line.strip()!r}") from None
    group = gemmi.find_spacegroup_by_name(line[55:66].strip(), numbers[3], numbers[5]) if line[55:66].strip() else None
    lattice, centering, axis = _lattice_of_parameters(numbers) if group is None else lattice_of(group)
    return Cell(*numbers, lattice_type=lattice, centering=centering, unique_axis=axis)


def _lattice_of_parameters(parameters):
    """Lattice type, centering and unique axis that the parameters suggest, where a file does not say."""
    a, b, c, *angles = parameters
    right = [abs(angle - 90.0) < _ANGLE_TOLERANCE for angle in angles]
    same_ab, same_abc = (abs(b - a) < _LENGTH_TOLERANCE * a, max(abs(b - a), abs(c - a)) < _LENGTH_TOLERANCE * a)
    if all(right):
        lattice = "cubic" if same_abc else "tetragonal" if same_ab else "orthorhombic"
        return lattice, "P", _usual_axis(lattice)
    if same_abc and max(angles) - min(angles) < _ANGLE_TOLERANCE:
        return "rhombohedral", "R", "*"
    if right[0] and right[1] and same_ab and abs(angles[2] - 120.0) < _ANGLE_TOLERANCE:
        return "hexagonal", "P", "c"
    if sum(right) == 2:
        return "monoclinic", "P", "abc"[right.index(False)]
    return "triclinic", "P", "*"


def _checked(cell, path):
    """`cell`, if there can be such a cell."""
    if not all(2.0 <= length <= 10000.0 for length in cell.parameters[:3]):
        raise InputError(
            f"{path}: a, b, c of {cell.parameters[:3]} angstrom are not lengths of a unit cell; check the units"
        )
    alpha, beta, gamma = (math.radians(angle) for angle in cell.parameters[3:])
    possible = all(0.0 < angle < 180.0 for angle in cell.parameters[3:])
    ca, cb, cg = math.cos(alpha), math.cos(beta), math.cos(gamma)
    if not possible or 1 - ca**2 - cb**2 - cg**2 + 2 * ca * cb * cg < 1e-6:
        raise InputError(f"{path}: there is no cell with the angles {cell.parameters[3:]} degrees; check the units")
    return cell


def lattice_of(group):
    """Lattice type, centering and unique axis of a space group, in the words of CrystFEL's cell files.

    Parameters
    ----------
    group : gemmi.SpaceGroup

    Returns
    -------
    tuple of str
        Rhombohedral groups are ('hexagonal', 'H', 'c') in hexagonal and ('rhombohedral', 'R', '*') in rhombohedral axes.
    """
    system = group.crystal_system_str()
    if system == "monoclinic":
        return system, group.centring_type(), group.monoclinic_unique_axis()
    if group.ext in "HR" and group.ext.strip("\0 "):
        return ("hexagonal", "H", "c") if group.ext == "H" else ("rhombohedral", "R", "*")
    if system == "trigonal":
        system = "hexagonal"
    return system, group.centring_type(), _usual_axis(system)


def _usual_axis(lattice):
    return {"monoclinic": "b", "tetragonal": "c", "hexagonal": "c"}.get(lattice, "*")


def check_cell(cell, group, where):
    """Raise InputError where a cell contradicts a space group: lattice type, centering, unique axis, lengths or angles.

    Parameters
    ----------
    cell : Cell
    group : gemmi.SpaceGroup
    where : str
        The cell's file, for the message.
    """
    lattice, centering, axis = lattice_of(group)
    name = group.xhm()
    if cell.lattice_type != lattice and not (
        centering == "H" and cell.lattice_type == "rhombohedral" and cell.centering == "H"
    ):
        raise InputError(
            f"{where}: lattice_type is {cell.lattice_type}, but space group {name} is {lattice}; one of them is wrong"
        )
    if cell.centering != centering:
        raise InputError(
            f"{where}: centering is {cell.centering}, but space group {name} has {centering}; one of them is wrong"
        )
    if axis != "*" and cell.unique_axis not in (axis, "*"):
        raise InputError(
            f"{where}: unique_axis is {cell.unique_axis}, but in space group {name} it is {axis}; one of them is wrong"
        )
    for first, second in _equal_lengths(lattice):
        _agree(cell, first, getattr(cell, second), second, _LENGTH_TOLERANCE * getattr(cell, first), where, name)
    for angle, value in _fixed_angles(lattice, axis).items():
        _agree(cell, angle, value, f"{value:g}", _ANGLE_TOLERANCE, where, name)
    if lattice == "rhombohedral":
        for angle in ("beta", "gamma"):
            _agree(cell, "alpha", getattr(cell, angle), angle, _ANGLE_TOLERANCE, where, name)


def _agree(cell, name, expected, described, tolerance, where, group):
    value = getattr(cell, name)
    if abs(value - expected) > tolerance:
        raise InputError(
            f"{where}: {name} = {value:g}, but space group {group} needs {name} = {described}; it is {expected:g}"
        )


def _equal_lengths(lattice):
    return {
        "tetragonal": [("a", "b")],
        "hexagonal": [("a", "b")],
        "rhombohedral": [("a", "b"), ("a", "c")],
        "cubic": [("a", "b"), ("a", "c")],
    }.get(lattice, [])


def _fixed_angles(lattice, axis):
    right = {"alpha": 90.0, "beta": 90.0, "gamma": 90.0}
    if lattice in ("triclinic", "rhombohedral"):
        return {}
    if lattice == "monoclinic":
        right.pop({"a": "alpha", "b": "beta", "c": "gamma"}[axis])
    elif lattice == "hexagonal":
        right["gamma"] = 120.0
    return right
