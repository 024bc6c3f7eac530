"""What the path of a result says: results/{engine}/runs/{run}/..., results/{engine}/merged/{merger}/{dataset}/..."""

from pathlib import Path


def names_in(path, folder, n):
    """Engine, and the `n` folder names after `folder`; 'by hand' and the file's name where it is not a path of the workflow.

    Parameters
    ----------
    path : path
    folder : str
        runs, merged, cell or geometry.
    n : int

    Returns
    -------
    engine : str
    names : list of str
    """
    parts = Path(path).parts
    place = len(parts) - n - 2
    if place > 0 and parts[place] == folder:
        return parts[place - 1], list(parts[place + 1 : -1])
    return "by hand", [Path(path).name] * n
