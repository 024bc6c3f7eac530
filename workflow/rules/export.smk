"""
Files for other programs: MTZ for CCP4 and Phenix, reflection lists for CrystFEL.

Needs    results/{engine}/merged/{merger}/{dataset}/merged.h5
         results/{engine}/runs/{run}/{chunk}.integrated.h5 of every run of the dataset
Provides results/{engine}/merged/{merger}/{dataset}/{merged.mtz,unmerged.mtz,merged.hkl,half1.hkl,half2.hkl}
"""


rule export:
    """Write merged, unmerged and half-set reflections for other programs."""
    input:
        merged="results/{engine}/merged/{merger}/{dataset}/merged.h5",
        integrated=collect("results/{{engine}}/runs/{chunk}.integrated.h5", chunk=chunks_of_dataset),
    output:
        mtz="results/{engine}/merged/{merger}/{dataset}/merged.mtz",
        unmerged="results/{engine}/merged/{merger}/{dataset}/unmerged.mtz",
        hkl="results/{engine}/merged/{merger}/{dataset}/merged.hkl",
        half1="results/{engine}/merged/{merger}/{dataset}/half1.hkl",
        half2="results/{engine}/merged/{merger}/{dataset}/half2.hkl",
    log:
        "logs/{engine}/merged/{merger}/{dataset}/export.log",
    benchmark:
        "benchmarks/{engine}/merged/{merger}/{dataset}/export.tsv"
    container:
        CONTAINER
    threads: 1
    resources:
        mem_mb=8000,
        runtime=60,
    params:
        integrated=integrated_of_dataset,
        settings=settings("export"),
        version=SFXFLOW,
    message:
        "Writing MTZ and HKL files of {wildcards.dataset} ({wildcards.engine}, {wildcards.merger})"
    shell:
        """
        sfxflow export \
            --merged {input.merged:q} \
            --integrated {params.integrated:q} \
            --settings {params.settings:q} \
            --mtz {output.mtz:q} \
            --unmerged {output.unmerged:q} \
            --hkl {output.hkl:q} \
            --half1 {output.half1:q} \
            --half2 {output.half2:q} >{log:q} 2>&1
        """
