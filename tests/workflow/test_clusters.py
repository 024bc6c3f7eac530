"""What jobs ask of a cluster, without one: tests/clusters has real ones."""

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: A rule that writes down what it asked for, and succeeds at its third attempt.
THREE_ATTEMPTS = f"""
rule counted:
    output: "done"
    resources: mem_mb=100, disk_mb=7, runtime=10
    shell: "echo {{resources.mem_mb}} {{resources.htcondor_request_mem_mb}} {{resources.runtime}} "
           "{{resources.htcondor_request_disk_mb}} >> asked; test $(wc -l < asked) = 3 && touch {{output}}"

rule own_growth:
    output: "own"
    resources: mem_mb=lambda wildcards, attempt: 50 + attempt
    shell: "echo {{resources.mem_mb}} {{resources.htcondor_request_mem_mb}} > {{output}}"

include: "{ROOT}/workflow/rules/resources.smk"
"""


def run_three_attempts(folder, *options):
    """Run the rule above; what its attempts asked for: memory, the same for HTCondor, minutes, disk for HTCondor."""
    (folder / "Snakefile").write_text(THREE_ATTEMPTS)
    argv = [sys.executable, "-m", "snakemake", "--cores", "1", "--retries", "2", *options, "done", "own"]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return [tuple(map(int, line.split())) for line in (folder / "asked").read_text().splitlines()]


def test_memory_time_and_disk_double_with_each_attempt(tmp_path):
    asked = run_three_attempts(tmp_path)
    assert asked == [(100, 100, 10, 7), (200, 200, 20, 14), (400, 400, 40, 28)]
    assert (tmp_path / "own").read_text() == "51 51\n"


def test_what_a_site_sets_counts(tmp_path):
    """A number grows like a rule's own; an expression stays as it is."""
    expressions = [
        "counted:mem_mb=300",
        "counted:runtime=5 if attempt < 3 else 6",
        "counted:htcondor_request_disk_mb=9",
    ]
    asked = run_three_attempts(tmp_path, "--set-resources", *expressions, "--")
    assert asked == [(300, 300, 5, 9), (600, 600, 5, 18), (1200, 1200, 6, 36)]


#: Chunks that are jobs of their own.
EACH = ("--group-components", "chunk=1", "peaks=1")


@pytest.mark.parametrize("profile", ["htcondor", "slurm"])
def test_stages_of_a_chunk_are_one_job(experiment, profile):
    """But for the peaks where the cell is found from them: indexing and integration still are."""
    stages = ["Finding peaks", "Indexing", "Integrating"]
    assert groups(experiment, profile, *EACH) == [stages] * 5
    experiment.config["datasets"]["thaumatin"]["cell"] = None
    together = groups(experiment, profile, *EACH)
    assert sorted(together, key=len) == [stages[:1], stages[1:], *[stages] * 4]


@pytest.mark.parametrize("profile", ["htcondor", "slurm", "htcondor-transfer"])
def test_five_chunks_are_one_job(experiment, profile):
    """With the profile as it stands; peaks from which the cell is found are five a job, too."""
    stages = ["Finding peaks"] * 6 + ["Indexing"] * 6 + ["Integrating"] * 6
    experiment.runs[1]["n_frames"] = 150
    together = groups(experiment, profile)
    assert sorted(map(len, together)) == [3, 15]
    assert sorted(itertools.chain.from_iterable(together)) == stages
    for dataset in experiment.config["datasets"].values():
        dataset["cell"] = None
    together = groups(experiment, profile)
    assert sorted(map(len, together)) == [1, 2, 5, 10]
    assert sorted(itertools.chain.from_iterable(together)) == stages


def groups(experiment, profile, *options):
    """What a dry run would do in one job: sorted beginnings of the messages of each group."""
    name = profile.partition("-")[0]
    pytest.importorskip(f"snakemake_executor_plugin_{name}", reason=f"the {name} plug-in is not installed")
    text = experiment.snakemake("--dry-run", "--profile", str(ROOT / "profiles" / profile), *options, "--")
    blocks = re.findall(r"^\[[^]\n]*\] Group job (?:chunk|peaks).*\n((?:\n|    .*\n)*)", text, re.MULTILINE)
    return [sorted(re.findall(r"Job \d+: (Finding peaks|Indexing|Integrating)", block)) for block in blocks]


#: Notes when it starts and when it ends.
SLOW = """\
#!{python} -SE
import os, sys, time
with open("times", "a") as handle:
    handle.write("+")
time.sleep(0.05)
path = sys.argv[sys.argv.index("--output") + 1]
os.makedirs(os.path.dirname(path), exist_ok=True)
open(path, "w").close()
with open("times", "a") as handle:
    handle.write("-")
"""


@pytest.mark.parametrize("where", ["remote", "default"])
def test_stages_of_a_job_run_one_after_the_other(experiment, where):
    """In the Snakemake of a job, whose request is for one of them, and not in one that runs all by itself."""
    experiment.write()
    program = experiment.folder / "bin/sfxflow"
    program.write_text(SLOW.format(python=sys.executable))
    jobs = [f"builtin_{stage}:run=a,chunk=000{i}" for i in range(3) for stage in ("peaks", "indexing", "integration")]
    status, text = experiment.call("--mode", where, "--force", "--cores", "8", "--target-jobs", *jobs)
    assert status == 0, text
    times = (experiment.folder / "times").read_text()
    assert times.count("+") == 9
    assert ("++" not in times) == (where == "remote")


def test_every_rule_says_what_it_needs():
    """HTCondor is asked for the memory that a rule states: a rule without would be given a few megabytes."""
    rules = [path.read_text() for path in (ROOT / "workflow/rules").rglob("*.smk")]
    blocks = [block for text in rules for block in re.split(r"(?m)^rule ", text)[1:] if "    shell:" in block]
    commands = [block for block in blocks if "localrule: True" not in block]
    assert len(commands) > 10
    silent = [block.split(":")[0] for block in commands if "mem_mb=" not in block or "runtime=" not in block]
    assert silent == []


def test_htcondor_profile_where_htcondor_is_not_installed(tmp_path):
    """Planning needs the plug-in only: no programs, no configuration."""
    pytest.importorskip("snakemake_executor_plugin_htcondor", reason="the htcondor plug-in is not installed")
    environment = {
        name: value for name, value in os.environ.items() if not name.upper().startswith(("CONDOR", "_CONDOR"))
    }
    environment |= {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONWARNINGS": "ignore::UserWarning:htcondor2"}
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--profile", "htcondor", "--dry-run", "--nolock"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
