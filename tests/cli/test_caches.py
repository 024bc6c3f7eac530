"""Numbers do not depend on what numba has in its cache."""

import os
import subprocess
import sys

import h5py
import numpy as np
import pytest

CACHE = "NUMBA_CACHE_DIR"
_MAIN = "import sys; from sfxflow.cli import main; sys.exit(main())"


def process(demo, folder, cache):
    """Frames to merged reflections, each command a process of its own; the files that were written."""
    folder.mkdir()
    names = ("peaks", "indexed", "integrated", "assignment", "merged")
    peaks, indexed, integrated, assignment, merged = (folder / f"{name}.h5" for name in names)
    crystal = ("--cell", demo.cell, "--space-group", demo.group)
    of_all = ("--integrated", integrated, *crystal)
    for argv in (
        demo.arguments("peaks", None, peaks),
        demo.arguments("indexing", peaks, indexed),
        demo.arguments("integration", indexed, integrated),
        ("ambiguity", *of_all, "--output", assignment),
        ("merging", *of_all, "--dataset", "demo", "--assignment", assignment, "--output", merged),
    ):
        subprocess.run([sys.executable, "-c", _MAIN, *map(str, argv)], env=os.environ | {CACHE: str(cache)}, check=True)
    return peaks, indexed, integrated, assignment, merged


def columns(path):
    """Name to values of all columns of a file but texts, which name its inputs."""
    found = {}
    with h5py.File(path) as handle:
        handle.visititems(
            lambda name, item: (
                found.update({name: item[()]}) if isinstance(item, h5py.Dataset) and item.dtype != object else None
            )
        )
    assert len(found) > 3
    return found


@pytest.mark.long
def test_same_numbers_while_kernels_are_compiled_and_from_the_cache(demo, tmp_path):
    """To the last bit: what is computed again after an update must not differ from what was there."""
    cache = tmp_path / "cache"
    cold = process(demo, tmp_path / "cold", cache)
    kernels = sorted(cache.rglob("*.nbc"))
    assert len(kernels) > 50
    warm = process(demo, tmp_path / "warm", cache)
    assert sorted(cache.rglob("*.nbc")) == kernels
    for kernel in cache.rglob("*_block-*.nb?"):
        kernel.unlink()
    half = process(demo, tmp_path / "half", cache)
    for path, *others in zip(cold, warm, half, strict=True):
        expected = columns(path)
        for other in others:
            found = columns(other)
            assert found.keys() == expected.keys()
            for name, values in expected.items():
                np.testing.assert_array_equal(found[name], values, err_msg=f"{path.name}: {name}")
