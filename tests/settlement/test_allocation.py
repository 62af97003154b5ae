"""Allocation of energy to price steps."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from coflex.settlement.allocation import fill

energies = st.decimals(0, 10**5, places=3)


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
