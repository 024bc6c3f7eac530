"""sfxflow merging: files in, a merged file out, and messages for bad input."""

import re

import h5py
import numpy as np
import pytest
from chunk_files import remove, truncate, write_chunk
from observation_simulator import agreement, noisy_reflections, simulate

from sfxflow.cli import main
from sfxflow.io.merged import read_merged

CELL_FILE = """CrystFEL unit cell file version 1.0

lattice_type = tetragonal
centering = P
unique_axis = c
a = {a} A
b = {a} A
c = 37.9 A
al = 90 deg
be = 90 deg
ga = 90 deg
"""


@pytest.fixture(scope="module")
def simulated():
    return simulate(45, seed=21, d_min=2.5)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "lyso.cell").write_text(CELL_FILE.format(a=79.1))
    return tmp_path


def merge(folder, files, *more, space_group="P43212", cell="lyso.cell", output="merged.h5"):
    command = ["merging", "--integrated", *files, "--dataset", "lyso", "--cell", str(folder / cell)]
    return main([*command, "--space-group", space_group, "--output", str(folder / output), *more])


def test_merged_file(folder, simulated, capsys):
    files = [
        write_chunk(folder / "a.h5", simulated, range(20)),
        write_chunk(folder / "none.h5", simulated, []),
        write_chunk(folder / "b.h5", simulated, range(20, 45)),
    ]
    assert merge(folder, files, "--d-min", "--threads", "2", "--settings", '{"cycles": 6}') == 0
    said = capsys.readouterr().out
    assert "45 crystals in 3 files" in said
    merged, crystals, curve, attrs = read_merged(folder / "merged.h5")
    assert merged["n_measured"].min() == 2
    assert attrs["n_recorded_once"] == np.sum(merged["n"] == 1) > 0
    assert f"{attrs['n_recorded_once']} of the reflections were well recorded once only" in said
    assert attrs["n_never_recorded"] == np.sum(merged["n"] == 0) > 0
    assert f"{attrs['n_never_recorded']} of the reflections were measured, but never well recorded (n = 0)" in said
    recorded = merged["n"] > 0
    hkl = np.stack([merged[name] for name in "hkl"], axis=1)
    r1, cc = agreement(hkl[recorded], merged["I"][recorded], simulated)
    assert r1 < 0.12
    assert cc > 0.98
    assert np.array_equal(merged["n_half1"] + merged["n_half2"], merged["n"])
    assert crystals["chunk"].tolist() == [0] * 20 + [2] * 25
    assert crystals["crystal"].tolist() == [*range(20), *range(25)]
    assert set(crystals["status"]) == {"merged"}
    assert attrs["partiality_model"] == "empirical"
    assert attrs["wavelength"] == pytest.approx(12398.41984 / 9500)
    assert attrs["integrated"] == files
    assert '"cycles": 6' in attrs["provenance"]
    assert curve["crystal_rotation"].shape == (45, 2)
    assert curve["reference_width"] == pytest.approx(1.4e-4, rel=1e-3)
    assert sorted(path.name for path in folder.iterdir()) == ["a.h5", "b.h5", "lyso.cell", "merged.h5", "none.h5"]


def test_spread_over_files_does_not_matter(folder, simulated):
    one = [write_chunk(folder / "all.h5", simulated, range(45))]
    order = np.random.default_rng(1).permutation(45)
    many = [write_chunk(folder / f"{i}.h5", simulated, part) for i, part in enumerate(np.array_split(order, 4))]
    assert merge(folder, one, output="one.h5") == 0
    assert merge(folder, many, output="many.h5") == 0
    first, second = (read_merged(folder / name)[0] for name in ("one.h5", "many.h5"))
    for name in ("h", "k", "l", "n", "n_half1"):
        np.testing.assert_array_equal(first[name], second[name])
    np.testing.assert_allclose(first["I"], second["I"], rtol=1e-5)


def test_anomalous_columns(folder, simulated):
    files = [write_chunk(folder / "a.h5", simulated, range(45))]
    assert merge(folder, files, "--settings", '{"anomalous": true}') == 0
    merged, _, _, attrs = read_merged(folder / "merged.h5")
    assert attrs["anomalous"]
    assert np.array_equal(merged["n_plus"] + merged["n_minus"], merged["n"])


def test_no_lattices_at_all_gives_an_empty_file_and_a_warning(folder, simulated, capsys):
    files = [write_chunk(folder / f"{i}.h5", simulated, []) for i in range(2)]
    assert merge(folder, files) == 0
    assert "WARNING: nothing was merged for lyso: no lattice was found" in capsys.readouterr().out
    merged, crystals, _, _ = read_merged(folder / "merged.h5")
    assert len(merged["I"]) == len(crystals["scale"]) == 0


def test_few_crystals_say_which_model_was_taken(folder, simulated, capsys):
    assert merge(folder, [write_chunk(folder / "a.h5", simulated, range(4))]) == 0
    assert "WARNING: 4 crystals are fewer than the 5" in capsys.readouterr().out
    assert read_merged(folder / "merged.h5")[3]["partiality_model"] == "gaussian"


def test_one_crystal(folder, simulated):
    assert merge(folder, [write_chunk(folder / "a.h5", simulated, [3])]) == 0
    assert len(read_merged(folder / "merged.h5")[1]["scale"]) == 1


def test_full_disk_is_told_and_leaves_nothing(folder, simulated, small_disk, capsys):
    files = [write_chunk(folder / "a.h5", simulated, range(45))]
    assert merge(folder, files, output=str(small_disk / "merged.h5")) == 1
    error = capsys.readouterr().err
    assert "No space left on device" in error
    assert "Traceback" not in error
    assert list(small_disk.iterdir()) == []


def text_file(folder, simulated):
    (folder / "bad.h5").write_text("not HDF5")


def missing_file(folder, simulated):
    pass


def other_hdf5(folder, simulated):
    with h5py.File(folder / "bad.h5", "w") as handle:
        handle["x"] = 1


def peak_file(folder, simulated):
    write_chunk(folder / "bad.h5", simulated, range(3), tables=("frames",))


def truncated(folder, simulated):
    write_chunk(folder / "bad.h5", simulated, range(20))
    truncate(folder / "bad.h5")


def without_a_column(folder, simulated):
    write_chunk(folder / "bad.h5", simulated, range(3))
    remove(folder / "bad.h5", "reflections/sigI")


def mixed_crystals(folder, simulated):
    count = int(np.sum(simulated.reflections["crystal"] < 3))
    write_chunk(folder / "bad.h5", simulated, range(3), reflections={"crystal": np.arange(count)[::-1] % 3})


def another_cell(folder, simulated):
    write_chunk(
        folder / "bad.h5", simulated, range(3), crystals={"cell": np.tile([58.4, 58.4, 152.3, 90, 90, 90], (3, 1))}
    )


def hopeless_sigma(folder, simulated):
    count = int(np.sum(simulated.reflections["crystal"] < 3))
    write_chunk(folder / "bad.h5", simulated, range(3), reflections={"sigI": np.full(count, np.nan)})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (text_file, r"bad\.h5: can't be opened as HDF5"),
        (missing_file, r"bad\.h5: can't be opened as HDF5"),
        (other_hdf5, r"bad\.h5: is not a chunk file of sfxflow"),
        (peak_file, r"bad\.h5: holds no crystals and no reflections; a file of integrated reflections is expected"),
        (truncated, r"bad\.h5"),
        (without_a_column, r"bad\.h5: incomplete or damaged"),
        (mixed_crystals, r"bad\.h5: reflections do not lie crystal after crystal"),
        (another_cell, r"bad\.h5: its crystals have the cell 58\.4, .* but --cell says 79\.1"),
        (hopeless_sigma, r"none of \d+ observations can be used: \d+ without a finite intensity"),
    ],
)
def test_bad_files(folder, simulated, capsys, make, message):
    make(folder, simulated)
    assert merge(folder, [str(folder / "bad.h5")]) == 1
    _complains(capsys, message)
    assert not (folder / "merged.h5").exists()
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"space_group": "P43213"}, "'P43213' is not a space group"),
        ({"space_group": "P21"}, r"lattice_type is tetragonal, but space group P 1 21 1 is monoclinic"),
        (
            {"more": ("--d-min", "90")},
            r"--d-min 90\.0: no reflection has so low a resolution: the largest d is \d+\.\d+",
        ),
        ({"more": ("--d-min", "-2")}, r"--d-min -2\.0: a resolution in angstrom above 0"),
        ({"more": ("--settings", '{"cycels": 3}')}, "merging.cycels: no such setting; did you mean cycles"),
        ({"more": ("--settings", '{"cycles": 0}')}, "merging.cycles: 0 is below 1"),
        (
            {"more": ("--settings", '{"partiality": "ggpm"}')},
            "'ggpm' is not one of empirical, gaussian, xsphere, unity",
        ),
        ({"cell": "none.cell"}, r"none\.cell: the cell can't be read"),
    ],
)
def test_bad_options(folder, simulated, capsys, options, message):
    files = [write_chunk(folder / "a.h5", simulated, range(3))]
    more = options.pop("more", ())
    assert merge(folder, files, *more, **options) == 1
    _complains(capsys, message)
    assert not (folder / "merged.h5").exists()
    assert not list(folder.glob(".*"))


def _complains(capsys, message):
    said = capsys.readouterr().err
    assert said.startswith("sfxflow merging: ")
    assert "Traceback" not in said
    assert len(said.splitlines()) == 1
    assert re.search(message, said), said


def test_values_that_are_not_numbers_are_counted(folder, simulated, capsys):
    """NaN intensities and uncertainties, zero uncertainties: left out, told and kept in the file."""
    n = len(simulated.reflections["I"])
    intensity, sigma = simulated.reflections["I"].copy(), simulated.reflections["sigI"].copy()
    intensity[5:25], sigma[100], sigma[101] = np.nan, np.inf, 0.0
    files = [write_chunk(folder / "a.h5", simulated, range(45), reflections={"I": intensity, "sigI": sigma})]
    assert merge(folder, files) == 0
    assert "22 observations without a finite intensity, uncertainty or width left out" in capsys.readouterr().out
    merged, _, _, attrs = read_merged(folder / "merged.h5")
    assert attrs["n_unusable"] == 22
    assert attrs["n_observations"] == n - 22
    assert np.isfinite(merged["I"]).all()


def test_a_space_group_whose_absences_are_there(folder, simulated, capsys):
    reflections = {name: simulated.reflections[name].copy() for name in ("h", "k", "l", "excitation_error")}
    chosen = np.random.default_rng(4).choice(len(reflections["h"]), 60, replace=False)
    for name, value in {"h": 5, "k": 0, "l": 0, "excitation_error": 0}.items():
        reflections[name][chosen] = value
    files = [write_chunk(folder / "a.h5", simulated, range(45), reflections=reflections)]
    assert merge(folder, files) == 0
    said = capsys.readouterr().out
    found = r"WARNING: 60 observations of absent reflections left out, mean I/sigma \d+\.\d+ \(\d+\.\d+ of the others\): they are"
    assert re.search(found + " there, so P43212 is not the space group", said), said
    assert read_merged(folder / "merged.h5")[3]["absences_are_there"]


def test_half_sets_apart_and_rejection_by_delta_cc(folder, simulated, capsys):
    """Both through the command line, of crystals of which every sixth is noisy: what they did stands in the file."""
    noisy = noisy_reflections(simulated, every=6, noise=1.0, seed=8)
    changed = {name: noisy[name] for name in ("I", "sigI")}
    files = [write_chunk(folder / "a.h5", simulated, range(len(simulated.scale)), reflections=changed)]
    settings = '{"independent_halves": true, "reject_delta_cc": 2.0, "cycles": 6}'
    assert merge(folder, files, "--settings", settings) == 0
    printed = capsys.readouterr().out
    merged, crystals, _, attrs = read_merged(folder / "merged.h5")
    assert attrs["independent_halves"]
    lowering = np.sum(np.array(crystals["status"]) == "lowers CC1/2")
    assert attrs["n_crystals_lowering_cc"] == lowering > 1
    assert f"{lowering} crystals left out: lowers CC1/2" in printed
    assert "half1: cycle 6" in printed
    assert np.isfinite(merged["I_half1"][merged["n_half1"] > 0]).all()
