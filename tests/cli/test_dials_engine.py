"""The engine dials with stand-ins for its programs: what is counted, and what is said when a program does not do its work."""

import shutil

import h5py
import numpy as np
import pytest
from dials_stand_ins import PROGRAMS, settings, write_stand_ins

from sfxflow.cli import main
from sfxflow.io.table import open_chunk, read_rows
from sfxflow.reflections import Status

N = 4


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Stand-ins first on PATH; sets how they behave."""
    folder = write_stand_ins(tmp_path / "programs")
    monkeypatch.setenv("PATH", str(folder), prepend=":")

    def behave(how):
        monkeypatch.setenv("STAND_IN", how)
        return folder

    behave("")
    return behave


def peaks(demo, output, *more, frames=None):
    arguments = ["--frames", frames or demo.frames, "--geometry", demo.geometry, "--count", N, "--output", output]
    return main(["dials_peaks", *map(str, arguments), *map(str, more)])


def indexing(demo, source, output, *more, frames=None):
    arguments = ["--peaks", source, "--frames", frames or demo.frames, "--geometry", demo.geometry, "--count", N]
    arguments += ["--cell", demo.cell, "--space-group", demo.group, "--output", output]
    return main(["dials_indexing", *map(str, arguments), *map(str, more)])


@pytest.fixture(scope="module")
def first_peaks(demo, tmp_path_factory):
    """Peaks of the first frames by the built-in engine."""
    output = tmp_path_factory.mktemp("peaks") / "peaks.h5"
    return demo.ok("peaks", None, output, "--count", N)


@pytest.fixture
def damaged(demo, tmp_path):
    """The frames with a value in frame 3 that stand-ins take amiss."""
    path = shutil.copy(demo.frames, tmp_path / "damaged.h5")
    with h5py.File(path, "a") as handle:
        data = handle["/entry_1/data_1/data"]
        frame = data[3]
        frame[5, 5] = 12345
        data[3] = frame
    return path


def test_peaks_are_counted_frame_by_frame(demo, programs, tmp_path, capfd):
    chosen = settings(peaks={"max_peaks": 18}, dials={"extra_find_spots": "spotfinder.filter.border=1"})
    assert peaks(demo, tmp_path / "p.h5", "--settings", chosen) == 0
    with open_chunk(tmp_path / "p.h5") as handle:
        frames = read_rows(handle["frames"])
        assert "DIALS 3.12" in handle.attrs["program"]
        assert "spotfinder.filter.border=1" in handle.attrs["options"]
        # Half a pixel: CXI counts from the middle of a pixel.
        np.testing.assert_allclose(handle["entry_1/result_1/peakXPosRaw"][1, :3], [10.0, 13.0, 16.0])
        np.testing.assert_allclose(handle["entry_1/result_1/peakTotalIntensity"][1, 0], 3 * (12 - 2))
    assert list(frames["status"]) == [Status.blank] + [Status.hit] * (N - 1)
    assert list(frames["n_peaks"]) == [0] + [18] * (N - 1)
    assert np.isfinite(frames["photon_energy"]).all()
    assert "4 frames: 3 hits, 1 blanks, 0 failed (DIALS 3.12)" in capfd.readouterr().err


def test_resolution_limits_are_those_of_every_engine(demo, programs, tmp_path):
    chosen = settings(peaks={"min_peaks": 1, "max_res": 1})
    assert peaks(demo, tmp_path / "p.h5", "--settings", chosen) == 0
    with open_chunk(tmp_path / "p.h5") as handle:
        assert not handle["frames/n_peaks"][()].any()


def test_crystals_with_the_beam_of_their_own_frame(demo, programs, first_peaks, tmp_path, capfd):
    assert indexing(demo, first_peaks, tmp_path / "i.h5") == 0
    with open_chunk(first_peaks) as handle:
        hits = np.flatnonzero(handle["frames/status"][()] == Status.hit)
    with open_chunk(tmp_path / "i.h5") as handle:
        frames, crystals, reflections = (read_rows(handle[name]) for name in ("frames", "crystals", "reflections"))
        assert handle.attrs["peaks_from"] == "the peak file"
        assert "dials.ssx_index" in handle.attrs["options"]
    np.testing.assert_array_equal(np.flatnonzero(frames["status"] == Status.indexed), hits)
    np.testing.assert_array_equal(crystals["frame"], hits)
    np.testing.assert_allclose(crystals["cell"][0], [79, 79, 38, 90, 90, 90], rtol=1e-6)
    np.testing.assert_allclose(crystals["rms_position"], 0.5, rtol=1e-6)
    # One reflection of three is whole and not overloaded; its excitation error is that of its own frame's wavelength.
    assert len(reflections["I"]) == len(hits)
    np.testing.assert_array_equal(np.column_stack([reflections[x] for x in "hkl"]), [[4, 5, 6]] * len(hits))
    q = np.array([4 / 79, 5 / 79, 6 / 38])
    k = frames["photon_energy"][hits] / 12398.41984
    expected = k - np.sqrt(q[0] ** 2 + q[1] ** 2 + (q[2] + k) ** 2)
    assert np.ptp(k) > 0
    np.testing.assert_allclose(reflections["excitation_error"], expected, rtol=1e-4)
    assert "hits: " in capfd.readouterr().err


def test_zero_lattices_are_a_valid_file(demo, programs, first_peaks, tmp_path, capfd):
    programs("dials.ssx_index none")
    assert indexing(demo, first_peaks, tmp_path / "i.h5") == 0
    with open_chunk(tmp_path / "i.h5", "frames", "crystals", "reflections") as handle:
        frames = read_rows(handle["frames"])
        assert len(handle["crystals/frame"]) == len(handle["reflections/I"]) == 0
    hits = frames["status"] == Status.hit
    assert hits.any()
    assert {frames["message"][i] for i in np.flatnonzero(hits)} == {"no lattice found"}
    assert "0 indexed, 0 lattices" in capfd.readouterr().err


def test_lattices_that_cannot_be_integrated(demo, programs, first_peaks, tmp_path):
    programs("dials.ssx_integrate none")
    assert indexing(demo, first_peaks, tmp_path / "i.h5") == 0
    with open_chunk(tmp_path / "i.h5") as handle:
        frames = read_rows(handle["frames"])
    messages = {frames["message"][i] for i in np.flatnonzero(frames["status"] == Status.hit)}
    assert messages == {"no reflection could be integrated"}


def test_no_hit_at_all_runs_no_program(demo, programs, tmp_path):
    empty = demo.ok("peaks", None, tmp_path / "none.h5", "--count", N, "--settings", '{"min_peaks": 1000}')
    programs("dials.ssx_index fail")
    assert indexing(demo, empty, tmp_path / "i.h5") == 0


def test_a_frame_that_dials_cannot_stand_costs_itself(demo, programs, damaged, tmp_path):
    programs("dials.find_spots bad")
    assert peaks(demo, tmp_path / "p.h5", frames=damaged) == 0
    with open_chunk(tmp_path / "p.h5") as handle:
        frames = read_rows(handle["frames"])
    assert [i for i, status in enumerate(frames["status"]) if status == Status.failed] == [3]
    assert "dials.find_spots: ended with status 1 and wrote no strong.refl" in frames["message"][3]


def refused(capfd, call):
    assert call == 1
    text = capfd.readouterr().err
    assert "Traceback" not in text
    return text


@pytest.mark.parametrize(
    ("name", "how", "file"),
    [
        ("dials.find_spots", "nothing", "strong.refl"),
        ("dials.ssx_index", "nothing", "indexed.expt"),
        ("dials.ssx_index", "fail", "indexed.expt"),
        ("dials.ssx_integrate", "nothing", "integrated_*.expt"),
    ],
)
def test_a_program_that_does_nothing(demo, programs, tmp_path, capfd, name, how, file):
    """Status 0 or not: the files count."""
    programs(f"{name} {how}")
    if name == "dials.find_spots":
        text = refused(capfd, peaks(demo, tmp_path / "p.h5", "--count", 1))
    else:
        found = demo.ok("peaks", None, tmp_path / "one.h5", "--count", 1, "--settings", '{"min_peaks": 1}')
        text = refused(capfd, indexing(demo, found, tmp_path / "i.h5", "--count", 1))
    assert f"{name}: ended with status {int(how == 'fail')} and wrote no {file}; its last lines" in text
    assert ("nothing was done" if how == "nothing" else "Sorry: it never works") in text
    assert not list(tmp_path.glob("[ip].h5"))


def test_a_program_that_fails_whatever_it_gets(demo, programs, tmp_path, capfd):
    """Not a frame's fault: the job ends, with the last lines of the first attempt."""
    programs("dials.find_spots fail")
    text = refused(capfd, peaks(demo, tmp_path / "p.h5"))
    assert "Sorry: it never works" in text
    assert not (tmp_path / "p.h5").exists()


def test_a_program_that_hangs(demo, programs, tmp_path, capfd):
    programs("dials.find_spots hang")
    text = refused(capfd, peaks(demo, tmp_path / "p.h5", "--time-limit", 0.02, "--threads", 2))
    assert "dials.find_spots: did not end within 0.6 s and was stopped" in text


def test_no_dials(demo, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("PATH", str(tmp_path))
    text = refused(capfd, peaks(demo, tmp_path / "p.h5"))
    assert "dials.version: no such program on PATH; it is part of DIALS" in text


def test_a_part_of_dials(demo, tmp_path, monkeypatch, capfd):
    folder = write_stand_ins(tmp_path / "some", [name for name in PROGRAMS if name != "dials.find_spots"])
    monkeypatch.setenv("PATH", str(folder))
    text = refused(capfd, peaks(demo, tmp_path / "p.h5"))
    assert "dials.find_spots: no such program on PATH, though DIALS 3.12 is there" in text


def test_dials_that_is_too_old(demo, programs, tmp_path, capfd):
    programs("dials.version 3.5.2")
    assert "is version 3.5.2, but 3.10 or newer is needed" in refused(capfd, peaks(demo, tmp_path / "p.h5"))


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"dials": {"extra_find_spots": "border"}}, "dials.extra_find_spots: 'border' is not of the form name=value"),
        ({"dials": {"extra_find_spots": "a='1"}}, "dials.extra_find_spots: No closing quotation"),
        ({"dials": {"indexing": "xgandalf"}}, "'xgandalf' is not one of ssx_index, stills_process"),
        ({"dail": {}}, "dail: no such section here"),
    ],
)
def test_settings_that_cannot_be_meant(demo, programs, tmp_path, capfd, sections, message):
    assert message in refused(capfd, peaks(demo, tmp_path / "p.h5", "--settings", settings(**sections)))


def test_peaks_of_other_frames(demo, programs, first_peaks, tmp_path, capfd):
    text = refused(capfd, indexing(demo, first_peaks, tmp_path / "i.h5", "--first", 3))
    assert "does not hold the frames 3 to 6; find the peaks of this chunk again" in text


def test_a_lattice_with_another_cell(demo, programs, first_peaks, tmp_path):
    chosen = settings(indexing={"cell_tolerance": 0.0001})
    assert indexing(demo, first_peaks, tmp_path / "i.h5", "--settings", chosen) == 0
    with open_chunk(tmp_path / "i.h5") as handle:
        frames = read_rows(handle["frames"])
    messages = {frames["message"][i] for i in np.flatnonzero(frames["status"] == Status.hit)}
    assert messages == {"the cell deviates too much"}
