"""What the crystals' parameters add to the variances, against the whole normal matrix written down plainly."""

import numpy as np
from observation_simulator import CELL, SPACE_GROUP, simulate

from sfxflow.merging import kernels
from sfxflow.merging.cycles import Run
from sfxflow.merging.observations import FULL_WEIGHT, MINUS, Collector
from sfxflow.settings import Merging
from sfxflow.symmetry import space_group


def test_parts_of_the_crystals_parameters_are_those_of_the_whole_problem():
    """Intensities and parameters of 100 crystals at once: the inverse of the full matrix, with what couples two crystals in it."""
    simulated = simulate(100, seed=41)
    collector = Collector(CELL, space_group(SPACE_GROUP))
    run = Run([collector.add(simulated.crystals, simulated.reflections, 0)], collector, Merging(), threads=1)
    for cycle in range(6):
        run.cycle(cycle)
    run.merge()
    run.assess()
    known, used, matrix, coupling = _whole_problem(run)
    # the scale and the B of all crystals together are not determined
    for parameter in (0, 1):
        common = np.zeros(len(matrix))
        common[parameter :: kernels.N_PARAMETERS] = 1.0
        matrix += 1e6 * np.outer(common, common)
    reduced = np.linalg.inv(matrix - coupling.T @ (coupling / known[:, None]))
    expected = np.sum((coupling @ reduced) * coupling, axis=1) / known
    found = run.total[:, 4] / known
    strong = used & (expected > 0.02)
    assert strong.sum() > 200
    assert np.median(found[strong] / expected[strong]) > 0.85
    assert np.corrcoef(np.log(found[strong]), np.log(expected[strong]))[0, 1] > 0.95


def _whole_problem(run):
    """Information on the intensities, which of them are measured, that on the parameters, and what couples them."""
    block, n = run.blocks[0], kernels.N_PARAMETERS
    columns = list(block.columns.values())
    reflection, weight = columns[0], columns[-1]
    intensities = run.posterior()
    known = np.zeros(len(run.q))
    matrix = np.diag(np.tile(run.priors**-2.0, len(run.state)))
    coupling = np.zeros((len(run.q), len(matrix)))
    packed, source = np.empty((kernels.N_PACKED, 2000)), np.empty(2000, np.int64)
    derivative = np.zeros(n)
    for c in np.flatnonzero(run.active == 1):
        state, shape = run.state[c], run.shape[c]
        count, *_ = kernels.pack(
            block.offsets[c], block.offsets[c + 1], *columns, state, shape, True, run.q, run.current, run.known()[0],
            run.prior, run.curve.values, run.curve.spread, run.numbers, packed, source,
        )  # fmt: skip
        narrowing, scale = kernels.factors(state, run.numbers)
        own = slice(n * c, n * c + n)
        for i in range(count):
            base, height = kernels.gradient(
                packed, i, state, shape, run.curve.values, run.curve.slopes, run.numbers, narrowing, scale, derivative
            )
            h, g = reflection[source[i]] & np.uint32(MINUS - 1), base * height
            mean, uncertainty = packed[kernels.MEAN, i], packed[kernels.UNCERTAINTY, i]
            photons = packed[kernels.PHOTON, i] * g
            uncertain = (
                packed[kernels.VARIANCE, i] - packed[kernels.BACKGROUND, i] - photons * mean - g * g * uncertainty
            )
            uncertain /= mean**2 + uncertainty
            row = min(int(run.q[h] ** 2 * run.numbers[1]), len(run.curve.values) - 1)
            if height <= run.numbers[3] * run.curve.values[row, 0] or uncertain >= run.numbers[5] * g * g:
                continue
            variance = packed[kernels.BACKGROUND, i] + photons * intensities[h] + uncertain * intensities[h] ** 2
            w = weight[source[i]] / FULL_WEIGHT / variance
            known[h] += w * g * g
            coupling[h, own] += w * g * intensities[h] * derivative
            matrix[own, own] += w * intensities[h] ** 2 * np.outer(derivative, derivative)
    return np.maximum(known, 1e-300), known > 0, matrix, coupling
