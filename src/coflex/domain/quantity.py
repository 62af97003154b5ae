"""Quantities: directions, power in whole ticks, money in whole cents.

Up = more injection or less withdrawal; down = the reverse. Injection is positive.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_FLOOR, Decimal
from enum import StrEnum
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

CENT = Decimal("0.01")


class Direction(StrEnum):
    """Direction of a flexible quantity, seen from the grid."""

    UP = "up"
    DOWN = "down"

    @property
    def sign(self) -> int:
        """+1 for up (more injection), -1 for down."""
        return 1 if self is Direction.UP else -1

    @property
    def opposite(self) -> Direction:
        return Direction.DOWN if self is Direction.UP else Direction.UP


def energy_mwh(power_kw: int, hours: Fraction) -> Decimal:
    """Energy of a constant power, exact: whole kW times a fraction of an hour, in MWh."""
    return Decimal(power_kw * hours.numerator) / Decimal(1000 * hours.denominator)


def split_cents(amounts: Sequence[Decimal]) -> tuple[int, ...]:
    """Round exact EUR amounts to cents so that the rounded ones add to the rounded total.

    Each amount is floored to the cent; the cents that are left go to the largest remainders, ties to the
    earlier place (largest remainder method). The total is rounded once, half to even.
    """
    floors = [int((amount / CENT).to_integral_value(ROUND_FLOOR)) for amount in amounts]
    total = int((sum(amounts, Decimal(0)) / CENT).to_integral_value())
    remainders = [amount / CENT - floor for amount, floor in zip(amounts, floors, strict=True)]
    left = total - sum(floors)
    for place in sorted(range(len(amounts)), key=lambda i: (-remainders[i], i))[:left]:
        floors[place] += 1
    return tuple(floors)
