"""Which reflections a pulse excites, how much of each, and where its rays meet the detector.

A reflection is followed ray by ray: for each mosaic block and each wavelength of the pulse the vector q + z/lambda is a ray of its
own, with the weight that the block's distance from the Ewald sphere leaves. Nothing here is shared with the engine's prediction.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

GAUSSIAN, BALL = 0, 1
_MODELS = {"gaussian": GAUSSIAN, "sphere": BALL, "mosaic_blocks": BALL}
#: Rays of a spot nearer to each other than this are drawn as one, pixel.
_RAY_STEP = 0.25
#: A Gaussian lattice point reaches so many sigma; what is left out is 6e-5 of the peak.
_REACH = 4.4


class Rays(NamedTuple):
    """Excited reflections and the rays that they are drawn with.

    Attributes
    ----------
    row : ndarray of int64, shape (n,)
        Row of the reflection in the list that was given.
    partiality : ndarray of float64, shape (n,)
        Part of a full reflection, all rays together, also those that miss the detector.
    fs, ss : ndarray of float64, shape (n,)
        Mean of the rays on the panel that gets most, slab coordinates, pixel.
    panel : ndarray of int64, shape (n,)
    direction : ndarray of float64, shape (n, 3)
        Mean direction of the rays, a unit vector.
    excitation_error : ndarray of float64, shape (n,)
        1/lambda - |q + z/lambda| at the pulse's mean wavelength, before mosaic tilts, 1/angstrom.
    ray_spot, ray_panel : ndarray of int64, shape (m,)
        Row in the arrays above, and panel, of each ray.
    ray_fs, ray_ss, ray_partiality : ndarray of float64, shape (m,)
    """

    row: np.ndarray
    partiality: np.ndarray
    fs: np.ndarray
    ss: np.ndarray
    panel: np.ndarray
    direction: np.ndarray
    excitation_error: np.ndarray
    ray_spot: np.ndarray
    ray_panel: np.ndarray
    ray_fs: np.ndarray
    ray_ss: np.ndarray
    ray_partiality: np.ndarray


def trace(hkl, lattice, wavelengths, weights, mean_wavelength, planes, model):
    """Excited reflections of one lattice.

    Parameters
    ----------
    hkl : ndarray of int32, shape (n, 3)
    lattice : sfxflow.simulate.crystals.Lattice
    wavelengths, weights : ndarray, shape (k,)
        The pulse's spectrum, angstrom; weights sum to one.
    mean_wavelength : float
        Angstrom.
    planes : sfxflow.simulate.detector.Planes
    model : str
        'gaussian', 'sphere' or 'mosaic_blocks'.

    Returns
    -------
    Rays

    Notes
    -----
    Partiality of one ray at the excitation error e: 'gaussian' (R0/sigma) exp(-e^2 / 2 sigma^2) with
    sigma^2 = R0^2 + (eta q)^2, so that a wider lattice point is lower and the integral over e is the same for each reflection;
    'sphere' max(0, 1 - (e/R0)^2), the cross section of a sphere of radius R0; 'mosaic_blocks' the same, averaged over tilted blocks.
    """
    most_tilted = 0.0
    if model == "mosaic_blocks":
        most_tilted = float(np.linalg.norm(lattice.block_tilts - np.eye(3), axis=(1, 2)).max() / np.sqrt(2.0)) * 1.01
    spots, directions, rays = _trace(
        hkl,
        lattice.reciprocal,
        lattice.block_tilts,
        most_tilted,
        np.asarray(wavelengths, dtype=np.float64),
        np.asarray(weights, dtype=np.float64),
        mean_wavelength,
        lattice.profile_radius,
        lattice.mosaicity,
        _MODELS[model],
        planes.corner,
        planes.normal,
        planes.along_fs,
        planes.along_ss,
        planes.size,
        planes.place,
    )
    return Rays(
        row=spots[:, 0].astype(np.int64),
        partiality=spots[:, 1],
        fs=spots[:, 2],
        ss=spots[:, 3],
        panel=spots[:, 4].astype(np.int64),
        direction=directions,
        excitation_error=spots[:, 5],
        ray_spot=rays[:, 0].astype(np.int64),
        ray_panel=rays[:, 1].astype(np.int64),
        ray_fs=rays[:, 2],
        ray_ss=rays[:, 3],
        ray_partiality=rays[:, 4],
    )


@njit(cache=True, nogil=True)
def ball_section(excitation_error, radius):
    """Cross section of a sphere at a distance from its middle, over the largest one."""
    x = excitation_error / radius
    return max(0.0, 1.0 - x * x)


@njit(cache=True, nogil=True)
def gaussian_section(excitation_error, radius, spread):
    """Density of a Gaussian lattice point whose sigma^2 is radius^2 + spread^2, over its peak at spread 0."""
    variance = radius * radius + spread * spread
    return radius / np.sqrt(variance) * np.exp(-0.5 * excitation_error * excitation_error / variance)


@njit(cache=True, nogil=True)
def meet(x, y, z, corner, normal, along_fs, along_ss, size):
    """Panel that a ray from the sample along (x, y, z) meets first in the list, and where: (-1, 0, 0) if none.

    The ray is t (x, y, z); it lies in the panel's plane where its distance along the normal is the corner's.
    """
    for p in range(corner.shape[0]):
        towards = x * normal[p, 0] + y * normal[p, 1] + z * normal[p, 2]
        away = corner[p, 0] * normal[p, 0] + corner[p, 1] * normal[p, 1] + corner[p, 2] * normal[p, 2]
        if towards == 0.0 or away / towards <= 0.0:
            continue
        t = away / towards
        dx, dy, dz = t * x - corner[p, 0], t * y - corner[p, 1], t * z - corner[p, 2]
        fs = dx * along_fs[p, 0] + dy * along_fs[p, 1] + dz * along_fs[p, 2]
        ss = dx * along_ss[p, 0] + dy * along_ss[p, 1] + dz * along_ss[p, 2]
        if 0.0 <= fs < size[p, 0] and 0.0 <= ss < size[p, 1]:
            return p, fs, ss
    return -1, 0.0, 0.0


@njit(cache=True, nogil=True)
def _longer(array):
    twice = np.zeros((2 * array.shape[0], array.shape[1]))
    twice[: array.shape[0]] = array
    return twice


@njit(cache=True, nogil=True)
def _with_ray(rays, n, spot, panel, fs, ss, weight):
    """`rays` with row n filled, longer if it was full."""
    if n == rays.shape[0]:
        rays = _longer(rays)
    rays[n, 0], rays[n, 1], rays[n, 2], rays[n, 3], rays[n, 4] = spot, panel, fs, ss, weight
    return rays


@njit(cache=True, nogil=True)
def _trace(
    hkl, reciprocal, tilts, most_tilted, wavelengths, weights, mean_wavelength, radius, eta, model,
    corner, normal, along_fs, along_ss, size, place,
):  # fmt: skip
    n_panels = corner.shape[0]
    n_waves = wavelengths.shape[0]
    n_tilts = tilts.shape[0]
    spots, directions, rays = np.zeros((1024, 6)), np.zeros((1024, 3)), np.zeros((4096, 5))
    n_spots, n_rays = 0, 0
    k_mean = 1.0 / mean_wavelength
    widest = 0.0
    for w in range(n_waves):
        widest = max(widest, abs(wavelengths[w] / mean_wavelength - 1.0))
    # Mosaic spread also smears a Gaussian lattice point around the beam; five points of Gauss-Hermite quadrature carry it.
    smear = np.array([0.0, 1.3556261799742659, -1.3556261799742659, 2.8569700138728056, -2.8569700138728056])
    part = np.array(
        [0.5333333333333333, 0.2220759220056126, 0.2220759220056126, 0.0112574113277207, 0.0112574113277207]
    )
    on_panel = np.zeros((n_panels, 3))

    for row in range(hkl.shape[0]):
        h, k, l = hkl[row, 0], hkl[row, 1], hkl[row, 2]
        qx = reciprocal[0, 0] * h + reciprocal[0, 1] * k + reciprocal[0, 2] * l
        qy = reciprocal[1, 0] * h + reciprocal[1, 1] * k + reciprocal[1, 2] * l
        qz = reciprocal[2, 0] * h + reciprocal[2, 1] * k + reciprocal[2, 2] * l
        q_squared = qx * qx + qy * qy + qz * qz
        q = np.sqrt(q_squared)
        error_mean = k_mean - np.sqrt(qx * qx + qy * qy + (qz + k_mean) ** 2)
        spread = eta * q if model == GAUSSIAN else 0.0
        width = _REACH * np.sqrt(radius * radius + spread * spread) if model == GAUSSIAN else radius
        # A relative change of the wavelength by x moves the sphere by x lambda q^2 / 2 at a lattice point that lies on it.
        margin = width + most_tilted * q + 1.1 * widest * mean_wavelength * q_squared / 2.0
        if abs(error_mean) > margin:
            continue

        total, dx, dy, dz = 0.0, 0.0, 0.0, 0.0
        on_panel[:] = 0.0
        first_ray = n_rays
        for b in range(n_tilts):
            bx = tilts[b, 0, 0] * qx + tilts[b, 0, 1] * qy + tilts[b, 0, 2] * qz
            by = tilts[b, 1, 0] * qx + tilts[b, 1, 1] * qy + tilts[b, 1, 2] * qz
            bz = tilts[b, 2, 0] * qx + tilts[b, 2, 1] * qy + tilts[b, 2, 2] * qz
            last = -1
            start_fs, start_ss = 0.0, 0.0
            for w in range(n_waves):
                wave = 1.0 / wavelengths[w]
                length = np.sqrt(bx * bx + by * by + (bz + wave) ** 2)
                error = wave - length
                if model == GAUSSIAN:
                    if abs(error) > width:
                        continue
                    section = gaussian_section(error, radius, spread)
                else:
                    section = ball_section(error, radius)
                weight = weights[w] * section / n_tilts
                if weight == 0.0:
                    continue
                total += weight
                ux, uy, uz = bx / length, by / length, (bz + wave) / length
                dx += weight * ux
                dy += weight * uy
                dz += weight * uz
                p, fs, ss = meet(ux, uy, uz, corner, normal, along_fs, along_ss, size)
                if p < 0:
                    last = -1
                    continue
                on_panel[p, 0] += weight
                on_panel[p, 1] += weight * fs
                on_panel[p, 2] += weight * ss
                if last >= 0 and rays[last, 1] == p and abs(fs - start_fs) + abs(ss - start_ss) < _RAY_STEP:
                    so_far = rays[last, 4]
                    rays[last, 2] = (rays[last, 2] * so_far + fs * weight) / (so_far + weight)
                    rays[last, 3] = (rays[last, 3] * so_far + ss * weight) / (so_far + weight)
                    rays[last, 4] = so_far + weight
                    continue
                rays = _with_ray(rays, n_rays, n_spots, p, fs, ss, weight)
                last, start_fs, start_ss = n_rays, fs, ss
                n_rays += 1
        best = on_panel[:, 0].argmax()
        if on_panel[best, 0] == 0.0:
            n_rays = first_ray
            continue
        if n_spots == spots.shape[0]:
            spots, directions = _longer(spots), _longer(directions)

        if spread > 0.0:
            # In slab pixels: a quarter turn of the direction away from the beam, as the panel sees it.
            away = np.hypot(dx, dy)
            angle = spread / (q if away == 0.0 else away / total * k_mean)
            tx, ty = (-dy / total * angle, dx / total * angle)
            p2, fs2, ss2 = meet(dx / total + tx, dy / total + ty, dz / total, corner, normal, along_fs, along_ss, size)
            p1, fs1, ss1 = meet(dx / total, dy / total, dz / total, corner, normal, along_fs, along_ss, size)
            if p1 >= 0 and p1 == p2 and np.hypot(fs2 - fs1, ss2 - ss1) > _RAY_STEP:
                n_before = n_rays
                for r in range(first_ray, n_before):
                    fs, ss, weight, p = rays[r, 2], rays[r, 3], rays[r, 4], rays[r, 1]
                    rays[r, 4] = weight * part[0]
                    for g in range(1, 5):
                        shifted_fs, shifted_ss = fs + smear[g] * (fs2 - fs1), ss + smear[g] * (ss2 - ss1)
                        rays = _with_ray(rays, n_rays, n_spots, p, shifted_fs, shifted_ss, weight * part[g])
                        n_rays += 1
        fs, ss = on_panel[best, 1] / on_panel[best, 0], on_panel[best, 2] / on_panel[best, 0]
        spots[n_spots, 0], spots[n_spots, 1] = row, total
        spots[n_spots, 2], spots[n_spots, 3] = fs + place[best, 0], ss + place[best, 1]
        spots[n_spots, 4], spots[n_spots, 5] = best, error_mean
        norm = np.sqrt(dx * dx + dy * dy + dz * dz)
        directions[n_spots, 0], directions[n_spots, 1], directions[n_spots, 2] = dx / norm, dy / norm, dz / norm
        n_spots += 1
    for r in range(n_rays):
        p = int(rays[r, 1])
        rays[r, 2] += place[p, 0]
        rays[r, 3] += place[p, 1]
    return spots[:n_spots].copy(), directions[:n_spots].copy(), rays[:n_rays].copy()
