"""From quantile forecasts to scenarios: a few whole days that could come, together as likely as the forecast says.

A Gaussian copula joins the quantiles of all series and periods. Its correlation is the rank correlation of past
errors by normal scores (van der Waerden), the efficient estimator for this copula (Klaassen and Wellner 1997,
doi:10.2307/3318652); it has no negative eigenvalues and as few factors as there are replays, however many series.
The points of a Sobol sequence are laid on the factors, the strongest first (Acworth, Broadie and Glasserman 1998,
doi:10.1007/978-1-4612-1690-2_1), and each marginal is stratified: of N scenarios, one lies in each N-th of the
distribution of every series and period (Stein 1987, doi:10.1080/00401706.1987.10488205).
Fewer scenarios with probabilities: fast forward selection, Heitsch and Roemisch (2003), doi:10.1023/A:1021805924152.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri
from scipy.stats import qmc, rankdata

from coflex.domain.errors import CoflexError
from coflex.domain.forecast import Forecast
from coflex.domain.quantity import Floats, Ints
from coflex.domain.series import Series
from coflex.domain.time import Axis


@dataclass(frozen=True, eq=False)
class Scenarios:
    """`values[s, i, t]`: series `names[i]` in period t of scenario s, in the unit of the series;
    `probability[s]`, adding to one."""

    names: tuple[str, ...]
    axis: Axis
    values: Floats
    probability: Floats

    def __len__(self) -> int:
        return len(self.probability)

    def series(self, scenario: int) -> Series:
        """One scenario as series."""
        return Series(self.names, self.axis, self.values[scenario])


def draw(
    made: Forecast,
    errors: Floats,
    count: int,
    *,
    seed: int = 0,
    floor: float | Sequence[float] = -np.inf,
    ceiling: float | Sequence[float] = np.inf,
) -> Scenarios:
    """`count` equally probable scenarios of a forecast, with the rank correlation of past errors.

    `errors[i, d, t]`: error of series i in period t of the d-th replay (`backtest.past_errors`). `floor`, `ceiling`:
    no value beyond, one for all or one a series. Between and beyond its levels a quantile is linear in the normal
    score, so a forecast with levels 0.1, 0.5, 0.9 has the tails of a normal distribution on either side.

    The same arguments give the same scenarios; the order of series does not matter. Raises CoflexError on errors
    that do not fit the forecast, fewer than two levels, fewer than one scenario.
    """
    series, periods = made.values.shape
    if errors.ndim != 3 or (errors.shape[0], errors.shape[2]) != (series, periods):
        raise CoflexError(
            f"Errors of shape {errors.shape} do not fit a forecast of {series} series and {periods} periods.",
            "Give them as (series, replays, periods).",
        )
    if not np.isfinite(errors).all():
        raise CoflexError("Past errors are not all finite.", "Leave out the replays that have a gap.")
    if len(made.levels) < 2:
        raise CoflexError("One level is no distribution.", "Forecast with at least two, for example 0.1, 0.5, 0.9.")
    if count < 1:
        raise CoflexError(f"{count} scenarios were asked for.", "Ask for one or more.")
    # One order of the series for every sum, so that not even the last digit depends on the order given.
    order = np.array(sorted(range(series), key=lambda i: made.names[i]), dtype=np.int64)
    scores = _scores(factors(errors[order]), count, seed).reshape(count, series, periods)
    values = np.empty((count, series, periods))
    values[:, order] = _quantile(made.quantiles[:, order], made.levels, scores)
    low, high = (np.broadcast_to(np.asarray(bound, dtype=np.float64), (series,)) for bound in (floor, ceiling))
    values = np.clip(values, low[:, None], high[:, None])
    return Scenarios(made.names, made.axis, values, np.full(count, 1.0 / count))


def factors(errors: Floats) -> Floats:
    """Factors (series periods, f) whose products are the rank correlation, by normal scores, of errors (series,
    replays, periods), the strongest first; rows in the order series, then period. What never erred has none."""
    series, replays, periods = errors.shape
    rank = rankdata(errors.transpose(1, 0, 2).reshape(replays, series * periods), axis=0)
    # One order of the replays, so that it does not show in the last digit.
    rank = rank[sorted(range(replays), key=lambda d: rank[d].tobytes())]
    score = ndtri((rank - 0.5) / replays)
    score -= score.mean(axis=0)
    size = np.linalg.norm(score, axis=0)
    _, strength, turned = np.linalg.svd(score / np.where(size > 1e-9, size, 1.0), full_matrices=False)
    keep = strength > 1e-6 * max(float(strength[0]), 1e-9)
    loading: Floats = turned[keep].T * strength[keep]
    # A singular vector has no sign of its own.
    largest = np.argmax(np.abs(loading) > 0.999 * np.abs(loading).max(axis=0), axis=0)
    signed: Floats = loading * np.sign(loading[largest, np.arange(loading.shape[1])])
    return signed


def reduce(scenarios: Scenarios, count: int) -> Scenarios:
    """The `count` scenarios that stand for all by fast forward selection; each takes the probability of those nearer
    to it than to any other kept.

    Distances are Euclidean, each series in units of its spread over all scenarios and periods. The answer keeps
    whole scenarios, in one order whatever the order given. Raises CoflexError on a count outside 1 .. all.
    """
    if not 1 <= count <= len(scenarios):
        raise CoflexError(f"{count} of {len(scenarios)} scenarios cannot be kept.", "Ask for fewer, at least one.")
    order = np.array(sorted(range(len(scenarios)), key=lambda s: tuple(scenarios.values[s].ravel())), dtype=np.int64)
    values, probability = scenarios.values[order], scenarios.probability[order]
    distance = _distances(values, probability)
    nearest = np.full(len(order), np.inf)
    kept: list[int] = []
    for _ in range(count):
        left = probability @ np.minimum(distance, nearest[:, None])
        left[kept] = np.inf
        kept.append(int(np.argmin(left)))
        nearest = np.minimum(nearest, distance[:, kept[-1]])
    chosen = np.array(sorted(kept), dtype=np.int64)
    heir = np.argmin(distance[:, chosen], axis=1)
    heir[chosen] = np.arange(count)
    weight = np.bincount(heir, weights=probability, minlength=count).astype(np.float64)
    return Scenarios(scenarios.names, scenarios.axis, values[chosen], weight)


def _distances(values: Floats, probability: Floats) -> Floats:
    """Euclidean distance of each two scenarios, shape (s, s)."""
    mean = np.einsum("s,sit->it", probability, values)
    spread = np.sqrt(np.einsum("s,sit->i", probability, (values - mean) ** 2) / values.shape[2])
    flat = (values / np.where(spread > 0, spread, 1.0)[:, None]).reshape(len(values), -1)
    return np.stack([np.sqrt(((flat - one) ** 2).sum(axis=1)) for one in flat])


def _scores(loading: Floats, count: int, seed: int) -> Floats:
    """Normal scores (count, cells) laid on factors, each column stratified."""
    points = qmc.Sobol(max(1, loading.shape[1]), scramble=True, seed=seed).random_base2(
        max(1, (count - 1).bit_length())
    )
    mixed = _orthogonal(ndtri(np.clip(points[:count], 1e-12, 1 - 1e-12))) @ loading.T
    rank: Ints = np.argsort(np.argsort(mixed, axis=0, kind="stable"), axis=0)
    scores: Floats = ndtri((rank + 0.5) / count)
    return scores


def _orthogonal(points: Floats) -> Floats:
    """Points whose strongest factors, as many as half their number, are uncorrelated in the sample itself
    (Iman and Conover 1982, doi:10.1080/03610918208812265)."""
    centred: Floats = points - points.mean(axis=0)
    leading = centred[:, : max(1, (len(points) - 1) // 2)]
    if len(points) < 3:
        return centred
    u, _, v = np.linalg.svd(leading, full_matrices=False)
    centred[:, : leading.shape[1]] = np.sqrt(len(points)) * (u @ v)
    return centred


def _quantile(quantiles: Floats, levels: Sequence[float], scores: Floats) -> Floats:
    """Values at normal scores (s, i, t) of marginals given by quantiles (levels, i, t)."""
    knots = ndtri(np.array(levels))
    slope = np.diff(quantiles, axis=0) / np.diff(knots)[:, None, None]
    part = np.clip(np.searchsorted(knots, scores) - 1, 0, len(levels) - 2)
    i, t = np.ogrid[: scores.shape[1], : scores.shape[2]]
    value: Floats = quantiles[part, i, t] + slope[part, i, t] * (scores - knots[part])
    return value
