"""
The engine dials: dials.find_spots, then dials.ssx_index and dials.ssx_integrate with the peaks from the file, or dials.stills_process.

Needs    frames, geometry and mask of each run (runs.tsv); cell and space group of its dataset (config)
Provides results/dials/runs/{run}/{chunk}.peaks.h5
         results/dials/runs/{run}/{chunk}.integrated.h5
"""


rule dials_peaks:
    """Find the peaks of a chunk's frames with dials.find_spots."""
    input:
        unpack(files_of_chunk),
    output:
        "results/dials/runs/{run}/{chunk}.peaks.h5",
    log:
        messages="logs/dials/runs/{run}/{chunk}.peaks.log",
        program="logs/dials/runs/{run}/{chunk}.peaks.dials.log",
    benchmark:
        "benchmarks/dials/runs/{run}/{chunk}.peaks.tsv"
    conda:
        "../../../envs/dials.yaml"
    container:
        DIALS_CONTAINER
    threads: 4
    resources:
        mem_mb=8000,
        runtime=240,
    params:
        chunk=place_of_chunk,
        settings=some_settings({"peaks": None, "dials": DIALS_PEAKS}),
        dials=DIALS,
        version=SFXFLOW,
    message:
        "DIALS finds peaks in chunk {wildcards.chunk} of run {wildcards.run} (dials)"
    shell:
        """
        sfxflow dials_peaks \
            --frames {params.chunk[frames]:q} \
            --geometry {input.geometry:q} \
            --mask {input.mask:q} \
            --first {params.chunk[first]} \
            --count {params.chunk[count]} \
            --n-frames {params.chunk[n_frames]} \
            --settings {params.settings:q} \
            --threads {threads} \
            --time-limit {resources.runtime} \
            --program-log {log.program:q} \
            --output {output:q} >{log.messages:q} 2>&1
        """


rule dials_indexing:
    """Index the hits of a chunk with DIALS and integrate their reflections."""
    input:
        unpack(files_of_chunk),
        peaks="results/dials/runs/{run}/{chunk}.peaks.h5",
        cell=cell_of_dials_run,
    output:
        "results/dials/runs/{run}/{chunk}.integrated.h5",
    log:
        messages="logs/dials/runs/{run}/{chunk}.integrated.log",
        program="logs/dials/runs/{run}/{chunk}.integrated.dials.log",
    benchmark:
        "benchmarks/dials/runs/{run}/{chunk}.integrated.tsv"
    conda:
        "../../../envs/dials.yaml"
    container:
        DIALS_CONTAINER
    threads: 4
    resources:
        mem_mb=8000,
        runtime=720,
    params:
        chunk=place_of_chunk,
        space_group=space_group_of_run,
        settings=some_settings(
            {
                # Only stills_process looks for spots here.
                "dials": None if config["dials"]["indexing"] == "stills_process" else DIALS_INDEXING,
                "peaks": (
                    ["threshold", "min_pix_count", "max_pix_count"]
                    if config["dials"]["indexing"] == "stills_process"
                    else []
                ),
                "indexing": ["cell_tolerance", "angle_tolerance"],
                "integration": ["d_min", "push_res", "polarisation_fraction", "polarisation_angle"],
            }
        ),
        dials=DIALS,
        version=SFXFLOW,
    message:
        "DIALS indexes chunk {wildcards.chunk} of run {wildcards.run} (dials)"
    shell:
        """
        sfxflow dials_indexing \
            --peaks {input.peaks:q} \
            --frames {params.chunk[frames]:q} \
            --geometry {input.geometry:q} \
            --mask {input.mask:q} \
            --first {params.chunk[first]} \
            --count {params.chunk[count]} \
            --n-frames {params.chunk[n_frames]} \
            --cell {input.cell:q} \
            --space-group {params.space_group:q} \
            --settings {params.settings:q} \
            --threads {threads} \
            --time-limit {resources.runtime} \
            --program-log {log.program:q} \
            --output {output:q} >{log.messages:q} 2>&1
        """
