"""Delivered energy: exact, one-sided, and the same for a unit and its mirror."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coflex.domain.errors import CoflexError
from coflex.domain.quantity import Direction
from coflex.metering.delivery import delivered_kwh, deliveries_kwh, energies_kwh, energy_kwh

kilowatts = st.floats(-1e6, 1e6, allow_subnormal=False)
energies = st.decimals(-(10**6), 10**6, places=3)
directions = st.sampled_from(Direction)


@pytest.mark.parametrize(
    ("power_kw", "expected"),
    [
        (100.0, "25.000"),
        (-0.1, "-0.025"),
        (0.002, "0.000"),
        (-0.001, "0.000"),
        (0.006, "0.002"),
        (1 / 3, "0.083"),
        (123.456, "30.864"),
    ],
)
def test_a_quarter_hour_of_power_is_energy_to_the_watt_hour(power_kw: float, expected: str) -> None:
    assert str(energy_kwh(power_kw)) == expected


@given(kilowatts)
def test_rounding_moves_an_energy_by_half_a_watt_hour_at_most_and_keeps_the_mirror(power_kw: float) -> None:
    assert abs(energy_kwh(power_kw) - Decimal(power_kw) / 4) <= Decimal("0.0005000001")
    assert energy_kwh(-power_kw) == -energy_kwh(power_kw)


@given(directions, energies)
def test_nothing_is_delivered_when_the_meter_shows_the_baseline(direction: Direction, energy: Decimal) -> None:
    assert delivered_kwh(direction, energy, energy) == 0


@given(directions, energies, energies)
def test_a_change_is_delivered_in_exactly_one_direction(
    direction: Direction, baseline: Decimal, measured: Decimal
) -> None:
    here = delivered_kwh(direction, baseline, measured)
    there = delivered_kwh(direction.opposite, baseline, measured)
    assert min(here, there) == 0
    assert here - there == direction.sign * (measured - baseline)


@pytest.mark.spec("SET-02")
def test_a_load_that_draws_less_delivers_up_and_a_generator_that_feeds_less_delivers_down() -> None:
    assert delivered_kwh(Direction.UP, Decimal("-40"), Decimal("-24.5")) == Decimal("15.5")
    assert delivered_kwh(Direction.DOWN, Decimal("30"), Decimal("10")) == 20
    assert delivered_kwh(Direction.UP, Decimal("30"), Decimal("10")) == 0


@given(st.lists(st.tuples(kilowatts, kilowatts), min_size=1, max_size=8), directions)
def test_a_row_of_quarters_is_each_quarter_by_itself(pairs: list[tuple[float, float]], direction: Direction) -> None:
    baseline, measured = np.array(pairs).T
    expected = tuple(delivered_kwh(direction, energy_kwh(b), energy_kwh(m)) for b, m in pairs)
    assert deliveries_kwh(direction, baseline, measured) == expected
    assert energies_kwh(baseline) == tuple(energy_kwh(b) for b, _ in pairs)


@pytest.mark.parametrize("power_kw", [float("nan"), float("inf")])
def test_a_missing_power_has_no_energy(power_kw: float) -> None:
    with pytest.raises(CoflexError, match="Substitute"):
        energy_kwh(power_kw)
