"""Transfer of energy between balance responsible parties."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings

from coflex.domain.errors import Refused
from coflex.domain.quantity import Direction
from coflex.domain.reading import Quality
from coflex.domain.statement import Cause
from coflex.settlement.charges import settle
from coflex.settlement.inputs import Inputs
from coflex.settlement.transfer import adjustments
from support.settling import RULES, START, D, delivery, periods, settled_inputs

TWO = {"unit_brp": "brp-a", "provider_brp": "brp-b", "reference_eur_mwh": D(60)}


def moved(*deliveries: object) -> dict[str, Decimal]:
    return {one.party: one.energy_kwh for one in adjustments(settled_inputs(*deliveries), RULES)}  # type: ignore[arg-type]


@pytest.mark.spec("SET-04")
@settings(max_examples=25, deadline=None)
@given(periods())
def test_corrections_of_a_settlement_period_add_to_zero(inputs: Inputs) -> None:
    sums: dict[object, Decimal] = defaultdict(Decimal)
    for one in adjustments(inputs, RULES):
        assert one.energy_kwh != 0
        assert one.start.minute % 15 == 0
        sums[one.start] += one.energy_kwh
    assert all(total == 0 for total in sums.values())


@pytest.mark.spec("SET-04")
@pytest.mark.parametrize("direction", list(Direction))
def test_what_was_ordered_and_not_delivered_is_the_providers_imbalance(direction: Direction) -> None:
    sign = direction.sign
    one = delivery(direction=direction, measured_kwh=D(-40) + sign * 20, **TWO)
    assert moved(one) == {"brp-a": -sign * 20, "brp-b": -sign * 5, "dso": sign * 25}


@pytest.mark.spec("SET-04")
def test_the_units_party_is_left_as_if_nobody_had_called() -> None:
    # Its customer was to draw 40 kWh and drew 18: the perimeter is 22 kWh long, and loses just these again.
    assert moved(delivery(measured_kwh=D(-18), **TWO))["brp-a"] + (D(-18) - D(-40)) == 0


def test_the_provider_pays_the_supplier_for_what_it_sold_on_and_is_paid_for_what_it_laid_on_it() -> None:
    up = settle(settled_inputs(delivery(supplier="seller", **TWO)), RULES)
    (line,) = [one for one in up if one.cause is Cause.COMPENSATION]
    assert (line.seller, line.customer, line.amount_eur) == ("seller", "sp", D("1.5"))
    down = settle(settled_inputs(delivery(direction=Direction.DOWN, measured_kwh=D(-65), **TWO)), RULES)
    (line,) = [one for one in down if one.cause is Cause.COMPENSATION]
    assert (line.seller, line.customer, line.amount_eur) == ("brp-a", "sp", D("-1.5"))


def test_within_one_perimeter_and_without_a_reading_nothing_is_transferred() -> None:
    same = TWO | {"provider_brp": "brp-a"}
    assert moved(delivery(**same)) == {}
    assert all(one.cause is not Cause.COMPENSATION for one in settle(settled_inputs(delivery(**same)), RULES))
    silent = delivery(quality=Quality.MISSING, **TWO)
    assert moved(silent) == {"brp-b": -25, "dso": 25}
    assert all(one.cause is not Cause.COMPENSATION for one in settle(settled_inputs(silent), RULES))


def test_deliveries_of_one_settlement_period_are_corrected_together() -> None:
    first = delivery("d1", minutes=5, **TWO)
    later = [replace(first, id=f"d{i}", start=START + timedelta(minutes=5 * i)) for i in (1, 2, 3)]
    found = adjustments(settled_inputs(replace(first, id="d0"), *later), RULES)
    assert [(one.start, one.party, one.energy_kwh) for one in found] == [
        (START, "brp-a", -75),
        (START, "dso", 75),
        (START + timedelta(minutes=15), "brp-a", -25),
        (START + timedelta(minutes=15), "dso", 25),
    ]


def test_a_delivery_over_two_settlement_periods_is_refused() -> None:
    with pytest.raises(Refused) as refused:
        moved(delivery(minutes=30, **TWO))
    assert {one.code for one in refused.value.findings} == {"not_in_one_period"}
    assert adjustments(settled_inputs(delivery(minutes=30, **TWO)), RULES, minutes=30)
