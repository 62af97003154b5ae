"""What is due: the gates of all tenants by the clock, and the steps to compute between them in their order.

A gate is read off the records alone: a session that is announced opens at its time, an open one closes at its time, a
delivery day of the market is announced a week before its first gate; a result without orders gets them, and an order
whose provider's time is over is looked at. Taking the gate moves the session on, so a gate
fires once, whatever clocks and restarts do: a clock that went back finds nothing to open again, one that jumped ahead
finds every gate it passed, in their order. At one instant an earlier delivery day comes first, then the order of the
design's document, as in `coflex.market.engine`.

The gate rule. A session takes offers in [opens, closes) of the tenant's time. The sequencer gives one instant to a
command and to every gate that is due by it, gates first: so an offer whose time is `closes`, even in that very
microsecond, meets a closed session, and one whose time is `opens` an open one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from coflex.market.design import Design, SessionPlan, read_design, schedule
from coflex.market.engine import SessionState
from coflex.register.activations import ActivationOrder, SessionOrders
from coflex.register.market import DesignText, Market, SessionEntry
from coflex.register.outcomes import Step
from coflex.service.index import index
from coflex.service.machine import Machine
from coflex.service.ports import Command
from coflex.service.state import State

ANNOUNCED_BEFORE = timedelta(days=7)
CLOCK = "clock"
# Kinds of records off which all that is due is read.
_DUE = (Market, SessionEntry, SessionOrders, ActivationOrder)
# At one instant what the day's sessions do comes before what is done with their results.
_AFTER_SESSIONS = 1_000_000
_MICROSECOND = timedelta(microseconds=1)


def session_id(day: date, session: str) -> str:
    """Id of a session's entry."""
    return f"{day.isoformat()}.{session}"


def entry_id(plan: SessionPlan) -> str:
    """Id of the entry of a session that is laid on its day."""
    return session_id(plan.horizon.start.astimezone(plan.zone).date(), plan.id)


@lru_cache(maxsize=64)
def design_of(text: str) -> Design:
    """The design of a document, read once. Raises Refused."""
    return read_design(text, "design")


@lru_cache(maxsize=512)
def _laid(text: str, day: date, zone: str) -> tuple[SessionPlan, ...]:
    return schedule(design_of(text), day, ZoneInfo(zone))


def plans(state: State, day: date, design: str) -> tuple[SessionPlan, ...]:
    """The sessions of a delivery day after a design, in the order of its document. Raises NotFound."""
    return _laid(state.get(DesignText, design).text, day, state.get(Market, "market").zone)


def plan_of(state: State, entry: SessionEntry) -> SessionPlan:
    """A session laid on its delivery day; its `id` is the design's own name, "local-1"."""
    return next(plan for plan in plans(state, entry.day, entry.design) if plan.id == entry.session)


# ---------------------------------------------------------------- gates


@dataclass(frozen=True, slots=True, order=True)
class Gate:
    """What the clock does to a tenant. `at`: the tenant's time; ordered as gates are passed."""

    at: datetime
    day: date
    place: int
    verb: str
    subject: str


def next_gate(state: State) -> Gate | None:
    """The tenant's next gate of a session, due or not; None when all is announced and closed."""
    return state.derived("next gate", (Market, SessionEntry), lambda: min(_gates(state), default=None))


def next_due(state: State) -> Gate | None:
    """What the clock does next to the tenant: a gate of a session, or a step of an order."""
    return state.derived("next due", _DUE, lambda: min(_all_due(state), default=None))


def _all_due(state: State) -> Iterator[Gate]:
    gate = next_gate(state)
    if gate is not None:
        yield gate
    for id in state.attached("results without orders", lambda: _Results.watching(state)).waiting:
        entry = state.get(SessionEntry, id)
        yield Gate(entry.closes, entry.day, _AFTER_SESSIONS, "activation.schedule", id)
    for order in index(state, ActivationOrder, "due", lambda one: ("due",) if one.due is not None else ()).at("due"):
        assert order.due is not None  # its key says so
        day = state.get(SessionEntry, order.session).day
        yield Gate(order.due, day, _AFTER_SESSIONS, "activation.due", order.id)


@dataclass(eq=False)
class _Results:
    """Sessions whose result has no orders yet, and those whose result was taken back and has them still."""

    state: State
    waiting: set[str] = field(default_factory=set)

    @classmethod
    def watching(cls, state: State) -> _Results:
        made = cls(state)
        for entry in state.all(SessionEntry):
            made.look(entry.id)
        state.watch(SessionEntry, made.written)
        state.watch(SessionOrders, made.written)
        return made

    def written(self, before: SessionEntry | SessionOrders | None, after: SessionEntry | SessionOrders | None) -> None:
        for one in (before, after):
            if one is not None:
                self.look(one.id)

    def look(self, id: str) -> None:
        entry, orders = self.state.find(SessionEntry, id), self.state.find(SessionOrders, id)
        has_result = entry is not None and bool(entry.outcome)
        ordered = orders is not None and orders.done
        if (has_result and not ordered) or (entry is not None and not has_result and orders is not None):
            self.waiting.add(id)
        else:
            self.waiting.discard(id)


def _gates(state: State) -> Iterator[Gate]:
    market = state.find(Market, "market")
    if market is None:
        return
    for entry in in_state(state, SessionState.ANNOUNCED):
        yield Gate(entry.opens, entry.day, _place(state, entry), "session.open", entry.id)
    for entry in in_state(state, SessionState.OPEN):
        yield Gate(entry.closes, entry.day, _place(state, entry), "session.close", entry.id)
    day = next_day(state, market)
    if day is not None:
        first = min(plan.opens for plan in plans(state, day, market.design))
        yield Gate(first - ANNOUNCED_BEFORE, day, -1, "session.announce", day.isoformat())


def in_state(state: State, wanted: SessionState) -> tuple[SessionEntry, ...]:
    """Sessions in a state. Gates and steps look at these alone: most sessions of a market are over."""
    return index(state, SessionEntry, "state", lambda one: (one.state,)).at(wanted.value)


def next_day(state: State, market: Market) -> date | None:
    """The first delivery day that is not announced; None when all are. A market that moved its first day ahead holds
    nothing between."""
    announced = last_announced(state)
    day = market.first_day if announced is None else max(market.first_day, announced + timedelta(days=1))
    return day if day <= market.last_day else None


def last_announced(state: State) -> date | None:
    """The last delivery day whose sessions are announced; days are in their order, and ids begin with them."""
    entries = state.all(SessionEntry)
    return entries[-1].day if entries else None


def _place(state: State, entry: SessionEntry) -> int:
    return [plan.id for plan in plans(state, entry.day, entry.design)].index(entry.session)


def server_instant(market: Market, at: datetime) -> datetime | None:
    """The first instant of the server, whole microseconds, at which the tenant's time is `at` or later; None where a
    clock that stands will never show it."""
    ahead = (at - market.starts) // _MICROSECOND
    if market.speed == 0:
        return market.since if ahead <= 0 else None
    return market.since + -(-ahead // market.speed) * _MICROSECOND


class TenantGates:
    """The gates of all tenants of a machine, as the sequencer asks for them (`sequencer.Gates`)."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._aside: dict[str, object] = {}

    def next_at(self) -> datetime | None:
        """The server's instant from which a gate is due; None when none is left."""
        instants = [
            at for tenant, state in self._machine.tenants.items() if (at := self._of(tenant, state)) is not None
        ]
        return min(instants, default=None)

    def put_aside(self, tenant: str) -> None:
        """Leave out the gates of a tenant, whose next one failed, until something of it is written off
        which gates are read."""
        self._aside[tenant] = self._machine.tenants[tenant].stamp(_DUE)

    def _of(self, tenant: str, state: State) -> datetime | None:
        if tenant in self._aside:
            if self._aside[tenant] == state.stamp(_DUE):
                return None
            del self._aside[tenant]
        return _instant(state)

    def due(self, at: datetime) -> Command | None:
        """The first gate that is due at an instant of the server and was not yet taken."""
        first: tuple[datetime, str] | None = None
        for tenant, state in self._machine.tenants.items():
            instant = self._of(tenant, state)
            if instant is not None and instant <= at and (first is None or (instant, tenant) < first):
                first = instant, tenant
        if first is None:
            return None
        gate = next_due(self._machine.tenants[first[1]])
        assert gate is not None  # it has an instant
        return Command(first[1], gate.verb, gate.subject, "", "", CLOCK, b"{}")


def _instant(state: State) -> datetime | None:
    return state.derived("instant of the next gate", _DUE, lambda: _instant_anew(state))


def _instant_anew(state: State) -> datetime | None:
    gate, market = next_due(state), state.find(Market, "market")
    return None if gate is None or market is None else server_instant(market, gate.at)


# ---------------------------------------------------------------- steps to compute


@dataclass(frozen=True, slots=True, order=True)
class Due:
    """A step of a session that waits to be computed, ordered as gates are. `at`: of its gate."""

    at: datetime
    day: date
    place: int
    step: Step
    session: str


def steps(state: State) -> tuple[Due, ...]:
    """Every step whose gate was passed and whose result is not known, in the order of the gates.

    Steps of one delivery day follow each other: each is computed on what those before it decided.
    """
    return state.derived("steps", (Market, SessionEntry), lambda: tuple(sorted(_steps(state))))


def first_step(state: State, day: date) -> Due | None:
    """The step of a delivery day that is to be computed next."""
    return next((due for due in steps(state) if due.day == day), None)


def _steps(state: State) -> Iterator[Due]:
    for entry in (*in_state(state, SessionState.OPEN), *in_state(state, SessionState.CLOSED)):
        place = _place(state, entry)
        if not entry.plan:
            yield Due(entry.opens, entry.day, place, Step.PLAN, entry.id)
        if entry.state == SessionState.CLOSED and not entry.outcome:
            yield Due(entry.closes, entry.day, place, Step.RESULT, entry.id)
