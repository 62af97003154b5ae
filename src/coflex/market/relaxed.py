"""Clearing on the conic relaxation: awards, couplings and branch flow in one cone program.

The relaxation has no one state for given injections to be linearised at, so it gives no rows; it is solved whole.
Quarter-hours that no offer ties together are programs of their own. `clear_conic` decides integers where the couplings
alone come nearest to the relaxed awards, and solves again with them fixed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from coflex.domain.quantity import Bools, Floats, Ints
from coflex.grid.conic import BranchFlow, Moves, RelaxedFlow, relaxation
from coflex.grid.linear import LinearGrid
from coflex.grid.means import OperatedGrid, Operation
from coflex.grid.rows import FROM, HIGH, LOW, AcGrid, GridRows, RowKeys
from coflex.market.book import OrderBook
from coflex.market.clearing import Answer, _blocks, _by_receipt, _whole_kw, injections
from coflex.market.model import PENALTY, Demand, Model, assemble, undecided
from coflex.solver import cone, highs
from coflex.solver.cone import ConeSolution
from coflex.solver.program import Ending, Program

# EUR/MWh that losses cost beside the awards, so that of equally cheap solutions the one without needless current is
# found: far below prices of energy, far above the solver's accuracy.
LOSS_PRICE = 1.0
# MW by which an interior point may miss a bound that it means.
_NEAR = 1e-5


# The network, or the networks over time, of a clearing, with base injections and the guard of its limits.
Seen = AcGrid | OperatedGrid


def operation_of(grid: Seen) -> Operation:
    """The network that holds in each period of a grid."""
    if isinstance(grid, OperatedGrid):
        return grid.operation
    return Operation.steady(grid.network, len(grid.p_mw))


def seen_by(grid: Seen, kind: type[AcGrid]) -> Seen:
    """The same grid, injections and guard by another model."""
    if isinstance(grid, OperatedGrid):
        return replace(grid, kind=kind)
    return kind(grid.network, grid.p_mw, grid.q_mvar, grid.guard)


@dataclass(frozen=True, eq=False)
class Relaxed:
    """The cheapest solution of the relaxation in t periods.

    `missing`: limits or requests had to be broken. `x`: the model's columns; `cost` of them in EUR, without losses;
    `bound`: what no solution undercuts, losses priced as asked. `row_price`: of the model's rows, EUR per unit;
    `grid_worth[k]`: EUR per MW of each block column. `flow`: the states of `periods`; `limit_price[t, limit]`: EUR per
    unit of `BranchFlow.under`, never positive; `form`, `index` of each limit.
    """

    missing: bool
    x: Floats
    cost: float
    bound: float
    row_price: Floats
    grid_worth: Floats
    periods: Ints
    flow: RelaxedFlow
    limit_price: Floats
    form: Ints
    index: Ints
    seconds: float


def relax(model: Model, grid: Seen, periods: Ints, loss_price: float, soft: bool = True) -> Relaxed | None:
    """Solve the relaxation of a model over some periods, all its blocks' among them, inside the limits of `grid`.

    Where limits and requests cannot all be met, what is missing costs the penalty; with `soft` false the answer is then
    None, which proves that no injections of these blocks meet them.
    Raises GridFailure on a meshed grid, SolverFailure when the solver gives up.
    """
    parts: list[_Part] = []
    for group in _groups(model, periods):
        part = _solve(model, grid, group, loss_price, soft)
        if part is None:
            return None
        parts.append(part)
    x, row_price = np.zeros(len(model.fixed.cost)), np.zeros(model.rows)
    worth = np.zeros(len(x))
    for part in parts:
        columns, rows = part.group.columns, part.group.rows
        x[columns], row_price[rows], worth[columns] = part.x, part.row_price, part.worth
    when = np.concatenate([part.group.periods for part in parts])
    order = np.argsort(when, kind="stable")
    form, index = parts[0].limits
    return Relaxed(
        missing=any(part.missing for part in parts),
        x=x,
        cost=float(model.fixed.cost @ x),
        bound=sum(part.bound for part in parts),
        row_price=row_price,
        grid_worth=worth[: len(model.blocks)],
        periods=when[order],
        flow=_together([part.flow for part in parts], order),
        limit_price=np.concatenate([part.limit_price for part in parts])[order],
        form=form,
        index=index,
        seconds=sum(part.seconds for part in parts),
    )


def clear_conic(
    book: OrderBook,
    admissible: Bools,
    demand: Demand,
    grid: Seen,
    capability_mw: Mapping[tuple[str, int], Floats] | None = None,
) -> Answer:
    """Clear on the conic relaxation of a radial grid; `grid` gives network, base injections and guard.

    Award <= offer in whole kW, nothing bought beyond a request; but limits hold in the relaxation alone, which a full
    power flow must confirm. Rows of the answer name the limits that bind, with the linear model's slopes.
    Raises GridFailure on a meshed grid, SolverFailure when the solver gives up.
    """
    everywhere = np.arange(len(book.axis), dtype=np.int64)
    nothing = np.zeros((len(book.axis), grid.network.n))
    broken = grid.look(nothing, nothing, everywhere, RowKeys.none()).broken
    periods = np.unique(np.concatenate([broken.period, demand.period]))
    blocks = _blocks(book, admissible, periods)
    periods = np.unique(np.concatenate([periods, book.period[blocks]]))
    model = assemble(book, blocks, demand, capability_mw)
    if not len(periods):
        return _answer(model, grid, None, 0.0)
    found = relax(model, grid, periods, LOSS_PRICE)
    assert found is not None  # a soft program always has a solution
    bound = found.cost
    whole = undecided(model, found.x)
    while whole.any():
        found = relax(_decided(model, found.x, whole), grid, periods, LOSS_PRICE)
        assert found is not None
        more = undecided(model, found.x) & ~whole
        if not more.any():
            break
        whole = whole | more
    return _answer(model, grid, found, max(0.0, found.cost - bound) / max(1.0, abs(found.cost)))


# ---------------------------------------------------------------- groups of periods


@dataclass(frozen=True, eq=False)
class _Group:
    """Columns and rows of the model that belong to some periods and to no others."""

    columns: Ints
    rows: Ints
    periods: Ints


def _groups(model: Model, periods: Ints) -> Iterator[_Group]:
    """The periods, joined where a row of the model ties blocks of several together."""
    count, height = len(model.fixed.cost), model.rows
    entries = sparse.coo_array(model.fixed.matrix)
    when = np.concatenate([model.book.period[model.blocks], np.resize(model.demand.period, model.demand.slacks)])
    first = count + height
    left = np.concatenate([entries.col, np.arange(len(when))])
    right = np.concatenate([count + entries.row, first + np.searchsorted(periods, when)])
    size = first + len(periods)
    graph = sparse.coo_array((np.ones(len(left)), (left, right)), shape=(size, size))
    _, label = connected_components(graph, directed=False)
    for group in np.unique(label[first:]):
        mine = label == group
        yield _Group(
            np.flatnonzero(mine[:count]), np.flatnonzero(mine[count:first]), periods[np.flatnonzero(mine[first:])]
        )


@dataclass(frozen=True, eq=False)
class _Part:
    group: _Group
    missing: bool
    x: Floats
    bound: float
    row_price: Floats
    worth: Floats
    flow: RelaxedFlow
    limit_price: Floats
    limits: tuple[Ints, Ints]
    seconds: float


def _solve(model: Model, grid: Seen, group: _Group, loss_price: float, soft: bool) -> _Part | None:
    """One group: at first with every limit and request as it stands, then with what is missing at the penalty."""
    book, hours = model.book, model.book.axis.hours
    runs = operation_of(grid)
    there = Operation(runs.networks, runs.of_period[group.periods])
    flow = BranchFlow(there, grid.p_mw[group.periods], grid.q_mvar[group.periods], grid.guard)
    own = np.flatnonzero(group.columns < len(model.blocks))
    block = model.blocks[group.columns[own]]
    placed = book.node[block] >= 0
    own, block = own[placed], block[placed]
    at = np.searchsorted(group.periods, book.period[block])
    sign = book.sign[block].astype(np.float64)
    moves = Moves(own, at, book.node[block], sign, sign * book.tan_phi[block])
    linear = _narrowed(model.fixed, group)
    slack = np.isin(group.columns, len(model.blocks) + np.arange(model.demand.slacks))
    strict = replace(linear, cost=np.where(slack, 0.0, linear.cost), upper=np.where(slack, 0.0, linear.upper))
    program = relaxation(flow, strict, moves, hours * loss_price)
    solution = cone.solve(program)
    missing = solution.ending is Ending.INFEASIBLE
    seconds = solution.seconds
    if missing:
        if not soft:
            return None
        program = relaxation(flow, linear, moves, hours * loss_price, hours * PENALTY)
        solution = cone.solve(program)
        seconds += solution.seconds
    grid_rows = len(flow.equal_to)
    worth = flow.moved(moves, len(group.columns)).T @ solution.equal_price[-grid_rows:]
    return _Part(
        group,
        missing,
        solution.x[: len(group.columns)],
        solution.bound,
        _row_prices(strict if not missing else linear, solution),
        worth,
        flow.read(solution.x[len(group.columns) :][: len(flow.losses)]),
        solution.upper_price[_grid_limits(program.under, flow, missing)].reshape(flow.periods, -1),
        flow.limit,
        seconds,
    )


def _grid_limits(under: Floats, flow: BranchFlow, softened: bool) -> slice:
    """Where the flow's limits stand among the inequalities: last, or before the signs of their slacks."""
    count = len(flow.under)
    end = len(under) - (count if softened else 0)
    return slice(end - count, end)


def _narrowed(program: Program, group: _Group) -> Program:
    columns, rows = group.columns, group.rows
    return Program(
        program.cost[columns],
        sparse.csr_array(program.matrix[rows][:, columns]),
        program.row_lower[rows],
        program.row_upper[rows],
        program.lower[columns],
        program.upper[columns],
        program.integer[columns],
    )


def _row_prices(linear: Program, solution: ConeSolution) -> Floats:
    """Change of cost per unit of each row of the linear program, from its equality or its upper and lower side."""
    tied = linear.row_lower == linear.row_upper
    above, below = ~tied & np.isfinite(linear.row_upper), ~tied & np.isfinite(linear.row_lower)
    price = np.zeros(len(tied))
    price[tied] = solution.equal_price[: int(tied.sum())]
    price[above] += solution.upper_price[: int(above.sum())]
    price[below] -= solution.upper_price[int(above.sum()) :][: int(below.sum())]
    return price


def _together(flows: list[RelaxedFlow], order: Ints) -> RelaxedFlow:
    def joined(name: str) -> Floats:
        together: Floats = np.concatenate([getattr(flow, name) for flow in flows])[order]
        return together

    return RelaxedFlow(*(joined(name) for name in ("vm", "loading_from", "loading_to", "gap", "invented_mw")))


# ---------------------------------------------------------------- integers and answer


def _decided(model: Model, x: Floats, whole: Bools) -> Model:
    """The model with the binaries `whole` fixed where awards that keep the model's own rows are nearest to x."""
    fixed, count = model.fixed, len(model.fixed.cost)
    integer = whole.astype(np.bool_)
    one = sparse.eye_array(count, format="csr")
    # Distance d of each column: -d <= y - x <= d.
    matrix = sparse.block_array([[fixed.matrix, None], [one, -one], [-one, -one]], format="csr")
    free = np.full(count, np.inf)
    nearest = Program(
        cost=np.concatenate([np.zeros(count), np.ones(count)]),
        matrix=sparse.csr_array(matrix),
        row_lower=np.concatenate([fixed.row_lower, -free, -free]),
        row_upper=np.concatenate([fixed.row_upper, x, -x]),
        lower=np.zeros(2 * count),
        upper=np.concatenate([fixed.upper, free]),
        integer=np.concatenate([integer, np.zeros(count, dtype=np.bool_)]),
    )
    chosen = np.round(highs.solve(nearest, gap=1e-6).x[:count])
    lower, upper = fixed.lower.copy(), fixed.upper.copy()
    lower[integer] = upper[integer] = chosen[integer]
    return replace(model, fixed=replace(fixed, lower=lower, upper=upper))


def _answer(model: Model, grid: Seen, found: Relaxed | None, gap: float) -> Answer:
    book, hours, k = model.book, model.book.axis.hours, len(model.blocks)
    x = np.zeros(len(model.fixed.cost)) if found is None else found.x
    price = np.zeros(model.rows) if found is None else found.row_price
    awarded, considered = np.zeros(len(book)), np.zeros(len(book), dtype=np.bool_)
    awarded[model.blocks], considered[model.blocks] = _settled(x[:k], book.quantity_mw[model.blocks]), True

    def worth(part: slice) -> Floats:
        of_all = np.zeros(len(book))
        of_all[model.blocks] = (model.fixed.matrix[part][:, :k].T @ price[part]) / hours
        return of_all

    by_grid = np.zeros(len(book))
    by_grid[model.blocks] = 0.0 if found is None else found.grid_worth / hours
    rows, row_price, short = (None, np.zeros(0), np.zeros(0)) if found is None else _binding(book, grid, found, awarded)
    kw = _by_receipt(book, _whole_kw(book, awarded, model.demand, relief=True), considered)
    return Answer(
        award_kw=kw,
        considered=considered,
        request_worth=worth(slice(0, model.first_light)),
        grid_worth=by_grid,
        light_worth=worth(slice(model.first_light, model.first_coupling)),
        coupling_worth=worth(slice(model.first_coupling, model.rows)),
        uncovered_mw=_uncovered(model, x),
        rows=rows,
        short=short,
        row_price=row_price,
        passes=1,
        gap=gap,
        solver_seconds=0.0 if found is None else found.seconds,
        award_mw=awarded,
    )


def _settled(x: Floats, most: Floats) -> Floats:
    """Awards of an interior point, which comes near to its bounds and never quite there, on them where it is near."""
    return np.where(x < _NEAR, 0.0, np.where(x > most - _NEAR, most, x))


def _uncovered(model: Model, x: Floats) -> Floats:
    k = len(model.blocks)
    slack = x[k : k + model.demand.slacks].reshape(-1, max(1, len(model.demand))).sum(axis=0)
    return np.where(slack > 1e-7, slack, 0.0)


def _binding(book: OrderBook, grid: Seen, found: Relaxed, awarded: Floats) -> tuple[GridRows, Floats, Floats]:
    """Limits that bind in the relaxation as rows, their price in EUR/h per unit of the row, and what each lacks."""
    network, guard = grid.network, grid.guard
    pressed = found.limit_price < -1e-6 * max(1.0, float(-found.limit_price.min(initial=0.0)))
    t, limit = np.nonzero(pressed)
    keys = RowKeys(found.periods[t], found.form[limit], found.index[limit])
    voltage = keys.form <= LOW
    node, branch = np.where(voltage, keys.index, 0), np.where(voltage, 0, keys.index)
    share = np.where(keys.form == FROM, found.flow.loading_from[t, branch], found.flow.loading_to[t, branch])
    allowed = network.loading_max[branch] - guard.loading_share
    vm = found.flow.vm[t, node]
    over = np.where(keys.form == HIGH, vm - network.v_max[node], network.v_min[node] - vm) + guard.voltage_pu
    # Prices are of squares: d(v^2) = 2 v dv, and of the current as a share of what is allowed.
    unit = np.where(voltage, 2 * vm, 2 / allowed)
    short = np.where(voltage, over, share - allowed)
    change = injections(book, awarded, network.n)
    linear = seen_by(grid, LinearGrid)
    state = linear.look(*change, found.periods, RowKeys.none()).state
    rows = linear.rows(state, found.periods, keys, *change)
    price = found.limit_price[t, limit] * unit / book.axis.hours
    return rows, price, np.where(found.missing & (short > 1e-6), short, 0.0)
