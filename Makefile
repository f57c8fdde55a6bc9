# Two commands do all the set-up: `make serve` and `make test`. They need Python 3.11-3.13, make and git.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# With TensorFlow for GPUs where the NVIDIA driver answers; elsewhere without TensorFlow, and for training with that for
# CPUs. The two kinds of TensorFlow must never meet in one environment.
SERVE_WITH ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
TRAIN_WITH ?= $(SERVE_WITH:cpu=train)
export FOLDER
COMPILE = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
  --custom-compile-command "make lock" pyproject.toml

.PHONY: serve train install-training test quiet fuzz lint format types containers clients long docs lock clean help

help:            ## what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

serve: $(VENV)/with-$(SERVE_WITH)   ## the service with the shipped model on port 8000
	$(BIN)/flowers serve

train: $(VENV)/with-$(TRAIN_WITH)   ## train on a folder of class folders: FOLDER=my_garden; without it on flower_photos
	$(BIN)/flowers train $(if $(FOLDER),"$$FOLDER")

install-training: $(VENV)/with-$(TRAIN_WITH)   ## what training needs, without training

test: $(VENV)/dev   ## every test that needs Python only, but for the long ones
	$(BIN)/pytest

quiet: $(VENV)/dev   ## a training without a network: it asks nobody, and leaves what SECURITY.md lists
	$(BIN)/pytest -m quiet tests/test_quiet.py

long: $(VENV)/dev   ## trainings of drawn photographs, and the squares of all real ones: minutes in all
	$(BIN)/pytest -m long tests/training tests/imaging

fuzz: $(VENV)/dev   ## a minute of damaged pictures, and one of damaged forms
	FLOWERS_TEST_FUZZ_S=60 $(BIN)/pytest tests/test_fuzz.py

lint: $(VENV)/dev   ## ruff, formatting included
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

format: $(VENV)/dev
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

types: $(VENV)/dev   ## mypy --strict
	$(BIN)/mypy

containers: $(VENV)/containers   ## the images, the compose stack and the manifests, with a real engine
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pytest -m containers tests/containers

clients: $(VENV)/dev   ## real clients and proxies: curl, Java, nginx, Caddy
	$(BIN)/pytest -m clients tests/clients

docs: $(VENV)/dev   ## the pages that the code writes
	$(BIN)/python docs/generate_settings.py

lock:            ## the locked requirements anew (needs uv)
	$(COMPILE) --group build -o requirements/cpu.txt
	$(COMPILE) --group build --extra train --extra teacher -o requirements/train.txt
	$(COMPILE) --group build --extra gpu --extra teacher -o requirements/gpu.txt
	$(COMPILE) --group dev --extra train --extra teacher -o requirements/dev.txt
	$(COMPILE) --group dev --group containers --extra train --extra teacher -o requirements/containers.txt

# A stamp per kind of environment; a changed lock or project file renews it. The dev lock is the train lock and the tools.
$(VENV)/with-cpu: requirements/cpu.txt pyproject.toml
$(VENV)/with-train: requirements/train.txt pyproject.toml
$(VENV)/with-gpu: requirements/gpu.txt pyproject.toml
$(VENV)/dev: requirements/dev.txt pyproject.toml
$(VENV)/with-%: | $(BIN)/python
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/$*.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@
$(VENV)/containers: requirements/containers.txt | $(VENV)/dev
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/containers.txt
	touch $@
$(VENV)/dev: | $(BIN)/python
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@ $(VENV)/with-cpu $(VENV)/with-train

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  { echo "Python 3.11 to 3.13 is needed, $(PYTHON) is another: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

clean:           ## the environment and the caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
