# Everything a developer runs. Needs make and Python >= 3.11; the rest goes into .venv by pip, as pip is configured.
#
#   make demo      the main job on real input against a served platform, every byte compared
#   make test      the tests but slow ones and house rules  make test-all  all of them
#                  (servers that they run against go into .tools/ the first time, in about half a minute)
#   make check     format, lint, types, generated files, house rules (verifies)
#   make fix       the same, mended where a tool can
#   make bench     the engine and its peers against nginx, S3 and the served platform (ARGS="--quick" for a short run)
#   make soak      mixed work under random faults, watched for growth (ARGS="--minutes 30 --seed 1")
#   make docs      builds the documentation into site/
#   make serve     a platform on this machine (ARGS="--port 8750 --data FOLDER")

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
PYTEST_ARGS ?=
# Tests run in this many processes, the tests of a file in one: many of them wait for a deadline or a child process.
# In their own order: files of few long tests, which would come last otherwise, are not alone at the end.
TEST_PROCESSES ?= 3
SIDE_BY_SIDE := -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

# The stamp carries the checksum of pyproject.toml: another set of dependencies is another stamp.
HASH := $(shell cksum < pyproject.toml | cut -d ' ' -f 1)
DEV := $(VENV)/.installed-dev-$(HASH)
DEMO := $(VENV)/.installed-demo-$(HASH)
DOCS := $(VENV)/.installed-docs-$(HASH)
BENCH := $(VENV)/.installed-bench-$(HASH)

# Hundreds of tests start an interpreter of their own: without kept bytecode each compiles everything anew.
export PYTHONDONTWRITEBYTECODE =

FORMATTED := asyncsdk benchmarks tests

.PHONY: help demo test test-all check fix bench soak docs serve venv clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^#   //p' Makefile

demo: $(DEMO)
	$(BIN)/python -m benchmarks.demo $(ARGS)

test: $(DEV)
	@$(BIN)/python -m tests.support.real.install
	$(BIN)/pytest -q $(SIDE_BY_SIDE) -m "not slow" --ignore tests/house $(PYTEST_ARGS)

test-all: $(DEV) $(DEMO)
	@$(BIN)/python -m tests.support.real.install --system
	$(BIN)/pytest -q $(SIDE_BY_SIDE) $(PYTEST_ARGS)

check: $(DEV)
	$(BIN)/ruff format --check $(FORMATTED)
	$(BIN)/ruff check --output-format concise $(FORMATTED)
	$(BIN)/mypy
	$(BIN)/python -m asyncsdk.sync.generate --check
	$(BIN)/python -m tests.support.capabilities --check
	$(BIN)/pytest -q tests/house $(PYTEST_ARGS)

fix: $(DEV)
	$(BIN)/python -m asyncsdk.sync.generate
	$(BIN)/python -m tests.support.capabilities
	$(BIN)/ruff check --fix $(FORMATTED)
	$(BIN)/ruff format $(FORMATTED)

bench: $(BENCH)
	@$(BIN)/python -m benchmarks.install_tools
	$(BIN)/python -m benchmarks.run $(ARGS)

soak: $(DEV)
	$(BIN)/python -m benchmarks.soak $(ARGS)

docs: $(DOCS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "documentation: site/index.html"

serve: $(DEV)
	$(BIN)/python -m asyncsdk serve $(ARGS)

venv: $(DEV)

clean:
	rm -rf $(VENV) .tools .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist site

# --- the virtual environment ------------------------------------------------------------------------------------

$(BIN)/python:
	@python=$${PYTHON:-}; \
	for candidate in "$$python" python3 python3.13 python3.12 python3.11 python; do \
	  [ -n "$$candidate" ] && command -v "$$candidate" >/dev/null 2>&1 && \
	  "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { python=$$candidate; found=1; break; }; \
	done; \
	[ -n "$$found" ] || { echo "make: needs Python 3.11 or newer on the PATH, or PYTHON=/path/to/python3" >&2; exit 1; }; \
	echo "making $(VENV) with $$($$python --version)"; \
	"$$python" -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "make: $$python cannot make a virtual environment (on Debian: apt-get install python3-venv)" >&2; exit 1; }

$(DEV): $(BIN)/python
	@$(call install,dev,$@)

$(DEMO): $(BIN)/python
	@$(call install,demo,$@)

$(DOCS): $(BIN)/python
	@$(call install,docs,$@)

$(BENCH): $(BIN)/python
	@$(call install,bench,$@)

define install
echo "installing asyncsdk[$(1)] into $(VENV) (once)"; \
rm -f $(VENV)/.installed-$(1)-*; \
$(BIN)/python -m pip install -qq --disable-pip-version-check --editable '.[$(1)]' && touch $(2)
endef
