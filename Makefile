# make demo: from nothing to merged data of a simulated experiment.   make test: every test that this machine can run in minutes.
# Both need python3 (3.11 or newer, with venv) and make; everything else goes to .venv in this folder.

PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# The bindings of HTCondor warn at each start where no pool is configured.
export PYTHONWARNINGS ?= ignore::UserWarning:htcondor2

CODE := src tests workflow/scripts benchmarks containers

.PHONY: demo test test-long test-clusters check benchmark docs schema containers clean

demo: .venv/installed
	snakemake --cores all
	@python workflow/scripts/show_results.py

test: .venv/installed-dev
	python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder -m "not long"

# Tests that take minutes each: other programs' engines on real frames, and whole workflows.
test-long: .venv/installed-dev
	python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder -m long

# Real HTCondor and Slurm of this one machine, started and ended by the tests: on Debian, Slurm only as root. Programs that are missing are
# unpacked into $SFXFLOW_TOOLS (default ~/.cache/sfxflow-tests); Slurm is installed by apt.
test-clusters: .venv/installed-dev
	python -m pytest tests/clusters

check: .venv/installed-dev
	ruff check $(CODE)
	ruff format --check $(CODE)
	snakefmt --check Snakefile workflow
	snakemake --lint
	snakemake --snakefile workflow/Snakefile --lint
	python -m sfxflow.io.config_schema --check

benchmark: .venv/installed-dev
	python benchmarks/run.py

# The schema and the config reference, from src/sfxflow/settings.py.
schema: .venv/installed
	python -m sfxflow.io.config_schema

docs: .venv/installed-dev schema
	python -m pytest -q tests/docs

# Images of the engines for --sdm apptainer, containers/NAME-VERSION.sif: docs/containers.md. One of them: make containers CONTAINERS=builtin
BASE ?= auto
CONTAINERS ?= builtin crystfel dials
containers: .venv/installed
	python containers/build.py --base $(BASE) $(CONTAINERS)

clean:
	rm -rf build .pytest_cache .ruff_cache .hypothesis
	@if grep -q '^demo	' config/runs.tsv; then \
		rm -rf example results logs benchmarks/*/ .snakemake; \
	else \
		echo "config/runs.tsv is not the example's: results are left as they are"; \
	fi

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is older than Python 3.11; name a newer one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml | .venv/bin/python
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[workflow,htcondor,slurm]'
	@touch $@

.venv/installed-dev: pyproject.toml | .venv/bin/python
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[workflow,htcondor,slurm,test,dev]'
	@touch .venv/installed $@
