"""Observations brought to the scale of the merged data, for programs that merge themselves."""

import numpy as np


def scale_used(polarisation, scale, b, q):
    """Factor by which an observation is multiplied to stand on the scale of the merged data, partiality apart.

    Parameters
    ----------
    polarisation : ndarray, shape (n,)
    scale, b : ndarray, shape (n,)
        G and B (angstrom^2) of each observation's crystal.
    q : ndarray, shape (n,)
        1/d by the dataset's cell, 1/angstrom.

    Returns
    -------
    ndarray, shape (n,)
        1 / (polarisation G exp(-2 B s^2)), s = sin(theta) / lambda = q / 2.
    """
    return 1.0 / (polarisation * scale * np.exp(-0.5 * b * q**2))


def excitation_in_widths(excitation, lab, q, wavelength, sigma_q, width, rotation, energy):
    """Excitation error after the merger's refinement of the crystal's orientation and energy, in units of the curve's x.

    Parameters
    ----------
    excitation : ndarray, shape (n,)
        As integrated, 1/angstrom.
    lab : ndarray, shape (n, 3)
        Scattering vector in the laboratory, 1/angstrom.
    q : ndarray, shape (n,)
        1/d by the dataset's cell.
    wavelength, sigma_q, width, energy : ndarray, shape (n,)
        Angstrom; sigma(q) before the factor `width`; by which fraction the energy was taken too high.
    rotation : ndarray, shape (n, 2)
        Radian, about x and y.
    """
    across = q * np.sqrt(np.maximum(0.0, 1.0 - (wavelength * q / 2.0) ** 2))
    azimuth = np.arctan2(lab[:, 1], lab[:, 0])
    turned = across * (rotation[:, 1] * np.cos(azimuth) - rotation[:, 0] * np.sin(azimuth))
    return (excitation + turned - 0.5 * wavelength * q**2 * energy) / (sigma_q * width)


def on_curve(x, q, curve):
    """Partiality at |x| and q from the arrays of a merged file: `x` (nodes), `q` (rows) and `partiality`, shape (rows, nodes).

    Linear between nodes, the nearest row; 0 beyond the last node.
    """
    edges = np.sqrt((curve["q"][1:] ** 2 + curve["q"][:-1] ** 2) / 2.0)
    row = np.searchsorted(edges, q)
    position = np.abs(x) / (curve["x"][1] - curve["x"][0])
    inside = position < len(curve["x"]) - 1
    node = np.where(inside, position, 0.0).astype(np.int64)
    rest = np.where(inside, position - node, 0.0)
    table = curve["partiality"]
    following = np.minimum(node + 1, table.shape[1] - 1)
    return np.where(inside, (1.0 - rest) * table[row, node] + rest * table[row, following], 0.0)
