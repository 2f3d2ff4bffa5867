# Everything from a fresh clone with Python 3.11+, pip and make alone.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PYTEST := $(BIN)/python -m pytest
# more than the cores: tests of workers and servers mostly wait
WORKERS ?= 3
# the contract subset also runs on these; 18 is tested by `make test`
CONTRACT_VERSIONS ?= 16
# what is compiled once is not compiled again by each of the hundreds of processes that tests start
unexport PYTHONDONTWRITEBYTECODE
# the tutorials: examples/README.md
EXAMPLES = example-learning_platform example-play_counts example-likes example-jokes
PARALLEL = -n $(WORKERS) --dist worksteal

.PHONY: help demo worker-demo $(EXAMPLES) test tests statistical contract chart check format campaign coverage mutants bench bench-full quality stacks sentences docs docs-retail site schema build lock clean

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

# Helm as a library, and Kubernetes' schemas: 100 MB that only the tests of the chart need
$(VENV)/.chart: $(VENV)/.dev requirements/chart.txt
	@$(PIP) install --quiet --require-hashes -r requirements/chart.txt
	@touch $@

demo: $(VENV)/.demo  ## the main job on real data, on the embedded PostgreSQL
	@$(BIN)/recstore demo

worker-demo: $(VENV)/.demo  ## a shop's year in a minute: beat and a worker retrain while a reader asks
	@$(BIN)/recstore worker-demo

$(EXAMPLES): example-%: $(VENV)/.demo
	@$(BIN)/python -m examples.$* $(OPTIONS)

check: $(VENV)/.dev  ## format, lint, spelling, import rules, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell
	$(BIN)/lint-imports
	$(BIN)/mypy

# side by side: the checks use one core, and tests wait for servers
test: $(VENV)/.dev  ## check, and every test on PostgreSQL 18
	@$(MAKE) --no-print-directory --jobs=2 check tests

tests: $(VENV)/.dev
	$(PYTEST) $(PARALLEL) -m "not campaign and not statistical"

statistical: $(VENV)/.dev  ## trainings whose metrics must lie in a band: after a change of model/ or evaluation/, and in CI
	$(PYTEST) $(PARALLEL) -m "statistical and not campaign"

contract: $(VENV)/.dev  ## the contract subset on older PostgreSQL versions
	for version in $(CONTRACT_VERSIONS); do \
		RECSTORE_TEST_POSTGRES=$$version $(PYTEST) $(PARALLEL) -m "contract and not campaign" || exit 1; done

chart: $(VENV)/.chart  ## the Helm chart: rendered, and checked against Kubernetes' schemas
	$(PYTEST) tests/docs/test_chart.py

campaign: $(VENV)/.dev coverage mutants  ## the long forms on both versions, the workers' chaos again, coverage, mutants
	RECSTORE_TEST_HYPOTHESIS=thorough RECSTORE_TEST_POSTGRES=18 $(PYTEST) $(PARALLEL)
	RECSTORE_TEST_HYPOTHESIS=thorough RECSTORE_TEST_POSTGRES=16 $(PYTEST) $(PARALLEL)
	for round in 2 3; do $(PYTEST) $(PARALLEL) tests/worker || exit 1; done

coverage: $(VENV)/.dev  ## coverage by branch, of subprocesses too
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(PARALLEL) -m "not campaign"
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

mutants: $(VENV)/.dev  ## mutation testing of the modelling, the measures and the flip, or of MUTANTS='recstore.model.filters*'
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/mutmut run --max-children $(WORKERS) $(MUTANTS)
	$(BIN)/mutmut results

$(VENV)/.bench: $(VENV)/.dev  # pandas: for the pipeline that recstore is compared with
	$(PIP) install --quiet pandas
	@touch $@

bench: $(VENV)/.bench  ## the job next to other ways, a million interactions; live answers, as ratios; writes docs/performance.md
	for script in expand job serving fold_in exclusions filters wake_up; do $(BIN)/python benchmarks/$$script.py || exit 1; done
	$(BIN)/python benchmarks/performance.py

bench-full: bench  ## the same on 10 million interactions, and recstore's job alone on up to 100 million: hours
	$(BIN)/python benchmarks/expand.py --interactions 1000000 10000000
	$(BIN)/python benchmarks/job.py --interactions 10000000
	$(BIN)/python benchmarks/serving.py --full
	$(BIN)/python benchmarks/job.py --growth 1000000 3000000 10000000 30000000 100000000
	$(BIN)/python benchmarks/performance.py

quality: $(VENV)/.dev  ## recall and NDCG on the public splits in SPLITS=directory, after an hour of search each; budgets of a search
	$(BIN)/python benchmarks/tuning.py
	$(BIN)/python benchmarks/quality.py "$(SPLITS)"
	$(BIN)/python benchmarks/performance.py

stacks: $(VENV)/.dev  ## the integrations of examples/stacks, with the packages that they need
	$(PIP) install --quiet fastapi httpx flask django
	cd examples/stacks && npm install --silent --no-save --no-package-lock pg
	$(PYTEST) tests/docs/test_stacks.py

sentences: $(VENV)/.dev  ## write tests/golden/sentences.txt again: every sentence that users read
	$(BIN)/python tests/golden/sentences.py

format: $(VENV)/.dev  ## format the code and fix what lint can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.dev  ## write docs/settings.md and docs/cli.md again from the code
	$(BIN)/python docs/generate.py

docs-retail: $(VENV)/.demo  ## write the reports of docs/retail.md into docs/retail/, ten minutes
	$(BIN)/python docs/retail.py

build/.site: requirements/docs.txt
	@$(PYTHON) -m venv --clear build/site-venv
	@build/site-venv/bin/pip --disable-pip-version-check install --quiet --require-hashes -r requirements/docs.txt
	@touch $@

site: build/.site  ## the documentation as a site in build/site: links and anchors are checked, and that it needs no other host
	NO_MKDOCS_2_WARNING=1 build/site-venv/bin/mkdocs build --strict
	! grep -rE '(src|<link [^>]*href)="?https?://' build/site --include='*.html'

schema: $(VENV)/.dev  ## dump recstore's own schemas, as the migrations make them, to migrations/schema.sql
	$(BIN)/python tests/schema_dump.py

build: $(VENV)/.dev  ## the wheel and the source archive in dist/
	$(BIN)/python -m build --no-isolation

LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	--no-annotate
COMPILE := $(LOCK) pyproject.toml requirements/build.in
lock: $(VENV)/.dev  ## resolve the newest dependencies into requirements/*.txt
	$(COMPILE) --upgrade -o requirements/core.txt
	$(COMPILE) --upgrade --extra worker --extra tuning --extra reports -o requirements/worker.txt
	$(COMPILE) --upgrade --extra all -o requirements/demo.txt
	$(COMPILE) --upgrade --extra dev -o requirements/dev.txt
	$(COMPILE) --upgrade --extra gpu --extra tuning --extra reports --extra otel -o requirements/gpu.txt
	$(LOCK) --upgrade requirements/chart.in --constraint requirements/dev.txt -o requirements/chart.txt
	$(LOCK) --upgrade requirements/docs.in -o requirements/docs.txt

clean:  ## stop the embedded server; remove what was installed and made here
	-@[ ! -x $(BIN)/recstore ] || $(BIN)/recstore stop
	rm -rf $(VENV) .recstore build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache \
		.coverage .coverage.* mutants examples/*/output examples/stacks/node_modules
