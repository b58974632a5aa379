# `make` alone lists what there is. ARGS goes to the program behind a target: make demo ARGS=--json

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
# Processes that share the tests out, each with a broker of its own; most tests wait more than they compute.
JOBS ?= 2

BIN := $(VENV)/bin
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
bench-latency: $(INSTALLED) ## Measure latency, start-up and idle cost, some 3 minutes (--quick, --json)
	@$(BIN)/python -m benchmarks.latency $(ARGS)

.PHONY: check
check: $(INSTALLED) ## Run what CI runs beside the tests: linters, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: reference
reference: $(INSTALLED) ## Write the generated pages of docs/reference anew
	$(BIN)/python -m connector.config.reference page > docs/reference/settings.md
	$(BIN)/python -m connector.reference

.PHONY: docs
docs: $(INSTALLED) ## Build the documentation as a site in build/site; a warning is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

.PHONY: schemas
schemas: $(INSTALLED) ## Write the generated schemas anew
	$(BIN)/python -m connector.config.reference schema > schemas/settings.v1.schema.json

.PHONY: clean
clean: ## Remove the virtual environment and everything that is built or cached
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage htmlcov
	find connector tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
