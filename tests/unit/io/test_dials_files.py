"""DIALS' files: what is written is read again, and what is damaged is named. tests/real/test_dials.py holds them against DIALS itself."""

import json

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfxflow.errors import InputError
from sfxflow.geometry import Detector, Panel, lab_positions, panel_arrays, placed_in_slab
from sfxflow.io.dials_chunks import read_dials, write_dials
from sfxflow.io.dials_files import (
    FOREGROUND,
    VALID,
    Shoeboxes,
    beam_model,
    crystal_model,
    detector_model,
    detector_of,
    image_set,
    read_expt,
    read_refl,
    write_expt,
    write_refl,
)

ENERGIES = np.array([9000.0, 9123.0, 9321.0])


def turned(axis, angle):
    """Rotation matrix about an axis, Rodrigues."""
    x, y, z = np.array(axis) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


@pytest.fixture
def detector():
    """Two tilted panels of unequal pixels."""
    panels = []
    for number, (corner, tilt) in enumerate((((-0.02, -0.03, 0.001), 0.05), ((0.004, 0.005, -0.002), -0.2))):
        matrix = turned((1, 2, 3), tilt)
        panels.append(
            Panel(
                name=f"m{number}",
                data="/data",
                dims=("%", number, "ss", "fs"),
                min_fs=0,
                max_fs=99,
                min_ss=0,
                max_ss=49,
                origin=corner,
                fs=tuple(matrix[:, 0] * 7.5e-5),
                ss=tuple(-matrix[:, 1] * 1.0e-4),
                slab_fs=0,
                slab_ss=0,
            )
        )
    return Detector(panels=placed_in_slab(panels), photon_energy=9000.0, clen=0.1)


@st.composite
def tables(draw):
    """Columns of a reflection table."""
    n = draw(st.integers(0, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    boxes = Shoeboxes(rng.integers(0, 9, n), np.zeros((n, 6), np.int64), [], [], [])
    for i in range(n):
        width, height = rng.integers(0, 5, 2)
        left, top = rng.integers(-5, 500, 2)
        boxes.bbox[i] = left, left + width, top, top + height, 0, 1
        shape = (1, height, width) if width * height else (0, 0, 0)
        boxes.data.append(rng.normal(size=shape).astype(np.float32))
        boxes.mask.append(rng.choice([0, VALID, VALID | FOREGROUND], shape).astype(np.int32))
        boxes.background.append(rng.normal(size=shape).astype(np.float32))
    return {
        "id": rng.integers(-1, 9, n).astype(np.int32),
        "flags": rng.integers(0, 2**40, n).astype(np.uint64),
        "panel": rng.integers(0, 9, n).astype(np.uint64),
        "miller_index": rng.integers(-90, 90, (n, 3)).astype(np.int32),
        "bbox": boxes.bbox.astype(np.int32),
        "xyzcal.px": rng.normal(size=(n, 3)),
        "d": rng.normal(size=n),
        "entering": rng.integers(0, 2, n).astype(bool),
        "shoebox": boxes,
    }


@given(tables())
def test_reflection_table_is_read_as_written(tmp_path_factory, columns):
    path = tmp_path_factory.mktemp("refl") / "a.refl"
    write_refl(path, columns, {0: "one", 3: "three"})
    found, identifiers = read_refl(path)
    assert identifiers == {0: "one", 3: "three"}
    assert found.keys() == columns.keys()
    boxes, expected = found.pop("shoebox"), columns.pop("shoebox")
    for name, values in columns.items():
        np.testing.assert_array_equal(found[name], values)
        assert found[name].dtype == values.dtype, name
    np.testing.assert_array_equal(boxes.panel, expected.panel)
    for one, other in zip((*boxes.data, *boxes.mask), (*expected.data, *expected.mask), strict=True):
        np.testing.assert_array_equal(one, other)


def write_raw(path, content, kind="dials::af::reflection_table", version=1):
    path.write_bytes(msgpack.packb([kind, version, content]))


def test_reflection_tables_that_are_none(tmp_path):
    path = tmp_path / "a.refl"
    with pytest.raises(InputError, match=r"a\.refl: can't be read \(No such file"):
        read_refl(path)
    path.write_bytes(b"\x93\xa5")
    with pytest.raises(InputError, match="is not a reflection table of DIALS"):
        read_refl(path)
    write_raw(path, {}, version=2)
    with pytest.raises(InputError, match="version 2; 'dials::af::reflection_table' version 1 is expected"):
        read_refl(path)
    write_raw(path, {"identifiers": {}, "nrows": 2, "data": {"d": ["double", [1, b"\0" * 8]]}})
    with pytest.raises(InputError, match=r"damaged reflection table \(column d has 1 of 2 rows\)"):
        read_refl(path)
    write_raw(path, {"identifiers": {}, "nrows": 2, "data": {"d": ["double", [2, b"\0" * 8]]}})
    with pytest.raises(InputError, match="damaged reflection table"):
        read_refl(path)


def test_cut_off_reflection_table(tmp_path):
    path = tmp_path / "a.refl"
    write_refl(path, {"id": np.arange(50, dtype=np.int32)}, {})
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="or cut short"):
        read_refl(path)


def test_unknown_type_of_column_is_left_out(tmp_path):
    path = tmp_path / "a.refl"
    write_raw(
        path, {"identifiers": {}, "nrows": 1, "data": {"x": ["new type", [1, b"?"]], "id": ["int", [1, b"\1\0\0\0"]]}}
    )
    assert list(read_refl(path)[0]) == ["id"]


def test_geometry_is_read_as_written(detector, tmp_path):
    """Axes and units: dxtbx counts in millimetre in a laboratory that is turned by 180 degrees about y."""
    model = detector_model(detector, 0.1)
    np.testing.assert_allclose(model["panels"][0]["origin"], [20.0, -30.0, -101.0])
    found = detector_of({"detector": [model]})
    arrays, expected = panel_arrays(found), panel_arrays(detector)
    fs, ss = np.array([0.0, 100.0, 37.5, 12.0]), np.array([0.0, 50.0, 75.5, 99.9])
    panel = np.array([0, 0, 1, 1])
    np.testing.assert_allclose(
        lab_positions(arrays, panel, fs, ss, found.clen), lab_positions(expected, panel, fs, ss, 0.1), atol=1e-12
    )


def test_nodes_of_a_hierarchy_are_multiplied_out(detector):
    model = detector_model(detector, 0.1)
    flat = detector_of({"detector": [model]})
    # The same panels, each in a node that is turned and shifted and holds the panel's vectors the other way round.
    nodes = []
    for number, panel in enumerate(model["panels"]):
        matrix, shift = turned((0, 1, 1), 0.3), np.array([1.0, -2.0, 3.0])
        node = {"fast_axis": matrix[:, 0].tolist(), "slow_axis": matrix[:, 1].tolist(), "origin": shift.tolist()}
        panel["origin"] = (matrix.T @ (np.array(panel["origin"]) - shift)).tolist()
        for axis in ("fast_axis", "slow_axis"):
            panel[axis] = (matrix.T @ np.array(panel[axis])).tolist()
        nodes.append(node | {"children": [{"panel": number}]})
    root = {"fast_axis": [1.0, 0, 0], "slow_axis": [0, 1.0, 0], "origin": [0, 0, 0], "children": nodes}
    found = detector_of({"detector": [model | {"hierarchy": root}]})
    for one, other in zip(found.panels, flat.panels, strict=True):
        for name in ("origin", "fs", "ss"):
            np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-12)


def test_crystal_and_frame_are_read_as_written(tmp_path):
    reciprocal = turned((1, -2, 0.5), 1.1) @ np.diag([0.01, 0.02, 0.03])
    models = {
        "experiment": [{"identifier": "x", "beam": 0, "detector": 0, "imageset": 0, "crystal": 0}],
        "imageset": [image_set("frames.h5", 7)],
        "beam": [beam_model(1.5)],
        "crystal": [crystal_model(reciprocal, "P 4nw 2abw", 3000.0, 0.001)],
    }
    write_expt(tmp_path / "a.expt", models)
    (found,), _ = read_expt(tmp_path / "a.expt")
    np.testing.assert_allclose(found.reciprocal, reciprocal, rtol=1e-12)
    assert found._replace(reciprocal=None) == ("x", "frames.h5", 7, 1.5, 0, None, "P 4nw 2abw", 3000.0, 0.001)
    # a* of dxtbx's frame: x and z with the other sign.
    a = json.loads((tmp_path / "a.expt").read_text())["crystal"][0]["real_space_a"]
    np.testing.assert_allclose(a * np.array([-1, 1, -1]), np.linalg.inv(reciprocal)[0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not an experiment list of DIALS"),
        ("[]", "'__id__': 'ExperimentList' expected"),
        ('{"__id__": "ExperimentList"}', "damaged experiment list .KeyError: 'experiment'"),
        (
            '{"__id__": "ExperimentList", "experiment": [{"imageset": 0}], "imageset": [{"template": "a_####.cbf"}]}',
            "a rotation scan, not stills",
        ),
    ],
)
def test_experiment_lists_that_are_none(tmp_path, text, message):
    (tmp_path / "a.expt").write_text(text)
    with pytest.raises(InputError, match=message):
        read_expt(tmp_path / "a.expt")


@pytest.fixture
def chunk(detector):
    """frames, crystals and reflections of three frames, of which the second has two crystals and the third none."""
    rng = np.random.default_rng(5)
    frames = {"file": ["a.h5"] * 3, "event": ["//0", "//4", "//5"], "photon_energy": ENERGIES, "clen": [0.1, 0.1, 0.2]}
    reciprocal = np.array([turned(rng.normal(size=3), 2.0) @ np.diag([0.013, 0.02, 0.025]) for _ in range(3)])
    crystals = {"frame": np.array([0, 1, 1]), "reciprocal": reciprocal}
    crystals |= {"profile_radius": np.full(3, 2e-4), "mosaicity": np.full(3, 5e-4), "bandwidth": np.zeros(3)}
    n = 40
    panel = rng.integers(0, 2, n)
    reflections = {"crystal": np.sort(rng.integers(0, 3, n)), **{name: rng.integers(-9, 9, n) for name in "hkl"}}
    reflections |= {"I": rng.normal(100, 50, n), "sigI": rng.uniform(1, 9, n), "panel": panel}
    reflections |= {"fs": rng.uniform(0, 100, n), "ss": rng.uniform(0, 50, n) + 50 * panel}
    reflections |= {"excitation_error": rng.normal(0, 3e-4, n), "polarisation": rng.uniform(0.5, 1, n)}
    return frames, crystals, reflections | {"background": rng.uniform(0, 3, n)}


def test_tables_to_files_and_back(chunk, detector, tmp_path):
    names = write_dials(tmp_path / "a.expt", tmp_path / "a.refl", [chunk], detector, "P 1")
    assert len(set(names)) == 3
    frames, crystals, reflections, _ = read_dials(tmp_path / "a.expt", tmp_path / "a.refl", detector)
    assert frames["event"] == ["//0", "//4"]
    np.testing.assert_allclose(frames["photon_energy"], ENERGIES[:2], rtol=1e-12)
    np.testing.assert_array_equal(frames["n_lattices"], [1, 2])
    np.testing.assert_array_equal(crystals["frame"], [0, 1, 1])
    for name in ("reciprocal", "profile_radius", "mosaicity"):
        np.testing.assert_allclose(crystals[name], chunk[1][name], rtol=1e-9)
    for name in ("crystal", "h", "k", "l", "I", "sigI", "fs", "ss", "panel", "background"):
        np.testing.assert_allclose(reflections[name], chunk[2][name], rtol=1e-12, err_msg=name)


def test_own_geometry_of_the_files(chunk, detector, tmp_path):
    """Without a geometry the panels are those of the file, one below the other; the camera length is theirs."""
    write_dials(tmp_path / "a.expt", tmp_path / "a.refl", [chunk], detector, "P 1")
    frames, _, reflections, found = read_dials(tmp_path / "a.expt", tmp_path / "a.refl")
    np.testing.assert_allclose(reflections["ss"], chunk[2]["ss"], rtol=1e-12)
    panel = chunk[2]["panel"]
    np.testing.assert_allclose(
        lab_positions(panel_arrays(found), panel, reflections["fs"], reflections["ss"], frames["clen"][0]),
        lab_positions(panel_arrays(detector), panel, chunk[2]["fs"], chunk[2]["ss"], 0.1),
        atol=1e-9,
    )


def test_excitation_errors_are_computed_from_the_orientation(chunk, detector, tmp_path):
    write_dials(tmp_path / "a.expt", tmp_path / "a.refl", [chunk], detector, "P 1")
    _, crystals, found, _ = read_dials(tmp_path / "a.expt", tmp_path / "a.refl", detector)
    for i in range(len(found["h"])):
        c = found["crystal"][i]
        k = ENERGIES[crystals["frame"][c]] / 12398.41984
        q = crystals["reciprocal"][c] @ [found["h"][i], found["k"][i], found["l"][i]]
        ray = q + [0, 0, k]
        assert found["excitation_error"][i] == pytest.approx(k - np.linalg.norm(ray), abs=1e-12)
        u = ray / np.linalg.norm(ray)
        assert found["polarisation"][i] == pytest.approx(0.99 * (1 - u[0] ** 2) + 0.01 * (1 - u[1] ** 2), rel=1e-9)


def test_no_crystal_at_all(chunk, detector, tmp_path):
    frames, crystals, reflections = chunk
    none = ({k: v[:0] for k, v in crystals.items()}, {k: v[:0] for k, v in reflections.items()})
    write_dials(tmp_path / "a.expt", tmp_path / "a.refl", [(frames, *none)], detector, "P 1")
    frames, crystals, reflections, _ = read_dials(tmp_path / "a.expt", tmp_path / "a.refl", detector)
    assert (len(frames["file"]), len(crystals["frame"]), len(reflections["I"])) == (0, 0, 0)


def test_files_that_do_not_belong_together(chunk, detector, tmp_path):
    write_dials(tmp_path / "a.expt", tmp_path / "a.refl", [chunk], detector, "P 1")
    columns, identifiers = read_refl(tmp_path / "a.refl")
    write_refl(tmp_path / "b.refl", columns, identifiers | {1: "stranger"})
    with pytest.raises(InputError, match=r"has reflections of the experiment stranger, which .*a\.expt does not have"):
        read_dials(tmp_path / "a.expt", tmp_path / "b.refl", detector)
    write_refl(tmp_path / "b.refl", columns | {"id": columns["id"] + 5}, identifiers)
    with pytest.raises(InputError, match="for which there is no experiment"):
        read_dials(tmp_path / "a.expt", tmp_path / "b.refl", detector)
    del columns["intensity.sum.value"]
    write_refl(tmp_path / "b.refl", columns, identifiers)
    with pytest.raises(InputError, match=r"has no column intensity\.sum\.value; integrated reflections are expected"):
        read_dials(tmp_path / "a.expt", tmp_path / "b.refl", detector)
