"""The significance that a lattice must reach, from the run's own peaks.

How well random peaks fit a lattice depends on the cell and on how the peaks lie over resolution, rings of ice or salt among them. Copies
of a run's peak lists in which each peak is turned about the beam by an angle of its own have no lattice, and everything else as it was.
"""

import numpy as np

from sfxflow.indexing.known_cell import index_lattice

#: So many copies are searched; fewer than the second number say too little.
N_COPIES = 48
LEAST_COPIES = 24
#: Copies of one frame at most: more would tell of this frame only.
COPIES_A_FRAME = 12
#: Share of the copies that may seem to have a lattice.
FALSE_RATE = 0.01
#: The cut is not put outside these bounds, whatever the copies say.
HIGHEST_CUT = -11.0
LOWEST_CUT = -25.0


def copies_of(frames, n_copies=N_COPIES):
    """Which frames are copied, and how often: pairs (frame, number of the copy), spread evenly over the run.

    Parameters
    ----------
    frames : sequence of int
        Frames with enough peaks.
    """
    if len(frames) == 0:
        return []
    chosen = np.unique(np.linspace(0, len(frames) - 1, min(n_copies, len(frames))).round().astype(int))
    each = min(COPIES_A_FRAME, -(-n_copies // len(chosen)))
    return [(frames[i], copy) for copy in range(each) for i in chosen][:n_copies]


def turned_about_beam(q, seed):
    """Scattering vectors, each turned about the beam (z) by its own random angle: all stay on the Ewald sphere, shape (n, 3)."""
    angle = 2.0 * np.pi * np.random.default_rng(seed).random(len(q))
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.stack([cosine * q[:, 0] - sine * q[:, 1], sine * q[:, 0] + cosine * q[:, 1], q[:, 2]], axis=1)


def chance_fit(q, weight, lattice, seed):
    """log10 P of the best lattice, after the whole search, in a copy of the peaks without one.

    Parameters
    ----------
    q, weight : ndarray, shape (n, 3) and (n,)
    lattice : Lattice
    seed : int or sequence of int
    """
    return index_lattice(turned_about_beam(q, seed), weight, lattice, -np.inf)[1]


def calibrated_cut(log10_p):
    """The log10 P that a share `FALSE_RATE` of chance fits reaches, None where there are fewer than `LEAST_COPIES`.

    Parameters
    ----------
    log10_p : sequence of float
        `chance_fit` of the copies.

    Notes
    -----
    The best of many chance fits follows Gumbel's distribution of extreme values (Gumbel 1958, Statistics of Extremes). Its parameters
    come from mean and standard deviation, so that 48 copies give a quantile of 1 % to half a decade.
    """
    if len(log10_p) < LEAST_COPIES:
        return None
    best = -np.asarray(log10_p, dtype=float)
    scale = best.std(ddof=1) * np.sqrt(6.0) / np.pi
    quantile = best.mean() - np.euler_gamma * scale - scale * np.log(-np.log1p(-FALSE_RATE))
    return float(np.clip(-quantile, LOWEST_CUT, HIGHEST_CUT))
