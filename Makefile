# Verbs of the project. `make` alone lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
unexport PYTHONDONTWRITEBYTECODE  # tests and examples start a hundred interpreters: they share what one compiled
PYTEST_ARGS ?= -m 'not slow'
# The tests that skip where an extra is missing, and the extras that they need.
EXTRA_TESTS := tests/minimize tests/torch tests/optuna tests/solvers/test_cones.py \
	tests/search/test_sql.py tests/search/test_executors.py tests/search/test_cma.py
EXTRAS := torch,tensorflow,optuna,sql,dask,cones
# What tests of extras look at beside them: pages and samplers of Optuna.
EXTRA_PEERS := cmaes matplotlib plotly optuna-dashboard

.DEFAULT_GOAL := help
.PHONY: help install demo test test-extras test-servers check docs bench

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## a virtual environment with Nestor in it, editable; does nothing the second time

demo: install ## one L2 strength per weight on the digits: a table, a picture and a record in runs/
	$(BIN)/nestor demo

test: install ## every test but the slow ones, two at a time (PYTEST_ARGS= runs all, PYTEST_ARGS="-k floors" some)
	$(BIN)/python -m pytest -n 2 --dist worksteal $(PYTEST_ARGS)

test-extras: .venv-extras/.installed ## what needs an extra (PyTorch, TensorFlow, Optuna ...), in an environment of its own
	.venv-extras/bin/python -m pytest -n 2 --dist worksteal $(PYTEST_ARGS) $(wildcard $(EXTRA_TESTS))

test-servers: .venv-extras/.installed ## studies in a PostgreSQL that is started for that, and installed if need be (Debian, root)
	tests/servers/postgresql .venv-extras/bin/python -m pytest $(PYTEST_ARGS) tests/search/test_sql.py tests/search/test_kills.py tests/dashboard/test_database.py tests/optuna/test_database.py

check: install ## format, lint, floors, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/pyright

# The live page over studies: its server, and the page itself in a real browser.
EXTRA_TESTS += tests/dashboard/test_server.py
EXTRAS := $(EXTRAS),dashboard
.PHONY: test-chromium
test-chromium: .venv-extras/.installed ## the dashboard in a real headless Chromium, which is installed where that is allowed
	@.ci/chromium
	.venv-extras/bin/python -m pytest tests/dashboard/test_page.py

docs: $(VENV)/.installed-docs ## the documentation into docs/_build; a warning is an error
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build

bench: $(VENV)/.installed-peers ## every claim against its peer, one line of JSON each
	@set -e; for claim in benchmarks/[!_]*.py; do $(BIN)/python "$$claim"; done

# Stamps: an environment is made again only when what it is made of has changed.
$(VENV)/.installed: pyproject.toml constraints.txt
	@command -v $(PYTHON) > /dev/null || { \
	  echo "Nestor needs Python 3.11 or newer, and there is no '$(PYTHON)' here: make PYTHON=/path/to/python3.11 install" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Nestor needs Python 3.11 or newer, and '$(PYTHON)' is $$($(PYTHON) -V 2>&1): make PYTHON=/path/to/python3.11 install" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e '.[test,demo,plots,optax]'
	@touch $@

.venv-extras/.installed: pyproject.toml constraints.txt Makefile
	$(PYTHON) -m venv .venv-extras
	.venv-extras/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]' pytest pytest-xdist $(EXTRA_PEERS)
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(INSTALL) -e '.[docs]'
	@touch $@

$(VENV)/.installed-peers: $(VENV)/.installed
	$(INSTALL) -e '.[peers,cutest,dashboard]'
	@touch $@
