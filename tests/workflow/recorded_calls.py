"""What the stand-in for `sfxflow` was called with."""

import json

from sfxflow.cli.chunk_lists import expanded


def options(arguments):
    """Option to its values, of one call."""
    found = {}
    for argument in expanded(arguments[1:]):
        if argument.startswith("--"):
            values = found.setdefault(argument, [])
        else:
            values.append(argument)
    return found


def calls_of(folder, stage):
    calls = [json.loads(line) for line in (folder / "calls.jsonl").read_text().splitlines()]
    return [options(call) for call in calls if call[0] == stage]
