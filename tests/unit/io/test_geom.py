"""CrystFEL geometry files: what is read, what is written, and the message for each mistake."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfxflow.errors import InputError
from sfxflow.geometry import Detector, Mask, Panel, Region, placed_in_slab
from sfxflow.io.geom import parse_geom, read_geom, write_geom
from sfxflow.io.geometry import read_geometry

GOOD = """\
; two panels side by side
photon_energy = 9500 eV
clen = 0.1 m
res = 10000
data = /entry/data/data
dim0 = %
dim1 = ss
dim2 = fs

a/min_fs = 0
a/max_fs = 9
a/min_ss = 0
a/max_ss = 19
a/fs = +1.0x
a/ss = +1.0y
a/corner_x = -12.0
a/corner_y = -10
b/min_fs = 10
b/max_fs = 19
b/min_ss = 0
b/max_ss = 19
b/fs = x
b/ss = y
b/corner_x = 2.0
b/corner_y = -10 ; a comment
b/coffset = 0.001
"""


def parse(text):
    return parse_geom(text, "det.geom")


def changed(old, new):
    assert old in GOOD
    return GOOD.replace(old, new)


def test_lengths_are_in_metre_and_places_as_in_the_data():
    detector = parse(GOOD)
    first, second = detector.panels
    assert detector.shape == (20, 20)
    assert (detector.photon_energy, detector.clen) == (9500.0, 0.1)
    np.testing.assert_allclose(first.origin, (-12e-4, -10e-4, 0.0))
    np.testing.assert_allclose(second.origin, (2e-4, -10e-4, 1e-3))
    np.testing.assert_allclose(second.fs, (1e-4, 0, 0))
    assert (second.slab_ss, second.slab_fs, second.n_ss, second.n_fs) == (0, 10, 20, 10)
    assert second.dims == ("%", "ss", "fs")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("+0.5x -0.25y", (0.5, -0.25, 0)),
        ("-x", (-1, 0, 0)),
        ("y - 0.5z", (0, 1, -0.5)),
        ("1e-05x + 1.0y", (1e-5, 1, 0)),
        ("x+x+y", (2, 1, 0)),
    ],
)
def test_directions(written, expected):
    text = changed("b/corner_x = 2.0", "b/corner_x = 2000")  # out of the way
    panel = parse(text.replace("a/fs = +1.0x", f"a/fs = {written}").replace("a/ss = +1.0y", "a/ss = 0.3x+0.9z")).panels[
        0
    ]
    np.testing.assert_allclose(np.multiply(panel.fs, 10000), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("written", "value", "scale", "is_wavelength"),
    [
        ("photon_energy = 9.5 keV", 9500.0, 1, False),
        ("photon_energy = 9500", 9500.0, 1, False),
        ("wavelength = 1.0 A", 12398.41984, 1, False),
        ("wavelength = 1.0e-10 m", 12398.41984, 1, False),
        ("photon_energy = /LCLS/energy", "/LCLS/energy", 1, False),
        ("photon_energy = /LCLS/energy keV", "/LCLS/energy", 1000, False),
        ("wavelength = /LCLS/wavelength m", "/LCLS/wavelength", 1e10, True),
    ],
)
def test_photon_energy_in_every_form(written, value, scale, is_wavelength):
    detector = parse(changed("photon_energy = 9500 eV", written))
    if isinstance(value, str):
        assert detector.photon_energy == value
    else:
        assert detector.photon_energy == pytest.approx(value, rel=1e-9)
    assert detector.photon_energy_scale == scale
    assert detector.photon_energy_is_wavelength is is_wavelength


def test_electrons_have_their_relativistic_wavelength():
    detector = parse(changed("photon_energy = 9500 eV", "electron_voltage = 200 kV"))
    assert 12398.41984 / detector.photon_energy == pytest.approx(0.025079, abs=1e-6)  # textbook value, angstrom


@pytest.mark.parametrize(
    ("written", "value", "scale"),
    [
        ("clen = 100 mm", 0.1, 1),
        ("clen = 0.1", 0.1, 1),
        ("clen = /entry/clen", "/entry/clen", 1e-3),  # millimetre where no unit is given: crystfel_geometry(5)
        ("clen = /entry/clen m", "/entry/clen", 1),
    ],
)
def test_camera_length_in_every_form(written, value, scale):
    detector = parse(changed("clen = 0.1 m", written))
    assert detector.clen == (value if isinstance(value, str) else pytest.approx(value))
    assert detector.clen_scale == scale


def test_a_camera_length_that_each_panel_repeats_is_taken():
    detector = parse(
        changed("clen = 0.1 m\n", "")
        .replace("\na/min_fs", "\na/clen = 0.2 m\na/min_fs")
        .replace("b/min_fs", "b/clen = 0.2 m\nb/min_fs")
    )
    assert detector.clen == 0.2


def test_a_value_at_the_top_holds_for_panels_below_and_can_be_overridden():
    text = changed("res = 10000", "res = 10000\nadu_per_photon = 2\nflag_lessthan = -1\nmask_edge_pixels = 1")
    text = text.replace("b/coffset = 0.001", "b/adu_per_photon = 3\nb/flag_equal = 7\nb/no_index = true")
    first, second = parse(text).panels
    assert (first.adu_per_photon, second.adu_per_photon) == (2, 3)
    assert first.flags == (("lessthan", -1.0),)
    assert second.flags == (("lessthan", -1.0), ("equal", 7.0))
    assert (first.no_index, second.no_index) == (False, True)
    assert second.mask_edge_pixels == 1


def test_masks_in_old_and_new_words(tmp_path):
    (tmp_path / "bad.h5").touch()
    top = (
        "mask = /mask\nmask_file = bad.h5\nmask_good = 0x10\nmask_bad = 0xff\nmask3_data = /other\nmask3_badbits = 4\n"
    )
    (tmp_path / "det.geom").write_text(top + GOOD + "b/mask_bad = 0x1\nb/mask3_file = far.h5\n")
    first, second = read_geom(tmp_path / "det.geom").panels
    beside = str((tmp_path / "bad.h5").resolve())
    assert first.masks == (Mask("/mask", beside, 0x10, 0xFF), Mask("/other", None, 0, 4))
    assert second.masks == (Mask("/mask", beside, 0x10, 0x1), Mask("/other", "far.h5", 0, 4))


def test_bad_regions_and_groups():
    text = GOOD + "badcorner/min_x = -3\nbadcorner/max_x = 3\nbadcorner/min_y = -2\nbadcorner/max_y = 2\n"
    text += "badspot/panel = b\nbadspot/min_fs = 11\nbadspot/max_fs = 12\nbadspot/min_ss = 0\nbadspot/max_ss = 4\n"
    text += "rigid_group_q0 = a, b\nrigid_group_collection_all = q0\n"
    detector = parse(text)
    assert detector.bad_regions == (
        Region("badcorner", (-3.0, -2.0), (3.0, 2.0)),
        Region("badspot", (11, 0), (12, 4), panel="b", in_xy=False),
    )
    assert detector.rigid_groups == {"rigid_group_q0": ("a", "b"), "rigid_group_collection_all": ("q0",)}


def test_detector_shift_moves_every_panel():
    moved, still = parse("detector_shift_x = 1 mm\ndetector_shift_y = -0.002\n" + GOOD), parse(GOOD)
    for there, here in zip(moved.panels, still.panels, strict=True):
        np.testing.assert_allclose(np.subtract(there.origin, here.origin), (1e-3, -2e-3, 0))


def test_panels_of_a_stack_get_places_of_their_own():
    text = GOOD.replace("dim1 = ss", "dim2 = ss").replace("dim2 = fs", "dim3 = fs")
    text = text.replace("a/min_fs = 0", "a/dim1 = 1\na/min_fs = 0").replace(
        "b/min_fs = 10", "b/dim1 = 0\nb/min_fs = 10"
    )
    detector = parse(text)
    assert [p.dims for p in detector.panels] == [("%", 1, "ss", "fs"), ("%", 0, "ss", "fs")]
    assert [(p.slab_ss, p.slab_fs) for p in detector.panels] == [(20, 0), (0, 10)]
    assert detector.shape == (40, 20)


MISTAKES = {
    "no camera length": (changed("clen = 0.1 m\n", ""), "no camera length; add a line such as 'clen = 0.1 m'"),
    "no energy": (changed("photon_energy = 9500 eV\n", ""), "no photon energy; add a line such as"),
    "two energies": ("wavelength = 1 A\n" + GOOD, "photon_energy and wavelength are both given"),
    "wavelength without unit": (
        changed("photon_energy = 9500 eV", "wavelength = 1.3"),
        "line 2: wavelength: '1.3' has no unit",
    ),
    "unknown key of a panel": (
        changed("a/corner_x", "a/conrer_x"),
        "line 16: unknown key 'conrer_x'; did you mean corner_x?",
    ),
    "unknown key at the top": (changed("clen =", "cleen ="), "line 3: unknown key 'cleen'; did you mean clen?"),
    "unknown key of a region": (
        GOOD + "bad1/min_q = 1\n",
        "line 27: unknown key 'min_q' of a bad region; did you mean min_",
    ),
    "overlap in the data": (
        changed("b/min_fs = 10", "b/min_fs = 9"),
        "panels a and b claim the same pixels of the data",
    ),
    "overlap in space": (
        changed("b/corner_x = 2.0", "b/corner_x = -12").replace("b/coffset = 0.001\n", ""),
        "panels a and b lie on each other in the laboratory",
    ),
    "no corner": (changed("a/corner_x = -12.0\n", ""), "panel a: no corner_x"),
    "no pixel size": (changed("res = 10000\n", ""), "panel a: no res"),
    "not a number": (changed("a/max_fs = 9", "a/max_fs = nine"), "line 11: max_fs: 'nine' is not a number"),
    "not a direction": (changed("a/fs = +1.0x", "a/fs = 1.0"), "line 14: fs: '1.0' is not a direction"),
    "no equals sign": (changed("res = 10000", "res 10000"), "line 4: 'res 10000' is not of the form"),
    "ends swapped": (
        changed("a/max_fs = 9", "a/max_fs = 9\na/min_fs = 12"),
        "panel a: max_fs and max_ss must not be less",
    ),
    "parallel axes": (changed("a/ss = +1.0y", "a/ss = +1.0x"), "panel a: fs and ss are parallel"),
    "gap in dims": (changed("dim1 = ss\n", "dim1 = 0\n"), "panel a: dim0, dim1, ... must hold ss and fs once each"),
    "mask without place": ("mask_bad = 1\n" + GOOD, "panel a: mask0 has no mask0_data"),
    "region without end": (GOOD + "bad1/min_x = 1\nbad1/max_x = 2\nbad1/min_y = 1\n", "bad1: no max_y"),
    "region in no panel": (
        GOOD + "bad1/min_fs = 1\nbad1/max_fs = 2\nbad1/min_ss = 1\nbad1/max_ss = 2\nbad1/panel = c\n",
        "bad1: its fs and ss need the name of a panel of this geometry",
    ),
    "region outside": (
        GOOD + "bad1/min_fs = 1\nbad1/max_fs = 12\nbad1/min_ss = 1\nbad1/max_ss = 2\nbad1/panel = a\n",
        "bad1: reaches outside panel a",
    ),
    "value below the panels": (GOOD + "adu_per_photon = 1\n", "line 27: stands below the last panel's first line"),
    "no panels": ("clen = 1 m\n", "no panels"),
    "saturation map": (
        "saturation_map = /sat\n" + GOOD,
        "line 1: saturation_map: maps of saturation values are not read",
    ),
    "negative distance": (changed("clen = 0.1 m", "clen = -0.1 m"), "clen: the camera length must be positive"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_message_names_the_mistake_and_its_place(mistake):
    text, message = MISTAKES[mistake]
    with pytest.raises(InputError) as caught:
        parse(text)
    assert str(caught.value).startswith("det.geom")
    assert message in str(caught.value)


def test_slightly_overlapping_panels_of_refined_geometries_are_accepted():
    parse(changed("b/corner_x = 2.0", "b/corner_x = -2.5").replace("b/coffset = 0.001\n", ""))


@pytest.mark.parametrize(
    ("content", "message"), [(None, "can't be read (No such file"), (b"\xff\xfe\x00\x89", "not a text file")]
)
def test_a_file_that_is_no_geometry(tmp_path, content, message):
    path = tmp_path / "det.geom"
    if content:
        path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_geometry(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


numbers = st.floats(-3000, 3000, allow_nan=False).map(lambda x: round(x, 6))
flags = st.lists(st.tuples(st.sampled_from(["lessthan", "morethan", "equal"]), numbers), max_size=3).map(tuple)
masks = st.lists(
    st.builds(Mask, data=st.just("/mask"), file=st.sampled_from([None, "m.h5"]), bad_bits=st.integers(0, 2**32 - 1)),
    max_size=2,
).map(tuple)


@st.composite
def detectors(draw):
    panels = []
    same = draw(st.booleans())
    shared = draw(flags), draw(masks)
    for n in range(draw(st.integers(1, 4))):
        angle = draw(st.floats(-3, 3))
        pixel = draw(st.sampled_from([7.5e-5, 7.5e-5, 1.1e-4]))
        panel_flags, panel_masks = shared if same else (draw(flags), draw(masks))
        panels.append(
            Panel(
                name=f"p{n}",
                data="/data/%/frames",
                dims=("%", n, "ss", "fs"),
                min_fs=0,
                max_fs=draw(st.integers(1, 50)),
                min_ss=3,
                max_ss=draw(st.integers(4, 50)),
                origin=(1.0 * n, draw(numbers) * 1e-5, draw(numbers) * 1e-6),  # a metre apart: none hides another
                fs=(pixel * np.cos(angle), pixel * np.sin(angle), 0.0),
                ss=(-pixel * np.sin(angle), pixel * np.cos(angle), pixel * draw(st.floats(-0.1, 0.1))),
                slab_fs=0,
                slab_ss=0,
                adu_per_photon=draw(st.sampled_from([None, 1.0, 33.0])),
                max_adu=draw(st.sampled_from([np.inf, 16000.0])),
                flags=panel_flags,
                masks=panel_masks,
                mask_edge_pixels=draw(st.integers(0, 2)),
                no_index=draw(st.booleans()),
            )
        )
    return Detector(
        panels=placed_in_slab(panels),
        photon_energy=draw(st.sampled_from([9500.0, "/energy"])),
        clen=draw(st.sampled_from([0.1234567, "/clen"])),
        photon_energy_scale=1.0,
        clen_scale=1.0,
        bandwidth=draw(st.sampled_from([0.0, 0.002])),
        bad_regions=(Region("bad0", (-1.5, 2.0), (3.0, 4.0)), Region("bad1", (0, 3), (1, 4), panel="p0", in_xy=False)),
        rigid_groups={"group_all": tuple(p.name for p in panels)},
    )


@given(detectors())
def test_what_is_written_reads_back_as_the_same_detector(detector):
    text = io.StringIO()
    write_geom(text, detector)
    again = parse(text.getvalue())
    for there, here in zip(again.panels, detector.panels, strict=True):
        for name in ("origin", "fs", "ss"):
            # Corners are written in pixels of the panel: the last digit may change, on a scale of metres.
            np.testing.assert_allclose(getattr(there, name), getattr(here, name), rtol=1e-12, atol=1e-15)
        for name in set(vars(here)) - {"origin", "fs", "ss"}:
            assert getattr(there, name) == getattr(here, name), name
    for name in set(vars(detector)) - {"panels"}:
        assert getattr(again, name) == getattr(detector, name), name


def test_a_written_file_says_where_it_comes_from(tmp_path):
    write_geom(tmp_path / "new.geom", parse(GOOD))
    assert (tmp_path / "new.geom").read_text().startswith('; provenance: {"command"')
    assert read_geom(tmp_path / "new.geom").shape == (20, 20)


def test_third_party_geometries_are_read(shared_data):
    detector = read_geometry(shared_data / "data" / "crystfel_sim" / "det.geom")
    assert (detector.shape, len(detector.panels), detector.bandwidth) == ((4096, 512), 8, 0.002)
    assert detector.panels[0].masks[0].file == str((shared_data / "data" / "crystfel_sim" / "mask.h5").resolve())
    detector = read_geometry(shared_data / "data" / "thaumatin_i24" / "thaumatin_i24.geom")
    np.testing.assert_allclose(detector.panels[0].origin[:2], (1261.61 * 1.72e-4, 1306.96 * 1.72e-4), rtol=1e-6)
