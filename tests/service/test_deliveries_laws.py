"""Laws of deliveries under any course of the orders: all of it is settled, nothing twice (SET-02, SET-06)."""

from __future__ import annotations

from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coflex.domain.errors import CoflexError
from coflex.register.activations import ActivationOrder
from coflex.register.settlement import StatementEntry
from coflex.service.posting import kept_by
from coflex.service.settling import due
from support.ordered import GLOBAL, at
from support.settled import QUARTERS, Settled


def doings(*kinds: str) -> st.SearchStrategy[list[Any]]:
    one = st.tuples(
        st.sampled_from(kinds),
        st.sampled_from([f"cu-{k:04d}" for k in range(1, 9)]),
        st.sampled_from([0, 20, 50, 90, 150]),
        st.sampled_from([1, 3, 7, 15]),
    )
    return st.lists(one, max_size=8)


# What the provider does leaves all that was bought owed; others take some of it back.
OF_PROVIDERS = ("fail", "rebalance", "reserve")
acts = doings(*OF_PROVIDERS) | doings(*OF_PROVIDERS, "limit", "stop", "order", "change")


def acted(world: Settled, acts: list[Any]) -> None:
    """Everybody does what it may while the hour goes by, and some of what it may not."""
    minute = 5
    for what, unit, kw, wait in acts:
        found = world.state.all(ActivationOrder)
        order = found[kw % len(found)]
        with suppress(CoflexError):
            if what == "limit":
                world.do("activation.limit", "dso", order.id, unit=unit, to_kw=kw, element="x", value=2.0, bound=1.0)
            elif what == "fail":
                world.do("activation.fail", order.provider, order.id, unit=unit, remaining_kw=kw)
            elif what == "stop":
                world.do("activation.stop", "tso", order.id)
            elif what == "change":
                world.do("activation.change", "tso", order.id, quantity_kw=kw)
            elif what == "rebalance":
                world.do("activation.rebalance", order.provider, order.id)
            elif what == "reserve":
                form = {"starts": at(15 * (minute // 15 + 1)), "ends": at(60)}
                world.do("backup.reserve", order.provider, unit=unit, **form)
            else:
                form = {"session": GLOBAL, "offer": "sp-1/g", "direction": "up", "ends": at(60)}
                world.do("activation.order", "tso", quantity_kw=kw, **form)
        minute = min(minute + wait, 59)
        world.to(minute)


@pytest.mark.spec("SET-02", "SET-06", "ACT-03", "ACT-06")
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(acts, st.integers(-60_000, 0))
def test_whatever_happened_to_the_orders_all_of_it_can_be_settled(acts: list[Any], watts: int) -> None:
    """Nothing is left out; on no offer more is ordered than was bought of it, and what was bought is all accounted for
    unless its buyer stopped it or changed it."""
    world = Settled(minutes=0)
    acted(world, acts)
    world.to(25 * 60)
    kwh = str(Decimal(watts).scaleb(-3))
    for one in due(world.state, world.now):
        world.bring({(one.unit, start): kwh for start in one.quarters})
    assert due(world.state, world.now) == ()
    run = world.settle()
    assert run.left_out == () and run.unmetered == 0
    mine = [one.balance_cents for one in world.state.all(StatementEntry)]
    assert sum(mine) == 0 and run.paid_cents == run.received_cents
    found = kept_by(world.state, run).inputs.deliveries
    sold = {start: Decimal(0) for start in QUARTERS}
    for one in found:
        assert sum(part.energy_kwh for part in one.bought) >= one.ordered_kwh > 0
        if one.evidence.offer == "sp-1/g":
            sold[one.start] += one.ordered_kwh
    # 150 kW for a quarter of an hour, and half a watt-hour for each rounding
    assert all(total <= Decimal("37.5") + Decimal("0.0005") * 20 for total in sold.values())
    if {what for what, *_ in acts} <= set(OF_PROVIDERS):
        assert all(abs(total - Decimal("37.5")) <= Decimal("0.0005") * 20 for total in sold.values())
