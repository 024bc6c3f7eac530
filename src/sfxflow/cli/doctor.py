"""Say what is installed, which engines, mergers and clusters work from here, what is missing and how to get it.

Only the built-in engine has to be there. CrystFEL and DIALS are programs beside it, which are found on the search path.

With --profile a job of a second is submitted through that profile, from the folder that this is started in; it reads and writes there, looks
for the frames of config/runs.tsv and, with containers, starts each image. What is wrong is said in words; the job and its files are removed.
"""

import argparse
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import tempfile

import sfxflow
from sfxflow.cli.doctor_profile import answer, try_profile
from sfxflow.errors import InputError
from sfxflow.licences import LICENCES
from sfxflow.programs.dials import MISSING_MODULE, lacks_module
from sfxflow.programs.images import CONTAINERS, container_program, find_image, folders_of_images, image_problem
from sfxflow.programs.probe import crystfel_methods, said_version
from sfxflow.programs.running import PACKAGES as PACKAGES_OF_PROGRAMS

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

#: Programs of DIALS that the engine runs.
_DIALS_PROGRAMS = ("dials.find_spots", "dials.ssx_index", "dials.ssx_integrate", "dials.scale")

#: Cluster to its plug-in for Snakemake, a program that submits and one that asks whether the cluster answers.
CLUSTERS = {
    "htcondor": ("snakemake-executor-plugin-htcondor", "condor_submit", ["condor_status", "-total"]),
    "slurm": ("snakemake-executor-plugin-slurm", "sbatch", ["sinfo", "--noheader"]),
}


def add_arguments(parser):
    """Arguments of `sfxflow doctor`."""
    parser.add_argument("--profile", metavar="NAME", help="try this profile with a job")
    parser.add_argument(
        "--time-limit", type=float, default=180.0, metavar="S", help="with --profile: seconds that the job may take"
    )
    parser.add_argument(
        "--apptainer", action="store_true", help="with --profile: start the containers, even if it does not name them"
    )
    # What the job calls.
    parser.add_argument("--question", help=argparse.SUPPRESS)
    parser.add_argument("--answer", help=argparse.SUPPRESS)


def run(args):
    """Print the findings; exit status 1 when the workflow can't run here, or not with the profile."""
    if args.question and args.answer:
        answer(args.question, args.answer)
        return 0
    if args.profile:
        if not args.time_limit > 0:
            raise InputError(f"--time-limit: {args.time_limit:g} s: more than 0 is expected")
        return try_profile(args.profile, args.time_limit, args.apptainer)
    print(f"sfxflow {sfxflow.__version__}, Python {platform.python_version()}, {platform.platform()}")
    print(f"{_cores()} cores, {_memory()}, temporary files in {tempfile.gettempdir()}")
    works = _engine()
    works = _snakemake() and works
    _crystfel()
    _dials()
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
    print("\nEngine builtin, merger builtin (no licence to accept)")
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


def _crystfel():
    print("\nEngine crystfel, mergers partialator and process_hkl (optional)")
    version = said_version("indexamajig")
    found = shutil.which("indexamajig")
    remedy = f"{PACKAGES_OF_PROGRAMS['indexamajig']}; its programs have to be on the search path"
    if not _say(found is not None and version is not None, f"indexamajig {version or ''}".rstrip(), remedy):
        if found:
            print(f"           {found} is there, but does not start: a library that it needs is missing")
        return
    for program in ("partialator", "process_hkl"):
        _say(shutil.which(program) is not None, program, "a part of CrystFEL")
    methods = crystfel_methods()
    if methods is None:
        print("           it does not say which indexing methods it was built with")
    else:
        print(
            f"           indexing methods that it was built with: {', '.join(methods)} (felix, pinkIndexer and smallcell are not asked)"
        )
    print(
        "           indexing methods that run a program with terms that each user has to accept (licences: in config.yaml):"
    )
    for name, licence in LICENCES.items():
        there = any(shutil.which(program) for program in licence.executables)
        print(
            f"  {'found  ' if there else 'absent '}  {name}: {licence.program}, from {licence.had_from}; read {licence.read}"
        )


def _dials():
    print("\nEngine dials, merger dials_scale (optional)")
    version = said_version("dials.version", "--version") or said_version("dials.version")
    remedy = (
        "Debian and Ubuntu: apt-get install dials; others: https://dials.github.io/installation.html, or conda-forge"
    )
    _say(version is not None, f"DIALS {version or ''}".rstrip(), remedy)
    if version is not None:
        for program in _DIALS_PROGRAMS:
            _say(shutil.which(program) is not None, program, "this DIALS is too old, or only a part of it is installed")
        if lacks_module():
            print(
                f"           its stills indexer asks for the module {MISSING_MODULE}, which this package leaves out: sfxflow gives it an empty one"
            )
        else:
            print("           its stills indexer is complete")
    _say(
        shutil.which("cctbx.xfel.merge") is not None,
        "merger cctbx_xfel_merge: cctbx.xfel.merge",
        "https://github.com/cctbx/cctbx_project and its xfel module, in an environment with MPI",
    )


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
    program = container_program()
    remedy = "your system's package manager or administrator installs it (https://apptainer.org)"
    there = _say(program is not None, "apptainer", remedy)
    for name in CONTAINERS:
        image, others = find_image(name, sfxflow.__version__, folders_of_images())
        wanted = f"containers/{name}-{sfxflow.__version__}.sif"
        if image is None:
            remedy = f"make containers CONTAINERS={name} builds it"
            _say(False, wanted, remedy + "".join(f"; {path} is of another version" for path in others))
            continue
        problem = image_problem(program, image, sfxflow.__version__) if there else "not tried without apptainer"
        _say(not problem, str(image), problem)
