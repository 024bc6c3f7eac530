"""Ways to index a lattice: how many, equally often, and each an allowed choice of axes."""

import numpy as np
import pytest

from sfxflow.simulate import ambiguity, crystals, frames
from sfxflow.simulate.presets import preset

WAYS = {
    "hexagonal": 2,
    "tetragonal_polar": 2,
    "pseudo_orthorhombic": 2,
    "trigonal": 4,
    "cubic": 2,
    "demo": 1,
    "monoclinic": 1,
}


@pytest.mark.parametrize(("name", "n"), WAYS.items())
def test_number_of_ways(name, n):
    assert len(preset(name).twin_laws[0]) == n


@pytest.mark.parametrize("name", ["hexagonal", "tetragonal_polar", "trigonal", "pseudo_orthorhombic"])
def test_a_law_keeps_the_lattice_and_changes_the_intensities(name):
    experiment = preset(name, d_min=4.0)
    factors, laws = experiment.structure_factors, experiment.twin_laws[0]
    standard = crystals.standard_reciprocal(experiment.cell_parameters)
    metric = standard.T @ standard
    table = dict(zip(map(tuple, factors.hkl.tolist()), factors.intensity, strict=True))
    for law in laws[1:]:
        np.testing.assert_allclose(law @ metric @ law.T, metric, atol=1e-12)
        turned = np.array([table.get(tuple(h), 0.0) for h in (factors.hkl @ law).tolist()])
        assert np.corrcoef(turned, factors.intensity)[0, 1] < 0.6


def test_laws_of_a_centred_cell_have_fractions():
    """I4 with c/a near the square root of 2 is nearly a face-centred cubic lattice: 24 / 4 ways, and no reflection gets broken indices."""
    experiment = preset("demo", a=78.0, b=78.0, c=110.0, space_group="I4", d_min=6.0, blank_fraction=0.0)
    laws = experiment.twin_laws[0]
    assert len(laws) == 6 and np.any(laws % 1 != 0)
    np.testing.assert_allclose(np.abs(np.linalg.det(laws)), 1.0)
    standard = crystals.standard_reciprocal(experiment.cell_parameters)
    for law in laws:
        turned = experiment.structure_factors.hkl @ law
        np.testing.assert_array_equal(turned, turned.round())
        lengths = [np.linalg.norm(standard @ h.T, axis=0) for h in (experiment.structure_factors.hkl, turned)]
        np.testing.assert_allclose(*lengths, rtol=0.005)
    assert {frames.frame_truth(experiment, i).lattices[0].mode for i in range(60)} == set(range(6))


@pytest.mark.parametrize("name", ["hexagonal", "trigonal", "tetragonal_polar"])
def test_crystals_at_random_get_each_mode_equally_often(name):
    experiment = preset(name)
    rng = np.random.default_rng(2)
    standard = crystals.standard_reciprocal(experiment.cell_parameters)
    laws, group = experiment.twin_laws[0], experiment.gemmi_group
    n = 600
    modes = [
        ambiguity.indexed_as(crystals.random_rotation(rng) @ standard, experiment.cell_parameters, group, laws)
        for _ in range(n)
    ]
    share = np.bincount(modes, minlength=len(laws)) / n
    # Four standard deviations of a binomial share.
    assert np.all(np.abs(share - 1 / len(laws)) < 4 * np.sqrt(0.25 / n))


def test_symmetry_mates_of_a_crystal_have_the_same_mode():
    """The crystal's own rotations turn the axes, not the crystal."""
    experiment = preset("trigonal")
    cell, group, laws = experiment.cell_parameters, experiment.gemmi_group, experiment.twin_laws[0]
    rng = np.random.default_rng(3)
    for _ in range(20):
        reciprocal = crystals.random_rotation(rng) @ crystals.standard_reciprocal(cell)
        modes = {
            ambiguity.indexed_as(reciprocal @ np.linalg.inv(np.array(op.rot) / op.DEN).T, cell, group, laws)
            for op in group.operations().sym_ops
        }
        assert len(modes) == 1


def test_the_mode_of_a_lattice_that_lies_as_the_laboratory_is_known_by_hand():
    """P43 has the fourfold axis alone: a lattice turned by half a turn about a is the twin, one turned about c is not."""
    experiment = preset("tetragonal_polar")
    cell, group, laws = experiment.cell_parameters, experiment.gemmi_group, experiment.twin_laws[0]
    standard = crystals.standard_reciprocal(cell)
    assert ambiguity.indexed_as(standard, cell, group, laws) == 0
    assert ambiguity.indexed_as(np.diag([-1.0, -1.0, 1.0]) @ standard, cell, group, laws) == 0
    assert ambiguity.indexed_as(np.diag([1.0, -1.0, -1.0]) @ standard, cell, group, laws) == 1


def test_frames_carry_the_mode():
    experiment = preset("hexagonal", blank_fraction=0.0, multi_fraction=0.0, d_min=6.0)
    modes = [frames.frame_truth(experiment, i).lattices[0].mode for i in range(20)]
    assert set(modes) == {0, 1}
