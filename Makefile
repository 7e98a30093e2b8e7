# make demo: the whole pipeline on a rendered corpus; make test: every test.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export PATH := $(abspath $(BIN)):$(PATH)
# Side by side on one thread each; a worker that has nothing left takes over tests of another.
TEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal
# All side by side, because they mostly wait for SLURM.
TEST_SLURM = $(BIN)/python -m pytest tests/slurm -m slurm -n 6
SLURM_OUTPUT = $(VENV)/test-slurm.txt

.PHONY: install demo test test-here test-fast test-slurm test-slurm-aside bench format clean

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

# Those on SLURM run beside the others and are printed after them; each has its own last line, and either may fail.
test: install
	@rm -f $(SLURM_OUTPUT)
	@$(MAKE) --no-print-directory --keep-going --jobs=2 test-here test-slurm-aside; status=$$?; \
	  echo "The tests on SLURM:"; cat $(SLURM_OUTPUT); \
	  if [ $$status = 0 ]; then echo "make test: passed"; else echo "make test: FAILED"; exit 1; fi

# Without those on SLURM.
test-here: install
	$(TEST) -m "not slurm"

test-slurm-aside: install
	@$(TEST_SLURM) >$(SLURM_OUTPUT) 2>&1

# On a pretend cluster: needs root and Debian's SLURM packages, and is skipped without them.
test-slurm: install
	$(TEST_SLURM)

# Without the tests that run whole workflows or train.
test-fast: install
	$(TEST) -m "not slow and not workflow and not slurm"

# Measures the rates that `ssondo plan` counts with, on this machine.
bench: install
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/rates.py

# Formats the code and makes config.yaml and docs/config.md from the typed models.
format: install
	ruff format . && ruff check --fix . && snakefmt Snakefile rules && $(BIN)/python -m ssondo.config --write

clean:
	rm -rf results/demo
