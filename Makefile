# demo, test, check, bench, validate, docs: each makes what it needs in .venv.
PYTHON ?= python3
BIN := .venv/bin
SOURCES := pyproject.toml

.PHONY: demo test test-all test-lowest check bench validate reliability lock audit docs clean

.venv/base: $(SOURCES)
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -e .
	touch $@

.venv/dev: .venv/base
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $@

# The main job: a recorded training step, four dataflows, one table, plots and a report.
demo: .venv/base
	$(BIN)/npusim compare resnet18-swu --hardware edge-16x16 \
	  --dataflow dense-os,selective-row,channel-skipping,reduction-spatial --out results/demo
	@echo "open results/demo/report.html"

test: .venv/dev
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m "not slow"

test-all: .venv/dev
	$(BIN)/python -m pytest -q -n 2 --dist worksteal

# The core tests with the lowest versions that pyproject.toml allows, in an environment of their own.
test-lowest: .venv/dev
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv/lowest
	VIRTUAL_ENV=.venv/lowest $(BIN)/uv pip install --quiet --resolution lowest-direct -e ".[dev]"
	.venv/lowest/bin/python -m pytest -q -n 2 tests/test_config.py tests/test_hardware.py tests/test_text.py tests/test_plot.py \
	  tests/engine/test_engines.py tests/cli tests/trace/test_format.py tests/trace/test_import_onnx.py \
	  tests/sweep/test_spec.py tests/fuzz

# The pinned and hashed development environment: for each Python the newest versions that run on it.
lock: .venv/dev
	$(BIN)/uv pip compile pyproject.toml --extra dev --upgrade --fork-strategy requires-python --universal --python-version 3.11 \
	  --generate-hashes --quiet --no-emit-index-url --no-annotate --custom-compile-command "make lock" --output-file requirements-dev.lock

# Known weaknesses of the pinned versions; fails when one could neither be looked up nor is explained.
audit: .venv/dev
	$(BIN)/python reliability/audit.py

# About 12 hours on one core, of which 4 are fuzzing: every long run (each goes on where it was stopped, what is done
# lies in reliability/work), then the page from their results.
reliability: .venv/dev
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[fuzz]"
	$(BIN)/python reliability/run.py model --cases 20000
	$(BIN)/python reliability/run.py kept
	$(BIN)/python reliability/run.py fuzz --seconds 600
	$(BIN)/python reliability/run.py faults --kills 100
	$(BIN)/python reliability/run.py large
	$(BIN)/python reliability/run.py page

check: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/dev
	$(BIN)/python benchmarks/bench.py

# Simulate every shipped measurement; writes docs/validation.md, fails when a stated bound is exceeded.
validate: .venv/base
	$(BIN)/python validation/run.py
	$(BIN)/python validation/energy_crosscheck.py

docs: .venv/dev
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html
	@echo "open docs/_build/html/index.html"

clean:
	rm -rf .venv build dist results docs/_build *.egg-info
