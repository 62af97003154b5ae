# The doors of coflex. "make run" runs a day, "make test" checks everything; both set up what they need in .venv.

GRID ?= 1-MV-urban--0-sw
DAY  ?= 2016-07-05
CASE ?= cases/$(GRID)-$(DAY)
PARTS ?=

VENV := .venv
BIN  := $(VENV)/bin
PIP  := $(BIN)/python -m pip --quiet --disable-pip-version-check --no-input
# The package itself: editable, with what the lock has already brought.
COFLEX := $(BIN)/coflex
SELF := $(PIP) install --no-deps --no-build-isolation -e .
# pip's own choice of addresses never enters a lock.
LOCK := $(BIN)/uv pip compile --quiet --generate-hashes --python-version 3.11 --no-emit-index-url --no-header --upgrade

.PHONY: help run test test-all check fuzz bench requirements lock clean

help:
	@echo "make run           run a day on the grid $(GRID) and write its report to out/"
	@echo "make test          check the code and run the tests"
	@echo "make test-all      the same with the slow tests"
	@echo "make fuzz          look for bodies and tables that break a reader, for some minutes"
	@echo "make bench         time it all, each beside what it is to be compared with, into docs/benchmarks.md"
	@echo "                   (three quarters of an hour; PARTS=\"city run\" times these anew, the others stay)"
	@echo "make requirements  write docs/requirements.md from the marks of the tests"
	@echo "make lock          choose the versions of all dependencies anew"
	@echo "make clean         take away what make has set up (cases and outcomes stay)"

run: $(VENV)/run.stamp $(CASE)/case.yaml
	@$(COFLEX) run $(CASE)

$(CASE)/case.yaml: | $(VENV)/run.stamp
	@$(COFLEX) case make --grid $(GRID) --day $(DAY) --out $(CASE)

test: check
	@$(BIN)/python -m pytest -n 2 -m "not slow"

test-all: check $(VENV)/spark.stamp
	@$(BIN)/python -m pytest -n 2

check: $(VENV)/test.stamp
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports
	@$(BIN)/mypy

fuzz: $(VENV)/test.stamp
	@$(BIN)/python tests/fuzz/run.py

bench: $(VENV)/run.stamp $(CASE)/case.yaml
	@$(BIN)/python bench/suite.py $(CASE) $(PARTS)

requirements: $(BIN)/python
	@$(BIN)/python tools/requirements.py

lock: $(VENV)/bin/python
	@$(PIP) install uv
	@printf 'hatchling\neditables\n' | $(LOCK) --extra grids pyproject.toml - -o requirements/run.txt
	@printf 'hatchling\neditables\n' | $(LOCK) --extra grids --extra cluster --extra dev -c requirements/run.txt pyproject.toml - -o requirements/test.txt
	@printf 'pyspark==4.0.5\n' | $(LOCK) -c requirements/test.txt - -o requirements/spark.txt

clean:
	@rm -rf $(VENV)

# ---- what make sets up

$(VENV)/run.stamp: requirements/run.txt pyproject.toml | $(BIN)/python
	@echo "Installing what coflex needs (once, a few minutes) ..."
	@$(PIP) install --require-hashes -r requirements/run.txt
	@$(SELF)
	@touch $@

$(VENV)/test.stamp: requirements/test.txt pyproject.toml | $(BIN)/python
	@echo "Installing what coflex and its tests need (once, a few minutes) ..."
	@$(PIP) install --require-hashes -r requirements/test.txt
	@$(SELF)
	@touch $@

# The first Python that is new enough and can make an environment; without one, a sentence that says what to install.
# Spark is large, and one test alone needs it.
$(VENV)/spark.stamp: requirements/spark.txt $(VENV)/test.stamp
	@$(PIP) install --require-hashes -r requirements/spark.txt
	@touch $@

$(BIN)/python:
	@for python in python3.11 python3 python3.12 python3.13; do \
	  $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	  found=yes; \
	  $$python -c 'import ensurepip, venv' 2>/dev/null || continue; \
	  exec $$python -m venv $(VENV); \
	done; \
	if [ "$$found" ]; then echo "Python can make no environment here; run: sudo apt install python3-venv" >&2; \
	else echo "coflex needs Python 3.11 or later; run: sudo apt install python3 python3-venv" >&2; fi; \
	exit 1
