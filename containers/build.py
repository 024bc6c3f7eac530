"""
Build the containers of the engines: `make containers`, or python containers/build.py [NAME ...].

Each is containers/NAME.def, and becomes containers/NAME-VERSION.sif. What they start from is the image of a registry (docker), or, for those
that start from plain Debian, a folder that debootstrap fills from this machine's own Debian mirror. Python packages come from where this
machine's pip has them, in the versions of containers/constraints.txt, and are put into the image as files: a build needs no other network.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
#: What is only needed to build.
SCRATCH = ROOT / "build/containers"

#: Name of a container to the version of its Python, and the packages of Debian that it needs where it starts from plain Debian.
CONTAINERS = {"builtin": ("3.11", ["python3"]), "crystfel": ("3.12", None), "dials": ("3.11", ["python3", "dials"])}
#: Endings of images and their sums.
IMAGES = (".sif", ".sha256")
#: The release of Debian that those start from.
DEBIAN = "bookworm"
#: C libraries that the packages may ask for, of Debian 12 and of newer systems.
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


class NotBuilt(Exception):
    """Why a container can't be built here, and what to do."""


def version():
    """Version of the package, which is part of the images' names."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def sources():
    """SHA-256 of what an image is built from: the package, and this folder."""
    digest = hashlib.sha256()
    for path in [
        *sorted((ROOT / "src").rglob("*.py")),
        *sorted(path for path in HERE.iterdir() if path.suffix not in IMAGES),
    ]:
        if path.is_file():
            digest.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def image(name):
    """Where the image of a container belongs."""
    return HERE / f"{name}-{version()}.sif"


def run(argv, **options):
    """Run a command and show what it prints; its failure is the container's."""
    argv = [str(argument) for argument in argv]
    print("+", *argv, flush=True)
    if subprocess.run(argv, check=False, **options).returncode:
        raise NotBuilt(f"{Path(argv[0]).name} failed: see above")


def wheels(python):
    """Folder with the package and all that it needs as wheels for a version of Python, and pip, which installs them."""
    folder = SCRATCH / f"wheels-{python}"
    shutil.rmtree(folder, ignore_errors=True)
    # A copy: what other builds left in the checkout must not come in.
    source = SCRATCH / "source"
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    run([*pip, "wheel", "--no-deps", "--wheel-dir", folder, source])
    (package,) = folder.glob("sfxflow-*.whl")
    target = ["--python-version", python, *(f"--platform={platform}" for platform in PLATFORMS)]
    constraints = ["--constraint", HERE / "constraints.txt"]
    run([*pip, "download", "--only-binary", ":all:", *target, *constraints, "--dest", folder, "pip", package])
    return folder


def mirror():
    """Address of the machine's own Debian mirror; None where it has none."""
    for path in (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list")):
        text = path.read_text() if path.exists() else ""
        found = re.search(r"^(?:URIs:|deb(?: \[[^]]*\])?)\s+(\S+)", text, re.MULTILINE)
        if found:
            return found.group(1)
    return None


def debian(packages):
    """Folder with a small Debian that has these packages, made by debootstrap."""
    folder = SCRATCH / "-".join(["debian", DEBIAN, *packages])
    if (folder / "etc/debian_version").exists():
        return folder
    address = mirror()
    if address is None:
        raise NotBuilt(
            "this machine has no Debian mirror in /etc/apt; --base docker starts from the image of a registry"
        )
    if not shutil.which("debootstrap"):
        raise NotBuilt(
            "debootstrap is not installed: apt-get install debootstrap; --base docker starts from the image of a registry"
        )
    if os.getuid() != 0:
        raise NotBuilt("debootstrap needs root; --base docker starts from the image of a registry")
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    run(["debootstrap", "--variant=minbase", DEBIAN, unfinished, address])
    apt = ["chroot", unfinished, "env", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8", "apt-get"]
    run([*apt, "install", "--yes", "--quiet=2", "--no-install-recommends", *packages])
    run([*apt, "clean"])
    # The image knows one account only, and no devices.
    shutil.rmtree(unfinished / "dev")
    (unfinished / "dev").mkdir()
    run(["chown", "-hR", "0:0", unfinished])
    unfinished.rename(folder)
    return folder


def is_up_to_date(name, apptainer):
    """Whether an image is there that says it was built from what lies here."""
    if not image(name).exists():
        return False
    said = subprocess.run([apptainer, "inspect", "--labels", image(name)], capture_output=True, text=True, check=False)
    return f"sfxflow.sources: {sources()}" in said.stdout


def build(name, base, apptainer):
    """Build one container, unless its image is up to date; it appears under its name when it is whole.

    Parameters
    ----------
    name : str
        A key of `CONTAINERS`.
    base : str
        "docker": from an image of a registry; "debootstrap": from a folder made of the machine's mirror.
    apptainer : str
        The program.
    """
    if is_up_to_date(name, apptainer):
        return
    python, packages = CONTAINERS[name]
    arguments = {"version": version(), "sources": sources()}
    if base == "debootstrap" and packages is not None:
        arguments |= {"bootstrap": "localimage", "from": debian(packages).relative_to(ROOT)}
    arguments["wheels"] = wheels(python).relative_to(ROOT)
    unfinished = SCRATCH / f"{name}.sif"
    options = [option for key, value in arguments.items() for option in ("--build-arg", f"{key}={value}")]
    # As root in a name space of its own: works for root whose rights are cut down too, and for others.
    own = ["unshare", "--user", "--map-root-user"] if os.getuid() == 0 else []
    run([*own, apptainer, "build", "--force", *options, unfinished, HERE / f"{name}.def"], cwd=ROOT)
    unfinished.replace(image(name))
    digest = hashlib.sha256(image(name).read_bytes()).hexdigest()
    image(name).with_suffix(".sif.sha256").write_text(f"{digest}  {image(name).name}\n")


def main():
    """Build what is asked for; exit status 1 if one of them was not built."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(CONTAINERS)} (default: all)")
    parser.add_argument(
        "--base",
        choices=("auto", "docker", "debootstrap"),
        default="auto",
        help="where plain Debian comes from: the image of a registry, or debootstrap and this machine's mirror, as root; "
        "auto (default): the second where it is possible",
    )
    args = parser.parse_args()
    unknown = sorted(set(args.names) - set(CONTAINERS))
    if unknown:
        parser.error(f"{', '.join(unknown)}: no such container; there are {', '.join(CONTAINERS)}")
    apptainer = shutil.which("apptainer")
    if apptainer is None:
        sys.exit(
            "apptainer is not installed; your system's package manager or administrator installs it (https://apptainer.org)"
        )
    base = args.base
    if base == "auto":
        base = "debootstrap" if shutil.which("debootstrap") and os.getuid() == 0 and mirror() else "docker"
    said = []
    for name in args.names or CONTAINERS:
        try:
            build(name, base, apptainer)
            said.append(f"{image(name).relative_to(ROOT)}: {image(name).stat().st_size / 1e6:.0f} MB")
        except NotBuilt as reason:
            said.append(f"{image(name).relative_to(ROOT)}: not built: {reason}")
    print("\n".join(said))
    return 1 if any("not built" in line for line in said) else 0


if __name__ == "__main__":
    sys.exit(main())
