"""Indicators of a design's run on a hand-made case, against numbers worked out by hand, and the laws they obey."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, cast
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow

from coflex.domain.clearing import Award, Status
from coflex.domain.errors import CoflexError
from coflex.domain.offer import Offer, OfferStep
from coflex.domain.quantity import Direction
from coflex.domain.reserve import Reservation
from coflex.domain.time import QUARTER, Axis
from coflex.market.coordination.outcome import Actor, Bought, Delivering, Final, Held, Message, Run
from coflex.market.coordination.world import Seller, VoltageReduction, World
from coflex.market.design import Buyer, Service
from coflex.reporting.coordination import DEFINITIONS, Kpis, as_json, kpis, manual, volumes
from coflex.reporting.coordination.money import PAYERS, costs, payers_of

START = datetime(2016, 7, 5, tzinfo=UTC)
UP, DOWN = Direction.UP, Direction.DOWN
DSO, TSO, BRP = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
PROVIDER = {"a": "P1", "b": "P2", "c": "P3"}
GRID = {"a": "east", "b": "west", "c": ""}


def at(t: int) -> datetime:
    return START + t * QUARTER


def award(
    unit: str,
    direction: Direction,
    t: int,
    kw: int,
    price: str,
    payers: tuple[float, float, float] = DSO,
    bid: str | None = None,
    session: str = "local",
    **other: Any,
) -> Bought:
    paid = Decimal(price)
    made = Award(
        session=session,
        offer=f"{session}-{unit}-{direction.value}",
        step=1,
        provider=PROVIDER[unit],
        buyer="any",
        product="p",
        unit=unit,
        group=None,
        direction=direction,
        start=at(t),
        quantity_kw=kw,
        bid_eur_mwh=paid if bid is None else Decimal(bid),
        price_eur_mwh=paid,
        status=Status.DEFINITIVE,
    )
    return Bought(made, GRID[unit], *payers, **other)


def offer(name: str, unit: str, direction: Direction, kw: tuple[int, ...], product: str = "p", t: int = 0) -> Offer:
    step = OfferStep(1, at(t), Decimal(50), kw)
    return Offer(name, 1, START, "any", PROVIDER[unit], product, direction, unit, None, (step,))


def seller(unit: str, up: int, down: int, services: tuple[Service, ...]) -> Seller:
    return Seller(unit, PROVIDER[unit], GRID[unit], 0, GRID[unit], 0.0, up, down, services)


def small_world(**other: Any) -> World:
    """Three units (a, b in distribution, c in transmission) over two quarter-hours; the system needs 100 kW, then is
    200 kW too long. Nothing here asks for the network."""
    given_: dict[str, Any] = {
        "id": "hand",
        "axis": Axis(START, 2),
        "zone": ZoneInfo("Europe/Rome"),
        "network": cast(Any, None),
        "grids": ("east", "west"),
        "node_grid": np.zeros(0, dtype=np.int64),
        "branch_grid": np.zeros(0, dtype=np.int64),
        "border": np.zeros(0, dtype=np.int64),
        "p_mw": np.zeros((2, 0)),
        "q_mvar": np.zeros((2, 0)),
        "error_p_mw": np.zeros((2, 0)),
        "error_level": 0.0,
        "sellers": (
            seller("a", 400, 400, (Service.CONGESTION, Service.BALANCING)),
            seller("b", 200, 100, (Service.BALANCING,)),
            seller("c", 1000, 1000, (Service.BALANCING,)),
        ),
        "offers": (
            offer("local-a-up", "a", UP, (400, 400)),
            offer("global-a-up", "a", UP, (300, 400)),  # the same power once more, for another session
            offer("global-b-down", "b", DOWN, (100, 100)),
            offer("global-c-up", "c", UP, (1000, 1000)),
            offer("global-c-down", "c", DOWN, (1000, 1000, 1000)),  # the last one lies outside the day
            offer("kvar-a", "a", UP, (900, 900), "q"),
        ),
        "reactive": frozenset({"q"}),
        "capacity": {},
        "groups": {"g": ("a", "b")},
        "orders": (),
        "system_kw": np.array([100, -200]),
        "reserve_kw": {},
        "energy_eur_mwh": np.zeros(2),
        "emergency_eur_mwh": 200.0,
        "value_eur_mwh": 3000.0,
    }
    return World(**(given_ | other))


def final(**other: Any) -> Final:
    numbers: dict[str, Any] = {
        "before_distribution": 12,
        "before_transmission": 3,
        "violations_distribution": 2,
        "violations_transmission": 1,
        "worst_voltage_pu": 0.01,
        "worst_loading_share": 0.1,
        "unbalanced_kwh": 25.0,
        "limits_kwh": 25.0,
        "mended_kwh": 50.0,
        "mended_eur": 10.0,
        "unmended": 0,
        "losses_kwh": 30.0,
        "interface_kw": np.zeros((2, 2)),
    }
    return Final(**(numbers | other))


def held(session: str, delivering: Delivering | None = None, limited: float = 0.0, minutes: int = 0) -> Held:
    closes = at(-8 + minutes)
    told = delivering or Delivering()
    return Held(
        session, closes, 3, 2, 125.0, 7.5, 25.0, 12.5, 1, limited, (), delivering=told, remark='as <planned> & "more"'
    )


def kept(availability: str, use: str, kw: int, session: str = "hold", unit: str = "c", t: int = 1) -> Reservation:
    return Reservation(
        session,
        f"{session}-{unit}",
        1,
        PROVIDER[unit],
        "tso",
        "r",
        unit,
        None,
        UP,
        at(t),
        kw,
        Decimal(availability),
        Decimal(use),
        Status.DEFINITIVE,
    )


# A light stopped none of the 2 lines of the own session of the DSO, one of the 3 of the wide one. Distribution units
# offer 50 and 100 kWh there, of which 10 and 25 are refused.
OWN, WIDE = Delivering(2, 0, 50.0, 10.0), Delivering(3, 1, 100.0, 25.0)
MESSAGES = (
    Message("local", Actor.SERVICE_PROVIDER, Actor.MARKET_OPERATOR, "offers", 6),
    Message("local", Actor.MARKET_OPERATOR, Actor.DSO, "merit order list", 1),
    Message("global", Actor.SERVICE_PROVIDER, Actor.MARKET_OPERATOR, "offers", 2),
    Message("global", Actor.DSO, Actor.TSO, "traffic light", 1),
)


def small_run(**other: Any) -> Run:
    """q0: the DSO takes 400 kW up of a, the TSO 300 kW down of c. q1: the DSO 100 kW down of b, the TSO 100 kW down of
    c, and a joint session 200 kW up of a, half for the DSO, a quarter each for the TSO and for another."""
    parts: dict[str, Any] = {
        "design": "two-markets",
        "case": "hand",
        "held": (held("local", OWN, 40.0), held("global", WIDE, 10.0, 1)),
        "bought": (
            award("a", UP, 0, 400, "60", DSO, "50"),
            award("c", DOWN, 0, 300, "20", TSO, session="global"),
            award("b", DOWN, 1, 100, "-10", DSO),
            award("c", DOWN, 1, 100, "20", TSO, session="global"),
            award("a", UP, 1, 200, "40", (0.5, 0.25, 0.25), "30", session="joint"),
            award("a", UP, 1, 40, "10", DSO, session="kvar", reactive=True),
        ),
        # Capacity that was bought, and a line of the session of energy selected beyond its request.
        "reserved": (kept("8", "70", 500), kept("0", "90", 100, "global")),
        "messages": MESSAGES,
        "final": final(),
    }
    return Run(**(parts | other))


def coupled_run() -> Run:
    dear = award("c", DOWN, 0, 1000, "60", TSO, "40", session="all")
    return small_run(
        design="coupled", bought=(dear,), reserved=(), held=(), final=final(mended_kwh=0.0, mended_eur=0.0)
    )


def no_run() -> Run:
    idle = final(mended_kwh=200.0, mended_eur=40.0, losses_kwh=25.0)
    return small_run(design="none", bought=(), reserved=(), messages=(), held=(), final=idle)


def found(**other: Any) -> Kpis:
    return kpis(small_run(**other), small_world(), coupled_run(), no_run(), 1.5)


# ---------------------------------------------------------------- by hand


@pytest.mark.spec("KPI-03")
def test_costs_by_who_bears_them_are_those_worked_out_by_hand() -> None:
    one = found()
    # DSO: 0.1 MWh * 60 - 0.025 * 10 + half of 0.05 * 40 + 0.01 Mvarh * 10 = 6 - 0.25 + 1 + 0.1
    assert one.cost_dso_eur == Decimal("6.85")
    # TSO: 0.075 * 20 + 0.025 * 20 + a quarter of 2, and 0.5 MW * 0.25 h * 8 of availability
    assert one.cost_tso_eur == Decimal("3.50")
    assert one.cost_brp_eur == Decimal("0.50")
    assert one.cost_availability_eur == Decimal("1.00")
    assert one.cost_procurement_eur == Decimal("10.85")
    assert one.cost_mending_eur == Decimal("10.00")
    assert one.cost_total_eur == Decimal("20.85")
    # 1 EUR of the first award and 0.50 of the shared one are above the bids
    assert one.cost_resource_eur == Decimal("19.35")
    assert one.surplus_eur == Decimal("1.50")


@pytest.mark.spec("KPI-03")
def test_volumes_and_what_is_undone_again() -> None:
    one = found()
    assert one.bought_up_distribution_mwh == pytest.approx(0.15)  # 400 + 200 kW
    assert one.bought_down_distribution_mwh == pytest.approx(0.025)
    assert one.bought_up_transmission_mwh == 0.0  # what is kept ready is not bought
    assert one.bought_down_transmission_mwh == pytest.approx(0.1)
    assert one.bought_mwh == pytest.approx(0.275)
    assert one.held_uncalled_mwh == pytest.approx(0.025)
    assert one.bought_reactive_mvarh == pytest.approx(0.01)
    assert one.reserved_mw_h == pytest.approx(0.15)
    # q0: 300 of the 400 kW up of the DSO meet the TSO's 300 down; q1: 200 up of all meet 100 + 100 down
    assert one.counter_activated_mwh == pytest.approx(0.125)


@pytest.mark.spec("KPI-03", "MKT-11")
def test_the_interface_is_netted_as_figure_15_shows() -> None:
    one = found()
    # q0: 100 asked, 400 moved: 100 with it, 300 too many. q1: -200 asked, -100 moved and half of 200 back: nothing.
    assert one.concordant_mwh == pytest.approx(0.025)
    assert one.discordant_mwh == pytest.approx(0.075)
    assert one.discordant_cost_eur == pytest.approx(1.50)  # bought back at 20 EUR/MWh


def test_the_interface_on_days_of_both_signs() -> None:
    # asked 100 and -200 kW; moved 60 and -250: with it 60 and 200, against it 50, bought back up at 30 EUR/MWh
    local = (award("a", UP, 0, 60, "1"), award("b", DOWN, 1, 250, "1"))
    one = found(bought=(*local, award("c", UP, 1, 70, "30", TSO), award("a", DOWN, 1, 500, "1", BRP)))
    assert one.concordant_mwh == pytest.approx(0.065)
    assert one.discordant_mwh == pytest.approx(0.0125)
    assert one.discordant_cost_eur == pytest.approx(0.0125 * 30)


def test_what_the_tso_does_not_buy_back_costs_the_emergency_price() -> None:
    one = found(bought=(award("a", UP, 0, 400, "60"), award("c", DOWN, 0, 100, "20", TSO)))
    assert one.discordant_mwh == pytest.approx(0.075)
    assert one.discordant_cost_eur == pytest.approx(0.025 * 20 + 0.05 * 200)


@pytest.mark.spec("KPI-03")
def test_limits_curtailment_and_losses() -> None:
    one = found()
    assert (one.violations_before_distribution_count, one.violations_before_transmission_count) == (12, 3)
    assert (one.violations_left_distribution_count, one.violations_left_transmission_count) == (2, 1)
    assert one.violations_avoided_count == 12
    assert one.unbalanced_mwh == pytest.approx(0.025)
    assert one.mended_mwh == pytest.approx(0.05)
    assert one.curtailment_avoided_mwh == pytest.approx(0.15)
    assert one.losses_mwh == pytest.approx(0.03)
    assert one.losses_change_mwh == pytest.approx(0.005)


@pytest.mark.spec("KPI-03")
def test_liquidity_counts_a_unit_once_however_often_it_offers() -> None:
    one = found()
    # a 2 * 400, b 2 * 100, c 4 * 1000 kW; called of them 400 + 200, 100, 300 + 100
    assert one.offered_mwh == pytest.approx(1.25)
    assert one.unused_mwh == pytest.approx(0.975)
    assert one.unused_pct == pytest.approx(78.0)
    assert one.offered_over_needed_ratio == pytest.approx(1.25 / 0.325, abs=1e-6)
    assert (one.providers_offering_count, one.providers_selling_count) == (3, 3)
    assert one.herfindahl_points == pytest.approx(1e4 * (6**2 + 1**2 + 4**2) / 11**2, abs=1e-6)
    assert one.run_s == 1.5


def test_a_voltage_reduction_is_an_offer_of_its_grid() -> None:
    nothing = np.zeros((2, 2, 0))
    lowered = VoltageReduction("east", np.array([[50, 50], [30, 30]]), nothing, nothing, (10.0, 20.0))
    world = small_world(reductions=(lowered,))
    sold = award("a", UP, 0, 60, "10", TSO)
    sold = replace(sold, award=replace(sold.award, unit=None, provider="dso"))
    one = kpis(small_run(bought=(sold,)), world, None)
    assert one.offered_mwh == pytest.approx(1.25 + 0.04)
    assert one.unused_mwh == pytest.approx(1.25 + 0.025)


@pytest.mark.spec("KPI-02", "KPI-03")
def test_efficiency_and_the_price_of_coordination_against_the_coupled_market() -> None:
    one = found()
    # coupled: 0.25 MWh at 60 paid, 40 bid; without any market: 40 EUR of mending
    assert one.coordination_price_eur == Decimal("5.85")
    assert one.coordination_price_pct == pytest.approx(39.0)
    assert one.efficiency_pct == pytest.approx(100 * 10 / 19.35, abs=1e-6)
    assert one.gain_realised_pct == pytest.approx(100 * (40 - 19.35) / 30, abs=1e-6)


def test_the_coupled_market_is_the_measure_of_itself() -> None:
    one = kpis(coupled_run(), small_world(), coupled_run(), no_run())
    assert one.coordination_price_eur == Decimal("0.00")
    assert (one.coordination_price_pct, one.efficiency_pct, one.gain_realised_pct) == (0.0, 100.0, 100.0)
    assert kpis(no_run(), small_world(), coupled_run(), no_run()).gain_realised_pct == 0.0


@pytest.mark.spec("KPI-02")
def test_table_11_of_document_b() -> None:
    one = found()
    assert one.tests_per_qualification_ratio == pytest.approx(4 / 3, abs=1e-6)  # a and b, each up and down; 2 + 1
    assert one.tests_per_service_ratio == 1.0  # a served all three payers, b one
    assert one.deliverable_pct == pytest.approx(75.0)  # 25 of 100 kWh refused where the TSO pays
    assert one.limited_mwh == pytest.approx(0.05)
    assert one.providers_earning_pct == pytest.approx(200 / 3, abs=1e-6)  # P2 paid for what it did
    assert one.income_eur_per_mw == pytest.approx(10.85 / 1.6)


@pytest.mark.spec("KPI-01")
def test_messages_demand_response_and_the_dsos_part() -> None:
    one = found()
    assert (one.messages_count, one.message_kinds_count) == (10, 3)
    assert one.messages_dso_pct == pytest.approx(20.0)
    assert one.activated_peak_mw == pytest.approx(0.4)
    assert one.activated_mean_mw == pytest.approx(0.35)  # 400, then 100 + 200 kW
    assert one.activated_offers_count == 3
    assert one.tso_from_distribution_pct == pytest.approx(100 * 50 / 450, abs=1e-6)
    assert one.lines_stopped_by_dso_pct == pytest.approx(20.0)  # one line of five


def test_a_line_kept_ready_counts_until_an_award_calls_it() -> None:
    # Of 100 kW of c and 80 of a at no price 60 and all are called; 500 kW that were paid for do not count.
    ready = (kept("0", "90", 100), kept("0", "50", 80, unit="a"), kept("8", "70", 500, unit="b"))
    called = (award("c", UP, 1, 60, "90", TSO), award("a", UP, 1, 80, "50"), award("a", DOWN, 1, 20, "50"))
    one = found(bought=called, reserved=ready)
    assert one.held_uncalled_mwh == pytest.approx(0.04 / 4)
    elsewhere = (award("c", UP, 0, 60, "90", TSO), award("c", UP, 1, 60, "9", TSO, reactive=True))
    assert found(bought=elsewhere, reserved=ready).held_uncalled_mwh == pytest.approx(0.18 / 4)


def test_a_session_that_the_tso_pays_nothing_of_says_nothing_of_global_services() -> None:
    one = found(bought=(award("a", UP, 0, 400, "60", DSO),))
    assert one.deliverable_pct is None
    assert one.lines_stopped_by_dso_pct == pytest.approx(20.0)


def test_what_has_no_whole_has_no_value() -> None:
    one = kpis(no_run(), small_world(offers=(), sellers=()), None)
    empty = {name for name in (x.name for x in fields(one)) if getattr(one, name) is None}
    assert empty == {
        "tso_from_distribution_pct",
        "messages_dso_pct",
        "lines_stopped_by_dso_pct",
        "tests_per_qualification_ratio",
        "tests_per_service_ratio",
        "deliverable_pct",
        "efficiency_pct",
        "gain_realised_pct",
        "providers_earning_pct",
        "income_eur_per_mw",
        "curtailment_avoided_mwh",
        "losses_change_mwh",
        "unused_pct",
        "coordination_price_eur",
        "coordination_price_pct",
        "run_s",
    }
    assert one.herfindahl_points == 0.0
    assert one.offered_over_needed_ratio == 0.0


# ---------------------------------------------------------------- what is refused


def test_runs_of_another_case_are_no_measure() -> None:
    with pytest.raises(CoflexError, match="fully coupled market is of case other"):
        kpis(small_run(), small_world(), replace(coupled_run(), case="other"))


@pytest.mark.parametrize("payers", [(0.5, 0.4, 0.0), (1.2, -0.2, 0.0)])
def test_shares_that_do_not_add_to_one_are_refused(payers: tuple[float, float, float]) -> None:
    with pytest.raises(CoflexError, match="do not add to one"):
        found(bought=(award("a", UP, 0, 100, "50", payers),))


def test_buyers_are_known_by_their_name() -> None:
    names = ("tso", "TSO", "dso", "dso-east", "west", "brp", "trader-7", "tso+dso")
    assert [payers_of(name, small_world()) for name in names] == [
        *(2 * [(Buyer.TSO,)]),
        *(3 * [(Buyer.DSO,)]),
        *(2 * [(Buyer.BRP,)]),
        (Buyer.DSO, Buyer.TSO),
    ]


def test_capacity_that_two_hold_together_is_paid_in_equal_parts() -> None:
    both = replace(kept("8.12", "70", 500), buyer="dso+tso")
    one = found(bought=(), reserved=(both,))
    # 0.125 MW h * 8.12 = 1.015 EUR, 0.5075 each; 11.015 with mending is 11.02 (half to even)
    assert (one.cost_dso_eur, one.cost_tso_eur) == (Decimal("0.51"), Decimal("0.51"))
    assert one.cost_availability_eur == Decimal("1.02")
    assert one.cost_total_eur == Decimal("11.02")


def test_an_offer_of_a_group_counts_for_its_units_by_their_power() -> None:
    # a may 400 kW down, b 100: of 250 kW, 200 and 50; b offers 100 by itself as well, which is more
    both = replace(offer("both", "a", DOWN, (250,)), unit=None, group="g")
    world = small_world(offers=(both, offer("own", "b", DOWN, (100,))))
    one = kpis(small_run(bought=(award("a", DOWN, 0, 150, "1"),)), world, None)
    assert one.offered_mwh == pytest.approx(0.3 / 4)
    assert one.unused_mwh == pytest.approx(0.15 / 4)


# ---------------------------------------------------------------- laws


def thirds(parts: tuple[int, int, int]) -> tuple[float, float, float]:
    whole = sum(parts)
    return parts[0] / whole, parts[1] / whole, parts[2] / whole


PARTS = st.tuples(*(3 * [st.integers(0, 7)])).filter(any).map(thirds)
AWARDS = st.lists(
    st.builds(
        award,
        unit=st.sampled_from("abc"),
        direction=st.sampled_from((UP, DOWN)),
        t=st.integers(0, 1),
        kw=st.integers(1, 5000),
        price=st.decimals(-500, 3000, places=3).map(str),
        payers=PARTS,
        bid=st.decimals(-500, 3000, places=2).map(str),
        session=st.sampled_from(("local", "global", "joint")),
        reactive=st.booleans(),
    ),
    max_size=12,
)


@settings(max_examples=80, deadline=None)
@given(AWARDS, st.floats(0, 1e5))
def test_parts_add_to_the_cent_and_no_part_is_off_by_more_than_its_two_roundings(
    bought: list[Bought], mended: float
) -> None:
    run = small_run(bought=tuple(bought), final=final(mended_eur=mended))
    one = kpis(run, small_world(), None)
    assert one.cost_dso_eur + one.cost_tso_eur + one.cost_brp_eur == one.cost_procurement_eur
    assert one.cost_procurement_eur + one.cost_mending_eur == one.cost_total_eur
    assert one.cost_resource_eur + one.surplus_eur == one.cost_total_eur
    exact = [Fraction(x.award.quantity_kw) * Fraction(x.award.price_eur_mwh) / 4000 for x in bought]
    assert abs(Fraction(one.cost_total_eur) - sum(exact) - 1 - Fraction(mended)) <= Fraction(1, 199)
    for cost, part, ready in (
        (one.cost_dso_eur, "share_dso", 0),
        (one.cost_tso_eur, "share_tso", 1),
        (one.cost_brp_eur, "share_brp", 0),
    ):
        mine = sum((Fraction(getattr(x, part)) * eur for x, eur in zip(bought, exact, strict=True)), Fraction(ready))
        assert abs(Fraction(cost) - mine) < Fraction(3, 100)


@settings(max_examples=40, deadline=None)
@given(AWARDS, st.randoms(use_true_random=False))
def test_the_order_of_what_a_run_holds_does_not_matter(bought: list[Bought], chance: Any) -> None:
    run = small_run(bought=tuple(bought))
    world = small_world()
    shuffled = list(bought)
    chance.shuffle(shuffled)
    turned = replace(run, bought=tuple(shuffled), held=run.held[::-1], messages=run.messages[::-1])
    mixed = replace(world, sellers=world.sellers[::-1], offers=world.offers[::-1])
    assert kpis(turned, mixed, coupled_run(), no_run()) == kpis(run, world, coupled_run(), no_run())


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=3))
def test_counter_activations_are_the_largest_flow_between_different_buyers(moved: list[tuple[int, int]]) -> None:
    buyers = (DSO, TSO, BRP)
    awards = [
        award("a", direction, 0, kw, "10", buyers[b], session=f"s{b}")
        for b, pair in enumerate(moved)
        for direction, kw in zip((UP, DOWN), pair, strict=True)
        if kw
    ]
    # source 0, up of b at 1 + b, down of b at 4 + b, sink 7: another engine pairs them
    room = np.zeros((8, 8), dtype=np.int32)
    for b, (up, down) in enumerate(moved):
        room[0, 1 + b], room[4 + b, 7] = up, down
        for other in range(len(moved)):
            if other != b:
                room[1 + b, 4 + other] = 1000
    assert volumes.counter_kw(awards) == maximum_flow(csr_array(room), 0, 7).flow_value


def test_what_one_clearing_moves_both_ways_is_not_undone() -> None:
    both = [
        award("a", UP, 0, 100, "10", (0.5, 0.5, 0.0), session="joint"),
        award("c", DOWN, 0, 80, "10", TSO, session="joint"),
    ]
    assert volumes.counter_kw(both) == 0.0
    apart = [replace(both[0], share_dso=1.0, share_tso=0.0), both[1]]
    assert volumes.counter_kw(apart) == 80.0
    together = [replace(one, award=replace(one.award, buyer="dso+tso")) for one in apart]
    assert volumes.counter_kw(together) == 0.0


@settings(max_examples=60, deadline=None)
@given(AWARDS)
def test_volumes_add_up_and_unused_is_never_more_than_offered(bought: list[Bought]) -> None:
    run = small_run(bought=tuple(bought))
    one = kpis(run, small_world(), None)
    parts = (
        getattr(one, f"bought_{d}_{level}_mwh") for d in ("up", "down") for level in ("distribution", "transmission")
    )
    assert sum(parts) == pytest.approx(one.bought_mwh)
    assert 0 <= one.unused_mwh <= one.offered_mwh
    assert one.offered_mwh - one.unused_mwh <= one.bought_mwh + 1e-9
    assert one.concordant_mwh <= 0.3 / 4 + 1e-9  # never more than the need
    made = costs(run, small_world())
    assert sum((made.of(payer) for payer in PAYERS), Decimal(0)) == made.procurement


# ---------------------------------------------------------------- definitions, JSON, the manual


def test_every_indicator_is_defined_once_and_carries_its_unit_in_its_name() -> None:
    ids = [one.id for one in DEFINITIONS]
    about = {"design", "case", "ending", "rounds"}
    assert len(set(ids)) == len(ids)
    assert set(ids) == {one.name for one in fields(Kpis)} - about
    ends = {"EUR": "_eur", "MWh": "_mwh", "%": "_pct", "MW": "_mw", "number": "_count", "s": "_s"}
    for one in DEFINITIONS:
        assert one.id.endswith(ends.get(one.unit, "_")) or one.unit not in ends
        assert one.formula.endswith(".")
        assert one.source


def test_the_manual_is_as_the_definitions_are() -> None:
    page = Path(__file__).parents[2] / "docs/kpis.md"
    text = page.read_text(encoding="utf-8")
    assert text == manual(), "write coflex.reporting.coordination.manual() to docs/kpis.md"
    assert all(f"| `{one.id}` |" in text for one in DEFINITIONS)


def test_json_keeps_cents_as_text_and_what_is_missing_as_null() -> None:
    one = kpis(small_run(), small_world(), None)
    read = json.loads(json.dumps(as_json(one), allow_nan=False))
    assert read["cost_total_eur"] == "20.85"
    assert read["design"] == "two-markets"
    assert read["coordination_price_eur"] is None
    assert read["bought_mwh"] == 0.275
    assert set(read) == {field.name for field in fields(Kpis)}
