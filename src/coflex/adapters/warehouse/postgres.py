"""PostgreSQL by its URL, with the driver that coflex brings: tables in a schema of the session's own."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from coflex.adapters.warehouse.driver import Columns, parquet_files, sql_type
from coflex.domain.errors import NotReady

if TYPE_CHECKING:
    import pyarrow as pa

BATCH = 100_000


class PostgresDriver:
    """One session. What it takes and keeps are temporary tables: nothing of the database is touched or left."""

    dialect = "postgres"
    quote = '"'
    text = "text"

    def __init__(self, url: str) -> None:
        import pg8000.native

        try:
            self._connection = pg8000.native.Connection(**_given(url))
        except (OSError, pg8000.native.InterfaceError, pg8000.native.DatabaseError) as fault:
            raise NotReady(f"PostgreSQL does not answer: {_said(fault)}.", "Check the URL, and that it runs.") from None
        self._connection.run("SET TimeZone = 'UTC'")
        # Compiling expressions as long as ours takes a minute and a half, and running them a second.
        self._connection.run("SET jit = off")

    def take(self, name: str, columns: Columns, files: Path) -> None:
        import pyarrow.parquet as pq

        kinds = ", ".join(f'"{column}" {sql_type(kind, self.text)}' for column, kind in columns.items())
        self.drop(name)
        self._connection.run(f'CREATE TEMPORARY TABLE "{name}" ({kinds})')
        batches = (
            batch
            for file in parquet_files(files)
            for batch in pq.ParquetFile(file).iter_batches(BATCH, columns=list(columns))
        )
        for text in _csv(batches, list(columns)):
            self._connection.run(f'COPY "{name}" FROM STDIN WITH (FORMAT csv)', stream=text)
        self._connection.run(f'ANALYZE "{name}"')

    def keep(self, name: str, columns: Columns, queries: Iterable[str]) -> None:
        # Into a name aside first: the query may read what it replaces.
        for number, sql in enumerate(queries):
            into = f'INSERT INTO "{name} aside"' if number else f'CREATE TEMPORARY TABLE "{name} aside" AS'
            self._connection.run(f"{into} {sql}")
        self.drop(name)
        self._connection.run(f'ALTER TABLE "{name} aside" RENAME TO "{name}"')
        self._connection.run(f'ANALYZE "{name}"')

    def view(self, name: str, query: str) -> None:
        self._connection.run(f'CREATE OR REPLACE TEMPORARY VIEW "{name}" AS {query}')

    def drop(self, name: str) -> None:
        self._connection.run(f'DROP TABLE IF EXISTS "{name}"')

    def rows(self, columns: Columns, sql: str) -> pa.Table:
        import pyarrow as pa

        given: list[list[Any]] = self._connection.run(sql) or []
        by_column = list(zip(*given, strict=True)) or [() for _ in columns]
        return pa.table([pa.array(values) for values in by_column], names=list(columns))

    def close(self) -> None:
        self._connection.close()


def _given(url: str) -> dict[str, Any]:
    """A URL as pg8000 takes it; `unix_sock` in its query as SQLAlchemy writes it."""
    parts = urlsplit(url)
    given: dict[str, Any] = {
        "user": unquote(parts.username or "postgres"),
        "database": unquote(parts.path.lstrip("/")) or None,
        "password": unquote(parts.password) if parts.password else None,
        "timeout": None,
    }
    sockets = parse_qs(parts.query).get("unix_sock")
    if sockets:
        return given | {"unix_sock": sockets[0], "host": None}
    return given | {"host": parts.hostname or "localhost", "port": parts.port or 5432}


def _csv(batches: Iterable[pa.RecordBatch], columns: list[str]) -> Iterator[io.BytesIO]:
    """Batches as texts that COPY reads, columns in the given order; what is null stands as nothing."""
    import pyarrow as pa
    from pyarrow import csv

    for batch in batches:
        whole = pa.Table.from_batches([batch]).select(columns)
        for place, field in enumerate(whole.schema):
            if pa.types.is_timestamp(field.type):
                # Whole microseconds since 1970 lose nothing on the way; with an offset, every zone setting reads it.
                whole = whole.set_column(place, field.name, whole[field.name].cast(pa.timestamp("us", tz="UTC")))
        text = io.BytesIO()
        csv.write_csv(whole, text, csv.WriteOptions(include_header=False))
        text.seek(0)
        yield text


def _said(fault: Exception) -> str:
    return " ".join(str(fault).split()).rstrip(".")
