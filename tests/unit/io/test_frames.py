"""Frames of every layout read as the same slab, and each bad file or frame is named."""

import contextlib
import os
import pickle
import re
import stat
import subprocess
import sys

import fabio
import h5py
import hdf5plugin
import numpy as np
import pytest

from sfxflow.errors import FrameError, InputError
from sfxflow.io.frames import matching_files, open_frames
from sfxflow.io.geom import parse_geom

ROWS, COLUMNS = 12, 10
TOP = "photon_energy = 9000 eV\nclen = 0.1 m\nres = 10000\nfs = x\nss = y\nadu_per_photon = 1\n"
RNG = np.random.default_rng(11)


def geometry(top="", panels=None, data="/entry/data/data", dims=("%", "ss", "fs")):
    """A detector of panels (name, min_ss, max_ss, extra lines), one below the other."""
    panels = panels or [("p", 0, ROWS - 1, "")]
    text = TOP + f"data = {data}\n" + "".join(f"dim{n} = {dim}\n" for n, dim in enumerate(dims)) + top + "\n"
    for n, (name, first, last, extra) in enumerate(panels):
        text += "".join(f"{name}/{line}\n" for line in extra.splitlines())
        text += f"{name}/min_fs = 0\n{name}/max_fs = {COLUMNS - 1}\n{name}/min_ss = {first}\n{name}/max_ss = {last}\n"
        text += f"{name}/corner_x = 0\n{name}/corner_y = {100 * n}\n"
    return parse_geom(text, "det.geom", ".")


def some_frames(n=5, dtype=np.uint16, shape=(ROWS, COLUMNS)):
    return RNG.integers(0, 1000, (n, *shape)).astype(dtype)


def write(path, frames, dataset="/entry/data/data", **options):
    with h5py.File(path, "w") as handle:
        handle.create_dataset(dataset, data=frames, **options)
    return str(path)


# ---- layouts


LAYOUTS = {
    "contiguous": {},
    "gzip, one chunk a frame": {"chunks": (1, ROWS, COLUMNS), "compression": "gzip"},
    "gzip and shuffle": {"chunks": (1, ROWS, COLUMNS), "compression": "gzip", "shuffle": True},
    "several frames a chunk": {"chunks": (3, ROWS, COLUMNS), "compression": "gzip", "shuffle": True},
    "tiles that do not fit": {"chunks": (2, 5, 4), "compression": "gzip", "shuffle": True},
    "checksum": {"chunks": (1, ROWS, COLUMNS), "compression": "gzip", "fletcher32": True},
    "lzf": {"chunks": (1, ROWS, COLUMNS), "compression": "lzf"},
    "bitshuffle/LZ4": {"chunks": (1, ROWS, COLUMNS), **hdf5plugin.Bitshuffle()},
    "bitshuffle/LZ4, several frames a chunk": {"chunks": (2, ROWS, COLUMNS), **hdf5plugin.Bitshuffle()},
    "bitshuffle/zstd": {"chunks": (1, ROWS, COLUMNS), **hdf5plugin.Bitshuffle(cname="zstd")},
    "LZ4": {"chunks": (1, ROWS, COLUMNS), **hdf5plugin.LZ4()},
    "chunks without compression": {"chunks": (1, ROWS, COLUMNS)},
    "zstd": {"chunks": (1, ROWS, COLUMNS), **hdf5plugin.Zstd()},
}


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "i4", "u4", "f4", "f8", ">u2", ">i4"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_reads_the_same_values(tmp_path, layout, dtype):
    data = some_frames(dtype=np.dtype(dtype))
    path = write(tmp_path / "f.h5", data, **LAYOUTS[layout])
    with open_frames(path, geometry()) as frames:
        assert frames.n_frames == 5
        for i in (3, 0, 4, 1, 2):
            read = frames.read(i).data
            np.testing.assert_array_equal(read, data[i])
            assert read.dtype.isnative
            assert read.flags.c_contiguous


@pytest.mark.parametrize("first_row", [0, 4])
def test_memory_of_a_frame_can_be_used_again(tmp_path, first_row):
    """With and without pixels that no panel covers, which stay zero; also when it is the first frame that is looked at."""
    data = some_frames(dtype=np.dtype("u2"))
    path = write(tmp_path / "f.h5", data, chunks=(1, ROWS, COLUMNS), compression="gzip")
    detector = geometry(panels=[("a", first_row, ROWS - 1, "")])
    with open_frames(path, detector) as frames, open_frames(path, detector) as others:
        memory = frames.memory()
        for i in (0, 3, 3, 1):
            read = frames.read(i, memory)
            np.testing.assert_array_equal(read.data, others.read(i).data)
        assert read.data is memory


def test_announcing_a_frame_changes_nothing_that_is_read(tmp_path):
    """Also of frames that do not exist, of other files, of paths with the event in them, and of virtual data sets."""
    data = some_frames(4)
    write(tmp_path / "a.h5", data[:2], chunks=(1, ROWS, COLUMNS), compression="gzip")
    write(tmp_path / "b.h5", data[2:], chunks=(1, ROWS, COLUMNS), compression="gzip")
    with h5py.File(tmp_path / "v.h5", "w") as handle:
        layout = h5py.VirtualLayout(data.shape, data.dtype)
        for name, first in (("a.h5", 0), ("b.h5", 2)):
            layout[first : first + 2] = h5py.VirtualSource(name, "/entry/data/data", (2, ROWS, COLUMNS))
        handle.create_virtual_dataset("/entry/data/data", layout)
        for i in range(4):
            handle[f"/event{i}/data"] = data[i]
    runs = ((tmp_path / "[ab].h5", geometry()), (tmp_path / "v.h5", geometry()))
    runs += ((tmp_path / "v.h5", geometry(data="/%/data", dims=("ss", "fs"))),)
    for pattern, detector in runs:
        with open_frames(pattern, detector) as frames:
            for i in range(4):
                np.testing.assert_array_equal(frames.read(i).data, data[i])
                for other in (i + 1, -1, 2, 100):
                    frames.announce(other)


def test_a_frame_that_was_never_written_has_the_fill_value(tmp_path):
    with h5py.File(tmp_path / "f.h5", "w") as handle:
        dataset = handle.create_dataset(
            "/entry/data/data", (3, ROWS, COLUMNS), "u2", chunks=(1, ROWS, COLUMNS), compression="gzip", fillvalue=7
        )
        dataset[0] = 1
    with open_frames(tmp_path / "f.h5", geometry()) as frames:
        assert (frames.read(0).data == 1).all()
        assert (frames.read(2).data == 7).all()


def test_panels_of_a_stack_and_of_several_datasets(tmp_path):
    stack, other = some_frames(4, shape=(3, 6, COLUMNS)), some_frames(4, shape=(7, COLUMNS))
    with h5py.File(tmp_path / "f.h5", "w") as handle:
        handle["stack"], handle["other"] = stack, other
    panels = [
        ("a", 0, 5, "data = /stack\ndim1 = 2\ndim2 = ss\ndim3 = fs"),
        ("b", 1, 4, "data = /stack\ndim1 = 0\ndim2 = ss\ndim3 = fs"),
    ]
    panels.append(("c", 0, 6, "data = /other"))
    with open_frames(tmp_path / "f.h5", geometry(panels=panels)) as frames:
        data = frames.read(3).data
        placed = {p.name: data[p.slab_ss : p.slab_ss + p.n_ss] for p in frames.detector.panels}
        np.testing.assert_array_equal(placed["a"], stack[3, 2])
        np.testing.assert_array_equal(placed["b"], stack[3, 0, 1:5])
        np.testing.assert_array_equal(placed["c"], other[3])
        in_panels = np.zeros(data.shape, dtype=bool)
        for p in frames.detector.panels:
            in_panels[p.slab_ss : p.slab_ss + p.n_ss] = True
        np.testing.assert_array_equal(frames.mask, in_panels)


def test_dimensions_in_any_order(tmp_path):
    data = some_frames(4)
    path = write(tmp_path / "f.h5", data.transpose(2, 0, 1))
    with open_frames(path, geometry(dims=("fs", "%", "ss"))) as frames:
        assert frames.n_frames == 4
        np.testing.assert_array_equal(frames.read(2).data, data[2])


def test_events_by_name_and_number(tmp_path):
    with h5py.File(tmp_path / "f.h5", "w") as handle:
        for name, n in (("second", 2), ("first", 3)):
            handle[f"/run/{name}/data"] = np.full((n, ROWS, COLUMNS), n, dtype="i4")
            handle[f"/run/{name}/energy"] = 1000.0 * n + np.arange(n)
        handle["/run/notes"] = 5
    detector = geometry(data="/run/%/data")
    detector = parse_geom(geometry_text_with_energy(), "g")
    with open_frames(tmp_path / "f.h5", detector) as frames:
        assert [frames.origin(i)[1] for i in range(5)] == ["first//0", "first//1", "first//2", "second//0", "second//1"]
        assert [int(frames.read(i).data[0, 0]) for i in range(5)] == [3, 3, 3, 2, 2]
        assert [frames.read(i).photon_energy for i in (4, 0, 2)] == [2001.0, 3000.0, 3002.0]


def geometry_text_with_energy():
    text = TOP.replace("9000 eV", "/run/%/energy eV") + "data = /run/%/data\ndim0 = %\ndim1 = ss\ndim2 = fs\n"
    return (
        text
        + f"p/min_fs = 0\np/max_fs = {COLUMNS - 1}\np/min_ss = 0\np/max_ss = {ROWS - 1}\np/corner_x = 0\np/corner_y = 0\n"
    )


def test_one_frame_a_file_without_events(tmp_path):
    data = some_frames(3)
    for i in range(3):
        write(tmp_path / f"f{i}.h5", data[i])
    with open_frames(tmp_path / "f*.h5", geometry(dims=("ss", "fs"))) as frames:
        assert frames.n_frames == 3
        assert frames.origin(2) == (str(tmp_path / "f2.h5"), "")
        np.testing.assert_array_equal(frames.read(1).data, data[1])


def test_frames_of_several_files_count_through_in_sorted_order(tmp_path):
    first, second = some_frames(2), some_frames(3)
    write(tmp_path / "b.h5", second)
    write(tmp_path / "a.h5", first)
    with open_frames(str(tmp_path / "*.h5"), geometry()) as frames:
        assert frames.files == [str(tmp_path / "a.h5"), str(tmp_path / "b.h5")]
        assert frames.origin(1) == (str(tmp_path / "a.h5"), "//1")
        assert frames.origin(4) == (str(tmp_path / "b.h5"), "//2")
        np.testing.assert_array_equal(frames.read(2).data, second[0])
        np.testing.assert_array_equal(frames.read(1).data, first[1])
        with pytest.raises(IndexError):
            frames.read(5)


def test_a_name_with_magic_characters_that_exists_is_itself(tmp_path):
    path = write(tmp_path / "run[1].h5", some_frames())
    assert matching_files(path) == [path]


def test_what_a_worker_needs_can_be_pickled():
    detector = geometry()
    assert pickle.loads(pickle.dumps(detector)) == detector


# ---- links


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_external_links_and_virtual_data_sets(tmp_path, compression):
    data = some_frames(6)
    for k in range(3):
        write(tmp_path / f"part{k}.h5", data[2 * k : 2 * k + 2], compression=compression)
    with h5py.File(tmp_path / "linked.h5", "w") as handle:
        for k in range(3):
            handle[f"/entry/data/data_{k}"] = h5py.ExternalLink(f"part{k}.h5", "/entry/data/data")
    layout = h5py.VirtualLayout((6, ROWS, COLUMNS), "u2")
    for k in range(3):
        layout[2 * k : 2 * k + 2] = h5py.VirtualSource(f"part{k}.h5", "/entry/data/data", (2, ROWS, COLUMNS))
    with h5py.File(tmp_path / "virtual.h5", "w") as handle:
        handle.create_virtual_dataset("/entry/data/data", layout)

    for name, detector in (("linked.h5", geometry(data="/entry/data/%")), ("virtual.h5", geometry())):
        with open_frames(tmp_path / name, detector) as frames:
            assert frames.n_frames == 6
            for i in range(6):
                np.testing.assert_array_equal(frames.read(i).data, data[i])

    (tmp_path / "part1.h5").unlink()
    with open_frames(tmp_path / "virtual.h5", geometry()) as frames:  # HDF5 itself gives zeros here
        np.testing.assert_array_equal(frames.read(5).data, data[5])
        with pytest.raises(FrameError, match=r"part1\.h5: there is no such file"):
            frames.read(2)
    with pytest.raises(InputError, match=r"data_1 is a link to .*part1\.h5, which can't be opened"):
        open_frames(tmp_path / "linked.h5", geometry(data="/entry/data/%"))


def test_a_part_of_a_virtual_data_set_is_found_by_its_own_numbers(tmp_path):
    data = some_frames(8)
    write(tmp_path / "all.h5", data, compression="gzip")
    layout = h5py.VirtualLayout((4, ROWS, COLUMNS), "u2")
    source = h5py.VirtualSource(tmp_path / "all.h5", "/entry/data/data", data.shape)
    layout[0:3], layout[3:4] = source[5:8], source[1:2]
    with h5py.File(tmp_path / "v.h5", "w") as handle:
        handle.create_virtual_dataset("/entry/data/data", layout)
    with open_frames(tmp_path / "v.h5", geometry()) as frames:
        for i, k in enumerate((5, 6, 7, 1)):
            np.testing.assert_array_equal(frames.read(i).data, data[k])


def test_a_virtual_data_set_of_strided_frames_goes_through_hdf5(tmp_path):
    data = some_frames(8)
    write(tmp_path / "all.h5", data)
    layout = h5py.VirtualLayout((4, ROWS, COLUMNS), "u2")
    layout[...] = h5py.VirtualSource(tmp_path / "all.h5", "/entry/data/data", data.shape)[::2]
    with h5py.File(tmp_path / "v.h5", "w") as handle:
        handle.create_virtual_dataset("/entry/data/data", layout)
    with open_frames(tmp_path / "v.h5", geometry()) as frames:
        np.testing.assert_array_equal([frames.read(i).data for i in range(4)], data[::2])


def test_a_virtual_data_set_of_modules_needs_all_its_files(tmp_path):
    for k in range(2):
        write(tmp_path / f"m{k}.h5", some_frames(3, shape=(6, COLUMNS)))
    layout = h5py.VirtualLayout((3, 12, COLUMNS), "u2")
    for k in range(2):
        layout[:, 6 * k : 6 * k + 6] = h5py.VirtualSource(tmp_path / f"m{k}.h5", "/entry/data/data", (3, 6, COLUMNS))
    with h5py.File(tmp_path / "v.h5", "w") as handle:
        handle.create_virtual_dataset("/entry/data/data", layout)
    with open_frames(tmp_path / "v.h5", geometry()) as frames, h5py.File(tmp_path / "v.h5") as handle:
        np.testing.assert_array_equal(frames.read(1).data, handle["/entry/data/data"][1])
    (tmp_path / "m1.h5").unlink()
    with open_frames(tmp_path / "v.h5", geometry()) as frames, pytest.raises(FrameError, match=r"m1\.h5 is missing"):
        frames.read(1)


# ---- values per event


def test_energy_wavelength_and_camera_length_per_event(tmp_path):
    with h5py.File(tmp_path / "f.h5", "w") as handle:
        handle["/entry/data/data"] = some_frames(3)
        handle["/keV"] = [9.0, 9.1, np.nan]
        handle["/wavelength"] = np.array([[1.0], [2.0], [0.5]]) * 1e-10
        handle["/clen"] = 123.0
        handle["/short"] = [0.1, 0.2]
    text = "photon_energy = 9000 eV\nclen = 0.1 m\n"

    def read(energy, clen, i):
        detector = parse_geom(full_text().replace(text, f"{energy}\n{clen}\n"), "g")
        with open_frames(tmp_path / "f.h5", detector) as frames:
            frame = frames.read(i)
            return frame.photon_energy, frame.clen

    assert read("photon_energy = /keV keV", "clen = /clen", 1) == pytest.approx((9100.0, 0.123))
    assert read("wavelength = /wavelength m", "clen = 0.1 m", 1) == pytest.approx((12398.41984 / 2, 0.1))
    with pytest.raises(FrameError, match="//2: the photon energy is nan eV"):
        read("photon_energy = /keV keV", "clen = 0.1 m", 2)
    with pytest.raises(FrameError, match=r"/short \(camera length\) has the shape \(2,\) and no entry for //2"):
        read("photon_energy = 9 keV", "clen = /short m", 2)
    with pytest.raises(
        InputError, match=r"no dataset /kev \(photon energy, as the geometry says\); the file has .*/keV"
    ):
        read("photon_energy = /kev keV", "clen = 0.1 m", 0)


def full_text(extra=""):
    text = TOP + "data = /entry/data/data\ndim0 = %\ndim1 = ss\ndim2 = fs\n" + extra
    return (
        text
        + f"p/min_fs = 0\np/max_fs = {COLUMNS - 1}\np/min_ss = 0\np/max_ss = {ROWS - 1}\np/corner_x = 0\np/corner_y = 0\n"
    )


# ---- images


@pytest.mark.parametrize("form", ["cbf", "edf", "tif"])
def test_single_frame_images(tmp_path, form):
    data = some_frames(2, dtype=np.int32)
    makers = {"cbf": fabio.cbfimage.CbfImage, "edf": fabio.edfimage.EdfImage, "tif": fabio.tifimage.TifImage}
    for i in range(2):
        makers[form](data=data[i]).write(str(tmp_path / f"f{i}.{form}"))
    (tmp_path / f"f2.{form}").write_bytes(b"")
    with open_frames(tmp_path / f"f?.{form}", geometry()) as frames:
        assert frames.n_frames == 3
        assert frames.origin(1) == (str(tmp_path / f"f1.{form}"), "")
        np.testing.assert_array_equal(frames.read(1).data, data[1])
        with pytest.raises(FrameError, match="is empty"):
            frames.read(2)
    with pytest.raises(InputError, match="takes photon_energy from /e, which only HDF5 files have"):
        open_frames(tmp_path / f"f0.{form}", parse_geom(full_text().replace("9000 eV", "/e eV"), "g"))
    with pytest.raises(InputError, match="12 x 10 pixels .* the geometry needs 14 x 10"):
        open_frames(tmp_path / f"f0.{form}", geometry(panels=[("p", 0, 13, "")]))


# ---- what is bad


def test_nan_negative_and_saturated_pixels_are_read_as_they_are(tmp_path):
    data = np.array([np.nan, -5.0, 1e30, np.inf] * 30, dtype="f4").reshape(1, ROWS, COLUMNS)
    with open_frames(write(tmp_path / "f.h5", data), geometry()) as frames:
        np.testing.assert_array_equal(frames.read(0).data, data[0])
        assert frames.valid_range == (-np.inf, np.inf)


@contextlib.contextmanager
def says(*parts):
    with pytest.raises(InputError) as caught:
        yield
    for part in parts:
        assert part in str(caught.value)


def test_no_file(tmp_path):
    with says(str(tmp_path / "none.h5"), "there is no such file"):
        open_frames(tmp_path / "none.h5", geometry())
    with says(str(tmp_path / "n*.h5"), "no file matches"):
        open_frames(tmp_path / "n*.h5", geometry())


def test_an_empty_file(tmp_path):
    (tmp_path / "f.h5").touch()
    with says("f.h5: is empty (0 bytes)"):
        open_frames(tmp_path / "f.h5", geometry())


def test_a_truncated_file(tmp_path):
    path = write(tmp_path / "f.h5", some_frames(50))
    size = os.path.getsize(path)
    os.truncate(path, size // 2)
    with says(f"f.h5: is cut short ({size // 2} of {size} bytes)"):
        open_frames(path, geometry())


def test_a_file_that_is_no_hdf5_and_no_image(tmp_path):
    (tmp_path / "f.h5").write_text("not frames at all\n" * 100)
    with says("f.h5: ", "image"):
        open_frames(tmp_path / "f.h5", geometry())


@pytest.mark.skipif(os.name != "posix", reason="file permissions of POSIX systems")
def test_a_file_without_permission(tmp_path):
    """In a process that is not root, for whom permissions do not count."""
    path = write(tmp_path / "f.h5", some_frames())
    os.chmod(path, 0)
    if os.geteuid():
        with says("no permission to read"):
            open_frames(path, geometry())
        return
    for folder in (tmp_path, *tmp_path.parents):
        if (
            stat.S_IMODE(folder.stat().st_mode) & 0o005 != 0o005
            and folder.stat().st_uid == 0
            and "pytest" in str(folder)
        ):
            folder.chmod(folder.stat().st_mode | 0o005)
    program = f"""
import os
from sfxflow.errors import InputError
from sfxflow.io.frames import open_frames
from sfxflow.io.geom import parse_geom
os.setuid(65534)
try:
    open_frames({path!r}, parse_geom({full_text()!r}, "det.geom"))
except InputError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert f"{path}: no permission to read this file" in done.stdout, done.stderr


@pytest.mark.parametrize(
    "options", [{"compression": "gzip", "shuffle": True}, hdf5plugin.Bitshuffle(), hdf5plugin.LZ4()]
)
def test_a_corrupt_chunk_in_the_middle_fails_its_frame_only(tmp_path, options):
    data = RNG.poisson(5, (5, 60, 70)).astype(np.uint16)
    path = write(tmp_path / "f.h5", data, chunks=(1, 60, 70), **options)
    with h5py.File(path) as handle:
        info = handle["/entry/data/data"].id.get_chunk_info(2)
    with open(path, "r+b") as handle:
        # The second half of the chunk is gone, as after a disk error: LZ4 has no checksum that would find a single wrong value.
        handle.seek(info.byte_offset + info.size // 2)
        handle.write(b"\xff" * (info.size - info.size // 2))
    detector = parse_geom(full_text().replace(f"= {COLUMNS - 1}", "= 69").replace(f"= {ROWS - 1}", "= 59"), "g")
    with open_frames(path, detector) as frames:
        for i in (0, 1, 3, 4):
            np.testing.assert_array_equal(frames.read(i).data, data[i])
        with pytest.raises(FrameError, match=r"f\.h5 //2: /entry/data/data can't be read"):
            frames.read(2)


def test_a_wrong_dataset_path_says_which_there_are(tmp_path):
    path = write(tmp_path / "f.h5", some_frames())
    with says("no dataset /entry/data", "the file has /entry/data/data uint16 (5, 12, 10)"):
        open_frames(path, geometry(data="/entry/data"))
    with says("no dataset fits /entry/%/frames", "/entry/data/data uint16 (5, 12, 10)"):
        open_frames(path, geometry(data="/entry/%/frames"))


def test_a_geometry_that_does_not_match_the_frames(tmp_path):
    path = write(tmp_path / "f.h5", some_frames())
    with says("the frames have 12 x 10 pixels (ss x fs), but the geometry needs 14 x 10 (panel q)"):
        open_frames(path, geometry(panels=[("p", 0, 11, ""), ("q", 12, 13, "")]))
    with says("has 3 dimensions (5, 12, 10), the geometry describes 2 (ss, fs)"):
        open_frames(path, geometry(dims=("ss", "fs")))
    with says("the shape is (5, 12, 10), but panel p has the index 7"):
        open_frames(path, geometry(dims=(7, "ss", "fs")))


def test_text_in_place_of_pixels(tmp_path):
    with h5py.File(tmp_path / "f.h5", "w") as handle:
        handle["/entry/data/data"] = np.full((2, ROWS, COLUMNS), b"x", dtype="S1")
    with says("the frames are of type |S1; numbers are expected"):
        open_frames(tmp_path / "f.h5", geometry())


def test_a_run_without_frames(tmp_path):
    with says("holds no frames"):
        open_frames(write(tmp_path / "f.h5", some_frames(0)), geometry())


def test_third_party_files_read_as_h5py_reads_them(shared_data):
    from sfxflow.io.geometry import read_geometry

    for name, geom, pattern, n in (
        ("crystfel_sim", "det.geom", "run1_0[67].h5", 51),
        ("thaumatin_i24", "thaumatin_i24.geom", "thaumatin_i24.h5", 10),
    ):
        folder = shared_data / "data" / name
        with open_frames(folder / pattern, read_geometry(folder / geom)) as frames:
            assert frames.n_frames == n
            assert frames.valid_range == (0.0, np.inf)
            for i in (0, n - 1):
                file, event = frames.origin(i)
                frame = frames.read(i)
                assert frame.good is None
                with h5py.File(file) as handle:
                    index = int(re.fullmatch(r"//(\d+)", event)[1])
                    np.testing.assert_array_equal(frame.data, handle["/entry/data/data"][index])
                    energy = handle["/entry/instrument/photon_energy_eV"][()]
                    expected = energy if np.ndim(energy) == 0 else energy.ravel()[min(index, energy.size - 1)]
                assert frame.photon_energy == pytest.approx(expected)
