"""The cycles of scaling, partiality and merging: the state of the crystals and reflections, and the passes over the observations."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from sfxflow.cell import inverse_resolution
from sfxflow.merging import errors, fitting, kernels, never_recorded, partiality, recorded_once, scaling
from sfxflow.merging.assessment import assess_block

#: Cycle (from 0) from which B and the curve, then widths and orientations, then robust weights are fitted, and from which crystals
#: have to agree with the others: then these are well enough described.
_B_FROM, _CURVE_FROM, _GEOMETRY_FROM, _ROBUST_FROM, _AGREEMENT_FROM = 1, 1, 2, 3, 4
#: Most steps of a crystal's fit in a cycle.
_STEPS = 2
_ADMISSION_STEPS = 5
#: Observations whose partiality is more uncertain than this, relatively, and more than this many times as uncertain as where the
#: curve is highest, are not merged: a low one would say nothing of the intensity.
_LARGEST_ERROR, _LARGEST_ERROR_TO_PEAK = 0.35, 2.0
#: Shares of the blocks that threads take, each with sums of its own, and the bytes that these may take together: fewer threads work where
#: there are many reflections and groups.
_SHARES = 8
_SUMS_MEMORY = 512 << 20


class Run:
    """State of the cycles; `merge` and `fit` are the two passes.

    `only` (bool for each crystal): the others take no part.
    """

    def __init__(self, blocks, collector, settings, threads, only=None):
        self.blocks, self.collector, self.settings = blocks, collector, settings
        self.threads = max(1, min(threads, len(blocks), _SHARES))
        self.shape = collector.shape
        self.half = collector.half
        self.counts = collector.counts
        self.hkl = collector.numbers.reflections()
        self.q = inverse_resolution(self.hkl, collector.cell) if len(self.hkl) else np.empty(0)
        operations = collector.numbers.group.operations()
        self.epsilon = operations.epsilon_factor_without_centering_array(self.hkl).astype(float)
        n = len(self.shape)
        self.state = np.zeros((n, kernels.N_PARAMETERS))
        self.quality = np.zeros((n, 4 + kernels.N_PARAMETERS))
        self.only = only
        self.status = scaling.first_status(self.counts)
        if only is not None:
            self.status[~only] = scaling.NOT_ASKED_FOR
        self.active = (self.status == "").astype(np.uint8)
        self.model, self.fallback = partiality.usable_model(settings.partiality, int(np.sum(self.active)))
        q2_max = float(self.q.max() ** 2 * 1.0001) if len(self.q) else 1.0
        usual = (
            np.median(self.shape[self.active == 1], axis=0)
            if self.active.any()
            else np.array([1.0, 0.0, 0.0, 1.0, 0.0])
        )
        self.curve = partiality.first_curve(self.model, q2_max, settings.max_excitation, usual)
        self.reference_width = float(np.median(np.sqrt(self.shape[:, 0]))) if n else 1.0
        self.priors = scaling.first_priors()
        self.current = np.zeros(len(self.q))
        self.prior = np.ones(len(self.q))
        self.fitted = np.zeros(kernels.N_PARAMETERS, np.uint8)
        self.slot = self.half.astype(np.uint16)
        self.sums = np.zeros((len(self.q), 4, 5))
        self.apart = self.sums.reshape(len(self.q), 2, 1, 2, 5)
        self.total = self.sums.sum(axis=1)
        self.gained = np.full(n, np.nan)
        self.scatter = np.ones(errors.N_RANGES)
        self.levels = np.zeros(errors.N_RANGES - 1)
        self.measured = np.zeros((1, len(self.q)))
        self.least_sigma = np.zeros(len(self.q))
        self.inferred = np.full((len(self.q), 2), np.nan)
        self.found, self.change = np.zeros(len(self.q)), np.inf

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

    def cycle(self, cycle, group=None, n_groups=1):
        """One cycle: merge, then fit the crystals to it, or each to its own group, then the curve."""
        if cycle:
            self.merge(group, n_groups)
        self.fit_cycle(cycle)

    def fit_cycle(self, cycle):
        """The part of a cycle that follows the merge; before the first one there is none."""
        if cycle == 0:
            self.state[:, 0], self.prior[:] = scaling.start(self)
            self.current[:] = self.prior
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

    def keep_waiting(self, crystals):
        """Crystals (bool for each) that take no part until they are admitted."""
        self.status[crystals] = scaling.WAITING
        self.active[crystals] = 0

    def admit(self, crystals):
        """After a merge: fit crystals that waited, from a scale in closed form, to what the others say; then they take part."""
        self.current = self.posterior()
        self.state[crystals] = 0.0
        self.status[crystals] = ""
        others = self.active
        self.active = np.where(crystals, 2, 0).astype(np.uint8)
        self.fit(self.fitted, steps=0, robust=False)
        self.fit(self.fitted, steps=_ADMISSION_STEPS, robust=True)
        self.active = np.where(crystals, 2, others).astype(np.uint8)
        self.status, self.active = scaling.judged(self, agreement=True)

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

        mates = 2 if self.settings.anomalous else 1
        sums = self._added(work, (2 * n_groups, len(self.q), mates, 4))
        # mates, groups, half sets
        self.apart = np.zeros((len(self.q), 2, n_groups, 2, 4))
        self.apart[:, :mates] = sums.reshape(n_groups, 2, len(self.q), mates, 4).transpose(2, 3, 0, 1, 4)
        self.sums = self.apart.sum(axis=2).reshape(len(self.q), 4, 4)
        self.total = self.sums.sum(axis=1)
        information = self.total[:, 1]
        # `current` stays as it is: it belongs to the pass that made the sums
        merged = np.divide(self.total[:, 0], information, where=information > 0, out=np.zeros_like(information))
        self.prior = scaling.prior_intensity(self.q, merged, information, self.prior, self.epsilon)
        found = self.posterior()
        # of two merges: `current` has been brought to the gauge since
        self.change = float(np.sum(np.abs(found - self.found)) / max(np.sum(np.abs(found)), 1e-300))
        self.found = found

    def fit(self, fitted, steps, robust):
        """Fit the crystals; returns the sums for the curve."""
        numbers = self.numbers
        edges = partiality.range_edges(self.curve.q2_max)
        total = self.known()
        part_of = np.minimum(self.slot // 2, len(total) - 1).astype(np.uint16)
        precision = 1.0 / np.asarray(self.priors) ** 2

        def work(block, sums):
            own = slice(block.first_crystal, block.first_crystal + len(block.offsets) - 1)
            fitting.fit_block(
                block.offsets, *block.columns.values(), self.state[own], self.shape[own], self.active[own],
                part_of[own], self.q, self.current, total, self.prior, self.curve.values, self.curve.slopes, self.curve.spread,
                numbers, precision, fitted, steps, int(robust), self.quality[own], sums, edges,
            )  # fmt: skip

        sums = self._added(work, (partiality.N_RANGES, partiality.n_bins(self.curve.x_max), 4))
        if steps:
            self.current = self.posterior()
        return sums

    def assess(self):
        """After the last merge: what the uncertainties are made of. `sums` get a column for what the crystals' parameters add."""
        total = self.known()
        precision = 1.0 / np.asarray(self.priors) ** 2
        intensities = self.posterior()
        self.levels = errors.ranges(intensities, self.total[:, 3] >= 2)
        squares = {}
        merged = np.empty((0, 4))
        known = np.maximum(self.total[:, 1], 1e-300)
        added = np.zeros(len(self.q))

        def work(block, common):
            own = slice(block.first_crystal, block.first_crystal + len(block.offsets) - 1)
            squares[block.first_crystal] = np.zeros((errors.N_RANGES, 4))
            assess_block(
                block.offsets, *block.columns.values(), self.state[own], self.shape[own], self.active[own], self.slot[own],
                self.q, self.current, intensities, total, self.prior, self.curve.values, self.curve.slopes, self.curve.spread,
                self.numbers, precision, self.fitted, self.levels, known, added, merged, common,
                squares[block.first_crystal], self.gained[own],
            )  # fmt: skip

        added += self._added(work, (len(self.q), self.apart[0, ..., 0].size)).sum(axis=1) / known
        merged = np.ascontiguousarray(self.total[:, :4])
        common = self._added(work, (len(self.q), self.apart[0, ..., 0].size))
        self.apart = np.concatenate([self.apart, common.reshape(self.apart.shape[:-1])[..., None]], axis=-1)
        self.sums = self.apart.sum(axis=2).reshape(len(self.q), 4, 5)
        self.total = self.sums.sum(axis=1)
        self.scatter = errors.scatter(sum(squares[first] for first in sorted(squares)))

    def count(self):
        """How often each reflection was measured by crystals that were merged, by group."""

        def work(block, counts):
            own = slice(block.first_crystal, block.first_crystal + len(block.offsets) - 1)
            recorded_once.count_block(
                block.offsets,
                block.columns["reflection"],
                block.columns["weight"],
                self.active[own],
                self.slot[own],
                counts,
            )

        self.measured = self._added(work, (self.apart.shape[2], len(self.q)))

    def bound(self):
        """After `assess`: the least uncertainty of reflections that were recorded once."""
        once = np.rint(self.total[:, 3]) == 1
        place = np.where(once, np.cumsum(once) - 1, -1)
        numbers = self.numbers

        def work(block, likelihood):
            own = slice(block.first_crystal, block.first_crystal + len(block.offsets) - 1)
            recorded_once.likelihood_block(
                block.offsets, *block.columns.values(), self.state[own], self.shape[own], self.active[own], self.q, place,
                self.prior, self.curve.values, self.curve.spread, numbers, likelihood,
            )  # fmt: skip

        likelihood = self._added(work, (int(once.sum()), len(recorded_once.GRID)))
        centric = self.collector.numbers.group.operations().centric_flag_array(self.hkl[once])
        merged = self.total[once, 0] / self.total[once, 1]
        self.least_sigma = np.zeros(len(self.q))
        error = recorded_once.root_mean_square_error(merged, likelihood, centric, self.prior[once])
        # the variances that were given may be wrong
        factor = self.scatter[np.searchsorted(self.levels, self.posterior()[once])]
        self.least_sigma[once] = np.sqrt(factor / errors.NORMAL) * error

    def expect(self, whole):
        """In a half set: from the next merge on, variances are those of the intensities that all data have.

        The uncertainty of a partiality adds a part of the intensity to that of an observation. Where one or two low measurements are
        all that a half set has, their own intensity would make them far too certain. The intensities themselves hardly depend on this.
        """
        both = (self.active == 1) & (whole.active == 1)
        if not both.any():
            return
        scale, b = (self.state - whole.state)[both, :2].mean(axis=0)
        self.current = whole.posterior() * np.exp(0.5 * b * self.q**2 - scale)

    def infer(self):
        """After `assess`: intensities, and their uncertainties, of reflections that were measured but never recorded."""
        merged, information, _, n = self.total[:, :4].T
        never = np.rint(n) == 0
        if not never.any() or never.all():
            return
        numbers = self.numbers
        intensity = np.divide(merged, information, where=~never, out=np.zeros(len(never)))
        usual = never_recorded.usual_intensity(self.q, intensity, ~never, self.prior, self.epsilon)
        centric = self.collector.numbers.group.operations().centric_flag_array(self.hkl)
        mean_square = never_recorded.mean_square_intensity(usual, centric)
        mean = np.maximum(self.posterior(), 0.0)
        variance = np.where(np.rint(n) >= 2, 1 / (information + 1 / self.prior**2), -1.0)
        place = np.where(never, np.cumsum(never) - 1, -1)

        def add_tails(block, sums, means):
            own = slice(block.first_crystal, block.first_crystal + len(block.offsets) - 1)
            never_recorded.tails_block(
                block.offsets, *block.columns.values(), self.state[own], self.shape[own], self.active[own], self.q, mean, variance,
                self.curve.values, self.curve.spread, numbers, means, sums,
            )  # fmt: skip

        n_bins = int(self.curve.values.shape[1] / numbers[0] * never_recorded.BINS_PER_UNIT) + 1

        def tails(means):
            return self._added(lambda block, sums: add_tails(block, sums, means), (n_bins, 4))

        parts = never_recorded.recorded_parts(tails, self.curve, n_bins)

        def evidence(block, sums):
            own = slice(block.first_crystal, block.first_crystal + len(block.offsets) - 1)
            never_recorded.evidence_block(
                block.offsets, *block.columns.values(), self.state[own], self.shape[own], self.active[own], self.q, place, usual,
                mean_square, parts, numbers, self.curve.values.shape[1], sums,
            )  # fmt: skip

        sums = self._added(evidence, (int(never.sum()), 2))
        factor = self.scatter[np.searchsorted(self.levels, usual[never])] / errors.NORMAL
        self.inferred[never] = np.stack(
            never_recorded.best_estimate(sums, factor, usual[never], mean_square[never]), axis=1
        )

    def known(self):
        """What the last merge says of the reflections, for each group of crystals: shape (n_groups, n_reflections, 2, 2)."""
        if self.apart.shape[2] == 1:
            return scaling.known_of_mates(self.sums, self.settings.anomalous)[None]
        return scaling.known_of_groups(self.apart[..., :4], self.settings.anomalous)

    def reject(self, deviations):
        """Leave out crystals whose delta-CC1/2 is so many standard deviations below the mean, and negative; returns how many."""
        merged = self.gained[self.active == 1]
        if not np.isfinite(merged).any():
            return 0
        limit = min(np.nanmean(merged) - deviations * np.nanstd(merged), 0.0)
        worse = (self.active == 1) & (self.gained < limit)
        self.status[worse] = scaling.LOWERS_CC
        self.active[worse] = 0
        return int(worse.sum())

    def posterior(self):
        """Intensities: the merged ones with Wilson's distribution as prior."""
        return (self.total[:, 0] + 1 / self.prior) / (self.total[:, 1] + 1 / self.prior**2)

    def _added(self, work, shape):
        """Sums of `shape` to which `work` has added each block; they are the same with any number of threads.

        The blocks are dealt out to shares with sums of their own, as many as fit into `_SUMS_MEMORY`; these are added in their order.
        """
        n_shares = max(1, min(_SHARES, len(self.blocks), _SUMS_MEMORY // (8 * max(1, int(np.prod(shape))))))

        def own_share(first):
            sums = np.zeros(shape)
            for i in range(first, len(self.blocks), n_shares):
                work(self.blocks[i], sums)
            return sums

        with ThreadPoolExecutor(self.threads) as pool:
            shares = pool.map(own_share, range(n_shares)) if self.threads > 1 else map(own_share, range(n_shares))
            total = next(shares)
            for own in shares:
                total += own
        return total

    def describe(self, cycle, level=""):
        """A line for the log."""
        good = self.active == 1
        return (
            f"{level}cycle {cycle + 1}: {good.sum()} crystals, scales spread by {np.std(self.state[good, 0]):.2f} (ln), "
            f"B by {np.std(self.state[good, 1]):.1f} A^2, widths by {np.std(self.state[good, 2]):.2f} (ln), "
            f"rotations by {1e3 * np.std(self.state[good, 3:5]):.3f} mrad, "
            f"intensities changed by {self.change:.1e}"
        )
