"""`sfxflow simulate`: the files that it writes, and its messages."""

import errno
import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401 -- registers the bitshuffle filter
import numpy as np
import pandas as pd
import pytest

from sfxflow.cli import main
from sfxflow.io import simulated
from sfxflow.io.cell_file import read_cell
from sfxflow.io.geometry import read_geometry
from sfxflow.io.hkl import read_hkl
from sfxflow.simulate import frames
from sfxflow.simulate.presets import preset

SMALL = {"panel_rows": 2, "panel_ss": 64, "panel_fs": 96, "d_min": 5.0, "clen": 0.05}
SET = ["--set", *(f"{key}={value}" for key, value in SMALL.items())]


def simulate(folder, *options, n_frames=5, name="demo"):
    return main(
        [
            "simulate",
            "--preset",
            name,
            "--n-frames",
            str(n_frames),
            "--seed",
            "3",
            "--output",
            str(folder),
            *SET,
            *options,
        ]
    )


@pytest.fixture(scope="module")
def experiment():
    return preset("demo", seed=3, **SMALL)


@pytest.fixture(scope="module")
def cxi(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cxi")
    assert simulate(folder, "--threads", "2") == 0
    return folder


def test_the_folder_holds_frames_geometry_cell_and_truth(cxi):
    names = {"frames_00.h5", "detector.geom", "demo.cell", "truth.hkl", "truth.tsv"}
    assert {path.name for path in cxi.iterdir()} == names


def test_frames_open_with_plain_h5py(cxi, experiment):
    with h5py.File(cxi / "frames_00.h5") as handle:
        data = handle["/entry_1/data_1/data"]
        assert (data.shape, data.chunks, data.dtype) == ((5, 256, 96), (1, 256, 96), np.int16)
        assert (data.compression, data.compression_opts, data.shuffle) == ("gzip", 1, True)
        energies = handle["/entry_1/instrument_1/source_1/photon_energy_eV"][()]
        for i in range(5):
            image, truth = frames.simulate_frame(experiment, i)
            np.testing.assert_array_equal(data[i], image)
            assert energies[i] == truth.photon_energy
        mask = handle["/entry_1/data_1/mask"][()]
        np.testing.assert_array_equal(mask, experiment.bad_pixels_map.known)
        provenance = json.loads(handle.attrs["provenance"])
    assert provenance["settings"]["seed"] == 3 and provenance["settings"]["set"] == SMALL


def test_geometry_is_read_back_as_it_is(cxi, experiment):
    read = read_geometry(cxi / "detector.geom")
    assert read.photon_energy == "/entry_1/instrument_1/source_1/photon_energy_eV"
    assert read.clen == experiment.clen
    for got, expected in zip(read.panels, experiment.detector.panels, strict=True):
        assert (got.name, got.dims, got.data, got.masks) == (
            expected.name,
            expected.dims,
            expected.data,
            expected.masks,
        )
        bounds = ("min_fs", "max_fs", "min_ss", "max_ss", "slab_fs", "slab_ss", "adu_per_photon", "max_adu")
        assert all(getattr(got, key) == getattr(expected, key) for key in bounds)
        np.testing.assert_allclose(
            [got.origin, got.fs, got.ss], [expected.origin, expected.fs, expected.ss], atol=1e-15
        )


def test_truth_table_says_what_made_each_frame(cxi, experiment):
    table = pd.read_csv(cxi / "truth.tsv", sep="\t", comment="#", keep_default_na=False)
    assert sorted(set(table["frame"])) == list(range(5))
    for i in range(5):
        truth = frames.frame_truth(experiment, i)
        rows = table[table["frame"] == i]
        assert set(rows["file"]) == {"frames_00.h5"} and set(rows["event"]) == {f"//{i}"}
        assert set(rows["kind"]) == {truth.kind} and set(rows["n_lattices"]) == {len(truth.lattices)}
        assert float(rows["photon_energy_eV"].iloc[0]) == pytest.approx(truth.photon_energy, abs=1e-4)
        if not truth.lattices:
            assert rows["lattice"].tolist() == ["none"]
        for (_, row), lattice in zip(rows.iterrows(), truth.lattices, strict=False):
            stars = [[float(row[f"{axis}star_{x}"]) for axis in "abc"] for x in "xyz"]
            np.testing.assert_allclose(stars, lattice.reciprocal, rtol=1e-9)
            numbers = [float(row[name]) for name in ("scale", "B", "R0", "mosaicity")]
            made = (lattice.scale, lattice.b_factor, lattice.profile_radius, lattice.mosaicity)
            np.testing.assert_allclose(numbers, made, rtol=1e-5, atol=1e-4)
    assert {"blank", "single"} <= set(table["kind"])


def test_truth_intensities_are_a_crystfel_reflection_list(cxi, experiment):
    lines = (cxi / "truth.hkl").read_text().splitlines()
    assert lines[0] == "CrystFEL reflection list version 2.0"
    assert lines[1] == "Symmetry: 4/mmm"
    assert lines[2].split() == ["h", "k", "l", "I", "phase", "sigma(I)", "nmeas"]
    end = lines.index("End of reflections")
    rows = [line.split() for line in lines[3:end]]
    got = {tuple(map(int, row[:3])): (float(row[3]), float(row[5])) for row in rows}
    factors = experiment.structure_factors
    assert got.keys() == set(map(tuple, factors.unique.tolist()))
    for h, intensity in zip(factors.unique.tolist(), factors.unique_intensity, strict=True):
        assert got[tuple(h)] == (pytest.approx(intensity, abs=0.006), 0.0)


def test_every_file_says_where_it_comes_from(cxi):
    for path in cxi.iterdir():
        if path.suffix == ".h5":
            continue
        text = path.read_text()
        found = next(line for line in text.splitlines() if '"program": "sfxflow' in line)
        assert json.loads(found[found.index("{") :])["settings"]["preset"] == "demo"


def test_cell_file_is_crystfels(cxi):
    text = (cxi / "demo.cell").read_text()
    assert text.startswith("CrystFEL unit cell file version 1.0\n")
    for line in (
        "lattice_type = tetragonal",
        "unique_axis = c",
        "centering = P",
        "a = 79.1 A",
        "c = 37.9 A",
        "ga = 90.0 deg",
    ):
        assert line in text.splitlines()


def test_monoclinic_truth_names_its_unique_axis(tmp_path):
    assert simulate(tmp_path, name="monoclinic", n_frames=1) == 0
    assert (tmp_path / "truth.hkl").read_text().splitlines()[1] == "Symmetry: 2/m_uab"
    assert "unique_axis = b" in (tmp_path / "monoclinic.cell").read_text()


@pytest.mark.parametrize("compression", ["bitshuffle", "none"])
def test_other_compressions_hold_the_same_frames(cxi, tmp_path, compression):
    assert simulate(tmp_path, "--compression", compression, "--threads", "2") == 0
    with h5py.File(cxi / "frames_00.h5") as one, h5py.File(tmp_path / "frames_00.h5") as other:
        data = other["/entry_1/data_1/data"]
        np.testing.assert_array_equal(one["/entry_1/data_1/data"][()], data[()])
        assert data.chunks == (1, 256, 96)
        assert ("32008" in data._filters) == (compression == "bitshuffle")


def test_frames_are_split_over_files(cxi, tmp_path):
    assert simulate(tmp_path, "--frames-per-file", "2") == 0
    parts = []
    for name in ("frames_00.h5", "frames_01.h5", "frames_02.h5"):
        with h5py.File(tmp_path / name) as handle:
            parts.append(handle["/entry_1/data_1/data"][()])
    assert [len(part) for part in parts] == [2, 2, 1]
    with h5py.File(cxi / "frames_00.h5") as handle:
        np.testing.assert_array_equal(np.concatenate(parts), handle["/entry_1/data_1/data"][()])
    table = pd.read_csv(tmp_path / "truth.tsv", sep="\t", comment="#").drop_duplicates("frame")
    assert table[["file", "event"]].iloc[3].tolist() == ["frames_01.h5", "//1"]


@pytest.mark.parametrize("layout", ["nxmx", "nxmx_links"])
def test_nxmx_master_has_what_nxmx_asks_for(cxi, experiment, tmp_path, layout):
    assert simulate(tmp_path, "--format", layout, "--frames-per-file", "3") == 0
    names = {"frames_master.h5", "data_000001.h5", "data_000002.h5", "demo.cell", "truth.hkl", "truth.tsv"}
    assert {path.name for path in tmp_path.iterdir()} == names
    with h5py.File(tmp_path / "frames_master.h5") as handle, h5py.File(cxi / "frames_00.h5") as plain:
        entry = handle["entry"]
        assert entry.attrs["NX_class"] == "NXentry" and entry["definition"][()] == b"NXmx"
        if layout == "nxmx":
            assert entry["data/data"].is_virtual
            images = entry["data/data"][()]
        else:
            images = np.concatenate([entry[f"data/data_{i:06d}"][()] for i in (1, 2)])
        np.testing.assert_array_equal(images, plain["/entry_1/data_1/data"][()])
        wavelengths = entry["instrument/beam/incident_wavelength"]
        assert wavelengths.attrs["units"] == "angstrom"
        np.testing.assert_allclose(
            12398.41984 / wavelengths[()], plain["/entry_1/instrument_1/source_1/photon_energy_eV"][()]
        )
        detector = entry["instrument/detector"]
        np.testing.assert_array_equal(detector["pixel_mask"][()] > 0, experiment.bad_pixels_map.known)
        for field in (
            "x_pixel_size",
            "y_pixel_size",
            "distance",
            "sensor_thickness",
            "sensor_material",
            "saturation_value",
        ):
            assert field in detector
        for number, panel in enumerate(experiment.detector.panels):
            module = detector[f"module_{number:02d}"]
            assert module["data_origin"][()].tolist() == [panel.min_ss, panel.min_fs]
            assert module["data_size"][()].tolist() == [panel.n_ss, panel.n_fs]
            for name, step in (("fast_pixel_direction", panel.fs), ("slow_pixel_direction", panel.ss)):
                np.testing.assert_allclose(module[name][()] * module[name].attrs["vector"], step, atol=1e-15)
            offset = module["module_offset"]
            np.testing.assert_allclose(offset[()] * offset.attrs["vector"], panel.origin, atol=1e-15)
            camera_length = handle[offset.attrs["depends_on"]]
            assert camera_length[()] == experiment.clen and camera_length.attrs["vector"].tolist() == [0, 0, 1]


def test_nxmx_geometry_is_read_back_as_it_is(tmp_path, experiment):
    assert simulate(tmp_path, "--format", "nxmx", n_frames=1) == 0
    read = read_geometry(tmp_path / "frames_master.h5")
    for got, expected in zip(read.panels, experiment.detector.panels, strict=True):
        np.testing.assert_allclose(got.origin[:2], expected.origin[:2], atol=1e-12)
        assert got.origin[2] + read.clen == pytest.approx(expected.origin[2] + experiment.clen, abs=1e-12)
        np.testing.assert_allclose([got.fs, got.ss], [expected.fs, expected.ss], atol=1e-12)


def test_same_command_same_frames_and_it_may_be_repeated(cxi, tmp_path):
    for _ in range(2):
        assert simulate(tmp_path) == 0
    with h5py.File(cxi / "frames_00.h5") as one, h5py.File(tmp_path / "frames_00.h5") as other:
        np.testing.assert_array_equal(one["/entry_1/data_1/data"][()], other["/entry_1/data_1/data"][()])


def test_blanks_only(tmp_path):
    assert simulate(tmp_path, "--set", "blank_fraction=1", n_frames=3) == 0
    table = pd.read_csv(tmp_path / "truth.tsv", sep="\t", comment="#", keep_default_na=False)
    assert table["lattice"].tolist() == ["none"] * 3
    assert set(table["kind"]) == {"blank"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--n-frames", "0"], "--n-frames 0: at least 1 is expected"),
        (["--n-frames", "-3"], "--n-frames -3: at least 1 is expected"),
        (["--threads", "0"], "--threads 0: at least 1 is expected"),
        (["--frames-per-file", "0"], "--frames-per-file 0: at least 1 is expected"),
        (["--preset", "lyso"], "preset: 'lyso' is not one of demo,"),
        (["--set", "photon=5"], "photon: no such setting; did you mean photons?"),
        (["--set", "photons"], "--set photons: KEY=VALUE is expected"),
        (["--set", "photons=many"], "photons: 'many' is not a number"),
        (["--set", "d_min=0.1"], "d_min: 0.1 is below 0.8"),
        (["--set", "seed=4"], "--set seed: give --seed instead"),
        (["--seed", "-1"], "seed: -1 is below 0"),
        (["--set", "space_group=P1234"], "space_group: 'P1234' is not a space group"),
        (["--set", "c=80", "space_group=P432"], "the cell 79.1 79.1 80 90 90 90 is impossible in space group P432"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(tmp_path, capsys, options, message):
    folder = tmp_path / "out"
    arguments = ["simulate", "--preset", "demo", "--n-frames", "2", "--output", str(folder), *options]
    assert main(arguments) == 1
    assert message in capsys.readouterr().err
    assert not folder.exists()


@pytest.mark.parametrize("below", [".", "deeper/still"])
def test_output_that_is_a_file(tmp_path, capsys, below):
    (tmp_path / "taken").write_text("not a folder")
    assert simulate(tmp_path / "taken" / below) == 1
    assert "is a file, or lies below one; a folder is expected" in capsys.readouterr().err
    assert (tmp_path / "taken").read_text() == "not a folder"


def test_output_without_permission(tmp_path, capsys, monkeypatch):
    # Tests may run as root, whom permissions do not stop.
    monkeypatch.setattr(simulated.os, "access", lambda path, mode: False)
    assert simulate(tmp_path) == 1
    assert f"--output {tmp_path}: no permission to write into this folder" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_frames_of_another_simulation_are_not_mixed_in(tmp_path, capsys):
    assert simulate(tmp_path, "--frames-per-file", "2") == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert simulate(tmp_path) == 1
    assert "holds frames_01.h5 of another simulation" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_full_disk_leaves_nothing(tmp_path, capsys, monkeypatch):
    """The disk fills up after three frames."""
    free = iter([10**9] * 3)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(simulated.shutil, "disk_usage", lambda path: usage._replace(free=next(free, 1000)))
    assert simulate(tmp_path, "--frames-per-file", "2") == 1
    assert capsys.readouterr().err == f"sfxflow simulate: {tmp_path / 'frames_01.h5'}: No space left on device\n"
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_may_not_grow_leaves_nothing(tmp_path):
    """A limit that the operating system enforces: writing itself fails, as with a quota."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))

    program = "import sys; from sfxflow.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "simulate", "--preset", "demo", "--n-frames", "9", *SET]
    command += ["--output", str(tmp_path)]
    result = subprocess.run(command, check=False, capture_output=True, text=True, preexec_fn=limit)
    assert result.returncode == 1, result.stderr
    assert result.stderr == f"sfxflow simulate: {tmp_path / 'frames_00.h5'}: File too large\n"
    assert list(tmp_path.iterdir()) == []


def test_full_tmpfs_leaves_nothing(tmp_path):
    """A disk that really is full; needs the right to mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    if (
        shutil.which("mount") is None
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1200k", "tmpfs", folder], check=False, capture_output=True
        ).returncode
    ):
        pytest.skip("no right to mount a small tmpfs")
    try:
        command = [sys.executable, "-c", "import sys; from sfxflow.cli import main; sys.exit(main())"]
        command += ["simulate", "--preset", "demo", "--n-frames", "40", "--output", str(folder / "out"), *SET]
        result = subprocess.run(command, check=False, capture_output=True, text=True)
        assert result.returncode == 1
        assert result.stderr.startswith("sfxflow simulate: ") and "No space left on device" in result.stderr
        assert "Traceback" not in result.stderr
        assert [path for path in Path(folder).rglob("*") if path.is_file()] == []
    finally:
        subprocess.run(["umount", folder], check=True)


def test_errors_other_than_a_full_disk_are_not_renamed(tmp_path, monkeypatch):
    def broken(*arguments):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(simulated.SimulatedFiles, "_check_space", broken)
    with pytest.raises(OSError, match="Input/output error"):
        simulate(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_help_lists_presets_and_defaults(capsys):
    with pytest.raises(SystemExit) as status:
        main(["simulate", "--help"])
    assert status.value.code == 0
    text = capsys.readouterr().out
    assert "photon_counting" in text and "truth.hkl" in text and "KEY=VALUE" in text


def test_a_wrong_geometry_is_written_beside_the_true_one(tmp_path, experiment, capsys):
    assert simulate(tmp_path, "--set", "geometry_shift_x=3", "geometry_clen_error=0.01", n_frames=1) == 0
    stated, true = read_geometry(tmp_path / "detector.geom"), read_geometry(tmp_path / "true.geom")
    assert stated.clen == pytest.approx(1.01 * experiment.clen, rel=1e-12) and true.clen == experiment.clen
    for wrong, right in zip(stated.panels, true.panels, strict=True):
        np.testing.assert_allclose(np.subtract(wrong.origin, right.origin), (3e-4, 0, 0), atol=1e-12)
    assert simulate(tmp_path, n_frames=1) == 0
    assert not (tmp_path / "true.geom").exists(), "the truth of an earlier simulation is left"
    capsys.readouterr()
    assert simulate(tmp_path / "nexus", "--format", "nxmx", "--set", "geometry_shift_x=3", n_frames=1) != 0
    assert "--format nxmx: a wrong geometry" in capsys.readouterr().err
    assert not (tmp_path / "nexus").exists()


def test_states_forms_and_anomalous_truth_have_files_of_their_own(tmp_path):
    options = ["laser_fraction=0.5", "heavy_atoms=5", "second_fraction=0.5", "blank_fraction=0.3", "drift_x=4"]
    assert simulate(tmp_path, "--set", *options, "--frames-per-file", "4", n_frames=6) == 0
    changed = {"laser_fraction": 0.5, "heavy_atoms": 5, "second_fraction": 0.5, "blank_fraction": 0.3, "drift_x": 4}
    made = preset("demo", seed=3, **SMALL, **changed)
    truths = [frames.frame_truth(made, i) for i in range(6)]
    for first, name in ((0, "frames_00.h5"), (4, "frames_01.h5")):
        with h5py.File(tmp_path / name) as handle:
            some = truths[first : first + 4]
            assert handle["/entry_1/laser_on"][()].tolist() == [truth.laser_on for truth in some]
            np.testing.assert_array_equal(handle["/entry_1/laser_delay"][()], [truth.delay for truth in some])
    table = pd.read_csv(tmp_path / "truth.tsv", sep="\t", comment="#", keep_default_na=False).drop_duplicates("frame")
    assert table["state"].tolist() == [truth.state for truth in truths]
    assert table["laser_on"].tolist() == [int(truth.laser_on) for truth in truths]
    np.testing.assert_allclose(table["shift_x"], [truth.shift[0] / 1e-4 for truth in truths], rtol=1e-5)
    hits = [(row, truth) for (_, row), truth in zip(table.iterrows(), truths, strict=True) if truth.lattices]
    assert [(int(row["form"]), int(row["mode"])) for row, _ in hits] == [
        (truth.lattices[0].form, truth.lattices[0].mode) for _, truth in hits
    ]
    on, second = read_hkl(tmp_path / "truth_on.hkl"), read_hkl(tmp_path / "truth_second.hkl")
    np.testing.assert_allclose(on.I, made.laser_structure_factors.unique_intensity, atol=0.006)
    assert second.point_group == "mmm" and read_cell(tmp_path / "demo_second.cell").parameters[:3] == (48, 60, 77)
    apart = read_hkl(tmp_path / "truth_anomalous.hkl")
    assert apart.point_group == "422" and (tmp_path / "truth_on_anomalous.hkl").exists()
    table = dict(zip(map(tuple, made.structure_factors.hkl.tolist()), made.structure_factors.intensity, strict=True))
    np.testing.assert_allclose(apart.I, [table[tuple(h)] for h in apart.hkl.tolist()], atol=0.02, rtol=1e-4)
    assert len(made.structure_factors.unique) < len(apart.hkl) < 2 * len(made.structure_factors.unique)
    assert simulate(tmp_path, "--frames-per-file", "4", n_frames=6) == 0
    left = {path.name for path in tmp_path.iterdir()}
    assert not left & {"truth_on.hkl", "truth_second.hkl", "truth_anomalous.hkl", "demo_second.cell"}


def test_laser_values_stand_in_an_nxmx_master(tmp_path):
    assert simulate(tmp_path, "--format", "nxmx", "--set", "laser_fraction=0.5", n_frames=3) == 0
    with h5py.File(tmp_path / "frames_master.h5") as handle:
        assert handle["/entry/laser_on"].shape == (3,) and handle["/entry/laser_delay"].attrs["units"] == "ps"


def test_the_engine_finds_the_errors_that_the_simulator_made(tmp_path, stages_of):
    """Signs of the written shift, the drift and the camera length, as peaks and indexing see them."""
    options = ["blank_fraction=0", "multi_fraction=0", "geometry_shift_x=1", "geometry_clen_error=0.003"]
    options += ["drift_y=2", "drift_frames=9"]
    argv = [
        "simulate",
        "--preset",
        "demo",
        "--n-frames",
        "10",
        "--seed",
        "8",
        "--output",
        str(tmp_path),
        "--set",
        *options,
    ]
    assert main(argv) == 0
    stages = stages_of(tmp_path)
    peaks = stages.ok("peaks", None, tmp_path / "peaks.h5")
    indexed = stages.ok("indexing", peaks, tmp_path / "indexed.h5")
    with h5py.File(indexed) as handle:
        frame = handle["crystals/frame"][()]
        shift, excess = handle["crystals/shift"][()] / 1e-4, handle["crystals/excess"][()]
    assert len(frame) >= 8
    drift = np.cos(np.pi * frame / 9)
    assert np.median(shift[:, 0]) == pytest.approx(1.0, abs=0.1)
    assert np.median(excess) == pytest.approx(0.003, abs=6e-4)
    assert np.median(np.abs(shift[:, 1] - drift)) < 0.15
    table = pd.read_csv(tmp_path / "truth.tsv", sep="\t", comment="#").set_index("frame")
    np.testing.assert_allclose(table.loc[frame, "shift_y"], drift, atol=1e-5)
