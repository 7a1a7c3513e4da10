# make train: AlexNet on synthetic pictures.   make test: the test suite.   Both set up .venv first.
PYTHON ?= python3
VENV = .venv
BIN = $(VENV)/bin

.PHONY: train test lint types coverage teeth slow clean

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

coverage: $(VENV)/dev
	$(BIN)/coverage run -m pytest -m "not slow"
	$(BIN)/coverage report --fail-under=95

teeth: $(VENV)/test
	$(BIN)/python tests/teeth.py $(ARGS)

# One stamp for each set of packages; it is out of date when setup.cfg is newer.
$(VENV)/%: setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[$*]"
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache .coverage
