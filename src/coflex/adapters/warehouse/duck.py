"""DuckDB in the process: the engine of one machine."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from coflex.adapters.warehouse.driver import Columns, parquet_files

if TYPE_CHECKING:
    import pyarrow as pa

# Ibis takes the zone off an instant before it asks for its second, for which DuckDB looks into a calendar, row by row.
# The session is in UTC, so the second is the same.
_THROUGH_ZONE = re.compile(r'EPOCH\(CAST\(("\w+"\."\w+") AS TIMESTAMP\)\)')


class DuckDriver:
    """A connection of its own. `file` empty: in memory, spilling to `room` beyond `memory_gib`."""

    dialect = "duckdb"
    quote = '"'
    text = "text"

    def __init__(self, file: str, threads: int | None, memory_gib: float | None, room: Path | None) -> None:
        import duckdb

        settings: dict[str, str | bool | int | float | list[str]] = {}
        if threads is not None:
            settings["threads"] = threads
        if memory_gib is not None:
            settings["memory_limit"] = f"{memory_gib}GiB"
        if room is not None:
            settings["temp_directory"] = str(room)
        self._connection = duckdb.connect(file or ":memory:", config=settings)
        self._connection.execute("SET TimeZone = 'UTC'")
        # No answer depends on the order of rows, and keeping it costs memory.
        self._connection.execute("SET preserve_insertion_order = false")
        # Standard output belongs to the answer.
        self._connection.execute("SET enable_progress_bar = false")

    def take(self, name: str, columns: Columns, files: Path) -> None:
        chosen = ", ".join(f'"{column}"' for column in columns)
        given = ", ".join(_text(str(file)) for file in parquet_files(files))
        self._connection.execute(f'CREATE OR REPLACE VIEW "{name}" AS SELECT {chosen} FROM read_parquet([{given}])')

    def keep(self, name: str, columns: Columns, queries: Iterable[str]) -> None:
        for number, sql in enumerate(queries):
            into = f'INSERT INTO "{name}"' if number else f'CREATE OR REPLACE TABLE "{name}" AS'
            self._connection.execute(f"{into} {direct(sql)}")

    def view(self, name: str, query: str) -> None:
        self._connection.execute(f'CREATE OR REPLACE VIEW "{name}" AS {query}')

    def drop(self, name: str) -> None:
        self._connection.execute(f'DROP TABLE IF EXISTS "{name}"')

    def rows(self, columns: Columns, sql: str) -> pa.Table:
        return self._connection.execute(direct(sql)).to_arrow_table()

    def close(self) -> None:
        self._connection.close()


def direct(sql: str) -> str:
    """A query that asks for seconds of instants without the way through the zone."""
    return _THROUGH_ZONE.sub(r"EPOCH(\1)", sql)


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
