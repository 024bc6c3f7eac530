"""
The report: one page for all engines, mergers and datasets.

Needs    results/{engine}/runs/{run}/frames.tsv
         results/{engine}/runs/{run}/{chunk}.integrated.h5
         results/{engine}/merged/{merger}/{dataset}/merged.h5
         results/{engine}/merged/{merger}/{dataset}/figures_of_merit.json
         results/{engine}/cell/{dataset}/clusters.json where the config names no cell
         results/{engine}/merged/builtin/{dataset}/split/... where a dataset is split
         results/comparison.json where there is more than one engine or merger
Provides results/report/index.html

Proposed geometries (geometry.smk) are shown if they are there; they are no input, for the results do not depend on them.
"""


rule report:
    """Write the HTML report."""
    input:
        frames=collect("results/{engine}/runs/{run}/frames.tsv", engine=config["engines"], run=RUNS),
        integrated=collect(
            "results/{engine}/runs/{chunk}.integrated.h5",
            engine=config["engines"],
            chunk=[f"{run}/{number:04d}" for run in RUNS for number in range(n_chunks(run))],
        ),
        merged=collect(
            "results/{engine}/merged/{merger}/{dataset}/merged.h5",
            engine=config["engines"],
            merger=config["mergers"],
            dataset=DATASETS,
        ),
        figures_of_merit=collect(
            "results/{engine}/merged/{merger}/{dataset}/figures_of_merit.json",
            engine=config["engines"],
            merger=config["mergers"],
            dataset=DATASETS,
        ),
        cells=collect("results/{engine}/cell/{dataset}/clusters.json", engine=config["engines"], dataset=without_cell()),
        groups=split_files(groups=["figures_of_merit.json"]),
        differences=split_files(differences=["difference.json"]),
        comparison=compared("results/comparison.json"),
    output:
        "results/report/index.html",
    log:
        "logs/report/index.log",
    benchmark:
        "benchmarks/report/index.tsv"
    localrule: True
    container:
        CONTAINER
    threads: 1
    resources:
        mem_mb=2000,
        runtime=15,
    params:
        frames=of_every_engine("frames.tsv"),
        integrated=of_every_engine(".integrated.h5"),
        # One text: Snakemake does not compare the order of a list.
        n_frames=" ".join(str(row["n_frames"]) for _ in config["engines"] for row in RUNS.values()),
        settings=settings("report"),
        version=SFXFLOW,
    message:
        "Writing the report"
    shell:
        """
        sfxflow report \
            --frames {params.frames:q} \
            --n-frames {params.n_frames} \
            --integrated {params.integrated:q} \
            --cells {input.cells:q} \
            --geometries results/builtin/geometry \
            --merged {input.merged:q} \
            --figures-of-merit {input.figures_of_merit:q} \
            --groups {input.groups:q} \
            --differences {input.differences:q} \
            --comparison {input.comparison:q} \
            --settings {params.settings:q} \
            --output {output:q} >{log:q} 2>&1
        """


# Whoever reads only the terminal must meet the warnings.
onsuccess:
    if os.path.exists("logs/report/index.log"):
        with open("logs/report/index.log") as handle:
            print(handle.read(), end="")
