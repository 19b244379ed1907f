PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo test check bento bench bench-faults dashboards docs clean

install: .venv/installed

# The pinned torch is installed first: a range would install its CUDA packages too.
.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[train,dev]"
	$(BIN)/hatchling build -t wheel -d dist
	touch $@

demo: install
	$(BIN)/riverdelta demo $(ARGS)

# One process a core; the tests of a file stay in one, so that they share its servers.
test: install
	$(BIN)/python -m pytest -n auto --dist loadfile $(ARGS)

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py

# A Bento of the reference service, from a fresh wheel.
bento: install
	$(BIN)/hatchling build -t wheel -d dist
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/bentoml build

bench: install
	for file in tests/benchmarks/bench_*.py; do $(BIN)/python $$file || exit 1; done

# The Grafana dashboards, from their code; a test compares the two.
dashboards: install
	cd monitoring/grafana && $(abspath $(BIN))/python -m boards

# The tables of docs/settings.md, from the code; a test compares the two.
docs: install
	$(BIN)/python docs/generate.py

# 500 times kill -9; `make bench` runs a few of them.
bench-faults: install
	$(BIN)/python tests/benchmarks/bench_faults.py --learner 450 --server 50 $(ARGS)

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
