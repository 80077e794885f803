# make demo   a ranking of real films for real members, from nothing
# make test   lint, types, floors, tests
# make bench-peers   other engines, for `prismrank bench score` to compare with
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' && echo $$p && break; done)
VENV := .venv
PEERS := .peers
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
export PIP_NO_INPUT := 1
export TOKENIZERS_PARALLELISM := false
export HF_HUB_OFFLINE := 1

.PHONY: demo test test-all bench bench-peers lint clean
.DELETE_ON_ERROR:

demo: $(VENV)/.runtime
	@$(BIN)/prismrank demo

test: lint
	$(BIN)/python -m pytest -m "not slow"

test-all: lint
	$(BIN)/python -m pytest

bench: $(VENV)/.runtime
	$(BIN)/prismrank bench score
	$(BIN)/prismrank bench train

bench-peers:
	@$(MAKE) --no-print-directory --keep-going $(PEERS)/vllm/.installed $(PEERS)/llama_cpp/.installed

$(PEERS)/%/.installed: foundation/bench/peers/%.txt foundation/bench/peers/install.sh | $(BIN)/python
	@sh foundation/bench/peers/install.sh $* $(BIN)/python

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --config pyproject.toml

clean:
	rm -rf $(VENV) $(PEERS) build dist *.egg-info

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "prismrank needs Python 3.11 or newer: install it, or say PYTHON=/path/to/python3.11"; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || sh .ci/venv-package $(PYTHON)
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing prismrank and what it needs into $(VENV) (a few minutes, once) …"
	@$(PIP) torch
	@$(PIP) --editable '.[evaluate]'
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	@$(PIP) --editable '.[dev]'
	@touch $@
