"""Worst splits: how far parts of a grid can load its limits, whatever units they choose.

A part p that may use C_p over units with potential Y_u loads row r, of effect a_ru, by at most

    W_rp(C) = max { sum_u a_ru y_u : 0 <= y <= Y, sum_u y_u <= C }

a fractional knapsack: the positive effects from the largest down (Dantzig 1957, doi:10.1287/opre.5.2.266). W is
concave, piecewise linear and increasing. Parts are safe together when sum_p W_rp(C_p) <= h_r for every row.
"""

from __future__ import annotations

from copy import copy
from functools import lru_cache

import numpy as np

from coflex.domain.quantity import Bools, Floats, Ints

# Step in the common share, and share of its room, below which a row counts as full.
FULL = 1e-11

# What curves hold of each row and unit.
_OF_ROWS = ("_order", "_effect", "_begin", "_end")


class Knapsacks:
    """The curves W of many rows: units by part, in each part by falling effect.

    `effect[r, u]` per kW, `potential[u]` kW (non-negative), `part[u]` in 0..parts-1. Effects that help (negative)
    count as nothing: nobody is obliged to help.
    """

    def __init__(self, effect: Floats, potential: Floats, part: Ints, parts: int) -> None:
        self.total: Floats = np.bincount(part, weights=potential, minlength=parts).astype(np.float64)
        held = np.where(potential > 0, np.maximum(effect, 0.0), 0.0)
        by_part, self._part, self._first, self._owner, start = _layout(part.astype(np.int64).tobytes())
        # One key: the part, and within it a falling effect in shares of the row's largest.
        peak = held.max(axis=1, keepdims=True, initial=0.0)
        key = self._part - held[:, by_part] / np.where(peak > 0, 2 * peak, 1.0)
        self._order = by_part[np.argsort(key, axis=1, kind="stable")]
        self._effect = held[np.arange(len(held))[:, None], self._order]
        drawn = np.zeros((len(held), len(potential) + 1))
        np.cumsum(potential[self._order], axis=1, out=drawn[:, 1:])
        # The end of one unit is the beginning of the next to the last digit, and a part begins at zero.
        begin = drawn[:, start]
        self._begin, self._end = drawn[:, :-1] - begin, drawn[:, 1:] - begin
        self._units = len(potential)

    def weighted(self, weight: Floats) -> Knapsacks:
        """The same curves with effects times `weight[r, p]`, non-negative."""
        other = copy(self)
        other._effect = self._effect * weight[:, self._part]
        return other

    def __len__(self) -> int:
        return len(self._order)

    def then(self, more: Knapsacks) -> Knapsacks:
        """These rows, then others of the same units."""
        both = copy(self)
        for name in _OF_ROWS:
            setattr(both, name, np.concatenate([getattr(self, name), getattr(more, name)]))
        return both

    def load(self, allowed: Floats) -> Floats:
        """W_rp at `allowed[p]` kW, shape (rows, parts)."""
        taken = self._taken(allowed)
        taken *= self._effect
        return self._by_part(taken)

    def slope(self, allowed: Floats) -> Floats:
        """What the next kW of each part adds to each row, shape (rows, parts)."""
        here = allowed[self._part]
        marginal = self._begin <= here
        marginal &= here < self._end
        return self._by_part(self._effect * marginal)

    def split(self, allowed: Floats) -> Floats:
        """The split (kW per unit) that loads each row most, shape (rows, units)."""
        found = np.zeros((len(self._order), self._units))
        rows = np.arange(len(found))[:, None]
        found[rows, self._order] = np.where(self._effect > 0, self._taken(allowed), 0.0)
        return found

    def _taken(self, allowed: Floats) -> Floats:
        taken: Floats = np.maximum(allowed[self._part], self._begin)
        np.minimum(taken, self._end, out=taken)
        taken -= self._begin
        return taken

    def _by_part(self, values: Floats) -> Floats:
        found = np.zeros((len(values), len(self.total)))
        if values.size:
            found[:, self._owner] = np.add.reduceat(values, self._first, axis=1)
        return found

    def only(self, rows: Ints | Bools, parts: Bools) -> Knapsacks:
        """The same curves of some rows and of the parts that `parts` marks; those of the others are zero."""
        columns = parts[self._part]
        fewer = copy(self)
        if columns.all():
            for name in _OF_ROWS:
                setattr(fewer, name, getattr(self, name)[rows])
            return fewer
        fewer._part = self._part[columns]
        fewer._first = _firsts(fewer._part)
        fewer._owner = fewer._part[fewer._first]
        chosen = np.ix_(rows, columns)
        for name in _OF_ROWS:
            setattr(fewer, name, getattr(self, name)[chosen])
        return fewer


@lru_cache(maxsize=32)
def _layout(part: bytes) -> tuple[Ints, Ints, Ints, Ints, Ints]:
    """Of units with these parts (whole numbers of 64 bits): their order by part, the parts in it, where each part
    begins, which part that is, and where the part of each unit begins."""
    of_unit = np.frombuffer(part, dtype=np.int64)
    by_part = np.argsort(of_unit, kind="stable")
    ordered = of_unit[by_part]
    first = _firsts(ordered)
    start = np.repeat(first, np.diff(first, append=len(ordered)))
    return by_part, ordered, first, ordered[first], start


def _firsts(ordered: Ints) -> Ints:
    """Where each run of equal numbers begins."""
    if not len(ordered):
        return np.zeros(0, dtype=np.int64)
    return np.concatenate([np.zeros(1, dtype=np.int64), np.flatnonzero(ordered[1:] != ordered[:-1]) + 1])


def fill(
    room: Floats, effect: Floats, potential: Floats, part: Ints, parts: int, floor_kw: Floats | None = None
) -> tuple[Floats, Ints]:
    """Share of its potential that each part may use, and the row that stops it (-1 if none does).

    `room[r]`, `effect[r, u]` per kW, `potential[u]` kW, `part[u]`; `floor_kw[p]`: what parts have to begin with,
    known to be safe (default nothing). All parts rise to a common share; a row that is full stops every part that
    would load it further. Shares are exact for the worst split of every row: from below, tangents of the concave W
    never pass the point where a row is full, and reach it after finitely many knots.
    """
    return rise(Knapsacks(effect, potential, part, parts), room, floor_kw)


def rise(
    curves: Knapsacks, room: Floats, floor_kw: Floats | None = None, goal_kw: Floats | None = None
) -> tuple[Floats, Ints]:
    """`fill` for curves that stand already: shares of `goal_kw[p]`, at most the potential and by default all of it."""
    goal = curves.total if goal_kw is None else goal_kw
    level = np.zeros(len(goal))
    if floor_kw is not None:
        level = np.where(goal > 0, np.minimum(floor_kw / np.where(goal > 0, goal, 1.0), 1.0), 0.0)
    stopped = np.full(len(goal), -1, dtype=np.int64)
    row = np.arange(len(room))
    open_ = np.ones(len(goal), dtype=np.bool_)
    top, held = curves.load(goal), np.zeros(len(room))
    now = 0.0
    while True:
        # What rises no more is a constant; a row that all the rest cannot fill is done with.
        alive = held + top @ open_ > room[row]
        row, held, top = row[alive], held[alive], top[alive]
        if not len(row):
            return np.where(open_, 1.0, level), stopped
        curves = curves.only(alive, open_)
        room_here = room[row]
        nothing = FULL * np.abs(room_here)
        while True:
            moving = open_ & (level <= now)
            kw = level * goal
            load, slope = curves.load(kw), curves.slope(kw)
            left = room_here - held - load.sum(axis=1)
            steep = (slope * moving) @ goal
            # What is left to within rounding is nothing, however little the parts still load the row.
            left[left <= nothing] = 0.0
            step = np.full(len(row), np.inf)
            np.divide(left, steep, out=step, where=steep > 0)
            least = float(step.min())
            if least <= FULL:
                break
            # Parts above the common share wait for it.
            waiting = open_ & (level > now)
            now = min(now + least, 1.0, float(level[waiting].min(initial=1.0)))
            level = np.where(moving, np.maximum(level, now), level)
            if now >= 1.0:
                return level, stopped
        full = np.flatnonzero(step <= FULL)
        loads = (slope[full] > 0) & moving
        hit = loads.any(axis=0)
        stopped[hit] = row[full[loads[:, hit].argmax(axis=0)]]
        held = held + load @ hit
        open_ = open_ & ~hit


def worst_split(effect: Floats, potential: Floats, part: Ints, allowed: Floats) -> Floats:
    """The split (kW per unit) that loads a row most when each part may use `allowed[p]`: largest effects first."""
    split: Floats = Knapsacks(effect[None], potential, part, len(allowed)).split(allowed)[0]
    return split
