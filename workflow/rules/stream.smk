"""
Streams for CrystFEL's programs, on request: `snakemake ... results/builtin/streams/DATASET.stream`.

Needs    results/{engine}/runs/{run}/{chunk}.integrated.h5 and {chunk}.peaks.h5 of every run of the dataset
         results/{engine}/ambiguity/{dataset}/assignment.h5
Provides results/{engine}/streams/{dataset}.stream
"""


rule stream:
    """Write a dataset's frames, peaks, crystals and reflections as a CrystFEL stream."""
    input:
        integrated=collect("results/{{engine}}/runs/{chunk}.integrated.h5", chunk=chunks_of_dataset),
        peaks=collect("results/{{engine}}/runs/{chunk}.peaks.h5", chunk=chunks_of_dataset),
        geometries=geometries_of_dataset,
        cell=cell_of_dataset,
        assignment="results/{engine}/ambiguity/{dataset}/assignment.h5",
    output:
        "results/{engine}/streams/{dataset}.stream",
    log:
        "logs/{engine}/streams/{dataset}.log",
    benchmark:
        "benchmarks/{engine}/streams/{dataset}.tsv"
    container:
        CONTAINER
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        integrated=integrated_of_dataset,
        peaks=peaks_of_dataset,
        space_group=space_group_of_dataset,
        version=SFXFLOW,
    message:
        "Writing the stream of {wildcards.dataset} ({wildcards.engine})"
    shell:
        """
        sfxflow stream \
            --integrated {params.integrated:q} \
            --peaks {params.peaks:q} \
            --geometry {input.geometries:q} \
            --cell {input.cell:q} \
            --space-group {params.space_group:q} \
            --assignment {input.assignment:q} \
            --output {output:q} >{log:q} 2>&1
        """
