# Each target makes its own virtual environment and installs what it needs; Python 3.11+ and make are enough.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Environments of their own: onnxruntime-training cannot be beside onnxruntime, and the oldest not beside the newest.
ORT_TRAINING := .venv-ort-training
# By its name in tests/conformance/runtimes.txt.
OLDEST := .venv-matrix-1.17.0
BENCH := .venv-bench
EXECUTORCH := .venv-executorch
MNN := .venv-mnn
DOCS := .venv-docs
RELEASE := .venv-release
# NVFlare pins what nothing else of csk-sdk needs.
ENGINE := .venv-engine
JS := device_runners/js
JS_PACKAGES := $(JS)/node_modules/.ready
JS_TOOLS := $(JS)/out/build/.ready
JS_FIXTURES := $(JS)/out/fixtures/.ready
JS_SOURCES = $(wildcard $(JS)/*.json $(JS)/*.ts) $(shell find $(JS)/src $(JS)/tools -name '*.ts')
PYTHON_SOURCES = $(shell find sdk artifacts_builder $(JS)/tools tests/builder tests/learner -name '*.py' -o -name '*.json')
export CHROMIUM ?= /usr/bin/chromium
# Wheels of both end with Python 3.12.
UP_TO_312 := $(PYTHON) -c 'import sys; sys.exit(sys.version_info >= (3, 13))'
WORKERS ?= 2
# Some tests take minutes: whoever is done takes over from the other.
SHARED_OUT := -n $(WORKERS) --dist worksteal
# NumPy's threads would fight ONNX Runtime's for the same two cores.
export OMP_NUM_THREADS ?= 1
# For scripts that import onnxruntime before csk_sdk, which sets it too.
export ORT_DISABLE_TELEMETRY ?= 1

TASKS ?= 300
MINUTES ?= 1
GRAPHS ?= 2300
DRAWS ?= 30
CHAINS ?= 500
VECTORS := tests/conformance/vectors
RESULTS := out/conformance
RUNTIMES := tests/conformance/runtimes.txt
# What `make matrix` runs on: all, or some by name; "node" stands for Node and WebAssembly, and needs Chromium.
ON ?= $(shell sed 's/\#.*//' $(RUNTIMES) | awk 'NF {print $$1}') node
MATRIX := out/matrix
DIGITS := out/digits

.PHONY: help demo demo-fleet test test-slow contract test-ort-training run-ort-training sweep-ort-training test-ssh test-engine test-saturating test-oldest run-oldest matrix run-matrix matrix-js sweep test-js check format \
	wheel-test docs release conformance conformance-js arm64 chromium app build-app test-app lessons attack soak fuzz fuzz-js sbom \
	bench bench-peers bench-cifar100 bench-continual test-benchmarks memory-limit clean

help:
	@echo "make demo            learn handwritten digits, with and without forgetting (about a minute)"
	@echo "make demo-fleet      three devices learn two digits each, and then know all ten (half a minute)"
	@echo "make test            the test suite, and that of the ort-training backend in its own environment"
	@echo "make test-slow       the tests that take seconds each: every call of a disk fails, whole demos, all networks (10 minutes)"
	@echo "make test-saturating the int8 tests as on an x86 CPU without VNNI (Linux; CPUs whose CPUID can fault)"
	@echo "make sweep-ort-training DRAWS=30 CHAINS=500    gradients of both backends over every rule (a quarter of an hour)"
	@echo "make test-oldest     graphs and learning on the oldest ONNX Runtime that is declared"
	@echo "make matrix          every graph on every declared runtime, as one table: docs/matrix.md (ON='1.17.0 node': some)"
	@echo "make sweep GRAPHS=2300   networks drawn at random, on three runtimes, against torch in float64 (a quarter of an hour)"
	@echo "make test-ssh        learning on a board over ssh, against an sshd on this machine"
	@echo "make test-engine     a fleet whose files NVFlare carries: rounds on loopback, deaths, strangers (2 minutes)"
	@echo "make conformance     what this and other platforms compute, against goldens, as one table"
	@echo "make arm64           the part of it on emulated ARM64 CPUs (Debian)"
	@echo "make test-js         the JavaScript runner: types, lint, tests (Node 20 or newer)"
	@echo "make app             build the web app and serve it here; BUNDLE=DIR for a bundle of your own, BEFORE=DIR for the one devices have"
	@echo "make test-app        the web app in a phone's browser"
	@echo "make lessons         how long a lesson takes in it on a slow phone (Linux; 5 minutes)"
	@echo "make check           format, lint, types"
	@echo "make docs            the documentation as a site, strict, in out/site: open out/site/index.html"
	@echo "make contract        write what is made of csk_sdk/contract: settings and thresholds of both languages, their pages"
	@echo "make attack MINUTES=10  attack every promise of docs/guarantees.md: kills, lost power, full disks, hostile files"
	@echo "make soak TASKS=300     a long life: memory, file descriptors and the first task stay"
	@echo "make fuzz MINUTES=30    feed the readers what nobody would (Linux, Python 3.11 to 3.13)"
	@echo "make fuzz-js MINUTES=10 the same for the JavaScript readers (Node 20 or newer)"
	@echo "make sbom               write docs/supply-chain.md and out/sbom.json from what is installed"
	@echo "make wheel-test      build the wheel, install it elsewhere, run its demo"
	@echo "make release            build the sdist and the wheel, check both, and write the notes; nothing is uploaded"
	@echo "make memory-limit       ResNet-18 learns within 160 MB of resident memory, all in all (Linux)"
	@echo "make bench           time and memory of a step beside torch, onnxruntime-training, ExecuTorch and MNN (12 minutes)"
	@echo "make bench-cifar100 DATA=DIR MODEL=FILE    the CIFAR-100 benchmark"
	@echo "make bench-continual DATA=DIR MODEL=FILE   csk-sdk beside other methods of continual learning (hours; resumable)"
	@echo "make test-benchmarks    the tests of these methods, which need torch"

# The last thing that a new environment gets.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "csk-sdk needs Python 3.11 or newer; this is $$($(PYTHON) --version). Run: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Each has all of those above it: who needs more from the beginning installs once.
$(BIN)/.demo: pyproject.toml | $(BIN)/pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo]'
	@touch $@

$(BIN)/.dev: pyproject.toml | $(BIN)/pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $(BIN)/.demo $@

demo: $(BIN)/.demo
	$(BIN)/csk-sdk demo --out out/demo

demo-fleet: $(BIN)/.demo
	$(BIN)/python examples/fleet.py --out out/demo-fleet

test: $(BIN)/.dev
	$(BIN)/python -m pytest $(SHARED_OUT) -m "not slow"
	@$(MAKE) --no-print-directory test-ort-training

test-slow: $(BIN)/.dev
	$(BIN)/python -m pytest $(SHARED_OUT) -m slow

test-ort-training:
	@if $(UP_TO_312); then $(MAKE) --no-print-directory run-ort-training; else \
		echo "Left out: the ort-training suite, for which there are packages up to Python 3.12 (make PYTHON=python3.12 $@)"; fi

run-ort-training: $(ORT_TRAINING)/.ready
	$(ORT_TRAINING)/bin/python -m pytest $(SHARED_OUT) tests/ort_training

# Gradients of both backends, over every rule and over chains of blocks.
sweep-ort-training: $(ORT_TRAINING)/.ready
	$(ORT_TRAINING)/bin/python tests/ort_training/sweep.py --draws $(DRAWS) --chains $(CHAINS)

$(ORT_TRAINING)/.ready: pyproject.toml
	$(PYTHON) -m venv $(ORT_TRAINING)
	$(ORT_TRAINING)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[ort-training-test]'
	@touch $@

# Learning on a board over ssh, against an sshd on this machine.
test-ssh: $(BIN)/.dev
	@command -v sshd >/dev/null || [ -x /usr/sbin/sshd ] || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
		apt-get update -qq && apt-get install -y -qq openssh-server >/dev/null; } || \
		{ echo "test-ssh needs OpenSSH's server: install the package openssh-server"; exit 1; }
	CSK_SDK_SSHD=1 $(BIN)/python -m pytest tests/device_runners/test_remote.py

# A server, devices and an operator as processes of their own, on loopback.
test-engine: $(ENGINE)/.ready
	$(ENGINE)/bin/python -m pytest -n 2 tests/engine

$(ENGINE)/.ready: pyproject.toml
	$(PYTHON) -m venv $(ENGINE)
	$(ENGINE)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[engine-test]'
	@touch $@

# On x86 CPUs with VNNI int8 sums are right by themselves; here they saturate as on the others.
test-saturating: $(BIN)/.dev
	bash tests/saturating/run $(BIN)/python

test-oldest:
	@if $(UP_TO_312); then $(MAKE) --no-print-directory run-oldest; else \
		echo "Left out: the oldest ONNX Runtime, for which there are packages up to Python 3.12 (make PYTHON=python3.12 $@)"; fi

run-oldest: $(BIN)/.dev $(OLDEST)/.ready
	$(BIN)/python tests/oldest/record.py out/oldest
	$(OLDEST)/bin/python tests/oldest/replay.py out/oldest

# What a line of the runtimes' file names, in an environment of its own.
.venv-matrix-%/.ready: pyproject.toml $(RUNTIMES)
	$(PYTHON) -m venv .venv-matrix-$*
	sed 's/#.*//' $(RUNTIMES) | awk '$$1 == "$*" {for (i = 2; i <= NF; i++) if ($$i !~ /^@/) print $$i}' > .venv-matrix-$*/requirements.txt
	.venv-matrix-$*/bin/python -m pip install --quiet --disable-pip-version-check --editable . \
		--requirement .venv-matrix-$*/requirements.txt
	@touch $@

# Every graph of the conformance bundles on every runtime, as one page: with all runtimes it is docs/matrix.md.
matrix:
	@if $(UP_TO_312); then $(MAKE) --no-print-directory run-matrix; else \
		echo "Left out: the matrix, for whose oldest runtimes there are packages up to Python 3.12 (make PYTHON=python3.12 $@)"; fi

provider = $(shell sed 's/\#.*//' $(RUNTIMES) | awk '$$1 == "$(1)" {for (i = 2; i <= NF; i++) if ($$i ~ /^@/) print "--provider", substr($$i, 2)}')

run-matrix: $(BIN)/.dev $(patsubst %,.venv-matrix-%/.ready,$(filter-out node,$(ON)))
	rm -rf $(MATRIX)/*.json
	@$(foreach one,$(filter-out node,$(ON)),echo "== $(one)"; PYTHONPATH=tests .venv-matrix-$(one)/bin/python -m platforms conformance \
		$(VECTORS) --platform $(one) --out $(MATRIX)/$(one).json $(call provider,$(one)) | grep -v ^passed;) true
	@$(if $(filter node,$(ON)),$(MAKE) --no-print-directory matrix-js)
	PYTHONPATH=tests $(BIN)/python -m platforms matrix $(VECTORS) $(foreach one,$(ON:node=node browser),$(MATRIX)/$(one).json) \
		--runtimes $(RUNTIMES) $(if $(filter file,$(origin ON)),--write docs/matrix.md)

matrix-js: $(JS_TOOLS) chromium
	-cd $(JS) && CONFORMANCE_VECTORS="$(CURDIR)/$(VECTORS)" CONFORMANCE_OUT="$(CURDIR)/$(MATRIX)" node out/build/tools/conformanceNode.js
	-cd $(JS) && CONFORMANCE_VECTORS="$(CURDIR)/$(VECTORS)" CONFORMANCE_OUT="$(CURDIR)/$(MATRIX)" node out/build/tools/conformanceBrowser.js

# Networks drawn at random, built, and run on the oldest and the newest runtime and in WebAssembly, against torch in float64.
SWEEP := out/sweep
sweep: $(BENCH)/.ready .venv-matrix-1.17.0/.ready .venv-matrix-1.32.0/.ready $(JS_TOOLS)
	@mkdir -p $(SWEEP)
	$(BENCH)/bin/python tests/sweep/record.py $(SWEEP) --graphs $(GRAPHS) --workers $(WORKERS) 2> out/sweep.log \
		|| { tail -20 out/sweep.log; exit 1; }
	.venv-matrix-1.17.0/bin/python tests/sweep/replay.py $(SWEEP) $(SWEEP)/1.17.0.json
	.venv-matrix-1.32.0/bin/python tests/sweep/replay.py $(SWEEP) $(SWEEP)/1.32.0.json
	cd $(JS) && node out/build/tools/sweepWeb.js "$(CURDIR)/$(SWEEP)" "$(CURDIR)/$(SWEEP)/web.json"
	$(BENCH)/bin/python tests/sweep/summary.py $(SWEEP) 1.17.0 1.32.0 web

chromium:
	@test -x $(CHROMIUM) || { [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null && \
		apt-get update -qq && apt-get install -y -qq chromium > /dev/null; } || \
		{ echo "This needs Chromium: install the package chromium, or set CHROMIUM=PATH"; exit 1; }

# The JavaScript runner writes node.json and browser.json into the folder that it is told.
conformance: $(BIN)/.dev
	rm -rf $(RESULTS)/*.json
	$(BIN)/python tests/conformance/make.py --verify
	$(BIN)/python tests/conformance/digits.py $(DIGITS)
	PYTHONPATH=tests $(BIN)/python -m platforms conformance $(VECTORS) --out $(RESULTS)/host.json
	PYTHONPATH=tests $(BIN)/python -m platforms digits $(DIGITS) $(RESULTS)/host.json
	@if command -v apt-get > /dev/null && command -v dpkg-deb > /dev/null; then $(MAKE) --no-print-directory arm64; \
		else echo "Left out: ARM64, whose root is made of Debian's packages"; fi
	@if command -v npm > /dev/null; then $(MAKE) --no-print-directory conformance-js; \
		else echo "Left out: the JavaScript runner, which needs Node 20 or newer with npm"; fi
	PYTHONPATH=tests $(BIN)/python -m platforms table $(VECTORS) $(RESULTS)/*.json

conformance-js: $(JS_TOOLS) $(JS_FIXTURES) chromium
	cd $(JS) && CONFORMANCE_VECTORS="$(CURDIR)/$(VECTORS)" CONFORMANCE_OUT="$(CURDIR)/$(RESULTS)" \
		CONFORMANCE_DIGITS="$(CURDIR)/$(DIGITS)" sh -c 'node out/build/tools/conformanceNode.js && node out/build/tools/conformanceBrowser.js'
	PYTHONPATH=tests $(BIN)/python -m platforms states $(DIGITS) $(if $(wildcard .cache/arm64),--cache .cache/arm64)

# Vectors, and a learned task, on ARM64 CPUs that qemu emulates; needs apt, no rights, and about 250 MB in .cache.
arm64: $(BIN)/.dev
	@test -d $(DIGITS) || $(BIN)/python tests/conformance/digits.py $(DIGITS)
	PYTHONPATH=tests $(BIN)/python -m platforms arm64 $(VECTORS) $(DIGITS) --cache .cache/arm64 --results $(RESULTS)

# What several of these share is installed, and made, once: when one runs beside another, nothing changes below it.
$(JS_PACKAGES): $(JS)/package.json $(JS)/package-lock.json
	@command -v npm > /dev/null || { echo "The JavaScript runner needs Node 20 or newer with npm."; exit 1; }
	cd $(JS) && npm ci --ignore-scripts --no-audit --no-fund
	@touch $@

$(JS_TOOLS): $(JS_PACKAGES) $(JS_SOURCES)
	cd $(JS) && npm run --silent build:tools
	@touch $@

$(JS_FIXTURES): $(JS_PACKAGES) $(PYTHON_SOURCES) | $(BIN)/.dev
	cd $(JS) && PYTHON=$(CURDIR)/$(BIN)/python npm run --silent fixtures
	@touch $@

# A bundle and images from the Python SDK are what it learns from, and Python opens what it wrote.
test-js: $(JS_PACKAGES) $(JS_FIXTURES)
	cd $(JS) && npm run typecheck && npm run lint
	cd $(JS) && PYTHON=$(CURDIR)/$(BIN)/python npm test
	cd $(JS) && npm run build && cd examples/react-native && npm ci --ignore-scripts && npm run typecheck
	cd $(JS)/examples/capacitor && npm ci --ignore-scripts && npm run typecheck
# The web app: built with a bundle of the digits, or with BUNDLE=DIR, and with BEFORE=DIR, which devices have now.
APP := device_runners/js/app

$(APP)/node_modules/.ready: $(APP)/package-lock.json $(JS_PACKAGES)
	cd $(APP) && npm ci --ignore-scripts --no-audit --no-fund
	@touch $@

$(APP)/out/bundle/manifest.json: $(BIN)/.demo $(APP)/tools/prepare.py
	$(BIN)/python $(APP)/tools/prepare.py $(APP)/out

build-app: $(APP)/node_modules/.ready $(if $(BUNDLE),,$(APP)/out/bundle/manifest.json)
	cd $(JS) && npm run build
	cd $(APP) && $(if $(BUNDLE),BUNDLE='$(abspath $(BUNDLE))') $(if $(BEFORE),BEFORE='$(abspath $(BEFORE))') npm run build

app: build-app
	cd $(APP) && npm run preview

# How long a lesson takes on a processor that is four times slower; Linux. Times, no tests.
lessons: $(APP)/out/bundle/manifest.json build-app chromium
	$(BIN)/python $(APP)/tools/mobilenet.py $(APP)/out/mobilenet
	cd $(APP) && npm run lessons

test-app: $(APP)/out/bundle/manifest.json build-app chromium
	cd $(APP) && npm run typecheck && npm run lint
	cd $(APP) && PYTHON=$(CURDIR)/$(BIN)/python npm test

check: $(BIN)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

contract: $(BIN)/.dev $(JS_PACKAGES)
	$(BIN)/python -m tools.contract
	$(BIN)/python tests/contract/make_settings.py
	$(BIN)/python tests/contract/make_manifests.py
	$(BIN)/python tests/contract/make_states.py
	$(BIN)/python docs/generate_cli.py

format: $(BIN)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

wheel-test:
	rm -rf out/wheel && mkdir -p out/wheel
	$(PYTHON) -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir out/wheel .
	$(PYTHON) -m venv out/wheel/venv
	wheel=$$(ls out/wheel/*.whl) && out/wheel/venv/bin/python -m pip install --quiet --disable-pip-version-check "$$wheel[demo]"
	cd out/wheel && venv/bin/csk-sdk demo --out demo

# A broken link, a missing anchor or a public name without a docstring ends it; with --quiet, nothing would (MkDocs 1.6.1).
# The variable is against an advertisement.
SITE := NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict
docs: $(DOCS)/.ready
	$(SITE)
	$(DOCS)/bin/python tests/docs/strict_site.py '$(subst $(DOCS),$(CURDIR)/$(DOCS),$(SITE))'
	@echo "The site: out/site/index.html"

$(DOCS)/.ready: pyproject.toml
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@

# The wheel is built from the sdist, as others would. It is installed into an empty environment, without any extra.
release: $(RELEASE)/.ready
	rm -rf out/release && mkdir -p out/release
	$(RELEASE)/bin/python -m build --outdir out/release/dist . > out/release/build.log 2>&1 || { tail -20 out/release/build.log; exit 1; }
	$(RELEASE)/bin/twine --no-color check --strict out/release/dist/*
	$(PYTHON) tools/release.py check out/release/dist
	$(PYTHON) -m venv out/release/venv
	out/release/venv/bin/python -m pip install --quiet --disable-pip-version-check out/release/dist/*.whl
	$(PYTHON) tools/release.py installed out/release/venv/bin
	$(PYTHON) tools/release.py notes out/release/notes.md

$(RELEASE)/.ready: pyproject.toml
	$(PYTHON) -m venv $(RELEASE)
	$(RELEASE)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[release]'
	@touch $@

# MINUTES is how much is tried: 10 is all of it, about as long on two quiet cores.
attack: MINUTES = 10
attack: $(BIN)/.dev
	PYTHONPATH=tests $(BIN)/python -m field.attack --minutes $(MINUTES) --out out/attack.json \
		$(if $(ONLY),--only $(ONLY)) $(if $(PAGE),--page $(PAGE))

soak: $(BIN)/.dev
	$(BIN)/python tests/field/soak.py --tasks $(TASKS) --out out/soak

$(BIN)/.fuzz: pyproject.toml | $(BIN)/pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[fuzz]'
	@touch $(BIN)/.demo $(BIN)/.dev $@

fuzz: $(BIN)/.fuzz
	$(BIN)/python tests/field/fuzz.py --minutes $(MINUTES) --out out/fuzz

# The JavaScript readers; their seeds are files of the fixtures' bundle.
fuzz-js: $(JS_TOOLS) $(JS_FIXTURES)
	cd $(JS) && node out/build/tools/fuzz.js $(MINUTES)

sbom: $(BIN)/.dev
	$(BIN)/python docs/generate_supply_chain.py --sbom out/sbom.json

# csk-sdk and torch; the other peers pin what the others need in other versions.
$(BENCH)/.ready: pyproject.toml
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[benchmarks]'
	@touch $@

$(EXECUTORCH)/.ready:
	$(PYTHON) -m venv $(EXECUTORCH)
	$(EXECUTORCH)/bin/python -m pip install --quiet --disable-pip-version-check 'torch==2.13.0' 'executorch==1.5.1'
	@touch $@

$(MNN)/.ready:
	$(PYTHON) -m venv $(MNN)
	$(MNN)/bin/python -m pip install --quiet --disable-pip-version-check 'MNN==3.6.1' numpy
	@touch $@

bench-peers: $(BENCH)/.ready $(ORT_TRAINING)/.ready $(EXECUTORCH)/.ready $(MNN)/.ready

bench: bench-peers
	cd benchmarks && ../$(BENCH)/bin/python -m bench --write --ort-training ../$(ORT_TRAINING)/bin/python \
		--executorch ../$(EXECUTORCH)/bin/python --mnn ../$(MNN)/bin/python $(BENCH_ARGUMENTS)
bench-continual: $(BENCH)/.ready
	$(BENCH)/bin/python -m benchmarks.continual run --data "$(DATA)" --model "$(MODEL)"
	$(BENCH)/bin/python -m benchmarks.continual page --write docs/results.md

test-benchmarks: $(BENCH)/.ready
	$(BENCH)/bin/python -m pytest tests/benchmarks

bench-cifar100: $(BIN)/.dev
	$(BIN)/python benchmarks/cifar100.py --data "$(DATA)" --model "$(MODEL)" --out out/cifar100

memory-limit: $(BIN)/.dev
	$(BIN)/python benchmarks/memory_limit.py --out out/memory-limit

clean:
	rm -rf $(VENV) $(ORT_TRAINING) .venv-matrix-* $(BENCH) $(EXECUTORCH) $(MNN) $(DOCS) $(RELEASE) $(ENGINE) .cache out build dist
