"""
What the jobs ask of a cluster. A rule states memory (mem_mb) and time (runtime, in minutes) of a first attempt; here, for the rules of
all files, both are doubled with each further attempt, and the names are added that HTCondor's plug-in passes on: it knows no mem_mb.

Needs    every other rule file, included before
Provides resources of their rules; docs/clusters.md tells how they were measured
"""


def doubled_each_attempt(first):
    return lambda wildcards, attempt: first * 2 ** (attempt - 1)


def as_asked(resource):
    """What another resource of the same job comes to."""

    def amount(wildcards, input, attempt, threads, rulename, async_run):
        asked = {"input": input, "attempt": attempt, "threads": threads, "rulename": rulename, "async_run": async_run}
        return resource.evaluate(wildcards, **asked).value

    return amount


for stage in workflow.rules:
    for name in ("mem_mb", "runtime"):
        # An expression, of a rule or of --set-resources, says itself what an attempt changes.
        if name in stage.resources and not stage.resources[name].is_evaluable():
            stage.resources[name] = doubled_each_attempt(stage.resources[name].value)
    for name, of_htcondor in (("mem_mb", "htcondor_request_mem_mb"), ("disk_mb", "htcondor_request_disk_mb")):
        if name in stage.resources and of_htcondor not in stage.resources:
            stage.resources[of_htcondor] = as_asked(stage.resources[name])
