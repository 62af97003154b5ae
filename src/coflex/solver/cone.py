"""Clarabel: linear and quadratic programs with second-order cones, by an interior point method.

P. J. Goulart and Y. Chen, "Clarabel: an interior-point solver for conic programs with quadratic objectives" (2024),
arXiv:2405.12762. One thread and one start, so that the same program gives the same solution.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

import clarabel
import numpy as np
from scipy import sparse

from coflex.domain.errors import SolverFailure
from coflex.domain.quantity import Floats, Ints
from coflex.solver.program import Ending

# Relative gap and residuals that are tried in turn: a program whose feasible set is thin may not reach the first.
ACCURACIES = (1e-8, 1e-7, 1e-6)
_ENDINGS = {
    "Solved": Ending.OPTIMAL,
    "PrimalInfeasible": Ending.INFEASIBLE,
    "DualInfeasible": Ending.UNBOUNDED,
}


@dataclass(frozen=True, eq=False)
class ConeProgram:
    """min 1/2 x'P x + c'x  s.t.  E x = equal_to,  U x <= under,  F x + offset in a product of second-order cones.

    n columns. `equal` (e, n), `upper` (m, n), `cone` (k, n) sparse; `sizes` adds to k: of each cone the first entry
    is at least the length of the others. `quadratic` (n, n): P, symmetric and positive semidefinite, or None.
    """

    cost: Floats
    equal: sparse.csr_array
    equal_to: Floats
    upper: sparse.csr_array
    under: Floats
    cone: sparse.csr_array
    offset: Floats
    sizes: Ints
    quadratic: sparse.csr_array | None = None


@dataclass(frozen=True, eq=False)
class ConeSolution:
    """`x` (n,); `equal_price` (e,), `upper_price` (m,): change of cost per unit of the right side, the latter never
    positive; `cone_price` (k,): change of cost per unit of offset. `bound`: the dual's cost, which no feasible x
    undercuts by more than the accuracy. Arrays are empty and costs nan where there is no optimum."""

    ending: Ending
    x: Floats
    equal_price: Floats
    upper_price: Floats
    cone_price: Floats
    cost: float
    bound: float
    seconds: float


def solve(program: ConeProgram, accuracy: float | None = None) -> ConeSolution:
    """Solve to `accuracy`, or else to the best of `ACCURACIES` that can be reached, or prove that there is no solution
    or no bound.

    Raises SolverFailure when the solver stops for any other reason.
    """
    begun = perf_counter()
    count = len(program.cost)
    quadratic = sparse.csc_matrix((count, count))
    if program.quadratic is not None:
        quadratic = sparse.csc_matrix(sparse.triu(program.quadratic))
    matrix = sparse.csc_matrix(sparse.vstack([program.equal, program.upper, -program.cone]))
    right = np.concatenate([program.equal_to, program.under, program.offset])
    e, m = len(program.equal_to), len(program.under)
    cones = [clarabel.ZeroConeT(e), clarabel.NonnegativeConeT(m)]
    cones += [clarabel.SecondOrderConeT(int(size)) for size in program.sizes]
    for tried in ACCURACIES if accuracy is None else (accuracy,):
        found = clarabel.DefaultSolver(quadratic, program.cost, matrix, right, cones, _settings(tried)).solve()
        ending = _ENDINGS.get(str(found.status))
        if ending is not None:
            break
    if ending is None:
        raise SolverFailure(
            f"The cone solver stopped with '{found.status}' after {found.iterations} steps.",
            "Look at the magnitudes of ratings, prices and quantities.",
        )
    seconds = perf_counter() - begun
    if ending is not Ending.OPTIMAL:
        none: Floats = np.zeros(0)
        return ConeSolution(ending, none, none, none, none, float("nan"), float("nan"), seconds)
    price = -np.asarray(found.z)
    return ConeSolution(
        ending=ending,
        x=np.asarray(found.x),
        equal_price=price[:e],
        upper_price=price[e : e + m],
        cone_price=price[e + m :],
        cost=float(found.obj_val),
        bound=float(found.obj_val_dual),
        seconds=seconds,
    )


def _settings(accuracy: float) -> clarabel.DefaultSettings:
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.max_threads = 1
    settings.direct_solve_method = "qdldl"
    settings.presolve_enable = False
    settings.max_iter = 200
    settings.tol_gap_rel = settings.tol_gap_abs = settings.tol_feas = accuracy
    return settings
