# The commands of this project. The first use of one sets up .venv with what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: serve test check fmt bench clean

serve: $(VENV)/.serve  ## start the service on the default encoder
	$(BIN)/viola serve

test: $(VENV)/.dev  ## run the tests
	$(BIN)/pytest --cov --cov-report=term:skip-covered

check: $(VENV)/.dev  ## what CI runs: linters, types, import rules, tests
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) test

fmt: $(VENV)/.dev  ## format, and fix what can be fixed
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

bench: $(VENV)/.dev  ## the benchmarks that need no data of their own
	$(BIN)/python benchmarks/logmel.py
	$(BIN)/python benchmarks/exactness.py
	$(BIN)/python benchmarks/embedding.py

clean:  ## remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .coverage

# The service's environment never needs torch; the developer's has everything.
$(VENV)/.serve: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable ".[service,media]"
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable ".[service,media,training,dev]"
	touch $@ $(VENV)/.serve

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
