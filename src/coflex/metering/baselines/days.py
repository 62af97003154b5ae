"""Baselines that average past days: high, mid or low X of Y, all days, and a rolling weighted average.

Equations 1, 2 and 5 of docs/mathematics/baselines.md (comparison of methods: Lind et al. 2023,
doi 10.1016/j.jup.2023.101688).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from coflex.domain.errors import CoflexError, Finding, refuse
from coflex.domain.quantity import Bools, Floats, Ints
from coflex.metering.baselines.adjustment import SameDay, adjusted, labelled
from coflex.metering.baselines.result import BaselineResult, bounds, event_means, nothing


class Pick(StrEnum):
    """Which X of the Y candidate days: the highest, those in the middle, or the lowest."""

    HIGH = "high"
    MID = "mid"
    LOW = "low"


@dataclass(frozen=True, slots=True)
class XofY:
    """Mean of `x` of the `y` most recent eligible days. Raises Refused on impossible counts."""

    x: int
    y: int
    pick: Pick = Pick.HIGH
    adjustment: SameDay | None = None

    def __post_init__(self) -> None:
        refuse("X of Y baseline", self._findings())

    def _findings(self) -> Iterator[Finding]:
        if not 1 <= self.x <= self.y:
            yield Finding("x_of_y: x", "out_of_range", f"{self.x} of {self.y} days cannot be; give 1 <= x <= y.")
        if self.pick == Pick.MID and (self.y - self.x) % 2:
            yield Finding("x_of_y: y", "uneven", "Mid drops as many high days as low ones; make y - x even.")

    @property
    def label(self) -> str:
        """The method in the words of the field: 'high 5 of 10, additive same-day adjustment'."""
        picked_of = "" if self.x == self.y else f"{self.pick} "
        return labelled(f"{picked_of}{self.x} of {self.y}", self.adjustment)

    @property
    def least(self) -> int:
        """With fewer days there is no baseline."""
        return self.x

    @property
    def most(self) -> int:
        """No more days are looked at."""
        return self.y


@dataclass(frozen=True, slots=True)
class AllDays:
    """Mean of all eligible days, the `most` recent ones, if there are at least `least`. Raises Refused."""

    least: int = 5
    most: int = 45
    adjustment: SameDay | None = None

    def __post_init__(self) -> None:
        refuse("All days baseline", _counts("all_days", self.least, self.most))

    @property
    def label(self) -> str:
        return labelled(f"all days up to {self.most}", self.adjustment)


@dataclass(frozen=True, slots=True)
class Rolling:
    """B_k = weight B_(k-1) + (1 - weight) P_k over the `most` recent eligible days, oldest first. Raises Refused."""

    weight: float = 0.9
    least: int = 5
    most: int = 30
    adjustment: SameDay | None = None

    def __post_init__(self) -> None:
        faults = list(_counts("rolling", self.least, self.most))
        if not 0 <= self.weight < 1:
            message = f"The weight {self.weight} of yesterday's baseline is no share; give 0 up to below 1."
            faults.append(Finding("rolling: weight", "out_of_range", message))
        refuse("Rolling baseline", faults)

    @property
    def label(self) -> str:
        return labelled(f"rolling {self.weight:g} over {self.most}", self.adjustment)


DayAverage = XofY | AllDays | Rolling


def _counts(place: str, least: int, most: int) -> Iterator[Finding]:
    if not 1 <= least <= most:
        message = f"At least {least} and at most {most} days cannot be; give 1 <= least <= most."
        yield Finding(f"{place}: least", "out_of_range", message)


def day_average(
    history: Floats, eligible: Bools, event: Bools, today: Floats | None, notice: int, method: DayAverage
) -> BaselineResult:
    """The mean of past days as the method says, with its same-day adjustment.

    history[d, t]: kW, injection positive, days ascending, on the event day's quarters (see `align_history`).
    eligible[d]: see `eligibility`; a day with a missing reading is passed over. event[t]: the quarters sold.
    today[t]: the event day as far as metered (NaN beyond), None before it begins. notice: quarter in which the
    order was known, <= 0 when before the day; nothing from there on is read.

    "High" means much power in the unit's own direction: the one in which the candidate days moved more energy
    during the event, withdrawal when they balance. A load is ranked by withdrawal, a generator by injection.
    Guarantees: high >= mid >= low in that direction over the event; negated input gives the negated baseline.
    Raises CoflexError on shapes that do not fit or an event without a quarter.
    """
    if history.shape != (len(eligible), len(event)) or (today is not None and today.shape != event.shape):
        raise CoflexError("History, eligible days, event and today do not fit.", "Align the history to the day first.")
    bounds(event)
    usable = np.flatnonzero(eligible & np.isfinite(history).all(axis=1))[-method.most :]
    considered = considered_days(eligible, usable, method.most)
    if len(usable) < method.least:
        few = f"{len(usable)} days of {method.least} that are needed"
        return nothing(method.label, len(event), few, considered)
    if isinstance(method, XofY):
        days = picked(event_means(history, event), usable, method)
        base: Floats = history[list(days)].mean(axis=0)
    else:
        days = tuple(int(d) for d in usable)
        base = folded(history[usable], method.weight) if isinstance(method, Rolling) else history[usable].mean(axis=0)
    plain = BaselineResult(method.label, base, days, None, True, 0, considered)
    return adjusted(plain, today, event, notice, method.adjustment)


x_of_y = day_average  # under the name of its best known kind


def considered_days(eligible: Bools, usable: Ints, most: int) -> tuple[int, ...]:
    """The candidate days, and the eligible days that only a missing reading kept from being one."""
    oldest = int(usable[0]) if len(usable) == most else 0
    return tuple(int(d) for d in np.flatnonzero(eligible) if d >= oldest)


def picked(means: Floats, usable: Ints, method: XofY) -> tuple[int, ...]:
    """The x days of the usable ones, ranked by mean power in the unit's own direction; ties to the more recent."""
    own = 1.0 if means[usable].sum() > 0 else -1.0
    ranked = sorted((int(d) for d in usable), key=lambda d: (-own * means[d], -d))
    skip = skipped(method.pick, len(ranked) - method.x)
    return tuple(sorted(ranked[skip : skip + method.x]))


def skipped(pick: Pick, spare: int) -> int:
    """How many of the days to drop lie above those picked."""
    # With an odd number to drop (days are short), the extra one goes at the top: the doubt favours the payer.
    return {Pick.HIGH: 0, Pick.MID: (spare + 1) // 2, Pick.LOW: spare}[pick]


def folded(days: Floats, weight: float) -> Floats:
    """The rolling average over days, oldest first: shape (days, ...) to (...)."""
    level: Floats = days[0].astype(np.float64)
    for day in days[1:]:
        level = weight * level + (1 - weight) * day
    return level
