# make book    run every notebook here, build the site from these fresh copies
# make test    every test: style and types, units, the site, the notebooks replayed
# make exercises the notebooks that students fill in, from those with solutions
# make teaching the pack to teach from: slides, worksheets, a course for nbgrader, into _build/teaching
# make figures every figure and table of the paper, from the chapters, into runs/figures
# make lab     open the notebooks in JupyterLab
# Each sets up .venv first, once. Another Python: make book PYTHON=python3.12. Without make: README.md

BIN := .venv/bin
READY := .venv/.ready

# The first interpreter that is 3.11, 3.12 or 3.13 and can make environments.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	$$python -c 'import sys, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null \
	&& { echo $$python; break; }; done)

# One folder of trained models, wherever a notebook or test is started from; tools of .venv before all others.
export DSNA_RUNS ?= $(CURDIR)/runs
export PATH := $(CURDIR)/$(BIN):$(PATH)
export JUPYTER_PREFER_ENV_PATH := 1

# Half the cores for each of two notebooks.
THREADS := $(shell cores=$$(getconf _NPROCESSORS_ONLN); echo $$((cores > 2 ? cores / 2 : 1)))
HALF := OMP_NUM_THREADS=$(THREADS) MKL_NUM_THREADS=$(THREADS)
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help setup book figures exercises teaching models lab test unit replay lint clean

help:
	@sed -n '/^#/!q;s/^# //p' Makefile

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@test -x $(BIN)/python || test -n "$(PYTHON)" || { \
		echo "No Python 3.11, 3.12 or 3.13 found. Install one, or name it: make PYTHON=path/to/python3.12" >&2; exit 1; }
	@echo "Setting up .venv: a few minutes, once."
	test -x $(BIN)/python || "$(PYTHON)" -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[book,export,test]"
	@touch $@

book: $(READY)
	$(BIN)/python tools/build_book.py

figures: $(READY)
	$(BIN)/dsna figure all

exercises: $(READY)
	$(BIN)/python tools/make_exercises.py

teaching: $(READY)
	$(BIN)/python tools/make_teaching.py _build/teaching

# What this machine has trained, for the machines of a class: unpacked into a folder that DSNA_RUNS names.
models:
	@test -d "$(DSNA_RUNS)/train" || { echo "$(DSNA_RUNS) holds no trained model: run make book first" >&2; exit 1; }
	mkdir -p _build/teaching
	tar -czf _build/teaching/models.tar.gz -C "$(DSNA_RUNS)" .

lab: $(READY)
	$(BIN)/jupyter lab notebooks

test: lint unit replay

# Two workers with one thread each: on two cores, more threads only get in each other's way.
unit: $(READY)
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest tests \
		-n 2 --dist loadscope --cov --cov-fail-under=90

replay: $(READY)
	$(HALF) $(BIN)/python -m pytest notebooks -p no:cacheprovider -n 2 --dist loadscope \
		--nbval --nbval-current-env --nbval-cell-timeout=900 --nbval-sanitize-with tests/nbval.cfg

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf _build
