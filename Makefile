# make demo   a ranking of real films for real members, from nothing
# make test   lint, types, floors, tests
# make figures   every figure of the README, anew: tables, and JSON and pages in runs/figures (about two hours)
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

.PHONY: demo test test-all bench figures bench-peers lint clean
.DELETE_ON_ERROR:

demo: $(VENV)/.runtime
	@$(BIN)/prismrank demo

test: lint
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile -m "not slow"

test-all: lint
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

bench: $(VENV)/.runtime
	$(BIN)/prismrank bench score
	$(BIN)/prismrank bench train
	$(BIN)/prismrank bench serve

FIGURES := runs/figures
EVALUATE = $(BIN)/prismrank evaluate $(1) --ledger sqlite:///$(FIGURES)/$(2).sqlite --against all \
	--out $(FIGURES)/$(3) --json $(FIGURES)/$(3).json --html $(FIGURES)/$(3).html

figures: $(VENV)/.runtime
	mkdir -p $(FIGURES)
	$(BIN)/prismrank import --dataset movielens-100k --ledger sqlite:///$(FIGURES)/films.sqlite
	$(BIN)/prismrank import --world network --members 1000 --ledger sqlite:///$(FIGURES)/network.sqlite
	$(call EVALUATE,movies,films,movies)
	$(call EVALUATE,movies,films,movies-time) --protocol global-time
	for surface in feed jobs ads people; do $(call EVALUATE,$$surface,network,$$surface) || exit; done
	$(BIN)/prismrank bench experiments --json $(FIGURES)/experiments.json
	$(BIN)/prismrank bench score --threads 1 --json $(FIGURES)/score.json
	test ! -d models/smollm2 || $(BIN)/prismrank bench score --threads 1 --rounds 2 --model models/smollm2
	$(BIN)/prismrank bench visit --threads 1 --json $(FIGURES)/visit.json
	$(BIN)/prismrank bench train --json $(FIGURES)/train.json
	$(BIN)/prismrank import --world network --members 10000 --ledger sqlite:///$(FIGURES)/large.sqlite

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
