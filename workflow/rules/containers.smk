"""
With --sdm apptainer: the image that each engine's jobs run in, what they see of this machine, and what is wrong with either.

Needs    {builtin,crystfel,dials}-VERSION.sif (make containers) in containers/ of the working directory or of the repository, or in
         the folder $SFXFLOW_IMAGES, which every machine sees
Provides CONTAINER, CRYSTFEL_CONTAINER, DIALS_CONTAINER
"""

import shlex
import struct
import tempfile

from snakemake.deployment.singularity import Singularity
from snakemake.settings.types import DeploymentMethod

# Snakemake compares an image's name only: the version is part of it.
IMAGES_VERSION = "0.1.0"
IMAGES_OF_REPOSITORY = os.path.normpath(os.path.join(str(workflow.current_basedir), "../../containers"))


def image_of(engine):
    """Path of an engine's image: in the folder that $SFXFLOW_IMAGES names, else in the working directory, or in the repository where it is only there."""
    name = f"{engine}-{IMAGES_VERSION}.sif"
    if folder := os.environ.get("SFXFLOW_IMAGES"):
        return os.path.join(folder, name)
    own, of_repository = os.path.join("containers", name), os.path.join(IMAGES_OF_REPOSITORY, name)
    return of_repository if os.path.exists(of_repository) and not os.path.exists(own) else own


def images_in_use():
    """Images of the engines and mergers of the config."""
    programs = {*config["engines"], *config["mergers"]}
    images = [CONTAINER]
    if programs & {"crystfel", "partialator", "process_hkl"} or config["ambiguity"]["program"] == "ambigator":
        images.append(CRYSTFEL_CONTAINER)
    if programs & {"dials", "dials_scale", "cctbx_xfel_merge"}:
        images.append(DIALS_CONTAINER)
    return images


def whole_image(path):
    """Whether a file is a whole image: its header says where its last part ends (https://github.com/apptainer/sif, sif.go)."""
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as handle:
        header = handle.read(128)
    if len(header) < 128 or header[32:41] != b"SIF_MAGIC":
        return False
    start, size = struct.unpack("<qq", header[112:128])
    return start + size <= os.path.getsize(path)


def version_of_image(program, path):
    """The version that an image says it has; None where it can't be asked."""
    asked = subprocess.run(
        [program, "inspect", "--labels", path], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    found = re.search(r"^org\.opencontainers\.image\.version: *(\S+)", asked.stdout, re.MULTILINE)
    return found.group(1) if found and asked.returncode == 0 else None


def require_images(program):
    """The images in use must be there, whole, and of this version."""
    build = f"`make containers` in {os.path.dirname(IMAGES_OF_REPOSITORY)} builds it"
    for image in images_in_use():
        if " " in os.path.abspath(image) and os.path.isabs(image):
            raise WorkflowError(
                f"{image}: Snakemake takes no image from a folder with a space in its name; link it: ln -s '{IMAGES_OF_REPOSITORY}' containers"
            )
        if not os.path.exists(image):
            kept = dict.fromkeys([os.path.dirname(image), IMAGES_OF_REPOSITORY])
            engine = os.path.basename(image).split("-")[0]
            others = sorted({path for folder in kept for path in glob.glob(f"{glob.escape(folder)}/{engine}-*.sif")})
            hint = f"; there is {', '.join(others)}, of another version" if others else ""
            raise WorkflowError(f"{image}: no such image{hint}; {build}, and docs/containers.md says more")
        if not whole_image(image):
            raise WorkflowError(
                f"{image}: not an image of Apptainer, or only a part of one; copy it again, or remove it: {build}"
            )
        version = version_of_image(program, image)
        if version != IMAGES_VERSION:
            said = f"it is of version {version}" if version else f"{program} can't read its version"
            raise WorkflowError(
                f"{image}: {said}, and {IMAGES_VERSION} is expected; use the image of this version: {build}"
            )


def bound_by_options(options):
    """What Apptainer is asked to bind: the machine's paths of --bind, of options as on a command line."""
    try:
        words = shlex.split(options)
    except ValueError as error:
        raise WorkflowError(f"--apptainer-args: {options}: {error}") from None
    given = []
    for word, following in zip(words, [*words[1:], ""]):
        option, equals, value = word.partition("=")
        if option in ("--bind", "-B"):
            given.append(value if equals else following)
        elif re.match("-B.", word):
            given.append(word[2:])
    return [part.split(":")[0] for value in given for part in value.split(",")]


def require_bound_paths(source, paths):
    """What is bound must be on this machine."""
    for path in paths:
        if path and not os.path.exists(path):
            raise WorkflowError(f"{source}: {path} can't be bound: there is no such file or folder on this machine")


def folders_of_inputs():
    """Folders outside of the working directory that the config and the runs name files in, and where links of the results lead to."""
    named = [path for files in FRAME_FILES.values() for path in files]
    named += [row[column] for row in RUNS.values() for column in ("geometry", "mask") if row.get(column)]
    for dataset in config["datasets"].values():
        named += [dataset[key] for key in ("cell", "reference") if dataset[key]]
    # The file itself and what it is a link to must be found.
    folders = {os.path.dirname(place(path)) for path in named for place in (os.path.abspath, os.path.realpath)}
    folders |= {os.path.realpath(path) for path in ("results", "logs", "benchmarks", "example") if os.path.islink(path)}
    folders.add(tempfile.gettempdir())
    # Where jobs keep frames that they fetch; a folder of the machines that run jobs, which this one need not have.
    if cache := os.environ.get("SFXFLOW_CACHE"):
        try:
            os.makedirs(cache, exist_ok=True)
        except OSError:
            pass
        folders.add(os.path.realpath(cache))
    here = os.getcwd()
    return sorted(
        path for path in folders if os.path.isdir(path) and not os.path.join(path, "").startswith(here + os.sep)
    )


def bind_folders(program):
    """Let the containers of all jobs see these folders: without it they see the working directory and /tmp only."""
    # The program is singularity where there is no apptainer.
    variable = "SINGULARITY_BIND" if program == "singularity" else "APPTAINER_BIND"
    given = os.environ.get(variable, "")
    require_bound_paths(variable, [part.split(":")[0] for part in given.split(",")])
    folders = folders_of_inputs()
    for path in folders:
        if set(path) & set(",:"):
            raise WorkflowError(f"{path}: Apptainer can't bind a folder with a comma or a colon in its name; rename it")
    # Those below another one come with it.
    outer = [path for path in folders if not any(path.startswith(os.path.join(other, "")) for other in folders)]
    os.environ[variable] = ",".join([*([given] if given else []), *outer])


CONTAINER = image_of("builtin")
CRYSTFEL_CONTAINER = image_of("crystfel")
DIALS_CONTAINER = image_of("dials")

if DeploymentMethod.APPTAINER in workflow.deployment_settings.deployment_method:
    CONTAINER_PROGRAM = next((name for name in ("apptainer", "singularity") if shutil.which(name)), None)
    if CONTAINER_PROGRAM is None:
        raise WorkflowError(
            "--sdm apptainer: there is no apptainer on PATH of this machine; its administrator or package manager installs it "
            "(https://apptainer.org). Without --sdm apptainer jobs use what is installed here"
        )
    # Where software is not shared Snakemake does not look for the program itself, and starts `singularity` for the short rules.
    Singularity().check()
    if workflow.is_main_process:
        require_images(CONTAINER_PROGRAM)
    # Where the workflow starts as well as where jobs do: the short rules run there, in containers too.
    require_bound_paths("--apptainer-args", bound_by_options(workflow.deployment_settings.apptainer_args))
    bind_folders(CONTAINER_PROGRAM)
