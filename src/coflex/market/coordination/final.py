"""What a run leaves: the state by full power flow at what really flows, and what it costs to mend it.

An operator without a market orders what it needs: loads are shed, generators turned down, the balance kept by the
system's last reserve, all at the case's emergency price. Limits are mended with the balance as the run left it, by one
clearing of such orders, so the cost depends on what is broken and not on who broke it; what the balance lacks comes on
top.
"""

from __future__ import annotations

from decimal import Decimal

import numpy as np

from coflex.domain.offer import Offer, OfferStep
from coflex.domain.quantity import Direction, Floats, Ints
from coflex.domain.time import Axis
from coflex.grid import assess
from coflex.grid.means import OperatedGrid, Operation
from coflex.grid.powerflow import GridState, solve
from coflex.grid.rows import Guard
from coflex.market.book import Place, build
from coflex.market.clearing import clear, injections
from coflex.market.coordination.outcome import Final
from coflex.market.coordination.state import State
from coflex.market.coordination.world import World
from coflex.market.model import Demand

# kW of imbalance that whole kW and the power flow's accuracy leave.
STILL_KW = 0.5
_SYSTEM = "system"


def final(state: State) -> Final:
    """Look at what a run has left, and mend it. Raises GridFailure where a state has no power flow."""
    world = state.world
    change_p, change_q = state.changes()
    before = solve(world.network, world.p_mw, world.q_mvar)
    after = state.run_by.solve(world.p_mw + change_p, world.q_mvar + change_q)
    broken_d, broken_t = _broken(world, after)
    voltage, loading = _worst(world, after)
    lacking = world.system_kw - state.moved_kw()
    hours = world.axis.hours
    limits_kwh, unmended = _mend(state, after, change_p, change_q)
    unbalanced_kwh = float(np.abs(lacking)[np.abs(lacking) > STILL_KW].sum()) * hours
    mended_kwh = limits_kwh + unbalanced_kwh
    was_d, was_t = _broken(world, before)
    return Final(
        before_distribution=was_d,
        before_transmission=was_t,
        violations_distribution=broken_d,
        violations_transmission=broken_t,
        worst_voltage_pu=voltage,
        worst_loading_share=loading,
        unbalanced_kwh=unbalanced_kwh,
        limits_kwh=limits_kwh,
        mended_kwh=mended_kwh,
        mended_eur=mended_kwh * world.emergency_eur_mwh / 1000.0,
        unmended=unmended,
        losses_kwh=float(after.losses_mw.sum()) * 1000.0 * hours,
        interface_kw=_interface(world, change_p),
    )


def _margins(world: World, state: GridState) -> tuple[Floats, Floats]:
    """By how much voltages (t, n) and loadings (t, m) are beyond their limits, the slack's own voltage left out."""
    high, low, loading = assess.margins(world.network, state)
    voltage = np.maximum(high, low)
    voltage[:, world.network.slack] = -np.inf
    return voltage, loading


def _broken(world: World, state: GridState) -> tuple[int, int]:
    """Elements and quarter-hours beyond a limit: in distribution grids, in transmission."""
    voltage, loading = _margins(world, state)
    nodes, branches = voltage > assess.TOLERANCE, loading > assess.TOLERANCE
    below = int(nodes[:, world.node_grid >= 0].sum() + branches[:, world.branch_grid >= 0].sum())
    return below, int(nodes.sum() + branches.sum()) - below


def _worst(world: World, state: GridState) -> tuple[float, float]:
    voltage, loading = _margins(world, state)
    worst = (float(voltage.max(initial=0.0)), float(loading.max(initial=0.0)))
    first, second = (value if value > assess.TOLERANCE else 0.0 for value in worst)
    return first, second


def _interface(world: World, change_p: Floats) -> Floats:
    """kW (g, t) by which units of each distribution grid bring it up."""
    found = np.zeros((len(world.grids), len(world.axis)))
    for g in range(len(world.grids)):
        found[g] = change_p[:, world.node_grid == g].sum(axis=1) * 1000.0
    return found


def _mend(left: State, after: GridState, change_p: Floats, change_q: Floats) -> tuple[float, int]:
    """kWh of the cheapest changes that bring all limits back with the balance as it is, and limits that they cannot.

    What is missing in the balance is the system's last reserve's, which flows already; a change for a limit that also
    balances by chance is none the less a change for a limit.
    """
    voltage, loading = _margins(left.world, after)
    rows = np.flatnonzero((voltage > assess.TOLERANCE).any(axis=1) | (loading > assess.TOLERANCE).any(axis=1))
    if not len(rows):
        return 0.0, 0
    kw, short = _cleared(left, rows, change_p[rows], change_q[rows])
    return kw * left.world.axis.hours, short


def _cleared(left: State, rows: Ints, change_p: Floats, change_q: Floats) -> tuple[float, int]:
    """kW summed over broken quarter-hours of the cheapest mending, and limits left."""
    world = left.world
    operation = Operation(left.run_by.networks, left.run_by.of_period[rows])
    p, q = world.p_mw[rows] + change_p, world.q_mvar[rows] + change_q
    axis = Axis(world.axis.start, len(rows), world.axis.step)
    offers, places = _orders(world, axis, p, q)
    book = build(offers, axis, places)
    periods = np.arange(len(rows), dtype=np.int64)
    demand = Demand(np.ones_like(periods), periods, np.zeros(len(rows)), np.full(len(rows), np.inf), net=True)
    answer = clear(book, np.ones(len(book), dtype=np.bool_), demand, OperatedGrid(operation, p, q, Guard()))
    moved_p, moved_q = injections(book, answer.award_kw / 1000.0, world.network.n)
    state = operation.solve(p + moved_p, q + moved_q)
    voltage, loading = _margins(world, state)
    short = int((voltage > 10 * assess.TOLERANCE).sum() + (loading > 10 * assess.TOLERANCE).sum())
    return float(answer.award_kw.sum()), short


def _orders(world: World, axis: Axis, p: Floats, q: Floats) -> tuple[list[Offer], dict[str, Place]]:
    """What an operator may order: loads down to nothing, generation down to nothing, and the system's last reserve at
    the slack, as much as all of it together."""
    price = Decimal(str(round(world.emergency_eur_mwh, 2)))
    network = world.network
    offers: list[Offer] = []
    places: dict[str, Place] = {}

    def offer(name: str, direction: Direction, kw: Floats, node: int, tan_phi: float) -> None:
        if not (kw >= 1).any():
            return
        step = OfferStep(1, axis.start, price, tuple(np.floor(kw).astype(int).tolist()))
        places[name] = Place(node, "", tan_phi)
        offers.append(
            Offer(f"{name} {direction.value}", len(offers), axis.start, "", "", "", direction, name, None, (step,))
        )

    for n in range(network.n):
        if n == network.slack:
            continue
        load, made = np.maximum(0.0, -p[:, n]) * 1000.0, np.maximum(0.0, p[:, n]) * 1000.0
        drawn = float(np.abs(p[:, n]).sum())
        tan_phi = float(q[:, n].sum() / p[:, n].sum()) if drawn and abs(p[:, n].sum()) > 1e-9 else 0.0
        offer(f"shed {network.node_names[n]}", Direction.UP, load, n, float(np.clip(tan_phi, -1.0, 1.0)))
        offer(f"curtail {network.node_names[n]}", Direction.DOWN, made, n, 0.0)
    whole = np.full(len(axis), float(np.abs(p).sum(axis=1).max() * 1000.0 + 1.0))
    for direction in Direction:
        offer(f"{_SYSTEM} {direction.value}", direction, whole, network.slack, 0.0)
    return offers, places
