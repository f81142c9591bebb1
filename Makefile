# make train and make test include the installation.
VENV   := .venv
PYTHON := $(VENV)/bin/python
SYSTEM_PYTHON ?= python3

.DEFAULT_GOAL := help
.PHONY: help install dev train test contract test-all lint format docs bench gpu cluster record notebooks figures browser measure clean

help:            ## show this help
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

install: $(VENV)/installed  ## create .venv and install nelbo into it

dev: $(VENV)/installed-dev  ## create .venv with the tools for tests and lint

$(VENV)/installed: pyproject.toml constraints.txt
	$(SYSTEM_PYTHON) -m venv $(VENV)
	$(PYTHON) -m pip install --quiet -c constraints.txt -e .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PYTHON) -m pip install --quiet -c constraints.txt -e .[dev]
	@touch $@

train: install   ## train on the bundled digits, 3 to 5 minutes with the installation
	$(PYTHON) train.py schedule=cosine loss=vlb

test: dev    ## run the fast tests, in two processes
	$(PYTHON) -m pytest -n 2 --dist loadfile -m "not slow and not gpu and not cluster"

contract: dev  ## run the tests of one component: NAME=shifted_cosine
	@test -n "$(NAME)" || { echo "make contract: which component? NAME=shifted_cosine" >&2; exit 1; }
	@ls conf/*/$(NAME).yaml >/dev/null 2>&1 || { echo "make contract: there is no conf/*/$(NAME).yaml" >&2; exit 1; }
	$(PYTHON) -m pytest -q -n 2 -m "not slow and not gpu and not cluster" tests -k "$(NAME) or every_class or test_docstrings"

test-all: dev  ## run all tests, about an hour
	$(PYTHON) -m pytest -n 2 -m "not gpu and not cluster"

lint: dev    ## run ruff, pyright and the import contracts
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright
	$(VENV)/bin/lint-imports

format: dev  ## format the code and sort imports with ruff
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

docs: install    ## build the site into site/; a broken link is an error
	$(PYTHON) -m pip install --quiet -c constraints.txt -e .[docs]
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --quiet --strict

bench: install   ## run the benchmarks
	$(PYTHON) -m pip install --quiet -c constraints.txt -e .[bench]
	$(PYTHON) -m benchmarks.train_step
	$(PYTHON) -m benchmarks.live_bound
	$(PYTHON) -m benchmarks.lightning_overhead
	@echo "with a checkpoint: python -m benchmarks.bound --checkpoint ...; python -m benchmarks.sampling --checkpoint ..."

gpu: dev         ## measure the speed on a GPU, and run the tests that need one
	$(PYTHON) -m benchmarks.gpu --out outputs/gpu
	$(PYTHON) -m pytest -n 0 -m gpu --show-capture=no

cluster: dev     ## test on a real SLURM and on two hosts, as root on Debian
	@test "$$(id -u)" = 0 || { echo "make cluster: run it as root; it installs packages and makes network namespaces" >&2; exit 1; }
	@command -v apt-get >/dev/null || { echo "make cluster: needs Debian, with apt-get" >&2; exit 1; }
	apt-get update -qq
	apt-get install -y -qq --no-install-recommends slurm-wlm munge iproute2 >/dev/null
	$(PYTHON) -m pytest -n 0 -m cluster tests/cluster

record: dev      ## train three seeds in a fixed time: NAME=digits
	$(PYTHON) -m records $(NAME)

notebooks: dev   ## run every notebook, a minute or two each
	$(PYTHON) -m pip install --quiet -c constraints.txt -e .[notebooks]
	$(PYTHON) -m pytest --nbmake --nbmake-timeout=600 notebooks/*.ipynb

# runs for the figures, trained if they are missing
RUN    ?= outputs/figures/digits
GUIDED ?= outputs/figures/digits-guided

figures: dev browser $(RUN)/summary.json $(GUIDED)/summary.json  ## draw docs/images, from RUN=FOLDER or a new run
	$(PYTHON) -m figures.report --run $(RUN)
	$(PYTHON) -m figures.samples --checkpoint $(RUN)/checkpoints/last.ckpt
	$(PYTHON) -m figures.few_steps --checkpoint $(RUN)/checkpoints/last.ckpt
	$(PYTHON) -m figures.guidance --checkpoint $(GUIDED)/checkpoints/last.ckpt
	$(PYTHON) -m figures.sampling_quality

browser: dev
	@$(PYTHON) -m figures.browser

measure: dev $(RUN)/summary.json  ## measure the values for figures.sampling_quality
	$(PYTHON) -m figures.measure_sampling --checkpoint $(RUN)/checkpoints/last.ckpt

$(RUN)/summary.json: | install
	$(PYTHON) train.py schedule=cosine loss=vlb hydra.run.dir=$(RUN) resume=auto

$(GUIDED)/summary.json: | install
	$(PYTHON) train.py conditional=true cond_dropout=0.1 hydra.run.dir=$(GUIDED) resume=auto

clean:           ## remove the environment and caches, but not outputs
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis build site src/*.egg-info
