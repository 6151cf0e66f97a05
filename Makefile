# make demo   a synthetic study from nothing to its report      make test   the whole test suite
# Both make .venv first, with pinned packages; nothing is installed outside this folder.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# Work stays on the cores it is given: two threads of four libraries each would only wait for one another.
export OMP_NUM_THREADS ?= 1
# Two workers, a file at a time, in the order of tests/conftest.py (xdist would else begin with the file of most tests).
SHARED := -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo test quick check coverage coverage-stats coverage-imaging coverage-spine clean docs dist licences sbom audit release matrix test-portable portable-avx2 portable-sse41 portable-seed1 portable-seed2

demo: $(READY)
	$(BIN)/mtdlr demo demo
	@echo "open $(CURDIR)/demo/runs/study/report.html"

test: $(READY)
	$(BIN)/python -m pytest $(SHARED)

quick: $(READY)
	$(BIN)/python -m pytest $(SHARED) -m "not slow"

# Branch coverage of two rooms by their own tests, the slow ones too, each with its floor in percent. The tests of the
# caller prove two files of imaging/: what a scan looks like (test_shift), SimpleITK's images (test_radiomics_extractor).
coverage: coverage-stats coverage-imaging coverage-spine
coverage-stats: FLOOR := 95
coverage-imaging: FLOOR := 95
coverage-imaging: MORE := tests/test_shift.py tests/test_radiomics_extractor.py
coverage-stats coverage-imaging: coverage-%: $(READY)
	$(BIN)/python -m coverage run -m pytest tests/test_$*_*.py
	$(if $(MORE),$(BIN)/python -m coverage run --append -m pytest -m "not slow" $(MORE))
	$(BIN)/python -m coverage report --include="src/mtdlr/$*/*" --skip-covered --fail-under=$(FLOOR)

# The spine: settings, memory and workers, the stages in the order of Figure 1, and what joins them.
SPINE := pipeline jobs model bundle predict prepare prepared train infer explain signature associate
SPINE_ROOMS := study store workers cohort evaluate nomogram radiomics shift
SPINE_TESTS := $(foreach name,store workers study cohort check models bundle predict jobs appraise evaluate rivals harmonise arms \
  clinical planning cost folds signature leakage newcomer report_bad forty odd_inputs field_of_view competing infer train prepare \
  radiomics nomogram shift calculator your_data pipeline cluster,$(wildcard tests/test_$(name)*.py))
comma := ,
coverage-spine: $(READY)
	$(BIN)/python -m coverage run -m pytest $(SPINE_TESTS)
	$(BIN)/python -m coverage report --skip-covered --fail-under=90 \
	  --include="$(subst $() ,$(comma),$(SPINE:%=src/mtdlr/%.py) $(SPINE_ROOMS:%=src/mtdlr/%/*))"

# The whole study's tests with networks from other floating-point paths and other seeds: no test may hang on the luck of
# one processor. Where a path is not there (no AVX2), the processor's own is taken.
PATHS := avx2 sse41 seed1 seed2
portable-avx2: export ATEN_CPU_CAPABILITY = avx2
portable-avx2: export ONEDNN_MAX_CPU_ISA = AVX2
portable-sse41: export ATEN_CPU_CAPABILITY = default
portable-sse41: export ONEDNN_MAX_CPU_ISA = SSE41
portable-seed1: SEED = 1
portable-seed2: SEED = 2
$(addprefix portable-,$(PATHS)): $(READY)
	$(BIN)/python -m pytest tests/test_pipeline.py --weight-seed $(or $(SEED),0)

test-portable: $(addprefix portable-,$(PATHS))

# The documentation site in build/docs: a warning, a link to nowhere or a name that is not there fails it.
docs: $(READY)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[docs]"
	$(BIN)/python -m sphinx -W -n --keep-going -q -b html -d build/doctrees docs build/docs
	@echo "open $(CURDIR)/build/docs/index.html"

# Wheels and source archive in dist, each made twice from what git holds, which must give the same bytes, and checked:
# the pure wheel for every machine, and the one of this platform and Python, which holds the texture engine's loops.
dist: export SOURCE_DATE_EPOCH := $(or $(SOURCE_DATE_EPOCH),$(shell git log -1 --format=%ct))
dist: $(READY)
	$(BIN)/python -m pip install --quiet -c constraints.txt twine
	rm -rf build/dist dist
	for copy in first again; do \
	  mkdir -p build/dist/$$copy && git archive HEAD | tar -x -C build/dist/$$copy && cd build/dist/$$copy \
	  && $(CURDIR)/$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation -w ../$$copy-out . \
	  && $(CURDIR)/$(BIN)/python -c "from setuptools import build_meta; build_meta.build_sdist('../$$copy-out')" >/dev/null \
	  && $(CURDIR)/$(BIN)/python ../../../.ci/repack.py ../$$copy-out/*.tar.gz && cd $(CURDIR) \
	  && $(BIN)/python .ci/platform_wheel.py build/dist/$$copy-out/*.whl build/dist/$$copy-out || exit 1; \
	done
	diff -r build/dist/first-out build/dist/again-out
	mkdir dist && cp build/dist/first-out/* dist && rm -rf build/dist
	$(BIN)/python -m twine check --strict dist/*

# What a user installs with every extra: the licence of each package that is imported (one that is not permissive fails
# it), a bill of materials (CycloneDX), and a look at it in PyPI's list of known weaknesses (which must be reachable: a
# package that cannot be looked up fails it). All look at an environment of its own, so that tools and tests are not in it.
build/shipped/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv build/shipped && build/shipped/bin/python -m pip install --quiet -c constraints.txt \
	  ".[networks,dicom,docs-out,web,cluster,jpeg,itk]"
	$(PYTHON) -m venv build/tools && build/tools/bin/python -m pip install --quiet "cyclonedx-bom>=7" "pip-audit>=2.9"
	touch $@

licences: build/shipped/.ready
	build/shipped/bin/python .ci/licences.py

sbom: build/shipped/.ready
	build/tools/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --of JSON \
	  -o build/sbom.cdx.json build/shipped/bin/python
	@echo "wrote $(CURDIR)/build/sbom.cdx.json"

audit: build/shipped/.ready
	build/tools/bin/pip-audit --strict --path \
	  "$$(build/shipped/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"

# The core under every Python at hand, with pandas 2 and 3.
matrix:
	.ci/matrix

# make release VERSION=0.2.0 DATE=2027-01-31 names a release in every file that shows it; look at the change, then commit.
release:
	$(PYTHON) .ci/release.py $(VERSION) $(DATE)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --config-file tests/mypy.ini
	$(BIN)/python -m pytest $(SHARED)

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=23" "setuptools>=77" wheel
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev,networks,dicom,docs-out,web,cluster]"
	for oracle in "pyradiomics-bhklab==3.1.4" lifelines scikit-survival; do \
	  $(BIN)/python -m pip install --quiet -c constraints.txt $$oracle || echo "$$oracle did not install: the tests against it will skip"; \
	done
	touch $(READY)

clean:
	rm -rf $(VENV) demo build dist
