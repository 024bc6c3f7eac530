"""Full disks, for real: that of the pool's machine and that of the results. When there is room again the work goes on, and nothing is lost."""

import os
import re
import shutil
import subprocess
import time

import faults
import pytest
import tools
from htcondor_pool import APART, Pool
from work_folder import FRAMES, MTZ, ROOT, assert_same_results, on_pool, replace_in, small_experiment

TARGETS = (MTZ, FRAMES)
MB = 1 << 20


def leave_free(folder, n_bytes):
    """Have a file take all of a disk but `n_bytes`."""
    fill = folder / "taken"
    fill.touch()
    disk = os.statvfs(folder)
    with open(fill, "r+b") as handle:
        size = fill.stat().st_blocks * 512 + disk.f_bavail * disk.f_frsize - n_bytes
        handle.truncate(0)
        os.posix_fallocate(handle.fileno(), 0, size)


def wait_until(said, work, process, patience=120):
    """Wait until an expression is found in what Snakemake prints; returns where its match ends."""
    give_up = time.monotonic() + patience
    while not (found := re.search(said, work.printed())):
        assert process.poll() is None, work.printed()
        assert time.monotonic() < give_up, work.printed()
        time.sleep(0.2)
    return found.end()


@pytest.fixture(scope="module")
def small_machine(home, tmp_path_factory):
    """A pool whose machine sees neither `home` nor the checkout, keeps its jobs on a disk of 1500 MB."""
    try:
        prefix = tools.htcondor()
    except tools.Missing as reason:
        pytest.skip(str(reason))
    folder = tmp_path_factory.mktemp("small_machine")
    pool = Pool(folder, prefix, cpus=8, hidden=[home, ROOT], disks={folder / "execute": "1500m"}, more=APART)
    try:
        pool.start()
        yield pool
    finally:
        pool.stop()


@pytest.fixture(scope="module")
def local(home):
    """A small experiment with its frames below the working directory, processed here."""
    work = small_experiment(home / "small", n_frames=40, n_chunks=2)
    work.options = ("--profile", "local")
    work.snakemake(*TARGETS)
    return work


def without_second_chunk(work, folder, **options):
    """A copy of a finished experiment in which the second chunk and the merged data are missing."""
    copy = work.copy_to(folder, **options)
    for stage in ("peaks", "indexed", "integrated"):
        (copy.folder / f"results/builtin/runs/frames/0001.{stage}.h5").unlink()
    for path in TARGETS:
        (copy.folder / path).unlink()
    return copy


def test_disk_of_the_machine(small_machine, local, home):
    """
    At first the disk holds nothing more, then what is sent but not what is unpacked there. The pool holds the job with the reason, and
    releases it: one and the same job ends well when there is room.
    """
    work = without_second_chunk(local, home / "full_disk", **on_pool(small_machine, profile="htcondor-transfer"))
    profile = work.folder / "profiles/htcondor-transfer/profile.yaml"
    replace_in(profile, "EnteredCurrentStatus > 120", "EnteredCurrentStatus > 3")
    replace_in(profile, "disk_mb: 8000", "disk_mb: 1000")
    disk = small_machine.on_machine(small_machine.folder / "execute")
    leave_free(disk, 0)
    process = work.start(*TARGETS)
    wait_until("is held: Transfer input files failure.*No space left on device", work, process)
    leave_free(disk, 350 * MB)
    wait_until("is held: No space left on device: the disk of the machine that ran the job is full", work, process)
    leave_free(disk, 1400 * MB)
    assert work.finish(process) == 0, work.printed()
    assert_same_results(work, local)
    first, *_ = sorted(faults.records_of(small_machine, work), key=lambda record: record["ClusterId"])
    assert faults.chunk_of(first) == "0001"
    assert first["NumHolds"] >= 2
    assert first["ExitCode"] == 0
    assert [path.name for path in disk.iterdir()] == ["taken"]


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 30 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small file system needs root and the command mount")
    argv = ["mount", "-t", "tmpfs", "-o", "size=30m", "none", str(folder)]
    mounted = subprocess.run(argv, check=False, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a small file system can't be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_disk_of_the_results(pool, local, small_disk, tmp_path):
    """The jobs say which file had no room, nothing half is left, and a later attempt ends well."""
    work = without_second_chunk(local, tmp_path / "work", **on_pool(pool))
    shutil.copytree(work.folder / "results", small_disk / "results")
    shutil.rmtree(work.folder / "results")
    (work.folder / "results").symlink_to(small_disk / "results")
    leave_free(small_disk, 0)
    process = work.start(*TARGETS)
    wait_until(r"sfxflow peaks: results/\S*0001.peaks.h5: No space left on device", work, process)
    assert not list((small_disk / "results/builtin/runs/frames").glob(".*"))
    (small_disk / "taken").unlink()
    assert work.finish(process) == 0, work.printed()
    assert_same_results(work, local)
