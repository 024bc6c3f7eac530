"""
The mergers of DIALS and cctbx.xfel, over the reflections of any engine.

Needs    results/{engine}/runs/{run}/{chunk}.integrated.h5 of every run of the dataset
         results/{engine}/ambiguity/{dataset}/assignment.h5
Provides results/{engine}/merged/{dials_scale,cctbx_xfel_merge}/{dataset}/merged.h5
"""


rule dials_scale_merging:
    """Scale a dataset's reflections with dials.scale, and merge them."""
    input:
        integrated=collect("results/{{engine}}/runs/{chunk}.integrated.h5", chunk=chunks_of_dataset),
        geometries=geometries_of_dataset,
        cell=cell_of_dataset,
        assignment="results/{engine}/ambiguity/{dataset}/assignment.h5",
    output:
        "results/{engine}/merged/dials_scale/{dataset}/merged.h5",
    log:
        messages="logs/{engine}/merged/dials_scale/{dataset}/merged.log",
        program="logs/{engine}/merged/dials_scale/{dataset}/dials.scale.log",
    benchmark:
        "benchmarks/{engine}/merged/dials_scale/{dataset}/merged.tsv"
    conda:
        "../../../envs/dials.yaml"
    container:
        DIALS_CONTAINER
    threads: 1
    resources:
        mem_mb=16000,
        runtime=720,
    params:
        integrated=integrated_of_dataset,
        space_group=space_group_of_dataset,
        d_min=d_min_of_dataset,
        settings=some_settings({"dials_scale": None, "merging": ["anomalous"]}),
        dials=DIALS_SCALE,
        version=SFXFLOW,
    message:
        "dials.scale merges {wildcards.dataset} ({wildcards.engine})"
    shell:
        """
        sfxflow dials_scale \
            --integrated {params.integrated:q} \
            --geometry {input.geometries:q} \
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


rule cctbx_xfel_merging:
    """Scale and merge a dataset's reflections with cctbx.xfel.merge under MPI."""
    input:
        integrated=collect("results/{{engine}}/runs/{chunk}.integrated.h5", chunk=chunks_of_dataset),
        geometries=geometries_of_dataset,
        cell=cell_of_dataset,
        assignment="results/{engine}/ambiguity/{dataset}/assignment.h5",
        reference=reference_of_dataset,
    output:
        "results/{engine}/merged/cctbx_xfel_merge/{dataset}/merged.h5",
    log:
        messages="logs/{engine}/merged/cctbx_xfel_merge/{dataset}/merged.log",
        program="logs/{engine}/merged/cctbx_xfel_merge/{dataset}/cctbx.xfel.merge.log",
    benchmark:
        "benchmarks/{engine}/merged/cctbx_xfel_merge/{dataset}/merged.tsv"
    container:
        DIALS_CONTAINER
    threads: 1
    resources:
        mem_mb=32000,
        runtime=720,
        mpi="mpirun",
        tasks=8,
    params:
        integrated=integrated_of_dataset,
        space_group=space_group_of_dataset,
        d_min=d_min_of_dataset,
        settings=some_settings({"cctbx_xfel_merge": None, "merging": ["anomalous"]}),
        cctbx=CCTBX_XFEL_MERGE,
        version=SFXFLOW,
    message:
        "cctbx.xfel.merge merges {wildcards.dataset} ({wildcards.engine})"
    shell:
        """
        sfxflow cctbx_xfel_merge \
            --integrated {params.integrated:q} \
            --geometry {input.geometries:q} \
            --dataset {wildcards.dataset:q} \
            --cell {input.cell:q} \
            --space-group {params.space_group:q} \
            --d-min {params.d_min} \
            --assignment {input.assignment:q} \
            --reference {input.reference:q} \
            --settings {params.settings:q} \
            --mpi {resources.mpi:q} \
            --tasks {resources.tasks} \
            --time-limit {resources.runtime} \
            --program-log {log.program:q} \
            --output {output:q} >{log.messages:q} 2>&1
        """
