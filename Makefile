# make demo, make serve, make test, make docs: each does all the set-up by itself.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
DOCS_READY := .venv/.ready-docs
SLOW_READY := .venv/.ready-slow
LOWEST_READY := .venv-lowest/.ready
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check
INSTALL := $(BIN)/python $(PIP_INSTALL) --constraint constraints.txt --editable

.PHONY: demo serve test test-slow test-lowest docs check fix dist clean

demo: $(READY)
	$(BIN)/berg demo

serve: $(READY)
	$(BIN)/berg serve

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadgroup -m "not slow"

# The slow tests, and those of published models once more with the whole ViT-B/32 and with the true readouts of
# img2fmri, 62 MB: of that package its files alone, as BERG runs nothing of it.
test-slow: $(SLOW_READY)
	$(BIN)/python -m pytest -m "slow or published" --published-size

# The same tests with the lowest versions that pyproject.toml promises.
test-lowest: $(LOWEST_READY)
	OMP_NUM_THREADS=1 .venv-lowest/bin/python -m pytest -n auto --dist loadgroup -m "not slow" $(TESTS)

# What the code of pages gave is kept in docs/_build/executed, until the package or what is installed changes.
docs: $(DOCS_READY)
	rm -rf docs/_build/html docs/_build/trees docs/_build/jupyter_execute
	$(BIN)/python -m sphinx -q -n -W --keep-going -b html -d docs/_build/trees docs docs/_build/html
	@echo "docs/_build/html/index.html"

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_architecture.py

fix: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Wheel and source distribution, each installed into a fresh environment, which runs the demo.
# The wheel holds the files of berg/ that git knows, no more and no fewer.
dist: $(READY)
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m zipfile --list dist/*.whl | grep -o '^berg/[^ ]*' | sort > dist/packed
	git ls-files berg | sort | diff - dist/packed
	rm dist/packed
	for file in dist/*.whl dist/*.tar.gz; do \
		rm -rf dist/try && $(PYTHON) -m venv dist/try && \
		dist/try/bin/python $(PIP_INSTALL) --constraint constraints.txt $$file && \
		(cd dist/try && bin/berg demo --out demo) || exit 1; done
	rm -rf dist/try

clean:
	rm -rf .venv .venv-lowest dist berg-demo docs/_build docs/models docs/parts docs/recipes

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("BERG needs Python 3.11 or newer; try make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(INSTALL) ".[dev]"
	touch $(READY)

$(LOWEST_READY): pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python $(PIP_INSTALL) --constraint constraints-lowest.txt --editable ".[dev]"
	touch $(LOWEST_READY)

$(DOCS_READY): $(READY)
	$(INSTALL) ".[dev,docs]"
	touch $(DOCS_READY)

$(SLOW_READY): $(DOCS_READY)
	$(BIN)/python $(PIP_INSTALL) --constraint constraints.txt --no-deps img2fmri
	touch $(SLOW_READY)
