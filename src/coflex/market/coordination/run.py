"""A design run on a case: its sessions in the order in which their gates close, each on what those before it left.

Nothing here falls back: a design that asks for what this engine or the case has not is refused before it starts, with
every reason (`obstacles`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, TypeVar

import numpy as np

from coflex.domain.errors import Finding, refuse
from coflex.domain.offer import Offer
from coflex.domain.quantity import Bools, Floats
from coflex.market.coordination import capacity, leases, phases
from coflex.market.coordination.final import final
from coflex.market.coordination.forwarding import aggregates, lay, promised
from coflex.market.coordination.messages import counted
from coflex.market.coordination.outcome import Bought, Held, Run
from coflex.market.coordination.session import Decided, hold
from coflex.market.coordination.state import FREE, State
from coflex.market.coordination.view import View
from coflex.market.coordination.world import World
from coflex.market.design import (
    Buyer,
    Design,
    Interface,
    Offered,
    Pricing,
    Resource,
    Session,
    SessionPlan,
    Trades,
    schedule,
)

# EUR/MWh within which the price at the interfaces counts as still.
PRICE_STILL = 0.01


def obstacles(design: Design, world: World) -> Iterator[Finding]:
    """Why a design cannot be run on a case: what the engine does not hold, or the case does not have."""
    plans = _plans(design, world)
    for i, session in enumerate(design.sessions):
        place = f"{design.id}: sessions[{i}] {session.id}"
        for code, message in (*_obstacles(session, world), *leases.obstacles(session, design, world)):
            yield Finding(place, code, message)
        orders = Buyer.BRP in session.buyers and session.trades is not Trades.STORAGE_CAPACITY
        aside = orders or Resource.VOLTAGE_REDUCTION in session.sellers.resources
        aside |= any(_forwards_curve(one, session) for one in design.sessions)
        if aside and any(plan.session is session and len(plan.firm) < len(plan.horizon) for plan in plans):
            message = "Orders of balance groups, lower voltage and curves are sold for good; write firm: rest."
            yield Finding(place, "preliminary_aside", message)


def _plans(design: Design, world: World) -> list[SessionPlan]:
    """The rounds of a design on the case's day in the order in which they are held."""
    laid = schedule(design, world.axis.start.astimezone(world.zone).date(), world.zone)
    return sorted(laid, key=lambda plan: plan.closes)


def _tied(offer: Offer) -> bool:
    """Whether terms of an offer bind its units to each other."""
    limits = (offer.max_periods, offer.energy_limit_kwh, offer.exclusive)
    return offer.block or offer.min_quantity_kw > 0 or any(limit is not None for limit in limits)


def _forwards_curve(one: Session, to: Session) -> bool:
    return one.forward is not None and one.forward.to == to.id and one.forward.offers is Offered.AGGREGATED


def _obstacles(session: Session, world: World) -> Iterator[tuple[str, str]]:
    if session.trades is Trades.PHASE_BALANCING and world.phases is None:
        yield "no_phases", f"The case {world.id} has no grid of three phases; choose a case that has one."
    if session.product is not None and session.product not in {offer.product for offer in world.offers}:
        yield "no_product", f"In the case {world.id} nobody offers '{session.product}'; leave the product out."
    if any(offer.unit is None and _tied(offer) for offer in world.offers):
        yield "group_terms", "A group's offer that is a block, or has a least quantity, cannot be laid on its units."
    ready = session.trades.is_capacity and session.trades is not Trades.STORAGE_CAPACITY
    if ready and any(
        one.offer.unit is None for service in capacity.services(session) for one in world.capacity.get(service, ())
    ):
        yield "groups_of_capacity", "A group offers capacity, which is held ready by units alone; offer its units."
    energy = not session.trades.is_capacity and not session.needs.assessed
    if energy and Buyer.TSO not in session.buyers and Buyer.BRP not in session.buyers:
        yield "no_requests_of_dso", "A DSO buys energy for what its assessment finds; write needs: assessment."
    if session.trades is Trades.REACTIVE_ENERGY and session.needs.requested and not world.profile_kvar.any():
        yield "no_profile", f"In the case {world.id} the TSO wants no reactive power; choose a case in which it does."
    if session.own_means and world.tools is None:
        yield "no_means", f"The case {world.id} has no taps, capacitors or switches of its own to set."
    if ready and not capacity.asked(session, world):
        yield "no_reserve", f"The case {world.id} has no request for {', '.join(s.value for s in session.services)}."
    if Resource.VOLTAGE_REDUCTION in session.sellers.resources and not world.reductions:
        yield "no_reduction", f"In the case {world.id} no DSO can lower its voltage; choose a case in which one can."


def run(design: Design, world: World, *, lists: bool = False) -> Run:
    """Run a design on a case. `lists`: whether merit order lists are kept.

    Guarantees: no unit is held twice in a quarter-hour; awards within offers within static lights; the same outcome for
    any order of sellers, offers and orders. Raises Refused with every obstacle, GridFailure where a state has no power
    flow, SolverFailure when a solver gives up.
    """
    refuse(f"The design {design.id} on the case {world.id}", obstacles(design, world))
    world = world.ordered()
    plans = _plans(design, world)
    engine = _Engine(design, world, lists, State.start(world, [s.chain for s in design.sessions]))
    rounds, ending = 1, ""
    if design.iterate is None:
        engine.through(plans)
    else:
        rounds, ending = engine.until_still(plans)
    state = engine.delivered()
    held = tuple(engine.held[plan.id] for plan in plans)
    bought = _by_the_hour(tuple(one for _, one in state.bought), plans)
    reserved = tuple(one for _, one in state.reservations)
    let = leases.agreements(state, [plan.id for plan in plans])
    messages = counted(design, world, {plan.id: plan.session for plan in plans}, held, bought, reserved, let)
    return Run(design.id, world.id, held, bought, reserved, messages, final(state), ending, rounds, let)


def _by_the_hour(bought: tuple[Bought, ...], plans: Sequence[SessionPlan]) -> tuple[Bought, ...]:
    """Awards of sessions that pay the last mobilised: its price holds for the clock hour, over all rounds in it."""
    marginal = {plan.id: plan.session.id for plan in plans if plan.session.pricing is Pricing.MARGINAL}
    dearest: dict[object, Decimal] = {}

    def cell(one: Bought) -> object:
        award = one.award
        hour = award.start.replace(minute=0)
        return marginal[award.session], hour, award.direction, one.reactive

    for one in bought:
        if one.award.session in marginal:
            dearest[cell(one)] = max(dearest.get(cell(one), one.award.price_eur_mwh), one.award.price_eur_mwh)
    return tuple(
        replace(one, award=replace(one.award, price_eur_mwh=dearest[cell(one)]))
        if one.award.session in marginal
        else one
        for one in bought
    )


def nothing(world: World) -> Run:
    """The case without any market."""
    return Run("nothing", world.id, (), (), (), (), final(State.start(world, ())))


@dataclass
class _Engine:
    """A run on its way. `held` by session; `marks`: the state before each session, for gates that close together."""

    design: Design
    world: World
    lists: bool
    state: State

    def __post_init__(self) -> None:
        self.held: dict[str, Held] = {}
        self.before: dict[str, State] = {}
        self.decided: dict[str, Decided] = {}
        self.plan_of: dict[str, SessionPlan] = {}
        self.known: dict[str, dict[datetime, dict[bytes, Any]]] = {}

    def through(self, plans: Sequence[SessionPlan]) -> None:
        for plan in plans:
            self.step(plan)

    def step(self, plan: SessionPlan) -> None:
        """Hold one session."""
        self.before[plan.id] = self.state
        self.plan_of[plan.id] = plan
        if plan.session.exclusion is not None:
            self._at_once(plan)
            return
        self._keep(plan, self._hold(plan, self.state))

    def _keep(self, plan: SessionPlan, decided: Decided) -> None:
        self.state, self.held[plan.id], self.decided[plan.id] = decided.state, decided.held, decided

    def _hold(self, plan: SessionPlan, state: State, without: Bools | None = None) -> Decided:
        view = View(self.design, self.world, plan, self.known)
        if plan.session.scenarios is not None:
            return capacity.hold_scenarios(view, state, without)
        if plan.session.trades is Trades.PHASE_BALANCING:
            return phases.hold_phases(view, state)
        if plan.session.trades is Trades.STORAGE_CAPACITY:
            return leases.hold_leases(view, state)
        if plan.session.trades.is_capacity:
            return capacity.hold_capacity(view, state, without, self.lists)
        made = aggregates(view, state)
        decided = hold(view, state, made, without, self.lists)
        return replace(decided, state=lay(view, decided.state)) if made is not None else decided

    def _at_once(self, plan: SessionPlan) -> None:
        """Two gates that close together: both on the same information; what both select goes to the first named."""
        assert plan.session.exclusion is not None
        other = self._twin(plan)
        ground = self.before[other.id]
        mine, theirs = self._hold(plan, ground), self.decided[other.id]
        first_is_mine = plan.session.exclusion.first == plan.session.id
        kept, loser, kept_plan = (mine, other, plan) if first_is_mine else (theirs, plan, other)
        self._keep(kept_plan, kept)
        without = _on(self.world, kept_plan, kept.cells)[:, self.world.axis.slice_of(loser.horizon)]
        blind = self._hold(loser, ground, without)
        joined = _joined(kept.state, blind.state, ground, loser.session.chain)
        self._keep(loser, replace(blind, state=joined))

    def _twin(self, plan: SessionPlan) -> SessionPlan:
        assert plan.session.exclusion is not None
        named = plan.session.exclusion.session
        met = [one for one in self.plan_of.values() if one.session.id == named and one.closes == plan.closes]
        return met[-1]

    def until_still(self, plans: Sequence[SessionPlan]) -> tuple[int, str]:
        """Hold sessions again and again, each answering what the others hold, until dispatch and price stand still."""
        stop = self.design.iterate
        assert stop is not None
        turn = [plan for plan in plans if plan.session.id in stop.sessions]
        first = plans.index(turn[0])
        self.through(plans[:first])
        priced = any(plan.session.interface is Interface.PRICED for plan in turn)
        seen: dict[bytes, int] = {}
        ending, rounds = "limit", 0
        while rounds < stop.at_most:
            before, price = self.state.positions, self._price_now()
            for plan in turn:
                self.state = _without(self.state, plan)
                self.step(plan)
                self._price(plan)
            rounds += 1
            after = self.state.positions
            moved = max(np.abs(after.kw - before.kw).max(initial=0), np.abs(after.kvar - before.kvar).max(initial=0))
            still = not priced or float(np.abs(self._price_now() - price).max(initial=0.0)) <= PRICE_STILL
            key = after.kw.tobytes() + after.kvar.tobytes() + np.round(self._price_now(), 2).tobytes()
            if moved / 1000.0 <= stop.until_mw and still:
                ending = "converged"
                break
            if key in seen:
                ending = f"cycle of {rounds - seen[key]}"
                break
            seen[key] = rounds
        self.through([plan for plan in plans[first:] if plan not in turn])
        return rounds, ending

    def _price_now(self) -> Floats:
        """EUR/MWh (t,) of energy at the interfaces."""
        return self.world.energy_eur_mwh if self.state.energy_eur_mwh is None else self.state.energy_eur_mwh

    def _price(self, plan: SessionPlan) -> None:
        """The price at the interfaces that the next answer is given at: half way from the last to the one that the
        balance has just come to."""
        came = self.held[plan.id].energy_eur_mwh
        if np.isnan(came).all():
            return
        part = self.world.axis.slice_of(plan.horizon)
        price = self._price_now().copy()
        most = self.world.value_eur_mwh
        price[part] = np.where(np.isnan(came), price[part], (price[part] + np.clip(came, -most, most)) / 2)
        self.state = replace(self.state, energy_eur_mwh=price)

    def delivered(self) -> State:
        """The state with what distribution grids still owe laid on their units."""
        state = self.state
        for plan_id in reversed(self.held):
            if promised(state).any():
                state = lay(View(self.design, self.world, self.plan_of[plan_id]), state)
        return state


def _without(state: State, plan: SessionPlan) -> State:
    """The state without what a session's chain holds on its horizon, firm or not: it answers anew."""
    positions = state.positions.copy()
    if plan.session.chain in state.chains:
        positions.firm[positions.holder == state.index(plan.session.chain)] = False
    bought = tuple(
        (name, one)
        for name, one in state.bought
        if name != plan.session.chain or not plan.horizon.covers(one.award.start)
    )
    orders, lowered = state.orders_kw.copy(), state.lowered_kw.copy()
    if plan.session.chain in state.chains:
        part, me = state.world.axis.slice_of(plan.horizon), state.index(plan.session.chain)
        orders[me, :, part], lowered[me, :, part] = 0, 0
    ready = []
    for name, one in state.reservations:
        if name != plan.session.chain or not plan.horizon.covers(one.start):
            ready.append((name, one))
        elif one.unit is not None:
            u, t = state.unit_index[one.unit], state.world.axis.position(one.start)
            positions.reserved[u, t] = FREE
            positions.reserved_up[u, t] = positions.reserved_down[u, t] = 0
    bare = replace(
        state,
        positions=positions,
        bought=bought,
        reservations=tuple(ready),
        orders_kw=orders,
        lowered_kw=lowered,
    )
    return bare.released(plan.session.chain, plan.horizon)


def _on(world: World, plan: SessionPlan, cells: Bools) -> Bools:
    """Cells of a horizon on the whole axis."""
    found = np.zeros((cells.shape[0], len(world.axis)), dtype=np.bool_)
    found[:, world.axis.slice_of(plan.horizon)] = cells
    return found


def _joined(kept: State, other: State, ground: State, chain: str) -> State:
    """The state of one session with what another, held on the same ground, bought."""
    positions = kept.positions.copy()
    let_go = (positions.holder == other.index(chain)) & (other.positions.holder != other.index(chain))
    positions.holder[let_go], positions.kw[let_go], positions.kvar[let_go] = FREE, 0, 0
    sold, ready = other.positions.holder == other.index(chain), other.positions.reserved == other.index(chain)
    for names, mine in (
        (("holder", "firm", "kw", "kvar"), sold),
        (("reserved", "reserved_up", "reserved_down"), ready),
    ):
        for name in names:
            getattr(positions, name)[mine] = getattr(other.positions, name)[mine]
    return replace(
        kept,
        positions=positions,
        bought=_with_those_of(chain, kept.bought, other.bought),
        reservations=_with_those_of(chain, kept.reservations, other.reservations),
        owed_kw=np.where(np.isnan(other.owed_kw), kept.owed_kw, other.owed_kw),
        operation=kept.operation if other.operation is ground.operation else other.operation,
        set_for={**kept.set_for, **other.set_for},
        orders_kw=kept.orders_kw + other.orders_kw - ground.orders_kw,
        lowered_kw=kept.lowered_kw + other.lowered_kw - ground.lowered_kw,
    )


_T = TypeVar("_T")


def _with_those_of(
    chain: str, kept: tuple[tuple[str, _T], ...], other: tuple[tuple[str, _T], ...]
) -> tuple[tuple[str, _T], ...]:
    """What is kept, that of a chain as the other has it."""
    return (*(pair for pair in kept if pair[0] != chain), *(pair for pair in other if pair[0] == chain))
