# Needs Python 3.11 or newer, make and pip. Everything it makes lies in this folder.

PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
BIN := .venv/bin
READY := .venv/.installed
SOURCES := mesh agents tests notebooks

# Recorded telemetry, used when it lies beside the project; else the generator stands in.
RECORDED := $(wildcard ../shared/data/milan-hourly)
TELEMETRY := $(if $(RECORDED),--telemetry $(RECORDED))

.DEFAULT_GOAL := help

.PHONY: help
help: ## Print this help.
	@grep -hE '^[a-z.]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z.]+):.*## (.*)/  make \1|\2/' | \
		while IFS='|' read -r target text; do printf '%-14s %s\n' "$$target" "$$text"; done

.PHONY: demo
demo: $(READY) ## Run a mesh of seven sites and watch it; Ctrl-C stops it, FOR=30s stops it by itself.
	@$(BIN)/mesh up topologies/metro.yaml $(TELEMETRY) $(if $(FOR),--for $(FOR))

.PHONY: test
test: $(READY) ## Run all tests.
	@mkdir -p build
	@$(BIN)/python -m pytest --basetemp=build/pytest

.PHONY: lint
lint: $(READY) ## Check style, types and import layers.
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

.PHONY: bench
bench: $(READY) ## Measure decision latency, as ratios within one run.
	@$(BIN)/mesh bench latency --json

.PHONY: clean
clean: ## Remove everything made here, the environment included; a running mesh is stopped first.
	@for machine in .mesh/*/machine.json; do \
		if [ -e "$$machine" ] && [ -x $(BIN)/mesh ]; then $(BIN)/mesh down --state "$${machine%/machine.json}"; fi; \
	done
	rm -rf .venv .mesh .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist

.venv: $(READY) ## Make the environment with the packages of constraints.txt.

$(READY): pyproject.toml $(wildcard constraints.txt)
	@command -v $(PYTHON) >/dev/null || { echo "there is no $(PYTHON); install Python 3.11 or newer" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is $$($(PYTHON) -V 2>&1); Python 3.11 or newer is needed: make PYTHON=python3.11" >&2; exit 1; }
	@echo "installing packages into .venv; this takes a few minutes the first time"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(CONSTRAINTS),-c $(CONSTRAINTS)) -e '.[dev]'
	@touch $@
