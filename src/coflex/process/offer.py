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
from coflex.domain.quantity import Floats
from coflex.domain.unit import Unit
from coflex.market.design import SessionPlan
from coflex.market.engine import IntakeContext, SessionState, intake
from coflex.market.ledger import free_units
from coflex.process.day import Day, states
from coflex.process.lookups import free_power, qualified_kw
from coflex.process.ports import Providers, SessionCall, Store, Transaction


def submit(day: Day, store: Store, session: SessionPlan, offers: Sequence[Offer]) -> tuple[Offer, ...]:
    """Take a parcel of offers into an open session, whole, with receipt numbers that go on from the last.

    Inside a parcel they follow the instants of receipt, then the ids, whatever order the parcel came in.
    Raises Refused with every fault of the parcel at once, NotReady when the session is not open.
    """
    with store.transaction() as t:
        state = states(t).get(session.id, SessionState.ANNOUNCED)
        if state != SessionState.OPEN:
            raise NotReady(f"Session {session.id} is {state}, not open.", "Plan it first, or offer to the next one.")
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
    """Call the counterparts that offer, and take what they send."""
    with store.transaction() as t:
        call = session_call(day, t, session)
    return submit(day, store, session, providers.offers(call))


def session_call(day: Day, t: Transaction, session: SessionPlan) -> SessionCall:
    """What providers are told: their units with what is free and qualified, and what they may not offer."""
    scope = session.session.scope
    groups = tuple(g for g in day.groups(scope) if day.levels[g.units[0]] in session.session.sellers.levels)
    mine = sorted({unit for group in groups for unit in group.units})
    rows = np.array([day.unit_index[unit] for unit in mine], dtype=np.int64)
    up, down = free_power(t, day.forwarder(session), session)
    ledger = t.all(Holding)
    free = free_units(ledger, mine, day.buyer(session), session.horizon)
    units = tuple(day.units[u] for u in rows)
    energy_up, energy_down = _energy_left(units, ledger, session, day.buyer(session))
    return SessionCall(
        session=session.id,
        scope=scope,
        product=day.product(session),
        horizon=session.horizon,
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


def _energy_left(
    units: Sequence[Unit], ledger: Sequence[Holding], session: SessionPlan, buyer: str
) -> tuple[Floats, Floats]:
    """kWh that each unit may still give per direction over the day; infinite where nothing limits it.

    What this session may change is not counted as used.
    """
    used = {unit.id: [0.0, 0.0] for unit in units}
    for holding in ledger:
        mine = holding.buyer == buyer and session.horizon.covers(holding.start)
        if holding.unit in used and not mine:
            used[holding.unit][0 if holding.direction.sign > 0 else 1] += holding.quantity_kw * session.horizon.hours
    up = [np.inf if u.energy_up_kwh is None else max(0.0, u.energy_up_kwh - used[u.id][0]) for u in units]
    down = [np.inf if u.energy_down_kwh is None else max(0.0, u.energy_down_kwh - used[u.id][1]) for u in units]
    return np.array(up), np.array(down)


def _context(day: Day, t: Transaction, session: SessionPlan, taken: tuple[Offer, ...]) -> IntakeContext:
    up, down = free_power(t, day.forwarder(session), session)
    available = {unit.id: (up[u].astype(np.int64), down[u].astype(np.int64)) for u, unit in enumerate(day.units)}
    return IntakeContext(
        units=day.unit_by_id,
        groups={group.id: group for group in day.case.groups},
        products={product.id: product for product in day.case.products},
        levels={unit.id: day.levels[unit.id] for unit in day.units},
        buyers=tuple(day.party(buyer.role) for buyer in session.session.buyers),
        qualified_kw=qualified_kw(t.all(StaticLight), day.units),
        available_kw=available,
        held={(holding.unit, holding.start): holding for holding in t.all(Holding)},
        taken=taken,
    )
