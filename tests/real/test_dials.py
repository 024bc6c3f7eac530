"""The engine dials with DIALS itself, where it is installed: real frames, another program's simulation, and our files read by DIALS."""

import csv
import itertools
import json
import os
import shutil
import signal
import subprocess

import gemmi
import h5py
import hdf5plugin
import numpy as np
import pytest
import yaml

from sfxflow.io.dials_chunks import write_dials
from sfxflow.io.dials_files import detector_of, read_expt
from sfxflow.io.dials_job import EXPERIMENTS, FRAMES, present
from sfxflow.io.frame_account import count_by_status, read_frame_account
from sfxflow.io.frames import open_frames
from sfxflow.io.geom import parse_geom
from sfxflow.io.geometry import read_geometry
from sfxflow.io.table import open_chunk, read_rows
from sfxflow.programs.dials import environment, interpreter_of
from sfxflow.reflections import Status

pytestmark = [
    pytest.mark.dials,
    pytest.mark.long,
    pytest.mark.skipif(
        shutil.which("dials.ssx_index") is None, reason="DIALS is not installed (Debian: apt-get install dials)"
    ),
]

#: Of the simulated frames: 46 hits and 4 blanks; of the real ones: 8 that diffract and 2 blanks.
SIMULATED, REAL = "run1_01.h5", "thaumatin_i24.h5"
#: Seconds: some minutes of computing, on a machine that does other things too.
_PATIENCE = 1800


def run_workflow(work, *targets):
    """Run the workflow, which takes longer here than any other command of a test."""
    process = work.start(*work.workflow, *targets)
    try:
        text, _ = process.communicate(timeout=_PATIENCE)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode == 0, text


@pytest.fixture(scope="module")
def processed(shared_data, init_folder):
    """Both sets through the engine dials and two mergers, as a user has it: two datasets in one working directory."""
    sim, real = shared_data / "data/crystfel_sim", shared_data / "data/thaumatin_i24"
    work = init_folder(
        *("--data", sim / SIMULATED, "--geometry", sim / "det.geom", "--cell", sim / "lyso.cell"),
        *("--space-group", "P43212", "--d-min", "2.2", "--dataset", "lyso"),
    )
    path = work.folder / "config/config.yaml"
    config = yaml.safe_load(path.read_text())
    config |= {"engines": ["dials"], "mergers": ["builtin", "dials_scale"], "chunk_size": 10}
    config["datasets"]["thaumatin"] = {"cell": str(real / "thaumatin.cell"), "space_group": "P41212"}
    config["datasets"]["lyso"]["reference"] = str(sim / "truth_4mmm.hkl")
    path.write_text(yaml.safe_dump(config))
    runs = work.folder / "config/runs.tsv"
    columns, row = (line.split("\t") for line in runs.read_text().splitlines()[-2:])
    values = dict(zip(columns, row, strict=True)) | {
        "run": "thau",
        "dataset": "thaumatin",
        "frames": str(real / REAL),
        "geometry": str(real / "thaumatin_i24.geom"),
        "n_frames": "10",
    }
    runs.write_text(runs.read_text().rstrip("\n") + "\n" + "\t".join(values[name] for name in columns) + "\n")
    run_workflow(
        work,
        *(f"results/dials/runs/{run}/frames.tsv" for run in ("thau", "run1_01")),
        "results/dials/merged/builtin/thaumatin/merged.mtz",
        *(f"results/dials/merged/{m}/lyso/figures_of_merit.json" for m in config["mergers"]),
    )
    return work


def angle_between(found, true):
    """Degrees by which a tetragonal lattice is turned against the true one: the least of all rotations that map the lattice onto itself."""
    angles = []
    for operation in gemmi.find_spacegroup_by_name("P 4 2 2").operations():
        u, _, vt = np.linalg.svd(found @ (np.array(operation.rot).reshape(3, 3) / gemmi.Op.DEN) @ np.linalg.inv(true))
        turned = u @ vt
        axis = [turned[2, 1] - turned[1, 2], turned[0, 2] - turned[2, 0], turned[1, 0] - turned[0, 1]]
        angles.append(np.degrees(np.arctan2(np.linalg.norm(axis) / 2, (np.trace(turned) - 1) / 2)))
    return min(angles)


def crystals_of(work, run):
    """Tables of all chunks of a run, as one."""
    whole, first = {}, {"frames": 0, "crystals": 0}
    for path in sorted((work.folder / f"results/dials/runs/{run}").glob("*.integrated.h5")):
        with open_chunk(path) as handle:
            tables = {name: read_rows(handle[name]) for name in ("frames", "crystals", "reflections")}
        tables["crystals"]["frame"] = tables["crystals"]["frame"] + first["frames"]
        tables["reflections"]["crystal"] = tables["reflections"]["crystal"] + first["crystals"]
        for name, columns in tables.items():
            for column, values in columns.items():
                whole.setdefault(name, {}).setdefault(column, []).append(values)
        first = {
            "frames": first["frames"] + len(tables["frames"]["frame"]),
            "crystals": first["crystals"] + len(tables["crystals"]["frame"]),
        }
    return {
        name: {
            column: [*itertools.chain(*parts)] if isinstance(parts[0], list) else np.concatenate(parts)
            for column, parts in columns.items()
        }
        for name, columns in whole.items()
    }


def test_real_frames_are_all_indexed(processed):
    frames, _ = read_frame_account(processed.result("dials/runs/thau/frames.tsv"))
    assert count_by_status(frames["status"]) == {
        Status.failed: 0, Status.blank: 2, Status.hit: 0, Status.indexed: 8,
    }  # fmt: skip
    cells = crystals_of(processed, "thau")["crystals"]["cell"]
    assert len(cells) == 8
    np.testing.assert_allclose(np.median(cells, axis=0), [58.4, 58.4, 152.3, 90, 90, 90], rtol=0.005)


def test_simulated_frames_are_all_indexed_and_merged(processed):
    frames, _ = read_frame_account(processed.result("dials/runs/run1_01/frames.tsv"))
    assert count_by_status(frames["status"]) == {
        Status.failed: 0, Status.blank: 4, Status.hit: 0, Status.indexed: 46,
    }  # fmt: skip
    figures = json.loads(processed.result("dials/merged/builtin/lyso/figures_of_merit.json").read_text())["overall"]
    assert figures["reference_cc"] > 0.95
    assert processed.result("dials/merged/dials_scale/lyso/merged.h5")


def test_orientations_are_the_true_ones(processed, shared_data):
    """Median error of at most 0.02 degree: axes and units of DIALS' files are understood."""
    with open(shared_data / "data/crystfel_sim/truth_frames.tsv", newline="") as handle:
        rows = list(csv.DictReader(handle, delimiter="\t"))
    key = next(name for name in rows[0] if name.startswith("asx"))
    true = {
        row["event"]: np.array(row[key].split(), float).reshape(3, 3).T / 10
        for row in rows
        if row["file"] == SIMULATED and row["kind"] == "hit"
    }
    tables = crystals_of(processed, "run1_01")
    errors = [
        angle_between(reciprocal, true[tables["frames"]["event"][i]])
        for i, reciprocal in zip(tables["crystals"]["frame"], tables["crystals"]["reciprocal"], strict=True)
    ]
    assert len(errors) == 46
    assert np.median(errors) <= 0.02
    assert max(errors) < 0.06


def test_reflections_lie_where_their_crystals_put_them(processed, shared_data):
    """DIALS' predicted positions and our own rays of the same reflections meet the detector in the same places."""
    tables = crystals_of(processed, "run1_01")
    rows, crystals, frames = tables["reflections"], tables["crystals"], tables["frames"]
    detector = read_geometry(shared_data / "data/crystfel_sim/det.geom")
    hkl = np.column_stack([rows[name] for name in "hkl"]).astype(float)
    q = np.einsum("nij,nj->ni", crystals["reciprocal"][rows["crystal"]], hkl)
    k = frames["photon_energy"][crystals["frame"]][rows["crystal"]] / 12398.41984
    rays = q + np.column_stack([np.zeros((len(k), 2)), k])
    worst = 0.0
    for number, panel in enumerate(detector.panels):
        own = rows["panel"] == number
        origin = np.array(panel.origin) + [0, 0, detector.clen]
        solved = np.linalg.solve(
            np.array([panel.fs, panel.ss, np.zeros(3)]).T[None] - rays[own][:, :, None] * [[[0, 0, 1]]],
            np.broadcast_to(-origin, (own.sum(), 3))[..., None],
        )[..., 0]
        apart = solved[:, :2] + [panel.slab_fs, panel.slab_ss] - np.column_stack([rows["fs"], rows["ss"]])[own]
        worst = max(worst, np.abs(apart).max())
    # DIALS turns a reflection onto the Ewald sphere first, which moves it a little.
    assert worst < 1.0
    assert np.abs(rows["excitation_error"]).max() < 5e-3


def in_dials(folder, code):
    """What a script prints in DIALS' own Python."""
    python = interpreter_of(shutil.which("dials.version"))
    done = subprocess.run(
        [*python, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120, check=False,
        env={"PATH": "/usr/bin:/bin", **environment(folder)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_dials_reads_the_files_that_we_write(processed, shared_data, tmp_path):
    """Crystal, beam, panels and reflections mean there what they mean here: rays and positions are computed by DIALS."""
    tables = crystals_of(processed, "run1_01")
    detector = read_geometry(shared_data / "data/crystfel_sim/det.geom")
    write_dials(tmp_path / "a.expt", tmp_path / "a.refl", [tuple(tables.values())], detector, "P 4nw 2abw")
    found = in_dials(
        tmp_path,
        """
import json
from dxtbx.model.experiment_list import ExperimentListFactory
from dials.array_family import flex
from scitbx import matrix
expts = ExperimentListFactory.from_json_file("a.expt", check_format=False)
refl = flex.reflection_table.from_file("a.refl")
refl.assert_experiment_identifiers_are_consistent(expts)
rays, places = [], []
for i in range(0, len(refl), 97):
    expt = expts[refl["id"][i]]
    ray = matrix.col(expt.beam.get_s0()) + matrix.sqr(expt.crystal.get_A()) * matrix.col(refl["miller_index"][i])
    rays.append((ray.normalize() - matrix.col(refl["s1"][i]).normalize()).length())
    mm = expt.detector[refl["panel"][i]].get_ray_intersection(refl["s1"][i])
    own = refl["xyzcal.mm"][i]
    places.append(max(abs(mm[0] - own[0]), abs(mm[1] - own[1])))
cell = expts[0].crystal.get_unit_cell().parameters()
print(json.dumps({"n": [len(expts), len(refl)], "rays": max(rays), "places": max(places), "cell": cell,
    "group": str(expts[0].crystal.get_space_group().info()), "wavelength": expts[0].beam.get_wavelength()}))
""",
    )
    assert found["n"] == [46, len(tables["reflections"]["I"])]
    assert found["rays"] < 1e-9
    assert found["places"] < 0.08  # mm: a pixel is 0.075
    assert found["group"] == "P 43 21 2"
    np.testing.assert_allclose(found["cell"], tables["crystals"]["cell"][0], rtol=1e-5)
    assert found["wavelength"] == pytest.approx(12398.41984 / 9500)


def test_dials_imports_the_frames(tmp_path):
    """dials.import of a master file: panels on a leading dimension, compressed with bitshuffle, a wavelength for each frame."""
    data = np.random.default_rng(4).integers(0, 99, (3, 2, 40, 50)).astype(np.uint16)
    data[1, 0, 3, 4] = 65535
    with h5py.File(tmp_path / "raw.h5", "w") as handle:
        handle.create_dataset("/data", data=data, chunks=(1, 2, 40, 50), **hdf5plugin.Bitshuffle())
        handle["/energy"] = [9000.0, 9100.0, 9200.0]
    text = "photon_energy = /energy eV\nclen = 0.1 m\nres = 10000\nadu_per_photon = 1\ndata = /data\n"
    text += "dim0 = %\ndim2 = ss\ndim3 = fs\n"
    for number, (fs, ss) in enumerate((("0.8x +0.6y", "-0.6x +0.8y"), ("-1.0x +0.1z", "-1.0y"))):
        lines = f"dim1 = {number}\nmin_fs = 0\nmax_fs = 49\nmin_ss = 0\nmax_ss = 39\nfs = {fs}\nss = {ss}\n"
        lines += f"corner_x = {30 * number}\ncorner_y = {-20 * number}\ncoffset = 0.00{number}"
        text += "".join(f"p{number}/{line}\n" for line in lines.splitlines())
    detector = parse_geom(text, "det.geom", ".")
    with open_frames(str(tmp_path / "raw.h5"), detector) as frames:
        present(tmp_path, frames, range(3))
    subprocess.run(
        ["dials.import", FRAMES, "output.experiments=again.expt"], cwd=tmp_path, check=True, capture_output=True,
        env={"PATH": "/usr/bin:/bin", **environment(tmp_path)},
    )  # fmt: skip
    again, models = read_expt(tmp_path / "again.expt")
    ours, own_models = read_expt(tmp_path / EXPERIMENTS)
    np.testing.assert_allclose([e.wavelength for e in again], [e.wavelength for e in ours], rtol=1e-9)
    for one, other in zip(detector_of(models).panels, detector_of(own_models).panels, strict=True):
        for name in ("fs", "ss", "origin"):
            np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-9)
    found = in_dials(
        tmp_path,
        f"""
import json
from dxtbx.model.experiment_list import ExperimentListFactory
expts = ExperimentListFactory.from_json_file("{EXPERIMENTS}", check_format=True)
from scitbx.array_family import flex
result = []
for expt in expts:
    panels = expt.imageset.get_raw_data(0)
    masks = expt.imageset.get_mask(0)
    result.append([[int(flex.sum(p.as_1d().select(m.as_1d()))) for p, m in zip(panels, masks)],
        [m.count(False) for m in masks]])
print(json.dumps(result))
""",
    )
    for n, (sums, bad) in enumerate(found):
        expected = np.where(data[n] < 65534, data[n], 0).astype(int).sum(axis=(1, 2))
        assert sums == expected.tolist()
        assert bad == [int(n == 1), 0]
