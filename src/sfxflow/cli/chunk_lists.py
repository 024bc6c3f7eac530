"""
Lists of chunk files that fit into a command: a shell takes no argument over 128 KiB, and 2000 paths are 80 KiB.

    results/builtin/runs/<run1:2,run2:1>.peaks.h5       run1/0000.peaks.h5, run1/0001.peaks.h5, run2/0000.peaks.h5 in that folder
    results/builtin/runs/<run1,run2>/frames.tsv         run1/frames.tsv, run2/frames.tsv
"""

import re

_LIST = re.compile(r"([^<>]*)<([^<>/]+)>([^<>]*)")


def expanded(arguments):
    """Arguments of a command with the paths for those that stand for several.

    Parameters
    ----------
    arguments : iterable of str

    Returns
    -------
    list of str
        Paths in the order of the list: run by run, chunks ascending.
    """
    found = []
    for argument in arguments:
        # Settings are JSON, where < may mean what it says.
        match = None if argument.startswith(("{", "[")) else _LIST.fullmatch(argument)
        if not match:
            found.append(argument)
            continue
        before, runs, after = match.groups()
        for item in runs.split(","):
            run, colon, count = item.rpartition(":")
            names = [f"{run}/{number:04d}" for number in range(int(count))] if colon and count.isdecimal() else [item]
            found += [f"{before}{name}{after}" for name in names]
    return found
