"""Frames shown to DIALS: the master file holds the same pixels, the same geometry and the same beam as the files it was made from."""

import h5py
import hdf5plugin
import numpy as np
import pytest

from sfxflow.errors import InputError
from sfxflow.geometry import lab_positions, panel_arrays
from sfxflow.io.dials_files import detector_of, read_expt
from sfxflow.io.dials_job import EXPERIMENTS, FRAMES, present, trusted_range
from sfxflow.io.frames import open_frames
from sfxflow.io.geom import parse_geom
from sfxflow.io.nexus import detector_from_nexus
from sfxflow.io.nxmx_master import BAD_VALUE, rectangular, stretches

ROWS, COLUMNS = 12, 10
TOP = "adu_per_photon = 1\nres = 10000\n"
ENERGY = "photon_energy = 9000 eV\n"
CLEN = "clen = 0.1 m\n"
RNG = np.random.default_rng(7)


def panel(name, lines, number=0, angle=0.0):
    """A panel of ROWS x COLUMNS, turned in its plane."""
    c, s = np.cos(angle), np.sin(angle)
    axes = f"fs = {c:+.9f}x {s:+.9f}y\nss = {-s:+.9f}x {c:+.9f}y\n"
    text = f"{axes}corner_x = {3 * number}\ncorner_y = {20 * number}\ncoffset = {0.001 * number}\n{lines}"
    return "".join(f"{name}/{line}\n" for line in text.splitlines())


def in_slab(name, number):
    return panel(
        name,
        f"min_fs = 0\nmax_fs = 9\nmin_ss = {ROWS * number}\nmax_ss = {ROWS * number + ROWS - 1}",
        number,
        0.1 * number,
    )


def in_stack(name, number):
    return panel(name, f"min_fs = 0\nmax_fs = 9\nmin_ss = 0\nmax_ss = 11\ndim1 = {number}", number, -0.2 * number)


SLAB = TOP + "data = /entry/data/data\ndim0 = %\ndim1 = ss\ndim2 = fs\n" + in_slab("a", 0) + in_slab("b", 1)
STACK = TOP + "data = /entry/data/data\ndim0 = %\ndim2 = ss\ndim3 = fs\n" + in_stack("a", 0) + in_stack("b", 1)


def read(text):
    return parse_geom(text, "det.geom", ".")


def write(path, data, dataset="/entry/data/data", **options):
    with h5py.File(path, "w") as handle:
        handle.create_dataset(dataset, data=data, **options)
    return str(path)


def check(folder, frames, numbers):
    """The master of some frames against the frames themselves; returns its pixels."""
    folder.mkdir(exist_ok=True)
    presented = present(folder, frames, numbers)
    with h5py.File(folder / FRAMES) as handle:
        pixels = handle["/entry/data/data"][()]
        mask = handle["/entry/instrument/detector/pixel_mask"][()]
    assert len(pixels) == len(presented.numbers)
    np.testing.assert_array_equal(mask == 0, frames.mask)
    for i, number in enumerate(presented.numbers):
        frame = frames.read(number)
        good = frames.mask if frame.good is None else frames.mask & frame.good
        np.testing.assert_array_equal(pixels[i][good], frame.data[good])
    same_places(detector_from_nexus(folder / FRAMES), frames.detector, presented.beams[presented.numbers[0]][1])
    experiments, models = read_expt(folder / EXPERIMENTS)
    for experiment, number in zip(experiments, presented.numbers, strict=True):
        energy, clen = presented.beams[number]
        assert experiment.wavelength == pytest.approx(12398.41984 / energy, rel=1e-12)
        same_places(detector_of(models, experiment.detector), frames.detector, clen)
    return pixels


def same_places(found, expected, clen):
    """Corners of all panels lie where they should; `found` has its own camera length."""
    for number, p in enumerate(expected.panels):
        fs, ss = np.array([0.0, p.n_fs, 0.0]), np.array([0.0, 0.0, p.n_ss])
        places = []
        for detector, distance in ((found, found.clen), (expected, clen)):
            bounds = panel_arrays(detector).bounds[number]
            places.append(
                lab_positions(panel_arrays(detector), np.full(3, number), fs + bounds[2], ss + bounds[0], distance)
            )
        np.testing.assert_allclose(*places, atol=1e-10)


def test_panels_in_one_slab(tmp_path):
    data = RNG.integers(0, 900, (5, 2 * ROWS, COLUMNS)).astype(np.uint16)
    path = write(tmp_path / "a.h5", data, **hdf5plugin.Bitshuffle())
    with open_frames(path, read(ENERGY + CLEN + SLAB)) as frames:
        np.testing.assert_array_equal(check(tmp_path / "all", frames, range(5)), data)
        np.testing.assert_array_equal(check(tmp_path / "some", frames, [1, 2, 4]), data[[1, 2, 4]])
    with h5py.File(tmp_path / "all" / FRAMES) as handle:
        assert handle["/entry/data/data"].is_virtual
        assert len(handle["/entry/data/data"].virtual_sources()) == 1


def test_panels_on_a_leading_dimension(tmp_path):
    data = RNG.integers(0, 900, (4, 2, ROWS, COLUMNS)).astype(np.int32)
    with open_frames(write(tmp_path / "a.h5", data), read(ENERGY + CLEN + STACK)) as frames:
        pixels = check(tmp_path / "m", frames, range(4))
        np.testing.assert_array_equal(pixels, data.reshape(4, 2 * ROWS, COLUMNS))
    with h5py.File(tmp_path / "m" / FRAMES) as handle:
        assert len(handle["/entry/data/data"].virtual_sources()) == 2


def test_several_files_and_panels_in_arrays_of_their_own(tmp_path):
    geometry = ENERGY + CLEN + TOP + "dim0 = %\ndim1 = ss\ndim2 = fs\n"
    for number, name in enumerate("ab"):
        geometry += panel(
            name, f"min_fs = 0\nmax_fs = 9\nmin_ss = 0\nmax_ss = 11\ndata = /entry/{name}", number, 0.3 * number
        )
    for number in range(3):
        with h5py.File(tmp_path / f"f{number}.h5", "w") as handle:
            for name in "ab":
                handle[f"/entry/{name}"] = RNG.normal(size=(2, ROWS, COLUMNS)).astype(np.float32)
    with open_frames(str(tmp_path / "f*.h5"), read(geometry)) as frames:
        check(tmp_path / "m", frames, range(6))
        check(tmp_path / "middle", frames, [1, 2, 3])


def test_an_event_for_each_path(tmp_path):
    """One array an event, as CXI and EuXFEL's converters write them."""
    text = ENERGY + CLEN + TOP + "data = /%/data\ndim0 = ss\ndim1 = fs\n" + in_slab("a", 0)
    with h5py.File(tmp_path / "a.h5", "w") as handle:
        for number in range(3):
            handle[f"/event_{number}/data"] = RNG.integers(0, 9, (ROWS, COLUMNS))
    with open_frames(str(tmp_path / "a.h5"), read(text)) as frames:
        check(tmp_path / "m", frames, [0, 1, 2])


def test_arrays_with_fs_first_are_copied(tmp_path):
    data = RNG.integers(0, 900, (2, COLUMNS, ROWS)).astype(np.uint16)
    text = ENERGY + CLEN + TOP + "data = /entry/data/data\ndim0 = %\ndim1 = fs\ndim2 = ss\n" + in_slab("a", 0)
    with open_frames(write(tmp_path / "a.h5", data), read(text)) as frames:
        np.testing.assert_array_equal(check(tmp_path / "m", frames, [0, 1]), data.transpose(0, 2, 1))
    with h5py.File(tmp_path / "m" / FRAMES) as handle:
        assert not handle["/entry/data/data"].is_virtual


def test_bad_pixels_that_differ_from_frame_to_frame_are_copied_with_a_mark(tmp_path):
    data = RNG.integers(0, 900, (2, ROWS, COLUMNS)).astype(np.int32)
    masks = np.zeros((2, ROWS, COLUMNS), np.uint8)
    masks[0, 3, 4] = masks[1, 5, 6] = 1
    path = write(tmp_path / "a.h5", data)
    with h5py.File(path, "a") as handle:
        handle["/entry/mask"] = masks
    text = (
        ENERGY
        + CLEN
        + TOP
        + "data = /entry/data/data\ndim0 = %\ndim1 = ss\ndim2 = fs\nmask0_data = /entry/mask\nmask0_badbits = 1\n"
        + in_slab("a", 0)
    )
    with open_frames(path, read(text)) as frames:
        pixels = check(tmp_path / "m", frames, [0, 1])
    assert pixels[0, 3, 4] == pixels[1, 5, 6] == BAD_VALUE
    assert (pixels == BAD_VALUE).sum() == 2


def test_an_nxmx_file_goes_the_same_way(tmp_path):
    """Its modules, mask and wavelengths are read as those of any geometry: here of a virtual data set."""
    data = RNG.integers(0, 900, (4, 2, ROWS, COLUMNS)).astype(np.uint16)
    with open_frames(write(tmp_path / "a.h5", data), read(ENERGY + CLEN + STACK)) as frames:
        check(tmp_path / "m", frames, range(4))
    master = tmp_path / "m" / FRAMES
    with open_frames(str(master), detector_from_nexus(master)) as frames:
        pixels = check(tmp_path / "again", frames, [1, 2])
    np.testing.assert_array_equal(pixels, data.reshape(4, 2 * ROWS, COLUMNS)[1:3])


def test_images_are_copied(tmp_path):
    for number in range(2):
        np.save(tmp_path / f"i{number}.npy", RNG.integers(0, 99, (ROWS, COLUMNS)).astype(np.int32))
    text = ENERGY + CLEN + TOP + "data = /entry/data/data\ndim0 = ss\ndim1 = fs\n" + in_slab("a", 0)
    with open_frames(str(tmp_path / "i*.npy"), read(text)) as frames:
        check(tmp_path / "m", frames, [0, 1])


def test_photon_energy_and_camera_length_of_each_frame(tmp_path):
    data = np.ones((3, 2 * ROWS, COLUMNS), np.uint16)
    path = write(tmp_path / "a.h5", data)
    with h5py.File(path, "a") as handle:
        handle["/energy"], handle["/clen"] = [9000.0, 9010.0, 9030.0], [100.0, 100.0, 120.0]
    with open_frames(path, read("photon_energy = /energy eV\nclen = /clen mm\n" + SLAB)) as frames:
        check(tmp_path / "m", frames, [0, 1])
        folder = tmp_path / "n"
        folder.mkdir()
        present(folder, frames, [0, 1, 2])
    experiments, models = read_expt(folder / EXPERIMENTS)
    assert [one.detector for one in experiments] == [0, 0, 1]
    assert [detector_of(models, n).clen for n in (0, 1)] == pytest.approx([0.1005, 0.1205])
    with h5py.File(folder / FRAMES) as handle:
        found = handle["/entry/instrument/beam/incident_wavelength"][()]
    np.testing.assert_allclose(found, 12398.41984 / np.array([9000.0, 9010.0, 9030.0]))


def test_frames_that_cannot_be_read_are_named_and_left_out(tmp_path):
    data = np.ones((3, 2 * ROWS, COLUMNS), np.uint16)
    path = write(tmp_path / "a.h5", data)
    with h5py.File(path, "a") as handle:
        handle["/energy"] = [9000.0, np.nan, 9030.0]
    with open_frames(path, read("photon_energy = /energy eV\n" + CLEN + SLAB)) as frames:
        presented = present(tmp_path, frames, [0, 1, 2])
    assert presented.numbers == [0, 2]
    assert "the photon energy is nan eV" in presented.failed[1]


def test_values_that_mean_nothing_lie_outside_the_trusted_range(tmp_path):
    data = np.full((1, ROWS, COLUMNS), 5, np.uint16)
    data[0, 0, :2] = 65535, 65534
    text = ENERGY + CLEN + TOP + "data = /entry/data/data\ndim0 = %\ndim1 = ss\ndim2 = fs\n" + in_slab("a", 0)
    with open_frames(write(tmp_path / "a.h5", data), read(text)) as frames:
        low, high = trusted_range(frames)
    assert low < 0
    assert 65533 < high < 65534
    with open_frames(write(tmp_path / "b.h5", data), read("flag_lessthan = 0\n" + text)) as frames:
        low, _ = trusted_range(frames)
    assert -1 < low < 0


def test_pixels_that_are_not_rectangular(tmp_path):
    text = ENERGY + CLEN + TOP + "data = /entry/data/data\ndim0 = %\ndim1 = ss\ndim2 = fs\n" + in_slab("a", 0)
    text = text.replace("a/ss = -0.000000000x", "a/ss = +0.010000000x")
    path = write(tmp_path / "a.h5", np.ones((1, ROWS, COLUMNS), np.uint16))
    with (
        open_frames(path, read(text)) as frames,
        pytest.raises(InputError, match=r"0\.57 degrees from a right angle; DIALS knows rectangular pixels only"),
    ):
        present(tmp_path, frames, [0])


def test_nearest_rectangle():
    fs, ss = np.array([2.0, 0.002, 0.0]), np.array([0.0, 3.0, 0.0])
    found = rectangular(fs, ss)
    assert found[0] @ found[1] == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), np.linalg.norm([fs, ss], axis=1))
    np.testing.assert_allclose(found, [[2.0, 0.001, 0], [-0.0015, 3.0, 0]], atol=1e-5)


def test_consecutive_frames_are_one_stretch(tmp_path):
    data = np.ones((9, 2, ROWS, COLUMNS), np.uint8)
    with open_frames(write(tmp_path / "a.h5", data), read(ENERGY + CLEN + STACK)) as frames:
        found = stretches([frames.planes(i) for i in (0, 1, 2, 5, 6, 8)])
    assert [(s.start, s.stop, s.first, s.first_row) for s in found] == [
        (0, 3, 0, 0),
        (0, 3, 0, ROWS),
        (3, 5, 5, 0),
        (3, 5, 5, ROWS),
        (5, 6, 8, 0),
        (5, 6, 8, ROWS),
    ]
