"""How well a method tells what would have flowed: its baselines on placebo days, on which nobody was called.

Bias, mean absolute error and relative root mean square error as in the comparisons of the field (Lind et al. 2023,
doi 10.1016/j.jup.2023.101688; KEMA for PJM, 2011); equations 10 to 12 of docs/mathematics/baselines.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from coflex.domain.errors import CoflexError, Finding, refuse
from coflex.domain.quantity import Floats
from coflex.metering.baselines.method import Method
from coflex.metering.eligibility import DayRule
from coflex.metering.history import History, Placed, baselines_of


@dataclass(frozen=True, slots=True)
class Placebo:
    """Events that never were: on every `every`-th day that has `run_up` days before it, from one quarter to another
    (half-open, for each of `events`), ordered `notice` quarters before. Raises Refused."""

    events: tuple[tuple[int, int], ...] = ((28, 36), (44, 52), (68, 80))
    notice: int = 8
    run_up: int = 45
    every: int = 1

    def __post_init__(self) -> None:
        findings = []
        if self.every < 1 or self.every % 7 == 0:
            message = f"Every {self.every} days is always the same weekday, or never; give another number from 1 on."
            findings.append(Finding("placebo: every", "one_weekday", message))
        if not self.events or any(not 0 <= start < stop <= 96 for start, stop in self.events):
            message = "An event lies in quarters 0 to 96 and ends after it begins; give one."
            findings.append(Finding("placebo: events", "out_of_range", message))
        refuse("Placebo events", findings)


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Errors of one method, as shares of the mean power in the events.

    bias > 0: the baseline lies above what flowed, in the unit's own direction (a load would be paid for a reduction
    that never was). worst_bias: of the unit whose bias is largest, with its sign. Over the units of a kind: means of
    the units' figures, each unit counting alike. answered: share of
    the events with a baseline; the figures are NaN where there was none at all.
    """

    method: str
    kind: str
    units: int
    events: int
    answered: float
    bias: float
    worst_bias: float
    mae: float
    rrmse: float


@dataclass(frozen=True, eq=False)
class Errors:
    """Sums over the quarters of the events of each unit, shape (units,), from which all figures follow."""

    count: Floats
    signed: Floats
    absolute: Floats
    squared: Floats
    size: Floats
    events: Floats
    answered: Floats


def placed(history: History, placebo: Placebo) -> Iterator[Placed]:
    """The placebo events of a history. Days of the calendar's events and outages are left out."""
    taken = history.calendar.events | history.calendar.outages
    for d in range(placebo.run_up, len(history.days), placebo.every):
        if history.days[d] in taken:
            continue
        for start, stop in placebo.events:
            event = np.zeros(history.kw.shape[2], dtype=np.bool_)
            event[start:stop] = True
            yield Placed(d, event, start - placebo.notice)


def errors_of(history: History, placebo: Placebo, method: Method, rule: DayRule) -> Errors:
    """The errors of a method on the placebo events, unit by unit. Raises CoflexError when there is no such event."""
    own, units = history.own(), len(history.units)
    sums = np.zeros((7, units))
    for one in placed(history, placebo):
        metered = history.kw[:, one.day][:, one.event]
        error = own[:, None] * (baselines_of(history, one, method, rule)[:, one.event] - metered)
        there = np.isfinite(error)
        error = np.where(there, error, 0.0)
        size = np.where(there, np.abs(metered), 0.0)
        row = there, error, np.abs(error), error**2, size
        sums[:5] += np.array([part.sum(axis=1) for part in row])
        sums[5] += np.isfinite(metered).all(axis=1)
        sums[6] += there.all(axis=1)
    if not sums[5].any():
        raise CoflexError(
            "There is no placebo day in the readings.",
            f"Give more than {placebo.run_up} days in one piece, or a shorter run-up.",
        )
    return Errors(*sums)


def accuracy(history: History, placebo: Placebo, method: Method, rule: DayRule) -> tuple[Accuracy, ...]:
    """The figures of a method, one row a kind of unit, kinds sorted. Units that never move in the events are left out.

    Raises CoflexError when the history has no placebo day.
    """
    errors = errors_of(history, placebo, method, rule)
    kinds = np.array(history.kinds)
    return tuple(_row(method.label, str(kind), errors, kinds == kind) for kind in np.unique(kinds))


def _row(label: str, kind: str, errors: Errors, here: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> Accuracy:
    moving = here & (errors.size > 0)
    events = float(errors.events[here].sum())
    answered = float(errors.answered[here].sum()) / events if events else 0.0
    if not moving.any():
        nan = float("nan")
        return Accuracy(label, kind, int(here.sum()), int(events), answered, nan, nan, nan, nan)
    size, count = errors.size[moving], errors.count[moving]
    bias = errors.signed[moving] / size
    rrmse = np.sqrt(errors.squared[moving] / count) / (size / count)
    return Accuracy(
        label,
        kind,
        int(moving.sum()),
        int(events),
        answered,
        float(bias.mean()),
        float(bias[np.argmax(np.abs(bias))]),
        float((errors.absolute[moving] / size).mean()),
        float(rrmse.mean()),
    )


def unbiased(rows: Sequence[Accuracy], within: float = 0.02) -> tuple[Accuracy, ...]:
    """The rows whose bias is within a limit."""
    return tuple(row for row in rows if abs(row.bias) <= within)
