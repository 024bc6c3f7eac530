"""Crystal forms of a dataset: right cells, symmetry that is or only nearly is, two forms, cells that do not index."""

import numpy as np
import pytest

from sfxflow.cell import real_matrix
from sfxflow.indexing.forms import Checked, check_frame, find_forms
from sfxflow.indexing.frame import prepare_target, strength_weights
from sfxflow.indexing.lattice import PRIMITIVE, reduce_basis
from sfxflow.indexing.unknown_cell import find_cell, search_ball
from sfxflow.settings import Indexing

SETTINGS = Indexing(max_lattices=1)


def observed(parameters, n, seed, error=0.002, centering="P"):
    rng = np.random.default_rng(seed)
    true = PRIMITIVE[centering] @ real_matrix(parameters)
    return [
        reduce_basis(
            true @ np.linalg.qr(rng.standard_normal((3, 3)))[0] @ (np.eye(3) + error * rng.standard_normal((3, 3)))
        )
        for _ in range(n)
    ]


class Indexer:
    """Stand-in for indexing: a frame is indexed if its own lattice has the lengths of the cell's."""

    def __init__(self, bases, reason="no significant lattice"):
        self.bases, self.reason, self.tried = bases, reason, []

    def __call__(self, cell, frames):
        self.tried.append(cell)
        lengths = np.linalg.norm(reduce_basis(PRIMITIVE[cell.centering] @ real_matrix(cell.parameters)), axis=1)
        checked = []
        for i in frames:
            own = self.bases[i]
            fits = own is not None and np.all(np.abs(np.linalg.norm(own, axis=1) / lengths - 1) < 0.03)
            checked.append(Checked("", self.bases[i]) if fits else Checked(self.reason, None))
        return checked


def forms_of(bases, **changes):
    return find_forms(bases, Indexer(bases), **({"min_frames": 5, "min_share": 0.5} | changes))


@pytest.mark.parametrize(
    ("parameters", "centering", "lattice"),
    [
        ((79.0, 79.0, 38.0, 90, 90, 90), "P", "tetragonal"),
        ((62.8, 62.8, 111.0, 90, 90, 120), "P", "hexagonal"),
        ((103.0, 103.0, 103.0, 90, 90, 90), "I", "cubic"),
        ((48.0, 60.0, 77.0, 90, 90, 90), "P", "orthorhombic"),
        ((51.0, 42.0, 66.0, 90, 104.5, 90), "P", "monoclinic"),
        ((38.0, 46.0, 55.0, 82, 77, 69), "P", "triclinic"),
    ],
)
def test_one_form(parameters, centering, lattice):
    forms = forms_of(observed(parameters, 40, 1, centering=centering))
    assert len(forms) == 1
    assert (forms[0].cell.lattice_type, forms[0].cell.centering) == (lattice, centering)
    np.testing.assert_allclose(forms[0].cell.parameters[:3], parameters[:3], rtol=0.003)
    np.testing.assert_allclose(forms[0].cell.parameters[3:], parameters[3:], atol=0.2)
    assert forms[0].accepted and len(forms[0].indexed) == 40 and forms[0].pseudo is None
    assert forms[0].parameters.shape == (40, 6)
    _same_setting(forms[0])


@pytest.mark.parametrize(
    ("parameters", "lattice", "missed"),
    [
        ((51.0, 42.0, 66.0, 90, 90.3, 90), "monoclinic", np.radians(0.3)),
        ((79.0, 79.4, 38.0, 90, 90, 90), "orthorhombic", 0.005),
        ((62.8, 62.8, 111.0, 90, 90, 120.4), "orthorhombic", np.radians(0.4) * 2 / np.sqrt(3)),
        ((103.0, 103.0, 103.5, 90, 90, 90), "tetragonal", 0.0048 * 2 / np.sqrt(3)),
    ],
)
def test_symmetry_that_is_missed_by_little(parameters, lattice, missed):
    form = forms_of(observed(parameters, 40, 2, error=0.0006))[0]
    assert form.cell.lattice_type == lattice
    assert form.pseudo == pytest.approx(missed, abs=0.0008)
    true = reduce_basis(real_matrix(parameters))
    found = reduce_basis(PRIMITIVE[form.cell.centering] @ real_matrix(form.cell.parameters))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), np.linalg.norm(true, axis=1), rtol=0.002)
    _same_setting(form)


def _same_setting(form):
    """The cells of single frames are given in the axes of the form's cell."""
    middle = np.median(form.parameters, axis=0)
    np.testing.assert_allclose(middle[:3], form.cell.parameters[:3], rtol=0.006)
    np.testing.assert_allclose(middle[3:], form.cell.parameters[3:], atol=0.5)


def test_cells_of_frames_stand_in_the_setting_of_a_form_that_was_tried_again():
    """The bases first found miss the symmetry, those of indexing do not; tried again, they are other reduced bases of the same lattices."""
    first = observed((62.8, 62.8, 111.0, 90, 90, 119.0), 40, 0, error=0.0006)
    indexed = observed((62.8, 62.8, 111.0, 90, 90, 120.0), 40, 10, error=0.002)

    class Again(Indexer):
        def __call__(self, cell, frames):
            checked = super().__call__(cell, frames)
            turn = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1]]) if len(self.tried) > 1 else np.eye(3)
            return [Checked(c.reason, None if c.basis is None else turn @ c.basis) for c in checked]

    indexer = Again(indexed)
    (form,) = find_forms(first, indexer, min_frames=5, min_share=0.5)
    assert len(indexer.tried) == 2 and form.cell.lattice_type == "hexagonal"
    _same_setting(form)


def test_a_lattice_that_misses_symmetry_by_much_is_no_near_miss():
    form = forms_of(observed((51.0, 42.0, 66.0, 90, 90.8, 90), 40, 2, error=0.0008))[0]
    assert form.cell.lattice_type == "monoclinic" and form.pseudo is None


@pytest.mark.parametrize("seed", [*range(6), 16])
@pytest.mark.parametrize(
    ("parameters", "lattice"),
    [
        ((51.0, 42.0, 66.0, 90, 90, 90), "orthorhombic"),
        ((79.0, 79.0, 38.0, 90, 90, 90), "tetragonal"),
        ((62.8, 62.8, 111.0, 90, 90, 120), "hexagonal"),
        ((103.0, 103.0, 103.0, 90, 90, 90), "cubic"),
    ],
)
def test_errors_alone_do_not_break_a_symmetry(parameters, lattice, seed):
    form = forms_of(observed(parameters, 40, seed, error=0.0025))[0]
    assert form.cell.lattice_type == lattice and form.pseudo is None


def test_two_forms_and_noise():
    rng = np.random.default_rng(4)
    noise = [reduce_basis(rng.uniform(-100, 100, (3, 3))) for _ in range(20)]
    first, second = observed((79.0, 79.0, 38.0, 90, 90, 90), 45, 5), observed((51.0, 42.0, 66.0, 90, 104.5, 90), 8, 6)
    forms = forms_of([None, *noise, *second, *first])
    assert [form.cell.lattice_type for form in forms] == ["tetragonal", "monoclinic"]
    np.testing.assert_array_equal(forms[0].indexed, np.arange(29, 74))
    np.testing.assert_array_equal(forms[1].indexed, np.arange(21, 29))


def test_multiples_of_a_form_are_no_form():
    """Frames on which a doubled cell was found are indexed by the true one."""
    true = observed((38.0, 46.0, 55.0, 82, 77, 69), 40, 7)
    found = [*true[:30], *(reduce_basis(np.diag([2.0, 1.0, 1.0]) @ basis) for basis in true[30:])]
    forms = find_forms(found, Indexer(true), min_frames=5, min_share=0.5)
    assert len(forms) == 1 and len(forms[0].indexed) == 40


def test_a_cell_that_does_not_index_is_refused_and_said():
    bases = observed((79.0, 79.0, 38.0, 90, 90, 90), 20, 8)
    others = observed((60.0, 70.0, 80.0, 90, 90, 90), 20, 9)
    forms = find_forms(bases, Indexer(others, reason="super-lattice"), min_frames=5, min_share=0.5)
    assert [form.accepted for form in forms] == [False]
    assert forms[0].reasons == {"super-lattice": 20} and forms[0].member_share == 0.0


def test_too_few_that_agree():
    assert forms_of(observed((79.0, 79.0, 38.0, 90, 90, 90), 4, 10)) == []
    assert forms_of([]) == [] and forms_of([None, None]) == []


def test_simulated_frames_of_two_forms(simulated):
    """The whole way on peak lists, with the engine's own indexing."""
    frames = []
    for name, n in (("lysozyme", 9), ("monoclinic", 6)):
        experiment = simulated.experiment(name)
        frames += [(*simulated.peak_list(experiment, i, 50, 5)[:3], experiment.pixel_size) for i in range(n)]
    ball = search_ball(20.0, 130.0)
    bases = [find_cell(peaks.q, strength_weights(peaks.intensity), ball)[0] for peaks, *_ in frames]

    def index(cell, chosen):
        target = prepare_target(cell)
        return [check_frame(frames[i][0], target, *frames[i][1:], SETTINGS) for i in chosen]

    forms = find_forms(bases, index, min_frames=5, min_share=0.5)
    assert [(form.cell.lattice_type, form.cell.centering) for form in forms] == [
        ("tetragonal", "P"),
        ("monoclinic", "P"),
    ]
    for form, name in zip(forms, ("lysozyme", "monoclinic"), strict=True):
        true = simulated.experiment(name).cell_parameters
        np.testing.assert_allclose(form.cell.parameters[:3], true[:3], rtol=0.003)
        np.testing.assert_allclose(form.cell.parameters[3:], true[3:], atol=0.15)


def test_a_frame_that_is_not_indexed_says_why(simulated):
    experiment = simulated.experiment("lysozyme")
    peaks, to_panel, wavelength, _ = simulated.peak_list(experiment, 0, 0, 40)
    target = prepare_target(simulated.cell(experiment))
    checked = check_frame(peaks, target, to_panel, wavelength, experiment.pixel_size, SETTINGS)
    assert checked.basis is None and checked.reason == "no significant lattice"
