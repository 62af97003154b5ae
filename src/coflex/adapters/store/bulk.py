"""Many rows in few statements.

A statement a row would cost a switch between threads a row, while the service's other thread is busy. So SQLite is
given whole chunks as VALUES, of few sizes so that their texts are prepared once; what a chunk lacks is filled with
rows of NULL that the statement leaves out. PostgreSQL is given all rows of all tables as one JSON text, which its
own parser takes apart: one parameter for any driver.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import chain
from typing import Any, TypeAlias

import msgspec
from sqlalchemy import BigInteger, Boolean, Connection, Double, LargeBinary, Table, TextClause, text

Rows: TypeAlias = Sequence[tuple[Any, ...]]

MOST_IN_A_STATEMENT = 1024  # times the 30 columns of the widest table: below the 32,766 values SQLite binds
MOST_TEXT = 64_000_000  # characters of JSON in one statement: PostgreSQL takes apart 268 MB at most


def insert_rows(connection: Connection, rows_of: Mapping[Table, Rows]) -> None:
    """Insert rows, the values in the order of their table's columns, inside the connection's transaction.

    Texts must hold no zero character. Raises what the database raises.
    """
    filled = {table: rows for table, rows in rows_of.items() if rows}
    if not filled:
        return
    if connection.dialect.name == "postgresql":
        _insert_json(connection, filled)
        return
    for table, rows in filled.items():
        _insert_values(connection, table, rows)


def _insert_values(connection: Connection, table: Table, rows: Rows) -> None:
    width = len(table.columns)
    for start in range(0, len(rows), MOST_IN_A_STATEMENT):
        part = rows[start : start + MOST_IN_A_STATEMENT]
        size = 1 << (len(part) - 1).bit_length()
        values = (*chain.from_iterable(part), *(None,) * (width * (size - len(part))))
        connection.exec_driver_sql(_values(table, size), values)


def _insert_json(connection: Connection, filled: Mapping[Table, Rows]) -> None:
    given = _json(filled)
    if len(given) > MOST_TEXT and sum(map(len, filled.values())) > 1:
        insert_rows(connection, {table: rows[: len(rows) // 2] for table, rows in filled.items()})
        insert_rows(connection, {table: rows[len(rows) // 2 :] for table, rows in filled.items()})
        return
    connection.execute(_from_json(tuple(filled)), {"rows": given})


@cache
def _values(table: Table, size: int) -> str:
    """INSERT of `size` rows, those without a key left out."""
    names = ", ".join(f'"{column.name}"' for column in table.columns)
    row = f"({', '.join('?' * len(table.columns))})"
    key = 1 + next(place for place, column in enumerate(table.columns) if column.primary_key)
    return (
        f'INSERT INTO "{table.name}" ({names}) '
        f"SELECT * FROM (VALUES {', '.join([row] * size)}) WHERE column{key} IS NOT NULL"
    )


@cache
def _from_json(tables: tuple[Table, ...]) -> TextClause:
    """INSERT into several tables from a JSON object: a list of rows a table, each row a list of values."""
    parts = [f"t{place} AS ({_insert_from_json(table)})" for place, table in enumerate(tables)]
    return text(f"WITH given AS MATERIALIZED (SELECT CAST(:rows AS jsonb) AS rows), {', '.join(parts)} SELECT 1")


def _insert_from_json(table: Table) -> str:
    names = ", ".join(f'"{column.name}"' for column in table.columns)
    values = ", ".join(_cast(column.type, f"r->>{place}") for place, column in enumerate(table.columns))
    return (
        f'INSERT INTO "{table.name}" ({names}) '
        f"SELECT {values} FROM given, jsonb_array_elements(rows->'{table.name}') r"
    )


def _cast(form: Any, value: str) -> str:
    if isinstance(form, LargeBinary):
        return f"decode({value}, 'base64')"
    for kind, name in ((BigInteger, "bigint"), (Double, "float8"), (Boolean, "boolean")):
        if isinstance(form, kind):
            return f"CAST({value} AS {name})"
    return value


def _json(rows_of: Mapping[Table, Rows]) -> str:
    """The rows as JSON; bytes become base64, real numbers their shortest text, which keeps infinities."""
    plain = {}
    for table, rows in rows_of.items():
        reals = [place for place, column in enumerate(table.columns) if isinstance(column.type, Double)]
        plain[table.name] = [_without_reals(row, reals) for row in rows] if reals else rows
    return msgspec.json.encode(plain).decode()


def _without_reals(row: tuple[Any, ...], reals: list[int]) -> list[Any]:
    changed = list(row)
    for place in reals:
        if changed[place] is not None:
            changed[place] = repr(float(changed[place]))
    return changed
