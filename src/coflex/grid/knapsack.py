"""Worst splits: how far parts of a grid can load its limits, whatever units they choose.

A part p that may use C_p over units with potential Y_u loads row r, of effect a_ru, by at most

    W_rp(C) = max { sum_u a_ru y_u : 0 <= y <= Y, sum_u y_u <= C }

a fractional knapsack: the positive effects from the largest down (Dantzig 1957, doi:10.1287/opre.5.2.266). W is
concave, piecewise linear and increasing. Parts are safe together when sum_p W_rp(C_p) <= h_r for every row.
"""

from __future__ import annotations

from copy import copy

import numpy as np

from coflex.domain.quantity import Bools, Floats, Ints

# Step in the common share, and share of its room, below which a row counts as full.
FULL = 1e-11


class Knapsacks:
    """The curves W of many rows: units by part, in each part by falling effect.

    `effect[r, u]` per kW, `potential[u]` kW (non-negative), `part[u]` in 0..parts-1. Effects that help (negative)
    count as nothing: nobody is obliged to help.
    """

    def __init__(self, effect: Floats, potential: Floats, part: Ints, parts: int) -> None:
        self.total: Floats = np.bincount(part, weights=potential, minlength=parts).astype(np.float64)
        held = np.where(potential > 0, np.maximum(effect, 0.0), 0.0)
        by_part = np.argsort(part, kind="stable")
        self._part = part[by_part]
        self._first = np.flatnonzero(np.r_[True, self._part[1:] != self._part[:-1]]) if len(part) else by_part
        self._owner = self._part[self._first]
        # One key: the part, and within it a falling effect in shares of the row's largest.
        peak = held.max(axis=1, keepdims=True, initial=0.0)
        key = self._part - held[:, by_part] / np.where(peak > 0, 2 * peak, 1.0)
        self._order = by_part[np.argsort(key, axis=1, kind="stable")]
        self._effect = np.take_along_axis(held, self._order, axis=1)
        drawn = np.cumsum(np.c_[np.zeros(len(held)), potential[self._order]], axis=1)
        # The end of one unit is the beginning of the next to the last digit, and a part begins at zero.
        start = drawn[:, self._first][:, np.cumsum(np.isin(np.arange(len(part)), self._first)) - 1]
        self._begin, self._end = drawn[:, :-1] - start, drawn[:, 1:] - start
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
        for name in ("_order", "_effect", "_begin", "_end"):
            setattr(both, name, np.concatenate([getattr(self, name), getattr(more, name)]))
        return both

    def load(self, allowed: Floats) -> Floats:
        """W_rp at `allowed[p]` kW, shape (rows, parts)."""
        return self._by_part(self._effect * self._taken(allowed))

    def slope(self, allowed: Floats) -> Floats:
        """What the next kW of each part adds to each row, shape (rows, parts)."""
        here = allowed[self._part]
        marginal = (self._begin <= here) & (here < self._end)
        return self._by_part(self._effect * marginal)

    def split(self, allowed: Floats) -> Floats:
        """The split (kW per unit) that loads each row most, shape (rows, units)."""
        found = np.zeros((len(self._order), self._units))
        np.put_along_axis(found, self._order, np.where(self._effect > 0, self._taken(allowed), 0.0), axis=1)
        return found

    def _taken(self, allowed: Floats) -> Floats:
        taken: Floats = np.clip(allowed[self._part], self._begin, self._end) - self._begin
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
        fewer._part = self._part[columns]
        fewer._first = (
            np.flatnonzero(np.r_[True, fewer._part[1:] != fewer._part[:-1]])
            if columns.any()
            else (np.zeros(0, np.int64))
        )
        fewer._owner = fewer._part[fewer._first]
        for name in ("_order", "_effect", "_begin", "_end"):
            setattr(fewer, name, getattr(self, name)[rows][:, columns])
        return fewer


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
        curves = curves.only(alive, open_)
        if not len(row):
            return np.where(open_, 1.0, level), stopped
        while True:
            moving = open_ & (level <= now)
            load, slope = curves.load(level * goal), curves.slope(level * goal)
            left = room[row] - held - load.sum(axis=1)
            steep = (slope * moving) @ goal
            # What is left to within rounding is nothing, however little the parts still load the row.
            left = np.where(left <= FULL * np.abs(room[row]), 0.0, left)
            step = np.where(steep > 0, left / np.where(steep > 0, steep, 1.0), np.inf)
            # Parts above the common share wait for it.
            waiting = open_ & (level > now)
            ahead = min(1.0, float(level[waiting].min(initial=1.0)))
            if step.min() <= FULL:
                break
            now = min(now + float(step.min()), ahead)
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
