"""What the report counts and warns of, from plain values."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from sfxflow.cell import reciprocal_matrix
from sfxflow.reflections import Status
from sfxflow.report.contents import Dataset, Run, merged_reasons, reasons_of, robust_spread, same_orientation, total
from sfxflow.report.warnings import dataset_warnings, run_warnings

CELL = (79.1, 79.1, 37.9, 90.0, 90.0, 90.0)


def run_of(failed=0, blank=0, hit=0, indexed=0, **more):
    counts = dict(zip(Status, (failed, blank, hit, indexed), strict=True))
    return Run("builtin", "r", "frames.tsv", counts, **more)


def texts(found, serious=True):
    return [warning.text for warning in found if warning.serious == serious]


def test_counts_of_a_run():
    run = run_of(failed=1, blank=2, hit=3, indexed=4)
    assert (run.n_frames, run.n_read, run.n_hits) == (10, 9, 7)
    both = total([run, run_of(indexed=5, n_expected=5)])
    assert (both.n_frames, both.counts[Status.indexed], both.n_expected) == (15, 9, None)


def test_reasons_are_counted_without_the_frames_own_names():
    frames = {
        "frame": [0, 1, 2, 3],
        "file": ["a.h5", "a.h5", "b.h5", "b.h5"],
        "event": ["//0", "//1", "//0", "//1"],
        "status": [Status.failed, Status.failed, Status.hit, Status.blank],
        "message": ["a.h5 //0: can't be read", "a.h5 //1: can't be read", "poor fit", ""],
    }
    found = [(reason.status, reason.text, reason.count, reason.first) for reason in reasons_of(frames)]
    assert found == [(Status.failed, "can't be read", 2, 0), (Status.hit, "poor fit", 1, 2)]
    assert [reason.count for reason in merged_reasons(reasons_of(frames) * 2)] == [4, 2]


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (run_of(blank=5), "No frame has enough peaks to be a hit: there is nothing to index."),
        (run_of(hit=5), "None of 5 hits is indexed."),
        (run_of(indexed=5, n_expected=6), "5 frames are accounted for, but the table of the runs says 6."),
        (run_of(failed=2, indexed=3), "2 of 5 frames failed (40.0 %)."),
        (run_of(indexed=5, warnings=[("the cell does not fit", 1)], n_chunks=1), "The cell does not fit."),
    ],
)
def test_run_warnings(run, expected):
    assert texts(run_warnings(run)) == [expected]


def test_a_good_run_has_no_warning():
    assert run_warnings(run_of(blank=5, hit=1, indexed=10, n_expected=16)) == []


def figures(**overall):
    return {"overall": {"n_reflections": 100, "d_max": 30.0, "d_min": 2.0, **overall}, "shells": [], "remarks": []}


@pytest.mark.parametrize(
    ("completeness", "serious", "word"), [(0.05, True, "nearly empty"), (0.6, False, "incomplete"), (0.99, True, None)]
)
def test_completeness(completeness, serious, word):
    found = dataset_warnings(Dataset("e", "m", "d", ".", figures=figures(completeness=completeness, n_pairs=90)))
    assert [word in text for text in texts(found, serious)] == ([True] if word else [])


@pytest.mark.parametrize(("b", "told"), [(-12.4, True), (18.0, False), (None, False), (float("nan"), False)])
def test_a_wilson_b_that_means_nothing(b, told):
    found = dataset_warnings(Dataset("e", "m", "d", ".", figures=figures(completeness=0.99, wilson_b_squared=b)))
    assert ["The Wilson B is negative (-12.4 Å²)" in text for text in texts(found, False)] == [True] * told


@pytest.mark.parametrize(
    ("mean_l", "n", "told"), [(0.435, 7911, True), (0.435, 100, False), (0.498, 7911, False), (None, 0, False)]
)
def test_intensities_as_of_twins_or_of_too_high_a_symmetry(mean_l, n, told):
    """0.435 is what crystals of P63 gave that were merged in P6322."""
    overall = figures(completeness=0.99, l_test_mean_abs=mean_l, l_test_n_pairs=n)
    found = dataset_warnings(Dataset("e", "m", "d", ".", figures=overall))
    assert ["a space group with more rotations than the crystals have" in text for text in texts(found, True)] == [
        True
    ] * told


def test_crystals_of_one_orientation_up_to_the_symmetry():
    rng = np.random.default_rng(1)
    base = reciprocal_matrix(CELL)
    turned = [Rotation.from_rotvec(np.radians(3) * rng.normal(size=3) / 2).as_matrix() @ base for _ in range(20)]
    random = np.array([Rotation.random(random_state=i).as_matrix() @ base for i in range(40)])
    assert same_orientation(np.array(turned), "P 43 21 2") > 0.9
    assert same_orientation(random, "P 43 21 2") < 0.3
    # A quarter turn about c is a symmetry of the tetragonal crystal, not of the orthorhombic one.
    rotated = np.array([Rotation.from_euler("z", 90, degrees=True).as_matrix() @ base, base])
    assert same_orientation(rotated, "P 43 21 2") == 1.0
    assert same_orientation(rotated, "P 21 21 21") == 0.5
    assert np.isnan(same_orientation(random[:1], "P 43 21 2"))


def test_robust_spread_is_the_standard_deviation_and_ignores_outliers():
    values = np.random.default_rng(2).normal(5.0, 0.2, 20000)
    values[:200] = 1e6
    median, spread = robust_spread(values)
    assert median == pytest.approx(5.0, abs=0.01)
    assert spread == pytest.approx(0.2, rel=0.05)


def merged_dataset(**attrs):
    crystals = {"status": ["merged"] * 20}
    return Dataset(
        "builtin", "builtin", "d", "folder", {"space_group": "P 1", "provenance": "{}"} | attrs, {"I": np.ones(9)}, crystals
    )  # fmt: skip


@pytest.mark.parametrize(
    ("attrs", "serious", "text"),
    [
        ({"n_unusable": 5, "n_observations": 95}, True, "5 observations have no finite intensity"),
        ({"n_unusable": 5, "n_observations": 9995}, False, "5 observations have no finite intensity"),
        (
            {"absences_are_there": True, "n_absent": 40, "absent_mean_i_over_sigma": 2.0},
            True,
            "40 observations that P 1 makes absent have a mean I/sigma of 2.0: the space group may be wrong",
        ),
    ],
)
def test_what_merging_left_out(attrs, serious, text):
    assert any(text in found for found in texts(dataset_warnings(merged_dataset(**attrs)), serious))
    assert texts(dataset_warnings(merged_dataset()), serious) == []


def group(n_crystals, *remarks):
    return {"group": "light", "split_by": "laser", "n_crystals": n_crystals, "remarks": list(remarks), "overall": {}}


def test_warnings_of_groups():
    dataset = merged_dataset()
    dataset.groups.append(group(0, "nothing merged"))
    assert texts(dataset_warnings(dataset)) == [
        "Group light (by laser) is empty: none of the merged crystals belongs to it."
    ]
    dataset.groups[:] = [group(5, "Too few.")]
    assert texts(dataset_warnings(dataset)) == ["Group light (by laser): Too few."]
    dataset.differences.extend(
        [{"n_crystals": [5, 0], "remarks": ["no"]}, {"n_crystals": [5, 5], "remarks": ["Chance."]}]
    )
    assert texts(dataset_warnings(dataset), serious=False) == ["Chance."]
