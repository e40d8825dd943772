# The everyday commands. `make help` lists them; PYTHON chooses the interpreter.
PYTHON ?= .venv/bin/python

.PHONY: help setup test check format fuzz samples bench

help: ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

setup: ## virtual environment with everything that development needs
	python3 -m venv .venv
	.venv/bin/pip install -q torch==2.13.0 -e '.[dev]'

test: ## all tests, on two cores
	$(PYTHON) -m pytest -n 2

check: ## linters and types
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

format: ## put the code in order
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

fuzz: ## one minute of coverage-guided fuzzing (needs `pip install atheris`)
	$(PYTHON) fuzz/fuzz_reader.py -max_total_time=60

samples: ## train the sample adapters anew: make samples DATA=folder-of-SST-2
	$(PYTHON) examples/train_sample_adapters.py --data $(DATA)

bench: ## speed against the rivals, see docs/benchmarks.md
	$(PYTHON) benchmarks/scan_speed.py
