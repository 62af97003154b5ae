from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, timedelta
from itertools import combinations
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_designs import designs

from coflex.domain.clearing import Holding, Status
from coflex.domain.errors import CoflexError, OutsideAxis, SoldTwice
from coflex.domain.quantity import Direction
from coflex.domain.time import QUARTER, Axis, delivery_day, local_label
from coflex.market.design import Design, SessionPlan, load_design, schedule
from coflex.market.ledger import Claim, assign, claim, free_units

ROME = ZoneInfo("Europe/Rome")
DAYS = (date(2016, 3, 27), date(2016, 7, 5), date(2016, 10, 30))
UNITS = ("u1", "u2", "u3")
Ledger = tuple[Holding, ...]
PLANS = {plan.id: plan for plan in schedule(load_design("beflexible_six"), date(2016, 7, 5), ROME)}


def wanted(plan: SessionPlan, data: st.DataObject, draws: int = 12) -> list[Claim]:
    """Claims of a session at random, few quarter-hours of few units so that they meet often."""
    periods = st.integers(0, min(len(plan.horizon), 40) - 1)
    cells = data.draw(st.lists(st.tuples(st.sampled_from(UNITS), periods), max_size=draws))
    directions = data.draw(st.lists(st.sampled_from(Direction), min_size=len(cells), max_size=len(cells)))
    return [
        Claim(unit, plan.horizon[t], direction, 10 + t, f"{plan.id}/{unit}")
        for (unit, t), direction in zip(cells, directions, strict=True)
    ]


def cells(holdings: Ledger) -> list[tuple[str, datetime]]:
    return [(holding.unit, holding.start) for holding in holdings]


def settle(ledger: Ledger, plan: SessionPlan, buyer: str, claims: list[Claim]) -> Ledger:
    kept, _, added = claim(ledger, plan, buyer, claims)
    return kept + added


@pytest.mark.spec("MKT-09")
@settings(max_examples=80, deadline=None)
@given(designs(), st.sampled_from(DAYS), st.data())
def test_under_any_interleaving_no_unit_is_held_twice_and_nothing_fixed_or_foreign_changes(
    design: Design, day: date, data: st.DataObject
) -> None:
    """Sessions of any design claim in any order, again and again, in turn for each of their buyers."""
    plans = schedule(design, day, ROME)
    ledger: Ledger = ()
    for plan in data.draw(st.lists(st.sampled_from(plans), min_size=1, max_size=8)):
        buyer = data.draw(st.sampled_from(plan.session.buyers)).value
        fixed = {holding for holding in ledger if holding.status is Status.DEFINITIVE or holding.buyer != buyer}
        try:
            kept, removed, added = claim(ledger, plan, buyer, wanted(plan, data))
        except SoldTwice:
            continue
        assert fixed <= set(kept)
        assert set(kept) | set(removed) == set(ledger)
        assert all(holding.buyer == buyer and holding.status is Status.PRELIMINARY for holding in removed)
        ledger = kept + added
        assert len(set(cells(ledger))) == len(ledger)


@pytest.mark.spec("MKT-09")
@settings(max_examples=60, deadline=None)
@given(designs(), st.sampled_from(DAYS), st.data())
def test_claims_on_free_units_never_clash_and_claims_on_others_always_do(
    design: Design, day: date, data: st.DataObject
) -> None:
    ledger: Ledger = ()
    for plan in schedule(design, day, ROME):
        for buyer in (member.value for member in plan.session.buyers):
            free = free_units(ledger, UNITS, buyer, plan.horizon)
            asked = {(want.unit, want.start): want for want in wanted(plan, data)}
            usable = [free[UNITS.index(unit), plan.horizon.position(start)] for unit, start in asked]
            if not all(usable):
                with pytest.raises(SoldTwice):
                    claim(ledger, plan, buyer, list(asked.values()))
            ledger = settle(ledger, plan, buyer, [want for want, ok in zip(asked.values(), usable, strict=True) if ok])


@pytest.mark.spec("MKT-10")
@settings(max_examples=25, deadline=None)
@given(st.sampled_from(DAYS), st.data())
def test_after_the_six_sessions_everything_held_is_definitive_and_held_by_the_session_of_its_hours(
    day: date, data: st.DataObject
) -> None:
    axis, ledger = delivery_day(day, ROME), ()
    for plan in schedule(load_design("beflexible_six"), day, ROME):
        buyer = plan.session.buyers[0].value
        free = free_units(ledger, UNITS, buyer, plan.horizon)
        asked = {(want.unit, want.start): want for want in wanted(plan, data)}
        usable = [
            want for (unit, start), want in asked.items() if free[UNITS.index(unit), plan.horizon.position(start)]
        ]
        ledger = settle(ledger, plan, buyer, usable)
    for holding in ledger:
        assert holding.status is Status.DEFINITIVE
        assert holding.session.endswith(f"-{min(6, 1 + (holding.start - axis.start) // timedelta(hours=4))}")


@pytest.mark.spec("MKT-19")
@settings(max_examples=50, deadline=None)
@given(st.data())
def test_the_ledger_is_the_same_for_any_order_of_holdings_and_claims(data: st.DataObject) -> None:
    first = {(want.unit, want.start): want for want in wanted(PLANS["local-1"], data)}
    second = {(want.unit, want.start): want for want in wanted(PLANS["local-2"], data)}
    ledger = settle((), PLANS["local-1"], "dso", list(first.values()))
    answer = claim(ledger, PLANS["local-2"], "dso", list(second.values()))
    mixed = data.draw(st.permutations(ledger)), data.draw(st.permutations(list(second.values())))
    assert claim(mixed[0], PLANS["local-2"], "dso", mixed[1]) == answer


def a_claim(session: str, period: int, unit: str = "u1", kw: int = 50) -> Claim:
    return Claim(unit, PLANS[session].horizon[period], Direction.UP, kw, f"{session}/{unit}")


@pytest.mark.spec("MKT-09")
def test_a_clash_names_the_unit_the_quarter_hour_and_the_holder() -> None:
    ledger = settle((), PLANS["local-1"], "areti", [a_claim("local-1", 3)])
    with pytest.raises(SoldTwice) as clash:
        claim(ledger, PLANS["global-1"], "terna", [a_claim("global-1", 3)])
    for word in ("u1", "2016-07-05T00:45+02:00", "areti", "local-1", "definitive"):
        assert word in str(clash.value)


@pytest.mark.spec("MKT-09", "MKT-10")
def test_the_same_buyers_next_session_replaces_what_was_preliminary_and_only_that() -> None:
    ledger = settle(
        (), PLANS["local-1"], "dso", [a_claim("local-1", 3), a_claim("local-1", 20), a_claim("local-1", 30)]
    )
    assert [holding.status for holding in ledger] == [Status.DEFINITIVE, Status.PRELIMINARY, Status.PRELIMINARY]
    kept, removed, added = claim(ledger, PLANS["local-2"], "dso", [a_claim("local-2", 4, kw=70)])
    assert [holding.start for holding in kept] == [PLANS["local-1"].horizon[3]]
    assert [holding.start for holding in removed] == [PLANS["local-1"].horizon[20], PLANS["local-1"].horizon[30]]
    assert [(holding.start, holding.quantity_kw, holding.status) for holding in added] == [
        (PLANS["local-1"].horizon[20], 70, Status.DEFINITIVE)
    ]


@pytest.mark.spec("MKT-09")
def test_what_lies_outside_a_session_s_horizon_stays() -> None:
    ledger = settle((), PLANS["local-1"], "dso", [a_claim("local-1", 20), a_claim("local-1", 90)])
    short = replace(PLANS["local-2"], horizon=PLANS["local-2"].firm)
    kept, removed, _ = claim(ledger, short, "dso", [])
    assert (kept, removed) == (ledger[1:], ledger[:1])


@pytest.mark.spec("MKT-09")
def test_a_preliminary_holding_is_closed_to_every_other_buyer() -> None:
    ledger = settle((), PLANS["local-1"], "dso", [a_claim("local-1", 40)])
    assert free_units(ledger, ("u1",), "dso", PLANS["global-1"].horizon).all()
    free = free_units(ledger, ("u2", "u1"), "tso", PLANS["global-1"].horizon)
    assert np.argwhere(~free).tolist() == [[1, 40]]
    with pytest.raises(SoldTwice, match="preliminary"):
        claim(ledger, PLANS["global-1"], "tso", [a_claim("global-1", 40)])


def test_two_claims_of_one_session_on_a_unit_clash() -> None:
    with pytest.raises(SoldTwice, match="u1"):
        claim((), PLANS["local-1"], "dso", [a_claim("local-1", 3), a_claim("local-1", 3, kw=20)])


def test_a_ledger_that_is_already_broken_is_not_built_upon() -> None:
    (holding,) = settle((), PLANS["local-1"], "dso", [a_claim("local-1", 3)])
    with pytest.raises(SoldTwice):
        claim((holding, replace(holding, buyer="tso")), PLANS["local-2"], "dso", [])


def test_a_claim_outside_the_horizon_or_for_no_power_is_refused() -> None:
    with pytest.raises(OutsideAxis):
        claim((), PLANS["local-2"], "dso", [a_claim("local-1", 3)])
    with pytest.raises(CoflexError, match="0 kW"):
        claim((), PLANS["local-1"], "dso", [a_claim("local-1", 3, kw=0)])


def test_free_units_looks_at_the_asked_part_of_the_day_only() -> None:
    ledger = settle((), PLANS["local-1"], "dso", [a_claim("local-1", 3)])
    start = PLANS["local-1"].horizon[2]
    assert free_units(ledger, ("u1",), "tso", Axis(start, 3)).tolist() == [[True, False, True]]
    assert free_units(ledger, ("u1",), "tso", Axis(start + 2 * QUARTER, 3)).all()
    assert local_label(start + QUARTER, ROME) == "2016-07-05T00:45+02:00"


MEMBERS = st.lists(st.integers(-3, 40), max_size=7).map(lambda powers: [(f"u{i}", kw) for i, kw in enumerate(powers)])


@pytest.mark.spec("MKT-09", "MKT-19")
@given(MEMBERS, st.data())
def test_an_award_is_split_exactly_within_each_units_power_over_as_few_units_as_can_be(
    members: list[tuple[str, int]], data: st.DataObject
) -> None:
    free = dict(members)
    award = data.draw(st.integers(0, sum(max(0, kw) for kw in free.values())))
    split = assign(award, members)
    assert sum(kw for _, kw in split) == award
    assert all(0 < kw <= free[unit] for unit, kw in split)
    assert all(kw == free[unit] for unit, kw in split[:-1])
    fewer = combinations(free.values(), len(split) - 1) if split else ()
    assert all(sum(chosen) < award for chosen in fewer)
    assert assign(award, data.draw(st.permutations(members))) == split


def test_of_equal_units_the_one_with_the_first_id_is_used_first() -> None:
    assert assign(25, [("u3", 10), ("u2", 10), ("u1", 10), ("u9", 12)]) == (("u9", 12), ("u1", 10), ("u2", 3))


@pytest.mark.parametrize(("award", "members"), [(11, [("u1", 10)]), (-1, [("u1", 10)]), (5, [("u1", 3), ("u1", 3)])])
def test_an_award_that_does_not_fit_the_units_is_refused(award: int, members: list[tuple[str, int]]) -> None:
    with pytest.raises(CoflexError):
        assign(award, members)
