"""Baselines by regression on temperature and day type, quarter-hour by quarter-hour or hour by hour.

Equation 9 of docs/mathematics/baselines.md; heating and cooling degrees below and above breakpoints as in ASHRAE
Guideline 14 change-point models. Solved by singular values, which tell what the days cannot determine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from coflex.domain.errors import CoflexError, Finding, refuse
from coflex.domain.quantity import Bools, Floats, Ints
from coflex.metering.baselines.adjustment import SameDay, adjusted, labelled
from coflex.metering.baselines.days import considered_days
from coflex.metering.baselines.result import BaselineResult, Given, bounds, nothing

# A direction in which the columns move by less than this share of the largest is none.
NO_DIRECTION = 1e-9


class Per(StrEnum):
    """Coefficients of their own for each quarter-hour, or shared by the four of an hour."""

    QUARTER = "quarter"
    HOUR = "hour"


class Temperature(StrEnum):
    """Where the event day's temperature is from: a forecast makes the baseline ex ante, a measurement ex post."""

    FORECAST = "forecast"
    MEASURED = "measured"


@dataclass(frozen=True, slots=True)
class Regression:
    """P(d,t) = b0 + bh max(0, heating - T) + bc max(0, T - cooling) + bw [working day], over the `days` most recent
    eligible days, at least `least`. A term is left out when its breakpoint is None or `day_type` false. Breakpoints in
    degrees Celsius. Raises Refused."""

    days: int = 30
    least: int = 10
    per: Per = Per.QUARTER
    heating: float | None = 15.0
    cooling: float | None = 22.0
    day_type: bool = True
    temperature: Temperature = Temperature.FORECAST
    adjustment: SameDay | None = None

    def __post_init__(self) -> None:
        refuse("Regression baseline", self._findings())

    def _findings(self) -> Iterator[Finding]:
        if not len(self.terms) <= self.least <= self.days:
            message = f"{len(self.terms)} terms need as many days; give {len(self.terms)} <= least <= days."
            yield Finding("regression: least", "out_of_range", message)
        if self.heating is not None and self.cooling is not None and not self.heating <= self.cooling:
            yield Finding("regression: heating", "out_of_range", "Heating must end where cooling begins, or below.")

    @property
    def terms(self) -> tuple[str, ...]:
        """The columns, in their order."""
        asked = (("heating", self.heating is not None), ("cooling", self.cooling is not None))
        return ("level", *(name for name, there in asked if there), *(("working day",) if self.day_type else ()))

    @property
    def by_weather(self) -> bool:
        """Whether the temperature is a term."""
        return self.heating is not None or self.cooling is not None

    @property
    def label(self) -> str:
        on = ", ".join(self.terms[1:]) or "nothing"
        return labelled(f"regression on {on} over {self.days} days by {self.per}", self.adjustment)


@dataclass(frozen=True, eq=False)
class Fit:
    """Coefficients by group and term, shape (groups, terms), of least norm where the days determine too little;
    `directions[g]`: orthogonal projection on what the days of the group determine, in scaled columns; `scale`."""

    coefficients: Floats
    directions: Floats
    scale: Floats
    rank: Ints


def regression(given: Given, method: Regression) -> BaselineResult:
    """What the unit would have done at the day's temperature and day type.

    Eligible days should hold both day types where the day type is a term. A quarter-hour that the days do not
    determine (no day as cold as today) is NaN; when one of the event is, there is no baseline. The note tells a
    rank that is not full. Raises CoflexError on shapes that do not fit or an event without a quarter.
    """
    quarters, last = len(given.event), bounds(given.event)[1]
    lacking = _lacking(given, method)
    if lacking:
        return nothing(method.label, quarters, lacking)
    whole = np.isfinite(given.history).all(axis=1)
    if given.weather is not None and method.by_weather:
        whole &= np.isfinite(given.weather.history).all(axis=1)
    usable = np.flatnonzero(given.eligible & whole)[-method.days :]
    considered = considered_days(given.eligible, usable, method.days)
    if len(usable) < method.least:
        return nothing(method.label, quarters, f"{len(usable)} days of {method.least} that are needed", considered)
    size = 4 if method.per == Per.HOUR else 1
    past, now = _columns(given, usable, method)
    fitted = fit(_grouped(past, size), _grouped(given.history[usable][..., None], size)[..., 0])
    values, known = predict(fitted, now.reshape(-1, size, now.shape[-1]))
    note = _told(fitted, method)
    if not known.reshape(-1)[given.event].all():
        return nothing(method.label, quarters, note, considered)
    level = np.where(known, values, np.nan).reshape(-1)
    at = last + 1 if method.by_weather and method.temperature == Temperature.MEASURED else 0
    days = tuple(int(d) for d in usable)
    plain = BaselineResult(method.label, level, days, None, True, at, considered, note=note)
    return adjusted(plain, given.today, given.event, given.notice, method.adjustment)


def fit(columns: Floats, values: Floats) -> Fit:
    """Least squares for each group: columns (groups, rows, terms), values (groups, rows)."""
    size = np.sqrt((columns**2).sum(axis=1, keepdims=True))
    scale = np.where(size > 0, size, 1.0)
    left, singular, right = np.linalg.svd(columns / scale, full_matrices=False)
    kept = singular > NO_DIRECTION * singular[:, :1]
    inverse = np.where(kept, 1 / np.where(kept, singular, 1.0), 0.0)
    scaled = np.einsum("gkt,gk,grk,gr->gt", right, inverse, left, values, optimize=True)
    directions = np.einsum("gka,gk,gkb->gab", right, kept.astype(np.float64), right)
    return Fit(scaled / scale[:, 0], directions, scale[:, 0], kept.sum(axis=1))


def predict(fitted: Fit, columns: Floats) -> tuple[Floats, Bools]:
    """Values at columns (groups, rows, terms), and whether the days determine them; both of shape (groups, rows)."""
    scaled = columns / fitted.scale[:, None, :]
    outside = scaled - scaled @ fitted.directions
    known = np.linalg.norm(outside, axis=2) <= 1e-6 * np.linalg.norm(scaled, axis=2)
    return np.einsum("grt,gt->gr", columns, fitted.coefficients), known


def _lacking(given: Given, method: Regression) -> str:
    """What the method needs and is not given."""
    if given.history.shape != (len(given.eligible), len(given.event)):
        raise CoflexError("History, eligible days and event do not fit.", "Align the history to the day first.")
    if method.by_weather:
        if given.weather is None:
            return "no temperature is given"
        if not np.isfinite(given.weather.today).all():
            return "the temperature of the day has a gap"
    if method.day_type and given.working is None:
        return "which days are working days is not given"
    return ""


def _columns(given: Given, usable: Ints, method: Regression) -> tuple[Floats, Floats]:
    """The terms of the past days, shape (days, quarters, terms), and of the event day, shape (quarters, terms)."""
    quarters = len(given.event)
    past, now = [np.ones((len(usable), quarters))], [np.ones(quarters)]
    if given.weather is not None:
        for breakpoint, sign in ((method.heating, -1.0), (method.cooling, 1.0)):
            if breakpoint is not None:
                past.append(np.maximum(0.0, sign * (given.weather.history[usable] - breakpoint)))
                now.append(np.maximum(0.0, sign * (given.weather.today - breakpoint)))
    if method.day_type and given.working is not None:
        past.append(np.repeat(given.working[usable].astype(np.float64)[:, None], quarters, axis=1))
        now.append(np.full(quarters, float(given.works_today)))
    return np.stack(past, axis=-1), np.stack(now, axis=-1)


def _grouped(by_day: Floats, size: int) -> Floats:
    """(days, quarters, terms) to (groups, days x size, terms)."""
    days, quarters, terms = by_day.shape
    split = by_day.reshape(days, quarters // size, size, terms)
    return split.transpose(1, 0, 2, 3).reshape(quarters // size, days * size, terms)


def _told(fitted: Fit, method: Regression) -> str:
    """Where the rank is not full."""
    terms = fitted.coefficients.shape[1]
    short = int((fitted.rank < terms).sum())
    if not short:
        return ""
    return f"rank below {terms} ({', '.join(method.terms)}) in {short} of {len(fitted.rank)} groups"
