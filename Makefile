# nnac: `make` lists what there is.

PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
TORCH  ?= torch==2.13.0
RUNS   ?= runs

.PHONY: help setup demo test check clean bench-train

help:            ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet "$(TORCH)"
	$(BIN)/pip install --quiet -e ".[speech,lsp,plot,dev]"
	touch $@

setup: $(VENV)/.ready      ## virtual environment with nnac and all it needs

demo: setup                ## speech in, transcript out: corpus, training, policy, program, emulator (about 12 minutes)
	$(BIN)/nnac demo --out $(RUNS)/demo

test: setup                ## the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

bench-train: setup         ## training: what exact integers cost against float, and whether they are exact (2 minutes)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/bench_train.py

check: setup               ## what CI runs: style, then the tests
	$(BIN)/ruff check nnac tests benchmarks
	$(MAKE) test

clean:                     ## remove caches and runs, keep the environment
	rm -rf $(RUNS) build dist .pytest_cache .hypothesis .ruff_cache .mypy_cache
