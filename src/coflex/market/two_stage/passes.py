"""Successive linear programs over all scenarios at once, until every scenario stands under its own power flow."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from coflex.domain.errors import SolverFailure
from coflex.domain.quantity import Bools, Floats, Ints
from coflex.grid.rows import GridModel, GridRows, RowKeys
from coflex.market.book import OrderBook
from coflex.market.two_stage.inputs import Outlook, ReserveBook
from coflex.market.two_stage.program import Blocks, Form, assemble, blocks_of, with_grid
from coflex.solver import highs
from coflex.solver.program import Ending, Program, Solution

PASSES = 40
# Worst disagreement of a linear row with the power flow at which an answer stands, in pu or share of rating.
STANDS = 2e-7
# Share of the cost by which indivisible offers may miss the best choice among them.
INTEGER_GAP = 1e-4

Short = tuple[int, int, str, float]


@dataclass(frozen=True, eq=False)
class Offered:
    """What can be bought, and the value of lost flexibility, EUR/MWh."""

    awards: OrderBook
    reserve: ReserveBook
    penalty: float

    @property
    def periods(self) -> int:
        return len(self.awards.axis)


@dataclass(frozen=True, eq=False)
class Plan:
    """The answer of a two-stage program, in the books' columns; s scenarios, g groups, t periods.

    `award_mw[g, n]`, `reserved_mw[g, n]`, `called_mw[s, n]`; `lacking_mw`, `surplus_mw` [s, t]. `short`: grid limits
    that stay broken as (scenario, period, name, by how much in pu or share of rating).
    `first_eur[g]`, `second_eur[s]`: costs without probabilities, shortfalls included. `worth[n]`: EUR that one more
    MW and hour of a capacity block would save. `passes` of the part that took the most, `error` (worst disagreement
    of rows and power flow), relative `gap`, `seconds` in the solver.
    """

    award_mw: Floats
    reserved_mw: Floats
    called_mw: Floats
    lacking_mw: Floats
    surplus_mw: Floats
    short: tuple[Short, ...]
    first_eur: Floats
    second_eur: Floats
    worth: Floats
    cost_eur: float
    passes: int
    error: float
    gap: float
    seconds: float


def optimise(
    offered: Offered,
    outlook: Outlook,
    group: Ints,
    fixed: tuple[Floats, Floats] | None = None,
    tighter: float = 0.0,
) -> Plan:
    """The cheapest first stage of each group of scenarios with the cheapest use of it in each scenario.

    `fixed`: awards (n,) and reservations (n,) in MW, the first stage of every group, not to be chosen any more.
    `tighter`: grid limits tighter by so many margins of rounding. Raises GridFailure when a state has no power flow,
    SolverFailure when the passes do not come to an end.
    """
    active = _asked(offered, outlook)
    if outlook.grid is not None:
        grid = outlook.grid.model(tighter)
        everywhere = np.arange(len(outlook) * offered.periods, dtype=np.int64)
        calm = np.zeros((len(everywhere), grid.network.n))
        broken = grid.look(calm, calm, everywhere, RowKeys.none()).broken
        active = np.union1d(active, np.unique(broken.period % offered.periods))
    x, r, active = _selected(offered, active, fixed)
    blocks = blocks_of(offered.awards, offered.reserve, x, r, squeeze=outlook.need_mw is None)
    merged = _Merged(offered, outlook, group)
    for periods in _parts(blocks, active):
        mine = blocks.within(periods)
        form = _form(offered, outlook.within(periods), group, mine, fixed)
        merged.add(form, periods, _ended(form, outlook.within(periods), offered.penalty, tighter))
    return merged.plan()


def _parts(blocks: Blocks, active: Ints) -> list[Ints]:
    """The active periods in parts that no offer couples: each is a program by itself."""
    label: Ints = np.arange(len(active), dtype=np.int64)
    exclusive: dict[tuple[str, str], list[int]] = {}
    for o in np.unique(blocks.offer).tolist():
        offer = blocks.offers[o]
        if offer.exclusive is not None:
            exclusive.setdefault((offer.provider, offer.exclusive), []).append(o)
        elif offer.block or offer.energy_limit_kwh is not None or offer.max_periods is not None:
            exclusive[("", offer.id)] = [o]
    for together in exclusive.values():
        touched = np.searchsorted(active, np.unique(blocks.period[np.isin(blocks.offer, together)]))
        label[np.isin(label, label[touched])] = label[touched].min()
    return [active[label == one] for one in np.unique(label)]


def _ended(form: Form, outlook: Outlook, penalty: float, tighter: float) -> _Ended:
    """The end of the passes, or of the one program where there is no grid."""
    if outlook.grid is not None:
        return _Passes(form, outlook.grid.model(tighter), penalty).run()
    solution, gap, seconds = _whole(form.program)
    return _Ended(solution, None, None, np.zeros(0), 1, 0.0, gap, seconds)


@dataclass(frozen=True, eq=False)
class _Ended:
    """Where the passes ended; `slack`: the column of each grid row's slack, `short`: what each lacks."""

    solution: Solution
    rows: GridRows | None
    slack: Ints | None
    short: Floats
    passes: int
    error: float
    gap: float
    seconds: float


@dataclass(eq=False)
class _Passes:
    """The passes over one form: linearise, solve, look, until linear rows and power flow agree."""

    form: Form
    grid: GridModel
    penalty: float

    def run(self) -> _Ended:
        form, grid = self.form, self.grid
        periods = np.arange(form.scenarios * form.periods, dtype=np.int64)
        change = self._changed(form.program.lower)
        first = grid.look(*change, periods, RowKeys.none())
        state, known = first.state, first.broken
        last: Solution | None = None
        whole: Floats | None = None
        radius, before, gap, seconds = 1.0, np.inf, 0.0, 0.0
        for passes in range(1, PASSES + 1):
            rows = grid.rows(state, periods, known, *change)
            program, scale, slack = with_grid(form, rows, self.penalty)
            solution = _solved(_near(_relaxed(program, whole), last, radius * form.reach if radius < 1 else None), last)
            seconds += solution.seconds
            change = self._changed(solution.x)
            seen = grid.look(*change, periods, known)
            lacks = -grid.headroom(seen.state, periods, known)
            error = float(np.max(lacks - solution.x[slack] * scale, initial=0.0))
            state, known, last = seen.state, known.then(seen.broken), solution
            if len(seen.broken) or error > STANDS:
                radius = radius if len(seen.broken) or error < 0.5 * before else radius / 2
                before = error
            elif whole is not None or not _open(program, solution.x):
                return _Ended(solution, rows, slack, np.maximum(lacks, 0.0), passes, error, gap, seconds)
            else:
                decided = _decided(program, solution)
                whole, gap, seconds = decided.x, decided.gap, seconds + decided.seconds
                last, radius, before = None, 1.0, np.inf
        raise SolverFailure(
            f"After {PASSES} passes the linear rows and the power flow still differ by {error:.1e}.",
            "Look at scenarios whose injections the grid can hardly carry, or give a higher penalty.",
        )

    def _changed(self, x: Floats) -> tuple[Floats, Floats]:
        """Changes of injection, all scenarios' periods one after the other, (s t, n) in MW and Mvar."""
        form, blocks = self.form, self.form.blocks
        p = np.zeros((form.scenarios, form.periods, self.grid.network.n))
        q = np.zeros_like(p)
        on = np.flatnonzero(blocks.node >= 0)
        signed = form.bought(x)[:, on] * blocks.sign[on]
        where = np.arange(form.scenarios)[:, None], blocks.period[on], blocks.node[on]
        np.add.at(p, where, signed * blocks.p_share[on])
        np.add.at(q, where, signed * blocks.tan_phi[on])
        return p.reshape(-1, p.shape[2]), q.reshape(-1, p.shape[2])


def _asked(offered: Offered, outlook: Outlook) -> Ints:
    """Periods with a need to be balanced."""
    return np.arange(offered.periods if outlook.need_mw is not None else 0, dtype=np.int64)


def _selected(offered: Offered, active: Ints, fixed: tuple[Floats, Floats] | None) -> tuple[Ints, Ints, Ints]:
    """Blocks of both books in the active periods, and these periods with all those that indivisible offers and what
    is bought already bring along."""
    books = offered.awards, offered.reserve.book
    if fixed is not None:
        # What was not bought is out of the game.
        x, r = np.flatnonzero(fixed[0] > 0), np.flatnonzero(fixed[1] > 0)
        return x, r, np.unique(np.concatenate([active, books[0].period[x], books[1].period[r]]))
    while True:
        chosen = []
        for book in books:
            here = np.isin(book.period, active)
            whole = np.array([offer.block for offer in book.offers], dtype=np.bool_)[book.offer]
            chosen.append(np.flatnonzero(here | (whole & np.isin(book.offer, book.offer[here]))))
        x, r = chosen
        wider = np.unique(np.concatenate([active, books[0].period[x], books[1].period[r]]))
        if len(wider) == len(active):
            return x, r, active
        active = wider


def _form(offered: Offered, outlook: Outlook, group: Ints, blocks: Blocks, fixed: tuple[Floats, Floats] | None) -> Form:
    hours = offered.awards.axis.hours
    form = assemble(blocks, hours, outlook, group, offered.penalty, fixed is None)
    if fixed is None:
        return form
    lower, upper, k = form.program.lower.copy(), form.program.upper.copy(), blocks.awards
    stage = np.concatenate([fixed[0][blocks.at[:k]], fixed[1][blocks.at[k:]]])
    lower[: form.second] = upper[: form.second] = np.tile(stage, form.groups)
    return replace(form, program=replace(form.program, lower=lower, upper=upper))


def _solved(program: Program, start: Solution | None = None, gap: float = highs.ABSOLUTE_GAP) -> Solution:
    solution = highs.solve(program, start, gap)
    if solution.ending not in (Ending.OPTIMAL, Ending.GAP):
        raise SolverFailure(
            f"The two-stage program ended as {solution.ending.value}.", "Look at the terms of block offers."
        )
    return solution


def _whole(program: Program) -> tuple[Solution, float, float]:
    """A program without grid rows, relaxed first: the solution, its gap and the seconds in the solver."""
    relaxed = _solved(_relaxed(program, None))
    if not _open(program, relaxed.x):
        return relaxed, 0.0, relaxed.seconds
    decided = _decided(program, relaxed)
    return decided, decided.gap, relaxed.seconds + decided.seconds


def _decided(program: Program, relaxed: Solution) -> Solution:
    return _solved(program, gap=max(highs.ABSOLUTE_GAP, INTEGER_GAP * abs(relaxed.cost)))


def _open(program: Program, x: Floats) -> bool:
    whole = x[program.integer]
    return bool((np.abs(whole - np.round(whole)) > 1e-6).any())


def _relaxed(program: Program, whole: Floats | None) -> Program:
    """The linear program: integers relaxed, or fixed where they have been decided."""
    integer: Bools = np.zeros_like(program.integer)
    if whole is None:
        return replace(program, integer=integer)
    columns = np.flatnonzero(program.integer)
    lower, upper = program.lower.copy(), program.upper.copy()
    lower[columns] = upper[columns] = np.round(whole[columns])
    return replace(program, lower=lower, upper=upper, integer=integer)


def _near(program: Program, last: Solution | None, reach: Floats | None) -> Program:
    """The program with its first columns held within `reach` of the last answer; None holds nothing."""
    if last is None or reach is None:
        return program
    lower, upper, count = program.lower.copy(), program.upper.copy(), len(reach)
    lower[:count] = np.maximum(lower[:count], last.x[:count] - reach)
    upper[:count] = np.minimum(upper[:count], last.x[:count] + reach)
    return replace(program, lower=lower, upper=upper)


class _Merged:
    """The answers of all parts in the books' own columns."""

    def __init__(self, offered: Offered, outlook: Outlook, group: Ints) -> None:
        self.offered, self.probability, self.group = offered, outlook.probability, group
        groups, scenarios, periods = int(group.max()) + 1, len(outlook), offered.periods
        self.award = np.zeros((groups, len(offered.awards)))
        self.reserved = np.zeros((groups, len(offered.reserve)))
        self.called = np.zeros((scenarios, len(offered.reserve)))
        self.missed = np.zeros((2, scenarios, periods))
        self.worth = np.zeros(len(offered.reserve))
        self.first, self.second = np.zeros(groups), np.zeros(scenarios)
        self.short: list[Short] = []
        self.passes, self.error, self.missing, self.seconds = 0, 0.0, 0.0, 0.0

    def add(self, form: Form, periods: Ints, ended: _Ended) -> None:
        blocks, x, hours, k = form.blocks, ended.solution.x, form.hours, form.blocks.awards
        stage, called = form.first_stage(x), form.bought(x)[:, k:]
        missed = x[form.short : form.width].reshape(2, form.scenarios, -1)
        self.award[:, blocks.at[:k]], self.reserved[:, blocks.at[k:]] = stage[:, :k], stage[:, k:]
        self.called[:, blocks.at[k:]] = called
        if missed.shape[2]:
            self.missed[:, :, periods] = missed
        price = ended.solution.row_price[: form.scenarios * form.held].reshape(form.scenarios, form.held)
        self.worth[blocks.at[k:]] = -price.sum(axis=0) / hours
        self.first += hours * (stage @ blocks.cost)
        missing = missed.sum(axis=(0, 2)) + _slack(form, ended)
        self.second += hours * (called @ blocks.use[k:] + self.offered.penalty * missing)
        self.passes, self.error = max(self.passes, ended.passes), max(self.error, ended.error)
        self.missing += ended.gap * abs(ended.solution.cost)
        self.seconds += ended.seconds
        if ended.rows is not None:
            for m in np.flatnonzero(ended.short > 10 * STANDS).tolist():
                s, t = divmod(int(ended.rows.period[m]), form.periods)
                self.short.append((s, int(periods[t]), ended.rows.names[m], float(ended.short[m])))

    def plan(self) -> Plan:
        weight = np.bincount(self.group, weights=self.probability)
        cost = float(weight @ self.first + self.probability @ self.second)
        return Plan(
            award_mw=self.award,
            reserved_mw=self.reserved,
            called_mw=self.called,
            lacking_mw=self.missed[0],
            surplus_mw=self.missed[1],
            short=tuple(sorted(self.short)),
            first_eur=self.first,
            second_eur=self.second,
            worth=self.worth,
            cost_eur=cost,
            passes=self.passes,
            error=self.error,
            gap=self.missing / max(1.0, abs(cost)),
            seconds=self.seconds,
        )


def _slack(form: Form, ended: _Ended) -> Floats:
    """MW by which each scenario's grid limits are missed, (s,)."""
    missing = np.zeros(form.scenarios)
    if ended.rows is not None and ended.slack is not None:
        limit, row = np.unique(ended.slack, return_index=True)
        np.add.at(missing, ended.rows.period[row] // form.periods, ended.solution.x[limit])
    return missing


def blocks_in_books(offered: Offered) -> Blocks:
    """All blocks of both books, as a program would see them."""
    x, r = np.arange(len(offered.awards)), np.arange(len(offered.reserve))
    return blocks_of(offered.awards, offered.reserve, x, r, squeeze=False)
