"""Scaling and merging of observations in memory or in shards."""

from dataclasses import dataclass, replace

import numpy as np

from sfxflow.merging import halves, levels
from sfxflow.merging.cycles import Run
from sfxflow.merging.observations import FULL_WEIGHT, Collector
from sfxflow.merging.tables import merged_tables
from sfxflow.settings import Merging


@dataclass(frozen=True)
class Parts:
    """Groups of crystals that are merged apart.

    Attributes
    ----------
    names : tuple of str
    of_crystal : ndarray of int, shape (n_crystals,)
        Number of each crystal's group in `names`; -1 for crystals of no group, which count for the whole only.
    """

    names: tuple
    of_crystal: np.ndarray


def merge_observations(crystals, reflections, cell, group, settings=None, d_min=None, threads=1, parts=None):
    """Scale and merge observations that are held in memory.

    Parameters
    ----------
    crystals : dict of ndarray
        reciprocal (n, 3, 3), profile_radius, mosaicity, bandwidth, photon_energy: as `sfxflow.reflections.CRYSTALS`; photon
        energy in eV.
    reflections : dict of ndarray
        crystal, h, k, l, I, sigI, excitation_error, polarisation: as `sfxflow.reflections.REFLECTIONS`.
    cell : sequence of 6 floats
        Angstrom and degree.
    group : gemmi.SpaceGroup
    settings : sfxflow.settings.Merging, optional
    d_min : float, optional
        Angstrom.
    threads : int
    parts : Parts, optional

    Returns
    -------
    Merged
    """
    settings = settings or Merging()
    collector = Collector(cell, group, d_min, settings.max_excitation)
    block = collector.add(crystals, reflections, 0)
    return merge_blocks([block] if len(block.offsets) > 1 else [], collector, settings, threads, parts=parts)


def merge_blocks(blocks, collector, settings, threads=1, progress=None, parts=None):
    """Scale and merge blocks of observations.

    Parameters
    ----------
    blocks : sequence of Block
        Indexed once a pass, so that they may lie in files (`sfxflow.io.shards`); their column `weight` must be writable.
    collector : Collector
        That made the blocks.
    settings : sfxflow.settings.Merging
    threads : int
    progress : callable, optional
        Called with a line of text after each cycle.
    parts : Parts, optional
        Groups of crystals: all are scaled together, and each group is merged by itself as well.

    Returns
    -------
    Merged
    """
    whole, run = _merged(blocks, collector, settings, threads, progress, parts)
    if settings.independent_halves and whole.summary["n_crystals_merged"]:
        own_settings = replace(settings, min_measurements=1)
        apart = []
        for number, name in enumerate(halves.NAMES):
            for i in range(len(blocks)):
                blocks[i].columns["weight"][:] = FULL_WEIGHT

            def told(line, name=name):
                progress(f"{name}: {line}")

            only = collector.half == number
            apart.append(_merged(blocks, collector, own_settings, threads, progress and told, parts, only, run)[0])
        halves.put_apart(whole, apart, collector.cell)
    return whole


def _merged(blocks, collector, settings, threads, progress, parts, only=None, whole=None):
    """What was merged, and the run; of the crystals `only` where these are given, with `whole` the run of all."""
    run = Run(blocks, collector, settings, threads, only)
    if not (run.active == 1).any():
        found = "no lattice was found" if not len(run.state) else "no crystal has enough usable observations"
        return merged_tables(run, found, parts), run
    apart = ()
    if parts is not None:
        # crystals of no group have a slot of their own, so that the slots add up to all
        other = len(parts.names)
        apart = np.where(parts.of_crystal < 0, other, parts.of_crystal), other + 1
    levels.converge(run, settings.cycles, *apart, progress=progress)
    run.assess()
    if settings.reject_delta_cc is not None and run.reject(settings.reject_delta_cc):
        run.cycle(settings.cycles, *apart)
        run.merge(*apart)
        run.assess()
    run.count()
    if whole is not None:
        run.expect(whole)
        run.merge(*apart)
        run.assess()
    else:
        run.bound()
        if settings.keep_unrecorded:
            run.infer()
    remark = ""
    if not (run.active == 1).any():
        reasons, counts = np.unique(run.status.astype(str), return_counts=True)
        remark = f"no crystal is left; most of them: {reasons[np.argmax(counts)]}"
    return merged_tables(run, remark, parts), run
