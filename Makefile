# Each target makes its own virtual environment and installs what it needs; Python 3.11+ and make are enough.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Environments of their own: onnxruntime-training cannot be beside onnxruntime, and the oldest not beside the newest.
ORT_TRAINING := .venv-ort-training
OLDEST := .venv-oldest
# Wheels of both end with Python 3.12.
UP_TO_312 := $(PYTHON) -c 'import sys; sys.exit(sys.version_info >= (3, 13))'
WORKERS ?= 2
# NumPy's threads would fight ONNX Runtime's for the same two cores.
export OMP_NUM_THREADS ?= 1

KILLS ?= 200
TASKS ?= 300
MINUTES ?= 1
VECTORS := tests/conformance/vectors
RESULTS := out/conformance

.PHONY: help demo test test-ort-training run-ort-training test-oldest run-oldest check format wheel-test \
	conformance app build-app test-app kill soak fuzz sbom bench-cifar100 clean

help:
	@echo "make demo            learn handwritten digits, with and without forgetting (about a minute)"
	@echo "make test            the whole test suite, and that of the ort-training backend in its own environment"
	@echo "make test-oldest     graphs and learning on the oldest ONNX Runtime that is declared"
	@echo "make conformance     what this and other platforms compute, against goldens, as one table"
	@echo "make app             build the web app and serve it here; BUNDLE=DIR for a bundle of your own"
	@echo "make test-app        the web app in a phone's browser"
	@echo "make check           format, lint, types"
	@echo "make kill KILLS=200     kill -9 a training process that often, at random moments"
	@echo "make soak TASKS=300     a long life: memory, file descriptors and the first task stay"
	@echo "make fuzz MINUTES=30    feed the readers what nobody would (Linux, Python 3.11 to 3.13)"
	@echo "make sbom               write docs/supply-chain.md and out/sbom.json from what is installed"
	@echo "make wheel-test      build the wheel, install it elsewhere, run its demo"
	@echo "make bench-cifar100 DATA=DIR MODEL=FILE    the CIFAR-100 benchmark"

$(BIN)/.demo: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "csk-sdk needs Python 3.11 or newer; this is $$($(PYTHON) --version). Run: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo]'
	@touch $@

$(BIN)/.dev: $(BIN)/.demo
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(BIN)/.demo
	$(BIN)/csk-sdk demo --out out/demo

test: $(BIN)/.dev
	$(BIN)/python -m pytest -n $(WORKERS)
	@$(MAKE) --no-print-directory test-ort-training

test-ort-training:
	@if $(UP_TO_312); then $(MAKE) --no-print-directory run-ort-training; else \
		echo "Left out: the ort-training suite, for which there are packages up to Python 3.12 (make PYTHON=python3.12 $@)"; fi

run-ort-training: $(ORT_TRAINING)/.ready
	$(ORT_TRAINING)/bin/python -m pytest -n $(WORKERS) tests/ort_training

$(ORT_TRAINING)/.ready: pyproject.toml
	$(PYTHON) -m venv $(ORT_TRAINING)
	$(ORT_TRAINING)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[ort-training-test]'
	@touch $@

test-oldest:
	@if $(UP_TO_312); then $(MAKE) --no-print-directory run-oldest; else \
		echo "Left out: the oldest ONNX Runtime, for which there are packages up to Python 3.12 (make PYTHON=python3.12 $@)"; fi

run-oldest: $(BIN)/.dev $(OLDEST)/.ready
	$(BIN)/python tests/oldest/record.py out/oldest
	$(OLDEST)/bin/python tests/oldest/replay.py out/oldest

$(OLDEST)/.ready: pyproject.toml
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check --editable . 'onnxruntime==1.17.0' 'numpy<2'
	@touch $@

# The JavaScript runner writes node.json and browser.json into the folder that it is told.
conformance: $(BIN)/.dev
	rm -rf $(RESULTS)/*.json
	$(BIN)/python tests/conformance/make.py --verify
	$(BIN)/python -m csk_device_runners conformance $(VECTORS) --out $(RESULTS)/host.json
	@if test -f device_runners/js/package.json; then cd device_runners/js && npm ci --ignore-scripts && \
		CONFORMANCE_VECTORS="$(CURDIR)/$(VECTORS)" CONFORMANCE_OUT="$(CURDIR)/$(RESULTS)" npm run conformance; \
		else echo "Left out: the JavaScript runner, which is not there"; fi
	$(BIN)/python -m csk_device_runners table $(VECTORS) $(RESULTS)/*.json

# The web app: built with a bundle of the digits, or with BUNDLE=DIR.
APP := device_runners/js/app
CHROMIUM ?= /usr/bin/chromium

$(APP)/node_modules/.ready: $(APP)/package-lock.json device_runners/js/package-lock.json
	cd device_runners/js && npm ci --ignore-scripts --no-audit --no-fund
	cd $(APP) && npm ci --ignore-scripts --no-audit --no-fund
	@touch $@

$(APP)/out/bundle/manifest.json: $(BIN)/.demo $(APP)/tools/prepare.py
	$(BIN)/python $(APP)/tools/prepare.py $(APP)/out

build-app: $(APP)/node_modules/.ready $(if $(BUNDLE),,$(APP)/out/bundle/manifest.json)
	cd device_runners/js && npm run build
	cd $(APP) && npm run build

app: build-app
	cd $(APP) && npm run preview

test-app: $(APP)/out/bundle/manifest.json build-app
	@[ -x $(CHROMIUM) ] || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
		apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } || \
		{ echo "test-app needs Chromium: install the package chromium, or set CHROMIUM=PATH"; exit 1; }
	cd $(APP) && npm run typecheck && npm run lint
	cd $(APP) && CHROMIUM=$(CHROMIUM) PYTHON=$(CURDIR)/$(BIN)/python npm test

check: $(BIN)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(BIN)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

wheel-test:
	rm -rf out/wheel && mkdir -p out/wheel
	$(PYTHON) -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir out/wheel .
	$(PYTHON) -m venv out/wheel/venv
	wheel=$$(ls out/wheel/*.whl) && out/wheel/venv/bin/python -m pip install --quiet --disable-pip-version-check "$$wheel[demo]"
	cd out/wheel && venv/bin/csk-sdk demo --out demo

kill: $(BIN)/.dev
	CSK_SDK_KILLS=$(KILLS) $(BIN)/python -m pytest tests/learner/test_kill.py -k random

soak: $(BIN)/.dev
	$(BIN)/python tests/field/soak.py --tasks $(TASKS) --out out/soak

$(BIN)/.fuzz: $(BIN)/.dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[fuzz]'
	@touch $@

fuzz: $(BIN)/.fuzz
	$(BIN)/python tests/field/fuzz.py --minutes $(MINUTES) --out out/fuzz

sbom: $(BIN)/.dev
	$(BIN)/python docs/generate_supply_chain.py --sbom out/sbom.json

bench-cifar100: $(BIN)/.dev
	$(BIN)/python benchmarks/cifar100.py --data "$(DATA)" --model "$(MODEL)" --out out/cifar100

clean:
	rm -rf $(VENV) $(ORT_TRAINING) $(OLDEST) out build dist
