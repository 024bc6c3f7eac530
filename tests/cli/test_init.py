"""`sfxflow init`: what it writes, that it writes nothing where something is wrong, and what it says then."""

import csv
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml

import sfxflow
from sfxflow.cli import main
from sfxflow.cli.run_rows import patterns_of, written_path
from sfxflow.io.config_schema import config_schema

ROWS, COLUMNS = 20, 16
CHECKOUT = Path(sfxflow.__file__).resolve().parents[2]

CELL = """\
CrystFEL unit cell file version 1.0

lattice_type = tetragonal
centering = P
unique_axis = c
a = 79.1 A
b = 79.1 A
c = 37.9 A
al = 90 deg
be = 90 deg
ga = 90 deg
"""

GEOMETRY = f"""\
photon_energy = 9500 eV
clen = 0.1 m
res = 10000
data = /entry/data/data
dim0 = %
dim1 = ss
dim2 = fs
p/min_fs = 0
p/max_fs = {COLUMNS - 1}
p/min_ss = 0
p/max_ss = {ROWS - 1}
p/fs = x
p/ss = y
p/corner_x = -8
p/corner_y = -10
"""


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    """A folder with two runs of frames, a geometry and a cell; the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw").mkdir()
    rng = np.random.default_rng(3)
    for name, n in (("lyso_a_01", 3), ("lyso_a_02", 4), ("lyso_b_01", 5)):
        with h5py.File(f"raw/{name}.h5", "w") as handle:
            data = rng.poisson(3, (n, ROWS, COLUMNS)).astype("i4")
            data[:, 3, 3] = -1
            handle.create_dataset("/entry/data/data", data=data, chunks=(1, ROWS, COLUMNS), compression="gzip")
    Path("det.geom").write_text(GEOMETRY)
    Path("lysozyme.cell").write_text(CELL)
    return tmp_path


def init(*changed, geometry="det.geom", data=("raw/lyso_a_*.h5",), group="P43212", cell="lysozyme.cell"):
    """Exit status of `sfxflow init` with these options."""
    options = [part for pattern in data for part in ("--data", pattern)]
    options += ["--geometry", geometry] if geometry else []
    return main(["init", *options, "--cell", cell, "--space-group", group, *changed])


def config(directory="."):
    return yaml.safe_load((Path(directory) / "config/config.yaml").read_text())


def runs(directory="."):
    lines = [
        line for line in (Path(directory) / "config/runs.tsv").read_text().splitlines() if not line.startswith("#")
    ]
    return list(csv.DictReader(lines, delimiter="\t"))


# ---- what it writes


def test_a_run_becomes_a_config_and_a_table(experiment, capsys):
    assert init("--d-min", "2.0") == 0
    values = config()
    assert values["engines"] == values["mergers"] == ["builtin"]
    assert values["datasets"] == {"lysozyme": {"cell": "lysozyme.cell", "space_group": "P43212", "d_min": 2.0}}
    assert runs() == [
        {
            "run": "lyso_a",
            "dataset": "lysozyme",
            "frames": "raw/lyso_a_*.h5",
            "geometry": "det.geom",
            "mask": "",
            "n_frames": "7",
        }
    ]
    text = Path("config/config.yaml").read_text()
    assert f'"program": "sfxflow {sfxflow.__version__}"' in text
    assert '"name": "det.geom"' in text
    said = capsys.readouterr().out
    assert "run lyso_a: 2 files, 7 frames" in said
    assert "20 x 16 pixels (ss x fs) of int32, 1 panel" in said
    assert "photon energy 9500.0 eV (1.30510 A), camera length 100.00 mm" in said
    assert "good values are 0 and above" in said


def test_without_cell_and_space_group(experiment, capsys):
    jsonschema = pytest.importorskip("jsonschema")
    data = ["--data", "raw/lyso_a_*.h5", "--data", "raw/lyso_b_01.h5", "--geometry", "det.geom"]
    assert main(["init", *data]) == 0
    assert config()["datasets"] == {"lyso_a": {"cell": None, "space_group": None}}
    assert [row["dataset"] for row in runs()] == ["lyso_a", "lyso_a"]
    jsonschema.validate(config(), config_schema())
    said = capsys.readouterr().out
    assert "no cell is given: it will be found from the peaks of lyso_a" in said
    assert "no space group is given: one with all rotations of the lattice will be assumed" in said


def test_space_group_without_cell_and_cell_without_space_group(experiment):
    data = ["--data", "raw/lyso_a_*.h5", "--geometry", "det.geom"]
    assert main(["init", *data, "--space-group", "P43212", "--dataset", "x"]) == 0
    assert config()["datasets"] == {"x": {"cell": None, "space_group": "P43212"}}
    assert main(["init", *data, "--cell", "lysozyme.cell", "--force"]) == 0
    assert config()["datasets"] == {"lysozyme": {"cell": "lysozyme.cell", "space_group": None}}


def test_the_config_obeys_the_schema(experiment):
    jsonschema = pytest.importorskip("jsonschema")
    assert init() == 0
    jsonschema.validate(config(), config_schema())


def test_several_runs_and_a_name_for_the_dataset(experiment):
    assert init("--dataset", "hen-egg", data=["raw/lyso_a_*.h5", "raw/lyso_b_01.h5"]) == 0
    assert [(r["run"], r["dataset"], r["n_frames"]) for r in runs()] == [
        ("lyso_a", "hen-egg", "7"),
        ("lyso_b_01", "hen-egg", "5"),
    ]
    assert list(config()["datasets"]) == ["hen-egg"]


def test_a_list_that_the_shell_made_of_a_pattern_is_one_run(experiment):
    given = ["--data", "raw/lyso_a_01.h5", "raw/lyso_a_02.h5"]
    assert main(["init", *given, "--geometry", "det.geom", "--cell", "lysozyme.cell", "--space-group", "96"]) == 0
    assert [(r["run"], r["frames"], r["n_frames"]) for r in runs()] == [("lyso_a", "raw/lyso_a_0*.h5", "7")]


def test_a_list_that_no_pattern_matches_is_a_run_each(experiment):
    given = ["raw/lyso_a_01.h5", "raw/lyso_b_01.h5"]  # lyso_?_01 would be one pattern, but lyso_*.h5 matches more
    assert patterns_of(given) in (given, ["raw/lyso_*_01.h5"])
    assert patterns_of(["raw/lyso_a_01.h5", "raw/lyso_b_01.h5", "raw/lyso_a_02.h5"]) == ["raw/lyso_*.h5"]
    (experiment / "raw" / "lyso_c_01.h5").touch()
    assert patterns_of(given) == given


def test_paths_below_the_folder_are_relative_and_others_absolute(experiment, monkeypatch):
    np.save("mask.npy", np.zeros((ROWS, COLUMNS)))
    assert init("--output", "work", "--mask", "mask.npy") == 0
    here = str(experiment)
    assert config("work")["datasets"]["lysozyme"]["cell"] == f"{here}/lysozyme.cell"
    row = runs("work")[0]
    assert (row["frames"], row["geometry"], row["mask"]) == (
        f"{here}/raw/lyso_a_*.h5",
        f"{here}/det.geom",
        f"{here}/mask.npy",
    )
    (experiment / "work" / "sub").mkdir()
    assert written_path("work/sub/x.h5", "work") == "sub/x.h5"
    assert written_path("workshop/x.h5", "work") == f"{here}/workshop/x.h5"


def test_a_folder_whose_name_looks_like_a_pattern(experiment, monkeypatch):
    odd = experiment / "beam [time]"
    odd.mkdir()
    monkeypatch.chdir(odd)
    assert init("--output", "work", geometry="../det.geom", cell="../lysozyme.cell", data=["../raw/lyso_b_*.h5"]) == 0
    assert runs("work")[0]["n_frames"] == "5"
    monkeypatch.chdir(experiment)
    from sfxflow.io.frames import matching_files

    assert len(matching_files(runs(odd / "work")[0]["frames"])) == 1


def test_profiles_are_copied_with_their_links(experiment, capsys):
    assert init() == 0
    sources = sorted((CHECKOUT / "profiles").glob("*/profile.yaml"))
    if not sources or not (CHECKOUT / "Snakefile").exists():
        assert "installed without its checkout" in capsys.readouterr().out
        return
    for source in sources:
        assert Path("profiles", source.parent.name, "profile.yaml").read_bytes() == source.read_bytes()
    assert Path("local/profile.yaml").exists()
    assert f"snakemake -s {CHECKOUT / 'Snakefile'} --profile local" in capsys.readouterr().out


def test_without_the_checkout_it_says_so_and_goes_on(experiment, monkeypatch, capsys):
    monkeypatch.setattr(sfxflow, "__file__", str(experiment / "lib" / "site-packages" / "sfxflow" / "__init__.py"))
    assert init() == 0
    assert "installed without its checkout" in capsys.readouterr().out
    assert Path("config/runs.tsv").exists()


def test_nothing_is_overwritten_without_force(experiment, capsys):
    assert init() == 0
    Path("config/config.yaml").write_text("mine")
    assert init(data=["raw/lyso_b_01.h5"]) == 1
    assert "config/config.yaml and config/runs.tsv: already there; --force overwrites" in capsys.readouterr().err
    assert Path("config/config.yaml").read_text() == "mine"
    assert runs()[0]["run"] == "lyso_a"
    assert init("--force", data=["raw/lyso_b_01.h5"]) == 0
    assert runs()[0]["run"] == "lyso_b_01"


def test_edited_profiles_are_kept(experiment):
    assert init() == 0
    for path in Path("profiles").glob("*/profile.yaml"):
        path.write_text("mine")
    assert init("--force") == 0
    assert all(path.read_text() == "mine" for path in Path("profiles").glob("*/profile.yaml"))


def test_a_first_frame_that_is_corrupt_is_a_warning(experiment, capsys):
    with h5py.File("raw/lyso_b_01.h5", "a") as handle:
        handle["/entry/data/data"].id.write_direct_chunk((0, 0, 0), b"nonsense")
    assert init(data=["raw/lyso_b_01.h5"]) == 0
    assert "warning: raw/lyso_b_01.h5 //0: /entry/data/data can't be read" in capsys.readouterr().out


def test_a_geometry_that_covers_little_of_the_frame_is_a_warning(experiment, capsys):
    Path("det.geom").write_text(GEOMETRY.replace(f"p/max_ss = {ROWS - 1}", "p/max_ss = 7"))
    assert init() == 0
    assert "warning: the geometry's panels cover only 40 % of the file's pixels" in capsys.readouterr().out


# ---- NXmx


def nxmx(path, links):
    """A master file without modules, whose frames are in the files `links`."""
    with h5py.File(path, "w") as handle:
        for name, kind in (("entry", "NXentry"), ("entry/data", "NXdata"), ("entry/instrument", "NXinstrument")):
            handle.create_group(name).attrs["NX_class"] = kind
        handle.create_group("entry/instrument/beam").attrs["NX_class"] = "NXbeam"
        handle["entry/instrument/beam/incident_wavelength"] = 1.3
        detector = handle.create_group("entry/instrument/detector")
        detector.attrs["NX_class"] = "NXdetector"
        values = {
            "x_pixel_size": 1e-4,
            "y_pixel_size": 1e-4,
            "beam_center_x": 8,
            "beam_center_y": 10,
            "detector_distance": 0.1,
        }
        for name, value in values.items():
            detector[name] = value
        for n, link in enumerate(links):
            handle[f"entry/data/data_{n:06d}"] = h5py.ExternalLink(link, "/entry/data/data")


def test_an_nxmx_file_is_its_own_geometry(experiment):
    nxmx("raw/x_master.h5", ["lyso_a_01.h5", "lyso_a_02.h5"])
    assert init(geometry=None, data=["raw/x_master.h5"]) == 0
    assert (runs()[0]["geometry"], runs()[0]["n_frames"]) == ("raw/x_master.h5", "7")


def test_frames_that_would_count_twice_are_refused(experiment, capsys):
    nxmx("raw/lyso_a_master.h5", ["lyso_a_01.h5", "lyso_a_02.h5"])
    assert init(geometry=None) == 1
    said = capsys.readouterr().err
    assert "raw/lyso_a_master.h5: takes its frames from raw/lyso_a_01.h5, which the pattern matches too" in said
    assert not Path("config").exists()


# ---- bad input


def truncate(path):
    os.truncate(path, os.path.getsize(path) // 2)


def replace(path, old, new):
    text = Path(path).read_text()
    assert old in text
    Path(path).write_text(text.replace(old, new))


def overlapping():
    text = GEOMETRY.replace("p/", "q/").replace("q/min_fs", "q/min_fs", 1).split("dim2 = fs\n")[1]
    with open("det.geom", "a") as handle:
        handle.write(text)


def corrupt_all():
    for name in ("01", "02"):
        with h5py.File(f"raw/lyso_a_{name}.h5", "a") as handle:
            dataset = handle["/entry/data/data"]
            for i in range(dataset.shape[0]):
                dataset.id.write_direct_chunk((i, 0, 0), b"nonsense")


BAD = {
    "no file matches": ({"data": ["raw/none*.h5"]}, None, "raw/none*.h5: no file matches"),
    "missing": ({"data": ["raw/none.h5"]}, None, "raw/none.h5: there is no such file"),
    "empty": ({}, lambda: Path("raw/lyso_a_02.h5").write_bytes(b""), "raw/lyso_a_02.h5: is empty"),
    "truncated": ({}, lambda: truncate("raw/lyso_a_02.h5"), "raw/lyso_a_02.h5: is cut short"),
    "not HDF5": ({}, lambda: Path("raw/lyso_a_01.h5").write_text("text " * 99), "raw/lyso_a_01.h5: "),
    "all frames corrupt": ({}, corrupt_all, "none of the first 7 frames can be read: raw/lyso_a_01.h5 //0"),
    "wrong dataset": (
        {},
        lambda: replace("det.geom", "/entry/data/data", "/data"),
        "no dataset /data (the frames, as the geometry says); the file has /entry/data/data int32 (3, 20, 16)",
    ),
    "wrong shape": (
        {},
        lambda: replace("det.geom", "p/max_fs = 15", "p/max_fs = 19"),
        "the frames have 20 x 16 pixels (ss x fs), but the geometry needs 20 x 20",
    ),
    "no camera length": ({}, lambda: replace("det.geom", "clen = 0.1 m\n", ""), "det.geom: no camera length"),
    "no energy": ({}, lambda: replace("det.geom", "photon_energy = 9500 eV\n", ""), "det.geom: no photon energy"),
    "unknown key": (
        {},
        lambda: replace("det.geom", "p/corner_x", "p/corner_z"),
        "det.geom, line 14: unknown key 'corner_z'; did you mean corner_",
    ),
    "overlapping panels": ({}, overlapping, "det.geom: panels p and q claim the same pixels of the data"),
    "missing geometry": ({"geometry": "none.geom"}, None, "none.geom: the geometry can't be read"),
    "no geometry and not NXmx": (
        {"geometry": None},
        None,
        "no NXentry in /, so it is not an NXmx file; give a geometry file (--geometry)",
    ),
    "contradicting cell": (
        {},
        lambda: replace("lysozyme.cell", "b = 79.1", "b = 78.1"),
        "lysozyme.cell: a = 79.1, but space group P 43 21 2 needs a = b; it is 78.1",
    ),
    "contradicting lattice": (
        {"group": "P6122"},
        None,
        "lysozyme.cell: lattice_type is tetragonal, but space group P 61 2 2 is hexagonal",
    ),
    "unknown space group": ({"group": "P4321"}, None, "'P4321' is not a space group"),
    "missing cell": ({"cell": "none.cell"}, None, "none.cell: the cell can't be read"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_and_nothing_is_written(experiment, capsys, case):
    options, spoil, message = BAD[case]
    if spoil:
        spoil()
    assert init(**options) == 1
    said = capsys.readouterr().err
    assert said.startswith("sfxflow init: ")
    assert message in said
    assert "Traceback" not in said
    assert not Path("config").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--d-min", "0"), "--d-min: 0.0 angstrom is not a resolution limit"),
        (("--dataset", "my set"), "--dataset: 'my set' is not a name"),
        (("--mask", "none.npy"), "none.npy: there is no such file"),
        (("--mask", "small.npy"), "small.npy: the mask has the shape (3, 3) (ss, fs), the geometry needs (20, 16)"),
    ],
)
def test_bad_options_are_named_and_nothing_is_written(experiment, capsys, options, message):
    np.save("small.npy", np.zeros((3, 3)))
    assert init(*options) == 1
    assert message in capsys.readouterr().err
    assert not Path("config").exists()


def test_a_folder_that_can_not_be_written_to(experiment, capsys):
    Path("file").write_text("not a folder")
    assert init("--output", "file") == 1
    assert "--output: file is a file, a folder is expected" in capsys.readouterr().err


def test_third_party_data(shared_data, tmp_path, capsys):
    for name, geometry, cell, pattern, n in (
        ("crystfel_sim", "det.geom", "lyso.cell", "run1_*.h5", 301),
        ("thaumatin_i24", "thaumatin_i24.geom", "thaumatin.cell", "*.h5", 10),
    ):
        folder = shared_data / "data" / name
        options = {"geometry": str(folder / geometry), "cell": str(folder / cell), "data": [str(folder / pattern)]}
        assert init("--output", str(tmp_path / name), group="92" if n == 10 else "P43212", **options) == 0
        assert runs(tmp_path / name)[0]["n_frames"] == str(n)
        assert "good values are 0 and above" in capsys.readouterr().out
