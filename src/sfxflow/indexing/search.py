"""Kernels of the known-cell search: directions of one axis, rotation about it, and the fit of a whole cell.

All of them score how near the projections of the scattering vectors on real-space vectors are to whole numbers (Steller,
Bolotovsky & Rossmann 1997, J. Appl. Cryst. 30, 1036, doi:10.1107/S0021889897008777), with a parabola that is zero outside a
tolerance in place of their Fourier transform.
"""

import math

import numpy as np
from numba import njit

from sfxflow.small_matrices import determinant3, inverse3, product3

_BLOCK = 256
#: No NaN-related flags: only what lets the compiler use fused operations.
_FUSED = {"contract", "nsz"}


@njit(cache=True, fastmath=_FUSED)
def score_directions(x, y, z, qx, qy, qz, weight, inverse_tolerance2):
    """Score of each real-space vector: sum of w max(0, 1 - (f / tolerance)^2), f the distance of v.q from a whole number.

    Parameters
    ----------
    x, y, z : ndarray of float32, shape (n,)
        Vectors, angstrom.
    qx, qy, qz, weight : ndarray of float32, shape (m,)
        Scattering vectors, 1/angstrom, and their weights.
    inverse_tolerance2 : float32
        1 / tolerance^2.

    Returns
    -------
    ndarray of float32, shape (n,)
    """
    n = x.shape[0]
    scores = np.zeros(n, np.float32)
    one, nothing = np.float32(1.0), np.float32(0.0)
    for start in range(0, n, _BLOCK):
        stop = min(start + _BLOCK, n)
        xs, ys, zs, block = x[start:stop], y[start:stop], z[start:stop], scores[start:stop]
        for i in range(qx.shape[0]):
            a, b, c, w = qx[i], qy[i], qz[i], weight[i]
            for j in range(stop - start):
                projection = xs[j] * a + ys[j] * b + zs[j] * c
                f = projection - np.rint(projection)
                block[j] += w * max(nothing, one - f * f * inverse_tolerance2)
    return scores


def largest(scores, count):
    """Positions of the `count` largest scores, largest first."""
    count = min(count, len(scores))
    positions = np.argpartition(scores, len(scores) - count)[len(scores) - count :]
    return positions[np.argsort(-scores[positions], kind="stable")]


@njit(cache=True)
def solve3(m, rhs, out):
    """Solve the symmetric 3x3 system m x = rhs by its adjugate; returns False where m is singular."""
    c00 = m[1, 1] * m[2, 2] - m[1, 2] * m[2, 1]
    c01 = m[1, 2] * m[2, 0] - m[1, 0] * m[2, 2]
    c02 = m[1, 0] * m[2, 1] - m[1, 1] * m[2, 0]
    det = m[0, 0] * c00 + m[0, 1] * c01 + m[0, 2] * c02
    if abs(det) < 1e-300:
        return False
    c11 = m[0, 0] * m[2, 2] - m[0, 2] * m[2, 0]
    c12 = m[0, 1] * m[2, 0] - m[0, 0] * m[2, 1]
    c22 = m[0, 0] * m[1, 1] - m[0, 1] * m[1, 0]
    x = (c00 * rhs[0] + c01 * rhs[1] + c02 * rhs[2]) / det
    y = (c01 * rhs[0] + c11 * rhs[1] + c12 * rhs[2]) / det
    z = (c02 * rhs[0] + c12 * rhs[1] + c22 * rhs[2]) / det
    out[0], out[1], out[2] = x, y, z
    return True


@njit(cache=True)
def refine_vectors(vectors, q, weight, length, tolerances, deviation):
    """Least-squares refinement of real-space vectors against the peaks that they explain, held softly to a length.

    Parameters
    ----------
    vectors : ndarray, shape (p, 3)
        Angstrom; changed in place.
    q, weight : ndarray, shape (m, 3) and (m,)
    length : float
        Expected length, angstrom.
    tolerances : ndarray
        Largest distance from a whole number, one pass each.
    deviation : float
        Largest relative deviation of the length.

    Returns
    -------
    ndarray, shape (p,)
        Scores; -1 where the vector left the allowed length.
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
            ridge = 0.002 * (m[0, 0] + m[1, 1] + m[2, 2])
            stretch = length / math.sqrt(v[0] ** 2 + v[1] ** 2 + v[2] ** 2)
            for r in range(3):
                m[r, r] += ridge
                rhs[r] += ridge * v[r] * stretch
            if not solve3(m, rhs, v):
                break
        norm = math.sqrt(v[0] ** 2 + v[1] ** 2 + v[2] ** 2)
        if abs(norm / length - 1.0) > deviation:
            continue
        total = 0.0
        for i in range(q.shape[0]):
            projection = v[0] * q[i, 0] + v[1] * q[i, 1] + v[2] * q[i, 2]
            f = (projection - np.rint(projection)) / 0.2
            total += weight[i] * max(0.0, 1.0 - f * f)
        scores[p] = total
    return scores


def distinct_vectors(vectors, scores, tolerance, count):
    """Positions of the best-scoring vectors that differ from each other (and from each other's negative) by more than `tolerance`."""
    best_first = np.argsort(-scores, kind="stable")
    return _distinct(vectors, best_first[scores[best_first] > 0], tolerance, count)


@njit(cache=True)
def _distinct(vectors, order, tolerance, count):
    kept = np.empty(count, np.int64)
    n = 0
    for p in order:
        if n == count:
            break
        new = True
        for i in range(n):
            plus = 0.0
            minus = 0.0
            for r in range(3):
                plus += (vectors[p, r] - vectors[kept[i], r]) ** 2
                minus += (vectors[p, r] + vectors[kept[i], r]) ** 2
            if min(plus, minus) < tolerance**2:
                new = False
                break
        if new:
            kept[n] = p
            n += 1
    return kept[:n]


@njit(cache=True, fastmath=_FUSED)
def score_rotations(along, first, second, weight, second_axis, third_axis, cosines, sines, scores):
    """Add to `scores` the score of each rotation of the two other axes about a known one.

    Parameters
    ----------
    along, first, second : ndarray of float32, shape (m,)
        Components of the scattering vectors along the known axis and along two directions perpendicular to it.
    weight : ndarray of float32, shape (m,)
    second_axis, third_axis : sequence of 3 floats
        Components of the two other axes in the same frame, before rotation, angstrom.
    cosines, sines : ndarray of float32, shape (n,)
        Of the angles to try.
    scores : ndarray of float32, shape (n,)
    """
    n = cosines.shape[0]
    one, nothing, eight = np.float32(1.0), np.float32(0.0), np.float32(8.0)
    for i in range(along.shape[0]):
        b0 = second_axis[0] * along[i]
        b1 = second_axis[1] * first[i] + second_axis[2] * second[i]
        b2 = second_axis[1] * second[i] - second_axis[2] * first[i]
        c0 = third_axis[0] * along[i]
        c1 = third_axis[1] * first[i] + third_axis[2] * second[i]
        c2 = third_axis[1] * second[i] - third_axis[2] * first[i]
        w = weight[i]
        for j in range(n):
            b = b0 + b1 * cosines[j] + b2 * sines[j]
            c = c0 + c1 * cosines[j] + c2 * sines[j]
            fb = b - np.rint(b)
            fc = c - np.rint(c)
            scores[j] += w * max(nothing, one - (fb * fb + fc * fc) * eight)


def rotations_about(vectors, basis, axis, both_ways, q, weight, cosines, sines, count):
    """Whole cells with one axis along a given vector: the best rotations about each of several vectors.

    Parameters
    ----------
    vectors : ndarray, shape (p, 3)
        Candidates for the axis, angstrom.
    basis : ndarray, shape (3, 3)
        Rows of the reduced target cell.
    axis : int
        Which row of `basis` the vectors are.
    both_ways : bool
        Try -v as well (no symmetry operation of the lattice turns the axis round).
    q, weight : ndarray, shape (m, 3) and (m,)
    cosines, sines : ndarray of float32
    count : int
        Number of cells wanted.

    Returns
    -------
    ndarray, shape (n, 3, 3)
        Rows of the candidate cells, best first.
    """
    second, third = (axis + 1) % 3, (axis + 2) % 3
    length = np.linalg.norm(basis[axis])
    frame = np.array(_frames_along(basis[axis][None], basis[second]))[:, 0]
    b_axis, c_axis = (frame @ basis[second]).astype(np.float32), (frame @ basis[third]).astype(np.float32)
    if both_ways:
        vectors = np.concatenate([vectors, -vectors])
    helper = np.eye(3)[np.argmin(np.abs(vectors), axis=1)]
    along, first, across = _frames_along(vectors, helper)
    scores = _score_all_rotations(vectors, along, first, across, q, weight, b_axis, c_axis, cosines, sines)
    is_peak = (scores >= np.roll(scores, 1, axis=1)) & (scores >= np.roll(scores, -1, axis=1))
    best = largest(np.where(is_peak, scores, 0).ravel(), count)
    row, angle = np.divmod(best, len(cosines))
    cosine, sine = cosines[angle][:, None], sines[angle][:, None]
    turned_first = cosine * first[row] + sine * across[row]
    turned_across = cosine * across[row] - sine * first[row]
    cells = np.empty((len(best), 3, 3))
    cells[:, axis] = length * along[row]
    cells[:, second] = b_axis[0] * along[row] + b_axis[1] * turned_first + b_axis[2] * turned_across
    cells[:, third] = c_axis[0] * along[row] + c_axis[1] * turned_first + c_axis[2] * turned_across
    return cells


def _frames_along(vectors, helper):
    """Right-handed unit vectors: along each vector, and two perpendicular to it, the first in the plane of `helper`."""
    along = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    first = helper - (along * helper).sum(axis=1, keepdims=True) * along
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    return along, first, np.cross(along, first)


@njit(cache=True)
def _score_all_rotations(vectors, along, first, across, q, weight, b_axis, c_axis, cosines, sines):
    """`score_rotations` about each vector, of the peaks that lie on its planes; shape (p, n)."""
    m = q.shape[0]
    a, f, s, w = np.empty(m, np.float32), np.empty(m, np.float32), np.empty(m, np.float32), np.empty(m, np.float32)
    scores = np.zeros((vectors.shape[0], cosines.shape[0]), np.float32)
    for p in range(vectors.shape[0]):
        n = 0
        for i in range(m):
            x, y, z = q[i, 0], q[i, 1], q[i, 2]
            projection = vectors[p, 0] * x + vectors[p, 1] * y + vectors[p, 2] * z
            if abs(projection - np.rint(projection)) < 0.2:
                a[n] = along[p, 0] * x + along[p, 1] * y + along[p, 2] * z
                f[n] = first[p, 0] * x + first[p, 1] * y + first[p, 2] * z
                s[n] = across[p, 0] * x + across[p, 1] * y + across[p, 2] * z
                w[n] = weight[i]
                n += 1
        score_rotations(a[:n], f[:n], s[:n], w[:n], b_axis, c_axis, cosines, sines, scores[p])
    return scores


@njit(cache=True)
def nearest_rotation(matrix):
    """Rotation nearest to a 3x3 matrix: its polar factor, by Newton's iteration R <- (R + R^-T) / 2.

    Higham (1986), SIAM J. Sci. Stat. Comput. 7, 1160, doi:10.1137/0907079.
    """
    r = np.empty((3, 3))
    for i in range(3):
        for j in range(3):
            r[i, j] = matrix[i, j]
    for _ in range(20):
        inverse = inverse3(r)
        change = 0.0
        for i in range(3):
            for j in range(3):
                following = 0.5 * (r[i, j] + inverse[j, i])
                change = max(change, abs(following - r[i, j]))
                r[i, j] = following
        if change < 1e-12:
            break
    return r


@njit(cache=True)
def _nearest_point(inverse, q, h):
    """Set `h` to the reflection nearest to q in index space; returns the squared distance.

    It is infinite for the origin: any cell explains the peaks around it.
    """
    distance2 = 0.0
    for r in range(3):
        x = inverse[r, 0] * q[0] + inverse[r, 1] * q[1] + inverse[r, 2] * q[2]
        h[r] = np.rint(x)
        distance2 += (x - h[r]) ** 2
    return distance2 if h[0] != 0.0 or h[1] != 0.0 or h[2] != 0.0 else np.inf


@njit(cache=True)
def fit_cell(reciprocal, target, q, weight, tolerances, stiffness):
    """Fit a reciprocal cell to the peaks that it explains, held softly to the target cell in whatever orientation fits best.

    Parameters
    ----------
    reciprocal : ndarray, shape (3, 3)
        Columns a*, b*, c*, 1/angstrom; changed in place.
    target : ndarray, shape (3, 3)
        Columns of the target's reciprocal cell in any orientation.
    q, weight : ndarray, shape (m, 3) and (m,)
    tolerances, stiffness : ndarray
        For each pass: largest distance |dh| of a peak that takes part, and weight of the target relative to the data.

    Returns
    -------
    float
        Score, sum of w max(0, 1 - (|dh| / 0.2)^2); 0 when fewer than 3 peaks are explained. Peaks nearest to the origin, which
        any cell explains, do not take part.

    Notes
    -----
    Minimises sum w |q - B h|^2 + mu |B - R B0|^2 alternately over B and the rotation R ('as rigid as possible').
    """
    inverse_target = inverse3(target)
    left = np.empty((3, 3))
    right = np.empty((3, 3))
    h = np.empty(3)
    for p in range(tolerances.shape[0]):
        inverse = inverse3(reciprocal)
        for r in range(3):
            for s in range(3):
                left[r, s] = 0.0
                right[r, s] = 0.0
        used = 0
        for i in range(q.shape[0]):
            if _nearest_point(inverse, q[i], h) < tolerances[p] ** 2:
                used += 1
                for r in range(3):
                    for s in range(3):
                        left[r, s] += weight[i] * h[r] * h[s]
                        right[r, s] += weight[i] * q[i, r] * h[s]
        if used < 3:
            return 0.0
        mu = stiffness[p] * (left[0, 0] + left[1, 1] + left[2, 2])
        rigid = product3(nearest_rotation(product3(reciprocal, inverse_target)), target)
        for r in range(3):
            left[r, r] += mu
            for s in range(3):
                right[r, s] += mu * rigid[r, s]
        fitted = product3(right, inverse3(left))
        for r in range(3):
            for s in range(3):
                reciprocal[r, s] = fitted[r, s]
        if abs(determinant3(reciprocal)) < 0.3 * abs(determinant3(target)):
            return 0.0
    inverse = inverse3(reciprocal)
    score = 0.0
    for i in range(q.shape[0]):
        score += weight[i] * max(0.0, 1.0 - _nearest_point(inverse, q[i], h) / 0.04)
    return score


@njit(cache=True)
def fit_best_cell(cells, target, q, weight, tolerances, stiffness):
    """`fit_cell` from each of several starting cells (rows a, b, c): the best reciprocal cell and its score."""
    best_score = -1.0
    best = target.copy()
    for i in range(cells.shape[0]):
        reciprocal = inverse3(cells[i])
        score = fit_cell(reciprocal, target, q, weight, tolerances, stiffness)
        if score > best_score:
            best_score = score
            best = reciprocal
    return best, best_score


@njit(cache=True)
def log10_binomial_tail(k, n, p):
    """log10 of the probability of k or more successes in n trials of probability p, summed in the log domain."""
    if k <= 0:
        return 0.0
    log_p, log_q = math.log(p), math.log1p(-p)
    largest_term = -np.inf
    for j in range(k, n + 1):
        term = math.lgamma(n + 1.0) - math.lgamma(j + 1.0) - math.lgamma(n - j + 1.0) + j * log_p + (n - j) * log_q
        largest_term = max(largest_term, term)
    total = 0.0
    for j in range(k, n + 1):
        term = math.lgamma(n + 1.0) - math.lgamma(j + 1.0) - math.lgamma(n - j + 1.0) + j * log_p + (n - j) * log_q
        total += math.exp(term - largest_term)
    return (largest_term + math.log(total)) / math.log(10.0)


@njit(cache=True)
def significance(reciprocal, q, tolerances):
    """How improbable it is that random peaks fit a lattice as well.

    Parameters
    ----------
    reciprocal : ndarray, shape (3, 3)
    q : ndarray, shape (m, 3)
    tolerances : ndarray
        Radii in index space; the smallest probability over them counts.

    Returns
    -------
    log10_p : float
        log10 of the chance that k or more of m random points fall within `tolerance` of a lattice point, where the volume
        4 pi tolerance^3 / 3 is the chance of one. The origin does not count as a lattice point.
    tolerance : float
        The radius that gave it.
    """
    inverse = inverse3(reciprocal)
    distance = np.empty(q.shape[0])
    h = np.empty(3)
    for i in range(q.shape[0]):
        distance[i] = math.sqrt(_nearest_point(inverse, q[i], h))
    best, best_tolerance = 0.0, tolerances[-1]
    for tolerance in tolerances:
        k = 0
        for i in range(q.shape[0]):
            k += distance[i] < tolerance
        log10_p = log10_binomial_tail(k, q.shape[0], 4.0 * math.pi * tolerance**3 / 3.0)
        if log10_p < best:
            best, best_tolerance = log10_p, tolerance
    return best, best_tolerance
