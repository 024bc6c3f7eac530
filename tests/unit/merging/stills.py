"""What all simulated observations have in common: orientations, Wilson's intensities, polarisation, and counting above a background."""

import numpy as np

#: Pixels of a reflection, and of the ring about it that its background is taken from.
N_PEAK, N_RING = 28, 60


def random_rotation(rng):
    """A rotation matrix; all orientations are equally likely."""
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    return rotation * np.sign(np.linalg.det(rotation))


def wilson_intensities(s, centric, rng, b=20.0):
    """Wilson-distributed intensities, in the mean 1 at low resolution.

    Parameters
    ----------
    s : ndarray, shape (n,)
        1 / d in 1/angstrom.
    centric : ndarray of bool, shape (n,)
    rng : numpy.random.Generator
    b : float
        B factor, angstrom^2.

    Returns
    -------
    ndarray, shape (n,)
    """
    wilson = np.where(centric, rng.normal(size=len(s)) ** 2, rng.exponential(size=len(s)))
    # proteins: a shallow minimum near 6 angstrom and a maximum near 4.5
    protein = 1.0 + 0.5 * np.cos(2 * np.pi * (s - 0.22) / 0.12) * np.exp(-(((s - 0.2) / 0.1) ** 2))
    return wilson * protein * np.exp(-b * s**2 / 2)


def polarisation_factor(q, k):
    """Part of a reflection's intensity that 99 % horizontal polarisation leaves; q is an ndarray, shape (n, 3), k = 1 / wavelength."""
    direction = (q + [0, 0, k]) / np.linalg.norm(q + [0, 0, k], axis=1)[:, None]
    return 1 - 0.99 * direction[:, 0] ** 2 - 0.01 * direction[:, 1] ** 2


def background_level(length, background):
    """Photons a pixel at |q| = `length`, `background` at the centre."""
    return background * np.exp(-3 * length)


def above_background(counts, ring):
    """Photons above the background and their estimated variance, of those on the reflection's pixels and on its ring's."""
    observed = counts - N_PEAK / N_RING * ring
    return observed, np.clip(observed, 0, None) + N_PEAK * (1 + N_PEAK / N_RING) * np.maximum(ring / N_RING, 0.02)
