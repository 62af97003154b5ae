"""Laws of orders under any interleaving: nothing is sold or called twice, nobody is asked for more than it can give or
was bought (ACT-01, ACT-03, ACT-04, ACT-06, MKT-09)."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from coflex.activation.profile import exceeds, kw_at, plus
from coflex.domain.clearing import Holding
from coflex.domain.errors import CoflexError
from coflex.register.activations import ActivationOrder, Backup, OrderKind, OrderState, SetPointEntry
from coflex.register.outcomes import unpack
from coflex.service.ledger import outcomes
from coflex.service.machine import Machine
from coflex.service.replay import fingerprint, replay
from support.ordered import BEGIN, GLOBAL, QUARTER, Ordered, at
from support.platform import DAY, TEST_VERBS

UNITS = [f"cu-{k:04d}" for k in range(1, 9)]
minutes = st.sampled_from([0, 15, 30, 45, 60])
kws = st.sampled_from([0, 20, 50, 90, 150])


class Orders(RuleBasedStateMachine):
    """Everybody does what it may, in any order, and some of what it may not."""

    @initialize(place=st.sampled_from([(400, 130), (160, 40), (1000, 1000)]))
    def begin(self, place: tuple[int, int]) -> None:
        self.world, self.minute = Ordered(lights=place), -120.0

    def ask(self, verb: str, party: str, subject: str = "", **form: Any) -> None:
        with suppress(CoflexError):
            self.world.do(verb, party, subject, **form)

    def some_order(self, place: int) -> ActivationOrder:
        found = self.world.state.all(ActivationOrder)
        return found[place % len(found)]

    @rule(by=st.sampled_from([3, 7, 20, 60, 113]))
    def wait(self, by: int) -> None:
        self.minute = min(self.minute + by, 70)
        self.world.to(self.minute)

    @rule(unit=st.sampled_from(UNITS), first=minutes, last=minutes, party=st.sampled_from(["sp-1", "sp-2"]))
    def reserve(self, unit: str, first: int, last: int, party: str) -> None:
        self.ask("backup.reserve", party, unit=unit, starts=at(first), ends=at(last))

    @rule(place=st.integers(0, 5))
    def release(self, place: int) -> None:
        found = self.world.state.all(Backup)
        if found:
            one = found[place % len(found)]
            self.ask("backup.release", one.provider, one.id)

    @rule(place=st.integers(0, 5), unit=st.sampled_from(UNITS), kw=kws, last=minutes)
    def limit(self, place: int, unit: str, kw: int, last: int) -> None:
        id = self.some_order(place).id
        self.ask("activation.limit", "dso", id, unit=unit, to_kw=kw, element="x", value=2.0, bound=1.0, ends=at(last))

    @rule(place=st.integers(0, 5), unit=st.sampled_from(UNITS), kw=kws)
    def fail(self, place: int, unit: str, kw: int) -> None:
        order = self.some_order(place)
        self.ask("activation.fail", order.provider, order.id, unit=unit, remaining_kw=kw)

    @rule(place=st.integers(0, 5))
    def rebalance(self, place: int) -> None:
        order = self.some_order(place)
        self.ask("activation.rebalance", order.provider, order.id)

    @rule(place=st.integers(0, 5), units=st.lists(st.tuples(st.sampled_from(UNITS), kws), max_size=3))
    def split(self, place: int, units: list[tuple[str, int]]) -> None:
        order = self.some_order(place)
        shares = [{"unit": u, "pieces": [{"starts": at(0), "ends": at(60), "kw": kw}]} for u, kw in units]
        self.ask("activation.split", order.provider, order.id, units=shares)

    @rule(place=st.integers(0, 5), kw=kws, last=minutes)
    def change(self, place: int, kw: int, last: int) -> None:
        self.ask("activation.change", "tso", self.some_order(place).id, quantity_kw=kw, ends=at(last))

    @rule(place=st.integers(0, 5))
    def stop(self, place: int) -> None:
        self.ask("activation.stop", "tso", self.some_order(place).id)

    @rule(kw=kws, first=minutes, last=minutes)
    def order(self, kw: int, first: int, last: int) -> None:
        form = {"session": GLOBAL, "offer": "sp-1/g", "direction": "up", "starts": at(first), "ends": at(last)}
        self.ask("activation.order", "tso", quantity_kw=kw, **form)

    # ------------------------------------------------------------ laws

    @invariant()
    def nothing_is_held_twice_and_nothing_held_stands_by(self) -> None:
        ledger: dict[tuple[str, Any], Holding] = {}
        for one in outcomes(self.world.state, DAY):
            for holding in unpack(one.added, Holding):
                assert (holding.unit, holding.start) not in ledger
                ledger[holding.unit, holding.start] = holding
        for backup in self.world.state.all(Backup):
            assert not any(backup.unit == unit and backup.touches(start, start + QUARTER) for unit, start in ledger), (
                backup
            )

    @invariant()
    def nobody_gives_more_than_it_can_nor_without_being_bought_or_reserved(self) -> None:
        state = self.world.state
        told = state.all(SetPointEntry)
        held = {
            (holding.unit, holding.start): holding.offer
            for one in outcomes(state, DAY)
            for holding in unpack(one.added, Holding)
        }
        for k in range(12):
            moment = BEGIN + k * timedelta(minutes=5)
            start = BEGIN + (k // 3) * QUARTER
            for unit in UNITS:
                mine = [one for one in told if one.unit == unit and kw_at(one.profile, moment)]
                assert sum(kw_at(one.profile, moment) for one in mine) <= 100
                for one in mine:
                    offer = state.get(ActivationOrder, one.order).offer
                    kept = any(
                        back.unit == unit and back.provider == one.provider and back.starts <= moment < back.ends
                        and (back.released is None or back.released > moment)
                        for back in state.all(Backup)
                    )  # fmt: skip
                    assert held.get((unit, start)) == offer or kept, (unit, moment)

    @invariant()
    def no_order_is_above_what_was_bought_and_orders_on_one_offer_are_not_together(self) -> None:
        state = self.world.state
        for order in state.all(ActivationOrder):
            assert not exceeds(plus(order.profile, order.lost), order.awarded)
        on_offer = [one for one in state.all(ActivationOrder) if one.kind is not OrderKind.SUCCESSION]
        whole = plus(*(plus(one.profile, one.lost) for one in on_offer))
        assert not exceeds(whole, on_offer[0].awarded)

    @invariant()
    def what_an_order_is_to_give_its_units_give_or_it_is_known_to_be_missing(self) -> None:
        state, now = self.world.state, self.world.now
        for order in state.all(ActivationOrder):
            if order.state is not OrderState.SPLIT or not order.live(now):
                continue
            units = [one.profile for one in state.all(SetPointEntry) if one.order == order.id]
            for k in range(12):
                moment = max(now, BEGIN + k * timedelta(minutes=5))
                given = sum(kw_at(one, moment) for one in units)
                assert given + kw_at(order.missing, moment) == kw_at(order.profile, moment), (order.id, moment)

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        machine = Machine(TEST_VERBS)
        assert list(replay(self.world.journal.entries(0, 100_000), machine)) == []
        assert fingerprint(machine) == fingerprint(self.world.machine)


_SETTINGS = {"deadline": None, "suppress_health_check": list(HealthCheck)}
Orders.TestCase.settings = settings(max_examples=4, stateful_step_count=10, **_SETTINGS)  # type: ignore[arg-type]


class TestOrders(Orders.TestCase):  # type: ignore[name-defined,misc]
    """The machine above, briefly."""


class Longer(Orders):
    """The same for longer."""


Longer.TestCase.settings = settings(max_examples=60, stateful_step_count=40, **_SETTINGS)  # type: ignore[arg-type]


@pytest.mark.slow
class TestOrdersForLonger(Longer.TestCase):  # type: ignore[name-defined,misc]
    """The machine above, for longer."""
