# Every target sets up what it needs: .venv with medexp and the extras that the target uses.
# PYTHON=python3.12 chooses the interpreter, VENV=/some/where the environment's place.

VENV ?= .venv
PYTHON ?= $(shell scripts/find_python.sh)
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test test-slow test-all lint types check cves clean

help:
	@echo "make demo      install, train native3 on phantoms, print the table (about 4 minutes)"
	@echo "make test      install, run the tests"
	@echo "make test-slow the slow tests"
	@echo "make test-all  both"
	@echo "make lint      ruff: rules and format"
	@echo "make types     mypy"
	@echo "make check     test, lint, types: what CI runs"
	@echo "make cves      known faults of the installed packages, by pip-audit; needs a network"
	@echo "make clean     remove $(VENV)"

demo: $(VENV)/.installed
	$(BIN)/medexp train dataset=pcam model=native3 source=phantom

test: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m "not slow and not gpu"

test-slow: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m "slow and not gpu"

test-all: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n auto

lint: $(VENV)/.installed-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-lint
	$(BIN)/mypy

check: test lint types

# For a weekly timer. An environment of its own, so that the tool's packages are not medexp's.
cves: $(VENV)/.installed
	$(PYTHON) -m venv $(VENV)/cves
	$(VENV)/cves/bin/python -m pip install --progress-bar off -q pip-audit
	$(VENV)/cves/bin/pip-audit --path "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"

clean:
	rm -rf $(VENV)

$(VENV)/bin/python:
	scripts/make_venv.sh $(PYTHON) $(VENV)

$(VENV)/.installed: pyproject.toml $(VENV)/bin/python
	$(BIN)/python -m pip install --progress-bar off -q -e .
	@touch $@

$(VENV)/.installed-test: pyproject.toml $(VENV)/bin/python
	$(BIN)/python -m pip install --progress-bar off -q -e ".[test]"
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-lint: pyproject.toml $(VENV)/bin/python
	$(BIN)/python -m pip install --progress-bar off -q -e ".[lint,test]"
	@touch $@ $(VENV)/.installed $(VENV)/.installed-test
