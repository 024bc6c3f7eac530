"""Better factors of the observations, from merging the crystals in the modes found so far."""

from dataclasses import replace

import numpy as np

from sfxflow.ambiguity.observations import PARTIALITY_ERROR, mean_by_resolution, width_of
from sfxflow.ambiguity.operators import reindexed_reciprocal
from sfxflow.cell import inverse_resolution
from sfxflow.merging.corrected import excitation_in_widths, on_curve
from sfxflow.merging.merge import merge_observations
from sfxflow.settings import Merging
from sfxflow.units import wavelength

_CYCLES = 6


def with_merged_factors(observations, crystals, reflections, cell, group, operators, mode, threads=1):
    """Scales, partialities and resolution falloff from a merge in the modes `mode`, in place of the first ones.

    Parameters
    ----------
    observations : sfxflow.ambiguity.observations.Observations
    crystals, reflections : dict of ndarray
        The tables that it was made from.
    cell, group, operators
        As there.
    mode : ndarray of int, shape (n_crystals,)
    threads : int

    Returns
    -------
    observations : Observations
    merged : sfxflow.merging.merge.Merged
    """
    own = operators[mode]
    row = observations.row
    taken = {
        name: np.asarray(reflections[name])[row]
        for name in ("crystal", "I", "sigI", "excitation_error", "polarisation")
    }
    hkl = np.stack([np.asarray(reflections[letter])[row] for letter in "hkl"], axis=1)
    in_mode = np.einsum("ni,nij->nj", hkl, own[taken["crystal"]])
    taken |= {letter: np.rint(in_mode[:, axis]).astype(np.int32) for axis, letter in enumerate("hkl")}
    turned = crystals | {"reciprocal": reindexed_reciprocal(np.asarray(crystals["reciprocal"]), own)}
    merged = merge_observations(turned, taken, cell, group, Merging(cycles=_CYCLES), threads=threads)
    good = np.array([text == "merged" for text in merged.crystals["status"]], dtype=bool)
    if not good.any():
        return observations, merged
    owner = observations.crystal
    q = inverse_resolution(hkl, cell)
    state = {name: np.asarray(merged.crystals[name], float)[owner] for name in ("scale", "B", "width", "energy")}
    sigma_q = width_of(crystals, owner, q)
    factor = state["scale"] * np.exp(-0.5 * state["B"] * q**2)
    curve = merged.partiality
    lab = np.einsum("nij,nj->ni", np.asarray(crystals["reciprocal"])[owner], hkl)
    length = wavelength(np.asarray(crystals["photon_energy"], float))[owner]
    x = excitation_in_widths(
        taken["excitation_error"],
        lab,
        q,
        length,
        sigma_q,
        state["width"],
        merged.crystals["rotation"][owner],
        state["energy"],
    )
    factor *= curve["reference_width"] / (sigma_q * state["width"]) * on_curve(x, q, curve)
    # crystals that the merge could not describe keep what they had, on the same scale
    both = good[owner] & (observations.factor > 0)
    ratio = np.median(factor[both] / observations.factor[both])
    factor = np.where(good[owner], factor, ratio * observations.factor)
    error = np.where(good[owner], PARTIALITY_ERROR * (1.0 + x**2), observations.error)
    prior = mean_by_resolution(factor, observations.intensity, q, inverse_resolution(observations.hkl, cell))
    return replace(observations, factor=factor, error=error, prior=prior), merged
