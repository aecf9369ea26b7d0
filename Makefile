# Two commands are all a new user needs: make demo, make test. Everything is installed into .venv.
VENV ?= .venv
BIN := $(VENV)/bin
TOOLS := build/tools

.PHONY: setup demo test lowest check bench options sbom advisories clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	python3 -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[hub,dev]'
	touch $@

demo: setup
	$(BIN)/oodream demo

test: setup
	$(BIN)/python -m pytest

# The tests with the lowest version of everything that pyproject.toml names.
lowest: build/lowest/.installed
	build/lowest/bin/python -m pytest

build/lowest/.installed: pyproject.toml $(TOOLS)/.installed
	$(TOOLS)/bin/uv venv --quiet --clear --python 3.11 build/lowest
	$(TOOLS)/bin/uv pip install --quiet --python build/lowest/bin/python --resolution lowest-direct -e '.[hub,dev]'
	touch $@

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: setup
	$(BIN)/python benchmarks --page docs/performance.md

options: setup
	$(BIN)/python -m oodream.cli.reference > docs/options.md.new && mv docs/options.md.new docs/options.md

# Tools that look at the environment have one of their own, so that it stays what it is.
$(TOOLS)/.installed:
	python3 -m venv $(TOOLS)
	$(TOOLS)/bin/pip install --quiet --disable-pip-version-check 'cyclonedx-bom>=7,<8' 'pip-audit>=2.10,<3' 'uv>=0.9'
	touch $@

sbom: setup $(TOOLS)/.installed
	$(TOOLS)/bin/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml --mc-type library --output-reproducible -o build/sbom.json

advisories: setup $(TOOLS)/.installed
	$(TOOLS)/bin/pip-audit --skip-editable --path $(VENV)/lib/python3*/site-packages

clean:
	rm -rf $(VENV) runs build dist
