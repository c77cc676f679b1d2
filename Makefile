# Everything a developer runs; CI runs the same targets.
PYTHON ?= python
N ?= 2000

.PHONY: check test worlds bench fix

check:
	$(PYTHON) -m ruff format --check src tests bench studies
	$(PYTHON) -m ruff check src tests bench studies
	$(PYTHON) -m mypy
	lint-imports

fix:
	$(PYTHON) -m ruff format src tests bench studies
	$(PYTHON) -m ruff check --fix src tests bench studies

test:
	$(PYTHON) -m pytest

worlds:
	$(PYTHON) -m tests.worlds.run --schedules $(N)

bench:
	$(PYTHON) -m bench.run
