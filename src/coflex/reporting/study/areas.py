"""P-Q areas of a grid as tables (GRID-10)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coflex.domain.errors import Finding
from coflex.domain.quantity import Floats
from coflex.grid.area import area
from coflex.grid.controllable import Controllables, controllables
from coflex.reporting.study.case import GridCase
from coflex.reporting.study.flexibility import Flexibility, flexibility


@dataclass(frozen=True, slots=True)
class Corner:
    """A corner of a period's area: the exchange that the grid above delivers, and EUR/h of the cheapest way there."""

    start: str
    p_mw: float
    q_mvar: float
    cost_eur_h: float


@dataclass(frozen=True, slots=True)
class PeriodArea:
    """The reach of a period's area and its size in MW Mvar; `convex`: no part inside it is out of reach."""

    start: str
    feasible: bool
    convex: bool
    p_min_mw: float | None
    p_max_mw: float | None
    q_min_mvar: float | None
    q_max_mvar: float | None
    size: float | None


@dataclass(frozen=True, slots=True)
class AreaAnswer:
    """What the grid can exchange with the grid above within all its limits, period by period; `broken`: the limits
    that no choice keeps."""

    grid: str
    periods: int
    feasible: bool
    areas: tuple[PeriodArea, ...]
    corners: tuple[Corner, ...]
    broken: tuple[str, ...]
    findings: tuple[Finding, ...]


def pq_area(case: GridCase, directions: int, price_eur_mwh: float | None) -> AreaAnswer:
    """The area of every period, looked for in so many directions. Raises as `grid.area.area`."""
    flexible = flexibility(case)
    price = None if price_eur_mwh is None else np.full(len(case.labels), price_eur_mwh)
    found = area(case.network, *case.injections, _choices(case, flexible), price, directions)
    areas, corners = [], []
    for t, label in enumerate(case.labels):
        p, q = found.vertices_p[t], found.vertices_q[t]
        if not found.feasible[t]:
            areas.append(PeriodArea(label, False, False, None, None, None, None, None))
            continue
        ranges = float(p.min()), float(p.max()), float(q.min()), float(q.max())
        areas.append(PeriodArea(label, True, bool(found.convex[t]), *ranges, _size(p, q)))
        corners += [Corner(label, float(a), float(b), float(c)) for a, b, c in zip(p, q, found.cost[t], strict=True)]
    return AreaAnswer(
        case.name,
        len(case.labels),
        bool(found.feasible.all()),
        tuple(areas),
        tuple(corners),
        tuple(f"{case.labels[t]}: {name}" for t, name in found.broken),
        (*case.findings, *flexible.findings),
    )


def _size(p: Floats, q: Floats) -> float:
    """Area of the polygon (Gauss)."""
    return float(abs(np.dot(p, np.roll(q, -1)) - np.dot(q, np.roll(p, -1))) / 2)


def _choices(case: GridCase, flexible: Flexibility) -> Controllables:
    """Changes on top of the injections: reactive power is free within a dispatch row's range, else it follows."""
    rows = {row.element: row for row in case.tables.dispatches}
    up, down = flexible.up_mw.T, flexible.down_mw.T
    own_p, own_q = case.p_mw[flexible.element].T, case.q_mvar[flexible.element].T
    given = [rows.get(name) for name in flexible.names]
    c1 = np.array([0.0 if row is None else row.c1_eur_mwh for row in given])
    c2 = np.array([0.0 if row is None else row.c2_eur_mw2h for row in given])
    # The cost of a change from where the element stands.
    price = c1 + 2 * c2 * own_p
    low = np.array([0.0 if row is None else row.q_min_mvar for row in given])
    high = np.array([0.0 if row is None else row.q_max_mvar for row in given])
    free = high > low
    sets = []
    for mine, has_range in ((~free, False), (free, True)):
        at = np.flatnonzero(mine)
        if len(at):
            sets.append(
                controllables(
                    tuple(flexible.names[k] for k in at.tolist()),
                    flexible.node[at],
                    (-down[:, at], up[:, at]),
                    (low[at] - own_q[:, at], high[at] - own_q[:, at]) if has_range else None,
                    price[:, at],
                    None if has_range else flexible.tan_phi[at],
                )
            )
    return sets[0] if len(sets) == 1 else sets[0].then(sets[1])
