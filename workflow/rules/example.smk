"""
The simulated example that config/ is written for.

Needs    nothing
Provides example/: frames, geometry and cell
"""


rule example:
    """Simulate a small experiment."""
    output:
        EXAMPLE,
    log:
        "logs/example/simulate.log",
    benchmark:
        "benchmarks/example/simulate.tsv"
    localrule: True
    container:
        CONTAINER
    threads: 2
    resources:
        mem_mb=2000,
        runtime=15,
    params:
        n_frames=EXAMPLE_FRAMES,
        version=SFXFLOW,
    message:
        "Simulating the example"
    shell:
        """
        sfxflow simulate \
            --preset demo \
            --n-frames {params.n_frames} \
            --seed 1 \
            --threads {threads} \
            --output example >{log:q} 2>&1
        """
