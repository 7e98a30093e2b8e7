# `make demo` runs the whole pipeline on a rendered corpus; `make test` runs every test.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export PATH := $(abspath $(BIN)):$(PATH)
# The workers use one thread each; an idle worker takes over tests of another one.
TEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal
# More workers than cores, because these tests mostly wait for SLURM.
TEST_SLURM = $(BIN)/python -m pytest tests/slurm -m slurm -n 6
SLURM_OUTPUT = $(VENV)/test-slurm.txt

.PHONY: install demo test test-here test-fast test-slurm test-slurm-aside bench format clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("ssondo needs Python 3.11 or newer, but this is Python %d.%d; choose another one: make PYTHON=python3.11" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[pipeline,demo,dev]'
	@touch $@

demo: install
	snakemake --profile profiles/demo
	@cat results/demo/table1.md
	@echo "The report: results/demo/report.html"

# The tests on SLURM run at the same time as the others, and their output is printed after that of the others.
test: install
	@rm -f $(SLURM_OUTPUT)
	@$(MAKE) --no-print-directory --keep-going --jobs=2 test-here test-slurm-aside; status=$$?; \
	  echo "The tests on SLURM:"; cat $(SLURM_OUTPUT); \
	  if [ $$status = 0 ]; then echo "make test: passed"; else echo "make test: FAILED"; exit 1; fi

# All tests except those on SLURM.
test-here: install
	$(TEST) -m "not slurm"

test-slurm-aside: install
	@$(TEST_SLURM) >$(SLURM_OUTPUT) 2>&1

# The tests on a simulated SLURM cluster; they are skipped without root and Debian's SLURM packages.
test-slurm: install
	$(TEST_SLURM)

# All tests except those that run whole workflows or train models.
test-fast: install
	$(TEST) -m "not slow and not workflow and not slurm"

# Measures the rates of this machine that `ssondo plan` uses.
bench: install
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/rates.py

# Formats the code and generates config.yaml and docs/config.md from the typed models.
format: install
	ruff format . && ruff check --fix . && snakefmt Snakefile rules && $(BIN)/python -m ssondo.config --write

clean:
	rm -rf results/demo
