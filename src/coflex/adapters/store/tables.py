"""The tables of the current version: those of the records, derived from their layouts, and those of the journal."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Double, Index, Integer, LargeBinary, MetaData, Table, Text
from sqlalchemy.types import TypeEngine

from coflex.adapters.store.mapping import LAYOUTS, Form, Layout

VERSION = "0003"  # the migration that makes these tables: the newest one
VERSION_TABLE = "coflex_version"

# Collation "C" orders text by code point, as SQLite and Python do: one order of keys in every store.
TYPES: dict[Form, TypeEngine[Any]] = {
    "text": Text().with_variant(Text(collation="C"), "postgresql"),
    "integer": BigInteger(),
    "real": Double(),
    "boolean": Boolean(),
    "bytes": LargeBinary(),
}
# SQLite keeps a table in the order of a key of this very type: appending is then all there is to do.
NUMBER = BigInteger().with_variant(Integer(), "sqlite")

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


# ---------------------------------------------------------------- the journal


def _key(name: str, form: TypeEngine[Any]) -> Column[Any]:
    return Column(name, form, primary_key=True, autoincrement=False)


def _set(name: str, form: Form) -> Column[Any]:
    return Column(name, TYPES[form], nullable=False)


def _may(name: str, form: Form) -> Column[Any]:
    return Column(name, TYPES[form], nullable=True)


# The commands that were taken. `at_us`: microseconds since 1970, UTC. `digest`: see `coflex.service.chain`.
ENTRY = Table(
    "entry",
    METADATA,
    _key("number", NUMBER),
    _set("at_us", "integer"),
    _set("tenant", "text"),
    _set("verb", "text"),
    _set("subject", "text"),
    _set("party", "text"),
    _set("by_party", "text"),
    _set("actor", "text"),
    _may("key", "text"),
    _set("body", "bytes"),
    _set("status", "integer"),
    _set("reply", "bytes"),
    _set("digest", "bytes"),
)
Index("entry_subject", ENTRY.c.tenant, ENTRY.c.subject, ENTRY.c.number)
# The last wall: no party's idempotency key is ever taken twice.
Index(
    "entry_key",
    ENTRY.c.tenant,
    ENTRY.c.by_party,
    ENTRY.c.key,
    unique=True,
    sqlite_where=ENTRY.c.key.is_not(None),
    postgresql_where=ENTRY.c.key.is_not(None),
)

# Every record as every entry wrote it. `position`: its place among the changes of the entry. No body: it ended.
RECORD_VERSION = Table(
    "version",
    METADATA,
    _key("tenant", TYPES["text"]),
    _key("kind", TYPES["text"]),
    _key("id", TYPES["text"]),
    _key("number", NUMBER),
    _set("position", "integer"),
    _set("at_us", "integer"),
    _may("body", "bytes"),
)
Index("version_number", RECORD_VERSION.c.number, RECORD_VERSION.c.position, unique=True)

# The notes of the entries. `audience`: parties, one a line, in the order in which the digest covers them.
NOTE = Table(
    "note",
    METADATA,
    _key("number", NUMBER),
    _key("position", NUMBER),
    _set("kind", "text"),
    _set("subject", "text"),
    _set("audience", "text"),
    _set("body", "bytes"),
)

# Who reads which note, in the order of the feed: the audience of every note, a row a party.
FEED = Table(
    "feed",
    METADATA,
    _key("tenant", TYPES["text"]),
    _key("party", TYPES["text"]),
    _key("number", NUMBER),
    _key("position", NUMBER),
    sqlite_with_rowid=False,
)

# Personal data of a subject as it is now; nothing of it is in the tables above but its commitments.
PERSONAL = Table(
    "personal",
    METADATA,
    _key("tenant", TYPES["text"]),
    _key("subject", TYPES["text"]),
    _set("salt", "bytes"),
    _set("body", "bytes"),
)

JOURNAL = (ENTRY, RECORD_VERSION, NOTE, FEED, PERSONAL)
