# Two commands do everything on a machine with Python 3.11 and make:  make demo   and   make test
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   ?= .venv
BIN    := $(VENV)/bin
DONE   := $(VENV)/.installed
TREE   := build/tree/provenn
FLOORS := verifier models solvers api

.DEFAULT_GOAL := help
unexport PYTHONDONTWRITEBYTECODE  # a thousand tests start hundreds of processes: what they import is compiled once
.PHONY: help install demo test slow coverage lint types check bench load chaos fuzz lock clean

help:            ## what there is
	@grep -hE '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(DONE): requirements.lock pyproject.toml setup.py
	@$(PYTHON) -c 'import sys; sys.exit("Provenn needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -r requirements.lock  # 50 s sooner: what is imported is compiled then
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

install: $(DONE) ## make the virtual environment with the locked dependencies

demo: $(DONE)    ## train, serve, upload, certify 100 digits, re-check every certificate, draw the curve
	$(BIN)/python examples/demo.py

test: $(DONE)    ## all tests but the slow ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadgroup -m "not slow"

slow: $(DONE)    ## the slow ones: other stores, long forms, whole suites of others
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow

coverage: $(DONE) ## all tests, and which lines none of them reaches (takes half as long again)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadgroup --cov --cov-report=term

.PHONY: $(TREE)
$(TREE): $(DONE) # the import tree as it is installed, for tools that read files instead of importing
	@rm -rf $@ && mkdir -p $@ && cp -R provenn/. $@/ && cp -R $(FLOORS) $@/

lint: $(DONE) $(TREE) ## style, formatting and the import rules between the floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cd build/tree && $(abspath $(BIN))/lint-imports --config $(CURDIR)/pyproject.toml

types: $(DONE) $(TREE) ## strict type check of everything that is installed
	$(BIN)/mypy -p provenn

check: lint types test ## what must be green before a change lands

bench: $(DONE)   ## speed: bounds on the reference networks, and what the service adds
	$(BIN)/python benchmarks/bounds.py
	$(BIN)/python benchmarks/service.py

load: $(DONE)    ## the service under load: delays, jobs a second, answers while it computes, a large upload
	$(BIN)/python benchmarks/load.py
	$(BIN)/python benchmarks/upload.py

chaos: $(DONE)   ## kill workers, the server and database connections for a minute while 300 jobs run
	$(BIN)/python tests/chaos/storm.py

fuzz: $(DONE)    ## requests and uploads at random against a real server, five minutes of each
	$(BIN)/python tests/fuzz/document_fuzz.py --seconds 300
	$(BIN)/python tests/fuzz/upload_fuzz.py --seconds 300

lock: $(DONE)    ## resolve requirements.lock anew from pyproject.toml
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --all-extras --python-version 3.11 --no-header --no-annotate -q -o requirements.lock
	sed -i -E 's/\+cpu$$//; /^(nvidia-|cuda-|triton==)/d' requirements.lock  # torch's CUDA build pins those itself, its CPU build needs none

clean:           ## remove what was built (the virtual environment too)
	rm -rf $(VENV) build *.egg-info .coverage* demo-output
