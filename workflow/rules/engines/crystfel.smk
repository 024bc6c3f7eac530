"""
The engine crystfel: indexamajig searches for peaks, then indexes and integrates with the peaks from the file.

Needs    frames, geometry and mask of each run (runs.tsv); cell and space group of its dataset (config)
         results/builtin/runs/{run}/{chunk}.peaks.h5 where crystfel.peak_search says so
Provides results/crystfel/runs/{run}/{chunk}.peaks.h5
         results/crystfel/runs/{run}/{chunk}.integrated.h5
         results/crystfel/runs/{run}/{chunk}.stream
"""


rule crystfel_peaks:
    """Find the peaks of a chunk's frames with indexamajig, or take those of another engine."""
    input:
        unpack(files_of_chunk),
        taken=peaks_for_crystfel,
    output:
        "results/crystfel/runs/{run}/{chunk}.peaks.h5",
    log:
        messages="logs/crystfel/runs/{run}/{chunk}.peaks.log",
        program="logs/crystfel/runs/{run}/{chunk}.peaks.indexamajig.log",
    benchmark:
        "benchmarks/crystfel/runs/{run}/{chunk}.peaks.tsv"
    container:
        CRYSTFEL_CONTAINER
    threads: 4
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        chunk=place_of_chunk,
        settings=some_settings({"peaks": None, "crystfel": ["peak_search", "peaks_extra"]}),
        crystfel=CRYSTFEL,
        version=SFXFLOW,
    message:
        "CrystFEL finds peaks in chunk {wildcards.chunk} of run {wildcards.run}"
    shell:
        """
        sfxflow crystfel_peaks \
            --frames {params.chunk[frames]:q} \
            --geometry {input.geometry:q} \
            --mask {input.mask:q} \
            --first {params.chunk[first]} \
            --count {params.chunk[count]} \
            --n-frames {params.chunk[n_frames]} \
            --taken {input.taken:q} \
            --settings {params.settings:q} \
            --threads {threads} \
            --time-limit {resources.runtime} \
            --program-log {log.program:q} \
            --output {output:q} >{log.messages:q} 2>&1
        """


rule crystfel_indexing:
    """Index the hits of a chunk with indexamajig and integrate their reflections."""
    input:
        unpack(files_of_chunk),
        peaks="results/crystfel/runs/{run}/{chunk}.peaks.h5",
        cell=cell_of_crystfel_run,
    output:
        integrated="results/crystfel/runs/{run}/{chunk}.integrated.h5",
        stream="results/crystfel/runs/{run}/{chunk}.stream",
    log:
        messages="logs/crystfel/runs/{run}/{chunk}.integrated.log",
        program="logs/crystfel/runs/{run}/{chunk}.integrated.indexamajig.log",
    benchmark:
        "benchmarks/crystfel/runs/{run}/{chunk}.integrated.tsv"
    container:
        CRYSTFEL_CONTAINER
    threads: 4
    resources:
        mem_mb=8000,
        runtime=240,
    params:
        chunk=place_of_chunk,
        space_group=space_group_of_run,
        settings=some_settings(
            {
                "crystfel": [key for key in config["crystfel"] if key not in ("peak_search", "peaks_extra")],
                "integration": [
                    "inner_radius",
                    "middle_radius",
                    "outer_radius",
                    "d_min",
                    "push_res",
                    "polarisation_fraction",
                    "polarisation_angle",
                ],
            }
        ),
        licences=accepted_licences(),
        crystfel=CRYSTFEL,
        version=SFXFLOW,
    message:
        "CrystFEL indexes and integrates chunk {wildcards.chunk} of run {wildcards.run}"
    shell:
        """
        sfxflow crystfel_indexing \
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
            --licences {params.licences:q} \
            --threads {threads} \
            --time-limit {resources.runtime} \
            --program-log {log.program:q} \
            --kept-stream {output.stream:q} \
            --output {output.integrated:q} >{log.messages:q} 2>&1
        """
