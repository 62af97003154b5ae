"""Large mixed-integer programs: relax, price, search a few neighbourhoods, and say the gap.

The relaxation bounds the cost from below. Roundings of it give a first answer; small programs, in which only the
integers with the least reduced cost are free, improve it (relaxation induced neighbourhoods: E. Danna, E. Rothberg and
C. Le Pape, Math. Program. 102 (2005) 71, doi:10.1007/s10107-004-0518-7). An integer whose reduced cost exceeds what is
still between answer and bound stands where the relaxation has it in every better answer; when few others are left,
branch and bound over them closes the gap. Effort is counted in programs and branchings, never in time.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from coflex.domain.quantity import Bools, Floats, Ints
from coflex.solver import highs
from coflex.solver.program import Ending, Program, Solution

# Integers free at once in a neighbourhood, and in the closing branch and bound.
CORE, CLOSING = 40, 240
NEIGHBOURHOODS, DIVES, NODES = 8, 24, 50
# Share of the cost at which roundings are near enough for neighbourhoods to go on from.
CLOSE = 0.01
_WHOLE = 1e-6


def decide(program: Program, enough: float) -> Solution:
    """A solution with whole integers, `enough` in cost from the best or as near as the stated effort comes.

    `bound` is what no solution undercuts, `gap` the distance to it relative to the cost. Prices are those with the
    integers fixed. Ends as infeasible when no whole solution exists or none was found in any branch.
    Raises SolverFailure when the solver gives up.
    """
    search = _Search(program, enough)
    if search.relaxed.ending is not Ending.OPTIMAL:
        return search.relaxed
    search.round()
    if not search.few():
        search.improve()
    search.close()
    return search.told()


class _Search:
    """The best answer so far and the bound below it."""

    def __init__(self, program: Program, enough: float) -> None:
        self.program, self.enough = program, enough
        self.columns: Ints = np.flatnonzero(program.integer)
        self.seconds = 0.0
        self.relaxed = self._linear(program.lower, program.upper)
        self.bound = self.relaxed.cost
        self.best: Solution | None = None
        rows = _packing(program)
        place, matrix = np.cumsum(program.integer) - 1, program.matrix
        self.packing = [
            (place[matrix.indices[matrix.indptr[row] : matrix.indptr[row + 1]]], int(program.row_upper[row]))
            for row in rows.tolist()
        ]
        self.permits = _permits(program, rows)[self.columns]

    @property
    def room(self) -> float:
        """What is still between answer and bound."""
        return np.inf if self.best is None else self.best.cost - self.bound

    def _linear(self, lower: Floats, upper: Floats) -> Solution:
        free = np.zeros_like(self.program.integer)
        program = replace(self.program, lower=lower, upper=upper, integer=free)
        found = highs.solve(program, presolve=False)
        self.seconds += found.seconds
        return found

    def _better(self, found: Solution) -> bool:
        if found.ending in (Ending.INFEASIBLE, Ending.UNBOUNDED) or not len(found.x):
            return False
        if self.best is not None and found.cost >= self.best.cost - 1e-9 * abs(self.best.cost):
            return False
        self.best = found
        return True

    def _fixed(self, values: Floats, mask: Bools) -> tuple[Floats, Floats]:
        """Bounds with the integers of the mask (over all of them) at their values."""
        lower, upper = self.program.lower.copy(), self.program.upper.copy()
        at = self.columns[mask]
        lower[at] = upper[at] = np.round(values[mask])
        return lower, upper

    def round(self) -> None:
        """First answers: with all ones that permit and force nothing, up, to the nearest; where those are far off, down
        a branch that fixes the surest integers first."""
        x = self.relaxed.x[self.columns]
        everything = np.ones(len(x), dtype=np.bool_)
        up = np.ceil(x - _WHOLE)
        for values in (np.where(self.permits, 1.0, up), up, np.round(x)):
            self._better(self._linear(*self._fixed(self._packed(values, x), everything)))
            if self.room <= self.enough:
                return
        if self.room > CLOSE * abs(self.bound):
            self._dive(x)

    def _packed(self, values: Floats, x: Floats) -> Floats:
        """The values with ones taken back until every row that only packs binaries holds: those that the relaxation
        wants least, and of equals the last, which stands in more of the rows that follow."""
        values = values.copy()
        for columns, most in self.packing:
            here = columns[values[columns] > 0.5]
            surplus = len(here) - most
            if surplus > 0:
                values[here[np.lexsort((-here, x[here]))[:surplus]]] = 0.0
        return values

    def _dive(self, x: Floats) -> None:
        fixed = np.zeros(len(x), dtype=np.bool_)
        values = np.zeros(len(x))
        for dive in range(DIVES):
            open_ = np.flatnonzero(~fixed & (np.abs(x - np.round(x)) > _WHOLE))
            if not len(open_):
                break
            # The rest is settled in equal parts, the surest first.
            sure = open_[np.argsort(np.abs(x[open_] - np.round(x[open_])), kind="stable")]
            now = sure[: max(1, len(sure) // max(1, DIVES - dive - 1))]
            values[now], fixed[now] = np.round(x[now]), True
            found = self._linear(*self._fixed(values, fixed))
            if found.ending is Ending.INFEASIBLE:
                # The other way round, once.
                values[now] = 1.0 - values[now]
                found = self._linear(*self._fixed(values, fixed))
            if found.ending is not Ending.OPTIMAL:
                return
            x = found.x[self.columns]
        if not (np.abs(x - np.round(x)) > _WHOLE).any():
            self._better(self._linear(*self._fixed(x, np.ones(len(x), dtype=np.bool_))))

    def improve(self) -> None:
        """Free the integers of least reduced cost around the best answer, again from the start after each gain."""
        price = np.abs(self.relaxed.reduced_cost[self.columns])
        at = 0
        for _ in range(NEIGHBOURHOODS):
            if self.best is None or self.room <= self.enough or at >= len(price):
                return
            x, own = self.relaxed.x[self.columns], self.best.x[self.columns]
            contested = (np.abs(x - np.round(x)) > _WHOLE) | (np.round(x) != np.round(own))
            order = np.lexsort((price, ~contested))
            free = np.zeros(len(price), dtype=np.bool_)
            free[order[at : at + CORE]] = True
            found = self._branch(*self._fixed(own, ~free), NODES)
            at = 0 if self._better(found) else at + CORE // 2

    def close(self) -> None:
        """Branch and bound over the integers that a better answer could have elsewhere, when they are few."""
        if self.room <= self.enough or (self.best is not None and not self.few()):
            return
        found = self._branch(*self._fixed(self.relaxed.x[self.columns], self._stands()), highs.NODE_LIMIT)
        if found.ending is Ending.INFEASIBLE:
            self.bound = self.bound if self.best is None else self.best.cost
            return
        self._better(found)
        if self.best is not None:
            self.bound = max(self.bound, min(found.bound, self.best.cost))

    def few(self) -> bool:
        """Whether a closing branch and bound is worth trying."""
        return int((~self._stands()).sum()) <= CLOSING

    def _stands(self) -> Bools:
        """The integers that no better answer has elsewhere."""
        x, price = self.relaxed.x[self.columns], np.abs(self.relaxed.reduced_cost[self.columns])
        stands: Bools = (price > self.room) & (np.abs(x - np.round(x)) <= _WHOLE)
        return stands

    def _branch(self, lower: Floats, upper: Floats, nodes: int) -> Solution:
        program = replace(self.program, lower=lower, upper=upper)
        found = highs.solve(program, gap=max(highs.ABSOLUTE_GAP, self.enough / 2), nodes=nodes, lean=True)
        self.seconds += found.seconds
        return found

    def told(self) -> Solution:
        if self.best is None:
            return replace(self.relaxed, ending=Ending.INFEASIBLE, x=np.zeros(0), seconds=self.seconds)
        gap = max(0.0, self.room) / max(1.0, abs(self.best.cost))
        ending = Ending.OPTIMAL if self.room <= self.enough else Ending.GAP
        return replace(self.best, ending=ending, gap=gap, bound=min(self.bound, self.best.cost), seconds=self.seconds)


def _packing(program: Program) -> Ints:
    """Rows that allow so many ones among some binaries."""
    matrix = program.matrix
    ones = program.integer[matrix.indices] & (matrix.data == 1.0) & (program.upper[matrix.indices] == 1.0)
    count = np.diff(matrix.indptr)
    alike = np.bincount(np.repeat(np.arange(len(count)), count), weights=ones, minlength=len(count))
    packs = (alike == count) & (count > 0) & np.isfinite(program.row_upper) & (program.row_lower <= 0)
    return np.flatnonzero(packs)


def _permits(program: Program, packing: Ints) -> Bools:
    """Columns that cost nothing and, the packing rows apart, only loosen rows when they grow."""
    entries = program.matrix.tocoo()
    over = (entries.data > 0) & np.isfinite(program.row_upper[entries.row])
    under = (entries.data < 0) & np.isfinite(program.row_lower[entries.row])
    found: Bools = program.cost == 0
    found[entries.col[(over | under) & ~np.isin(entries.row, packing)]] = False
    return found
