"""The first tables: one a record type, documents, series and the log of events.

A version describes the tables as they were, so it names every column itself and knows no record type.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
WHOLE = sa.BigInteger()
REAL: sa.Double[float] = sa.Double()
TRUTH = sa.Boolean()
BYTES = sa.LargeBinary()


def _key(kind: sa.types.TypeEngine[Any], *names: str) -> list[sa.Column[Any]]:
    """Columns of the primary key."""
    return [sa.Column(name, kind, primary_key=True, autoincrement=False) for name in names]


def _set(kind: sa.types.TypeEngine[Any], *names: str) -> list[sa.Column[Any]]:
    """Columns that always hold a value."""
    return [sa.Column(name, kind, nullable=False) for name in names]


def _may(kind: sa.types.TypeEngine[Any], *names: str) -> list[sa.Column[Any]]:
    """Columns that may hold NULL; a real number that is NULL is NaN."""
    return [sa.Column(name, kind, nullable=True) for name in names]


def upgrade() -> None:
    """Create every table."""
    _register()
    _grid()
    _market()
    _delivery()
    _money()
    _named()


def _register() -> None:
    op.create_table("party", *_key(TEXT, "id"), *_set(TEXT, "name", "roles"))
    op.create_table(
        "connection_point",
        *_key(TEXT, "id"),
        *_set(TEXT, "bus", "level", "system_operator", "owner"),
        *_may(REAL, "voltage_kv", "latitude", "longitude"),
    )
    op.create_table(
        "unit",
        *_key(TEXT, "id"),
        *_set(TEXT, "category", "technology", "connection_point", "element"),
        *_set(TEXT, "provider", "owner", "balance_responsible_party"),
        *_set(WHOLE, "up_kw", "down_kw"),
        *_may(REAL, "tan_phi"),
        *_set(WHOLE, "preparation_period_s", "ramping_period_s", "full_activation_time_s", "deactivation_period_s"),
        *_set(WHOLE, "min_quantity_kw", "max_quantity_kw", "min_duration_s", "max_duration_s", "recovery_time_s"),
        *_may(WHOLE, "energy_up_kwh", "energy_down_kwh"),
    )
    op.create_table(
        "group",
        *_key(TEXT, "id"),
        *_set(TEXT, "provider", "scope", "product", "perimeter", "units", "balance_responsible_party"),
    )
    op.create_table(
        "product",
        *_key(TEXT, "id"),
        *_set(TEXT, "scope", "kind", "directions", "price_cap_eur_mwh", "tolerance", "penalty_share"),
        *_set(WHOLE, "resolution_s", "tick_kw", "min_quantity_kw", "full_activation_time_s"),
        *_set(TRUTH, "divisible", "symmetric"),
    )


def _grid() -> None:
    op.create_table(
        "static_light",
        *_key(TEXT, "unit", "direction", "mode"),
        *_set(TEXT, "verdict", "element", "kind", "state"),
        *_set(WHOLE, "registered_kw", "limit_kw"),
        *_may(REAL, "value", "bound"),
    )
    op.create_table(
        "local_need",
        *_key(TEXT, "session"),
        *_key(WHOLE, "start"),
        *_key(TEXT, "element", "kind", "perimeter", "direction"),
        *_may(REAL, "value", "bound"),
        *_set(WHOLE, "volume_kw"),
        *_set(TRUTH, "coverable"),
        *_set(TEXT, "acting"),
    )
    op.create_table(
        "dynamic_light",
        *_key(TEXT, "session", "perimeter", "direction"),
        *_key(WHOLE, "start"),
        *_set(TEXT, "colour", "reason"),
        *_set(WHOLE, "potential_kw", "capability_kw"),
    )


def _market() -> None:
    op.create_table(
        "request",
        *_key(TEXT, "session", "buyer", "product", "direction"),
        *_key(WHOLE, "start"),
        *_set(WHOLE, "asked_kw", "netted_kw"),
        *_set(TEXT, "price_limit_eur_mwh"),
    )
    op.create_table(
        "offer",
        *_key(TEXT, "id"),
        *_set(WHOLE, "receipt", "received_at", "min_quantity_kw"),
        *_set(TEXT, "session", "provider", "product", "direction", "steps"),
        *_may(TEXT, "unit", "group", "exclusive"),
        *_set(TRUTH, "block", "local_only"),
        *_may(WHOLE, "max_periods", "energy_limit_kwh", "valid_until"),
    )
    op.create_table(
        "award",
        *_key(TEXT, "session", "offer"),
        *_key(WHOLE, "step"),
        *_key(TEXT, "unit", "group"),
        *_key(WHOLE, "start"),
        *_set(TEXT, "provider", "buyer", "product", "direction", "bid_eur_mwh", "price_eur_mwh", "status"),
        *_set(WHOLE, "quantity_kw"),
    )
    op.create_table(
        "merit_line",
        *_key(TEXT, "session", "product", "direction"),
        *_key(WHOLE, "start", "rank"),
        *_key(TEXT, "offer"),
        *_key(WHOLE, "step"),
        *_set(TEXT, "provider", "location", "price_eur_mwh", "status", "reason", "detail"),
        *_set(WHOLE, "offered_kw", "accepted_kw"),
    )
    op.create_table(
        "holding",
        *_key(TEXT, "unit"),
        *_key(WHOLE, "start"),
        *_set(TEXT, "session", "buyer", "direction", "offer", "status"),
        *_set(WHOLE, "quantity_kw"),
    )
    op.create_table(
        "uncovered",
        *_key(TEXT, "session"),
        *_key(WHOLE, "start"),
        *_key(TEXT, "what"),
        *_may(REAL, "amount"),
        *_set(TEXT, "unit", "binding"),
    )


def _delivery() -> None:
    op.create_table(
        "set_point",
        *_key(TEXT, "unit"),
        *_key(WHOLE, "start"),
        *_set(TEXT, "buyer", "session", "direction", "acknowledged"),
        *_set(WHOLE, "awarded_kw", "ordered_kw"),
        *_may(REAL, "baseline_kw", "power_kw"),
    )
    op.create_table(
        "limitation",
        *_key(WHOLE, "start"),
        *_key(TEXT, "unit", "element"),
        *_set(TEXT, "buyer"),
        *_set(WHOLE, "from_kw", "to_kw"),
        *_may(REAL, "value", "bound"),
    )
    op.create_table(
        "replacement",
        *_key(WHOLE, "start"),
        *_key(TEXT, "session", "offer"),
        *_key(WHOLE, "step"),
        *_key(TEXT, "unit"),
        *_set(TEXT, "direction", "price_eur_mwh", "reason"),
        *_set(WHOLE, "quantity_kw"),
    )
    op.create_table(
        "reading",
        *_key(TEXT, "unit"),
        *_key(WHOLE, "start"),
        *_may(REAL, "power_kw"),
        *_set(TEXT, "quality"),
    )


def _money() -> None:
    op.create_table(
        "settlement_line",
        *_key(TEXT, "unit"),
        *_key(WHOLE, "start"),
        *_key(TEXT, "session", "price_eur_mwh"),
        *_set(TEXT, "buyer", "provider", "direction", "baseline_method", "remark"),
        *_set(TEXT, "ordered_kwh", "baseline_kwh", "measured_kwh", "delivered_kwh", "paid_kwh"),
        *_set(TEXT, "amount_eur", "penalty_eur"),
    )
    op.create_table("posting", *_key(TEXT, "booking", "account", "cause", "session"), *_set(WHOLE, "cents"))
    op.create_table(
        "statement",
        *_key(TEXT, "party"),
        *_set(WHOLE, "received_cents", "paid_cents", "penalty_cents", "fee_cents", "lines"),
        *_set(TEXT, "ordered_kwh", "delivered_kwh"),
    )


def _named() -> None:
    op.create_table(
        "event", *_key(WHOLE, "number"), *_set(WHOLE, "at"), *_set(TEXT, "kind", "sender", "receiver", "detail")
    )
    op.create_table("document", *_key(TEXT, "name"), *_set(TEXT, "body"))
    op.create_table(
        "series",
        *_key(TEXT, "name"),
        *_set(TEXT, "names"),
        *_set(WHOLE, "start", "count", "step_s"),
        *_set(BYTES, "contents"),
    )
