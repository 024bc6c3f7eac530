"""A first answer from pairs of crystals: eigenvectors of the matrix of their agreements in all ways to index.

Crystal c in mode m is a sparse vector of standardised intensities over the unique reflections. What the mean over the modes takes away
of it does not depend on the mode; of the rest, D, the inner products of different crystals are largest where their modes fit each
other. For two modes this is synchronisation over Z2: signs z that make the sum of z_c z_d D_c . D_d largest, which the
leading eigenvector relaxes (Singer 2011, Appl. Comput. Harmon. Anal. 30, 20-36, doi:10.1016/j.acha.2010.02.001). For n modes it takes n - 1
eigenvectors. An iteration passes over the observations once, whatever the number of pairs.
"""

import numpy as np
from numba import njit

_ITERATIONS = 60
_ENOUGH = 1e-4
#: Standardised intensities are cut off here: a few strong reflections would tell more than they know.
_MOST = 3.0


def standardised(observations, with_information=False):
    """Deviation of each observation from what is expected at its resolution, small where it tells little.

    Parameters
    ----------
    observations : sfxflow.ambiguity.observations.Observations
    with_information : bool
        Also return 1 / (1 + var(z)).

    Returns
    -------
    value : ndarray of float64, shape (n,)
        (z - 1) / (1 + var(z)), z = I / (factor * prior): for Wilson's distribution of variance 1 this is the expectation of the
        true deviation, to first order.
    information : ndarray of float64, shape (n,)
    """
    expected = observations.factor * observations.prior[observations.number].mean(axis=1)
    known = expected > 0
    z = np.divide(observations.intensity, expected, where=known, out=np.ones(len(expected)))
    variance = np.divide(
        observations.background + observations.gain * expected, expected**2, where=known, out=np.full(len(z), np.inf)
    )
    information = 1.0 / (1.0 + variance + observations.error**2)
    value = np.clip((z - 1.0) * information, -_MOST, _MOST)
    return (value, information) if with_information else value


def embedding(observations, value, seed=0):
    """Coordinates of each crystal in each mode, in which crystals that agree are near to each other.

    Parameters
    ----------
    observations : Observations
    value : ndarray, shape (n,)
        As from `standardised`.
    seed : int
        Of the start of the iteration.

    Returns
    -------
    ndarray, shape (n_crystals, n_modes, n_modes - 1)
    """
    n_modes = observations.number.shape[1]
    norm = np.sqrt(np.add.reduceat(np.append(value**2, 0.0), observations.offsets[:-1]) if len(value) else np.zeros(1))
    norm[np.diff(observations.offsets) == 0] = 0.0
    # every crystal counts alike, however many observations it has
    scaled = value / np.where(norm > 0, norm, 1.0)[observations.crystal]
    found = np.random.default_rng(seed).normal(size=(observations.n_crystals, n_modes, n_modes - 1))
    found[norm == 0] = 0.0
    found = _orthonormal(found - found.mean(axis=1, keepdims=True))
    over_reflections = np.zeros((len(observations.hkl), n_modes - 1))
    for _ in range(_ITERATIONS):
        product = np.zeros_like(found)
        over_reflections[:] = 0.0
        _multiply(observations.offsets, observations.number, scaled, found, over_reflections, product)
        product = _orthonormal(product - product.mean(axis=1, keepdims=True))
        overlap = np.linalg.svd(product.reshape(-1, n_modes - 1).T @ found.reshape(-1, n_modes - 1), compute_uv=False)
        found = product
        if 1.0 - overlap.min() < _ENOUGH**2:
            break
    return found


def _orthonormal(vectors):
    matrix = vectors.reshape(-1, vectors.shape[2])
    q, r = np.linalg.qr(matrix)
    return (q * np.where(np.diag(r) < 0, -1.0, 1.0)).reshape(vectors.shape)


@njit(cache=True)
def _multiply(offsets, number, value, vectors, over_reflections, product):
    """product = A @ vectors, A the inner products of different crystals in all modes; `over_reflections` is zero, and room to work."""
    n_modes, n_vectors = vectors.shape[1], vectors.shape[2]
    for c in range(len(offsets) - 1):
        for j in range(offsets[c], offsets[c + 1]):
            for m in range(n_modes):
                for v in range(n_vectors):
                    over_reflections[number[j, m], v] += value[j] * vectors[c, m, v]
    for c in range(len(offsets) - 1):
        for sign in (-1.0, 1.0):
            for j in range(offsets[c], offsets[c + 1]):
                for m in range(n_modes):
                    for v in range(n_vectors):
                        if sign < 0.0:
                            over_reflections[number[j, m], v] -= value[j] * vectors[c, m, v]
            if sign < 0.0:
                for j in range(offsets[c], offsets[c + 1]):
                    for m in range(n_modes):
                        for v in range(n_vectors):
                            product[c, m, v] += value[j] * over_reflections[number[j, m], v]
            else:
                for j in range(offsets[c], offsets[c + 1]):
                    for m in range(n_modes):
                        for v in range(n_vectors):
                            over_reflections[number[j, m], v] += value[j] * vectors[c, m, v]


def modes_of(coordinates):
    """The mode of each crystal in which all are as near to each other as can be.

    Parameters
    ----------
    coordinates : ndarray, shape (n_crystals, n_modes, n_vectors)
        As from `embedding`.

    Returns
    -------
    mode : ndarray of int64, shape (n_crystals,)
    """
    strength = np.linalg.norm(coordinates, axis=(1, 2))
    best, best_score = np.zeros(len(coordinates), np.int64), -np.inf
    # the direction of one clear crystal to begin with, then the mean of those chosen
    for start in np.argsort(-strength, kind="stable")[:5]:
        towards = coordinates[start, 0]
        mode = np.zeros(len(coordinates), np.int64)
        for _ in range(50):
            chosen = np.argmax(coordinates @ towards, axis=1)
            towards = coordinates[np.arange(len(chosen)), chosen].sum(axis=0)
            if np.array_equal(chosen, mode):
                break
            mode = chosen
        score = np.linalg.norm(towards)
        if score > best_score * (1 + 1e-9):
            best, best_score = mode, score
    return best
