"""HiGHS: linear and mixed-integer programs. Huangfu and Hall (2018), doi:10.1007/s12532-017-0130-5.

Serial and seeded, so that the same program gives the same solution; integers stop at a count of nodes, never at a
time, for the same reason.
"""

from __future__ import annotations

from dataclasses import replace
from time import perf_counter

import highspy
import numpy as np

from coflex.domain.errors import SolverFailure
from coflex.domain.quantity import Floats
from coflex.solver.program import Ending, Program, Solution

NODE_LIMIT = 500
# EUR: the gap at which a program counts as solved. A relative gap would hide real cost behind penalties.
ABSOLUTE_GAP = 0.01
# What the solver tells apart from nothing, in rows and in reduced costs.
TOLERANCE = 1e-9
_SEARCHES = (
    "mip_heuristic_run_rins",
    "mip_heuristic_run_rens",
    "mip_heuristic_run_root_reduced_cost",
    "mip_allow_restart",
)
_ENDINGS = {
    highspy.HighsModelStatus.kOptimal: Ending.OPTIMAL,
    highspy.HighsModelStatus.kSolutionLimit: Ending.GAP,
    highspy.HighsModelStatus.kInfeasible: Ending.INFEASIBLE,
    highspy.HighsModelStatus.kUnboundedOrInfeasible: Ending.INFEASIBLE,
    highspy.HighsModelStatus.kUnbounded: Ending.UNBOUNDED,
}


def solve(
    program: Program,
    start: Solution | None = None,
    gap: float = ABSOLUTE_GAP,
    presolve: bool = True,
    nodes: int = NODE_LIMIT,
    lean: bool = False,
) -> Solution:
    """Solve a program; `start` is a solution of one with the same leading columns and rows (a warm start), `gap` the
    distance in cost at which integers count as decided, `nodes` the most branchings. `lean`: branch and bound alone,
    without the searches of its own that cost many branchings' time.

    `presolve` false: a linear program of well-scaled rows goes to the simplex method as it is, from the corner at
    which nothing is bought. Where few columns leave their bounds that is several times as fast.

    Raises SolverFailure when the solver stops for any other reason than an optimum, a stated gap, or a proof
    that there is none.
    """
    begun = perf_counter()
    if not len(program.cost):
        return _without_columns(program)
    basis = None if start is None or program.integer.any() else start.basis
    plain = not presolve and not program.integer.any()
    # A start that does not fit, or bounds too tight for the numbers, are tried again from nothing and more loosely.
    tries = ((TOLERANCE, basis, plain), (TOLERANCE, None, False), (1e-7, None, False))
    for tolerance, from_basis, bare in tries:
        engine = _engine(tolerance, gap, nodes)
        for searching in _SEARCHES if lean else ():
            engine.setOptionValue(searching, False)
        if bare:
            engine.setOptionValue("presolve", "off")
            engine.setOptionValue("simplex_scale_strategy", 0)
        _hand_over(engine, program)
        if from_basis is not None:
            _set_basis(engine, from_basis, len(program.cost), len(program.row_lower))
        engine.run()
        status = engine.getModelStatus()
        if status in _ENDINGS:
            solution = _read(engine, program)
            if program.integer.any() and len(solution.x):
                solution = _with_prices(program, solution)
            return replace(solution, seconds=perf_counter() - begun)
    raise SolverFailure(
        f"The solver stopped with '{engine.modelStatusToString(status)}'.",
        "Look at the magnitudes of prices and quantities in the book.",
    )


def _without_columns(program: Program) -> Solution:
    """Nothing to choose: the bounds hold at zero or they do not."""
    holds = bool((program.row_lower <= 0).all() and (program.row_upper >= 0).all())
    ending = Ending.OPTIMAL if holds else Ending.INFEASIBLE
    nothing: Floats = np.zeros(0)
    return Solution(ending, nothing, np.zeros(len(program.row_lower)), nothing, 0.0, 0.0, 0.0)


def _with_prices(program: Program, mixed: Solution) -> Solution:
    """The mixed-integer solution with the prices of the linear program whose integers are fixed at it."""
    whole = np.round(mixed.x)
    fixed = replace(
        program,
        lower=np.where(program.integer, whole, program.lower),
        upper=np.where(program.integer, whole, program.upper),
        integer=np.zeros_like(program.integer),
    )
    return replace(solve(fixed), ending=mixed.ending, gap=mixed.gap, basis=None, bound=mixed.bound)


def _engine(tolerance: float, gap: float, nodes: int) -> highspy.Highs:
    engine = highspy.Highs()  # type: ignore[no-untyped-call]
    engine.setOptionValue("output_flag", False)
    engine.setOptionValue("threads", 1)
    engine.setOptionValue("parallel", "off")
    engine.setOptionValue("random_seed", 0)
    engine.setOptionValue("primal_feasibility_tolerance", tolerance)
    engine.setOptionValue("dual_feasibility_tolerance", tolerance)
    engine.setOptionValue("mip_rel_gap", 0.0)
    engine.setOptionValue("mip_abs_gap", gap)
    engine.setOptionValue("mip_max_nodes", nodes)
    return engine


def _hand_over(engine: highspy.Highs, program: Program) -> None:
    """Whole arrays: the solver copies them at once, where attributes of its own model are copied number by number."""
    matrix = program.matrix
    engine.passModel(
        len(program.cost),
        len(program.row_lower),
        matrix.nnz,
        int(highspy.MatrixFormat.kRowwise),
        int(highspy.ObjSense.kMinimize),
        0.0,
        program.cost,
        program.lower,
        program.upper,
        program.row_lower,
        program.row_upper,
        matrix.indptr.astype(np.int32, copy=False),
        matrix.indices.astype(np.int32, copy=False),
        matrix.data.astype(np.float64, copy=False),
        program.integer.astype(np.int32),
    )


def _set_basis(engine: highspy.Highs, basis: highspy.HighsBasis, columns: int, rows: int) -> None:
    """Start from a neighbour's basis; columns and rows that it did not have enter at zero and as slack."""
    column_status, row_status = basis.col_status, basis.row_status
    if len(column_status) == columns and len(row_status) == rows:
        engine.setBasis(basis)
        return
    if len(column_status) > columns or len(row_status) > rows:
        return
    known = highspy.HighsBasis()
    status = highspy.HighsBasisStatus
    known.col_status = list(column_status) + [status.kLower] * (columns - len(column_status))
    known.row_status = list(row_status) + [status.kBasic] * (rows - len(row_status))
    known.valid = True
    engine.setBasis(known)


def _read(engine: highspy.Highs, program: Program) -> Solution:
    ending = _ENDINGS[engine.getModelStatus()]
    info = engine.getInfo()
    if ending in (Ending.INFEASIBLE, Ending.UNBOUNDED):
        nothing: Floats = np.zeros(0)
        return Solution(ending, nothing, nothing, nothing, float("nan"), float("nan"), 0.0)
    found = engine.getSolution()
    mixed = bool(program.integer.any())
    return Solution(
        ending=ending,
        x=np.clip(np.asarray(found.col_value), program.lower, program.upper),
        row_price=np.asarray(found.row_dual),
        reduced_cost=np.asarray(found.col_dual),
        cost=float(info.objective_function_value),
        gap=float(info.mip_gap) if mixed else 0.0,
        seconds=0.0,
        basis=None if mixed else engine.getBasis(),
        bound=float(info.mip_dual_bound if mixed else info.objective_function_value),
    )
