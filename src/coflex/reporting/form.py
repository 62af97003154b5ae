"""How values are written: rounded numbers, euros from cents, sums by key."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from decimal import Decimal
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike

K = TypeVar("K", bound=Hashable)


def rounded(values: ArrayLike, digits: int) -> Any:
    """Numbers as (nested) lists of floats with at most `digits` decimals; zero has no sign."""
    return (np.round(np.asarray(values, dtype=np.float64), digits) + 0.0).tolist()


def number(value: float, digits: int) -> float:
    """One number with at most `digits` decimals; zero has no sign."""
    return round(float(value), digits) + 0.0


def euros(cents: int) -> str:
    """Cents as EUR with two decimals: -5 is "-0.05"."""
    return str(Decimal(cents).scaleb(-2))


def summed(pairs: Iterable[tuple[K, int]]) -> dict[K, int]:
    """Sums by key, in the order in which the keys first come."""
    sums: dict[K, int] = {}
    for key, value in pairs:
        sums[key] = sums.get(key, 0) + value
    return sums
