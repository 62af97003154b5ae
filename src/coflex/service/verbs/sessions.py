"""The life of sessions: gates passed by the clock, results brought by the engine, and what the market operator may
take back (MKT-02, MKT-09, PLAT-07).

    announced -> open -> closed                      at the gates' own times
    closed -> cleared (-> validated) -> definitive -> published      with the result, in one step

A session is planned once it is open and cleared once it is closed; steps of a delivery day follow each other in the
order of the gates. A result that is not of the step due is refused, and one that would sell a unit twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal

import msgspec

from coflex.domain.clearing import Award, Holding, Uncovered
from coflex.domain.errors import Conflict, Finding, Forbidden, refuse
from coflex.domain.light import Colour, DynamicLight
from coflex.domain.need import LocalNeed, Request
from coflex.domain.offer import Offer
from coflex.domain.party import Role
from coflex.domain.quantity import Direction
from coflex.domain.time import local_label
from coflex.market.design import Needs, SessionPlan
from coflex.market.engine import SessionState, life
from coflex.market.ledger import Claim, claim
from coflex.register.market import Asked, Market, Reached, SessionEntry, SessionRequests
from coflex.register.outcomes import SessionOutcome, Step, outcome_id, unpack
from coflex.register.parties import PartyEntry
from coflex.register.records import Record
from coflex.service.books import books
from coflex.service.gates import first_step, next_day, plan_of, plans, session_id
from coflex.service.ledger import buyer_of, holdings
from coflex.service.machine import CREATED, EVERYBODY, Context, Outcome, Verb, encode
from coflex.service.ports import Note
from coflex.service.standing import closing, opening
from coflex.service.state import State

_OPERATOR = frozenset({Role.MARKET_OPERATOR})
_BUYERS = frozenset({Role.TSO, Role.DSO})
# What is told of a session between its states, with its time.
RETRIED, TAKEN_BACK = "retried", "taken_back"
Written = tuple[type[Record], str, Record | None]


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An empty form."""


class Failed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A step that could not be computed, and why."""

    step: Step
    reason: str


class Retry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why a step that failed is computed again."""

    reason: str


class Again(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why a result is computed anew, and which offers are left out of it (their ids in the book)."""

    reason: str
    without: tuple[str, ...] = ()


class AskedForm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked for in one quarter-hour: kW, above zero, in a direction, and the most that is paid."""

    start: datetime
    direction: Direction
    quantity_kw: int
    price_limit_eur_mwh: Decimal


class Requests(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that a buyer asks for in a session; what it asked before is replaced."""

    asked: tuple[AskedForm, ...]


# ---------------------------------------------------------------- gates, by the clock


def _announce(state: State, context: Context, form: Nothing) -> Outcome:
    """Announce the sessions of a delivery day. Raises Conflict unless it is the next one."""
    market = state.get(Market, "market")
    day = next_day(state, market)
    if day is None or day.isoformat() != context.subject:
        raise Conflict(f"The day {context.subject} is not the next to be announced.", "Days follow each other.")
    entries = [_announced(market, day, plan, context.now) for plan in plans(state, day, market.design)]
    note = Note("sessions.announced", context.subject, EVERYBODY, encode({"sessions": [one.id for one in entries]}))
    return Outcome(
        {"announced": [one.id for one in entries]},
        tuple((SessionEntry, one.id, one) for one in entries),
        (note,),
        CREATED,
    )


def _announced(market: Market, day: date, plan: SessionPlan, now: datetime) -> SessionEntry:
    return SessionEntry(
        id=session_id(day, plan.id),
        day=day,
        session=plan.id,
        state=SessionState.ANNOUNCED.value,
        opens=plan.opens,
        closes=plan.closes,
        reached=(Reached(SessionState.ANNOUNCED.value, now),),
        design=market.design,
    )


def _open(state: State, context: Context, form: Nothing) -> Outcome:
    """Pass the gate's opening, and fix the buyer. Raises Conflict unless the session is announced and its time has
    come."""
    entry = state.get(SessionEntry, context.subject)
    _is_due(entry, SessionState.ANNOUNCED, entry.opens, context)
    note = Note("session.opened", entry.id, EVERYBODY, encode({"closes": entry.closes}))
    fixed = opening(state, entry)
    return _stored(_moved(entry, SessionState.OPEN, entry.opens), (note,), (SessionOutcome, fixed.id, fixed))


def _close(state: State, context: Context, form: Nothing) -> Outcome:
    """Pass the gate's closing, and settle which offers stand. Raises Conflict unless the session is open and its time
    has come."""
    entry = state.get(SessionEntry, context.subject)
    _is_due(entry, SessionState.OPEN, entry.closes, context)
    moved = _moved(entry, SessionState.CLOSED, entry.closes)
    closed, fixed = replace(moved, offers=len(books(state).offers(entry.id))), closing(state, entry)
    return _stored(closed, (Note("session.closed", entry.id, EVERYBODY),), (SessionOutcome, fixed.id, fixed))


def _is_due(entry: SessionEntry, state: SessionState, at: datetime, context: Context) -> None:
    if entry.state != state:
        raise Conflict(f"The session {entry.id} is {entry.state}, not {state.value}.", "A gate is passed once.")
    if context.now < at:
        raise Conflict(f"The gate of {entry.id} is due at {at.isoformat()}.", "Wait until then.")


def _moved(entry: SessionEntry, to: SessionState, at: datetime) -> SessionEntry:
    return replace(entry, state=to.value, reached=(*entry.reached, Reached(to.value, at)))


def _stored(entry: SessionEntry, notes: tuple[Note, ...], *more: Written) -> Outcome:
    return Outcome({"session": entry.id, "state": entry.state}, ((SessionEntry, entry.id, entry), *more), notes)


# ---------------------------------------------------------------- results, by the engine


def _planned(state: State, context: Context, form: SessionOutcome) -> Outcome:
    """Take a session's plan. Raises Conflict when another step is due, or none."""
    entry = state.get(SessionEntry, context.subject)
    _is_next(state, entry, form, Step.PLAN)
    found = replace(entry, plan=form.id, alarm="")
    lights = unpack(form.added, DynamicLight)
    told = {
        "needs": len(unpack(form.added, LocalNeed)),
        "requests": len(unpack(form.added, Request)),
        "lights": {colour.value: sum(light.colour is colour for light in lights) for colour in Colour},
    }
    note = Note("session.planned", entry.id, EVERYBODY, encode(told))
    return _stored(found, (note,), (SessionOutcome, form.id, form))


def _cleared(state: State, context: Context, form: SessionOutcome) -> Outcome:
    """Take a session's result and publish it. Raises Conflict when another step is due, or none, and where the result
    does not follow from the ledger; SoldTwice where a unit is held already."""
    entry = state.get(SessionEntry, context.subject)
    _is_next(state, entry, form, Step.RESULT)
    plan = plan_of(state, entry)
    _follows(state, entry, plan, form)
    done = replace(entry, outcome=form.id, alarm="")
    for reached in life(plan.session):
        if reached not in (SessionState.ANNOUNCED, SessionState.OPEN, SessionState.CLOSED):
            done = _moved(done, reached, context.now)
    return _stored(done, tuple(_results(state, done, form)), (SessionOutcome, form.id, form))


def _is_next(state: State, entry: SessionEntry, form: SessionOutcome, step: Step) -> None:
    """Raises Conflict unless the outcome is of the step that its delivery day waits for."""
    due = first_step(state, entry.day)
    if due is None or (due.session, due.step) != (entry.id, step):
        waits = f"{due.step.value} of {due.session}" if due else "nothing"
        raise Conflict(f"The {step.value} of {entry.id} is not due; {entry.day} waits for {waits}.", "Compute that.")
    if (form.id, form.day, form.session, form.step) != (outcome_id(entry.id, step), entry.day, entry.session, step):
        raise Conflict(f"The outcome '{form.id}' is not the {step.value} of {entry.id}.", "Name what it is of.")


def _follows(state: State, entry: SessionEntry, plan: SessionPlan, form: SessionOutcome) -> None:
    """Raises SoldTwice or Conflict unless the ledger after the result is what its own claims make of the ledger now."""
    ledger, added = holdings(state, entry.day), unpack(form.added, Holding)
    claims = [Claim(one.unit, one.start, one.direction, one.quantity_kw, one.offer) for one in added]
    _, gone, come = claim(ledger, plan, form.buyer, claims)
    if set(gone) != set(unpack(form.removed, Holding)) or set(come) != set(added):
        raise Conflict(f"The result of {entry.id} does not follow from the ledger.", "Compute it on the ledger of now.")


def _results(state: State, entry: SessionEntry, form: SessionOutcome) -> Iterator[Note]:
    """Each provider is told of its own awards, the buyer and the market operator of all, everybody of the list."""
    awards = unpack(form.added, Award)
    hours = plan_of(state, entry).horizon.hours
    for provider in sorted({award.provider for award in awards}):
        mine = [award for award in awards if award.provider == provider]
        yield Note("session.awarded", entry.id, (provider,), encode(_sum(mine, hours)))
    whole = _sum(awards, hours) | {"uncovered": len(unpack(form.added, Uncovered))}
    operators = tuple(sorted({form.buyer, *with_role(state, Role.MARKET_OPERATOR)}))
    yield Note("session.cleared", entry.id, operators, encode(whole))
    for provider in sorted({one.provider for one in _left_out(form)}):
        ids = {one.id for one in _left_out(form) if one.provider == provider}
        mine_out = {name: why for name, why in form.left_out if name in ids}
        yield Note("offers.left_out", entry.id, (provider,), encode(mine_out))
    yield Note("session.published", entry.id, EVERYBODY)


def _left_out(form: SessionOutcome) -> list[Offer]:
    names = {name for name, _ in form.left_out}
    return [offer for offer in unpack(form.given, Offer) if offer.id in names]


def _sum(awards: list[Award] | tuple[Award, ...], hours: float) -> dict[str, object]:
    kwh = {d.value: sum(a.quantity_kw for a in awards if a.direction is d) * hours for d in Direction}
    return {"awards": len(awards), "kwh": kwh}


def with_role(state: State, role: Role) -> tuple[str, ...]:
    """Approved parties with a role."""
    return tuple(entry.id for entry in state.all(PartyEntry) if role in entry.roles)


def _failed(state: State, context: Context, form: Failed) -> Outcome:
    """Raise the alarm: a step could not be computed; the delivery day waits. Raises Conflict when it is not due."""
    entry = state.get(SessionEntry, context.subject)
    due = first_step(state, entry.day)
    if due is None or (due.session, due.step) != (entry.id, form.step):
        raise Conflict(f"The {form.step.value} of {entry.id} is not due.", "Nothing is to be done.")
    body = encode({"step": form.step, "reason": form.reason})
    note = Note("session.failed", entry.id, with_role(state, Role.MARKET_OPERATOR), body)
    return _stored(replace(entry, alarm=form.reason), (note,))


# ---------------------------------------------------------------- the market operator


def _retry(state: State, context: Context, form: Retry) -> Outcome:
    """Take the alarm off a session, so that its step is computed again. Raises Conflict where there is no alarm."""
    entry = state.get(SessionEntry, context.subject)
    if not entry.alarm:
        raise Conflict(f"Nothing of {entry.id} failed.", "To compute a result anew, ask for a rerun.")
    note = Note("session.retried", entry.id, with_role(state, Role.MARKET_OPERATOR), encode({"reason": form.reason}))
    again = replace(entry, alarm="", reached=(*entry.reached, Reached(RETRIED, context.now)))
    return _stored(again, (note,))


def _rerun(state: State, context: Context, form: Again) -> Outcome:
    """Take a result back, so that it is computed anew without some of its offers, on what its gate settled.

    Plans of later sessions were made on it and are computed anew too, on the register of then. Raises Conflict where
    the session has no result, a later one of its day has, or the delivery of its definitive part has begun; Refused
    where one of the offers is not of its book.
    """
    entry = state.get(SessionEntry, context.subject)
    plan = plan_of(state, entry)
    if not entry.outcome:
        raise Conflict(f"The session {entry.id} has no result.", "Wait for it, or retry where it failed.")
    later = _later(state, entry)
    if (settled := next((one.id for one in later if one.outcome), None)) is not None:
        raise Conflict(f"The session {settled} was cleared on this result.", "Only the last result is taken back.")
    if len(plan.firm) and context.now >= plan.firm.start:
        begun = local_label(plan.firm.start, plan.zone)
        raise Conflict(f"Delivery of what {entry.id} bought for good began at {begun}.", "Correct it in settlement.")
    old = state.get(SessionOutcome, entry.outcome)
    there = {offer.id for offer in unpack(old.given, Offer)}
    refuse(
        f"The rerun of {entry.id}",
        [
            Finding(f"without[{i}]", "unknown_offer", f"There is no offer '{name}' in its book; correct the id.")
            for i, name in enumerate(form.without)
            if name not in there
        ],
    )
    kept = replace(old, added=(), removed=(), documents=(), series=(), left_out=())
    back = replace(
        entry,
        state=SessionState.CLOSED.value,
        reached=(*entry.reached, Reached(TAKEN_BACK, context.now)),
        outcome="",
        without=form.without,
        reason=form.reason,
    )
    more: list[Written] = [(SessionOutcome, old.id, kept)]
    for one in later:
        if one.plan:
            more += [(SessionEntry, one.id, replace(one, plan="")), (SessionOutcome, one.plan, None)]
    note = Note("session.taken_back", entry.id, EVERYBODY, encode({"reason": form.reason}))
    return _stored(back, (note,), *more)


def _later(state: State, entry: SessionEntry) -> list[SessionEntry]:
    """Sessions of the same day whose gate closes after this one's, in the order of the gates."""
    places = {plan.id: place for place, plan in enumerate(plans(state, entry.day, entry.design))}
    mine = entry.closes, places[entry.session]
    of_day = [one for one in state.all(SessionEntry) if one.day == entry.day]
    return sorted(
        (one for one in of_day if (one.closes, places[one.session]) > mine),
        key=lambda one: (one.closes, places[one.session]),
    )


# ---------------------------------------------------------------- buyers


def _request(state: State, context: Context, form: Requests) -> Outcome:
    """Take a buyer's requests for a session that is not open yet. Raises Forbidden to others than its buyer, Conflict
    once it is open or where its design takes none, Refused with every fault."""
    entry = state.get(SessionEntry, context.subject)
    plan = plan_of(state, entry)
    if context.party != buyer_of(state, plan):
        raise Forbidden(f"The session {entry.id} does not buy for {context.party}.", "Ask in a session of your own.")
    if plan.session.needs is not Needs.REQUESTS:
        raise Conflict(f"The session {entry.id} takes its needs from the grid, not from requests.", "Ask in another.")
    if entry.state != SessionState.ANNOUNCED:
        opened = local_label(entry.opens, plan.zone)
        raise Conflict(f"Requests for {entry.id} were taken until it opened at {opened}.", "Ask in a later session.")
    refuse(f"The requests for {entry.id}", _faults(plan, form))
    asked = tuple(
        Asked(one.start.astimezone(UTC), one.direction, one.quantity_kw, one.price_limit_eur_mwh)
        for one in sorted(form.asked, key=lambda one: (one.start, one.direction))
    )
    record = SessionRequests(entry.id, entry.id, context.party, asked)
    note = Note("session.requested", entry.id, (context.party, *with_role(state, Role.MARKET_OPERATOR)))
    reply = {"session": entry.id, "asked": len(asked)}
    return Outcome(reply, ((SessionRequests, entry.id, record),), (note,), CREATED)


def _faults(plan: SessionPlan, form: Requests) -> Iterator[Finding]:
    periods, seen = set(plan.horizon), set()
    for i, one in enumerate(form.asked):
        place = f"asked[{i}]"
        if one.start.tzinfo is None or one.start not in periods:
            span = f"{local_label(plan.horizon.start, plan.zone)} to {local_label(plan.horizon.end, plan.zone)}"
            yield Finding(place, "outside_horizon", f"No quarter-hour of {span} starts then; choose one of them.")
        if one.quantity_kw <= 0:
            yield Finding(place, "quantity", "The quantity is not above zero; the direction says which way.")
        if not one.price_limit_eur_mwh.is_finite():
            yield Finding(place, "price", "The price limit is no number; give EUR/MWh.")
        if (one.start, one.direction) in seen:
            yield Finding(place, "twice", "This quarter-hour and direction are asked for twice; add them up.")
        seen.add((one.start, one.direction))


VERBS = (
    Verb("session.announce", Nothing, _announce),
    Verb("session.open", Nothing, _open, kind=SessionEntry),
    Verb("session.close", Nothing, _close, kind=SessionEntry),
    Verb("session.planned", SessionOutcome, _planned, kind=SessionEntry),
    Verb("session.cleared", SessionOutcome, _cleared, kind=SessionEntry),
    Verb("session.failed", Failed, _failed, kind=SessionEntry),
    Verb("session.retry", Retry, _retry, _OPERATOR, kind=SessionEntry),
    Verb("session.rerun", Again, _rerun, _OPERATOR, kind=SessionEntry, two_persons=True),
    Verb("request.submit", Requests, _request, _BUYERS, kind=SessionRequests),
)
