# `make` alone lists what there is. ARGS goes to the program behind a target: make demo ARGS=--json

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
# Of the packages that tests need, those that have no part in what is tried with other versions of the dependencies.
TEST_PACKAGES := pytest pytest-timeout hypothesis jsonschema trustme 'confluent-kafka[avro,json,protobuf]' cloudevents
# What users may install beside the dependencies; its versions are tried as well.
EXTRAS := avro json-schema otel protobuf
# Processes that share the tests out, each with a broker of its own; most tests wait more than they compute.
JOBS ?= 6

BIN := $(VENV)/bin
comma := ,
space := $() $()
INSTALLED := $(VENV)/.installed

.PHONY: help
help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

.PHONY: venv
venv: $(INSTALLED) ## Make the virtual environment with the project and its tools

$(INSTALLED): pyproject.toml
	@echo "Installing into $(VENV) ..." >&2
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

.PHONY: demo
demo: $(INSTALLED) ## Show the connector at work against a real broker and a simulated platform (--json: sums as JSON)
	@$(BIN)/trackly-connector demo $(ARGS)

.PHONY: test
test: $(INSTALLED) ## Run all tests; those that need Kafka start a broker by Java and Maven, or by Docker
	@$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

SEED ?= 7
MINUTES ?= 5

.PHONY: chaos
chaos: $(INSTALLED) ## Disturb a running system, then hold its results against the ledger: make chaos SEED=7 MINUTES=5
	@$(BIN)/python -m tests.chaos --seed $(SEED) --minutes $(MINUTES) $(ARGS)

.PHONY: bench
bench: $(INSTALLED) ## Measure speed beside a raw loop and a hand-written consumer, some 20 minutes (--quick, --only, --json)
	@$(BIN)/python -m benchmarks $(ARGS)

.PHONY: bench-latency
bench-latency: $(INSTALLED) ## Measure latency, start-up and idle cost, some 5 minutes (--quick, --json)
	@$(BIN)/python -m benchmarks.latency $(ARGS)

.PHONY: check
check: $(INSTALLED) ## Run what CI runs beside the tests: linters, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: tools
tools: $(INSTALLED) ## Build the programs of the tests that come as Go modules (Helm, actionlint) into a cache, once
	@$(BIN)/python -m tests.kit.go_tools

LOCK := $(BIN)/uv --quiet pip compile --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate \
	--custom-compile-command "make lock"

.PHONY: lock
lock: $(INSTALLED) ## Pin what the image installs, with hashes, at the latest versions that pyproject.toml allows
	@$(LOCK) $(EXTRAS:%=--extra %) pyproject.toml --output-file deploy/docker/requirements.txt
	@$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"])' \
		| $(LOCK) - --output-file deploy/docker/build-requirements.txt

.PHONY: dist
dist: $(INSTALLED) ## Build the sdist, and from it the wheel, into dist/
	@rm -rf dist
	@$(BIN)/python -m build --no-isolation --outdir dist .

TAG ?=

.PHONY: release-check
release-check: $(INSTALLED) ## Tell whether version, changelog, chart and schemas agree on a release: TAG=v0.1.0
	@RELEASE_TAG="$(TAG)" $(BIN)/python -m pytest -q tests/release/test_version.py

# What a change of a dependency would break first: decoding, formats, settings, both clients, traces, the commands, the
# pages, and a stream on a broker. Not the printed pages: how pydantic spells a bound is no matter of ours. Nor a browser.
BOUNDS_TESTS ?= tests/core tests/config tests/shaping tests/trackly tests/kafka tests/telemetry tests/simulator \
	tests/cli tests/console tests/app tests/stream tests/e2e/test_delivery.py tests/e2e/test_traces.py \
	--ignore tests/config/test_reference.py --ignore tests/console/test_browser.py

.PHONY: test-lowest
test-lowest: RESOLUTION := lowest-direct
test-lowest: test-bound ## Try the lowest versions of the dependencies that pyproject.toml allows, in an environment of their own

.PHONY: test-latest
test-latest: RESOLUTION := highest
test-latest: test-bound ## Try the latest versions of the dependencies that pyproject.toml allows

.PHONY: test-bound
test-bound: $(INSTALLED)
	@mkdir -p build
	@$(BIN)/uv --quiet pip compile --resolution $(RESOLUTION) $(EXTRAS:%=--extra %) pyproject.toml \
		--output-file build/$(RESOLUTION).txt
	@$(BIN)/uv --quiet venv --clear --python $(BIN)/python build/$(RESOLUTION)
	@$(BIN)/uv pip install --python build/$(RESOLUTION) --constraints build/$(RESOLUTION).txt \
		-e '.[$(subst $(space),$(comma),$(EXTRAS))]' $(TEST_PACKAGES)
	@build/$(RESOLUTION)/bin/python -m pytest -q $(BOUNDS_TESTS) $(ARGS)

.PHONY: reference
reference: $(INSTALLED) ## Regenerate the pages of docs/reference and the schemas
	$(BIN)/python -m reference

.PHONY: docs
docs: $(INSTALLED) ## Build the documentation as a site in build/site; a warning is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

.PHONY: clean
clean: ## Remove the virtual environment and everything that is built or cached
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage htmlcov
	find connector reference tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
