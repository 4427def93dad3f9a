# Two commands matter: `make demo` (the show) and `make test` (everything CI runs).
# Each sets up what it needs in .venv; nothing else has to be installed first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check sim soak bench fuzz clean

demo: $(VENV)/installed
	$(BIN)/shoal demo

# Many tests start processes and wait for them: three workers keep two cores busy, if who is done takes over from who is not.
# tests/lan waits for real hosts most of its time, and measures: only the swarm runs beside it, with what it leaves of the processor.
# The last step is the wheel, on the other Pythons of this machine.
test: check
	$(BIN)/python -m pytest -n $$(($$(nproc) * 3 / 2)) --dist worksteal --ignore tests/lan --ignore tests/bench
	$(BIN)/python -m sims --check-determinism --seeds 0..4
	first=$$((0x$$(git rev-parse --short=6 HEAD 2>/dev/null || echo 0) % 1000000 * 200)); \
	nice -n 19 $(BIN)/python -m sims --seeds $$first..$$((first + 200)) & swarm=$$!; \
	$(BIN)/python -m pytest tests/lan; lan=$$?; wait $$swarm && exit $$lan
	.ci/pythons

check: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/mypy

# The swarm over a thousand seeds, tests of clusters over a hundred, every failure case over 33; `make test` has 200 that follow from the commit, 3 and 1.
sim: $(VENV)/installed-dev
	$(BIN)/python -m sims --seeds 0..1000
	SHOAL_SEEDS=100 $(BIN)/python -m pytest -n auto tests/sims

# A night: twenty thousand seeds, every planted bug searched for anew, fifty seeds compared, the models of the rules run long,
# failure detectors measured.
soak: $(VENV)/installed-dev
	$(BIN)/python -m sims --seeds 0..20000
	$(BIN)/python -m sims --planted all
	$(BIN)/python -m sims --check-determinism
	for model in reconfiguration chain dropping; do $(BIN)/python -m tests.models $$model --seeds 20000 || exit 1; done
	$(BIN)/python -m sims.detection

bench: $(VENV)/installed-dev
	$(BIN)/python -m pytest -s tests/bench

# A million frames, then 100,000 connections to a live node: half an hour. Less of both: make fuzz FUZZ="--frames 10000 --connections 500"
fuzz: $(VENV)/installed-fuzz
	$(BIN)/python -m tests.fuzz $(FUZZ)

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test,dev]'
	touch $@

$(VENV)/installed-fuzz: $(VENV)/installed-dev
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[fuzz]'
	touch $@
