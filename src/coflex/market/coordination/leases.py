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

from coflex.domain.clearing import Status
from coflex.domain.quantity import Bools, Ints
from coflex.domain.time import QUARTER
from coflex.market.coordination.capacity import window
from coflex.market.coordination.outcome import Held, LeaseAgreement
from coflex.market.coordination.session import Decided
from coflex.market.coordination.state import FREE, State
from coflex.market.coordination.view import View
from coflex.market.coordination.world import LeaseRequest, StorageLot, World
from coflex.market.design import (
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
from coflex.market.leasing import Lease, LeaseBid, Payment, Storage, auction

_PAYMENT = {Pricing.PAY_AS_BID: Payment.PAY_AS_BID, Pricing.PAY_AS_CLEAR: Payment.CLEARING}


# ---------------------------------------------------------------- what cannot be let


def obstacles(session: Session, design: Design, world: World) -> Iterator[tuple[str, str]]:
    """Why a session of storage cannot be held on a case, by code and message; nothing for one that trades another."""
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
    found: list[LeaseAgreement] = []
    lost = Counter[str]()
    lots = sorted(open_lots(view.session, view.world), key=lambda one: one.id)
    for lot in lots:
        requests = _bids(view, state, lot)
        buyer = {one.bid.id: one.buyer for one in requests}
        leases, losers = _auctioned(view.session, _offered(view, state, lot), requests)
        lost.update(losers)
        for lease in leases:
            status = view.plan.status(min(bundle.start for bundle in lease.bid.bundles))
            terms = (lot.id, lot.storage.owner, lot.unit, buyer[lease.bid.id].value, lease, status)
            found.append(LeaseAgreement(view.plan.id, *terms))
    state = _with(state, chain, (*state.leases, *((chain, one) for one in found)))
    cells: Bools = state.positions.reserved[:, view.part] == state.index(chain)
    return Decided(state, _told(view, len(lots), found, lost), cells)


def _told(view: View, lots: int, found: Sequence[LeaseAgreement], lost: Mapping[str, int]) -> Held:
    """What there is to tell of a session: lots are its offers, leases its awards, payments its cost."""
    remark = f"{len(found)} of {len(found) + sum(lost.values())} bids lease storage"
    if lost:
        remark += f"; lost: {', '.join(f'{count} {reason}' for reason, count in sorted(lost.items()))}"
    return Held(
        session=view.plan.id,
        closes=view.plan.closes,
        offers=lots,
        awards=len(found),
        bought_kwh=0.0,
        cost_eur=float(sum(one.lease.payment_eur for one in found)),
        concordant_kwh=0.0,
        discordant_kwh=0.0,
        validated=0,
        limited_kwh=0.0,
        uncovered=(),
        remark=remark,
    )


def agreements(state: State, rounds: Sequence[str]) -> tuple[LeaseAgreement, ...]:
    """What is let in the end, by round in the order in which they were held, lot and receipt."""
    ranked = sorted(
        (one for _, one in state.leases),
        key=lambda one: (rounds.index(one.session), one.lot, one.lease.bid.receipt, one.lease.bid.id),
    )
    return tuple(ranked)


# ---------------------------------------------------------------- bids, and what is offered


def _bids(view: View, state: State, lot: StorageLot) -> list[LeaseRequest]:
    """The bids of the session's buyers for a lot by receipt, but those that have won already, and those that exclude
    themselves beside one that has."""
    won = [one.lease.bid for _, one in state.leases if one.lot == lot.id]
    mine = [one for one in view.world.lease_bids if one.lot == lot.id and one.buyer in view.session.buyers]
    mine = [one for one in mine if one.bid.id not in {bid.id for bid in won}]
    return sorted(_beside(mine, won), key=lambda one: (one.bid.receipt, one.bid.id))


def _beside(requests: Sequence[LeaseRequest], won: Sequence[LeaseBid]) -> list[LeaseRequest]:
    """Bids of which no other with the same lessee and exclusive label has won."""
    labels = {(bid.lessee, bid.exclusive) for bid in won if bid.exclusive is not None}
    return [one for one in requests if (one.bid.lessee, one.bid.exclusive) not in labels]


def _turns(session: Session, requests: Sequence[LeaseRequest]) -> Iterator[Sequence[LeaseRequest]]:
    """The bids that are weighed against each other, in the order in which they are served."""
    if session.priority is Priority.NONE:
        yield requests
        return
    for buyer in session.buyers:
        mine = [one for one in requests if one.buyer is buyer]
        if session.matching is Matching.BILATERAL:
            yield from ([one] for one in mine)
        else:
            yield mine


def _auctioned(
    session: Session, storage: Storage, requests: Sequence[LeaseRequest]
) -> tuple[list[Lease], dict[str, int]]:
    """What is let of what is offered, and how many bids lost, by reason."""
    won: list[Lease] = []
    lost: Counter[str] = Counter()
    for turn in _turns(session, requests):
        bids = [one.bid for one in _beside(turn, [lease.bid for lease in won])]
        lost["exclusive"] += len(turn) - len(bids)
        leased = auction(storage, bids, _PAYMENT[session.pricing])
        storage = replace(storage, power_kw=leased.free_kw, energy_kwh=leased.free_kwh)
        won += leased.leases
        lost.update(one.reason.value for one in leased.lost)
    return won, {reason: count for reason, count in lost.items() if count}


def _offered(view: View, state: State, lot: StorageLot) -> Storage:
    """What of a lot may still be let: nothing in windows that are not open, and less what earlier rounds have let."""
    storage, chain = lot.storage, view.session.chain
    mine = [one for name, one in state.leases if one.lot == lot.id and name == chain]
    gone = sum((_use(storage, one.lease.bid) for one in mine), np.zeros((2, len(storage.windows)), dtype=np.int64))
    room = np.array([storage.power_kw, storage.energy_kwh], dtype=np.int64)
    seller = view.world.seller.get(lot.unit)
    if seller is not None and view.session.validation is Validation.STATIC:
        room[0] = np.minimum(room[0], min(seller.up_kw, seller.down_kw))
    left = np.maximum(room - gone, 0) * _open(view, state, lot)
    return replace(storage, power_kw=tuple(left[0].tolist()), energy_kwh=tuple(left[1].tolist()))


def _use(storage: Storage, bid: LeaseBid) -> Ints:
    """kW and kWh (2, windows) that a bid takes."""
    use = np.zeros((2, len(storage.windows)), dtype=np.int64)
    for bundle in bid.bundles:
        part = storage.windows.slice_of(storage.windows.window(bundle.start, bundle.end))
        use[:, part] += np.array([[bundle.power_kw], [bundle.energy_kwh]])
    return use


def _open(view: View, state: State, lot: StorageLot) -> Bools:
    """Windows of a lot all of whose quarter-hours lie in the horizon and the tender's hours, and in which no other
    chain has the unit or any of the lot."""
    world, chain = view.world, view.session.chain
    open_ = np.zeros(len(world.axis), dtype=np.bool_)
    open_[view.part] = window(view)
    mine: Bools = np.zeros_like(open_)
    for name, one in state.leases:
        if one.lot == lot.id and name == chain:
            mine[_cells(world, one)] = True
        elif one.lot == lot.id:
            open_[_cells(world, one)] = False
    if lot.unit:
        u, positions = state.unit_index[lot.unit], state.positions
        open_[(positions.holder[u] != FREE) | ((positions.reserved[u] != FREE) & ~mine)] = False
    windows = lot.storage.windows
    first, per = world.axis.position(windows.start), windows.step // world.axis.step
    return np.asarray(open_[first : first + per * len(windows)].reshape(len(windows), per).all(axis=1), dtype=np.bool_)


# ---------------------------------------------------------------- who holds the unit


def _cells(world: World, one: LeaseAgreement) -> Bools:
    """Quarter-hours of the case that a lease covers."""
    cells = np.zeros(len(world.axis), dtype=np.bool_)
    for bundle in one.lease.bid.bundles:
        cells[world.axis.slice_of(world.axis.window(bundle.start, bundle.end))] = True
    return cells


def _released(view: View, state: State) -> State:
    """The state without what the session's chain has let preliminarily on its horizon."""
    chain, horizon = view.session.chain, view.plan.horizon
    state = state.released(chain, horizon)
    kept, positions = [], state.positions.copy()
    for name, one in state.leases:
        if name != chain or one.status is Status.DEFINITIVE or not horizon.covers(one.start):
            kept.append((name, one))
        elif one.unit:
            positions.reserved[state.unit_index[one.unit], _cells(view.world, one)] = FREE
    return _with(replace(state, positions=positions), chain, kept)


def _with(state: State, chain: str, leases: Sequence[tuple[str, LeaseAgreement]]) -> State:
    """The state with these leases, the units behind those of a chain kept by it."""
    positions = state.positions.copy()
    for name, one in leases:
        if name == chain and one.unit:
            positions.reserved[state.unit_index[one.unit], _cells(state.world, one)] = state.index(chain)
    return replace(state, positions=positions, leases=tuple(leases))
