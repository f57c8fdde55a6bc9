# `make serve` and `make test` do all of the set-up. They need Python 3.11-3.13, make and git.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# TensorFlow for GPUs is installed where the NVIDIA driver answers. Elsewhere serving needs no TensorFlow, and training
# needs the one for CPUs. An environment must not hold both.
SERVE_WITH ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
TRAIN_WITH ?= $(SERVE_WITH:cpu=train)
# Tests of `make check`. They need no TensorFlow and no other programs.
FAST = tests/api tests/bench tests/docker tests/imaging tests/store $(filter-out \
  $(patsubst %,tests/test_%.py,end_to_end fuzz prometheus quiet site soak without_tensorflow),$(wildcard tests/test_*.py))
# Most tests use one core. So two processes run them. A file stays in one of them, with what its tests share.
TEST = $(BIN)/pytest -n 2 --dist loadfile
export FOLDER
COMPILE = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
  --custom-compile-command "make lock" pyproject.toml

.PHONY: serve train install-training check test coverage quiet fuzz lint format types containers gpu-image clients \
  long trainings docs site browser ray screenshots dashboard lock clean help

help:            ## list of targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

serve: $(VENV)/with-$(SERVE_WITH)   ## serve the shipped model on port 8000
	$(BIN)/flowers serve

train: $(VENV)/with-$(TRAIN_WITH)   ## train on FOLDER=my_garden, a folder of class folders, or on flower_photos
	$(BIN)/flowers train $(if $(FOLDER),"$$FOLDER")

install-training: $(VENV)/with-$(TRAIN_WITH)   ## install the libraries for training

check: lint types   ## run lint, types and fast tests in under a minute
	$(BIN)/pytest -m "not (slow or photographs or long)" -k "not savedmodel and not onnxruntime" $(FAST)

test: $(VENV)/dev   ## run every test that needs Python only, without the long ones
	$(TEST)

coverage: $(VENV)/dev   ## run the same tests, and fail if they cover less of service/ than before
	$(TEST) --cov

quiet: $(VENV)/dev   ## check under strace that commands connect to nothing
	$(BIN)/pytest -m quiet tests/test_quiet.py

long: $(VENV)/dev   ## run the long tests, but for those of training
	$(TEST) -m long --ignore tests/training

trainings: $(VENV)/dev   ## run the long tests of training, on drawn photographs
	$(TEST) -m long tests/training

fuzz: $(VENV)/dev   ## send damaged images for a minute, and damaged forms for another
	FLOWERS_TEST_FUZZ_S=60 $(BIN)/pytest tests/test_fuzz.py

lint: $(VENV)/dev   ## run ruff, formatting included
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

format: $(VENV)/dev   ## format the code and mend what ruff can mend
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

types: $(VENV)/dev   ## run mypy --strict
	$(BIN)/mypy

containers: $(VENV)/containers   ## test images, compose stack and manifests with a container engine
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pytest -m containers tests/containers --ignore tests/containers/test_gpu_image.py

# CI=true: without an engine the tests fail. They would be skipped otherwise, and the digests would be wrong.
gpu-image: $(VENV)/dev   ## test the GPU image with a container engine, and write the digests of its inputs
	CI=true $(BIN)/pytest -m containers tests/containers/test_gpu_image.py
	digests=$$(sha256sum $$(cut -c 67- docker/gpu-image.sha256)) && echo "$$digests" >docker/gpu-image.sha256
	@echo "The GPU image works. Commit docker/gpu-image.sha256 if it has changed:" && cat docker/gpu-image.sha256

clients: $(VENV)/dev   ## test with curl, Java, Node, nginx and Caddy
	$(BIN)/pytest -m clients tests/clients

docs: $(VENV)/docs   ## write the generated pages, the drawings and the site in site/
	$(BIN)/python -m docs.generate
	$(BIN)/python -m docs.draw
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

site: $(VENV)/docs   ## check the built site
	$(BIN)/pytest -m site tests/test_site.py

browser: $(VENV)/browser   ## test the page in Chromium
	$(BIN)/pytest -m browser tests/browser

ray: $(VENV)/ray   ## score photographs on a Ray cluster of several nodes on this machine
	$(BIN)/pytest -m ray tests/scoring tests/test_quiet.py

screenshots: $(VENV)/browser   ## take the screenshots of the page with Chromium, and of the commands
	$(BIN)/python -m docs.screenshots
	$(BIN)/python -m docs.terminal

dashboard: $(VENV)/dev   ## draw the dashboard from the answers of a Prometheus
	$(BIN)/python -m docs.draw_dashboard

lock:            ## write the locked requirements anew with uv
	$(COMPILE) --group build --extra tracing -o requirements/cpu.txt
	$(COMPILE) --group build --extra tracing --extra train --extra pretrained -o requirements/train.txt
	$(COMPILE) --group build --extra tracing --extra gpu --extra pretrained -o requirements/gpu.txt
	$(COMPILE) --group build --extra tracing --extra gpu-serve -o requirements/gpu-serve.txt
	$(COMPILE) --group build --extra tracing --extra remote -o requirements/remote.txt
	$(COMPILE) --group dev --extra tracing --extra heic --extra tensorboard --extra train --extra pretrained -o requirements/dev.txt
	$(COMPILE) --group dev --extra tracing --extra heic --extra tensorboard --group docs --extra train --extra pretrained -o requirements/docs.txt
	$(COMPILE) --group dev --extra tracing --extra heic --extra tensorboard --group browser --extra train --extra pretrained -o requirements/browser.txt
	$(COMPILE) --group dev --extra tracing --extra heic --extra tensorboard --extra ray --extra train --extra pretrained -o requirements/ray.txt
	$(COMPILE) --group dev --extra tracing --extra heic --extra tensorboard --group containers --extra train --extra pretrained -o requirements/containers.txt

# Each kind of environment has a stamp. A changed lock or project file renews it. The dev lock includes the train lock.
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
$(VENV)/browser: requirements/browser.txt | $(VENV)/dev
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/browser.txt
	touch $@
$(VENV)/ray: requirements/ray.txt | $(VENV)/dev
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/ray.txt
	touch $@
$(VENV)/docs: requirements/docs.txt | $(VENV)/dev
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/docs.txt
	touch $@
$(VENV)/dev: | $(BIN)/python
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@ $(VENV)/with-cpu $(VENV)/with-train

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  { echo "Python 3.11 to 3.13 is needed, $(PYTHON) is another: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

clean:           ## delete the environment and the caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*
