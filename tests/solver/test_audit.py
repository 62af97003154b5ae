"""The audit: it accepts what is optimal and sees every kind of wrong answer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from coflex.solver import highs
from coflex.solver.audit import audit
from coflex.solver.program import Program

# min 3 x + 5 y, x + y >= 4, x <= 3: by hand x = 3, y = 1, cost 14, the row is worth 5.
BY_HAND = Program(
    np.array([3.0, 5.0]),
    sparse.csr_array(np.ones((1, 2))),
    np.array([4.0]),
    np.array([np.inf]),
    np.zeros(2),
    np.array([3.0, 3.0]),
    np.zeros(2, dtype=np.bool_),
)


@pytest.mark.spec("MKT-06")
def test_the_answer_by_hand_has_no_gap() -> None:
    solution = highs.solve(BY_HAND)
    assert solution.x.tolist() == [3.0, 1.0] and solution.cost == 14.0
    checked = audit(BY_HAND, solution)
    assert (checked.infeasibility, checked.integrality) == (0.0, 0.0) and checked.duality_gap < 1e-12
    assert checked.holds()


@pytest.mark.spec("MKT-06")
def test_a_dearer_feasible_answer_shows_its_gap() -> None:
    dear = replace(highs.solve(BY_HAND), x=np.array([1.0, 3.0]))
    checked = audit(BY_HAND, dear)
    assert checked.infeasibility == 0.0 and checked.duality_gap == pytest.approx(4 / 18)
    assert not checked.holds()


@pytest.mark.spec("MKT-06")
def test_wrong_prices_show_too() -> None:
    assert not audit(BY_HAND, replace(highs.solve(BY_HAND), row_price=np.array([4.0]))).holds()


@pytest.mark.spec("MKT-06")
@pytest.mark.parametrize(("x", "beyond"), [([3.0, 0.5], 0.5), ([3.25, 1.0], 0.25), ([4.0, -0.125], 1.0)])
def test_a_broken_row_or_bound_is_measured(x: list[float], beyond: float) -> None:
    checked = audit(BY_HAND, replace(highs.solve(BY_HAND), x=np.array(x)))
    assert checked.infeasibility == pytest.approx(beyond) and not checked.holds()


@pytest.mark.spec("MKT-03")
def test_a_part_of_a_whole_is_measured() -> None:
    whole = replace(BY_HAND, integer=np.array([True, False]))
    checked = audit(whole, replace(highs.solve(whole), x=np.array([2.75, 1.25])))
    assert checked.integrality == pytest.approx(0.25) and not checked.holds()
