# The commands to know. Each sets up what it needs.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCK := requirements/dev.lock

SEEDS ?= 2000
TRANSACTIONS ?= 10000
CALLS ?= 20000
FUZZ_SEED ?= $(shell date +%j)
# Tests start many processes; without compiled files each start compiles the rooms again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup tools demo test test-long test-brokers test-provider test-web test-net faults fuzz fuzz-api slither check audit-deps devnet bench bench-mpc bench-redis \
  bench-survival bench-twin bench-peers ranges references abi lock lock-images wheel previous mutants clean

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

test: setup ## Run the tests, of each sweep the first few cases
	$(BIN)/python -m pytest -m "not devnet and not long and not brokers and not browser and not provider" -n 2 --dist loadgroup $(ARGS)

test-long: setup ## Run the rest of the sweeps: seeded faults, signed garbage, hostile files, grids, long demos
	$(BIN)/python -m pytest -m "long and not devnet" -n 2 --dist loadgroup $(ARGS)

test-provider: setup ## Sign in at a certified identity provider, which npm installs
	@test -d tests/support/provider/node_modules || npm ci --no-audit --no-fund --prefix tests/support/provider
	$(BIN)/python -m pytest -m provider -n 0 tests/node/web $(ARGS)

test-brokers: setup ## Run the ledger's suite over RabbitMQ and Redis, where Debian's packages are installed
	$(BIN)/python -m pytest -m brokers -n 0 $(ARGS)

test-web: tools tests/web_browser/node_modules/.ready ## Run the page's tests in Chromium (Debian's package): every page, and a study's whole life, also over Geth and Kubo
	$(BIN)/python -m pytest -m browser -n 0 tests/web_browser $(ARGS)

tests/web_browser/node_modules/.ready: tests/web_browser/package-lock.json tests/web_browser/package.json
	command -v chromium > /dev/null || { test "$$(id -u)" = 0 && apt-get install -y -qq --no-install-recommends chromium > /dev/null; }
	cd tests/web_browser && npm ci --silent --no-audit --no-fund
	@touch $@

test-net: tools ## Run the tests on real networks of Geth and Kubo
	$(BIN)/python -m pytest -m "devnet and not browser" -n 4 --dist loadgroup $(ARGS)

faults: setup ## Let studies run through seeded faults: SEEDS=2000 of them, or the one of SEED=number
	COTERIE_FAULT_SEEDS=$(SEEDS) COTERIE_FAULT_SEED=$(SEED) $(BIN)/python -m pytest -n 2 -q tests/node/run/test_faults.py $(ARGS)

fuzz: setup ## Send signed garbage to every reader of the ledger: TRANSACTIONS=10000, FUZZ_SEED (the day of the year)
	COTERIE_FUZZ_TRANSACTIONS=$(TRANSACTIONS) COTERIE_FUZZ_SEED=$(FUZZ_SEED) COTERIE_GARBAGE=2000 \
	  $(BIN)/python -m pytest -n 2 --dist loadgroup -q tests/red_team/test_total_ledger.py tests/red_team/test_garbage.py $(ARGS)

fuzz-api: setup ## Send calls that schemathesis generates to the HTTP API: CALLS=20000, FUZZ_SEED (the day of the year)
	COTERIE_API_CALLS=$(CALLS) COTERIE_API_SEED=$(FUZZ_SEED) $(BIN)/python -m pytest -m long -n 0 -q tests/node/web/test_api_fuzz.py $(ARGS)

slither: setup .venv-slither/.ready ## Analyse the contracts; every finding must be answered in contracts/SLITHER.md
	$(BIN)/python contracts/scripts/slither.py $(CURDIR)/.venv-slither/bin/slither

.venv-slither/.ready: requirements/slither.lock
	$(PYTHON) -m venv .venv-slither
	.venv-slither/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/slither.lock
	@touch $@

check: setup ## Check style, types, room walls and the contracts' artifacts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy tests benchmarks contracts/scripts examples tools docker
	$(BIN)/lint-imports
	$(BIN)/python tools/house/check.py
	$(BIN)/python tools/house/words.py
	$(BIN)/python tools/house/errors_page.py --check
	$(BIN)/python tools/house/api_page.py --check
	$(BIN)/deptry node learners chain
	$(BIN)/python tools/house/disclosure_page.py --check
	$(BIN)/python contracts/scripts/compile.py --check
	$(BIN)/python docker/generate.py --check

devnet: tools ## Start three sites' Geth and Kubo in ./devnet; `coterie devnet down devnet` ends them
	@$(BIN)/coterie devnet up devnet

bench: setup ## Measure; results go to benchmarks/RESULTS.md by hand, with the machine
	@$(BIN)/python benchmarks/run.py
	@$(BIN)/python benchmarks/tables.py

bench-redis: setup ## Measure the ledger against the same fit over Redis; it wants the program redis-server
	@test -d benchmarks/.venv-redis || { $(PYTHON) -m venv benchmarks/.venv-redis && \
	  benchmarks/.venv-redis/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/redis.txt; }
	@COTERIE_REDIS_PYTHON=benchmarks/.venv-redis/bin/python $(BIN)/python benchmarks/ledger_cost.py 10000 20
	@COTERIE_REDIS_PYTHON=benchmarks/.venv-redis/bin/python $(BIN)/python benchmarks/ledger_cost.py 300000 50 3

bench-survival: setup ## Measure Cox models beside coxph, lifelines and statsmodels on the pooled rows; it wants R
	@test -d benchmarks/.venv-lifelines || { $(PYTHON) -m venv benchmarks/.venv-lifelines && \
	  benchmarks/.venv-lifelines/bin/python -m pip install --quiet --disable-pip-version-check \
	    -r benchmarks/lifelines.txt; }
	@COTERIE_LIFELINES_PYTHON=benchmarks/.venv-lifelines/bin/python $(BIN)/python benchmarks/survival.py
	@$(BIN)/python benchmarks/survival.py common 1000000 60

bench-twin: tools ## Measure what the ledger adds to a round; it wants rabbitmq-server and redis-server (RUNS=30)
	@$(BIN)/python benchmarks/federated_twin.py $(or $(RUNS),30) clique

# Each part of peers.py ends by itself; `make bench-peers RUNS=1` shows that all run.
bench-peers: tools ## Measure the same Newton's method over chains, brokers, Flower, NVFLARE, memory, and pooled engines
	@for part in redis flower nvflare; do \
	  test -d benchmarks/.venv-$$part || { $(PYTHON) -m venv benchmarks/.venv-$$part && \
	    benchmarks/.venv-$$part/bin/python -m pip install --quiet --disable-pip-version-check \
	      -r benchmarks/$$part.txt; } || rm -rf benchmarks/.venv-$$part; done
	@for part in redis flower nvflare; do \
	  test ! -d benchmarks/.venv-$$part || \
	    export COTERIE_$$(echo $$part | tr a-z A-Z)_PYTHON=$(CURDIR)/benchmarks/.venv-$$part/bin/python; done; \
	$(BIN)/python benchmarks/peers.py 10000 20 $(or $(RUNS),5); \
	$(BIN)/python benchmarks/peers.py 300000 50 $(or $(RUNS),3)
	@$(BIN)/python benchmarks/tables.py influenza

bench-mpc: setup ## Measure Secure Lasso and Secure GLM, and other people's packages where they install
	@$(BIN)/python benchmarks/secure_lasso.py
	@$(BIN)/python benchmarks/secure_glm.py
	@test -d benchmarks/.venv-mpyc || { $(PYTHON) -m venv benchmarks/.venv-mpyc && \
	  benchmarks/.venv-mpyc/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/mpyc.txt; } \
	  || rm -rf benchmarks/.venv-mpyc
	@test ! -d benchmarks/.venv-mpyc || for size in "200 3" "1000 5"; do \
	  benchmarks/.venv-mpyc/bin/python benchmarks/mpyc_logistic.py -M3 --no-log $$size; done
	@for part in lasso join; do \
	  test -d benchmarks/.venv-tno-$$part || { $(PYTHON) -m venv benchmarks/.venv-tno-$$part && \
	    benchmarks/.venv-tno-$$part/bin/python -m pip install --quiet --disable-pip-version-check \
	      -r benchmarks/tno_$$part.txt; } || rm -rf benchmarks/.venv-tno-$$part; \
	  test -d benchmarks/.venv-tno-$$part || echo "The paper's packages (tno_$$part.txt) do not install here."; done
	@test ! -d benchmarks/.venv-tno-join || timeout 900 benchmarks/.venv-tno-join/bin/python benchmarks/tno_join.py 50 3
	@test ! -d benchmarks/.venv-tno-lasso || for size in "100 5" "500 10"; do \
	  benchmarks/.venv-tno-lasso/bin/python benchmarks/tno_lasso.py -M3 --no-log $$size; done

ranges: setup ## Run the whole grid of units and ranges of studies with split columns
	COTERIE_WHOLE_GRID=1 $(BIN)/python -m pytest -n 2 tests/learners/vertical/test_unit_changes.py $(ARGS)

references: setup ## Make R's references again where R is installed, and compare them with the stored ones
	$(BIN)/python tools/house/references.py

abi: setup ## Compile the contracts again
	$(BIN)/python contracts/scripts/compile.py

lock: setup ## Pin the newest versions again (hashes, no download addresses)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --all-extras --generate-hashes --upgrade \
	  --no-header --no-annotate --no-emit-index-url --no-emit-find-links --output-file $(LOCK) pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade --no-header \
	  --no-annotate --no-emit-index-url --no-emit-find-links --output-file requirements/slither.lock \
	  requirements/slither.in

lock-images: setup ## Ask a registry for the digests of the container images, and write them into docker/
	$(BIN)/python docker/images.py
	$(BIN)/python docker/generate.py

audit-deps: ## Ask the advisory databases about all pinned packages; docs/dependencies.md answers each finding
	$(PYTHON) tools/house/audit_deps.py

wheel: setup ## Build the wheel, install it into an empty environment, and use it there
	$(BIN)/python tools/house/wheel.py

previous: setup ## Build an earlier release and a bundle of each learner by it, and verify these: COMMIT=0.2.0 INTO=folder
	$(BIN)/python tools/house/previous_release.py $(COMMIT) $(INTO)

mutants: setup ## Plant small faults and require that the tests near them fail
	$(BIN)/python tools/house/mutants.py

clean: ## Remove what setup installed
	rm -rf $(VENV) .venv-slither contracts/node_modules tests/web_browser/node_modules
