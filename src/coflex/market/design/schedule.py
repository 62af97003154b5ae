"""A design laid on a delivery day: when each gate opens and closes, and for which quarter-hours it decides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from coflex.domain.clearing import Status
from coflex.domain.errors import CoflexError
from coflex.domain.time import QUARTER, Axis, delivery_day, duration, moment
from coflex.domain.unit import Scope
from coflex.market.design.document import NEVER, REST, Design, Session


@dataclass(frozen=True, slots=True)
class SessionPlan:
    """A session laid on a delivery day.

    `number`: 1, 2, ... within its chain. Offers are taken in [opens, closes). `firm` is the definitive part of
    `horizon`; both lie on the quarter-hours of the day, and `firm` may be empty where a later round decides. `zone`:
    the market's, for messages.
    """

    id: str
    number: int
    session: Session
    opens: datetime
    closes: datetime
    horizon: Axis
    firm: Axis
    zone: ZoneInfo

    @property
    def scope(self) -> Scope:
        """Whose needs the session serves. Raises CoflexError where it names no scope."""
        if self.session.scope is None:
            raise CoflexError(f"Session {self.id} serves neither local nor global needs alone.", "Give it a scope.")
        return self.session.scope

    def status(self, start: datetime) -> Status:
        """Whether what the session selects for the quarter-hour is definitive. Raises OutsideAxis off the horizon."""
        self.horizon.position(start)
        return Status.DEFINITIVE if self.firm.covers(start) else Status.PRELIMINARY


@dataclass(frozen=True, slots=True)
class Times:
    """The instants of one round of a session on a day, before they are cut to it."""

    opens: datetime
    closes: datetime
    starts: datetime
    ends: datetime
    firm_ends: datetime

    @classmethod
    def of(cls, session: Session, day: date, zone: ZoneInfo) -> Times:
        """The first round's."""
        gate, horizon = session.gate, session.horizon
        texts = (gate.opens, gate.closes, horizon.starts, horizon.ends)
        opens, closes, starts, ends = (moment(text, day, zone) for text in texts)
        firm = {REST: ends, NEVER: starts}.get(horizon.firm)
        return cls(opens, closes, starts, ends, starts + duration(horizon.firm) if firm is None else firm)

    def later(self, by: timedelta, axis: Axis) -> Times:
        """A round whose gate is `by` later: its horizon moves to the next quarter-hour and is cut off with the day."""
        moved = -(-by // QUARTER) * QUARTER
        starts, ends, firm_ends = (min(axis.end, one + moved) for one in (self.starts, self.ends, self.firm_ends))
        return Times(self.opens + by, self.closes + by, starts, ends, firm_ends)


def rounds(session: Session, day: date, zone: ZoneInfo) -> Iterator[tuple[str, Times]]:
    """Name and instants of every round of a session on a day. Rounds that would begin after the day are left out.

    Where several rounds begin at one quarter-hour, all but the last of them decide nothing for good. The last round of
    the day is definitive to the end of its horizon, unless none is definitive at all. Every gate closes before its
    horizon starts if the first one does.
    """
    first = Times.of(session, day, zone)
    if session.repeat is None:
        yield session.id, first
        return
    axis, every = delivery_day(day, zone), duration(session.repeat.every)
    width = len(str(session.repeat.times))
    laid = [first.later(k * every, axis) for k in range(session.repeat.times)]
    laid = [one for one in laid if one.starts < axis.end]
    for k, one in enumerate(laid):
        if k + 1 == len(laid):
            one = replace(one, firm_ends=one.starts if session.horizon.firm == NEVER else one.ends)
        elif laid[k + 1].starts == one.starts:
            one = replace(one, firm_ends=one.starts)
        yield f"{session.id}-{k + 1:0{width}d}", one


def schedule(design: Design, day: date, zone: ZoneInfo) -> tuple[SessionPlan, ...]:
    """The design's sessions on a delivery day of 92, 96 or 100 quarter-hours, in the document's order, the rounds of a
    session that repeats one after another.

    Raises OutsideAxis where a horizon misses the day's quarter-hours, which `read_design` rules out.
    """
    axis = delivery_day(day, zone)
    seen: Counter[str] = Counter()
    plans = []
    for session in design.sessions:
        for name, times in rounds(session, day, zone):
            seen[session.chain] += 1
            horizon, firm = axis.window(times.starts, times.ends), axis.window(times.starts, times.firm_ends)
            number = seen[session.chain]
            plans.append(SessionPlan(name, number, session, times.opens, times.closes, horizon, firm, zone))
    return tuple(plans)
