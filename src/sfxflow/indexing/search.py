"""Kernels of the known-cell search: directions of one axis, and the fit of a whole cell.

All of them score how near the projections of the scattering vectors on real-space vectors are to whole numbers (Steller,
Bolotovsky & Rossmann 1997, J. Appl. Cryst. 30, 1036, doi:10.1107/S0021889897008777), with a parabola that is zero outside a
tolerance in place of their Fourier transform.
"""

import math

import numpy as np
from numba import njit

from sfxflow.small_matrices import determinant3, inverse3, product3

_BLOCK = 256
_N_BINS = 1024
#: No NaN-related flags: only what lets the compiler use fused operations.
_FUSED = {"contract", "nsz"}
#: As well: sums in any order, so that several terms are added at once; `forceinline`, so that the order does not depend on what was
#: compiled before.
_REORDERED = {"contract", "nsz", "reassoc"}


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
    """Positions of the `count` largest scores, largest first, equal ones in the order in which they stand."""
    candidates = _not_among_the_smallest(scores, count)
    return candidates[np.argsort(-scores[candidates], kind="stable")[:count]]


@njit(cache=True)
def _not_among_the_smallest(scores, count):
    """Positions of all scores from the bin of a histogram up in which the `count`-th largest is."""
    n = scores.shape[0]
    lowest, highest = np.inf, -np.inf
    for i in range(n):
        lowest, highest = min(lowest, scores[i]), max(highest, scores[i])
    if n <= count or highest <= lowest:
        return np.arange(n)
    per_bin = np.zeros(_N_BINS, np.int64)
    scale = (_N_BINS - 1) / (highest - lowest)
    for i in range(n):
        per_bin[int((scores[i] - lowest) * scale)] += 1
    first, total = _N_BINS, 0
    while total < count:
        first -= 1
        total += per_bin[first]
    chosen = np.empty(total, np.int64)
    total = 0
    for i in range(n):
        if int((scores[i] - lowest) * scale) >= first:
            chosen[total] = i
            total += 1
    return chosen


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


@njit(cache=True, fastmath=_REORDERED, forceinline=True)
def _vector_sums(vector, qx, qy, qz, weight, tolerance, m, rhs):
    """Set m = sum w q q^T and rhs = sum w n q over the peaks whose projection on the vector is within `tolerance` of a whole number n."""
    x, y, z = vector[0], vector[1], vector[2]
    xx, xy, xz, yy, yz, zz = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    rx, ry, rz = 0.0, 0.0, 0.0
    for i in range(qx.shape[0]):
        a, b, c = qx[i], qy[i], qz[i]
        projection = x * a + y * b + z * c
        nearest = np.rint(projection)
        # A weight of zero in place of a branch: the processor then does several peaks at a time.
        w = weight[i] if abs(projection - nearest) < tolerance else 0.0
        wa, wb, wc = w * a, w * b, w * c
        xx += wa * a
        xy += wa * b
        xz += wa * c
        yy += wb * b
        yz += wb * c
        zz += wc * c
        rx += wa * nearest
        ry += wb * nearest
        rz += wc * nearest
    m[0, 0], m[0, 1], m[0, 2] = xx, xy, xz
    m[1, 0], m[1, 1], m[1, 2] = xy, yy, yz
    m[2, 0], m[2, 1], m[2, 2] = xz, yz, zz
    rhs[0], rhs[1], rhs[2] = rx, ry, rz


@njit(cache=True, fastmath=_REORDERED, forceinline=True)
def _parabola_score(vector, qx, qy, qz, weight, tolerance):
    """Sum of w max(0, 1 - (f / tolerance)^2)."""
    x, y, z = vector[0], vector[1], vector[2]
    total = 0.0
    for i in range(qx.shape[0]):
        projection = x * qx[i] + y * qy[i] + z * qz[i]
        f = (projection - np.rint(projection)) / tolerance
        total += weight[i] * max(0.0, 1.0 - f * f)
    return total


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
    qx, qy, qz = q[:, 0].copy(), q[:, 1].copy(), q[:, 2].copy()
    m = np.empty((3, 3))
    rhs = np.empty(3)
    for p in range(vectors.shape[0]):
        v = vectors[p]
        for tolerance in tolerances:
            _vector_sums(v, qx, qy, qz, weight, tolerance, m, rhs)
            ridge = 0.002 * (m[0, 0] + m[1, 1] + m[2, 2])
            stretch = length / math.sqrt(v[0] ** 2 + v[1] ** 2 + v[2] ** 2)
            for r in range(3):
                m[r, r] += ridge
                rhs[r] += ridge * v[r] * stretch
            if not solve3(m, rhs, v):
                break
        norm = math.sqrt(v[0] ** 2 + v[1] ** 2 + v[2] ** 2)
        if abs(norm / length - 1.0) <= deviation:
            scores[p] = _parabola_score(v, qx, qy, qz, weight, 0.2)
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


@njit(cache=True, fastmath=_REORDERED, forceinline=True)
def _cell_sums(inverse, qx, qy, qz, weight, tolerance, left, right):
    """Set left = sum w h h^T and right = sum w q h^T over the peaks within `tolerance` of a lattice point h; returns how many they are."""
    i00, i01, i02 = inverse[0, 0], inverse[0, 1], inverse[0, 2]
    i10, i11, i12 = inverse[1, 0], inverse[1, 1], inverse[1, 2]
    i20, i21, i22 = inverse[2, 0], inverse[2, 1], inverse[2, 2]
    hh, hk, hl, kk, kl, ll = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    xh, xk, xl, yh, yk, yl, zh, zk, zl = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    used, limit = 0.0, tolerance * tolerance
    for i in range(qx.shape[0]):
        x, y, z = qx[i], qy[i], qz[i]
        u, v, t = i00 * x + i01 * y + i02 * z, i10 * x + i11 * y + i12 * z, i20 * x + i21 * y + i22 * z
        h, k, l = np.rint(u), np.rint(v), np.rint(t)
        distance2 = (u - h) * (u - h) + (v - k) * (v - k) + (t - l) * (t - l)
        # Weights of zero in place of branches: the processor then does several peaks at a time. Any cell explains the origin.
        one = 1.0 if distance2 < limit else 0.0
        one = one if h * h + k * k + l * l > 0.0 else 0.0
        used += one
        w = one * weight[i]
        wh, wk, wl = w * h, w * k, w * l
        hh += wh * h
        hk += wh * k
        hl += wh * l
        kk += wk * k
        kl += wk * l
        ll += wl * l
        xh += wh * x
        xk += wk * x
        xl += wl * x
        yh += wh * y
        yk += wk * y
        yl += wl * y
        zh += wh * z
        zk += wk * z
        zl += wl * z
    left[0, 0], left[0, 1], left[0, 2] = hh, hk, hl
    left[1, 0], left[1, 1], left[1, 2] = hk, kk, kl
    left[2, 0], left[2, 1], left[2, 2] = hl, kl, ll
    right[0, 0], right[0, 1], right[0, 2] = xh, xk, xl
    right[1, 0], right[1, 1], right[1, 2] = yh, yk, yl
    right[2, 0], right[2, 1], right[2, 2] = zh, zk, zl
    return used


@njit(cache=True, fastmath=_REORDERED, forceinline=True)
def _cell_score(inverse, qx, qy, qz, weight):
    """Sum of w max(0, 1 - (|dh| / 0.2)^2); peaks nearest to the origin do not count."""
    i00, i01, i02 = inverse[0, 0], inverse[0, 1], inverse[0, 2]
    i10, i11, i12 = inverse[1, 0], inverse[1, 1], inverse[1, 2]
    i20, i21, i22 = inverse[2, 0], inverse[2, 1], inverse[2, 2]
    total = 0.0
    for i in range(qx.shape[0]):
        x, y, z = qx[i], qy[i], qz[i]
        u, v, t = i00 * x + i01 * y + i02 * z, i10 * x + i11 * y + i12 * z, i20 * x + i21 * y + i22 * z
        h, k, l = np.rint(u), np.rint(v), np.rint(t)
        distance2 = (u - h) * (u - h) + (v - k) * (v - k) + (t - l) * (t - l)
        w = weight[i] if h * h + k * k + l * l > 0.0 else 0.0
        total += w * max(0.0, 1.0 - 25.0 * distance2)
    return total


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
    return _fit_cell(reciprocal, target, q[:, 0].copy(), q[:, 1].copy(), q[:, 2].copy(), weight, tolerances, stiffness)


@njit(cache=True, forceinline=True)
def _fit_cell(reciprocal, target, qx, qy, qz, weight, tolerances, stiffness):
    inverse_target = inverse3(target)
    left, right = np.empty((3, 3)), np.empty((3, 3))
    for p in range(tolerances.shape[0]):
        if _cell_sums(inverse3(reciprocal), qx, qy, qz, weight, tolerances[p], left, right) < 3:
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
    return _cell_score(inverse3(reciprocal), qx, qy, qz, weight)


@njit(cache=True)
def fit_best_cell(cells, target, q, weight, tolerances, stiffness, n_near, n_first, n_kept):
    """`fit_cell` from each of several starting cells (rows a, b, c): the best reciprocal cell and its score.

    The first `n_first` passes use only the first `n_near` peaks; the `n_kept` best cells go on with all peaks. Others as in `fit_cell`.
    """
    n = cells.shape[0]
    qx, qy, qz = q[:, 0].copy(), q[:, 1].copy(), q[:, 2].copy()
    near = slice(0, n_near)
    fitted, scores = np.empty((n, 3, 3)), np.empty(n)
    for i in range(n):
        fitted[i] = inverse3(cells[i])
        scores[i] = _fit_cell(
            fitted[i], target, qx[near], qy[near], qz[near], weight[near], tolerances[:n_first], stiffness[:n_first]
        )
    best_score, best = -1.0, target.copy()
    order = np.argsort(-scores, kind="mergesort")
    for i in order[:n_kept]:
        score = _fit_cell(fitted[i], target, qx, qy, qz, weight, tolerances[n_first:], stiffness[n_first:])
        if score > best_score:
            best_score = score
            best = fitted[i].copy()
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
