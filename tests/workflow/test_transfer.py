"""HTCondor without a shared file system, as far as that can be seen without a pool: tests/clusters has one."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
JOB = ROOT / "workflow/scripts/htcondor_job.sh"
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"


def test_plan_with_the_profile(experiment):
    """A dry run packs nothing."""
    pytest.importorskip("snakemake_executor_plugin_htcondor", reason="the htcondor plug-in is not installed")
    planned = experiment.planned("--profile", str(ROOT / "profiles/htcondor-transfer"))
    assert planned.keys() == experiment.planned().keys()
    assert not (experiment.folder / ".snakemake/packed").exists()


def test_commands_have_lists_of_chunks_in_short_form(finished_folder):
    calls = [json.loads(line) for line in (finished_folder / "calls.jsonl").read_text().splitlines()]
    merged = [call for call in calls if call[0] == "merging" and "lysozyme" in call]
    assert "results/builtin/runs/<a:3,b:1>.integrated.h5" in merged[0]
    assert all(f"{number:04d}.integrated.h5" not in " ".join(merged[0]) for number in range(3))


def test_a_chunk_of_a_list_needs_its_own_files_only(experiment):
    """Which files travel with a job; another file's change is no reason to repeat it."""
    frames = [f"raw/a_{file}.h5 //{event}" for file in (1, 2) for event in range(100)]
    (experiment.folder / "raw/a.lst").write_text("\n".join(frames) + "\n")
    experiment.runs[0] |= {"frames": "raw/a.lst", "n_frames": 200}
    experiment.snakemake()
    (experiment.folder / "raw/a_2.h5").write_text("changed")
    assert experiment.planned()["builtin_peaks"] == {"Finding peaks in chunk 0001 of run a"}


def test_a_file_of_a_list_is_missing(experiment):
    (experiment.folder / "raw/a.lst").write_text("raw/gone.h5 //0\n")
    experiment.runs[0] |= {"frames": "raw/a.lst", "n_frames": 1}
    assert "raw/a.lst: no such file: raw/gone.h5" in experiment.refused()


def test_link_to_a_folder(experiment):
    """HTCondor would put the jobs on hold."""
    pytest.importorskip("snakemake_executor_plugin_htcondor", reason="the htcondor plug-in is not installed")
    (experiment.folder / "raw").rename(experiment.folder / "elsewhere")
    (experiment.folder / "raw").symlink_to("elsewhere")
    experiment.write()
    status, said = experiment.call("--profile", str(ROOT / "profiles/htcondor-transfer"))
    assert status not in (0, None)
    assert "raw is a link to a folder, through which HTCondor sends nothing: make it a folder" in said
    assert "Traceback" not in said


# ---- the script that starts a job


@pytest.fixture
def machine(tmp_path):
    """A folder as HTCondor makes it for a job; a stand-in for Snakemake is packed that writes down how it was called."""
    folder = tmp_path / "machine"
    folder.mkdir()
    (folder / ".job.ad").write_text('A = 1\nTransferOutput = "benchmarks,logs,results/a/one.h5,results/two.h5"\n')
    return folder


def pack(folder, python=PYTHON):
    files = {
        "python": f"{python}\n",
        "packages/snakemake/__init__.py": "",
        "packages/snakemake/__main__.py": "import sys\nprint(sys.argv[1:], sys.path[1])\nsys.exit('fail' in sys.argv)\n",
        "bin/sfxflow": "",
    }
    (folder / ".snakemake/packed").mkdir(parents=True)
    with tarfile.open(folder / ".snakemake/packed/sfxflow.tar.gz", "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))


def start(folder, *arguments, **environment):
    path = {"PATH": f"{Path(sys.base_prefix) / 'bin'}:/usr/bin:/bin"}
    argv = [
        "sh",
        JOB,
        "pip",
        "install",
        "&&",
        "python",
        "-m",
        "snakemake",
        "--snakefile",
        "../../Snakefile",
        *arguments,
    ]
    return subprocess.run(argv, cwd=folder, env=path | environment, capture_output=True, text=True, check=False)


def outputs(folder):
    return sorted(str(path.relative_to(folder)) for path in (folder / "results").rglob("*.h5"))


def test_job_starts_the_packed_snakemake(machine):
    pack(machine)
    done = start(machine, "--cores", "2")
    assert done.returncode == 0, done.stderr
    assert f"['--snakefile', '{machine}/.sfxflow/workflow/Snakefile', '--cores', '2']" in done.stdout
    assert f"{machine}/.sfxflow/packages" in done.stdout
    assert (machine / "logs").is_dir() and (machine / "benchmarks").is_dir()


def test_failed_job_leaves_something_to_transfer(machine):
    """HTCondor would put it on hold, and the logs would not come back."""
    pack(machine)
    assert start(machine, "fail").returncode == 1
    assert outputs(machine) == ["results/a/one.h5", "results/two.h5"]


def test_full_disk_holds_the_job(machine):
    """The exit status that the profile has the pool hold a job for; the reason is printed last, and the packages are gone."""
    pack(machine)
    (machine / "_condor_stderr").write_text("tar: x: Cannot write: No space left on device\n")
    done = start(machine, "fail")
    assert done.returncode == 75
    assert re.search(r"htcondor_job.sh on \S+: No space left on device: \d+ of \d+ MB are free\n$", done.stderr)
    assert not (machine / ".sfxflow").exists()
    assert start(machine).returncode == 0


def test_times_of_results_are_those_of_their_making(experiment, machine):
    """They come back in the order of their names; what was made of another must not look older than that."""
    # As with files over a megabyte: only their times count.
    by_time = ("--max-checksum-file-size", "0")
    experiment.snakemake(*by_time)
    stages = ("peaks", "indexed", "integrated")
    results = [f"results/builtin/runs/a/0000.{stage}.h5" for stage in stages]
    pack(machine)
    (machine / ".job.ad").write_text(f'TransferOutput = "logs,{",".join(sorted(results))}"\n')
    for age, name in enumerate(reversed(results)):
        (machine / name).parent.mkdir(parents=True, exist_ok=True)
        (machine / name).touch()
        os.utime(machine / name, (10**9 - 10 * age, 10**9 - 10 * age))
    assert start(machine).returncode == 0
    for path in (experiment.folder / "raw").iterdir():
        os.utime(path, (10**9, 10**9))
    # Earlier than all that was made of them, the first of them last.
    oldest = min(path.stat().st_mtime for path in (experiment.folder / "results").rglob("*.h5"))
    for delay, name in enumerate(reversed(results)):
        os.utime(experiment.folder / name, (oldest - 100 + delay, oldest - 100 + delay))
    assert "builtin_indexing" in experiment.planned(*by_time)
    shutil.copytree(machine / "logs/.times", experiment.folder / "logs/.times")
    assert not {"builtin_peaks", "builtin_indexing", "builtin_integration"} & experiment.planned(*by_time).keys()
    times = [(experiment.folder / name).stat().st_mtime for name in results]
    assert np.diff(times) == pytest.approx([10, 10])
    assert list((experiment.folder / "logs/.times").iterdir()) == []


def test_packages_that_did_not_come_along(machine):
    done = start(machine)
    assert done.returncode == 1
    assert "sfxflow.tar.gz did not come along" in done.stderr
    assert outputs(machine) == ["results/a/one.h5", "results/two.h5"]


def test_machine_without_that_python(machine):
    pack(machine, python="python3.2")
    done = start(machine)
    assert done.returncode == 1
    assert "no python3.2 on PATH" in done.stderr and "requirements" in done.stderr


def test_damaged_packages(machine):
    pack(machine)
    archive = machine / ".snakemake/packed/sfxflow.tar.gz"
    archive.write_bytes(archive.read_bytes()[:60])
    done = start(machine)
    assert done.returncode == 1
    assert "sfxflow.tar.gz can't be unpacked" in done.stderr


def test_packages_are_kept_for_the_next_job(machine, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache") / "sfxflow"
    pack(machine)
    for _ in range(2):
        done = start(machine, SFXFLOW_CACHE=str(cache))
        assert done.returncode == 0, done.stderr
    (kept,) = cache.iterdir()
    assert f"{kept}/packages" in done.stdout
    assert not (machine / ".sfxflow").exists()
