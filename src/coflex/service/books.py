"""The books of open sessions: offers in memory, checked against the register and the ledger as they are now.

An offer has no record of its own: the entry that took it is its record, and `restore` reads a book back from them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

import numpy as np

from coflex.domain.clearing import Holding
from coflex.domain.errors import GateClosed, NotFound
from coflex.domain.offer import Offer
from coflex.domain.qualification import ProductLimit
from coflex.domain.quantity import Bools, Direction, Ints
from coflex.domain.time import Axis, local_label
from coflex.domain.unit import Group, Level, Unit
from coflex.market.design import SessionPlan
from coflex.market.engine import SessionState
from coflex.market.intake import Intake, IntakeContext
from coflex.register.activations import Backup
from coflex.register.consents import Availability, Consent, ConsentScope, Window
from coflex.register.market import SessionEntry
from coflex.register.outcomes import SessionOutcome
from coflex.register.prequalification import GridPrequalification, ProductProcedure, ProductQualification
from coflex.register.products import ProductEntry
from coflex.register.resources import GroupEntry, PointEntry, UnitEntry, UnitStatus
from coflex.service.gates import plan_of
from coflex.service.ledger import buyer_of, free_kw, holdings
from coflex.service.limits import product_limits, qualified_kw
from coflex.service.lookup import Lookup
from coflex.service.state import State
from coflex.service.withheld import windows

# A change of any of these may change what can be offered.
CONCERNED = (
    UnitEntry,
    GroupEntry,
    PointEntry,
    ProductEntry,
    Consent,
    Availability,
    Backup,
    GridPrequalification,
    ProductQualification,
    ProductProcedure,
    SessionOutcome,
)


@dataclass(eq=False)
class Book:
    """The offers of one open session, and of when the register is that they are checked against: its writes, and the
    instants between which time alone changes nothing."""

    plan: SessionPlan
    intake: Intake
    as_of: tuple[object, datetime, datetime]


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
        if book is not None and book.as_of[0] == stamp and book.as_of[1] <= now < book.as_of[2]:
            return book
        as_of = (stamp, *_between(state, now))
        if book is None:
            plan = plan_of(state, entry)
            book = self._books[entry.id] = Book(plan, Intake(plan, context(state, plan, entry, now)), as_of)
        else:
            book.intake.renew(context(state, book.plan, entry, now))
            book.as_of = as_of
        return book

    def offers(self, session: str) -> tuple[Offer, ...]:
        """What a session's book holds, by receipt; nothing where there is no book."""
        book = self._books.get(session)
        return tuple(sorted(book.intake.offers.values(), key=lambda offer: offer.receipt)) if book else ()

    def take_out(self, session: str, offers: Sequence[Offer]) -> Callable[[], None]:
        """Take offers out of a book; what comes back puts them in again."""
        intake = self._books[session].intake
        intake.give_back(offer.id for offer in offers)
        return partial(intake.put, offers)

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
    grid prequalification, the session's plan and their owners allow, free of other holders. What depends on a unit is
    looked up when the unit is first offered."""
    units = state.derived("units of intake", (UnitEntry,), lambda: {one.id: one.unit for one in state.all(UnitEntry)})
    held = {(holding.unit, holding.start): holding for holding in holdings(state, entry.day)}
    offerable = _Offerable(state, plan, entry, now)
    return IntakeContext(
        units=units,
        groups=_groups(state),
        products={one.id: one.product for one in state.all(ProductEntry) if one.withdrawn is None},
        levels=Lookup(offerable.level),
        buyers=(buyer_of(state, plan),),
        qualified_kw=qualified_kw(state, now),
        available_kw=Lookup(offerable.available_kw),
        held=held,
        energy_kwh=_energy(units, held, plan),
        barred=Lookup(offerable.barred),
        products_of=Lookup(offerable.products),
    )


class _Offerable:
    """What a unit or group may be offered with in a session."""

    def __init__(self, state: State, plan: SessionPlan, entry: SessionEntry, now: datetime) -> None:
        self._state, self._plan, self._now = state, plan, now
        self._consents = state.grouped(Consent, "unit", lambda one: one.unit)
        free = free_kw(state, entry)
        self._free = free
        self._limits = Lookup(lambda group: product_limits(state, group, now))
        self._row = {name: u for u, name in enumerate(free[0].names)} if free is not None else {}

    def level(self, unit: str) -> Level | None:
        """Where it is connected."""
        entry = self._state.find(UnitEntry, unit)
        point = self._state.find(PointEntry, entry.unit.connection_point) if entry is not None else None
        return None if point is None else point.point.level

    def barred(self, unit: str) -> str | None:
        """Why it may not be offered at all."""
        entry = self._state.find(UnitEntry, unit)
        if entry is None:
            return None
        if entry.status is not UnitStatus.ACTIVE:
            return f"the unit is {entry.status.value}"
        if not self._allowed(entry.unit).any():
            return "no consent of its owner covers the session's horizon"
        if self._free is not None and unit not in self._row:
            return "it was not qualified when the session was planned"
        return None

    def available_kw(self, unit: str) -> tuple[Ints, Ints] | None:
        """kW per direction (t,) that the session's plan, the owner's consent and what owner and provider keep back
        leave of it; None where nothing limits it."""
        entry, kept = self._state.find(UnitEntry, unit), windows(self._state, unit)
        if entry is None or self.barred(unit) is not None:
            return None
        allowed = self._allowed(entry.unit)
        if self._free is None and not kept and allowed.all():
            return None
        planned = None
        if self._free is not None and unit in self._row:
            up, down = (series.values[self._row[unit]].astype(np.int64) for series in self._free)
            planned = up, down
        return _limits(entry.unit, allowed, kept, self._plan.horizon, planned)

    def products(self, name: str) -> Mapping[str, ProductLimit]:
        """What a group is qualified for, and how far; a unit offers under what one of its groups is qualified for."""
        groups = (name,) if self._state.find(GroupEntry, name) is not None else _groups_of_units(self._state).get(name)
        return {product: limit for group in groups or () for product, limit in self._limits[group].items()}

    def _allowed(self, unit: Unit) -> Bools:
        """In which quarter-hours its owner allows its provider to offer it."""
        horizon = self._plan.horizon
        allowed = np.zeros(len(horizon), dtype=np.bool_)
        for consent in self._consents.get(unit.id, ()):
            if (consent.provider, consent.owner) != (unit.provider, unit.owner):
                continue
            if consent.holds(ConsentScope.OFFER, horizon.start, horizon.end):
                return np.ones(len(horizon), dtype=np.bool_)
            allowed |= [consent.holds(ConsentScope.OFFER, start, start + horizon.step) for start in horizon]
        return allowed


def _groups(state: State) -> dict[str, Group]:
    return state.derived(
        "groups of intake", (GroupEntry,), lambda: {one.id: one.group for one in state.all(GroupEntry) if one.live}
    )


def _groups_of_units(state: State) -> dict[str, tuple[str, ...]]:
    def make() -> dict[str, tuple[str, ...]]:
        found: dict[str, list[str]] = {}
        for name, group in _groups(state).items():
            for unit in group.units:
                found.setdefault(unit, []).append(name)
        return {unit: tuple(names) for unit, names in found.items()}

    return state.derived("groups of units of intake", (GroupEntry,), make)


def _between(state: State, now: datetime) -> tuple[datetime, datetime]:
    """The instants around now at which a qualification begins or ends, whatever the state of the clock: what holds now
    holds from the first to the second."""
    bounds = state.derived(
        "bounds of qualifications", (GridPrequalification, ProductQualification), lambda: sorted(set(_bounds(state)))
    )
    place = bisect_right(bounds, now)
    first = bounds[place - 1] if place else datetime.min.replace(tzinfo=UTC)
    return first, bounds[place] if place < len(bounds) else datetime.max.replace(tzinfo=UTC)


def _bounds(state: State) -> Iterator[datetime]:
    for check in state.all(GridPrequalification):
        if check.answer is not None:
            yield from (at for at in (check.answer.valid_from, check.answer.valid_until) if at is not None)
    for qualification in state.all(ProductQualification):
        if qualification.grant is not None:
            yield from (
                at for at in (qualification.grant.valid_from, qualification.grant.valid_until) if at is not None
            )


def _limits(
    unit: Unit, allowed: Bools, kept: tuple[Window, ...], horizon: Axis, planned: tuple[Ints, Ints] | None
) -> tuple[Ints, Ints]:
    up = np.where(allowed, unit.up_kw, 0).astype(np.int64)
    down = np.where(allowed, unit.down_kw, 0).astype(np.int64)
    if planned is not None:
        up, down = np.minimum(up, planned[0]), np.minimum(down, planned[1])
    for window in kept:
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
