"""Whatever awards say, a unit is claimed once for a quarter-hour, or the ledger refuses."""

from __future__ import annotations

from decimal import Decimal

import pytest

from coflex.adapters.store.memory import MemoryStore
from coflex.domain.clearing import Award, Status
from coflex.domain.errors import SoldTwice
from coflex.domain.quantity import Direction
from coflex.market.ledger import claim
from coflex.process.clear import _claims
from support.verbs import small_day


def award(direction: Direction, kw: int, step: int = 1) -> Award:
    session = small_day().plans[0]
    price = Decimal(50)
    unit, start = "cu-0001", session.horizon[0]
    return Award(
        session.id, "o", step, "sp-01", "dso", "p", unit, None, direction, start, kw, price, price, Status.DEFINITIVE
    )


@pytest.mark.spec("MKT-09")
def test_steps_of_one_offer_are_one_claim_and_both_directions_of_a_unit_are_refused() -> None:
    day = small_day()
    session = day.plans[0]
    with MemoryStore().transaction() as t:
        (one,) = _claims(day, t, session, (), [award(Direction.UP, 20), award(Direction.UP, 5, step=2)])
        assert one.quantity_kw == 25
        both = _claims(day, t, session, (), [award(Direction.UP, 20), award(Direction.DOWN, 5)])
    with pytest.raises(SoldTwice):
        claim((), session, "dso", both)
