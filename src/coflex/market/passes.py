"""The passes of a clearing: linear programs and power flows in turn, until every quarter-hour stands.

A quarter-hour is open while the rows there disagree with the power flow. Each pass solves the open ones with whatever
couplings tie to them, looks at the states that moved, and makes rows anew only where they disagree. Integers are
decided, one part at a time, once all parts stand; the passes then go on with them fixed.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from coflex.domain.errors import SolverFailure
from coflex.domain.quantity import Bools, Floats, Ints
from coflex.grid.rows import GridModel, Guard, Linearised
from coflex.market.book import OrderBook
from coflex.market.model import Model
from coflex.market.part import Couplings, Part, Table, labels, narrowed
from coflex.solver import highs, integer
from coflex.solver.program import Solution

PASSES = 40
# Worst disagreement of a linear row with the power flow at which a quarter-hour stands, in pu or share of rating.
STANDS = 1e-8
# MW by which an injection may move without its quarter-hour being looked at again.
STILL = 1e-10
# By how much rounded awards may miss a limit before its quarter-hour is cleared again with more room.
HOLDS = 1e-7
# Share of what the awards cost by which indivisible offers may miss the best choice among them.
INTEGER_GAP = 1e-4
# EUR/MWh above what it is worth at which a block is left out of the next linear programs, until prices bring it back.
NEAR_EUR_MWH = 3.0
# Most blocks that prices bring back at once in a quarter-hour.
AT_ONCE = 20
# First guard band of a quarter-hour that rounding spoils: about the effect of rounding one award on an MV feeder.
GUARD = Guard(voltage_pu=2e-5, loading_share=2e-4)


class Passes:
    """One clearing on its way. `x`: the model's columns; `row_price` of the model's rows, EUR per unit of bound;
    `table`: the grid rows, None without a grid; `active`: groups of couplings that have entered; `count` of passes;
    `seconds` in the solver."""

    def __init__(self, model: Model, grid: GridModel | None) -> None:
        self.model, self.grid = model, grid
        t = len(model.book.axis)
        self.x, self.row_price = np.zeros(len(model.fixed.cost)), np.zeros(model.rows)
        self.active = np.zeros(model.groups, dtype=np.bool_)
        self.whole = np.zeros(model.groups, dtype=np.bool_)
        self.table = None if grid is None else Table(model, grid.network.n)
        nodes = 0 if grid is None else grid.network.n
        self.change = np.zeros((t, nodes)), np.zeros((t, nodes))
        self.lower, self.upper = model.fixed.lower.copy(), model.fixed.upper.copy()
        self.open = np.zeros(t, dtype=np.bool_)
        self.radius, self.error = np.ones(t), np.full(t, np.inf)
        self.level = np.zeros(t)
        self.lack_eur = np.zeros(t)
        self.wanted, self.priced = (
            np.ones(len(model.blocks), dtype=np.bool_),
            np.zeros(len(model.blocks), dtype=np.bool_),
        )
        self.label = np.arange(t)
        self.couplings = Couplings(model)
        self.count, self.seconds = 0, 0.0

    def begin(self, periods: Ints, first: Linearised | None) -> None:
        """Open the quarter-hours that ask for something, with the rows that are broken before anything is bought."""
        self.open[periods] = True
        if self.grid is not None and self.table is not None and first is not None:
            known = np.unique(first.broken.period)
            self.table.add(first.broken)
            self.table.make(np.arange(len(first.broken)), self.grid, first.state.part(known), known, self.change)

    def settle(self) -> None:
        """Go on until every quarter-hour stands and every coupling is kept."""
        last = self.count + PASSES
        while self.open.any():
            while self.open.any():
                self.count += 1
                periods = self._linear()
                self._check(periods)
                if self.count >= last:
                    self.open[:] = False
            self._decide()
            if self.count >= last:
                last = self.count + PASSES // 4

    def reprice(self) -> None:
        """Prices where the steps were cut: the bounds of a cut step carry what the limits are worth, so one more
        program without them tells it. Awards stay as they are."""
        cut = self.radius < 1.0
        if self.table is None or not cut.any():
            return
        periods = self._tied(cut)
        radius = self.radius.copy()
        self.radius[periods] = 1.0
        part = self._part(periods, np.ones_like(self.wanted))
        self.radius = radius
        solution = highs.solve(part.program, presolve=False)
        if len(solution.x):
            self.seconds += solution.seconds
            self.row_price[part.rows] = solution.row_price[: len(part.rows)]
            self.table.price[part.keys] = solution.row_price[len(part.rows) :] / part.scale

    @property
    def gap(self) -> float:
        """What the choice among integers may cost too much, relative to what the awards cost."""
        k = len(self.model.blocks)
        spent = abs(float(self.model.fixed.cost[:k] @ self.x[:k]))
        return float(self.lack_eur.sum()) / max(spent, 1e-9) if self.lack_eur.any() else 0.0

    # ---- the linear program

    def _linear(self) -> Bools:
        """Solve the open quarter-hours and what is tied to them; couplings that are broken enter until none is."""
        while True:
            periods = self._tied(self.open)
            part = self._part(periods, self.wanted)
            solution = highs.solve(part.program, presolve=False)
            self._take(part, solution)
            if self._price(periods):
                continue
            more = self.couplings.broken(self.x) & ~self.active
            if not more.any():
                return periods
            self._enter(more)

    def _price(self, periods: Bools) -> bool:
        """Whether a column that was left out would lower the cost; those that might are let in. After a program with
        all of them, those far too dear for its prices are left out of the next."""
        k = len(self.model.blocks)
        price = self.model.fixed.cost[:k] - self.couplings.worth(self.row_price)
        if self.table is not None:
            price -= self.table.worth(self.model)
        mine = periods[self.model.column_period[:k]]
        near = price < self.model.book.axis.hours * NEAR_EUR_MWH
        missing = np.flatnonzero(mine & ~self.wanted & (price < -highs.TOLERANCE))
        if len(missing):
            # The most gainful of each quarter-hour; where the penalty sets the prices, nearly all would gain.
            order = missing[np.lexsort((price[missing], self.model.column_period[missing]))]
            when = self.model.column_period[order]
            self.wanted[order[np.arange(len(order)) - np.searchsorted(when, when) < AT_ONCE]] = True
            return True
        fresh = mine & ~self.priced
        if fresh.any():
            self.wanted[fresh] = (near | (self.x[:k] > 0))[fresh]
            self.priced |= mine
        return False

    def _enter(self, groups: Bools) -> None:
        self.active |= groups
        self.label = labels(self.model, self.active, len(self.open))
        self.wanted |= self.couplings.members(self.active)
        group, when = self.model.group_link
        fresh = np.isin(self.label, self.label[when[groups[group]]])
        self.radius[fresh], self.error[fresh] = 1.0, np.inf
        self.open[when[groups[group]]] = True

    def _tied(self, periods: Bools) -> Bools:
        there = np.zeros(len(self.label) + self.model.groups, dtype=np.bool_)
        there[self.label[periods]] = True
        tied: Bools = there[self.label]
        return tied

    def _part(self, periods: Bools, wanted: Bools) -> Part:
        tight = np.zeros(0) if self.table is None else self.table.guard(GUARD, self.level)
        return narrowed(self.model, periods, self.active, wanted, self._near(), self.table, tight, self._risk())

    def _risk(self) -> Bools:
        """The quarter-hours with a limit of the grid among the rows, and those that couplings tie to one."""
        risk = np.zeros(len(self.open), dtype=np.bool_)
        if self.table is not None:
            risk[self.table.keys.period] = True
        return self._tied(risk)

    def _near(self) -> tuple[Floats, Floats]:
        """Bounds of the columns: awards of quarter-hours that cycle stay near their last values."""
        reach = np.ones(len(self.x))
        mine = np.flatnonzero(self.model.column_period >= 0)
        reach[mine] = self.radius[self.model.column_period[mine]]
        k = len(self.model.blocks)
        held = np.flatnonzero(reach[:k] < 1.0)
        lower, upper = self.lower.copy(), self.upper.copy()
        far = reach[held] * self.model.fixed.upper[held]
        lower[held] = np.maximum(lower[held], self.x[held] - far)
        upper[held] = np.minimum(upper[held], self.x[held] + far)
        return lower, upper

    def _take(self, part: Part, solution: Solution) -> None:
        if not len(solution.x) and len(part.program.cost):
            raise SolverFailure(
                f"A clearing's program ended as {solution.ending.value}, though what is missing may stay uncovered.",
                "Look at the terms of block offers and exclusive groups.",
            )
        self.seconds += solution.seconds
        part.spread(solution, self.x)
        self.row_price[part.rows] = solution.row_price[: len(part.rows)]
        if self.table is not None:
            self.table.short[part.keys] = part.slack(solution)
            self.table.price[part.keys] = solution.row_price[len(part.rows) :] / part.scale

    # ---- the power flow

    def _check(self, periods: Bools) -> None:
        """Look at what has moved; what does not stand there is open next."""
        if self.grid is None or self.table is None:
            self.open[:] = False
            return
        change = injections(self.model.book, self.model.awarded(self.x), self.grid.network.n)
        moved = (
            np.maximum(*(np.abs(new - old).max(axis=1) for new, old in zip(change, self.change, strict=True))) > STILL
        )
        looked = np.flatnonzero(periods & (moved | self.open))
        self.change = change
        seen = self.grid.look(*change, looked, self.table.keys)
        here = np.zeros(len(self.open), dtype=np.bool_)
        here[looked] = True
        rows = self.table.within(here)
        error = self._errors(rows, self.grid.headroom(seen.state, looked, self.table.part(rows)))
        grown = np.zeros(len(self.open), dtype=np.bool_)
        grown[seen.broken.period] = True
        self.open = here & (grown | (error > STANDS))
        self._trust(error, grown)
        self.table.add(seen.broken)
        remade = np.flatnonzero(self.open)
        if len(remade):
            at = np.searchsorted(looked, remade)
            self.table.make(self.table.within(self.open), self.grid, seen.state.part(at), remade, change)

    def _errors(self, rows: Ints, headroom: Floats) -> Floats:
        """By how much rows and power flow disagree in each quarter-hour: limits missed beyond what is known to be
        short, and room left at rows that bind."""
        assert self.table is not None
        tight = self.table.guard(GUARD, self.level)[rows]
        missed = tight - headroom - self.table.short[rows]
        binding = self.table.price[rows] < 0
        error = np.zeros(len(self.open))
        np.maximum.at(error, self.table.keys.period[rows], np.where(binding, np.abs(missed), missed))
        return error

    def _trust(self, error: Floats, grown: Bools) -> None:
        """Quarter-hours that a pass brings no closer (a cycle between corners) take a quarter of the step from then on,
        and less in every further pass."""
        stuck = self.open & ~grown & ((error >= 0.5 * self.error) | (self.radius < 1.0))
        self.radius[stuck] /= 4
        self.error[self.open] = error[self.open]

    # ---- the integers

    def _decide(self) -> None:
        """Decide the binaries of couplings that the linear answer breaks, part by part; what was decided is open."""
        model = self.model
        missed = self.couplings.broken(self.x)
        if not missed.any():
            return
        group, when = model.group_link
        for one in np.unique(self.label[when[missed[group]]]):
            periods = self.label == one
            self._decide_part(periods)
            self.open |= periods
            self.radius[periods], self.error[periods] = 1.0, np.inf

    def _decide_part(self, periods: Bools) -> None:
        """Decide a part's binaries: at first those that the linear answer breaks, and when that breaks others, all of
        the part, for one that is settled tends to pass its fraction on to the next."""
        more = self._missed(periods)
        again = False
        while more.any():
            self.whole |= self._inside(periods) if again else more
            self._enter(self.whole & ~self.active)
            periods |= self._tied(periods)
            self._branch(periods)
            more, again = self._missed(periods) & ~self.whole, True
            self.whole |= more

    def _missed(self, periods: Bools) -> Bools:
        group, when = self.model.group_link
        mine = np.zeros(self.model.groups, dtype=np.bool_)
        mine[group[periods[when]]] = True
        missed: Bools = self.couplings.broken(self.x) & mine & ~self.whole
        return missed

    def _inside(self, periods: Bools) -> Bools:
        """The groups whose quarter-hours all belong to the part, and those decided before."""
        group, when = self.model.group_link
        inside = np.ones(self.model.groups, dtype=np.bool_)
        inside[group[~periods[when]]] = False
        return inside | self.whole

    def _branch(self, periods: Bools) -> None:
        """Choose the part's binaries and fix them."""
        binaries = np.flatnonzero(self._is_whole())
        self.lower[binaries], self.upper[binaries] = 0.0, 1.0
        self.radius[periods] = 1.0
        part = self._part(periods, np.ones_like(self.wanted))
        whole = np.zeros_like(part.program.integer)
        own = binaries[part.column[binaries] >= 0]
        whole[part.column[own]] = True
        enough = max(highs.ABSOLUTE_GAP, INTEGER_GAP * self._spent(part))
        solution = integer.decide(replace(part.program, integer=whole), enough)
        self._take(part, solution)
        self.lower[own] = self.upper[own] = np.round(self.x[own])
        others = np.setdiff1d(binaries, own)
        self.lower[others] = self.upper[others] = np.round(self.x[others])
        self.lack_eur[periods] = 0.0
        self.lack_eur[np.flatnonzero(periods)[0]] = max(0.0, solution.cost - solution.bound)

    def _is_whole(self) -> Bools:
        found = np.zeros(len(self.x), dtype=np.bool_)
        mine = self.model.column_group >= 0
        found[mine] = self.whole[self.model.column_group[mine]]
        return found

    def _spent(self, part: Part) -> float:
        """What the awards of a part cost as they stand."""
        k = len(self.model.blocks)
        mine = part.column[:k] >= 0
        return abs(float(self.model.fixed.cost[:k][mine] @ self.x[:k][mine]))

    # ---- whole kW

    def guard(self, award_kw: Ints) -> bool:
        """Open the quarter-hours whose limits the rounded awards do not keep, with more room than before; whether
        there are any."""
        if self.grid is None or self.table is None:
            return False
        looked, seen, rows, headroom = self._rounded(award_kw)
        if not len(looked):
            return False
        unit = np.where(self.table.keys.form[rows] <= 1, GUARD.voltage_pu, GUARD.loading_share)
        known = self.table.short[rows] > NOTHING_SHORT
        allowed = np.where(known, self.table.short[rows] + unit, HOLDS)
        spoiled = np.zeros(len(self.open), dtype=np.bool_)
        spoiled[self.table.keys.period[rows][-headroom > allowed]] = True
        spoiled[seen.broken.period] = True
        if not spoiled.any():
            return False
        self.level[spoiled] = np.maximum(1.0, 2.0 * self.level[spoiled])
        self.open |= spoiled
        self.radius[spoiled], self.error[spoiled] = np.maximum(self.radius[spoiled], 1 / 16), np.inf
        if len(seen.broken):
            self.table.add(seen.broken)
            fresh = np.arange(len(self.table) - len(seen.broken), len(self.table))
            at = np.unique(seen.broken.period)
            change = injections(self.model.book, award_kw / 1000.0, self.grid.network.n)
            self.table.make(fresh, self.grid, seen.state.part(np.searchsorted(looked, at)), at, change)
        return True

    def short(self, award_kw: Ints) -> Floats:
        """What each row lacks under the rounded awards by power flow, in its own unit; nothing below the tolerance."""
        assert self.table is not None
        _, _, rows, headroom = self._rounded(award_kw)
        short = np.where(self.table.short > NOTHING_SHORT, self.table.short, 0.0)
        short[rows] = np.where(-headroom > HOLDS, -headroom, 0.0)
        return short

    def _rounded(self, award_kw: Ints) -> tuple[Ints, Linearised, Ints, Floats]:
        """The quarter-hours with a row or an award, their states under whole kW, their rows and what those leave."""
        assert self.grid is not None and self.table is not None
        book = self.model.book
        here = np.zeros(len(self.open), dtype=np.bool_)
        here[book.period[award_kw > 0]] = True
        here[self.table.keys.period] = True
        looked = np.flatnonzero(here)
        change = injections(book, award_kw / 1000.0, self.grid.network.n)
        seen = self.grid.look(*change, looked, self.table.keys)
        rows = self.table.within(here)
        return looked, seen, rows, self.grid.headroom(seen.state, looked, self.table.part(rows))


# What a linear program leaves short by less than this is its accuracy.
NOTHING_SHORT = 1e-7


def injections(book: OrderBook, award_mw: Floats, n: int) -> tuple[Floats, Floats]:
    """Changes of injection (t, n) in MW and Mvar that awards of shape (blocks,) bring."""
    on = np.flatnonzero((award_mw != 0) & (book.node >= 0))
    signed = book.sign[on] * award_mw[on]
    at, shape = book.period[on] * n + book.node[on], (len(book.axis), n)
    change_p, change_q = np.zeros(shape[0] * n), np.zeros(shape[0] * n)
    change_p += np.bincount(at, weights=signed * book.p_share[on], minlength=len(change_p))
    change_q += np.bincount(at, weights=signed * book.tan_phi[on], minlength=len(change_q))
    return change_p.reshape(shape), change_q.reshape(shape)
