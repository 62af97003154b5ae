"""Where the engine is chosen: DuckDB in the process, PostgreSQL, or Spark, each by its URL.

An expression is written once, over tables that have a name and columns and no engine. Here it becomes the SQL of an
engine and is run by that engine's own driver. Ibis only writes SQL: no engine's part of Ibis is imported, so the
version of an engine is free, and whoever has no Spark needs nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from coflex.adapters.warehouse.driver import Columns, Driver, parquet_files, sql_type
from coflex.domain.errors import Finding, NotFound, Refused

if TYPE_CHECKING:
    import pyarrow as pa

Expression = Any  # ibis.expr.types.Table

EXAMPLES = "duckdb:, duckdb:/path/to/file, postgresql://user@host/database, spark:local[2] or spark://host:7077"


class Warehouse:
    """Named tables on an engine, and expressions over them."""

    def __init__(self, driver: Driver) -> None:
        # All that will be needed, here and not within the first question: it takes a second.
        import ibis.backends.sql.compilers  # noqa: F401
        import pyarrow.parquet  # noqa: F401

        self._driver = driver
        self._columns: dict[str, Columns] = {}

    def __enter__(self) -> Warehouse:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def take(self, name: str, columns: Columns, files: Path) -> Expression:
        """The table of a Parquet file, or of all those in a folder.

        Raises NotFound where there is none, Refused when a column is missing or of another kind.
        """
        _check_columns(name, columns, files)
        self._driver.take(name, columns, files)
        return self._known(name, columns)

    def table(self, name: str) -> Expression:
        """A table that was taken or kept. Raises NotFound."""
        if name not in self._columns:
            raise NotFound(f"There is no table '{name}'.", f"Known are: {', '.join(sorted(self._columns)) or 'none'}.")
        return self._known(name, self._columns[name])

    def keep(self, name: str, expression: Expression, turns: Iterable[object] = (None,)) -> Expression:
        """Compute an expression and keep its rows under a name; the table of them.

        With `turns`: once for each, in the memory that one needs, and all rows. Drawing a turn may `narrow` what the
        expression reads.
        """
        columns, sql = columns_of(expression), self.sql(expression)
        self._driver.keep(name, columns, (sql for _ in turns))
        return self._known(name, columns)

    def narrow(self, name: str, source: str, column: str, first: int | None, end: int | None) -> Expression:
        """Under another name, the rows of a table whose column is in [first, end), None: without an end; until it is
        called with that name again."""
        quote = self._driver.quote
        bounds = [f"{quote}{column}{quote} {sign} {at}" for sign, at in ((">=", first), ("<", end)) if at is not None]
        where = " AND ".join(bounds) or "true"
        self._driver.view(name, f"SELECT * FROM {quote}{source}{quote} WHERE {where}")
        return self._known(name, self._columns[source])

    def drop(self, name: str) -> None:
        """Forget a table that was kept."""
        self._columns.pop(name, None)
        self._driver.drop(name)

    def rows(self, expression: Expression) -> pa.Table:
        """Compute an expression: its rows, in whatever order, with the types that it says it has."""
        import pyarrow as pa

        wanted = pa.schema([(name, _arrow(kind)) for name, kind in columns_of(expression).items()])
        return self._driver.rows(columns_of(expression), self.sql(expression)).cast(wanted)

    def write(self, expression: Expression, file: Path) -> None:
        """Compute an expression into a Parquet file."""
        import pyarrow.parquet as pq

        pq.write_table(self.rows(expression), file, compression="zstd")

    def sql(self, expression: Expression) -> str:
        """An expression in the words of the engine, each column with the type that the expression says it has.

        Engines widen sums to more than 64 bits; a value that would not fit back is an error there, not a wrong number.
        """
        import ibis

        inner = ibis.to_sql(expression, dialect=self._driver.dialect, pretty=False)
        quote = self._driver.quote
        casts = ", ".join(
            f"CAST({quote}{name}{quote} AS {sql_type(kind, self._driver.text)}) AS {quote}{name}{quote}"
            for name, kind in columns_of(expression).items()
        )
        return f"SELECT {casts} FROM ({inner}) AS whole"

    def close(self) -> None:
        """Let the engine go."""
        self._driver.close()

    def _known(self, name: str, columns: Columns) -> Expression:
        import ibis

        self._columns[name] = columns
        return ibis.table(dict(columns), name=name)


def open_warehouse(
    url: str = "duckdb:", threads: int | None = None, memory_gib: float | None = None, room: Path | None = None
) -> Warehouse:
    """The engine that a URL names. `room`: where it may put what does not fit into memory.

    `threads` and `memory_gib` are for DuckDB and a local Spark; a server has its own. Raises Refused on a URL that
    names no engine, and NotReady when what the engine needs is not installed or does not answer.
    """
    scheme = urlsplit(url).scheme
    if scheme == "duckdb":
        from coflex.adapters.warehouse.duck import DuckDriver

        return Warehouse(DuckDriver(url.removeprefix("duckdb:").removeprefix("//"), threads, memory_gib, room))
    if scheme in ("postgresql", "postgres") or scheme.startswith("postgresql+"):
        from coflex.adapters.warehouse.postgres import PostgresDriver

        return Warehouse(PostgresDriver(url))
    if scheme == "spark":
        from coflex.adapters.warehouse.spark import SparkDriver

        master = url if url.startswith("spark://") else url.removeprefix("spark:")
        return Warehouse(SparkDriver(master or "local[*]", memory_gib, room))
    raise Refused("Engine", [Finding("engine", "unknown", f"'{url}' names no engine; give {EXAMPLES}.")])


def columns_of(expression: Expression) -> dict[str, str]:
    """Names and kinds of an expression's columns."""
    return {name: _kind(kind) for name, kind in expression.schema().items()}


def _kind(kind: Any) -> str:
    if kind.is_timestamp():
        return "timestamp('UTC')"
    return str(kind.copy(nullable=True)).lstrip("!")


def _arrow(kind: str) -> pa.DataType:
    import pyarrow as pa

    if kind.startswith("timestamp"):
        return pa.timestamp("us", tz="UTC")
    return pa.bool_() if kind == "boolean" else getattr(pa, kind)()


def _check_columns(name: str, columns: Columns, files: Path) -> None:
    """Refuse a file without a column that is asked for, or with one of another kind, before any engine reads it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    findings = []
    for file in parquet_files(files):
        try:
            given = pq.read_schema(file)
        except pa.ArrowInvalid:
            findings.append(Finding(file.name, "unreadable", "It is no Parquet file; write it again."))
            continue
        for column, kind in columns.items():
            place = f"{file.name}: column {column}"
            if column not in given.names:
                findings.append(Finding(place, "missing", f"Table {name} needs it, as {kind}; add it."))
            elif not _fits(given.field(column).type, _arrow(kind)):
                said = f"It is {given.field(column).type} and must be {kind}; convert it."
                findings.append(Finding(place, "wrong_type", said))
    if findings:
        raise Refused(f"Table {name}", findings)


def _fits(given: pa.DataType, wanted: pa.DataType) -> bool:
    import pyarrow as pa

    if pa.types.is_timestamp(wanted):
        return bool(pa.types.is_timestamp(given) and given.tz is not None)
    if pa.types.is_integer(wanted):
        return bool(pa.types.is_integer(given) and given.bit_width <= wanted.bit_width)
    if pa.types.is_string(wanted):
        return bool(pa.types.is_string(given) or pa.types.is_large_string(given) or pa.types.is_dictionary(given))
    return bool(given == wanted)
