"""What jobs of the workflow took: CPU seconds from their logs, memory from the files of Snakemake's `benchmark`.

Both lie beside the results under other roots: results/X.peaks.h5 has logs/X.peaks.log and benchmarks/X.peaks.tsv. Snakemake samples
the CPU seconds too, at first twice a second and later every 30 seconds, and misses what comes after the last sample; so what a command
says of itself at its end comes first.
"""

import csv
import re
from pathlib import Path
from typing import NamedTuple

#: The last line of a command's log: `sfxflow.cli` prints it.
COST_LINE = re.compile(r"^used ([\d.]+) s of CPU time$", re.MULTILINE)


class Cost(NamedTuple):
    """What a job took, or several together.

    Attributes
    ----------
    cpu : float or None
        Seconds of user and system time, its worker processes included; None where it is not known.
    memory : float or None
        Highest memory of one job, MiB.
    """

    cpu: float | None
    memory: float | None


def cost_line(seconds):
    """The line in which a command says its CPU seconds."""
    return f"used {seconds:.2f} s of CPU time"


def cost_of_job(name, results="results", logs="logs", benchmarks="benchmarks"):
    """What the job took that made a result.

    Parameters
    ----------
    name : path
        The result without its ending: results/builtin/runs/a/0000.peaks.
    results, logs, benchmarks : path
        Folders with the same paths in them.

    Returns
    -------
    Cost
        With None for what was not recorded: files that are missing or damaged are no error.
    """
    try:
        place = str(Path(name).relative_to(results))
    except ValueError:
        return Cost(None, None)
    sampled = _sampled(Path(benchmarks) / f"{place}.tsv")
    said = _said(Path(logs) / f"{place}.log")
    return Cost(sampled.cpu if said is None else said, sampled.memory)


def together(costs):
    """Sum of the CPU seconds and the highest memory; None where that of one job is not known, or there is no job."""
    costs = list(costs)
    cpu, memory = ([cost[i] for cost in costs] for i in (0, 1))
    known = [bool(costs) and None not in values for values in (cpu, memory)]
    return Cost(sum(cpu) if known[0] else None, max(memory) if known[1] else None)


def _said(path):
    try:
        found = COST_LINE.findall(path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None
    return float(found[-1]) if found else None


def _sampled(path):
    """Cost by the last row of a benchmark file. Memory in which processes share pages counts once (max_pss), where that is known."""
    try:
        with open(path, newline="", encoding="utf-8") as handle:
            *_, row = csv.DictReader(handle, delimiter="\t")
    except (OSError, UnicodeDecodeError, ValueError, csv.Error):
        return Cost(None, None)
    return Cost(_number(row.get("cpu_time")), _number(row.get("max_pss")) or _number(row.get("max_rss")))


def _number(text):
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if value > 0 else None
