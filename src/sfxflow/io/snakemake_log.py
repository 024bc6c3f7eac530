"""What Snakemake's log says of jobs that failed, of the number of steps, and of submissions that a cluster refused."""

import re
from dataclasses import dataclass

_GROUP = re.compile(r"^ +message: Error in group (\S+)$")
_ERROR = re.compile(r"^( *)Error in rule (\S+):$")
_MEMBER = re.compile(r"^ +rule (\S+):$")
_FIELD = re.compile(r"^ +(message|output|log): (.*)$")
_STEPS = re.compile(r"^(\d+) of (\d+) steps \(.*\) done$", re.MULTILINE)
#: Text of the plug-ins and of what they call where a job could not be handed to the cluster.
_REFUSED = re.compile(
    r"^.*(Failed to submit HTCondor job|HTCondorException|SLURM sbatch failed|SLURM job submission failed"
    r"|Job submission failed with exception|sbatch: error).*$",
    re.MULTILINE,
)


@dataclass(frozen=True)
class FailedJob:
    """
    A job that failed, by the log.

    Attributes
    ----------
    rule : str
    message : str
        What the cluster's plug-in said; empty for a job of this machine and for the members of a group.
    outputs, logs : tuple of str
        Files.
    """

    rule: str
    message: str
    outputs: tuple
    logs: tuple


def failed_jobs(text):
    """
    Jobs that failed, each once, with what was said last.

    Parameters
    ----------
    text : str
        A log of Snakemake.

    Returns
    -------
    list of FailedJob
        In the order of their first failure; a group is one job with the outputs and logs of all its members. A job that succeeded when
        it was repeated is among them: look for its outputs.
    """
    found = {}
    for job in _told(text):
        key = job["output"] or (job["rule"],)
        if job["inside"] and any(set(key) <= set(of_group) for of_group in found):
            # A member of a group, once more.
            continue
        found[key] = FailedJob(job["rule"], job["message"], tuple(job["output"]), tuple(job["log"]))
    return list(found.values())


def _told(text):
    """Jobs in the order in which the log tells that they failed: dicts of rule, message, output, log, inside (a group)."""
    jobs, current, in_group = [], None, False
    for line in _without_shown_logs(text):
        if match := _GROUP.match(line):
            in_group = True
            current = {"rule": match[1], "message": "", "output": (), "log": (), "inside": False}
            jobs.append(current)
        elif match := _ERROR.match(line):
            in_group = False
            current = {"rule": match[2], "message": "", "output": (), "log": (), "inside": bool(match[1])}
            jobs.append(current)
        elif not line.startswith(" "):
            current = None
        elif current is not None and (match := _FIELD.match(line)):
            name, value = match.groups()
            if name == "message":
                current[name] = "" if value == "None" else value
            else:
                current[name] += _files(value)
        elif in_group and (match := _MEMBER.match(line)) and current is not None:
            current["rule"] += f" {match[1]}"
    return jobs


def _without_shown_logs(text):
    """Lines of a log without the files that Snakemake shows in it: they hold what anybody printed."""
    lines = iter(text.splitlines())
    for line in lines:
        if not (line.lstrip(" ").startswith("Logfile ") and line.endswith(":")):
            yield line
            continue
        frame = next(lines, "").strip()
        if frame and set(frame) == {"="}:
            while next(lines, frame).strip() != frame:
                pass


def _files(text):
    text = text.removesuffix(" (check log file(s) for error details)")
    return tuple(name for name in text.split(", ") if name)


def steps(text):
    """
    Steps done and steps in all, as Snakemake counts them; (0, 0) where it has counted none.

    Returns
    -------
    tuple of int
    """
    found = _STEPS.findall(text)
    return tuple(map(int, found[-1])) if found else (0, 0)


def refusals(text):
    """Lines that say that a cluster did not take a job."""
    return [match.group(0).strip() for match in _REFUSED.finditer(text)]
