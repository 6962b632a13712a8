# Two commands do everything on a machine that has Python 3.11 and make: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
# More than a small machine has cores: many tests wait for other processes.
PYTEST_WORKERS ?= 4
# Tests start hundreds of processes: with this set each would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE
# Wheels of which the hash is known, and nothing else; framefeed itself is built by what came with them.
PIP_INSTALL := $(VENV)/bin/python -m pip install --quiet --no-deps
LOCKED := $(PIP_INSTALL) --require-hashes --only-binary :all: --requirement
IS_CUDA := import importlib.metadata as m; print(any("nvidia" in one or "cuda" in one for one in m.requires("torch")))

.PHONY: demo test test-slow test-long test-calm test-gpu test-bring-up images lint bench learn strange stubs clean

# `make demo VIDEOS=dir` trains on your own videos.
demo: $(VENV)/demo.installed
	$(VENV)/bin/framefeed demo $(if $(VIDEOS),--videos "$(VIDEOS)") $(DEMO_OPTIONS)

test: $(VENV)/dev.installed
	$(VENV)/bin/python -m pytest -q -n $(PYTEST_WORKERS) --dist worksteal \
		-m "not slow and not calm and not bring_up" $(PYTEST_OPTIONS)

# The suites that start whole systems; .ci/run runs them after the tests.
test-slow: $(VENV)/dev.installed
	$(VENV)/bin/python -m pytest -q -n 2 --dist loadfile -m "slow and not long" --timeout=600 $(PYTEST_OPTIONS)

# Slow tests for which .ci/run has no time: before a release.
test-long: $(VENV)/dev.installed
	$(VENV)/bin/python -m pytest -q -m long --timeout=600 $(PYTEST_OPTIONS)

# What measures shares of time: on a machine that does nothing else, before a release.
test-calm: $(VENV)/dev.installed
	$(VENV)/bin/python -m pytest -q -m calm --timeout=600 $(PYTEST_OPTIONS)

# What needs a GPU, in a few minutes; without one every file is skipped and says so.
test-gpu: $(VENV)/dev.installed
	$(VENV)/bin/python -m pytest -q -m "not slow" tests/gpu --timeout=360 $(PYTEST_OPTIONS)

# deploy/ on a Docker engine, for which deploy/ci/install.sh installs what it needs; without one it is skipped and says
# why, and with FRAMEFEED_ENGINE=required it fails.
test-bring-up: $(VENV)/dev.installed
	$(VENV)/bin/python -m pytest -q -s -m bring_up tests/integration/test_bring_up.py $(PYTEST_OPTIONS)

# The images that deploy/compose.yaml starts.
images: $(VENV)/demo.installed
	$(VENV)/bin/python deploy/images/build.py decode
	$(VENV)/bin/python deploy/images/build.py train

# A million inputs for each front, reply path and file; FUZZ_OPTIONS="--seed 7 --first 500000" goes on where a run ended.
fuzz: $(VENV)/dev.installed
	$(VENV)/bin/python -m tests.fuzz $(FUZZ_OPTIONS)

# Three thousand drawn media files, each right or named; the slow suite reads sixty.
STRANGE_FILES ?= 1000
strange: $(VENV)/dev.installed
	seq 3 | FRAMEFEED_STRANGE_FILES=$(STRANGE_FILES) xargs -P 3 -I{} $(VENV)/bin/python -m pytest -q -m slow \
		--timeout=7200 --hypothesis-show-statistics tests/integration/test_strange_files.py $(PYTEST_OPTIONS)

lint: $(VENV)/dev.installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# Every number in the README: the results lie in bench/results.
bench: $(VENV)/dev.installed
	$(VENV)/bin/framefeed bench decode

# What the small recipes learn on two CPU cores, and docs/learning.md; LEARN_OPTIONS="--studies direction" is one of them.
learn: $(VENV)/dev.installed
	$(VENV)/bin/python -m framefeed_bench.learn $(LEARN_OPTIONS)
	$(VENV)/bin/python -m framefeed_bench.learn_page

stubs: $(VENV)/dev.installed
	proto/generate.sh

clean:
	rm -rf $(VENV) build *.egg-info

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.installed: pyproject.toml requirements/train.lock | $(VENV)/bin/python
	$(call install,train)
	touch $@

$(VENV)/dev.installed: pyproject.toml requirements/dev.lock | $(VENV)/bin/python
	$(call install,dev)
	touch $@ $(VENV)/demo.installed

# torch first from where pip looks beside its index, if a build for the CPU lies there: pip prefers the index's.
define install
	awk '/^torch==/,!/\\$$/' requirements/$(1).lock > $(VENV)/torch.lock
	$(LOCKED) $(VENV)/torch.lock --no-index 2>$(VENV)/torch.log || true
	$(LOCKED) requirements/$(1).lock
	if [ "$$($(VENV)/bin/python -c '$(IS_CUDA)')" = True ]; then $(LOCKED) requirements/cuda.lock; fi
	$(PIP_INSTALL) --no-build-isolation --editable .
endef
