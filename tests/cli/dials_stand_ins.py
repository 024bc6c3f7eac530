"""Stand-ins for DIALS' programs: they do what their name says as simply as can be, or fail in a way that the test asks for.

STAND_IN in the environment says how: 'NAME nothing' ends with status 0 without a file, 'NAME hang' never ends, 'NAME bad N' fails if frame N
of the run is among the experiments, 'NAME fail' always fails, 'dials.ssx_index none' indexes nothing,
'dials.ssx_integrate none' integrates nothing.
"""

import json
import sys

PROGRAMS = ("dials.version", "dials.find_spots", "dials.ssx_index", "dials.ssx_integrate", "dials.scale")

STAND_IN = """#!{python}
import json, os, sys, time
name, arguments = os.path.basename(sys.argv[0]), sys.argv[1:]
how = os.environ.get("STAND_IN", "").split()
if name == "dials.version":
    print("DIALS", how[1] if how[:1] == [name] else "3.12")
    sys.exit()
print("stand-in for", name)
if how[:1] == [name]:
    if how[1] == "hang":
        time.sleep(600)
    if how[1] == "nothing":
        print("nothing was done")
        sys.exit(0)
    if how[1] == "fail":
        sys.exit("Sorry: it never works")
    if how[1] == "bad":
        import h5py
        with h5py.File("frames.nxs") as handle:
            if any((frame == 12345).any() for frame in handle["/entry/data/data"][:]):
                sys.exit("Sorry: a frame that can't be processed")
sys.path.insert(0, {folder!r})
import dials_work
dials_work.WORK[name](how[1:] if how[:1] == [name] else [])
"""

WORK = '''
import json
import numpy as np
from sfxflow.io.dials_files import (
    FOREGROUND, VALID, Flag, Shoeboxes, crystal_model, read_expt, read_refl, write_expt, write_refl
)

RECIPROCAL = np.diag([1 / 79.0, 1 / 79.0, 1 / 38.0])

def find_spots(how):
    """Twenty spots on each frame but the first of a part, which is empty."""
    experiments, _ = read_expt("imported.expt")
    ids = np.repeat(np.arange(1, len(experiments)), 20).astype(np.int32)
    n = len(ids)
    row = np.tile(np.arange(20), len(experiments) - 1)
    boxes = Shoeboxes(np.zeros(n, int), np.zeros((n, 6), int), [], [], [])
    position = np.column_stack([10.5 + 3 * row, 7.5 + 0 * row, np.full(n, 0.5)])
    for i in range(n):
        x, y = int(position[i, 0]), int(position[i, 1])
        boxes.bbox[i] = x - 1, x + 2, y - 1, y + 2, 0, 1
        data = np.full((1, 3, 3), 2.0)
        data[0, 1] = 12.0
        boxes.data.append(data)
        boxes.mask.append(np.where(data > 2, VALID | FOREGROUND, 0))
        boxes.background.append(np.zeros_like(data))
    columns = {"id": ids, "panel": np.zeros(n, int), "xyzobs.px.value": position, "shoebox": boxes}
    columns |= {"intensity.sum.value": np.full(n, 36.0), "intensity.sum.variance": np.full(n, 36.0)}
    write_refl("strong.refl", columns, {i: one.identifier for i, one in enumerate(experiments)})

def ssx_index(how):
    import xfel_mono_sim_ext  # the module that Debian's package lacks
    experiments, models = read_expt("imported.expt")
    strong, _ = read_refl("strong.refl")
    assert set(strong["id"]) == set(range(len(experiments)))
    assert all(box.shape[0] == 1 and (mask & FOREGROUND).any() for box, mask in zip(strong["shoebox"].data, strong["shoebox"].mask))
    if how:
        models |= {"experiment": [], "crystal": []}
    else:
        models["crystal"] = [crystal_model(RECIPROCAL, "P 4nw 2abw")]
        for i, values in enumerate(models["experiment"]):
            # New names, and the first frame's beam and detector for all, as the real program has it.
            values |= {"crystal": 0, "identifier": f"indexed {i}", "beam": 0, "detector": 0}
    write_expt("indexed.expt", models)
    n = len(models["experiment"])
    ids = np.repeat(np.arange(n), 5).astype(np.int32)
    hkl = np.tile(np.array([[1, 2, 3]] * 5), (n, 1)).astype(np.int32)
    position = np.column_stack([np.full(5 * n, 20.0), np.full(5 * n, 8.0), np.zeros(5 * n)])
    columns = {"id": ids, "miller_index": hkl, "xyzobs.px.value": position, "xyzcal.px": position + [0.3, 0.4, 0]}
    write_refl("indexed.refl", columns, {i: f"indexed {i}" for i in range(n)})

def ssx_integrate(how):
    experiments, models = read_expt("indexed.expt")
    if how:
        experiments, models = [], models | {"experiment": []}
    json.dump([one.wavelength for one in experiments], open("wavelengths.json", "w"))
    write_expt("integrated_1.expt", models)
    n = len(experiments)
    ids = np.repeat(np.arange(n), 3).astype(np.int32)
    flags = np.tile([Flag.integrated_sum, Flag.integrated_sum | Flag.overloaded, Flag.predicted], n)
    columns = {"id": ids, "flags": flags, "panel": np.ones(3 * n, int)}
    columns["miller_index"] = np.tile([[4, 5, 6], [1, 1, 1], [2, 2, 2]], (n, 1)).astype(np.int32)
    columns["xyzcal.px"] = np.tile([11.25, 3.5, 0.0], (3 * n, 1))
    columns |= {"intensity.sum.value": np.full(3 * n, 50.0), "intensity.sum.variance": np.full(3 * n, 16.0)}
    columns["background.mean"] = np.full(3 * n, 1.5)
    write_refl("integrated_1.refl", columns, {i: f"indexed {i}" for i in range(n)})

def scale(how):
    """Every crystal has the scale 2, every tenth observation is an outlier."""
    columns, identifiers = read_refl("given.refl")
    n = len(columns["id"])
    factor = columns["lp"] / columns["partiality"]
    outlier = np.arange(n) % 10 == 9
    columns |= {"inverse_scale_factor": np.full(n, 2.0), "flags": np.where(outlier, Flag.scaled | (1 << 23), Flag.scaled)}
    columns["intensity.scale.value"] = columns["intensity.sum.value"] * factor
    columns["intensity.scale.variance"] = columns["intensity.sum.variance"] * factor**2
    write_refl("scaled.refl", columns, identifiers)
    write_expt("scaled.expt", read_expt("given.expt")[1])

WORK = {"dials.find_spots": find_spots, "dials.ssx_index": ssx_index, "dials.ssx_integrate": ssx_integrate, "dials.scale": scale}
'''


def write_stand_ins(folder, programs=PROGRAMS):
    """Put stand-ins into a folder, which is to be the first of PATH."""
    folder.mkdir(exist_ok=True)
    (folder / "dials_work.py").write_text(WORK)
    for name in programs:
        path = folder / name
        path.write_text(STAND_IN.format(python=sys.executable, folder=str(folder)))
        path.chmod(0o755)
    return folder


def settings(**sections):
    """--settings of a command."""
    return json.dumps(sections)
