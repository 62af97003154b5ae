"""Laws and examples of the simulated field."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from datetime import date, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coflex.domain.activation import Hop, SetPoint
from coflex.domain.errors import CoflexError, OutsideAxis, SoldTwice
from coflex.domain.quantity import Direction
from coflex.domain.series import Series
from coflex.domain.time import QUARTER, Axis, delivery_day
from coflex.domain.unit import Technology, Unit
from coflex.process.ports import DeviceSettings
from coflex.simulation.devices import SimulatedDevices

DAY = delivery_day(date(2016, 10, 30), ZoneInfo("Europe/Rome"))
SOUND = DeviceSettings(failure_share=0.0, noise_share=0.0)
GENERATORS = {Technology.PV, Technology.HYDRO, Technology.CHP}
LOADS = {Technology.EV_CHARGING, Technology.HEAT_PUMP, Technology.WATER_PUMP, Technology.INDUSTRIAL_LOAD}


minutes = st.integers(0, 15)


def unit(name: str, technology: Technology, preparation_min: int = 0, ramp_min: int = 5) -> Unit:
    return Unit(
        id=name,
        category="SGU",
        technology=technology,
        connection_point=f"P-{name}",
        element=f"E-{name}",
        provider="sp",
        owner="owner",
        balance_responsible_party="brp",
        up_kw=100,
        down_kw=100,
        tan_phi=0.0,
        preparation_period_s=preparation_min * 60,
        ramping_period_s=ramp_min * 60,
        full_activation_time_s=(preparation_min + ramp_min) * 60,
        deactivation_period_s=300,
        min_quantity_kw=1,
        max_quantity_kw=100,
        min_duration_s=900,
        max_duration_s=86400,
        recovery_time_s=0,
    )


def points(name: str, orders: dict[int, int]) -> list[SetPoint]:
    """Set points of one unit: signed change in kW by quarter-hour of the day."""
    return [
        SetPoint(
            unit=name,
            start=DAY[period],
            buyer="dso",
            session="local-1",
            direction=Direction.UP if change > 0 else Direction.DOWN,
            awarded_kw=abs(change),
            ordered_kw=abs(change),
            baseline_kw=0.0,
            power_kw=float(change),
            acknowledged=Hop.ENERGY_MANAGEMENT_SYSTEM,
        )
        for period, change in orders.items()
    ]


def flat(units: Iterable[Unit], power_kw: float = 0.0) -> Series:
    names = tuple(u.id for u in units)
    return Series(names, DAY, np.full((len(names), len(DAY)), power_kw))


def field(count: int, seed: int) -> tuple[list[Unit], Series, list[SetPoint]]:
    """Random units of every technology with plausible baselines and random orders."""
    chance = np.random.default_rng(seed)
    kinds = list(Technology)
    units = [
        replace(
            unit(f"u{i:03}", kinds[i % len(kinds)], int(chance.integers(0, 30)), int(chance.integers(0, 16))),
            deactivation_period_s=int(chance.integers(0, 1800)),
            energy_up_kwh=int(chance.integers(0, 100)) if i % 2 else None,
            energy_down_kwh=int(chance.integers(0, 100)) if i % 2 else None,
        )
        for i in range(count)
    ]
    sign = np.array([1.0 if u.technology in GENERATORS else -1.0 if u.technology in LOADS else 0.0 for u in units])
    baseline = Series(tuple(u.id for u in units), DAY, sign[:, None] * chance.uniform(0, 100, (count, len(DAY))))
    orders = np.where(chance.random((count, len(DAY))) < 0.4, chance.integers(-100, 101, (count, len(DAY))), 0)
    told = [
        point
        for u, row in zip(units, orders, strict=True)
        for point in points(u.id, {t: int(kw) for t, kw in enumerate(row) if kw})
    ]
    return units, baseline, told


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 1))
def test_without_orders_the_truth_is_the_baseline(seed: int, failing: float) -> None:
    units, baseline, _ = field(20, seed)
    devices = SimulatedDevices(units, DeviceSettings(failing, 0.0), seed, DAY)
    np.testing.assert_array_equal(devices.respond([], baseline).values, baseline.values)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 1))
def test_what_flows_stays_inside_the_limits_of_physics(seed: int, failing: float) -> None:
    units, baseline, told = field(27, seed)
    truth = SimulatedDevices(units, DeviceSettings(failing, 0.0), seed, DAY).respond(told, baseline).values
    near = 1e-9
    for u, power, before in zip(units, truth, baseline.values, strict=True):
        change = power - before
        assert np.abs(change).max() <= 100 + near
        if u.technology in GENERATORS:
            assert power.min() >= -near
        if u.technology in (Technology.PV, Technology.HYDRO):
            assert change.max() <= near
        if u.technology in LOADS:
            assert power.max() <= near
        given_kwh = np.cumsum(change) / 4
        if u.energy_up_kwh is not None:
            assert given_kwh.max() <= u.energy_up_kwh + near
        if u.energy_down_kwh is not None:
            assert given_kwh.min() >= -u.energy_down_kwh - near


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 15), st.integers(0, 15), st.integers(1, 100), st.sampled_from(list(Direction)), st.integers(1, 95)
)
def test_a_unit_that_is_ready_in_time_delivers_its_whole_order_and_one_that_is_late_misses_at_most_its_lateness(
    preparation: int, ramp: int, order: int, direction: Direction, period: int
) -> None:
    battery = unit("u", Technology.BATTERY, preparation, ramp)
    told = points("u", {period: direction.sign * order, period + 1: direction.sign * order})
    truth = SimulatedDevices([battery], SOUND, 1, DAY).respond(told, flat([battery])).values[0] * direction.sign
    late = max(0, preparation + ramp - 15)
    assert order * (15 - late) / 15 - 1e-9 <= truth[period] <= order + 1e-9
    assert truth[period + 1] == pytest.approx(order)
    if preparation + ramp <= 15:
        assert truth[period] == pytest.approx(order)


@pytest.mark.parametrize(
    ("preparation", "before", "during"),
    [
        # Ten minutes of ramp end with the start: 10, 20, ... 100 kW at the end of each minute before it.
        (5, 550 / 15, 100.0),
        # Ready only at the start: the same ten minutes fall into the quarter-hour, five at 100 kW follow.
        (15, 0.0, 1050 / 15),
        # Ready five minutes after the start.
        (20, 0.0, 550 / 15),
    ],
)
def test_the_ramp_of_one_order_is_the_one_drawn_by_hand(preparation: int, before: float, during: float) -> None:
    battery = unit("u", Technology.BATTERY, preparation, 10)
    truth = SimulatedDevices([battery], SOUND, 1, DAY).respond(points("u", {8: 100}), flat([battery])).values[0]
    assert truth[7] == pytest.approx(before)
    assert truth[8] == pytest.approx(during)
    # The return takes five minutes: 80, 60, 40, 20, 0 kW.
    assert truth[9] == pytest.approx(200 / 15)
    assert not truth[10:].any()
    assert not truth[:7].any()


def test_an_order_that_turns_around_is_held_to_its_end() -> None:
    battery = unit("u", Technology.BATTERY, 0, 1)
    truth = SimulatedDevices([battery], SOUND, 1, DAY).respond(points("u", {8: 90, 9: -90}), flat([battery])).values[0]
    assert truth[8] == pytest.approx(90)
    assert -90 <= truth[9] < -60


def test_a_battery_stops_when_its_energy_is_given() -> None:
    battery = replace(unit("u", Technology.BATTERY), energy_up_kwh=40, energy_down_kwh=0)
    truth = SimulatedDevices([battery], SOUND, 1, DAY).respond(
        points("u", dict.fromkeys(range(8, 16), 100)), flat([battery])
    )
    assert truth.values.sum() / 4 == pytest.approx(40)
    assert not truth.values[0, 10:].any()


@pytest.mark.spec("ACT-03")
@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_a_unit_that_fails_delivers_at_most_three_tenths_from_then_on_and_all_of_it_before(seed: int) -> None:
    units = [unit(f"u{i}", Technology.BATTERY) for i in range(4)]
    devices = SimulatedDevices(units, DeviceSettings(0.5, 0.0), seed, DAY)
    told = [point for u in units for point in points(u.id, dict.fromkeys(range(len(DAY)), -80))]
    truth = devices.respond(told, flat(units))
    failed = {failure.unit: failure for failure in devices.failures()}
    assert len(failed) == 2
    for u in units:
        delivered = -truth.row(u.id)
        first = DAY.position(failed[u.id].start) if u.id in failed else len(DAY)
        np.testing.assert_allclose(delivered[1:first], 80.0)
        assert (delivered[first:] <= 24 + 1e-9).all()
        if u.id in failed:
            np.testing.assert_allclose(delivered[max(first, 1) :], 80 * failed[u.id].remaining_share)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 99))
def test_failures_and_flows_do_not_depend_on_the_order_of_units_nor_of_set_points(seed: int, order: int) -> None:
    units, baseline, told = field(12, seed)
    chance = np.random.default_rng(order)
    places = chance.permutation(12)
    other = SimulatedDevices([units[i] for i in places], DeviceSettings(0.3, 0.0), seed, DAY)
    devices = SimulatedDevices(units, DeviceSettings(0.3, 0.0), seed, DAY)
    assert devices.failures() == other.failures()
    assert len(devices.failures()) == 4
    mixed = Series(tuple(baseline.names[i] for i in places), DAY, baseline.values[places])
    answer = other.respond([told[i] for i in chance.permutation(len(told))], mixed).values
    np.testing.assert_array_equal(answer, devices.respond(told, baseline).values[places])


def test_a_part_of_the_day_fails_from_the_same_instant_as_the_whole() -> None:
    battery = unit("u", Technology.BATTERY)
    devices = SimulatedDevices([battery], DeviceSettings(1.0, 0.0), 2, DAY)
    first = DAY.position(devices.failures()[0].start)
    for begin in (max(0, first - 3), min(first + 3, 96)):
        part = DAY.window(DAY[begin], DAY.end)
        told = points("u", dict.fromkeys(range(begin, len(DAY)), 80))
        truth = devices.respond(told, Series(("u",), part, np.zeros((1, len(part))))).values[0]
        assert (truth[1 : max(1, first - begin)] == 80).all()
        assert (truth[max(0, first - begin) :] <= 24).all()


def test_broken_promises_are_told() -> None:
    battery = unit("u", Technology.BATTERY)
    devices = SimulatedDevices([battery], SOUND, 1, DAY)
    with pytest.raises(SoldTwice, match="two set points"):
        devices.respond(points("u", {8: 10}) * 2, flat([battery]))
    with pytest.raises(CoflexError, match="Unit x has a set point but no baseline"):
        devices.respond(points("x", {8: 10}), flat([battery]))
    with pytest.raises(CoflexError, match="no unit x"):
        devices.respond([], flat([unit("x", Technology.BATTERY)]))
    with pytest.raises(OutsideAxis):
        late = Series(("u",), Axis(DAY.end, 4), np.zeros((1, 4)))
        devices.respond(points("u", {8: 10}), late)
    assert DAY.end - DAY.start == timedelta(hours=25) == 100 * QUARTER


def test_four_hundred_units_over_a_day_of_25_hours_take_less_than_a_second() -> None:
    units, baseline, told = field(400, 1)
    devices = SimulatedDevices(units, DeviceSettings(0.1, 0.0), 1, DAY)
    taken = []
    for _ in range(2):
        begun = time.perf_counter()
        assert len(devices.respond(told, baseline).names) == 400
        taken.append(time.perf_counter() - begun)
    assert min(taken) < 1.0
