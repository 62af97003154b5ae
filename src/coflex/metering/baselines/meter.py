"""Baselines of the meter around the event: the mean before it, with the mean after it, or the line between both."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from coflex.domain.errors import Finding, refuse
from coflex.domain.quantity import Bools, Floats
from coflex.metering.baselines.result import BaselineResult, Window, bounds


class Between(StrEnum):
    """What joins the level before and the level after: their mean, or the line between the windows' middles."""

    MEAN = "mean"
    LINEAR = "linear"


@dataclass(frozen=True, slots=True)
class MeterBefore:
    """Mean of the `quarters` before the event; with `after`, joined with the mean of as many after it, which begin
    `rest` quarters after its end so that a rebound stays outside. Raises Refused."""

    quarters: int = 4
    after: int = 0
    between: Between = Between.MEAN
    rest: int = 0

    def __post_init__(self) -> None:
        faults = []
        if self.quarters < 1 or self.after < 0 or self.rest < 0:
            message = "A window is empty; give quarters >= 1, after >= 0 and rest >= 0."
            faults.append(Finding("meter_before", "out_of_range", message))
        if self.between == Between.LINEAR and not self.after:
            message = "A line needs a level after the event; give after >= 1."
            faults.append(Finding("meter_before: between", "one_end", message))
        refuse("Meter-before baseline", faults)

    @property
    def label(self) -> str:
        if not self.after:
            return f"meter before {self.quarters}"
        line = ", linear between" if self.between == Between.LINEAR else ""
        return f"meter before {self.quarters} and after {self.after}{line}"

    def windows(self, event: Bools, notice: int) -> list[Window]:
        """Half-open windows that are read: before, and after where asked for."""
        first, last = bounds(event)
        stop, begin = min(first, notice), last + 1 + self.rest
        before = (stop - self.quarters, stop)
        return [before, (begin, begin + self.after)] if self.after else [before]


def meter_before(today: Floats, event: Bools, notice: int, method: MeterBefore) -> BaselineResult:
    """A baseline at the mean of the quarters before the event, ending at notice if that is earlier.

    With `method.after` the mean after the event's last quarter is joined in, which makes it ex post. The line goes
    through the middles of both windows and is held level outside them (equation 6 of docs/mathematics/baselines.md).
    today[t]: kW, injection positive, NaN where not metered. Not enough when a window is not whole.
    Raises CoflexError on an event without a quarter.
    """
    windows = method.windows(event, notice)
    seen = tuple((max(start, 0), max(stop, 0)) for start, stop in windows)
    whole = all(start >= 0 and stop <= len(today) and np.isfinite(today[start:stop]).all() for start, stop in windows)
    known = seen[-1][1]
    if not whole:
        note = "a window beside the event is not whole"
        return BaselineResult(method.label, np.full(today.shape, np.nan), (), None, False, known, (), seen, note=note)
    levels = [float(today[start:stop].mean()) for start, stop in windows]
    if method.between == Between.LINEAR:
        middles = [(start + stop - 1) / 2 for start, stop in windows]
        values: Floats = np.interp(np.arange(len(today)), middles, levels)
    else:
        values = np.full(today.shape, float(np.mean(levels)))
    return BaselineResult(method.label, values, (), None, True, known, (), seen)
