"""Large mixed-integer programs: the answer, the bound below it and the gap, against plain branch and bound."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from coflex.solver import highs, integer
from coflex.solver.audit import audit
from coflex.solver.program import Ending, Program

SEEDS = st.integers(0, 2**32 - 1)


def covering(seed: int, count: int = 18, rows: int = 6) -> Program:
    """Wholes that cover every row with what a dear column of its own leaves, some of them excluding each other."""
    rng = np.random.default_rng(seed)
    size = rng.integers(1, 30, (rows, count)).astype(float)
    group = np.zeros((2, count))
    group[0, : count // 3], group[1, count // 3 : count // 2] = 1.0, 1.0
    matrix = np.block([[size, np.eye(rows)], [group, np.zeros((2, rows))]])
    return Program(
        cost=np.r_[rng.integers(10, 200, count) * 1.0, np.full(rows, 50.0)],
        matrix=sparse.csr_array(matrix),
        row_lower=np.r_[size.sum(axis=1) * rng.uniform(0.2, 0.5), -np.inf, -np.inf],
        row_upper=np.r_[np.full(rows, np.inf), 1.0, 2.0],
        lower=np.zeros(count + rows),
        upper=np.r_[np.ones(count), np.full(rows, np.inf)],
        integer=np.arange(count + rows) < count,
    )


def check(program: Program, enough: float) -> None:
    found, best = integer.decide(program, enough), highs.solve(program, gap=1e-6, nodes=100_000)
    checked = audit(program, found)
    assert best.ending is Ending.OPTIMAL
    assert checked.infeasibility <= 1e-6 and checked.integrality <= 1e-6
    assert found.bound <= best.cost + 1e-5 and best.cost <= found.cost + 1e-5
    assert found.gap == pytest.approx((found.cost - found.bound) / max(1.0, abs(found.cost)), abs=1e-9)


@pytest.mark.spec("MKT-06")
@settings(max_examples=40, deadline=None, derandomize=True)
@given(SEEDS, st.sampled_from([0.0, 1.0, 100.0]))
def test_the_best_answer_lies_between_bound_and_cost(seed: int, enough: float) -> None:
    check(covering(seed), enough)


@pytest.mark.spec("MKT-06")
@settings(max_examples=15, deadline=None, derandomize=True)
@given(SEEDS)
def test_neighbourhoods_alone_bound_the_best_answer_too(seed: int) -> None:
    # So few left over that nothing is closed: what roundings and neighbourhoods find must be told honestly.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(integer, "CLOSING", 0)
        patch.setattr(integer, "CORE", 6)
        check(covering(seed), 0.0)


@pytest.mark.spec("MKT-06")
def test_a_small_program_is_closed_to_its_optimum() -> None:
    for seed in range(10):
        program = covering(seed)
        found, best = integer.decide(program, 0.0), highs.solve(program, gap=1e-6, nodes=100_000)
        assert found.cost == pytest.approx(best.cost, rel=1e-6) and found.gap <= 2e-4


@pytest.mark.spec("MKT-06")
def test_a_program_without_a_whole_solution_says_so() -> None:
    odd = Program(
        np.ones(2),
        sparse.csr_array(np.array([[2.0, 2.0]])),
        np.array([3.0]),
        np.array([3.0]),
        np.zeros(2),
        np.ones(2),
        np.ones(2, dtype=np.bool_),
    )
    assert integer.decide(odd, 0.0).ending is Ending.INFEASIBLE
    assert integer.decide(replace(odd, row_lower=np.array([9.0])), 0.0).ending is Ending.INFEASIBLE


@pytest.mark.spec("MKT-19")
def test_the_same_program_is_decided_the_same_way_to_the_bit() -> None:
    first, second = (integer.decide(covering(3, 60, 12), 0.0) for _ in range(2))
    assert np.array_equal(first.x, second.x) and first.bound == second.bound
