"""Which panels move together: the hierarchy of rigid groups, and how the motions of groups move panels.

A motion of a panel is a vector of six: its centre's translation along x, y, z (metre) and a rotation vector about its centre (radian).
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import null_space

from sfxflow.errors import InputError
from sfxflow.indexing.mixture import rotation_by

#: Name of the group that holds every panel.
WHOLE = "detector"

#: Degrees of freedom of a group by name, with the row of a motion that each is.
ROWS = {"x": 0, "y": 1, "z": 2, "tilt_x": 3, "tilt_y": 4, "turn": 5}
IN_PLANE = ("x", "y", "turn")
OUT_OF_PLANE = ("z", "tilt_x", "tilt_y")


@dataclass(frozen=True)
class Group:
    """Panels that move as one.

    Attributes
    ----------
    name : str
    panels : tuple of int
    parent : int
        Number of the group that holds it, -1 for the whole detector.
    """

    name: str
    panels: tuple
    parent: int


@dataclass(frozen=True)
class Parameter:
    """One degree of freedom of a group; its unit moves the group by about one pixel.

    Attributes
    ----------
    group : int
    freedom : str
        One of `ROWS`.
    unit : float
        Metre or radian.
    """

    group: int
    freedom: str
    unit: float


def group_tree(detector, level):
    """Groups of the detector, each behind its parent; the first is the whole.

    Parameters
    ----------
    detector : sfxflow.geometry.Detector
        Its rigid groups name panels (rigid_group_NAME) or, as group_NAME, panels and other groups.
    level : str
        'overall': the whole alone; 'rigid_groups': the smallest groups that are given move as one, and panels of none on their own;
        'panels': every panel moves on its own within its group.

    Returns
    -------
    groups : tuple of Group
    ignored : tuple of str
        Groups that share panels with another one without one holding the other.

    Raises
    ------
    InputError
        A group names a panel that the geometry does not have.
    """
    n = len(detector.panels)
    everything = frozenset(range(n))
    if level == "overall" or n == 1:
        return (Group(WHOLE, tuple(range(n)), -1),), ()
    given = _named_sets(detector)
    accepted, ignored = {everything: WHOLE}, []
    for name, panels in sorted(given.items(), key=lambda item: -len(item[1])):
        if any(panels & other and not panels <= other for other in accepted):
            ignored.append(name)
        else:
            accepted.setdefault(panels, name)
    sets = sorted(accepted, key=len, reverse=True)
    names = {panels: accepted[panels] for panels in sets}
    for number in range(n):
        holding = [panels for panels in sets if number in panels]
        smallest = holding[-1]
        alone = level == "panels" or len(sets) == 1 or any(inner < smallest for inner in sets)
        if alone and len(smallest) > 1:
            names[frozenset([number])] = detector.panels[number].name
    ordered = sorted(names, key=len, reverse=True)
    groups = []
    for i, panels in enumerate(ordered):
        holding = [j for j in range(i) if panels < ordered[j]]
        groups.append(Group(names[panels], tuple(sorted(panels)), holding[-1] if holding else -1))
    return tuple(groups), tuple(ignored)


def _named_sets(detector):
    """Panels of each rigid group; collections only say which groups belong together, and are left out."""
    numbers = {panel.name: i for i, panel in enumerate(detector.panels)}
    lines = detector.rigid_groups
    sets = {}
    for key, members in lines.items():
        if key.startswith("rigid_group_collection"):
            continue
        panels = _panels_of(key, members, numbers, lines, ())
        if panels:
            sets[key.removeprefix("rigid_group_").removeprefix("group_")] = panels
    return sets


def _panels_of(key, members, numbers, lines, above):
    panels = set()
    for member in filter(None, members):
        if member in numbers:
            panels.add(numbers[member])
        elif f"group_{member}" in lines and key.startswith("group_") and f"group_{member}" not in above:
            inner = f"group_{member}"
            panels |= _panels_of(inner, lines[inner], numbers, lines, (*above, key))
        else:
            raise InputError(
                f"{key}: the geometry has no panel {member}; correct the group, or leave it out (level: panels)"
            )
    return frozenset(panels)


def panel_centres(arrays):
    """Middle of each panel, without the camera length, metre, shape (p, 3)."""
    size = np.stack([arrays.bounds[:, 3] - arrays.bounds[:, 2], arrays.bounds[:, 1] - arrays.bounds[:, 0]], axis=1)
    return arrays.origin + 0.5 * (size[:, :1] * arrays.fs + size[:, 1:] * arrays.ss)


def panel_areas(arrays):
    """Pixels of each panel, shape (p,)."""
    size = arrays.bounds[:, [3, 1]] - arrays.bounds[:, [2, 0]]
    return size.prod(axis=1).astype(float)


def parameters_of_groups(groups, arrays, pixel_size, active, out_of_plane):
    """What is refined: the whole's shift and distance, and the motions of the active groups against it.

    A turn of everything about the beam is left out: it can't be told from a turn of all crystals.

    Parameters
    ----------
    groups : tuple of Group
    arrays : sfxflow.geometry.PanelArrays
    pixel_size : float
    active : ndarray of bool, shape (n_groups,)
        Groups that have peaks enough to move by themselves.
    out_of_plane : bool
        Distances and tilts of the groups as well.

    Returns
    -------
    tuple of Parameter
    """
    radius = [group_radius(group, arrays) for group in groups]
    parameters = [Parameter(0, "x", pixel_size), Parameter(0, "y", pixel_size)]
    parameters.append(Parameter(0, "z", pixel_size * 10.0))
    if out_of_plane:
        parameters += [Parameter(0, freedom, pixel_size / radius[0]) for freedom in ("tilt_x", "tilt_y")]
    freedoms = IN_PLANE + (OUT_OF_PLANE if out_of_plane else ())
    for i, group in enumerate(groups):
        if group.parent < 0 or not active[i]:
            continue
        for freedom in freedoms:
            parameters.append(Parameter(i, freedom, pixel_size / radius[i] if ROWS[freedom] > 2 else pixel_size))
    return tuple(parameters)


def group_radius(group, arrays):
    """Root mean square distance of a group's pixels from its middle, metre."""
    centres, areas = panel_centres(arrays)[list(group.panels)], panel_areas(arrays)[list(group.panels)]
    middle = np.average(centres, axis=0, weights=areas)
    own = _spread(arrays)[list(group.panels)].sum(axis=1)
    return float(np.sqrt(np.average(((centres - middle) ** 2).sum(axis=1) + own, weights=areas)))


def _spread(arrays):
    """Mean square extent of each panel along x, y and z about its middle, square metre, shape (p, 3)."""
    size = arrays.bounds[:, [3, 1]] - arrays.bounds[:, [2, 0]]
    return (size[:, :1] ** 2 * arrays.fs**2 + size[:, 1:] ** 2 * arrays.ss**2) / 12.0


def panel_motions(parameters, groups, arrays):
    """Matrix from parameters to motions of the panels, shape (6 p, n): motions = matrix @ parameters."""
    centres, areas = panel_centres(arrays), panel_areas(arrays)
    matrix = np.zeros((len(centres), 6, len(parameters)))
    for column, parameter in enumerate(parameters):
        members = list(groups[parameter.group].panels)
        row = ROWS[parameter.freedom]
        matrix[members, row, column] = parameter.unit
        if row > 2:
            middle = np.average(centres[members], axis=0, weights=areas[members])
            axis = np.eye(3)[row - 3]
            matrix[members, :3, column] = parameter.unit * np.cross(axis, centres[members] - middle)
    return matrix.reshape(-1, len(parameters))


def free_directions(parameters, groups, arrays):
    """Directions in the space of the parameters in which the parts of no group move on the mean, orthonormal columns.

    What moves or turns all parts of a group alike is the group's own motion; of the whole detector, its turn about the beam, which can't
    be observed. Each part counts by its area.

    Parameters
    ----------
    parameters : tuple of Parameter
    groups : tuple of Group
    arrays : sfxflow.geometry.PanelArrays

    Returns
    -------
    ndarray, shape (n, m)
    """
    areas = panel_areas(arrays)
    weight = np.array([areas[list(groups[p.group].panels)].sum() * p.unit for p in parameters])
    constraints = {}
    for column, parameter in enumerate(parameters):
        parent = groups[parameter.group].parent
        if parent >= 0:
            row = constraints.setdefault((parent, parameter.freedom), np.zeros(len(parameters)))
            row[column] = weight[column]
    if not constraints:
        return np.eye(len(parameters))
    rows = np.array([row / np.abs(row).max() for row in constraints.values()])
    return null_space(rows, rcond=1e-9)


def moved(arrays, motions):
    """Panels after a motion each.

    Parameters
    ----------
    arrays : sfxflow.geometry.PanelArrays
    motions : ndarray, shape (p, 6)

    Returns
    -------
    sfxflow.geometry.PanelArrays
    """
    centres = panel_centres(arrays)
    turns = np.array([rotation_by(*motion[3:]) for motion in motions])
    return replace(
        arrays,
        origin=centres + motions[:, :3] + np.einsum("pij,pj->pi", turns, arrays.origin - centres),
        fs=np.einsum("pij,pj->pi", turns, arrays.fs),
        ss=np.einsum("pij,pj->pi", turns, arrays.ss),
    )


def with_arrays(detector, arrays):
    """The detector with its panels where `arrays` has them."""
    panels = tuple(
        replace(panel, origin=tuple(origin), fs=tuple(fs), ss=tuple(ss))
        for panel, origin, fs, ss in zip(
            detector.panels, arrays.origin.tolist(), arrays.fs.tolist(), arrays.ss.tolist(), strict=True
        )
    )
    return replace(detector, panels=panels)
