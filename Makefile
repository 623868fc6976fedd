# Python >= 3.11 and make are all that these need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The suite and the demo start many processes, and each would compile everything again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo run test check bench soak stress clean

# The stamp is younger than setup.cfg where everything it asks for is installed.
$(VENV)/.installed: setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("secure-grpc needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Say which one: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	@echo "Installing into $(VENV) (once) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[server,dev]'
	@touch $@

demo: $(VENV)/.installed
	@$(BIN)/python tools/demo.py

run: $(VENV)/.installed
	@$(BIN)/python tools/run.py

# Two workers more than there are cores: many tests wait for time to pass. Coverage takes a quarter
# more processor time, so CI alone asks for it: make test ARGS='--cov --cov-report=term'.
test: $(VENV)/.installed
	PYTEST_XDIST_AUTO_NUM_WORKERS=$$(( $$(nproc) + 2 )) $(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.installed
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/gen_protos.py --check

bench: $(VENV)/.installed
	@$(BIN)/python -m benchmarks $(ARGS)

soak: $(VENV)/.installed
	@$(BIN)/python -m benchmarks.soak $(ARGS)

stress: $(VENV)/.installed
	@$(BIN)/python -m stress.health_watch $(ARGS)

clean:
	rm -rf $(VENV) *.egg-info .pytest_cache .mypy_cache .ruff_cache
