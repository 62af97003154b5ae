"""The journal: entries, versions of records, notes, their readers, personal data; and what products say beside."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
WHOLE = sa.BigInteger()
NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
BYTES = sa.LargeBinary()


def _key(kind: sa.types.TypeEngine[Any], *names: str) -> list[sa.Column[Any]]:
    """Columns of the primary key."""
    return [sa.Column(name, kind, primary_key=True, autoincrement=False) for name in names]


def _set(kind: sa.types.TypeEngine[Any], *names: str) -> list[sa.Column[Any]]:
    """Columns that always hold a value."""
    return [sa.Column(name, kind, nullable=False) for name in names]


def _may(kind: sa.types.TypeEngine[Any], *names: str) -> list[sa.Column[Any]]:
    """Columns that may hold NULL."""
    return [sa.Column(name, kind, nullable=True) for name in names]


def upgrade() -> None:
    """Create the tables of the journal and widen the product."""
    _entries()
    _versions()
    _notes()
    op.create_table("personal", *_key(TEXT, "tenant", "subject"), *_set(BYTES, "salt", "body"))
    _products()


def _entries() -> None:
    op.create_table(
        "entry",
        *_key(NUMBER, "number"),
        *_set(WHOLE, "at_us"),
        *_set(TEXT, "tenant", "verb", "subject", "party", "by_party", "actor"),
        *_may(TEXT, "key"),
        *_set(BYTES, "body"),
        *_set(WHOLE, "status"),
        *_set(BYTES, "reply", "digest"),
    )
    op.create_index("entry_subject", "entry", ["tenant", "subject", "number"])
    with_key = sa.text("key IS NOT NULL")
    op.create_index(
        "entry_key",
        "entry",
        ["tenant", "by_party", "key"],
        unique=True,
        sqlite_where=with_key,
        postgresql_where=with_key,
    )


def _versions() -> None:
    op.create_table(
        "version",
        *_key(TEXT, "tenant", "kind", "id"),
        *_key(NUMBER, "number"),
        *_set(WHOLE, "position", "at_us"),
        *_may(BYTES, "body"),
    )
    op.create_index("version_number", "version", ["number", "position"], unique=True)


def _notes() -> None:
    op.create_table(
        "note", *_key(NUMBER, "number", "position"), *_set(TEXT, "kind", "subject", "audience"), *_set(BYTES, "body")
    )
    op.create_table(
        "feed", *_key(TEXT, "tenant", "party"), *_key(NUMBER, "number", "position"), sqlite_with_rowid=False
    )


def _products() -> None:
    """What a product says beside what it said; products that are there say what they meant by silence."""
    said: dict[str, tuple[sa.types.TypeEngine[Any], str]] = {
        "perimeters": (TEXT, "[]"),
        "months": (TEXT, "[]"),
        "weekdays": (TEXT, "[]"),
        "hours": (TEXT, "[]"),
        "min_duration_s": (WHOLE, "0"),
        "recovery_time_s": (WHOLE, "0"),
        "measurement_interval_s": (WHOLE, "900"),
        "accuracy_percent": (TEXT, "1"),
        "pricing": (TEXT, "pay_as_bid"),
        "test_share": (TEXT, "0.9"),
        "test_interval_s": (WHOLE, "60"),
        "test_accuracy_percent": (TEXT, "1"),
    }
    for name, (kind, value) in said.items():
        default = value if kind is TEXT else sa.text(value)
        op.add_column("product", sa.Column(name, kind, nullable=False, server_default=default))
    for name in ("max_up_kw", "max_down_kw", "max_duration_s", "deactivation_time_s", "test_within_s"):
        op.add_column("product", sa.Column(name, WHOLE, nullable=True))
