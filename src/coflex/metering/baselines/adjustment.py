"""Same-day adjustment: a baseline of past days moved to the level of the day itself, before anybody knew of the order.

Equations 3 and 4 of docs/mathematics/baselines.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from coflex.domain.errors import Finding, refuse
from coflex.domain.quantity import Bools, Floats
from coflex.metering.baselines.result import BaselineResult, Window, bounds

LEAST_GAP = 4  # quarter-hours: an adjustment that sees the last hour before the event can be steered by it


class Adjust(StrEnum):
    """Same-day adjustment: add the mean difference, or scale by the ratio of the means."""

    ADDITIVE = "additive"
    SCALAR = "scalar"


@dataclass(frozen=True, slots=True)
class SameDay:
    """Same-day adjustment over `quarters` that end `gap` quarters before the event, or at notice if that is earlier.

    `cap`: most it may change the baseline, as a share of the mean baseline in the event. Raises Refused.
    """

    kind: Adjust = Adjust.ADDITIVE
    quarters: int = 12
    gap: int = LEAST_GAP
    cap: float = 0.2

    def __post_init__(self) -> None:
        refuse("Same-day adjustment", self._findings())

    def _findings(self) -> Iterator[Finding]:
        if self.quarters < 1:
            yield Finding("same_day: quarters", "too_short", "The window is empty; give one quarter-hour or more.")
        if self.gap < LEAST_GAP:
            yield Finding("same_day: gap", "too_near", f"The window must end {LEAST_GAP} quarters before the event.")
        if not 0 <= self.cap < 1:
            yield Finding("same_day: cap", "out_of_range", f"The cap {self.cap} is no share; give 0 up to below 1.")

    def window(self, first: int, notice: int) -> Window:
        """Quarters [start, stop) that are read; start is negative when the day has too few before the event."""
        stop = min(first - self.gap, notice)
        return stop - self.quarters, stop


def labelled(label: str, rule: SameDay | None) -> str:
    """A method's name with its adjustment, in the words of the field."""
    return f"{label}, {rule.kind} same-day adjustment" if rule else label


def adjusted(
    plain: BaselineResult, today: Floats | None, event: Bools, notice: int, rule: SameDay | None
) -> BaselineResult:
    """A baseline of past days after the adjustment, or as it is where none is asked for or can be made.

    None can be made when the event day is not metered, when a reading of the window is missing (or the window begins
    before the day), and when a ratio would have nothing to be a ratio to; the note says which.
    """
    if rule is None or not plain.enough:
        return plain
    if today is None:
        return replace(plain, note="no adjustment: nothing of the day is metered")
    start, stop = rule.window(bounds(event)[0], notice)
    # Whether a reading is there is itself something that was read.
    seen = (max(start, 0), max(stop, 0))
    done = replace(plain, known_at=max(plain.known_at, seen[1]), read_today=(*plain.read_today, seen))
    if start < 0 or not np.isfinite(today[start:stop]).all():
        return replace(done, note="no adjustment: the window before the event is not whole")
    made = adjustment_of(plain.values, today, (start, stop), event, rule)
    if made is None:
        return replace(done, note="no adjustment: the baseline of the window is zero or unknown")
    moved = plain.values + made if rule.kind == Adjust.ADDITIVE else plain.values * made
    return replace(done, values=moved, adjustment=made)


def adjustment_of(base: Floats, today: Floats, window: Window, event: Bools, rule: SameDay) -> float | None:
    """kW to add or factor to apply, within the cap; None when the ratio has no base or the base no value."""
    part = slice(*window)
    metered, expected = float(today[part].mean()), float(base[part].mean())
    if np.isnan(expected):
        return None
    if rule.kind == Adjust.ADDITIVE:
        most = rule.cap * abs(float(base[event].mean()))
        return float(np.clip(metered - expected, -most, most))
    if expected == 0:
        return None
    with np.errstate(over="ignore"):  # a ratio to next to nothing is one beyond the cap
        return float(np.clip(np.divide(metered, expected), 1 - rule.cap, 1 + rule.cap))
