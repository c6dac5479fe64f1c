# `make figures`, `make test` and `make bench` do the whole set-up on a fresh machine, then their job.
PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
STAMP  := $(VENV)/.installed
TOOLS  := $(VENV)/.installed-tools

.PHONY: figures gallery train docs bench estimates gpu gpu-wheels test check ready formulas lint clean

figures: $(STAMP)
	$(PY) -m figures all

# The gallery's copies of the figures, and the numbers in it and in the other pages.
gallery: figures
	$(PY) docs/reduce.py
	$(PY) docs/results.py
	$(PY) -m neural report pretrained:digits --held-out digits --held-out-option only=10,11 -n 64 --out figures/out/report
	cp figures/out/report/gap.png docs/report.png
	cp figures/out/explore.html docs/explore.html

# The networks that come with the toolkit, trained again into runs/pretrained, beside those that are shipped: one of them
# by `make train NAME=toy`, all without NAME. Stopped and called again it goes on.
train: $(STAMP)
	$(PY) -m neural pretrain $(NAME)

# The API reference from the docstrings, docs/_build/index.html; warnings are errors.
docs: $(TOOLS)
	$(VENV)/bin/sphinx-build -W --keep-going -q -b html docs docs/_build

# Every method beside the plain products; bench/table.py then writes the table of docs/speed.md.
bench: $(STAMP)
	$(PY) bench/run.py

# What commands say that they take, beside what they take.
estimates: $(STAMP)
	$(PY) bench/estimates.py

# Checks and timings on a machine with CUDA, by its own Python: no environment is made, nothing is fetched.
gpu:
	$(PYTHON) bench/gpu.py

# What that Python may lack, to be taken along: pure Python, and KeOps.
gpu-wheels: $(STAMP)
	$(PY) -m pip wheel --quiet --no-deps --constraint constraints.txt --wheel-dir build/gpu-wheels \
		tqdm filelock jaxtyping wadler-lindig platformdirs pykeops keopscore pybind11

# Two processes of one thread each, a file to one of them: most tests are too small for two threads.
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile

# Everything: 8 minutes on two cores.
test: ready
	$(PYTEST)

# The same without the tests that take more than a second or two: 2 min 10 s.
check: ready
	$(PYTEST) -m 'not slow'

# What pytest need not wait for.
ready: $(TOOLS)
	@$(MAKE) --no-print-directory -j 2 lint formulas

formulas: $(TOOLS)
	OMP_NUM_THREADS=1 $(PY) tests/formulas.py

lint: $(TOOLS)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/basedpyright
	$(VENV)/bin/lint-imports

# Written last, so that an interrupted installation is done again.
$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "make: no '$(PYTHON)' found; install Python >= 3.11 or name one: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $$($(PYTHON) --version) is too old, Python >= 3.11 is needed; name one: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --constraint constraints.txt --editable '.[figures,keops,parquet]'
	@touch $(STAMP)

# What only tests, linters and the reference need.
$(TOOLS): $(STAMP)
	$(PY) -m pip install --quiet --constraint constraints.txt --editable '.[dev,docs,figures,keops,parquet]'
	@touch $(TOOLS)

clean:
	rm -rf $(VENV) figures/out bench/out docs/_build
