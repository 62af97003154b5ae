"""What a unit could gain by steering its own baseline, and signs in its readings that it does.

The known ways (Lind et al. 2023, doi 10.1016/j.jup.2023.101688; JRC review of baselines): more use in the window of
the same-day adjustment, more use on the days that a baseline is likely to average, and selling only when the unit
would have been below its baseline anyway. Equations 13 and 14 of docs/mathematics/baselines.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from coflex.domain.errors import CoflexError, Finding
from coflex.domain.quantity import Bools, Floats
from coflex.metering.accuracy import Placebo, placed
from coflex.metering.baselines.control import ControlGroup
from coflex.metering.baselines.method import Method
from coflex.metering.eligibility import DayRule
from coflex.metering.history import History, Placed, baselines_of, recent

# Above this a difference is told: so many standard errors, and such a share of mean power.
CLEAR, WORTH = 3.0, 0.05
LEAST_DAYS = 5


class Trick(StrEnum):
    """A way of steering one's baseline."""

    BEFORE_NOTICE = "more use before notice"
    AFTER_NOTICE = "more use after notice"
    LIKELY_DAYS = "more use at the hours of events on the days before"
    SELECTION = "selling only when low anyway"


@dataclass(frozen=True, slots=True)
class Gain:
    """What a trick brings under a method, mean over the units of a history.

    gained: energy by which the baseline in the events rises, as a share of the energy in the events. spent: extra
    energy used for it, as a share of the same. Selling only when low spends nothing. leverage: gained for each unit
    of energy spent, None where nothing is spent.
    """

    method: str
    trick: Trick
    gained: float
    spent: float
    leverage: float | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """How hard a unit tries: the share of its mean power by which it uses more; over `quarters` before notice; on
    `days` days before the event; and on which share of the days it sells when it chooses them itself."""

    share: float = 0.2
    quarters: int = 16
    days: int = 10
    sold: float = 0.25


def gains(
    history: History, placebo: Placebo, method: Method, rule: DayRule, attempt: Attempt | None = None
) -> tuple[Gain, ...]:
    """What each trick would bring on the placebo events of a history, in the order of `Trick`.

    The share of the last trick is over and above selling on all days alike, so that a method's bias is not counted as
    the unit's doing. Raises CoflexError when there is no placebo event.
    """
    attempt = attempt or Attempt()
    events = list(placed(history, placebo))
    if not events:
        raise CoflexError("There is no placebo day in the readings.", "Give more days, or a shorter run-up.")
    plain = [baselines_of(history, one, method, rule) for one in events]
    own = history.own()[:, None]
    size = np.nanmean(np.abs(history.kw), axis=(1, 2))
    found = [
        _tricked(history, events, plain, method, rule, trick, attempt, own, size)
        for trick in (Trick.BEFORE_NOTICE, Trick.AFTER_NOTICE, Trick.LIKELY_DAYS)
    ]
    return (*found, _selected(history, events, plain, method, attempt, own))


def _tricked(
    history: History,
    events: Sequence[Placed],
    plain: Sequence[Floats],
    method: Method,
    rule: DayRule,
    trick: Trick,
    attempt: Attempt,
    own: Floats,
    size: Floats,
) -> Gain:
    """A trick that costs energy: readings are raised, and the baseline computed again."""
    gained = spent = sold = np.zeros(len(history.units))
    for one, before in zip(events, plain, strict=True):
        near, there = recent(history, one, rule)
        extra = _extra(near, there, trick, attempt, own, size)
        rise = own * (_rebased(near, there, extra, method, rule) - before)[:, one.event]
        gained = gained + np.nansum(rise, axis=1)
        spent = spent + np.abs(extra).sum(axis=(1, 2))
        sold = sold + np.nansum(np.abs(history.kw[:, one.day][:, one.event]), axis=1)
    moving = sold > 0
    won, paid = (float((part[moving] / sold[moving]).mean()) for part in (gained, spent))
    return Gain(method.label, trick, won, paid, won / paid if paid else None)


def _extra(near: History, one: Placed, trick: Trick, attempt: Attempt, own: Floats, size: Floats) -> Floats:
    """The extra power of each unit that the trick takes, signed, shape of the history's powers."""
    extra = np.zeros_like(near.kw)
    more = own * attempt.share * size[:, None]
    first, stop = int(np.flatnonzero(one.event)[0]), max(0, one.notice)
    if trick is Trick.LIKELY_DAYS:
        extra[:, max(0, one.day - attempt.days) : one.day, one.event] = more[:, :, None]
    elif trick is Trick.BEFORE_NOTICE:
        extra[:, one.day, max(0, stop - attempt.quarters) : stop] = more
    else:
        extra[:, one.day, stop:first] = more
    return extra


def _rebased(near: History, one: Placed, extra: Floats, method: Method, rule: DayRule) -> Floats:
    """The baselines after the trick, each unit trying it alone."""
    if not isinstance(method, ControlGroup):
        return baselines_of(replace(near, kw=near.kw + extra), one, method, rule)
    alone = []
    for i in range(len(near.units)):
        kw = near.kw.copy()
        kw[i] += extra[i]
        alone.append(baselines_of(replace(near, kw=kw), one, method, rule, only=i)[0])
    return np.array(alone)


def _selected(
    history: History, events: Sequence[Placed], plain: Sequence[Floats], method: Method, attempt: Attempt, own: Floats
) -> Gain:
    """Selling on the days on which the unit, as it knows itself, will be lowest against its baseline."""
    metered = [history.kw[:, one.day][:, one.event] for one in events]
    above = np.array([
        (own * (before[:, one.event] - power)).mean(axis=1)
        for one, before, power in zip(events, plain, metered, strict=True)
    ])  # fmt: skip
    size = np.array([np.abs(power).mean(axis=1) for power in metered])
    shares = []
    for unit in range(len(history.units)):
        known = np.isfinite(above[:, unit]) & np.isfinite(size[:, unit])
        if known.any() and size[known, unit].mean() > 0:
            ranked = np.sort(above[known, unit])[::-1]
            count = max(1, int(attempt.sold * len(ranked)))
            shares.append((ranked[:count].mean() - ranked.mean()) / size[known, unit].mean())
    return Gain(method.label, Trick.SELECTION, float(np.mean(shares)) if shares else 0.0, 0.0, None)


# ---------------------------------------------------------------- signs in readings


@dataclass(frozen=True, eq=False)
class Sales:
    """What a unit sold: for each of its sold days, by position in the history, whether it was called, its event, the
    quarter of notice and the baseline it is settled by (kW, shape (quarters,))."""

    days: tuple[int, ...]
    called: Bools
    events: Bools
    notices: tuple[int, ...]
    baselines: Floats


def signs(history: History, unit: str, sales: Sales, window: int = 12, gap: int = 4) -> tuple[Finding, ...]:
    """Signs that a unit steers its baseline; none proves it, and each says what to look at.

    raised_before_notice: in the window before the event it uses more on days it sells than on the others.
    raised_on_likely_days: at the hours of its events it uses more on the days it does not sell than before it began to
    sell. low_when_sold: on days it sold and was not called it stayed below its baseline. A difference is told when it
    is clear (three standard errors) and worth it (5 % of mean power). Fewer than five days on either side tell nothing.
    """
    i = history.units.index(unit)
    own = float(history.own()[i])
    power, place = own * history.kw[i], f"unit {unit}"
    size = float(np.nanmean(np.abs(power)))
    sold = set(sales.days)
    others = [d for d in range(len(history.days)) if d not in sold]
    found = []
    first = int(np.flatnonzero(sales.events[0])[0])
    stop = min(first - gap, min(sales.notices))
    if stop - window >= 0:
        means = power[:, stop - window : stop].mean(axis=1)
        if _clear(means[list(sales.days)], means[others], size):
            message = "It uses more before notice on the days it sells; compare with a method without that window."
            found.append(Finding(place, "raised_before_notice", message))
    hours = power[:, sales.events.any(axis=0)].mean(axis=1)
    begun = min(sales.days)
    if _clear(hours[[d for d in others if d > begun]], hours[[d for d in others if d < begun]], size):
        message = "At the hours of its events it uses more since it sells; compare with a control group."
        found.append(Finding(place, "raised_on_likely_days", message))
    idle = np.flatnonzero(~sales.called)
    below = np.array([(own * sales.baselines[k] - power[sales.days[k]])[sales.events[k]].mean() for k in idle])
    if _clear(below, np.zeros(LEAST_DAYS), size):
        message = "Sold and not called, it stays below its baseline; ask for nominations, or sample the days."
        found.append(Finding(place, "low_when_sold", message))
    return tuple(found)


def _clear(here: Floats, there: Floats, size: float) -> bool:
    """Whether the mean of one sample lies above that of another clearly and by a share worth telling (Welch)."""
    here, there = here[np.isfinite(here)], there[np.isfinite(there)]
    if min(len(here), len(there)) < LEAST_DAYS:
        return False
    error = np.sqrt(here.var(ddof=1) / len(here) + there.var(ddof=1) / len(there))
    difference = here.mean() - there.mean()
    return bool(difference > WORTH * size and difference > CLEAR * error)
