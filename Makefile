# Everything from a fresh clone, with nothing but Python >= 3.11: `make run` serves the example, `make test` checks all.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check install --quiet

.PHONY: help run test test-long bench-floor docs clean
.DELETE_ON_ERROR:

help:
	@echo 'make run          set up, and serve the example on http://localhost:8080'
	@echo 'make test         set up, and run every check and test'
	@echo 'make test-long    all tests, with many more random histories of the stores'
	@echo 'make docs         write docs/reference.md anew'
	@echo 'make bench-floor  requests per second beside raw ASGI and FastAPI'
	@echo 'make clean        remove the virtual environment and all caches'

run: $(VENV)/.installed-run
	exec $(PY) -m jimsapi --app examples.interests:app

test: $(VENV)/.installed-dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m pytest

test-long: $(VENV)/.installed-dev
	JIMSAPI_STORE_EXAMPLES=2000 $(PY) -m pytest

docs: $(VENV)/.installed-dev
	$(PY) docs/generate.py

bench-floor: $(VENV)/.installed-dev
	@command -v wrk >/dev/null || { \
	  echo 'wrk, the load generator, is missing: installing it with apt-get'; \
	  apt-get install --yes --quiet wrk || { \
	    echo 'wrk could not be installed. Install it (Debian, Ubuntu: sudo apt-get install wrk; macOS: brew install wrk), then run make bench-floor again.' >&2; \
	    exit 1; }; }
	$(PY) -m benchmarks.floor

clean:
	rm -rf $(VENV) build dist jimsapi.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache

# Installed once, and again when the dependencies change. Editable, so that what is served and tested is what is here.
$(VENV)/.installed-run: setup.cfg pyproject.toml | $(PY)
	$(PIP) --editable '.[examples]'
	@touch $@

$(VENV)/.installed-dev: setup.cfg pyproject.toml | $(PY)
	$(PIP) --editable '.[dev,examples]'
	@touch $@ $(VENV)/.installed-run

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'jimsapi needs Python 3.11 or newer, and `$(PYTHON)` is not one. Name one: make PYTHON=python3.12' >&2; \
	  exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo 'The virtual environment could not be made; on Debian and Ubuntu install the package python3-venv first.' >&2; \
	  exit 1; }
