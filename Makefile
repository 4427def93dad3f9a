# Two commands matter: `make demo` (the show) and `make test` (everything CI runs).
# Each sets up what it needs in .venv; nothing else has to be installed first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check sim bench clean

demo: $(VENV)/installed
	$(BIN)/shoal demo

# tests/lan measures times on three real hosts, so nothing else runs beside it.
test: check
	$(BIN)/python -m pytest -n auto --ignore tests/lan --ignore tests/bench
	$(BIN)/python -m pytest tests/lan

check: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/mypy

sim: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n auto tests/sims

bench: $(VENV)/installed-dev
	$(BIN)/python -m pytest -s tests/bench

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test,dev]'
	touch $@
