"""Whole kW and kvar that hold net requests: what rounding takes from a balance is given back by blocks at the margin.

Rounding down takes less than a kW of each award, up and down, so that a balance of many can be off by several. Those
kW go to blocks without terms: first one to each of those that lost most, so that every award stays within a kW of the
linear answer, then to those partly bought, then to any, each time where it costs least. Offers and lights are kept;
limits of the grid are looked at afterwards. For requests of reactive power, kW stands for kvar.
"""

from __future__ import annotations

import numpy as np

from coflex.domain.quantity import Bools, Floats, Ints
from coflex.market.model import Model, balance_members, has_terms

# MW that a linear answer may be off without meaning it.
_MET_MW = 1e-6
# kW below which a loss is none.
_NOTHING_KW = 1e-6


def held(model: Model, x: Floats, award_kw: Ints) -> Ints:
    """Awards (n,) in whole kW, few of them changed, that keep the net requests which the linear answer `x` (the model's
    columns) meets.

    Requests of zones come first; one for all then moves only blocks that none of those holds. What too few blocks
    without terms are left for stays missed, and so does what the linear answer leaves uncovered.
    """
    demand, blocks, count = model.demand, model.blocks, len(model.demand)
    slack = x[len(blocks) : len(blocks) + demand.slacks].reshape(2, count).sum(axis=0)
    met, zoned = slack < _MET_MW, demand.zones >= 0
    # Fractions of a kW are not asked for, as nothing is bought beyond a request.
    target = demand.sign * np.floor(demand.quantity_mw * 1000 + _NOTHING_KW).astype(np.int64)
    row, place = balance_members(model.book, blocks, demand)
    order = np.argsort(row, kind="stable")
    place, begin = place[order], np.searchsorted(row[order], np.arange(count + 1))
    sign = model.book.sign[blocks]
    moves = _Moves(model, x, award_kw)
    kept = np.zeros(len(blocks), dtype=np.bool_)
    has = np.bincount(row[order], weights=(sign * moves.kw)[place], minlength=count).astype(np.int64)
    moved = np.zeros(len(model.book.axis), dtype=np.bool_)
    for request in [*np.flatnonzero(met & zoned).tolist(), *np.flatnonzero(met & ~zoned).tolist()]:
        mine = place[begin[request] : begin[request + 1]]
        if moved[demand.period[request]]:
            has[request] = sign[mine] @ moves.kw[mine]
        missing = int(target[request] - has[request])
        if missing:
            moves.move(mine[~kept[mine]], missing)
            moved[demand.period[request]] = True
        if zoned[request]:
            kept[mine] = True
    settled = award_kw.copy()
    settled[blocks] = moves.kw
    return settled


class _Moves:
    """Awards of the model's blocks on their way; `kw` (blocks,)."""

    def __init__(self, model: Model, x: Floats, award_kw: Ints) -> None:
        book, blocks = model.book, model.blocks
        self.model, self.kw = model, award_kw[blocks]
        self.sign, self.period, self.offer = book.sign[blocks], book.period[blocks], book.offer[blocks]
        self.reactive = book.reactive[blocks]
        self.offered: Ints = np.round(book.quantity_mw[blocks] * 1000).astype(np.int64)
        kw = x[: len(blocks)] * 1000
        down = np.floor(kw + _NOTHING_KW)
        # What netting has taken from a unit that stood both ways is not lost by rounding.
        self.lost = np.where(self.kw == down, np.round(kw - down, 6), 0.0)
        self.value = book.price[blocks] if model.toll is None else book.price[blocks] + model.toll[blocks]
        self.free: Bools | None = None
        self.light = {name: row for row, name in model.light_rows.items()}

    def move(self, mine: Ints, missing: int) -> None:
        """Change the balance of the blocks `mine`, all of one quarter-hour and kind of power, by `missing` kW, or as
        much as they can."""
        if self.free is None:
            self.free = ~np.array([has_terms(offer) for offer in self.model.book.offers], dtype=np.bool_)[self.offer]
        mine = mine[self.free[mine]]
        if not len(mine):
            return
        way = 1 if missing > 0 else -1
        rises = self.sign[mine] == way
        able = ~(rises & self._other_way(mine, way))
        mine, rises = mine[able], rises[able]
        left = abs(missing)
        cost = np.where(rises, self.value[mine], -self.value[mine])
        partly = (self.kw[mine] > 0) & (self.kw[mine] < self.offered[mine])
        lost = rises & (self.lost[mine] > _NOTHING_KW)
        first = np.lexsort((mine, cost, -self.lost[mine]))
        for i in first[lost[first]].tolist():
            left -= self._shift(int(mine[i]), 1 if left else 0, True)
        for i in np.lexsort((mine, cost, ~partly)).tolist():
            if not left:
                return
            left -= self._shift(int(mine[i]), left, bool(rises[i]))

    def _other_way(self, mine: Ints, way: int) -> Bools:
        """Whether the unit of each block sells the other way in the quarter-hour, of active or reactive power as
        the blocks are."""
        t, offers = int(self.period[mine[0]]), self.model.book.offers
        first, last = np.searchsorted(self.period, [t, t + 1])
        here = np.arange(first, last)
        here = here[(self.sign[here] == -way) & (self.kw[here] > 0)]
        here = here[self.reactive[here] == self.reactive[mine[0]]]
        sold = {offers[o].unit for o in self.offer[here].tolist()} - {None}
        return np.array([offers[o].unit in sold for o in self.offer[mine].tolist()], dtype=np.bool_)

    def _shift(self, i: int, kw: int, rises: bool) -> int:
        """Raise or lower the award of block i by at most `kw`; by how much it was."""
        if rises:
            done = min(kw, int(self.offered[i] - self.kw[i]), self._room(i))
            self.kw[i] += done
        else:
            done = min(kw, int(self.kw[i]))
            self.kw[i] -= done
        return done

    def _room(self, i: int) -> int:
        """Whole kW that the light of block i leaves; lights are for active power."""
        book, blocks = self.model.book, self.model.blocks
        light = int(book.perimeter[blocks[i]]), int(self.sign[i]), int(self.period[i])
        if self.reactive[i] or light not in self.light:
            return int(self.offered[i])
        used = (book.perimeter[blocks] == light[0]) & (self.sign == light[1]) & (self.period == light[2])
        used &= ~self.reactive
        most = self.model.fixed.row_upper[self.light[light]] * 1000
        return max(0, int(np.floor(most + _NOTHING_KW)) - int(self.kw[used].sum()))
