"""Limits and costs of pandapower's optimal power flow as rows of dispatch; injection positive."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from coflex.adapters.grids.pandapower_reading import Reading, number
from coflex.grid.tables import CostPoint, Dispatch

# Where a limit is not given; far beyond any grid, near enough for a solver.
UNLIMITED_MW = 1e6

_CALLABLE = ("ext_grid", "gen", "sgen", "storage", "load")
# pandapower counts the power of these as withdrawal.
_WITHDRAWING = ("load", "storage")


def dispatch(read: Reading) -> tuple[tuple[Dispatch, ...], tuple[CostPoint, ...]]:
    """Elements that may be called or have a cost. Costs of reactive power are left out with a note; a curve that is
    not convex, or not one curve, is a fault."""
    polynomials = _by_element(read, "poly_cost")
    curves = _by_element(read, "pwl_cost")
    rows: list[Dispatch] = []
    points: list[CostPoint] = []
    for table in _CALLABLE:
        for row, name in read.rows(table):
            key = table, row.Index
            free = getattr(row, "controllable", None)
            free = table == "gen" if free is None else bool(free)
            limited = any(getattr(row, column, None) is not None for column in ("min_p_mw", "max_p_mw"))
            if row.bus not in read.buses or not (key in polynomials or key in curves or (free and limited)):
                continue
            rows.append(_row(row, name, table, polynomials.get(key), free or table == "ext_grid"))
            if key in curves:
                points += _points(read, name, table, curves[key])
    for table, index in {*polynomials, *curves}:
        if table not in _CALLABLE:
            message = "Only sources, generators, storages and loads have a cost here; give it to one of these."
            read.fault(table, read.names.get(table, {}).get(index, str(index)), "cost_of_other", message)
    return tuple(rows), tuple(points)


def _by_element(read: Reading, table: str) -> dict[tuple[str, int], Any]:
    frame = read.net.get(table)
    found: dict[tuple[str, int], Any] = {}
    if frame is None or not len(frame):
        return found
    for row in frame.itertuples():
        key = row.et, int(row.element)
        name = read.names.get(row.et, {}).get(key[1], str(key[1]))
        reactive = [column for column in ("cq1_eur_per_mvar", "cq2_eur_per_mvar2") if number(row, column, 0)]
        if reactive or getattr(row, "power_type", "p") == "q":
            read.note(row.et, name, "reactive_cost", "Its cost of reactive power has no place here and is left out.")
        if getattr(row, "power_type", "p") == "q":
            continue
        if key in found:
            read.fault(row.et, name, "several_costs", f"It has several rows in net.{table}; keep one.")
        found[key] = row
    return found


def _row(row: Any, name: str, table: str, cost: Any, free: bool) -> Dispatch:
    sign = -1.0 if table in _WITHDRAWING else 1.0
    fixed = number(row, "p_mw", 0) * number(row, "scaling", 1)
    p_low, p_high = _limits(row, "p_mw", sign) if free else (sign * fixed, sign * fixed)
    fixed_q = number(row, "q_mvar", 0) * number(row, "scaling", 1)
    q_free = free or table == "gen"
    q_low, q_high = _limits(row, "q_mvar", sign) if q_free else (sign * fixed_q, sign * fixed_q)
    if cost is None:
        return Dispatch(name, p_low, p_high, q_low, q_high, 0.0, 0.0, 0.0)
    # A cost is the same money whichever way the power is counted: odd powers change their sign.
    c2, c1, c0 = (number(cost, column, 0) for column in ("cp2_eur_per_mw2", "cp1_eur_per_mw", "cp0_eur"))
    return Dispatch(name, p_low, p_high, q_low, q_high, c2, sign * c1, c0)


def _limits(row: Any, what: str, sign: float) -> tuple[float, float]:
    low, high = number(row, f"min_{what}", -UNLIMITED_MW), number(row, f"max_{what}", UNLIMITED_MW)
    low, high = max(low, -UNLIMITED_MW), min(high, UNLIMITED_MW)
    return (low, high) if sign > 0 else (-high, -low)


def _points(read: Reading, name: str, table: str, row: Any) -> Iterator[CostPoint]:
    """Corners of a curve given as areas (from, to, slope), from the cost zero at no power."""
    sign = -1.0 if table in _WITHDRAWING else 1.0
    areas = sorted((float(a), float(b), float(slope)) for a, b, slope in row.points)
    joined = all(one[1] == two[0] for one, two in pairwise(areas))
    if not joined or any(one[2] > two[2] for one, two in pairwise(areas)):
        message = "Its cost curve has a gap or falling slopes; give consecutive areas with rising slopes."
        read.fault(table, name, "not_convex", message)
        return
    powers = [areas[0][0], *(area[1] for area in areas)]
    # pandapower prices the first corner by the first slope.
    costs = [areas[0][0] * areas[0][2]]
    for low, high, slope in areas:
        costs.append(costs[-1] + (high - low) * slope)
    pairs = sorted((sign * p, cost) for p, cost in zip(powers, costs, strict=True))
    for k, (p, cost) in enumerate(pairs, start=1):
        yield CostPoint(f"{name} {k}", name, p, cost)
