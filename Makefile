# make book    run every notebook here, build the site from these fresh copies
# make test    every test: style and types, units, the site, the notebooks replayed
# make exercises the notebooks that students fill in, from those with solutions
# make figures every figure and table of the paper, from the chapters, into runs/figures
# make lab     open the notebooks in JupyterLab
# Each sets up .venv first, once. Another Python: make book PYTHON=python3.12

BIN := .venv/bin
READY := .venv/.ready
SOURCE := _build/source
NOTEBOOKS := $(sort $(wildcard notebooks/*.ipynb))
FRESH := $(addprefix $(SOURCE)/,$(NOTEBOOKS))
LIBRARY := $(shell find dsna_lib -type f -not -name '*.pyc')

# The first interpreter that is 3.11 or 3.12 and can make environments.
PYTHON ?= $(shell for python in python3.11 python3.12 python3; do \
	$$python -c 'import sys, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null \
	&& { echo $$python; break; }; done)

# One folder of trained models, wherever a notebook or test is started from; tools of .venv before all others.
export DSNA_RUNS ?= $(CURDIR)/runs
export PATH := $(CURDIR)/$(BIN):$(PATH)
export JUPYTER_PREFER_ENV_PATH := 1

# Small networks gain little from a second thread: two chapters at a time, each with half the cores. What several
# of them need is trained by the first; the others wait for it (06 and 07 would wait long for 05: later).
THREADS := $(shell cores=$$(getconf _NPROCESSORS_ONLN); echo $$((cores > 2 ? cores / 2 : 1)))
HALF := OMP_NUM_THREADS=$(THREADS) MKL_NUM_THREADS=$(THREADS)
ifneq ($(MAKECMDGOALS),chapters)
.NOTPARALLEL:
endif
.DELETE_ON_ERROR:
.PHONY: help setup book site chapters figures exercises lab test unit replay lint clean

help:
	@sed -n '/^#/!q;s/^# //p' Makefile

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@test -x $(BIN)/python || test -n "$(PYTHON)" || { \
		echo "No Python 3.11 or 3.12 found. Install one, or name it: make PYTHON=path/to/python3.12" >&2; exit 1; }
	@echo "Setting up .venv: a few minutes, once."
	test -x $(BIN)/python || "$(PYTHON)" -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[book,test]"
	@touch $@

book: site
	@echo
	@echo "The book is ready. Open _build/html/index.html, or serve it:"
	@echo "  $(BIN)/python -m http.server 8000 --directory _build/html    (then http://localhost:8000)"

# The site reads a copy of the sources in which the notebooks are the ones just run.
site: $(READY)
	+@$(MAKE) --no-print-directory --jobs=2 chapters
	@rm -rf _build/html _build/.doctrees $(addprefix $(SOURCE)/,book dsna_lib exercises results)
	@mkdir -p $(SOURCE)
	@cp -R _config.yml _toc.yml book dsna_lib exercises $(SOURCE)/
	@if [ -d results ]; then cp -R results $(SOURCE)/; fi
	$(BIN)/jupyter-book build $(SOURCE) --path-output . -n -W --keep-going

# The long ones first, so that none of them is left alone at the end.
of = $(filter $(SOURCE)/notebooks/$(1)_%,$(FRESH))
chapters: $(foreach number,05 02 10 08 09,$(call of,$(number))) $(FRESH)

$(SOURCE)/notebooks/%.ipynb: notebooks/%.ipynb $(LIBRARY) $(READY)
	$(HALF) $(BIN)/python -m dsna_lib.book.chapters $< $@

$(foreach number,06 07,$(call of,$(number))): | $(call of,05)

figures: $(READY)
	$(BIN)/dsna figure all

exercises: $(READY)
	$(BIN)/python tools/make_exercises.py

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
