# make run and make test set everything up in .venv first: from requirements.lock what a run needs,
# from requirements-dev.lock the rest.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
READY := .venv/.ready
READY_TO_TEST := .venv/.ready-to-test
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check

.PHONY: run test lint help
.DEFAULT_GOAL := help

run: $(READY)  ## erase ten people from the embedded model and show the results
	$(BIN)/python -m mace_exp concepts=celebrity_10 lora.rank=4

test: $(READY_TO_TEST)  ## run the tests
	$(BIN)/python -m pytest -n auto --dist worksteal

lint: $(READY_TO_TEST)  ## check style and types
	$(BIN)/ruff check --no-cache .
	$(BIN)/pyright

help:  ## list these commands
	@sed -n 's/^\([a-z]*\):.*  ## \(.*\)/  make \1	\2/p' Makefile

$(READY): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv .venv
	$(INSTALL) -r requirements.lock
	$(INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

$(READY_TO_TEST): $(READY) requirements-dev.lock
	$(INSTALL) -r requirements-dev.lock
	@touch $@
