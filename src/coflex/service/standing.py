"""What stands in the register: all of it now, for a plan, and what binding offers rest on when their gate closes.

At the gate it is settled, in the command that closes it, which offers stand: whose unit or group is still their
provider's, active, consented to and qualified; and with what power. Whatever becomes of the register afterwards, and
whenever the result is computed, that decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from dataclasses import replace
from datetime import datetime

from coflex.domain.offer import Offer
from coflex.domain.party import Party, Role
from coflex.domain.qualification import ProductLimit
from coflex.domain.quantity import Direction
from coflex.domain.unit import Group, Unit
from coflex.market.intake import no_longer
from coflex.register.consents import Consent, ConsentScope
from coflex.register.market import SessionEntry
from coflex.register.outcomes import SessionOutcome, Span, Step, UnitLimit, outcome_id, pack, unpack
from coflex.register.parties import PartyEntry
from coflex.register.products import ProductEntry
from coflex.register.resources import GroupEntry, PointEntry, UnitEntry, UnitStatus
from coflex.register.work import Register
from coflex.service.books import books, context
from coflex.service.gates import plan_of
from coflex.service.ledger import buyer_of
from coflex.service.limits import qualified_kw
from coflex.service.state import State
from coflex.service.withheld import windows

# ---------------------------------------------------------------- at a gate


def opening(state: State, entry: SessionEntry) -> SessionOutcome:
    """What a session fixes when it opens: the party for which it buys."""
    return SessionOutcome(
        id=outcome_id(entry.id, Step.GATE),
        day=entry.day,
        session=entry.session,
        step=Step.GATE,
        at=entry.opens,
        buyer=buyer_of(state, plan_of(state, entry)),
    )


def closing(state: State, entry: SessionEntry) -> SessionOutcome:
    """What a session fixes when it closes: in `left_out` the offers that do not stand, with the reasons, in `given` the
    units and groups behind the others with their limits, and those of the qualifications under which they offer."""
    plan, offers = plan_of(state, entry), books(state).offers(entry.id)
    if not offers:
        return replace(opening(state, entry), at=entry.closes)
    against = context(state, plan, entry, entry.closes)
    why = no_longer(plan, offers, against)
    why |= {offer.id: reason for offer in offers if (reason := _out_of_order(state, offer))}
    stand = [offer for offer in offers if offer.id not in why]
    groups = [state.get(GroupEntry, name).group for name in sorted({offer.group for offer in stand if offer.group})]
    names = {offer.unit for offer in stand if offer.unit} | {name for group in groups for name in group.units}
    entries = [state.get(UnitEntry, name) for name in sorted(names)]
    limits = _limits(state, entry.closes, entries)
    products_of = against.products_of
    assert products_of is not None  # the service asks for everybody's qualification
    under = [products_of[offer.unit or offer.group or ""][offer.product] for offer in stand]
    within = {(limit.group, limit.product): limit for limit in under}
    given = pack([*(one.unit for one in entries), *groups, *limits, *(within[key] for key in sorted(within))])
    return replace(opening(state, entry), at=entry.closes, given=given, left_out=tuple(sorted(why.items())))


def _out_of_order(state: State, offer: Offer) -> str:
    """Why an offer does not stand for its provider or its group; empty where both are in order."""
    provider, group = state.find(PartyEntry, offer.provider), state.find(GroupEntry, offer.group or "")
    if provider is None or Role.SERVICE_PROVIDER not in provider.roles:
        return "Its provider is not approved any more; have it approved, then offer."
    if group is not None and group.status is not UnitStatus.ACTIVE:
        return f"The group {group.id} is {group.status.value}; activate it, or offer units."
    return ""


def gate(state: State, entry: SessionEntry) -> SessionOutcome:
    """What a session fixed at its gate. Raises NotFound before it opened."""
    return state.get(SessionOutcome, outcome_id(entry.id, Step.GATE))


def at_gate(state: State, entry: SessionEntry) -> Register:
    """The units and groups behind the offers that stood when a session closed, with their limits then."""
    given = gate(state, entry).given
    return Register(
        units=unpack(given, Unit),
        groups=unpack(given, Group),
        limits=unpack(given, UnitLimit),
        product_limits=unpack(given, ProductLimit),
    )


def left_out(state: State, entry: SessionEntry) -> dict[str, str]:
    """Offers that are not to be computed with, and why: they did not stand at the gate, or the market operator leaves
    them out."""
    taken_out = dict.fromkeys(entry.without, "The market operator left it out when the result was computed anew.")
    return dict(gate(state, entry).left_out) | taken_out


# ---------------------------------------------------------------- the register of now


def register(state: State, at: datetime) -> Register:
    """The register at the tenant's time `at`: approved parties, and what may be offered. A unit may where it is
    active, its provider is approved, its owner consents for some time to come and the grid lets it give something; a
    group with the units of it that may."""
    approved = parties(state)
    providers = {party.id for party in approved if Role.SERVICE_PROVIDER in party.roles}
    points = {one.id: one.point for one in state.all(PointEntry)}
    limits = {limit.unit: limit for limit in _limits(state, at, state.all(UnitEntry))}
    units = tuple(
        one.unit
        for one in state.all(UnitEntry)
        if one.id in limits and one.unit.provider in providers and one.unit.connection_point in points
    )
    mine = {unit.id for unit in units}
    return Register(
        parties=approved,
        points=tuple(points[name] for name in sorted({unit.connection_point for unit in units})),
        units=units,
        groups=tuple(_groups(state, mine)),
        products=tuple(one.product for one in state.all(ProductEntry) if one.withdrawn is None),
        limits=tuple(limits[unit.id] for unit in units),
    )


def parties(state: State) -> tuple[Party, ...]:
    """Those that are approved."""
    return tuple(entry.party for entry in state.all(PartyEntry) if entry.roles)


def _limits(state: State, at: datetime, entries: Iterable[UnitEntry]) -> Iterator[UnitLimit]:
    """Of those units that are active, that the grid lets give something, and whose owners consent now or later."""
    consents = state.grouped(Consent, "unit", lambda one: one.unit)
    power = qualified_kw(state, at)
    for entry in entries:
        unit = entry.unit
        up, down = power.get((unit.id, Direction.UP), 0), power.get((unit.id, Direction.DOWN), 0)
        allowed = tuple(_spans(unit, consents.get(unit.id, ()), at))
        if entry.status is UnitStatus.ACTIVE and (up or down) and allowed:
            yield UnitLimit(unit.id, up, down, allowed, windows(state, unit.id))


def _spans(unit: Unit, consents: Iterable[Consent], at: datetime) -> Iterator[Span]:
    """When the owner's consents to the unit's provider hold; those that follow on each other as one."""
    begun: Span | None = None
    for one in sorted(consents, key=lambda one: (one.starts, one.until)):
        mine = (one.owner, one.provider) == (unit.owner, unit.provider) and ConsentScope.OFFER in one.scope
        if not mine or one.until <= max(at, one.starts):
            continue
        if begun is not None and one.starts <= begun.ends:
            begun = Span(begun.starts, max(begun.ends, one.until))
            continue
        if begun is not None:
            yield begun
        begun = Span(one.starts, one.until)
    if begun is not None:
        yield begun


def _groups(state: State, units: Set[str]) -> Iterator[Group]:
    """Active groups with those of their units that may be offered."""
    for entry in state.all(GroupEntry):
        mine = tuple(name for name in entry.group.units if name in units)
        if entry.status is UnitStatus.ACTIVE and mine:
            yield replace(entry.group, units=mine)
