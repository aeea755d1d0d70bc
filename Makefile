# Two commands a newcomer needs: `make demo` and `make test`. `make help` lists the rest.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PLUGINS := $(wildcard plugins/*)
SEED   ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast test-notorch check format schemas bench wheel clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

setup: $(VENV)/.ready  ## .venv with everything, pinned by constraints.txt, kernels compiled

$(VENV)/.ready: pyproject.toml constraints.txt $(PLUGINS:%=%/pyproject.toml)
	@echo "$(VENV): torch, the package, its plugins, compiled kernels; a few minutes the first time"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[torch,pettingzoo,dev]' stable-baselines3
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(PLUGINS:%=-e %)
	$(BIN)/townlet-train town warm-up
	touch $@

demo: setup  ## capture the expert, clone it, anneal, gate, promote, compare them all on held-out seeds
	$(BIN)/townlet-train demo --output-dir demo --seed $(SEED) --overwrite

test: setup  ## the whole suite
	$(BIN)/python -m pytest -n 2

test-fast: setup  ## the suite without what takes long
	$(BIN)/python -m pytest -n 2 -m 'not slow'

test-notorch: .venv-notorch/.ready  ## everything that must work without torch, in an environment that has none
	.venv-notorch/bin/python -m pytest -n 2 -m 'not torch'

.venv-notorch/.ready: pyproject.toml constraints.txt $(PLUGINS:%=%/pyproject.toml)
	$(PYTHON) -m venv .venv-notorch
	.venv-notorch/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[pettingzoo,dev]'
	.venv-notorch/bin/python -m pip install --quiet --disable-pip-version-check --no-deps $(PLUGINS:%=-e %)
	touch $@

check: setup  ## ruff, mypy --strict, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup  ## let ruff lay the code out
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

schemas: setup  ## renew docs/schemas, and add golden files of new versions
	$(BIN)/python -m tests.golden_files

bench: setup  ## every speed we claim, measured here, beside what it is compared with
	$(BIN)/python -m benchmarks

wheel: setup  ## build the wheel into dist/
	$(BIN)/python -m pip wheel --quiet --no-deps -w dist .

clean:  ## remove what make made
	rm -rf .venv .venv-notorch .venv-imitation dist demo
