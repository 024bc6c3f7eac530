"""Run the pinned frames of a lock again and fail when hit rate, index rate or CC1/2 moved more than the config tolerates.

Programs, parameters and input files are those of today: what differs from the lock is said, and is no failure by itself. Exit status 0
when nothing moved too far, 1 when something did. Nothing of the analysis is touched.
"""

from dataclasses import asdict
from pathlib import Path

from sfxflow.cli.lock import lock_settings
from sfxflow.cli.pinned_run import add_run, cells_of, inputs_of, pinned_results, versions
from sfxflow.drift import differences, movements
from sfxflow.errors import InputError
from sfxflow.io.config import read_config, read_runs
from sfxflow.io.frame_list import file_and_event
from sfxflow.io.lock import read_lock


def add_arguments(parser):
    """Arguments of `sfxflow check-lock`."""
    parser.add_argument("lock", nargs="?", default="config/lock.yaml", metavar="LOCK", help="the lock")
    add_run(parser)
    parser.add_argument("--settings", default="", metavar="JSON", help="settings in place of the config's section lock")


def run(args):
    """Compare, run, judge; the exit status."""
    lock = read_lock(args.lock)
    config = read_config(args.config)
    settings = lock_settings(config, args.settings, args.config)
    runs = read_runs(config["runs"])
    _require_frames(lock["pinned"], runs, args.lock)
    changed = _changes(lock, config, runs)
    print("\n".join(changed) if changed else "versions, parameters and input files are those of the lock")
    # An engine or merger that is new has nothing to be compared with.
    kept = {key: [n for n in lock["parameters"][key] if n in config[key]] for key in ("engines", "mergers")}
    if not kept["engines"] or not kept["mergers"]:
        raise InputError(
            f"{args.lock}: none of its engines or none of its mergers is in {args.config}: write a new lock"
        )
    now = pinned_results(args, config | kept, runs, lock["pinned"])
    seen = {
        dataset: {
            engine: figures | {"mergers": {m: v for m, v in figures["mergers"].items() if m in kept["mergers"]}}
            for engine, figures in engines.items()
            if engine in kept["engines"]
        }
        for dataset, engines in lock["seen"].items()
    }
    found = movements(seen, now, asdict(settings))
    for movement in found:
        print(f"{'MOVED  ' if movement.too_far else 'as then'}  {movement.text}")
    too_far = [movement for movement in found if movement.too_far]
    if not too_far:
        return 0
    if not changed:
        print(
            "Versions, parameters and files that the lock knows are the same: something else changed under the analysis."
        )
    raise InputError(
        f"{len(too_far)} of {len(found)} figures moved more than tolerated: " + "; ".join(m.text for m in too_far)
    )


def _changes(lock, config, runs):
    """What differs between the lock and today, as lines."""
    lines = [f"version of {line}" for line in differences(lock["versions"], versions(config))]
    old, new = ({key: v for key, v in values.items() if key != "lock"} for values in (lock["parameters"], config))
    lines += [f"parameter {line}" for line in differences(old, new)]
    inputs = inputs_of(config, runs, cells_of(config))
    for name in dict.fromkeys([*lock["inputs"], *inputs]):
        then, now = lock["inputs"].get(name), inputs.get(name)
        if then is None or now is None:
            lines.append(f"input {name}: {'not in the lock' if then is None else 'not used now'}")
        elif then["sha256"] != now["sha256"]:
            lines.append(f"input {name}: another content ({then['size']} bytes in the lock, {now['size']} now)")
    return lines


def _require_frames(pinned, runs, where):
    """The runs and files of the pinned frames have to be there."""
    known = {row["run"] for row in runs}
    for of_run in pinned.values():
        for name, lines in of_run.items():
            if name not in known:
                raise InputError(
                    f"{where}: run {name} is not in the table of the runs any more; write a new lock: sfxflow lock"
                )
            for file in dict.fromkeys(file_and_event(line)[0] for line in lines):
                if not Path(file).exists():
                    raise InputError(f"{where}: {file}, which holds pinned frames of run {name}, is not there")
