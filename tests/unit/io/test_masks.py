"""Which pixels are good, in every way that a geometry can say it."""

import h5py
import numpy as np
import pytest

from sfxflow.errors import FrameError, InputError
from sfxflow.io.frames import open_frames
from sfxflow.io.geom import parse_geom, read_geom
from sfxflow.io.masks import extra_mask, geometry_mask, good_by_bits

ROWS, COLUMNS = 8, 6
RNG = np.random.default_rng(5)


def text(top="", panel="", second=""):
    """Two panels of 8 x 6 pixels, one above the other in the data."""
    lines = "photon_energy = 9000 eV\nclen = 0.1 m\nres = 10000\nfs = x\nss = y\ndata = /data\ndim0 = %\ndim1 = ss\ndim2 = fs\n"
    lines += f"min_fs = 0\nmax_fs = {COLUMNS - 1}\n{top}\n"
    for n, extra in enumerate((panel, second)):
        lines += f"p{n}/min_ss = {n * ROWS}\np{n}/max_ss = {n * ROWS + ROWS - 1}\np{n}/corner_x = -3\np{n}/corner_y = {20 * n}\n"
        lines += "".join(f"p{n}/{line}\n" for line in extra.splitlines())
    return lines


def detector(*args, **options):
    return parse_geom(text(*args, **options), "det.geom")


@pytest.fixture
def file(tmp_path):
    """Three frames of 16 x 6 pixels."""
    with h5py.File(tmp_path / "f.h5", "w") as handle:
        handle["/data"] = RNG.integers(0, 100, (3, 2 * ROWS, COLUMNS)).astype("i4")
    return tmp_path / "f.h5"


def add(file, name, values):
    with h5py.File(file, "a") as handle:
        handle[name] = values


# ---- the geometry alone


def test_edges_and_panels_that_are_not_indexed():
    good = geometry_mask(detector("mask_edge_pixels = 2", second="no_index = 1"))
    expected = np.zeros((2 * ROWS, COLUMNS), dtype=bool)
    expected[2:-2, 2:-2][: ROWS - 4] = True
    np.testing.assert_array_equal(good, expected)


def test_edges_wider_than_the_panel_leave_nothing():
    assert not geometry_mask(detector("mask_edge_pixels = 4")).any()


def test_bad_regions_in_pixels_of_a_panel():
    region = "bad1/panel = p1\nbad1/min_fs = 1\nbad1/max_fs = 2\nbad1/min_ss = 9\nbad1/max_ss = 9\n"
    good = geometry_mask(parse_geom(text() + region, "g"))
    assert [tuple(int(i) for i in where) for where in np.argwhere(~good)] == [(9, 1), (9, 2)]


def test_bad_regions_in_the_laboratory_touch_every_panel_there():
    region = "bad1/min_x = -1.5\nbad1/max_x = 1\nbad1/min_y = 6\nbad1/max_y = 22\n"
    good = geometry_mask(parse_geom(text() + region, "g"))
    expected = np.ones_like(good)
    for n in range(2):
        for ss in range(ROWS):
            for fs in range(COLUMNS):
                x, y = -3 + fs, 20 * n + ss
                expected[n * ROWS + ss, fs] = not (-1.5 < x < 1 and 6 < y < 22)
    np.testing.assert_array_equal(good, expected)
    assert 0 < (~good).sum() < good.size


# ---- mask arrays


def test_good_and_bad_bits_bit_by_bit():
    values = np.arange(16, dtype=np.uint32)
    for good_bits in range(16):
        for bad_bits in range(16):
            expected = [not (v & good_bits != good_bits or v & bad_bits) for v in range(16)]
            assert good_by_bits(values, good_bits, bad_bits).tolist() == expected
    assert good_by_bits(np.array([0, 2**31], dtype=np.uint32), 0, 0xFFFFFFFF).tolist() == [True, False]
    assert good_by_bits(np.array([0, -1], dtype=np.int32), 0, 0xFFFFFFFF).tolist() == [True, False]
    assert good_by_bits(np.array([False, True]), 0, 1).tolist() == [True, False]


def array():
    return RNG.integers(0, 4, (2 * ROWS, COLUMNS)).astype("u1")


@pytest.mark.parametrize(
    "words", ["mask = /m\nmask_good = 1\nmask_bad = 2", "mask0_data = /m\nmask0_goodbits = 0x1\nmask0_badbits = 0x2"]
)
def test_a_static_mask_in_the_data_file(file, words):
    values = array()
    add(file, "/m", values)
    with open_frames(file, detector(words)) as frames:
        np.testing.assert_array_equal(frames.mask, values == 1)
        assert frames.read(1).good is None


def test_masks_in_files_of_their_own_are_found_beside_the_geometry(file, tmp_path, monkeypatch):
    (tmp_path / "geometry").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    beside, working = array(), array()
    for path, values in (("../geometry/beside.h5", beside), ("working.h5", working)):
        with h5py.File(path, "w") as handle:
            handle["/m"] = values
    words = "mask0_data = /m\nmask0_file = beside.h5\nmask0_badbits = 1\nmask5_data = /m\nmask5_file = working.h5\nmask5_badbits = 2"
    (tmp_path / "geometry" / "det.geom").write_text(text(words))
    with open_frames(file, read_geom(tmp_path / "geometry" / "det.geom")) as frames:
        np.testing.assert_array_equal(frames.mask, ((beside & 1) == 0) & ((working & 2) == 0))
    (tmp_path / "work" / "working.h5").unlink()
    with pytest.raises(InputError, match=r"working\.h5: the geometry names this mask file, but it is neither beside"):
        open_frames(file, read_geom(tmp_path / "geometry" / "det.geom"))


def test_a_panel_with_a_mask_of_its_own(file):
    values = array()
    add(file, "/m", values)
    with open_frames(file, detector(second="mask_bad = 2\nmask = /m")) as frames:
        assert frames.mask[:ROWS].all()
        np.testing.assert_array_equal(frames.mask[ROWS:], (values[ROWS:] & 2) == 0)


@pytest.mark.parametrize("external", [False, True])
def test_a_mask_for_each_event(file, tmp_path, external):
    values = np.stack([array() for _ in range(3)])
    add(file if not external else tmp_path / "m.h5", "/m", values)
    words = "mask = /m\nmask_bad = 1" + ("\nmask_file = m.h5" if external else "")
    geometry = parse_geom(text(words), "det.geom", tmp_path)
    with open_frames(file, geometry) as frames:
        assert frames.mask.all()
        for i in range(3):
            np.testing.assert_array_equal(frames.read(i).good, (values[i] & 1) == 0)


def test_a_mask_with_one_entry_for_all_events_is_static(file):
    values = array()
    add(file, "/m", values[None])
    with open_frames(file, detector("mask = /m\nmask_bad = 1")) as frames:
        np.testing.assert_array_equal(frames.mask, (values & 1) == 0)
        assert frames.read(2).good is None


def test_a_mask_beside_each_named_event(tmp_path):
    values = {"a": array(), "b": array()}
    with h5py.File(tmp_path / "f.h5", "w") as handle:
        for name, mask in values.items():
            handle[f"/{name}/data"] = np.zeros((2 * ROWS, COLUMNS), dtype="i2")
            handle[f"/{name}/m"] = mask
    words = (
        text("mask = /%/m\nmask_bad = 1")
        .replace("dim0 = %\ndim1 = ss\ndim2 = fs\n", "")
        .replace("data = /data", "data = /%/data")
    )
    with open_frames(tmp_path / "f.h5", parse_geom(words, "g")) as frames:
        assert [frames.origin(i)[1] for i in range(2)] == ["a//", "b//"]
        for i, name in enumerate("ab"):
            np.testing.assert_array_equal(frames.read(i).good, (values[name] & 1) == 0)


def test_files_with_different_masks_keep_their_own(tmp_path):
    values = [array(), array()]
    values.append(values[0])
    for n, mask in enumerate(values):
        with h5py.File(tmp_path / f"f{n}.h5", "w") as handle:
            handle["/data"] = np.zeros((1, 2 * ROWS, COLUMNS), dtype="i2")
            handle["/m"] = mask
    with open_frames(tmp_path / "f*.h5", detector("mask = /m\nmask_bad = 1")) as frames:
        np.testing.assert_array_equal(frames.mask, (values[0] & 1) == 0)
        assert frames.read(0).good is None
        np.testing.assert_array_equal(frames.read(1).good, (values[1] & 1) == 0)
        assert frames.read(2).good is None


def test_a_mask_of_another_shape_in_the_geometry(file):
    add(file, "/m", np.zeros((ROWS, COLUMNS), dtype="u1"))
    with pytest.raises(InputError) as caught:
        open_frames(file, detector("mask = /m\nmask_bad = 1"))
    assert "f.h5: /m: the mask has the shape (8, 6), but panel p1 reaches ss 15" in str(caught.value)


def test_a_mask_with_too_few_dimensions(file):
    add(file, "/m", np.zeros(ROWS, dtype="u1"))
    with pytest.raises(
        InputError, match=r"f\.h5: the mask /m has 1 dimensions; the data's 3, or 2 without those of the events"
    ):
        open_frames(file, detector("mask = /m\nmask_bad = 1"))


@pytest.mark.parametrize("per_event", [False, True])
def test_masks_of_a_stack_of_panels(tmp_path, per_event):
    values = RNG.integers(0, 2, (3, 2, ROWS, COLUMNS)).astype("u1")
    with h5py.File(tmp_path / "f.h5", "w") as handle:
        handle["/data"] = np.zeros(values.shape, dtype="i2")
        handle["/m"] = values if per_event else values[0]
    words = text("mask = /m\nmask_bad = 1\ndim2 = ss\ndim3 = fs\nmin_ss = 0\nmax_ss = 7", "dim1 = 1", "dim1 = 0")
    words = "\n".join(
        line for line in words.splitlines() if not line.startswith(("p0/min", "p0/max", "p1/min", "p1/max", "dim1"))
    )
    with open_frames(tmp_path / "f.h5", parse_geom(words, "g")) as frames:
        for i in range(3):
            good = frames.mask if not per_event else frames.read(i).good
            expected = values[i if per_event else 0]
            for panel, k in zip(frames.detector.panels, (1, 0), strict=True):
                np.testing.assert_array_equal(good[panel.slab_ss : panel.slab_ss + ROWS], expected[k] == 0)


def test_a_frame_whose_own_mask_is_corrupt_or_missing_fails_alone(file):
    values = np.stack([array() for _ in range(2)])
    with h5py.File(file, "a") as handle:
        dataset = handle.create_dataset("/m", data=values, chunks=(1, 2 * ROWS, COLUMNS), compression="gzip")
        dataset.id.write_direct_chunk((1, 0, 0), b"nonsense")
    with open_frames(file, detector("mask = /m\nmask_bad = 1")) as frames:
        np.testing.assert_array_equal(frames.read(0).good, (values[0] & 1) == 0)
        for i in (1, 2):
            with pytest.raises(FrameError, match=f"/m: the mask of //{i} can't be read"):
                frames.read(i)


def test_a_mask_of_the_user_that_is_corrupt(file, tmp_path):
    with h5py.File(tmp_path / "user.h5", "w") as handle:
        dataset = handle.create_dataset("/mask", data=array(), chunks=(2 * ROWS, COLUMNS), compression="gzip")
        dataset.id.write_direct_chunk((0, 0), b"nonsense")
    with pytest.raises(InputError, match=r"user\.h5: the mask can't be read"):
        open_frames(file, detector(), tmp_path / "user.h5")


def test_a_mask_that_is_not_in_the_file(file):
    with pytest.raises(
        InputError, match=r"f\.h5: no dataset /m \(mask of panel p0, as the geometry says\); the file has /data"
    ):
        open_frames(file, detector("mask = /m\nmask_bad = 1"))


# ---- pixel values


def frames_of(tmp_path, values, *words, dtype=None):
    path = tmp_path / "v.h5"
    with h5py.File(path, "w") as handle:
        handle["/data"] = np.asarray(values, dtype=dtype).reshape(-1, 2 * ROWS, COLUMNS)
    return open_frames(path, detector(*words))


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("u1", 253), ("u2", 65533), ("u4", 4294967293), ("f4", np.inf), ("i2", np.inf)],
)
def test_the_highest_values_of_unsigned_integers_are_bad(tmp_path, dtype, expected):
    with frames_of(tmp_path, np.zeros(2 * ROWS * COLUMNS), dtype=dtype) as frames:
        assert frames.valid_range == (-np.inf, expected)


@pytest.mark.parametrize(("lowest", "expected"), [(-1, 0.0), (-2, 0.0), (0, -np.inf), (-3, -np.inf), (-900, -np.inf)])
def test_minus_one_and_two_mark_gaps_of_signed_integers(tmp_path, lowest, expected):
    values = RNG.integers(0, 50, 2 * ROWS * COLUMNS)
    values[7] = lowest
    with frames_of(tmp_path, values, dtype="i4") as frames:
        assert frames.valid_range == (expected, np.inf)


def test_a_flag_of_the_geometry_says_more_than_the_lowest_value(tmp_path):
    values = np.full(2 * ROWS * COLUMNS, -1)
    with frames_of(tmp_path, values, "flag_lessthan = -5\nflag_morethan = 1000", dtype="i4") as frames:
        assert frames.valid_range == (-5.0, 1000.0)
        assert frames.read(0).good is None


def test_gaps_are_looked_for_in_the_first_frame_that_can_be_read(tmp_path):
    path = tmp_path / "v.h5"
    with h5py.File(path, "w") as handle:
        data = np.full((2, 2 * ROWS, COLUMNS), -1, dtype="i4")
        dataset = handle.create_dataset("/data", data=data, chunks=(1, 2 * ROWS, COLUMNS), compression="gzip")
        dataset.id.write_direct_chunk((0, 0, 0), b"nonsense")
    with open_frames(path, detector()) as frames:
        assert frames.valid_range == (0.0, np.inf)
        with pytest.raises(FrameError):
            frames.read(0)


def test_an_excluded_end_moves_the_range_of_integers(tmp_path):
    words = "flag_lessthan = 0\nflag_equal = 0\nflag_morethan = 50\nflag_equal = 50"
    with frames_of(tmp_path, RNG.integers(0, 51, 2 * ROWS * COLUMNS), words, dtype="u2") as frames:
        assert frames.valid_range == (1.0, 49.0)
        assert frames.read(0).good is None


def test_a_value_in_the_middle_and_flags_of_one_panel_are_marked_frame_by_frame(tmp_path):
    values = RNG.integers(0, 10, (2, 2 * ROWS, COLUMNS))
    with frames_of(tmp_path, values, "flag_equal = 5", "flag_lessthan = 3", "flag_morethan = 8", dtype="i4") as frames:
        assert frames.valid_range == (-np.inf, np.inf)
        for i in range(2):
            expected = values[i] != 5
            expected[:ROWS] &= values[i][:ROWS] >= 3
            expected[ROWS:] &= values[i][ROWS:] <= 8
            np.testing.assert_array_equal(frames.read(i).good, expected)


def test_equality_of_floating_point_values_is_that_of_rounded_ones(tmp_path):
    values = np.linspace(0, 3, 2 * ROWS * COLUMNS)
    with frames_of(tmp_path, values, "flag_equal = 2", dtype="f4") as frames:
        np.testing.assert_array_equal(frames.read(0).good.ravel(), np.rint(values.astype("f4")) != 2)


def test_flags_of_a_panel_that_is_bad_anyway_do_not_count(tmp_path):
    with frames_of(tmp_path, np.zeros(96), "", "flag_lessthan = 2", "no_index = 1", dtype="i4") as frames:
        assert frames.valid_range == (2.0, np.inf)


# ---- the user's mask


@pytest.mark.parametrize("form", ["npy", "h5", "edf", "stack"])
def test_a_mask_of_the_user(file, tmp_path, form):
    values = array()
    path = tmp_path / f"user.{form}"
    if form == "npy":
        np.save(path, values)
    elif form == "edf":
        fabio = pytest.importorskip("fabio")
        fabio.edfimage.EdfImage(data=values).write(str(path))
    else:
        with h5py.File(path, "w") as handle:
            handle["/other"] = np.zeros((5, 5))
            handle["/entry/mask"] = values if form == "h5" else values.reshape(2, ROWS, COLUMNS)
    with open_frames(file, detector("mask_edge_pixels = 1"), str(path)) as frames:
        np.testing.assert_array_equal(frames.mask, geometry_mask(frames.detector) & (values == 0))


def test_a_mask_of_the_user_of_another_shape(file, tmp_path):
    np.save(tmp_path / "user.npy", np.zeros((3, 4)))
    with pytest.raises(
        InputError, match=r"user\.npy: the mask has the shape \(3, 4\) \(ss, fs\), the geometry needs \(16, 6\)"
    ):
        open_frames(file, detector(), tmp_path / "user.npy")


def test_a_mask_of_the_user_for_the_whole_frame_of_which_the_geometry_uses_a_part(file, tmp_path):
    values = array()
    np.save(tmp_path / "user.npy", values)
    upper = parse_geom(text().split("p1/")[0], "g")
    with open_frames(file, upper, tmp_path / "user.npy") as frames:
        np.testing.assert_array_equal(frames.mask, values[:ROWS] == 0)


def test_mask_files_that_can_not_be_one(tmp_path):
    with pytest.raises(InputError, match="there is no such file"):
        extra_mask(tmp_path / "none.npy", detector())
    (tmp_path / "no.npy").write_text("x" * 300)
    with pytest.raises(InputError, match=r"no\.npy: can't be read as an image"):
        extra_mask(tmp_path / "no.npy", detector())
    with h5py.File(tmp_path / "two.h5", "w") as handle:
        handle["/a"], handle["/b"] = array(), array()
    with pytest.raises(InputError, match=r"two\.h5: which array is the mask\?.*the file has /a uint8 \(16, 6\), /b"):
        extra_mask(tmp_path / "two.h5", detector())
