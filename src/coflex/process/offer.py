"""Offer: what providers send is checked as a whole; every fault is answered, nothing of a faulty parcel is taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from coflex.domain.clearing import Holding
from coflex.domain.errors import NotReady, refuse
from coflex.domain.offer import Offer
from coflex.domain.party import Role
from coflex.domain.qualification import StaticLight
from coflex.market.design import SessionPlan
from coflex.market.engine import SessionState
from coflex.market.intake import IntakeContext, intake
from coflex.market.ledger import free_units
from coflex.process.day import Day, states
from coflex.process.lookups import energy_left, free_power, qualified_kw
from coflex.process.ports import Providers, SessionCall, Store, Transaction


def submit(day: Day, store: Store, session: SessionPlan, offers: Sequence[Offer]) -> tuple[Offer, ...]:
    """Take a parcel of offers into an open session, whole, with receipt numbers that go on from the last.

    Inside a parcel they follow the instants of receipt, then the ids, whatever order the parcel came in.
    Raises Refused with every fault of the parcel at once, NotReady when the session is not open.
    """
    with store.transaction() as t:
        _is_open(t, session)
        taken = t.all(Offer, session=session.id)
        first = max((offer.receipt for offer in taken), default=0)
        ordered = sorted(offers, key=lambda offer: (offer.received_at, offer.id))
        numbered = [replace(offer, receipt=first + i) for i, offer in enumerate(ordered, start=1)]
        accepted, findings = intake(session, numbered, _context(day, t, session, taken))
        refuse(f"The offers to {session.id}", findings)
        t.add(accepted)
        market = day.party(Role.MARKET_OPERATOR)
        for provider in sorted({offer.provider for offer in accepted}):
            count = sum(offer.provider == provider for offer in accepted)
            at = max(offer.received_at for offer in accepted if offer.provider == provider)
            t.event("offers", at, provider, market, f"{count} to {session.id}")
            t.event("offers_accepted", at, market, provider, f"{count} in {session.id}")
    return accepted


def collect(day: Day, store: Store, session: SessionPlan, providers: Providers) -> tuple[Offer, ...]:
    """Call the counterparts that offer, and take what they send of units that no offer in the session speaks for yet.

    So a day that was interrupted after its offers goes on, and an offer from outside stands for its units.
    """
    with store.transaction() as t:
        _is_open(t, session)
        call = session_call(day, t, session)
        taken = t.all(Offer, session=session.id)
    members = {group.id: group.units for group in day.case.groups}

    def behind(offer: Offer) -> set[tuple[str, str]]:
        return {(unit, offer.direction) for unit in ((offer.unit,) if offer.unit else members[offer.group or ""])}

    spoken_for = set().union(*(behind(offer) for offer in taken))
    return submit(day, store, session, [offer for offer in providers.offers(call) if not behind(offer) & spoken_for])


def _is_open(t: Transaction, session: SessionPlan) -> None:
    state = states(t).get(session.id, SessionState.ANNOUNCED)
    if state != SessionState.OPEN:
        raise NotReady(f"Session {session.id} is {state}, not open.", "Plan it first, or offer to the next one.")


def session_call(day: Day, t: Transaction, session: SessionPlan) -> SessionCall:
    """What providers are told: their units with what is free and qualified, and what they may not offer."""
    scope = session.scope
    groups = tuple(g for g in day.groups(scope) if day.levels[g.units[0]] in session.session.sellers.levels)
    mine = sorted({unit for group in groups for unit in group.units})
    rows = np.array([day.unit_index[unit] for unit in mine], dtype=np.int64)
    up, down = free_power(t, day.forwarder(session), session)
    ledger = t.all(Holding)
    free = free_units(ledger, mine, day.buyer(session), session.horizon)
    units = tuple(day.units[u] for u in rows)
    energy_up, energy_down = energy_left(units, ledger, session, day.buyer(session))
    return SessionCall(
        session=session.id,
        scope=scope,
        product=day.product(session),
        horizon=session.horizon,
        firm=session.firm,
        opens=session.opens,
        closes=session.closes,
        units=units,
        groups=groups,
        up_kw=up[rows],
        down_kw=down[rows],
        held=~free,
        energy_up_kwh=energy_up,
        energy_down_kwh=energy_down,
    )


def _context(day: Day, t: Transaction, session: SessionPlan, taken: tuple[Offer, ...]) -> IntakeContext:
    up, down = (kw.astype(np.int64) for kw in free_power(t, day.forwarder(session), session))
    ledger = t.all(Holding)
    energy = zip(day.units, *energy_left(day.units, ledger, session, day.buyer(session)), strict=True)
    available = {unit.id: (up[u], down[u]) for u, unit in enumerate(day.units)}
    return IntakeContext(
        units=day.unit_by_id,
        groups={group.id: group for group in day.case.groups},
        products={product.id: product for product in day.case.products},
        levels={unit.id: day.levels[unit.id] for unit in day.units},
        buyers=tuple(day.party(buyer.role) for buyer in session.session.buyers),
        qualified_kw=qualified_kw(t.all(StaticLight), day.units),
        available_kw=available,
        energy_kwh={unit.id: (float(u), float(d)) for unit, u, d in energy},
        held={(holding.unit, holding.start): holding for holding in ledger},
        taken=taken,
    )
