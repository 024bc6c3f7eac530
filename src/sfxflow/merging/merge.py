"""The cycles of scaling, partiality and merging, over observations in memory or in shards."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from sfxflow.cell import inverse_resolution
from sfxflow.merging import errors, kernels, partiality, scaling
from sfxflow.merging.assessment import assess_block
from sfxflow.merging.observations import Collector, ccp4_asymmetric_unit
from sfxflow.settings import Merging
from sfxflow.symmetry import reflection_key

#: Fewer crystals than this can't tell the curve's form: a Gaussian is taken.
FEWEST_CRYSTALS_FOR_CURVE = 5
#: Cycle (from 0) from which B and the curve, then widths and orientations, then robust weights are fitted, and from which crystals
#: have to agree with the others: then these are well enough described.
_B_FROM, _CURVE_FROM, _GEOMETRY_FROM, _ROBUST_FROM, _AGREEMENT_FROM = 1, 1, 2, 3, 4
#: Most steps of a crystal's fit in a cycle.
_STEPS = 2
#: Observations whose partiality is more uncertain than this, relatively, and more than this many times as uncertain as where the
#: curve is highest, are not merged: a low one would say nothing of the intensity.
_LARGEST_ERROR, _LARGEST_ERROR_TO_PEAK = 0.35, 2.0
#: Bytes that the sums of all threads together may take: fewer threads work where there are many reflections and groups.
_SUMS_MEMORY = 512 << 20


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


@dataclass
class Merged:
    """Result of merging.

    Attributes
    ----------
    reflections : dict of ndarray
        h, k, l (CCP4 asymmetric unit), I, sigI, n, I_half1, sigI_half1, n_half1, I_half2, ..., and with anomalous I_plus, ...,
        I_plus_half1, ...
    crystals : dict of ndarray
        scale, B, width (factor on sigma(q)), rotation (radian, about x and y), energy (relative change), half, n_observations,
        n_rejected, status.
    partiality : dict of ndarray
        The curve (`partiality.PartialityCurve.arrays`) and `reference_width` R (1/angstrom): an observation's partiality is
        R / (width sigma(q)) times the curve, but with the model 'unity'.
    model : str
        The model used: empirical, gaussian or unity.
    summary : dict
        Numbers and remarks for the log and the file's attributes.
    groups : dict of dict
        Name of each group to its own `reflections`.
    """

    reflections: dict
    crystals: dict
    partiality: dict
    model: str
    summary: dict = field(default_factory=dict)
    groups: dict = field(default_factory=dict)


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
    run = _Run(blocks, collector, settings, threads)
    if not (run.active == 1).any():
        found = "no lattice was found" if not len(run.state) else "no crystal has enough usable observations"
        return run.result(found, parts)
    for cycle in range(settings.cycles):
        run.cycle(cycle)
        if progress:
            progress(run.describe(cycle))
    if parts is None:
        run.merge()
    else:
        # crystals of no group have a slot of their own, so that the slots add up to all
        other = len(parts.names)
        run.merge(np.where(parts.of_crystal < 0, other, parts.of_crystal), other + 1)
    run.assess()
    return run.result(parts=parts)


class _Run:
    """State of the cycles; `merge` and `fit` are the two passes."""

    def __init__(self, blocks, collector, settings, threads):
        self.blocks, self.collector, self.settings = blocks, collector, settings
        self.threads = max(1, min(threads, len(blocks)))
        self.shape = collector.shape
        self.half = collector.half
        self.counts = collector.counts
        self.hkl = collector.numbers.reflections()
        self.q = inverse_resolution(self.hkl, collector.cell) if len(self.hkl) else np.empty(0)
        n = len(self.shape)
        self.state = np.zeros((n, kernels.N_PARAMETERS))
        self.quality = np.zeros((n, 4 + kernels.N_PARAMETERS))
        self.status = scaling.first_status(self.counts)
        self.active = (self.status == "").astype(np.uint8)
        self.model = settings.partiality
        if self.model == "empirical" and np.sum(self.active) < FEWEST_CRYSTALS_FOR_CURVE:
            self.model = "gaussian"
        q2_max = float(self.q.max() ** 2 * 1.0001) if len(self.q) else 1.0
        self.curve = partiality.first_curve(self.model, q2_max, settings.max_excitation)
        self.reference_width = float(np.median(np.sqrt(self.shape[:, 0]))) if n else 1.0
        self.priors = scaling.first_priors()
        self.current = np.zeros(len(self.q))
        self.prior = np.ones(len(self.q))
        self.fitted = np.zeros(kernels.N_PARAMETERS, np.uint8)
        self.slot = self.half.astype(np.uint16)
        self.sums = np.zeros((len(self.q), 4, 5))
        self.apart = self.sums.reshape(len(self.q), 2, 1, 2, 5)
        self.total = self.sums.sum(axis=1)
        self.scatter = np.ones(errors.N_RANGES)
        self.levels = np.zeros(errors.N_RANGES - 1)

    @property
    def numbers(self):
        """What the kernels take as `numbers`."""
        unity = self.model == "unity"
        peak = float(np.median(np.sqrt(self.curve.spread[:, 0]) / self.curve.values[:, 0]))
        largest_error = max(_LARGEST_ERROR, _LARGEST_ERROR_TO_PEAK * peak)
        return np.array(
            [
                partiality.NODES_PER_UNIT,
                self.curve.rows_per_q2,
                self.reference_width,
                0.0 if unity else self.settings.min_partiality,
                0.0 if unity else 1.0,
                np.inf if unity else largest_error**2,
            ]
        )

    def cycle(self, cycle):
        """One cycle: merge, then fit the crystals to it, then the curve."""
        if cycle == 0:
            self.state[:, 0], self.prior[:] = scaling.start(self)
            self.current[:] = self.prior
        else:
            self.merge()
        fitted = self.fitted
        fitted[0] = 1
        fitted[1] = cycle >= _B_FROM
        fitted[2:] = cycle >= _GEOMETRY_FROM and self.model != "unity"
        curve_sums = self.fit(fitted, steps=0 if cycle == 0 else _STEPS, robust=cycle >= _ROBUST_FROM)
        if cycle >= _B_FROM:
            self.status, self.active = scaling.judged(self, agreement=cycle >= _AGREEMENT_FROM)
        stretch = scaling.fix_gauge(self)
        if cycle >= _GEOMETRY_FROM:
            self.priors = scaling.updated_priors(self, fitted)
        if cycle >= _CURVE_FROM:
            if self.model == "empirical":
                self.curve = partiality.estimate(curve_sums, self.curve, stretch)
            else:
                self.curve = partiality.estimate_spread(curve_sums, self.curve)

    def merge(self, group=None, n_groups=1):
        """Merge with the present scales, curve and weights; with `group` (of each crystal, from 0) also each group by itself."""
        numbers = self.numbers
        self.slot = self.half.astype(np.uint16) if group is None else (2 * group + self.half).astype(np.uint16)

        def work(block, sums):
            own = slice(block.first_crystal, block.first_crystal + len(block.offsets) - 1)
            kernels.merge_block(
                block.offsets, *block.columns.values(), self.state[own], self.shape[own], self.active[own],
                self.slot[own], self.q, self.current, self.curve.values, self.curve.spread, numbers, sums,
            )  # fmt: skip

        sums = self._added(work, (len(self.q), 4 * n_groups, 4))
        # mates, groups, half sets
        self.apart = sums.reshape(len(self.q), 2, n_groups, 2, 4)
        self.sums = sums if n_groups == 1 else self.apart.sum(axis=2).reshape(len(self.q), 4, 4)
        self.total = self.sums.sum(axis=1)
        information = self.total[:, 1]
        # `current` stays as it is: it belongs to the pass that made the sums
        merged = np.divide(self.total[:, 0], information, where=information > 0, out=np.zeros_like(information))
        self.prior = scaling.prior_intensity(self.q, merged, information, self.prior)

    def fit(self, fitted, steps, robust):
        """Fit the crystals; returns the sums for the curve."""
        numbers = self.numbers
        edges = partiality.range_edges(self.curve.q2_max)
        total = scaling.known_of_mates(self.sums, self.settings.anomalous)
        precision = 1.0 / np.asarray(self.priors) ** 2

        def work(block, sums):
            own = slice(block.first_crystal, block.first_crystal + len(block.offsets) - 1)
            kernels.fit_block(
                block.offsets, *block.columns.values(), self.state[own], self.shape[own], self.active[own],
                self.q, self.current, total, self.prior, self.curve.values, self.curve.slopes, self.curve.spread,
                numbers, precision, fitted, steps, int(robust), self.quality[own], sums, edges,
            )  # fmt: skip

        sums = self._added(work, (partiality.N_RANGES, partiality.n_bins(self.curve.x_max), 4))
        if steps:
            self.current = self._posterior()
        return sums

    def assess(self):
        """After the last merge: what the uncertainties are made of. `sums` get a column for what the crystals' parameters add."""
        total = scaling.known_of_mates(self.sums, self.settings.anomalous)
        precision = 1.0 / np.asarray(self.priors) ** 2
        intensities = self._posterior()
        self.levels = errors.ranges(intensities, self.total[:, 3] >= 2)
        squares = {}

        def work(block, common):
            own = slice(block.first_crystal, block.first_crystal + len(block.offsets) - 1)
            squares[block.first_crystal] = np.zeros((errors.N_RANGES, 2))
            assess_block(
                block.offsets, *block.columns.values(), self.state[own], self.shape[own], self.active[own], self.slot[own],
                self.q, self.current, intensities, total, self.prior, self.curve.values, self.curve.slopes, self.curve.spread,
                self.numbers, precision, self.fitted, self.levels, common, squares[block.first_crystal],
            )  # fmt: skip

        common = self._added(work, (len(self.q), self.apart[0, ..., 0].size))
        self.apart = np.concatenate([self.apart, common.reshape(self.apart.shape[:-1])[..., None]], axis=-1)
        self.sums = self.apart.sum(axis=2).reshape(len(self.q), 4, 5)
        self.total = self.sums.sum(axis=1)
        self.scatter = errors.scatter(sum(squares[first] for first in sorted(squares)))

    def _posterior(self):
        """Intensities: the merged ones with Wilson's distribution as prior."""
        return (self.total[:, 0] + 1 / self.prior) / (self.total[:, 1] + 1 / self.prior**2)

    def _added(self, work, shape):
        """Sums of `shape` to which `work` has added each block: every thread fills its own, as many as fit into `_SUMS_MEMORY`."""
        threads = max(1, min(self.threads, _SUMS_MEMORY // (8 * max(1, int(np.prod(shape))))))

        def own_share(first):
            sums = np.zeros(shape)
            for i in range(first, len(self.blocks), threads):
                work(self.blocks[i], sums)
            return sums

        if threads == 1:
            return own_share(0)
        with ThreadPoolExecutor(threads) as pool:
            total, *others = pool.map(own_share, range(threads))
        for part in others:
            total += part
        return total

    def describe(self, cycle):
        """A line for the log."""
        good = self.active == 1
        return (
            f"cycle {cycle + 1}: {good.sum()} crystals, scales spread by {np.std(self.state[good, 0]):.2f} (ln), "
            f"B by {np.std(self.state[good, 1]):.1f} A^2, widths by {np.std(self.state[good, 2]):.2f} (ln), "
            f"rotations by {1e3 * np.std(self.state[good, 3:5]):.3f} mrad"
        )

    def result(self, remark="", parts=None):
        """What was merged, for people and files."""
        unit = ccp4_asymmetric_unit(self.hkl, self.collector.numbers.group)
        # where nothing was merged, the sums have no slots of groups
        groups = {name: min(g, self.apart.shape[2] - 1) for g, name in enumerate(parts.names if parts else ())}
        return Merged(
            reflections=_reflections(self, self.sums, *unit),
            groups={
                name: _reflections(self, self.apart[:, :, g].reshape(self.sums.shape), *unit)
                for name, g in groups.items()
            },
            crystals=_crystals(self),
            partiality=self.curve.arrays() | {"reference_width": self.reference_width},
            model=self.model,
            summary=_summary(self, remark),
        )


def _reflections(run, sums, hkl, mate):
    """Columns of merged reflections from the sums (n, 4, 5) of half sets and mates; uncertainties as they are for all data."""
    total = sums.sum(axis=1)
    keep = np.rint(total[:, 3]) >= max(run.settings.min_measurements, 1)
    halves = sums[:, :2] + sums[:, 2:]
    parts = {"": total, "_half1": halves[:, 0], "_half2": halves[:, 1]}
    if run.settings.anomalous:
        parts |= _friedel_mates(sums, mate)
    factor = run.scatter[np.searchsorted(run.levels, run._posterior())]
    order = np.argsort(reflection_key(hkl), kind="stable")
    order = order[keep[order]]
    columns = {name: hkl[order, i] for i, name in enumerate("hkl")}
    for name, part in parts.items():
        count = np.rint(part[:, 3]).astype(np.int32)
        there = (count > 0) & (part[:, 1] > 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            intensity = np.where(there, part[:, 0] / part[:, 1], np.nan)
            sigma = np.where(there, errors.merged_sigma(part, factor), np.nan)
        columns[f"I{name}"], columns[f"sigI{name}"], columns[f"n{name}"] = intensity[order], sigma[order], count[order]
    return columns


def _friedel_mates(sums, mate):
    """Sums of I(+) and I(-), all and by half set; `mate`: the one in the CCP4 asymmetric unit is the other one here."""
    parts = {}
    for sign, own in (("plus", 0), ("minus", 2)):
        halves = np.where(mate[:, None, None], sums[:, 2 - own : 4 - own], sums[:, own : own + 2])
        parts |= {f"_{sign}": halves.sum(axis=1), f"_{sign}_half1": halves[:, 0], f"_{sign}_half2": halves[:, 1]}
    return parts


def _crystals(run):
    rejected = np.zeros(len(run.state), np.int64)
    for i in range(len(run.blocks)):
        block = run.blocks[i]
        lost = np.concatenate([[0], np.cumsum(np.asarray(block.columns["weight"]) == 0)])
        own = slice(block.first_crystal, block.first_crystal + len(block.offsets) - 1)
        rejected[own] = np.diff(lost[block.offsets])
    return {
        "scale": np.exp(run.state[:, 0]),
        "B": run.state[:, 1],
        "width": np.exp(run.state[:, 2]),
        "rotation": run.state[:, 3:5],
        "energy": run.state[:, 5],
        "half": run.half + 1,
        "n_observations": np.where(run.active == 1, run.counts - rejected, 0),
        "n_rejected": rejected,
        "status": [text or "merged" for text in run.status],
    }


def _summary(run, remark):
    collector = run.collector
    return {
        "remark": remark,
        "n_crystals": len(run.state),
        "n_crystals_merged": int(np.sum(run.active == 1)),
        "n_observations": collector.n_observations,
        "n_absent": collector.n_absent,
        "absent_mean_i_over_sigma": collector.absent_mean,
        "n_unusable": collector.n_unusable,
        "gain": float(np.median(collector.gain)) if len(run.state) else 0.0,
        "prior_widths": dict(zip(scaling.PARAMETERS, run.priors.tolist(), strict=True)),
    }
