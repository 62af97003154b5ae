"""Settlement lines name the award and the rule that they follow from, and may be without a baseline or a reading."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
WHOLE = sa.BigInteger()
KEPT = (
    "unit, start, session, buyer, provider, direction, baseline_method, remark, ordered_kwh, baseline_kwh, "
    "measured_kwh, delivered_kwh, paid_kwh, price_eur_mwh, amount_eur, penalty_eur"
)


def upgrade() -> None:
    """Make the table anew, for its key changes: two awards of one price are two lines.

    Lines that are there were one a price, and keep that as the name of their award; no rule was told with them.
    """
    op.rename_table("settlement_line", "settlement_line_before")
    op.create_table(
        "settlement_line",
        sa.Column("unit", TEXT, primary_key=True),
        sa.Column("start", WHOLE, primary_key=True, autoincrement=False),
        sa.Column("session", TEXT, primary_key=True),
        sa.Column("award", TEXT, primary_key=True),
        *(sa.Column(name, TEXT, nullable=False) for name in ("buyer", "provider", "direction", "baseline_method")),
        *(sa.Column(name, TEXT, nullable=True) for name in ("baseline_kwh", "measured_kwh")),
        *(sa.Column(name, TEXT, nullable=False) for name in ("ordered_kwh", "delivered_kwh", "paid_kwh")),
        *(sa.Column(name, TEXT, nullable=False) for name in ("price_eur_mwh", "amount_eur", "penalty_eur")),
        *(sa.Column(name, TEXT, nullable=False) for name in ("rule", "remark")),
    )
    op.execute(
        f"INSERT INTO settlement_line ({KEPT}, award, rule) "
        f"SELECT {KEPT}, 'at ' || price_eur_mwh || ' EUR/MWh', '' FROM settlement_line_before"
    )
    op.drop_table("settlement_line_before")
