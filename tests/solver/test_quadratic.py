"""Convex quadratic programs: the conditions of Karush, Kuhn and Tucker, and answers by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from coflex.solver import highs, quadratic
from coflex.solver.program import Ending, Program


def program(seed: int) -> tuple[Program, sparse.csr_array]:
    """Random rows of every kind, some equalities, some columns fixed, some without bounds, a Hessian of half rank."""
    rng = np.random.default_rng(seed)
    n, m = int(rng.integers(2, 9)), int(rng.integers(1, 6))
    matrix, inside = rng.normal(size=(m, n)), rng.uniform(-0.5, 0.5, n)
    at = matrix @ inside
    lower = np.where(rng.random(m) < 0.5, at - rng.uniform(0, 1, m), -np.inf)
    upper = np.where(rng.random(m) < 0.5, at + rng.uniform(0, 1, m), np.inf)
    tied = rng.random(m) < 0.2
    fixed = rng.random(n) < 0.2
    half = rng.normal(size=(n, max(1, n // 2)))
    return (
        Program(
            rng.normal(size=n),
            sparse.csr_array(matrix),
            np.where(tied, at, lower),
            np.where(tied, at, upper),
            np.where(fixed, inside, -1.0),
            np.where(fixed, inside, 1.0),
            np.zeros(n, dtype=np.bool_),
        ),
        sparse.csr_array(half @ half.T),
    )


@pytest.mark.spec("MKT-06")
@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1))
def test_prices_press_only_against_bounds_that_bind_and_explain_the_slope(seed: int) -> None:
    of, hessian = program(seed)
    found = quadratic.solve(of, hessian)
    assert found.ending is Ending.OPTIMAL
    x, price, reduced = found.x, found.row_price, found.reduced_cost
    activity = of.matrix @ x
    assert np.abs(of.cost + hessian @ x - of.matrix.T @ price - reduced).max() < 1e-12
    for value, low, high, by in ((activity, of.row_lower, of.row_upper, price), (x, of.lower, of.upper, reduced)):
        assert (value >= low - 1e-7).all() and (value <= high + 1e-7).all()
        assert np.abs(np.where(by > 1e-5, value - low, 0.0)).max() < 1e-6
        assert np.abs(np.where(by < -1e-5, value - high, 0.0)).max() < 1e-6


@pytest.mark.spec("MKT-06")
def test_a_parabola_between_bounds_by_hand() -> None:
    # min x^2 - 2x + y^2, x + y >= 2, y <= 0.4:  x = 1.6, y = 0.4; the row is worth 2x - 2 = 1.2.
    of = Program(
        np.array([-2.0, 0.0]),
        sparse.csr_array(np.ones((1, 2))),
        np.array([2.0]),
        np.array([np.inf]),
        np.full(2, -np.inf),
        np.array([np.inf, 0.4]),
        np.zeros(2, dtype=np.bool_),
    )
    found = quadratic.solve(of, sparse.csr_array(2.0 * np.eye(2)))
    assert found.x == pytest.approx([1.6, 0.4], abs=1e-8)
    assert found.row_price == pytest.approx([1.2], abs=1e-7)
    assert found.cost == pytest.approx(1.6**2 - 3.2 + 0.16, abs=1e-8)


@pytest.mark.spec("MKT-06")
@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1))
def test_a_curvature_that_fades_leads_to_the_linear_answer(seed: int) -> None:
    of, hessian = program(seed)
    flat = highs.solve(of)
    found = quadratic.solve(of, sparse.csr_array(1e-7 * hessian))
    assert found.cost == pytest.approx(flat.cost, abs=1e-5)
    assert quadratic.solve(of).cost == flat.cost


@pytest.mark.spec("MKT-06")
def test_rows_that_exclude_each_other_are_told() -> None:
    of = Program(
        np.ones(1), sparse.csr_array(np.ones((2, 1))), np.array([1.0, -np.inf]), np.array([np.inf, 0.0]),
        np.full(1, -np.inf), np.full(1, np.inf), np.zeros(1, dtype=np.bool_),
    )  # fmt: skip
    assert quadratic.solve(of, sparse.csr_array(np.eye(1))).ending is Ending.INFEASIBLE
