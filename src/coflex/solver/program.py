"""A mathematical program as arrays, and what a solver answers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from scipy import sparse

from coflex.domain.quantity import Bools, Floats

# Status of each column and each row, in the solver's own words.
Basis = Any


@dataclass(frozen=True, eq=False)
class Program:
    """min c'x  s.t.  row_lower <= A x <= row_upper,  lower <= x <= upper,  x[integer] whole.

    n columns, m rows; A is sparse of shape (m, n).
    """

    cost: Floats
    matrix: sparse.csr_array
    row_lower: Floats
    row_upper: Floats
    lower: Floats
    upper: Floats
    integer: Bools


class Ending(StrEnum):
    OPTIMAL = "optimal"
    GAP = "gap"
    INFEASIBLE = "infeasible"
    UNBOUNDED = "unbounded"


@dataclass(frozen=True, eq=False)
class Solution:
    """`x` (n,); `row_price` (m,): change of cost per unit of row bound; `reduced_cost` (n,). For a program with
    integers the prices are those of the linear program with the integers fixed. `gap`: relative, 0 when proved.
    `bound`: a cost that no solution undercuts. `seconds`: time in the solver with hand-over and hand-back, for
    measuring only. `basis`: a start for a neighbouring program."""

    ending: Ending
    x: Floats
    row_price: Floats
    reduced_cost: Floats
    cost: float
    gap: float
    seconds: float
    basis: Basis | None = None
    bound: float = float("-inf")
