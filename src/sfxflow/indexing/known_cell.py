"""Known-cell indexing of one lattice: from scattering vectors to a reciprocal cell and its significance.

The shortest axis is looked for over a half sphere of directions, the two others by rotation about it; whole cells are then fitted
with the target cell as a soft restraint, and the best is judged by a binomial test. A search that finds nothing significant is
repeated from the next axis, then with more candidates, then without the weakest peaks.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from sfxflow.indexing import search
from sfxflow.indexing.lattice import half_sphere
from sfxflow.indexing.rotations import rotations_about
from sfxflow.small_matrices import inverse3

#: Scattering vectors up to this length (1/angstrom) must still fit when a sampled direction is half a step off.
REFERENCE_Q = 0.25
#: Directions are scored on so many peaks of lowest resolution: they tolerate the largest errors of direction.
SEARCH_PEAKS = 120
VECTOR_TOLERANCES = np.array([0.3, 0.2, 0.15, 0.12])
CELL_TOLERANCES = np.array([0.3, 0.25, 0.2, 0.16, 0.14, 0.12])
CELL_STIFFNESS = np.array([0.02, 0.02, 0.02, 0.002, 0.002, 0.002])
#: So many passes see only the peaks of lowest resolution; a quarter of the cells goes on to the others.
FIRST_PASSES = 3
SIGNIFICANCE_TOLERANCES = np.array([0.06, 0.09, 0.12, 0.16, 0.2])


@dataclass(frozen=True)
class Effort:
    """How hard one search tries: candidates kept after each step, sampling of directions, axis, share of peaks used."""

    axis: int
    vectors: int = 160
    distinct: int = 24
    sampling: float = 1.5
    share: float = 1.0


#: Tried in this order until a lattice is significant. All but the first two are expensive: they run only where those found nothing.
CASCADE = (
    Effort(axis=0),
    Effort(axis=1),
    Effort(axis=0, vectors=500, distinct=60, sampling=1.1),
    Effort(axis=0, share=0.8),
)
#: Where a frame has no lattice yet: few peaks among many false ones are still to be found.
THOROUGH_CASCADE = (
    Effort(axis=0),
    Effort(axis=1),
    Effort(axis=0, vectors=1000, distinct=100, sampling=1.1),
    Effort(axis=1, vectors=1000, distinct=100, sampling=1.1),
    Effort(axis=0, share=0.8),
)


@lru_cache(maxsize=16)
def _directions(length, sampling):
    spacing = sampling * 0.25 / (length * REFERENCE_Q)
    vectors = (half_sphere(spacing) * length).astype(np.float32)
    return tuple(np.ascontiguousarray(vectors[:, i]) for i in range(3))


@lru_cache(maxsize=16)
def _angles(radius):
    n = max(48, int(np.ceil(2 * np.pi * radius * REFERENCE_Q / 0.3)))
    angles = 2 * np.pi * np.arange(n) / n
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def index_lattice(q, weight, lattice, max_log10_p, deviation=0.06, cascade=THOROUGH_CASCADE):
    """Find the most significant lattice of a known cell in a set of scattering vectors.

    Parameters
    ----------
    q : ndarray, shape (n, 3)
        Scattering vectors of the peaks, 1/angstrom.
    weight : ndarray, shape (n,)
        Weights of the peaks, about 1.
    lattice : Lattice
    max_log10_p : float
        Search until log10 of the chance of a random fit is below.
    deviation : float
        Largest relative deviation of the searched axis from its length.
    cascade : sequence of Effort

    Returns
    -------
    reciprocal : ndarray, shape (3, 3), or None
        Columns a*, b*, c* of the REDUCED cell, 1/angstrom; None where nothing was found at all.
    log10_p : float
    tolerance : float
        Radius in index space at which the lattice stands out most.
    """
    best = (None, 0.0, SIGNIFICANCE_TOLERANCES[-1])
    for effort in cascade:
        if effort.share < 1.0:
            strongest = np.argsort(-weight, kind="stable")[: int(effort.share * len(q))]
        else:
            strongest = slice(None)
        reciprocal = _search(q[strongest], weight[strongest], lattice, effort, deviation)
        if reciprocal is None:
            continue
        log10_p, tolerance = search.significance(reciprocal, q, SIGNIFICANCE_TOLERANCES)
        if log10_p < best[1]:
            best = (reciprocal, log10_p, tolerance)
        if best[1] < max_log10_p:
            break
    return best


def _search(q, weight, lattice, effort, deviation):
    lengths = np.sqrt((lattice.reduced**2).sum(axis=1))
    length = float(lengths[effort.axis])
    from_beam = np.argsort((q * q).sum(axis=1), kind="stable")
    q, weight = q[from_beam], weight[from_beam]
    near, near_weight = q[:SEARCH_PEAKS], weight[:SEARCH_PEAKS]

    x, y, z = _directions(length, effort.sampling)
    qx, qy, qz = np.ascontiguousarray(near.T, dtype=np.float32)
    scores = search.score_directions(x, y, z, qx, qy, qz, near_weight.astype(np.float32), np.float32(16.0))
    top = search.largest(scores, effort.vectors)
    vectors = np.stack([x[top], y[top], z[top]], axis=1).astype(np.float64)
    scores = search.refine_vectors(vectors, near, near_weight, length, VECTOR_TOLERANCES, deviation)
    kept = search.distinct_vectors(vectors, scores, 0.01 * length, effort.distinct)
    if len(kept) == 0:
        return None

    cosines, sines = _angles(float(np.delete(lengths, effort.axis).max()))
    both_ways = not lattice.two_fold[effort.axis]
    cells = rotations_about(
        vectors[kept], lattice.reduced, effort.axis, both_ways, near, near_weight, cosines, sines, effort.distinct
    )
    target = inverse3(lattice.reduced)
    reciprocal, score = search.fit_best_cell(
        cells, target, q, weight, CELL_TOLERANCES, CELL_STIFFNESS, SEARCH_PEAKS, FIRST_PASSES, effort.distinct // 4
    )
    return reciprocal if score > 0 else None
