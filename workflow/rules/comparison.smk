"""
The comparison: one table of what every engine and merger made of the same frames. Where there is more than one, it is a part of
`rule all` and of the report.

Needs    results/{engine}/runs/{run}/frames.tsv
         results/{engine}/merged/{merger}/{dataset}/merged.h5
Provides results/comparison.tsv, results/comparison.json

CPU seconds and memory are read from logs/ and benchmarks/ as they lie there; they are no input, for they change with every run.
"""


rule comparison:
    """Compare engines and mergers, on all reflections and on those in common."""
    input:
        merged=collect(
            "results/{engine}/merged/{merger}/{dataset}/merged.h5",
            engine=config["engines"],
            merger=config["mergers"],
            dataset=DATASETS,
        ),
        frames=collect("results/{engine}/runs/{run}/frames.tsv", engine=config["engines"], run=RUNS),
        references=references(),
    output:
        tsv="results/comparison.tsv",
        json="results/comparison.json",
    log:
        "logs/comparison.log",
    benchmark:
        "benchmarks/comparison.tsv"
    localrule: True
    container:
        CONTAINER
    threads: 1
    resources:
        mem_mb=2000,
        runtime=15,
    params:
        frames=of_every_engine("frames.tsv"),
        datasets=runs_and_references(),
        settings=settings("figures_of_merit"),
        version=SFXFLOW,
    message:
        "Comparing engines and mergers"
    shell:
        """
        sfxflow comparison \
            --merged {input.merged:q} \
            --frames {params.frames:q} \
            --datasets {params.datasets:q} \
            --settings {params.settings:q} \
            --tsv {output.tsv:q} \
            --json {output.json:q} >{log:q} 2>&1
        """
