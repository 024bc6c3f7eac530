"""
The built-in engine: peak finding, indexing with a known cell, prediction and integration.

Needs    frames, geometry and mask of each run (runs.tsv); cell and space group of its dataset (config)
Provides results/builtin/runs/{run}/{chunk}.peaks.h5
         results/builtin/runs/{run}/{chunk}.integrated.h5
"""


rule builtin_peaks:
    """Find the peaks of a chunk's frames and tell hits from blanks."""
    input:
        unpack(files_of_chunk),
    output:
        "results/builtin/runs/{run}/{chunk}.peaks.h5",
    log:
        "logs/builtin/runs/{run}/{chunk}.peaks.log",
    benchmark:
        "benchmarks/builtin/runs/{run}/{chunk}.peaks.tsv"
    group:
        group_of_peaks
    container:
        CONTAINER
    threads: 4
    resources:
        mem_mb=4000,
        runtime=CHUNK_MINUTES,
        in_turn=1,
    params:
        chunk=place_of_chunk,
        settings=settings("peaks"),
        version=SFXFLOW,
    message:
        "Finding peaks in chunk {wildcards.chunk} of run {wildcards.run}"
    shell:
        """
        sfxflow peaks \
            --frames {params.chunk[frames]:q} \
            --geometry {input.geometry:q} \
            --mask {input.mask:q} \
            --first {params.chunk[first]} \
            --count {params.chunk[count]} \
            --n-frames {params.chunk[n_frames]} \
            --settings {params.settings:q} \
            --threads {threads} \
            --output {output:q} >{log:q} 2>&1
        """


rule builtin_indexing:
    """Index the peaks of each hit with the dataset's cell, several lattices a frame."""
    input:
        peaks="results/builtin/runs/{run}/{chunk}.peaks.h5",
        geometry=geometry_of_run,
        cell=cell_of_run,
    output:
        "results/builtin/runs/{run}/{chunk}.indexed.h5",
    log:
        "logs/builtin/runs/{run}/{chunk}.indexed.log",
    benchmark:
        "benchmarks/builtin/runs/{run}/{chunk}.indexed.tsv"
    group:
        "chunk"
    container:
        CONTAINER
    threads: 4
    resources:
        mem_mb=4000,
        runtime=CHUNK_MINUTES,
        in_turn=1,
    params:
        space_group=space_group_of_run,
        settings=settings("indexing"),
        version=SFXFLOW,
    message:
        "Indexing chunk {wildcards.chunk} of run {wildcards.run}"
    shell:
        """
        sfxflow indexing \
            --peaks {input.peaks:q} \
            --geometry {input.geometry:q} \
            --cell {input.cell:q} \
            --space-group {params.space_group:q} \
            --settings {params.settings:q} \
            --threads {threads} \
            --output {output:q} >{log:q} 2>&1
        """


rule builtin_integration:
    """Predict the reflections of each lattice and sum their intensities."""
    input:
        unpack(files_of_chunk),
        indexed="results/builtin/runs/{run}/{chunk}.indexed.h5",
    output:
        "results/builtin/runs/{run}/{chunk}.integrated.h5",
    log:
        "logs/builtin/runs/{run}/{chunk}.integrated.log",
    benchmark:
        "benchmarks/builtin/runs/{run}/{chunk}.integrated.tsv"
    group:
        "chunk"
    container:
        CONTAINER
    threads: 4
    resources:
        mem_mb=4000,
        runtime=CHUNK_MINUTES,
        in_turn=1,
    params:
        chunk=place_of_chunk,
        settings=settings("integration"),
        version=SFXFLOW,
    message:
        "Integrating chunk {wildcards.chunk} of run {wildcards.run}"
    shell:
        """
        sfxflow integration \
            --indexed {input.indexed:q} \
            --frames {params.chunk[frames]:q} \
            --geometry {input.geometry:q} \
            --mask {input.mask:q} \
            --first {params.chunk[first]} \
            --count {params.chunk[count]} \
            --n-frames {params.chunk[n_frames]} \
            --settings {params.settings:q} \
            --threads {threads} \
            --output {output:q} >{log:q} 2>&1
        """
