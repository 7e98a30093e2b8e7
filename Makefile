# make demo: the whole pipeline on a rendered corpus; make test: every test.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export PATH := $(abspath $(BIN)):$(PATH)
# All side by side, because they mostly wait for SLURM.
TEST_SLURM = $(BIN)/python -m pytest tests/slurm -m slurm -n 6

.PHONY: install demo test test-fast test-slurm bench format clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("ssondo needs Python 3.11 or newer, this is %d.%d; say which: make PYTHON=python3.11" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[pipeline,demo,dev]'
	@touch $@

demo: install
	snakemake --profile profiles/demo
	@cat results/demo/table1.md
	@echo "The report: results/demo/report.html"

# Tests side by side on one thread each, then whole workflows, which use all cores themselves, then those on SLURM.
test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not workflow and not slurm" -n auto --maxprocesses 4
	$(BIN)/python -m pytest -m workflow
	$(TEST_SLURM)

# On a pretend cluster: needs root and Debian's SLURM packages, and is skipped without them.
test-slurm: install
	$(TEST_SLURM)

# Without the tests that run whole workflows or train.
test-fast: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow and not workflow and not slurm" -n auto --maxprocesses 4

# Measures the rates that `ssondo plan` counts with, on this machine.
bench: install
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/rates.py

# Formats the code and makes config.yaml and docs/config.md from the typed models.
format: install
	ruff format . && ruff check --fix . && snakefmt Snakefile rules && $(BIN)/python -m ssondo.config --write

clean:
	rm -rf results/demo
