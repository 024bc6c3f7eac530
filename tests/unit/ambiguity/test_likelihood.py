"""The comparison of crystals against a slow version, its limits, and that a crystal does not testify for itself."""

from dataclasses import replace

import numpy as np

from sfxflow.ambiguity.likelihood import Knowledge, compared, merged_intensities, wilson


def slow_sweep(columns, probability, knowledge, power):
    """One sweep as `compared` does it, in plain loops with dictionaries."""
    probability = probability.copy()
    result = np.zeros_like(probability)
    current = knowledge.mean

    def variance(j, intensity):
        expected = columns.factor[j] * max(intensity, 0.0)
        return columns.background[j] + columns.gain[j] * expected + (columns.error[j] * expected) ** 2

    for c in range(columns.n_crystals):
        above, below = {}, {}
        for other in range(columns.n_crystals):
            if other != c:
                for j in range(columns.offsets[other], columns.offsets[other + 1]):
                    for m in range(probability.shape[1]):
                        h, g = columns.number[j, m], columns.factor[j]
                        w = probability[other, m] * g / variance(j, current[h])
                        above[h] = above.get(h, 0.0) + w * columns.intensity[j]
                        below[h] = below.get(h, 0.0) + w * g
        for m in range(probability.shape[1]):
            for j in range(columns.offsets[c], columns.offsets[c + 1]):
                h, g = columns.number[j, m], columns.factor[j]
                precision = below.get(h, 0.0) + 1 / knowledge.variance[h]
                mean = (above.get(h, 0.0) + knowledge.mean[h] / knowledge.variance[h]) / precision
                spread = variance(j, mean) + g * g / precision
                result[c, m] -= 0.5 * np.log(spread)
                result[c, m] -= 4.5 * np.log(1 + (columns.intensity[j] - g * mean) ** 2 / (9 * spread))
        weights = np.exp(power * (result[c] - result[c].max()))
        probability[c] = weights / weights.sum()
    return probability, result


def test_one_sweep_is_that_of_the_slow_version(prepared):
    _, _, columns = prepared("P3", 12, 40, d_min=6.0)
    start = np.random.default_rng(1).dirichlet(np.ones(4), 12)
    found = compared(columns, start, wilson(columns), sweeps=1, soft=(0.3,))
    slow = slow_sweep(columns, start, wilson(columns), 0.3)
    np.testing.assert_allclose(found[1], slow[1], rtol=1e-9)
    np.testing.assert_allclose(found[0], slow[0], rtol=1e-7, atol=1e-12)


def test_a_crystal_alone_says_nothing(prepared):
    """Its own observations are taken out of what it is compared with."""
    _, _, columns = prepared("P63", 12, 40, d_min=6.0)
    last = columns.offsets[1]
    alone = replace(
        columns,
        offsets=columns.offsets[:2],
        **{
            name: getattr(columns, name)[:last]
            for name in ("row", "number", "intensity", "background", "gain", "factor", "error")
        },
    )
    flat = replace(alone, prior=np.full(len(alone.hkl), alone.prior.mean()))
    probability, log_likelihood = compared(flat, np.array([[0.9, 0.1]]), wilson(flat))
    np.testing.assert_allclose(log_likelihood[0, 0], log_likelihood[0, 1], rtol=1e-9)
    np.testing.assert_allclose(probability, 0.5, atol=1e-6)


def test_known_intensities_tell_each_crystal(prepared):
    simulated, _operators, columns = prepared("P63", 300, 30)
    key = {tuple(row): value for row, value in zip(simulated.hkl.tolist(), simulated.intensity, strict=True)}
    true = np.array([key[tuple(row)] for row in columns.hkl.tolist()])
    scale = np.sum(columns.prior) / np.sum(true)
    known = Knowledge(true * scale, (0.05 * columns.prior) ** 2)
    probability, _ = compared(columns, np.full((300, 2), 0.5), known)
    assert np.mean(probability.argmax(axis=1) == simulated.mode) > 0.99


def test_merged_intensities_in_the_true_modes_are_the_true_ones(prepared):
    simulated, _operators, columns = prepared("P63", 300, 60)
    probability = np.eye(2)[simulated.mode]  # a two-fold operator is its own inverse
    merged = merged_intensities(columns, probability, wilson(columns))
    key = {tuple(row): value for row, value in zip(simulated.hkl.tolist(), simulated.intensity, strict=True)}
    true = np.array([key[tuple(row)] for row in columns.hkl.tolist()])
    assert np.corrcoef(merged.mean, true)[0, 1] > 0.9
    assert np.all(merged.variance <= columns.prior**2 * (1 + 1e-12))


def test_one_way_only(prepared):
    _, _, columns = prepared("P43212", 12, 40)
    probability, log_likelihood = compared(columns, np.ones((12, 1)), wilson(columns))
    assert np.all(probability == 1.0)
    assert np.all(log_likelihood == 0.0)
