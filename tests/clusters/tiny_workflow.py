"""A workflow of two jobs that tells how often each worked and where, processed through `sfxflow run`."""

import signal
import subprocess
import time

from processes import descendants, send
from work_folder import PATIENCE, ROOT, WorkFolder

SNAKEFILE = """
rule all:
    input: "second"

rule first:
    output: "first"
    log: "logs/first.log"
    resources: mem_mb=1000, htcondor_request_mem_mb=1000
    shell: "(echo start >> first.count; {slowly}; echo done > {{output}}) > {{log}} 2>&1"

rule second:
    input: "first"
    output: "second"
    log: "logs/second.log"
    resources: mem_mb=1000, htcondor_request_mem_mb=1000
    shell: "(echo start >> second.count; cp {{input}} {{output}}) > {{log}} 2>&1"
"""


class Tiny(WorkFolder):
    """
    A folder with the workflow and the profiles.

    Parameters
    ----------
    folder : Path
    slowly : str
        What the first job does besides.
    options
        Of `WorkFolder`; its options become those of every `sfxflow run`.
    """

    def __init__(self, folder, slowly="true", **options):
        super().__init__(folder, **options)
        self.folder.mkdir(exist_ok=True)
        (self.folder / "Snakefile").write_text(SNAKEFILE.format(slowly=slowly))
        for name in ("htcondor", "slurm", "local"):
            self.profile(name, name)

    def profile(self, name, of, changes=(), added=""):
        """Make a profile `name` from sfxflow's own: parts of its text replaced, lines added."""
        text = (ROOT / f"profiles/{of}/profile.yaml").read_text()
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        (self.folder / name).mkdir()
        (self.folder / name / "profile.yaml").write_text(text + added)

    def counts(self):
        """How often each job has started."""
        counts = [self.folder / f"{name}.count" for name in ("first", "second")]
        return [len(path.read_text().split()) if path.exists() else 0 for path in counts]


def start_run(work, *argv):
    """Start `sfxflow run` in a folder; what it prints goes to the file `printed`."""
    argv = ["sfxflow", "run", "--look-every", "1", "--grace", "20", *argv]
    with (work.folder / "printed").open("a") as printed:
        return subprocess.Popen(
            work.wrap([str(argument) for argument in argv]),
            cwd=work.folder,
            env=work.environment,
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def sfxflow_run(work, *argv):
    """Run `sfxflow run`; returns its exit status."""
    return work.finish(start_run(work, *argv))


def kill_all(process):
    """kill -9 of `sfxflow run` and its Snakemake, as when their machine loses its power."""
    send(signal.SIGKILL, [*descendants(process.pid), process.pid])
    process.wait()


def attempts(work):
    """Rows of logs/attempts.tsv."""
    header, *rows = (work.folder / "logs/attempts.tsv").read_text().splitlines()
    return [dict(zip(header.split("\t"), row.split("\t"), strict=True)) for row in rows]


def wait_until(condition, work, patience=PATIENCE / 4):
    """Wait until a function returns something true; returns it."""
    give_up = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < give_up, work.printed()
        time.sleep(0.3)
    return found
