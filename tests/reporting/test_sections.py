"""The contents of the page: what is chosen, how it is laid on the day, and that nothing is lost on the way."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from coflex.domain.activation import Hop, Limitation, SetPoint
from coflex.domain.clearing import MeritLine, Reason, Status
from coflex.domain.light import Colour, DynamicLight
from coflex.domain.need import ActingUnit, LocalNeed, Request, Violation
from coflex.domain.offer import Offer, OfferStep
from coflex.domain.qualification import LimitKind
from coflex.domain.quantity import Direction
from coflex.domain.time import QUARTER, Axis, delivery_day
from coflex.domain.unit import Technology, Unit
from coflex.market.design import load_design, schedule
from coflex.reporting.delivery import Missed, activation_section
from coflex.reporting.form import euros, number, rounded
from coflex.reporting.grid import lights_section, worst_of_each
from coflex.reporting.market import LINES, merit_section, needs_section, session_view
from coflex.reporting.outlook import forecast_section
from coflex.reporting.tables import need_lines, node_states, offer_lines

ZONE = ZoneInfo("Europe/Berlin")
START = datetime(2016, 7, 5, tzinfo=UTC)
UP, DOWN = Direction.UP, Direction.DOWN
AXIS = Axis(START, 5)


def at(t: int) -> datetime:
    return START + t * QUARTER


def test_numbers_are_written_short_and_zero_has_no_sign() -> None:
    assert str(rounded([-0.0001, 1.23456], 2)) == "[0.0, 1.23]"
    assert str(number(-1e-9, 3)) == "0.0"
    assert [euros(cents) for cents in (-5, 0, 12345)] == ["-0.05", "0.00", "123.45"]


def test_each_element_shows_its_worst_quarter_hour_the_farthest_beyond_first() -> None:
    low, load = LimitKind.VOLTAGE_LOW, LimitKind.LOADING
    found = worst_of_each(
        [
            Violation(at(0), "n1", low, 0.88, 0.9),
            Violation(at(1), "n1", low, 0.81, 0.9),
            Violation(at(2), "b1", load, 0.53, 0.5),
            Violation(at(1), "n1", load, 1.01, 1.0),
            Violation(at(3), "b1", load, 0.51, 0.5),
        ]
    )
    assert [(v.element, v.kind, v.start) for v in found] == [
        ("n1", low, at(1)),
        ("b1", load, at(2)),
        ("n1", load, at(1)),
    ]


def test_lights_are_laid_on_the_day_and_reasons_told_when_they_change() -> None:
    def light(t: int, colour: Colour, able: int, reason: str) -> DynamicLight:
        return DynamicLight("s", "F1", DOWN, at(t), colour, 90, able, reason)

    lights = [
        light(2, Colour.RED, 0, "local activation up"),
        light(0, Colour.YELLOW, 40, "line 1"),
        light(1, Colour.YELLOW, 50, "line 1"),
        light(3, Colour.GREEN, 90, ""),
    ]
    found = lights_section(lights, AXIS)
    assert found["colour"] == {"F1": {"up": "-----", "down": "yyrg-"}}
    assert found["capability_kw"]["F1"]["down"] == [40, 50, 0, 90, 0]
    assert found["potential_kw"]["F1"]["down"] == [90, 90, 90, 90, 0]
    assert [(one["t"], one["colour"], one["reason"]) for one in found["reasons"]] == [
        (0, "yellow", "line 1"),
        (2, "red", "local activation up"),
    ]


DAY = date(2016, 10, 30)  # a day of 100 quarter-hours
PLANS = {plan.id: plan for plan in schedule(load_design("beflexible_six"), DAY, ZONE)}
LONG = delivery_day(DAY, ZONE)


def merit(rank: int, accepted: int, t: int = 0) -> MeritLine:
    return MeritLine(
        session="global-2",
        product="p",
        direction=UP,
        start=LONG[16 + t],
        rank=rank,
        offer=f"o{rank}",
        step=1,
        provider="sp",
        location="g",
        price_eur_mwh=Decimal(rank),
        offered_kw=10,
        accepted_kw=accepted,
        status=Status.DEFINITIVE,
        reason=Reason.ACCEPTED if accepted else Reason.OUT_OF_MERIT,
        detail="",
    )


def test_a_long_merit_order_keeps_every_accepted_line_and_its_ranks() -> None:
    lines = [merit(rank, accepted=10 * (rank in (3, 190))) for rank in range(1, 201)]
    lines += [merit(1, accepted=10, t=1)]
    request = Request("global-2", "tso", "p", UP, LONG[16], 30, -5, Decimal(300))
    (found,) = merit_section(list(reversed(lines)), [request], PLANS, LONG)
    ranks = [line["rank"] for line in found["lines"]]
    assert (found["t"], found["asked_kw"], len(ranks)) == (16, 25, LINES)
    assert ranks == [*range(1, LINES), 190]


def test_a_session_is_laid_on_the_whole_of_a_long_day() -> None:
    plan = PLANS["global-6"]
    count = len(plan.horizon)
    cleared = {
        "awarded_kw": {"up": [7] * count, "down": [0] * count},
        "reasons": {},
        "models": [{"model": "ac", "violated": 0}],
        **dict.fromkeys(("offers", "offered_mwh", "awards", "definitive_mwh"), 0),
        **dict.fromkeys(("preliminary_mwh", "cost_eur", "passes", "gap"), 0),
    }
    planned = {"violations": 0, "needs": 0}
    request = Request("global-6", "tso", "p", DOWN, LONG[99], 30, -12, Decimal(300))
    found = session_view(plan, "tso", LONG, planned, cleared, [request], [])
    assert found["horizon"] == [80, 100]
    assert found["awarded_kw"]["up"] == [0] * 80 + [7] * 20
    assert (len(found["requested_kw"]), found["requested_kw"][99], found["netted_kw"][99]) == (100, -30, 12)
    assert found["closes"].endswith("+01:00")
    assert found["models"] == [{"model": "ac", "violated": 0}]


def test_only_needs_of_definitive_parts_are_shown() -> None:
    def need(t: int) -> LocalNeed:
        acting = tuple(ActingUnit(f"u{i}", 0.1) for i in range(9))
        return LocalNeed("local-2", LONG[t], "b", LimitKind.LOADING, "F1", UP, 1.1, 1.0, 50, True, acting)

    found = needs_section([need(40), need(31), need(16)], PLANS, LONG)
    assert [one["t"] for one in found] == [16, 31]
    assert [a["unit"] for a in found[0]["acting"]] == ["u0", "u1", "u2", "u3", "u4"]
    assert need_lines([need(16)])[0].acting == tuple(f"u{i}" for i in range(9))


def test_units_that_miss_orders_again_and_again_are_named() -> None:
    unit = Unit("a", "c", Technology.PV, "cp", "e", "sp", "o", "b", 9, 9, 0.0, 0, 0, 0, 0, 0, 9, 0, 0, 0)
    points = [SetPoint("a", at(1), "tso", "s", UP, 9, 8, 0.0, 8.0, Hop.ENERGY_MANAGEMENT_SYSTEM)]
    limits = [Limitation(at(1), "a", "tso", 9, 8, "L", 1.1, 1.0)]
    missed = [Missed("a", at(3), 8, 0.5), Missed("a", at(1), 8, 0.0), Missed("b", at(1), 5, 0.0)]
    operators = {"tso": "tso", "dso": "dso"}
    found = activation_section(AXIS, ZONE, operators, {"a": unit}, points, limits, [], missed)
    assert found["ordered_kw"]["tso"] == {"up": [0, 8, 0, 0, 0], "down": [0] * 5}
    assert found["limitations"][0]["provider"] == "sp"
    assert found["limitations"][0]["start"] == "2016-07-05T02:15+02:00"
    assert found["failures"] == [{"unit": "a", "from": "2016-07-05T02:15+02:00", "orders_missed": 2}]
    assert [(one["unit"], one["start"][11:16]) for one in found["missed"]] == [
        ("a", "02:15"),
        ("b", "02:15"),
        ("a", "02:45"),
    ]


def test_a_sessions_forecast_error_is_over_its_own_horizon() -> None:
    actual = {"loads": np.array([-1.0, -2.0, -3.0, -4.0, -5.0]), "pv": np.arange(5.0)}
    horizon = Axis(at(3), 2)
    made = {"loads": np.array([-4.5, -6.5]), "pv": np.array([3.0, 4.0])}
    found = forecast_section(AXIS, actual, actual, [("s", horizon, made)])
    assert found["accuracy"] == [{"session": "s", "load_mae_mw": 1.0, "pv_mae_mw": 0.0}]
    assert [one["name"] for one in found["series"]] == ["all loads", "all pv"]


@pytest.mark.spec("XCH-04")
def test_tables_are_flat_one_line_a_step_and_one_a_node_and_quarter_hour() -> None:
    steps = (OfferStep(1, at(0), Decimal(5), (3, 4)), OfferStep(2, at(1), Decimal(9), (2,)))
    offer = Offer("o", 7, at(0), "s", "sp", "p", UP, "u", None, steps, block=True)
    found = [(x.offer, x.receipt, x.step, x.start, x.quantity_kw, x.block) for x in offer_lines([offer])]
    assert found == [("o", 7, 1, at(0), (3, 4), True), ("o", 7, 2, at(1), (2,), True)]
    p = np.array([[0.1, -0.2], [0.3, -0.0]])
    rows = node_states(("b", "a"), Axis(START, 2), p, 10 * p)
    assert [(x.node, x.start, x.p_mw, x.q_mvar) for x in rows] == [
        ("b", at(0), 0.1, 1.0),
        ("b", at(1), 0.3, 3.0),
        ("a", at(0), -0.2, -2.0),
        ("a", at(1), 0.0, 0.0),
    ]
    assert str(rows[-1].p_mw) == "0.0"
