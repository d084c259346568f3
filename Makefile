# The commands to know. Each sets up what it needs.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCK := requirements/dev.lock

.DEFAULT_GOAL := help
.PHONY: help setup tools demo test test-net check devnet bench abi lock clean

help: ## Show these commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(VENV)/.ready contracts/node_modules/.ready ## Install what the project needs, into this folder

$(VENV)/.ready: $(LOCK) pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Coterie needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(LOCK)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

contracts/node_modules/.ready: contracts/package-lock.json contracts/package.json
	cd contracts && npm ci --silent --no-audit --no-fund
	@touch $@

tools: setup ## Build Geth and Kubo with Go, at pinned hashes, into the user's cache
	@nice -n 10 $(BIN)/python tools/build.py

demo: setup ## Fit one model over a ledger on three sites of this machine, and replay it
	@$(BIN)/coterie demo

test: setup ## Run the tests
	$(BIN)/python -m pytest -m "not devnet" -n 2 --dist loadgroup $(ARGS)

test-net: tools ## Run the tests on real networks of Geth and Kubo
	$(BIN)/python -m pytest -m devnet -n 4 --dist loadgroup $(ARGS)

check: setup ## Check style, types, room walls and the contracts' artifacts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy tests benchmarks contracts/scripts examples tools docker
	$(BIN)/lint-imports
	$(BIN)/python contracts/scripts/compile.py --check
	$(BIN)/python docker/generate.py --check

devnet: tools ## Start three sites' Geth and Kubo in ./devnet; `coterie devnet down devnet` ends them
	@$(BIN)/coterie devnet up devnet

bench: setup ## Measure; results go to benchmarks/RESULTS.md by hand, with the machine
	@$(BIN)/python benchmarks/run.py
	@$(BIN)/python benchmarks/tables.py

abi: setup ## Compile the contracts anew
	$(BIN)/python contracts/scripts/compile.py

lock: setup ## Pin the newest versions again (hashes, no download addresses)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --all-extras --generate-hashes --upgrade \
	  --no-header --no-annotate --no-emit-index-url --no-emit-find-links --output-file $(LOCK) pyproject.toml

clean: ## Remove what setup installed
	rm -rf $(VENV) contracts/node_modules
