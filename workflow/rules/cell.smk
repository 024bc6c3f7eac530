"""
The unit cell of datasets for which the config names none: `snakemake cell` stops there. Whoever knows better writes another file of the
same name, or names a file of their own in the config.

Needs    results/{engine}/runs/{run}/{chunk}.peaks.h5 of the dataset's first chunks, and their geometries
Provides results/{engine}/cell/{dataset}/found.cell
         results/{engine}/cell/{dataset}/clusters.json
"""


rule find_cell:
    """Find the unit cell of a dataset from the peaks of its first hits."""
    input:
        peaks=collect("results/{{engine}}/runs/{chunk}.peaks.h5", chunk=first_chunks_of_dataset),
        geometry=geometries_of_first_chunks,
    output:
        cell="results/{engine}/cell/{dataset}/found.cell",
        clusters="results/{engine}/cell/{dataset}/clusters.json",
    log:
        "logs/{engine}/cell/{dataset}/found.log",
    benchmark:
        "benchmarks/{engine}/cell/{dataset}/found.tsv"
    container:
        CONTAINER
    threads: 4
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        space_group=space_group_of_dataset,
        settings=settings("cell"),
        version=SFXFLOW,
    message:
        "Finding the unit cell of {wildcards.dataset} ({wildcards.engine})"
    shell:
        """
        sfxflow cell \
            --peaks {input.peaks:q} \
            --geometry {input.geometry:q} \
            --space-group {params.space_group:q} \
            --settings {params.settings:q} \
            --threads {threads} \
            --clusters {output.clusters:q} \
            --output {output.cell:q} >{log:q} 2>&1
        """


rule cell:
    """The unit cells of all datasets for which the config names none."""
    input:
        collect("results/{engine}/cell/{dataset}/found.cell", engine=config["engines"], dataset=without_cell()),
