"""The ideal against which coordination is measured: one market that serves the grid's and the system's needs at once.

Document B, table 11: the efficiency of coordinated markets is their cost against that of a fully coupled one. Each
definitive part is cleared anew, on the same forecast, settings, margins and unit offers, with the system's need as a
balance of all awards. Energy limits count within a part alone, so the cost is a lower bound of the coupled market's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coflex.domain.need import Request
from coflex.domain.offer import Offer
from coflex.grid.rows import Guard
from coflex.market.book import build
from coflex.market.clearing import clear
from coflex.market.design import Needs, SessionPlan
from coflex.market.model import Demand
from coflex.process.day import Day
from coflex.process.lookups import places
from coflex.process.operation import seen_grid
from coflex.process.ports import Transaction


@dataclass(frozen=True, slots=True)
class Coupled:
    """Cost of the coupled market in EUR over all definitive parts, and what it leaves uncovered in MWh."""

    cost_eur: float
    uncovered_mwh: float


def coupled_market(day: Day, t: Transaction) -> Coupled | None:
    """Clear every definitive part as one coupled market, from the day's offers, forecasts and requests; None when the
    design has no pair of sessions to couple."""
    parts = []
    for session in day.plans:
        local = day.forwarder(session)
        if session.session.needs is Needs.REQUESTS and local is not session:
            parts.append(_part(day, t, local, session))
    if not parts:
        return None
    return Coupled(sum(part.cost_eur for part in parts), sum(part.uncovered_mwh for part in parts))


def _part(day: Day, t: Transaction, local: SessionPlan, session: SessionPlan) -> Coupled:
    axis = session.firm
    plants = {group.id for group in day.case.groups if not group.perimeter}
    offers = [offer for offer in t.all(Offer, session=local.id) if offer.unit]
    offers += [offer for offer in t.all(Offer, session=session.id) if offer.group in plants]
    outlook = t.series(f"{local.id}/forecast")
    assert outlook is not None  # the session has been planned
    margin = local.session.security_margin
    guard = Guard(margin.voltage_pu, margin.loading_share) if margin else None
    grid = seen_grid(day, t, axis, *day.injections(outlook.window(axis)), guard)
    book = build(offers, axis, places(day))
    answer = clear(book, np.ones(len(book), dtype=np.bool_), _balance(t, session), grid)
    spent = float((answer.award_kw * book.price).sum()) * axis.hours / 1000
    return Coupled(spent, float(np.abs(answer.uncovered_mw).sum()) * axis.hours)


def _balance(t: Transaction, session: SessionPlan) -> Demand:
    """What the system asks of every quarter-hour of the definitive part, before any netting; zero is asked too."""
    axis = session.firm
    wanted = np.zeros(len(axis))
    for request in t.all(Request, session=session.id):
        if axis.covers(request.start):
            wanted[axis.position(request.start)] += request.direction.sign * request.asked_kw / 1000
    sign = np.where(wanted < 0, -1, 1).astype(np.int64)
    everyone = np.arange(len(axis), dtype=np.int64)
    return Demand(sign, everyone, np.abs(wanted), np.full(len(axis), np.inf), net=True)
