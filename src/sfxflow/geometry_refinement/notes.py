"""What a person must be told of a refinement: fallbacks, and what does not look right."""

import numpy as np

#: On a panel that lies where the geometry says, more peaks than so many times those of chance are matched.
CHANCE = 2.0
#: Peaks that a panel must have to be judged.
_JUDGED = 20
#: Relative differences that are worth a note: of the camera length, and of the cell (crystals of one kind differ by some 0.3 %).
DISTANCE_DIFFERS = 0.001
CELL_DIFFERS = 0.005


def misplaced_panels(sums, detector):
    """Panels on which what is matched is chance, and a note that names them.

    Parameters
    ----------
    sums : Sums
        Of the given geometry.
    detector : sfxflow.geometry.Detector

    Returns
    -------
    misplaced : ndarray of bool, shape (p,)
    notes : list of str
    """
    misplaced = (sums.n_peaks >= _JUDGED) & (sums.n_matched < CHANCE * sums.n_chance)
    if not misplaced.any():
        return misplaced, []
    named = [
        f"{detector.panels[i].name} ({sums.n_matched[i]:.0f} of {sums.n_peaks[i]:.0f}, {sums.n_chance[i]:.0f} by chance)"
        for i in np.flatnonzero(misplaced)
    ]
    text = (
        f"the crystals explain hardly more peaks than chance on {', '.join(named)}: these panels lie or are turned several pixels off "
        "where the geometry has them, or see something else. They were not moved by themselves; look at them first"
    )
    return misplaced, [text]


def groups_with_peaks(groups, sums, misplaced, min_peaks):
    """Groups with peaks enough to move by themselves, and a note that names the others.

    Parameters
    ----------
    groups : tuple of Group
    sums : Sums
    misplaced : ndarray of bool, shape (p,)
        Panels whose matched peaks do not count.
    min_peaks : int

    Returns
    -------
    active : ndarray of bool, shape (n_groups,)
    notes : list of str
    """
    matched = np.where(misplaced, 0.0, sums.n_matched)
    counts = np.array([matched[list(group.panels)].sum() for group in groups])
    active = counts >= min_peaks
    still = [
        f"{group.name} ({n:.0f})"
        for group, n, on in zip(groups, counts, active, strict=True)
        if not on and group.parent >= 0 and not misplaced[list(group.panels)].all()
    ]
    if not still:
        return active, []
    text = f"fewer than {min_peaks} matched peaks (min_peaks), not moved by themselves but with what holds them: {', '.join(still)}"
    return active, [text]


def undetermined_tilts(eigenvalues, directions, parameters, groups, determined):
    """A note if distances and tilts of the groups are not determined by the crystals.

    Parameters
    ----------
    eigenvalues : ndarray, shape (m,)
        Of the normal matrix, 1/pixel^2, smallest first.
    directions : ndarray, shape (n, m)
    parameters : tuple of Parameter
    groups : tuple of Group
    determined : float
        Every direction must be known better than this, pixel.
    """
    weakest = eigenvalues[0]
    if weakest > determined**-2.0:
        return []
    worst = parameters[np.argmax(np.abs(directions[:, 0]))]
    known = f"only known to {weakest**-0.5:.1f} pixel" if weakest > 0 else "not known at all"
    text = (
        "distances and tilts out of the plane were asked for but not refined: the crystals do not determine them (smallest eigenvalue "
        f"{max(weakest, 0.0):.2g} / pixel^2: {known}, mostly {worst.freedom} of {groups[worst.group].name}); crystals of many "
        "orientations with peaks at high angles are needed"
    )
    return [text]


def cell_and_distance(asked, stretch, sigma, curvature, own_cell, cell):
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
        Median of the crystals.
    cell : sfxflow.cell.Cell
    """
    if asked:
        if abs(stretch - curvature) < CELL_DIFFERS:
            return []
        text = (
            f"camera length and cell do not fit together: with the given cell the camera length changes by {100 * stretch:+.2f} %, but "
            f"the curvature of the Ewald sphere says {100 * curvature:+.2f} %. The given cell seems to be "
            f"{100 * abs(stretch - curvature):.1f} % too {'large' if stretch > curvature else 'small'}; correct it, or leave the camera "
            "length alone (distance: false)"
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
