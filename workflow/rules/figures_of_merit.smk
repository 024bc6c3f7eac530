"""
Figures of merit, by resolution shell and overall; one code judges every engine and merger.

Needs    results/{engine}/merged/{merger}/{dataset}/merged.h5
Provides results/{engine}/merged/{merger}/{dataset}/figures_of_merit.{json,tsv}
"""


rule figures_of_merit:
    """Compute the figures of merit of merged data."""
    input:
        merged="results/{engine}/merged/{merger}/{dataset}/merged.h5",
        reference=reference_of_dataset,
    output:
        json="results/{engine}/merged/{merger}/{dataset}/figures_of_merit.json",
        tsv="results/{engine}/merged/{merger}/{dataset}/figures_of_merit.tsv",
    log:
        "logs/{engine}/merged/{merger}/{dataset}/figures_of_merit.log",
    benchmark:
        "benchmarks/{engine}/merged/{merger}/{dataset}/figures_of_merit.tsv"
    localrule: True
    container:
        CONTAINER
    threads: 1
    resources:
        mem_mb=2000,
        runtime=15,
    params:
        settings=settings("figures_of_merit"),
        version=SFXFLOW,
    message:
        "Computing figures of merit of {wildcards.dataset} ({wildcards.engine}, {wildcards.merger})"
    shell:
        """
        sfxflow figures_of_merit \
            --merged {input.merged:q} \
            --reference {input.reference:q} \
            --settings {params.settings:q} \
            --json {output.json:q} \
            --tsv {output.tsv:q} >{log:q} 2>&1
        """
