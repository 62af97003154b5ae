"""Tables of a small city as Parquet files, for whatever engine is to read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from coflex.adapters.warehouse.engine import Expression, Warehouse

Rows = Sequence[Mapping[str, Any]]


def arrow_schema(columns: Mapping[str, str]) -> pa.Schema:
    """The columns of a table as Arrow says them."""
    kinds = {"boolean": pa.bool_(), "string": pa.string(), "timestamp('UTC')": pa.timestamp("us", tz="UTC")}
    return pa.schema([(name, kinds.get(kind) or getattr(pa, kind)()) for name, kind in columns.items()])


def put(folder: Path, name: str, columns: Mapping[str, str], rows: Rows) -> Path:
    """Write a table; the file."""
    file = folder / f"{name}.parquet"
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows], schema=arrow_schema(columns)), file)
    return file


def told(house: Warehouse, expression: Expression) -> list[tuple[Any, ...]]:
    """The rows of an expression in one order, to compare engines by."""
    return sorted(tuple(row.values()) for row in house.rows(expression).to_pylist())
