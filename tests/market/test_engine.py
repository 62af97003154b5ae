from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from itertools import pairwise
from zoneinfo import ZoneInfo

import numpy as np
import plain_intake
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_designs import designs

from coflex.domain.clearing import Holding, Status
from coflex.domain.errors import NotReady
from coflex.domain.offer import Offer, OfferStep
from coflex.domain.quantity import Direction
from coflex.domain.time import QUARTER, local_label
from coflex.domain.unit import Group, Level, Scope
from coflex.market.design import Design, DistributionGrid, SessionPlan, Validation, load_design, schedule
from coflex.market.engine import Action, SessionState, advance, due, life, upcoming
from coflex.market.intake import IntakeContext, intake
from coflex.market.ledger import Claim, claim

ROME = ZoneInfo("Europe/Rome")
DAY = date(2016, 7, 5)
DAYS = (date(2016, 3, 27), DAY, date(2016, 10, 30))
PLANS = {plan.id: plan for plan in schedule(load_design("beflexible_six"), DAY, ROME)}
SEES_GRID = PLANS["local-2"]
# The same session without a view of the grid, so that groups may offer in it.
BLIND = SEES_GRID.session.grid.model_copy(update={"distribution": DistributionGrid.NONE})
PLAN = replace(SEES_GRID, session=SEES_GRID.session.model_copy(update={"grid": BLIND}))
AXIS = PLAN.horizon
T = len(AXIS)

# ---------------------------------------------------------------- session life


def live(plans: tuple[SessionPlan, ...], clock: list[datetime]) -> list[Action]:
    """Every step taken when the engine is asked at these instants only."""
    states: dict[str, SessionState] = {}
    sessions = {plan.id: plan.session for plan in plans}
    taken = []
    for at in clock:
        while action := due(plans, states, at):
            before = states.get(action.session, SessionState.ANNOUNCED)
            states[action.session] = advance(sessions[action.session], before, action.to)
            taken.append(action)
    return taken


@pytest.mark.spec("MKT-02")
@settings(max_examples=40, deadline=None)
@given(designs(), st.sampled_from(DAYS), st.lists(st.integers(0, 48 * 60), max_size=20))
def test_a_day_goes_through_the_same_steps_however_seldom_the_clock_is_read(
    design: Design, day: date, minutes: list[int]
) -> None:
    plans = schedule(design, day, ROME)
    end = max(plan.closes for plan in plans)
    some = sorted(end - timedelta(minutes=minute) for minute in minutes)
    steps = live(plans, [end])
    assert live(plans, [*some, end]) == steps
    for plan in plans:
        assert [step.to for step in steps if step.session == plan.id] == list(life(plan.session))[1:]
    assert [step.at for step in steps] == sorted(step.at for step in steps)


@pytest.mark.spec("MKT-02", "MKT-10")
def test_each_session_opens_and_closes_at_its_gate_and_is_published_before_the_next_one_clears() -> None:
    plans = tuple(PLANS.values())
    steps = live(plans, [plans[-1].closes])
    for plan in plans:
        at = {step.to: step.at for step in steps if step.session == plan.id}
        assert at[SessionState.OPEN] == plan.opens
        assert at[SessionState.CLOSED] == at[SessionState.PUBLISHED] == plan.closes
    published = [step.session for step in steps if step.to is SessionState.PUBLISHED]
    assert published == [plan.id for plan in plans]
    assert [step.to for step in steps if step.session == "local-1"] == [
        "open",
        "closed",
        "cleared",
        "validated",
        "definitive",
        "published",
    ]


@pytest.mark.spec("MKT-02")
def test_nothing_is_due_before_its_instant_and_the_next_instant_is_known() -> None:
    plans = tuple(PLANS.values())
    first = upcoming(plans, {})
    assert first == Action("local-1", SessionState.OPEN, plans[0].opens)
    assert due(plans, {}, plans[0].opens - timedelta(seconds=1)) is None
    assert due(plans, {}, plans[0].opens) == first
    assert upcoming(plans, {plan.id: SessionState.PUBLISHED for plan in plans}) is None


@pytest.mark.spec("MKT-19")
def test_gates_at_one_instant_are_served_in_the_order_of_the_design() -> None:
    first = PLANS["local-1"]
    second = replace(PLANS["global-1"], opens=first.opens, closes=first.closes)
    for pair in ((first, second), (second, first)):
        steps = live(pair, [first.closes])
        cleared = [step.session for step in steps if step.to is SessionState.CLEARED]
        assert cleared == [plan.id for plan in pair]


@pytest.mark.spec("MKT-02")
def test_a_session_takes_no_step_but_the_next_one() -> None:
    for validation in ("static", "none"):
        session = PLAN.session.model_copy(update={"validation": Validation(validation)})
        states = life(session)
        assert (SessionState.VALIDATED in states) == (validation != "none")
        for state in states:
            for to in SessionState:
                if (state, to) in pairwise(states):
                    assert advance(session, state, to) is to
                else:
                    with pytest.raises(NotReady, match=f"is {state.value}"):
                        advance(session, state, to)


# ---------------------------------------------------------------- a small register


product = partial(plain_intake.product, min_quantity_kw=20)
unit = partial(plain_intake.unit, kw=200)

OWNER = {"a1": "anna", "a2": "anna", "a3": "anna", "b1": "bruno", "t1": "anna"}
UNITS = {name: unit(name, provider) for name, provider in OWNER.items()}
GROUPS = {
    "ga": Group("ga", "anna", Scope.LOCAL, "cm", "p1", ("a2", "a3"), "brp"),
    "gb": Group("gb", "bruno", Scope.LOCAL, "cm", "p1", ("b1",), "brp"),
    "gw": Group("gw", "anna", Scope.GLOBAL, "cm", "p1", ("a1",), "brp"),
    "gv": Group("gv", "anna", Scope.LOCAL, "vc", "p1", ("a1",), "brp"),
    "gt": Group("gt", "anna", Scope.LOCAL, "cm", "", ("t1",), "brp"),
}
PRODUCTS = {
    "cm": product("cm"),
    "vc": product("vc"),
    "whole": product("whole", divisible=False),
    "upward": product("upward", directions=(Direction.UP,)),
    "mfrr": product("mfrr", scope=Scope.GLOBAL),
}
QUALIFIED = {(name, direction): 100 for name in UNITS for direction in Direction} | {("a1", Direction.DOWN): 60}
SHORT, HELD = 10, 30  # positions where a1 has declared 40 kW only, and where the TSO holds a1 and a2


def held_by(buyer: str, name: str, start: datetime, status: Status) -> Holding:
    return Holding(name, start, "global-1", buyer, Direction.UP, 50, "earlier", status)


def context(**changes: object) -> IntakeContext:
    declared = np.full(T, 100)
    declared[SHORT] = 40
    held = [held_by("tso", name, AXIS[HELD], Status.PRELIMINARY) for name in ("a1", "a2")]
    held.append(held_by("dso", "a1", AXIS[HELD + 1], Status.PRELIMINARY))
    base = IntakeContext(
        units=UNITS,
        groups=GROUPS,
        products=PRODUCTS,
        levels={name: Level.TRANSMISSION if name == "t1" else Level.DISTRIBUTION for name in UNITS},
        buyers=("dso",),
        qualified_kw=QUALIFIED,
        available_kw={"a1": (declared, declared)},
        held={(holding.unit, holding.start): holding for holding in held},
    )
    return replace(base, **changes)  # type: ignore[arg-type]


CONTEXT = context()


def step(number: int, first: int, kw: tuple[int, ...], price: str) -> OfferStep:
    return OfferStep(number, AXIS.start + first * QUARTER, Decimal(price), kw)


def offer(name: str = "o1", **changes: object) -> Offer:
    given = Offer(
        id=name,
        receipt=1,
        received_at=PLAN.opens,
        session=PLAN.id,
        provider="anna",
        product="cm",
        direction=Direction.UP,
        unit="a1",
        group=None,
        steps=(step(1, 4, (20, 30), "80"), step(2, 4, (20, 10), "95.5")),
    )
    return replace(given, **changes)  # type: ignore[arg-type]


def codes(*offers: Offer, plan: SessionPlan = PLAN, given: IntakeContext = CONTEXT) -> set[tuple[str, str]]:
    accepted, findings = intake(plan, offers, given)
    faulty = {finding.place.split(",")[0] for finding in findings}
    assert {f"offer {taken.id}" for taken in accepted} | faulty == {f"offer {sent.id}" for sent in offers}
    return {(finding.place, finding.code) for finding in findings}


def at(period: int) -> str:
    return local_label(AXIS.start + period * QUARTER, ROME)


# ---------------------------------------------------------------- single faults

ONE_STEP = (step(1, 4, (40, 40), "80"),)
LAST = PLAN.closes - timedelta(seconds=1)

# change of a clean offer, place after the offer's name, code
FAULTS: list[tuple[dict[str, object], str, str]] = [
    ({"session": "local-9"}, "", "unknown_session"),
    ({"received_at": PLAN.closes}, "", "after_gate"),
    ({"received_at": PLAN.opens - timedelta(seconds=1)}, "", "before_gate"),
    ({"valid_until": PLAN.closes}, "", "expired"),
    ({"provider": "carla"}, "", "unknown_provider"),
    ({"provider": "bruno"}, "", "foreign_unit"),
    ({"unit": "a9"}, "", "unknown_unit"),
    ({"unit": "t1"}, "", "level"),
    ({"unit": None}, "", "unit_or_group"),
    ({"group": "ga"}, "", "unit_or_group"),
    ({"unit": None, "group": "g9"}, "", "unknown_group"),
    ({"unit": None, "group": "gb"}, "", "foreign_group"),
    ({"unit": None, "group": "gw"}, "", "group_scope"),
    ({"unit": None, "group": "gv"}, "", "group_product"),
    ({"unit": None, "group": "gt"}, "", "level"),
    ({"product": "gas"}, "", "unknown_product"),
    ({"product": "mfrr"}, "", "product_session"),
    ({"product": "upward", "direction": Direction.DOWN}, "", "direction"),
    ({"product": "whole"}, "", "indivisible"),
    ({"min_quantity_kw": -1}, "", "negative_minimum"),
    ({"max_periods": 0}, "", "max_periods"),
    ({"energy_limit_kwh": 0}, "", "energy_limit_kwh"),
    ({"steps": ()}, "", "empty"),
    ({"steps": (step(1, 4, (0, 0), "80"),)}, "", "empty"),
    ({"steps": (step(2, 4, (40,), "80"),)}, "", "step_numbers"),
    ({"block": True}, "", "block_steps"),
    ({"block": True, "max_periods": 1, "steps": ONE_STEP}, "", "block_periods"),
    ({"block": True, "energy_limit_kwh": 19, "steps": ONE_STEP}, "", "block_energy"),
    ({"min_quantity_kw": 45}, f", {at(4)}", "minimum_above_quantity"),
    ({"steps": (step(1, 4, (15, 20), "80"),)}, f", {at(4)}", "below_product_minimum"),
    ({"steps": (step(1, 4, (20, -5), "80"),)}, f", step 1, {at(5)}", "negative"),
    ({"steps": (step(1, 4, (20, 23), "80"),)}, f", step 1, {at(5)}", "tick"),
    ({"steps": (step(1, 4, (20,), "400.01"),)}, f", step 1, {at(4)}", "price_cap"),
    ({"steps": (step(1, 4, (20,), "-400.01"),)}, f", step 1, {at(4)}", "price_floor"),
    ({"steps": (step(1, 4, (20,), "NaN"),)}, f", step 1, {at(4)}", "price_not_finite"),
    ({"steps": (step(1, 4, (20,), "-Infinity"),)}, f", step 1, {at(4)}", "price_not_finite"),
    ({"steps": (step(1, -1, (20, 20), "80"),)}, f", step 1, {at(-1)}", "outside_horizon"),
    ({"steps": (step(1, T - 1, (20, 20), "80"),)}, f", step 1, {at(T)}", "outside_horizon"),
    ({"steps": (step(1, T + 7, (20,), "80"),)}, f", step 1, {at(T + 7)}", "outside_horizon"),
    ({"steps": (step(1, 4, (20, 20), "80"), step(2, 5, (20, 20), "80"))}, f", step 2, {at(5)}", "price_order"),
    (
        {"steps": (step(1, 4, (20,), "80"), step(2, 6, (20,), "80"), step(3, 4, (20,), "79"))},
        f", step 3, {at(4)}",
        "price_order",
    ),
    ({"steps": (step(1, 4, (20, 20, 20), "80"), step(1, 6, (20,), "70"))}, f", step 1, {at(6)}", "overlap"),
    ({"steps": (step(1, 4, (100,), "80"), step(2, 4, (5,), "90"))}, f", step 2, {at(4)}", "above_qualified"),
    (
        {"direction": Direction.DOWN, "steps": (step(1, 4, (60, 65), "80"),)},
        f", step 1, {at(5)}",
        "above_qualified",
    ),
    ({"steps": (step(1, SHORT - 1, (45, 45), "80"),)}, f", step 1, {at(SHORT)}", "above_available"),
    ({"steps": (step(1, HELD - 1, (20, 20, 20), "80"),)}, f", step 1, {at(HELD)}", "held"),
    ({"unit": None, "group": "ga", "steps": (step(1, 4, (205,), "80"),)}, f", step 1, {at(4)}", "above_qualified"),
    ({"unit": None, "group": "ga", "steps": (step(1, HELD, (105,), "80"),)}, f", step 1, {at(HELD)}", "held"),
]
NAMES = [f"{code}-{i}" for i, (_, _, code) in enumerate(FAULTS)]


@pytest.mark.spec("MKT-03")
@pytest.mark.parametrize(("change", "place", "code"), FAULTS, ids=NAMES)
def test_each_fault_of_an_offer_is_named_with_its_place(change: dict[str, object], place: str, code: str) -> None:
    assert not codes(offer())
    assert (f"offer o1{place}", code) in codes(offer(**change))


@pytest.mark.spec("MKT-03")
@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, len(FAULTS) - 1), min_size=1, max_size=8), st.integers(0, 5), st.randoms())
def test_every_fault_among_many_offers_is_found_and_every_clean_offer_is_taken(
    chosen: list[int], clean: int, order: object
) -> None:
    faulty = [offer(f"f{i}", receipt=i, **FAULTS[place][0]) for i, place in enumerate(chosen)]
    fine = [offer(f"c{i}", receipt=100 + i, steps=(step(1, 40 + i, (20,), "80"),)) for i in range(clean)]
    offers = [*faulty, *fine]
    order.shuffle(offers)  # type: ignore[attr-defined]
    found = codes(*offers)
    assert {(f"offer f{i}{FAULTS[place][1]}", FAULTS[place][2]) for i, place in enumerate(chosen)} <= found
    assert [taken.id for taken in intake(PLAN, offers, CONTEXT)[0]] == [f"c{i}" for i in range(clean)]


@pytest.mark.spec("MKT-03")
def test_all_faults_of_one_offer_are_named_at_once() -> None:
    steps = (
        step(1, -1, (20, 20), "80"),
        step(1, 4, (22, 20, -5), "500"),
        step(1, 5, (20,), "500"),
        step(3, 4, (95, 95), "NaN"),
        step(2, HELD, (20,), "10"),
    )
    broken = offer(
        session="x", received_at=PLAN.closes, product="upward", direction=Direction.DOWN, max_periods=0, steps=steps
    )
    assert {code for _, code in codes(broken)} >= {
        "unknown_session",
        "after_gate",
        "direction",
        "max_periods",
        "outside_horizon",
        "tick",
        "negative",
        "price_cap",
        "price_not_finite",
        "overlap",
        "above_qualified",
        "held",
    }


@pytest.mark.spec("MKT-02")
def test_an_offer_after_the_gate_is_refused_with_the_gate_s_time() -> None:
    assert not codes(offer(received_at=LAST))
    _, (finding,) = intake(PLAN, [offer(received_at=PLAN.closes)], CONTEXT)
    assert PLAN.closes == datetime(2016, 7, 5, 0, 0, tzinfo=UTC)
    assert "closed at 2016-07-05T02:00+02:00" in finding.message


@pytest.mark.spec("MKT-03")
@pytest.mark.parametrize(
    "change",
    [
        {"received_at": LAST, "valid_until": PLAN.closes + timedelta(seconds=1)},
        {"steps": (step(1, 4, (100,), "-12.5"),)},
        {"steps": (step(1, 4, (20,), "400"),)},
        {"steps": (step(1, 0, (20,) * 10, "1"), step(1, T - 1, (20,), "2"))},
        {"steps": (step(1, SHORT, (40,), "80"),)},
        {"steps": (step(1, HELD + 1, (100,), "80"),)},
        {"steps": (step(1, HELD - 1, (20, 0, 20), "80"),)},
        {"unit": None, "group": "ga", "steps": (step(1, HELD, (100, 200), "80"),)},
        {"block": True, "product": "whole", "max_periods": 2, "energy_limit_kwh": 20, "steps": ONE_STEP},
        {"min_quantity_kw": 40, "max_periods": 1, "energy_limit_kwh": 5, "exclusive": "one", "local_only": True},
        {"steps": (step(1, 4, (20, 20), "80"), step(2, 5, (20,), "90"), step(2, 4, (5,), "85"))},
    ],
)
def test_what_the_rules_allow_is_taken(change: dict[str, object]) -> None:
    assert not codes(offer(**change))


def test_an_excess_is_reported_once_with_the_first_cap_it_breaks() -> None:
    assert codes(offer(steps=(step(1, HELD, (100,), "80"),))) == {(f"offer o1, step 1, {at(HELD)}", "held")}
    assert codes(offer(steps=(step(1, 4, (105,), "80"),))) == {(f"offer o1, step 1, {at(4)}", "above_qualified")}


# ---------------------------------------------------------------- offers that meet


@pytest.mark.spec("MKT-03", "MKT-19")
def test_of_two_offers_with_one_id_the_first_received_stays() -> None:
    first, second = offer(receipt=3), offer(receipt=7, steps=(step(1, 50, (20,), "80"),))
    accepted, findings = intake(PLAN, [second, first], CONTEXT)
    assert accepted == (first,)
    assert [finding.code for finding in findings] == ["duplicate_id"]
    assert intake(PLAN, [first, replace(second, receipt=3)], CONTEXT)[0] == ()
    assert intake(PLAN, [second], context(taken=(first,)))[0] == ()


@pytest.mark.spec("MKT-03")
def test_an_exclusive_label_belongs_to_the_provider_that_used_it_first() -> None:
    mine = offer(exclusive="one")
    theirs = offer("o2", receipt=2, provider="bruno", unit="b1", exclusive="one")
    assert codes(mine, theirs) == {("offer o2", "foreign_label")}
    assert codes(theirs, given=context(taken=(mine,))) == {("offer o2", "foreign_label")}


@pytest.mark.spec("MKT-03", "MKT-09")
def test_a_unit_is_offered_once_in_a_quarter_hour_and_direction_unless_the_offers_exclude_each_other() -> None:
    alone = offer("o1", unit="a2")
    together = offer("o2", receipt=2, unit=None, group="ga", steps=(step(1, 5, (20,), "80"),))
    assert codes(alone, together) == {(f"offer o2, {at(5)}", "offered_twice")}
    assert codes(together, given=context(taken=(alone,))) == {(f"offer o2, {at(5)}", "offered_twice")}
    assert not codes(replace(alone, exclusive="one"), replace(together, exclusive="one"))
    assert not codes(alone, replace(together, direction=Direction.DOWN))
    assert not codes(alone, replace(together, steps=(step(1, 6, (20,), "80"),)))


@pytest.mark.spec("MKT-03")
def test_the_energy_of_a_unit_is_one_account_over_all_its_offers() -> None:
    little = context(energy_kwh={"a1": (25.0, np.inf), "a2": (25.0, 25.0)})
    first = offer(steps=(step(1, 4, (80,), "80"),))
    later = offer("o2", receipt=2, steps=(step(1, 20, (80,), "80"),))
    assert not codes(first, given=little)
    assert codes(first, later, given=little) == {("offer o2", "above_energy")}
    assert codes(later, given=replace(little, taken=(first,))) == {("offer o2", "above_energy")}
    assert not codes(replace(first, energy_limit_kwh=10), replace(later, energy_limit_kwh=15), given=little)
    assert not codes(replace(first, exclusive="one"), replace(later, exclusive="one"), given=little)
    assert not codes(replace(first, direction=Direction.DOWN, steps=(step(1, 4, (60,) * 5, "80"),)), given=little)
    group = {"unit": None, "group": "ga"}
    assert not codes(offer(steps=(step(1, 4, (200,), "80"),), **group), given=little)
    long_ = offer(steps=(step(1, 4, (150,) * 4, "80"),), **group)
    assert codes(long_, given=little) == {(f"offer o1, {at(6)}", "above_energy")}


@pytest.mark.spec("MKT-03")
def test_a_session_that_clears_on_the_grid_takes_units_and_no_groups() -> None:
    group = offer(unit=None, group="ga")
    assert codes(group, plan=SEES_GRID) == {("offer o1", "group_without_place")}
    assert not codes(offer(), plan=SEES_GRID)


def test_a_faulty_offer_does_not_stand_in_the_way_of_its_correction() -> None:
    wrong, right = offer("o1", session="x"), offer("o2", receipt=2)
    assert intake(PLAN, [wrong, right], CONTEXT)[0] == (right,)


def test_a_session_that_names_a_product_trades_only_that() -> None:
    narrow = replace(PLAN, session=PLAN.session.model_copy(update={"product": "vc"}))
    assert codes(offer(), plan=narrow) == {("offer o1", "product_session")}
    assert not codes(offer(product="vc"), plan=narrow)


# ---------------------------------------------------------------- laws


@st.composite
def any_offers(draw: st.DrawFn) -> list[Offer]:
    """Offers with quantities, places and receipts at random, near the caps, the held and the short quarter-hour."""
    offers = []
    for i in range(draw(st.integers(1, 6))):
        steps = []
        for number in range(1, draw(st.integers(1, 3)) + 1):
            kw = draw(st.lists(st.integers(-1, 14).map(lambda ticks: 5 * ticks), min_size=1, max_size=3))
            steps.append(step(number, draw(st.integers(8, 32)), tuple(kw), str(draw(st.integers(0, 3)) + number * 2)))
        name = draw(st.sampled_from(["a1", "a2", "ga"]))
        who: dict[str, object] = {"unit": None, "group": name} if name == "ga" else {"unit": name}
        direction = draw(st.sampled_from(Direction))
        label = draw(st.sampled_from([None, "one"]))
        receipt = draw(st.integers(1, 3))
        offers.append(offer(f"o{i}", receipt=receipt, direction=direction, exclusive=label, steps=tuple(steps), **who))
    return offers


def worth(sent: Offer, period: int) -> int:
    """What an offer gives in a quarter-hour, counted by hand."""
    first = [(part, (AXIS.start + period * QUARTER - part.start) // QUARTER) for part in sent.steps]
    return sum(part.quantity_kw[i] for part, i in first if 0 <= i < len(part.quantity_kw))


def room(name: str, direction: Direction, period: int) -> int:
    free = 0 if period == HELD and name in ("a1", "a2") else QUALIFIED[name, direction]
    return min(free, 40) if name == "a1" and period == SHORT else free


@pytest.mark.spec("MKT-03", "MKT-09")
@settings(max_examples=80, deadline=None)
@given(any_offers())
def test_what_is_taken_never_exceeds_what_each_unit_may_give_and_no_unit_is_offered_twice(offers: list[Offer]) -> None:
    accepted, findings = intake(PLAN, offers, CONTEXT)
    assert {finding.place.split(",")[0].removeprefix("offer ") for finding in findings} == {
        sent.id for sent in offers if sent not in accepted
    }
    members = {sent.id: (sent.unit,) if sent.unit else GROUPS["ga"].units for sent in offers}
    for period in range(T):
        seen: set[tuple[str, Direction, str]] = set()
        for sent in accepted:
            kw = worth(sent, period)
            assert 0 <= kw <= sum(room(name, sent.direction, period) for name in members[sent.id])
            if kw:
                cells = {(name, sent.direction, sent.exclusive or sent.id) for name in members[sent.id]}
                assert not {cell[:2] for cell in cells} & {cell[:2] for cell in seen if cell[2] != sent.exclusive}
                seen |= cells


@pytest.mark.spec("MKT-19")
@settings(max_examples=60, deadline=None)
@given(any_offers(), st.data())
def test_intake_is_the_same_for_any_order_of_arrival(offers: list[Offer], data: st.DataObject) -> None:
    answer = intake(PLAN, offers, CONTEXT)
    assert intake(PLAN, data.draw(st.permutations(offers)), CONTEXT) == answer
    assert list(answer[0]) == sorted(answer[0], key=lambda taken: (taken.receipt, taken.id))


@pytest.mark.spec("MKT-03")
def test_nine_hundred_offers_of_a_whole_day_are_taken() -> None:
    plan = PLANS["local-1"]
    names = [f"u{i}" for i in range(900)]
    units = {name: unit(name, "anna") for name in names}
    start = plan.horizon.start
    offers = [
        Offer(name, i, plan.opens, plan.id, "anna", "cm", Direction.UP, name, None, (wide(1, start), wide(2, start)))
        for i, name in enumerate(names)
    ]
    declared = np.full(len(plan.horizon), 100)
    big = context(
        units=units,
        levels=dict.fromkeys(names, Level.DISTRIBUTION),
        qualified_kw={(name, Direction.UP): 100 for name in names},
        available_kw=dict.fromkeys(names, (declared, declared)),
        held={},
    )
    accepted, findings = intake(plan, offers, big)
    assert (len(accepted), findings) == (900, ())


def wide(number: int, start: datetime) -> OfferStep:
    return OfferStep(number, start, Decimal(50 + number), (40,) * 96)


# ---------------------------------------------------------------- a whole day


def a_day(day: date, ask: Callable[[int], list[int]]) -> tuple[list[Action], tuple[Holding, ...]]:
    """Session after session: providers offer a unit, the intake decides, the buyer claims what it took."""
    plans = schedule(load_design("beflexible_six"), day, ROME)
    states: dict[str, SessionState] = {}
    ledger: tuple[Holding, ...] = ()
    steps = []
    while action := upcoming(plans, states):
        states[action.session] = action.to
        steps.append(action)
        if action.to is not SessionState.CLEARED:
            continue
        place = [plan.id for plan in plans].index(action.session)
        plan, buyer = plans[place], plans[place].session.buyers[0].value
        offers = [
            offer(
                f"o{i}",
                receipt=i,
                session=plan.id,
                received_at=plan.opens,
                product="cm" if plan.session.scope is Scope.LOCAL else "mfrr",
                unit=name,
                steps=(OfferStep(1, plan.horizon[period % len(plan.horizon)], Decimal(60), (20,)),),
            )
            for i, (name, period) in enumerate((name, period) for name in ("a1", "a2", "a3") for period in ask(place))
        ]
        held = {(holding.unit, holding.start): holding for holding in ledger}
        accepted, _ = intake(plan, offers, context(buyers=(buyer,), available_kw={}, held=held))
        claims = [Claim(sent.unit or "", sent.steps[0].start, sent.direction, 20, sent.id) for sent in accepted]
        kept, _, added = claim(ledger, plan, buyer, claims)
        ledger = kept + added
    return steps, ledger


@pytest.mark.spec("MKT-02", "MKT-09", "MKT-10")
@settings(max_examples=15, deadline=None)
@given(st.sampled_from(DAYS), st.lists(st.lists(st.integers(0, 99), max_size=6), min_size=12, max_size=12))
def test_a_day_replays_and_what_the_intake_takes_the_ledger_never_refuses(day: date, asks: list[list[int]]) -> None:
    steps, ledger = a_day(day, asks.__getitem__)
    assert a_day(day, asks.__getitem__) == (steps, ledger)
    cells = [(holding.unit, holding.start) for holding in ledger]
    assert len(set(cells)) == len(cells)
    assert all(holding.status is Status.DEFINITIVE for holding in ledger)
    assert len(steps) == 12 * 6
