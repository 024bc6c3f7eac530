"""indexamajig on the peak lists that sfxflow indexes: files for it, and the lattices in the stream that it writes."""

import re
import resource
import shutil
import subprocess
import tempfile
from pathlib import Path

import h5py
import numpy as np

from sfxflow.geometry import panel_arrays
from sfxflow.io.cell_file import write_cell
from sfxflow.io.geom_writer import write_geom
from sfxflow.units import wavelength

#: Name to value of --indexing and further options.
METHODS = {
    "asdf": ("asdf",),
    "xgandalf, fast": ("xgandalf", "--xgandalf-fast-execution"),
}


def methods():
    """`METHODS` where indexamajig is installed, otherwise none."""
    return METHODS if shutil.which("indexamajig") else {}


def indexamajig(experiment, lists, cell, options):
    """Reciprocal matrices that indexamajig finds on each frame, and CPU seconds.

    Parameters
    ----------
    experiment : sfxflow.simulate.experiment.Experiment
    lists : list
        What `peak_list` gives, for each frame.
    cell : sfxflow.cell.Cell
    options : sequence of str
        Value of --indexing, and further options.

    Returns
    -------
    found : list of list of ndarray, shape (3, 3)
        None where indexamajig failed, for example because it was built without the method.
    seconds : float
        Or the last line of what it said.
    """
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        _write_peaks(folder / "peaks.h5", experiment, lists)
        write_cell(folder / "target.cell", cell)
        _write_geometry(folder / "detector.geom", experiment)
        (folder / "frames.lst").write_text("peaks.h5\n")
        argv = (
            "indexamajig",
            "-i",
            "frames.lst",
            "-g",
            "detector.geom",
            "-p",
            "target.cell",
            "-o",
            "out.stream",
            "-j",
            "1",
        )
        lists_only = (
            "--peaks=cxi",
            "--no-image-data",
            "--no-revalidate",
            "--multi",
            "--no-check-prefix",
            "--integration=none",
        )
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [*argv, *lists_only, f"--indexing={options[0]}", *options[1:]],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            return None, done.stderr.strip().splitlines()[-1:]
        found = _lattices((folder / "out.stream").read_text(), len(lists))
    return found, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _write_peaks(path, experiment, lists):
    arrays = panel_arrays(experiment.detector)
    width = max(len(peaks) for peaks, *_ in lists)
    columns = {
        name: np.zeros((len(lists), width), "f4") for name in ("peakXPosRaw", "peakYPosRaw", "peakTotalIntensity")
    }
    for i, (peaks, *_) in enumerate(lists):
        bounds = arrays.bounds[peaks.panel]
        values = (peaks.position[:, 0] + bounds[:, 2] - 0.5, peaks.position[:, 1] + bounds[:, 0] - 0.5, peaks.intensity)
        for column, value in zip(columns.values(), values, strict=True):
            column[i, : len(peaks)] = value
    with h5py.File(path, "w") as handle:
        group = handle.create_group("entry_1/result_1")
        group["nPeaks"] = np.array([len(peaks) for peaks, *_ in lists], "i4")
        for name, values in columns.items():
            group[name] = values
        handle["entry_1/photon_energy"] = [wavelength(1.0) / length for _, _, length, _ in lists]
        # No pixel is stored: indexamajig only asks for the shape.
        shape = (len(lists), *experiment.detector.shape)
        handle.create_dataset("entry_1/data_1/data", shape, "u2", chunks=(1, *experiment.detector.shape))


def _write_geometry(path, experiment):
    write_geom(path, experiment.detector)
    kept = [
        line
        for line in path.read_text().splitlines()
        if not re.match(r"\s*(photon_energy|data|dim\d|peak_list|mask\w*)\s*=", line)
        and not re.match(r"\s*\w+/(data|dim\d|mask\w*)\s*=", line)
    ]
    head = [
        "photon_energy = /entry_1/photon_energy eV",
        "data = /entry_1/data_1/data",
        "dim0 = %",
        "dim1 = ss",
        "dim2 = fs",
        "peak_list = /entry_1/result_1",
        "peak_list_type = cxi",
    ]
    path.write_text("\n".join([*head, *kept]) + "\n")


def _lattices(text, n_frames):
    found = [[] for _ in range(n_frames)]
    for chunk in text.split("----- Begin chunk -----")[1:]:
        event = int(re.search(r"^Event: .*?(\d+)\s*$", chunk, re.MULTILINE).group(1))
        for crystal in chunk.split("--- Begin crystal")[1:]:
            axes = re.findall(r"^[abc]star = (\S+) (\S+) (\S+) nm\^-1", crystal, re.MULTILINE)
            found[event].append(np.array(axes, dtype=float).T / 10.0)
    return found
