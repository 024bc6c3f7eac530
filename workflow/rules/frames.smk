"""
The frame account: what became of every frame of a run. It is checked that no frame is missing and none counted twice.

Needs    results/{engine}/runs/{run}/{chunk}.integrated.h5
Provides results/{engine}/runs/{run}/frames.tsv
"""


rule frames:
    """Gather the frame account of a run from its chunks."""
    input:
        collect("results/{{engine}}/runs/{{run}}/{chunk}.integrated.h5", chunk=chunks_of_run),
    output:
        "results/{engine}/runs/{run}/frames.tsv",
    log:
        "logs/{engine}/runs/{run}/frames.log",
    benchmark:
        "benchmarks/{engine}/runs/{run}/frames.tsv"
    localrule: True
    container:
        CONTAINER
    threads: 1
    resources:
        mem_mb=2000,
        runtime=15,
    params:
        chunks=integrated_of_run,
        n_frames=n_frames_of_run,
        version=SFXFLOW,
    message:
        "Gathering the frame account of run {wildcards.run} ({wildcards.engine})"
    shell:
        """
        sfxflow frames \
            --chunks {params.chunks:q} \
            --n-frames {params.n_frames} \
            --output {output:q} >{log:q} 2>&1
        """
