"""Simulated frames and ways to run stages, for the tests of the engine's commands."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401 -- registers the bitshuffle filter
import pytest

from sfxflow.cli import main

GROUP = "P43212"
_MAIN = "import sys; from sfxflow.cli import main; sys.exit(main())"


class Stages:
    """The three stages on the frames of one folder; methods return the output file."""

    def __init__(self, folder, frames="frames_00.h5", geometry="detector.geom", cell="demo.cell", group=GROUP):
        self.folder = Path(folder)
        self.frames = str(self.folder / frames)
        self.geometry = str(self.folder / geometry)
        self.cell = str(self.folder / cell)
        self.group = group

    def arguments(self, stage, source, output, *more):
        """Arguments of a stage; `source` is the file of the stage before."""
        common = {
            "peaks": ["--frames", self.frames],
            "indexing": ["--peaks", str(source), "--cell", self.cell, "--space-group", self.group],
            "integration": ["--indexed", str(source), "--frames", self.frames],
        }[stage]
        return [stage, *common, "--geometry", self.geometry, "--output", str(output), *map(str, more)]

    def run(self, stage, source, output, *more):
        """Exit status."""
        return main(self.arguments(stage, source, output, *more))

    def ok(self, stage, source, output, *more):
        """The output of a run that has to end well."""
        assert self.run(stage, source, output, *more) == 0
        return output

    def child(self, stage, source, output, *more, **options):
        """The same as a process of its own."""
        command = [sys.executable, "-c", _MAIN, *self.arguments(stage, source, output, *more)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)


class Processed(Stages):
    """A folder with all stages run."""

    def __init__(self, folder, **names):
        super().__init__(folder, **names)
        self.peaks = self.ok("peaks", None, self.folder / "peaks.h5")
        self.indexed = self.ok("indexing", self.peaks, self.folder / "indexed.h5")
        self.integrated = self.ok("integration", self.indexed, self.folder / "integrated.h5")

    @property
    def source(self):
        """File that each stage starts from."""
        return {"peaks": None, "indexing": self.peaks, "integration": self.indexed}


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """Twenty simulated frames, processed."""
    folder = tmp_path_factory.mktemp("demo")
    assert main(["simulate", "--preset", "demo", "--n-frames", "20", "--seed", "3", "--output", str(folder)]) == 0
    return Processed(folder)


@pytest.fixture(scope="session")
def stages_of():
    """The class `Stages`."""
    return Stages


@pytest.fixture
def repeated(demo, tmp_path):
    """A function that writes the demo's frames n times into one file: its name."""

    def make(times):
        name = str(tmp_path / f"frames_{times}.h5")
        with h5py.File(demo.frames) as source, h5py.File(name, "w") as target:
            data = source["/entry_1/data_1/data"]
            n = len(data)
            copy = target.create_dataset(
                "/entry_1/data_1/data",
                (n * times, *data.shape[1:]),
                data.dtype,
                chunks=data.chunks,
                compression="gzip",
                shuffle=True,
            )
            for i in range(n * times):
                copy.id.write_direct_chunk((i, 0, 0), data.id.read_direct_chunk((i % n, 0, 0))[1])
            energy = "/entry_1/instrument_1/source_1/photon_energy_eV"
            target[energy] = list(source[energy][()]) * times
            target["/entry_1/data_1/mask"] = source["/entry_1/data_1/mask"][()]
        return name

    return make


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a file system of 64 kB; skips where none can be mounted."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small file system needs root and the command mount")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], check=False, capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a small file system can't be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
