"""Allocation of energy to price steps and of money to bearers."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coflex.domain.errors import CoflexError
from coflex.settlement.allocation import distribute, fill

energies = st.decimals(0, 10**5, places=3)
weights = st.lists(energies, min_size=1, max_size=8).filter(any)


@given(energies, st.lists(energies, min_size=1, max_size=6))
def test_filled_places_add_to_the_total_and_a_place_waits_for_the_one_before(
    total: Decimal, sizes: list[Decimal]
) -> None:
    parts = fill(total, sizes)
    assert sum(parts) == total
    assert all(part >= 0 for part in parts)
    for i, part in enumerate(parts[1:], start=1):
        assert part == 0 or all(parts[k] >= sizes[k] for k in range(i))


def test_what_exceeds_all_places_goes_to_the_last_that_has_a_size() -> None:
    assert fill(Decimal(12), [Decimal(5), Decimal(5), Decimal(0)]) == (5, 7, 0)
    assert fill(Decimal(3), [Decimal(0), Decimal(0)]) == (0, 3)


@given(st.decimals(-(10**6), 10**6, places=5), weights)
def test_shared_cents_add_to_the_amount_rounded_once_and_miss_no_share_by_a_cent(
    amount: Decimal, by: list[Decimal]
) -> None:
    cents = distribute(amount, by)
    assert sum(cents) == (amount * 100).quantize(Decimal(1), ROUND_HALF_EVEN)
    for share, weight in zip(cents, by, strict=True):
        assert abs(share - 100 * amount * weight / sum(by)) <= Decimal("1.0001")


def test_a_euro_in_three_is_34_and_twice_33_cents() -> None:
    assert sorted(distribute(Decimal(1), [Decimal(1)] * 3)) == [33, 33, 34]
    assert distribute(Decimal(-3), [Decimal(2), Decimal(1)]) == (-200, -100)


@pytest.mark.parametrize("by", [[], [Decimal(0)], [Decimal(2), Decimal(-1)]])
def test_there_is_nothing_to_share_by_without_a_weight(by: list[Decimal]) -> None:
    with pytest.raises(CoflexError, match="weights"):
        distribute(Decimal(1), by)
