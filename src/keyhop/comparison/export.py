"""Rows as tables for other programs: CSV always, Parquet where pyarrow is installed."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from keyhop.comparison.case import FIXED, Row, Value

NO_PARQUET = "no Parquet file: pyarrow is not installed; pip install 'keyhop[sim]', then: keyhop compare report {}"


def columns(rows: Sequence[Row]) -> list[str]:
    """What every row has, then all metrics by name."""
    return [*FIXED, *sorted({name for row in rows for name in row.metrics})]


def table(rows: Sequence[Row]) -> dict[str, list[str | Value]]:
    """Column by column. None stands for n/a."""
    flat = [row.flat() for row in rows]
    return {name: [row.get(name) for row in flat] for name in columns(rows)}


def csv_text(rows: Sequence[Row]) -> str:
    """With an empty field for n/a."""
    text = io.StringIO()
    names = columns(rows)
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.flat() for row in rows)
    return text.getvalue()


def write_parquet(rows: Sequence[Row], path: Path) -> bool:
    """False if there is nothing to write it with."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        return False
    arrays = {}
    for name, values in table(rows).items():
        # Whether a metric's figures happen to be whole or all missing shall not decide the type of its column.
        kind = None if name in FIXED else pyarrow.float64()
        arrays[name] = pyarrow.array(values, kind)
    beside = path.with_name(f".{path.name}.new")
    parquet.write_table(pyarrow.table(arrays), beside, compression="zstd")
    beside.replace(path)
    return True
