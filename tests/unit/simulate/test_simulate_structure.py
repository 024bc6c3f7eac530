"""Structure factors against a direct sum over atoms, and what the symmetry demands of them."""

import gemmi
import numpy as np
import pytest

from sfxflow.errors import InputError
from sfxflow.simulate.structure import displaced, random_structure, structure_factors

CELL = (40.0, 40.0, 30.0, 90.0, 90.0, 90.0)


@pytest.fixture(scope="module")
def group():
    return gemmi.find_spacegroup_by_name("P43212")


@pytest.fixture(scope="module")
def atoms(group):
    return random_structure(CELL, group, np.random.default_rng(5), b_factor=15.0)


@pytest.fixture(scope="module")
def factors(atoms, group):
    return structure_factors(atoms, group, 2.0)


def test_map_and_direct_sum_agree(atoms, factors):
    direct = gemmi.StructureFactorCalculatorX(atoms.cell)
    some = np.random.default_rng(0).choice(len(factors.unique), 60, replace=False)
    expected = [abs(direct.calculate_sf_from_model(atoms[0], [int(i) for i in factors.unique[row]])) for row in some]
    # The map is sampled and the atoms are cut off: 0.5 % of the mean amplitude is far below what scaling could notice.
    error = np.abs(np.sqrt(factors.unique_intensity[some]) - expected)
    assert error.max() < 0.005 * np.mean(expected)


def test_atoms_keep_their_distance_also_from_symmetry_mates(atoms):
    search = gemmi.NeighborSearch(atoms[0], atoms.cell, 3.0).populate()
    # A mark is one image of an atom; the search also meets the atom itself, at distance 0.
    distances = np.array(
        [
            search.dist(atom.pos, mark.pos)
            for atom in atoms[0][0][0]
            for mark in search.find_atoms(atom.pos, "\0", radius=2.0)
        ]
    )
    distances = distances[distances > 1e-3]
    assert len(distances) > 20
    assert min(distances) > 1.4 - 1e-3


def test_number_of_atoms_follows_the_volume(atoms):
    assert len(atoms[0][0][0]) == int(40 * 40 * 30 / 8 / 32)


def test_equivalent_reflections_are_equal_and_each_is_there_once(factors, group):
    intensity = {tuple(h): i for h, i in zip(factors.hkl.tolist(), factors.intensity, strict=True)}
    assert len(intensity) == len(factors.hkl)
    for h, k, l in factors.unique[::50].tolist():
        mates = {(h, k, l), (-k, h, l), (k, h, -l), (-h, -k, -l), (h, -k, -l), (-h, -k, l)}
        values = {intensity[mate] for mate in mates}
        assert len(values) == 1


def test_every_reflection_to_d_min_is_there(factors):
    h, k, l = np.meshgrid(*[np.arange(-20, 21)] * 3, indexing="ij")
    s_squared = (h / 40.0) ** 2 + (k / 40.0) ** 2 + (l / 30.0) ** 2
    inside = (s_squared > 0) & (s_squared < 1 / 2.0**2 - 1e-9)
    # 4(3) along c: 00l only for l = 4n; 2(1) along a and b: h00 only for even h.
    absent = (h == 0) & (k == 0) & (l % 4 != 0)
    absent |= (k == 0) & (l == 0) & (h % 2 != 0)
    absent |= (h == 0) & (l == 0) & (k % 2 != 0)
    expected = {tuple(x) for x in np.argwhere(inside & ~absent) - 20}
    assert expected == {
        tuple(x) for x in factors.hkl.tolist() if (np.array(x) ** 2 / [1600, 1600, 900]).sum() < 0.25 - 1e-9
    }


def test_intensities_are_distributed_as_wilson_says(factors):
    rows = (factors.unique != 0).all(axis=1) & (np.abs(factors.unique[:, 0]) != np.abs(factors.unique[:, 1]))
    d = 1 / np.sqrt((factors.unique[rows] ** 2 / [1600.0, 1600.0, 900.0]).sum(axis=1))
    outer = factors.unique_intensity[rows][d < 2.3]
    assert len(outer) > 400
    # Acentric: <I^2>/<I>^2 = 2; centric reflections would give 3, equal ones 1.
    assert 1.7 < np.mean(outer**2) / np.mean(outer) ** 2 < 2.3


def test_the_seed_decides(group):
    first, second, third = (
        random_structure(CELL, group, np.random.default_rng(seed), n_atoms=30).make_pdb_string() for seed in (1, 1, 2)
    )
    assert first == second
    assert first != third


def test_friedel_mates_differ_as_a_sum_over_complex_atoms_says():
    """All atoms of the cell one by one, the heavy ones with f0 + i f''."""
    group = gemmi.find_spacegroup_by_name("P212121")
    cell = (21.0, 24.0, 28.0, 90.0, 90.0, 90.0)
    atoms = random_structure(cell, group, np.random.default_rng(9), b_factor=15.0, heavy_atoms=3)
    assert [atom.element.name for atom in atoms[0][0][0]].count("Se") == 3
    factors = structure_factors(atoms, group, 2.5, "Se", 4.0)
    some = np.random.default_rng(0).choice(len(factors.unique), 25, replace=False)
    for row in some:
        for sign, got in ((1, factors.plus[row]), (-1, factors.minus[row])):
            h = sign * factors.unique[row]
            stol2 = atoms.cell.calculate_1_d2(h.tolist()) / 4.0
            total = 0.0j
            for atom in atoms[0][0][0]:
                f = atom.element.it92.calculate_sf(stol2) + (4.0j if atom.element.name == "Se" else 0.0)
                place = np.array(atoms.cell.fractionalize(atom.pos).tolist())
                for op in group.operations():
                    image = np.array(op.rot) @ place / op.DEN + np.array(op.tran) / op.DEN
                    total += f * np.exp(-atom.b_iso * stol2 + 2j * np.pi * (h @ image))
            assert abs(np.sqrt(got) - abs(total)) < 0.006 * np.sqrt(factors.intensity.mean())
    difference = np.abs(np.sqrt(factors.plus) - np.sqrt(factors.minus))
    assert difference.mean() > 0.02 * np.sqrt(factors.unique_intensity).mean()
    np.testing.assert_allclose(factors.unique_intensity, (factors.plus + factors.minus) / 2)


def test_the_whole_sphere_has_both_friedel_mates():
    group = gemmi.find_spacegroup_by_name("P212121")
    atoms = random_structure((21.0, 24.0, 28.0, 90.0, 90.0, 90.0), group, np.random.default_rng(9), heavy_atoms=3)
    factors = structure_factors(atoms, group, 3.0, "Se", 4.0)
    table = dict(zip(map(tuple, factors.hkl.tolist()), factors.intensity, strict=True))
    for (h, k, l), plus, minus in zip(factors.unique.tolist(), factors.plus, factors.minus, strict=True):
        # 222 keeps the sign of two indices or changes it; the mates are those with all three or one changed.
        for same in ((h, k, l), (h, -k, -l), (-h, k, -l), (-h, -k, l)):
            assert table[same] == pytest.approx(plus, rel=1e-4, abs=0.5)
        for mate in ((-h, -k, -l), (-h, k, l), (h, -k, l), (h, k, -l)):
            assert table[mate] == pytest.approx(minus, rel=1e-4, abs=0.5)
        if 0 in (h, k, l):
            assert plus == pytest.approx(minus, rel=1e-3, abs=0.5), "a centric reflection is its own mate"


def test_without_anomalous_scattering_mates_are_equal(factors):
    np.testing.assert_array_equal(factors.plus, factors.minus)


def test_more_heavy_atoms_than_atoms(group):
    with pytest.raises(InputError, match="heavy_atoms: 500 are more than the 30 atoms"):
        random_structure(CELL, group, np.random.default_rng(5), n_atoms=30, heavy_atoms=500)


def test_displaced_atoms_are_as_many_and_as_far_as_asked(atoms):
    moved = displaced(atoms, 0.4, 0.6, np.random.default_rng(4))
    old, new = (np.array([atom.pos.tolist() for atom in s[0][0][0]]) for s in (atoms, moved))
    distance = np.linalg.norm(new - old, axis=1)
    n = round(0.4 * len(distance))
    assert np.count_nonzero(distance) == n
    # The square of a distance has a relative standard deviation of sqrt(2 / 3): three of the mean's.
    assert np.mean(distance[distance > 0] ** 2) == pytest.approx(0.36, rel=3 * np.sqrt(2 / 3 / n))
