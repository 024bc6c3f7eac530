"""
The mergers of CrystFEL, over the stream of any engine.

Needs    results/{engine}/streams/{dataset}.stream
         results/{engine}/runs/{run}/{chunk}.integrated.h5 of every run of the dataset
         results/{engine}/ambiguity/{dataset}/assignment.h5
Provides results/{engine}/merged/{partialator,process_hkl}/{dataset}/merged.h5
"""


rule partialator:
    """Merge a dataset's stream with partialator."""
    input:
        stream="results/{engine}/streams/{dataset}.stream",
        integrated=collect("results/{{engine}}/runs/{chunk}.integrated.h5", chunk=chunks_of_dataset),
        cell=cell_of_dataset,
        assignment="results/{engine}/ambiguity/{dataset}/assignment.h5",
    output:
        "results/{engine}/merged/partialator/{dataset}/merged.h5",
    log:
        messages="logs/{engine}/merged/partialator/{dataset}/merged.log",
        program="logs/{engine}/merged/partialator/{dataset}/partialator.log",
    benchmark:
        "benchmarks/{engine}/merged/partialator/{dataset}/merged.tsv"
    container:
        CRYSTFEL_CONTAINER
    threads: 4
    resources:
        mem_mb=16000,
        runtime=720,
    params:
        integrated=integrated_of_dataset,
        space_group=space_group_of_dataset,
        d_min=d_min_of_dataset,
        settings=some_settings(
            {
                "partialator": None,
                "integration": ["polarisation_fraction", "polarisation_angle"],
                "merging": ["anomalous"],
            }
        ),
        crystfel=PARTIALATOR,
        version=SFXFLOW,
    message:
        "partialator merges {wildcards.dataset} ({wildcards.engine})"
    shell:
        """
        sfxflow partialator \
            --stream {input.stream:q} \
            --integrated {params.integrated:q} \
            --dataset {wildcards.dataset:q} \
            --cell {input.cell:q} \
            --space-group {params.space_group:q} \
            --d-min {params.d_min} \
            --assignment {input.assignment:q} \
            --settings {params.settings:q} \
            --threads {threads} \
            --time-limit {resources.runtime} \
            --program-log {log.program:q} \
            --output {output:q} >{log.messages:q} 2>&1
        """


rule process_hkl:
    """Merge a dataset's stream with process_hkl."""
    input:
        stream="results/{engine}/streams/{dataset}.stream",
        integrated=collect("results/{{engine}}/runs/{chunk}.integrated.h5", chunk=chunks_of_dataset),
        cell=cell_of_dataset,
        assignment="results/{engine}/ambiguity/{dataset}/assignment.h5",
    output:
        "results/{engine}/merged/process_hkl/{dataset}/merged.h5",
    log:
        messages="logs/{engine}/merged/process_hkl/{dataset}/merged.log",
        program="logs/{engine}/merged/process_hkl/{dataset}/process_hkl.log",
    benchmark:
        "benchmarks/{engine}/merged/process_hkl/{dataset}/merged.tsv"
    container:
        CRYSTFEL_CONTAINER
    threads: 1
    resources:
        mem_mb=16000,
        runtime=240,
    params:
        integrated=integrated_of_dataset,
        space_group=space_group_of_dataset,
        d_min=d_min_of_dataset,
        settings=some_settings(
            {
                "process_hkl": None,
                "integration": ["polarisation_fraction", "polarisation_angle"],
                "merging": ["anomalous"],
            }
        ),
        crystfel=PROCESS_HKL,
        version=SFXFLOW,
    message:
        "process_hkl merges {wildcards.dataset} ({wildcards.engine})"
    shell:
        """
        sfxflow process_hkl \
            --stream {input.stream:q} \
            --integrated {params.integrated:q} \
            --dataset {wildcards.dataset:q} \
            --cell {input.cell:q} \
            --space-group {params.space_group:q} \
            --d-min {params.d_min} \
            --assignment {input.assignment:q} \
            --settings {params.settings:q} \
            --threads {threads} \
            --time-limit {resources.runtime} \
            --program-log {log.program:q} \
            --output {output:q} >{log.messages:q} 2>&1
        """
