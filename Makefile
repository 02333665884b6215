# The Virtual Cell Challenge, hands on: every command of the project. `make` lists them.

# The newest Python that is here and can make environments. Another one: make book PYTHON=python3.12
has     = for v in $(1); do for p in python$$v "$$HOME"/.pyenv/versions/$$v.*/bin/python; do \
            "$$p" -c "import ensurepip, venv" 2>/dev/null && { echo "$$p"; exit; }; done; done
ifndef PYTHON
PYTHON := $(or $(shell $(call has,3.14 3.13 3.12 3.11)),python3)
endif
old     = $(shell $(call has,3.11 3.12))
VENV   ?= .venv
TOC    := book/_toc.yml
HTML   := _build/html
# Processes for pytest; the numerical libraries get the cores that are left.
JOBS   ?= 2

BIN    := $(VENV)/bin
PY     := $(BIN)/python
# A notebook that needs more memory fails; on the official files it may need more.
MEMORY ?= 2GB
# Each process begins with its half of the files, so what the tests of a file share is made once.
UNIT    = -n $(JOBS) --dist worksteal -m "not slow"
NBMAKE  = "$(BIN)/pytest" --nbmake -p notebook_memory \
          -o addopts="-ra -p no:fast_array_utils -p no:zarr"
# As many notebooks at a time as there are cores: threads of one would wait for another's.
ALONE   = OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
# Notebooks that ran as tests, with their outputs: the book is built of them. Not in _build, where
# nbmake looks for none.
RAN    := build/executed
# The official scorers do not install on Python 3.13: another environment holds them, and little
# else. What is held against them:
ORACLE := .venv-oracle
PARITY  = tests/test_parity.py tests/test_submission.py
# For what notebooks start as commands; found in the shell, as the folder's path may hold spaces.
WITH_PATH = PATH="$$(cd "$(BIN)" && pwd):$$PATH"
RESOLUTION ?= lowest-direct
# What needs the book's packages, or the versions of the lock.
BOUNDS_LEAVE_OUT := -m "not slow" --ignore=tests/test_build.py --ignore=tests/test_repository.py
STAMP  := $(VENV)/.installed
LOCK   := requirements.lock

# A coverage or path setting of the caller must not leak into the environment.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYDEVD_DISABLE_FILE_VALIDATION := 1

.DEFAULT_GOAL := help
.PHONY: help setup test-bounds test-colab links bench bench-layouts bench-models bench-panel bench-speed calibration book book-sphinx test parity notebooks test-fast lint fix lab lock clean distclean check-python

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(STAMP)  ## create .venv with the locked packages and this package (editable)

$(STAMP): pyproject.toml $(LOCK)
	@$(MAKE) --no-print-directory check-python
	@echo "==> Setting up $(VENV) (the first time takes a minute or two)"
	@test -x "$(PY)" || "$(PYTHON)" -m venv "$(VENV)"
	@# Whatever its name, git and ruff leave it out; Python 3.13 sees to that by itself.
	@echo "*" > "$(VENV)/.gitignore"
	@"$(PY)" -m pip install --quiet "uv>=0.8"
	@echo "==> Installing the packages of $(LOCK)"
	@"$(BIN)/uv" pip sync --quiet --compile-bytecode --python "$(PY)" --allow-empty-requirements $(LOCK)
	@"$(BIN)/uv" pip install --quiet --python "$(PY)" --no-deps --editable .
	@# Matplotlib tells on standard error when it lists the fonts for the first time: do that now.
	@"$(PY)" -c "import matplotlib.font_manager" 2>/dev/null
	@touch "$@"
	@echo "==> Environment ready: $(VENV) ($$("$(PY)" --version))"

check-python:
	@command -v "$(PYTHON)" >/dev/null 2>&1 || { \
	  echo "error: '$(PYTHON)' was not found. Install Python 3.11 or newer," >&2; \
	  echo "       or name one: make setup PYTHON=python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: this project needs Python 3.11 or newer, but '$(PYTHON)' is" >&2; \
	  echo "       $$("$(PYTHON)" --version 2>&1). Name another: make setup PYTHON=python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "error: '$(PYTHON)' cannot create environments: its venv module is missing." >&2; \
	  echo "       On Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }

book: $(STAMP)  ## execute every notebook and build the book
	@echo "==> Building the book: every notebook is executed, which takes a few minutes"
	@rm -rf _build
	@$(WITH_PATH) "$(PY)" scripts/execute_pages.py
	@$(WITH_PATH) "$(BIN)/jupyter-book" build . --toc $(TOC) -W --keep-going
	@echo
	@echo "==> The book is ready. Open in a browser:"
	@echo "    $(CURDIR)/$(HTML)/index.html"
	@"$(PY)" -c 'import pathlib, sys; print("    " + pathlib.Path(sys.argv[1]).resolve().as_uri())' $(HTML)/index.html

book-sphinx: $(STAMP)  ## the same book by plain Sphinx, from what the last make book executed
	@echo "==> Installing Sphinx without Jupyter Book into .venv-sphinx"
	@rm -rf .venv-sphinx _build/sphinx && "$(BIN)/uv" venv --quiet --python "$(PY)" .venv-sphinx
	@"$(BIN)/uv" pip install --quiet --python .venv-sphinx/bin/python --group sphinx --editable ".[plot]"
	@test -d _build/.jupyter_cache || $(WITH_PATH) "$(PY)" scripts/execute_pages.py
	@.venv-sphinx/bin/sphinx-build --fresh-env -W --keep-going \
	     --doctree-dir _build/.doctrees-sphinx . _build/sphinx
	@! test -d $(HTML) || "$(PY)" scripts/compare_builds.py $(HTML) _build/sphinx

test: lint  ## lint, unit tests, every notebook, the book itself, the official scorers
	@echo "==> Unit tests and doctests, on $$("$(PY)" --version)"
	@"$(BIN)/pytest" $(UNIT)
	@echo "==> Notebooks, each within $(MEMORY), and after the last cell every solution"
	@rm -rf $(RAN) && mkdir -p $(RAN) && cp notebooks/*.ipynb $(RAN)
	@"$(PY)" scripts/notebook_tools.py solve $(RAN)/*.ipynb
	@$(ALONE) $(NBMAKE) $(RAN) --overwrite -n $(JOBS) --nbmake-timeout=300 --notebook-memory $(MEMORY)
	@echo "==> The book, from a clean copy and in a browser; other Pythons; Colab's versions"
	@VCC_EXECUTED=$(RAN) "$(BIN)/pytest" -n $(JOBS) --dist loadgroup --no-loadscope-reorder -m slow
	@$(MAKE) --no-print-directory parity

parity: $(STAMP)  ## the tests against the official scorers, where a Python that they install on is here
	@if "$(PY)" -c "import cell_eval" 2>/dev/null; then \
	  echo "==> The official scorers are in $(VENV): their tests are among the unit tests"; \
	elif [ -n "$(old)" ]; then \
	  echo "==> Installing the official scorers into $(ORACLE)" && \
	  "$(BIN)/uv" venv --quiet --allow-existing --python "$(old)" $(ORACLE) && \
	  "$(BIN)/uv" pip install --quiet --python $(ORACLE)/bin/python --constraint $(LOCK) \
	     --editable ".[oracle]" pytest pytest-xdist && \
	  echo "==> Parity with the official scorers, on $$("$(ORACLE)/bin/python" --version)" && \
	  "$(ORACLE)/bin/pytest" $(UNIT) $(PARITY); \
	else \
	  echo "==> No Python 3.11 or 3.12 here, which the official scorers need: parity is not tested"; \
	fi

# A folder called h1-panel holds a panel.
PANEL   = $(findstring panel,$(notdir $(VCC_DATA)))

notebooks: $(STAMP)  ## run the notebooks on the files in the folder VCC_DATA, within 8 GB each (a panel: 4 GB)
	@test -n "$$VCC_DATA" || { echo "error: set VCC_DATA to a folder with the official files" >&2; exit 1; }
	@$(NBMAKE) notebooks --nbmake-timeout=3600 --notebook-memory $(if $(PANEL),4GB,8GB) \
	    --notebook-memory-json benchmarks/results/notebooks_$(or $(PANEL),official).json

test-fast: $(STAMP)  ## only the unit tests and doctests
	@"$(BIN)/pytest" $(UNIT)

lint: $(STAMP)  ## ruff, and the rules of the notebooks
	@echo "==> Lint"
	@"$(BIN)/ruff" check .
	@"$(PY)" scripts/notebook_tools.py check

fix: $(STAMP)  ## repair what can be repaired: ruff fixes, first cells, outputs
	@"$(BIN)/ruff" check --fix .
	@"$(PY)" scripts/notebook_tools.py fix

test-bounds: $(STAMP)  ## unit tests with the oldest versions allowed (RESOLUTION=highest: the newest)
	@echo "==> Installing the $(RESOLUTION) versions that pyproject.toml allows into .venv-bounds"
	@rm -rf .venv-bounds && "$(BIN)/uv" venv --quiet --python "$(PY)" .venv-bounds
	@"$(BIN)/uv" pip install --quiet --python .venv-bounds/bin/python --resolution $(RESOLUTION) \
	     --editable ".[test]" "scanpy>=1.11"
	@SCIPY_ARRAY_API=1 .venv-bounds/bin/python -m pytest -q --doctest-modules vcc_helpers tests $(BOUNDS_LEAVE_OUT)

test-colab: $(STAMP)  ## every notebook in two environments like Colab's
	@VCC_COLAB=all "$(BIN)/pytest" -n $(JOBS) --dist loadgroup -m slow tests/test_colab.py

links: book  ## ask every address on the pages whether it still answers
	@$(WITH_PATH) "$(BIN)/jupyter-book" build . --toc $(TOC) --builder linkcheck

bench: $(STAMP)  ## compare our scores with the official ones on many random cases (minutes)
	@"$(PY)" benchmarks/parity.py

bench-layouts: $(STAMP)  ## random small screens in every layout: one answer from all (ten minutes)
	@"$(PY)" benchmarks/layouts.py

bench-models: $(STAMP)  ## the full table of models; H1="BULK.h5ad --counts C.csv --annotation GO.npz" adds real effects
	@"$(PY)" benchmarks/models.py $(if $(H1),--pseudobulk $(H1))

bench-panel: $(STAMP)  ## fetch panels of a simulated file of full size from a slow server (16 GB of disk, minutes)
	@"$(PY)" benchmarks/panel.py

bench-speed: $(STAMP)  ## time scoring beside every other scorer, each in an environment of its own (half an hour)
	@"$(PY)" benchmarks/prepare_speed.py
	@"$(PY)" benchmarks/speed.py
	@"$(PY)" benchmarks/speed.py --growth

calibration: $(STAMP)  ## hold a simulated screen of full size against the real figures (16 GB of disk, minutes)
	@mkdir -p _build
	@"$(BIN)/vcc-helpers" simulate _build/h1_like.h5ad --size h1
	@"$(PY)" benchmarks/calibration.py --file _build/h1_like.h5ad --write
	@rm -f _build/h1_like.h5ad

lab: $(STAMP)  ## open the notebooks in JupyterLab
	@$(WITH_PATH) "$(BIN)/jupyter-lab" notebooks

# With checksums where a secret is at hand; pip takes none for a folder, so $(LOCK) has none.
HASHED  = --quiet --no-header --no-annotate --generate-hashes --python-version 3.12

lock: $(STAMP)  ## resolve requirements.lock anew from pyproject.toml, and the locks in .github
	@{ sed -n '/^#/p' $(LOCK); \
	   "$(BIN)/uv" pip compile --quiet --universal --no-header --no-annotate --python-version 3.11 \
	     --extra book --extra test --extra oracle --upgrade pyproject.toml; } > $(LOCK).new
	@mv $(LOCK).new $(LOCK)
	@{ sed -n '/^#/p' .github/classroom.lock; \
	   "$(BIN)/uv" pip compile $(HASHED) --python-platform x86_64-manylinux_2_28 \
	     --constraint $(LOCK) pyproject.toml; } > $(LOCK).new
	@mv $(LOCK).new .github/classroom.lock
	@{ sed -n '/^#/p' .github/build.lock; printf 'hatchling>=1.27\nuv>=0.8\n' | \
	   "$(BIN)/uv" pip compile $(HASHED) --universal -; } > $(LOCK).new
	@mv $(LOCK).new .github/build.lock

# `make publish-as OWNER/NAME`: the name is a word of the command, not something to make.
ifeq ($(firstword $(MAKECMDGOALS)),publish-as)
PUBLISH_AS := $(word 2,$(MAKECMDGOALS))
ifneq ($(PUBLISH_AS),)
$(PUBLISH_AS): publish-as ; @:
endif
endif

.PHONY: publish-as
publish-as: $(STAMP)  ## OWNER/NAME: make this copy that repository's own: links, notebooks, checks
	@"$(PY)" scripts/publish_as.py "$(PUBLISH_AS)"

clean:  ## remove what was built
	@rm -rf _build $(RAN) .pytest_cache .ruff_cache .ipynb_checkpoints dist
	@find benchmarks book notebooks scripts tests vcc_helpers \
	     \( -name __pycache__ -o -name .ipynb_checkpoints \) -type d -prune -exec rm -rf {} +

distclean: clean  ## remove the environments too
	@rm -rf "$(VENV)" $(ORACLE) .venv-bounds .venv-sphinx
