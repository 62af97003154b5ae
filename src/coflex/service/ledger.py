"""Who holds what, and what sessions decided: read from their outcomes, each for those who may see it."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime
from functools import lru_cache
from typing import TypeVar

import numpy as np

from coflex.domain.clearing import Award, Holding, MeritLine
from coflex.domain.errors import NotFound
from coflex.domain.light import DynamicLight
from coflex.domain.need import LocalNeed, Request
from coflex.domain.party import Role
from coflex.domain.series import Series
from coflex.market.design import SessionPlan
from coflex.register.market import SessionEntry, SessionRequests
from coflex.register.outcomes import SessionOutcome, Step, computed_with, kept_series, outcome_id, unpack
from coflex.register.parties import PartyEntry
from coflex.register.resources import UnitEntry
from coflex.service.gates import entry_id, plan_of, plans, session_id
from coflex.service.index import index
from coflex.service.state import State
from coflex.service.who import Who

R = TypeVar("R")
# Who operates sessions and buys in them sees whole lists.
OPERATORS = frozenset({Role.MARKET_OPERATOR, Role.TSO, Role.DSO})


# ---------------------------------------------------------------- who holds what


def outcomes(state: State, day: date) -> tuple[SessionOutcome, ...]:
    """Plans and results of a delivery day in the order in which they were computed."""
    of_day = index(state, SessionOutcome, "day", lambda one: (one.day.isoformat(),)).at(day.isoformat())
    computed = (one for one in of_day if one.step is not Step.GATE)
    return tuple(sorted(computed, key=lambda one: state.number(SessionOutcome, one.id)))


def holdings(state: State, day: date) -> tuple[Holding, ...]:
    """The ledger of a delivery day as it is now, by unit and quarter-hour: one holding at most for each."""
    return _folded(outcomes(state, day))


@lru_cache(maxsize=32)
def _folded(steps: tuple[SessionOutcome, ...]) -> tuple[Holding, ...]:
    ledger: dict[tuple[str, datetime], Holding] = {}
    for outcome in steps:
        for gone in unpack(outcome.removed, Holding):
            del ledger[gone.unit, gone.start]
        for holding in unpack(outcome.added, Holding):
            ledger[holding.unit, holding.start] = holding
    return tuple(sorted(ledger.values(), key=lambda one: (one.unit, one.start)))


def buyer_of(state: State, plan: SessionPlan) -> str:
    """The party for which a session buys, fixed when it opens: the one that asked in it, or of those approved with the
    role of its first buyer the first by id; empty where there is none."""
    role, session = plan.session.buyers[0].role, entry_id(plan)
    fixed, asked = state.find(SessionOutcome, outcome_id(session, Step.GATE)), state.find(SessionRequests, session)
    if fixed is not None and fixed.buyer:
        return fixed.buyer
    able = [entry.id for entry in state.all(PartyEntry) if role in entry.roles]
    return asked.buyer if asked is not None and asked.buyer in able else next(iter(able), "")


# ---------------------------------------------------------------- what a session decided


def planned(state: State, session: str, kind: type[R]) -> tuple[R, ...]:
    """Needs, requests or lights of a session's plan; nothing before it is there."""
    return _added(state, session, Step.PLAN, kind)


def decided(state: State, session: str, kind: type[R]) -> tuple[R, ...]:
    """Awards, lines, holdings or what stays uncovered, as the session decided them; later sessions may have replaced
    what was preliminary."""
    return _added(state, session, Step.RESULT, kind)


def _added(state: State, session: str, step: Step, kind: type[R]) -> tuple[R, ...]:
    outcome = state.find(SessionOutcome, outcome_id(session, step))
    return () if outcome is None else unpack(outcome.added, kind)


def free_kw(state: State, entry: SessionEntry) -> tuple[Series, Series] | None:
    """What units can give in a session's horizon, up and down, kW, after its plan or that of the session that forwards
    to it; None before. A unit that was offered there for that session alone has nothing."""
    up, down = by_unit(state, entry, "up"), by_unit(state, entry, "down")
    if up is None or down is None:
        return None
    kept = {
        offer.unit
        for source in forwarders(state, entry)
        for outcome in (state.find(SessionOutcome, outcome_id(source, Step.RESULT)),)
        for offer in (computed_with(outcome) if outcome is not None else ())
        if offer.local_only and offer.unit
    }
    free = np.array([name not in kept for name in up.names]).reshape(-1, 1)
    return Series(up.names, up.axis, up.values * free), Series(down.names, down.axis, down.values * free)


def forwarders(state: State, entry: SessionEntry) -> tuple[str, ...]:
    """Ids of the sessions of its day that forward to a session."""
    others = plans(state, entry.day, entry.design)
    return tuple(
        session_id(entry.day, one.id)
        for one in others
        if one.session.forward is not None and one.session.forward.to == entry.session
    )


def by_unit(state: State, entry: SessionEntry, name: str) -> Series | None:
    """A series by unit, kW, over a session's horizon, of its plan or that of the session that forwards to it: "up" and
    "down" as what is free, "nomination" as what is foreseen, injection positive. None before the plan is there."""
    plan = plan_of(state, entry)
    for source in (entry.id, *forwarders(state, entry)):
        outcome = state.find(SessionOutcome, outcome_id(source, Step.PLAN))
        for kept in outcome.series if outcome else ():
            if kept.name.endswith(f"/{name}"):
                return kept_series(kept).window(plan.horizon)
    return None


# ---------------------------------------------------------------- for those who may see it


def awards(state: State, who: Who, session: str) -> tuple[Award, ...]:
    """Awards of a session: all for operators and buyers, its own for a provider. Raises NotFound."""
    state.get(SessionEntry, session)
    found = decided(state, session, Award)
    return found if who.roles & OPERATORS else tuple(award for award in found if award.provider == who.party)


def merit_order(state: State, who: Who, session: str) -> tuple[MeritLine, ...]:
    """The merit order list of a published session. Whose line it is, and where, is sealed (empty) to all but the
    operators and the provider itself; prices, quantities and reasons are everybody's. Raises NotFound."""
    state.get(SessionEntry, session)
    lines = decided(state, session, MeritLine)
    if who.roles & OPERATORS:
        return lines
    return tuple(line if line.provider == who.party else sealed(line) for line in lines)


def sealed(line: MeritLine) -> MeritLine:
    """A line without who offers what where."""
    return replace(line, offer="", provider="", location="", detail="")


def held(state: State, who: Who, day: date) -> tuple[Holding, ...]:
    """The ledger of a day: all of it for operators, that of its own units for a provider or an owner."""
    ledger = holdings(state, day)
    if who.roles & OPERATORS:
        return ledger
    units = {one.id for one in state.all(UnitEntry) if who.party in (one.unit.provider, one.unit.owner)}
    return tuple(holding for holding in ledger if holding.unit in units)


def needs(state: State, who: Who, session: str) -> tuple[LocalNeed, ...]:
    """Needs of a session for operators. Raises NotFound to others, as of what is not there."""
    return _of_operators(state, who, session, LocalNeed)


def requests(state: State, who: Who, session: str) -> tuple[Request, ...]:
    """Netted requests of a session for operators. Raises NotFound to others, as of what is not there."""
    return _of_operators(state, who, session, Request)


def lights(state: State, who: Who, session: str) -> tuple[DynamicLight, ...]:
    """Dynamic lights of a session; everybody sees them, for they tell what may be offered. Raises NotFound."""
    state.get(SessionEntry, session)
    return planned(state, session, DynamicLight)


def _of_operators(state: State, who: Who, session: str, kind: type[R]) -> tuple[R, ...]:
    state.get(SessionEntry, session)
    if not who.roles & OPERATORS:
        raise NotFound(f"There is no such list of session '{session}'.", "Check the id.")
    return planned(state, session, kind)
