"""Allocation: laying an energy on the price steps of an order."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal


def fill(total: Decimal, sizes: Sequence[Decimal]) -> tuple[Decimal, ...]:
    """Lay a total on places in their order, each up to its size.

    What exceeds all sizes goes to the last place that has any (the last place, when none has).
    Guarantee: the parts add to the total. total and sizes are non-negative; sizes not empty.
    """
    left = total
    parts = []
    for size in sizes:
        parts.append(min(left, size))
        left -= parts[-1]
    last = max((i for i, size in enumerate(sizes) if size > 0), default=len(sizes) - 1)
    parts[last] += left
    return tuple(parts)
