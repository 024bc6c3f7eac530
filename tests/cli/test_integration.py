"""`sfxflow integration`: reflections of every crystal, frames that can't be read any more, and bad input."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import gemmi
import h5py
import numpy as np
import pandas as pd
import pytest

from sfxflow.cell import parameters_of
from sfxflow.cli import main
from sfxflow.io.chunks import PlaneReader
from sfxflow.io.geometry import read_geometry
from sfxflow.io.table import open_chunk, read_rows
from sfxflow.reflections import FRAMES, REFLECTIONS, Status

DATA = "/entry_1/data_1/data"
ENERGY = "/entry_1/instrument_1/source_1/photon_energy_eV"


def read(path):
    with open_chunk(path) as handle:
        return tuple(read_rows(handle[name]) for name in ("frames", "crystals", "reflections")), dict(handle.attrs)


def corrupt(path, frames):
    """Overwrite the middle of the compressed chunks of some frames."""
    with h5py.File(path) as handle:
        stored = [handle[DATA].id.get_chunk_info_by_coord((i, 0, 0)) for i in frames]
    with open(path, "r+b") as handle:
        for chunk in stored:
            handle.seek(chunk.byte_offset + chunk.size // 3)
            handle.write(b"\xff" * (chunk.size // 3))


def run_on(demo, frames, output, *more):
    arguments = demo.arguments("integration", demo.indexed, output, *more)
    arguments[arguments.index("--frames") + 1] = str(frames)
    return main(arguments)


def test_file_is_what_an_engine_must_provide(demo):
    (frames, crystals, reflections), attributes = read(demo.integrated)
    assert set(frames) == {c.name for c in FRAMES}
    assert set(reflections) == {c.name for c in REFLECTIONS}
    with h5py.File(demo.integrated) as handle:
        for column in REFLECTIONS:
            assert handle["reflections"][column.name].dtype == np.dtype(column.dtype)
            assert handle["reflections"][column.name].attrs["units"] == column.unit
    assert json.loads(attributes["provenance"])["settings"]["inner_radius"] == 3.0
    assert attributes["space_group"] == "P 43 21 2" and attributes["warning"] == ""
    # Crystal after crystal, each with reflections.
    assert np.all(np.diff(reflections["crystal"].astype(int)) >= 0)
    assert set(reflections["crystal"].tolist()) == set(range(len(crystals["frame"])))
    np.testing.assert_array_equal(np.bincount(crystals["frame"], minlength=20), frames["n_lattices"])
    assert np.all(np.isfinite(reflections["I"])) and np.all(reflections["sigI"] > 0)
    assert np.all((reflections["polarisation"] > 0.3) & (reflections["polarisation"] <= 1.0))


def test_strong_reflections_lie_where_peaks_are(demo):
    (frames, crystals, reflections), _ = read(demo.integrated)
    detector = read_geometry(demo.geometry)
    assert reflections["panel"].max() < len(detector.panels)
    with h5py.File(demo.frames) as handle:
        data = handle[DATA]
        i = int(np.argmax(np.bincount(reflections["crystal"], weights=reflections["I"] > 10 * reflections["sigI"])))
        image = data[frames["frame"][crystals["frame"][i]]].astype(float)
    own = (reflections["crystal"] == i) & (reflections["I"] > 20 * reflections["sigI"])
    assert own.sum() > 30
    # The largest value in reach of the prediction is the peak that was written, and it is near the middle.
    offsets = []
    for fs, ss, peak in zip(reflections["fs"][own], reflections["ss"][own], reflections["peak"][own], strict=True):
        x, y = int(fs), int(ss)
        part = image[max(y - 3, 0) : y + 4, max(x - 3, 0) : x + 4]
        assert peak <= part.max()
        row, column = np.unravel_index(np.argmax(part), part.shape)
        offsets.append(np.hypot(column + max(x - 3, 0) + 0.5 - fs, row + max(y - 3, 0) + 0.5 - ss))
    assert np.median(offsets) < 1.0


def test_intensities_follow_the_simulated_ones(demo):
    """Per crystal, I / polarisation of well excited reflections against the true F squared: correlated, on one scale each."""
    (_, _, reflections), _ = read(demo.integrated)
    lines = (demo.folder / "truth.hkl").read_text().splitlines()
    rows = [line.split() for line in lines[3 : lines.index("End of reflections")]]
    group = gemmi.SpaceGroup("P43212")
    asu = gemmi.ReciprocalAsu(group)
    true = {}
    for row in rows:
        hkl, _ = asu.to_asu([int(x) for x in row[:3]], group.operations())
        true[tuple(hkl)] = float(row[3])
    near = np.abs(reflections["excitation_error"]) < 2e-4
    correlations = []
    for crystal in set(reflections["crystal"].tolist()):
        chosen = np.flatnonzero(near & (reflections["crystal"] == crystal))
        pairs = []
        for i in chosen:
            hkl, _ = asu.to_asu([int(reflections[name][i]) for name in "hkl"], group.operations())
            if tuple(hkl) in true:
                pairs.append((true[tuple(hkl)], reflections["I"][i] / reflections["polarisation"][i]))
        if len(pairs) >= 20:
            correlations.append(np.corrcoef(np.array(pairs).T)[0, 1])
    assert len(correlations) >= 10
    assert np.median(correlations) > 0.85


def test_two_threads_give_the_same_file(demo, tmp_path):
    demo.ok("integration", demo.indexed, tmp_path / "two.h5", "--threads", "2")
    for one, two in zip(read(demo.integrated)[0], read(tmp_path / "two.h5")[0], strict=True):
        assert one.keys() == two.keys()
        for name, values in one.items():
            np.testing.assert_array_equal(values, two[name])


@pytest.mark.parametrize("threads", [1, 2])
def test_a_frame_that_can_no_longer_be_read_is_one_failed_frame(demo, tmp_path, threads):
    (before, before_crystals, before_reflections), _ = read(demo.integrated)
    lost = int(before_crystals["frame"][4])
    shutil.copy(demo.frames, tmp_path / "frames.h5")
    corrupt(tmp_path / "frames.h5", [lost])
    assert run_on(demo, tmp_path / "frames.h5", tmp_path / "o.h5", "--threads", threads) == 0
    (frames, crystals, reflections), _ = read(tmp_path / "o.h5")
    assert np.flatnonzero(frames["status"] == Status.failed).tolist() == [lost]
    assert "//" in frames["message"][lost] and frames["n_lattices"][lost] == 0 and np.isnan(frames["resolution"][lost])
    kept = before_crystals["frame"] != lost
    np.testing.assert_array_equal(crystals["frame"], before_crystals["frame"][kept])
    np.testing.assert_array_equal(crystals["reciprocal"], before_crystals["reciprocal"][kept])
    # Reflections of the others, with the crystals counted anew.
    still = kept[before_reflections["crystal"]]
    np.testing.assert_array_equal(reflections["I"], before_reflections["I"][still])
    renumbered = (np.cumsum(kept) - 1)[before_reflections["crystal"][still]]
    np.testing.assert_array_equal(reflections["crystal"], renumbered)
    others = np.arange(20) != lost
    np.testing.assert_array_equal(frames["status"][others], before["status"][others])


def test_too_many_failed_frames_fail_the_job(demo, tmp_path, capsys):
    shutil.copy(demo.frames, tmp_path / "frames.h5")
    indexed = read(demo.integrated)[0][1]["frame"]
    corrupt(tmp_path / "frames.h5", indexed[:3])
    assert run_on(demo, tmp_path / "frames.h5", tmp_path / "o.h5", "--settings", '{"max_bad_frames": 0.1}') == 1
    said = capsys.readouterr().err
    assert "3 of 20 frames failed (max_bad_frames: 0.1)" in said and "frames.h5" in said
    assert [path.name for path in tmp_path.iterdir()] == ["frames.h5"]


def test_frames_that_failed_before_count_and_are_named(demo, tmp_path, capsys):
    shutil.copy(demo.indexed, tmp_path / "i.h5")
    with h5py.File(tmp_path / "i.h5", "a") as handle:
        blank = np.flatnonzero(handle["frames/status"][()] == Status.blank)[:2]
        for i in blank:
            handle["frames/status"][i] = Status.failed
            handle["frames/message"][i] = "frame lost on the way"
    assert demo.run("integration", tmp_path / "i.h5", tmp_path / "o.h5", "--settings", '{"max_bad_frames": 0.05}') == 1
    assert "2 of 20 frames failed (max_bad_frames: 0.05): frame lost on the way" in capsys.readouterr().err


def test_resolution_limit(demo, tmp_path):
    demo.ok("integration", demo.indexed, tmp_path / "o.h5", "--settings", '{"d_min": 3.5}')
    (_, crystals, reflections), _ = read(tmp_path / "o.h5")
    hkl = np.stack([reflections[name] for name in "hkl"], axis=1).astype(float)
    q = np.einsum("nij,nj->ni", crystals["reciprocal"][reflections["crystal"]], hkl)
    assert 0.95 / 3.5 < np.linalg.norm(q, axis=1).max() <= 1 / 3.5
    assert len(read(demo.integrated)[0][2]["I"]) > len(reflections["I"])


def test_nan_and_saturated_pixels_spoil_only_their_reflections(demo, tmp_path):
    (_, crystals, whole), _ = read(demo.integrated)
    frame = int(crystals["frame"][0])
    own = np.flatnonzero(whole["crystal"] == 0)
    nan, full = own[np.argsort(-whole["I"][own])[:2]]
    with h5py.File(demo.frames) as source, h5py.File(tmp_path / "frames.h5", "w") as target:
        data = source[DATA][()].astype(np.float32)
        data[frame, int(whole["ss"][nan]), int(whole["fs"][nan])] = np.nan
        data[frame, int(whole["ss"][full]), int(whole["fs"][full])] = 31000.0
        target[DATA], target[ENERGY], target["/entry_1/data_1/mask"] = (
            data,
            source[ENERGY][()],
            source["/entry_1/data_1/mask"][()],
        )
    assert run_on(demo, tmp_path / "frames.h5", tmp_path / "o.h5") == 0
    (_, _, reflections), _ = read(tmp_path / "o.h5")

    def keys(table):
        return set(zip(*(table[name].tolist() for name in ("crystal", "h", "k", "l")), strict=True))

    assert {tuple(int(whole[name][i]) for name in ("crystal", "h", "k", "l")) for i in (nan, full)} == keys(
        whole
    ) - keys(reflections)
    assert np.all(np.isfinite(reflections["I"])) and reflections["I"].max() < 31000


def keyed(reflections):
    """Intensity and sigma of each reflection by crystal and indices."""
    keys = zip(*(reflections[name].tolist() for name in ("crystal", "h", "k", "l")), strict=True)
    return dict(zip(keys, zip(reflections["I"].tolist(), reflections["sigI"].tolist(), strict=True), strict=True))


def test_profile_and_rings_agree_on_strong_reflections_and_the_profile_knows_weak_ones_better(demo, tmp_path):
    rings = demo.ok("integration", demo.indexed, tmp_path / "rings.h5", "--settings", '{"method": "rings"}')
    fitted, summed = keyed(read(demo.integrated)[0][2]), keyed(read(rings)[0][2])
    both = np.array([(*fitted[key], *summed[key]) for key in fitted.keys() & summed.keys()])
    assert len(both) > 0.95 * len(fitted)
    strong, weak = both[:, 2] > 20 * both[:, 3], both[:, 2] < 2 * both[:, 3]
    assert np.median(both[strong, 0] / both[strong, 2]) == pytest.approx(1.0, abs=0.03)
    assert np.median(both[weak, 1] / both[weak, 3]) < 0.7


def test_each_crystal_is_integrated_to_its_own_resolution(demo, tmp_path):
    demo.ok("integration", demo.indexed, tmp_path / "o.h5", "--settings", '{"push_res": 0.02}')
    (_, crystals, reflections), _ = read(tmp_path / "o.h5")
    hkl = np.stack([reflections[name] for name in "hkl"], axis=1).astype(float)
    q = np.linalg.norm(np.einsum("nij,nj->ni", crystals["reciprocal"][reflections["crystal"]], hkl), axis=1)
    highest = np.array([q[reflections["crystal"] == c].max() for c in range(len(crystals["frame"]))])
    limits = 1.0 / crystals["resolution"] + 0.02
    assert np.all(highest <= limits * (1 + 1e-6))
    assert np.median(highest / limits) > 0.97
    # Below its limit nothing is lost.
    (_, _, whole), _ = read(demo.integrated)
    hkl = np.stack([whole[name] for name in "hkl"], axis=1).astype(float)
    q = np.linalg.norm(np.einsum("nij,nj->ni", crystals["reciprocal"][whole["crystal"]], hkl), axis=1)
    below = np.count_nonzero(q < 0.999 * limits[whole["crystal"]])
    assert len(reflections["I"]) == pytest.approx(below, abs=0.01 * below)


def test_what_was_left_out_is_counted_and_told(demo, tmp_path, capsys):
    """The same frames, as if the detector were full at 60: strong reflections are saturated; or their pixels are masked."""
    text = Path(demo.geometry).read_text()
    assert "max_adu = 30000" in text
    geometry = tmp_path / "low.geom"
    geometry.write_text(text.replace("max_adu = 30000", "max_adu = 60"))
    attributes = {}
    for saturated in ("drop", "mask"):
        arguments = demo.arguments("integration", demo.indexed, tmp_path / "o.h5")
        arguments[arguments.index("--geometry") + 1] = str(geometry)
        assert main([*arguments, "--settings", json.dumps({"saturated": saturated})]) == 0
        said = capsys.readouterr().err
        tables, attributes[saturated] = read(tmp_path / "o.h5")
        assert attributes[saturated]["n_integrated"] == len(tables[2]["I"])
        assert f"{len(tables[2]['I'])} reflections; left out: " in said
        if saturated == "drop":
            assert f"{attributes['drop']['n_saturated']} saturated" in said
            assert tables[2]["peak"].max() <= 60
    assert attributes["drop"]["n_saturated"] > 20 and attributes["mask"]["n_saturated"] == 0
    assert attributes["mask"]["n_incomplete"] > attributes["drop"]["n_incomplete"]
    assert attributes["mask"]["n_integrated"] > attributes["drop"]["n_integrated"]


def test_frames_without_strong_spots_are_summed_and_that_is_told(demo, tmp_path, capsys):
    with h5py.File(demo.frames) as source, h5py.File(tmp_path / "frames.h5", "w") as target:
        shape = source[DATA].shape
        target[DATA] = np.random.default_rng(1).poisson(1.0, shape).astype(np.int16)
        for name in (ENERGY, "/entry_1/data_1/mask"):
            target[name] = source[name][()]
    assert run_on(demo, tmp_path / "frames.h5", tmp_path / "o.h5") == 0
    (_, crystals, _), attributes = read(tmp_path / "o.h5")
    n = len(set(crystals["frame"].tolist()))
    assert attributes["n_frames_without_profile"] == n
    assert f"{n} of {n} frames have too few strong spots for a profile" in capsys.readouterr().err


def test_no_frame_is_read_twice_by_one_stage(demo, tmp_path, monkeypatch):
    reads = []
    read_plane = PlaneReader.read

    def counted(reader, leading, out):
        reads.append((reader.dataset.name, *leading))
        return read_plane(reader, leading, out)

    monkeypatch.setattr(PlaneReader, "read", counted)
    (frames, crystals, _), _ = read(demo.integrated)
    demo.ok("peaks", None, tmp_path / "p.h5")
    assert sorted(reads) == [(DATA, i) for i in range(len(frames["frame"]))]
    reads.clear()
    demo.ok("integration", demo.indexed, tmp_path / "o.h5")
    # The first frame also tells how the detector marks its bad pixels.
    assert sorted(reads) == [(DATA, i) for i in sorted({0, *crystals["frame"].tolist()})]


def test_energy_of_each_frame_is_used(demo, tmp_path):
    """Excitation errors are those of the frame's own energy: recomputed by hand."""
    (frames, crystals, reflections), _ = read(demo.integrated)
    hkl = np.stack([reflections[name] for name in "hkl"], axis=1).astype(float)
    q = np.einsum("nij,nj->ni", crystals["reciprocal"][reflections["crystal"]], hkl)
    k = frames["photon_energy"][crystals["frame"]] / 12398.41984 / (1.0 + crystals["excess"])
    k = k[reflections["crystal"]]
    expected = k - np.sqrt(q[:, 0] ** 2 + q[:, 1] ** 2 + (q[:, 2] + k) ** 2)
    np.testing.assert_allclose(reflections["excitation_error"], expected, atol=1e-7)
    assert len(set(frames["photon_energy"][crystals["frame"]].tolist())) > 5
    assert all(np.allclose(parameters_of(r)[3:], 90, atol=1e-3) for r in crystals["reciprocal"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--settings", '{"inner_radius": 5}'], "the radii must grow: inner_radius <= middle_radius < outer_radius"),
        (["--settings", '{"outer_radus": 7}'], "integration.outer_radus: no such setting; did you mean outer_radius?"),
        (["--settings", '{"max_excitation": -1}'], "integration.max_excitation: -1.0 is below"),
        (["--first", "3"], "does not hold the frames 3 to 19"),
        (["--n-frames", "19"], "holds 20 frames, but the runs table"),
    ],
)
def test_bad_options_are_told_and_leave_nothing(demo, tmp_path, capsys, options, message):
    assert demo.run("integration", demo.indexed, tmp_path / "o.h5", *options) == 1
    said = capsys.readouterr().err
    assert message in said and said.startswith("sfxflow integration: ")
    assert not list(tmp_path.iterdir())


def test_a_file_of_another_stage(demo, tmp_path, capsys):
    assert demo.run("integration", demo.peaks, tmp_path / "o.h5") == 1
    assert "peaks.h5: has no crystals" in capsys.readouterr().err


def test_frame_files_that_are_gone(demo, tmp_path, capsys):
    assert run_on(demo, tmp_path / "gone.h5", tmp_path / "o.h5") == 1
    assert "gone.h5: there is no such file" in capsys.readouterr().err


def test_counts_add_up_through_all_stages(demo):
    truth = pd.read_csv(demo.folder / "truth.tsv", sep="\t", comment="#").drop_duplicates("frame")
    totals = []
    for path in (demo.peaks, demo.indexed, demo.integrated):
        with open_chunk(path) as handle:
            status = handle["frames/status"][()]
        counts = np.bincount(status, minlength=len(Status))
        assert counts.sum() == 20 == len(truth)
        totals.append(counts.tolist())
    # Hits become indexed ones; failed and blank frames stay what they are.
    assert totals[0][:2] == totals[1][:2] == totals[2][:2]
    assert totals[0][Status.hit] == totals[1][Status.hit] + totals[1][Status.indexed]
    assert totals[1] == totals[2]


def test_a_killed_worker_ends_the_job(demo, repeated, tmp_path):
    frames = repeated(4)
    peaks = tmp_path / "p.h5"
    arguments = demo.arguments("peaks", None, peaks)
    arguments[arguments.index("--frames") + 1] = frames
    assert main([*arguments, "--threads", "2"]) == 0
    demo.ok("indexing", peaks, tmp_path / "i.h5")
    demo.frames, kept = frames, demo.frames
    try:
        child = demo.child("integration", tmp_path / "i.h5", tmp_path / "o.h5", "--threads", "2")
    finally:
        demo.frames = kept
    workers = []
    while len(workers) < 2:
        assert child.poll() is None
        workers = [int(word) for word in Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()]
        time.sleep(0.01)
    os.kill(workers[0], signal.SIGKILL)
    said, _ = child.communicate(timeout=60)
    assert child.returncode == 1
    assert "sfxflow integration: a worker process died" in said and "Traceback" not in said
    assert not (tmp_path / "o.h5").exists() and not list(tmp_path.glob(".*.part"))
    assert not any(os.path.exists(f"/proc/{pid}") for pid in workers)
