# Everything a developer runs; CI runs the same targets.
PYTHON ?= python
N ?= 2000

.PHONY: check test worlds bench fix

check:
	$(PYTHON) -m ruff format --check src tests bench
	$(PYTHON) -m ruff check src tests bench
	$(PYTHON) -m mypy
	lint-imports

fix:
	$(PYTHON) -m ruff format src tests bench
	$(PYTHON) -m ruff check --fix src tests bench

test:
	$(PYTHON) -m pytest

worlds:
	$(PYTHON) -m tests.worlds.run --schedules $(N)

bench:
	$(PYTHON) -m bench.run
