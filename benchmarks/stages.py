"""The stages of the built-in engine called in this process, and the CPU time of their parts."""

import os
import time
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from unittest import mock

from sfxflow.cli import indexing, integration, main, peaks
from sfxflow.io.frames_of_files import Frames
from sfxflow.io.peaks import PeakWriter
from sfxflow.io.table import ChunkWriter

#: Functions whose time is told apart: where they are looked up, their name, and the part of the work that they are.
PARTS = (
    (Frames, "read", "read"),
    (Frames, "announce", "read"),
    (peaks, "find_peaks", "peaks"),
    (indexing, "frame_peaks", "index and refine"),
    (indexing, "index_candidates", "index and refine"),
    (indexing, "chance_fit", "index and refine"),
    (indexing, "judge_run", "index and refine"),
    (indexing, "pool_lattices", "index and refine"),
    (indexing, "refine_lattice", "index and refine"),
    (integration._Integrator, "gain", "predict and integrate"),
    (integration, "predict", "predict and integrate"),
    (integration, "integrate_profiles", "predict and integrate"),
    (PeakWriter, "append", "write"),
    (ChunkWriter, "append", "write"),
)
NAMES = (*dict.fromkeys(part for _, _, part in PARTS), "other", "all")


@contextmanager
def split(seconds):
    """Add the CPU time of each of `PARTS` to `seconds`."""
    with mock.patch.multiple("sfxflow.progress.Progress", add=lambda self: None, finish=lambda self: None):
        patches = [
            mock.patch.object(owner, name, _timed(getattr(owner, name), seconds, part)) for owner, name, part in PARTS
        ]
        for patch in patches:
            patch.start()
        try:
            yield
        finally:
            for patch in patches:
                patch.stop()


def _timed(function, seconds, part):
    def timed(*args, **kwargs):
        start = time.process_time_ns()
        try:
            return function(*args, **kwargs)
        finally:
            seconds[part] += (time.process_time_ns() - start) / 1e9

    return timed


def call(*argv):
    """One command in this process, its output thrown away."""
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        status = main([str(argument) for argument in argv])
    if status:
        raise SystemExit(f"sfxflow {' '.join(map(str, argv))} failed")


def stages(data, folder, count=None):
    """Commands from frames to integrated reflections, the first `count` frames of them.

    Parameters
    ----------
    data : dict
        frames (pattern), geometry, cell (file), space_group.
    folder : path
        Where p.h5 (peaks), i.h5 (indexed) and r.h5 (integrated) go.
    count : int, optional
    """
    frames = ("--frames", data["frames"], "--geometry", data["geometry"], *(("--count", count) if count else ()))
    cell = ("--cell", data["cell"], "--space-group", data["space_group"])
    return (
        ("peaks", *frames, "--output", folder / "p.h5"),
        ("indexing", "--peaks", folder / "p.h5", "--geometry", data["geometry"], *cell, "--output", folder / "i.h5"),
        ("integration", "--indexed", folder / "i.h5", *frames, "--output", folder / "r.h5"),
    )
