"""A lattice of unknown cell in the peaks of one frame.

Real-space vectors of all directions and lengths are scored on the peaks; the best are refined; of all triples of them the one that
explains most peaks with the smallest volume is a primitive cell. One frame in ten or so gives a wrong cell: what counts is on what many
frames agree (`sfxflow.indexing.cell_clusters`).
"""

import itertools
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numba import njit

from sfxflow.indexing import search
from sfxflow.indexing.lattice import half_sphere, reduce_basis
from sfxflow.small_matrices import inverse3

#: A step along a vector's length or across it changes its product with the outermost peaks that direct the search by this much ...
PHASE_STEP = 0.35
#: ... which are those up to this |q|, 1/angstrom. The number of vectors grows with its cube.
REFERENCE_Q = 0.10
#: Vectors are scored on so many peaks, those of lowest resolution.
SEARCH_PEAKS = 48
#: Peaks used after that: the strongest.
MOST_PEAKS = 192
VECTOR_TOLERANCES = np.array([0.3, 0.2, 0.15, 0.12])
CELL_TOLERANCES = np.array([0.3, 0.25, 0.2, 0.16, 0.14, 0.12, 0.12])
MEMBER_TOLERANCE = 0.15
SIGNIFICANCE_TOLERANCES = np.array([0.06, 0.09, 0.12, 0.16, 0.2])
#: Peaks this near in index space tell whether a cell is a multiple of the true one: fewer than this share of them off a sub-lattice.
SUPERCELL_TOLERANCE = 0.16
OFF_SUBLATTICE = 0.08
#: Fewest peaks that a lattice must explain.
LEAST_EXPLAINED = 8
_WORDS = MOST_PEAKS // 64


def sublattice_forms(moduli=(2, 3, 5, 7)):
    """Linear forms that tell whether indices lie on a sub-lattice whose index is a prime number.

    Returns
    -------
    forms : ndarray of int, shape (n, 3)
        The first coefficient that is not 0 is 1.
    moduli : ndarray of int, shape (n,)
        hkl lies on sub-lattice i if (forms[i] @ hkl) % moduli[i] == 0.
    """
    found = [
        (form, modulus)
        for modulus in moduli
        for form in itertools.product(range(modulus), repeat=3)
        if next((x for x in form if x), 0) == 1
    ]
    return np.array([form for form, _ in found]), np.array([modulus for _, modulus in found])


_FORMS, _MODULI = sublattice_forms()


@dataclass(frozen=True)
class Ball:
    """Real-space vectors to try: a half ball without its core.

    Attributes
    ----------
    x, y, z : ndarray of float32, shape (n,)
        Angstrom.
    shortest, longest : float
        Lengths between which primitive vectors are looked for, angstrom.
    reference_q : float
        Peaks up to this |q| (1/angstrom) direct the search.
    """

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    shortest: float
    longest: float
    reference_q: float


@lru_cache(maxsize=4)
def search_ball(shortest, longest, reference_q=REFERENCE_Q):
    """The `Ball` of vectors from `shortest` to `longest` angstrom."""
    step = PHASE_STEP / reference_q
    vectors = []
    for length in np.arange(shortest, longest + 0.5 * step, step):
        vectors.append((half_sphere(step / length) * length).astype(np.float32))
    x, y, z = np.ascontiguousarray(np.concatenate(vectors).T)
    return Ball(x, y, z, shortest, longest, reference_q)


def find_cell(q, weight, ball, n_vectors=1200, n_distinct=36):
    """Find a lattice in a set of scattering vectors.

    Parameters
    ----------
    q : ndarray, shape (n, 3)
        1/angstrom.
    weight : ndarray, shape (n,)
    ball : Ball

    Returns
    -------
    basis : ndarray, shape (3, 3), or None
        Rows of the reduced cell, angstrom; None where nothing was found.
    log10_p : float
    """
    if len(q) > MOST_PEAKS:
        strongest = np.sort(np.argsort(-weight, kind="stable")[:MOST_PEAKS])
        q, weight = q[strongest], weight[strongest]
    lowest = np.argsort(np.einsum("ij,ij->i", q, q), kind="stable")[:SEARCH_PEAKS]
    qx, qy, qz = np.ascontiguousarray(q[lowest].T, dtype=np.float32)
    scores = search.score_directions(
        ball.x, ball.y, ball.z, qx, qy, qz, weight[lowest].astype(np.float32), np.float32(16.0)
    )
    top = search.largest(scores, n_vectors)
    vectors = np.stack([ball.x[top], ball.y[top], ball.z[top]], axis=1).astype(np.float64)
    scores = refine_free_vectors(vectors, q, weight, VECTOR_TOLERANCES, 0.8 * ball.shortest, 1.1 * ball.longest)
    kept = search.distinct_vectors(vectors, scores, 0.04 * ball.shortest, n_distinct)
    if len(kept) < 3:
        return None, 0.0
    triples = best_triples(vectors[kept], member_masks(vectors[kept], q), 0.9, 8)
    best, best_p = None, 0.0
    for triple in triples:
        basis = reduce_basis(vectors[kept][triple])
        if not abs(np.linalg.det(basis)) > 1.0:
            continue
        reciprocal = np.ascontiguousarray(np.linalg.inv(basis))
        if not fit_free_cell(reciprocal, q, weight, CELL_TOLERANCES):
            continue
        log10_p, _ = search.significance(reciprocal, q, SIGNIFICANCE_TOLERANCES)
        if log10_p < best_p:
            best, best_p = reciprocal, log10_p
    return (None, 0.0) if best is None else (without_supercell(np.linalg.inv(best), q, 0.8 * ball.shortest), best_p)


def without_supercell(basis, q, shortest):
    """Reduced basis of the lattice after division by 2, 3, 5 or 7 wherever all explained peaks lie on a sub-lattice.

    Parameters
    ----------
    basis : ndarray, shape (3, 3)
        Rows, angstrom.
    q : ndarray, shape (n, 3)
        1/angstrom.
    shortest : float
        The cell is not divided where that would give a shorter lattice vector, angstrom: where all peaks lie in one plane, nothing else
        would end it.

    Notes
    -----
    If form . h is a multiple of m for all reflections, then form . (a, b, c) / m is a lattice vector too.
    """
    basis = reduce_basis(basis)
    while True:
        indices = q @ basis.T
        hkl = np.rint(indices).astype(int)
        explained = (np.linalg.norm(indices - hkl, axis=1) < SUPERCELL_TOLERANCE) & np.any(hkl != 0, axis=1)
        if explained.sum() < LEAST_EXPLAINED:
            return basis
        off = np.mean((hkl[explained] @ _FORMS.T) % _MODULI != 0, axis=0)
        worst = int(np.argmin(off))
        form, modulus = _FORMS[worst], _MODULI[worst]
        divided = basis.copy()
        divided[int(np.flatnonzero(form)[0])] = form @ basis / modulus
        divided = reduce_basis(divided)
        if off[worst] >= OFF_SUBLATTICE or np.linalg.norm(divided[0]) < shortest:
            return basis
        basis = divided


@njit(cache=True)
def refine_free_vectors(vectors, q, weight, tolerances, shortest, longest):
    """Least-squares refinement of real-space vectors, directions and lengths, against the peaks that they explain.

    Parameters
    ----------
    vectors : ndarray, shape (p, 3)
        Angstrom; changed in place.
    q, weight : ndarray, shape (m, 3) and (m,)
    tolerances : ndarray
        Largest distance from a whole number, one pass each.
    shortest, longest : float
        Limits of the refined length, angstrom.

    Returns
    -------
    ndarray, shape (p,)
        Scores; -1 where the length left the limits.
    """
    scores = np.full(vectors.shape[0], -1.0)
    m = np.empty((3, 3))
    rhs = np.empty(3)
    for p in range(vectors.shape[0]):
        v = vectors[p]
        for tolerance in tolerances:
            for r in range(3):
                rhs[r] = 0.0
                for s in range(3):
                    m[r, s] = 0.0
            for i in range(q.shape[0]):
                projection = v[0] * q[i, 0] + v[1] * q[i, 1] + v[2] * q[i, 2]
                nearest = np.rint(projection)
                if abs(projection - nearest) < tolerance:
                    for r in range(3):
                        rhs[r] += weight[i] * nearest * q[i, r]
                        for s in range(3):
                            m[r, s] += weight[i] * q[i, r] * q[i, s]
            # Where peaks do not determine a direction the vector stays as it is.
            ridge = 0.002 * (m[0, 0] + m[1, 1] + m[2, 2])
            for r in range(3):
                m[r, r] += ridge
                rhs[r] += ridge * v[r]
            if not search.solve3(m, rhs, v):
                break
        norm = np.sqrt(v[0] ** 2 + v[1] ** 2 + v[2] ** 2)
        if not (norm > shortest and norm < longest):
            continue
        total = 0.0
        for i in range(q.shape[0]):
            projection = v[0] * q[i, 0] + v[1] * q[i, 1] + v[2] * q[i, 2]
            f = (projection - np.rint(projection)) / 0.2
            total += weight[i] * max(0.0, 1.0 - f * f)
        scores[p] = total
    return scores


@njit(cache=True)
def member_masks(vectors, q):
    """The peaks on the planes of each vector as bits: peak i is bit i % 64 of word i // 64.

    Returns
    -------
    ndarray of uint64, shape (p, 3)
        Of at most `MOST_PEAKS` peaks.
    """
    masks = np.zeros((vectors.shape[0], _WORDS), np.uint64)
    for p in range(vectors.shape[0]):
        for i in range(q.shape[0]):
            projection = vectors[p, 0] * q[i, 0] + vectors[p, 1] * q[i, 1] + vectors[p, 2] * q[i, 2]
            if abs(projection - np.rint(projection)) < MEMBER_TOLERANCE:
                masks[p, i >> 6] |= np.uint64(1) << np.uint64(i & 63)
    return masks


@njit(cache=True)
def _bits(word):
    """Number of bits that are set, by sums of neighbours."""
    word = word - ((word >> np.uint64(1)) & np.uint64(0x5555555555555555))
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((word * np.uint64(0x0101010101010101)) >> np.uint64(56))


@njit(cache=True)
def _triples(vectors, masks):
    """All triples of vectors, how many peaks each explains, and the volume that it spans."""
    n = vectors.shape[0]
    total = n * (n - 1) * (n - 2) // 6
    triples = np.empty((total, 3), np.int64)
    counts = np.empty(total, np.int64)
    volumes = np.empty(total)
    at = 0
    for i in range(n):
        for j in range(i + 1, n):
            cx = vectors[i, 1] * vectors[j, 2] - vectors[i, 2] * vectors[j, 1]
            cy = vectors[i, 2] * vectors[j, 0] - vectors[i, 0] * vectors[j, 2]
            cz = vectors[i, 0] * vectors[j, 1] - vectors[i, 1] * vectors[j, 0]
            for k in range(j + 1, n):
                count = 0
                for w in range(masks.shape[1]):
                    count += _bits(masks[i, w] & masks[j, w] & masks[k, w])
                triples[at, 0], triples[at, 1], triples[at, 2] = i, j, k
                counts[at] = count
                volumes[at] = abs(cx * vectors[k, 0] + cy * vectors[k, 1] + cz * vectors[k, 2])
                at += 1
    return triples, counts, volumes


def best_triples(vectors, masks, share, n_best):
    """Triples that explain nearly as many peaks as the best one, the smallest volume first.

    Parameters
    ----------
    vectors : ndarray, shape (p, 3)
    masks : ndarray of uint64, shape (p, w)
        `member_masks`.
    share : float
        Of the largest number of explained peaks, that a triple must reach.
    n_best : int

    Returns
    -------
    ndarray of int, shape (n, 3)
        One triple of each volume.
    """
    triples, counts, volumes = _triples(vectors, masks)
    lengths = np.linalg.norm(vectors, axis=1)
    # Three vectors in a plane, or nearly so, span no lattice.
    solid = volumes > 0.1 * lengths[triples].prod(axis=1)
    counts = np.where(solid, counts, 0)
    enough = np.flatnonzero((counts >= share * counts.max()) & (counts > 0))
    order = enough[np.argsort(volumes[enough], kind="stable")]
    # Many triples span the same lattice.
    kept, last = [], -1.0
    for t in order:
        if volumes[t] > 1.02 * last:
            kept.append(t)
            last = volumes[t]
            if len(kept) == n_best:
                break
    return triples[kept]


@njit(cache=True)
def fit_free_cell(reciprocal, q, weight, tolerances):
    """Least-squares fit of a reciprocal cell to the peaks that it explains.

    Parameters
    ----------
    reciprocal : ndarray, shape (3, 3)
        Columns a*, b*, c*, 1/angstrom; changed in place.
    q, weight : ndarray, shape (m, 3) and (m,)
    tolerances : ndarray
        Largest distance |dh| of a peak that takes part, one pass each.

    Returns
    -------
    bool
        False where fewer than 6 peaks are explained.
    """
    left = np.empty((3, 3))
    right = np.empty((3, 3))
    h = np.empty(3)
    for tolerance in tolerances:
        inverse = inverse3(reciprocal)
        for r in range(3):
            for s in range(3):
                left[r, s] = 0.0
                right[r, s] = 0.0
        used = 0
        for i in range(q.shape[0]):
            if search._nearest_point(inverse, q[i], h) < tolerance**2:
                used += 1
                for r in range(3):
                    for s in range(3):
                        left[r, s] += weight[i] * h[r] * h[s]
                        right[r, s] += weight[i] * q[i, r] * h[s]
        if used < 6:
            return False
        mu = 1e-3 * (left[0, 0] + left[1, 1] + left[2, 2])
        for r in range(3):
            left[r, r] += mu
            for s in range(3):
                right[r, s] += mu * reciprocal[r, s]
        inverse = inverse3(left)
        for r in range(3):
            for s in range(3):
                reciprocal[r, s] = (
                    right[r, 0] * inverse[0, s] + right[r, 1] * inverse[1, s] + right[r, 2] * inverse[2, s]
                )
    return True
