"""Refined geometry files: what is written reads back, and what was not refined stays byte for byte."""

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfxflow.errors import InputError
from sfxflow.io.geom import parse_geom
from sfxflow.io.geom_edit import edited_geom, read_text

TOP = """\
; a geometry with everything that an edit must leave alone   ; twice
photon_energy = 9500 eV
clen =  0.105 m   ; measured with a ruler
res = 13333.3
detector_shift_x = 0.3 mm
data = /entry/data
rigid_group_all = a,b
coffset = 0.0001

"""
PANELS = """\
a/min_fs = 0
a/max_fs = 99
a/min_ss = 0
a/max_ss = 99
a/corner_x = -50.2 ; first try
a/corner_x=-51.25   ; corner_x = 7 was wrong
a/corner_y\t=\t3.5
a/fs = +1.0x +0.002y
a/ss = -.002x + y
bad_beam/min_x = -3
bad_beam/max_x = 3
bad_beam/min_y = -3
bad_beam/max_y = 3
fs = x
ss = y
b/min_fs = 0
b/max_fs = 99
b/min_ss = 100
b/max_ss = 199
b/corner_x = 60
b/corner_y = 3.5
b/res = 13333.4
b/coffset = 0.0002; this one lies deeper"""
LINE_ENDS = ("\n", "\r\n")


def moved(detector, moves, stretch=0.0):
    """A detector with panel i moved by moves[i]: x, y, z (metre) and the angle in the plane."""
    panels = []
    for panel, (x, y, z, angle) in zip(detector.panels, moves, strict=True):
        turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        panels.append(
            replace(
                panel,
                origin=tuple(np.add(panel.origin, (x, y, z))),
                fs=tuple(turn @ panel.fs),
                ss=tuple(turn @ panel.ss),
            )
        )
    return replace(detector, panels=tuple(panels), clen=detector.clen + stretch)


def assert_same_places(read, wanted):
    for one, other in zip(read.panels, wanted.panels, strict=True):
        np.testing.assert_allclose(one.origin[:2], other.origin[:2], rtol=0, atol=1.01e-6 / 13333.3)
        np.testing.assert_allclose(one.origin[2], other.origin[2], rtol=0, atol=1.01e-9)
        np.testing.assert_allclose(one.fs, other.fs, rtol=0, atol=1.01e-9 / 13333.3)
        np.testing.assert_allclose(one.ss, other.ss, rtol=0, atol=1.01e-9 / 13333.3)
        assert replace(one, origin=0, fs=0, ss=0) == replace(other, origin=0, fs=0, ss=0)
    assert read.clen == pytest.approx(wanted.clen, rel=1.01e-9)
    assert replace(read, panels=(), clen=0.0) == replace(wanted, panels=(), clen=0.0)


LENGTHS = st.floats(-1e-3, 1e-3)
MOVES = st.tuples(LENGTHS, LENGTHS, st.sampled_from([0.0, 1e-5, -2.5e-4]), st.floats(-0.1, 0.1))


@settings(max_examples=60, deadline=None)
@given(
    moves=st.tuples(MOVES, st.one_of(st.just((0.0, 0.0, 0.0, 0.0)), MOVES)),
    stretch=st.sampled_from([0.0, 1e-3, -2.2e-6]),
    end=st.sampled_from(LINE_ENDS),
    last=st.booleans(),
)
def test_edited_text_reads_back_and_the_rest_is_untouched(moves, stretch, end, last):
    text = (TOP + PANELS + ("\n" if last else "")).replace("\n", end)
    wanted = moved(parse_geom(text, "x"), moves, stretch)
    edited = edited_geom(text, wanted, "x")
    assert_same_places(parse_geom(edited, "x"), wanted)
    old, new = text.splitlines(keepends=True), edited.splitlines(keepends=True)
    value = re.compile(r"\s*((a|b)/(corner_x|corner_y|fs|ss|coffset)|clen)\s*=")
    kept = iter(new)
    for line in old:
        if not value.match(line):
            assert line in kept or (line == old[-1] and line + end in new)
    if moves[1] == (0.0, 0.0, 0.0, 0.0):
        assert [line for line in new if line.startswith("b/")] == [line for line in old if line.startswith("b/")]


def test_only_numbers_change_within_their_lines():
    text = TOP + PANELS + "\n"
    wanted = moved(parse_geom(text, "x"), [(1.5 / 13333.3, 0, 0, 0), (0, 0, 0, 0)], 0.001)
    edited = edited_geom(text, wanted, "x")
    assert edited == text.replace("a/corner_x=-51.25 ", "a/corner_x=-49.750000 ").replace(
        "clen =  0.105 m", "clen =  0.106 m"
    )


def test_nothing_moved_is_the_same_text():
    for end in LINE_ENDS:
        text = (TOP + PANELS).replace("\n", end)
        assert edited_geom(text, parse_geom(text, "x"), "x") == text


def test_a_value_for_all_panels_becomes_one_of_the_panel_that_moved():
    text = TOP + PANELS
    detector = parse_geom(text, "x")
    edited = edited_geom(text, moved(detector, [(0, 0, 1e-5, 0), (0, 0, 0, 0.01)]), "x")
    assert "coffset = 0.0001\n" in edited and "a/coffset = 0.000110000\n" in edited
    assert edited.endswith(
        "b/coffset = 0.0002; this one lies deeper\nb/fs = +0.999950000x +0.009999833y\nb/ss = -0.009999833x +0.999950000y\n"
    )


def test_camera_lengths_of_the_panels():
    text = (TOP.replace("clen =", "; clen =") + PANELS).replace(
        "a/min_fs", "a/clen = 0.105\na/min_fs"
    ) + "\nb/clen = 0.105 m ; same\n"
    detector = parse_geom(text, "x")
    edited = edited_geom(text, replace(detector, clen=0.1), "x")
    assert "a/clen = 0.1\n" in edited and "b/clen = 0.1 m ; same\n" in edited
    assert parse_geom(edited, "x").clen == pytest.approx(0.1, rel=1e-9)


def test_tilts_write_all_components():
    text = TOP + PANELS
    detector = parse_geom(text, "x")
    panel = detector.panels[0]
    tilted = replace(panel, fs=tuple(np.add(panel.fs, (0, 0, 0.01 / 13333.3))))
    edited = edited_geom(text, replace(detector, panels=(tilted, detector.panels[1])), "x")
    assert "a/fs = +1.000000000x +0.002000000y +0.010000000z\n" in edited


def test_other_panels_are_refused():
    text = TOP + PANELS
    detector = parse_geom(text, "x")
    renamed = replace(detector, panels=(replace(detector.panels[0], name="q"), detector.panels[1]))
    with pytest.raises(InputError, match=r"det\.geom: has other panels"):
        edited_geom(text, renamed, "det.geom")


def test_line_ends_survive_reading(tmp_path):
    (tmp_path / "x.geom").write_bytes(b"a = 1\r\nb = 2\n")
    assert read_text(tmp_path / "x.geom") == "a = 1\r\nb = 2\n"
    (tmp_path / "y.geom").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"y\.geom: is not a text file"):
        read_text(tmp_path / "y.geom")
    with pytest.raises(InputError, match=r"z\.geom: the geometry can't be read"):
        read_text(tmp_path / "z.geom")
