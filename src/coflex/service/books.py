"""The books of open sessions: offers in memory, checked against the register and the ledger as they are now.

An offer has no record of its own: the entry that took it is its record, and `restore` reads a book back from them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np

from coflex.domain.clearing import Holding
from coflex.domain.errors import GateClosed, NotFound
from coflex.domain.offer import Offer
from coflex.domain.quantity import Bools, Direction, Ints
from coflex.domain.time import Axis, local_label
from coflex.domain.unit import Group, Level, Unit
from coflex.market.design import SessionPlan
from coflex.market.engine import SessionState
from coflex.market.intake import Intake, IntakeContext
from coflex.register.consents import Availability, Consent, ConsentScope
from coflex.register.market import SessionEntry
from coflex.register.outcomes import SessionOutcome
from coflex.register.parties import PartyEntry
from coflex.register.prequalification import GridPrequalification, ProductProcedure, ProductQualification
from coflex.register.products import ProductEntry
from coflex.register.resources import GroupEntry, PointEntry, UnitEntry, UnitStatus
from coflex.service.gates import plan_of
from coflex.service.ledger import buyer_of, free_kw, holdings
from coflex.service.limits import qualified_kw, qualified_products
from coflex.service.state import State

# A change of any of these may change what can be offered.
CONCERNED = (
    UnitEntry,
    GroupEntry,
    PointEntry,
    PartyEntry,
    ProductEntry,
    Consent,
    Availability,
    GridPrequalification,
    ProductQualification,
    ProductProcedure,
    SessionOutcome,
)
# What depends on the time alone (a consent that ends, a qualification that expires) is looked at this often.
FRESH_FOR = timedelta(seconds=60)


@dataclass(eq=False)
class Book:
    """The offers of one open session."""

    plan: SessionPlan
    intake: Intake
    stamp: object
    fresh_until: datetime


@dataclass(eq=False)
class Books:
    """The books of one tenant."""

    _books: dict[str, Book] = field(default_factory=dict)

    def open(self, state: State, session: str, now: datetime) -> Book:
        """The book of a session that takes offers now.

        Raises NotFound, GateClosed with the gate's times.
        """
        entry = state.get(SessionEntry, session)
        if entry.state != SessionState.OPEN or not entry.opens <= now < entry.closes:
            raise _closed(state, entry, now)
        return self.of(state, entry, now)

    def of(self, state: State, entry: SessionEntry, now: datetime) -> Book:
        """The book of a session, with the register as it is now."""
        book = self._books.get(entry.id)
        stamp = state.stamp(CONCERNED)
        if book is None:
            plan = plan_of(state, entry)
            intake = Intake(plan, context(state, plan, entry, now))
            book = self._books[entry.id] = Book(plan, intake, stamp, now + FRESH_FOR)
        elif book.stamp != stamp or now >= book.fresh_until:
            book.intake.renew(context(state, book.plan, entry, now))
            book.stamp, book.fresh_until = stamp, now + FRESH_FOR
        return book

    def offers(self, session: str) -> tuple[Offer, ...]:
        """What a session's book holds, by receipt; nothing where there is no book."""
        book = self._books.get(session)
        return tuple(sorted(book.intake.offers.values(), key=lambda offer: offer.receipt)) if book else ()

    def drop(self, session: str) -> None:
        """Forget the book of a session whose result is known."""
        self._books.pop(session, None)


def books(state: State) -> Books:
    """The tenant's books."""
    return state.attached("books", Books)


def _closed(state: State, entry: SessionEntry, now: datetime) -> GateClosed:
    zone = plan_of(state, entry).zone
    opens, closes = local_label(entry.opens, zone), local_label(entry.closes, zone)
    if now < entry.opens:
        return GateClosed(
            f"The gate of {entry.id} opens at {opens} and closes at {closes}.", "Send the offer in that time."
        )
    return GateClosed(f"The gate of {entry.id} closed at {closes}.", "Offer in a later session.")


# ---------------------------------------------------------------- what offers are checked against


def context(state: State, plan: SessionPlan, entry: SessionEntry, now: datetime) -> IntakeContext:
    """What a session's offers are checked against: units that are active, with their owners' consent, inside what the
    grid prequalification and their owners allow, free of other holders."""
    units = {one.id: one.unit for one in state.all(UnitEntry)}
    groups = {one.id: one.group for one in state.all(GroupEntry) if one.live}
    held = {(holding.unit, holding.start): holding for holding in holdings(state, entry.day)}
    available, barred = _availability(state, plan, entry)
    passed = {name: qualified_products(state, name, now) for name in groups}
    return IntakeContext(
        units=units,
        groups=groups,
        products={one.id: one.product for one in state.all(ProductEntry) if one.withdrawn is None},
        levels=_levels(state, units.values()),
        buyers=(buyer_of(state, plan),),
        qualified_kw=qualified_kw(state, now),
        available_kw=available,
        held=held,
        energy_kwh=_energy(units, held, plan),
        barred=barred,
        products_of=passed | _products_of_units(groups, passed),
    )


def _products_of_units(groups: Mapping[str, Group], passed: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    """A unit may offer what one of its groups is qualified for."""
    found: dict[str, frozenset[str]] = {}
    for name, group in groups.items():
        for unit in group.units:
            found[unit] = found.get(unit, frozenset()) | passed[name]
    return found


def _levels(state: State, units: Iterable[Unit]) -> dict[str, Level]:
    at = {one.id: one.point.level for one in state.all(PointEntry)}
    return {unit.id: at[unit.connection_point] for unit in units if unit.connection_point in at}


def _availability(
    state: State, plan: SessionPlan, entry: SessionEntry
) -> tuple[dict[str, tuple[Ints, Ints]], dict[str, str]]:
    """kW per direction (t,) of units that are limited inside the horizon, by the session's plan, the owner's consent or
    what the owner set; and why others may not be offered at all."""
    consents = state.grouped(Consent, "unit", lambda one: one.unit)
    planned = _planned(state, entry)
    limits: dict[str, tuple[Ints, Ints]] = {}
    barred: dict[str, str] = {}
    for one in state.all(UnitEntry):
        if one.status is not UnitStatus.ACTIVE:
            barred[one.id] = f"the unit is {one.status.value}"
            continue
        given = [consent for consent in consents.get(one.id, ()) if consent.provider == one.unit.provider]
        allowed = _allowed(given, plan.horizon)
        set_by_owner = state.find(Availability, one.id)
        if not allowed.any():
            barred[one.id] = "no consent of its owner covers the session's horizon"
        elif one.id in planned or set_by_owner is not None or not allowed.all():
            limits[one.id] = _limits(one.unit, allowed, set_by_owner, plan.horizon, planned.get(one.id))
    return limits, barred


def _planned(state: State, entry: SessionEntry) -> dict[str, tuple[Ints, Ints]]:
    """What the session's plan leaves units to give, up and down (t,); nothing before there is one."""
    free = free_kw(state, entry)
    if free is None:
        return {}
    up, down = free
    return {name: (up.values[u].astype(np.int64), down.values[u].astype(np.int64)) for u, name in enumerate(up.names)}


def _allowed(consents: Iterable[Consent], horizon: Axis) -> Bools:
    """In which quarter-hours an owner allows the unit to be offered."""
    allowed = np.zeros(len(horizon), dtype=np.bool_)
    for consent in consents:
        if consent.holds(ConsentScope.OFFER, horizon.start, horizon.end):
            return np.ones(len(horizon), dtype=np.bool_)
        allowed |= [consent.holds(ConsentScope.OFFER, start, start + horizon.step) for start in horizon]
    return allowed


def _limits(
    unit: Unit, allowed: Bools, owner: Availability | None, horizon: Axis, planned: tuple[Ints, Ints] | None
) -> tuple[Ints, Ints]:
    up = np.where(allowed, unit.up_kw, 0).astype(np.int64)
    down = np.where(allowed, unit.down_kw, 0).astype(np.int64)
    if planned is not None:
        up, down = np.minimum(up, planned[0]), np.minimum(down, planned[1])
    for window in owner.windows if owner else ():
        for t, start in enumerate(horizon):
            if window.starts < start + horizon.step and start < window.ends:
                up[t], down[t] = min(up[t], window.up_kw), min(down[t], window.down_kw)
    return up, down


def _energy(
    units: Mapping[str, Unit], held: Mapping[tuple[str, datetime], Holding], plan: SessionPlan
) -> dict[str, tuple[float, float]]:
    """kWh that units with an energy limit can still give over the day, up and down."""
    limited = {
        name: [
            float("inf") if unit.energy_up_kwh is None else float(unit.energy_up_kwh),
            float("inf") if unit.energy_down_kwh is None else float(unit.energy_down_kwh),
        ]
        for name, unit in units.items()
        if unit.energy_up_kwh is not None or unit.energy_down_kwh is not None
    }
    for (name, _), holding in sorted(held.items()):
        if name in limited:
            way = 0 if holding.direction is Direction.UP else 1
            limited[name][way] -= holding.quantity_kw * plan.horizon.hours
    return {name: (max(0.0, up), max(0.0, down)) for name, (up, down) in limited.items()}


def own_offer(book: Book, party: str, name: str) -> Offer:
    """An offer of a party by its own id. Raises NotFound."""
    offer = book.intake.offers.get(offer_id(party, name))
    if offer is None:
        raise NotFound(f"There is no offer '{name}' of yours in {book.plan.id}.", "Check its id and its session.")
    return offer


def offer_id(party: str, name: str) -> str:
    """The id of an offer among all parties' offers: each party names its own as it likes."""
    return f"{party}/{name}"
