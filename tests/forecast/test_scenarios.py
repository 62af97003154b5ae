"""Scenarios: the marginals and the rank correlation they were asked for, and what a reduction keeps."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtri
from scipy.stats import norm, spearmanr

from coflex.domain.errors import CoflexError
from coflex.domain.forecast import Forecast
from coflex.domain.quantity import Floats
from coflex.domain.series import Series
from coflex.domain.time import Axis
from coflex.forecast import forecast
from coflex.forecast.backtest import past_errors
from coflex.forecast.scenarios import Scenarios, draw, factors, reduce

START = datetime(2016, 6, 1, tzinfo=UTC)
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
SEEDS = st.integers(0, 2**32 - 1)


def made(quantiles: Floats, levels: tuple[float, ...] = LEVELS) -> Forecast:
    _, series, periods = quantiles.shape
    names = tuple(f"s{i}" for i in range(series))
    return Forecast(START, names, Axis(START, periods), quantiles[len(levels) // 2], levels, quantiles, names)


def normal(series: int, periods: int, spread: float = 1.0) -> Forecast:
    """A forecast of standard normal marginals, shifted by series and period."""
    shift = 10.0 * np.arange(series)[:, None] + np.arange(periods)
    return made(shift + spread * ndtri(np.array(LEVELS))[:, None, None])


def correlated(rng: np.random.Generator, series: int, periods: int, days: int) -> Floats:
    """Errors of random correlation, with tails far from normal, which ranks do not see."""
    mix = rng.normal(size=(series * periods, series * periods // 2 + 1))
    cells = np.exp(rng.normal(size=(days, mix.shape[1])) @ mix.T / 2)
    return cells.reshape(days, series, periods).transpose(1, 0, 2)


@pytest.mark.spec("MKT-15")
@settings(max_examples=20, deadline=None, derandomize=True)
@given(SEEDS, st.integers(2, 60))
def test_one_scenario_lies_in_each_nth_of_every_marginal(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    few = normal(2, 3)
    drawn = draw(few, correlated(rng, 2, 3, 20), count, seed=seed)
    shift = few.quantiles[2]
    part = np.floor(count * norm.cdf(np.sort(drawn.values, axis=0) - shift) + 1e-9)
    assert (part == np.arange(count)[:, None, None]).all()


@pytest.mark.spec("MKT-15")
def test_quantiles_of_many_scenarios_are_the_forecasts() -> None:
    rng = np.random.default_rng(3)
    quantiles = np.sort(rng.gamma(2.0, 3.0, (5, 2, 4)), axis=0)
    drawn = draw(made(quantiles), correlated(rng, 2, 4, 30), 1000)
    share = (drawn.values <= quantiles[:, None] + 1e-9).mean(axis=1)
    assert np.abs(share - np.array(LEVELS)[:, None, None]).max() <= 1 / 1000


@pytest.mark.spec("MKT-15")
@pytest.mark.parametrize("seed", range(4))
def test_the_rank_correlation_of_past_errors_comes_back(seed: int) -> None:
    errors = correlated(np.random.default_rng(seed), 3, 4, 4000)
    drawn = draw(normal(3, 4), errors, 1024, seed=seed)
    asked = spearmanr(errors.transpose(1, 0, 2).reshape(4000, 12)).statistic
    got = spearmanr(drawn.values.reshape(1024, 12)).statistic
    assert np.abs(asked).max(initial=0, where=~np.eye(12, dtype=bool)) > 0.5
    assert np.abs(got - asked).max() < 0.03


@pytest.mark.spec("MKT-15")
@pytest.mark.parametrize("rho", [-0.9, -0.3, 0.0, 0.5, 0.95])
def test_spearmans_rho_is_what_the_normal_copula_has_by_formula(rho: float) -> None:
    """Pearson (1907): 6 / pi * arcsin(rho / 2)."""
    rng = np.random.default_rng(4)
    cells = rng.normal(size=(4000, 2)) @ np.linalg.cholesky(np.array([[1, rho], [rho, 1]])).T
    drawn = draw(normal(1, 2), cells[None], 2048)
    got = spearmanr(drawn.values[:, 0]).statistic
    assert got == pytest.approx(6 / np.pi * np.arcsin(rho / 2), abs=0.03)


@pytest.mark.spec("MKT-15")
@settings(max_examples=20, deadline=None, derandomize=True)
@given(SEEDS)
def test_factors_give_the_correlation_of_normal_scores(seed: int) -> None:
    rng = np.random.default_rng(seed)
    errors = correlated(rng, 2, 3, 12)
    cells = errors.transpose(1, 0, 2).reshape(12, 6)
    scores = norm.ppf((np.argsort(np.argsort(cells, axis=0), axis=0) + 0.5) / 12)
    loading = factors(errors)
    np.testing.assert_allclose(loading @ loading.T, np.corrcoef(scores.T), atol=1e-9)
    assert (np.diff(np.linalg.norm(loading, axis=0)) <= 1e-12).all()


@pytest.mark.spec("MKT-15")
def test_two_series_that_err_alike_move_together_and_opposites_apart() -> None:
    rng = np.random.default_rng(0)
    one = rng.normal(size=(1, 40, 2))
    errors = np.concatenate([one, 3 * one**3, -one])
    drawn = draw(normal(3, 2), errors, 40)
    rank = np.argsort(np.argsort(drawn.values, axis=0), axis=0)
    assert (rank[:, 0] == rank[:, 1]).all() and (rank[:, 0] == 39 - rank[:, 2]).all()


@pytest.mark.spec("MKT-15")
@settings(max_examples=20, deadline=None, derandomize=True)
@given(SEEDS)
def test_scenarios_depend_on_no_order_and_no_chance(seed: int) -> None:
    rng = np.random.default_rng(seed)
    errors, few = correlated(rng, 4, 3, 15), normal(4, 3)
    first = draw(few, errors, 20, seed=7)
    order, days = rng.permutation(4), rng.permutation(15)
    names = tuple(few.names[i] for i in order)
    turned = replace(few, names=names, values=few.values[order], quantiles=few.quantiles[:, order])
    second = draw(turned, errors[order][:, days], 20, seed=7)
    assert np.array_equal(first.values[:, order], second.values)
    assert first.probability.sum() == pytest.approx(1, abs=1e-12)
    assert not np.array_equal(first.values, draw(few, errors, 20, seed=8).values)


@pytest.mark.spec("MKT-15")
def test_bounds_hold_and_a_dark_hour_stays_dark() -> None:
    rng = np.random.default_rng(1)
    quantiles = np.sort(rng.normal(size=(5, 2, 4)), axis=0)
    quantiles[:, 0, 0] = 0.0
    errors = correlated(rng, 2, 4, 10)
    errors[0, :, 0] = 0.0
    drawn = draw(made(quantiles), errors, 50, floor=(0.0, -np.inf), ceiling=1.5)
    assert (drawn.values[:, 0] >= 0).all() and (drawn.values <= 1.5).all() and (drawn.values[:, 1] < 0).any()
    assert (drawn.values[:, 0, 0] == 0).all()


@pytest.mark.spec("MKT-15")
def test_errors_of_the_forecasts_own_replays_fit_it() -> None:
    rng = np.random.default_rng(5)
    zone = ZoneInfo("Europe/Rome")
    axis = Axis(datetime(2016, 5, 1, 22, tzinfo=UTC), 40 * 96)
    history = Series(("a", "b"), axis, rng.normal(size=(2, len(axis))).cumsum(axis=1) / 10)
    issued = axis.start + timedelta(days=38, hours=8)
    target = Axis(axis.start + timedelta(days=39), 96)
    one = forecast(history, issued, target, zone)
    errors = past_errors(history, issued, target, zone, one.methods, 20)
    assert errors.shape == (2, 20, 96)
    # The latest replay whose target was known by hand: the forecast made one day less 8 hours before the last day.
    before = forecast(
        history, issued - timedelta(days=2), Axis(target.start - timedelta(days=2), 96), zone, methods=(one.methods[0],)
    )
    actual = history.window(before.axis).values[0]
    np.testing.assert_allclose(errors[0, 0], actual - before.values[0], atol=1e-12)
    drawn = draw(one, errors, 25)
    assert (drawn.values.min(axis=0) < one.values).all() and drawn.series(3).axis == target


@pytest.mark.spec("MKT-15")
@pytest.mark.parametrize(
    ("fault", "word"),
    [
        (lambda few, errors: draw(few, errors[:1], 5), "do not fit"),
        (lambda few, errors: draw(few, errors * np.nan, 5), "finite"),
        (lambda few, errors: draw(few, errors, 0), "0 scenarios"),
        (lambda few, errors: draw(replace(few, levels=(0.5,), quantiles=few.quantiles[2:3]), errors, 5), "One level"),
        (lambda few, errors: reduce(draw(few, errors, 5), 6), "6 of 5"),
        (lambda few, errors: reduce(draw(few, errors, 5), 0), "0 of 5"),
    ],
)
def test_what_cannot_be_drawn_is_said(fault, word) -> None:
    with pytest.raises(CoflexError, match=word):
        fault(normal(2, 3), correlated(np.random.default_rng(0), 2, 3, 8))


# ---- reduction -------------------------------------------------------------------------------------------------


def cloud(seed: int, count: int = 9) -> Scenarios:
    rng = np.random.default_rng(seed)
    weight = rng.uniform(0.5, 2.0, count)
    return Scenarios(("a", "b"), Axis(START, 2), rng.normal(size=(count, 2, 2)), weight / weight.sum())


def miss(of: Scenarios, kept: tuple[int, ...]) -> float:
    """Expected distance to the nearest kept, written by hand."""
    mean = sum(p * v for p, v in zip(of.probability, of.values, strict=True))
    spread = [
        np.sqrt(sum(p * ((v[i] - mean[i]) ** 2).mean() for p, v in zip(of.probability, of.values, strict=True)))
        for i in range(2)
    ]
    scaled = [v / np.array(spread)[:, None] for v in of.values]
    return float(
        sum(p * min(np.linalg.norm(v - scaled[k]) for k in kept) for p, v in zip(of.probability, scaled, strict=True))
    )


@pytest.mark.spec("MKT-15")
@settings(max_examples=25, deadline=None, derandomize=True)
@given(SEEDS, st.integers(1, 8))
def test_forward_selection_adds_the_best_next_one_each_time(seed: int, count: int) -> None:
    every = cloud(seed)
    kept: list[int] = []
    for _ in range(count):
        kept.append(min(set(range(9)) - set(kept), key=lambda k: miss(every, (*kept, k))))
    few = reduce(every, count)
    assert {v.tobytes() for v in few.values} == {every.values[k].tobytes() for k in kept}
    assert few.probability.sum() == pytest.approx(1, abs=1e-12) and (few.probability > 0).all()


@pytest.mark.spec("MKT-15")
@settings(max_examples=25, deadline=None, derandomize=True)
@given(SEEDS, st.integers(1, 9))
def test_a_reduction_depends_on_no_order(seed: int, count: int) -> None:
    every = cloud(seed)
    order = np.random.default_rng(seed).permutation(9)
    turned = replace(every, values=every.values[order], probability=every.probability[order])
    one, other = reduce(every, count), reduce(turned, count)
    assert np.array_equal(one.values, other.values)
    np.testing.assert_allclose(one.probability, other.probability, atol=1e-15)


@pytest.mark.spec("MKT-15")
def test_two_crowds_leave_one_of_each_with_their_weights() -> None:
    rng = np.random.default_rng(2)
    values = np.concatenate([rng.normal(0, 0.1, (6, 1, 3)), rng.normal(9, 0.1, (3, 1, 3))])
    few = reduce(Scenarios(("a",), Axis(START, 3), values, np.full(9, 1 / 9)), 2)
    weight = dict(zip(few.values.mean(axis=(1, 2)).round().tolist(), few.probability, strict=True))
    assert weight == pytest.approx({0.0: 6 / 9, 9.0: 3 / 9})
