"""Simulated devices: what really flows when units are told to change.

A simulation by the minute. The platform tells a unit its set point one quarter-hour ahead. The unit spends its
preparation period on it, then moves in a straight line; where the preparation leaves time it moves before the
quarter-hour, so that the change stands when it starts, else it arrives late by what is missing: preparation and
ramp less 15 minutes after the start, which is never more than the full activation time. The end of an order needs
no preparation: the unit returns from the end on, at the pace of its deactivation period.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from coflex.domain.activation import SetPoint
from coflex.domain.errors import CoflexError, SoldTwice
from coflex.domain.quantity import Bools, Floats, Ints
from coflex.domain.series import Series
from coflex.domain.time import QUARTER, Axis
from coflex.domain.unit import Technology, Unit
from coflex.process.ports import DeviceSettings
from coflex.simulation.providers import seeded

MINUTES = 15
LARGEST_REMAINDER = 0.3

_WEATHER = (Technology.PV, Technology.HYDRO)
_LOADS = (Technology.EV_CHARGING, Technology.HEAT_PUMP, Technology.WATER_PUMP, Technology.INDUSTRIAL_LOAD)


@dataclass(frozen=True, slots=True)
class Failure:
    """A unit that from `start` to the end of the day gives only `remaining_share` of what it is told."""

    unit: str
    start: datetime
    remaining_share: float


class SimulatedDevices:
    """The field of a case on one day. Implements `coflex.process.ports.Devices`.

    `day`: the quarter-hours of the delivery day. The settings' share of the units, rounded, fails, each from a
    quarter-hour of the day on; who and when depends on the seed, the day and the units alone, not on who is called.
    """

    def __init__(self, units: Sequence[Unit], settings: DeviceSettings, seed: int, day: Axis) -> None:
        self._units = {unit.id: unit for unit in units}
        self._failures = _draw_failures(sorted(self._units), settings.failure_share, seed, day)

    def failures(self) -> tuple[Failure, ...]:
        """Which unit fails from when, in the order of their ids."""
        return self._failures

    def respond(self, setpoints: Sequence[SetPoint], baseline: Series) -> Series:
        """Mean power of each unit of `baseline` in kW per quarter-hour, injection positive.

        `baseline`: what would flow without orders. PV and hydro stay between zero and their baseline, no generator
        withdraws, no load injects, no change exceeds the registered power, and the energy a unit has given, net,
        stays inside its registered energy. A unit never told anything keeps its baseline to the bit.
        Raises SoldTwice on two set points for one unit and quarter-hour, OutsideAxis on one outside the baseline,
        CoflexError on a unit that is not known.
        """
        units = self._known(baseline.names)
        orders = _orders(setpoints, baseline, units)
        target = _targets(np.maximum(orders, 0), np.maximum(-orders, 0), units)
        target -= _targets(np.maximum(-orders, 0), np.maximum(orders, 0), units)
        low, high = _bounds(units, baseline.values)
        change = _follow(target, self._remaining(baseline), low, high, units)
        mean = change.reshape(len(baseline.axis), MINUTES, len(units)).mean(axis=1).T
        return Series(baseline.names, baseline.axis, baseline.values + mean)

    def _known(self, names: Sequence[str]) -> tuple[Unit, ...]:
        missing = [name for name in names if name not in self._units]
        if missing:
            raise CoflexError(f"The field has no unit {', '.join(missing)}.", "Give it every unit of the case.")
        return tuple(self._units[name] for name in names)

    def _remaining(self, baseline: Series) -> Floats:
        """Share of the order each unit still gives, shape (periods, units)."""
        share = np.ones((len(baseline.axis), len(baseline.names)))
        place = {name: i for i, name in enumerate(baseline.names)}
        for failure in self._failures:
            if failure.unit in place:
                failed = -((baseline.axis.start - failure.start) // QUARTER)
                share[max(0, failed) :, place[failure.unit]] = failure.remaining_share
        return share


def _draw_failures(units: Sequence[str], share: float, seed: int, day: Axis) -> tuple[Failure, ...]:
    lots = {unit: seeded(seed, "failure", day.start.isoformat(), unit) for unit in units}
    rank = {unit: float(chance.random()) for unit, chance in lots.items()}
    failing = sorted(units, key=lambda unit: (rank[unit], unit))[: round(share * len(units))]
    return tuple(
        Failure(unit, day[int(lots[unit].integers(len(day)))], float(lots[unit].uniform(0.0, LARGEST_REMAINDER)))
        for unit in sorted(failing)
    )


def _orders(setpoints: Sequence[SetPoint], baseline: Series, units: Sequence[Unit]) -> Floats:
    """Change ordered, kW, up positive, shape (units, periods).

    What the weather drives holds the power it is told: it is lowered by what it truly makes above the set point.
    Every other unit changes its power by what was ordered.
    """
    orders = np.zeros(baseline.values.shape)
    place = {name: i for i, name in enumerate(baseline.names)}
    told: set[tuple[str, datetime]] = set()
    for point in setpoints:
        if point.unit not in place:
            raise CoflexError(f"Unit {point.unit} has a set point but no baseline.", "Give its baseline.")
        if (point.unit, point.start) in told:
            raise SoldTwice(f"Unit {point.unit} has two set points at {point.start.isoformat()}.", "Send one.")
        told.add((point.unit, point.start))
        u, t = place[point.unit], baseline.axis.position(point.start)
        change = float(point.direction.sign * point.ordered_kw)
        if change < 0 and units[u].technology in _WEATHER:
            change = min(0.0, point.power_kw - float(baseline.values[u, t]))
        orders[u, t] = change
    return orders


def _minutes(seconds: Sequence[int]) -> Ints:
    return -(-np.array(seconds, dtype=np.int64) // 60)


def _pace(units: Sequence[Unit], periods_s: Sequence[int]) -> Floats:
    """kW a minute when the registered power takes the given period; at least a minute."""
    registered = np.array([max(unit.up_kw, unit.down_kw) for unit in units], dtype=float)
    return registered / np.maximum(_minutes(periods_s), 1)


def _targets(orders: Floats, opposite: Floats, units: Sequence[Unit]) -> Floats:
    """What each unit heads for in one direction, kW unsigned, shape (minutes, units).

    Each step of the order counts from the minute the unit starts to move on it; the latest step that counts rules.
    A unit does not move early out of an order in the opposite direction.
    """
    count, periods = orders.shape
    before = np.hstack([np.zeros((count, 1)), orders[:, :-1]])
    against = np.hstack([np.zeros((count, 1)), opposite[:, :-1]]) > 0
    pace = np.maximum(_pace(units, [unit.ramping_period_s for unit in units]), 1e-9)[:, None]
    ramp = np.where(against, 0, np.ceil(np.maximum(orders - before, 0) / pace)).astype(np.int64)
    ready = _minutes([unit.preparation_period_s for unit in units])[:, None] - MINUTES
    shift = np.where(orders > before, np.maximum(ready, -ramp), 0)
    moves = np.clip(np.arange(periods) * MINUTES + shift, 0, periods * MINUTES)
    return _step_function(orders, moves, orders != before)


def _step_function(orders: Floats, moves: Ints, counts: Bools) -> Floats:
    """The order whose minute came last, at each minute, shape (minutes, units); zero before the first."""
    count, periods = orders.shape
    latest = np.zeros((periods * MINUTES + 1, count), dtype=np.int64)
    unit, period = np.nonzero(counts)
    np.maximum.at(latest, (moves[unit, period], unit), period + 1)
    latest = np.maximum.accumulate(latest, axis=0)[:-1]
    levels = np.vstack([np.zeros(count), orders.T])
    return np.take_along_axis(levels, latest, axis=0)


def _bounds(units: Sequence[Unit], baseline: Floats) -> tuple[Floats, Floats]:
    """Least and most change of power that physics allows, kW, shape (periods, units); zero is always inside."""
    registered_up = np.array([unit.up_kw for unit in units], dtype=float)
    registered_down = np.array([unit.down_kw for unit in units], dtype=float)
    weather = np.array([unit.technology in _WEATHER for unit in units], dtype=bool)
    chp = np.array([unit.technology is Technology.CHP for unit in units], dtype=bool)
    load = np.array([unit.technology in _LOADS for unit in units], dtype=bool)
    rated, power = np.maximum(registered_up, registered_down), baseline.T
    most = np.where(load, -power, np.where(chp, rated - power, registered_up))
    least = np.where(load, -rated - power, np.where(chp | weather, -power, -registered_down))
    high = np.clip(np.where(weather, 0.0, most), 0.0, registered_up)
    low = np.clip(least, -registered_down, 0.0)
    return low, high


def _follow(target: Floats, remaining: Floats, low: Floats, high: Floats, units: Sequence[Unit]) -> Floats:
    """Change of power at the end of each minute, kW, shape (minutes, units): the unit moves towards its target at
    its pace, then what fails, what physics bounds and what its energy allows is taken off."""
    ramp = _pace(units, [unit.ramping_period_s for unit in units])
    release = _pace(units, [unit.deactivation_period_s for unit in units])
    most = np.array([np.inf if unit.energy_up_kwh is None else unit.energy_up_kwh for unit in units])
    least = np.array([-np.inf if unit.energy_down_kwh is None else -unit.energy_down_kwh for unit in units])
    heading, given = np.zeros(len(units)), np.zeros(len(units))
    change = np.empty_like(target)
    for minute, wanted in enumerate(target):
        period = minute // MINUTES
        pace = np.where(np.abs(wanted) > np.abs(heading), ramp, release)
        heading = heading + np.clip(wanted - heading, -pace, pace)
        flow = np.clip(heading * remaining[period], low[period], high[period])
        flow = np.clip(flow, np.minimum((least - given) * 60, 0.0), np.maximum((most - given) * 60, 0.0))
        given = given + flow / 60
        change[minute] = flow
    return change
