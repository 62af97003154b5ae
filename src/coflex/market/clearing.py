"""Clearing: the cheapest blocks that meet every need inside the grid's rows, standing under full AC power flow.

Successive linear programs: linearise the limits at risk where the last answer ended, solve, check by power flow, add
what is newly broken, repeat until the answer stands. Integers are decided once the linear answer stands, and the
passes go on with them fixed. What no admissible block covers is left as a slack with its row: never zeros in silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from coflex.domain.offer import Offer
from coflex.domain.quantity import Bools, Floats, Ints
from coflex.grid.rows import GridModel, GridRows, Guard, RowKeys
from coflex.market.book import OrderBook
from coflex.market.model import Demand, Model, assemble, undecided, with_grid
from coflex.solver import highs
from coflex.solver.program import Program, Solution

PASSES = 25
# Worst disagreement of a linear row with the power flow at which an answer stands, in pu or share of rating.
STANDS = 2e-7
# Share of what the awards cost by which indivisible offers may miss the best choice among them.
INTEGER_GAP = 1e-4
# First guard band: about the effect of rounding one award to whole kW on an MV feeder.
GUARD = Guard(voltage_pu=2e-5, loading_share=2e-4)


@dataclass(frozen=True, eq=False)
class Answer:
    """What a clearing decided, in the book's columns (n blocks).

    `award_kw[n]`: whole kW. `worth[n]`: EUR/MWh that the needs would pay for one more MWh of the block, before
    lights and couplings; `light[n]`, `grid[n]`, `coupling[n]`: what each of those takes off (negative) or adds.
    `considered[n]`: the block was in the program. `uncovered_mw[k]`: of each request; `short[r]`: of each grid row, in
    the row's own unit. `rows`, `row_price` the last linearisation with EUR per unit of room. `passes`, `gap`.
    """

    award_kw: Ints
    considered: Bools
    request_worth: Floats
    grid_worth: Floats
    light_worth: Floats
    coupling_worth: Floats
    uncovered_mw: Floats
    rows: GridRows | None
    short: Floats
    row_price: Floats
    passes: int
    gap: float
    solver_seconds: float

    @property
    def worth(self) -> Floats:
        """EUR/MWh that one more MWh of a block is worth, all told."""
        return self.request_worth + self.grid_worth + self.light_worth + self.coupling_worth


def clear(
    book: OrderBook,
    admissible: Bools,
    demand: Demand,
    grid: GridModel | None = None,
    capability_mw: Mapping[tuple[str, int], Floats] | None = None,
) -> Answer:
    """Clear the admissible blocks of a book against requests, grid limits and lights, whichever are given.

    Guarantees: award <= offer in whole kW; nothing bought beyond a request; the same book in any order gives the
    same answer; with a grid, every limit holds to 1e-6 by AC power flow where `short` is zero.
    Raises GridFailure when a state has no power flow, SolverFailure when the solver gives up.
    """
    if grid is None:
        model = assemble(book, _blocks(book, admissible, demand.period), demand, capability_mw)
        return _without_grid(model)
    for attempt in range(4):
        factor = 2.0**attempt
        guard = Guard(
            grid.guard.voltage_pu + GUARD.voltage_pu * factor, grid.guard.loading_share + GUARD.loading_share * factor
        )
        answer = _on_grid(book, admissible, demand, grid.with_guard(guard), capability_mw)
        # The rounding guard is ours alone: what stays short by less than it keeps the limit that was asked for.
        ours = _rounding(answer, GUARD, factor)
        answer = replace(answer, short=np.where(answer.short > ours, answer.short - ours, 0.0))
        if answer.short.any() or _holds(book, answer.award_kw, grid):
            return answer
    return answer


def _rounding(answer: Answer, guard: Guard, factor: float) -> Floats:
    """The rounding guard of each grid row, in its own unit."""
    names = () if answer.rows is None else answer.rows.names
    voltage = np.array([name.startswith("voltage") for name in names], dtype=np.bool_)
    return factor * np.where(voltage, guard.voltage_pu, guard.loading_share)


def injections(book: OrderBook, award_mw: Floats, n: int) -> tuple[Floats, Floats]:
    """Changes of injection (t, n) in MW and Mvar that awards of shape (blocks,) bring."""
    change_p = np.zeros((len(book.axis), n))
    change_q = np.zeros((len(book.axis), n))
    on = np.flatnonzero((award_mw != 0) & (book.node >= 0))
    signed = book.sign[on] * award_mw[on]
    np.add.at(change_p, (book.period[on], book.node[on]), signed)
    np.add.at(change_q, (book.period[on], book.node[on]), signed * book.tan_phi[on])
    return change_p, change_q


def _blocks(book: OrderBook, admissible: Bools, periods: Ints) -> Ints:
    """Admissible blocks of the periods that matter; indivisible offers with all their periods, or not at all."""
    wanted = admissible & np.isin(book.period, periods)
    whole = np.array([offer.block for offer in book.offers], dtype=np.bool_)
    if whole.any():
        count = len(book.offers)
        touched = np.bincount(book.offer[wanted], minlength=count) > 0
        spoiled = np.bincount(book.offer[~admissible], minlength=count) > 0
        keep = (whole & touched & ~spoiled)[book.offer]
        wanted = (wanted & ~whole[book.offer]) | keep
    return np.flatnonzero(wanted)


def _without_grid(model: Model) -> Answer:
    """One program: linear, then with those binaries whole that the linear answer leaves open, until none is."""
    whole = np.zeros_like(model.fixed.integer)
    seconds = 0.0
    while True:
        solution = highs.solve(replace(model.fixed, integer=whole))
        seconds += solution.seconds
        more = undecided(model, solution.x) & ~whole
        if not more.any():
            return _answer(model, model.fixed, solution, None, np.zeros(0), 1, seconds)
        whole = whole | more


def _on_grid(
    book: OrderBook,
    admissible: Bools,
    demand: Demand,
    grid: GridModel,
    capability_mw: Mapping[tuple[str, int], Floats] | None,
) -> Answer:
    n = grid.network.n
    everywhere = np.arange(len(book.axis), dtype=np.int64)
    change = np.zeros((len(book.axis), n)), np.zeros((len(book.axis), n))
    first = grid.look(*change, everywhere, RowKeys.none())
    known = first.broken
    periods = np.unique(np.concatenate([known.period, demand.period]))
    blocks = _blocks(book, admissible, periods)
    periods = np.unique(np.concatenate([periods, book.period[blocks]]))
    model = assemble(book, blocks, demand, capability_mw)
    state = first.state.part(periods)
    solution: Solution | None = None
    decided: Solution | None = None
    whole = np.zeros_like(model.fixed.integer)
    trust = _Trust()
    seconds = 0.0
    passes = 0
    while True:
        passes += 1
        rows = grid.rows(state, periods, known, *change)
        program, scale = with_grid(model, rows)
        solution = highs.solve(trust.around(_linear(program, whole, decided), solution, len(blocks)), solution)
        seconds += solution.seconds
        change = _changed(model, solution, n)
        seen = grid.look(*change, periods, known)
        short = solution.x[len(model.fixed.cost) :] * scale
        error = float(np.max(-grid.headroom(seen.state, periods, known) - short, initial=0.0))
        state, known = seen.state, known.then(seen.broken)
        if passes < PASSES and (len(seen.broken) or error > STANDS):
            trust = trust.after(error, bool(len(seen.broken)))
            continue
        more = undecided(model, solution.x) & ~whole
        if not more.any():
            break
        whole = whole | more
        spent = float(program.cost[: len(blocks)] @ solution.x[: len(blocks)])
        gap_eur = max(highs.ABSOLUTE_GAP, INTEGER_GAP * spent)
        decided = highs.solve(replace(program, integer=_padded(whole, program)), gap=gap_eur)
        seconds += decided.seconds
        solution, trust, passes = None, _Trust(), min(passes, PASSES // 2)
    gap = decided.gap if decided is not None else 0.0
    answer = _answer(model, program, solution, rows, short, passes, seconds)
    # Solved in the row's own scale; told per unit of its room.
    return replace(answer, gap=gap, row_price=answer.row_price / scale)


@dataclass(frozen=True, slots=True)
class _Trust:
    """How far the next answer may lie from the last one, as a share of each block: everywhere, until two passes in
    a row no longer bring the linear answer and the power flow together (a cycle between corners)."""

    radius: float = 1.0
    error: float = np.inf

    def after(self, error: float, grown: bool) -> _Trust:
        if grown or error < 0.5 * self.error:
            return _Trust(self.radius, error)
        return _Trust(self.radius / 2, error)

    def around(self, program: Program, last: Solution | None, count: int) -> Program:
        """The program with its first `count` columns held near the last answer."""
        if last is None or self.radius >= 1.0:
            return program
        reach = self.radius * program.upper[:count]
        lower, upper = program.lower.copy(), program.upper.copy()
        lower[:count] = np.maximum(lower[:count], last.x[:count] - reach)
        upper[:count] = np.minimum(upper[:count], last.x[:count] + reach)
        return replace(program, lower=lower, upper=upper)


def _linear(program: Program, whole: Bools, decided: Solution | None) -> Program:
    """The linear program: integers relaxed, those that have been decided fixed."""
    relaxed = np.zeros_like(program.integer)
    if decided is None:
        return replace(program, integer=relaxed)
    columns = np.flatnonzero(whole)
    lower, upper = program.lower.copy(), program.upper.copy()
    lower[columns] = upper[columns] = np.round(decided.x[columns])
    return replace(program, lower=lower, upper=upper, integer=relaxed)


def _padded(whole: Bools, program: Program) -> Bools:
    """A mask over the fixed part's columns as one over all columns."""
    mask = np.zeros_like(program.integer)
    mask[: len(whole)] = whole
    return mask


def _changed(model: Model, solution: Solution, n: int) -> tuple[Floats, Floats]:
    award = np.zeros(len(model.book))
    award[model.blocks] = solution.x[: len(model.blocks)]
    return injections(model.book, award, n)


def _holds(book: OrderBook, award_kw: Ints, grid: GridModel) -> bool:
    """Whether the rounded awards keep every true limit under AC power flow; periods without awards are as they were."""
    change = injections(book, award_kw / 1000.0, grid.network.n)
    touched = np.unique(book.period[award_kw > 0])
    return grid.look(*change, touched, RowKeys.none()).excess <= 0.0


def _answer(
    model: Model,
    program: Program,
    solution: Solution,
    rows: GridRows | None,
    short: Floats,
    passes: int,
    seconds: float,
) -> Answer:
    book, blocks, hours = model.book, model.blocks, model.book.axis.hours
    k, n = len(blocks), len(book)
    price = solution.row_price
    parts = {
        "request": slice(0, model.first_light),
        "light": slice(model.first_light, model.first_coupling),
        "coupling": slice(model.first_coupling, model.rows),
        "grid": slice(model.rows, len(price)),
    }
    worth = {}
    for name, part in parts.items():
        whole = np.zeros(n)
        whole[blocks] = (program.matrix[part][:, :k].T @ price[part]) / hours
        worth[name] = whole
    awarded = np.zeros(n)
    awarded[blocks] = solution.x[:k]
    considered = np.zeros(n, dtype=np.bool_)
    considered[blocks] = True
    return Answer(
        award_kw=_by_receipt(book, _whole_kw(book, awarded, model.demand, relief=rows is not None), considered),
        considered=considered,
        request_worth=worth["request"],
        grid_worth=worth["grid"],
        light_worth=worth["light"],
        coupling_worth=worth["coupling"],
        uncovered_mw=solution.x[k : k + model.demand.slacks].reshape(-1, max(1, len(model.demand))).sum(axis=0),
        rows=rows,
        short=np.where(short > 1e-7, short, 0.0),
        row_price=price[model.rows :] / hours,
        passes=passes,
        gap=solution.gap,
        solver_seconds=seconds,
    )


def _whole_kw(book: OrderBook, award_mw: Floats, demand: Demand, relief: bool) -> Ints:
    """Round to whole kW towards feasibility: up where awards only relieve a grid, down where they fill a request or
    where an energy limit stands."""
    kw = award_mw * 1000.0
    limited = np.array([offer.energy_limit_kwh is not None for offer in book.offers], dtype=np.bool_)[book.offer]
    requested = np.isin(2 * book.period + (book.sign > 0), 2 * demand.period + (demand.sign > 0))
    requested = np.isin(book.period, demand.period) if demand.net else requested
    down = limited | requested if relief else np.ones(len(book), dtype=np.bool_)
    whole = np.where(down, np.floor(kw + 1e-6), np.ceil(kw - 1e-6)).astype(np.int64)
    offered: Ints = np.round(book.quantity_mw * 1000).astype(np.int64)
    return np.minimum(whole, offered)


def _by_receipt(book: OrderBook, award_kw: Ints, considered: Bools) -> Ints:
    """Among blocks that are alike in all but their receipt, the earlier receipt is served first.

    Alike: quarter-hour, direction, price, place and reactive power, of offers without terms that couple periods.
    """
    free = np.array([_is_simple(offer) for offer in book.offers], dtype=np.bool_)
    mine = np.flatnonzero(considered & free[book.offer]) if len(book) else np.zeros(0, dtype=np.int64)
    if not len(mine):
        return award_kw
    keys = (book.tan_phi, book.perimeter, book.node, book.price, book.sign, book.period)
    order = mine[np.lexsort((book.step[mine], book.offer[mine], *(key[mine] for key in keys)))]
    same = np.ones(len(order), dtype=np.bool_)
    same[0] = False
    for key in keys:
        same[1:] &= key[order][1:] == key[order][:-1]
    run = np.cumsum(~same) - 1
    offered: Ints = np.round(book.quantity_mw[order] * 1000).astype(np.int64)
    before = np.cumsum(offered) - offered
    before -= np.maximum.accumulate(np.where(same, 0, before))
    total = np.bincount(run, weights=award_kw[order]).astype(np.int64)
    settled = award_kw.copy()
    settled[order] = np.clip(total[run] - before, 0, offered)
    return settled


def _is_simple(offer: Offer) -> bool:
    coupled = offer.block or offer.min_quantity_kw or offer.max_periods is not None
    return not coupled and offer.energy_limit_kwh is None and offer.exclusive is None
