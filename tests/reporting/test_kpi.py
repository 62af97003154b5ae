"""Indicators on small hand-made days, against numbers worked out by hand, and the bookkeeping behind them."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coflex.domain.activation import Hop, Limitation, SetPoint
from coflex.domain.clearing import Award, MeritLine, Reason, Status
from coflex.domain.light import Colour, DynamicLight
from coflex.domain.need import Request
from coflex.domain.qualification import LimitKind, StaticLight, StaticMode, Verdict
from coflex.domain.quantity import Direction
from coflex.domain.statement import Statement
from coflex.domain.time import QUARTER, Axis
from coflex.domain.unit import Group, Scope, Technology, Unit
from coflex.reporting import kpi
from coflex.reporting.delivery import balance
from coflex.reporting.interface import netting
from coflex.settlement.document import Need, Payer
from coflex.settlement.inputs import Bought
from coflex.settlement.summary import settled, statements
from support.settling import RULES, delivery, settled_inputs

START = datetime(2016, 7, 5, tzinfo=UTC)
UP, DOWN = Direction.UP, Direction.DOWN


def at(t: int) -> datetime:
    return START + t * QUARTER


def values(found: tuple[kpi.Kpi, ...]) -> dict[str, float]:
    return {one.id: one.value for one in found}


def point(unit: str, t: int, kw: int, hop: Hop = Hop.ENERGY_MANAGEMENT_SYSTEM) -> SetPoint:
    return SetPoint(unit, at(t), "tso", "global-1", UP, kw, kw, 0.0, float(kw), hop)


def award(offer: str, provider: str, kw: int, price: str = "50") -> Award:
    paid = Decimal(price)
    return Award("global-1", offer, 1, provider, "tso", "p", None, "g", UP, at(0), kw, paid, paid, Status.DEFINITIVE)


def line(offered: int, accepted: int, reason: Reason, t: int = 0, direction: Direction = UP) -> MeritLine:
    return MeritLine(
        session="global-1",
        product="p",
        direction=direction,
        start=at(t),
        rank=1,
        offer="o",
        step=1,
        provider="sp",
        location="g",
        price_eur_mwh=Decimal(50),
        offered_kw=offered,
        accepted_kw=accepted,
        status=Status.DEFINITIVE,
        reason=reason,
        detail="",
    )


def light(direction: Direction, colour: Colour, able: int, potential: int) -> DynamicLight:
    return DynamicLight("global-1", "F1", direction, at(0), colour, potential, able, "")


def request(t: int, direction: Direction, asked: int, netted: int) -> Request:
    return Request("global-1", "tso", "p", direction, at(t), asked, netted, Decimal(300))


def statement(party: str, received: int = 0, paid: int = 0, penalty: int = 0, fee: int = 0) -> Statement:
    return Statement(party, received, paid, penalty, fee, 1, Decimal(1), Decimal(1))


def unit(name: str, provider: str, up: int, down: int) -> Unit:
    return Unit(name, "load", Technology.PV, "cp", "e", provider, "o", "b", up, down, 0.0, 0, 0, 0, 0, 0, up, 0, 0, 0)


@pytest.mark.spec("KPI-01")
def test_delivered_set_points_are_those_the_customer_confirmed() -> None:
    points = [point("a", 0, 10), point("b", 0, 10), point("c", 0, 10), point("d", 0, 10, Hop.LIGHT_NODE)]
    assert values(kpi.messages(7, points)) == {
        "messages_exchanged": 7,
        "set_points_sent": 4,
        "set_points_delivered": 75,
    }


@pytest.mark.spec("KPI-01")
def test_activated_power_is_added_over_units_and_averaged_over_called_quarter_hours() -> None:
    points = [point("a", 0, 1000), point("b", 0, 500), point("a", 3, 600), point("a", 4, 0)]
    found = values(kpi.activated(points, [award("o1", "x", 5), award("o1", "x", 6), award("o2", "y", 5)]))
    assert found == {"activated_peak": 1.5, "activated_mean": 1.05, "activated_offers": 2}


@pytest.mark.spec("KPI-01")
def test_a_day_without_calls_has_indicators_of_zero() -> None:
    assert set(values(kpi.activated([], [])).values()) == {0.0}
    assert values(kpi.messages(0, []))["set_points_delivered"] == 0.0


@pytest.mark.spec("KPI-01")
def test_the_operators_say_counts_lights_limits_and_the_lines_they_touched() -> None:
    lines = [
        line(5, 5, Reason.ACCEPTED),
        line(5, 2, Reason.YELLOW_LIGHT),
        line(5, 0, Reason.RED_LIGHT),
        line(5, 0, Reason.OUT_OF_MERIT),
        line(5, 0, Reason.HELD_ELSEWHERE),
    ]
    lights = [light(UP, Colour.GREEN, 9, 9), light(UP, Colour.YELLOW, 3, 9), light(DOWN, Colour.RED, 0, 9)]
    limits = [Limitation(at(0), "a", "tso", 10, 4, "L1", 1.1, 1.0)]
    assert values(kpi.dso_participation(lines, lights, limits)) == {
        "lines_limited_by_lights": 40,
        "lights_not_green": 2,
        "limitations": 1,
    }


@pytest.mark.spec("KPI-02")
def test_prequalification_effort_divides_tests_by_the_services_of_the_tested_units() -> None:
    tests = [
        StaticLight(name, d, mode, Verdict.CONFIRMED, 5, 5, "L", LimitKind.LOADING, 0.5, 1.0, "s")
        for name in ("a", "b")
        for d in Direction
        for mode in StaticMode
    ]
    groups = [
        Group("lg", "sp", Scope.LOCAL, "p", "F1", ("a", "b"), "brp"),
        Group("gg", "sp", Scope.GLOBAL, "p", "F1", ("a", "outside"), "brp"),
    ]
    # 8 tests; a serves two services, b one; the unit outside the grid was not tested.
    assert values(kpi.prequalification_effort(tests, groups))["prequalification_effort"] == pytest.approx(8 / 3)


@pytest.mark.spec("KPI-02")
def test_deliverable_power_is_capability_over_potential_by_direction() -> None:
    lights = [
        light(UP, Colour.YELLOW, 30, 100),
        light(UP, Colour.GREEN, 100, 100),
        light(DOWN, Colour.RED, 0, 50),
        light(DOWN, Colour.GREEN, 150, 150),
    ]
    assert values(kpi.local_constraints(lights)) == {"deliverable_up": 65, "deliverable_down": 75}


@pytest.mark.spec("KPI-02")
def test_continuance_counts_providers_that_earn_also_against_those_that_sold_nothing() -> None:
    units = [unit("a", "x", 500, 1000), unit("b", "x", 1000, 0), unit("c", "y", 1000, 200), unit("d", "z", 0, 1000)]
    statements = [
        statement("x", received=9000, penalty=1000),
        statement("y", received=100, penalty=300),
        statement("tso", paid=9100, penalty=-1300, fee=182),
        statement("platform", fee=-182),
    ]
    found = values(kpi.continuance(statements, units))
    assert found["continuance"] == pytest.approx(100 / 3, abs=1e-6)
    assert found["income_per_mw"] == pytest.approx((80 - 2) / 4)


@pytest.mark.spec("KPI-03")
def test_violations_avoided_compare_with_and_without_activation() -> None:
    found = values(kpi.violations_avoided({"forecast": 35, "planned": 0, "untouched": 57, "actual": 60}))
    assert found == {"violations_avoided_actual": -3, "violations_avoided_planned": 35}


@pytest.mark.spec("KPI-03")
def test_curtailment_counts_only_what_is_given_up_and_losses_carry_their_sign() -> None:
    untouched = np.array([[100.0, 100.0], [40.0, 40.0]])
    actual = np.array([[60.0, 120.0], [40.0, 0.0]])
    assert values(kpi.curtailment(untouched, actual, 0.25))["pv_curtailment"] == pytest.approx(0.02)
    assert values(kpi.losses_change({"actual": 6.0, "untouched": 6.5}))["losses_change"] == -0.5


@pytest.mark.spec("KPI-03")
def test_liquidity_looks_at_bought_quarter_hours_and_the_herfindahl_index_at_shares() -> None:
    lines = [
        line(60, 40, Reason.MARGINAL),
        line(140, 0, Reason.OUT_OF_MERIT),
        line(500, 0, Reason.OUT_OF_MERIT, t=1),
        line(500, 0, Reason.NO_NEED, direction=DOWN),
    ]
    awards = [award("o1", "x", 20), award("o2", "x", 10), award("o3", "y", 10)]
    found = values(kpi.liquidity(Scope.GLOBAL, lines, awards))
    assert found == {"offered_over_bought_global": 5, "herfindahl_global": 75**2 + 25**2}


@pytest.mark.spec("KPI-03")
def test_coordination_costs_the_discordant_energy_at_the_mean_price_paid() -> None:
    # Asked 400 up where local activations took 100 (concordant); nothing asked where they gave 200: bought back down.
    netted = netting([request(0, UP, 400, -100), request(1, DOWN, 0, 200)], Axis(START, 2))
    assert (netted.concordant_mwh, netted.discordant_mwh) == (0.025, 0.05)
    found = values(kpi.price_of_coordination(netted, [award("o1", "x", 300, "40"), award("o2", "y", 100, "80")]))
    assert found == {"discordant_energy": 0.05, "price_of_coordination": pytest.approx(0.05 * 50)}


def as_requests(asked: int, moved: int, t: int) -> list[Request]:
    """Requests as the planning nets them: the rest in one direction, what was asked in its own."""
    rest = asked - moved
    own = {d: max(0, d.sign * asked) for d in Direction}
    left = {d: max(0, d.sign * rest) for d in Direction}
    return [request(t, d, own[d], left[d] - own[d]) for d in Direction if own[d] or left[d]]


@pytest.mark.spec("MKT-11")
@given(st.lists(st.tuples(st.integers(-900, 900), st.integers(-900, 900)), min_size=1, max_size=8))
def test_concordant_movement_reduces_and_discordant_raises_the_purchase(cells: list[tuple[int, int]]) -> None:
    axis = Axis(START, len(cells))
    requests = [r for t, (asked, moved) in enumerate(cells) for r in as_requests(asked, moved, t)]
    found = netting(list(reversed(requests)), axis)
    asked, moved = np.array(cells, dtype=float).T
    np.testing.assert_array_equal(found.asked_kw, asked)
    np.testing.assert_array_equal(found.local_kw, moved)
    bought = np.zeros(len(cells))
    for one in requests:
        bought[axis.position(one.start)] += one.quantity_kw
    np.testing.assert_array_equal(bought, np.abs(asked) - found.concordant_kw + found.discordant_kw)
    assert (found.concordant_kw >= 0).all()
    assert (found.discordant_kw >= 0).all()
    assert (np.abs(asked) >= found.concordant_kw).all()


def sold(provider: str, buyer: str, price: int, measured: int) -> dict[str, Any]:
    """25 kWh up against a withdrawal of 40 kWh, of which so much was measured."""
    payer, need = {"dso": (Payer.DSO, Need.DSO_CONGESTION), "tso": (Payer.TSO, Need.TSO_CONGESTION)}[buyer]
    bought = (Bought("a1", Decimal(25), bid_eur_mwh=Decimal(price) / 100),)
    return {
        "provider": provider, "buyer": buyer, "need": need, "roles": {payer: buyer}, "bought": bought,
        "measured_kwh": Decimal(-measured) / 1000,
    }  # fmt: skip


@pytest.mark.spec("KPI-03")
@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.builds(
            sold,
            st.sampled_from(["sp-1", "sp-2"]),
            st.sampled_from(["tso", "dso"]),
            st.integers(-(10**5), 10**6),
            st.integers(10_000, 50_000),
        ),
        max_size=12,
    )
)
def test_what_operators_bear_is_what_providers_and_the_platform_get(given_: list[dict[str, Any]]) -> None:
    deliveries = (delivery(f"d{i}", unit=f"u{i}", **one) for i, one in enumerate(given_))
    lines, run = settled(settled_inputs(*deliveries), RULES)
    found = statements(lines, run.accounts)
    money = balance(found)
    assert money.difference == 0
    cost = sum(one.value for one in kpi.procurement_cost(found, ("dso", "tso")))
    income = sum(s.balance_cents for s in found if s.party in ("sp-1", "sp-2"))
    assert round(cost * 100) == income + money.fees


def test_indicators_have_names_of_their_own_and_say_how_they_were_computed() -> None:
    nothing = netting([], Axis(START, 4))
    found = [
        *kpi.messages(0, []),
        *kpi.activated([], []),
        *kpi.dso_participation([], [], []),
        *kpi.prequalification_effort([], []),
        *kpi.local_constraints([]),
        *kpi.continuance([], []),
        *kpi.violations_avoided(dict.fromkeys(("forecast", "planned", "untouched", "actual"), 0)),
        *kpi.curtailment(np.zeros((0, 4)), np.zeros((0, 4)), 0.25),
        *kpi.losses_change({"actual": 0.0, "untouched": 0.0}),
        *kpi.procurement_cost([], ("dso", "tso")),
        *(one for scope in Scope for one in kpi.liquidity(scope, [], [])),
        *kpi.price_of_coordination(nothing, []),
    ]
    assert len({one.id for one in found}) == len(found)
    assert {one.group for one in found} == {"KPI-01", "KPI-02", "KPI-03"}
    assert all(one.meaning.endswith(".") and one.meaning.count(". ") == 0 for one in found)
