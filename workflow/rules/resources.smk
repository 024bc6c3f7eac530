"""
What the jobs ask of a cluster. A rule states memory (mem_mb) and time (runtime, in minutes) of a first attempt, a profile the disk
(disk_mb); here, for the rules of all files, they are doubled with each further attempt, and the names are added that HTCondor's plug-in
passes on: it knows no mem_mb.

Needs    every other rule file, included before
Provides resources of their rules; docs/clusters.md tells how they were measured
"""

import inspect


def doubled_each_attempt(first):
    """The amount of a first attempt, as it grows."""

    def amount(wildcards, attempt):
        return first * 2 ** (attempt - 1)

    # Snakemake asks for the parameters with every job: a millisecond each where they are not written down.
    amount.__signature__ = AMOUNT_OF_ATTEMPT
    return amount


def as_asked(resource):
    """What another resource of the same job comes to, as an expression of the rule or of --set-resources has it."""

    def amount(wildcards, input, attempt, threads, rulename, async_run):
        asked = {"input": input, "attempt": attempt, "threads": threads, "rulename": rulename, "async_run": async_run}
        return resource.evaluate(wildcards, **asked).value

    amount.__signature__ = inspect.signature(amount)
    return amount


def write_down_signatures():
    """The same for the functions that say what belongs to what: a fifth of the time that a plan of thousands of jobs takes."""
    of_wildcards = inspect.signature(lambda wildcards: None)
    for function in list(globals().values()):
        if inspect.isfunction(function) and list(inspect.signature(function).parameters) == ["wildcards"]:
            function.__signature__ = of_wildcards


AMOUNT_OF_ATTEMPT = inspect.signature(lambda wildcards, attempt: None)
NAMES_OF_HTCONDOR = {"mem_mb": "htcondor_request_mem_mb", "disk_mb": "htcondor_request_disk_mb"}

for stage in workflow.rules:
    asked = stage.resources
    for name, of_htcondor in NAMES_OF_HTCONDOR.items():
        if name in asked and of_htcondor not in asked:
            asked[of_htcondor] = as_asked(asked[name]) if asked[name].is_evaluable() else asked[name].value
    for name in ("mem_mb", "disk_mb", "runtime", "htcondor_request_mem_mb", "htcondor_request_disk_mb"):
        # An expression says itself what an attempt changes.
        if name in asked and not asked[name].is_evaluable():
            asked[name] = doubled_each_attempt(asked[name].value)

write_down_signatures()
