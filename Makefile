# Every target sets itself up: .venv is made with the standard library's venv and pip.
# Of 22,000 modules most are never imported: they are compiled when they are, also where the environment forbids that.
unexport PYTHONDONTWRITEBYTECODE
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready

.PHONY: demo test test-slow check format

demo: $(READY)
	$(VENV)/bin/lightpaff run recipes/demo.yaml --output runs/demo

test: $(READY)
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n 2 --dist worksteal -m "not slow and not gpu"

test-slow: $(READY)
	$(VENV)/bin/python -m pytest -m slow

check: $(READY)
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

format: $(READY)
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

$(READY): pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile -r requirements.lock
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $(READY)
