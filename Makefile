# Everything happens in .venv of this checkout. `make` alone lists the commands.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One more than there are cores, because many tests wait for other processes.
WORKERS = $(shell $(PYTHON) -c 'import os; print((os.cpu_count() or 1) + 1)')

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help quickstart assets test test-fast bench check docs clean

help: ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## /  make \1|/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'

quickstart: $(VENV)/.installed ## install, fetch the checkpoint, train and evaluate the dish classifier
	$(BIN)/python tools/assets.py --only efficientnet-lite0
	$(BIN)/hf-finetune run recipes/quickstart.yaml

assets: $(VENV)/.installed ## fetch every checkpoint and data set of the examples and tests
	$(BIN)/python tools/assets.py

test: $(VENV)/.installed-dev ## install, fetch the assets and run every test
	$(BIN)/python tools/assets.py
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test-fast: $(VENV)/.installed-dev ## install and run the unit tests but the slow ones, offline and without the assets
	$(BIN)/python -m pytest tests/unit -m "not slow and not network" -n auto --dist loadfile --no-loadscope-reorder

bench: $(VENV)/.installed-bench ## run the benchmarks, which takes more than an hour, and write benchmarks/RESULTS.md
	$(BIN)/python tools/assets.py
	$(BIN)/python -m benchmarks

check: $(VENV)/.installed-dev ## lint, format, types, imports between folders, names and docstrings, and the tables of docs/recipe.md
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/mypy tools/*.py
	$(BIN)/mypy benchmarks
	$(BIN)/lint-imports
	$(BIN)/python tools/check_rules.py
	$(BIN)/python tools/check_api.py
	$(BIN)/python tools/recipe_tables.py --check

docs: $(VENV)/.installed-dev ## write the generated tables of docs/ and README.md again
	$(BIN)/python tools/recipe_tables.py
	$(BIN)/python tools/bad_inputs_table.py
	$(BIN)/python tools/mutations.py --page

clean: ## remove .venv, the assets and all caches; runs/ stays
	rm -rf $(VENV) assets build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One call of pip each, so that torch, torchvision and timm are resolved together.
$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check -e .
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[dev]'
	touch $(VENV)/.installed $@

$(VENV)/.installed-bench: pyproject.toml benchmarks/requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check -e . -r benchmarks/requirements.txt
	touch $(VENV)/.installed $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is required. Got: $$($(PYTHON) --version 2>&1). Select one: make PYTHON=python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
