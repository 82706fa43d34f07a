# Each target makes its own virtual environment and installs what it needs; Python 3.11+ and make are enough.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Environments of their own: onnxruntime-training cannot be beside onnxruntime, and the oldest not beside the newest.
ORT_TRAINING := .venv-ort-training
OLDEST := .venv-oldest
BENCH := .venv-bench
# Wheels of both end with Python 3.12.
UP_TO_312 := $(PYTHON) -c 'import sys; sys.exit(sys.version_info >= (3, 13))'
WORKERS ?= 2
# NumPy's threads would fight ONNX Runtime's for the same two cores.
export OMP_NUM_THREADS ?= 1

KILLS ?= 200
TASKS ?= 300
MINUTES ?= 1

.PHONY: help demo test test-ort-training run-ort-training test-oldest run-oldest check format wheel-test \
	kill soak fuzz sbom bench-cifar100 bench-continual test-benchmarks clean

help:
	@echo "make demo            learn handwritten digits, with and without forgetting (about a minute)"
	@echo "make test            the whole test suite, and that of the ort-training backend in its own environment"
	@echo "make test-oldest     graphs and learning on the oldest ONNX Runtime that is declared"
	@echo "make check           format, lint, types"
	@echo "make kill KILLS=200     kill -9 a training process that often, at random moments"
	@echo "make soak TASKS=300     a long life: memory, file descriptors and the first task stay"
	@echo "make fuzz MINUTES=30    feed the readers what nobody would (Linux, Python 3.11 to 3.13)"
	@echo "make sbom               write docs/supply-chain.md and out/sbom.json from what is installed"
	@echo "make wheel-test      build the wheel, install it elsewhere, run its demo"
	@echo "make bench-cifar100 DATA=DIR MODEL=FILE    the CIFAR-100 benchmark"
	@echo "make bench-continual DATA=DIR MODEL=FILE   csk-sdk beside other methods of continual learning (hours; resumable)"
	@echo "make test-benchmarks    the tests of these methods, which need torch"

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

# csk-sdk and torch.
$(BENCH)/.ready: pyproject.toml
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[benchmarks]'
	@touch $@

bench-continual: $(BENCH)/.ready
	$(BENCH)/bin/python -m benchmarks.continual run --data "$(DATA)" --model "$(MODEL)"
	$(BENCH)/bin/python -m benchmarks.continual page --write docs/results.md

test-benchmarks: $(BENCH)/.ready
	$(BENCH)/bin/python -m pytest tests/benchmarks

bench-cifar100: $(BIN)/.dev
	$(BIN)/python benchmarks/cifar100.py --data "$(DATA)" --model "$(MODEL)" --out out/cifar100

clean:
	rm -rf $(VENV) $(ORT_TRAINING) $(OLDEST) $(BENCH) out build dist
