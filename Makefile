# The few commands that a contributor needs. Continuous integration runs the same ones.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON := .venv/bin/python
# Debian keeps mosquitto in a folder that the PATH of an ordinary user lacks.
export PATH := $(PATH):/usr/sbin:/usr/local/sbin

# A prompt may hold quotes, `$` and line ends: it travels as an environment variable, and neither make
# (hence `value`) nor the shell gets to read it.
override PROMPT := $(value PROMPT)
export PROMPT

.PHONY: help setup demo test check format reference bench bench-paper trial clean

help: ## list the commands
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

setup: ## bring all that is missing: Debian packages, .venv, llama.cpp (the other commands do it first, too)
	@deploy/bootstrap.sh

demo: setup ## all of Hunch on this machine, live; PROMPT="..." asks your own question
	@$(PYTHON) -m deploy.demo $${PROMPT:+--prompt="$$PROMPT"}

test: setup ## run all tests; ARGS="-k topics" passes options to pytest
	@$(PYTHON) -m pytest $(ARGS)

check: setup ## lint, formatting and types, without changing anything
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m mypy

format: setup ## put the code into shape
	@$(PYTHON) -m ruff check --fix .
	@$(PYTHON) -m ruff format .

reference: setup ## write docs/reference (AsyncAPI, JSON Schemas, topics and messages) anew from schemas
	@$(PYTHON) -m deploy.reference

bench: setup ## measure what the documentation quotes; ARGS="--help" says what there is
	@$(PYTHON) -m benchmarks $(ARGS)

trial: ## try deploy/install.sh as root in a bare Debian, half an hour; FOLDER="..." keeps its tree
	@deploy/install/try.sh "$(or $(FOLDER),$(shell mktemp -d))"

bench-paper: setup ## the papers' methods and ours on a real broker; CORPUS=dialogues.jsonl, ARGS="--quick"
	@$(PYTHON) -m benchmarks paper $(if $(CORPUS),--corpus="$(CORPUS)") $(ARGS)

clean: ## remove .venv and all that tools left behind
	@rm -rf .venv .setup.log .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
	@find . -path ./.git -prune -o -name __pycache__ -type d -exec rm -rf {} +
