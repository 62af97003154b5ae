"""The audit of a solution, whoever solved it: feasibility, and the gap between primal and dual cost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coflex.domain.quantity import Floats
from coflex.solver.program import Program, Solution


@dataclass(frozen=True, slots=True)
class Audit:
    """`infeasibility`: worst violation of a row or bound. `integrality`: worst distance of an integer column from
    a whole number. `duality_gap`: relative distance of primal and dual cost, for programs without integers."""

    infeasibility: float
    integrality: float
    duality_gap: float

    def holds(self, tolerance: float = 1e-6) -> bool:
        return max(self.infeasibility, self.integrality, self.duality_gap) <= tolerance


def audit(program: Program, solution: Solution) -> Audit:
    """Check a solution against the program alone.

    The dual cost is  sum of price * the bound it presses against, over rows and columns; by weak duality it never
    exceeds the primal cost, so a small difference proves both.
    """
    activity = program.matrix @ solution.x
    infeasibility = max(
        _beyond(activity, program.row_lower, program.row_upper), _beyond(solution.x, program.lower, program.upper)
    )
    whole = solution.x[program.integer]
    integrality = float(np.abs(whole - np.round(whole)).max(initial=0.0))
    if program.integer.any():
        return Audit(infeasibility, integrality, 0.0)
    reduced = program.cost - program.matrix.T @ solution.row_price
    dual = _pressed(solution.row_price, program.row_lower, program.row_upper) + _pressed(
        reduced, program.lower, program.upper
    )
    primal = float(program.cost @ solution.x)
    return Audit(infeasibility, integrality, abs(primal - dual) / max(1.0, abs(primal)))


def _beyond(value: Floats, lower: Floats, upper: Floats) -> float:
    return float(max(np.max(lower - value, initial=0.0), np.max(value - upper, initial=0.0)))


def _pressed(price: Floats, lower: Floats, upper: Floats) -> float:
    """Sum of price times bound: a positive price presses against the lower bound, a negative one the upper."""
    bound = np.where(price > 0, lower, upper)
    active = np.abs(price) > 1e-9 * max(1.0, float(np.abs(price).max(initial=0.0)))
    return float(price[active] @ bound[active])
