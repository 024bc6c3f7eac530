"""
The built-in merger: scaling, partiality, outlier rejection, merging and half sets of any engine's reflections.

Needs    results/{engine}/runs/{run}/{chunk}.integrated.h5 of every run of the dataset
         results/{engine}/ambiguity/{dataset}/assignment.h5
         results/splits/{dataset}.tsv where the dataset is split
Provides results/{engine}/merged/builtin/{dataset}/merged.h5
"""


rule builtin_merging:
    """Scale and merge the reflections of every run of a dataset."""
    input:
        integrated=collect("results/{{engine}}/runs/{chunk}.integrated.h5", chunk=chunks_of_dataset),
        cell=cell_of_dataset,
        assignment="results/{engine}/ambiguity/{dataset}/assignment.h5",
        groups=groups_of_dataset,
    output:
        "results/{engine}/merged/builtin/{dataset}/merged.h5",
    log:
        "logs/{engine}/merged/builtin/{dataset}/merged.log",
    benchmark:
        "benchmarks/{engine}/merged/builtin/{dataset}/merged.tsv"
    container:
        CONTAINER
    threads: 8
    resources:
        mem_mb=8000,
        runtime=120,
    params:
        integrated=integrated_of_dataset,
        space_group=space_group_of_dataset,
        d_min=d_min_of_dataset,
        settings=settings("merging"),
        version=SFXFLOW,
    message:
        "Scaling and merging {wildcards.dataset} ({wildcards.engine})"
    shell:
        """
        sfxflow merging \
            --integrated {params.integrated:q} \
            --dataset {wildcards.dataset:q} \
            --cell {input.cell:q} \
            --space-group {params.space_group:q} \
            --d-min {params.d_min} \
            --assignment {input.assignment:q} \
            --groups {input.groups:q} \
            --settings {params.settings:q} \
            --threads {threads} \
            --output {output:q} >{log:q} 2>&1
        """
