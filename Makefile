# `make demo` and `make test` each do their own set-up on a machine with Python >= 3.11 and make.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check -q

.PHONY: help demo test test-long lint types bench fuzz profile docs clean system-packages

help:            ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	  || { echo "lepton-edge needs Python 3.11 to 3.13; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	$(PIP) install -e '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml .ci/constraints.txt | $(BIN)/python
	$(PIP) install -c .ci/constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.demo

demo: $(VENV)/.demo   ## the whole job on this machine: convert, push, measure, roll back
	$(BIN)/lepton-edge demo

system-packages: ## the system packages that tests want (mosquitto, qemu-user)
	@sh .ci/system-packages

lint: $(VENV)/.dev    ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: system-packages lint   ## everything that CI runs
	LEPTON_TFLITE_RUNTIME_PYTHON="$$(sh .ci/tflite-runtime $(BIN)/python)" $(BIN)/pytest -m 'not slow'

test-long: system-packages $(VENV)/.dev   ## the long forms: full crash sweep, more examples
	LEPTON_TFLITE_RUNTIME_PYTHON="$$(sh .ci/tflite-runtime $(BIN)/python)" HYPOTHESIS_PROFILE=long $(BIN)/pytest
	LEPTON_TEST_BROKER=mosquitto $(BIN)/pytest tests/device_agent

bench: $(VENV)/.dev   ## print the tables of docs/benchmarks.md
	$(BIN)/python benchmarks/run.py

fuzz: $(VENV)/.dev    ## random nets through the TFLite writer, by the thousand
	$(BIN)/python benchmarks/fuzz_tflite.py

profile: $(VENV)/.dev ## measure this CPU's operators (writes converters/quantize/profile_data)
	$(BIN)/python benchmarks/profile_ort.py
	LEPTON_TFLITE_RUNTIME_PYTHON="$$(sh .ci/tflite-runtime $(BIN)/python)" $(BIN)/python benchmarks/profile_tflite.py

clean:           ## remove the virtual environment and caches
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
