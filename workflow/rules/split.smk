"""
Groups of a dataset's frames, which are scaled together and merged apart: by a column of the runs, by a value that each frame has, or by
a table of the user.

Needs    the frame files, or the user's table
         results/{engine}/merged/builtin/{dataset}/merged.h5
Provides results/splits/{dataset}.tsv
         results/{engine}/merged/builtin/{dataset}/split/{group}/{merged.mtz,merged.hkl,half1.hkl,half2.hkl}
         results/{engine}/merged/builtin/{dataset}/split/{group}/figures_of_merit.{json,tsv}
         results/{engine}/merged/builtin/{dataset}/split/{group}_minus_{other}/difference.{mtz,json}
"""


wildcard_constraints:
    group="|".join(map(re.escape, sorted(GROUPS))) or "[^/]+",
    other="|".join(map(re.escape, sorted(GROUPS))) or "[^/]+",


rule split:
    """Say for each frame of a dataset which group it belongs to."""
    input:
        frames=frames_of_dataset,
        geometries=geometries_of_split,
        table=table_of_split,
    output:
        "results/splits/{dataset}.tsv",
    log:
        "logs/splits/{dataset}.log",
    benchmark:
        "benchmarks/splits/{dataset}.tsv"
    container:
        CONTAINER
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        runs=runs_of_split,
        settings=settings_of_split,
        version=SFXFLOW,
    message:
        "Splitting the frames of {wildcards.dataset}"
    shell:
        """
        sfxflow split \
            --dataset {wildcards.dataset:q} \
            --runs {params.runs:q} \
            --settings {params.settings:q} \
            --output {output:q} >{log:q} 2>&1
        """


rule group_figures_of_merit:
    """Compute the figures of merit of one group."""
    input:
        merged="results/{engine}/merged/builtin/{dataset}/merged.h5",
        reference=reference_of_dataset,
    output:
        json="results/{engine}/merged/builtin/{dataset}/split/{group}/figures_of_merit.json",
        tsv="results/{engine}/merged/builtin/{dataset}/split/{group}/figures_of_merit.tsv",
    log:
        "logs/{engine}/merged/builtin/{dataset}/split/{group}/figures_of_merit.log",
    benchmark:
        "benchmarks/{engine}/merged/builtin/{dataset}/split/{group}/figures_of_merit.tsv"
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
        "Judging group {wildcards.group} of {wildcards.dataset} ({wildcards.engine})"
    shell:
        """
        sfxflow figures_of_merit \
            --merged {input.merged:q} \
            --group={wildcards.group:q} \
            --reference {input.reference:q} \
            --settings {params.settings:q} \
            --json {output.json:q} \
            --tsv {output.tsv:q} >{log:q} 2>&1
        """


rule group_export:
    """Write the reflections of one group for other programs."""
    input:
        "results/{engine}/merged/builtin/{dataset}/merged.h5",
    output:
        mtz="results/{engine}/merged/builtin/{dataset}/split/{group}/merged.mtz",
        hkl="results/{engine}/merged/builtin/{dataset}/split/{group}/merged.hkl",
        half1="results/{engine}/merged/builtin/{dataset}/split/{group}/half1.hkl",
        half2="results/{engine}/merged/builtin/{dataset}/split/{group}/half2.hkl",
    log:
        "logs/{engine}/merged/builtin/{dataset}/split/{group}/export.log",
    benchmark:
        "benchmarks/{engine}/merged/builtin/{dataset}/split/{group}/export.tsv"
    localrule: True
    container:
        CONTAINER
    threads: 1
    resources:
        mem_mb=2000,
        runtime=15,
    params:
        settings=settings("export"),
        version=SFXFLOW,
    message:
        "Exporting group {wildcards.group} of {wildcards.dataset} ({wildcards.engine})"
    shell:
        """
        sfxflow export \
            --merged {input:q} \
            --group={wildcards.group:q} \
            --settings {params.settings:q} \
            --mtz {output.mtz:q} \
            --hkl {output.hkl:q} \
            --half1 {output.half1:q} \
            --half2 {output.half2:q} >{log:q} 2>&1
        """


rule difference:
    """Subtract the intensities of one group from those of another."""
    input:
        "results/{engine}/merged/builtin/{dataset}/merged.h5",
    output:
        mtz="results/{engine}/merged/builtin/{dataset}/split/{group}_minus_{other}/difference.mtz",
        json="results/{engine}/merged/builtin/{dataset}/split/{group}_minus_{other}/difference.json",
    log:
        "logs/{engine}/merged/builtin/{dataset}/split/{group}_minus_{other}/difference.log",
    benchmark:
        "benchmarks/{engine}/merged/builtin/{dataset}/split/{group}_minus_{other}/difference.tsv"
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
        "Subtracting group {wildcards.other} from {wildcards.group} of {wildcards.dataset} ({wildcards.engine})"
    shell:
        """
        sfxflow difference \
            --merged {input:q} \
            --group={wildcards.group:q} \
            --minus={wildcards.other:q} \
            --settings {params.settings:q} \
            --mtz {output.mtz:q} \
            --json {output.json:q} >{log:q} 2>&1
        """
