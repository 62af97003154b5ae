"""Cone programs against solutions known by hand, a second solver, and duality."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.optimize import linprog, minimize

from coflex.domain.errors import SolverFailure
from coflex.domain.quantity import Floats
from coflex.solver.cone import ConeProgram, solve
from coflex.solver.program import Ending


def program(
    cost: list[float] | Floats,
    equal: tuple[object, object] | None = None,
    upper: tuple[object, object] | None = None,
    cones: tuple[object, object, list[int]] | None = None,
    quadratic: Floats | None = None,
) -> ConeProgram:
    n = len(cost)
    blocks = [(np.zeros((0, n)), np.zeros(0)) if part is None else part[:2] for part in (equal, upper, cones)]
    matrices = [(sparse.csr_array(np.asarray(a, dtype=float)), np.asarray(b, dtype=float)) for a, b in blocks]
    (e, to), (u, under), (f, offset) = matrices
    sizes = np.array([] if cones is None else cones[2], dtype=np.int64)
    p = None if quadratic is None else sparse.csr_array(quadratic)
    return ConeProgram(np.asarray(cost, dtype=float), e, to, u, under, f, offset, sizes, p)


def test_the_lowest_point_of_a_disc_and_what_its_radius_is_worth() -> None:
    # min 3x + 4y in a disc of radius 2 around (1, 1): cost 7 - 2 * 5, and 5 per unit of radius.
    disc = ([[0, 0], [1, 0], [0, 1]], [2, -1, -1], [3])
    found = solve(program([3, 4], cones=disc))
    assert found.ending is Ending.OPTIMAL
    assert found.cost == pytest.approx(-3, abs=1e-7) and found.bound == pytest.approx(-3, abs=1e-7)
    assert found.x == pytest.approx([1 - 6 / 5, 1 - 8 / 5], abs=1e-6)
    assert found.cone_price[0] == pytest.approx(-5, abs=1e-6)


def test_prices_are_changes_of_cost_per_unit_of_the_right_side() -> None:
    # min x^2 + 2 y^2  s.t.  x + y = 3,  y <= 0.5:  d/db (b - u)^2 + 2 u^2 = 2 (b - u); d/du = 4 u - 2 (b - u).
    found = solve(
        program([0, 0], equal=([[1, 1]], [3]), upper=([[0, 1]], [0.5]), quadratic=np.array([[2.0, 0], [0, 4.0]]))
    )
    assert found.x == pytest.approx([2.5, 0.5], abs=1e-6)
    assert found.equal_price == pytest.approx([5.0], abs=1e-5)
    assert found.upper_price == pytest.approx([-3.0], abs=1e-5)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1))
def test_without_cones_it_is_the_linear_program_that_highs_solves(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, x0 = rng.normal(size=(6, 4)), rng.normal(size=4)
    under = a @ x0 + rng.uniform(0.1, 1, 6)
    bounds = np.vstack([np.eye(4), -np.eye(4)])
    cost = rng.normal(size=4)
    mine = solve(program(cost, upper=(np.vstack([a, bounds]), np.r_[under, np.full(8, 5.0) + np.abs(np.r_[x0, x0])])))
    other = linprog(cost, a, under, bounds=[(-5 - abs(v), 5 + abs(v)) for v in x0])
    assert mine.cost == pytest.approx(other.fun, rel=1e-6, abs=1e-6)
    assert (mine.upper_price <= 1e-9).all()
    assert mine.upper_price[:6] == pytest.approx(other.ineqlin.marginals, abs=1e-4)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1))
def test_two_cones_at_once_as_slsqp_finds_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cost, centre = rng.normal(size=3), rng.normal(size=3)
    other = centre + rng.uniform(-0.4, 0.4, 3)
    eye = np.vstack([np.zeros(3), np.eye(3)])
    balls = (np.vstack([eye, eye]), np.r_[1.0, -centre, 1.0, -other], [4, 4])
    mine = solve(program(cost, cones=balls))
    second = minimize(
        lambda x: cost @ x,
        (centre + other) / 2,
        jac=lambda x: cost,
        constraints=[
            {"type": "ineq", "fun": lambda x, c=c: 1 - (x - c) @ (x - c), "jac": lambda x, c=c: -2 * (x - c)}
            for c in (centre, other)
        ],
        method="SLSQP",
        options={"ftol": 1e-10, "maxiter": 500},
    )
    assert second.success
    assert mine.cost == pytest.approx(float(second.fun), abs=1e-6)
    assert mine.bound <= mine.cost + 1e-7


def test_it_proves_that_there_is_no_solution_and_that_there_is_no_bound() -> None:
    apart = ([[0], [1], [0], [1]], [1, 0, 1, -5], [2, 2])
    assert solve(program([1], cones=apart)).ending is Ending.INFEASIBLE
    assert solve(program([-1], upper=([[-1]], [0]))).ending is Ending.UNBOUNDED


def test_the_same_program_gives_the_same_bytes() -> None:
    rng = np.random.default_rng(7)
    a = rng.normal(size=(30, 12))
    given = program(rng.normal(size=12), cones=(np.vstack([np.zeros(12), np.eye(12)]), np.r_[3.0, np.zeros(12)], [13]))
    given = ConeProgram(given.cost, given.equal, given.equal_to, sparse.csr_array(a), np.ones(30), *_cones(given))
    first, second = solve(given), solve(given)
    assert first.x.tobytes() == second.x.tobytes() and first.upper_price.tobytes() == second.upper_price.tobytes()


def _cones(given: ConeProgram) -> tuple[sparse.csr_array, Floats, np.ndarray]:
    return given.cone, given.offset, given.sizes


def test_numbers_that_are_none_end_in_a_failure_with_a_next_step() -> None:
    with pytest.raises(SolverFailure) as failure:
        solve(program([float("nan")], upper=([[-1]], [0])))
    assert failure.value.remedy
