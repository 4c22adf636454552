# Set up once, then: `make demo` shows what it does, `make test` tests it, `make check` is the gate.
PYTHON ?= python3.11
VENV   ?= .venv
BIN    := $(VENV)/bin

ORACLE ?= .venv-oracle

.PHONY: demo test check oracle fixtures docs clean

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@

demo: $(VENV)/.ready  ## scan a clean and a poisoned adapter through an embedded hub
	@$(BIN)/python -m fixtures.demo

test: $(VENV)/.ready  ## run the tests
	$(BIN)/python -m pytest

check: $(VENV)/.ready  ## the gate: format, lint, types, import contracts, fixtures, docs, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m fixtures.build --check
	$(BIN)/python docs/build.py --check
	$(BIN)/python -m pytest

$(ORACLE)/.ready: pyproject.toml
	$(PYTHON) -m venv $(ORACLE)
	$(ORACLE)/bin/pip install --quiet --editable '.[oracle]'
	@touch $@

oracle: $(ORACLE)/.ready  ## hold our reading of adapters against PEFT itself (needs torch; minutes)
	OMP_NUM_THREADS=1 $(ORACLE)/bin/python -m pytest -W ignore tests/oracle

fixtures: $(VENV)/.ready  ## regenerate fixtures/adapters
	$(BIN)/python -m fixtures.build

docs: $(VENV)/.ready  ## regenerate the pages that come from code
	$(BIN)/python docs/build.py

clean:
	rm -rf $(VENV) $(ORACLE) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
