"""
The way to index of each crystal, where cell and space group admit several; a file that says so where they do not.

Needs    results/{engine}/runs/{run}/{chunk}.integrated.h5 of every run of the dataset
Provides results/{engine}/ambiguity/{dataset}/assignment.h5
"""


rule ambiguity:
    """Find the way to index of each crystal of a dataset by comparing their intensities."""
    input:
        integrated=collect("results/{{engine}}/runs/{chunk}.integrated.h5", chunk=chunks_of_dataset),
        cell=cell_of_dataset,
        reference=reference_of_ambiguity,
    output:
        "results/{engine}/ambiguity/{dataset}/assignment.h5",
    log:
        "logs/{engine}/ambiguity/{dataset}/assignment.log",
    benchmark:
        "benchmarks/{engine}/ambiguity/{dataset}/assignment.tsv"
    container:
        CRYSTFEL_CONTAINER if config["ambiguity"]["program"] == "ambigator" else CONTAINER
    threads: 4
    resources:
        mem_mb=8000,
        runtime=60,
    params:
        integrated=integrated_of_dataset,
        space_group=space_group_of_dataset,
        settings=settings("ambiguity"),
        version=SFXFLOW,
    message:
        "Resolving the indexing ambiguity of {wildcards.dataset} ({wildcards.engine})"
    shell:
        """
        sfxflow ambiguity \
            --integrated {params.integrated:q} \
            --cell {input.cell:q} \
            --space-group {params.space_group:q} \
            --reference {input.reference:q} \
            --settings {params.settings:q} \
            --threads {threads} \
            --output {output:q} >{log:q} 2>&1
        """
