"""Frames that another program simulated (CrystFEL's pattern_sim), held against their truth.

No setting is given: everything is as a new user has it.
"""

import csv
import json
import sys
from pathlib import Path

import gemmi
import h5py
import numpy as np
import pytest

from sfxflow.io.frame_account import read_frame_account
from sfxflow.io.hkl import read_hkl, write_hkl
from sfxflow.reflections import Status

CELL = (79.1, 79.1, 37.9)
D_MIN = 2.0
RUN = "builtin/runs/run1"
MERGED = "builtin/merged/builtin/lyso"


@pytest.fixture(scope="module")
def true_frames(shared_data):
    """(file, event) to the matrix of a*, b*, c* in 1/angstrom, as columns; None for a blank."""
    with open(shared_data / "data/crystfel_sim/truth_frames.tsv", newline="") as handle:
        rows = list(csv.DictReader(handle, delimiter="\t"))
    key = next(name for name in rows[0] if name.startswith("asx"))
    frames = {}
    for row in rows:
        per_nanometre = None if row["kind"] == "blank" else np.array(row[key].split(), float).reshape(3, 3).T
        frames[row["file"], row["event"]] = None if per_nanometre is None else per_nanometre / 10.0
    return frames


@pytest.fixture(scope="module")
def frames(crystfel_sim):
    return read_frame_account(crystfel_sim.result(f"{RUN}/frames.tsv"))[0]


def true_of(frames, true_frames):
    """What each frame of the account truly is."""
    return [true_frames[Path(file).name, event] for file, event in zip(frames["file"], frames["event"], strict=True)]


def angle_between(found, true):
    """Degrees by which a lattice is turned, at least, against the true one: over all rotations that map the lattice onto itself."""
    angles = []
    for operation in gemmi.find_spacegroup_by_name("P 4 2 2").operations():
        rotation = np.array(operation.rot).reshape(3, 3) / gemmi.Op.DEN
        u, _, vt = np.linalg.svd(found @ rotation @ np.linalg.inv(true))
        turned = u @ vt
        # the sine: the cosine of a small angle has no digits left
        sine = (
            np.linalg.norm([turned[2, 1] - turned[1, 2], turned[0, 2] - turned[2, 0], turned[1, 0] - turned[0, 1]]) / 2
        )
        angles.append(np.degrees(np.arctan2(sine, (np.trace(turned) - 1) / 2)))
    return min(angles)


def test_every_hit_and_no_blank(frames, true_frames):
    hit = [true is not None for true in true_of(frames, true_frames)]
    assert sum(hit) == 251 and len(hit) == 301
    assert [status >= Status.hit for status in frames["status"]] == hit


def test_every_lattice_is_right(crystfel_sim, frames, true_frames):
    """251 lattices, one a hit, each within 0.1 degrees of the truth; none beside them."""
    true = true_of(frames, true_frames)
    with h5py.File(crystfel_sim.result(f"{RUN}/0000.integrated.h5")) as handle:
        of_frame, found = handle["crystals/frame"][:], handle["crystals/reciprocal"][:]
        assert handle.attrs.get("warning", "") == ""
    assert sorted(of_frame) == [i for i, matrix in enumerate(true) if matrix is not None]
    angles = [angle_between(matrix, true[i]) for i, matrix in zip(of_frame, found, strict=True)]
    print(f"orientation: median {np.median(angles):.4f}, largest {max(angles):.4f} degrees off")
    assert max(angles) < 0.1


def unique_index(hkl):
    """One name for all reflections that 4/mmm makes equivalent."""
    hkl = np.abs(hkl)
    return [(max(h, k), min(h, k), l) for h, k, l in hkl.tolist()]


def to_resolution(reflections):
    """Rows of a list that reach to `D_MIN` and are measured twice at least."""
    s2 = ((reflections.hkl / CELL) ** 2).sum(axis=1)
    return (s2 <= 1 / D_MIN**2) & (reflections.n >= 2)


def against_truth(experiment, shared_data, name, rows):
    """Overall figures of a reflection list's `rows`, by `sfxflow figures_of_merit`, which scales as compare_hkl does."""
    data = shared_data / "data/crystfel_sim"
    write_hkl(experiment.folder / f"{name}.hkl", "4/mmm", *rows)
    experiment.sfxflow(
        *("figures_of_merit", "--hkl", f"{name}.hkl", "--cell", data / "lyso.cell", "--point-group", "4/mmm"),
        *("--reference", data / "truth_4mmm.hkl", "--json", f"{name}.json", "--tsv", f"{name}.tsv"),
    )
    overall = json.loads((experiment.folder / f"{name}.json").read_text())["overall"]
    print(
        f"{name}: {overall['n_reference']} reflections, R1(I) {100 * overall['reference_r1_i']:.2f} %, CC {overall['reference_cc']:.4f}"
    )
    return overall


def test_merged_intensities(crystfel_sim, shared_data):
    """On the reflections that partialator's xsphere model kept: better than it is there, and more reflections than it kept."""
    ours = read_hkl(crystfel_sim.result(f"{MERGED}/merged.hkl"))
    theirs = read_hkl(shared_data / "reference/crystfel/xsphere.hkl.gz")
    kept, theirs_kept = to_resolution(ours), to_resolution(theirs)
    ratio = kept.sum() / theirs_kept.sum()
    print(f"{kept.sum()} reflections, {theirs_kept.sum()} by xsphere, ratio {ratio:.3f}")
    names = set(unique_index(theirs.hkl))
    common = kept & np.array([index in names for index in unique_index(ours.hkl)])
    overall = against_truth(
        crystfel_sim, shared_data, "common", (ours.hkl[common], ours.I[common], ours.sigI[common], ours.n[common])
    )
    everything = against_truth(
        crystfel_sim, shared_data, "all", (ours.hkl[kept], ours.I[kept], ours.sigI[kept], ours.n[kept])
    )
    assert overall["n_reference"] == common.sum() > 4000
    assert overall["reference_r1_i"] < 0.085
    assert overall["reference_cc"] >= 0.985
    assert everything["reference_cc"] >= 0.985
    assert ratio >= 1.1


def test_half_sets_agree_with_what_the_truth_says(crystfel_sim, shared_data):
    """CC* estimates the correlation with the truth: from half sets that share no crystal it comes out as it is."""
    figures = json.loads(crystfel_sim.result(f"{MERGED}/figures_of_merit.json").read_text())["overall"]
    ours = read_hkl(crystfel_sim.result(f"{MERGED}/merged.hkl"))
    overall = against_truth(crystfel_sim, shared_data, "halves", (ours.hkl, ours.I, ours.sigI, ours.n))
    assert figures["cc_star"] == pytest.approx(overall["reference_cc"], abs=0.01)


def test_a_second_call_has_nothing_to_do(crystfel_sim):
    assert "Nothing to be done" in crystfel_sim.snakemake()


def test_the_cell_of_another_protein_is_refused(crystfel_sim, shared_data):
    """Thaumatin's cell: at most 2 % of the frames accept a lattice, and the run says that it does not fit."""
    text = crystfel_sim.sfxflow(
        *("indexing", "--peaks", crystfel_sim.result(f"{RUN}/0000.peaks.h5"), "--threads", 2),
        *("--geometry", shared_data / "data/crystfel_sim/det.geom"),
        *(
            "--cell",
            shared_data / "data/thaumatin_i24/thaumatin.cell",
            "--space-group",
            "P41212",
            "--output",
            "wrong_cell.h5",
        ),
    )
    with h5py.File(crystfel_sim.folder / "wrong_cell.h5") as handle:
        accepted = (handle["frames/n_lattices"][:] > 0).sum()
        assert "does not fit" in handle.attrs["warning"]
    print(f"{accepted} of 301 frames accept the wrong cell")
    assert accepted <= 0.02 * 301
    assert "WARNING: the cell 58.4 58.4 152.3 90 90 90 does not fit" in text


def test_the_cell_is_found(crystfel_sim, shared_data, find_cell):
    """Without being told; no constant was chosen on these frames."""
    geometry = shared_data / "data/crystfel_sim/det.geom"
    cell, text = find_cell(crystfel_sim, f"{RUN}/0000.peaks.h5", geometry, "--settings", '{"n_frames": 40}')
    assert (cell.lattice_type, cell.centering) == ("tetragonal", "P")
    assert cell.parameters[:3] == pytest.approx(CELL, rel=0.01)
    assert "40 of 251 hits looked at: a lattice in 40" in text and "crystal forms" not in text


def test_cpu_time(crystfel_sim, shared_data):
    """From frames in gzip'ed HDF5 to a written file of integrated reflections, one process, compiled code from the cache."""
    data = shared_data / "data/crystfel_sim"
    frames = ("--frames", data / "run1_*.h5", "--geometry", data / "det.geom")
    cell = ("--cell", data / "lyso.cell", "--space-group", "P43212")
    stages = (
        ("peaks", *frames, "--output", "p.h5"),
        ("indexing", "--peaks", "p.h5", "--geometry", data / "det.geom", *cell, "--output", "i.h5"),
        ("integration", "--indexed", "i.h5", *frames, "--output", "r.h5"),
    )
    total = {}
    for count in (1, 151):  # one frame: what starting costs; the compiled code is in the cache since the workflow ran
        part = ("--first", 0, "--count", count)
        total[count] = sum(crystfel_sim.cpu_seconds(*stage, *(part if "--frames" in stage else ())) for stage in stages)
    frame = (total[151] - total[1]) / 150
    print(
        f"CPU {1e3 * frame:.1f} ms a frame; {1e3 * total[151] / 151:.1f} ms with {total[1]:.2f} s of start-up of the three stages",
        file=sys.stderr,
    )
    assert frame <= 0.025
