"""A curve in straight lines between points, and when it is where."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coflex.domain.quantity import Floats


@dataclass(frozen=True, slots=True)
class Stay:
    """A longest time [begin, end] for which a curve stays between two bounds."""

    begin: float
    end: float

    @property
    def length(self) -> float:
        return self.end - self.begin


@dataclass(frozen=True, eq=False)
class Curve:
    """`values[i]` at `times[i]`, increasing; straight between them, constant outside."""

    times: Floats
    values: Floats

    def at(self, time: float) -> float:
        return float(np.interp(time, self.times, self.values))

    def scaled(self, factor: float) -> Curve:
        return Curve(self.times, self.values * factor)

    def moved(self, by: float) -> Curve:
        return Curve(self.times, self.values + by)

    def part(self, begin: float, end: float) -> Curve:
        """The curve in [begin, end], with points at both ends."""
        inside = (self.times > begin) & (self.times < end)
        times = np.concatenate([[begin], self.times[inside], [end]])
        return Curve(times, np.interp(times, self.times, self.values))

    def largest(self, begin: float, end: float) -> float:
        """The largest size of a value in [begin, end]."""
        return float(np.abs(self.part(begin, end).values).max())

    def stays(self, low: float, high: float, begin: float, end: float) -> list[Stay]:
        """The longest times in [begin, end] for which low <= value <= high, in their order."""
        part = self.part(begin, end)
        times = np.unique(np.concatenate([part.times, part.crossings(low), part.crossings(high)]))
        if len(times) < 2:
            return []
        middles = np.interp((times[:-1] + times[1:]) / 2, part.times, part.values)
        inside = (middles >= low) & (middles <= high)
        edges = np.flatnonzero(np.diff(np.concatenate([[False], inside, [False]]).astype(np.int8)))
        return [Stay(float(times[i]), float(times[j])) for i, j in zip(edges[::2], edges[1::2], strict=True)]

    def crossings(self, bound: float) -> Floats:
        """Times at which the curve goes through a bound."""
        above = self.values - bound
        at = np.flatnonzero(above[:-1] * above[1:] < 0)
        share = above[at] / (above[at] - above[at + 1])
        crossed: Floats = self.times[at] + share * (self.times[at + 1] - self.times[at])
        return crossed

    def first_at_least(self, bound: float, begin: float, end: float) -> float:
        """The first time in [begin, end] with a value of at least the bound; infinity if there is none."""
        part = self.part(begin, end)
        reached = part.times[part.values >= bound]
        return float(min([*reached[:1], *part.crossings(bound)[:1]], default=np.inf))

    def last_at_most(self, bound: float, begin: float, end: float) -> float:
        """The last time in [begin, end] with a value of at most the bound; `begin` if there is none."""
        part = self.part(begin, end)
        below = part.times[part.values <= bound]
        return float(max([*below[-1:], *part.crossings(bound)[-1:]], default=begin))
