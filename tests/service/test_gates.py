"""Gates open and close by the clock, once and in their order, whatever clocks and servers do (MKT-02, PLAT-05)."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from coflex.domain.errors import Conflict, GateClosed, Refused
from coflex.market.design import load_design, schedule
from coflex.market.engine import SessionState, advance, upcoming
from coflex.register.market import Market, SessionEntry
from coflex.service.gates import Gate, next_gate, server_instant, steps
from coflex.service.machine import Outcome, Verb, now
from coflex.service.verbs.sessions import Nothing
from coflex.service.verbs.tenants import ChangeMarket, SetClock
from support.markets import BEGIN, Hand, World, opened, table

VERBS = table()
DESIGN, ZONE = load_design("beflexible_six"), ZoneInfo("Europe/Berlin")
# A day of 100 quarter-hours and its neighbours.
AUTUMN = (date(2016, 10, 29), date(2016, 10, 31))
EVE = datetime(2016, 10, 28, 5, 0, tzinfo=UTC)
GATES = ("session.announce", "session.open", "session.close")


def as_the_engine_goes(first: date, last: date) -> list[tuple[str, str]]:
    """Gates of some days in the order of `market.engine.upcoming`, days at one instant in their order."""
    dated = []
    for day in (first + timedelta(days=n) for n in range((last - first).days + 1)):
        plans, states = schedule(DESIGN, day, ZONE), {}
        sessions = {plan.id: plan.session for plan in plans}
        while (action := upcoming(plans, states)) is not None:
            state = states.get(action.session, SessionState.ANNOUNCED)
            states[action.session] = advance(sessions[action.session], state, action.to)
            if action.to in (SessionState.OPEN, SessionState.CLOSED):
                verb = "session.open" if action.to is SessionState.OPEN else "session.close"
                dated.append((action.at, day, len(dated), verb, f"{day}.{action.session}"))
    return [(verb, subject) for _, _, _, verb, subject in sorted(dated)]


def passed(world: World) -> list[tuple[str, str]]:
    return [(entry.command.verb, entry.command.subject) for entry in world.entries("session.open", "session.close")]


step = st.one_of(
    st.tuples(st.just("wait"), st.integers(-7_200, 40_000)),
    st.tuples(st.just("jump"), st.integers(0, 50_000)),
    st.tuples(st.just("to gate"), st.just(0)),
    st.tuples(st.just("speed"), st.sampled_from([0, 1, 7, 3600])),
    st.tuples(st.just("restart"), st.just(0)),
)


def take(world: World, what: str, amount: int) -> None:
    market = world.state.get(Market, "market")
    if what == "wait":
        world.pass_time(timedelta(seconds=amount))
    elif what == "jump":
        world.do("sandbox.clock", form=SetClock(to=now(world.state, world.clock.at) + timedelta(seconds=amount)))
    elif what == "to gate" and next_gate(world.state) is not None:
        world.do("sandbox.clock", form=SetClock(next_gate=True))
    elif what == "speed" and amount != market.speed:
        world.do("sandbox.clock", form=SetClock(speed=amount))
    elif what == "restart":
        world.restart()


@pytest.mark.spec("MKT-02", "PLAT-05")
@settings(max_examples=40, deadline=None)
@given(st.lists(step, max_size=12))
@example([("speed", 7), ("wait", 3344), ("wait", 40000), ("jump", 2592), ("to gate", 0)])
def test_every_gate_is_passed_once_and_in_order_whatever_clocks_and_restarts_do(ways: list[tuple[str, int]]) -> None:
    world = opened(VERBS, *AUTUMN, begin=EVE)
    expected = as_the_engine_goes(*AUTUMN)
    reached = EVE
    for what, amount in ways:
        # A server whose clock went back goes on from the last instant it gave.
        world.clock.at = max(world.clock.at, reached - timedelta(hours=2))
        reached = max(reached, world.clock.at)
        try:
            take(world, what, amount)
        except Refused as fault:
            code = fault.findings[0].code
            # The clock of the tenant stood behind while the server's was back: it never goes there. And the last gate
            # may be due in the very instant of the command, which then finds none.
            assert (what, code) == ("jump", "back") or (what == "to gate" and code == "no_gate")
            assert code == "back" or next_gate(world.state) is None
        assert passed(world) == expected[: len(passed(world))]
    world.clock.at = reached
    world.do("sandbox.clock", form=SetClock(speed=1))
    world.pass_time(timedelta(days=8))
    assert passed(world) == expected
    announced = [entry.command.subject for entry in world.entries("session.announce")]
    assert announced == [day.isoformat() for day in (AUTUMN[0], date(2016, 10, 30), AUTUMN[1])]
    assert {entry.state for entry in world.state.all(SessionEntry)} == {"closed"}


@pytest.mark.spec("PLAT-05")
def test_a_server_that_was_down_passes_the_gates_it_missed_each_with_its_own_time() -> None:
    world = opened(VERBS)
    world.clock.at += timedelta(days=2)
    world.restart()
    world.sequencer.pass_gates()
    plans = {plan.id: plan for plan in schedule(DESIGN, date(2016, 7, 5), ZONE)}
    for entry in world.state.all(SessionEntry):
        plan = plans[entry.session]
        assert [(one.state, one.at) for one in entry.reached[1:]] == [("open", plan.opens), ("closed", plan.closes)]
    assert len({entry.at for entry in world.entries("session.open", "session.close")}) == 1


@pytest.mark.spec("MKT-02")
@pytest.mark.parametrize(("late_us", "taken"), [(-1, True), (0, False), (1, False)])
def test_an_offer_in_the_microsecond_of_the_gate_is_late(late_us: int, taken: bool) -> None:
    seen = []

    def offer(state, context, form) -> Outcome:  # type: ignore[no-untyped-def]
        entry = state.get(SessionEntry, context.subject)
        seen.append((entry.state, entry.opens <= context.now < entry.closes))
        if entry.state != "open":
            raise GateClosed(f"The gate closed at {entry.closes}.")
        return Outcome({})

    world = opened(table(extra=(Verb("try.offer", Nothing, offer),)))
    closes = schedule(DESIGN, date(2016, 7, 5), ZONE)[0].closes
    world.clock.at = closes + timedelta(microseconds=late_us)
    if taken:
        world.do("try.offer", "2016-07-05.local-1")
    else:
        with pytest.raises(GateClosed):
            world.do("try.offer", "2016-07-05.local-1")
    assert seen == [("open", True)] if taken else seen == [("closed", False)]


def test_a_gate_opens_at_its_own_microsecond() -> None:
    world = opened(VERBS)
    opens = schedule(DESIGN, date(2016, 7, 5), ZONE)[0].opens
    world.clock.at = opens - timedelta(microseconds=1)
    world.sequencer.pass_gates()
    assert world.state.get(SessionEntry, "2016-07-05.local-1").state == "announced"
    world.pass_time(timedelta(microseconds=1))
    assert world.state.get(SessionEntry, "2016-07-05.local-1").state == "open"


@given(
    st.integers(1, 86_400),
    st.datetimes(BEGIN.replace(tzinfo=None), BEGIN.replace(year=2017, tzinfo=None)),
    st.integers(-(10**12), 10**13),
)
def test_the_servers_instant_of_a_gate_is_the_first_that_shows_its_time(
    speed: int, starts: datetime, ahead: int
) -> None:
    market = Market("market", "", "UTC", "", "", date.min, date.max, BEGIN, starts.replace(tzinfo=UTC), speed, True)

    def shown(at: datetime) -> datetime:
        return market.starts + market.speed * (at - market.since)

    at = market.starts + timedelta(microseconds=ahead)
    instant = server_instant(market, at)
    assert instant is not None
    assert shown(instant) >= at > shown(instant - timedelta(microseconds=1))


def test_a_clock_that_stands_passes_no_gate_but_those_it_shows() -> None:
    world = opened(VERBS, speed=0)
    world.pass_time(timedelta(days=300))
    assert passed(world) == []
    world.do("sandbox.clock", form=SetClock(next_gate=True))
    world.sequencer.pass_gates()
    assert passed(world) == [("session.open", "2016-07-05.local-1")]


def test_two_tenants_keep_their_own_time() -> None:
    world = opened(VERBS, speed=3600)
    other = opened(VERBS, begin=BEGIN)
    body = other.entries("tenant.open")[0].command
    world.sequencer.submit(type(body)("u", body.verb, "", "", "", "operator", body.body))
    world.pass_time(timedelta(minutes=1))
    states = {name: world.machine.state(name) for name in ("t", "u")}
    assert all(entry.state == "closed" for entry in states["t"].all(SessionEntry))
    assert all(entry.state == "announced" for entry in states["u"].all(SessionEntry))


def test_a_gate_is_the_clocks_alone_and_never_before_its_time() -> None:
    world = opened(VERBS)
    world.sequencer.pass_gates()
    with pytest.raises(Conflict, match="is due at"):
        world.do("session.open", "2016-07-05.local-1", actor="clock")
    with pytest.raises(Conflict, match="not the next"):
        world.do("session.announce", "2016-07-05", actor="clock")
    world.pass_time(timedelta(hours=12))
    with pytest.raises(Conflict, match="passed once"):
        world.do("session.open", "2016-07-05.local-1", actor="clock")


def test_days_are_announced_a_week_before_their_first_gate() -> None:
    world = opened(VERBS, date(2016, 7, 5), date(2016, 7, 31))
    world.sequencer.pass_gates()
    days = sorted({entry.day for entry in world.state.all(SessionEntry)})
    first_gate = schedule(DESIGN, days[-1], ZONE)[0].opens
    assert first_gate - timedelta(days=7) <= world.clock.at < first_gate - timedelta(days=6)


def test_a_market_that_grows_goes_on_and_one_that_ended_does_nothing() -> None:
    world = opened(VERBS)
    world.pass_time(timedelta(days=3))
    assert next_gate(world.state) is None
    world.do("market.change", "market", ChangeMarket(first_day=date(2016, 7, 8), last_day=date(2016, 7, 9)))
    gate = next_gate(world.state)
    assert isinstance(gate, Gate) and (gate.verb, gate.subject) == ("session.announce", "2016-07-08")
    world.sequencer.pass_gates()
    assert {entry.day for entry in world.state.all(SessionEntry)} == {date(2016, 7, day) for day in (5, 8, 9)}


def test_no_day_is_announced_whose_gates_have_passed() -> None:
    world = opened(VERBS)
    world.pass_time(timedelta(days=3))  # to 7 July, half an hour before the first gate of the 8th opens
    for change, code in (
        (ChangeMarket(last_day=date(2016, 7, 8)), "too_late"),
        (ChangeMarket(last_day=date(2016, 7, 8), first_day=date(2016, 7, 7)), "too_late"),
        (ChangeMarket(last_day=date(2016, 7, 8), first_day=date(2016, 7, 5)), "announced"),
    ):
        with pytest.raises(Refused) as told:
            world.do("market.change", "market", change)
        assert [finding.code for finding in told.value.findings] == [code]
    world.do("market.change", "market", ChangeMarket(title="Only its name"))


def test_gates_and_steps_do_not_look_again_at_sessions_that_are_over() -> None:
    looked: list[str] = []

    class Over(SessionEntry):
        def __getattribute__(self, name: str) -> Any:
            looked.append(name)
            return super().__getattribute__(name)

    world = opened(VERBS)
    world.sequencer.pass_gates()
    first = world.state.all(SessionEntry)[0]
    values = {field.name: getattr(first, field.name) for field in fields(first)}
    for n in range(100):
        name = f"2016-07-04.local-{n}"
        world.state.put(
            "session", name, Over(**values | {"id": name, "state": "published", "day": date(2016, 7, 4)}), 1
        )
    gate, due = next_gate(world.state), steps(world.state)
    looked.clear()
    world.state.put("session", first.id, replace(first, alarm="written"), 1)
    assert (next_gate(world.state), steps(world.state)) == (gate, due)
    assert looked == []


@pytest.mark.parametrize(
    ("form", "code"),
    [
        (SetClock(to=BEGIN - timedelta(seconds=1)), "back"),
        (SetClock(to=BEGIN + timedelta(days=40)), "far"),
        (SetClock(to=BEGIN.replace(tzinfo=None)), "no_zone"),
        (SetClock(to=BEGIN, next_gate=True), "two_aims"),
        (SetClock(speed=-1), "speed"),
    ],
)
def test_a_sandbox_clock_only_goes_ahead(form: SetClock, code: str) -> None:
    world = opened(VERBS)
    with pytest.raises(Refused) as told:
        world.do("sandbox.clock", form=form)
    assert [finding.code for finding in told.value.findings] == [code]


def test_the_time_of_a_real_market_is_the_servers() -> None:
    world = World(VERBS, Hand(BEGIN))
    opened_real = opened(VERBS, sandbox=False)
    with pytest.raises(Conflict, match="sandboxes"):
        opened_real.do("sandbox.clock", form=SetClock(next_gate=True))
    assert world.machine.tenants == {}
