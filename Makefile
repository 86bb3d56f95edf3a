# Strongroom. `make` alone lists what there is; every target sets up what it needs first.
PYTHON ?= python3
BIN := .venv/bin
EXTRA ?= cpu

.PHONY: help run language chat test fast proof check bench docs fmt clean
.DEFAULT_GOAL := help

help:
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

run: .venv/ready ## everything on this machine: a real model trained, served and called; Ctrl-C ends it
	@$(BIN)/python manage.py up --demo

language: .venv/ready-language ## the same with language models: imported, deployed, asked; first builds llama.cpp
	@$(BIN)/python manage.py up --demo --language

chat: .venv/ready-language ## talk with the language model that `make language` serves
	@$(BIN)/python manage.py chat

# Many tests kill and freeze real processes: what failed is run once more, alone, and both results stand in the output.
test: .venv/ready-dev ## every behaviour once, on real PostgreSQL, Redis and Chromium
	@$(BIN)/python -m tests.servers --install
	@$(BIN)/python -m pytest -m "not proof" -n 2 --dist loadgroup || { \
	  echo "=== once more, one at a time: what failed above"; \
	  $(BIN)/python -m pytest -m "not proof" --tb=short --last-failed --last-failed-no-failures none; }

fast: .venv/ready-dev ## the quick part, < 20 s, no server
	@STRONGROOM_TEST_MODE=embedded $(BIN)/python -m pytest -q -m "not slow and not proof" -n 2

proof: .venv/ready-dev ## everything, deep: each fault 20 times, no limit
	@$(BIN)/python -m tests.servers --install
	@STRONGROOM_PROOF=1 $(BIN)/python -m pytest -m "proof or not proof" --timeout 3600 -n 2 --dist loadgroup

check: .venv/ready-dev ## format, lint, types, imports, drift; offline
	@$(BIN)/python .ci/check.py

bench: .venv/ready-peers ## one table, and bench.json
	@$(BIN)/python -m tests.bench

docs: .venv/ready-dev ## write the documents that come from the code
	@$(BIN)/python .ci/generate.py

fmt: .venv/ready-dev ## format and mend what ruff can
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix -q .

clean: ## remove the environment; data in .strongroom stays
	rm -rf .venv

.venv/bin/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed"; exit 1; }
	@$(PYTHON) -m venv .venv || { echo "python3 lacks venv: apt install python3-venv"; exit 1; }
	@$(BIN)/python -m pip install -q --disable-pip-version-check uv==0.13.9

.venv/ready: .venv/bin/uv requirements/torch.lock requirements/$(EXTRA).lock pyproject.toml
	@$(PYTHON) .ci/install.py $(EXTRA)
	@touch $@

.venv/ready-language: .venv/ready requirements/language.lock requirements/examples.lock
	@$(PYTHON) .ci/install.py language
	@touch $@

.venv/ready-dev: .venv/ready-language requirements/dev.lock requirements/clients.lock
	@$(PYTHON) .ci/install.py dev
	@$(PYTHON) .ci/install.py clients
	@touch $@

.venv/ready-peers: .venv/ready-dev requirements/peers.lock
	@$(PYTHON) .ci/install.py peers
	@touch $@
