"""
What the jobs ask of a cluster. A rule states memory (mem_mb) and time (runtime, in minutes) of a first attempt, a profile the disk
(disk_mb); here, for the rules of all files, they are doubled with each further attempt, and the names are added that HTCondor's plug-in
passes on: it knows no mem_mb.

Needs    every other rule file, included before
Provides resources of their rules; docs/clusters.md tells how they were measured
"""

import gc
import inspect

from snakemake.common import overwrite_function_params
from snakemake.resources import Resource


def with_parameters_at_hand(function):
    """The same function: Snakemake asks for the parameters several times a job, and finding them out takes a fifth of a large plan."""
    overwrite_function_params(function, inspect.signature(function).parameters)
    return function


def doubled_each_attempt(first):
    """The amount of a first attempt, as it grows."""

    def amount(wildcards, attempt):
        return first * 2 ** (attempt - 1)

    return with_parameters_at_hand(amount)


def as_asked(resource):
    """What another resource of the same job comes to, as an expression of the rule or of --set-resources has it."""

    def amount(wildcards, input, attempt, threads, rulename, async_run):
        asked = {"input": input, "attempt": attempt, "threads": threads, "rulename": rulename, "async_run": async_run}
        return resource.evaluate(wildcards, **asked).value

    return with_parameters_at_hand(amount)


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

# Where several chunks are one job of a cluster, their stages run one after the other in it, as its request has it (profiles).
if workflow.remote_exec:
    workflow.register_resource("in_turn", 1)

with_parameters_at_hand(Resource.evaluate)
for function in list(globals().values()):
    if inspect.isfunction(function) and list(inspect.signature(function).parameters) == ["wildcards"]:
        with_parameters_at_hand(function)

# Jobs stay until the end: looking for rubbish among tens of thousands of them each time 700 objects more exist takes a twentieth of a plan.
gc.set_threshold(50_000)
