"""
Queues of HTCondor and Slurm, asked through the clusters' own programs: which jobs of a folder are there, and take them away.

A job belongs to a folder when Snakemake submitted it from there, whoever started that Snakemake: HTCondor keeps the folder as `Iwd`, Slurm
as `WorkDir`. Other jobs that somebody submitted by hand from the same folder are left alone.
"""

import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import time
from dataclasses import dataclass

WAITING, RUNNING, HELD = "waiting", "running", "held"

#: Seconds that a program of a cluster may take to answer.
PATIENCE = 60


class Unreachable(Exception):
    """The cluster does not answer; the message is what its program said."""


@dataclass(frozen=True)
class Job:
    """
    A job in a queue.

    Attributes
    ----------
    number : str
        What the cluster calls it.
    state : str
        WAITING, RUNNING or HELD; a job that is about to end runs.
    reason : str
        What the cluster says of why it is held, or does not run yet; empty where it says nothing.
    asks : dict
        What it asks for, as far as the queue tells: cores, memory in MB, disk in MB.
    """

    number: str
    state: str
    reason: str = ""
    asks: dict | None = None


def answer_of(argv, patience=PATIENCE):
    """
    What a program prints.

    Raises
    ------
    Unreachable
        It is not there, fails, or takes too long.
    """
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=patience, check=False)
    except subprocess.TimeoutExpired:
        raise Unreachable(f"{argv[0]} did not answer in {patience} s") from None
    except OSError as error:
        raise Unreachable(f"{argv[0]}: {error.strerror}") from None
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())
        raise Unreachable(said or f"{argv[0]} ended with status {done.returncode} and no message")
    return done.stdout


class HTCondor:
    """A pool of HTCondor, asked through `condor_q`."""

    name = "htcondor"
    plugin = "htcondor"
    programs = ("condor_q", "condor_rm", "condor_status")
    _ATTRIBUTES = "ClusterId,ProcId,JobStatus,HoldReason,Args,RequestCpus,RequestMemory,RequestDisk"

    def jobs(self, folder):
        """
        Jobs that Snakemake submitted from a folder.

        Parameters
        ----------
        folder : str

        Returns
        -------
        list of Job

        Raises
        ------
        Unreachable
            The queue can't be asked.
        """
        constraint = f"Iwd == {json.dumps(str(folder))}"
        text = answer_of(["condor_q", "-constraint", constraint, "-json", "-attributes", self._ATTRIBUTES])
        return [self._job(ad) for ad in json.loads(text or "[]") if "--snakefile" in ad.get("Args", "")]

    def _job(self, ad):
        # Expressions come as text, disk in KB.
        asks = {
            name: ad[attribute] // divisor
            for name, attribute, divisor in (
                ("cores", "RequestCpus", 1),
                ("memory", "RequestMemory", 1),
                ("disk", "RequestDisk", 1024),
            )
            if isinstance(ad.get(attribute), int)
        }
        number = f"{ad['ClusterId']}.{ad.get('ProcId', 0)}"
        # Removed and completed jobs that are still listed have processes that end.
        state = {1: WAITING, 5: HELD}.get(ad["JobStatus"], RUNNING)
        return Job(number, state, str(ad.get("HoldReason", "")), asks)

    def remove(self, jobs):
        """Have jobs ended; returns at once, before they are gone."""
        answer_of(["condor_rm", *(job.number for job in jobs)])

    def ask(self):
        """Raise `Unreachable` unless the queue answers."""
        answer_of(["condor_q", "-limit", "1", "-af", "ClusterId"], 30)


class Slurm:
    """A Slurm cluster, asked through `squeue`."""

    name = "slurm"
    plugin = "slurm"
    programs = ("sbatch", "squeue", "scancel", "sinfo")

    def jobs(self, folder):
        """As `HTCondor.jobs`."""
        form = "%i|%T|%C|%m|%k|%r|%Z"
        text = answer_of(["squeue", "--noheader", f"--user={os.getuid()}", f"--format={form}"])
        rows = [line.split("|", 6) for line in text.splitlines() if line.count("|") >= 6]
        return [self._job(row) for row in rows if row[6] == str(folder) and row[4].startswith("rule_")]

    def _job(self, row):
        number, state, cores, memory, _, reason, _ = row
        reason = "" if reason == "None" else reason
        held = state == "PENDING" and "held" in reason.lower()
        state = HELD if held else WAITING if state in ("PENDING", "REQUEUED", "REQUEUE_HOLD") else RUNNING
        return Job(number, state, reason, {"cores": int(cores) if cores.isdecimal() else cores, "memory": memory})

    def remove(self, jobs):
        """As `HTCondor.remove`."""
        answer_of(["scancel", *(job.number for job in jobs)])

    def ask(self):
        """As `HTCondor.ask`."""
        if not answer_of(["sinfo", "--noheader"], 30).strip():
            raise Unreachable("sinfo lists no partition")


CLUSTERS = {"htcondor": HTCondor(), "slurm": Slurm()}


def cluster_of(executor):
    """The cluster that an executor of Snakemake sends jobs to; None for this machine and for one that is not known."""
    return CLUSTERS.get(executor)


def has_plugin(executor):
    """Whether Snakemake's plug-in for an executor is installed."""
    return executor == "local" or importlib.util.find_spec(f"snakemake_executor_plugin_{executor}") is not None


def missing_program(cluster):
    """A program of a cluster that is not on the search path; None where all are."""
    return next((program for program in cluster.programs if shutil.which(program) is None), None)


def removed(cluster, folder, patience=900, pause=1.0):
    """
    Take away the jobs of a folder and wait until they are gone.

    Parameters
    ----------
    cluster : HTCondor or Slurm
    folder : str
    patience : float
        Seconds. A pool that was restarted gives up a job's worker only when the job's lease is over, 10 minutes in sfxflow's profile.

    Returns
    -------
    found, left : list of Job
        What was there, and what still is after `patience`.

    Raises
    ------
    Unreachable
        The queue can't be asked.
    """
    found = left = cluster.jobs(folder)
    if found:
        # A job that ends meanwhile, or that somebody else has just removed, is refused; whether it is gone is seen below.
        with contextlib.suppress(Unreachable):
            cluster.remove(found)
    give_up = time.monotonic() + patience
    while left and time.monotonic() < give_up:
        time.sleep(pause)
        left = cluster.jobs(folder)
    return found, left
