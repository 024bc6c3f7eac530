"""Search for the beam centre and the camera length when they are too far off to index with.

Each place is scored by how significant the best lattices of some strong frames are, relative to what the same number of random peaks
gives. The significance falls off gently with an error of the centre, long before lattices are refused, so that a coarse grid finds
the right place and a few steps around the best one follow.
"""

import itertools
from dataclasses import dataclass, replace

import numpy as np

from sfxflow.geometry import panel_arrays
from sfxflow.geometry_refinement.crystals import Crystal, placed_peaks
from sfxflow.geometry_refinement.groups import with_arrays
from sfxflow.indexing.frame import index_frame, panel_inverses, strength_weights
from sfxflow.indexing.known_cell import index_lattice
from sfxflow.indexing.pool import pool_lattices
from sfxflow.parallel import ordered_map

#: log10 of the chance of the best lattice among random peaks; what is below counts.
CHANCE = -12.0
#: Significance at which a lattice is one.
SIGNIFICANT = -14.0
#: A step of the centre moves a reflection by at most this part of the distance between lattice points, and by at most so many pixels.
STEP_INDEX = 0.18
STEP_PIXEL = 4.0
STEP_DISTANCE = 0.015
#: Frames that the coarse grid is scored with.
COARSE_FRAMES = 20
#: Only so many of the strongest peaks of a frame are scored: enough for any lattice, and each place costs as much as there are.
SCORED_PEAKS = 80
#: How often the steps are halved around the best place.
HALVINGS = 2
#: Another place is taken if its score is higher by this part; what is refined there corrects what is left.
BETTER = 0.01
#: Share of the frames that must have a significant lattice at the best place.
LEAST_SHARE = 0.2


@dataclass(frozen=True)
class Place:
    """A beam centre and camera length that were tried.

    Attributes
    ----------
    shift : tuple of 2 floats
        Of all panels along x and y, metre.
    stretch : float
        Relative change of the camera length.
    score : float
        Mean over the frames of the significance beyond chance for each peak.
    share : float
        Share of the frames with a significant lattice.
    """

    shift: tuple
    stretch: float
    score: float = np.nan
    share: float = np.nan


@dataclass(frozen=True)
class Search:
    """What the search found.

    Attributes
    ----------
    given, best : Place
        The same where nothing better was found.
    n_frames, n_places : int
    """

    given: Place
    best: Place
    n_frames: int
    n_places: int

    @property
    def found(self):
        """Whether lattices are significant at the best place."""
        return self.best.share >= LEAST_SHARE

    @property
    def moved(self):
        """Whether the best place is another one than the given."""
        return self.best.shift != self.given.shift or self.best.stretch != self.given.stretch


def search_beam(frames, arrays, target, settings, pixel_size, threads=1):
    """Search for the beam centre and the camera length.

    Parameters
    ----------
    frames : list of PeakList
        Strong ones.
    arrays : sfxflow.geometry.PanelArrays
    target : sfxflow.indexing.frame.Target
    settings : sfxflow.settings.Geometry
    pixel_size : float
        Metre.
    threads : int

    Returns
    -------
    Search
    """
    clen = float(np.median([peaks.clen for peaks in frames]))
    length = float(np.median([peaks.wavelength for peaks in frames]))
    longest = np.linalg.norm(target.lattice.reduced, axis=1).max()
    step = min(STEP_PIXEL * pixel_size, STEP_INDEX * clen * length / longest)
    reach = settings.search_shift * pixel_size
    shifts = _grid(reach, step)
    distances = _grid(settings.search_distance, STEP_DISTANCE)
    few = frames[:: max(1, len(frames) // COARSE_FRAMES)][:COARSE_FRAMES]
    places = [Place((x, y), d) for x, y, d in itertools.product(shifts, shifts, distances)]
    tried = scored(places, few, arrays, target, threads)
    best = max(tried, key=lambda place: place.score)
    given = scored([Place((0.0, 0.0), 0.0)], frames, arrays, target, threads)[0]
    steps = np.array([shifts[1] - shifts[0] if len(shifts) > 1 else 0.0] * 2 + [_step(distances)])
    n_places = len(places)
    for _ in range(HALVINGS):
        steps = steps / 2.0
        offsets = itertools.product(*(((-s, 0.0, s) if s else (0.0,)) for s in steps))
        around = [Place((best.shift[0] + x, best.shift[1] + y), best.stretch + d) for x, y, d in offsets]
        best = max(scored(around, frames, arrays, target, threads), key=lambda place: place.score)
        n_places += len(around)
    # The camera length stays as it is unless another one is better: lattices say little of it.
    unchanged = scored([Place(best.shift, 0.0)], frames, arrays, target, threads)[0]
    if best.score < (1.0 + BETTER) * unchanged.score:
        best = unchanged
    if best.score < (1.0 + BETTER) * given.score or not best.share >= LEAST_SHARE:
        best = given
    return Search(given, best, len(frames), n_places)


def _grid(reach, step):
    """Numbers from -reach to reach, evenly spaced by `step` at most, zero among them."""
    n = int(np.ceil(reach / step - 1e-9)) if reach > 0 else 0
    return [float(x) for x in np.linspace(-reach, reach, 2 * n + 1)]


def _step(values):
    return values[1] - values[0] if len(values) > 1 else 0.0


def scored(places, frames, arrays, target, threads=1):
    """`places` with their scores, in order."""
    found = ordered_map(_score, _as_state, (frames, arrays, target), places, threads)
    return list(found)


def _as_state(*arguments):
    return arguments


def _score(state, place):
    frames, arrays, target = state
    shifted = replace(arrays, origin=arrays.origin + (*place.shift, 0.0))
    scores, significant = [], 0
    for frame in frames:
        peaks = placed_peaks(frame, shifted, frame.clen * (1.0 + place.stretch))
        if len(peaks) > SCORED_PEAKS:
            peaks = peaks.subset(np.argsort(-peaks.intensity, kind="stable")[:SCORED_PEAKS])
        # The first, quickest search has to do: no retries.
        _, log10_p, _ = index_lattice(peaks.q, strength_weights(peaks.intensity), target.lattice, 0.0)
        scores.append(max(0.0, CHANCE - log10_p) / max(len(peaks), 1))
        significant += log10_p < SIGNIFICANT
    return replace(place, score=float(np.mean(scores)), share=significant / len(frames))


def at_place(detector, place, clen=None):
    """A detector at a place that was tried.

    Parameters
    ----------
    detector : sfxflow.geometry.Detector
    place : Place
    clen : float, optional
        Where frames have their own camera lengths: a typical one, metre; its change goes to every panel.

    Returns
    -------
    sfxflow.geometry.Detector
    """
    arrays = panel_arrays(detector)
    farther = place.stretch * clen if isinstance(detector.clen, str) else 0.0
    shifted = with_arrays(detector, replace(arrays, origin=arrays.origin + (*place.shift, farther)))
    return shifted if isinstance(detector.clen, str) else replace(shifted, clen=detector.clen * (1.0 + place.stretch))


def index_all(frames, arrays, target, settings, pixel_size, threads=1):
    """Index frames at a place that the search found.

    Parameters
    ----------
    frames : list of PeakList
    arrays : sfxflow.geometry.PanelArrays
    target : sfxflow.indexing.frame.Target
    settings : sfxflow.settings.Indexing
    pixel_size : float
    threads : int

    Returns
    -------
    crystals : list of Crystal
    n_indexed : int
        Frames with a lattice.
    profile : sfxflow.indexing.refine.Profile or None
        None where nothing was indexed.
    """
    state = (arrays, target, settings, pixel_size)
    crystals, pooled, n_indexed = [], [], 0
    for frame, found in zip(frames, ordered_map(_indexed, _as_state, state, frames, threads), strict=True):
        n_indexed += bool(found)
        for reciprocal, summary in found:
            crystals.append(Crystal(frame, reciprocal))
            pooled.append(summary)
    if not crystals:
        return [], 0, None
    length = float(np.median([frame.wavelength for frame in frames]))
    return crystals, n_indexed, pool_lattices(pooled, length, pixel_size)


def _indexed(state, frame):
    arrays, target, settings, pixel_size = state
    peaks = placed_peaks(frame, arrays, frame.clen)
    to_panel = panel_inverses(arrays, frame.clen)
    accepted, _ = index_frame(peaks, target, to_panel, frame.wavelength, pixel_size, settings)
    found = []
    for lattice in accepted:
        refined = lattice.refined
        members = lattice.members & (refined.inlier > 0.01)
        lengths = np.linalg.norm(peaks.q[members], axis=1)
        summary = (lengths, refined.excitation_error[members], refined.inlier[members], refined.offsets)
        found.append((refined.reciprocal, summary))
    return found
