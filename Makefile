# `make demo` and `make test` work from nothing but Python 3.11+, make and a package index, and may be repeated.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LABEL_STUDIO := .venv-label-studio
EVERYTHING := '.[models,dev]'
DEMO ?= mmtt-demo
REFERENCE ?= ../shared/reference

.PHONY: demo test lint format bench parity clean

demo: $(VENV)/.base          ## the whole pipeline on drawn portraits, with a contact sheet to look at
	$(BIN)/mmtt demo $(DEMO)

test: $(VENV)/.all $(LABEL_STUDIO)/pins.txt lint  ## everything installed, then the linters and the whole test suite, two files at a time
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/.all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.all
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.base         ## each step beside its naive twin
	$(BIN)/mmtt bench

parity: $(VENV)/.all         ## networks against recorded outputs: make parity REFERENCE=DIR
	$(BIN)/python -m tests.parity $(REFERENCE)

clean:
	rm -rf $(VENV) $(LABEL_STUDIO) mmtt-demo build *.egg-info .pytest_cache .mypy_cache .ruff_cache

# uv installs in a fifth of pip's time. It reads no pip configuration, so where it cannot reach an index, pip may.
# --compile-bytecode: a minute once, and networks start in 6 s instead of 15 s where Python may not write its own caches.
# editable_mode=compat: a plain path entry; the default import hook costs 25 ms at every start of mmtt.
define install
	$(BIN)/uv pip install --python $(BIN)/python --constraint constraints.txt -C editable_mode=compat $(2) --editable $(1) \
	|| { echo "uv could not install; trying pip"; \
	     $(BIN)/python -m pip install --constraint constraints.txt -C editable_mode=compat --editable $(1); }
	@touch $@
endef

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mmtt-build needs Python 3.11 or later; name one: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv

$(VENV)/.base: $(BIN)/uv pyproject.toml constraints.txt
	$(call install,.)

$(VENV)/.all: $(BIN)/uv pyproject.toml constraints.txt
	$(call install,$(EVERYTHING),--compile-bytecode)
	@touch $(VENV)/.base

# The annotation server cannot share our environment; its own takes 1 GB and less than a minute.
$(LABEL_STUDIO)/pins.txt: $(VENV)/.all annotation/label_studio.txt
	MMTT_LABEL_STUDIO_ENVIRONMENT=$(LABEL_STUDIO) $(BIN)/mmtt annotate install
	@touch $@
