"""Rolling backtests: how well a method did, which one to choose, and the quantiles that its errors give.

A backtest moves the issue and the target back together by whole local days, so every replay has the lead, the
clock times and the knowledge of the forecast it stands for. Only replays whose target was wholly known at the
issue count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import numpy as np

from coflex.domain.errors import CoflexError, NotReady
from coflex.domain.forecast import Forecast
from coflex.domain.quantity import Floats, Ints
from coflex.domain.series import Series
from coflex.domain.time import Axis, delivery_day
from coflex.forecast.methods import METHODS, TAU, Frame, estimate, lay_out, replay

LEVELS = (0.1, 0.5, 0.9)


@dataclass(frozen=True, eq=False)
class Accuracy:
    """How a method did over `days` replays, in the unit of the series.

    `mae[i]`: mean absolute error of `names[i]`; `rmse[i]`: root mean square error; `pinball[q, i]`: mean pinball
    loss of the quantile at `levels[q]`, learnt from the replays known before the one it is scored on.
    """

    method: str
    names: tuple[str, ...]
    days: int
    mae: Floats
    rmse: Floats
    levels: tuple[float, ...]
    pinball: Floats


def forecast(
    history: Series,
    issued: datetime,
    target: Axis,
    zone: ZoneInfo,
    *,
    methods: Sequence[str] = tuple(METHODS),
    levels: Sequence[float] = LEVELS,
    backtest_days: int = 14,
    tau: timedelta = TAU,
    floor: float = -np.inf,
) -> Forecast:
    """Forecast each series by the method that did best for it lately, with the quantiles of that method's errors.

    The method of a series is the one with the lower mean absolute error over the last `backtest_days` replays
    (fewer when the history is shorter); ties go to the earlier in `methods`. A quantile is the central value plus
    the empirical quantile of the errors of the same local hour. `floor`: no value or quantile below it.

    Guarantees: nothing that ends after `issued` matters; quantiles do not fall with the level; the forecast of a
    series does not depend on the others. Raises NotReady when not one replay fits into the history, Refused when
    known values are not finite, CoflexError on levels that do not rise inside (0, 1).
    """
    _check_levels(levels)
    frame = lay_out(history, issued, target, zone, backtest_days, tau)
    origins = _origins(frame, methods, backtest_days)
    errors = np.stack([_errors(frame, method, origins, floor) for method in methods])
    choice = np.abs(errors).mean(axis=(2, 3)).argmin(axis=0)
    series = np.arange(len(history.names))
    values = np.stack([np.maximum(estimate(frame, method), floor) for method in methods])[choice, series]
    quantiles = values + _error_quantiles(errors[choice, series], frame.clock, levels)
    return Forecast(
        issued=issued,
        names=history.names,
        axis=target,
        values=values,
        levels=tuple(levels),
        quantiles=np.maximum(quantiles, floor),
        methods=tuple(methods[m] for m in choice),
    )


def backtest(
    history: Series,
    issued: datetime,
    zone: ZoneInfo,
    days: int,
    method: str,
    *,
    target: Axis | None = None,
    levels: Sequence[float] = LEVELS,
    tau: timedelta = TAU,
    floor: float = -np.inf,
) -> Accuracy:
    """Accuracy of one method over the last `days` replays of a forecast issued at `issued` for `target`.

    `target`: the next local day when not given (day-ahead). The quantiles scored on a replay come from up to
    `days` replays wholly known before it, so a replay without any is not scored; `Accuracy.days` tells how many
    were. Raises NotReady when there is none, else as `forecast`.
    """
    _check_levels(levels)
    asked = target or delivery_day(issued.astimezone(zone).date() + timedelta(days=1), zone)
    frame = lay_out(history, issued, asked, zone, 2 * days, tau)
    gap = int(frame.day.max()) - frame.known
    origins = _origins(frame, (method,), 2 * days - 1 + gap)
    scored = min(days, len(origins) - gap)
    if scored < 1:
        raise NotReady("No replay has an earlier one to learn its quantiles from.", "Give a longer history.")
    made = np.maximum(replay(frame, method, origins), floor)
    errors = _actual(frame, origins) - made
    pinball = np.zeros((len(levels), len(history.names)))
    for replayed in range(scored):
        learnt = errors[:, replayed + gap : replayed + gap + days]
        quantiles = np.maximum(made[:, replayed] + _error_quantiles(learnt, frame.clock, levels), floor)
        beyond = (made + errors)[:, replayed] - quantiles
        share = np.array(levels)[:, None, None]
        pinball += np.maximum(share * beyond, (share - 1) * beyond).mean(axis=2) / scored
    kept = errors[:, :scored]
    mae, rmse = np.abs(kept).mean(axis=(1, 2)), np.sqrt((kept**2).mean(axis=(1, 2)))
    return Accuracy(method, history.names, scored, mae, rmse, tuple(levels), pinball)


def past_errors(
    history: Series,
    issued: datetime,
    target: Axis,
    zone: ZoneInfo,
    methods: Sequence[str],
    days: int = 60,
    *,
    tau: timedelta = TAU,
    floor: float = -np.inf,
) -> Floats:
    """Errors (actual less forecast) of the last `days` replays of a forecast, fewer when the history is shorter,
    shape (series, replays, periods); `methods[i]` is the method of series i, as `Forecast.methods` tells.

    Raises as `forecast`.
    """
    frame = lay_out(history, issued, target, zone, days, tau)
    origins = _origins(frame, methods, days)
    made = {method: _errors(frame, method, origins, floor) for method in sorted(set(methods))}
    return np.stack([made[method][i] for i, method in enumerate(methods)])


def _origins(frame: Frame, methods: Sequence[str], days: int) -> Ints:
    """How many days back each replay lies: from the latest whose target is wholly known, as far as history goes."""
    nearest = int(frame.day.max()) - frame.known
    farthest = min(frame.lowest(method) for method in methods) - frame.first
    if min(farthest, nearest + days - 1) < nearest:
        raise NotReady(
            f"The history is too short: not one day can be replayed for {', '.join(methods)}.",
            "Give a longer history, or only methods that look less far back.",
        )
    return np.arange(nearest, min(farthest, nearest + days - 1) + 1)


def _actual(frame: Frame, origins: Ints) -> Floats:
    return frame.at(frame.day - origins[:, None], frame.clock)


def _errors(frame: Frame, method: str, origins: Ints, floor: float) -> Floats:
    """Actual minus forecast, shape (series, origins, periods)."""
    return _actual(frame, origins) - np.maximum(replay(frame, method, origins), floor)


def _error_quantiles(errors: Floats, clock: Ints, levels: Sequence[float]) -> Floats:
    """Quantiles of errors pooled by local hour, shape (levels, series, periods), rising with the level."""
    out = np.empty((len(levels), errors.shape[0], errors.shape[2]))
    hour = clock // 4
    for h in np.unique(hour):
        same = hour == h
        pool = errors[:, :, same].reshape(errors.shape[0], -1)
        out[:, :, same] = np.sort(np.quantile(pool, levels, axis=1), axis=0)[..., None]
    return out


def _check_levels(levels: Sequence[float]) -> None:
    rising = all(low < high for low, high in pairwise(levels))
    if not levels or not rising or levels[0] <= 0 or levels[-1] >= 1:
        raise CoflexError(f"Levels {tuple(levels)} must rise inside (0, 1).", "Give for example 0.1, 0.5, 0.9.")
