"""
A better detector geometry, proposed from the indexed crystals: `snakemake geometry` computes as far as that and says what would change.
Nothing uses a proposal until the column geometry of runs.tsv names it.

Needs    results/builtin/runs/{run}/{chunk}.{peaks,indexed}.h5 of all runs of a dataset that share a geometry; cell and space group
Provides results/builtin/geometry/{dataset}/{geometry}/{proposed.geom,proposal.json,summary.txt}, for each geometry of the dataset
"""


rule builtin_geometry:
    """Refine one geometry of a dataset against its crystals, after a search for the beam centre where that is needed."""
    input:
        peaks=collect("results/builtin/runs/{chunk}.peaks.h5", chunk=chunks_of_geometry),
        indexed=collect("results/builtin/runs/{chunk}.indexed.h5", chunk=chunks_of_geometry),
        geometry=geometry_of_name,
        cell=cell_of_builtin,
    output:
        geometry="results/builtin/geometry/{dataset}/{geometry}/proposed.geom",
        proposal="results/builtin/geometry/{dataset}/{geometry}/proposal.json",
        summary="results/builtin/geometry/{dataset}/{geometry}/summary.txt",
    log:
        "logs/builtin/geometry/{dataset}/{geometry}.log",
    benchmark:
        "benchmarks/builtin/geometry/{dataset}/{geometry}.tsv"
    wildcard_constraints:
        geometry="|".join(sorted({re.escape(name.split("/", 1)[1]) for name in names_of_geometries()})),
    container:
        CONTAINER
    threads: 4
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        peaks=peaks_of_geometry,
        indexed=indexed_of_geometry,
        space_group=space_group_of_dataset,
        settings=settings("geometry"),
        version=SFXFLOW,
    message:
        "Refining geometry {wildcards.geometry} of {wildcards.dataset}"
    shell:
        """
        sfxflow geometry \
            --peaks {params.peaks:q} \
            --indexed {params.indexed:q} \
            --geometry {input.geometry:q} \
            --cell {input.cell:q} \
            --space-group {params.space_group:q} \
            --settings {params.settings:q} \
            --threads {threads} \
            --proposal {output.proposal:q} \
            --output {output.geometry:q} >{output.summary:q} 2>{log:q}
        """


rule geometry:
    """Say what the proposed geometries of all datasets change."""
    input:
        collect("results/builtin/geometry/{name}/summary.txt", name=names_of_geometries()),
    log:
        "logs/builtin/geometry.log",
    localrule: True
    container:
        CONTAINER
    message:
        "Proposed geometries"
    shell:
        """
        cat {input:q} 2>{log:q}
        """
