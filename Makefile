# `make demo` and `make test` do all the set-up on a fresh machine.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export PATH := $(abspath $(BIN)):$(PATH)
export CINERAY_DATA ?= $(abspath ../shared/data)
export RAY_USAGE_STATS_ENABLED = 0
export DS_ACCELERATOR ?= cpu

DEMO ?= runs/demo

.PHONY: install demo test check faults results-song results-synthetic results-miyawaki results-video bench-stream bench-features bench-training bench-gpu

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	touch $@

demo: install
	$(BIN)/cineray demo out=$(DEMO)

test: install
	$(BIN)/python -m pytest

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/pyright --pythonpath $(BIN)/python

faults: install
	$(BIN)/python -m pytest -m faults

results-song: install
	TRAIN="$(TRAIN)" TEST="$(TEST)" SUBJECTS="$(SUBJECTS)" $(BIN)/python -m benchmarks.results_song

results-synthetic: install
	$(BIN)/python -m benchmarks.results_synthetic

results-miyawaki: install
	$(BIN)/python -m benchmarks.results_miyawaki

results-video: install
	$(BIN)/python -m benchmarks.results_video

bench-stream: install
	$(BIN)/python -m benchmarks.bench_stream

bench-features: install
	$(BIN)/python -m benchmarks.bench_features

bench-training: install
	$(BIN)/python -m benchmarks.bench_training

bench-gpu: install
	$(BIN)/python -m benchmarks.bench_gpu
