"""What a session sees: its quarter-hours, injections as foreseen at its gate, and the limits that enter.

A session that names several buyers in turn is held as several tasks, one a buyer; bilateral trade as one a demand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np

from coflex.domain.quantity import Bools, Floats, Ints
from coflex.grid.assess import margins
from coflex.grid.dc import DcGrid
from coflex.grid.linear import LinearGrid
from coflex.grid.means import Means, OperatedGrid, Operation, schedule
from coflex.grid.network import Network
from coflex.grid.powerflow import GridState, solve
from coflex.grid.rows import AcGrid, Guard
from coflex.grid.tables import GridTables
from coflex.market.coordination.state import State
from coflex.market.coordination.world import FAR, World, limited
from coflex.market.design import (
    Activation,
    Buyer,
    Design,
    DistributionGrid,
    Forward,
    Matching,
    OwnMeans,
    Priority,
    Session,
    SessionPlan,
)

_KIND = {
    DistributionGrid.LINEAR: LinearGrid,
    DistributionGrid.DC: DcGrid,
    DistributionGrid.CONIC: AcGrid,
    DistributionGrid.AC: AcGrid,
}


@dataclass(frozen=True, slots=True)
class Task:
    """One clearing. `buyers`; whether broken limits are its need (`assessed`), whether it has requests (`requested`:
    the system's, `orders`: of balance responsible parties, one of them or all); the limits it sees; `grid`: of one
    distribution grid alone, or of all (None)."""

    buyers: tuple[Buyer, ...]
    assessed: bool
    requested: bool
    orders: tuple[int, ...]
    distribution: bool
    transmission: bool
    grid: int | None = None

    @property
    def net(self) -> bool:
        """Whether requests are for the balance of all that is bought."""
        return self.assessed or bool(self.orders)


def tasks(session: Session, world: World) -> tuple[Task, ...]:
    """The clearings of a session, in their order."""
    view, needs = session.grid, session.needs
    below, above = view.distribution.sees_network, view.transmission.sees_network
    orders = tuple(range(len(world.orders))) if Buyer.BRP in session.buyers else ()
    whole = Task(session.buyers, needs.assessed, needs.requested, orders, below, above)
    if session.matching is Matching.BILATERAL:
        return tuple(one for buyer in session.buyers for one in _bilateral(whole, buyer, world))
    if len(session.buyers) == 1 or session.priority is Priority.NONE:
        return (replace(whole, requested=needs.requested and Buyer.TSO in session.buyers),)
    return tuple(_of_buyer(whole, buyer) for buyer in session.buyers)


def _of_buyer(whole: Task, buyer: Buyer) -> Task:
    """A buyer's own turn. The DSO mends its own limits; others keep all limits that are seen."""
    if buyer is Buyer.DSO:
        return replace(whole, buyers=(buyer,), requested=False, orders=(), transmission=False)
    if buyer is Buyer.BRP:
        return replace(whole, buyers=(buyer,), assessed=False, requested=False)
    return replace(whole, buyers=(buyer,), orders=(), assessed=whole.assessed and whole.transmission)


def _bilateral(whole: Task, buyer: Buyer, world: World) -> tuple[Task, ...]:
    one = _of_buyer(whole, buyer)
    if buyer is Buyer.DSO:
        return tuple(replace(one, grid=g) for g in range(len(world.grids)))
    if buyer is Buyer.BRP:
        return tuple(replace(one, orders=(o,)) for o in one.orders)
    return (one,)


@dataclass(frozen=True, eq=False)
class View:
    """A session on its horizon (h quarter-hours), before or between its tasks. `known`: what rounds before it found at
    the same start, by all that it depended on."""

    design: Design
    world: World
    plan: SessionPlan
    known: dict[str, dict[datetime, dict[bytes, Any]]] = field(default_factory=dict)

    @property
    def session(self) -> Session:
        return self.plan.session

    @cached_property
    def admits(self) -> tuple[str, ...]:
        """The chains whose capacity offers here."""
        return tuple(one.chain for one in self.design.sessions if one.id in self.session.admits)

    @cached_property
    def last(self) -> tuple[str, ...]:
        """Those of them whose capacity is called only after every free offer."""
        return tuple(
            one.chain
            for one in self.design.sessions
            if one.id in self.session.admits and one.tender and one.tender.activation is Activation.CONDITIONAL
        )

    @cached_property
    def incoming(self) -> tuple[Forward, ...]:
        """What earlier sessions forward to this one."""
        forwards = (one.forward for one in self.design.sessions)
        return tuple(one for one in forwards if one is not None and one.to == self.session.id)

    @cached_property
    def part(self) -> slice:
        """The horizon's place on the axis of the case."""
        return self.world.axis.slice_of(self.plan.horizon)

    @cached_property
    def _foreseen(self) -> tuple[Floats, Floats]:
        p, q = self.world.foreseen(self.plan.closes)
        return p[self.part], q[self.part]

    @cached_property
    def need_kw(self) -> Floats:
        """What the system is foreseen to need, up positive, (h,)."""
        need: Floats = self.world.need_kw(self.plan.closes)[self.part]
        return need

    @property
    def guard(self) -> Guard:
        margin = self.session.security_margin
        return Guard(margin.voltage_pu, margin.loading_share) if margin else Guard()

    def injections(self, state: State) -> tuple[Floats, Floats]:
        """Injections (h, n) in MW and Mvar with all that is held."""
        change_p, change_q = state.changes()
        p, q = self._foreseen
        return p + change_p[self.part], q + change_q[self.part]

    def operation(self, state: State, nodes: Bools, branches: Bools) -> Operation:
        """How the grids are run on the horizon, with the limits of these nodes and branches alone."""
        whole = state.run_by
        networks = tuple(limited(network, nodes, branches) for network in whole.networks)
        return Operation(networks, whole.of_period[self.part])

    def model(self, task: Task) -> DistributionGrid:
        """The physics of a task's clearing."""
        if task.distribution:
            return self.session.grid.distribution
        if task.transmission:
            return DistributionGrid(self.session.grid.transmission.value)
        return DistributionGrid.NONE

    def grid(self, task: Task, state: State) -> AcGrid | OperatedGrid | None:
        """The grid as a task's clearing sees it; None where it sees no limits."""
        kind = _KIND.get(self.model(task))
        if kind is None:
            return None
        operation = self.operation(state, *self.world.watched(task.distribution, task.transmission, task.grid))
        if len(operation.networks) == 1:
            return kind(operation.normal, *self.injections(state), self.guard)
        return OperatedGrid(operation, *self.injections(state), self.guard, kind)

    def below(self, state: State, called_kw: Floats | None = None) -> Iterator[tuple[Network, GridState, Ints]]:
        """The distribution grids' limits, tighter by the session's margin, and the state with all that is held, by full
        power flow, for each part of the horizon that is run alike: the network, its states, the quarter-hours.
        `called_kw[u, h]`: what units do beside it, up positive."""
        p, q = self.injections(state)
        for u in np.flatnonzero(called_kw.any(axis=1)).tolist() if called_kw is not None else ():
            one = self.world.sellers[u]
            if called_kw is not None and one.node >= 0:
                p[:, one.node] += called_kw[u] / 1000.0
                q[:, one.node] += one.tan_phi * called_kw[u] / 1000.0
        for network, at in self.operation(state, *self.world.watched(True, False)).parts():
            tight = replace(
                network,
                v_max=network.v_max - self.guard.voltage_pu,
                v_min=network.v_min + self.guard.voltage_pu,
                loading_max=network.loading_max - self.guard.loading_share,
            )
            yield tight, solve(network, p[at], q[at]), at

    def set_means(self, state: State) -> State:
        """The state once the DSO has set what it may set by itself, so that least is left to buy (document P, 6a)."""
        tools, named = self.world.tools, self.session.own_means
        if not named or tools is None:
            return state
        means = Means(
            tools.means.transformers if OwnMeans.TAPS in named else (),
            tools.means.shunts if OwnMeans.CAPACITORS in named else (),
            tools.means.switches if OwnMeans.SWITCHING in named else (),
        )
        p, q = self.injections(state)
        network = self.world.network
        limits = {name: getattr(network, name) for name in ("v_min", "v_max", "loading_max")}
        networks, of_period = list(state.run_by.networks), state.run_by.of_period.copy()
        seen = dict(state.set_for)
        fresh = [t for t in range(len(p)) if seen.get(self.part.start + t) != _mark(p[t], q[t], means)]
        of_period[[self.part.start + t for t in fresh]] = 0
        seen |= {self.part.start + t: _mark(p[t], q[t], means) for t in fresh}
        for alike in self._broken_alike(p, q, fresh):
            made = schedule(_own_limits(tools.tables), means, p[alike], q[alike], self.guard)
            of_period[self.part.start + alike] = len(networks) + made.operation.of_period
            networks += [replace(one, **limits) for one in made.operation.networks]
        return replace(state, operation=Operation(tuple(networks), of_period), set_for=seen)

    def _broken_alike(self, p: Floats, q: Floats, among: Sequence[int]) -> Iterator[Ints]:
        """Of some quarter-hours of the horizon those in which the same limits of distribution grids are broken at the
        normal setting, together; what is broken alike is mended alike, and seldom otherwise."""
        network = self.world.seen(True, False)
        if not among:
            return
        high, low, loading = margins(network, solve(network, p[list(among)], q[list(among)]))
        high, low = high + self.guard.voltage_pu, low + self.guard.voltage_pu
        high[:, network.slack] = low[:, network.slack] = -np.inf
        broken = np.hstack([high > 0, low > 0, loading + self.guard.loading_share > 0])
        kinds: dict[bytes, list[int]] = {}
        for t in np.flatnonzero(broken.any(axis=1)).tolist():
            kinds.setdefault(broken[t].tobytes(), []).append(among[t])
        yield from (np.array(periods, dtype=np.int64) for periods in kinds.values())


def _mark(p_mw: Floats, q_mvar: Floats, means: Means) -> bytes:
    """What own means were set for: the same injections ask for the same setting."""
    return p_mw.tobytes() + q_mvar.tobytes() + repr(means).encode()


def _own_limits(tables: GridTables) -> GridTables:
    """The tables with limits of distribution grids alone, whose names have a slash: a DSO sets its means for those."""
    return replace(
        tables,
        buses=tuple(row if "/" in row.bus else replace(row, v_min_pu=1 / FAR, v_max_pu=FAR) for row in tables.buses),
        **{
            table: tuple(
                row if "/" in getattr(row, name) else replace(row, loading_max_percent=100 * FAR)
                for row in getattr(tables, table)
            )
            for table, name in (("lines", "line"), ("transformers", "transformer"), ("branches", "branch"))
        },
    )
