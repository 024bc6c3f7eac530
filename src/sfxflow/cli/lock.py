"""Write down what an analysis was made with: every parameter, versions, inputs, and what a few pinned frames give.

Run it where the workflow ran. It pins some frames of each dataset, hits and blanks, runs them through the workflow in a folder of their
own and writes config/lock.yaml. `sfxflow check-lock` runs the same frames again later and says what moved.
"""

import json
from dataclasses import asdict
from pathlib import Path

from sfxflow.cli.pinned_run import add_run, cells_of, inputs_of, pinned_results, versions
from sfxflow.drift import movements, pinned_frames, rates
from sfxflow.errors import InputError
from sfxflow.io.config import read_config, read_runs
from sfxflow.io.files import provenance
from sfxflow.io.frame_account import read_frame_account
from sfxflow.io.lock import write_lock
from sfxflow.settings import settings_from


def add_arguments(parser):
    """Arguments of `sfxflow lock`."""
    add_run(parser)
    parser.add_argument("--settings", default="", metavar="JSON", help="settings in place of the config's section lock")
    parser.add_argument("--output", default="config/lock.yaml", metavar="FILE", help="the lock to write")


def run(args):
    """Pin, run, write."""
    config = read_config(args.config)
    settings = lock_settings(config, args.settings, args.config)
    runs = read_runs(config["runs"])
    pinned, in_results = _pinned(config, runs, settings)
    for dataset, of_engine in in_results.items():
        for engine, seen in of_engine.items():
            if not seen["hits"]:
                raise InputError(
                    f"dataset {dataset}: none of its frames is a hit with engine {engine}: there is nothing to guard; "
                    "look into the report first"
                )
    inputs = inputs_of(config, runs, cells_of(config))
    seen = pinned_results(args, config, runs, pinned)
    write_lock(
        args.output,
        {
            "provenance": provenance(asdict(settings), [args.config, config["runs"]]),
            "versions": versions(config),
            "parameters": config,
            "inputs": inputs,
            "pinned": pinned,
            "seen": seen,
        },
    )
    for dataset, engines in seen.items():
        for engine, figures in engines.items():
            print(f"{dataset}, {engine}: {described(figures)}")
    for movement in movements(with_mergers(in_results), seen, asdict(settings)):
        if movement.too_far and movement.what != "cc_half":
            print(
                f"WARNING: the results that are there were made with other programs or settings than those of now: {movement.text}"
            )
    print(f"{args.output}: {sum(len(f) for of_run in pinned.values() for f in of_run.values())} frames are pinned")


def lock_settings(config, text, where):
    """Settings of the section lock, some of them replaced by those of `--settings`."""
    try:
        more = json.loads(text) if text else {}
    except json.JSONDecodeError as error:
        raise InputError(f"--settings: not JSON: {error}") from None
    return settings_from("lock", config["lock"] | more, where)


def described(figures):
    """Rates and figures of an engine in a line."""

    def shown(value):
        return "not defined" if value is None else f"{value:.4f}"

    merged = [f"{merger} CC1/2 {shown(values['cc_half'])}" for merger, values in figures["mergers"].items()]
    return ", ".join(
        [
            f"{figures['frames']} frames",
            f"hit rate {shown(figures['hit_rate'])}",
            f"index rate {shown(figures['index_rate'])}",
            *merged,
        ]
    )


def with_mergers(seen):
    """Rates without anything merged, as `sfxflow.drift.movements` takes them."""
    return {
        dataset: {engine: figures | {"mergers": {}} for engine, figures in engines.items()}
        for dataset, engines in seen.items()
    }


def _pinned(config, runs, settings):
    """Pinned frames of each dataset, and the rates of these frames in the results that are there."""
    pinned, seen = {}, {}
    for dataset in dict.fromkeys(row["dataset"] for row in runs):
        names = [row["run"] for row in runs if row["dataset"] == dataset]
        accounts = {engine: _accounts(engine, names) for engine in config["engines"]}
        first = accounts[config["engines"][0]]
        chosen = pinned_frames([row["status"] for row in first], settings.frames, settings.hit_share)
        rows = [first[number] for number in chosen]
        pinned[dataset] = {
            name: [f"{Path(row['file']).absolute()} {row['event']}".rstrip() for row in rows if row["run"] == name]
            for name in names
        }
        pinned[dataset] = {name: lines for name, lines in pinned[dataset].items() if lines}
        wanted = {(row["run"], row["frame"]) for row in rows}
        seen[dataset] = {
            engine: rates([row["status"] for row in account if (row["run"], row["frame"]) in wanted])
            for engine, account in accounts.items()
        }
    return pinned, seen


def _accounts(engine, runs):
    """Every frame of some runs as a dict."""
    rows = []
    for name in runs:
        path = Path("results") / engine / "runs" / name / "frames.tsv"
        if not path.exists():
            raise InputError(
                f"{path} is not there: the lock takes its frames from results; run the workflow first, in this directory"
            )
        columns = read_frame_account(path)[0]
        rows += [
            {"run": name, "frame": frame, "file": file, "event": event, "status": status}
            for frame, file, event, status in zip(
                *(columns[key] for key in ("frame", "file", "event", "status")), strict=True
            )
        ]
    return rows
