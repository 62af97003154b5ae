"""A session held: needs, supply, clearing, validation, awards, in the order in which its tasks stand.

needs        the limits that a task sees and that are broken, the requests, the schedules at the interfaces
supply       the offers that reach it, less what others hold and what lights and filters cut
clearing     `market.clearing` on the physics that the design names
validation   the DSO's walk over the merit order list, with substitution until it is safe
awards       who holds what, at which price, paid by whom
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from decimal import Decimal
from functools import cached_property

import numpy as np

from coflex.domain.clearing import Award, MeritLine, Reason, Status, Uncovered
from coflex.domain.offer import Offer
from coflex.domain.quantity import Bools, Floats, Ints
from coflex.domain.reserve import Reservation
from coflex.market.book import direction_of
from coflex.market.clearing import Answer
from coflex.market.comparison import clear_on
from coflex.market.coordination.lights import filtered, lights
from coflex.market.coordination.outcome import Bought, Delivering, Held
from coflex.market.coordination.shares import shares
from coflex.market.coordination.state import NOWHERE, State
from coflex.market.coordination.supply import (
    AGGREGATE,
    LAST,
    ORDER,
    VOLTAGE,
    Supply,
    offered_kw,
    potential_kw,
    supply,
    unit_caps,
)
from coflex.market.coordination.validate import Walked, walk
from coflex.market.coordination.view import Task, View, tasks
from coflex.market.design import Buyer, Carry, DistributionGrid, Interface, Offered, Trades, Validation
from coflex.market.merit import NOTHING, asked, merit_order, uncovered
from coflex.market.model import Demand, has_terms
from coflex.market.pricing import bid, prices

# Share of the worth of the line that helps most at which a spare line helps too: elsewhere in the grid its effect on
# the limit is another, and behind it none.
HELPS = 0.5
# MW of a request that count as uncovered.
UNCOVERED_MW = 1e-4

Capability = Mapping[tuple[str, int], Floats]


@dataclass(frozen=True, eq=False)
class Decided:
    """What a session changed, and what there is to tell of it. `cells[u, h]`: units that it holds now."""

    state: State
    held: Held
    cells: Bools


@dataclass
class _Tally:
    """What a session's tasks add up to."""

    offers: int = 0
    awards: int = 0
    bought_kwh: float = 0.0
    cost_eur: Decimal = Decimal(0)
    concordant_kwh: float = 0.0
    discordant_kwh: float = 0.0
    validated: int = 0
    limited_kwh: float = 0.0
    delivering: Delivering = field(default_factory=Delivering)


def hold(
    view: View,
    state: State,
    made: Sequence[Offer] | None = None,
    without: Bools | None = None,
    lists: bool = False,
) -> Decided:
    """Hold one session of energy on what is held so far.

    `made`: aggregates of distribution grids that stand for their offers. `without[u, h]`: units that a session held at
    the same time keeps. `lists`: whether merit order lists are wanted. Guarantees: awards within offers, static lights
    and the grid's limits as the design has them; no unit that another session holds.
    """
    plan_kw = own_plan(view, state)
    state = view.set_means(state.released(view.session.chain, view.plan.horizon))
    caps = caps_of(view, state, made)
    tally, lacking, merit = _Tally(), [], []
    energy = np.full(len(view.plan.horizon), np.nan)
    cells = np.zeros((len(view.world.sellers), len(view.plan.horizon)), dtype=np.bool_)
    for task in tasks(view.session, view.world):
        one = _Clearing(view, task, state, caps, made, without, plan_kw)
        one.clear()
        before = state
        state = one.awarded(tally)
        changed = state.positions.holder != before.positions.holder
        changed |= state.positions.reserved != before.positions.reserved
        cells |= changed[:, view.part]
        lacking += one.uncovered()
        energy = np.where(np.isnan(energy), one.energy(), energy)
        merit += one.merit() if lists else []
    held = Held(
        session=view.plan.id,
        closes=view.plan.closes,
        offers=tally.offers,
        awards=tally.awards,
        bought_kwh=tally.bought_kwh,
        cost_eur=float(tally.cost_eur),
        concordant_kwh=tally.concordant_kwh,
        discordant_kwh=tally.discordant_kwh,
        validated=tally.validated,
        limited_kwh=tally.limited_kwh,
        uncovered=tuple(lacking),
        merit=tuple(merit),
        energy_eur_mwh=energy,
        delivering=tally.delivering,
    )
    return Decided(state, held, cells)


def delivering(view: View, given: Supply, answer: Answer, walked: Walked) -> Delivering:
    """How far offers of distribution units get through, by the reasons that a merit order list would give them."""
    book = given.book
    firm = np.array([view.plan.firm.covers(start) for start in view.plan.horizon], dtype=np.bool_)
    wanted = asked(book, answer) & firm
    lines: Bools = wanted[book.period] if len(book) else np.zeros(0, dtype=np.bool_)
    worth = answer.request_worth + np.maximum(answer.grid_worth, 0.0)
    left = np.round(book.quantity_mw * 1000) - answer.award_kw
    held_back = lines & (left > 0) & (worth > np.maximum(book.price - NOTHING, NOTHING))
    by_light = held_back & (answer.light_worth < -NOTHING)
    struck = np.zeros(len(book), dtype=np.bool_)
    struck[[i for i, (reason, _) in given.shut.items() if reason is Reason.GRID_LIMIT]] = True
    refused = by_light | (held_back & (answer.grid_worth < -NOTHING))
    local = lines & (book.zone >= 0) & ~book.reactive
    hours = view.plan.horizon.hours
    cut = float(given.limited_kwh[wanted].sum()) + walked.limited_kwh
    return Delivering(
        int(lines.sum()),
        int((by_light | (lines & struck)).sum()),
        float((book.quantity_mw * 1000)[local].sum()) * hours + cut,
        float(left[local & refused].sum()) * hours + cut,
    )


def cleared(view: View, task: Task, state: State, caps: Floats) -> State:
    """The state after one clearing by itself, nothing released before it."""
    one = _Clearing(view, task, state, caps, None, None, np.zeros((len(view.world.grids), len(view.plan.horizon))))
    one.clear()
    return one.awarded(_Tally())


def own_plan(view: View, state: State) -> Floats:
    """kW (g, h) by which what the session's chain holds preliminarily brings each grid up: the plan at its interface
    that an aggregate was offered on top of."""
    found = np.zeros((len(view.world.grids), len(view.plan.horizon)))
    positions = state.positions
    mine = (positions.holder == state.index(view.session.chain)) & ~positions.firm
    for g, name in enumerate(view.world.grids):
        units = [u for u, one in enumerate(view.world.sellers) if one.grid == name]
        found[g] = (positions.kw * mine)[units][:, view.part].sum(axis=0)
    return found


def caps_of(view: View, state: State, made: Sequence[Offer] | None = None) -> Floats:
    """kW (u, 2, h) that units may give: static lights, and what is safe when all that is offered is used, where the
    static light is of all together or a filter came with forwarded offers."""
    caps = unit_caps(view, state)
    if under_filter(view):
        caps = filtered(view, state, np.minimum(potential_kw(view, state, made), caps), caps)
    return caps


def under_filter(view: View) -> bool:
    """Whether each unit is cut to what is safe when all that is offered is used."""
    together = view.session.validation is Validation.STATIC_TOGETHER
    return together or any(forward.carry is Carry.FILTER for forward in view.incoming)


def under_lights(view: View) -> bool:
    """Whether perimeters' lights limit the session."""
    carried = any(forward.carry is Carry.TRAFFIC_LIGHT for forward in view.incoming)
    sees = view.session.grid.distribution.sees_network
    return view.session.grid.distribution is DistributionGrid.CAPABILITY or (carried and not sees)


@dataclass
class _Clearing:
    """One task of a session: its inputs, the answer, the awards."""

    view: View
    task: Task
    state: State
    caps: Floats
    made: Sequence[Offer] | None
    without: Bools | None
    plan_kw: Floats

    def clear(self) -> None:
        """Find the answer. A round that stands where one before it stood finds the same, so it is not sought again; but
        where offers have terms that reach over rounds, what was sold elsewhere counts as well."""
        if self.view.session.repeat is None or any(has_terms(offer) for offer in self.view.world.offers):
            self._clear()
            return
        key = self._ground()
        if self.view.known.get(self.view.session.id, {}).keys() != {self.view.plan.horizon.start}:
            self.view.known[self.view.session.id] = {self.view.plan.horizon.start: {}}
        known = self.view.known[self.view.session.id][self.view.plan.horizon.start]
        found = ("supply", "request", "demand", "capability", "walked", "answer", "spare_kw")
        if key in known:
            for name, value in zip(found, known[key], strict=True):
                setattr(self, name, value)
            return
        self._clear()
        known[key] = tuple(getattr(self, name) for name in found)

    def _ground(self) -> bytes:
        """All that the answer depends on, as bytes."""
        view, state, part = self.view, self.state, self.view.part
        positions = state.positions
        arrays = [
            *(getattr(positions, one.name)[:, part] for one in fields(positions)),
            *(held[:, :, part] for held in (state.orders_kw, state.lowered_kw)),
            *(rows[:, part] for rows in (state.owed_kw, state.moved_kw()[None], state.moved_kw(self._known())[None])),
            *view.injections(state),
            view.need_kw,
            self.caps,
            self.plan_kw,
            state.run_by.of_period[part],
            np.zeros(0) if self.without is None else self.without,
            np.zeros(0) if state.energy_eur_mwh is None else state.energy_eur_mwh[part],
        ]
        contracts = [(one.offer, one.step, one.use_eur_mwh) for name, one in state.reservations if name in view.admits]
        words = repr((view.session.id, view.plan.horizon.start, self.task, self.made, contracts))
        return b"".join([words.encode(), *(np.ascontiguousarray(array).tobytes() for array in arrays)])

    def _known(self) -> list[str]:
        """The chains whose awards the TSO knows of: it bought them itself, or they deliver what was promised to it."""
        return [
            one.chain
            for one in self.view.design.sessions
            if Buyer.TSO in one.buyers or (one.forward is not None and one.forward.offers is Offered.AGGREGATED)
        ]

    def _clear(self) -> None:
        view, task = self.view, self.task
        self.supply = supply(view, task, self.state, self.caps, self.made, self.without)
        self.request = self._request()
        self.demand = self._demand(self.request)
        self.capability: Capability | None = None
        if under_lights(view):
            free = offered_kw(view, self.supply.book, self.supply.admissible)
            self.capability = lights(view, self.state, free)
        self.walked = Walked(0, 0.0)
        if view.session.validation is Validation.MERIT_ORDER:
            self.answer, self.supply, self.walked = walk(view, self.state, self.supply, self._answer)
        else:
            self.answer = self._answer(self.supply)
        self.spare_kw = self._spare() if view.session.reserve_share else np.zeros(len(self.supply.book), dtype=np.int64)

    def _answer(self, given: Supply, demand: Demand | None = None) -> Answer:
        wanted = self.demand if demand is None else demand
        grid, model = self.view.grid(self.task, self.state), self.view.model(self.task)
        # Where nothing is asked for, limits that are broken are nobody's need here.
        idle = not self.task.assessed and not len(wanted)
        open_ = np.zeros_like(given.admissible) if idle else given.admissible
        if idle or not given.last.any():
            return clear_on(model, given.book, open_, wanted, None if idle else grid, self.capability, given.toll)
        # Capacity of conditional contracts is called where free offers leave something uncovered, and behind them.
        alone = clear_on(model, given.book, open_ & ~given.last, wanted, grid, self.capability, given.toll)
        lacking = np.zeros(len(given.book.axis), dtype=np.bool_)
        lacking[wanted.period[alone.uncovered_mw[: len(wanted)] > UNCOVERED_MW]] = True
        if alone.rows is not None:
            lacking[alone.rows.period[alone.short > 0]] = True
        if not lacking.any():
            return alone
        behind = replace(given.book, price=given.book.price + np.where(given.last, LAST, 0.0))
        called = open_ & (~given.last | lacking[given.book.period])
        return clear_on(model, behind, called, wanted, grid, self.capability, given.toll)

    # ------------------------------------------------------------ needs

    def _request(self) -> Floats:
        """kW (h,) that the TSO asks for, up positive: the system's need less what it knows to be moved already."""
        view, state = self.view, self.state
        if not self.task.requested or view.session.trades is Trades.REACTIVE_ENERGY:
            return np.zeros(len(view.plan.horizon))
        chains = None if view.session.interface is Interface.NETTED else self._known()
        request: Floats = view.need_kw - state.moved_kw(chains)[view.part]
        return request * view.session.request_share

    def _demand(self, request_kw: Floats) -> Demand:
        """Requests as the clearing takes them: in one direction, or of the balance; schedules of the interfaces."""
        view, task = self.view, self.task
        periods = np.arange(len(view.plan.horizon), dtype=np.int64)
        limit = view.world.value_eur_mwh
        if view.session.interface in (Interface.FIXED, Interface.BALANCED) and task.assessed and not task.requested:
            return self._schedules(periods, limit)
        if view.session.trades is Trades.REACTIVE_ENERGY and task.requested:
            return self._profile(limit)
        if not task.requested and not task.orders:
            return Demand.none()
        whole = np.round(request_kw)
        if not task.net:
            periods = np.flatnonzero(whole)
        sign: Ints = np.where(whole[periods] < 0, -1, 1).astype(np.int64)
        kw = np.abs(whole[periods])
        return Demand(sign, periods, kw / 1000.0, np.full(len(periods), limit), net=task.net)

    def _profile(self, limit: float) -> Demand:
        """What the TSO wants of each grid's reactive power, less what units there give already."""
        world, positions = self.view.world, self.state.positions
        wanted = world.profile_kvar[:, self.view.part].copy()
        for g, name in enumerate(world.grids):
            mine = [u for u, one in enumerate(world.sellers) if one.grid == name]
            wanted[g] -= np.where(wanted[g] != 0, positions.kvar[mine][:, self.view.part].sum(axis=0), 0)
        zone, period = np.nonzero(wanted)
        kvar = wanted[zone, period]
        return Demand(
            np.sign(kvar),
            period,
            np.abs(kvar) / 1000.0,
            np.full(len(kvar), limit),
            net=True,
            zone=zone,
            reactive=np.ones(len(kvar), dtype=np.bool_),
        )

    def _schedules(self, periods: Ints, limit: float) -> Demand:
        """Each distribution grid keeps what it has at its interface, or delivers what it promised there; or the balance
        of all that is bought is kept."""
        view = self.view
        if view.session.interface is Interface.BALANCED:
            return Demand(
                np.ones_like(periods), periods, np.zeros(len(periods)), np.full(len(periods), limit), net=True
            )
        grids = range(len(view.world.grids)) if self.task.grid is None else (self.task.grid,)
        owed = np.round(np.nan_to_num(self.state.owed_kw[:, view.part]) + self.plan_kw)
        kw = np.concatenate([owed[g] for g in grids])
        zone = np.repeat(np.array(list(grids), dtype=np.int64), len(periods))
        sign: Ints = np.where(kw < 0, -1, 1).astype(np.int64)
        return Demand(
            sign, np.tile(periods, len(list(grids))), np.abs(kw) / 1000.0, np.full(len(kw), limit), net=True, zone=zone
        )

    def _spare(self) -> Ints:
        """Lines kept ready beyond what is bought (MKT-08; document P, 11a): of each grid, direction and quarter-hour
        the cheapest left that would help as well, up to the session's share of what was bought there."""
        book, answer = self.supply.book, self.answer
        spare = np.zeros(len(book), dtype=np.int64)
        left: Ints = np.round(book.quantity_mw * 1000).astype(np.int64) - answer.award_kw
        worth = answer.request_worth + answer.grid_worth
        cell = ((book.zone + 1) * 2 + (book.sign > 0)) * len(book.axis) + book.period
        unit = np.array([offer.unit in self.state.unit_index for offer in book.offers], dtype=np.bool_)[book.offer]
        used = {(book.offers[int(book.offer[i])].unit, int(book.period[i])) for i in np.flatnonzero(answer.award_kw)}
        for c in np.unique(cell[answer.award_kw > 0]).tolist():
            mine = np.flatnonzero((cell == c) & ~book.reactive)
            wanted = int(np.ceil(answer.award_kw[mine].sum() * self.view.session.reserve_share))
            helps = worth[mine] > HELPS * worth[mine].max()
            open_ = mine[(left[mine] > 0) & helps & unit[mine] & self.supply.admissible[mine]]
            for i in open_[np.argsort(book.price[open_], kind="stable")].tolist():
                if (book.offers[int(book.offer[i])].unit, int(book.period[i])) not in used:
                    spare[i] = min(wanted, int(left[i]))
                    wanted -= int(spare[i])
        return spare

    # ------------------------------------------------------------ awards

    def awarded(self, tally: _Tally) -> State:
        """The state with what the task bought; what there is to tell is added to the tally."""
        view, book = self.view, self.supply.book
        paid = prices(book, self.answer, view.session.pricing)
        given = self._orders_kw(self.answer.award_kw)
        split = shares(view.world, book, self.answer, *self._payers(), given.sum(axis=0))
        laid = self._laid(self.answer.award_kw, paid, split)
        state = self.state.with_awards(view.session.chain, view.plan.firm, laid)
        state = state.with_reservations(view.session.chain, self._kept_ready())
        state = self._others(state, given)
        self._count(tally, laid, paid)
        return state

    def _payers(self) -> tuple[tuple[Buyer, ...], Floats]:
        """Who pays, and what the TSO asked for: where grids deliver what was promised above, the TSO pays its part."""
        owed = np.nan_to_num(self.state.owed_kw[:, self.view.part]).sum(axis=0)
        if self.view.session.interface is Interface.FIXED and owed.any():
            return (Buyer.DSO, Buyer.TSO), owed
        return self.task.buyers, self.request

    def _laid(self, award_kw: Ints, paid: Mapping[int, Decimal], split: Floats) -> list[tuple[int, Bought]]:
        """Awards of units, and of lower voltage."""
        book = self.supply.book
        index = self.state.unit_index
        found: list[tuple[int, Bought]] = []
        for i, price in paid.items():
            offer = book.offers[int(book.offer[i])]
            if offer.unit in index:
                u = index[offer.unit]
                kw = int(award_kw[i])
                found.append((u, self._bought(i, offer, offer.unit, kw, price, split[i])))
            elif offer.id.startswith(VOLTAGE):
                lowered = self._bought(i, offer, None, int(award_kw[i]), price, split[i])
                found.append((NOWHERE, replace(lowered, grid=offer.id.removeprefix(VOLTAGE))))
        return found

    def _bought(
        self,
        i: int,
        offer: Offer,
        unit: str | None,
        kw: int,
        price: Decimal,
        split: Floats,
    ) -> Bought:
        view, book = self.view, self.supply.book
        start, status = self._starts[int(book.period[i])]
        step = offer.steps[int(book.step[i])]
        award = Award(
            session=view.plan.id,
            offer=offer.id,
            step=step.number,
            provider=offer.provider,
            buyer=self._buyer,
            product=offer.product,
            unit=unit,
            group=offer.group,
            direction=offer.direction,
            start=start,
            quantity_kw=kw,
            bid_eur_mwh=step.price_eur_mwh,
            price_eur_mwh=price,
            status=status,
        )
        grid = view.world.seller[unit].grid if unit is not None else ""
        dso, tso, brp = split.tolist()
        return Bought(award, grid, dso, tso, brp, bool(book.p_share[i] == 0.0))

    @cached_property
    def _starts(self) -> list[tuple[datetime, Status]]:
        """Start of each quarter-hour of the horizon, and how far its awards are for good."""
        return [(start, self.view.plan.status(start)) for start in self.view.plan.horizon]

    @cached_property
    def _buyer(self) -> str:
        return "+".join(buyer.value for buyer in self.task.buyers)

    def _kept_ready(self) -> list[tuple[int, Reservation]]:
        """Spare lines: kept ready for nothing, called at their bids by a session that admits this one."""
        view, book = self.view, self.supply.book
        found = []
        for i in np.flatnonzero(self.spare_kw).tolist():
            offer, start = book.offers[int(book.offer[i])], view.plan.horizon[int(book.period[i])]
            found.append(
                (
                    self.state.unit_index[offer.unit or ""],
                    Reservation(
                        session=view.plan.id,
                        offer=offer.id,
                        step=offer.steps[int(book.step[i])].number,
                        provider=offer.provider,
                        buyer="+".join(buyer.value for buyer in self.task.buyers),
                        product=offer.product,
                        unit=offer.unit,
                        group=None,
                        direction=direction_of(int(book.sign[i])),
                        start=start,
                        quantity_kw=int(self.spare_kw[i]),
                        availability_eur_mw_h=Decimal(0),
                        use_eur_mwh=bid(book, i),
                        status=view.plan.status(start),
                    ),
                )
            )
        return found

    def energy(self) -> Floats:
        """EUR/MWh (h,) of energy in the balance of the clearing, NaN where it has none."""
        book, answer = self.supply.book, self.answer
        found = np.full(len(self.view.plan.horizon), np.nan)
        if self.task.requested and self.demand.net:
            mine = np.flatnonzero(answer.considered & ~book.reactive)
            found[book.period[mine]] = book.sign[mine] * answer.request_worth[mine]
        return found

    def _orders_kw(self, award_kw: Ints) -> Ints:
        """What each order of balance responsible parties was given, (o, h), up positive."""
        view, book = self.view, self.supply.book
        given = np.zeros((len(view.world.orders), len(view.plan.horizon)), dtype=np.int64)
        place = {f"{ORDER}{one.id}": o for o, one in enumerate(view.world.orders)}
        for k, offer in enumerate(book.offers):
            if offer.unit in place:
                rows = np.flatnonzero(book.offer == k)
                np.add.at(given[place[offer.unit]], book.period[rows], -book.sign[rows] * award_kw[rows])
        return given

    def _others(self, state: State, given: Ints) -> State:
        """Orders that were served, steps of lower voltage, what distribution grids owe at their interfaces."""
        view, book, award = self.view, self.supply.book, self.answer.award_kw
        orders, lowered, owed = state.orders_kw.copy(), state.lowered_kw.copy(), state.owed_kw.copy()
        me = state.index(view.session.chain)
        orders[me, :, view.part] += given
        if view.session.interface is Interface.FIXED and self.task.buyers == (Buyer.DSO,):
            owed[:, view.part] = np.nan
        voltage = {f"{VOLTAGE}{one.grid}": r for r, one in enumerate(view.world.reductions)}
        border = {f"{AGGREGATE}{name}": g for g, name in enumerate(view.world.grids)}
        for k, offer in enumerate(book.offers):
            rows = np.flatnonzero(book.offer == k)
            signed = np.zeros(len(view.plan.horizon), dtype=np.int64)
            np.add.at(signed, book.period[rows], book.sign[rows] * award[rows])
            if offer.id in voltage:
                lowered[me, voltage[offer.id], view.part] += signed
            elif offer.unit in border:
                part = owed[border[offer.unit], view.part]
                owed[border[offer.unit], view.part] = np.nan_to_num(part) + signed
        return replace(state, orders_kw=orders, lowered_kw=lowered, owed_kw=owed)

    # ------------------------------------------------------------ what there is to tell

    def _count(self, tally: _Tally, laid: Sequence[tuple[int, Bought]], paid: Mapping[int, Decimal]) -> None:
        view, book, hours = self.view, self.supply.book, self.view.plan.horizon.hours
        own = np.array([offer.id.startswith(ORDER) for offer in book.offers], dtype=np.bool_)
        sold = (self.answer.award_kw > 0) & ~own[book.offer] if len(book) else np.zeros(0, dtype=np.bool_)
        tally.offers += len(book.offers)
        tally.awards += int(sold.sum())
        tally.bought_kwh += float(self.answer.award_kw[sold].sum()) * hours
        scale = Decimal(str(hours)) / 1000
        tally.cost_eur += sum(
            (int(self.answer.award_kw[i]) * scale * price for i, price in paid.items() if sold[i]), Decimal(0)
        )
        tally.validated += self.walked.rounds
        tally.delivering += delivering(view, self.supply, self.answer, self.walked)
        tally.limited_kwh += float(self.supply.limited_kwh.sum()) + self.walked.limited_kwh
        if self.task.requested:
            others = (self.state.moved_kw() - self.state.moved_kw(self._known()))[view.part]
            others = others * np.array([view.plan.firm.covers(start) for start in view.plan.horizon])
            against = np.sign(others) * np.sign(view.need_kw) < 0
            tally.discordant_kwh += float(np.abs(others[against]).sum()) * hours
            tally.concordant_kwh += float(np.minimum(np.abs(others), np.abs(view.need_kw))[~against].sum()) * hours

    def uncovered(self) -> list[Uncovered]:
        """What stays uncovered, requests of interfaces by the name of their grid."""
        named = {f"at interface {g + 1}": f"of {name}" for g, name in enumerate(self.view.world.grids)}
        found = []
        for one in uncovered(self.view.plan.id, self.supply.book, self.demand, self.answer):
            head, _, tail = one.what.partition(" at interface ")
            what = f"{head} {named[f'at interface {tail}']}" if tail else one.what
            found.append(replace(one, what=what))
        return found

    def merit(self) -> list[MeritLine]:
        view = self.view
        lines = merit_order(
            view.plan.id, self.supply.book, self.answer, self.supply.shut, self.capability or {}, view.plan.status
        )
        return list(lines)
