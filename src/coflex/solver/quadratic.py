"""Convex quadratic programs over the arrays of a linear one: by Clarabel, or by HiGHS where nothing is curved."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from coflex.domain.errors import SolverFailure
from coflex.domain.quantity import Floats, Ints
from coflex.solver import cone, highs
from coflex.solver.program import Ending, Program, Solution

# Relative gap and residuals, tried in this order: prices are read from these programs.
ACCURACIES = (1e-10, 1e-9, 1e-8, 1e-6)


def solve(program: Program, hessian: sparse.csr_array | None = None) -> Solution:
    """min 1/2 x'H x + c'x over a program without integers; H (n, n), symmetric and positive semidefinite, or None.

    `row_price` (m,): change of cost per unit of row bound; `reduced_cost` (n,) = c + Hx - A' row_price. The basis is
    left out. Raises SolverFailure when the solver stops for any other reason than an optimum or a proof that there
    is none.
    """
    if hessian is None or not hessian.nnz:
        return highs.solve(program)
    tied, fixed = program.row_lower == program.row_upper, program.lower == program.upper
    sides = (
        (program.row_upper, np.isfinite(program.row_upper) & ~tied, 1.0),
        (program.row_lower, np.isfinite(program.row_lower) & ~tied, -1.0),
        (program.upper, np.isfinite(program.upper) & ~fixed, 1.0),
        (program.lower, np.isfinite(program.lower) & ~fixed, -1.0),
    )
    cuts = np.cumsum([int(mask.sum()) for _, mask, _ in sides])
    found = _most_accurate(
        cone.ConeProgram(
            cost=program.cost,
            equal=_rows(program, np.flatnonzero(tied), np.flatnonzero(fixed)),
            equal_to=np.concatenate([program.row_lower[tied], program.lower[fixed]]),
            upper=_rows(
                program,
                np.concatenate([np.flatnonzero(mask) for _, mask, _ in sides[:2]]),
                np.concatenate([np.flatnonzero(mask) for _, mask, _ in sides[2:]]),
                np.repeat([sign for _, _, sign in sides], np.diff(cuts, prepend=0)),
            ),
            under=np.concatenate([sign * bound[mask] for bound, mask, sign in sides]),
            cone=sparse.csr_array((0, len(program.cost))),
            offset=np.zeros(0),
            sizes=np.zeros(0, dtype=np.int64),
            quadratic=hessian,
        )
    )
    if found.ending is not Ending.OPTIMAL:
        empty: Floats = np.zeros(0)
        return Solution(found.ending, empty, empty, empty, float("nan"), float("nan"), found.seconds)
    row_price = np.zeros(len(program.row_lower))
    row_price[tied] = found.equal_price[: int(tied.sum())]
    for (_, mask, sign), price in zip(sides[:2], np.split(found.upper_price, cuts)[:2], strict=True):
        row_price[mask] += sign * price
    x = np.clip(found.x, program.lower, program.upper)
    reduced = program.cost + hessian @ x - program.matrix.T @ row_price
    return Solution(found.ending, x, row_price, reduced, found.cost, 0.0, found.seconds)


def _most_accurate(program: cone.ConeProgram) -> cone.ConeSolution:
    for accuracy in ACCURACIES[:-1]:
        try:
            return cone.solve(program, accuracy)
        except SolverFailure:
            continue
    return cone.solve(program, ACCURACIES[-1])


def _rows(program: Program, rows: Ints, columns: Ints, sign: Floats | None = None) -> sparse.csr_array:
    """Rows of the matrix, then unit rows of columns, each times its sign."""
    matrix = program.matrix
    count = np.diff(matrix.indptr)[rows]
    place = np.repeat(matrix.indptr[rows] - np.cumsum(count) + count, count) + np.arange(int(count.sum()))
    pointer = np.concatenate([[0], np.cumsum(np.append(count, np.ones(len(columns), dtype=np.int64)))])
    index = np.concatenate([matrix.indices[place], columns])
    entry = np.concatenate([matrix.data[place], np.ones(len(columns))])
    if sign is not None:
        entry = entry * np.repeat(sign, np.diff(pointer))
    return sparse.csr_array((entry, index, pointer), shape=(len(rows) + len(columns), len(program.cost)))
