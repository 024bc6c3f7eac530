"""
What travels with the jobs of HTCondor where the machines of the pool do not see the working directory (profiles/htcondor-transfer).

The plug-in sends input files and config there, and brings results back. Added here: packages and workflow, packed by `sfxflow pack`
when the workflow starts, the table of the runs, with --sdm apptainer the rule's image, and on the way back logs and benchmark files.

Needs    every other rule file, included before
Provides resources of their rules, equal for the stages of a chunk: a group of jobs can have only one value of each
"""

import importlib.util
import sys
import time

STARTED = time.time()
PACKED = ".snakemake/packed/sfxflow.tar.gz"
ALSO_PACKED = []
# They are read in place where every machine sees them.
IMAGES_SENT = DeploymentMethod.APPTAINER in workflow.deployment_settings.deployment_method and not os.environ.get(
    "SFXFLOW_IMAGES"
)
JOB = os.path.join(os.path.dirname(str(workflow.current_basedir)), "scripts/htcondor_job.sh")
SENT = not workflow.storage_settings.shared_fs_usage and workflow.is_main_process


def outside(path):
    """Whether a file can't be sent: its place on the other machine must be its place here, below the working directory."""
    return os.path.isabs(path) or os.path.normpath(path).startswith("..")


def seen_by_all(path):
    """Whether the profile says that every machine of the pool sees a file where it is."""
    prefixes = (getattr(workflow.executor_settings, "shared_fs_prefixes", None) or "").split(",")
    return any(path.startswith(os.path.join(prefix.strip(), "")) for prefix in prefixes if prefix.strip())


def require_files_to_send():
    """Every file of the config must lie where it can be sent from, or where all machines see it."""
    named = {config["runs"]}
    for row in RUNS.values():
        named |= {row["frames"], row["geometry"], row.get("mask") or ""}
    for dataset in DATASETS:
        named |= {config["datasets"][dataset][key] or "" for key in ("cell", "reference")}
    lost = sorted(path for path in named if path and outside(path) and not seen_by_all(path) and not is_remote(path))
    if lost:
        # An exception here would come out as a traceback.
        sys.exit(
            f"{len(lost)} paths lead out of the working directory, which jobs of this profile do not see: {', '.join(lost[:5])}. Move or link "
            "them below it and name them relative to it, or say in the profile that every machine of the pool sees them: "
            f"htcondor-shared-fs-prefixes: {os.path.dirname(os.path.abspath(lost[0]))}"
        )
    require_no_linked_folder(path for path in named if path and not is_remote(path) and not seen_by_all(path))


def require_no_linked_folder(paths):
    """HTCondor sends no file through a link to a folder."""
    for path in sorted(paths):
        folder = os.path.dirname(path)
        while folder and not os.path.islink(folder):
            folder = os.path.dirname(folder)
        if folder:
            sys.exit(
                f"{path}: {folder} is a link to a folder, through which HTCondor sends nothing: make it a folder, with links to the files in it"
            )


def packages_of_servers():
    """Packages that read frames at a server, as far as they are installed here: a job says what is missing."""
    named = [row["frames"] for row in RUNS.values()] + [path for files in LISTED.values() for path in files]
    schemes = {path.partition("://")[0].lower() for path in named if is_remote(path)}
    wanted = {"s3": ("boto3", "boto3"), "root": ("XRootD", "xrootd"), "roots": ("XRootD", "xrootd")}
    modules = {wanted[scheme] for scheme in schemes if scheme in wanted}
    return sorted(package for module, package in modules if importlib.util.find_spec(module))


def image_sent(rule):
    """The image that goes along with a rule's jobs, if any."""
    return [rule.container_img] if IMAGES_SENT and rule.container_img else []


def require_images_to_send():
    """Images must lie where they can be sent from."""
    images = images_in_use()
    for image in filter(outside, images):
        sys.exit(
            f"{image} lies outside of the working directory, from where it can't be sent: mkdir -p containers; ln -s {image} containers. Or name "
            "a folder that every machine of the pool sees (CVMFS, say): export SFXFLOW_IMAGES=FOLDER"
        )
    require_no_linked_folder(images)


def put_times_right():
    """
    Results of one job come back in the order of their names, with the times of their arrival: what was made later may look older than what
    it was made from. The job has written down when it made them.
    """
    for path in glob.glob("logs/.times/*"):
        with open(path) as handle:
            made = [line.rstrip("\n").split(" ", 1) for line in handle]
        made = {name: float(seconds) for seconds, name in made if os.path.exists(name)}
        # Clocks of two machines differ: only differences count.
        arrived = min(map(os.path.getmtime, made), default=0)
        for name, seconds in made.items():
            os.utime(name, (arrived, arrived - (max(made.values()) - seconds)))
        os.remove(path)


def say_which_machines_do_not_see_this():
    """Jobs whose machine has no Snakemake where it is here: the pool's message is in a file that nobody looks into."""
    blind = []
    for path in glob.glob(f"{workflow.executor_settings.jobdir}/*/*.err"):
        with open(path, errors="replace") as handle:
            if os.path.getmtime(path) >= STARTED and "No module named snakemake" in handle.read():
                blind.append(path)
    if blind:
        print(
            f"{len(blind)} jobs ran on machines that do not see this folder or its Python environment ({blind[0]}). If no machine of the pool does: "
            "--profile htcondor-transfer. If some do: name them in the profile (requirements). docs/clusters.md tells more",
            file=sys.stderr,
        )


if workflow.is_main_process:
    put_times_right()

if SENT:
    ALSO_PACKED = packages_of_servers()
    for stage in workflow.rules:
        stage.resources["htcondor_transfer_input_files"] = ",".join([PACKED, config["runs"], *image_sent(stage)])
        stage.resources["htcondor_transfer_output_files"] = "logs,benchmarks"
        stage.resources["job_wrapper"] = JOB


onstart:
    if SENT:
        require_files_to_send()
        if IMAGES_SENT:
            require_images_to_send()
        shell("sfxflow pack --also {ALSO_PACKED:q} --output {PACKED:q}")


onerror:
    if getattr(workflow.executor_settings, "jobdir", None):
        say_which_machines_do_not_see_this()
