"""Allocation: laying an energy on the price steps of an order, and a sum of money on its bearers."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from coflex.domain.errors import CoflexError
from coflex.domain.quantity import split_cents

SHARE = Decimal("1e-9")  # EUR: far below a cent, and coarse enough that the shares add up exactly


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


def distribute(amount_eur: Decimal, weights: Sequence[Decimal]) -> tuple[int, ...]:
    """Share a penalty or a fee by weight, in cents that add to the amount rounded once.

    Raises CoflexError when a weight is negative or none is above zero.
    """
    whole = sum(weights, Decimal(0))
    if whole <= 0 or min(weights) < 0:
        raise CoflexError("Nothing to share by.", "Give weights of zero or more, one of them above zero.")
    shares = [(amount_eur * weight / whole).quantize(SHARE) for weight in weights]
    heaviest = max(range(len(weights)), key=lambda i: weights[i])
    shares[heaviest] += amount_eur - sum(shares, Decimal(0))
    return split_cents(shares)
