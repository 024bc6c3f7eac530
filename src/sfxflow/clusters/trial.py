"""What a trial job found on its machine, and what a cluster that let it wait has instead, in words."""

import re
import shlex

from sfxflow.clusters.queues import Unreachable, answer_of
from sfxflow.clusters.words import Finding, explained, finding, short


def bound_folders(arguments):
    """
    Folders that options of Apptainer bind into the container.

    Parameters
    ----------
    arguments : str
        As `apptainer-args` of a profile has them.

    Returns
    -------
    list of str
        Outside of the container.
    """
    words = shlex.split(arguments)
    given = []
    for word, following in zip(words, [*words, ""][1:], strict=True):
        if word in ("-B", "--bind"):
            given.append(following)
        elif word.startswith("--bind="):
            given.append(word.removeprefix("--bind="))
    return [pair.split(":")[0] for text in given for pair in text.split(",") if pair]


def read_answer(question, answer, version):
    """
    What is wrong on the machine that ran the job.

    Parameters
    ----------
    question, answer : dict
        What the job was asked, and what it saw: `cli.doctor_profile`.
    version : str
        Of sfxflow here.

    Returns
    -------
    list of Finding
    """
    host, wrong = answer["host"], []
    if answer["token"] != question["token"]:
        wrong.append(
            Finding(
                f"{host} read another file than was written here",
                "the folder is not the same on both machines: work where all machines see one file system",
            )
        )
    if answer["version"] != version:
        wrong.append(
            Finding(
                f"{host} runs sfxflow {answer['version']}, here it is {version}",
                "use one environment for all machines; getenv in the profile's default-resources brings PATH along",
            )
        )
    for path in answer["missing"]:
        wrong.append(
            Finding(
                f"{host} can't read {path}",
                "put the frames where all machines see them under the same path, or have the profile ask for machines that do "
                "(requirements, slurm_partition)",
            )
        )
    for path in answer["missing_binds"]:
        wrong.append(
            Finding(
                f"{path}, which apptainer-args of the profile binds into the container, does not exist on {host}",
                "correct apptainer-args",
            )
        )
    return wrong + [_of_image(found, host, version) for found in answer["images"] if found["problem"]]


def _of_image(found, host, version):
    image, problem = found["image"], found["problem"]
    if problem == "absent":
        return Finding(f"{image} is not there on {host}", "make containers builds it, in the folder that you start in")
    if problem == "no apptainer":
        return Finding(
            f"Apptainer is not installed on {host}", "its administrator installs it; or run without --sdm apptainer"
        )
    if problem == "version":
        return Finding(
            f"{image} holds sfxflow {found['said']}, here it is {version}", "build it again: make containers", ""
        )
    meant = explained(found["said"])
    remedy = "the words are Apptainer's own"
    return meant or Finding(f"{image} does not start on {host}", remedy, short(found["said"]))


def why_it_waits(cluster, job):
    """
    Why a job waits, as far as its cluster tells.

    Parameters
    ----------
    cluster : HTCondor or Slurm
    job : sfxflow.clusters.queues.Job

    Returns
    -------
    Finding
    """
    if cluster.name == "slurm":
        waits = f"the job waits: {job.reason or 'Slurm gives no reason'}"
        return finding(job.reason, waits, "the cluster is busy or the nodes are down: sinfo, squeue --start")
    try:
        slots = machines_of_pool()
    except Unreachable as error:
        return finding(str(error), "the pool does not say which machines it has")
    return too_large(job.asks or {}, slots) or Finding(
        "the job waits, although the pool has machines that are large enough",
        "they are busy, or refuse it (START, requirements): condor_q -better-analyze says which",
    )


def too_large(asks, slots):
    """
    Whether a job asks for more than any machine of a pool has.

    Parameters
    ----------
    asks : dict
        cores, memory, disk (MB), where they are known.
    slots : list of dict
        The same of each machine.

    Returns
    -------
    Finding or None
    """
    if not slots:
        return Finding("the pool has no machine", "condor_status lists none: its administrator has to start one")
    if any(all(asks.get(name, 0) <= slot[name] for name in slot) for slot in slots):
        return None
    wanted = ", ".join(f"{asks[name]} {_UNITS[name]}" for name in _UNITS if name in asks)
    largest = ", ".join(f"{max(slot[name] for slot in slots)} {unit}" for name, unit in _UNITS.items())
    return Finding(
        f"no slot is that large: the job asks for {wanted}; the most that the pool's machines have is {largest}",
        "set `cores` of the profile to the cores of your slots, and default-resources or set-resources to their memory and disk",
    )


_UNITS = {"cores": "cores", "memory": "MB of memory", "disk": "MB of disk"}


def machines_of_pool():
    """Cores, memory and disk (MB) of each machine of the pool, taken as a whole.

    Raises
    ------
    Unreachable
        The collector does not answer.
    """
    argv = ["condor_status", "-constraint", "!(DynamicSlot ?: false)", "-af", "TotalSlotCpus", "TotalSlotMemory"]
    text = answer_of([*argv, "TotalSlotDisk"])
    rows = [line.split() for line in text.splitlines() if re.fullmatch(r"[\d.]+ [\d.]+ [\d.]+", line.strip())]
    return [
        {"cores": int(float(row[0])), "memory": int(float(row[1])), "disk": int(float(row[2]) / 1024)} for row in rows
    ]


def domains_differ():
    """Whether no machine of the pool is in this machine's file system domain; a Finding, or None.

    Raises
    ------
    Unreachable
        The pool does not answer.
    """
    here = answer_of(["condor_config_val", "FILESYSTEM_DOMAIN"]).strip()
    there = sorted(set(answer_of(["condor_status", "-af", "FileSystemDomain"]).split()))
    if not there or here.lower() in [name.lower() for name in there]:
        return None
    return Finding(
        f"the file system domain differs: this machine is in {here}, the pool's machines in {', '.join(there[:5])}",
        "HTCondor then believes that they share no files: if they do, the administrator gives all of them one FILESYSTEM_DOMAIN; "
        "if not, see 'No shared file system' in docs/clusters.md",
    )
