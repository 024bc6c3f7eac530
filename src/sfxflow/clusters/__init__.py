"""Clusters as `sfxflow run` and `sfxflow doctor` meet them: their queues, the words for what goes wrong, and single calls of Snakemake."""
