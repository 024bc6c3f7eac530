"""Images of the containers: where they are looked for, and whether one is whole, of this version, and starts here."""

import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import sfxflow

#: Containers, as containers/NAME.def and NAME-VERSION.sif are called.
CONTAINERS = ("builtin", "crystfel", "dials")
#: An image starts in a second or two; from a slow file system it takes longer, seconds.
_PATIENCE = 120


def container_program():
    """Path of `apptainer`, or of `singularity` where there is only that; None without either."""
    return shutil.which("apptainer") or shutil.which("singularity")


def folders_of_images():
    """Where images are looked for, the first place first: in the working directory, in the repository. As workflow/rules/containers.smk does."""
    return [Path("containers"), Path(sfxflow.__file__).resolve().parents[2] / "containers"]


def containers_in_use(config):
    """The containers that a config needs.

    Parameters
    ----------
    config : dict
        As config.yaml has it, whole or not.

    Returns
    -------
    list of str
        Of `CONTAINERS`; builtin always, since the report is made with it.
    """
    programs = {str(name) for key in ("engines", "mergers") for name in config.get(key) or []}
    ambiguity = config.get("ambiguity")
    programs.add(str(ambiguity.get("program")) if isinstance(ambiguity, dict) else "")
    needed = {
        "crystfel": {"crystfel", "partialator", "process_hkl", "ambigator"},
        "dials": {"dials", "dials_scale", "cctbx_xfel_merge"},
    }
    return ["builtin", *(name for name in CONTAINERS if programs & needed.get(name, set()))]


def find_image(name, version, folders):
    """The image of a container.

    Parameters
    ----------
    name : str
        One of `CONTAINERS`.
    version : str
        Part of the file's name.
    folders : sequence of path
        Looked through in this order.

    Returns
    -------
    image : Path or None
        None where there is none of this version.
    others : list of Path
        Images of other versions.
    """
    found = [path for folder in folders for path in sorted(Path(folder).glob(f"{name}-*.sif"))]
    wanted = f"{name}-{version}.sif"
    image = next((path for path in found if path.name == wanted), None)
    return image, [path for path in found if path.name != wanted]


def image_problem(program, image, version):
    """What is wrong with an image, in words; empty where it is whole and starts.

    Parameters
    ----------
    program : path
        `container_program()`.
    image : path
        A file NAME.sif; its sum is compared with NAME.sif.sha256 where that is there.
    version : str
        That sfxflow in the image must have.
    """
    image = Path(image)
    noted = image.with_name(f"{image.name}.sha256")
    if noted.exists() and noted.read_text().split()[:1] != [_sha256(image)]:
        return f"it is not what was built: its SHA-256 differs from {noted.name}; copy it again, or make containers"
    try:
        asked = subprocess.run(
            [program, "exec", image, "sfxflow", "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"it does not start: {error}"
    if asked.returncode:
        said = [line for line in asked.stderr.splitlines() if not line.startswith("INFO")] or ["no message"]
        return f"it does not start: {said[-1].strip()}{_meaning(asked.stderr)}"
    found = re.search(r"(\d\S*)\s*$", asked.stdout)
    inside = found.group(1) if found else "an unknown version"
    return "" if inside == version else f"sfxflow in it is {inside}, {version} is expected: make containers"


def _meaning(said):
    """What to do about a message of Apptainer's."""
    if re.search(r"[Uu]ser ?namespace|unprivileged_userns_clone|Requesting capability set", said):
        return (
            "; this machine lets Apptainer make no user namespaces: its administrator allows them "
            "(sysctl user.max_user_namespaces), or --apptainer-args=-u starts the container in one as root"
        )
    if re.search(r"fuse|mount.*squashfs|loop device", said):
        return "; Apptainer can mount no images here: it needs squashfuse and /dev/fuse, or its setuid part"
    if re.search(r"format|SIF|squashfs|magic", said):
        return "; the image is not whole: copy it again, or make containers"
    return ""


def _sha256(path):
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
