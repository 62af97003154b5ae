"""Cost sharing: what part of one purchase each of several payers bears."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from itertools import combinations
from math import factorial

from coflex.domain.errors import CoflexError
from coflex.settlement.document import Payer, Rule, ShareBy
from coflex.settlement.inputs import Delivery, Purchase, group_name, sharing_payers

GRAIN = Decimal("1e-9")  # EUR: far below a cent, coarse enough that exact parts have an end


def weights(rule: Rule, delivery: Delivery, purchase: Purchase | None) -> dict[Payer, Fraction]:
    """The share of each payer, by name; they add to one.

    Shapley value (doi 10.1515/9781400881970-018): each bears the mean, over all orders in which they could have joined,
    of what its joining added to the cost. Raises CoflexError when a share would fall below zero or all cost nothing.
    """
    sharing = rule.sharing
    assert sharing is not None  # a rule without it is refused when it is read
    payers = sharing_payers(rule, delivery, purchase)
    if sharing.by is ShareBy.FIXED:
        return {one: Fraction(sharing.shares[one]) for one in payers}
    if sharing.by is ShareBy.EQUAL or purchase is None:
        return dict.fromkeys(payers, Fraction(1, len(payers)))
    if sharing.by is ShareBy.NEED:
        whole = sum((Fraction(need) for need in purchase.needs.values()), Fraction(0))
        return {one: Fraction(purchase.needs[one]) / whole for one in payers}
    values = shapley(payers, purchase.costs)
    whole = sum(values.values(), Fraction(0))
    if whole <= 0 or min(values.values()) < 0:
        raise CoflexError(
            f"The costs alone of the purchase {purchase.id} leave a share below zero.",
            "Check them: nobody's cost alone is below what the others save without it.",
        )
    return {one: value / whole for one, value in values.items()}


def shapley(payers: Sequence[Payer], costs: Mapping[str, Decimal]) -> dict[Payer, Fraction]:
    """The Shapley value of a cost game; `costs` of every group but the empty one, by `group_name`."""
    count = len(payers)
    values = dict.fromkeys(payers, Fraction(0))
    for one in payers:
        others = [other for other in payers if other != one]
        for size in range(count):
            weight = Fraction(factorial(size) * factorial(count - size - 1), factorial(count))
            for group in combinations(others, size):
                before = Fraction(costs[group_name(group)]) if group else Fraction(0)
                values[one] += weight * (Fraction(costs[group_name((*group, one))]) - before)
    return values


def part(amount_eur: Decimal, shares: Sequence[Fraction]) -> tuple[Decimal, ...]:
    """An exact amount in exact parts: each to the grain, what is left with the largest share (the first of equals).

    The shares add to one and are not negative; the parts add to the amount.
    """
    parts = [decimal(Fraction(amount_eur) * share) for share in shares]
    heaviest = max(range(len(shares)), key=lambda i: shares[i])
    parts[heaviest] += amount_eur - sum(parts, Decimal(0))
    return tuple(parts)


def decimal(value: Fraction) -> Decimal:
    """A fraction to the grain, half to even."""
    return round(value / Fraction(GRAIN)) * GRAIN
