"""The commands around CrystFEL's programs, with stand-ins for these: what is passed on, and every way in which they fail quietly."""

import ast
import json
import os
from pathlib import Path

import gemmi
import h5py
import hdf5plugin
import numpy as np
import pytest
from crystfel_stand_ins import PROGRAMS

from sfxflow.cli import main
from sfxflow.io.merged import read_merged
from sfxflow.io.stream_reader import read_stream
from sfxflow.io.table import open_chunk, read_rows
from sfxflow.reflections import TABLES, Status

N = 12


class Bench:
    """Stand-ins on PATH, and the commands on the frames of the simulated demo."""

    def __init__(self, folder, demo, patch, capsys):
        self.folder, self.demo, self.patch, self.capsys = folder, demo, patch, capsys
        self.bin = folder / "bin"
        self.bin.mkdir()
        for name, text in PROGRAMS.items():
            (self.bin / name).write_text(text)
            (self.bin / name).chmod(0o755)
        (folder / "tmp").mkdir()
        patch.setenv("PATH", f"{self.bin}{os.pathsep}/usr/bin:/bin")
        patch.setenv("STAND_IN_CALLS", str(folder / "calls"))
        # tempfile remembers the folder that it found first.
        patch.setattr("tempfile.tempdir", str(folder / "tmp"))

    def fail(self, how):
        self.patch.setenv("STAND_IN", how)

    def peaks(self, *more, **settings):
        arguments = [
            "crystfel_peaks",
            "--frames",
            self.demo.frames,
            "--geometry",
            self.demo.geometry,
            "--count",
            str(N),
        ]
        return self._run([*arguments, "--settings", json.dumps(settings)], "peaks.h5", more)

    def indexing(self, *more, peaks="peaks.h5", **settings):
        arguments = [
            *(
                "crystfel_indexing",
                "--peaks",
                str(self.folder / peaks),
                "--frames",
                self.demo.frames,
                "--count",
                str(N),
            ),
            *("--geometry", self.demo.geometry, "--cell", self.demo.cell, "--space-group", self.demo.group),
            *("--kept-stream", str(self.folder / "frames.stream"), "--settings", json.dumps(settings)),
        ]
        return self._run(arguments, "integrated.h5", more)

    def merging(self, merger, *more, **settings):
        """Merge the stream that `sfxflow stream` writes of the integrated file."""
        integrated, stream = str(self.folder / "integrated.h5"), str(self.folder / "dataset.stream")
        crystal = ["--cell", self.demo.cell, "--space-group", self.demo.group]
        arguments = [
            "stream",
            "--integrated",
            integrated,
            "--geometry",
            self.demo.geometry,
            *crystal,
            "--output",
            stream,
        ]
        assert main(arguments) == 0
        arguments = [merger, "--stream", stream, "--integrated", integrated, "--dataset", "demo", *crystal]
        return self._run([*arguments, "--settings", json.dumps(settings)], "merged.h5", more)

    def _run(self, arguments, output, more):
        path = self.folder / output
        path.unlink(missing_ok=True)
        self.capsys.readouterr()
        status = main([*arguments, *map(str, more), "--output", str(path)])
        captured = self.capsys.readouterr()
        self.said = captured.out + captured.err
        assert "Traceback" not in self.said
        assert path.exists() == (status == 0)
        assert not list((self.folder / "tmp").iterdir())
        # Of this bench: others may be at work beside it.
        own = str(self.folder / "calls").replace("/", "-")[-200:]
        assert not [name for name in os.listdir("/dev/shm") if own in name]
        return status

    def refused(self, status):
        assert status == 1
        return self.said

    def frames(self, name="integrated.h5"):
        with open_chunk(self.folder / name, "frames") as handle:
            return read_rows(handle["frames"])

    def calls(self, program):
        lines = (self.folder / "calls").read_text().splitlines()
        calls = [ast.literal_eval(line) for line in lines]
        return [call[1:] for call in calls if call[0] == program and "--version" not in call]


@pytest.fixture
def bench(tmp_path, demo, monkeypatch, capsys):
    return Bench(tmp_path, demo, monkeypatch, capsys)


@pytest.fixture
def indexed(bench):
    assert bench.peaks() == 0
    assert bench.indexing() == 0
    return bench


# ---- the engine


def test_peaks_and_frame_account(bench):
    assert bench.peaks(peaks={"min_snr": 6}) == 0
    frames = bench.frames("peaks.h5")
    assert list(frames["frame"]) == list(range(N))
    assert frames["status"].tolist() == [Status.hit, Status.blank] * (N // 2)
    assert frames["n_peaks"].tolist() == [20, 5] * (N // 2)
    assert frames["file"] == [bench.demo.frames] * N
    assert frames["event"] == [f"//{i}" for i in range(N)]
    with h5py.File(bench.folder / "peaks.h5") as handle:
        # CXI counts from the centre of the first pixel.
        np.testing.assert_allclose(handle["entry_1/result_1/peakXPosRaw"][0, :3], [10, 11, 12])
        assert handle.attrs["program"] == "CrystFEL 0.12.0"
        assert "--min-snr=6" in handle.attrs["options"]
    assert "12 frames: 6 hits, 6 blanks, 0 failed (CrystFEL 0.12.0)" in bench.said
    (call,) = bench.calls("indexamajig")
    assert "--indexing=none" in call


def test_peaks_of_the_built_in_engine_are_passed_on(bench):
    status = bench.peaks("--taken", bench.demo.peaks, crystfel={"peak_search": "builtin"})
    assert status == 0
    assert (bench.folder / "peaks.h5").read_bytes() == Path(bench.demo.peaks).read_bytes()
    assert not (bench.folder / "calls").exists()


def test_peaks_to_take_must_be_given(bench):
    assert "give the peak file of the engine builtin with --taken" in bench.refused(
        bench.peaks(crystfel={"peak_search": "builtin"})
    )


def test_of_more_peaks_the_strongest_are_kept(bench):
    assert bench.peaks(peaks={"max_peaks": 16}) == 0
    assert bench.frames("peaks.h5")["n_peaks"].tolist() == [16, 5] * (N // 2)


def test_hits_are_indexed_and_every_frame_is_accounted_for(indexed):
    frames = indexed.frames()
    assert frames["status"].tolist() == [Status.indexed, Status.blank] * (N // 2)
    assert frames["n_lattices"].tolist() == [1, 0] * (N // 2)
    with open_chunk(indexed.folder / "integrated.h5") as handle:
        assert handle.attrs["space_group"] == "P 43 21 2"
        assert all(set(handle[table]) == {column.name for column in columns} for table, columns in TABLES.items())
        # The stand-in writes the frames backwards.
        assert handle["crystals/frame"][()].tolist() == list(range(0, N, 2))
        assert handle["reflections/crystal"][()].tolist() == np.repeat(np.arange(N // 2), 2).tolist()
        assert handle["reflections/l"][()].tolist() == [i % 4 + 1 for i in range(0, N, 2) for _ in "hk"]
        np.testing.assert_allclose(handle["crystals/shift"][0], [-1e-5, 2e-5], rtol=1e-5)
    (call,) = indexed.calls("indexamajig")[1:]
    assert {"--peaks=cxi", "--no-revalidate", "--indexing=asdf", "--int-radius=3,4,6"} <= set(call)
    assert "6 hits: 6 indexed, 6 lattices, 12 reflections; 0 failed" in indexed.said


def test_the_kept_stream_names_the_frames_own_files(indexed):
    frames = list(read_stream(indexed.folder / "frames.stream"))
    assert {(frame.file, frame.event) for frame in frames} == {
        (os.path.abspath(indexed.demo.frames), f"//{i}") for i in range(0, N, 2)
    }


def test_a_geometry_without_a_gain(bench):
    """indexamajig wants one of every panel: it is estimated, and the files say so."""
    silent = bench.folder / "silent.geom"
    lines = Path(bench.demo.geometry).read_text().splitlines(keepends=True)
    silent.write_text("".join(line for line in lines if "adu_per_photon" not in line))
    assert len(lines) > silent.read_text().count("\n")
    assert bench.peaks("--geometry", silent) == 0
    assert "detector units a photon (estimated from frame 0)" in bench.said
    assert bench.indexing("--geometry", silent) == 0
    for name in ("peaks.h5", "integrated.h5"):
        with h5py.File(bench.folder / name) as handle:
            gain, _, origin = handle.attrs["gain_from"].partition(", ")
        assert origin == "estimated from frame 0"
        assert float(gain) == pytest.approx(1.0, abs=0.1)
    with h5py.File(bench.folder / "integrated.h5") as handle:
        n = len(handle["crystals/frame"])
    stream = bench.folder / "with_gain.stream"
    crystal = ["--cell", bench.demo.cell, "--space-group", bench.demo.group]
    arguments = ["stream", "--integrated", str(bench.folder / "integrated.h5"), "--geometry", str(silent), *crystal]
    assert main([*arguments, "--output", str(stream)]) == 0
    assert stream.read_text().count("--- Begin crystal") == n
    assert "\nadu_per_photon = 1\n" in stream.read_text().partition("----- End geometry file -----")[0]


def test_filters_of_compressed_frames(bench):
    """HDF5 of another build finds them where this variable says; what was there before is kept."""
    bench.fail("filters")
    bench.patch.setenv("HDF5_PLUGIN_PATH", "my_filters")
    assert bench.peaks("--program-log", bench.folder / "filters.log") == 0
    told = (bench.folder / "filters.log").read_text()
    assert f"HDF5_PLUGIN_PATH={hdf5plugin.PLUGINS_PATH}{os.pathsep}my_filters" in told


def test_a_chunk_without_hits(bench):
    assert bench.peaks(peaks={"min_peaks": 500}) == 0
    assert bench.indexing() == 0
    assert bench.frames()["status"].tolist() == [Status.blank] * N
    assert len(bench.calls("indexamajig")) == 1
    assert list(read_stream(bench.folder / "frames.stream")) == []


def test_the_program_log_is_kept_where_asked_for(bench):
    assert bench.peaks("--program-log", bench.folder / "logs/peaks.log") == 0
    assert "Final: 12 images processed" in (bench.folder / "logs/peaks.log").read_text()


# ---- the engine fails, mostly with status 0


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("missing_frame", "indexamajig wrote nothing about this frame"),
        ("killed_worker", "indexamajig's worker was killed by signal 9"),
    ],
)
def test_a_frame_that_vanishes_is_counted_and_named(bench, how, reason):
    bench.fail(how)
    assert bench.peaks() == 0
    frames = bench.frames("peaks.h5")
    assert np.flatnonzero(frames["status"] == Status.failed).tolist() == [N - 2]
    assert frames["message"][N - 2] == reason
    assert frames["n_peaks"][N - 2] == 0
    assert "5 hits, 6 blanks, 1 failed" in bench.said
    # In indexing the hits that are left are 0, 2, 4, 6, 8: the second from behind is lost.
    assert bench.indexing() == 0
    frames = bench.frames()
    assert np.flatnonzero(frames["status"] == Status.failed).tolist() == [6, N - 2]
    assert frames["message"][6] == reason
    assert "5 hits: 4 indexed, 4 lattices, 8 reflections; 1 failed" in bench.said
    assert sum(np.bincount(frames["status"], minlength=4)) == N


@pytest.mark.parametrize("stage", ["peaks", "indexing"])
def test_more_lost_frames_than_allowed(bench, stage):
    if stage == "indexing":
        assert bench.peaks() == 0
    bench.fail("missing_frame")
    status = (
        bench.peaks(peaks={"max_bad_frames": 0.01})
        if stage == "peaks"
        else bench.indexing(crystfel={"max_bad_frames": 0.01})
    )
    assert (
        f"1 of {N if stage == 'peaks' else 6} frames failed (max_bad_frames: 0.01): indexamajig wrote nothing"
        in bench.refused(status)
    )
    assert "| Couldn't read data for panel" in bench.said


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("nothing", "indexamajig: ended as if all were well, but wrote no stream; it said nothing"),
        ("full_disk", "says it has processed 12 frames, but 0 begin and 0 end in its stream: output was lost"),
        ("cut", "says it has processed 12 frames, but 12 begin and 11 end in its stream: output was lost"),
        (
            "unknown_method",
            "indexamajig: ended with status 1 after 0 s; its last lines:\n  | Bad list of indexing methods: 'none'",
        ),
        ("old", "indexamajig: is version 0.8.0, but 0.10.0 or newer is needed"),
    ],
)
def test_a_run_that_failed(bench, how, words):
    bench.fail(how)
    assert words in bench.refused(bench.peaks())


def test_a_program_that_hangs(bench):
    bench.fail("hang")
    said = bench.refused(bench.peaks("--time-limit", 0.05))
    assert "indexamajig: did not end within 1.5 s and was stopped: it hangs, or the job needs more time" in said
    assert "its last lines:\n  | working on the first frame" in said


def test_the_program_is_missing(bench):
    (bench.bin / "indexamajig").unlink()
    assert "indexamajig: no such program on PATH; it is part of CrystFEL" in bench.refused(bench.peaks())


def test_peaks_of_other_frames(bench):
    assert bench.peaks() == 0
    assert "does not hold the frames 2 to 13" in bench.refused(bench.indexing("--first", "2"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"indexing": {}}, "--settings: indexing: no such section here; it has: peaks, crystfel"),
        ({"crystfel": {"peak_serch": 1}}, "crystfel.peak_serch: no such setting; did you mean peak_search?"),
        ({"crystfel": {"peaks_extra": "-o x"}}, "crystfel.peaks_extra: -o: this option is given by sfxflow"),
        ({"peaks": []}, "a JSON object with the sections peaks, crystfel is expected"),
    ],
)
def test_wrong_settings(bench, settings, words):
    assert words in bench.refused(bench.peaks(**settings))


def test_many_strong_hits_without_a_lattice_are_a_warning(bench, monkeypatch):
    """indexamajig says nothing when cell or camera length are wrong: status 0, no crystals."""
    text = PROGRAMS["indexamajig"].replace("if indexing:", "if False:").replace("else 20", "else 30")
    (bench.bin / "indexamajig").write_text(text)
    assert bench.peaks() == 0
    assert bench.indexing() == 0
    assert "WARNING: 0 of 6 frames with 25 peaks or more are indexed with the cell" in bench.said
    with open_chunk(bench.folder / "integrated.h5") as handle:
        assert "check the cell, then the camera length" in handle.attrs["warning"]
        assert handle["frames/status"][()].tolist() == [Status.hit, Status.blank] * (N // 2)


# ---- the mergers

MERGERS = ("partialator", "process_hkl")


@pytest.mark.parametrize("merger", MERGERS)
def test_merged_reflections_and_half_sets(indexed, merger):
    assert indexed.merging(merger) == 0
    merged, crystals, _, attrs = read_merged(indexed.folder / "merged.h5")
    # (0 0 2) is absent in P43212.
    assert [tuple(row) for row in zip(merged["h"], merged["k"], merged["l"], strict=True)] == [
        (4, 1, 1),
        (4, 1, 2),
        (5, 1, 3),
    ]
    np.testing.assert_allclose(merged["I"], [402, 403, 504])
    assert merged["n"].tolist() == [3, 3, 3]
    assert merged["n_half1"].tolist() == [3, 0, 3]
    assert merged["n_half2"].tolist() == [3, 3, 0]
    assert np.isnan(merged["I_half1"][1])
    assert np.isnan(merged["sigI_half2"][2])
    assert attrs["n_absent"] == 1
    assert attrs["dataset"] == "demo"
    assert attrs["program"] == f"CrystFEL 0.12.0 {merger}"
    assert attrs["integrated"] == [str(indexed.folder / "integrated.h5")]
    assert crystals["chunk"].tolist() == [0] * 6
    assert crystals["crystal"].tolist() == list(range(6))
    assert sum(status == "merged" for status in crystals["status"]) == 5
    assert crystals["status"][1].startswith(
        {"partialator": "rejected", "process_hkl": "left out by process_hkl"}[merger]
    )
    assert "5 of 6 crystals merged: 3 reflections" in indexed.said
    assert all(call[call.index("-y") + 1] == "4/mmm" for call in indexed.calls(merger))
    assert len(indexed.calls(merger)) == (3 if merger == "process_hkl" else 1)


@pytest.mark.parametrize("merger", MERGERS)
def test_friedel_mates_apart(indexed, merger):
    """The program merges in the point group without inversion, and its list becomes I(+) and I(-) and their mean."""
    indexed.fail("mates")
    assert indexed.merging(merger, merging={"anomalous": True}) == 0
    assert all(call[call.index("-y") + 1] == "422" for call in indexed.calls(merger))
    merged, _, _, attrs = read_merged(indexed.folder / "merged.h5")
    assert attrs["anomalous"]
    rows = [tuple(row) for row in zip(merged["h"], merged["k"], merged["l"], strict=True)]
    assert rows == [(4, 1, 1), (4, 1, 2), (5, 1, 3)]
    np.testing.assert_allclose(merged["I_plus"], [402, 403, 504])
    np.testing.assert_allclose(merged["I_minus"], [102, 103, np.nan])
    np.testing.assert_allclose(merged["I"], [252, 253, 504])
    np.testing.assert_allclose(merged["sigI"], [5 / 2**0.5, 5 / 2**0.5, 5])
    np.testing.assert_allclose(
        merged["I_plus_half1"], [0.9 * 402, np.nan, 0.9 * 504] if merger == "partialator" else [402, np.nan, 504]
    )
    assert merged["n"].tolist() == [6, 6, 3]
    assert merged["n_minus"].tolist() == [3, 3, 0]
    assert json.loads(attrs["provenance"])["settings"]["merging"] == {"anomalous": True}
    files = {
        name: str(indexed.folder / name) for name in ("merged.h5", "integrated.h5", "m.mtz", "m.hkl", "1.hkl", "2.hkl")
    }
    arguments = [
        "export",
        "--merged",
        files["merged.h5"],
        "--integrated",
        files["integrated.h5"],
        "--mtz",
        files["m.mtz"],
    ]
    assert main([*arguments, "--hkl", files["m.hkl"], "--half1", files["1.hkl"], "--half2", files["2.hkl"]]) == 0
    assert {"I(+)", "SIGI(+)", "I(-)", "SIGI(-)"} <= set(gemmi.read_mtz_file(files["m.mtz"]).column_labels())


def test_scales_of_process_hkl(indexed):
    assert indexed.merging("process_hkl") == 0
    _, crystals, _, _ = read_merged(indexed.folder / "merged.h5")
    np.testing.assert_allclose(crystals["scale"], [2, np.nan, 1 / 2.5, 1 / 3.5, 1 / 4.5, 1 / 5.5])


def test_observations_that_partialator_used(indexed):
    assert indexed.merging("partialator") == 0
    _, crystals, _, _ = read_merged(indexed.folder / "merged.h5")
    assert crystals["n_observations"].tolist() == [1, 0, 1, 1, 1, 1]
    assert np.isnan(crystals["scale"]).all()


def test_resolution_limit_of_the_dataset(indexed):
    assert indexed.merging("partialator", "--d-min", "14.5") == 0
    merged, _, _, attrs = read_merged(indexed.folder / "merged.h5")
    assert merged["l"].tolist() == [1, 2][: len(merged["l"])]
    assert len(merged["l"]) + attrs["n_beyond_d_min"] == 3


@pytest.mark.parametrize("merger", MERGERS)
def test_what_follows_takes_the_merged_file(indexed, merger, tmp_path):
    assert indexed.merging(merger) == 0
    merged, integrated = str(indexed.folder / "merged.h5"), str(indexed.folder / "integrated.h5")
    files = {name: str(tmp_path / name) for name in ("f.json", "f.tsv", "m.mtz", "u.mtz", "m.hkl", "1.hkl", "2.hkl")}
    assert main(["figures_of_merit", "--merged", merged, "--json", files["f.json"], "--tsv", files["f.tsv"]]) == 0
    assert json.loads(Path(files["f.json"]).read_text())["overall"]["n_reflections"] == 3
    arguments = ["--mtz", files["m.mtz"], "--unmerged", files["u.mtz"], "--hkl", files["m.hkl"]]
    arguments += ["--half1", files["1.hkl"], "--half2", files["2.hkl"]]
    assert main(["export", "--merged", merged, "--integrated", integrated, *arguments]) == 0


@pytest.mark.parametrize("merger", MERGERS)
def test_no_crystals(bench, merger):
    """partialator fails then, process_hkl writes an empty list: neither is asked."""
    assert bench.peaks(peaks={"min_peaks": 500}) == 0
    assert bench.indexing() == 0
    assert bench.merging(merger) == 0
    merged, crystals, _, attrs = read_merged(bench.folder / "merged.h5")
    assert len(merged["I"]) == len(crystals["scale"]) == 0
    assert attrs["remark"] == "no crystals"
    assert "WARNING: demo: no crystals" in bench.said
    assert not bench.calls(merger)


@pytest.mark.parametrize("merger", MERGERS)
@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("nothing", "ended as if all were well, but its list merged.hkl is empty or missing"),
        ("empty_list", "ended as if all were well, but its list merged.hkl is empty or missing; is the disk full?"),
        ("no_end", "ended as if all were well, but its list merged.hkl can't be used"),
        ("wrong_group", "is merged in point group mmm, not in 4/mmm"),
        ("old", "is version 0.8.0, but 0.10.0 or newer is needed"),
    ],
)
def test_a_merger_that_failed(indexed, merger, how, words):
    indexed.fail(how)
    assert words in indexed.refused(indexed.merging(merger))


def test_a_half_set_that_is_not_there(indexed):
    indexed.fail("one_list")
    assert "its list merged.hkl2 is empty or missing" in indexed.refused(indexed.merging("partialator"))


def test_a_crystal_that_the_stream_does_not_have(indexed):
    indexed.fail("stranger")
    assert "speaks of a crystal on other.h5 //9 that the stream does not hold" in indexed.refused(
        indexed.merging("partialator")
    )


def test_a_merger_that_hangs(indexed):
    indexed.fail("hang")
    assert "partialator: did not end within 1.5 s" in indexed.refused(
        indexed.merging("partialator", "--time-limit", 0.05)
    )
