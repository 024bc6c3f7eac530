"""Refinement of the panels' places against all crystals of a dataset.

A step of the common least-squares problem is solved exactly (`sfxflow.geometry_refinement.normal`), the panels are moved, each crystal is
refined against them, and so on until nothing moves. The camera length is always among the unknowns, whether it is wanted or not:
a wrong one would bend what is refined beside it.
"""

from dataclasses import dataclass, replace

import numpy as np

from sfxflow.cell import parameters_of
from sfxflow.errors import InputError
from sfxflow.geometry import PanelArrays, panel_arrays
from sfxflow.geometry_refinement import groups as grouping
from sfxflow.geometry_refinement import notes as notes_on
from sfxflow.geometry_refinement.crystals import Setting, Sums, summed
from sfxflow.indexing.pool import EXCESS_SIGMA, LEAST_SHIFT_SIGMA
from sfxflow.indexing.refine import CELL_LENGTH_PRIOR, FIRST_EXCESS_SIGMA, FIRST_SHIFT_SIGMA
from sfxflow.parallel import ordered_map

#: Fewer crystals than this say nothing of a detector.
LEAST_CRYSTALS = 5
#: Passes over the crystals, and the step (pixel, at a panel's corner) after which no other is made.
MOST_PASSES = 6
SMALL_STEP = 0.003
#: A step after which fewer peaks are matched than this share is tried again, shorter.
STILL_MATCHED = 0.95
SHORTER_STEPS = (1.0, 0.5, 0.25, 0.1)
#: Standard deviation of what a group is believed to be off, pixel: far more than is, so that only what no peak determines stays.
PRIOR = 10.0
#: ... and of the camera length, relative.
DISTANCE_PRIOR = 0.03
#: A direction that is not known better than this (pixel) is not determined.
DETERMINED = 0.5
_BLOCK = 16
#: Place of the camera length among the parameters (`parameters_of_groups`).
_DISTANCE = 2


@dataclass(frozen=True)
class Refined:
    """What a refinement gave.

    Attributes
    ----------
    detector : sfxflow.geometry.Detector
        The proposed geometry.
    groups : tuple of Group
    parameters : tuple of Parameter
    value, sigma : ndarray, shape (n,)
        Of the parameters, all passes together, in their units (about a pixel).
    covariance : ndarray, shape (n, n)
    eigenvalues : ndarray, shape (m,)
        Of the normal matrix in the parameters' units, 1/pixel^2, smallest first; the standard uncertainty of a direction is its inverse
        root.
    weakest : ndarray, shape (n,)
        Direction of the smallest eigenvalue.
    stretch : float
        What the crystals say has to be added to the camera length, metre, whether it was asked for or not.
    stretch_sigma : float
    before, after : Sums
        Of the given and of the refined geometry.
    used : tuple of int
        Numbers of the crystals.
    notes : tuple of str
        Fallbacks and warnings, in words.
    passes : int
    cell : ndarray, shape (6,)
        Median cell of the crystals with the refined geometry, its camera length included, angstrom and degree.
    distance : bool
        The proposed geometry has the refined camera length.
    """

    detector: object
    groups: tuple
    parameters: tuple
    value: np.ndarray
    sigma: np.ndarray
    covariance: np.ndarray
    eigenvalues: np.ndarray
    weakest: np.ndarray
    stretch: float
    stretch_sigma: float
    before: Sums
    after: Sums
    used: tuple
    notes: tuple
    passes: int
    cell: np.ndarray
    distance: bool


def all_sums(crystals, numbers, setting, threads):
    """`summed` over many crystals, in parallel."""
    blocks = [numbers[i : i + _BLOCK] for i in range(0, len(numbers), _BLOCK)]
    total = Sums.empty(len(setting.arrays.bounds))
    for sums in ordered_map(_block_sums, _as_state, (crystals, setting), blocks, threads):
        total.add(sums)
    return total


def _as_state(*arguments):
    return arguments


def _block_sums(state, numbers):
    crystals, setting = state
    return summed(crystals, numbers, setting)


def solved(sums, parameters, groups, arrays, prior):
    """Step of the parameters, and what is known of them.

    Parameters
    ----------
    sums : Sums
    parameters : tuple of Parameter
    groups : tuple of Group
    arrays : sfxflow.geometry.PanelArrays
    prior : ndarray, shape (n,)
        Standard deviations, in the parameters' units.

    Returns
    -------
    step : ndarray, shape (n,)
    covariance : ndarray, shape (n, n)
    eigenvalues : ndarray, shape (m,)
        Without the prior, smallest first.
    directions : ndarray, shape (n, m)
    """
    matrix = grouping.panel_motions(parameters, groups, arrays)
    free = grouping.free_directions(parameters, groups, arrays)
    normal = matrix.T @ sums.normal @ matrix
    eigenvalues, vectors = np.linalg.eigh(free.T @ normal @ free)
    inverse = np.linalg.inv(free.T @ (normal + np.diag(prior**-2.0)) @ free)
    step = free @ (inverse @ (free.T @ (matrix.T @ sums.right)))
    return step, free @ inverse @ free.T, eigenvalues, free @ vectors


def refine_geometry(crystals, detector, cell, profile, settings, pixel_size, threads=1):
    """Refine a detector's geometry against crystals.

    Parameters
    ----------
    crystals : list of Crystal
    detector : sfxflow.geometry.Detector
    cell : sfxflow.cell.Cell
        Target; with `settings.distance` the crystals' cells are held to it.
    profile : sfxflow.indexing.refine.Profile
        Widths of the excitation errors; its offsets are not used.
    settings : sfxflow.settings.Geometry
    pixel_size : float
        Metre.
    threads : int

    Returns
    -------
    Refined

    Raises
    ------
    InputError
        Too few crystals.
    """
    if len(crystals) < LEAST_CRYSTALS:
        raise InputError(
            f"{len(crystals)} crystals are too few to say anything of the geometry: {LEAST_CRYSTALS} are the least for the overall "
            f"shift, {settings.min_crystals} (min_crystals) for the panels; index more frames, or search more widely (search: always)"
        )
    notes = []
    level, out_of_plane = settings.level, settings.out_of_plane
    if len(crystals) < settings.min_crystals and (level != "overall" or out_of_plane):
        notes.append(
            f"{len(crystals)} crystals are fewer than min_crystals ({settings.min_crystals}): only the overall shift was refined, "
            "no panel by itself"
        )
        level, out_of_plane = "overall", False
    groups, ignored = grouping.group_tree(detector, level)
    if ignored:
        notes.append(f"rigid groups that share panels with others were left out: {', '.join(ignored)}")
    if len(groups) == 1 and len(detector.panels) == 1 and level != "overall":
        notes.append("the detector is a single panel: only the overall shift was refined")

    first = _first_setting(panel_arrays(detector), cell, profile, settings, pixel_size)
    before = all_sums(crystals, list(range(len(crystals))), first, threads)
    if len(before.reciprocal) < LEAST_CRYSTALS:
        raise InputError(
            f"only {len(before.reciprocal)} of {len(crystals)} crystals fit this geometry and cell: check both, or search (search: always)"
        )
    misplaced, more = notes_on.misplaced_panels(before, detector)
    notes += more
    active, more = notes_on.groups_with_peaks(groups, before, misplaced, settings.min_peaks)
    notes += more
    if out_of_plane:
        parameters = grouping.parameters_of_groups(groups, first.arrays, pixel_size, active, True)
        _, _, eigenvalues, directions = solved(
            before, parameters, groups, first.arrays, np.full(len(parameters), PRIOR)
        )
        more = notes_on.undetermined_tilts(eigenvalues, directions, parameters, groups, DETERMINED)
        notes += more
        out_of_plane = not more
    end = _iterated(crystals, groups, active, out_of_plane, first, before, threads)

    clen = float(np.median([crystal.peaks.clen for crystal in crystals]))
    sigma = float(np.sqrt(end.covariance[_DISTANCE, _DISTANCE]) * end.parameters[_DISTANCE].unit)
    own_cell = np.median([parameters_of(reciprocal) for reciprocal in end.sums.reciprocal.values()], axis=0)
    curvature = -float(np.median([offsets[2] for offsets in before.offsets.values()]))
    stretch = end.setting.stretch
    if end.stuck:
        notes.append(
            f"stopped after {end.passes} passes: every further step explained fewer peaks. Lattices, cell or geometry are not what they seem"
        )
    notes += notes_on.cell_and_distance(settings.distance, stretch / clen, sigma / clen, curvature, own_cell, cell)
    arrays, value = _least_turned(end, groups)
    proposed = grouping.with_arrays(detector, _kept(first.arrays, arrays))
    return Refined(
        detector=_stretched(proposed, stretch) if settings.distance else proposed,
        groups=groups,
        parameters=end.parameters,
        value=value,
        sigma=np.sqrt(np.maximum(np.diag(end.covariance), 0.0)),
        covariance=end.covariance,
        eigenvalues=end.eigenvalues,
        weakest=end.directions[:, 0],
        stretch=stretch,
        stretch_sigma=sigma,
        before=before,
        after=end.sums,
        used=tuple(sorted(end.sums.reciprocal)),
        notes=tuple(notes),
        passes=end.passes,
        cell=own_cell,
        distance=settings.distance,
    )


def _first_setting(arrays, cell, profile, settings, pixel_size):
    """Nothing is known yet of the offsets that all crystals have in common."""
    wide = (FIRST_SHIFT_SIGMA * pixel_size, FIRST_SHIFT_SIGMA * pixel_size, FIRST_EXCESS_SIGMA)
    return Setting(
        arrays=arrays,
        stretch=0.0,
        cell=cell,
        profile=replace(profile, offsets=(0.0, 0.0, 0.0), offset_sigmas=wide),
        cell_sigma=settings.cell_spread if settings.distance else CELL_LENGTH_PRIOR,
        pixel_size=pixel_size,
    )


@dataclass(frozen=True)
class _End:
    """Where the passes ended."""

    setting: Setting
    sums: Sums
    parameters: tuple
    value: np.ndarray
    covariance: np.ndarray
    eigenvalues: np.ndarray
    directions: np.ndarray
    passes: int
    stuck: bool


def _iterated(crystals, groups, active, out_of_plane, setting, sums, threads):
    """Solve, move, refine the crystals again, until the step is small."""
    clen = float(np.median([crystal.peaks.clen for crystal in crystals]))
    value, passes, stuck = 0.0, 0, False
    while True:
        arrays = setting.arrays
        parameters = grouping.parameters_of_groups(groups, arrays, setting.pixel_size, active, out_of_plane)
        prior = np.full(len(parameters), PRIOR)
        prior[_DISTANCE] = DISTANCE_PRIOR * clen / parameters[_DISTANCE].unit
        step, covariance, eigenvalues, directions = solved(sums, parameters, groups, arrays, prior)
        small = passes > 1 and _largest_move(step, parameters, groups, setting) < SMALL_STEP
        if small or stuck or passes == MOST_PASSES:
            value = value + np.zeros(len(parameters))
            return _End(setting, sums, parameters, value, covariance, eigenvalues, directions, passes, stuck)
        crystals = [
            replace(crystal, reciprocal=sums.reciprocal.get(i, crystal.reciprocal))
            for i, crystal in enumerate(crystals)
        ]
        stuck = True
        for part in SHORTER_STEPS:
            tried = _after(part * step, setting, parameters, groups, sums)
            found = all_sums(crystals, sorted(sums.reciprocal), tried, threads)
            if found.n_matched.sum() >= STILL_MATCHED * sums.n_matched.sum():
                setting, sums, value, stuck = tried, found, value + part * step, False
                passes += 1
                break


def _after(step, setting, parameters, groups, sums):
    """The setting after a step; from then on the crystals' own offsets are held as tightly as they agree."""
    in_place = step.copy()
    in_place[_DISTANCE] = 0.0
    motions = (grouping.panel_motions(parameters, groups, setting.arrays) @ in_place).reshape(-1, 6)
    shifts = np.array([offsets[:2] for offsets in sums.offsets.values()])
    spread = 1.48 * np.median(np.abs(shifts - np.median(shifts, axis=0)), axis=0)
    sigmas = (*np.maximum(LEAST_SHIFT_SIGMA * setting.pixel_size, spread), EXCESS_SIGMA)
    return replace(
        setting,
        arrays=grouping.moved(setting.arrays, motions),
        stretch=setting.stretch + step[_DISTANCE] * parameters[_DISTANCE].unit,
        profile=replace(setting.profile, offset_sigmas=sigmas),
    )


def _largest_move(step, parameters, groups, setting):
    """Farthest that a panel's middle or corner moves in a step, pixel; along the beam a tenth counts."""
    arrays = setting.arrays
    motions = (grouping.panel_motions(parameters, groups, arrays) @ step).reshape(-1, 6)
    half = 0.5 * np.linalg.norm(arrays.bounds[:, [3, 1]] - arrays.bounds[:, [2, 0]], axis=1) * setting.pixel_size
    shift = np.linalg.norm(motions[:, :2], axis=1) + 0.1 * np.abs(motions[:, 2])
    return float((shift + half * np.linalg.norm(motions[:, 3:], axis=1)).max() / setting.pixel_size)


def _least_turned(end, groups):
    """Panels and values after a turn of everything about the beam that leaves the median group unturned.

    That turn can't be observed. With a mean of zero one panel that is turned a lot would turn all others.
    """
    turns = [
        (i, end.value[i] * p.unit)
        for i, p in enumerate(end.parameters)
        if p.freedom == "turn" and groups[p.group].parent == 0
    ]
    arrays, value = end.setting.arrays, end.value.copy()
    if not turns:
        return arrays, value
    angle = -float(np.median([turn for _, turn in turns]))
    centres = grouping.panel_centres(arrays)
    motions = np.zeros((len(centres), 6))
    motions[:, :3] = angle * np.cross([0.0, 0.0, 1.0], centres)
    motions[:, 5] = angle
    for i, parameter in enumerate(end.parameters):
        group = groups[parameter.group]
        if group.parent == 0 and parameter.freedom in ("x", "y", "turn"):
            own = motions[list(group.panels)].mean(axis=0)[grouping.ROWS[parameter.freedom]]
            value[i] += own / parameter.unit
    return grouping.moved(arrays, motions), value


def _kept(given, refined):
    """`refined`, with what no step touched exactly as it was."""

    def chosen(name):
        old, new = getattr(given, name), getattr(refined, name)
        return np.where(np.abs(new - old) < 1e-15, old, new)

    return PanelArrays(bounds=given.bounds, origin=chosen("origin"), fs=chosen("fs"), ss=chosen("ss"))


def _stretched(detector, stretch):
    """The detector `stretch` metre farther away: by its camera length, or where frames have their own, by every panel."""
    if not isinstance(detector.clen, str):
        return replace(detector, clen=detector.clen + stretch)
    panels = tuple(replace(panel, origin=(*panel.origin[:2], panel.origin[2] + stretch)) for panel in detector.panels)
    return replace(detector, panels=panels)
