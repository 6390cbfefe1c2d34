# The verbs of this repository. Every target makes the virtual environment first if it is missing.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
EXTRAS ?= demo,test,bench

.PHONY: demo test lint types imports bench docs clean install help

help: ## show these verbs
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "Sentra: making $(VENV) and installing (about a minute the first time)"
	@$(PYTHON) -c 'import sys; v=sys.version_info[:2]; sys.exit(0 if (3,11)<=v<(3,13) else "Sentra needs Python 3.11 or 3.12, but $(PYTHON) is %d.%d; try make PYTHON=python3.12" % v)'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[$(EXTRAS)]"
	@$(BIN)/python -c 'from scorers.evidence.warm import warm_up; warm_up()'
	@touch $@

install: $(VENV)/.installed ## make the virtual environment and install

demo: install ## run a healthy and a failing rollout on this machine
	@$(BIN)/sentra demo --scenario healthy --scenario errors

test: install ## run all tests (real broker, database, Redis, proxy)
	@$(BIN)/pytest

lint: install ## style, import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-cache

types: install ## mypy, strict
	@$(BIN)/mypy

bench: install ## speed ratios, measured side by side
	@$(BIN)/python -m bench.stream --rollouts 1000
	@$(BIN)/python -m bench.actuation
	@$(BIN)/python -m bench.kernels
	@$(BIN)/python -m bench.leaderboard --quick

docs: install ## regenerate schemas, topic list and the state diagram
	@$(BIN)/python -m sentra.cli.docs

clean: ## remove what the tools left behind (keeps .venv)
	@rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
