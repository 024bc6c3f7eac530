"""logs/attempts.tsv: which profile a run was tried with, when, how far it came, why it was given up."""

from pathlib import Path

PATH = Path("logs/attempts.tsv")

COLUMNS = ("started", "ended", "host", "profile", "executor", "outcome", "steps_done", "steps", "log", "reason")


def add_attempt(row, path=PATH):
    """
    Append a row.

    Parameters
    ----------
    row : dict
        Value of each of `COLUMNS`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with open(path, "a", encoding="utf-8") as handle:
        lines = ["\t".join(COLUMNS)] if new else []
        lines.append("\t".join(" ".join(str(row[column]).split()) for column in COLUMNS))
        handle.write("\n".join(lines) + "\n")


def read_attempts(path=PATH):
    """Rows as `add_attempt` got them, values as text."""
    header, *rows = path.read_text(encoding="utf-8").splitlines()
    return [dict(zip(header.split("\t"), row.split("\t"), strict=True)) for row in rows]
