# `make` prints this list. PYTHON=… names the interpreter (3.11 or later), ARGS=… is passed on.

.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# Compiled kernels outlive the checkout: a second clone, or `git clean`, does not compile again.
NUMBA_CACHE_DIR ?= $(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),$(HOME)/.cache)/dgdm/numba
export NUMBA_CACHE_DIR PYTHON

.PHONY: help setup demo test check docs bench soak mutants up clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' Makefile

setup: $(INSTALLED)  ## .venv with the project in it; done by the others when needed

$(INSTALLED): pyproject.toml constraints.txt .ci/make-venv
	@.ci/make-venv $(VENV)
	@touch $@

demo: $(INSTALLED)  ## a year of flights through the whole pipeline, a kill -9 in the middle, a certificate
	$(BIN)/dgdm demo $(ARGS)

test: $(INSTALLED)  ## all tests; what this machine lacks is skipped, and said (ARGS="-k worker")
	$(BIN)/python -m pytest $(ARGS)

check: $(INSTALLED)  ## style, types, and the tests about the repository itself
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/house

docs: $(INSTALLED)  ## the pages and JSON Schemas that are made of the code and of results
	$(BIN)/python -m docs

bench: $(INSTALLED)  ## one benchmark, the pipeline's unless ARGS names another (ARGS="kernel --json")
	$(BIN)/python -m benchmarks $(or $(ARGS),pipeline)

soak: $(INSTALLED)  ## everything at once, for long, with real Kafka and Redis (MINUTES=20); SIGKILLs under load (KILLS=50)
	$(BIN)/python -m benchmarks soak --json $(if $(MINUTES)$(KILLS),,--minutes 20) \
	  $(if $(MINUTES),--minutes $(MINUTES)) $(if $(KILLS),--kills $(KILLS)) $(ARGS)

mutants: $(INSTALLED)  ## each known mistake turns its test red
	$(BIN)/python tests/mutants $(ARGS)

up: $(INSTALLED)  ## everything embedded, on this machine, no server (ARGS="--features 8")
	$(BIN)/dgdm up $(ARGS)

clean:  ## remove .venv, caches and build folders; graphs in .dgdm stay
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
