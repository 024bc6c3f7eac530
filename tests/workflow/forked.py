"""Snakemake in a forked process: its modules are imported once, so that a call takes a third of the time of one of its own."""

import multiprocessing
import os
import sys
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "snakemake.cli",
        "snakemake.dag",
        "snakemake.workflow",
        "snakemake.report.html_reporter",
        "dpath",
        "jsonschema",
        "referencing.jsonschema",
        "requests",
        "smart_open",
        "yte",
        "snakemake_executor_plugin_htcondor",
        "snakemake_executor_plugin_slurm",
    ]
)


def _run(arguments, folder, environment, log):
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    sys.argv = ["snakemake", *arguments]
    from snakemake.cli import main

    main(arguments)


def snakemake(arguments, folder, environment, timeout=120):
    """Exit status and output of a call of Snakemake in `folder`."""
    log = Path(folder) / ".printed"
    process = _CONTEXT.Process(target=_run, args=(arguments, str(folder), dict(environment), str(log)))
    process.start()
    process.join(timeout)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError(f"snakemake {arguments} took longer than {timeout} s")
    return process.exitcode, log.read_text()
