"""What every engine can do, and what all are asked in: columns by name and kind, Parquet files, types in SQL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from coflex.domain.errors import NotFound

if TYPE_CHECKING:
    import pyarrow as pa

Columns = Mapping[str, str]
_SQL = {"int8": "smallint", "int16": "smallint", "int32": "int", "int64": "bigint", "boolean": "boolean"}


class Driver(Protocol):
    """What an engine can do with its own SQL. Timestamps are in UTC, whatever the machine's zone."""

    dialect: str
    quote: str
    """What stands around a name."""
    text: str
    """The type of texts."""

    def take(self, name: str, columns: Columns, files: Path) -> None:
        """Make the Parquet file, or all those in a folder, known by a name."""

    def keep(self, name: str, columns: Columns, queries: Iterable[str]) -> None:
        """Keep the rows of all queries under a name in place of what was there. Each query is run before the next one
        is asked for."""

    def view(self, name: str, query: str) -> None:
        """Let a name stand for a query, in place of what it stood for."""

    def drop(self, name: str) -> None:
        """Forget what was kept under a name."""

    def rows(self, columns: Columns, sql: str) -> pa.Table:
        """The rows of a query; types are those that the engine gives."""

    def close(self) -> None: ...


def parquet_files(files: Path) -> list[Path]:
    """A Parquet file, or all those in a folder by name. Raises NotFound."""
    found = sorted(files.rglob("*.parquet")) if files.is_dir() else [files] if files.is_file() else []
    if not found:
        raise NotFound(f"There is no Parquet file at {files}.", "Give a file or a folder of files.")
    return found


def sql_type(kind: str, text: str) -> str:
    """The type of a column in SQL that every engine reads; PostgreSQL has none of one byte, and texts differ."""
    if kind.startswith("timestamp"):
        return "timestamp with time zone" if text == "text" else "timestamp"
    return text if kind == "string" else _SQL[kind]
