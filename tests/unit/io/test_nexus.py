"""The detector of NXmx files, against positions written out by hand."""

import io

import h5py
import numpy as np
import pytest

from sfxflow.errors import InputError
from sfxflow.geometry import lab_positions, panel_arrays
from sfxflow.io.frames import open_frames
from sfxflow.io.geom import parse_geom, write_geom
from sfxflow.io.geometry import read_geometry
from sfxflow.io.nexus import detector_from_nexus

ROWS, COLUMNS = 12, 10


def group(parent, name, nx_class):
    made = parent.create_group(name)
    made.attrs["NX_class"] = nx_class
    return made


def value(parent, name, data, **attributes):
    dataset = parent.create_dataset(name, data=data)
    for key, attribute in attributes.items():
        dataset.attrs[key] = attribute
    return dataset


def translation(parent, name, length, vector, depends_on, units="mm", **more):
    value(
        parent,
        name,
        length,
        transformation_type="translation",
        vector=vector,
        depends_on=depends_on,
        units=units,
        **more,
    )


def rotation(parent, name, angle, vector, depends_on, **more):
    value(
        parent, name, angle, transformation_type="rotation", vector=vector, depends_on=depends_on, units="deg", **more
    )


@pytest.fixture
def master(tmp_path):
    """A path and an open NXmx file with one module, beam centre at pixel (4, 5) (fs, ss), 100 mm from the sample."""
    path = tmp_path / "x_master.h5"
    with h5py.File(path, "w") as handle:
        entry = group(handle, "entry", "NXentry")
        instrument = group(entry, "instrument", "NXinstrument")
        beam = group(instrument, "beam", "NXbeam")
        value(beam, "incident_wavelength", 1.25, units="angstrom")
        detector = group(instrument, "detector", "NXdetector")
        transformations = group(detector, "transformations", "NXtransformations")
        translation(transformations, "det_z", 100.0, [0, 0, 1], ".")
        module = group(detector, "module", "NXdetector_module")
        value(module, "data_origin", [0, 0])
        value(module, "data_size", [ROWS, COLUMNS])
        chain = "/entry/instrument/detector/transformations/det_z"
        translation(module, "module_offset", 0.0, [1, 0, 0], chain, offset=[0.4, 0.5, 0.0], offset_units="mm")
        translation(module, "fast_pixel_direction", 0.1, [-1, 0, 0], "/entry/instrument/detector/module/module_offset")
        translation(module, "slow_pixel_direction", 0.1, [0, -1, 0], "/entry/instrument/detector/module/module_offset")
        mask = np.zeros((ROWS, COLUMNS), dtype="u4")
        mask[2, 3], mask[4, 5] = 1, 2**31
        value(detector, "pixel_mask", mask)
        value(detector, "saturation_value", 60000)
        value(detector, "underload_value", 0)
        data = group(entry, "data", "NXdata")
        data.attrs["signal"] = "data"
        value(data, "data", np.arange(3 * ROWS * COLUMNS, dtype="u2").reshape(3, ROWS, COLUMNS))
    return path


def edit(path):
    return h5py.File(path, "a")


def corner_positions(detector, panel=0):
    """Laboratory positions of three corners: first pixel, end along fs, end along ss."""
    p = detector.panels[panel]
    fs = p.slab_fs + np.array([0, p.n_fs, 0])
    ss = p.slab_ss + np.array([0, 0, p.n_ss])
    return lab_positions(panel_arrays(detector), np.full(3, panel), fs, ss, detector.clen)


def test_one_module(master):
    detector = read_geometry(master)
    np.testing.assert_allclose(
        corner_positions(detector),
        [[0.4e-3, 0.5e-3, 0.1], [0.4e-3 - COLUMNS * 1e-4, 0.5e-3, 0.1], [0.4e-3, 0.5e-3 - ROWS * 1e-4, 0.1]],
        atol=1e-12,
    )
    panel = detector.panels[0]
    assert detector.clen == pytest.approx(0.1)
    assert (panel.data, panel.dims, panel.n_ss, panel.n_fs) == ("/entry/data/data", ("%", "ss", "fs"), ROWS, COLUMNS)
    assert (panel.max_adu, panel.flags) == (60000, (("lessthan", 0.0),))


def test_its_frames_are_read_with_mask_and_wavelength(master):
    with open_frames(master, read_geometry(master)) as frames:
        assert frames.n_frames == 3
        frame = frames.read(2)
        assert frame.photon_energy == pytest.approx(12398.41984 / 1.25)
        assert frame.data[0, 1] == 2 * ROWS * COLUMNS + 1
        assert [tuple(map(int, where)) for where in np.argwhere(~frames.mask)] == [(2, 3), (4, 5)]
        assert frames.valid_range == (0.0, 65533.0)


def test_a_wavelength_for_each_frame(master):
    with edit(master) as handle:
        beam = handle["/entry/instrument/beam"]
        del beam["incident_wavelength"]
        value(beam, "incident_wavelength", [0.1, 0.11, 0.12], units="nm")
    with open_frames(master, read_geometry(master)) as frames:
        assert [frames.read(i).photon_energy for i in range(3)] == pytest.approx(
            [12398.41984 / w for w in (1.0, 1.1, 1.2)]
        )


def test_a_spectrum_gives_its_mean_and_width(master):
    with edit(master) as handle:
        beam = handle["/entry/instrument/beam"]
        del beam["incident_wavelength"]
        value(beam, "incident_wavelength", [1.0, 1.1, 1.2], units="angstrom")
        value(beam, "incident_wavelength_weights", [1.0, 2.0, 1.0])
    detector = read_geometry(master)
    assert detector.photon_energy == pytest.approx(12398.41984 / 1.1)
    assert detector.bandwidth == pytest.approx(np.sqrt(0.5 * 0.01) / 1.1)


def test_a_chain_of_rotations_and_translations(master):
    """The arm turns by 30 degrees about y before the detector is 100 mm away along it; the detector is rolled by 90 degrees."""
    with edit(master) as handle:
        transformations = handle["/entry/instrument/detector/transformations"]
        transformations["det_z"].attrs["depends_on"] = "two_theta"
        rotation(transformations, "two_theta", 30.0, [0, 1, 0], ".")
        rotation(transformations, "roll", 90.0, [0, 0, 1], "det_z")
        handle["/entry/instrument/detector/module/module_offset"].attrs["depends_on"] = transformations.name + "/roll"
    c, s = np.cos(np.pi / 6), np.sin(np.pi / 6)

    def placed(x, y):  # in the plane of the detector -> rolled (x, y) -> (-y, x), pushed out, turned about y
        x, y, z = -y, x, 0.1
        return [c * x + s * z, y, -s * x + c * z]

    expected = [placed(0.4e-3, 0.5e-3), placed(-0.6e-3, 0.5e-3), placed(0.4e-3, -0.7e-3)]
    np.testing.assert_allclose(corner_positions(read_geometry(master)), expected, atol=1e-12)


def test_several_modules_in_one_array_and_in_a_stack(master):
    with edit(master) as handle:
        detector = handle["/entry/instrument/detector"]
        del handle["/entry/data/data"], detector["module"], detector["pixel_mask"]
        stack = np.arange(2 * 2 * 6 * COLUMNS, dtype="i4").reshape(2, 2, 6, COLUMNS)
        value(handle["/entry/data"], "data", stack)
        for n in range(2):
            module = group(detector, f"m{n}", "NXdetector_module")
            value(module, "data_origin", [n, 0, 0])
            value(module, "data_size", [1, 6, COLUMNS])
            translation(module, "offset", 1.0 * n, [0, 1, 0], detector.name + "/transformations/det_z")
            translation(module, "fast_pixel_direction", 0.1, [1, 0, 0], "offset")
            translation(module, "slow_pixel_direction", 0.1, [0, 1, 0], "offset")
    geometry = read_geometry(master)
    assert [p.dims for p in geometry.panels] == [("%", 0, "ss", "fs"), ("%", 1, "ss", "fs")]
    np.testing.assert_allclose(corner_positions(geometry, 1)[0], [0, 1e-3, 0.1], atol=1e-12)
    with open_frames(master, geometry) as frames:
        np.testing.assert_array_equal(frames.read(1).data, stack[1].reshape(12, COLUMNS))


def test_frames_behind_external_links(master, tmp_path):
    with edit(master) as handle:
        data = handle["/entry/data"]
        frames = data["data"][()]
        del data["data"]
        for n in range(2):
            with h5py.File(tmp_path / f"x_data_{n}.h5", "w") as part:
                part["/entry/data/data"] = frames + n
            data[f"data_{n:06d}"] = h5py.ExternalLink(f"x_data_{n}.h5", "/entry/data/data")
    with open_frames(master, read_geometry(master)) as opened:
        assert [opened.origin(i)[1] for i in (0, 5)] == ["data_000000//0", "data_000001//2"]
        np.testing.assert_array_equal(opened.read(4).data, frames[1] + 1)
    (tmp_path / "x_data_0.h5").unlink()
    with pytest.raises(InputError, match=r"data_000000 is a link to .*x_data_0\.h5, which can't be opened"):
        read_geometry(master)


def test_beam_centre_and_distance_where_there_are_no_modules(master):
    with edit(master) as handle:
        detector = handle["/entry/instrument/detector"]
        del detector["module"]
        value(detector, "x_pixel_size", 1e-4, units="m")
        value(detector, "y_pixel_size", 1e-4, units="m")
        value(detector, "beam_center_x", 4.0)
        value(detector, "beam_center_y", 5.0)
        value(detector, "detector_distance", 0.1, units="m")
    expected = [[0.4e-3, 0.5e-3, 0.1], [-0.6e-3, 0.5e-3, 0.1], [0.4e-3, -0.7e-3, 0.1]]
    np.testing.assert_allclose(corner_positions(read_geometry(master)), expected, atol=1e-12)


def test_it_can_be_written_as_a_geometry_file(master):
    detector = read_geometry(master)
    text = io.StringIO()
    write_geom(text, detector)
    again = parse_geom(text.getvalue(), "g")
    np.testing.assert_allclose(corner_positions(again), corner_positions(detector), atol=1e-12)
    assert (again.photon_energy, again.photon_energy_is_wavelength) == (
        "/entry/instrument/beam/incident_wavelength",
        True,
    )


def remove(name):
    return lambda handle: handle.__delitem__(name)


def other_unit(handle):
    handle["/entry/instrument/detector/module/fast_pixel_direction"].attrs["units"] = "furlong"


def broken_chain(handle):
    handle["/entry/instrument/detector/module/module_offset"].attrs["depends_on"] = "/entry/nowhere"


def endless_chain(handle):
    handle["/entry/instrument/detector/transformations/det_z"].attrs["depends_on"] = "det_z"


def behind_the_sample(handle):
    handle["/entry/instrument/detector/transformations/det_z"][()] = -100.0


def moving(handle):
    transformations = handle["/entry/instrument/detector/transformations"]
    del transformations["det_z"]
    translation(transformations, "det_z", [100.0, 101.0], [0, 0, 1], ".")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove("/entry/instrument/beam/incident_wavelength"), "no incident_wavelength in an NXbeam group"),
        (remove("/entry/instrument"), "no NXinstrument in /entry, so it is not an NXmx file"),
        (remove("/entry/instrument/detector"), "no NXdetector in /entry/instrument"),
        (remove("/entry/instrument/detector/module/data_size"), "no data_size in /entry/instrument/detector/module"),
        (remove("/entry/data/data"), "no frames in an NXdata group of /entry"),
        (other_unit, "fast_pixel_direction has the unit 'furlong'"),
        (broken_chain, "depends_on names /entry/nowhere, which is not in the file"),
        (endless_chain, "has no end"),
        (behind_the_sample, "m along the beam from the sample; a positive distance is expected"),
        (moving, "det_z differs from frame to frame"),
    ],
)
def test_what_an_nxmx_file_can_lack(master, change, message):
    with edit(master) as handle:
        change(handle)
    with pytest.raises(InputError) as caught:
        detector_from_nexus(master)
    assert str(caught.value).startswith(str(master))
    assert message in str(caught.value)


def test_an_hdf5_file_that_is_not_nxmx(tmp_path):
    with h5py.File(tmp_path / "f.h5", "w") as handle:
        handle["/data"] = np.zeros((2, 3))
    with pytest.raises(InputError, match=r"no NXentry in /, so it is not an NXmx file; .*/data float64 \(2, 3\)"):
        read_geometry(tmp_path / "f.h5")
