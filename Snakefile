"""
From frames to merged intensities and the evidence of how good they are: peaks, indexing, integration, merging,
figures of merit, files for other programs, report. Each engine's results stand in results/{engine}.
"""

from snakemake.utils import min_version

min_version("9.25")


configfile: "config/config.yaml"


include: "workflow/rules/config.smk"
include: "workflow/rules/runs.smk"
include: "workflow/rules/common.smk"
include: "workflow/rules/containers.smk"
include: "workflow/rules/groups.smk"
include: "workflow/rules/example.smk"
include: "workflow/rules/engines/builtin.smk"
include: "workflow/rules/engines/crystfel.smk"
include: "workflow/rules/engines/dials.smk"
include: "workflow/rules/cell.smk"
include: "workflow/rules/geometry.smk"
include: "workflow/rules/frames.smk"
include: "workflow/rules/split.smk"
include: "workflow/rules/ambiguity.smk"
include: "workflow/rules/merging.smk"
include: "workflow/rules/mergers/crystfel.smk"
include: "workflow/rules/mergers/dials.smk"
include: "workflow/rules/figures_of_merit.smk"
include: "workflow/rules/export.smk"
include: "workflow/rules/stream.smk"
include: "workflow/rules/comparison.smk"
include: "workflow/rules/report.smk"
# Last: they go over the rules of the files before.
include: "workflow/rules/resources.smk"
include: "workflow/rules/transfer.smk"


rule all:
    default_target: True
    input:
        "results/report/index.html",
        collect(
            "results/{engine}/merged/{merger}/{dataset}/{file}",
            engine=config["engines"],
            merger=config["mergers"],
            dataset=DATASETS,
            file=["merged.mtz", "figures_of_merit.json"],
        ),
        compared("results/comparison.tsv"),
        split_files(groups=["merged.mtz"], differences=["difference.mtz"]),
