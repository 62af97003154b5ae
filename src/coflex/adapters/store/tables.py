"""The tables of the current version, derived from the layouts of the records."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Double, LargeBinary, MetaData, Table, Text
from sqlalchemy.types import TypeEngine

from coflex.adapters.store.mapping import LAYOUTS, Form, Layout

VERSION = "0001"  # the migration that makes these tables: the newest one
VERSION_TABLE = "coflex_version"

# Collation "C" orders text by code point, as SQLite and Python do: one order of keys in every store.
TYPES: dict[Form, TypeEngine[Any]] = {
    "text": Text().with_variant(Text(collation="C"), "postgresql"),
    "integer": BigInteger(),
    "real": Double(),
    "boolean": Boolean(),
    "bytes": LargeBinary(),
}

METADATA = MetaData()


def _table(layout: Layout) -> Table:
    return Table(
        layout.table,
        METADATA,
        *(
            Column(
                column.name,
                TYPES[column.codec.form],
                primary_key=column.key,
                nullable=column.codec.nullable,
                autoincrement=False,
            )
            for column in layout.columns
        ),
    )


TABLES = {kind: _table(layout) for kind, layout in LAYOUTS.items()}
