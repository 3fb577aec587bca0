# `make demo` and `make test` set up all they need: a virtual environment with pinned packages and,
# on Debian/Ubuntu as root, missing system packages (DIFFTUMOR_APT=0 forbids that).
.DEFAULT_GOAL := help
VENV := .venv
PYTHON := $(VENV)/bin/python
READY := $(VENV)/.ready
DOCS_READY := $(VENV)/.ready-docs
# The first that really runs: a version manager may leave names that do not.
BASE_PYTHON ?= $(shell for p in python3.12 python3.11 python3; do $$p -c '' 2>/dev/null && command -v $$p && break; done)
export OMP_WAIT_POLICY := PASSIVE
OUT ?= demo-output
# Where PyTorch comes from, if not from PyPI: https://download.pytorch.org/whl/cpu has no CUDA and is small.
TORCH_INDEX ?=

.PHONY: help setup demo test test-fast lint docs evaluate soak benchmark clean

help:
	@echo "make demo [CT=scan.nii.gz]  synthesize tumors in a phantom (and in your CT), heat maps: pictures and NIfTI files"
	@echo "make test                   the whole suite, with the list of what was skipped and why"
	@echo "make test-fast              a good part of it in under 3 minutes; what it leaves out stands in Testing/slow.txt"
	@echo "make lint                   style, types and spelling"
	@echo "make docs                   the documentation site, in site/index.html"
	@echo "make evaluate               figures of the demonstration models on unseen phantoms"
	@echo "make soak                   long fault campaigns"
	@echo "make benchmark              time and memory tables"

$(READY): pyproject.toml constraints.txt Makefile .ci/system-packages
	@BASE_PYTHON="$(BASE_PYTHON)" bash .ci/system-packages
	@$(BASE_PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
	  { echo "Python 3.11 to 3.13 is needed, found: $$($(BASE_PYTHON) --version). Install one and run make BASE_PYTHON=/path/to/python3.12"; exit 1; }
	test -x $(PYTHON) || $(BASE_PYTHON) -m venv $(VENV)
	$(PYTHON) -m pip install -q --upgrade pip
	$(PYTHON) -m pip install -q -c constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	$(PYTHON) -m pip install -q -c constraints.txt -e '.[training,test,slicer-test]'
	@touch $@

setup: $(READY)

demo: $(READY)
	$(PYTHON) -m difftumor demo --out $(OUT) --overwrite $(if $(CT),--ct "$(CT)")

lint: $(READY)
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) release/check_types.py
	$(PYTHON) -m codespell_lib

# One process for each core and one thread for each process: files of tests side by side take half the time. In their
# order, as the files with the fewest tests are the slowest and should not come last.
test: lint
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

$(DOCS_READY): $(READY)
	$(PYTHON) -m pip install -q -c constraints.txt -e '.[docs]'
	@touch $@

# Strict: a dead link or anchor, a page in no menu or a docstring that cannot be read fails.
docs: $(DOCS_READY)
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --quiet --clean

# What takes longest is left out by name (files, or single tests); the rest shows most mistakes.
test-fast: $(READY)
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder \
	  $$(sed -n 's/^\(Testing[^ ]*\).*/--deselect=\1/p' Testing/slow.txt)

evaluate: $(READY)
	failed=0; for subject in demo_models anomaly segmentation learning; do \
	  PYTHONPATH=. $(PYTHON) Testing/evaluate/evaluate_$$subject.py || failed=1; done; exit $$failed

soak: $(READY)
	$(PYTHON) -m pytest -m soak

benchmark: $(READY)
	for program in Testing/benchmarks/benchmark_*.py; do $(PYTHON) $$program || exit 1; done

clean:
	rm -rf $(VENV) $(OUT) site .pytest_cache .ruff_cache .mypy_cache .hypothesis
