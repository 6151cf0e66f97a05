# make demo   a synthetic study from nothing to its report      make test   the whole test suite
# Both make .venv first, with pinned packages; nothing is installed outside this folder.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# Work stays on the cores it is given: two threads of four libraries each would only wait for one another.
export OMP_NUM_THREADS ?= 1

.PHONY: demo test quick check clean

demo: $(READY)
	$(BIN)/mtdlr demo demo
	@echo "open $(CURDIR)/demo/runs/study/report.html"

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile

quick: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist loadfile

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=23" "setuptools>=77" wheel
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev,docs-out,cluster]"
	for oracle in "pyradiomics-bhklab==3.1.4" lifelines scikit-survival; do \
	  $(BIN)/python -m pip install --quiet -c constraints.txt $$oracle || echo "$$oracle did not install: the tests against it will skip"; \
	done
	touch $(READY)

clean:
	rm -rf $(VENV) demo build dist
