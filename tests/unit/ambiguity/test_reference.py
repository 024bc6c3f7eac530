"""A reference of the same crystal, of another one, in other indices, and of parts of the reflections."""

import numpy as np
import pytest
from ambiguous_crystals import simulate

from sfxflow.ambiguity.likelihood import compared, merged_intensities, wilson
from sfxflow.ambiguity.operators import reindexed
from sfxflow.ambiguity.reference import (
    LEAST_CORRELATION,
    LEAST_SIGNIFICANCE,
    agreement,
    correlations,
    knowledge_of,
    reference_of,
    way_of_all,
)
from sfxflow.ambiguity.spectral import standardised
from sfxflow.symmetry import rotations


@pytest.mark.parametrize("way", [0, 1, 2, 3])
def test_agreement_does_not_depend_on_the_indices(prepared, way):
    simulated, operators, columns = prepared("P3", 100, 60)
    hkl = reindexed(simulated.hkl, operators[way])
    rho, significance = agreement(columns, reference_of(hkl, simulated.intensity, simulated.cell, simulated.group))
    straight = agreement(columns, reference_of(simulated.hkl, simulated.intensity, simulated.cell, simulated.group))
    assert (rho, significance) == pytest.approx(straight)
    assert rho == pytest.approx(1.0, abs=0.25)
    assert significance > 3 * LEAST_SIGNIFICANCE


def test_others_do_not_agree(prepared):
    _, _, columns = prepared("P63", 300, 60)
    for seed in range(50, 60):
        other = simulate("P63", 1, 10, seed=seed)
        found, significance = agreement(columns, reference_of(other.hkl, other.intensity, other.cell, other.group))
        assert abs(found) < 0.5 * LEAST_CORRELATION or significance < LEAST_SIGNIFICANCE


def test_correlations_of_single_crystals(prepared):
    simulated, _, columns = prepared("P3", 100, 60)
    found = correlations(columns, reference_of(simulated.hkl, simulated.intensity, simulated.cell, simulated.group))
    assert np.mean(found.argmax(axis=1) == simulated.mode) > 0.97
    # as numpy has it, for one crystal and one mode
    reference = reference_of(simulated.hkl, simulated.intensity, simulated.cell, simulated.group)
    own = slice(columns.offsets[7], columns.offsets[8])
    known = reference.at(columns.hkl[columns.number[own, 2]])
    assert found[7, 2] == pytest.approx(np.corrcoef(standardised(columns)[own], known)[0, 1])


def test_knowledge_of_a_reference_tells_a_few_crystals(prepared):
    simulated, _, columns = prepared("P63", 8, 40, seed=5)
    reference = reference_of(simulated.hkl, simulated.intensity, simulated.cell, simulated.group)
    known = knowledge_of(columns, reference, 0.9)
    probability, _ = compared(columns, np.full((8, 2), 0.5), known)
    np.testing.assert_array_equal(probability.argmax(axis=1), simulated.mode)
    assert np.all(known.variance < columns.prior**2)


def test_without_values_there_is_wilson_only(prepared):
    simulated, _, columns = prepared("P63", 8, 40, seed=5)
    none = reference_of(simulated.hkl[:0], simulated.intensity[:0], simulated.cell, simulated.group)
    assert np.isnan(agreement(columns, none)[0])
    far = reference_of(simulated.hkl[:1] + 100, simulated.intensity[:1], simulated.cell, simulated.group)
    np.testing.assert_allclose(knowledge_of(columns, far, 0.9).mean, columns.prior)


@pytest.mark.parametrize("way", [0, 1, 2, 3])
def test_way_of_all(prepared, way):
    """Merged in the true indices, the reference in others: the operator between them has the highest correlation."""
    simulated, operators, columns = prepared("P3", 300, 60)
    # these operators are their own inverses
    merged = merged_intensities(columns, np.eye(4)[simulated.mode], wilson(columns))
    hkl = reindexed(simulated.hkl, operators[way])
    found = way_of_all(
        columns, merged, reference_of(hkl, simulated.intensity, simulated.cell, simulated.group), operators
    )
    assert found.argmax() == way
    assert np.sort(found)[-2] < 0.3


def test_equivalents_are_averaged_and_what_is_not_a_number_is_left_out(prepared):
    simulated, _, _ = prepared("P63", 8, 40, seed=5)
    everywhere = np.concatenate([simulated.hkl @ rotation for rotation in rotations(simulated.group)])
    intensity = np.tile(simulated.intensity, len(everywhere) // len(simulated.hkl))
    intensity[: len(simulated.hkl)] = np.nan
    all_of_them = reference_of(everywhere, intensity, simulated.cell, simulated.group)
    one_of_each = reference_of(simulated.hkl, simulated.intensity, simulated.cell, simulated.group)
    np.testing.assert_array_equal(all_of_them.key, one_of_each.key)
    np.testing.assert_allclose(all_of_them.ratio, one_of_each.ratio, rtol=1e-6)
