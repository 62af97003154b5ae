"""The value axis of a chart, with round ends."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """A value axis with round ends: `low` is drawn at `start`, `high` at `end`."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]

    def at(self, value: float) -> float:
        return self.start + (self.end - self.start) * (value - self.low) / (self.high - self.low)


def scale(values: Iterable[float], start: float, end: float, *, zero: bool = True, count: int = 4) -> Scale:
    """A scale over the values, and over zero if asked, whose ends are round numbers."""
    given = [*values, *([0.0] if zero else [])] or [0.0]
    low, high = min(given), max(given)
    if high - low < 1e-9 * max(abs(high), 1.0):
        high = low + max(abs(low), 1.0)
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * k for k in (1, 2, 2.5, 5, 10) if power * k >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return Scale(first * step, last * step, start, end, tuple(step * k for k in range(first, last + 1)))
