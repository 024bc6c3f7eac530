"""Tables that became a stream and came back: nothing is lost but the digits that the format does not have."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_streams import GEOMETRY, PANELS, detector, stream_of, tables

from sfxflow.errors import InputError
from sfxflow.io.stream_reader import read_stream
from sfxflow.io.stream_tables import tables_of_stream

#: Half of the last digit of the stream, in the table's units; a float32 may add its own rounding.
_HALF_DIGITS = {"I": 5e-3, "sigI": 5e-3, "peak": 5e-3, "background": 5e-3, "fs": 0.05, "ss": 0.05}
_SAME_FRAMES = ("frame", "file", "event", "status", "n_peaks", "n_lattices", "resolution", "photon_energy", "clen")
_SAME_CRYSTALS = (
    "frame", "profile_radius", "mosaicity", "bandwidth", "shift", "excess", "n_peaks", "log10_p", "rms_position", "resolution",
)  # fmt: skip


def joined(path, **options):
    blocks = [found for _, found in tables_of_stream(read_stream(path), **options)]
    columns = [
        {name: np.concatenate([getattr(block, table)[name] for block in blocks]) for name in getattr(blocks[0], table)}
        for table in ("frames", "crystals", "reflections")
    ]
    return (*columns, [peaks for block in blocks for peaks in block.peaks or []])


@settings(max_examples=30)
@given(st.integers(0, 2**31), st.integers(1, 9))
def test_a_table_comes_back(tmp_path_factory, seed, at_a_time):
    path = tmp_path_factory.mktemp("s") / "x.stream"
    frames, crystals, reflections, peaks = tables(seed)
    path.write_bytes(stream_of(frames, crystals, reflections, peaks))
    got_frames, got_crystals, got_reflections, got_peaks = joined(path, frames_at_a_time=at_a_time)
    for name in _SAME_FRAMES:
        assert np.array_equal(got_frames[name], frames[name], equal_nan=name == "resolution"), name
    for name in _SAME_CRYSTALS:
        assert np.array_equal(got_crystals[name], crystals[name]), name
    np.testing.assert_allclose(got_crystals["reciprocal"], crystals["reciprocal"], atol=6e-9)
    np.testing.assert_allclose(got_crystals["cell"], crystals["cell"], atol=1e-4)
    for name in ("crystal", "h", "k", "l", "panel"):
        assert np.array_equal(got_reflections[name], reflections[name]), name
    for name, half in _HALF_DIGITS.items():
        np.testing.assert_allclose(got_reflections[name], reflections[name], rtol=2e-7, atol=half * 1.001)
    # |hkl| up to 70 times the rounding of an axis, along the ray.
    np.testing.assert_allclose(got_reflections["excitation_error"], reflections["excitation_error"], atol=7e-7)
    np.testing.assert_allclose(got_reflections["polarisation"], reflections["polarisation"], atol=4e-6)
    assert [len(found) for found in got_peaks] == [len(found) for found in peaks]
    for found, own in zip(got_peaks, peaks, strict=True):
        assert np.array_equal(found["panel"], own["panel"])
        for name, half in (("fs", 0.005), ("ss", 0.005), ("intensity", 0.005)):
            np.testing.assert_allclose(found[name], own[name], atol=half * 1.001)


def without_own_lines(data):
    return b"".join(line for line in data.splitlines(keepends=True) if not line.startswith(b"sfxflow/"))


def test_what_another_program_does_not_say(tmp_path):
    """Without sfxflow's own lines: sigma(q) is the profile radius over 1.1 at every q, the shift has three decimals, the rest is unknown."""
    frames, crystals, reflections, _ = tables(3)
    path = tmp_path / "x.stream"
    path.write_bytes(without_own_lines(stream_of(frames, crystals, reflections)))
    got_frames, got, got_reflections, got_peaks = joined(path)
    assert got_frames["frame"].tolist() == list(range(len(frames["frame"])))
    np.testing.assert_allclose(got_frames["clen"], frames["clen"], atol=5.1e-7)
    assert not got_peaks
    said = [crystal.profile_radius for frame in read_stream(path) for crystal in frame.crystals]
    np.testing.assert_allclose(got["profile_radius"], np.array(said) / 1.1, rtol=1e-6)
    np.testing.assert_allclose(got["shift"], crystals["shift"], atol=5.1e-7)
    for name in ("mosaicity", "bandwidth", "excess"):
        assert not got[name].any()
    assert np.all(got["n_peaks"] == -1)
    assert np.all(np.isnan(got["log10_p"])) and np.all(np.isnan(got["rms_position"]))
    np.testing.assert_allclose(got["resolution"], crystals["resolution"], atol=0.01)
    # The axes hold the excess, so that rays and, but for the factor 1 + excess, distances from the Ewald sphere are what they were.
    excess = crystals["excess"][reflections["crystal"]].astype(float)
    np.testing.assert_allclose(
        got_reflections["excitation_error"], reflections["excitation_error"] * (1 + excess), atol=7e-7
    )
    np.testing.assert_allclose(got_reflections["polarisation"], reflections["polarisation"], atol=4e-6)


def test_the_stream_of_another_program_is_the_same_again(tmp_path):
    """Tables of a stream without sfxflow's lines, written as a stream: every number as it was.

    The resolution limit stands there in 1/nm and in angstrom, each rounded; it is read, as CrystFEL does, from the former.
    """

    def without_angstrom(data):
        return re.sub(rb"(diffraction_resolution_limit = .* nm\^-1) or .*", rb"\1", data)

    path = tmp_path / "x.stream"
    path.write_bytes(without_own_lines(stream_of(*tables(5)[:3])))
    again = without_own_lines(stream_of(*joined(path)[:3]))
    assert without_angstrom(again) == without_angstrom(path.read_bytes())


def test_polarisation_is_as_asked(tmp_path):
    path = tmp_path / "x.stream"
    path.write_bytes(stream_of(*tables(3)[:3]))
    across = joined(path, polarisation_fraction=1.0, polarisation_angle=np.pi / 2)[2]["polarisation"]
    along = joined(path, polarisation_fraction=1.0)[2]["polarisation"]
    unpolarised = joined(path, polarisation_fraction=0.5)[2]["polarisation"]
    np.testing.assert_allclose((along + across) / 2, unpolarised, atol=1e-6)
    assert np.abs(along - across).max() > 0.01


@settings(max_examples=80)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 60), st.binary(max_size=12)), min_size=1, max_size=4),
    st.booleans(),
)
def test_damage_of_any_kind_is_told_or_harmless(tmp_path_factory, damages, skip_damaged):
    """Bytes replaced, inserted or lost anywhere among the frames: tables or a message, nothing else."""
    data = bytearray(stream_of(*tables(3, n_frames=4)))
    first = data.index(b"----- Begin chunk")
    for where, n_lost, inserted in damages:
        place = first + int(where * (len(data) - first))
        data[place : place + n_lost] = inserted
    path = tmp_path_factory.mktemp("s") / "x.stream"
    path.write_bytes(data)
    try:
        reader = read_stream(path, skip_damaged)
        n = sum(len(found) for found, _ in tables_of_stream(reader))
    except InputError as error:
        assert "x.stream" in str(error)
    else:
        assert n + len(reader.damaged) >= reader.n_ended >= n
        assert skip_damaged or not reader.damaged


@pytest.mark.parametrize("said", ["nan", "inf", "1e300", "-1e300", "12x"])
def test_a_damaged_line_of_our_own_is_passed_over(tmp_path, said):
    path = tmp_path / "x.stream"
    data = re.sub(rb"(sfxflow/frame = number) \d+", rb"\1 " + said.encode(), stream_of(*tables(3)[:3]))
    path.write_bytes(re.sub(rb"(sfxflow/crystal = .*n_peaks) \d+", rb"\1 " + said.encode(), data))
    frames, crystals, *_ = joined(path)
    assert frames["frame"].tolist() == list(range(len(frames["frame"])))
    assert np.all(crystals["n_peaks"] == -1)


@pytest.mark.parametrize("said", [b"nan", b"99999999999", b"1e300"])
def test_a_number_of_peaks_that_is_none(tmp_path, said):
    path = tmp_path / "x.stream"
    path.write_bytes(re.sub(rb"num_peaks = \d+", b"num_peaks = " + said, stream_of(*tables(3)[:3])))
    with pytest.raises(InputError, match=r"x\.stream"):
        joined(path)


def test_another_geometry(tmp_path):
    path = tmp_path / "x.stream"
    path.write_bytes(stream_of(*tables(3)[:3]))
    with pytest.raises(
        InputError, match="the geometry has no panel 'b1' \\(a0, c1\\); give the geometry that was indexed with"
    ):
        joined(path, detector=detector(GEOMETRY.replace("b1/", "c1/")))


def test_a_stream_without_geometry(tmp_path):
    path = tmp_path / "x.stream"
    data = stream_of(*tables(3)[:3])
    start, end = data.index(b"----- Begin geometry"), data.index(b"----- Begin unit")
    path.write_bytes(data[:start] + data[end:])
    with pytest.raises(InputError, match=r"x\.stream: carries no geometry; give one with --geometry"):
        joined(path)
    got = joined(path, detector=detector())
    assert sorted(read_stream(path).panels) == [] and set(got[2]["panel"].tolist()) == {0, 1}
    assert PANELS == [panel.name for panel in detector().panels]
