"""Optimal power flow: the cheapest dispatch of what `Dispatch` rows call, and a price at every bus.

`dc` (on the `dc` grid model, flows b (a_i - a_j - shift), no losses, no voltages) is one convex program with a proof of
its optimum:

    min  sum_k C_k(p_k)   s.t.  sum of p at i - load_i - g_i  =  sum of flows out of i     price of bus i
                                |flow_b| <= rating_b,   p_min <= p <= p_max

`ac` is `grid.dispatch` with voltages to choose and ratings in MVA, started from the dc answer.
R. D. Zimmerman et al., "MATPOWER", IEEE Trans. Power Syst. 26 (2011) 12, doi:10.1109/TPWRS.2010.2051168.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import sparse

from coflex.domain.errors import Finding, SolverFailure, refuse
from coflex.domain.quantity import Floats, Ints
from coflex.grid.controllable import Controllables, segments
from coflex.grid.dc import DcFlow, dc_flow
from coflex.grid.dispatch import Dispatched, dispatch
from coflex.grid.network import Network, build
from coflex.grid.nodal import prices
from coflex.grid.tables import GridTables
from coflex.solver import quadratic
from coflex.solver.program import Ending, Program, Solution

# Price of a MW that no dispatch covers, in dearest prices.
UNCOVERED = 100.0
# EUR/h per MW: a limit with a smaller price does not bind; MW: less is covered.
BINDS, COVERED = 1e-6, 1e-6


@dataclass(frozen=True, eq=False)
class OptimalFlow:
    """t periods, k controllables, n nodes, m branches.

    `objective_eur_h` (t,) with all constant costs, without the price of what is uncovered. `p_mw`, `q_mvar` (t, k);
    `price`, `energy`, `congestion` (t, n): EUR/MWh of withdrawal, at the slack, and what limits and losses add.
    `reactive_price` (t, n): EUR/Mvarh, zero for `dc`. `loading`,
    `flow_mw` (t, m): share of the rating, and MW into the from end. `uncovered_mw` (t, n):
    demand that nothing covers, negative where injections find no way out. `binding`: period and name of each limit
    that has a price, `binding_price` in EUR/h per MW (branches) or pu (voltages), not positive. `vm` (t, n): pu.
    `kept` (t,): whether every limit is kept.
    """

    names: tuple[str, ...]
    node_names: tuple[str, ...]
    objective_eur_h: Floats
    p_mw: Floats
    q_mvar: Floats
    price: Floats
    energy: Floats
    reactive_price: Floats
    vm: Floats
    loading: Floats
    flow_mw: Floats
    uncovered_mw: Floats
    binding: tuple[tuple[int, str], ...]
    binding_price: Floats
    kept: np.ndarray

    @property
    def congestion(self) -> Floats:
        return self.price - self.energy

    @property
    def feasible(self) -> np.ndarray:
        """Periods (t,) in which all demand is covered within the limits."""
        return np.asarray(self.kept & (np.abs(self.uncovered_mw).max(axis=1) <= COVERED))


def optimal_flow(tables: GridTables, model: Literal["dc", "ac"] = "dc") -> OptimalFlow:
    """The optimal power flow of a grid's tables as they stand, one period.

    What bears a `Dispatch` row is called between its bounds, injection positive (a load's are negative); everything
    else injects what its row says; a storage without a row rests. Raises Refused on faults of the tables,
    GridFailure or SolverFailure as `dispatch`; what cannot be covered is told in the answer.
    """
    network = build(tables)
    chosen, constant = called(tables, network)
    injection = given(tables, network)
    if model == "dc":
        return dc_optimal_flow(network, injection.real, chosen, constant)
    start = dc_optimal_flow(network, injection.real, chosen, constant)
    answer = dispatch(
        network, injection.real, injection.imag, chosen, voltages=True, apparent=True, start=(start.p_mw, start.q_mvar)
    )
    return _of_dispatch(network, chosen, constant, answer)


def called(tables: GridTables, network: Network) -> tuple[Controllables, float]:
    """Controllables of one period from `Dispatch` and `CostPoint` rows, and their constant cost in EUR/h.

    Raises Refused where there is nothing to call, bounds are crossed or a cost is not convex.
    """
    node = dict(network.node_of_element)
    node |= {source.source: network.node_of(source.bus) for source in tables.sources}
    rows = tables.dispatches
    if not rows:
        refuse("The dispatch", [Finding("dispatches.csv", "empty", "Nothing may be called; give a row and its cost.")])
    points = {
        row.element: tuple((p.p_mw, p.cost_eur_h) for p in tables.cost_points if p.element == row.element)
        for row in rows
    }
    bare = np.array([not points[row.element] for row in rows], dtype=np.float64)
    array = {
        name: np.array([[getattr(row, name) for row in rows]], dtype=np.float64)
        for name in ("p_min_mw", "p_max_mw", "q_min_mvar", "q_max_mvar", "c1_eur_mwh")
    }
    chosen = Controllables(
        names=tuple(row.element for row in rows),
        node=np.array([node[row.element] for row in rows], dtype=np.int64),
        p_min=array["p_min_mw"],
        p_max=array["p_max_mw"],
        q_min=array["q_min_mvar"],
        q_max=array["q_max_mvar"],
        tan_phi=np.full(len(rows), np.nan),
        c1=array["c1_eur_mwh"] * bare,
        c2=np.array([row.c2_eur_mw2h for row in rows]) * bare,
        q1=np.zeros((1, len(rows))),
        use=np.zeros(len(rows)),
        corners=tuple(points[row.element] for row in rows),
    )
    return chosen, float(sum(row.c0_eur_h for row in rows if not points[row.element]))


def given(tables: GridTables, network: Network) -> np.ndarray:
    """Complex injections (1, n) in MVA of all loads and generators that no `Dispatch` row calls."""
    callable_names = {row.element for row in tables.dispatches}
    power = {row.load: -complex(row.p_mw, row.q_mvar) for row in tables.loads}
    power |= {row.generator: complex(row.p_mw, row.q_mvar) for row in tables.generators}
    total = np.zeros((1, network.n), dtype=np.complex128)
    for name, value in power.items():
        if name not in callable_names:
            total[0, network.node_of_element[name]] += value
    return total


def dc_optimal_flow(network: Network, p_mw: Floats, chosen: Controllables, constant: float = 0.0) -> OptimalFlow:
    """The `dc` optimal flow of each period: `chosen` on top of fixed injections `p_mw` (t, n) in MW.

    `constant`: EUR/h added to each objective. Raises SolverFailure when there is no answer even with demand left
    uncovered, which takes phase shifters that force a flow above a rating.
    """
    flow = dc_flow(network)
    solved = [_solve_dc(flow, p_mw[t], chosen.periods(np.array([t]))) for t in range(len(p_mw))]
    k, n = len(chosen), network.n
    x = np.array([solution.x for solution in solved])
    row_price = np.array([solution.row_price for solution in solved])
    rated, angle = _rated(network), x[:, k : k + n]
    power, limit_price = flow.powers(angle), row_price[:, n : n + len(rated)]
    shortage, surplus = x[:, k + n : k + 2 * n], x[:, k + 2 * n : k + 3 * n]
    binding = np.argwhere(np.abs(limit_price) > BINDS)
    p = x[:, :k]
    return OptimalFlow(
        names=chosen.names,
        node_names=network.node_names,
        objective_eur_h=chosen.cost(p, np.zeros_like(p)).sum(axis=1) + constant,
        p_mw=p,
        q_mvar=np.zeros_like(p),
        price=row_price[:, :n],
        energy=np.repeat(row_price[:, [network.slack]], n, axis=1),
        reactive_price=np.zeros_like(angle),
        vm=np.ones_like(angle),
        loading=np.abs(power) / np.minimum(network.rating_from, network.rating_to),
        flow_mw=power,
        uncovered_mw=np.where(np.abs(shortage - surplus) > COVERED, shortage - surplus, 0.0),
        binding=tuple((int(t), f"loading {network.branch_names[rated[r]]}") for t, r in binding),
        binding_price=-np.abs(limit_price[tuple(binding.T)]),
        kept=np.ones(len(p), dtype=np.bool_),
    )


def _rated(network: Network) -> Ints:
    return np.flatnonzero(np.isfinite(np.minimum(network.rating_from, network.rating_to)))


def _solve_dc(flow: DcFlow, p_mw: Floats, one: Controllables) -> Solution:
    """Columns: p, angles, shortage and surplus of each node, cost of curves. Rows: balances, flows, pieces."""
    network, k, n = flow.network, len(one), flow.network.n
    curved = [i for i, corners in enumerate(one.corners) if corners]
    pieces = [(i, place, *piece) for place, i in enumerate(curved) for piece in segments(one.corners[i])]
    reach = np.maximum(np.abs(one.p_min[0]), np.abs(one.p_max[0]))
    reach = np.where(np.isfinite(reach), reach, 0.0)
    dearest = max(np.abs(one.c1).max(), (2 * one.c2 * reach).max(), *(abs(piece[2]) for piece in pieces), 1.0)
    rated, susceptance = _rated(network), sparse.diags_array(flow.susceptance)
    at = sparse.csr_array((np.ones(k), (one.node, np.arange(k))), shape=(n, k))
    eye, by_angle = sparse.eye_array(n), susceptance @ flow.incidence
    by_p = sparse.csr_array(
        (np.array([p[2] for p in pieces]), (np.arange(len(pieces)), [p[0] for p in pieces])), shape=(len(pieces), k)
    )
    minus = sparse.csr_array(
        (-np.ones(len(pieces)), (np.arange(len(pieces)), [p[1] for p in pieces])), shape=(len(pieces), len(curved))
    )
    balance = [at, -flow.incidence.T @ by_angle, eye, -eye, sparse.csr_array((n, len(curved)))]
    flows = [None, by_angle[rated], None, None, None]
    matrix = sparse.block_array([balance, flows, [by_p, None, None, None, minus]], format="csr")
    shift = flow.susceptance * flow.shift
    room = (np.minimum(network.rating_from, network.rating_to) * network.loading_max)[rated]
    demand = -p_mw + network.node_shunt.real - flow.incidence.T @ shift
    level = np.array([-piece[3] for piece in pieces])
    free = np.full(n, np.inf)
    free[network.slack] = 0.0
    penalty, curves = np.full(2 * n, UNCOVERED * dearest), np.full(len(curved), np.inf)
    program = Program(
        cost=np.concatenate([one.c1[0], np.zeros(n), penalty, np.ones(len(curved))]),
        matrix=sparse.csr_array(matrix),
        row_lower=np.concatenate([demand, shift[rated] - room, np.full(len(level), -np.inf)]),
        row_upper=np.concatenate([demand, shift[rated] + room, level]),
        lower=np.concatenate([one.p_min[0], -free, np.zeros(2 * n), -curves]),
        upper=np.concatenate([one.p_max[0], free, np.full(2 * n, np.inf), curves]),
        integer=np.zeros(k + 3 * n + len(curved), dtype=np.bool_),
    )
    bend = np.zeros(len(program.cost))
    bend[:k] = 2 * one.c2
    hessian = sparse.csr_array(sparse.diags_array(bend))
    hessian.eliminate_zeros()
    solution = quadratic.solve(program, hessian)
    if solution.ending is not Ending.OPTIMAL:
        raise SolverFailure(
            f"The dc optimal flow is {solution.ending.value}.",
            "Look for phase shifters that force a flow above a rating, and for costs that fall without end.",
        )
    return solution


def _of_dispatch(network: Network, chosen: Controllables, constant: float, answer: Dispatched) -> OptimalFlow:
    """The `ac` answer in the same words. What stays broken is named; MW that no choice covers stand at the slack."""
    price = prices(network, answer)
    binds = [r for r, by in enumerate(answer.limit_price) if by < -BINDS or answer.broken[r] > 0]
    rating = np.minimum(network.rating_from, network.rating_to)
    at = answer.limits.form, answer.limits.index
    per_unit = np.array([rating[i] if f > 1 else 1.0 for f, i in zip(*at, strict=True)])
    missing = np.zeros_like(price.real.total)
    missing[:, network.slack] = np.where(answer.feasible, 0.0, answer.unbalanced)
    return OptimalFlow(
        names=chosen.names,
        node_names=network.node_names,
        objective_eur_h=answer.cost_eur_h + constant,
        p_mw=answer.p_mw,
        q_mvar=answer.q_mvar,
        price=price.real.total,
        energy=price.real.energy,
        reactive_price=price.reactive.total,
        vm=answer.state.vm,
        loading=answer.state.loading,
        flow_mw=np.array(
            [(u[network.from_node] * np.conj(network.terminal_admittance[0] @ u)).real for u in answer.state.u]
        ),
        uncovered_mw=missing,
        binding=tuple((int(answer.limits.period[r]), answer.limit_names[r]) for r in binds),
        binding_price=(answer.limit_price / per_unit)[binds] if binds else np.zeros(0),
        kept=answer.feasible,
    )
