"""What a session may still take. A unit in the book of a session without a result, or forwarded to one, may be sold by
it at any moment; so nobody calls it from another list or reserves it until the result is there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime

from coflex.domain.offer import Offer
from coflex.domain.time import Axis
from coflex.register.market import SessionEntry
from coflex.register.outcomes import SessionOutcome, Step, computed_with, outcome_id, unpack
from coflex.register.resources import GroupEntry
from coflex.service.books import books
from coflex.service.gates import plan_of
from coflex.service.index import index
from coflex.service.ledger import forwarders
from coflex.service.state import State


@dataclass(frozen=True, slots=True)
class Offered:
    """Units that a session without a result may still take in its horizon."""

    horizon: Axis
    units: frozenset[str]

    def touches(self, start: datetime, end: datetime) -> bool:
        return self.horizon.start < end and start < self.horizon.end


def still_offered(state: State, days: Iterable[date]) -> tuple[Offered, ...]:
    """What sessions of delivery days without a result may still take: of their own book, and forwarded to them."""
    found = []
    for day in sorted(set(days)):
        for entry in index(state, SessionEntry, "delivery day", lambda one: (one.day.isoformat(),)).at(day.isoformat()):
            if not entry.outcome:
                offers = (*books(state).offers(entry.id), *_taken_back(state, entry), *_forwarded(state, entry))
                found.append(Offered(plan_of(state, entry).horizon, frozenset(_units(state, offers))))
    return tuple(found)


def _taken_back(state: State, entry: SessionEntry) -> tuple[Offer, ...]:
    """Offers of a session whose result is to be computed anew: they stand in the result that was taken back."""
    old = state.find(SessionOutcome, outcome_id(entry.id, Step.RESULT))
    return unpack(old.given, Offer) if old is not None else ()


def _forwarded(state: State, entry: SessionEntry) -> tuple[Offer, ...]:
    results = (state.find(SessionOutcome, outcome_id(source, Step.RESULT)) for source in forwarders(state, entry))
    return tuple(offer for one in results if one is not None for offer in computed_with(one) if not offer.local_only)


def _units(state: State, offers: Iterable[Offer]) -> Iterable[str]:
    for offer in offers:
        if offer.unit is not None:
            yield offer.unit
        elif offer.group is not None and (group := state.find(GroupEntry, offer.group)) is not None:
            yield from group.group.units


def in_offers(offered: Iterable[Offered], unit: str, start: datetime, end: datetime) -> bool:
    """Whether a session may still take a unit in a time that touches [start, end)."""
    return any(unit in one.units and one.touches(start, end) for one in offered)
