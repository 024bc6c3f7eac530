"""
Programs of a cluster for the tests: HTCondor and Apptainer from newer Debian packages, unpacked into a folder of their own; Slurm and
munge by apt.

Debian 12 has no HTCondor and no Apptainer. The packages of later suites come with their own libc: every program is pointed at the
loader and the libraries beside it, so nothing of the machine is changed and no rights are needed. The programs know their absolute
place afterwards: a folder of them cannot be moved. `python tests/clusters/tools.py` gets everything and says where it is.
"""

import fcntl
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

#: What is unpacked: suite of Debian, packages with the programs, libraries that are taken with all that they depend on, a program of it.
CONDOR = {
    "suite": "trixie",
    "programs": ["condor", "patchelf"],
    "libraries": [
        *(
            "libcurl4t64",
            "libscitokens0t64",
            "libvomsapi1t64",
            "libmunge2",
            "libgssapi-krb5-2",
            "libgomp1",
            "libstdc++6",
            "libexpat1",
        ),
        *(
            "libpcre2-8-0",
            "libsqlite3-0",
            "libuuid1",
            "libssl3t64",
            "libcrypt1",
            "libcom-err2",
            "libk5crypto3",
            "libkrb5-3",
        ),
        "libkrb5support0",
    ],
    "asked": ["usr/bin/condor_version"],
}
APPTAINER = {
    "suite": "sid",
    "programs": ["apptainer", "squashfs-tools", "squashfuse", "fuse3", "patchelf"],
    "libraries": [
        *(
            "libc6",
            "libstdc++6",
            "libseccomp2",
            "libsqlite3-0",
            "libxxhash0",
            "liblz4-1",
            "liblzma5",
            "liblzo2-2",
            "libzstd1",
            "zlib1g",
        ),
        *("libsquashfuse0", "libfuse3-4"),
    ],
    "asked": ["usr/bin/apptainer", "--version"],
}

LIBRARIES = "usr/lib/x86_64-linux-gnu"
#: Snakemake's plug-in removes SLURM_CONF from the environment of jobs, whose programs then look here.
SLURM_CONFIGURATION = Path("/etc/slurm/slurm.conf")
#: What tells the tests' configuration from a real one.
SLURM_MARK = "ClusterName=sfxflow-tests"
SLURM_PACKAGES = ["slurmctld", "slurmd", "slurm-client", "munge"]


class Missing(Exception):
    """Why a program of a cluster can't be had on this machine."""


def folder_of_tools():
    """Where programs are kept between the runs of the tests."""
    return Path(os.environ.get("SFXFLOW_TOOLS") or Path.home() / ".cache/sfxflow-tests").absolute()


def htcondor():
    """Folder with HTCondor's programs (usr/bin, usr/sbin); they are unpacked into it at the first call.

    Raises
    ------
    Missing
        When they are not there and this machine can't get them.
    """
    return _unpacked("condor", CONDOR)


def apptainer():
    """Path of the program `apptainer`, unpacked at the first call; the machine's own where there is one.

    Raises
    ------
    Missing
        When it is not there and this machine can't get it.
    """
    own = shutil.which("apptainer")
    if own:
        return Path(own)
    prefix = _unpacked("apptainer", APPTAINER)
    # It looks for its configuration beside its two programs, and computes another place for each of them.
    for link, target in (
        ("usr/etc", "../etc"),
        ("usr/var", "../var"),
        ("usr/lib/etc", "../../etc"),
        ("usr/lib/var", "../../var"),
    ):
        if not (prefix / link).is_symlink():
            (prefix / link).symlink_to(target)
    (prefix / "var/lib/apptainer/mnt/session").mkdir(parents=True, exist_ok=True)
    return prefix / "usr/bin/apptainer"


def slurm():
    """Slurm's and munge's programs on PATH; they are installed by apt at the first call, by root.

    Raises
    ------
    Missing
        When they are not there and can't be installed, when this is not root, or when this machine is part of a real Slurm.
    """
    if os.getuid() != 0:
        raise Missing("Slurm's daemons are started by root only")
    if SLURM_CONFIGURATION.exists() and SLURM_MARK not in SLURM_CONFIGURATION.read_text():
        raise Missing(f"{SLURM_CONFIGURATION} is there: this machine is part of a Slurm cluster")
    programs = ("slurmctld", "slurmd", "sbatch", "munged")
    if all(shutil.which(program) for program in programs):
        return
    _require_debian()
    print(f"installing {' '.join(SLURM_PACKAGES)} by apt", flush=True)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "--yes", "--no-install-recommends", *SLURM_PACKAGES]):
        _run(["apt-get", "-qq", *command], environment=environment)
    missing = [program for program in programs if not shutil.which(program)]
    if missing:
        raise Missing(f"apt installed no {', '.join(missing)}")


def _run(argv, environment=None, folder=None):
    """Run a command; what it printed on standard output."""
    done = subprocess.run(
        [str(argument) for argument in argv],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode:
        raise Missing(f"{' '.join(map(str, argv[:3]))} ... failed: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout


def _require_debian():
    if sys.platform != "linux" or not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise Missing("not a Debian machine: no apt-get")


def _mirror():
    """Address of the machine's own Debian mirror."""
    for path in (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list")):
        text = path.read_text() if path.exists() else ""
        found = re.search(r"^(?:URIs:|deb(?: \[[^]]*\])?)\s+(\S+)", text, re.MULTILINE)
        if found:
            return found.group(1)
    raise Missing("no Debian mirror in /etc/apt/sources.list or /etc/apt/sources.list.d/debian.sources")


def _works(prefix, asked):
    program, *arguments = asked
    return (prefix / program).exists() and not subprocess.run(
        [prefix / program, *arguments], capture_output=True, timeout=60, check=False
    ).returncode


def _unpacked(name, tool):
    """Folder of a tool, filled if it is not."""
    prefix = folder_of_tools() / name
    prefix.parent.mkdir(parents=True, exist_ok=True)
    with prefix.with_name(f"{name}.lock").open("w") as lock:
        # Tests that are started at the same time share the folder.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _works(prefix, tool["asked"]):
            _unpack(prefix, tool)
    return prefix


def _unpack(prefix, tool):
    """Fill the folder of a tool."""
    name = prefix.name
    _require_debian()
    print(f"getting {name} of Debian {tool['suite']} into {prefix}", flush=True)
    packages, apt = prefix.with_name(f"{name}.packages"), prefix.with_name(f"{name}.apt")
    for folder in (prefix, packages, apt):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    environment = os.environ | {"APT_CONFIG": str(_apt_of_its_own(apt, tool["suite"]))}
    _run(["apt-get", "-qq", "update"], environment)
    plan = _run(["apt-get", "install", "--simulate", *tool["libraries"]], environment)
    libraries = re.findall(r"^Inst (\S+)", plan, re.MULTILINE)
    _run(["apt-get", "-qq", "download", *tool["programs"], *libraries], environment, packages)
    for package in sorted(packages.glob("*.deb")):
        _run(["dpkg-deb", "--extract", package, prefix])
    _relocate(prefix)
    for folder in (packages, apt, *(prefix / "usr/share" / part for part in ("doc", "man", "locale", "lintian"))):
        shutil.rmtree(folder, ignore_errors=True)
    if not _works(prefix, tool["asked"]):
        raise Missing(f"{name} was unpacked into {prefix} but does not run")


def _apt_of_its_own(folder, suite):
    """Configuration of an apt that knows one suite only and believes that nothing is installed: the machine's own is left alone."""
    for part in ("lists/partial", "cache/archives/partial", "parts", "preferences.d", "state"):
        (folder / part).mkdir(parents=True)
    (folder / "status").touch()
    keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
    (folder / "sources.list").write_text(f"deb [signed-by={keys}] {_mirror()} {suite} main\n")
    settings = {
        "Dir::State": folder / "state",
        "Dir::State::lists": folder / "lists",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder / "cache",
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": folder / "parts",
        "Dir::Etc::preferencesparts": folder / "preferences.d",
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
    }
    path = folder / "apt.conf"
    path.write_text("".join(f'{key} "{value}";\n' for key, value in settings.items()))
    return path


def _relocate(prefix):
    """Point the programs below a folder at the loader and the libraries there."""
    libraries = prefix / LIBRARIES
    loader = libraries / "ld-linux-x86-64.so.2"
    with_own = {
        path.parent for path in (prefix / "usr/lib").rglob("lib*") if path.name.startswith(("libcondor", "libclassad"))
    }
    search = ":".join(map(str, [libraries, *sorted(with_own - {libraries})]))
    # The packages' own, which itself needs the loader beside it until it is pointed there.
    patchelf = [loader, "--library-path", libraries, prefix / "usr/bin/patchelf"]
    copy = prefix / "patchelf"
    shutil.copy(patchelf[-1], copy)
    patchelf[-1] = copy
    for path in sorted(prefix.rglob("*")):
        if path.is_symlink() or not path.is_file() or path == copy or path.name.startswith(("ld-linux", "libc.so")):
            continue
        with path.open("rb") as handle:
            if handle.read(4) != b"\x7fELF":
                continue
        as_program = (
            subprocess.run([*patchelf, "--print-interpreter", path], capture_output=True, check=False).returncode == 0
        )
        if as_program and ".so" not in path.name:
            _run([*patchelf, "--set-interpreter", loader, "--force-rpath", "--set-rpath", search, path])
        elif path.name.startswith(("libcondor", "libclassad")):
            _run([*patchelf, "--force-rpath", "--set-rpath", search, path])
    copy.unlink()


if __name__ == "__main__":
    try:
        print(f"HTCondor   {htcondor()}")
        print(f"Apptainer  {apptainer()}")
        slurm()
        print(f"Slurm      {shutil.which('slurmctld')}")
    except Missing as reason:
        sys.exit(str(reason))
