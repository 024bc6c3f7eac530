"""What indexamajig is shown is what `open_frames` reads: the same pixels, the same good ones, the same beam."""

import fabio
import h5py
import numpy as np
import pytest

from sfxflow.io.crystfel_frames import FRAMES, GEOMETRY, LIST, Shown, present_frames, row_of_event
from sfxflow.io.frames import open_frames
from sfxflow.io.geom import parse_geom, read_geom

N, ROWS, COLUMNS = 6, 12, 10
TOP = "adu_per_photon = 1\nres = 10000\nfs = x\nss = y\nphoton_energy = {energy}\nclen = {clen}\n"
PANEL = "{name}/min_fs = 0\n{name}/max_fs = 9\n{name}/min_ss = {first}\n{name}/max_ss = {last}\n{name}/corner_x = 0\n{name}/corner_y = {y}\n"
SLAB = "data = /entry/data/data\ndim0 = %\ndim1 = ss\ndim2 = fs\n"
TWO_BELOW = PANEL.format(name="a", first=0, last=5, y=0) + PANEL.format(name="b", first=6, last=11, y=50)
#: Two panels of the same places in their arrays, as detectors at XFELs write them.
STACK = (
    "data = /entry/data/data\ndim0 = %\ndim2 = ss\ndim3 = fs\n"
    + "a/dim1 = 0\n" + PANEL.format(name="a", first=0, last=11, y=0)
    + "b/dim1 = 1\n" + PANEL.format(name="b", first=0, last=11, y=50)
)  # fmt: skip


def detector_of(text, energy="9000 eV", clen="0.1 m", folder="."):
    return parse_geom(TOP.format(energy=energy, clen=clen) + text, "det.geom", folder)


@pytest.fixture
def pixels():
    return np.random.default_rng(5).integers(0, 1000, (N, ROWS, COLUMNS))


def hdf5(path, frames, **more):
    with h5py.File(path, "w") as handle:
        handle["entry/data/data"] = frames
        for name, values in more.items():
            handle[name] = values
    return str(path)


def shown_again(folder, pattern, detector, rows, first=0, n_rows=None, mask=None, **options):
    """(original, as indexamajig sees it) as (pixel or NaN where bad, photon energy, camera length) for each row."""
    with open_frames(pattern, detector, mask) as frames:
        n_rows = n_rows or frames.n_frames - first
        shown = [Shown(row, *frames.beam(first + row)) for row in rows]
        present_frames(folder, frames, detector, first, n_rows, shown, **options)
        original = [_good_pixels(frames, first + row) for row in rows]
    with open_frames(str(folder / FRAMES), read_geom(folder / GEOMETRY)) as again:
        assert again.n_frames == n_rows
        return original, [_good_pixels(again, row) for row in rows]


def _good_pixels(frames, i):
    frame = frames.read(i)
    low, high = frames.valid_range
    good = frames.mask & (frame.data >= low) & (frame.data <= high)
    if frame.good is not None:
        good &= frame.good
    return np.where(good, frame.data.astype(float), np.nan), frame.photon_energy, frame.clen


def assert_the_same(original, again):
    assert original
    for (data, *beam), (other, *other_beam) in zip(original, again, strict=True):
        np.testing.assert_array_equal(data, other)
        np.testing.assert_allclose(beam, other_beam, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["u2", "i4", "f4"])
def test_frames_of_one_file(tmp_path, pixels, dtype):
    data = pixels.astype(dtype)
    if dtype == "u2":
        data[1, 3, 4] = 65535
    if dtype == "i4":
        data[:, 2, 2] = -1
    if dtype == "f4":
        data[2, 1, 1] = np.nan
    path = hdf5(tmp_path / "f.h5", data)
    original, again = shown_again(tmp_path, path, detector_of(SLAB + TWO_BELOW), [1, 2, 5])
    assert_the_same(original, again)
    assert np.isnan(original[0][0]).sum() + np.isnan(original[1][0]).sum() > 0


def test_a_part_of_several_files_and_a_gap_between_the_frames(tmp_path, pixels):
    for i in range(3):
        hdf5(tmp_path / f"f{i}.h5", pixels[2 * i : 2 * i + 2])
    original, again = shown_again(tmp_path, str(tmp_path / "f?.h5"), detector_of(SLAB + TWO_BELOW), [0, 1, 3], first=1)
    assert_the_same(original, again)
    np.testing.assert_array_equal(again[2][0], pixels[4])


def test_panels_in_planes_of_their_own_lie_below_one_another(tmp_path, pixels):
    """indexamajig can't tell from fs and ss which of these panels a peak is on: here it can."""
    data = np.stack([pixels, pixels[::-1]], axis=1)
    path = hdf5(tmp_path / "f.h5", data)
    original, again = shown_again(tmp_path, path, detector_of(STACK), [0, 4])
    assert_the_same(original, again)
    written = read_geom(tmp_path / GEOMETRY)
    places = [(p.min_ss, p.max_ss, p.min_fs, p.max_fs) for p in written.panels]
    assert places == [(0, 11, 0, 9), (12, 23, 0, 9)]
    assert [(p.slab_ss, p.slab_fs) for p in written.panels] == [(0, 0), (12, 0)]


def test_photon_energy_and_camera_length_of_each_frame(tmp_path, pixels):
    energies, clens = 9000.0 + np.arange(N), 80.0 + np.arange(N)
    path = hdf5(tmp_path / "f.h5", pixels.astype("u2"), energy=energies, clen=clens)
    detector = detector_of(SLAB + TWO_BELOW, "/energy eV", "/clen mm")
    original, again = shown_again(tmp_path, path, detector, [0, 3, 4])
    assert_the_same(original, again)
    np.testing.assert_allclose([row[1] for row in again], energies[[0, 3, 4]], rtol=1e-12)
    np.testing.assert_allclose([row[2] for row in again], clens[[0, 3, 4]] * 1e-3, rtol=1e-12)


def test_all_masks_in_one(tmp_path, pixels):
    """Mask of the geometry, its bad region and edges, and the user's mask."""
    bits = np.zeros((ROWS, COLUMNS), int)
    bits[4, 4] = 1
    hdf5(tmp_path / "mask.h5", pixels[0], bits=bits)
    extra = np.zeros((ROWS, COLUMNS), "u1")
    extra[7, 3] = 1
    with h5py.File(tmp_path / "extra.h5", "w") as handle:
        handle["mask"] = extra
    text = "mask_edge_pixels = 1\nmask0_data = /bits\nmask0_file = mask.h5\nmask0_badbits = 1\n" + SLAB
    text = "badr/min_fs = 2\nbadr/max_fs = 3\nbadr/min_ss = 2\nbadr/max_ss = 2\nbadr/panel = a\n" + text + TWO_BELOW
    path = hdf5(tmp_path / "f.h5", pixels.astype("u2"))
    original, again = shown_again(
        tmp_path, path, detector_of(text, folder=tmp_path), [0, 2], mask=str(tmp_path / "extra.h5")
    )
    assert_the_same(original, again)
    for place in ((4, 4), (7, 3), (2, 2), (2, 3), (0, 5), (6, 5)):
        assert np.isnan(again[0][0][place]), place
    assert not np.isnan(again[0][0][8, 3])


def test_masks_of_each_frame_are_copied_into_the_frames(tmp_path, pixels):
    bad = np.zeros((N, ROWS, COLUMNS), "u1")
    for i in range(N):
        bad[i, i, 2] = 1
    path = hdf5(tmp_path / "f.h5", pixels.astype("u2"), bad=bad)
    text = "mask0_data = /bad\nmask0_badbits = 1\n" + SLAB + TWO_BELOW
    original, again = shown_again(tmp_path, path, detector_of(text), [0, 3])
    assert_the_same(original, again)
    assert np.argwhere(np.isnan(again[1][0])).tolist() == [[3, 2]]


def test_images_are_copied(tmp_path, pixels):
    for i in range(3):
        fabio.cbfimage.CbfImage(data=pixels[i].astype("i4")).write(str(tmp_path / f"f{i}.cbf"))
    detector = detector_of("dim0 = ss\ndim1 = fs\n" + TWO_BELOW)
    original, again = shown_again(tmp_path, str(tmp_path / "f?.cbf"), detector, [0, 2])
    assert_the_same(original, again)
    np.testing.assert_array_equal(again[1][0], pixels[2])


def test_list_of_events_and_link_to_the_peaks(tmp_path, pixels):
    with h5py.File(tmp_path / "peaks.h5", "w") as handle:
        handle["entry_1/result_1/nPeaks"] = np.arange(N)
    path = hdf5(tmp_path / "f.h5", pixels.astype("u2"))
    shown_again(tmp_path, path, detector_of(SLAB + TWO_BELOW), [1, 4], peaks=tmp_path / "peaks.h5")
    lines = (tmp_path / LIST).read_text().splitlines()
    assert lines == [f"{tmp_path / FRAMES} //1", f"{tmp_path / FRAMES} //4"]
    assert [row_of_event(line.rsplit(" ", 1)[1]) for line in lines] == [1, 4]
    geometry = (tmp_path / GEOMETRY).read_text()
    assert "peak_list = /entry_1/result_1\npeak_list_type = cxi\n" in geometry
    with h5py.File(tmp_path / FRAMES) as handle:
        assert handle["entry_1/result_1/nPeaks"][()].tolist() == list(range(N))


def test_an_event_of_another_kind():
    with pytest.raises(ValueError, match="name"):
        row_of_event("name//3")
