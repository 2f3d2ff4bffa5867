# Everything from a fresh clone with Python 3.11+, pip and make alone.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PYTEST := $(BIN)/python -m pytest
WORKERS ?= 2
# what is compiled once is not compiled again by each of the hundreds of processes that tests start
unexport PYTHONDONTWRITEBYTECODE
PARALLEL = -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: help demo worker-demo test check format campaign docs docs-retail schema lock clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "recstore needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ...")'
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.demo: $(VENV)/bin/python requirements/demo.txt pyproject.toml
	@echo "installing the locked dependencies into $(VENV): once, about a minute"
	@$(PIP) install --quiet --require-hashes -r requirements/demo.txt
	@$(PIP) install --quiet --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python requirements/dev.txt pyproject.toml
	@echo "installing the locked development dependencies into $(VENV): once, about a minute"
	@$(PIP) install --quiet --require-hashes -r requirements/dev.txt
	@$(PIP) install --quiet --no-deps --no-build-isolation -e .
	@touch $@ $(VENV)/.demo

demo: $(VENV)/.demo  ## the main job on real data, on the embedded PostgreSQL
	@$(BIN)/recstore demo

worker-demo: $(VENV)/.demo  ## a shop's year in a minute: beat and a worker retrain, a reader asks, each change is told
	@$(BIN)/recstore worker-demo

check: $(VENV)/.dev  ## format, lint, import rules, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

test: check  ## check, every test on PostgreSQL 18, the contract subset on 16
	$(PYTEST) $(PARALLEL) -m "not campaign"
	RECSTORE_TEST_POSTGRES=16 $(PYTEST) $(PARALLEL) -m "contract and not campaign"

campaign: $(VENV)/.dev  ## the long forms: everything on both versions, large catalogues, the workers' chaos again and again
	RECSTORE_TEST_POSTGRES=18 $(PYTEST) $(PARALLEL)
	RECSTORE_TEST_POSTGRES=16 $(PYTEST) $(PARALLEL)
	for round in 2 3; do $(PYTEST) $(PARALLEL) tests/worker || exit 1; done

format: $(VENV)/.dev  ## format the code and mend what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.dev  ## write docs/settings.md and docs/cli.md anew from the code
	$(BIN)/python docs/generate.py

docs-retail: $(VENV)/.demo  ## write the reports of docs/retail.md into docs/retail/, ten minutes
	$(BIN)/python docs/retail.py

schema: $(VENV)/.dev  ## dump recstore's own schemas, as the migrations make them, to migrations/schema.sql
	$(BIN)/python tests/schema_dump.py

COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	--no-annotate pyproject.toml requirements/build.in
lock: $(VENV)/.dev  ## resolve the dependencies anew into requirements/*.txt
	$(COMPILE) --upgrade -o requirements/core.txt
	$(COMPILE) --upgrade --extra embedded -o requirements/demo.txt
	$(COMPILE) --upgrade --extra embedded --extra dev -o requirements/dev.txt
	$(COMPILE) --upgrade --extra gpu -o requirements/gpu.txt

clean:  ## stop the embedded server; remove what was installed and made here
	-@[ ! -x $(BIN)/recstore ] || $(BIN)/recstore stop
	rm -rf $(VENV) .recstore build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
