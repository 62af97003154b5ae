"""Sessions that hold capacity ready: reserve for a request, tenders for seasons and years, and the two-stage clearing
that buys awards and reserve over what the day could bring.

An offer of capacity is chosen by its availability price and, by the share of the time that the buyer reckons to call
it, its price of use. What is held keeps the unit from every other session but those that admit its contract.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal

import numpy as np
from scipy.special import ndtri
from scipy.stats import qmc

from coflex.domain.clearing import Award, MeritLine, Reason, Uncovered
from coflex.domain.offer import Offer
from coflex.domain.quantity import Bools, Direction, Floats, Ints
from coflex.domain.reserve import CapacityOffer, Reservation
from coflex.market.book import OrderBook, build, direction_of
from coflex.market.clearing import Answer, clear
from coflex.market.coordination.lights import filtered, lights
from coflex.market.coordination.outcome import Bought, Held
from coflex.market.coordination.session import Decided, under_filter, under_lights
from coflex.market.coordination.state import State
from coflex.market.coordination.supply import Supply, capped, eligible, offered_kw, part_of, places, supply, unit_caps
from coflex.market.coordination.validate import Walked, walk
from coflex.market.coordination.view import Task, View
from coflex.market.coordination.world import World
from coflex.market.design import Buyer, Interface, Pricing, Service, Session, Trades, Validation
from coflex.market.merit import merit_order, uncovered
from coflex.market.model import Demand
from coflex.market.pricing import bid, clock_hours
from coflex.market.stochastic import clear_two_stage, reservations
from coflex.market.two_stage.inputs import Outlook, Surroundings, build_reserve


def services(session: Session) -> tuple[Service, ...]:
    """The services for which a session holds capacity, in its order."""
    if session.trades is Trades.INERTIA:
        return (Service.INERTIA,)
    return session.services or tuple(Service)


def asked(session: Session, world: World) -> bool:
    """Whether the case has a request for what a session of capacity holds ready."""
    return any(volumes(session, world, service) for service in services(session))


def volumes(session: Session, world: World, service: Service) -> dict[Direction, Ints]:
    """kW (t,) that the buyers of a session want to be held ready of a service, by direction."""
    found: dict[Direction, Ints] = {}
    for buyer, wanted in ((Buyer.TSO, world.reserve_kw), (Buyer.DSO, world.local_kw)):
        for way in Direction:
            if buyer in session.buyers and (service, way) in wanted:
                found[way] = found.get(way, 0) + wanted[service, way]
    return found


def window(view: View) -> Bools:
    """Quarter-hours (h,) in which a tender's contract holds; all of them without windows."""
    tender = view.session.tender
    axis = view.plan.horizon
    if tender is None or not tender.windows:
        return np.ones(len(axis), dtype=np.bool_)
    local = [start.astimezone(view.world.zone) for start in axis]
    minute = np.array([at.hour * 60 + at.minute for at in local])
    inside = np.zeros(len(axis), dtype=np.bool_)
    for text in tender.windows:
        begin, end = (int(part[:2]) * 60 + int(part[3:]) for part in text.split("/"))
        inside |= (minute >= begin) & (minute < end)
    return inside


def hold_capacity(view: View, state: State, without: Bools | None = None, lists: bool = False) -> Decided:
    """Hold one session of capacity: each service in turn, up and down.

    Guarantees: what is held is within offers, within static lights (inertia has none), within the perimeters' lights
    or walked by the DSO where the design says so, and of units that no other session holds or keeps ready.
    """
    state = state.released(view.session.chain, view.plan.horizon)
    tally = _Tally()
    for service in services(view.session):
        if volumes(view.session, view.world, service):
            one = _Capacity(view, state, service, without)
            state = one.held(tally)
            tally.lacking += one.uncovered()
            tally.merit += one.merit() if lists else []
    held = Held(
        session=view.plan.id,
        closes=view.plan.closes,
        offers=tally.offers,
        awards=tally.awards,
        bought_kwh=0.0,
        cost_eur=float(tally.cost_eur),
        concordant_kwh=0.0,
        discordant_kwh=0.0,
        validated=tally.validated,
        limited_kwh=tally.limited_kwh,
        uncovered=tuple(tally.lacking),
        merit=tuple(tally.merit),
        remark=f"{tally.kw_h:.0f} kW h held ready",
    )
    kept = state.positions.reserved[:, view.part] == state.index(view.session.chain)
    return Decided(state, held, kept)


class _Tally:
    """What the services of a session add up to."""

    def __init__(self) -> None:
        self.offers = self.awards = self.validated = 0
        self.cost_eur, self.limited_kwh, self.kw_h = Decimal(0), 0.0, 0.0
        self.lacking: list[Uncovered] = []
        self.merit: list[MeritLine] = []


class _Capacity:
    """One service of a session of capacity."""

    def __init__(self, view: View, state: State, service: Service, without: Bools | None) -> None:
        self.view, self.state, self.service = view, state, service
        world = view.world
        self.offers = {
            one.offer.id: one for one in world.capacity.get(service, ()) if eligible(view, one.offer, service)
        }
        share = view.session.tender.called_share if view.session.tender else 0.0
        book = build(
            [_weighed(one, share) for one in self.offers.values()], view.plan.horizon, places(world), frozenset()
        )
        caps = unit_caps(view, state)
        if under_filter(view):
            everything = offered_kw(view, book, np.ones(len(book), dtype=np.bool_))
            caps = filtered(view, state, np.minimum(everything, caps), caps)
        if service is Service.INERTIA:
            caps = np.full_like(caps, np.inf)
        book, self.limited_kwh = capped(view, book, caps, np.ones(len(book), dtype=np.bool_))
        self.given = self._open(book, without)
        self.demand = self._demand()
        self.capability = (
            lights(view, state, offered_kw(view, book, self.given.admissible)) if under_lights(view) else None
        )
        self.walked = Walked(0, 0.0)
        if view.session.validation is Validation.MERIT_ORDER and service is not Service.INERTIA:
            self.answer, self.given, self.walked = walk(view, state, self.given, self._clear, ready=True)
        else:
            self.answer = self._clear(self.given)

    def _clear(self, given: Supply) -> Answer:
        return clear(given.book, given.admissible, self.demand, None, self.capability)

    def _open(self, book: OrderBook, without: Bools | None) -> Supply:
        """Blocks of units that neither another session holds nor another service keeps ready."""
        positions, part = self.state.positions, self.view.part
        free = (positions.holder[:, part] == -1) & (positions.reserved[:, part] == -1)
        if without is not None:
            free &= ~without
        index = self.state.unit_index
        units = np.array([index[offer.unit or ""] for offer in book.offers], dtype=np.int64)
        open_: Bools = free[units[book.offer], book.period] if len(book) else np.zeros(0, dtype=np.bool_)
        shut = dict.fromkeys(np.flatnonzero(~open_).tolist(), (Reason.HELD_ELSEWHERE, "kept ready for another"))
        return Supply(book, open_, shut, None, self.limited_kwh, np.zeros(len(book), dtype=np.bool_))

    def _demand(self) -> Demand:
        """The request of each direction; a product without direction asks for up."""
        inside = window(self.view)
        sign, period, kw = [], [], []
        for way, asked_kw in volumes(self.view.session, self.view.world, self.service).items():
            wanted = np.ceil(asked_kw[self.view.part] * self.view.session.request_share) * inside
            if self.view.session.interface is Interface.NETTED:
                wanted = np.maximum(0, wanted - self._held_kw(way))
            at = np.flatnonzero(wanted > 0)
            sign.append(np.full(len(at), way.sign, dtype=np.int64))
            period.append(at)
            kw.append(wanted[at])
        limit = np.full(sum(map(len, period)), self.view.world.value_eur_mwh)
        return Demand(np.concatenate(sign), np.concatenate(period), np.concatenate(kw) / 1000.0, limit)

    def _held_kw(self, way: Direction) -> Ints:
        """kW (h,) of the service that sessions before this one keep ready in a direction."""
        horizon = self.view.plan.horizon
        kw = np.zeros(len(horizon), dtype=np.int64)
        for _, one in self.state.reservations:
            if one.product == self.service.value and one.direction is way and horizon.covers(one.start):
                kw[horizon.position(one.start)] += one.quantity_kw
        return kw

    def held(self, tally: _Tally) -> State:
        """The state with what is held ready."""
        view, book = self.view, self.given.book
        found, hours = [], view.plan.horizon.hours
        paid = self._paid()
        for i in np.flatnonzero(self.answer.award_kw > 0).tolist():
            offer = book.offers[int(book.offer[i])]
            step = int(book.step[i])
            start = view.plan.horizon[int(book.period[i])]
            kw = int(self.answer.award_kw[i])
            found.append(
                (
                    self.state.unit_index[offer.unit or ""],
                    Reservation(
                        session=view.plan.id,
                        offer=offer.id,
                        step=offer.steps[step].number,
                        provider=offer.provider,
                        buyer="+".join(buyer.value for buyer in view.session.buyers),
                        product=self.service.value,
                        unit=offer.unit,
                        group=offer.group,
                        direction=direction_of(int(book.sign[i])),
                        start=start,
                        quantity_kw=kw,
                        availability_eur_mw_h=paid[i],
                        use_eur_mwh=self.offers[offer.id].offer.steps[step].price_eur_mwh,
                        status=view.plan.status(start),
                    ),
                )
            )
            tally.cost_eur += paid[i] * kw * Decimal(str(hours)) / 1000
            tally.kw_h += kw * hours
        tally.offers += len(book.offers)
        tally.awards += len(found)
        tally.validated += self.walked.rounds
        tally.limited_kwh += float(self.limited_kwh.sum()) + self.walked.limited_kwh
        return self.state.with_reservations(view.session.chain, found)

    def _paid(self) -> Mapping[int, Decimal]:
        """EUR per MW and hour for each block that is held: as bid, or the dearest of its quarter-hour (marginal: of its
        clock hour) and direction."""
        book = self.given.book
        own = {
            i: self.offers[book.offers[int(book.offer[i])].id].availability_eur_mw_h[int(book.step[i])]
            for i in np.flatnonzero(self.answer.award_kw > 0).tolist()
        }
        if self.view.session.pricing is Pricing.PAY_AS_BID:
            return own
        marginal = self.view.session.pricing is Pricing.MARGINAL
        when = clock_hours(book.axis)[book.period] if marginal else book.period
        cells = {i: (int(when[i]), int(book.sign[i])) for i in own}
        dearest: dict[tuple[int, int], Decimal] = {}
        for i, price in own.items():
            dearest[cells[i]] = max(dearest.get(cells[i], price), price)
        return {i: dearest[cells[i]] for i in own}

    def uncovered(self) -> list[Uncovered]:
        return list(uncovered(self.view.plan.id, self.given.book, self.demand, self.answer))

    def merit(self) -> list[MeritLine]:
        view = self.view
        return list(
            merit_order(
                view.plan.id, self.given.book, self.answer, self.given.shut, self.capability or {}, view.plan.status
            )
        )


def _weighed(one: CapacityOffer, share: float) -> Offer:
    """The offer at the price by which capacity is chosen."""
    weight = Decimal(str(share))
    steps = tuple(
        replace(step, price_eur_mwh=availability + weight * step.price_eur_mwh)
        for step, availability in zip(one.offer.steps, one.availability_eur_mw_h, strict=True)
    )
    return replace(one.offer, steps=steps)


# ---------------------------------------------------------------- over what the day could bring


@dataclass(frozen=True, eq=False)
class _Scenarios:
    """Injections (s, h, n) in MW and Mvar that the day could bring, equally likely."""

    p_mw: Floats
    q_mvar: Floats


def scenarios(view: View, state: State) -> _Scenarios:
    """What could come, seen from the gate: each grid's forecast error is a factor of its own, normal, stratified over
    the scenarios by a Sobol sequence; its size is the case's at that distance."""
    world, stated = view.world, view.session.scenarios
    assert stated is not None
    factors = len(world.grids) + 1
    points = qmc.Sobol(factors, seed=stated.seed).random(1 << (stated.count - 1).bit_length())[: stated.count]
    rank = np.argsort(np.argsort(points, axis=0, kind="stable"), axis=0)
    normal = ndtri((rank + 0.5) / stated.count)
    p, q = view.injections(state)
    errors = world.errors(view.plan.closes)[view.part]
    of_node = normal[:, world.node_grid]  # the last factor is transmission's, index -1
    drawn = p[None] - of_node[:, None, :] * errors[None]
    return _Scenarios(drawn, np.broadcast_to(q, drawn.shape).copy())


def hold_scenarios(view: View, state: State, without: Bools | None = None) -> Decided:
    """Hold a two-stage session: awards for all scenarios, reserve to be called in each (MKT-15)."""
    world, session = view.world, view.session
    state = state.released(session.chain, view.plan.horizon)
    caps = unit_caps(view, state)
    network = world.seen(True, session.grid.transmission.sees_network)
    task = Task((Buyer.DSO,), True, False, (), True, session.grid.transmission.sees_network)
    given = supply(view, task, state, caps, None, without)
    drawn = scenarios(view, state)
    energy = _open_blocks(given)
    kept = [one for service in services(session) for one in world.capacity.get(service, ())]
    kept = [one for one in {one.offer.id: one for one in kept}.values() if eligible(view, one.offer, None)]
    reserve = build_reserve(kept, view.plan.horizon, places(world))
    count = len(drawn.p_mw)
    outlook = Outlook(np.full(count, 1.0 / count), None, Surroundings(network, drawn.p_mw, drawn.q_mvar, view.guard))
    answer = clear_two_stage(energy, reserve, outlook, world.emergency_eur_mwh)
    free = state.free(session.chain, view.admits, view.part)
    index = state.unit_index
    told = reservations(reserve, kept, answer.reserved_kw, view.plan.id, "dso")
    held = [
        (index[one.unit or ""], replace(one, product=Service.CONGESTION.value, status=view.plan.status(one.start)))
        for one in told
        if free[index[one.unit or ""], view.plan.horizon.position(one.start)]
    ]
    bought = _awards(view, energy, answer.award_kw)
    after = state.with_awards(session.chain, view.plan.firm, [(index[b.award.unit or ""], b) for b in bought])
    after = after.with_reservations(session.chain, [pair for pair in held if not _taken(after, view, pair)])
    return Decided(after, _told(view, given, bought, held, answer.gap), after.positions.holder[:, view.part] >= 0)


def _taken(state: State, view: View, pair: tuple[int, Reservation]) -> bool:
    return bool(state.positions.holder[pair[0], view.world.axis.position(pair[1].start)] != -1)


def _open_blocks(given: Supply) -> OrderBook:
    """The blocks that may be bought; the others with nothing to give."""
    return part_of(given.book, np.flatnonzero(given.admissible))


def _awards(view: View, book: OrderBook, award_kw: Ints) -> list[Bought]:
    found = []
    for i in np.flatnonzero(award_kw > 0).tolist():
        offer = book.offers[int(book.offer[i])]
        start = view.plan.horizon[int(book.period[i])]
        price = bid(book, i)
        award = Award(
            view.plan.id,
            offer.id,
            offer.steps[int(book.step[i])].number,
            offer.provider,
            "dso",
            offer.product,
            offer.unit,
            offer.group,
            direction_of(int(book.sign[i])),
            start,
            int(award_kw[i]),
            price,
            price,
            view.plan.status(start),
        )
        found.append(Bought(award, view.world.seller[offer.unit or ""].grid, 1.0, 0.0, 0.0, bool(book.reactive[i])))
    return found


def _told(view: View, given: Supply, bought: list[Bought], held: list[tuple[int, Reservation]], gap: float) -> Held:
    hours = view.plan.horizon.hours
    scale = Decimal(str(hours)) / 1000
    energy = sum((b.award.quantity_kw * scale * b.award.price_eur_mwh for b in bought), Decimal(0))
    ready = sum((one.quantity_kw * scale * one.availability_eur_mw_h for _, one in held), Decimal(0))
    return Held(
        session=view.plan.id,
        closes=view.plan.closes,
        offers=len(given.book.offers),
        awards=len(bought) + len(held),
        bought_kwh=sum(b.award.quantity_kw for b in bought) * hours,
        cost_eur=float(energy + ready),
        concordant_kwh=0.0,
        discordant_kwh=0.0,
        validated=0,
        limited_kwh=float(given.limited_kwh.sum()),
        uncovered=(),
        remark=f"{sum(one.quantity_kw for _, one in held) * hours:.0f} kW h held ready over scenarios, gap {gap:.1e}",
    )
