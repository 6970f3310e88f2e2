# `make editor`, `make train` and `make test` do all the set-up on a fresh machine.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Tests that take seconds; CONTRIBUTING.md has the time of `make quick`.
QUICK := tests/model tests/metrics tests/pictures tests/data tests/repository \
    tests/training/test_losses.py tests/editing/test_project.py tests/commands/test_help.py \
    tests/kernels/test_backend.py tests/kernels/test_semantic_composite.py

.PHONY: install editor train lint quick test test-all bench clean

install: $(STAMP)

$(STAMP): pyproject.toml setup.py constraints.txt $(wildcard csrc/*)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(STAMP)

# The web editor: prints the address of its page.
editor: $(STAMP)
	$(BIN)/python -m semfaceedit.editor --out faces

# Procedural faces, a short training of both stages, and pictures: under 15 minutes on two cores.
train: $(STAMP)
	$(BIN)/python -m semfaceedit.train --preset small --procedural-count 800 \
	    --phases 16:400 32:560 64:200 --stage2-iterations 40 --out runs
	$(BIN)/python -m semfaceedit.render --out runs/pictures --seeds 0-5 \
	    --checkpoint "$$(ls -td runs/*-small-procedural | head -n 1)/generator-ema0.998.safetensors"

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tools/check_types.py

# One process per core, each with one thread; a file's tests stay together and share fixtures.
quick: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile $(QUICK)

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

test-all: $(STAMP)
	$(BIN)/python -m pytest -m "slow or not slow"

bench: $(STAMP)
	$(BIN)/python -m pytest benchmarks --benchmark-only

clean:
	rm -rf $(VENV) build semfaceedit/_C*.so
