"""Laws of the simulated providers: what they plan and what they offer."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coflex.domain.errors import CoflexError
from coflex.domain.offer import Offer
from coflex.domain.product import Product, QuantityKind
from coflex.domain.quantity import Direction
from coflex.domain.series import Series
from coflex.domain.time import Axis, delivery_day
from coflex.domain.unit import Group, Scope, Technology, Unit
from coflex.process.ports import SessionCall
from coflex.simulation.providers import PRICES, SimulatedProviders, nominate

ROME = ZoneInfo("Europe/Rome")
BOTH = (Direction.UP, Direction.DOWN)


def unit(name: str, technology: Technology, up_kw: int = 100, down_kw: int = 100) -> Unit:
    return Unit(
        id=name,
        category="SGU",
        technology=technology,
        connection_point=f"P-{name}",
        element=f"E-{name}",
        provider=f"sp-{int(name[1:]) % 3}",
        owner="owner",
        balance_responsible_party="brp",
        up_kw=up_kw,
        down_kw=down_kw,
        tan_phi=0.0,
        preparation_period_s=0,
        ramping_period_s=300,
        full_activation_time_s=900,
        deactivation_period_s=300,
        min_quantity_kw=1,
        max_quantity_kw=max(up_kw, down_kw),
        min_duration_s=900,
        max_duration_s=86400,
        recovery_time_s=0,
    )


def product(scope: Scope, tick_kw: int = 1, min_quantity_kw: int = 1, cap: str = "3000") -> Product:
    return Product(
        id=f"{scope}-energy",
        scope=scope,
        kind=QuantityKind.ACTIVE_ENERGY,
        directions=BOTH,
        resolution_s=900,
        tick_kw=tick_kw,
        min_quantity_kw=min_quantity_kw,
        full_activation_time_s=900,
        price_cap_eur_mwh=Decimal(cap),
        divisible=True,
        symmetric=False,
        tolerance=Decimal("0.1"),
        penalty_share=Decimal("0.5"),
    )


def call(
    scope: Scope, count: int = 40, seed: int = 0, traded: Product | None = None, day: date = date(2016, 10, 30)
) -> SessionCall:
    """A session over a day of 100 quarter-hours with random units, availability, holdings and energy limits."""
    chance = np.random.default_rng(seed)
    technologies = list(Technology)
    units = tuple(unit(f"u{i:03}", technologies[i % len(technologies)]) for i in range(count))
    horizon = delivery_day(day, ROME)
    shape = (count, len(horizon))
    groups = tuple(
        Group(f"g{k}", f"sp-{k}", Scope.GLOBAL, "global-energy", "A", tuple(u.id for u in units[k::3]), "brp")
        for k in range(3)
    )
    energy = np.where(chance.random(count) < 0.3, chance.uniform(0, 300, count), np.inf)
    opens = datetime.fromisoformat("2016-10-29T06:00+00:00")
    return SessionCall(
        session=f"{scope}-1",
        scope=scope,
        product=traded or product(scope),
        horizon=horizon,
        firm=Axis(horizon.start, min(16, len(horizon))),
        opens=opens,
        closes=opens + timedelta(hours=2),
        units=units,
        groups=groups,
        up_kw=chance.uniform(-5, 110, shape).clip(0, 100),
        down_kw=chance.uniform(-60, 110, shape).clip(0, 100),
        held=chance.random(shape) < 0.3,
        energy_up_kwh=energy,
        energy_down_kwh=energy[::-1].copy(),
    )


def shuffled(given_call: SessionCall, seed: int) -> SessionCall:
    order = np.random.default_rng(seed).permutation(len(given_call.units))
    return replace(
        given_call,
        units=tuple(given_call.units[i] for i in order),
        groups=given_call.groups[::-1],
        up_kw=given_call.up_kw[order],
        down_kw=given_call.down_kw[order],
        held=given_call.held[order],
        energy_up_kwh=given_call.energy_up_kwh[order],
        energy_down_kwh=given_call.energy_down_kwh[order],
    )


def offered(offers: tuple[Offer, ...]) -> dict[tuple[str, Direction, datetime], int]:
    """kW offered by each unit or group, direction and quarter-hour, all steps together."""
    total: dict[tuple[str, Direction, datetime], int] = defaultdict(int)
    for offer in offers:
        for step in offer.steps:
            for i, kw in enumerate(step.quantity_kw):
                total[offer.unit or offer.group or "", offer.direction, step.start + i * timedelta(minutes=15)] += kw
    return total


def free(asked: SessionCall, direction: Direction) -> np.ndarray:
    power = asked.up_kw if direction is Direction.UP else asked.down_kw
    return np.where(asked.held, 0, np.floor(power)).astype(int)


seeds = st.integers(0, 10_000)
scopes = st.sampled_from(list(Scope))


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_a_unit_offers_no_more_than_is_available_and_nothing_where_it_is_held(seed: int) -> None:
    asked = call(Scope.LOCAL, seed=seed)
    place = {u.id: i for i, u in enumerate(asked.units)}
    total = offered(SimulatedProviders(seed, ROME).offers(asked))
    assert total
    for (name, direction, start), kw in total.items():
        i, t = place[name], asked.horizon.position(start)
        assert 0 <= kw <= free(asked, direction)[i, t]
        assert kw == 0 or not asked.held[i, t]


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_a_group_offers_the_sum_of_its_free_units_and_of_those_with_little_energy_while_it_lasts(seed: int) -> None:
    asked = call(Scope.GLOBAL, seed=seed)
    offers = SimulatedProviders(seed, ROME).offers(asked)
    total = offered(offers)
    assert {offer.group for offer in offers} == {"g0", "g1", "g2"}
    for k, group in enumerate(asked.groups):
        for direction in BOTH:
            energy = asked.energy_up_kwh if direction is Direction.UP else asked.energy_down_kwh
            least = (free(asked, direction) * np.isinf(energy)[:, None])[k::3].sum(axis=0)
            most = free(asked, direction)[k::3].sum(axis=0)
            for start, low, high in zip(asked.horizon, least, most, strict=True):
                assert low <= total.get((group.id, direction, start), 0) <= high


@settings(max_examples=25, deadline=None)
@given(scopes, seeds, seeds)
def test_offers_are_the_same_whatever_the_order_of_the_units(scope: Scope, seed: int, order: int) -> None:
    asked = call(scope, seed=seed)
    providers = SimulatedProviders(seed, ROME)
    assert providers.offers(asked) == providers.offers(shuffled(asked, order))


def test_offers_are_the_same_under_every_hash_seed() -> None:
    program = (
        "import sys, hashlib; sys.path[:0] = sys.argv[1:]; import test_providers as t; "
        "made = [t.SimulatedProviders(7, t.ROME).offers(t.call(s)) for s in t.Scope]; "
        "print(hashlib.sha256(repr(made).encode()).hexdigest())"
    )
    paths = [os.path.dirname(__file__), *(p for p in sys.path if p.endswith("src"))]
    prints = {
        subprocess.run(
            [sys.executable, "-c", program, *paths],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(prints) == 1


@settings(max_examples=25, deadline=None)
@given(scopes, seeds, st.sampled_from([1, 10]), st.sampled_from([1, 50]), st.sampled_from(["3000", "65.00"]))
def test_every_offer_is_well_formed(scope: Scope, seed: int, tick: int, least: int, cap: str) -> None:
    traded = product(scope, tick, least, cap)
    asked = call(scope, seed=seed, traded=traded)
    offers = SimulatedProviders(seed, ROME).offers(asked)
    assert [offer.receipt for offer in offers] == list(range(1, len(offers) + 1))
    assert len({offer.id for offer in offers}) == len(offers)
    assert [offer.received_at for offer in offers] == sorted(offer.received_at for offer in offers)
    for offer in offers:
        assert (offer.unit is None) != (offer.group is None)
        assert asked.opens <= offer.received_at < asked.closes
        assert [step.number for step in offer.steps] == list(range(1, len(offer.steps) + 1))
        prices = [step.price_eur_mwh for step in offer.steps]
        assert prices == sorted(prices)
        assert all(Decimal(0) < price <= traded.price_cap_eur_mwh for price in prices)
        assert all(price == round(price, 2) for price in prices)
        for step in offer.steps:
            assert step.quantity_kw[0] > 0 < step.quantity_kw[-1]
            assert all(kw >= 0 and kw % tick == 0 for kw in step.quantity_kw)
        assert all(kw == 0 or kw >= max(least, offer.min_quantity_kw) for kw in offered((offer,)).values())


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_a_unit_with_little_energy_tells_its_limit_which_is_never_above_what_it_has(seed: int) -> None:
    asked = call(Scope.LOCAL, seed=seed)
    energy = {Direction.UP: asked.energy_up_kwh, Direction.DOWN: asked.energy_down_kwh}
    place = {u.id: i for i, u in enumerate(asked.units)}
    for offer in SimulatedProviders(seed, ROME).offers(asked):
        left = energy[offer.direction][place[offer.unit]]
        assert (offer.energy_limit_kwh is not None) == bool(np.isfinite(left))
        assert offer.energy_limit_kwh is None or 1 <= offer.energy_limit_kwh <= left


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_a_group_promises_no_more_than_the_energy_of_its_units_lasts_for(seed: int) -> None:
    asked = call(Scope.GLOBAL, seed=seed)
    place = {u.id: i for i, u in enumerate(asked.units)}
    groups = {group.id: group for group in asked.groups}
    for offer in SimulatedProviders(seed, ROME).offers(asked):
        up = offer.direction is Direction.UP
        rows = [place[name] for name in groups[offer.group].units]
        energy = (asked.energy_up_kwh if up else asked.energy_down_kwh)[rows]
        free = np.where(asked.held, 0, asked.up_kw if up else asked.down_kw)[rows]
        kw = offered((offer,))
        total = np.array([kw.get((offer.group, offer.direction, start), 0) for start in asked.horizon])
        assert total.any()
        beyond = np.maximum(total - np.floor(free[np.isinf(energy)]).sum(axis=0), 0).sum() * asked.horizon.hours
        assert beyond <= energy[np.isfinite(energy)].sum() + 1e-6


def test_prices_lie_in_the_range_of_the_technology_and_hold_over_sessions() -> None:
    assert set(PRICES) == {(technology, direction) for technology in Technology for direction in BOTH}
    asked = call(Scope.LOCAL, 90)
    technology = {u.id: u.technology for u in asked.units}
    first = SimulatedProviders(1, ROME).offers(asked)
    later = SimulatedProviders(1, ROME).offers(replace(asked, session="local-2", up_kw=asked.up_kw / 2))
    price = {(offer.unit, offer.direction): offer.steps[0].price_eur_mwh for offer in later}
    for offer in first:
        low, high = PRICES[technology[offer.unit], offer.direction]
        assert low <= offer.steps[0].price_eur_mwh <= high
        assert price.get((offer.unit, offer.direction), offer.steps[0].price_eur_mwh) == offer.steps[0].price_eur_mwh
        for cheap, dear in zip(offer.steps, offer.steps[1:], strict=False):
            assert Decimal("1.09") < dear.price_eur_mwh / cheap.price_eur_mwh < Decimal("1.26")
    other = SimulatedProviders(2, ROME).offers(asked)
    assert [o.steps[0].price_eur_mwh for o in other] != [o.steps[0].price_eur_mwh for o in first]


def test_a_group_asks_the_weighted_mean_of_its_units_and_five_percent_more() -> None:
    units = (unit("u000", Technology.BATTERY), unit("u001", Technology.CHP))
    wide = call(Scope.LOCAL, 2)
    ones = np.ones_like(wide.up_kw)
    asked = replace(
        wide,
        units=units,
        groups=(Group("g", "sp-0", Scope.GLOBAL, "global-energy", "", ("u001", "u000"), "brp"),),
        up_kw=np.array([[30.0], [90.0]]) * ones,
        held=np.zeros_like(wide.held),
        energy_up_kwh=np.full(2, np.inf),
    )
    providers = SimulatedProviders(5)
    battery, chp = (
        next(o for o in providers.offers(asked) if (o.unit, o.direction) == (name, Direction.UP)).steps[0].price_eur_mwh
        for name in ("u000", "u001")
    )
    offers = providers.offers(replace(asked, session="global-1", scope=Scope.GLOBAL, product=product(Scope.GLOBAL)))
    up = next(offer for offer in offers if offer.direction is Direction.UP)
    assert up.steps[0].price_eur_mwh == ((battery * 30 + chp * 90) / 120 * Decimal("1.05")).quantize(Decimal("0.01"))
    assert 2 <= len(up.steps) <= 3
    assert up.provider == "sp-0"


def test_some_industrial_loads_offer_blocks_of_one_to_two_hours_in_daytime() -> None:
    wide = call(Scope.LOCAL, 300)
    units = tuple(replace(u, technology=Technology.INDUSTRIAL_LOAD) for u in wide.units)
    asked = replace(wide, units=units, held=np.zeros_like(wide.held), energy_up_kwh=np.full(300, np.inf))
    offers = [o for o in SimulatedProviders(3, ROME).offers(asked) if o.direction is Direction.UP]
    blocks = [offer for offer in offers if offer.block]
    assert 10 <= len(blocks) <= 32
    for block in blocks:
        (step,) = block.steps
        local = step.start.astimezone(ROME)
        assert 4 <= len(step.quantity_kw) <= 8
        assert len(set(step.quantity_kw)) == 1
        assert 7 <= local.hour < 19
    assert any(offer.min_quantity_kw for offer in offers)
    assert 20 <= sum(offer.local_only for offer in offers) <= 70


def test_a_block_fits_into_the_energy_its_unit_has() -> None:
    wide = call(Scope.LOCAL, 300)
    units = tuple(replace(u, technology=Technology.INDUSTRIAL_LOAD) for u in wide.units)
    asked = replace(wide, units=units, held=np.zeros_like(wide.held), energy_up_kwh=np.full(300, 20.0))
    blocks = [offer for offer in SimulatedProviders(3, ROME).offers(asked) if offer.block]
    assert blocks
    assert all(sum(block.steps[0].quantity_kw) / 4 <= 20 for block in blocks)


def test_some_batteries_offer_the_morning_or_the_evening() -> None:
    wide = call(Scope.LOCAL, 60)
    units = tuple(replace(u, technology=Technology.BATTERY) for u in wide.units)
    labelled = defaultdict(list)
    for offer in SimulatedProviders(3, ROME).offers(replace(wide, units=units)):
        if offer.exclusive:
            labelled[offer.exclusive].append(offer)
    assert 8 <= len(labelled) <= 60
    for label, offers in labelled.items():
        assert sorted(offer.id for offer in offers) == [f"{label}:1", f"{label}:2"]
        assert len({offer.provider for offer in offers}) == 1
        morning = {start.astimezone(ROME).hour < 12 for (_, _, start), kw in offered((offers[0],)).items() if kw}
        evening = {start.astimezone(ROME).hour < 12 for (_, _, start), kw in offered((offers[1],)).items() if kw}
        assert {*morning, *evening} == {True, False}
        assert len(morning) == len(evening) == 1


@pytest.mark.parametrize(
    ("technology", "plan", "up", "down"),
    [
        (Technology.PV, 40.7, 0, 40),
        (Technology.PV, -0.2, 0, 0),
        (Technology.HYDRO, 40.7, 0, 40),
        (Technology.CHP, 30.5, 49, 30),
        (Technology.CHP, 120.0, 0, 80),
        (Technology.BATTERY, 0.0, 60, 80),
        (Technology.POWER_PLANT, 500.0, 60, 80),
        (Technology.HEAT_PUMP, -25.5, 25, 54),
        (Technology.EV_CHARGING, -90.0, 60, 0),
        (Technology.WATER_PUMP, 0.0, 0, 80),
        (Technology.INDUSTRIAL_LOAD, -80.0, 60, 0),
    ],
)
def test_what_a_unit_can_change_follows_from_its_plan_and_its_registered_power(
    technology: Technology, plan: float, up: int, down: int
) -> None:
    axis = delivery_day(date(2016, 3, 27), ROME)
    forecast = Series(("u001", "u000"), axis, np.vstack([np.full(92, 7.0), np.full(92, plan)]))
    made = nominate(forecast, [unit("u000", technology, 60, 80)])
    assert made.schedule.names == ("u000",)
    np.testing.assert_array_equal(made.schedule.values, np.full((1, 92), plan))
    np.testing.assert_array_equal(made.up_kw, np.full((1, 92), up))
    np.testing.assert_array_equal(made.down_kw, np.full((1, 92), down))


def test_a_unit_without_a_forecast_is_named() -> None:
    axis = delivery_day(date(2016, 3, 27), ROME)
    with pytest.raises(CoflexError, match="u009"):
        nominate(Series(("u000",), axis, np.zeros((1, 92))), [unit("u009", Technology.PV)])
