"""Whose fault it was that a job failed: its own, or the cluster's. Only the latter is a reason to try another cluster."""

import re

#: What a machine, not the work, is to blame for, in what a job's command printed last.
_OF_MACHINES = re.compile(
    r"No space left on device|[Dd]isk quota exceeded|Read-only file system|Input/output error|Stale (NFS )?file handle"
    r"|Cannot allocate memory|MemoryError|Out of memory|oom.kill|Killed|Bus error|Illegal instruction|Transport endpoint"
    r"|command not found|No module named|cannot open shared object|error while loading shared libraries"
    r"|can't be fetched|Too many open files|Connection (refused|reset|timed out)|Resource temporarily unavailable"
    r"|FATAL: .*(container|image|namespace|mount)|user namespace"
)
#: A message for people, or the trace of an error that nobody has foreseen.
_OF_WORK = re.compile(r"^(sfxflow \w[\w-]*: .+|\w*(Error|Exception): .+)$", re.MULTILINE)
#: The cluster's own words for what was done to a job.
_OF_CLUSTERS = re.compile(
    r"was removed/aborted|is held|has been held|terminated by signal|'(CANCELLED|TIMEOUT|NODE_FAIL|OUT_OF_MEMORY|PREEMPTED"
    r"|BOOT_FAIL|DEADLINE|SUSPENDED|REVOKED)|node failure|sbatch failed|[Ss]ubmission failed"
)

_LAST = 3000


def own_fault(message, printed):
    """
    Whether a job failed by itself, so that it would fail on any other cluster too.

    Parameters
    ----------
    message : str
        What the cluster said; empty where it said nothing.
    printed : str or None
        What the job's command printed in this attempt; None where it never started.

    Returns
    -------
    str
        What it died of, in its own words; empty where the cluster is to blame, or nobody knows.
    """
    if printed is None or _OF_CLUSTERS.search(message):
        return ""
    last = printed[-_LAST:]
    if _OF_MACHINES.search(last):
        return ""
    found = _OF_WORK.findall(last)
    return found[-1][0] if found else ""
