# `make study` runs the main job on a fresh clone, `make test` the tests; both set up what they need.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
OUT ?= study

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev study study-check test lint bench reliability claims docs peers clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/.setup: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "tangrams needs Python 3.11 or newer: make PYTHON=python3.11 …")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0
	$(PIP) --editable .
	@$(BIN)/python -c 'import importlib.util as u, sys; sys.exit("torchvision is installed: it must not be" if u.find_spec("torchvision") else 0)'
	@touch $@

$(VENV)/.setup-dev: $(VENV)/.setup
	$(PIP) --editable '.[dev]'
	@$(BIN)/python -c 'import importlib.util as u, sys; sys.exit("torchvision is installed: it must not be" if u.find_spec("torchvision") else 0)'
	@touch $@

setup: $(VENV)/.setup  ## make the virtual environment

setup-dev: $(VENV)/.setup-dev  ## the same, with what tests and linters need

study: $(VENV)/.setup  ## train a small network on digits, study it, write study/report.html
	$(BIN)/tangrams study --out $(OUT)

study-check: $(VENV)/.setup  ## measure the acceptance of the study over three seeds
	$(BIN)/python -m tangrams.study.check

test: $(VENV)/.setup-dev  ## run the tests
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -q -m "not peers" --doctest-modules --doctest-ignore-import-errors tests src/tangrams

lint: $(VENV)/.setup-dev  ## formatting, docstrings, types, floors
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/lint-imports
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: $(VENV)/.setup-dev  ## measure speed and memory against peers, side by side
	$(BIN)/python -m benchmarks

reliability: $(VENV)/.setup-dev  ## count right, refused and wrong over the nasty models, ours and torch.func's
	$(BIN)/python -m tangrams.testing.reliability docs/reliability.json

claims: $(VENV)/.setup  ## measure every claim in full and redraw docs/papers.md
	$(BIN)/python -m tangrams.claims
	$(BIN)/tangrams papers --markdown docs/papers.md

docs: $(VENV)/.setup  ## redraw docs/papers.md from the catalogue and the evidence
	$(BIN)/tangrams papers --markdown docs/papers.md

peers: $(VENV)/.setup-dev  ## compare with independent implementations
	$(PIP) --no-deps traker dattri scikit-ntk curvlinops-for-pytorch bmdal_reg dill
	$(BIN)/python -m pytest -q -m peers tests

clean:  ## remove what the targets made
	rm -rf $(VENV) study build dist .pytest_cache .ruff_cache .hypothesis
