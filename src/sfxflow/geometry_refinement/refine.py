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
from sfxflow.geometry_refinement.crystals import Setting, Sums, summed
from sfxflow.indexing.pool import EXCESS_SIGMA, LEAST_SHIFT_SIGMA
from sfxflow.indexing.refine import CELL_LENGTH_PRIOR, FIRST_EXCESS_SIGMA, FIRST_SHIFT_SIGMA
from sfxflow.parallel import ordered_map

#: Fewer crystals than this say nothing of a detector.
LEAST_CRYSTALS = 5
#: Passes over the crystals, and the step (pixel, at a panel's corner) after which no other is made.
MOST_PASSES = 6
SMALL_STEP = 0.003
#: Standard deviation of what a group is believed to be off, pixel: far more than is, so that only what no peak determines stays.
PRIOR = 10.0
#: ... and of the camera length, relative.
DISTANCE_PRIOR = 0.03
#: A direction that is not known better than this (pixel) is not determined.
DETERMINED = 0.5
#: Relative differences that are worth a note: of the camera length, and of the cell (crystals of one kind differ by some 0.3 %).
DISTANCE_DIFFERS = 0.001
CELL_DIFFERS = 0.005
#: A panel whose peaks are explained less often than this share of the usual does not lie where the geometry says.
MISPLACED = 0.5
_BLOCK = 16


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

    pass_one = _first_setting(panel_arrays(detector), cell, profile, settings, pixel_size)
    before = all_sums(crystals, list(range(len(crystals))), pass_one, threads)
    active, more = _active_groups(groups, before, detector, settings.min_peaks)
    notes += more
    if out_of_plane:
        out_of_plane, more = _tilts_allowed(before, groups, pass_one.arrays, pixel_size, active)
        notes += more
    notes += _misplaced(before, detector)
    return _iterated(
        crystals, detector, groups, active, out_of_plane, pass_one, before, settings, tuple(notes), threads
    )


def _first_setting(arrays, cell, profile, settings, pixel_size):
    wide = (FIRST_SHIFT_SIGMA * pixel_size, FIRST_SHIFT_SIGMA * pixel_size, FIRST_EXCESS_SIGMA)
    return Setting(
        arrays=arrays,
        stretch=0.0,
        cell=cell,
        profile=replace(profile, offsets=(0.0, 0.0, 0.0), offset_sigmas=wide),
        cell_sigma=settings.cell_spread if settings.distance else CELL_LENGTH_PRIOR,
        pixel_size=pixel_size,
    )


def _iterated(crystals, detector, groups, active, out_of_plane, setting, sums, settings, notes, threads):
    clen = float(np.median([crystal.peaks.clen for crystal in crystals]))
    before, passes, stretch = sums, 0, 0.0
    given = setting.arrays
    total = None
    while True:
        arrays = setting.arrays
        parameters = grouping.parameters_of_groups(groups, arrays, setting.pixel_size, active, out_of_plane)
        prior = np.array(
            [DISTANCE_PRIOR * clen / p.unit if p.freedom == "z" and p.group == 0 else PRIOR for p in parameters]
        )
        step, covariance, eigenvalues, directions = solved(sums, parameters, groups, arrays, prior)
        total = step if total is None else total
        if passes >= MOST_PASSES or (
            passes > 1 and _largest_move(step, parameters, groups, arrays, setting) < SMALL_STEP
        ):
            break
        total = step if passes == 0 else total + step
        stretched = step[2] * parameters[2].unit
        step = step.copy()
        step[2] = 0.0
        motions = (grouping.panel_motions(parameters, groups, arrays) @ step).reshape(-1, 6)
        stretch += stretched
        used = sorted(sums.reciprocal)
        shifts = np.array([sums.offsets[i][:2] for i in used])
        spread = 1.48 * np.median(np.abs(shifts - np.median(shifts, axis=0)), axis=0)
        narrow = (*np.maximum(LEAST_SHIFT_SIGMA * setting.pixel_size, spread), EXCESS_SIGMA)
        setting = replace(
            setting,
            arrays=grouping.moved(arrays, motions),
            stretch=stretch,
            profile=replace(setting.profile, offset_sigmas=narrow),
        )
        crystals = [
            replace(crystal, reciprocal=sums.reciprocal.get(i, crystal.reciprocal))
            for i, crystal in enumerate(crystals)
        ]
        sums = all_sums(crystals, used, setting, threads)
        passes += 1
    proposed = grouping.with_arrays(detector, _kept(given, setting.arrays))
    if settings.distance:
        proposed = _stretched(proposed, stretch)
    sigma = float(np.sqrt(covariance[2, 2]) * parameters[2].unit)
    own_cell = np.median([parameters_of(reciprocal) for reciprocal in sums.reciprocal.values()], axis=0)
    curvature = -float(np.median([offsets[2] for offsets in before.offsets.values()]))
    more = _of_distance(settings.distance, stretch / clen, sigma / clen, curvature, own_cell, setting.cell)
    return Refined(
        detector=proposed,
        groups=groups,
        parameters=parameters,
        value=total,
        sigma=np.sqrt(np.diag(covariance)),
        covariance=covariance,
        eigenvalues=eigenvalues,
        weakest=directions[:, 0],
        stretch=stretch,
        stretch_sigma=sigma,
        before=before,
        after=sums,
        used=tuple(sorted(sums.reciprocal)),
        notes=(*notes, *more),
        passes=passes,
        cell=own_cell,
        distance=settings.distance,
    )


def _of_distance(asked, stretch, sigma, curvature, own_cell, cell):
    """Notes on the camera length and the cell, which do not fit together if one of them is wrong.

    Parameters
    ----------
    asked : bool
        The camera length was refined with the cells held.
    stretch, sigma : float
        Relative change of the camera length, and its standard uncertainty.
    curvature : float
        The same from the excitation errors of free cells alone, that is from the Ewald sphere's curvature.
    own_cell : ndarray, shape (6,)
    cell : sfxflow.cell.Cell
    """
    if asked:
        if abs(stretch - curvature) < CELL_DIFFERS:
            return []
        text = (
            f"camera length and cell do not fit together: with the given cell the camera length changes by {100 * stretch:+.2f} %, but the "
            f"curvature of the Ewald sphere says {100 * curvature:+.2f} %. The given cell seems to be "
            f"{100 * abs(stretch - curvature):.1f} % too {'large' if stretch > curvature else 'small'}; correct it, or leave the "
            "camera length alone (distance: false)"
        )
        return [text]
    notes = []
    if abs(stretch) > max(5.0 * sigma, DISTANCE_DIFFERS):
        notes.append(
            f"the camera length seems to be {100 * abs(stretch):.2f} % too {'short' if stretch > 0 else 'long'}; it was left alone, "
            "distance: true refines it"
        )
    larger = np.median(own_cell[:3] / np.array(cell.parameters[:3])) - 1.0
    if abs(larger) > CELL_DIFFERS:
        notes.append(
            f"the crystals' cells are {100 * abs(larger):.2f} % {'larger' if larger > 0 else 'smaller'} than the given one (median "
            f"{' '.join(f'{x:.2f}' for x in own_cell)}): check the cell before the camera length is refined"
        )
    return notes


def _largest_move(step, parameters, groups, arrays, setting):
    """Farthest that a panel's middle or edge moves in a step, pixel; the camera length counts by what it moves at 45 degrees."""
    motions = (grouping.panel_motions(parameters, groups, arrays) @ step).reshape(-1, 6)
    half = 0.5 * np.linalg.norm(arrays.bounds[:, [3, 1]] - arrays.bounds[:, [2, 0]], axis=1) * setting.pixel_size
    shift = np.linalg.norm(motions[:, :2], axis=1) + 0.1 * np.abs(motions[:, 2])
    return float((shift + half * np.linalg.norm(motions[:, 3:], axis=1)).max() / setting.pixel_size)


def _kept(given, refined):
    """`refined`, with what no step touched exactly as it was."""
    same = {
        name: np.where(
            np.abs(getattr(refined, name) - getattr(given, name)) < 1e-15, getattr(given, name), getattr(refined, name)
        )
        for name in ("origin", "fs", "ss")
    }
    return PanelArrays(bounds=given.bounds, **same)


def _stretched(detector, stretch):
    """The detector `stretch` metre farther away: by its camera length, or where frames have their own, by every panel."""
    if not isinstance(detector.clen, str):
        return replace(detector, clen=detector.clen + stretch)
    panels = tuple(replace(panel, origin=(*panel.origin[:2], panel.origin[2] + stretch)) for panel in detector.panels)
    return replace(detector, panels=panels)


def _active_groups(groups, sums, detector, min_peaks):
    """Groups that move by themselves; a note names those with too few peaks."""
    matched = np.array([sums.n_matched[list(group.panels)].sum() for group in groups])
    active = matched >= min_peaks
    still = [
        f"{group.name} ({int(n)})"
        for group, n, on in zip(groups, matched, active, strict=True)
        if not on and group.parent >= 0
    ]
    if not still:
        return active, []
    return active, [
        f"fewer than {min_peaks} matched peaks (min_peaks), not moved by themselves but with the group that holds them: {', '.join(still)}"
    ]


def _misplaced(sums, detector):
    """A note on panels whose peaks hardly any crystal explains."""
    share = sums.n_matched / np.maximum(sums.n_peaks, 1.0)
    usual = np.median(share[sums.n_peaks >= 20]) if np.any(sums.n_peaks >= 20) else 0.0
    odd = [
        f"{panel.name} ({100 * s:.0f} %)"
        for panel, s, n in zip(detector.panels, share, sums.n_peaks, strict=True)
        if n >= 20 and s < MISPLACED * usual
    ]
    if not odd:
        return []
    text = (
        f"the crystals explain few of the peaks on {', '.join(odd)}, but {100 * usual:.0f} % on the others: these panels lie or are turned "
        "several pixels off where the geometry has them, or see something else; correct them by hand first"
    )
    return [text]


def _tilts_allowed(sums, groups, arrays, pixel_size, active):
    """Whether distances and tilts of the groups are determined; a note if not."""
    parameters = grouping.parameters_of_groups(groups, arrays, pixel_size, active, True)
    _, _, eigenvalues, directions = solved(sums, parameters, groups, arrays, np.full(len(parameters), PRIOR))
    weakest = eigenvalues[0]
    if weakest > DETERMINED**-2.0:
        return True, []
    largest = np.argmax(np.abs(directions[:, 0]))
    worst = parameters[largest]
    known = f"{weakest**-0.5:.1f} pixel" if weakest > 0 else "nothing"
    text = (
        f"distances and tilts out of the plane were asked for but not refined: the crystals do not determine them (smallest eigenvalue "
        f"{max(weakest, 0.0):.2g} / pixel^2: known to {known}, mostly {worst.freedom} of {groups[worst.group].name}); crystals of many "
        "orientations with peaks at high angles are needed"
    )
    return False, [text]
