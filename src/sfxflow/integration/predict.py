"""Which reflections a lattice shows on the detector, and where."""

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from sfxflow.buffers import doubled_rows
from sfxflow.indexing.residuals import ray_offset
from sfxflow.small_matrices import inverse3

_CENTERING_CODES = {"P": 0, "R": 0, "A": 1, "B": 2, "C": 3, "I": 4, "F": 5, "H": 6}


class Predicted(NamedTuple):
    """Predicted reflections; arrays of length n.

    Attributes
    ----------
    hkl : ndarray of int16, shape (n, 3)
    fs, ss : ndarray
        Slab coordinates, pixel, corner-based.
    panel : ndarray of int64
    excitation_error : ndarray
        k - |q + k z|, 1/angstrom.
    direction : ndarray, shape (n, 3)
        Unit vectors of the rays.
    """

    hkl: np.ndarray
    fs: np.ndarray
    ss: np.ndarray
    panel: np.ndarray
    excitation_error: np.ndarray
    direction: np.ndarray


def highest_q(arrays, clen, wavelength):
    """Largest |q| (1/angstrom) that any panel's corner sees."""
    largest = 0.0
    for i in range(len(arrays.bounds)):
        n_ss = arrays.bounds[i, 1] - arrays.bounds[i, 0]
        n_fs = arrays.bounds[i, 3] - arrays.bounds[i, 2]
        for fs, ss in ((0, 0), (n_fs, 0), (0, n_ss), (n_fs, n_ss)):
            xyz = arrays.origin[i] + fs * arrays.fs[i] + ss * arrays.ss[i] + np.array([0.0, 0.0, clen])
            two_theta = math.atan2(math.hypot(xyz[0], xyz[1]), xyz[2])
            largest = max(largest, 2.0 * math.sin(two_theta / 2.0) / wavelength)
    return largest


def predict(reciprocal, offsets, widths, wavelength, bounds, to_panel, centering, q_max, max_excitation):
    """Predict the reflections of one lattice on one frame.

    Parameters
    ----------
    reciprocal : ndarray, shape (3, 3)
        Columns a*, b*, c*, 1/angstrom.
    offsets : ndarray, shape (3,)
        Shift (metre) and excess of the camera length (`sfxflow.indexing.refine.RefinedLattice`).
    widths : tuple of float
        R0 (1/angstrom), eta (radian), bandwidth: sigma(q)^2 = R0^2 + (eta q)^2 + (bandwidth lambda q^2 / 2)^2.
    wavelength : float
        Angstrom.
    bounds : ndarray, shape (p, 4)
        Panels in the slab (`sfxflow.geometry.PanelArrays`).
    to_panel : ndarray, shape (p, 3, 3)
        `sfxflow.indexing.frame.panel_inverses`.
    centering : str
        Lattice centring; reflections that it forbids are left out.
    q_max : float
        Highest |q|, 1/angstrom.
    max_excitation : float
        Largest |excitation error| in units of sigma(q).

    Returns
    -------
    Predicted
    """
    return Predicted(
        *_predict(
            np.ascontiguousarray(reciprocal, dtype=np.float64),
            np.asarray(offsets, dtype=np.float64),
            float(widths[0]),
            float(widths[1]),
            float(widths[2]),
            1.0 / wavelength,
            bounds,
            to_panel,
            _CENTERING_CODES[centering],
            float(q_max),
            float(max_excitation),
        )
    )


@njit(cache=True)
def _allowed(h, k, l, centering):
    if centering == 0:
        return True
    if centering == 1:
        return (k + l) % 2 == 0
    if centering == 2:
        return (h + l) % 2 == 0
    if centering == 3:
        return (h + k) % 2 == 0
    if centering == 4:
        return (h + k + l) % 2 == 0
    if centering == 5:
        return (h + k) % 2 == 0 and (h + l) % 2 == 0
    return (-h + k + l) % 3 == 0


@njit(cache=True)
def _predict(
    reciprocal, offsets, radius, mosaicity, bandwidth, k_nominal, bounds, to_panel, centering, q_max, max_excitation
):
    k0 = k_nominal / (1.0 + offsets[2])
    real = inverse3(reciprocal)
    largest = np.empty(3, np.int64)
    for r in range(3):
        largest[r] = math.ceil(q_max * math.sqrt(real[r, 0] ** 2 + real[r, 1] ** 2 + real[r, 2] ** 2))
    # How far the offsets move what each panel sees.
    moved = np.empty((to_panel.shape[0], 3))
    for i in range(to_panel.shape[0]):
        m = to_panel[i]
        nearer = inverse3(m)[2, 2] * offsets[2] / (1.0 + offsets[2])
        for r in range(3):
            moved[i, r] = m[r, 0] * offsets[0] + m[r, 1] * offsets[1] + m[r, 2] * nearer
    spectral = 0.5 * bandwidth / k0
    reach = max_excitation * math.sqrt(radius**2 + (mosaicity * q_max) ** 2 + (spectral * q_max**2) ** 2)
    cx, cy, cz = reciprocal[0, 2], reciprocal[1, 2], reciprocal[2, 2]
    c2 = cx * cx + cy * cy + cz * cz
    per_c2 = 1.0 / c2
    highest_q2, most_sigmas2 = q_max * q_max, max_excitation * max_excitation

    hkl = np.empty((1024, 3), np.int16)
    numbers = np.empty((1024, 6))
    panels = np.empty((1024, 1), np.int64)
    n = 0
    last_panel = 0
    for h in range(-largest[0], largest[0] + 1):
        for k in range(-largest[1], largest[1] + 1):
            # Along l the points of this row come near the Ewald sphere between an outer and an inner sphere of radius k0 +- reach.
            x0 = reciprocal[0, 0] * h + reciprocal[0, 1] * k
            y0 = reciprocal[1, 0] * h + reciprocal[1, 1] * k
            z0 = reciprocal[2, 0] * h + reciprocal[2, 1] * k
            # All of the row may be beyond the highest |q|.
            nearest = x0 * cx + y0 * cy + z0 * cz
            if x0 * x0 + y0 * y0 + z0 * z0 - nearest * nearest * per_c2 > highest_q2 * (1.0 + 1e-9):
                continue
            b = x0 * cx + y0 * cy + (z0 + k0) * cz
            s2 = x0 * x0 + y0 * y0 + (z0 + k0) ** 2
            outer = b * b - c2 * (s2 - (k0 + reach) ** 2)
            if outer < 0.0:
                continue
            root = math.sqrt(outer)
            first = max(-largest[2], math.ceil((-b - root) * per_c2))
            last = min(largest[2], math.floor((-b + root) * per_c2))
            inner = b * b - c2 * (s2 - (k0 - reach) ** 2)
            skip_from, skip_to = last + 1, last + 1
            if inner > 0.0:
                root = math.sqrt(inner)
                skip_from = math.floor((-b - root) * per_c2) + 1
                skip_to = math.ceil((-b + root) * per_c2)
            l = first - 1
            while l < last:
                l += 1
                if skip_from <= l < skip_to:
                    l = skip_to
                    if l > last:
                        break
                if not _allowed(h, k, l, centering) or (h == 0 and k == 0 and l == 0):
                    continue
                qx, qy, qz = x0 + l * cx, y0 + l * cy, z0 + l * cz
                q2 = qx * qx + qy * qy + qz * qz
                if q2 > highest_q2:
                    continue
                excitation_error = k0 - math.sqrt(qx * qx + qy * qy + (qz + k0) * (qz + k0))
                mosaic, spectrum = (mosaicity * mosaicity) * q2, (spectral * q2) ** 2
                sigma2 = radius * radius + mosaic + spectrum
                if excitation_error * excitation_error > most_sigmas2 * sigma2:
                    continue
                ex, ey, ez = ray_offset(qx, qy, qz, k0, mosaic / sigma2, spectrum / sigma2)
                sx = qx + excitation_error * ex
                sy = qy + excitation_error * ey
                sz = qz + k0 + excitation_error * ez
                for i in range(to_panel.shape[0]):
                    panel = (last_panel + i) % to_panel.shape[0]
                    m = to_panel[panel]
                    u2 = m[2, 0] * sx + m[2, 1] * sy + m[2, 2] * sz
                    if u2 <= 0.0:
                        continue
                    t = (1.0 - moved[panel, 2]) / u2
                    fs = t * (m[0, 0] * sx + m[0, 1] * sy + m[0, 2] * sz) + moved[panel, 0]
                    if fs < 0.0 or fs >= bounds[panel, 3] - bounds[panel, 2]:
                        continue
                    ss = t * (m[1, 0] * sx + m[1, 1] * sy + m[1, 2] * sz) + moved[panel, 1]
                    if ss < 0.0 or ss >= bounds[panel, 1] - bounds[panel, 0]:
                        continue
                    if n == hkl.shape[0]:
                        hkl, numbers, panels = doubled_rows(hkl), doubled_rows(numbers), doubled_rows(panels)
                    hkl[n, 0], hkl[n, 1], hkl[n, 2] = h, k, l
                    per_norm = 1.0 / math.sqrt(sx * sx + sy * sy + sz * sz)
                    numbers[n, 0] = fs + bounds[panel, 2]
                    numbers[n, 1] = ss + bounds[panel, 0]
                    numbers[n, 2] = excitation_error
                    numbers[n, 3], numbers[n, 4], numbers[n, 5] = sx * per_norm, sy * per_norm, sz * per_norm
                    panels[n, 0] = panel
                    last_panel = panel
                    n += 1
                    break
    numbers = numbers[:n]
    return hkl[:n], numbers[:, 0], numbers[:, 1], panels[:n, 0], numbers[:, 2], numbers[:, 3:]
