# make train and make test do everything on a fresh machine.
VENV   := .venv
PYTHON := $(VENV)/bin/python
SYSTEM_PYTHON ?= python3

.DEFAULT_GOAL := help
.PHONY: help install dev train test test-all lint format bench notebooks clean

help:            ## show this
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

install: $(VENV)/installed  ## create .venv and install nelbo into it

dev: $(VENV)/installed-dev  ## the same with the tools for tests and lint

$(VENV)/installed: pyproject.toml constraints.txt
	$(SYSTEM_PYTHON) -m venv $(VENV)
	$(PYTHON) -m pip install --quiet -c constraints.txt -e .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PYTHON) -m pip install --quiet -c constraints.txt -e .[dev]
	@touch $@

train: install   ## train the default model on the bundled digits, under 4 minutes on 2 CPU cores, the installation included
	$(PYTHON) train.py schedule=cosine loss=vlb

test: dev    ## the fast tests, under 4 minutes on 2 CPU cores
	$(PYTHON) -m pytest -n 2 -m "not slow and not gpu"

test-all: dev  ## every test, under an hour
	$(PYTHON) -m pytest -n 2 -m "not gpu"

lint: dev    ## ruff, pyright, import contracts
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright
	$(VENV)/bin/lint-imports

format: dev  ## let ruff format and sort
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

bench: install   ## the benchmarks
	$(PYTHON) -m pip install --quiet -c constraints.txt -e .[bench]
	$(PYTHON) -m benchmarks.train_step
	$(PYTHON) -m benchmarks.live_bound
	$(PYTHON) -m benchmarks.lightning_overhead
	@echo "with a checkpoint: python -m benchmarks.bound --checkpoint ...; python -m benchmarks.sampling --checkpoint ..."

notebooks: dev   ## run every notebook, a minute or two each; what is committed stays as it is
	$(PYTHON) -m pip install --quiet -c constraints.txt -e .[notebooks]
	$(PYTHON) -m pytest --nbmake --nbmake-timeout=600 notebooks/*.ipynb

clean:           ## remove the environment and caches, keep outputs
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis build src/*.egg-info
