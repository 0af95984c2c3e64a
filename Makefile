# The whole life of a checkout. `make run` starts the local stack, `make test` runs everything against it.
# Needs make and Python >= 3.11; everything else lands in .venv and .local (EXTPROC_HOME).

SHELL := /bin/bash -euo pipefail
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
CONFIG := envoy/gateway.yaml
LOCK := requirements/dev.txt
PROTOS := $(shell find protos -name '*.proto')
# A module in one process, so that its gateway starts once; in the order of the tree, long tests first.
PYTEST_SHARED := -n 2 --dist loadfile --no-loadscope-reorder

PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PIP_COMPILE = CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe \
	--strip-extras --no-emit-index-url --no-emit-trusted-host --no-emit-find-links pyproject.toml

.PHONY: help run test check bench protos models lock clean distclean

help: ## show this list
	@awk -F':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

run: $(VENV)/.installed models ## start the local stack and print a curl that works
	exec $(BIN)/extproc up --config $(CONFIG)

test: $(VENV)/.installed models ## run every test, against real Envoy, Redis and Triton
	$(BIN)/python -m pytest $(PYTEST_SHARED) $(PYTEST_FLAGS)

check: $(VENV)/.installed ## lint, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy extproc tests/helpers

bench: $(VENV)/.installed models ## measure, side by side with a no-op processor
	$(BIN)/python tests/benchmarks/run.py

protos: extproc/_pb/__init__.py ## compile protos/ to extproc/_pb

models: $(VENV)/.installed ## build the encoder's ONNX graph (nothing to do the second time)
	$(BIN)/extproc models build

lock: $(VENV)/.dependencies ## resolve pyproject.toml into requirements/*.txt again
	$(PIP_COMPILE) --extra cpu --extra stack --extra dev --output-file requirements/dev.txt
	$(PIP_COMPILE) --extra cpu --constraint requirements/dev.txt --output-file requirements/cpu.txt
	$(PIP_COMPILE) --extra gpu --constraint requirements/dev.txt --output-file requirements/gpu.txt
	$(PIP_COMPILE) --extra cpu --extra image --constraint requirements/dev.txt --output-file requirements/image.txt

clean: ## remove what was built here, save .venv and .local
	rm -rf build dist extproc/_pb .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find extproc tests protos -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## remove .venv and .local too
	rm -rf $(VENV) .local

# A shim on PATH may be there and still not run, so each candidate is asked for its version.
$(VENV)/.python:
	@rm -rf $(VENV); \
	for candidate in $(PYTHON) python3.13 python3.12 python3.11 python3; do \
	  "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	  if ! "$$candidate" -c 'import ensurepip, venv' 2>/dev/null; then \
	    lacking="$$candidate"; continue; \
	  fi; \
	  echo "making $(VENV) with $$("$$candidate" --version)"; \
	  "$$candidate" -m venv $(VENV) && touch $@ && exit 0; \
	done; \
	if [ -n "$${lacking:-}" ]; then \
	  echo "$$lacking cannot make virtual environments: install its venv module (Debian: python3-venv)" >&2; \
	else \
	  echo "no Python >= 3.11 found: install one, or name it (make PYTHON=/path/to/python3.12)" >&2; \
	fi; \
	exit 1

$(VENV)/.dependencies: $(VENV)/.python $(LOCK)
	@echo "installing $(LOCK)"
	$(PIP) install --require-hashes -r $(LOCK)
	@touch $@

$(VENV)/.installed: $(VENV)/.dependencies pyproject.toml extproc/_pb/__init__.py
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

extproc/_pb/__init__.py: $(VENV)/.dependencies protos/build.py $(PROTOS)
	$(BIN)/python protos/build.py
