"""What clusters, Snakemake and Apptainer say when something is wrong, in words for people: what it means and what to do."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """
    One thing that is wrong.

    Attributes
    ----------
    what : str
        What is wrong.
    remedy : str
        What to do.
    said : str
        The program's own words; empty where nothing was said.
    """

    what: str
    remedy: str
    said: str = ""


#: Expression in what was said; what it means; what to do. The first that fits counts.
_MEANINGS = (
    (
        r"CONDOR_CONFIG environment variable|CONDOR_CONFIG is unset|contain a condor_config source",
        "HTCondor has no configuration here (CONDOR_CONFIG)",
        "start on a machine that submits to the pool, or set CONDOR_CONFIG to its configuration file",
    ),
    (
        (
            r"condor_schedd is not|Unable to locate local daemon|Can't find address of local schedd|Failed to connect to schedd"
            r"|CEDAR:6001|Failed to connect to queue manager"
        ),
        "no schedd answers, the daemon of HTCondor that takes jobs",
        "start on a machine that submits to the pool; if this is one, its administrator has to start HTCondor (condor_who says what runs)",
    ),
    (
        r"CONDOR_IDS not defined|job owner to .?root|owner.{0,20}root.{0,40}not permitted",
        "HTCondor takes no jobs of root",
        "start as an ordinary user",
    ),
    (
        (
            r"[Cc]annot allocate a cluster id|AUTHENTICAT|[Aa]uthenticat|PERMISSION DENIED|[Pp]ermission denied .*schedd|not authorized"
            r"|Failed to create new cluster|NewCluster|[Ff]ailed to start transaction|Failed to begin transaction"
        ),
        "the pool refuses: it does not know who you are, or you may not submit there",
        "condor_ping -verbose WRITE says what fails; the pool's administrator gives tokens (condor_token_fetch) and rights",
    ),
    (
        r"[Ii]nvalid partition|PartitionConfig",
        "Slurm has no such partition, or it is not for you",
        "sinfo lists the partitions; set slurm_partition in default-resources of the profile",
    ),
    (
        r"[Ii]nvalid account|InvalidAccount|account/partition combination",
        "Slurm does not know the account, or it may not use this partition",
        "sacctmgr show associations user=$USER lists yours; set slurm_account in default-resources of the profile",
    ),
    (
        (
            r"node configuration is not available|BadConstraints|[Mm]emory specification can.?not be satisfied|CPU count per node can"
            r"|More processors requested"
        ),
        "no node of the partition is that large",
        "set `cores` and set-resources of the profile to what the nodes have (sinfo --format='%P %c %m')",
    ),
    (
        r"time limit|PartitionTimeLimit",
        "the partition does not allow jobs that long",
        "name another partition for them, or set a shorter runtime (set-resources of the profile)",
    ),
    (
        (
            r"Unable to contact slurm controller|cannot stat file|Unable to process configuration file|configuration source"
            r"|[Cc]onnection refused.*slurm|Socket timed out"
        ),
        "Slurm's controller does not answer, or Slurm is not configured here",
        "start on a login node of the cluster; scontrol ping says whether the controller is up",
    ),
    (
        r"Protocol authentication error|munge|Munge",
        "Slurm's authentication (munge) fails on this machine",
        "start on a login node; its administrator has to look at munged",
    ),
    (
        r"memory usage exceeded|cgroup memory limit|exceeded.{0,30}memory",
        "the job used more memory than it asked for",
        "set default-resources mem_mb, or set-resources of its rule, in the profile",
    ),
    (
        r"[Tt]ransfer (input|output) files failure|failed to (send|receive) file",
        "the pool could not bring files to the worker or back: job and worker do not share a file system",
        "see 'No shared file system' in docs/clusters.md",
    ),
    (
        r"via condor_hold|JobHeldUser|JobHeldAdmin",
        "somebody holds the jobs (condor_hold, scontrol hold)",
        "ask who, or let them go: condor_release, scontrol release",
    ),
    (
        r"user namespace|unshare.*not permitted|newuidmap|setuid.*disabled",
        "Apptainer may not start containers on the worker: it has neither user namespaces nor its setuid part",
        "the machine's administrator allows them (sysctl user.max_user_namespaces; kernel.apparmor_restrict_unprivileged_userns=0)",
    ),
    (
        r"mount source .* doesn't exist|[Bb]ind .*no such file|mount .*hook.*no such file",
        "a folder that is to be bound into the container does not exist on the worker",
        "correct apptainer-args in the profile",
    ),
    (
        (
            r"image format not recognized|not a valid SIF|[Ii]mage is corrupt|could not open image|SIF.*(magic|header|invalid)"
            r"|while (loading|opening).*image|[Ss]quashfs"
        ),
        "the image is corrupt or not an image",
        "build or copy it again: make containers",
    ),
    (
        r"No space left on device|[Dd]isk quota exceeded",
        "a disk is full",
        "make room, or have the jobs use another disk",
    ),
    (
        r"No module named snakemake|snakemake: (command )?not found",
        "the worker does not have the Python environment that Snakemake runs in here",
        "install it where all workers see it under the same path",
    ),
    (
        r"sfxflow: (command )?not found",
        "the job does not find the program sfxflow",
        "PATH has to reach it: getenv in default-resources of the profile (HTCondor), and the same path on all workers",
    ),
    (
        r"KeyError: 'PATH'",
        "the job started without PATH",
        "set getenv in default-resources of the profile",
    ),
)


def explained(said):
    """
    What a message means.

    Parameters
    ----------
    said : str

    Returns
    -------
    Finding or None
        None where nobody has met it before.
    """
    for expression, what, remedy in _MEANINGS:
        if re.search(expression, said, re.DOTALL):
            return Finding(what, remedy, short(said))
    return None


def short(said, length=250):
    """A message on one line; its beginning where it is long."""
    said = " ".join(said.split())
    return said if len(said) <= length else said[:length] + " ..."


def finding(said, otherwise, remedy="the words above are the program's own"):
    """`explained`, or what is to be said where the message is not known."""
    return explained(said) or Finding(otherwise, remedy, short(said))


def in_short(said, length=120):
    """What a message means, in a few words; its beginning where nobody knows."""
    found = explained(said)
    return found.what if found else short(said, length)
