"""The solver against another one, against enumeration, and on programs that have no answer."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.optimize import linprog

from coflex.solver import highs
from coflex.solver.audit import audit
from coflex.solver.program import Ending, Program

SEEDS = st.integers(0, 2**32 - 1)


def program(seed: int, whole: bool = False) -> Program:
    """Feasible by construction: the rows hold at a point inside the bounds."""
    rng = np.random.default_rng(seed)
    n, m = int(rng.integers(1, 7)), int(rng.integers(1, 6))
    matrix = np.round(rng.normal(0, 2, (m, n)) * (rng.random((m, n)) < 0.7), 2)
    upper = rng.integers(1, 4, n).astype(float)
    inside = np.floor(rng.random(n) * (upper + 1)).clip(0, upper)
    slack = np.round(rng.uniform(0, 2, m), 2)
    equal = rng.random(m) < 0.2
    lower = np.where(rng.random(m) < 0.5, -np.inf, matrix @ inside - slack)
    return Program(
        cost=np.round(rng.normal(0, 10, n), 2),
        matrix=sparse.csr_array(matrix),
        row_lower=np.where(equal, matrix @ inside, lower),
        row_upper=np.where(equal, matrix @ inside, matrix @ inside + slack),
        lower=np.zeros(n),
        upper=upper,
        integer=(rng.random(n) < 0.6) if whole else np.zeros(n, dtype=np.bool_),
    )


def simple(cost: list[float], lower: float = -np.inf, upper: float = 1.0, top: float = np.inf) -> Program:
    n = len(cost)
    return Program(
        np.array(cost),
        sparse.csr_array(np.ones((1, n))),
        np.array([lower]),
        np.array([upper]),
        np.zeros(n),
        np.full(n, top),
        np.zeros(n, dtype=np.bool_),
    )


@pytest.mark.spec("MKT-06")
@settings(max_examples=60, deadline=None, derandomize=True)
@given(SEEDS)
def test_a_linear_program_costs_what_another_interface_finds_and_passes_the_audit(seed: int) -> None:
    p = program(seed)
    solution = highs.solve(p)
    a, up, low = p.matrix.toarray(), np.isfinite(p.row_upper), np.isfinite(p.row_lower)
    other = linprog(
        p.cost,
        A_ub=np.vstack([a[up], -a[low]]),
        b_ub=np.concatenate([p.row_upper[up], -p.row_lower[low]]),
        bounds=list(zip(p.lower, p.upper, strict=True)),
        method="highs-ipm",
    )
    assert solution.ending is Ending.OPTIMAL and other.status == 0
    assert solution.cost == pytest.approx(other.fun, rel=1e-6, abs=1e-6)
    assert audit(p, solution).holds(1e-6)


@pytest.mark.spec("MKT-03")
@settings(max_examples=40, deadline=None, derandomize=True)
@given(SEEDS)
def test_a_mixed_program_costs_what_enumerating_its_integers_finds(seed: int) -> None:
    p = program(seed, whole=True)
    solution = highs.solve(p)
    whole = np.flatnonzero(p.integer)
    best = np.inf
    for values in product(*(range(int(p.upper[i]) + 1) for i in whole)):
        lower, upper = p.lower.copy(), p.upper.copy()
        lower[whole] = upper[whole] = values
        part = highs.solve(replace(p, lower=lower, upper=upper, integer=np.zeros_like(p.integer)))
        if part.ending is Ending.OPTIMAL:
            best = min(best, part.cost)
    checked = audit(p, solution)
    assert checked.infeasibility <= 1e-6 and checked.integrality <= 1e-6
    assert solution.cost == pytest.approx(best, rel=1e-4, abs=1e-5)
    assert solution.cost >= best - 1e-5


@pytest.mark.spec("MKT-06")
def test_a_row_price_is_the_change_of_cost_per_unit_of_its_bound() -> None:
    p = simple([3.0, 5.0], lower=4.0, upper=np.inf, top=3.0)
    solution = highs.solve(p)
    more = highs.solve(replace(p, row_lower=p.row_lower + 0.1))
    assert solution.row_price[0] == pytest.approx((more.cost - solution.cost) / 0.1) == pytest.approx(5.0)
    assert solution.reduced_cost == pytest.approx([-2.0, 0.0])


@pytest.mark.spec("MKT-06")
def test_a_program_without_an_answer_says_so() -> None:
    assert highs.solve(simple([1.0], lower=2.0, upper=1.0)).ending is Ending.INFEASIBLE
    assert highs.solve(simple([1.0, 1.0], lower=5.0, upper=9.0, top=2.0)).ending is Ending.INFEASIBLE


@pytest.mark.spec("MKT-06")
def test_a_program_without_a_floor_is_unbounded_not_infeasible() -> None:
    assert highs.solve(simple([-1.0], upper=np.inf)).ending is Ending.UNBOUNDED


@pytest.mark.spec("MKT-06")
def test_a_program_without_columns_or_rows_is_solved() -> None:
    none = Program(
        np.zeros(0), sparse.csr_array((1, 0)), np.zeros(1), np.ones(1), np.zeros(0), np.zeros(0), np.zeros(0, np.bool_)
    )
    assert highs.solve(none).ending is Ending.OPTIMAL
    assert highs.solve(replace(none, row_lower=np.ones(1))).ending is Ending.INFEASIBLE
    free = Program(
        np.array([2.0, -1.0]),
        sparse.csr_array((0, 2)),
        np.zeros(0),
        np.zeros(0),
        np.zeros(2),
        np.full(2, 4.0),
        np.zeros(2, np.bool_),
    )
    assert highs.solve(free).x.tolist() == [0.0, 4.0]


@pytest.mark.spec("MKT-06")
@settings(max_examples=30, deadline=None, derandomize=True)
@given(SEEDS)
def test_a_warm_start_from_a_smaller_program_ends_at_the_same_cost(seed: int) -> None:
    p = program(seed)
    cut = p.matrix.toarray()[:-1]
    small = replace(p, matrix=sparse.csr_array(cut), row_lower=p.row_lower[:-1], row_upper=p.row_upper[:-1])
    warm, cold = highs.solve(p, highs.solve(small)), highs.solve(p)
    assert warm.cost == pytest.approx(cold.cost, rel=1e-9, abs=1e-9)


@pytest.mark.spec("MKT-19")
def test_the_same_program_gives_the_same_answer_to_the_bit() -> None:
    for seed in range(10):
        first, second = highs.solve(program(seed, whole=True)), highs.solve(program(seed, whole=True))
        assert np.array_equal(first.x, second.x) and np.array_equal(first.row_price, second.row_price)
