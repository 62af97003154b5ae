"""Optimal power flow cases of PGLib-OPF (IEEE PES Power Grid Library, arXiv:1908.02788, CC BY 4.0) as our tables, and
PYPOWER's arrays as our tables. Published objectives: its BASELINE.md, from PowerModels and Ipopt."""

from __future__ import annotations

from typing import Any

import numpy as np

from coflex.grid.tables import Branch, Bus, CostPoint, Dispatch, Generator, GridTables, Load, Shunt, Source

# bus: number, Pd, Qd, Bs, v_max, v_min. gen: bus, q_max, q_min, p_max, p_min, c2, c1. branch: from, to, r, x, b, MVA,
# ratio. The first generator's bus of `reference` is the slack.
CASES: dict[str, dict[str, Any]] = {
    "case3_lmbd": {
        "reference": 1,
        "bus": [(1, 110, 40, 0, 1.1, 0.9), (2, 110, 40, 0, 1.1, 0.9), (3, 95, 50, 0, 1.1, 0.9)],
        "gen": [
            (1, 1000, -1000, 2000, 0, 0.11, 5.0),
            (2, 1000, -1000, 2000, 0, 0.085, 1.2),
            (3, 1000, -1000, 0, 0, 0.0, 0.0),
        ],
        "branch": [
            (1, 3, 0.065, 0.62, 0.45, 9000, 0),
            (3, 2, 0.025, 0.75, 0.7, 50, 0),
            (1, 2, 0.042, 0.9, 0.3, 9000, 0),
        ],
    },
    "case5_pjm": {
        "reference": 4,
        "bus": [
            (1, 0, 0, 0, 1.1, 0.9),
            (2, 300, 98.61, 0, 1.1, 0.9),
            (3, 300, 98.61, 0, 1.1, 0.9),
            (4, 400, 131.47, 0, 1.1, 0.9),
            (5, 0, 0, 0, 1.1, 0.9),
        ],
        "gen": [
            (1, 30, -30, 40, 0, 0, 14),
            (1, 127.5, -127.5, 170, 0, 0, 15),
            (3, 390, -390, 520, 0, 0, 30),
            (4, 150, -150, 200, 0, 0, 40),
            (5, 450, -450, 600, 0, 0, 10),
        ],
        "branch": [
            (1, 2, 0.00281, 0.0281, 0.00712, 400, 0),
            (1, 4, 0.00304, 0.0304, 0.00658, 426, 0),
            (1, 5, 0.00064, 0.0064, 0.03126, 426, 0),
            (2, 3, 0.00108, 0.0108, 0.01852, 426, 0),
            (3, 4, 0.00297, 0.0297, 0.00674, 426, 0),
            (4, 5, 0.00297, 0.0297, 0.00674, 240, 0),
        ],
    },
    "case14_ieee": {
        "reference": 1,
        "bus": [
            (1, 0, 0, 0, 1.06, 0.94),
            (2, 21.7, 12.7, 0, 1.06, 0.94),
            (3, 94.2, 19.0, 0, 1.06, 0.94),
            (4, 47.8, -3.9, 0, 1.06, 0.94),
            (5, 7.6, 1.6, 0, 1.06, 0.94),
            (6, 11.2, 7.5, 0, 1.06, 0.94),
            (7, 0, 0, 0, 1.06, 0.94),
            (8, 0, 0, 0, 1.06, 0.94),
            (9, 29.5, 16.6, 19.0, 1.06, 0.94),
            (10, 9.0, 5.8, 0, 1.06, 0.94),
            (11, 3.5, 1.8, 0, 1.06, 0.94),
            (12, 6.1, 1.6, 0, 1.06, 0.94),
            (13, 13.5, 5.8, 0, 1.06, 0.94),
            (14, 14.9, 5.0, 0, 1.06, 0.94),
        ],
        "gen": [
            (1, 10, 0, 340, 0, 0, 7.920951),
            (2, 30, -30, 59, 0, 0, 23.269494),
            (3, 40, 0, 0, 0, 0, 0),
            (6, 24, -6, 0, 0, 0, 0),
            (8, 24, -6, 0, 0, 0, 0),
        ],
        "branch": [
            (1, 2, 0.01938, 0.05917, 0.0528, 472, 0),
            (1, 5, 0.05403, 0.22304, 0.0492, 128, 0),
            (2, 3, 0.04699, 0.19797, 0.0438, 145, 0),
            (2, 4, 0.05811, 0.17632, 0.034, 158, 0),
            (2, 5, 0.05695, 0.17388, 0.0346, 161, 0),
            (3, 4, 0.06701, 0.17103, 0.0128, 160, 0),
            (4, 5, 0.01335, 0.04211, 0.0, 664, 0),
            (4, 7, 0.0, 0.20912, 0.0, 141, 0.978),
            (4, 9, 0.0, 0.55618, 0.0, 53, 0.969),
            (5, 6, 0.0, 0.25202, 0.0, 117, 0.932),
            (6, 11, 0.09498, 0.1989, 0.0, 134, 0),
            (6, 12, 0.12291, 0.25581, 0.0, 104, 0),
            (6, 13, 0.06615, 0.13027, 0.0, 201, 0),
            (7, 8, 0.0, 0.17615, 0.0, 167, 0),
            (7, 9, 0.0, 0.11001, 0.0, 267, 0),
            (9, 10, 0.03181, 0.0845, 0.0, 325, 0),
            (9, 14, 0.12711, 0.27038, 0.0, 99, 0),
            (10, 11, 0.08205, 0.19207, 0.0, 141, 0),
            (12, 13, 0.22092, 0.19988, 0.0, 99, 0),
            (13, 14, 0.17093, 0.34802, 0.0, 76, 0),
        ],
    },
}


def published(name: str) -> GridTables:
    """A case as tables: the slack's bus has a source that costs nothing because it may deliver nothing."""
    case = CASES[name]
    reference = str(case["reference"])
    buses = case["bus"]
    generators = [(f"g{k}", *row) for k, row in enumerate(case["gen"], start=1)]
    return GridTables(
        buses=tuple(Bus(str(b[0]), 230.0, b[5], b[4], 0.0, 0.0, "") for b in buses),
        lines=(),
        transformers=(),
        switches=(),
        sources=(Source("above", reference, 1.0),),
        loads=tuple(Load(f"load{b[0]}", str(b[0]), b[1], b[2], "", "") for b in buses if b[1] or b[2]),
        generators=tuple(Generator(g[0], str(g[1]), 0.0, 0.0, "", "", 1.0) for g in generators),
        storages=(),
        branches=tuple(
            Branch(f"{b[0]}-{b[1]}", str(b[0]), str(b[1]), *b[2:4], 0.0, b[4], b[6] or 1.0, 0.0, 100.0, b[5], 100.0)
            for b in case["branch"]
        ),
        shunts=tuple(Shunt(f"shunt{b[0]}", str(b[0]), 0.0, b[3], 1, 1) for b in buses if b[3]),
        dispatches=tuple(Dispatch(g[0], g[5], g[4], g[3], g[2], g[6], g[7], 0.0) for g in generators),
    )


def of_arrays(ppc: Any) -> GridTables:
    """PYPOWER's arrays of a case (version 2, all in service) as tables."""
    bus, gen, branch, base = ppc["bus"].real, ppc["gen"].real, ppc["branch"].real, float(ppc["baseMVA"])
    cost = ppc["gencost"]
    reference = str(int(bus[bus[:, 1] == 3, 0][0]))
    units = [(f"g{k}", row, c) for k, (row, c) in enumerate(zip(gen, cost, strict=True)) if row[7] > 0]
    buses = [(str(int(row[0])), row) for row in bus]
    return GridTables(
        buses=tuple(Bus(name, row[9] or 1.0, row[12], row[11], 0.0, 0.0, "") for name, row in buses),
        lines=(),
        transformers=(),
        switches=(),
        sources=(Source("above", reference, 1.0),),
        loads=tuple(Load(f"load{name}", name, row[2], row[3], "", "") for name, row in buses if row[2] or row[3]),
        generators=tuple(Generator(name, str(int(row[0])), 0.0, 0.0, "", "", 1.0) for name, row, _ in units),
        storages=(),
        branches=tuple(
            Branch(
                f"b{k}",
                str(int(b[0])),
                str(int(b[1])),
                b[2],
                b[3],
                0.0,
                b[4],
                b[8] or 1.0,
                b[9],
                base,
                b[5] if b[5] < 9e3 else 0.0,
                100.0,
            )
            for k, b in enumerate(branch)
            if b[10] > 0
        ),
        shunts=tuple(Shunt(f"shunt{name}", name, row[4], row[5], 1, 1) for name, row in buses if row[4] or row[5]),
        dispatches=tuple(Dispatch(name, g[9], g[8], g[4], g[3], *polynomial(c)) for name, g, c in units),
        cost_points=tuple(
            CostPoint(f"{name} {i}", name, float(c[4 + 2 * i]), float(c[5 + 2 * i]))
            for name, _, c in units
            if c[0] == 1
            for i in range(int(c[3]))
        ),
    )


def polynomial(cost: Any) -> tuple[float, float, float]:
    """c2, c1, c0 of a row of costs; zeros for one that is linear in pieces."""
    if cost[0] == 1:
        return 0.0, 0.0, 0.0
    count = int(cost[3])
    found = np.zeros(3)
    found[3 - count :] = cost[4 : 4 + count]
    return float(found[0]), float(found[1]), float(found[2])
