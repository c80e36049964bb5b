# Two commands set everything up: `make run` and `make test`. Everything they install goes to .venv and .cache.
PYTHON ?= python3
VENV := .venv
KERNELS := $(wildcard stream/kernels/*.pyx stream/kernels/*.pxd)
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
TELL := $(BIN)/python -c "from stream import kernels; kernels.built() or print('NO COMPILED KERNELS: there is no working C compiler; all works, at four times the cost an event')"

.PHONY: run test check faults fuzz bench bench-quick lock clean help

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

run: $(VENV)/.run-ready  ## set up, then run the demo: synthetic shop, all stages, no broker
	@$(BIN)/resegment demo

test: $(VENV)/.test-ready  ## everything: format, lint, types, tests, with a real Kafka where one can be had; a cut of the faults
	@PATH="$(CURDIR)/$(BIN):$$PATH" tests/check.sh

check: $(VENV)/.test-ready  ## format, lint, types and the fast tests: seconds, not minutes
	@PATH="$(CURDIR)/$(BIN):$$PATH" tests/check.sh --fast

faults: $(VENV)/.test-ready  ## break everything: FAULTS_KILLS (500) kills a transport, brokers, zombies, storms; an hour
	@RESEGMENT_REQUIRE_KAFKA=1 FAULTS_KILLS=$${FAULTS_KILLS:-500} FAULTS_PROGRESS=$${FAULTS_PROGRESS:-.cache/faults.json} \
	  $(BIN)/python -m pytest -m faults --show-capture=no

fuzz: $(VENV)/.test-ready  ## FUZZ_EVENTS (a million) hostile events through both transports
	@FUZZ_EVENTS=$${FUZZ_EVENTS:-1000000} $(BIN)/python -m pytest tests/fuzz
	@RESEGMENT_REQUIRE_KAFKA=1 FUZZ_KAFKA=1 FUZZ_EVENTS=$${FUZZ_EVENTS:-1000000} $(BIN)/python -m pytest tests/fuzz

bench: $(VENV)/.test-ready  ## every figure of docs/performance.md, peers beside: under 30 minutes; PARTS=name,... for some
	@$(BIN)/python -m benchmarks $(if $(PARTS),--parts $(PARTS))

bench-quick: $(VENV)/.test-ready  ## the same with few events, to see that it works: under 3 minutes
	@$(BIN)/python -m benchmarks --quick $(if $(PARTS),--parts $(PARTS))

lock: $(VENV)/.test-ready  ## resolve the two lock files anew
	@for extra in run dev; do \
	  out=requirements.lock; flags=; [ $$extra = dev ] && out=requirements-dev.lock && flags='--extra dev'; \
	  $(BIN)/uv pip compile pyproject.toml --extra build $$flags --universal --python-version 3.11 \
	    --generate-hashes --no-header --no-annotate --no-emit-index-url --upgrade --quiet --output-file $$out; done

clean:  ## remove what the commands above installed
	rm -rf $(VENV) .cache build *.egg-info

$(BIN)/python:
	@echo "setting up $(VENV) ..."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "resegment needs Python 3.11 or newer; set PYTHON=/path/to/it")'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.run-ready: requirements.lock pyproject.toml $(KERNELS) | $(BIN)/python
	@echo "installing the locked packages ..."
	@$(PIP) install --require-hashes --requirement requirements.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@$(TELL)
	@touch $@

$(VENV)/.test-ready: requirements-dev.lock pyproject.toml $(KERNELS) | $(BIN)/python
	@echo "installing the locked packages, the development ones too ..."
	@$(PIP) install --require-hashes --requirement requirements-dev.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@$(TELL)
	@touch $@ $(VENV)/.run-ready
