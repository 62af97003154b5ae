"""What is offered to a session: whose offers reach it, what keeps a block out, and how far a unit may go.

Offers of units and groups come from the case. Beside them stand those that the platform makes: contracted capacity at
its price of use, a DSO's lower voltage, what a distribution grid has left as one curve at its interface, and orders of
balance responsible parties, who take energy up to a price as any other block gives it from one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

import numpy as np

from coflex.domain.clearing import Reason
from coflex.domain.offer import Offer, OfferStep
from coflex.domain.quantity import Bools, Direction, Floats, Ints
from coflex.domain.reserve import Reservation
from coflex.market.book import OrderBook, Place, build, seller
from coflex.market.coordination.state import State
from coflex.market.coordination.view import Task, View
from coflex.market.coordination.world import World
from coflex.market.design import Buyer, Interface, Resource, Service, SessionPlan, Trades
from coflex.market.pricing import bid

ORDER, VOLTAGE, AGGREGATE, CONTRACT = "order ", "voltage ", "aggregate ", "contract "
# Receipt numbers of what the platform makes: after all that came in.
MADE = 10**9
# EUR/MWh by which contracted capacity of conditional activation stands behind every free offer in the choice.
LAST = 1e4

Shut = dict[int, tuple[Reason, str]]


@dataclass(frozen=True, eq=False)
class Supply:
    """A book with what may be bought of it. `admissible[n]`; `shut`: why a block may not. `toll[n]`, EUR/MWh: what
    the choice adds to prices, None for nothing. `limited_kwh[h]`: what limits of units took off offers. `last[n]`:
    contracted for calls after every free offer."""

    book: OrderBook
    admissible: Bools
    shut: Shut
    toll: Floats | None
    limited_kwh: Floats
    last: Bools


def supply(
    view: View,
    task: Task,
    state: State,
    caps: Floats,
    made: Sequence[Offer] | None = None,
    without: Bools | None = None,
) -> Supply:
    """What a task may buy.

    `caps[u, 2, h]`: kW that each unit may give up and down (`unit_caps`). `made`: aggregates of distribution grids,
    which then stand for all offers below, None where none are forwarded. `without[u, h]`: cells that another session
    keeps.
    """
    world, session = view.world, view.session
    usable = _usable(view, state, without)
    offers: list[Offer] = [*(made or ())]
    for offer in _in_terms(view, state, _free(view, task, made is not None)):
        offers += [offer] if offer.unit is not None else _of_units(view, offer, usable)
    contracts = _contracts(view, state)
    offers += contracts
    if Resource.VOLTAGE_REDUCTION in session.sellers.resources:
        offers += _reductions(world, state)
    offers += [offer for o in task.orders for offer in _orders(world, state, o)]
    book = build(offers, view.plan.horizon, places(world), world.reactive)
    usable = _usable(view, state, without)
    book, limited = capped(
        view, book, np.where(usable[:, None, :], caps, 0.0), _admissible(view, state, book, usable)[0]
    )
    admissible, shut = _admissible(view, state, book, usable)
    return Supply(book, admissible, shut, _toll(view, state, book), limited, _last(view, book))


def _last(view: View, book: OrderBook) -> Bools:
    """Blocks of contracts that are called after every free offer."""
    names = tuple(f"{CONTRACT}{chain} " for chain in view.last)
    of_offer = np.array([bool(names) and offer.id.startswith(names) for offer in book.offers], dtype=np.bool_)
    return of_offer[book.offer] if len(book) else np.zeros(0, dtype=np.bool_)


def unit_caps(view: View, state: State) -> Floats:
    """kW (u, 2, h) that each unit may give up and down: what its static light confirms, where one counts."""
    world = view.world
    caps = np.array([[one.up_kw, one.down_kw] for one in world.sellers], dtype=np.float64).reshape(-1, 2, 1)
    if view.session.validation.value == "none":
        caps = np.full_like(caps, np.inf)
    return np.repeat(caps, len(view.plan.horizon), axis=2)


def potential_kw(view: View, state: State, made: Sequence[Offer] | None = None) -> Floats:
    """kW (u, 2, h) that units offer the session and that it may buy, contracted capacity in it, before any light: what
    lights and filters reckon with."""
    whole = Task(view.session.buyers, False, False, (), False, False)
    given = supply(view, whole, state, np.full((len(view.world.sellers), 2, len(view.plan.horizon)), np.inf), made)
    return offered_kw(view, given.book, given.admissible)


def offered_kw(view: View, book: OrderBook, open_: Bools) -> Floats:
    """kW (u, 2, h) of active power in the open blocks of units."""
    found = np.zeros((len(view.world.sellers), 2, len(view.plan.horizon)))
    index = {one.id: u for u, one in enumerate(view.world.sellers)}
    kw = np.where(open_ & ~book.reactive, book.quantity_mw * 1000, 0.0)
    way = (book.sign < 0).astype(np.int64)
    units = np.array([index.get(offer.unit or "", -1) for offer in book.offers], dtype=np.int64)
    alone = np.flatnonzero(units[book.offer] >= 0) if len(book) else np.zeros(0, dtype=np.int64)
    np.add.at(found, (units[book.offer[alone]], way[alone], book.period[alone]), kw[alone])
    limits = np.array([[one.up_kw, one.down_kw] for one in view.world.sellers], dtype=np.float64).reshape(-1, 2, 1)
    return np.minimum(found, limits)


# ---------------------------------------------------------------- whose offers


def eligible(view: View, offer: Offer, service: Service | None) -> bool:
    """Whether an offer of units reaches a session: its level, and a service that all of its units are qualified for
    (the session's own, where none is named)."""
    world, session = view.world, view.session
    members = world.groups.get(offer.group or "", ()) if offer.unit is None else (offer.unit,)
    units = [world.seller[name] for name in members]
    wanted = session.services if service is None else (service,)
    return (
        bool(units)
        and Resource.UNITS in session.sellers.resources
        and all(one.level in session.sellers.levels for one in units)
        and (not wanted or all(set(one.services) & set(wanted) for one in units))
        and not (offer.local_only and Buyer.DSO not in session.buyers)
        and session.product in (None, offer.product)
    )


def _free(view: View, task: Task | None, aggregated: bool) -> list[Offer]:
    """The case's offers that reach a task: eligible, of the kind of quantity that is traded, of its grid; none of
    distribution grids where aggregates stand for them."""
    world, trades = view.world, view.session.trades
    active, reactive = (
        trades is not Trades.REACTIVE_ENERGY,
        trades in (Trades.REACTIVE_ENERGY, Trades.ACTIVE_AND_REACTIVE),
    )
    found = []
    for offer in world.offers:
        if not (reactive if offer.product in world.reactive else active) or not eligible(view, offer, None):
            continue
        members = world.groups.get(offer.group or "", ()) if offer.unit is None else (offer.unit,)
        grids = {world.seller[name].grid for name in members}
        if aggregated and grids != {""}:
            continue
        if task is not None and task.grid is not None and grids != {world.grids[task.grid]}:
            continue
        found.append(offer)
    return found


def _in_terms(view: View, state: State, offers: Sequence[Offer]) -> Iterator[Offer]:
    """Offers that their own terms still let stand: valid when the gate closes, blocks wholly inside the horizon, runs
    of limited length not sold before, energy less what other rounds took."""
    hours = view.plan.horizon.hours
    limited = {offer.id for offer in offers if offer.energy_limit_kwh is not None or offer.max_periods is not None}
    used = dict.fromkeys(limited, 0.0)
    for _, one in state.bought if limited else ():
        if one.award.offer in used:
            used[one.award.offer] += one.award.quantity_kw * hours
    taken = _labels_taken(view, state, offers)
    for offer in offers:
        if offer.valid_until is not None and offer.valid_until <= view.plan.closes:
            continue
        if taken.get(offer.exclusive or "", offer.id) != offer.id:
            continue
        if offer.block and not _whole_in(offer, view.plan):
            continue
        if offer.max_periods is not None and used[offer.id]:
            continue
        if offer.energy_limit_kwh is not None:
            yield replace(offer, energy_limit_kwh=max(0, int(offer.energy_limit_kwh - used[offer.id])))
        else:
            yield offer


def _whole_in(offer: Offer, plan: SessionPlan) -> bool:
    """Whether a block lies wholly in what the round decides for good, or wholly in what it leaves open."""
    axis = plan.horizon
    starts = min(step.start for step in offer.steps)
    ends = max(step.start + len(step.quantity_kw) * axis.step for step in offer.steps)
    return axis.start <= starts and ends <= axis.end and (ends <= plan.firm.end or starts >= plan.firm.end)


def _labels_taken(view: View, state: State, offers: Sequence[Offer]) -> dict[str, str]:
    """Of labels whose offers exclude each other: the one that was bought before."""
    label = {offer.id: offer.exclusive for offer in view.world.offers if offer.exclusive is not None}
    if not any(offer.exclusive is not None for offer in offers):
        return {}
    sold = (one.award for _, one in state.bought)
    return {label[one.offer] or "": one.offer for one in sold if one.offer in label}


def _of_units(view: View, offer: Offer, usable: Bools) -> Iterator[Offer]:
    """A group's offer as offers of its units, by the ledger's rule: in each quarter-hour the strongest unit that is
    free first, ids breaking ties, each filled before the next is touched. Units that are not needed stay free (MKT-09).
    """
    world, axis = view.world, view.plan.horizon
    index = {one.id: u for u, one in enumerate(world.sellers)}
    members = sorted(
        world.groups[offer.group or ""], key=lambda name: (-world.seller[name].limit_kw(offer.direction), name)
    )
    left = {name: np.where(usable[index[name]], world.seller[name].limit_kw(offer.direction), 0) for name in members}
    steps: dict[str, list[OfferStep]] = {name: [] for name in members}
    for step in sorted(offer.steps, key=lambda one: one.number):
        wanted = np.zeros(len(axis), dtype=np.int64)
        first = (step.start - axis.start) // axis.step
        begin, end = max(0, first), min(len(axis), first + len(step.quantity_kw))
        if begin < end:
            wanted[begin:end] = step.quantity_kw[begin - first : end - first]
        for name in members:
            share = np.minimum(wanted, left[name])
            if share.any():
                steps[name].append(replace(step, start=axis.start, quantity_kw=tuple(share.tolist())))
                left[name] = left[name] - share
                wanted = wanted - share
    for name in members:
        if steps[name]:
            yield replace(offer, id=f"{offer.id}/{name}", unit=name, steps=tuple(steps[name]))


def _contracts(view: View, state: State) -> list[Offer]:
    """Contracted capacity that the session admits, at its price of use."""
    session = view.session
    mine = [(name, one) for name, one in state.reservations if name in view.admits]
    kept: dict[tuple[str, str, str, Decimal], list[Reservation]] = {}
    for chain, one in mine:
        if one.unit is None or not view.plan.horizon.covers(one.start):
            continue
        if view.world.seller[one.unit].level in session.sellers.levels:
            kept.setdefault((chain, one.unit, one.direction.value, one.use_eur_mwh), []).append(one)
    return [_contract(view.world, k, key, kept[key]) for k, key in enumerate(sorted(kept))]


def _contract(world: World, k: int, key: tuple[str, str, str, Decimal], those: Sequence[Reservation]) -> Offer:
    chain, unit, direction, price = key
    kw = np.zeros(len(world.axis), dtype=np.int64)
    for one in those:
        kw[world.axis.position(one.start)] += one.quantity_kw
    step = OfferStep(1, world.axis.start, price, tuple(kw.tolist()))
    name = f"{CONTRACT}{chain} {unit} {direction} {price}"
    return replace(_offer(name, k, those[0].provider, Direction(direction), (step,), world), unit=unit)


def _reductions(world: World, state: State) -> list[Offer]:
    """A DSO's lower voltage: one offer a grid, one step a tap."""
    offers = []
    for r, one in enumerate(world.reductions):
        left = one.kw.copy()
        before = np.cumsum(left, axis=0) - left
        left = left - np.clip(state.lowered_kw[:, r].sum(axis=0) - before, 0, left)
        steps = tuple(
            OfferStep(s + 1, world.axis.start, _price(price), tuple(left[s].tolist()))
            for s, price in enumerate(one.price_eur_mwh)
        )
        offers.append(_offer(f"{VOLTAGE}{one.grid}", 10**6 + r, f"dso {one.grid}", Direction.UP, steps, world))
    return offers


def _orders(world: World, state: State, o: int) -> Iterator[Offer]:
    """An order as offers: taking energy at a price is giving its opposite for less than nothing."""
    one = world.orders[o]
    left = one.kw - state.orders_kw[:, o].sum(axis=0)
    for k, direction in enumerate((Direction.DOWN, Direction.UP)):
        kw = np.where(-direction.sign * one.kw > 0, np.maximum(0, -direction.sign * left), 0)
        if kw.any():
            step = OfferStep(1, world.axis.start, -_price(one.limit_eur_mwh), tuple(kw.tolist()))
            made = _offer(f"{ORDER}{one.id}", 2 * (10**6 + o) + k, one.party, direction, (step,), world)
            yield replace(made, id=f"{made.id} {direction.value}")


def _offer(name: str, k: int, provider: str, direction: Direction, steps: tuple[OfferStep, ...], world: World) -> Offer:
    return Offer(
        id=name,
        receipt=MADE + k,
        received_at=world.axis.start,
        session="",
        provider=provider,
        product="energy",
        direction=direction,
        unit=name,
        group=None,
        steps=steps,
    )


def aggregate_offer(world: World, grid: int, direction: Direction, steps: tuple[OfferStep, ...]) -> Offer:
    """What a distribution grid has left in a direction, as one offer at its interface."""
    way = 0 if direction is Direction.UP else 1
    made = _offer(
        f"{AGGREGATE}{world.grids[grid]}", 2 * grid + way, f"dso {world.grids[grid]}", direction, steps, world
    )
    return replace(made, id=f"{made.id} {direction.value}")


def _price(eur: float) -> Decimal:
    return Decimal(str(round(eur, 2)))


def places(world: World) -> Mapping[str, Place]:
    """Where every seller acts; what the platform makes acts at no node, or at a grid's border."""
    zone = {name: g for g, name in enumerate(world.grids)}
    places = {one.id: Place(one.node, one.light, one.tan_phi, zone.get(one.grid, -1)) for one in world.sellers}
    nowhere = Place(-1, "", 0.0, -1)
    places |= {f"{ORDER}{one.id}": nowhere for one in world.orders}
    places |= {f"{VOLTAGE}{one.grid}": nowhere for one in world.reductions}
    places |= {f"{AGGREGATE}{name}": Place(int(world.border[g]), "", 0.0, -1) for name, g in zone.items()}
    return places


# ---------------------------------------------------------------- how far


def capped(view: View, book: OrderBook, caps: Floats, open_: Bools) -> tuple[OrderBook, Floats]:
    """The book with each unit's active blocks cut to its caps, the dearest first; and the kWh cut off in each
    quarter-hour (h,). Blocks that may not be bought anyway use up nothing."""
    limit = _limits(view, book, caps)
    lost = np.zeros(len(book.axis))
    if not len(book):
        return book, lost
    _, who = np.unique(np.array([seller(offer) for offer in book.offers]), return_inverse=True)
    way = (book.sign < 0).astype(np.int64)
    key = ((who[book.offer] * 2 + way) * 2 + book.reactive) * len(book.axis) + book.period
    order = np.argsort(key, kind="stable")
    kw = np.round(book.quantity_mw[order] * 1000) * open_[order]
    before = np.cumsum(kw) - kw
    first = np.searchsorted(key[order], key[order])
    before -= before[first]
    cut = np.zeros(len(book))
    cut[order] = np.clip(limit[order] - before, 0, kw)
    offered = np.round(book.quantity_mw * 1000)
    cut = in_terms(book, cut)
    cut = np.where(open_, cut, offered)
    np.add.at(lost, book.period, (offered - cut) * book.axis.hours)
    return (_kept(replace(book, quantity_mw=np.floor(cut) / 1000.0)) if lost.any() else book), lost


def in_terms(book: OrderBook, kw: Floats) -> Floats:
    """What is left of kW (n,) that blocks are cut to: of a block offer all or nothing, of a least quantity that much in
    a quarter-hour, all steps together, or nothing."""
    offered = np.round(book.quantity_mw * 1000)
    left = kw.copy()
    whole = np.array([offer.block for offer in book.offers], dtype=np.bool_)
    spoiled = np.bincount(book.offer[kw < offered], minlength=len(book.offers)) > 0
    left[(whole & spoiled)[book.offer]] = 0.0
    least = np.array([offer.min_quantity_kw for offer in book.offers], dtype=np.float64)
    cell = book.offer * len(book.axis) + book.period
    total = np.bincount(cell, weights=left, minlength=len(book.offers) * len(book.axis))
    all_of_it = np.bincount(cell, weights=offered, minlength=len(total))
    left[total[cell] < np.minimum(least[book.offer], all_of_it[cell])] = 0.0
    return left


def _kept(book: OrderBook) -> OrderBook:
    """The book without empty blocks."""
    return part_of(book, np.flatnonzero(book.quantity_mw > 0))


def part_of(book: OrderBook, rows: Ints) -> OrderBook:
    """Some blocks of a book, in its order."""
    columns = ("offer", "step", "period", "sign", "quantity_mw", "price", "node", "perimeter", "tan_phi", "p_share")
    return replace(book, **{name: getattr(book, name)[rows] for name in (*columns, "zone")})


def _limits(view: View, book: OrderBook, caps: Floats) -> Floats:
    """kW (n,) that the seller of each block may give in its direction and quarter-hour; no limit for what is not a
    unit's active power."""
    index = {one.id: u for u, one in enumerate(view.world.sellers)}
    way = (book.sign < 0).astype(np.int64)
    limit = np.full(len(book), np.inf)
    units = np.array([index.get(offer.unit or "", -1) for offer in book.offers], dtype=np.int64)
    mine = (units[book.offer] >= 0) & ~book.reactive if len(book) else np.zeros(0, dtype=np.bool_)
    limit[mine] = caps[units[book.offer[mine]], way[mine], book.period[mine]]
    return limit


def _usable(view: View, state: State, without: Bools | None) -> Bools:
    """Cells (u, h) from which the session may buy."""
    usable = state.free(view.session.chain, view.admits, view.part)
    return usable if without is None else usable & ~without


def _admissible(view: View, state: State, book: OrderBook, usable: Bools) -> tuple[Bools, Shut]:
    """Blocks that may be bought, and why the others may not."""
    world, index = view.world, state.unit_index
    kept = state.contracted(view.admits, view.part)
    per_offer = np.ones((len(book.offers), len(book.axis)), dtype=np.bool_)
    free = usable & ~kept
    for o, offer in enumerate(book.offers):
        if offer.unit in index:
            per_offer[o] = (usable if offer.id.startswith(CONTRACT) else free)[index[offer.unit]]
    admissible: Bools = per_offer[book.offer, book.period] if len(book) else np.zeros(0, dtype=np.bool_)
    shut: Shut = dict.fromkeys(np.flatnonzero(~admissible).tolist(), (Reason.HELD_ELSEWHERE, "held by another session"))
    dear = admissible & (book.price > world.value_eur_mwh)
    for i in np.flatnonzero(dear).tolist():
        shut[i] = Reason.PRICE_LIMIT, f"the buyer pays at most {world.value_eur_mwh:g}, not {bid(book, i)} EUR/MWh"
    return admissible & ~dear, shut


def _toll(view: View, state: State, book: OrderBook) -> Floats | None:
    """What the choice adds to prices: the price of energy at a priced interface."""
    toll = np.zeros(len(book))
    if view.session.interface is Interface.PRICED:
        stated = view.world.energy_eur_mwh if state.energy_eur_mwh is None else state.energy_eur_mwh
        energy = stated[view.part]
        toll -= book.sign * book.p_share * energy[book.period]
    return toll if toll.any() else None
