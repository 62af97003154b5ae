"""What a distribution grid has left, as one supply curve at its interface, and what was taken of it, laid on units.

The curve is drawn by the grid's own clearing: for each step of power at the interface the cheapest way to bring it
about within the grid's limits; the difference in cost from step to step is the step's price. What the session above
takes is laid on units by the same clearing, at once, or by a later session of the grid's own that keeps its interface
fixed (the second of two linked optimisations; SmartNet D).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, Decimal

import numpy as np

from coflex.domain.offer import Offer, OfferStep
from coflex.domain.quantity import Bools, Direction, Floats, Ints
from coflex.grid.means import OperatedGrid
from coflex.grid.rows import AcGrid
from coflex.market.book import OrderBook
from coflex.market.comparison import clear_on
from coflex.market.coordination.session import cleared, own_plan
from coflex.market.coordination.state import State
from coflex.market.coordination.supply import Supply, aggregate_offer, supply, unit_caps
from coflex.market.coordination.view import Task, View
from coflex.market.design import Buyer, Interface, Needs, Offered, Session
from coflex.market.model import Demand

# Steps of a curve in each direction, at most.
STEPS = 6
# EUR/MWh up to which a step is on offer: beyond, the grid could not bring it about.
MOST = 1e5


def source(view: View) -> Session | None:
    """The session that forwards its grid's curve to this one, if one does."""
    for one in view.design.sessions:
        if one.forward is not None and one.forward.to == view.session.id and one.forward.offers is Offered.AGGREGATED:
            return one
    return None


def aggregates(view: View, state: State) -> tuple[Offer, ...] | None:
    """One offer a grid and direction, of what it can still bring about at its interface; None where none is forwarded.

    Steps are relative to what the grid plans: preliminary awards of the session that forwards count as its plan.
    """
    below = source(view)
    if below is None:
        return None
    local = _local(view, below)
    plan_kw = own_plan(local, state)
    bare = state.released(below.chain, view.plan.horizon)
    curve = _Curve(local, bare, plan_kw)
    offers = []
    for g in range(len(view.world.grids)):
        for direction in Direction:
            steps = curve.steps(g, direction)
            if steps:
                offers.append(aggregate_offer(view.world, g, direction, steps))
    return tuple(offers)


def promised(state: State) -> Bools:
    """Where distribution grids still owe something, (g, t)."""
    owed: Bools = ~np.isnan(state.owed_kw) & (np.nan_to_num(state.owed_kw) != 0)
    return owed


def lay(view: View, state: State) -> State:
    """What grids owe laid on their units, unless a later session of theirs will; the buyer above holds and pays it."""
    below = source(view)
    if below is None or not promised(state)[:, view.part].any():
        return state
    later = view.design.sessions[view.design.sessions.index(view.session) + 1 :]
    if any(one.chain == below.chain and one.interface is Interface.FIXED for one in later):
        return state
    local = _local(view, below)
    part = replace(local, plan=replace(local.plan, session=_bare(below, Interface.FIXED, view.session.chain)))
    before = len(state.bought)
    laid = cleared(part, Task((Buyer.DSO,), True, False, (), _sees(below), False), state, unit_caps(part, state))
    mine = tuple(
        (chain, replace(one, award=replace(one.award, buyer=Buyer.TSO.value), share_dso=0.0, share_tso=1.0))
        for chain, one in laid.bought[before:]
    )
    return replace(laid, bought=(*laid.bought[:before], *mine))


def _bare(session: Session, interface: Interface, chain: str) -> Session:
    """A session of the grid's own that only keeps limits and an interface."""
    return session.model_copy(
        update={
            "interface": interface,
            "needs": Needs.ASSESSMENT,
            "sequence": chain,
            "scope": None,
            "buyers": (Buyer.DSO,),
            "forward": None,
            "admits": (),
            "reserve_share": 0.0,
        }
    )


def _local(view: View, below: Session) -> View:
    """The session below on the horizon and at the gate of the one above."""
    return View(view.design, view.world, replace(view.plan, session=_bare(below, Interface.FREE, below.chain)))


def _sees(below: Session) -> bool:
    return below.grid.distribution.sees_network


@dataclass
class _Curve:
    """Costs of what grids can bring about: `_at(level)` clears all grids and quarter-hours at once."""

    view: View
    state: State
    plan_kw: Floats

    def __post_init__(self) -> None:
        view = self.view
        self.task = Task((Buyer.DSO,), True, False, (), _sees(view.session), False)
        self.supply: Supply = supply(view, self.task, self.state, unit_caps(view, self.state))
        self.grid: AcGrid | OperatedGrid | None = view.grid(self.task, self.state)
        self.base = self._at(self.plan_kw)
        self.levels = {way: self._levels(way) for way in (1, -1)}
        self.costs: dict[int, list[tuple[Floats, Floats]]] = {1: [], -1: []}
        for way in (1, -1):
            for level in self.levels[way]:
                self.costs[way].append(self._at(self.plan_kw + way * level))

    def _levels(self, way: int) -> list[Floats]:
        """kW (g, h) of each step of a direction: where the grid's offers change their price, at most `STEPS` places."""
        book = self.supply.book
        shape = self.plan_kw.shape
        levels = [np.zeros(shape) for _ in range(STEPS)]
        usable = self.supply.admissible & (book.sign == way) & (book.zone >= 0) & ~book.reactive
        for g in range(shape[0]):
            for t in range(shape[1]):
                mine = np.flatnonzero(usable & (book.zone == g) & (book.period == t))
                if not len(mine):
                    continue
                price, at = np.unique(book.price[mine], return_inverse=True)
                total = np.cumsum(np.bincount(at, weights=book.quantity_mw[mine] * 1000, minlength=len(price)))
                chosen = total[np.unique(np.linspace(0, len(total) - 1, STEPS).round().astype(int))]
                for k in range(STEPS):
                    levels[k][g, t] = chosen[min(k, len(chosen) - 1)]
        return levels

    def _at(self, wanted_kw: Floats) -> tuple[Floats, Floats]:
        """(EUR an hour, kW brought about), both (g, h), of the cheapest way to change the interfaces so."""
        view, given = self.view, self.supply
        shape = wanted_kw.shape
        kw = np.round(wanted_kw).ravel()
        periods = np.tile(np.arange(shape[1], dtype=np.int64), shape[0])
        zone = np.repeat(np.arange(shape[0], dtype=np.int64), shape[1])
        sign: Ints = np.where(kw < 0, -1, 1).astype(np.int64)
        limit = np.full(len(kw), view.world.value_eur_mwh)
        demand = Demand(sign, periods, np.abs(kw) / 1000.0, limit, net=True, zone=zone)
        answer = clear_on(view.model(self.task), given.book, given.admissible, demand, self.grid, None, given.toll)
        return _summed(given.book, answer.award_kw, shape)

    def steps(self, grid: int, direction: Direction) -> tuple[OfferStep, ...]:
        """The grid's steps in a direction, prices rising; each quantity what one level brings beyond the last."""
        way = direction.sign
        last_cost, last_kw = self.base[0][grid], self.base[1][grid]
        price_before = np.full(len(last_kw), -np.inf)
        found: list[OfferStep] = []
        axis = self.view.plan.horizon
        columns: dict[tuple[int, Decimal], Ints] = {}
        for k, (cost, kw) in enumerate(self.costs[way]):
            more = np.floor(way * (kw[grid] - last_kw) + 1e-6)
            gained = more >= 1
            slope = np.where(gained, (cost[grid] - last_cost) / np.maximum(more, 1) * 1000.0, np.inf)
            slope = np.maximum(slope, price_before)
            on = gained & (slope < MOST)
            for t in np.flatnonzero(on).tolist():
                price = Decimal(str(slope[t])).quantize(Decimal("0.01"), ROUND_CEILING)
                columns.setdefault((k, price), np.zeros(len(axis), dtype=np.int64))[t] = int(more[t])
            price_before = np.where(on, np.ceil(slope * 100 - 1e-9) / 100, price_before)
            last_cost = np.where(gained, cost[grid], last_cost)
            last_kw = np.where(gained, kw[grid], last_kw)
        for (k, price), kws in sorted(columns.items()):
            found.append(OfferStep(k + 1, axis.start, price, tuple(kws.tolist())))
        return tuple(found)


def _summed(book: OrderBook, award_kw: Ints, shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    """EUR an hour and kW brought up, by grid and quarter-hour."""
    cost, kw = np.zeros(shape), np.zeros(shape)
    mine = np.flatnonzero((book.zone >= 0) & (award_kw > 0))
    np.add.at(cost, (book.zone[mine], book.period[mine]), book.price[mine] * award_kw[mine] / 1000.0)
    np.add.at(kw, (book.zone[mine], book.period[mine]), book.sign[mine] * book.p_share[mine] * award_kw[mine])
    return cost, kw
