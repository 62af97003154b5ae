"""Many units at once are one unit many times, to the last bit; and both are the formula in plain Python."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from coflex.domain.errors import CoflexError
from coflex.domain.quantity import Floats
from coflex.metering.baselines import Adjust, AllDays, Pick, Rolling, SameDay, XofY, day_average, day_averages
from coflex.metering.baselines.days import DayAverage

UNITS, DAYS, QUARTERS = 5, 9, 28
rules = st.none() | st.builds(
    SameDay, kind=st.sampled_from(Adjust), quarters=st.integers(1, 12), gap=st.integers(4, 8), cap=st.floats(0, 0.5)
)
methods: st.SearchStrategy[DayAverage] = st.one_of(
    st.builds(
        lambda size, pick, rule: XofY(*size, pick, rule),
        st.sampled_from([(1, 1), (1, 5), (3, 5), (4, 4), (5, 7), (2, 6), (7, 9)]),
        st.sampled_from(Pick),
        rules,
    ),
    st.builds(AllDays, least=st.integers(1, 3), most=st.integers(3, 9), adjustment=rules),
    st.builds(Rolling, st.floats(0, 0.99), least=st.integers(1, 3), most=st.integers(3, 9), adjustment=rules),
)

# How long a machine takes is no matter of these laws.
CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def metered(draw: st.DrawFn, shape: tuple[int, ...], gaps: bool) -> Floats:
    """Powers with ties, zeros and gaps, as float32 reads."""
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    kind = draw(st.integers(0, 3))
    if kind == 0:
        values = rng.integers(-2, 3, shape).astype(np.float32)  # many ties
    elif kind == 1:
        values = np.zeros(shape, dtype=np.float32)
    else:
        values = rng.normal(0 if kind == 2 else -5, 3, shape).astype(np.float32)
    if gaps:
        values[rng.random(shape) < draw(st.sampled_from([0.0, 0.002, 0.02]))] = np.nan
    return values


@pytest.mark.spec("SET-01")
@settings(CALM, max_examples=300)
@given(
    metered((DAYS, UNITS, QUARTERS), gaps=True),
    metered((UNITS, QUARTERS), gaps=True),
    arrays(np.bool_, (DAYS, UNITS)),
    st.tuples(st.integers(0, QUARTERS - 1), st.integers(1, 8)),
    st.integers(-4, QUARTERS),
    methods,
)
def test_many_units_at_once_are_one_unit_many_times_to_the_last_bit(
    history: Floats, today: Floats, eligible: Floats, sold: tuple[int, int], notice: int, method: DayAverage
) -> None:
    event = np.isin(np.arange(QUARTERS), range(sold[0], sold[0] + sold[1]))
    many = day_averages(history, eligible, event, today, notice, method)
    for i in range(UNITS):
        past, now = history[:, i].astype(np.float64), today[i].astype(np.float64)
        one = day_average(past, eligible[:, i], event, now, notice, method)
        assert np.array_equal(many.values[i], one.values, equal_nan=True)
        assert tuple(np.flatnonzero(many.used[:, i])) == one.days
        assert many.enough[i] == one.enough
        assert np.array_equal(many.adjustment[i], np.nan if one.adjustment is None else one.adjustment, equal_nan=True)


def test_an_infinite_reading_before_the_event_adjusts_no_unit() -> None:
    method, history = AllDays(1, 3, SameDay(Adjust.ADDITIVE, 8)), np.ones((3, 2, QUARTERS))
    event, today = np.arange(QUARTERS) == 20, np.full((2, QUARTERS), 1.1)
    today[0, 10] = np.inf
    many = day_averages(history, np.ones(3, dtype=np.bool_), event, today, 18, method)
    assert np.isnan(many.adjustment[0]) and many.adjustment[1] == pytest.approx(0.1)
    assert (
        many.values[0] == day_average(history[:, 0], np.ones(3, np.bool_), event, today[0], 18, method).values
    ).all()


def plain_x_of_y(history: list[list[float]], event: range, x: int, y: int, pick: Pick) -> list[float]:
    """Equations 1 and 2 written out."""
    whole = [d for d, day in enumerate(history) if not any(math.isnan(power) for power in day)][-y:]
    power = {d: sum(history[d][t] for t in event) / len(event) for d in whole}
    own = 1 if sum(power.values()) > 0 else -1
    ranked = sorted(whole, key=lambda d: (own * power[d], d), reverse=True)
    drop = len(ranked) - x
    skip = {Pick.HIGH: 0, Pick.MID: math.ceil(drop / 2), Pick.LOW: drop}[pick]
    kept = ranked[skip : skip + x]
    return [sum(history[d][t] for d in kept) / x for t in range(len(history[0]))]


@pytest.mark.spec("SET-01")
@settings(CALM, max_examples=100)
@given(metered((DAYS, QUARTERS), gaps=True), st.sampled_from(Pick), st.sampled_from([(1, 5), (3, 5), (5, 7), (2, 6)]))
def test_high_mid_and_low_are_the_formula_written_out(history: Floats, pick: Pick, size: tuple[int, int]) -> None:
    history = history.astype(np.float64)
    event = np.isin(np.arange(QUARTERS), range(10, 16))
    made = day_average(history, np.ones(DAYS, dtype=np.bool_), event, None, 0, XofY(*size, pick))
    if made.enough:
        plain = plain_x_of_y(history.tolist(), range(10, 16), *size, pick)
        assert made.values == pytest.approx(plain, rel=1e-9, abs=1e-9)


def test_shapes_that_do_not_fit_are_named() -> None:
    history, event = np.zeros((3, 2, 8)), np.arange(8) == 4
    with pytest.raises(CoflexError, match="fit"):
        day_averages(history, np.ones(2, dtype=np.bool_), event, None, 0, XofY(1, 2))
    with pytest.raises(CoflexError, match="event"):
        day_averages(history, np.ones(3, dtype=np.bool_), np.zeros(8, dtype=np.bool_), None, 0, XofY(1, 2))
