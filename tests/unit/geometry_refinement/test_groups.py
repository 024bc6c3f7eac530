"""Rigid groups, motions of panels, and directions in which groups may move."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from sfxflow.errors import InputError
from sfxflow.geometry import panel_arrays
from sfxflow.geometry_refinement import groups as grouping
from sfxflow.geometry_refinement.groups import group_tree, moved, panel_centres
from sfxflow.simulate.presets import preset

DETECTOR = preset("demo", seed=2).detector
ARRAYS = panel_arrays(DETECTOR)
PIXEL = 1e-4


def with_groups(**groups):
    return replace(DETECTOR, rigid_groups={name: tuple(members.split(",")) for name, members in groups.items()})


def described(detector, level="rigid_groups"):
    groups, _ = group_tree(detector, level)
    return {g.name: ("".join(map(str, g.panels)), groups[g.parent].name if g.parent >= 0 else None) for g in groups}


def test_without_groups_each_panel_is_one():
    for detector in (with_groups(), with_groups(rigid_group_all="p0,p1,p2,p3,p4,p5,p6,p7")):
        found = described(detector)
        assert found.pop("detector") == ("01234567", None)
        assert found == {f"p{i}": (str(i), "detector") for i in range(8)}


def test_halves_and_quarters_and_a_panel_of_no_group():
    detector = with_groups(
        rigid_group_q0="p0,p1",
        rigid_group_q1="p2,p3",
        rigid_group_left="p0,p1,p2,p3",
        rigid_group_right="p4,p5,p6",
        rigid_group_collection_halves="left,right",
        rigid_group_collection_quarters="q0,q1",
    )
    found = described(detector)
    assert found == {
        "detector": ("01234567", None),
        "left": ("0123", "detector"),
        "right": ("456", "detector"),
        "q0": ("01", "left"),
        "q1": ("23", "left"),
        "p7": ("7", "detector"),
    }
    panels = described(detector, "panels")
    assert panels["p0"] == ("0", "q0") and panels["p5"] == ("5", "right") and panels["p7"] == ("7", "detector")
    assert len(panels) == 5 + 8
    assert described(detector, "overall") == {"detector": ("01234567", None)}


def test_groups_of_groups():
    detector = with_groups(group_a="p0,p1", group_b="p2,p3", group_ab="a,b", group_rest="p4,p5,p6,p7")
    found = described(detector)
    assert found["ab"] == ("0123", "detector") and found["a"] == ("01", "ab") and found["rest"] == ("4567", "detector")


def test_groups_that_cross_are_left_out():
    detector = with_groups(rigid_group_left="p0,p1,p2", rigid_group_across="p2,p3")
    groups, ignored = group_tree(detector, "rigid_groups")
    assert ignored == ("across",)
    assert {g.name for g in groups} == {"detector", "left", "p3", "p4", "p5", "p6", "p7"}


@pytest.mark.parametrize("groups", [{"rigid_group_a": "p0,p9"}, {"group_a": "p0,p9"}, {"group_a": "p9,a"}])
def test_an_unknown_panel_in_a_group(groups):
    with pytest.raises(InputError, match=r"group_a: the geometry has no panel p9"):
        group_tree(with_groups(**groups), "rigid_groups")


MOTION = st.tuples(*[st.floats(-1e-3, 1e-3)] * 3, *[st.floats(-0.05, 0.05)] * 3)


@settings(max_examples=30, deadline=None)
@given(motion=MOTION)
def test_moved_panels_are_rigid_and_turn_about_their_middle(motion):
    motions = np.zeros((8, 6))
    motions[3] = motion
    after = moved(ARRAYS, motions)
    turn = Rotation.from_rotvec(motion[3:]).as_matrix()
    np.testing.assert_allclose(panel_centres(after)[3], panel_centres(ARRAYS)[3] + motion[:3], atol=1e-14)
    np.testing.assert_allclose(after.fs[3], turn @ ARRAYS.fs[3], atol=1e-17)
    np.testing.assert_allclose(after.ss[3], turn @ ARRAYS.ss[3], atol=1e-17)
    others = np.arange(8) != 3
    np.testing.assert_allclose(after.origin[others], ARRAYS.origin[others], rtol=0, atol=1e-16)
    np.testing.assert_array_equal(after.fs[others], ARRAYS.fs[others])


def halves():
    return group_tree(with_groups(rigid_group_left="p0,p2,p4,p6", rigid_group_right="p1,p3,p5,p7"), "panels")[0]


@pytest.mark.parametrize("freedom", ["x", "y", "z", "tilt_x", "tilt_y", "turn"])
def test_a_group_moves_its_panels_as_one_body(freedom):
    groups = halves()
    parameters = grouping.parameters_of_groups(groups, ARRAYS, PIXEL, np.ones(len(groups), bool), True)
    matrix = grouping.panel_motions(parameters, groups, ARRAYS)
    left = next(i for i, g in enumerate(groups) if g.name == "left")
    column = next(i for i, p in enumerate(parameters) if p.group == left and p.freedom == freedom)
    small = np.zeros(len(parameters))
    small[column] = 0.01
    after = moved(ARRAYS, (matrix @ small).reshape(8, 6))
    members, others = [0, 2, 4, 6], [1, 3, 5, 7]
    np.testing.assert_allclose(after.origin[others], ARRAYS.origin[others], rtol=0, atol=1e-16)
    before, now = ARRAYS.origin[members], after.origin[members]

    def distances(points):
        return np.linalg.norm(points[:, None] - points[None], axis=2)

    shift = np.linalg.norm(now - before, axis=1).max()
    assert shift > 1e-8
    # Distances between the group's panels change in second order only.
    np.testing.assert_allclose(distances(now), distances(before), rtol=0, atol=1e-3 * shift)
    np.testing.assert_allclose(np.linalg.norm(after.fs, axis=1), np.linalg.norm(ARRAYS.fs, axis=1), rtol=1e-12)


def test_parts_of_a_group_do_not_move_on_the_mean():
    groups = halves()
    parameters = grouping.parameters_of_groups(groups, ARRAYS, PIXEL, np.ones(len(groups), bool), True)
    free = grouping.free_directions(parameters, groups, ARRAYS)
    np.testing.assert_allclose(free.T @ free, np.eye(free.shape[1]), atol=1e-12)
    # Three families of parts (halves of the whole, panels of each half), six constraints each.
    assert free.shape[1] == len(parameters) - 18
    values = free @ np.random.default_rng(0).standard_normal(free.shape[1])
    for parent in range(3):
        for freedom in grouping.ROWS:
            own = [
                values[i] * p.unit
                for i, p in enumerate(parameters)
                if groups[p.group].parent == parent and p.freedom == freedom
            ]
            assert abs(sum(own)) < 1e-12 * PIXEL + 1e-9 * max(map(abs, own))


def test_the_whole_is_never_turned_about_the_beam():
    groups = halves()
    for out_of_plane in (False, True):
        parameters = grouping.parameters_of_groups(groups, ARRAYS, PIXEL, np.ones(len(groups), bool), out_of_plane)
        whole = [p.freedom for p in parameters if p.group == 0]
        assert whole == (["x", "y", "z", "tilt_x", "tilt_y"] if out_of_plane else ["x", "y", "z"])
