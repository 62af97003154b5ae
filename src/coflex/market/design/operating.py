"""Which designs the operating day holds: those whose every session is one buyer's, of active energy, for its own need.

The engine of comparison (`market.coordination`) runs every design on a case; the operating day keeps orders, ledger and
money of a real one, and refuses what it does not do yet rather than doing something like it.
"""

from __future__ import annotations

from collections.abc import Iterator

from coflex.domain.errors import Finding
from coflex.market.design import (
    Buyer,
    Carry,
    Design,
    Interface,
    Needs,
    Offered,
    Resource,
    Session,
    Trades,
    TransmissionGrid,
    Validation,
)


def unheld(design: Design) -> Iterator[Finding]:
    """What a design asks of the operating day that it does not do, each with the session and the key."""
    if design.iterate is not None:
        yield _finding(design, "iterate", "sessions that answer each other until nothing moves")
    for i, session in enumerate(design.sessions):
        for key, what in _unheld(session):
            yield _finding(design, f"sessions[{i}].{key}", what)


def _unheld(session: Session) -> Iterator[tuple[str, str]]:
    if len(session.buyers) > 1 or Buyer.BRP in session.buyers:
        yield "buyers", "buyers other than one system operator"
    if session.scope is None:
        yield "scope", "a session that is neither for local nor for global needs"
    if session.needs is Needs.BOTH:
        yield "needs", "limits and requests in one clearing"
    if session.trades is not Trades.ACTIVE_ENERGY:
        yield "trades", f"{session.trades.value}"
    if session.grid.transmission is not TransmissionGrid.NONE:
        yield "grid.transmission", "the limits of the transmission grid"
    if session.interface not in (Interface.FREE, Interface.NETTED):
        yield "interface", f"an interface that is {session.interface.value}"
    if session.validation is Validation.MERIT_ORDER:
        yield "validation", "a walk over the merit order list with substitution"
    if session.sellers.resources != (Resource.UNITS,):
        yield "sellers.resources", "sellers other than units by their free offers"
    forward = session.forward
    if forward is not None and (forward.offers is Offered.AGGREGATED or forward.carry is Carry.FILTER):
        yield "forward", "offers that are aggregated or filtered"
    for key in ("repeat", "tender", "scenarios", "exclusion", "services", "admits", "reserve_share"):
        if getattr(session, key):
            yield key, key.replace("_", " ")
    if session.request_share < 1:
        yield "request_share", "a part of a request"


def _finding(design: Design, path: str, what: str) -> Finding:
    message = f"The operating day does not hold {what}; compare this design by coflex compare, or choose another."
    return Finding(f"{design.id}: {path}", "not_held", message)
