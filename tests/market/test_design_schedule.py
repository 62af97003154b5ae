"""Rounds of a session that repeats: their gates, horizons and definitive parts, on days of every length."""

from __future__ import annotations

import time
from collections import Counter
from datetime import date, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_designs import written

from coflex.domain.errors import Refused
from coflex.domain.time import QUARTER, delivery_day
from coflex.market.design import SessionPlan, read_design, schedule

ROME = ZoneInfo("Europe/Rome")
DAYS = {92: date(2016, 3, 27), 96: date(2016, 7, 5), 100: date(2016, 10, 30)}


def repeated(every: str, times: int, ends: str, firm: str, closes: str = "D-1T23:45", **more: Any) -> dict[str, Any]:
    """A design of one session that repeats."""
    session = {
        "id": "round",
        "buyers": ["tso"],
        "sellers": {"levels": ["distribution"]},
        "gate": {"opens": "D-1T20:00", "closes": closes},
        "horizon": {"starts": "D", "ends": ends, "firm": firm},
        "repeat": {"every": every, "times": times},
        "needs": "requests",
        "grid": {"distribution": "capability", "transmission": "none"},
        "interface": "netted",
        "pricing": "pay_as_clear",
        "validation": "traffic_light",
    }
    source = {"document": "O", "section": "3.4"}
    return {"id": "repeated", "title": "Repeated", "source": source, "sessions": [session | more]}


def laid(document: dict[str, Any], quarters: int) -> tuple[SessionPlan, ...]:
    return schedule(read_design(written(document)[0], "mine.yaml"), DAYS[quarters], ROME)


@pytest.mark.spec("MKT-01")
@pytest.mark.parametrize("quarters", DAYS)
def test_rounds_every_quarter_of_an_hour_see_28_periods_and_settle_the_next_one(quarters: int) -> None:
    axis = delivery_day(DAYS[quarters], ROME)
    plans = laid(repeated("PT15M", 96, "D+PT7H", "PT15M"), quarters)
    # On the long day the 96th round is the last, and settles what it sees: the last five quarter-hours.
    assert len(plans) == min(quarters, 96)
    for k, plan in enumerate(plans):
        assert plan.id == f"round-{k + 1:02}" and plan.number == k + 1
        assert plan.closes == axis.start + (k - 1) * QUARTER
        assert plan.horizon.start == axis[k]
        assert len(plan.horizon) == min(28, quarters - k)
        assert len(plan.firm) == (1 if k + 1 < len(plans) else quarters - k)


@pytest.mark.spec("MKT-01")
@pytest.mark.parametrize(("quarters", "last"), [(92, 12), (96, 16), (100, 20)])
def test_rounds_every_four_hours_leave_the_rest_of_the_day_to_the_last(quarters: int, last: int) -> None:
    plans = laid(repeated("PT4H", 6, "D+1", "PT4H", scope="local"), quarters)
    assert [len(plan.firm) for plan in plans] == [16] * 5 + [last]
    assert [len(plan.horizon) for plan in plans] == [quarters - 16 * k for k in range(6)]


@pytest.mark.spec("MKT-01")
def test_below_a_quarter_of_an_hour_the_last_round_before_it_decides_it() -> None:
    axis = delivery_day(DAYS[96], ROME)
    plans = laid(repeated("PT5M", 288, "D+PT15M", "PT15M", closes="D-1T23:55"), 96)
    assert Counter(plan.horizon.start for plan in plans) == {axis[0]: 1} | dict.fromkeys(list(axis)[1:], 3)
    assert all(len(plan.horizon) == 1 for plan in plans)
    deciding = [plan for plan in plans if len(plan.firm)]
    assert [plan.firm.start for plan in deciding] == list(axis)
    # Gates at 23:55, 0:10, 0:25, ...: five minutes before delivery, the others ten and fifteen before.
    assert {plan.firm.start - plan.closes for plan in deciding} == {timedelta(minutes=5)}
    preliminary = {plan.horizon.start - plan.closes for plan in plans if not len(plan.firm)}
    assert preliminary == {timedelta(minutes=10), timedelta(minutes=15)}


MINUTES = [m for m in range(1, 1441) if 1440 % m == 0 and (m <= 15 or m % 15 == 0)]


@pytest.mark.spec("MKT-01")
@settings(max_examples=60, deadline=None)
@given(st.sampled_from(MINUTES), st.integers(2, 1500), st.integers(1, 92), st.sampled_from(sorted(DAYS)), st.data())
def test_definitive_parts_of_rounds_tile_the_part_of_the_day_they_reach(
    every: int, times: int, horizon: int, quarters: int, data: st.DataObject
) -> None:
    step = -(-every // 15)
    firm = min(step, horizon)
    opens = data.draw(st.integers(0, (92 - horizon)))
    ahead = data.draw(st.integers(1, 300))
    document = repeated(f"PT{every}M", times, f"D+PT{(opens + horizon) * 15}M", f"PT{firm * 15}M")
    (session,) = document["sessions"]
    session["horizon"]["starts"] = f"D+PT{opens * 15}M"
    gate = opens * 15 - ahead
    hours, minutes = divmod(1440 + gate, 60)
    session["gate"] = {"opens": "D-2", "closes": f"D+PT{gate}M" if gate >= 0 else f"D-1T{hours:02}:{minutes:02}"}
    if firm < step and opens + step < 92:
        # Shorter than the way to the next round: a hole, unless there is no next round on any day.
        with pytest.raises(Refused, match="1 fault"):
            laid(document, quarters)
        return
    if firm < step:
        return
    plans = laid(document, quarters)
    axis = delivery_day(DAYS[quarters], ROME)
    settled = [start for plan in plans for start in plan.firm]
    assert settled == list(axis)[opens : opens + len(settled)]
    assert settled[-1] == plans[-1].horizon[len(plans[-1].horizon) - 1]
    assert len(plans) <= times
    for plan in plans:
        assert plan.opens < plan.closes < plan.horizon.start
        assert set(plan.firm) <= set(plan.horizon)
        assert 0 < len(plan.horizon) <= horizon
    for one, other in pairwise(plans):
        assert other.closes - one.closes == other.opens - one.opens == timedelta(minutes=every)


@pytest.mark.parametrize("firm", ["PT30M", "PT1H", "rest"])
def test_rounds_that_would_settle_a_quarter_of_an_hour_twice_are_refused(firm: str) -> None:
    with pytest.raises(Refused) as refused:
        laid(repeated("PT15M", 96, "D+PT7H", firm), 96)
    (fault,) = refused.value.findings
    assert (fault.code, fault.place) == ("firm_overlap", "mine.yaml, line 19: sessions[0].horizon.firm")


@pytest.mark.parametrize("every", ["PT7M", "PT20M", "PT16M", "PT25H", "PT0M", "4h", "PT99999999999999H"])
def test_rounds_that_do_not_divide_a_day_in_quarter_hours_are_refused(every: str) -> None:
    with pytest.raises(Refused) as refused:
        laid(repeated(every, 2, "D+PT7H", "PT15M"), 96)
    assert {fault.code for fault in refused.value.findings} == {"malformed"}


@pytest.mark.parametrize(("every", "times"), [("PT15M", 96), ("PT5M", 288), ("PT1M", 1440)])
def test_many_rounds_of_two_sessions_are_cheap_to_check(every: str, times: int) -> None:
    document = repeated(every, times, "D+PT15M", "PT15M", sequence="near")
    other = repeated(every, times, "D+PT15M", "PT15M", closes="D-1T23:50")["sessions"][0]
    document["sessions"].append(other | {"id": "voltage", "gate": {"opens": "D-1T20:00", "closes": "D-1T23:46"}})
    text = written(document)[0]
    begun = time.process_time()
    try:
        read_design(text, "mine.yaml")
    except Refused as refused:  # every minute both close at one instant
        assert {fault.code for fault in refused.findings} <= {"sold_at_once", "firm_hole"}
    assert time.process_time() - begun < 2.0


def test_a_session_that_decides_nothing_leaves_its_day_to_a_later_one() -> None:
    rounds = repeated("PT1H", 24, "D+PT4H", "none", sequence="day")
    (session,) = rounds["sessions"]
    once = {key: value for key, value in session.items() if key != "repeat"}
    early = once | {"id": "early", "horizon": {"starts": "D", "ends": "D+1", "firm": "none"}}
    last = once | {"id": "last", "horizon": {"starts": "D", "ends": "D+1", "firm": "rest"}}
    last["gate"] = {"opens": "D-1T20:00", "closes": "D-1T23:50"}
    plans = laid(rounds | {"sessions": [early, last]}, 96)
    assert [(len(plan.horizon), len(plan.firm)) for plan in plans] == [(96, 0), (96, 96)]
    # Where nobody decides it is refused, in a sequence and in a session that stands for itself.
    with pytest.raises(Refused, match="1 fault"):
        laid(rounds, 96)
    del session["sequence"]
    with pytest.raises(Refused) as refused:
        laid(rounds, 96)
    assert {fault.code for fault in refused.value.findings} == {"never_decided"}


def test_rounds_of_two_sessions_settle_one_day_in_turn() -> None:
    """Odd and even hours: each round takes up after the other session's, whichever stands first in the document."""
    document = repeated("PT2H", 13, "D+PT1H", "PT1H", sequence="day")
    (odd,) = document["sessions"]
    even = odd | {"id": "even", "horizon": {"starts": "D+PT1H", "ends": "D+PT2H", "firm": "PT1H"}}
    even["gate"] = {"opens": "D-1T20:00", "closes": "D+PT30M"}
    document["sessions"].append(even)
    plans = laid(document, 96)
    assert sorted(start for plan in plans for start in plan.firm) == list(delivery_day(DAYS[96], ROME))
    # The last round runs to the end of its horizon, here into the last hour of the other session.
    odd["horizon"]["ends"] = "D+PT3H"
    with pytest.raises(Refused) as refused:
        laid(document, 96)
    assert {fault.code for fault in refused.value.findings} == {"firm_overlap"}
