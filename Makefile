# Two commands are all a new user needs: make demo, make test. Everything is installed into .venv.
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: setup demo test check bench options clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	python3 -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[hub,dev]'
	touch $@

demo: setup
	$(BIN)/oodream demo

test: setup
	$(BIN)/python -m pytest

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: setup
	$(BIN)/python benchmarks --page docs/performance.md

options: setup
	$(BIN)/python -m oodream.cli.reference > docs/options.md.new && mv docs/options.md.new docs/options.md

clean:
	rm -rf $(VENV) runs build dist
