# The commands of this project. The first use of one sets up .venv with what it needs.
PYTHON ?= python3
PROVIDER ?= cpu
VENV := .venv
BIN := $(VENV)/bin
comma := ,
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt

# $(call install,ARGUMENTS OF PIP,WHAT IT IS FOR,HOW MUCH): says every few seconds how far it is
define install
	@echo "installing into $(VENV) what is needed for $(2): some $(3) ..."
	@$(PIP) $(1) & pid=$$!; \
	while sleep 3; kill -0 $$pid 2>/dev/null; do \
	    if [ -t 1 ]; then end='\r'; else end='\n'; sleep 6; fi; \
	    printf "  $(VENV) has %s MB so far$$end" "$$(du -sm $(VENV) | cut -f1)"; \
	done; wait $$pid && echo "  installed: $(VENV) has $$(du -sm $(VENV) | cut -f1) MB"
endef

# Packages are installed without byte code: it is written where it is used, once
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: generator gpu-check fuzz help serve train test coverage check fmt bench pretrained-int8 pretrained-heads pretrained-kinds image image-check training-image lock audit clean

help:  ## list these targets
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 26

# exec: SIGTERM to make ends the service, not the shell before it alone
serve: $(VENV)/.serve  ## start the service, with collections in ./data; also sets up viola embed, classify and fit
	VIOLA_DATA="$${VIOLA_DATA:-data}" exec $(BIN)/viola serve

train: $(VENV)/.train  ## set up viola prepare, train, evaluate, export, quantize (torch: some gigabytes)
	@echo "ready: $(BIN)/viola train --help"

test: $(VENV)/.dev  ## run the tests
	$(BIN)/pytest -n auto --dist loadfile

coverage: $(VENV)/.dev  ## run the tests, and show which lines of ours none of them runs
	$(BIN)/pytest -n auto --dist loadfile --cov --cov-report=term:skip-covered

check: $(VENV)/.dev  ## what CI runs: linters, types, import rules, tests
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy --num-workers auto
	$(BIN)/lint-imports
	$(MAKE) test

fuzz: $(VENV)/.dev  ## thousands of requests made from the OpenAPI document; not part of check
	$(BIN)/pytest -q --slow tests/service/test_contract.py -k at_length

generator: $(VENV)/generator  ## what the test of generated clients needs; apart, for it asks for other versions
	@echo "ready: $(BIN)/pytest --slow tests/service/test_generated_client.py"

$(VENV)/generator: | $(BIN)/python
	@$(PYTHON) -m venv $@
	@$@/bin/pip install --quiet --disable-pip-version-check openapi-python-client==0.29.1

fmt: $(VENV)/.dev  ## format, and fix what can be fixed
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

bench: $(VENV)/.dev  ## the benchmarks that need no data of their own
	$(BIN)/python benchmarks/logmel.py
	$(BIN)/python benchmarks/exactness.py
	$(BIN)/python benchmarks/embedding.py

gpu-check: $(VENV)/.dev  ## does all work on this GPU, and how fast? OPTIONS="--minutes 25 --out gpu-check"
	$(BIN)/python benchmarks/gpu_check.py $(OPTIONS)

# After every new default encoder: what follows belongs to it alone, in this order
pretrained-int8: $(VENV)/.dev  ## the default encoder in eight bits; AUDIO="a store, or folders and tars"
	@test -n "$(AUDIO)" || { echo "name the audio to calibrate on: AUDIO=stores/mine"; exit 1; }
	$(BIN)/viola quantize models/pretrained/default.onnx $(addprefix --audio ,$(AUDIO)) \
	    -o models/pretrained/default-int8.onnx --least-cosine 0.99 --force

pretrained-heads: $(VENV)/.dev  ## train the classifiers that ship; TASKS=folder of esc10.csv, fsdd.csv
	@test -f "$(TASKS)/esc10.csv" || { echo "TASKS=$(TASKS) has no esc10.csv: name the folder"; exit 1; }
	for kind in "" -int8; do \
	    $(BIN)/viola fit $(TASKS)/esc10.csv --model models/pretrained/default$$kind.onnx \
	        -o models/pretrained/sounds-10$$kind.onnx --licence CC-BY-3.0 --force \
	        --description "Ten environmental sounds" \
	        --source "ESC-10 (K. J. Piczak, 2015), github.com/karolpiczak/ESC-50=CC-BY-3.0" || exit 1; \
	done
	$(BIN)/viola fit $(TASKS)/fsdd.csv -o models/pretrained/spoken-digits.onnx --licence CC-BY-SA-4.0 --force \
	    --description "English digits, spoken one at a time" \
	    --source "FSDD, github.com/Jakobovski/free-spoken-digit-dataset=CC-BY-SA-4.0"

pretrained-kinds: $(VENV)/.dev  ## train the classifier of kinds of sound; KINDS=folder made by training.corpora.kinds
	@test -f "$(KINDS)/kinds.csv" || { echo "KINDS=$(KINDS) has no kinds.csv: name the folder"; exit 1; }
	$(BIN)/viola fit $(KINDS)/kinds.csv -o models/pretrained/sound-kinds.onnx --licence CC-BY-SA-4.0 --force \
	    --description "What kind of sound it is: speech, music, single notes, drums, effects, ambience" \
	    --source "Packages of Debian and open collections, by docs/corpus.md=as stated for each file there"

# docker, podman or buildah, the first that answers, unless ENGINE names one
image: $(VENV)/.serve  ## build the service's container image; PROVIDER=cuda for a GPU
	$(BIN)/python docker/build service $(if $(ENGINE),--engine $(ENGINE)) PROVIDER=$(PROVIDER)

training-image: $(VENV)/.serve  ## build the training image
	$(BIN)/python docker/build training $(if $(ENGINE),--engine $(ENGINE))

image-check: $(VENV)/.serve  ## build the service's image, run it, and prove what it promises
	$(BIN)/python docker/check $(if $(ENGINE),--engine $(ENGINE)) PROVIDER=$(PROVIDER)

# What images install from. New versions come from constraints.txt; hashes from the package index
lock: $(VENV)/.lock  ## write docker/locks anew
	docker/lock $(BIN)/uv

# --strict: what cannot be asked about is no pass
audit: $(VENV)/.lock  ## known vulnerabilities of what the images install
	$(BIN)/pip-audit --strict --disable-pip --require-hashes $(addprefix -r ,$(wildcard docker/locks/*.txt))

clean:  ## remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .coverage

# The service's environment never needs torch; the developer's has everything.
$(VENV)/.serve: pyproject.toml constraints.txt | $(BIN)/python
	$(call install,--editable ".[serve$(comma)fit$(comma)media]",the service and viola fit,600 MB)
	@touch $@

$(VENV)/.train: pyproject.toml constraints.txt | $(BIN)/python
	$(call install,--editable ".[serve$(comma)media$(comma)train]",training,2.5 GB)
	@touch $@ $(VENV)/.serve

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(call install,--editable ".[serve$(comma)media$(comma)train$(comma)dev]",development,2.5 GB)
	@touch $@ $(VENV)/.serve $(VENV)/.train

$(VENV)/.lock: pyproject.toml constraints.txt | $(BIN)/python
	$(call install,pip-audit uv,locking and auditing,60 MB)
	@touch $@

$(BIN)/python:
	@echo "making $(VENV) with $(PYTHON) ..."
	@$(PYTHON) -m venv $(VENV)
