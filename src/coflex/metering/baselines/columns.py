"""Averages of past days for many units at once, in arrays that a machine with little memory can hold.

The numbers are those of `days.day_average`, unit by unit, to the last bit: sums run over days in the same order, and
means over quarter-hours along the same axis. Readings may be float32; sums are float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coflex.domain.errors import CoflexError
from coflex.domain.quantity import Bools, Floats
from coflex.metering.baselines.adjustment import Adjust, SameDay
from coflex.metering.baselines.days import DayAverage, Pick, Rolling, XofY
from coflex.metering.baselines.result import bounds, event_means

Powers = NDArray[np.float32] | NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ColumnsResult:
    """Baselines of many units: `values[i, t]` kW, injection positive, all NaN where not `enough[i]`.

    `used[d, i]`: day d of the history was averaged for unit i. `adjustment[i]`: kW or factor, NaN where none was made.
    """

    values: Floats
    used: Bools
    adjustment: Floats
    enough: Bools


def day_averages(
    history: Powers, eligible: Bools, event: Bools, today: Powers | None, notice: int, method: DayAverage
) -> ColumnsResult:
    """`days.day_average` of every unit i.

    history[d, i, t]: kW, injection positive, days ascending, NaN where not metered. eligible[d] or eligible[d, i].
    event[t]: the quarters sold, of all units alike. today[i, t]. Memory: 20 bytes a unit and quarter beside the
    history. Raises CoflexError on shapes that do not fit or an event without a quarter.
    """
    days, units, quarters = history.shape
    if len(event) != quarters or len(eligible) != days or (today is not None and today.shape != (units, quarters)):
        raise CoflexError("History, eligible days, event and today do not fit.", "Align the history to the day first.")
    bounds(event)
    able = np.repeat(eligible[:, None], units, axis=1) if eligible.ndim == 1 else eligible.copy()
    usable = candidates(history, able, method.most)
    enough = usable.sum(axis=0) >= method.least
    usable &= enough
    used = _picked(history, usable, event, method) if isinstance(method, XofY) else usable
    base = _rolled(history, used, method.weight) if isinstance(method, Rolling) else _mean(history, used)
    base[~enough] = np.nan
    adjustment = np.full(units, np.nan)
    if method.adjustment is not None and today is not None:
        adjustment = _adjust(base, today, event, notice, method.adjustment)
    return ColumnsResult(base, used, adjustment, enough)


def candidates(history: Powers, eligible: Bools, most: int) -> Bools:
    """The `most` latest days of each unit that are eligible and without a missing reading, shape (days, units).

    eligible: (days, units). Days before those that every unit needs are not looked at.
    """
    usable = np.zeros_like(eligible)
    left = np.full(eligible.shape[1], most)
    for d in range(len(history) - 1, -1, -1):
        asked = eligible[d] & (left > 0)
        if asked.any():
            usable[d] = asked & np.isfinite(history[d]).all(axis=1)
            left -= usable[d]
    return usable


def _picked(history: Powers, usable: Bools, event: Bools, method: XofY) -> Bools:
    """The x days of each unit's usable ones, as `days.picked` chooses them."""
    days, units = usable.shape
    means = np.full((days, units), np.nan)
    for d in np.flatnonzero(usable.any(axis=1)):
        means[d] = event_means(history[d], event)
    own = _direction(means, usable)
    # Rank by power in the unit's direction, ties to the later day: a stable sort of the days from the last to the
    # first, those that are not usable behind all.
    keys = np.where(usable, -own * means, np.inf)[::-1]
    order = days - 1 - np.argsort(keys, axis=0, kind="stable")
    spare = usable.sum(axis=0) - method.x
    skip = {Pick.HIGH: np.zeros_like(spare), Pick.MID: (spare + 1) // 2, Pick.LOW: spare}[method.pick]
    used = np.zeros_like(usable)
    enough = np.flatnonzero(spare >= 0)
    for k in range(method.x):
        used[order[skip[enough] + k, enough], enough] = True
    return used


def _direction(means: Floats, usable: Bools) -> Floats:
    """+1 for units whose days add to an injection in the event, else -1; summed as one unit's days are."""
    own = np.empty(means.shape[1])
    counts = usable.sum(axis=0)
    for count in np.unique(counts):
        here = np.flatnonzero(counts == count)
        kept = means.T[here][usable.T[here]].reshape(len(here), count)
        own[here] = np.where(kept.sum(axis=1) > 0, 1.0, -1.0)
    return own


def _mean(history: Powers, used: Bools) -> Floats:
    """Mean over each unit's used days, shape (units, quarters)."""
    total = np.zeros(history.shape[1:])
    for d in np.flatnonzero(used.any(axis=1)):
        np.add(total, history[d], out=total, where=used[d][:, None])
    counts = used.sum(axis=0)
    mean: Floats = total / np.maximum(counts, 1)[:, None]
    return mean


def _rolled(history: Powers, used: Bools, weight: float) -> Floats:
    """The rolling average over each unit's used days, oldest first."""
    level = np.zeros(history.shape[1:])
    begun = np.zeros(history.shape[1], dtype=np.bool_)
    for d in np.flatnonzero(used.any(axis=1)):
        first = used[d] & ~begun
        level[first] = history[d][first]
        on = used[d] & begun
        level[on] = weight * level[on] + (1 - weight) * history[d][on].astype(np.float64)
        begun |= used[d]
    return level


def _adjust(base: Floats, today: Powers, event: Bools, notice: int, rule: SameDay) -> Floats:
    """Move the baselines to the day's level in place; kW or factor of each unit, NaN where none could be made."""
    start, stop = rule.window(bounds(event)[0], notice)
    if start < 0:
        return np.full(len(base), np.nan)
    window = today[:, start:stop].astype(np.float64)
    metered = np.where(np.isfinite(window), window, np.nan).mean(axis=1)
    expected = base[:, start:stop].mean(axis=1)
    if rule.kind == Adjust.ADDITIVE:
        most = rule.cap * np.abs(event_means(base, event))
        made: Floats = np.clip(metered - expected, -most, most)
        base += np.where(np.isnan(made), 0.0, made)[:, None]
    else:
        with np.errstate(over="ignore"):
            ratio = np.divide(metered, expected, out=np.full(len(base), np.nan), where=expected != 0)
        made = np.clip(ratio, 1 - rule.cap, 1 + rule.cap)
        base *= np.where(np.isnan(made), 1.0, made)[:, None]
    return made
