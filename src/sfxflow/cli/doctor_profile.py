"""A trial of one profile: a job of a second goes the way of all jobs, and what is wrong is said in words."""

import contextlib
import csv
import getpass
import glob
import json
import os
import platform
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

import sfxflow
from sfxflow.clusters.attempt import interruptible
from sfxflow.clusters.queues import HELD, WAITING, Unreachable, cluster_of, has_plugin, missing_program, removed
from sfxflow.clusters.trial import bound_folders, domains_differ, read_answer, why_it_waits
from sfxflow.clusters.words import Finding, explained, finding, short
from sfxflow.errors import InputError
from sfxflow.io.profiles import read_profile
from sfxflow.io.snakemake_log import failed_jobs, refusals
from sfxflow.io.urls import is_remote
from sfxflow.programs.images import containers_in_use, find_image, folders_of_images

_TRIAL = Path(sfxflow.__file__).parent / "clusters/trial.smk"

#: Seconds that Snakemake gets to remove its job and end.
_GRACE = 20.0


def try_profile(name, limit, apptainer):
    """
    Try a profile and print what was found.

    Parameters
    ----------
    name : str
    limit : float
        Seconds that the job may take, waiting included.
    apptainer : bool
        Try the containers too, even if the profile does not ask for them.

    Returns
    -------
    int
        Exit status.

    Raises
    ------
    InputError
        There is no such profile, or this folder can't be written to.
    """
    profile = read_profile(name)
    print(f"profile {name}: {profile.path}, executor {profile.executor}", flush=True)
    cluster = cluster_of(profile.executor)
    wrong = _before(profile, cluster) or _by_job(profile, cluster, limit, apptainer or _uses_apptainer(profile))
    for found in wrong:
        print(f"  wrong    {found.what}\n           {found.remedy}")
        if found.said and found.said not in found.what:
            print(f"           it said: {found.said}")
    if not wrong:
        print(f"  snakemake --profile {name} works from here")
    return 1 if wrong else 0


def _say(text):
    print(f"  ok       {text}", flush=True)


def _uses_apptainer(profile):
    used = str(profile.content.get("software-deployment-method") or profile.content.get("sdm") or "")
    return "apptainer" in used


# ---- before a job is submitted


def _before(profile, cluster):
    """What can be seen from here to be wrong; findings."""
    package = f"snakemake-executor-plugin-{profile.executor}"
    if not has_plugin(profile.executor):
        return [Finding(f"Snakemake's plug-in {package} is not installed", f"python -m pip install {package}")]
    if cluster is None:
        return []
    if program := missing_program(cluster):
        return [
            Finding(
                f"the program {program} is not on the search path",
                f"start on a machine that submits to {cluster.name}, with its programs on PATH",
            )
        ]
    try:
        cluster.ask()
        _say(f"{cluster.name} answers")
        shares_files = profile.content.get("shared-fs-usage") not in ("none", ["none"], [])
        differ = domains_differ() if cluster.name == "htcondor" and shares_files else None
    except Unreachable as error:
        return [finding(str(error), f"{cluster.name} does not answer")]
    return [differ] if differ else []


# ---- the job


def _by_job(profile, cluster, limit, with_containers):
    """Submit the job from a folder of its own within this one, which is removed again; findings."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=".sfxflow_doctor_", dir=".")).resolve()
    except OSError as error:
        raise InputError(
            f"{Path.cwd()}: a folder can't be made here ({error.strerror}): start where the results are to be written"
        ) from None
    try:
        question = _question(profile, with_containers)
        (folder / "question.json").write_text(json.dumps(question), encoding="utf-8")
        printed, why = _run(profile, cluster, folder, limit)
        if why:
            return [why]
        if (folder / "answer.json").exists():
            answer = json.loads((folder / "answer.json").read_text(encoding="utf-8"))
            _say(
                f"a job ran on {answer['host']} as {answer['user']}, Python {answer['python']}, and read and wrote here"
            )
            return read_answer(question, answer, sfxflow.__version__)
        return [_why_failed(printed, folder)]
    finally:
        if cluster:
            with contextlib.suppress(Unreachable):
                _, left = removed(cluster, str(folder), 30)
                if left:
                    print(f"           job {left[0].number} could not be removed from the queue")
        shutil.rmtree(folder, ignore_errors=True)


def _question(profile, with_containers):
    """What the job has to look for."""
    images = _images() if with_containers else []
    arguments = profile.content.get("apptainer-args") or profile.content.get("singularity-args") or ""
    return {
        "token": secrets.token_hex(8),
        "paths": _inputs(),
        "images": [str(Path(image).absolute()) for image in images],
        "arguments": str(arguments) if with_containers else "",
    }


def _config():
    try:
        config = yaml.safe_load(Path("config/config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return config if isinstance(config, dict) else {}


def _images():
    """Images of the config's engines and mergers: where they are, or else where they would be."""
    wanted = []
    for name in containers_in_use(_config()):
        image, _ = find_image(name, sfxflow.__version__, folders_of_images())
        wanted.append(image or Path("containers") / f"{name}-{sfxflow.__version__}.sif")
    return wanted


def _inputs():
    """The first file of each run's frames, and its geometry, as far as they can be told; absolute paths."""
    table = Path(str(_config().get("runs") or "config/runs.tsv"))
    try:
        lines = [line for line in table.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    except OSError:
        return []
    found = []
    for row in csv.DictReader(lines, delimiter="\t"):
        for column in ("frames", "geometry", "mask"):
            if row.get(column) and not is_remote(row[column]):
                found += sorted(glob.glob(row[column]))[:1] or [row[column]]
    return sorted({str(Path(path).absolute()) for path in found})


def _run(profile, cluster, folder, limit):
    """Run Snakemake on the trial; returns what it printed, and why it was stopped: a Finding, or None where it ended itself."""
    argv = [sys.executable, "-m", "snakemake", "--snakefile", str(_TRIAL), "--profile", str(profile.path)]
    argv += [
        "--workflow-profile",
        "none",
        "--retries",
        "0",
        "--latency-wait",
        "20",
        "--seconds-between-status-checks",
        "2",
    ]
    argv += {
        "htcondor": ["--htcondor-held-timeout", "60"],
        "slurm": ["--slurm-init-seconds-before-status-checks", "1"],
    }.get(profile.executor, [])
    with open(folder / "printed", "w", encoding="utf-8") as printed, interruptible():
        process = subprocess.Popen(
            argv, cwd=folder, stdin=subprocess.DEVNULL, stdout=printed, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            why = _watched(process, cluster, folder, limit)
        finally:
            _end(process)
    return (folder / "printed").read_text(encoding="utf-8", errors="replace"), why


def _watched(process, cluster, folder, limit):
    """Wait for the job; returns why it is hopeless."""
    # The job's time begins when it is in the queue: Snakemake takes its own to submit it.
    give_up, waiting, submitted, told = time.monotonic() + limit + (_GRACE if cluster else 0), None, False, False
    while process.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1.0)
            continue
        if cluster is None:
            if time.monotonic() > give_up:
                return Finding(
                    f"the job did not end within {limit:.0f} s", "is this machine overloaded? --time-limit allows more"
                )
            continue
        late = time.monotonic() > give_up
        try:
            jobs = cluster.jobs(str(folder))
        except Unreachable as error:
            if late:
                return finding(str(error), f"{cluster.name} does not answer any more")
            continue
        if jobs and not submitted:
            submitted, late, give_up = True, False, time.monotonic() + limit
        waiting = next((job for job in jobs if job.state == WAITING), None)
        if held := next((job for job in jobs if job.state == HELD), None):
            found = finding(held.reason, f"the job is held: {short(held.reason)}", "its administrator knows why")
            return Finding(f"the job is held: {found.what.removeprefix('the job is held: ')}", found.remedy, found.said)
        if waiting and cluster.name == "slurm" and explained(waiting.reason):
            return why_it_waits(cluster, waiting)
        if waiting and not told:
            told = True
            print("           the job waits in the queue", flush=True)
        if late and waiting:
            return why_it_waits(cluster, waiting)
        if late and not submitted:
            return Finding(
                f"Snakemake has submitted no job within {limit + _GRACE:.0f} s",
                "is this machine overloaded? --time-limit allows more",
            )
        if late:
            return Finding(
                f"no answer came within {limit:.0f} s, although the job is not waiting",
                "the machine that runs it may not see this folder; --time-limit allows more",
            )
    return None


def _end(process):
    """Have Snakemake remove its job and end; kill it when it does not."""
    for number in (signal.SIGINT, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)


def _why_failed(printed, folder):
    """Why there is no answer although Snakemake has ended."""
    log = folder / "trial.log"
    said = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    errors = [
        path
        for pattern in (".snakemake/htcondor/*/*.err", ".snakemake/slurm_logs/**/*.log")
        for path in folder.glob(pattern)
    ]
    of_job = "\n".join(_without_warnings(path.read_text(encoding="utf-8", errors="replace")) for path in errors)
    messages = [job.message for job in failed_jobs(printed) if job.message]
    for text in (*refusals(printed), said, of_job, *messages, printed[-4000:]):
        if text and (found := explained(text)):
            return Finding(found.what, found.remedy, short(next(iter([*refusals(text), _last(text)]))))
    if of_job and not said:
        return Finding(
            "the job started, but Snakemake did not reach its command there",
            "the machines of the cluster have to see this folder and the Python environment under the same paths",
            short(_last(of_job)),
        )
    return Finding(
        messages[-1] if messages else "Snakemake could not submit or finish the job",
        "what it printed says more; try the profile with `snakemake --profile ... --verbose`",
        short(said or printed),
    )


def _without_warnings(text):
    """HTCondor's bindings warn in every job that the worker has no configuration for submitting, which it does not need."""
    return "\n".join(line for line in text.splitlines() if "CONDOR_CONFIG is unset" not in line)


def _last(text):
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


# ---- on the machine that runs the job


def answer(question_file, answer_file):
    """Look at the machine that this runs on, as a question file asks, and write the answer."""
    try:
        question = json.loads(Path(question_file).read_text(encoding="utf-8"))
        token = question["token"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{question_file}: is not the question of `sfxflow doctor --profile` ({error})") from None
    seen = {
        "token": token,
        "host": platform.node(),
        "user": _user(),
        "version": sfxflow.__version__,
        "python": platform.python_version(),
        "missing": [path for path in question["paths"] if not os.access(path, os.R_OK)],
        "missing_binds": [path for path in bound_folders(question["arguments"]) if not Path(path).exists()],
        "images": [_tried(image, question["arguments"]) for image in question["images"]],
    }
    Path(answer_file).write_text(json.dumps(seen), encoding="utf-8")


def _user():
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A number without a name, as in some containers.
        return str(os.getuid())


def _tried(image, arguments):
    """Start a container and ask it for its version."""
    program = shutil.which("apptainer") or shutil.which("singularity")
    if program is None:
        return {"image": image, "problem": "no apptainer", "said": ""}
    if not Path(image).exists():
        return {"image": image, "problem": "absent", "said": ""}
    try:
        argv = [program, "exec", *shlex.split(arguments), image, "sfxflow", "--version"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=100, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"image": image, "problem": "does not start", "said": str(error)}
    if done.returncode:
        return {"image": image, "problem": "does not start", "said": done.stderr or done.stdout}
    version = (done.stdout.split() or ["?"])[-1]
    return {"image": image, "problem": "" if version == sfxflow.__version__ else "version", "said": version}
