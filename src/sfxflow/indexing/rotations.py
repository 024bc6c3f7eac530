"""Kernels of the known-cell search: whole cells by rotation of two axes about a known one."""

import numpy as np
from numba import njit

#: No NaN-related flags: only what lets the compiler use fused operations.
_FUSED = {"contract", "nsz"}
#: Peaks take part whose projection on the known axis is at most so far from a whole number.
_ON_PLANE = 0.2


@njit(cache=True, fastmath=_FUSED, forceinline=True)
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


@njit(cache=True)
def frame_along(vector, helper, frame):
    """Set the rows of `frame` to right-handed unit vectors: along `vector`, and two across it, the first in the plane of `helper`."""
    norm = np.sqrt(vector[0] ** 2 + vector[1] ** 2 + vector[2] ** 2)
    along = 0.0
    for r in range(3):
        frame[0, r] = vector[r] / norm
        along += frame[0, r] * helper[r]
    norm = 0.0
    for r in range(3):
        frame[1, r] = helper[r] - along * frame[0, r]
        norm += frame[1, r] ** 2
    norm = np.sqrt(norm)
    for r in range(3):
        frame[1, r] /= norm
    for r in range(3):
        s, t = (r + 1) % 3, (r + 2) % 3
        frame[2, r] = frame[0, s] * frame[1, t] - frame[0, t] * frame[1, s]


@njit(cache=True)
def _components(frame, vector):
    found = np.zeros(3, np.float32)
    for r in range(3):
        found[r] = frame[r, 0] * vector[0] + frame[r, 1] * vector[1] + frame[r, 2] * vector[2]
    return found


@njit(cache=True)
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
    cosines, sines : ndarray of float32, shape (n,)
    count : int
        Most cells wanted.

    Returns
    -------
    ndarray, shape (k, 3, 3)
        Rows of the candidate cells, best first: local maxima of the score over the angle.
    """
    second, third = (axis + 1) % 3, (axis + 2) % 3
    length = np.sqrt(basis[axis, 0] ** 2 + basis[axis, 1] ** 2 + basis[axis, 2] ** 2)
    frame = np.empty((3, 3))
    frame_along(basis[axis], basis[second], frame)
    b_axis, c_axis = _components(frame, basis[second]), _components(frame, basis[third])
    m, n_angles = q.shape[0], cosines.shape[0]
    a, f, s, w = np.empty(m, np.float32), np.empty(m, np.float32), np.empty(m, np.float32), np.empty(m, np.float32)
    scores = np.empty(n_angles, np.float32)
    best, cells, found = np.zeros(count, np.float32), np.empty((count, 3, 3)), 0
    vector, helper = np.empty(3), np.empty(3)
    for p in range(vectors.shape[0] * (2 if both_ways else 1)):
        for r in range(3):
            vector[r] = vectors[p // 2, r] * (1 - 2 * (p % 2)) if both_ways else vectors[p, r]
            helper[r] = 0.0
        helper[np.argmin(np.abs(vector))] = 1.0
        frame_along(vector, helper, frame)
        n = 0
        for i in range(m):
            projection = vector[0] * q[i, 0] + vector[1] * q[i, 1] + vector[2] * q[i, 2]
            if abs(projection - np.rint(projection)) < _ON_PLANE:
                a[n] = frame[0, 0] * q[i, 0] + frame[0, 1] * q[i, 1] + frame[0, 2] * q[i, 2]
                f[n] = frame[1, 0] * q[i, 0] + frame[1, 1] * q[i, 1] + frame[1, 2] * q[i, 2]
                s[n] = frame[2, 0] * q[i, 0] + frame[2, 1] * q[i, 1] + frame[2, 2] * q[i, 2]
                w[n] = weight[i]
                n += 1
        scores[:] = 0.0
        score_rotations(a[:n], f[:n], s[:n], w[:n], b_axis, c_axis, cosines, sines, scores)
        for j in range(n_angles):
            score = scores[j]
            if found == count and score <= best[count - 1] or score <= 0.0:
                continue
            if score < scores[j - 1] or score < scores[(j + 1) % n_angles]:
                continue
            # Into its place among the best so far.
            place = min(found, count - 1)
            while place > 0 and best[place - 1] < score:
                best[place] = best[place - 1]
                cells[place] = cells[place - 1]
                place -= 1
            best[place] = score
            for r in range(3):
                across = cosines[j] * frame[1, r] + sines[j] * frame[2, r]
                turned = cosines[j] * frame[2, r] - sines[j] * frame[1, r]
                cells[place, axis, r] = length * frame[0, r]
                cells[place, second, r] = b_axis[0] * frame[0, r] + b_axis[1] * across + b_axis[2] * turned
                cells[place, third, r] = c_axis[0] * frame[0, r] + c_axis[1] * across + c_axis[2] * turned
            found = min(found + 1, count)
    return cells[:found].copy()
