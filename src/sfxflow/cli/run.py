"""Run the workflow on the first of several clusters that takes it, and go on where an interrupted run stopped.

  sfxflow run --profiles htcondor,slurm,local [targets and options of Snakemake]

Each profile is tried in order with one call of `snakemake --profile NAME`, in this folder and with the same results, so nothing that is
done is computed again. The next one is tried when a cluster does not answer, refuses jobs, holds all of them, lets them wait too long, or
ends them before they have done their work. A job that failed by itself, with a message of its own, would fail anywhere: that is the end.
logs/attempts.tsv says what was tried and how far it came.

What an interrupted run has left, killed or cut off by a restart of this machine, is cleaned up first: jobs that still run are removed,
since Snakemake would compute their results again, and Snakemake's lock is taken away when nobody works here any more.
"""

import argparse
import os
import platform
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import sfxflow
from sfxflow.clusters.attempt import LOOK_EVERY, Attempt
from sfxflow.clusters.queues import CLUSTERS, Unreachable, cluster_of, has_plugin, missing_program, removed
from sfxflow.clusters.verdict import own_fault
from sfxflow.clusters.watch import Limits
from sfxflow.clusters.words import explained, in_short, short
from sfxflow.errors import InputError
from sfxflow.io.attempts import PATH as ATTEMPTS
from sfxflow.io.attempts import add_attempt
from sfxflow.io.profiles import read_profile
from sfxflow.io.run_lock import (
    MARK,
    identity,
    processes_left,
    remove_lock,
    snakemake_locks,
    take_over,
    write_lock,
)
from sfxflow.io.snakemake_log import failed_jobs, refusals, steps

_LOGS = Path(".snakemake/log")

FINISHED, CLUSTER, FAILED, INTERRUPTED = "finished", "cluster", "failed", "interrupted"
#: As of a shell whose command was ended by Ctrl-C.
_INTERRUPTED_STATUS = 130


def add_arguments(parser):
    """Arguments of `sfxflow run`; what it does not know is Snakemake's."""
    parser.usage = "sfxflow run [--profiles NAME,...] [limits] [targets and options of Snakemake]"
    parser.allow_abbrev = False
    # Said here so that the caller hands the rest over.
    parser.set_defaults(rest=[])
    parser.add_argument("--profiles", default="local", metavar="NAME,...", help="profiles in the order of trial")
    limit = parser.add_argument_group("a cluster that is not the last is given up when, in minutes")
    limit.add_argument(
        "--queue-limit", type=_minutes, default=120.0, metavar="MIN", help="jobs have waited, and none ran"
    )
    limit.add_argument("--held-limit", type=_minutes, default=15.0, metavar="MIN", help="all jobs have been held")
    limit.add_argument(
        "--unreachable-limit", type=_minutes, default=10.0, metavar="MIN", help="the queue has not answered"
    )
    parser.add_argument(
        "--look-every", type=float, default=LOOK_EVERY, metavar="S", help="seconds between two looks at the queue"
    )
    parser.add_argument(
        "--grace", type=float, default=60.0, metavar="S", help="seconds that Snakemake gets to end before it is killed"
    )
    parser.add_argument(
        "--take-over",
        action="store_true",
        help="the run that another machine has started here is over: that machine is gone",
    )


def _minutes(text):
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text}: a number of minutes, more than 0, is expected")
    return value


def run(args):
    """Try one profile after the other; exit status 0 when all is computed."""
    given = {word.split("=")[0] for word in args.rest}
    for option, remedy in (
        ("--profile", "--profiles NAME,... names them"),
        ("--unlock", "`sfxflow run` does this itself; by hand: snakemake --unlock"),
        ("--nolock", "without its lock nobody sees that somebody works here"),
        *((option, "start Snakemake in that folder") for option in ("--directory", "-d")),
    ):
        if option in given:
            raise InputError(f"{option}: not with `sfxflow run`: {remedy}")
    names = [name for name in args.profiles.split(",") if name]
    if not names:
        raise InputError("--profiles: a name or several with commas between them are expected")
    profiles = [read_profile(name) for name in names]
    if {"-n", "--dry-run", "--dryrun"} & given:
        argv = _call(profiles[0], args.rest)
        os.execv(argv[0], argv)
    folder = str(Path.cwd())
    left = take_over(args.take_over)
    unreached, clean = [], left is None
    try:
        if left is not None:
            unreached = [CLUSTERS[name] for name in left.get("executors", ()) if name in CLUSTERS]
            _clean_up(folder, unreached, args.take_over)
            clean = True
        return _try_in_turn(profiles, folder, args, unreached)
    except KeyboardInterrupt:
        return _INTERRUPTED_STATUS
    finally:
        # What could not be removed is looked for by the next run.
        if clean and not unreached:
            remove_lock()


def _say(text):
    print(f"sfxflow run: {text}", file=sys.stderr, flush=True)


def _call(profile, rest):
    """The call of Snakemake, with the Snakefile of the checkout where the folder has none."""
    argv = [sys.executable, "-m", "snakemake", "--profile", str(profile.path)]
    named = any(word in ("-s", "--snakefile") or word.startswith("--snakefile=") for word in rest)
    if not named and not any(Path(place).exists() for place in ("Snakefile", "workflow/Snakefile")):
        snakefile = Path(sfxflow.__file__).resolve().parents[2] / "Snakefile"
        if not snakefile.exists():
            raise InputError(f"{Path.cwd()}: no Snakefile here; name that of the repository: --snakefile")
        argv += ["--snakefile", str(snakefile)]
    return [*argv, *rest]


# ---- what was left behind


def _clean_up(folder, unreached, take_over):
    """Take away the jobs, processes and locks of a run that was interrupted; clusters where this is done leave `unreached`."""
    _say("the last run here was interrupted; what it has left is looked for")
    for cluster in CLUSTERS.values():
        if missing_program(cluster) and cluster not in unreached:
            continue
        try:
            _remove_jobs(cluster, folder)
        except Unreachable as error:
            if cluster in unreached and not take_over:
                raise InputError(
                    f"jobs of the interrupted run may still work on {cluster.name}, which does not answer ({in_short(str(error))}): "
                    "start again when it does; --take-over says that they have ended"
                ) from None
        if cluster in unreached:
            unreached.remove(cluster)
    _end_processes(folder)
    _unlock()


def _remove_jobs(cluster, folder):
    if there := cluster.jobs(folder):
        _say(
            f"{len(there)} jobs of this folder are removed from {cluster.name}; this ends when their processes have, or their lease is over"
        )
    found, still = removed(cluster, folder)
    if still:
        numbers = " ".join(job.number for job in still[:10])
        force = {"htcondor": "condor_rm -forcex", "slurm": "scancel --signal=KILL"}[cluster.name]
        raise InputError(
            f"{len(still)} jobs of this folder can't be ended on {cluster.name}: {numbers}; two jobs must not write one result: "
            f"when their machines are gone, {force} takes them out of the queue"
        )
    if found:
        _say(f"{len(found)} jobs that were left on {cluster.name} have been removed")


def _end_processes(folder, patience=10.0):
    """End what a killed Snakemake has left on this machine."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        left = processes_left(folder)
        for pid in left:
            try:
                os.kill(pid, number)
            except (ProcessLookupError, PermissionError):
                pass
        if left:
            _say(f"{len(left)} processes that were left on this machine are ended")
        give_up = time.monotonic() + patience
        while processes_left(folder) and time.monotonic() < give_up:
            time.sleep(0.1)
    if left := processes_left(folder):
        raise InputError(f"processes of the interrupted run can't be ended: {', '.join(map(str, left))}")


def _unlock():
    """Take Snakemake's lock away; only after `take_over` has seen that nobody works here."""
    locks = snakemake_locks()
    for path in locks:
        path.unlink(missing_ok=True)
    if locks:
        _say("Snakemake's lock of the interrupted run has been taken away")


# ---- one profile after the other


def _try_in_turn(profiles, folder, args, unreached):
    for number, profile in enumerate(profiles, 1):
        last = number == len(profiles)
        outcome, reason = _try(profile, folder, args, last, unreached)
        if outcome == FINISHED:
            return 0
        if outcome == INTERRUPTED:
            _say("interrupted; the same command goes on from here")
            return _INTERRUPTED_STATUS
        if outcome == FAILED:
            if not last:
                _say(f"no other profile is tried: {reason}")
            return 1
        following = f"; next: {profiles[number].name}" if not last else ""
        _say(f"{profile.name} could not finish: {reason}{following}")
    _say(f"none of {', '.join(profile.name for profile in profiles)} could finish; {ATTEMPTS} says what was tried")
    return 1


def _try(profile, folder, args, last, unreached):
    """One attempt; returns its outcome and the reason, which are recorded."""
    started = _now()
    cluster = cluster_of(profile.executor)
    outcome, reason, log, done, total = CLUSTER, _obstacle(profile, cluster), "", 0, 0
    stuck = None
    if not reason:
        _say(f"profile {profile.name} ({profile.executor})")
        before, begun = set(_LOGS.glob("*.log")), time.time()
        status, given_up, interrupted = _call_snakemake(profile, cluster, folder, args, last, unreached)
        logs = sorted(set(_LOGS.glob("*.log")) - before)
        log = str(logs[-1]) if logs else ""
        text = logs[-1].read_text(encoding="utf-8", errors="replace") if logs else ""
        done, total = steps(text)
        outcome, reason = _judge(status, given_up, interrupted, text, begun, profile, cluster)
        if cluster:
            # What was given up, or is held, would start once more when the cluster comes back.
            try:
                _remove_jobs(cluster, folder)
                unreached[:] = [other for other in unreached if other is not cluster]
            except Unreachable as error:
                reason += f"; its jobs could not be removed ({in_short(str(error))})"
            except InputError as error:
                stuck = error
                reason += f"; {error}"
        if status < 0 or given_up or interrupted:
            _end_processes(folder)
            _unlock()
    row = {"started": started, "ended": _now(), "host": platform.node(), "profile": profile.name}
    row |= {"executor": profile.executor, "outcome": outcome, "steps_done": done, "steps": total, "log": log}
    add_attempt(row | {"reason": reason})
    if stuck:
        raise stuck
    return outcome, reason


def _now():
    return datetime.now(UTC).isoformat(timespec="seconds")


def _obstacle(profile, cluster):
    """Why a profile can't even be tried; empty when it can."""
    if not has_plugin(profile.executor):
        return (
            f"Snakemake's plug-in for {profile.executor} is not installed: "
            f"python -m pip install snakemake-executor-plugin-{profile.executor}"
        )
    if cluster is None:
        return ""
    if program := missing_program(cluster):
        return f"the program {program} is not on the search path: this machine does not submit to {cluster.name}"
    try:
        cluster.ask()
    except Unreachable as error:
        found = explained(str(error))
        return f"{found.what} ({found.said}); {found.remedy}" if found else short(str(error))
    return ""


def _call_snakemake(profile, cluster, folder, args, last, unreached):
    """Run Snakemake; returns its exit status, why it was given up, whether it was interrupted."""
    limits = Limits(60 * args.queue_limit, 60 * args.held_limit, 60 * args.unreachable_limit)
    attempt = Attempt(_call(profile, args.rest), os.environ | {MARK: folder})
    old = {number: signal.signal(number, attempt.interrupt) for number in _SIGNALS}
    if cluster and cluster not in unreached:
        unreached.append(cluster)
    others = [other for other in unreached if other is not cluster]
    try:
        write_lock(identity(attempt.process.pid), [other.name for other in unreached])
        limits = None if last else limits
        status = attempt.wait(cluster, folder, limits, _say, args.grace, args.look_every, others)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
    unreached[:] = [other for other in unreached if other is cluster or other in others]
    return status, attempt.given_up, attempt.interrupted.is_set()


_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def _judge(status, given_up, interrupted, text, begun, profile, cluster):
    """Outcome of an attempt and its reason."""
    if status == 0:
        return FINISHED, ""
    if interrupted:
        return INTERRUPTED, "by a signal"
    if given_up:
        return CLUSTER, given_up
    if status < 0:
        return INTERRUPTED, f"Snakemake was ended by signal {-status}"
    failed = [job for job in failed_jobs(text) if not all(Path(name).exists() for name in job.outputs)]
    causes = [own_fault(job.message, _printed(job, begun)) for job in failed]
    own = {job.rule: cause for job, cause in zip(failed, causes, strict=True) if cause}
    others = [job for job, cause in zip(failed, causes, strict=True) if not cause]
    cause = next((f"{rule} failed by itself, as it would anywhere: {cause}" for rule, cause in own.items()), "")
    if cause and not others:
        return FAILED, cause
    if cluster is None:
        return (
            FAILED,
            f"{len(others)} jobs failed on this machine" if others else f"Snakemake ended with status {status}",
        )
    if others:
        message = next(
            (job.message for job in others if job.message), f"{others[0].rule} ended without a message of its own"
        )
        return CLUSTER, f"{len(others)} jobs failed through no fault of theirs: {short(message, 300)}" + (
            cause and f"; {cause}"
        )
    if refused := refusals(text):
        found = explained(refused[-1])
        return CLUSTER, f"{found.what} ({short(found.said, 200)})" if found else short(refused[-1], 300)
    if obstacle := _obstacle(profile, cluster):
        return CLUSTER, obstacle
    return FAILED, f"Snakemake ended with status {status} before a job failed: see above"


def _printed(job, begun):
    """What the command of a job printed since the attempt began; None where its log was not written."""
    texts = [
        Path(name).read_text(encoding="utf-8", errors="replace")
        for name in job.logs
        # Clocks of other machines are off by some seconds.
        if Path(name).exists() and Path(name).stat().st_mtime > begun - 5
    ]
    return "\n".join(texts) if texts else None
