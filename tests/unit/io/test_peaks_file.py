"""Peak files: CXI layout, written block by block and read back."""

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfxflow.io.peaks import PeakWriter, read_peaks
from sfxflow.io.table import open_chunk, read_rows
from sfxflow.peaks import PEAK
from sfxflow.reflections import FRAMES


def random_peaks(rng, n):
    peaks = np.zeros(n, PEAK)
    for name in PEAK.names:
        kind = PEAK[name].kind
        values = rng.random(n) * 1000 if kind == "f" else rng.integers(0, 2, n)
        peaks[name] = values
    return peaks


def frame_rows(first, n):
    rows = {}
    for column in FRAMES:
        if column.dtype == "str":
            rows[column.name] = [f"{column.name} {first + i}" for i in range(n)]
        else:
            rows[column.name] = np.full(n, first, dtype=column.dtype)
    rows["frame"] = np.arange(first, first + n)
    return rows


def write(path, counts, block):
    rng = np.random.default_rng(1)
    frames = [random_peaks(rng, n) for n in counts]
    with h5py.File(path, "w") as handle:
        writer = PeakWriter(handle, "{}")
        for start in range(0, len(frames), block):
            some = frames[start : start + block]
            writer.append(frame_rows(start, len(some)), some)
    return frames


@settings(max_examples=25, deadline=None)
@given(counts=st.lists(st.integers(0, 90), max_size=20), block=st.integers(1, 8), data=st.data())
def test_round_trip(tmp_path_factory, counts, block, data):
    path = tmp_path_factory.mktemp("peaks") / "p.h5"
    frames = write(path, counts, block)
    start = data.draw(st.integers(0, len(counts)))
    stop = data.draw(st.one_of(st.none(), st.integers(start, len(counts) + 2)))
    with open_chunk(path) as handle:
        read = read_peaks(handle, start, stop)
        rows = read_rows(handle["frames"], start, stop)
    expected = frames[start:stop]
    assert len(read) == len(expected)
    assert list(rows["frame"]) == list(range(start, start + len(expected)))
    assert rows["file"] == [f"file {i}" for i in range(start, start + len(expected))]
    for got, made in zip(read, expected, strict=True):
        assert got.dtype == PEAK
        for name in PEAK.names:
            # Positions are stored as float32 of up to 1000 pixels.
            np.testing.assert_allclose(got[name], made[name], rtol=1e-6, atol=1e-4)


def test_layout_is_what_crystfel_reads(tmp_path):
    """nPeaks and padded positions under one group, counted from the centre of the first pixel (CrystFEL adds half a pixel)."""
    frames = write(tmp_path / "p.h5", [3, 0, 5], 2)
    with h5py.File(tmp_path / "p.h5") as handle:
        group = handle["entry_1/result_1"]
        assert group["nPeaks"][()].tolist() == [3, 0, 5]
        assert group["peakXPosRaw"].shape == group["peakTotalIntensity"].shape == (3, 5)
        np.testing.assert_allclose(group["peakXPosRaw"][2], frames[2]["fs"] - 0.5, rtol=1e-6)
        np.testing.assert_allclose(group["peakYPosRaw"][0, :3], frames[0]["ss"] - 0.5, rtol=1e-6)
        np.testing.assert_array_equal(group["peakXPosRaw"][1], 0.0)


def test_frames_without_any_peak(tmp_path):
    write(tmp_path / "p.h5", [0, 0], 1)
    with open_chunk(tmp_path / "p.h5") as handle:
        assert [len(found) for found in read_peaks(handle)] == [0, 0]


def test_no_frames(tmp_path):
    write(tmp_path / "p.h5", [], 1)
    with open_chunk(tmp_path / "p.h5") as handle:
        assert read_peaks(handle) == []


def test_a_block_of_other_columns_is_a_programming_error(tmp_path):
    with h5py.File(tmp_path / "p.h5", "w") as handle:
        rows = frame_rows(0, 1)
        del rows["clen"]
        with pytest.raises(ValueError, match="clen"):
            PeakWriter(handle, "{}").append(rows, [np.zeros(0, PEAK)])


def test_some_fields(tmp_path):
    write(tmp_path / "p.h5", [3, 0, 70], 2)
    with open_chunk(tmp_path / "p.h5") as handle:
        everything, some = read_peaks(handle), read_peaks(handle, fields=("ss", "panel"))
    assert len(some) == 3
    for whole, part in zip(everything, some, strict=True):
        assert part.dtype.names == ("ss", "panel")
        assert (part["ss"] == whole["ss"]).all() and (part["panel"] == whole["panel"]).all()
