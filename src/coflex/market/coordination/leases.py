"""Sessions that let storage: each lot of the case by an auction among the lessees' bids, who may be system operators or
providers for themselves (document F, section 5.2.6).

A lease moves nothing: what its lessee does with its share is its own affair, and how it sells it is another session's.
What is let keeps the unit behind it from every other session.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from coflex.domain.errors import SoldTwice
from coflex.domain.quantity import Bools, Ints
from coflex.domain.time import QUARTER, local_label
from coflex.market.coordination.capacity import window
from coflex.market.coordination.outcome import Held, LeaseAgreement
from coflex.market.coordination.session import Decided
from coflex.market.coordination.state import FREE, State
from coflex.market.coordination.view import View
from coflex.market.coordination.world import LeaseRequest, StorageLot, World
from coflex.market.design import (
    Buyer,
    Design,
    DistributionGrid,
    Interface,
    Matching,
    Pricing,
    Priority,
    Resource,
    Session,
    Trades,
    TransmissionGrid,
    Validation,
)
from coflex.market.leasing import Lease, LeaseBid, Leased, Payment, Storage, auction

_PAYMENT = {Pricing.PAY_AS_BID: Payment.PAY_AS_BID, Pricing.PAY_AS_CLEAR: Payment.CLEARING}


# ---------------------------------------------------------------- what cannot be let


def obstacles(session: Session, design: Design, world: World) -> Iterator[tuple[str, str]]:
    """Why a session of storage cannot be held on a case: code and message; nothing for one that trades anything else."""
    if session.trades is not Trades.STORAGE_CAPACITY:
        return
    if not open_lots(session, world):
        yield "no_storage", f"The case {world.id} has no storage to let to this session; choose a case that has some."
    if session.pricing not in _PAYMENT:
        message = f"Leases have no {session.pricing.value} price; write pricing: pay_as_bid or pay_as_clear."
        yield "lease_pricing", message
    for key in _unheld(session):
        yield "lease_terms", f"An auction of leases does not hold {key}; leave it out, or write none or free."
    for one in design.sessions:
        if session.id in one.admits:
            yield "lease_admitted", f"What is let is its lessee's, not for {one.id} to call; take it out of admits."
        if one.forward is not None and one.forward.to == session.id:
            yield "lease_terms", f"{one.id} forwards offers of energy, and storage is let here; forward them elsewhere."
        if one.exclusion is not None and one.exclusion.session == session.id:
            yield "lease_terms", f"{one.id} closes at once with this auction; close one gate later instead."
    yield from _case_faults(world)


def _unheld(session: Session) -> Iterator[str]:
    """Keys of a session that an auction of leases would pass over."""
    if session.validation not in (Validation.NONE, Validation.STATIC):
        yield f"validation {session.validation.value}"
    if session.grid.distribution is not DistributionGrid.NONE or session.grid.transmission is not TransmissionGrid.NONE:
        yield "the grid"
    if session.interface is not Interface.FREE:
        yield f"interface {session.interface.value}"
    if session.request_share < 1:
        yield "request_share"
    if session.tender is not None and session.tender.called_share:
        yield "called_share"
    for key in ("services", "admits", "exclusion", "forward"):
        if getattr(session, key):
            yield key


def _case_faults(world: World) -> Iterator[tuple[str, str]]:
    """Lots and bids of a case that do not fit it."""
    twice = [name for name, count in Counter(one.id for one in world.lots).items() if count > 1]
    twice += [name for name, count in Counter(one.unit for one in world.lots if one.unit).items() if count > 1]
    for name in twice:
        yield "lot_twice", f"Two lots are of {name}; offer it once, its bidders share it."
    for lot in world.lots:
        axis = lot.storage.windows
        inside = world.axis.start <= axis.start and axis.end <= world.axis.end
        if axis.step % QUARTER or (axis.start - world.axis.start) % QUARTER or not inside:
            yield "lot_windows", f"The windows of lot {lot.id} are not quarter-hours of the day; lay them on its own."
        if lot.unit and lot.unit not in world.seller:
            yield "lot_unit", f"Lot {lot.id} is of {lot.unit}, who is no seller of the case; name one, or none."
    known = {lot.id for lot in world.lots}
    for one in world.lease_bids:
        if one.lot not in known:
            yield "bid_lot", f"Bid {one.bid.id} is for lot {one.lot}, which the case has not; bid for another."


def open_lots(session: Session, world: World) -> list[StorageLot]:
    """The lots that a session may let."""
    units = Resource.UNITS in session.sellers.resources
    return [lot for lot in world.lots if units and lot.level in session.sellers.levels]


# ---------------------------------------------------------------- a session


def hold_leases(view: View, state: State) -> Decided:
    """Hold one session of storage: each lot by an auction of the bids of the session's buyers, all at once without
    priority, else one buyer after another; bilateral, one bid after another. What is left goes to the next.

    What the chain has let preliminarily on the horizon is let anew. Windows are open inside the horizon and the
    tender's hours, where the unit behind the lot is free and no other chain has let any of it; a bid that reaches
    beyond them loses. Where a static light counts, no more power is let than it confirms both ways.
    Guarantees: of no lot more than is offered is let at any time, by all rounds together; no bid wins twice; the same
    for any order of lots and bids. Raises Refused with faults of lots and bids, SolverFailure as `auction` does.
    """
    chain = view.session.chain
    state = _released(view, state)
    found, lost, asked = [], Counter[str](), 0
    lots = open_lots(view.session, view.world)
    for lot in sorted(lots, key=lambda one: one.id):
        requests = _bids(view, state, lot)
        buyer = {one.bid.id: one.buyer for one in requests}
        leases, losers = _auctioned(view.session, _offered(view, state, lot), requests)
        asked += len(requests)
        lost += losers
        for lease in leases:
            terms = (lot.id, lot.storage.owner, lot.unit, buyer[lease.bid.id].value, lease)
            made = LeaseAgreement(view.plan.id, *terms, view.plan.status(_start(lease)))
            found.append(made)
    state = _marked(replace(state, leases=(*state.leases, *((chain, one) for one in found))), chain)
    told = [f"{count} {reason}" for reason, count in sorted(lost.items())]
    held = Held(
        session=view.plan.id,
        closes=view.plan.closes,
        offers=len(lots),
        awards=len(found),
        bought_kwh=0.0,
        cost_eur=float(sum(one.lease.payment_eur for one in found)),
        concordant_kwh=0.0,
        discordant_kwh=0.0,
        validated=0,
        limited_kwh=0.0,
        uncovered=(),
        remark=f"{len(found)} of {asked} bids lease storage" + (f"; lost: {', '.join(told)}" if told else ""),
    )
    return Decided(state, held, state.positions.reserved[:, view.part] == state.index(chain))


def agreements(state: State, rounds: Sequence[str]) -> tuple[LeaseAgreement, ...]:
    """What is let in the end, by round in the order in which they were held, lot and receipt."""
    ranked = sorted(
        (one for _, one in state.leases),
        key=lambda one: (rounds.index(one.session), one.lot, one.lease.bid.receipt, one.lease.bid.id),
    )
    return tuple(ranked)


def _start(lease: Lease) -> object:
    raise NotImplementedError
