"""Laws of the simulated TSO's requests."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import date
from decimal import Decimal
from zoneinfo import ZoneInfo

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from coflex.domain.product import Product, QuantityKind
from coflex.domain.quantity import Direction
from coflex.domain.time import Axis, delivery_day
from coflex.domain.unit import Scope
from coflex.process.ports import TsoSettings
from coflex.simulation.tso import SimulatedTso

ROME = ZoneInfo("Europe/Rome")
SETTINGS = TsoSettings(up_mw=6.0, down_mw=4.0, price_limit_eur_mwh=Decimal("150.00"))
PRODUCT = Product(
    id="mfrr",
    scope=Scope.GLOBAL,
    kind=QuantityKind.ACTIVE_ENERGY,
    directions=(Direction.UP, Direction.DOWN),
    resolution_s=900,
    tick_kw=1,
    min_quantity_kw=1,
    full_activation_time_s=750,
    price_cap_eur_mwh=Decimal(3000),
    divisible=True,
    symmetric=False,
    tolerance=Decimal("0.1"),
    penalty_share=Decimal("0.5"),
)
days = st.dates(date(2016, 1, 1), date(2016, 12, 31))


def signed(tso: SimulatedTso, number: int, horizon: Axis, product: Product = PRODUCT) -> np.ndarray:
    out = np.zeros(len(horizon))
    for request in tso.requests(f"global-{number}", number, horizon, product):
        out[horizon.position(request.start)] += request.direction.sign * request.asked_kw
    return out


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10_000), st.dates(date(2016, 1, 1), date(2016, 12, 31)), st.integers(1, 6), st.sampled_from([1, 100])
)
def test_requests_stay_below_the_peak_and_never_ask_both_ways_at_once(
    seed: int, day: date, number: int, tick: int
) -> None:
    horizon = delivery_day(day, ROME)
    traded = replace(PRODUCT, tick_kw=tick, min_quantity_kw=tick)
    requests = SimulatedTso(SETTINGS, seed, ROME).requests(f"global-{number}", number, horizon, traded)
    assert max(Counter(request.start for request in requests).values()) == 1
    for request in requests:
        peak = 6000 if request.direction is Direction.UP else 4000
        assert 0 < request.asked_kw <= peak
        assert request.asked_kw % tick == 0
        assert (request.netted_kw, request.price_limit_eur_mwh) == (0, Decimal("150.00"))
        assert (request.session, request.product, request.buyer) == (f"global-{number}", "mfrr", "tso")


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_the_day_asks_down_around_noon_and_up_in_the_evening_and_rests_in_between(seed: int) -> None:
    horizon = delivery_day(date(2016, 7, 1), ROME)
    need = signed(SimulatedTso(SETTINGS, seed, ROME), 1, horizon)
    hour = np.array([instant.astimezone(ROME).hour for instant in horizon])
    assert need.min() < -2000 < 3000 < need.max()
    assert 11 <= hour[need.argmin()] <= 14
    assert 18 <= hour[need.argmax()] <= 20
    assert (need == 0).sum() >= 20
    assert np.abs(np.diff(need)).max() < 0.25 * 6000


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5))
def test_a_later_session_revises_the_day_a_little(seed: int, number: int) -> None:
    horizon = delivery_day(date(2016, 7, 1), ROME)
    tso = SimulatedTso(SETTINGS, seed, ROME)
    first, second = signed(tso, number, horizon), signed(tso, number + 1, horizon)
    assert 0 < np.abs(first - second).max() < 0.5 * 6000
    assert np.corrcoef(first, second)[0, 1] > 0.9


def test_the_same_session_asks_the_same_over_any_part_of_the_day() -> None:
    horizon = delivery_day(date(2016, 10, 30), ROME)
    part = horizon.window(horizon[16], horizon.end)
    whole = signed(SimulatedTso(SETTINGS, 3, ROME), 2, horizon)
    np.testing.assert_array_equal(signed(SimulatedTso(SETTINGS, 3, ROME), 2, part), whole[16:])
    assert (whole != signed(SimulatedTso(SETTINGS, 4, ROME), 2, horizon)).any()


def test_a_direction_that_the_product_does_not_trade_is_not_asked_for() -> None:
    horizon = delivery_day(date(2016, 7, 1), ROME)
    need = signed(SimulatedTso(SETTINGS, 3, ROME), 1, horizon, replace(PRODUCT, directions=(Direction.UP,)))
    assert need.min() == 0 < need.max()
