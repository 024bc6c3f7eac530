"""Say what is installed, which engines and clusters work from here, what is missing and how to get it."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import tempfile

import sfxflow

#: Packages that the built-in engine imports, as they are called in the index and in Python.
PACKAGES = {
    "numpy": "numpy",
    "scipy": "scipy",
    "numba": "numba",
    "h5py": "h5py",
    "hdf5plugin": "hdf5plugin",
    "fabio": "fabio",
    "gemmi": "gemmi",
    "matplotlib": "matplotlib",
    "PyYAML": "yaml",
}

#: Cluster to its plug-in for Snakemake, a program that submits and one that asks whether the cluster answers.
CLUSTERS = {
    "htcondor": ("snakemake-executor-plugin-htcondor", "condor_submit", ["condor_status", "-total"]),
    "slurm": ("snakemake-executor-plugin-slurm", "sbatch", ["sinfo", "--noheader"]),
}


def add_arguments(parser):
    """`sfxflow doctor` has no arguments."""


def run(args):
    """Print the findings; exit status 1 when the workflow can't run here."""
    print(f"sfxflow {sfxflow.__version__}, Python {platform.python_version()}, {platform.platform()}")
    print(f"{_cores()} cores, {_memory()}, temporary files in {tempfile.gettempdir()}")
    works = _engine()
    works = _snakemake() and works
    for name in CLUSTERS:
        _cluster(name)
    _containers()
    if works:
        print("\nThe workflow runs on this machine: snakemake --cores all")
    else:
        print("\nThe workflow can't run on this machine: see what is missing above.")
    return 0 if works else 1


def _say(good, what, remedy=""):
    print(f"  {'ok     ' if good else 'missing'}  {what}" + (f"\n           {remedy}" if remedy and not good else ""))
    return good


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _memory():
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB of memory"
    except (ValueError, OSError):
        return "memory unknown"


def _engine():
    print("\nEngine builtin")
    remedy = "make demo in the checkout, or python -m pip install --editable . there, installs it"
    good = [
        _say(importlib.util.find_spec(module) is not None, f"{package} {_version(package) or ''}".rstrip(), remedy)
        for package, module in PACKAGES.items()
    ]
    return all(good)


def _snakemake():
    print("\nWorkflow")
    version = _version("snakemake")
    remedy = "python -m pip install 'snakemake>=9.25,<10'"
    if version is None:
        return _say(False, "snakemake", remedy)
    new_enough = (9, 25) <= tuple(int(part) for part in version.split(".")[:2]) < (10,)
    good = _say(
        new_enough,
        f"snakemake {version}" + ("" if new_enough else ", but 9.25 or newer and below 10 is needed"),
        remedy,
    )
    found = shutil.which("sfxflow")
    remedy = "activate the environment that it is installed in: the rules call it by name"
    return _say(found is not None, f"sfxflow on the search path{f': {found}' if found else ''}", remedy) and good


def _cluster(name):
    print(f"\nCluster {name}")
    plugin, submit, question = CLUSTERS[name]
    version = _version(plugin)
    good = _say(version is not None, f"{plugin} {version or ''}".rstrip(), f"python -m pip install {plugin} (Linux)")
    found = shutil.which(submit)
    good = _say(found is not None, submit, "start snakemake on a machine of the cluster that submits jobs") and good
    if found:
        problem = _answer(question)
        good = _say(not problem, f"{question[0]} answers", f"it does not: {problem}") and good
    print(f"  snakemake --profile {name} {'works from here' if good else 'does not work from here'}")


def _answer(question):
    """What goes wrong when the cluster is asked; empty when it answers."""
    try:
        done = subprocess.run(question, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return (done.stderr.strip().splitlines() or ["no message"])[-1] if done.returncode else ""


def _containers():
    print("\nContainers (only needed for --sdm apptainer)")
    found = shutil.which("apptainer") or shutil.which("singularity")
    _say(found is not None, "apptainer", "your system's package manager or administrator installs it")
