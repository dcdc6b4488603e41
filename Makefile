# demo, test, check, bench, validate, docs: each makes what it needs in .venv.
PYTHON ?= python3
BIN := .venv/bin
SOURCES := pyproject.toml

.PHONY: demo test test-all check bench validate docs clean

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

check: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/dev
	$(BIN)/python benchmarks/bench.py

# Simulate every shipped measurement; writes docs/validation.md, fails when a stated bound is passed.
validate: .venv/base
	$(BIN)/python validation/run.py
	$(BIN)/python validation/energy_crosscheck.py

docs: .venv/dev
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html
	@echo "open docs/_build/html/index.html"

clean:
	rm -rf .venv build dist results docs/_build *.egg-info
