"""The optimal dispatch of one period written once more, in rectangular voltages with every balance as an equation,
and solved by Ipopt through casadi: a second opinion on costs and on prices at every bus."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import casadi as ca
import numpy as np

from coflex.domain.quantity import Floats
from coflex.grid.controllable import Controllables
from coflex.grid.network import Network


@dataclass(frozen=True, eq=False)
class IpoptAnswer:
    """`price` (n,): multipliers of the balances, EUR/MWh + j EUR/Mvarh of withdrawal."""

    cost: float
    u: np.ndarray
    p_mw: Floats
    q_mvar: Floats
    price: np.ndarray
    solved: bool


def ipopt_dispatch(
    network: Network,
    injection: np.ndarray,
    chosen: Controllables,
    start: np.ndarray,
    voltages: bool = False,
    apparent: bool = False,
) -> IpoptAnswer:
    """Solve period 0 of `chosen` on top of complex injections (n,), from voltages `start` (n,)."""
    n, k = network.n, len(chosen)
    re, im = ca.MX.sym("re", n), ca.MX.sym("im", n)
    p, q = ca.MX.sym("p", k), ca.MX.sym("q", k)
    current = times(network.admittance, re, im)
    real = re * current[0] + im * current[1]
    reactive = im * current[0] - re * current[1]
    at = ca.DM(np.eye(n)[:, chosen.node])
    rows = [
        (real - ca.mtimes(at, p), injection.real, injection.real),
        (reactive - ca.mtimes(at, q), injection.imag, injection.imag),
    ]
    # Magnitudes in pu and not squared, so that limits have the same unit as ours.
    length2 = re**2 + im**2
    low, high = network.v_min.copy(), network.v_max.copy()
    if not voltages:
        low[network.slack] = high[network.slack] = network.slack_vm_pu
        low[network.held] = high[network.held] = network.held_vm
    rows.append((ca.sqrt(length2), low, high))
    for y, node, rating in zip(
        network.terminal_admittance,
        (network.from_node, network.to_node),
        (network.rating_from, network.rating_to),
        strict=True,
    ):
        rated = np.flatnonzero(np.isfinite(rating))
        part = times(y[rated], re, im)
        squared = part[0] ** 2 + part[1] ** 2
        if apparent:
            squared = squared * length2[node[rated].tolist()]
        bound = (network.loading_max * rating)[rated]
        rows.append((squared / bound**2, np.full(len(rated), -np.inf), np.ones(len(rated))))
    tied = np.flatnonzero(~np.isnan(chosen.tan_phi))
    zero = np.zeros(len(tied))
    rows.append((q[tied.tolist()] - chosen.tan_phi[tied] * p[tied.tolist()], zero, zero))
    rows.append((im[network.slack], np.zeros(1), np.zeros(1)))
    cost, extra = expense(chosen, p, q, rows)
    limits = bounds(chosen)
    free = np.full(2 * n, np.inf)
    x = ca.vertcat(re, im, p, q, *extra)
    more = np.full(sum(e.numel() for e in extra), np.inf)
    solver = ca.nlpsol(
        "dispatch",
        "ipopt",
        {"x": x, "f": cost, "g": ca.vertcat(*(row for row, _, _ in rows))},
        {
            "print_time": False,
            "ipopt.print_level": 0,
            "ipopt.tol": 1e-9,
            "ipopt.sb": "yes",
            "ipopt.max_iter": 500,
            "ipopt.bound_relax_factor": 0.0,
        },
    )
    guess = [np.clip(0.0, a, b) for a, b in limits]
    found = solver(
        x0=np.concatenate([start.real, start.imag, *guess, np.zeros(len(more))]),
        lbx=np.concatenate([-free, limits[0][0], limits[1][0], -more]),
        ubx=np.concatenate([free, limits[0][1], limits[1][1], more]),
        lbg=np.concatenate([low for _, low, _ in rows]),
        ubg=np.concatenate([high for _, _, high in rows]),
    )
    values, multipliers = np.asarray(found["x"])[:, 0], np.asarray(found["lam_g"])[:, 0]
    return IpoptAnswer(
        float(found["f"]),
        values[:n] + 1j * values[n : 2 * n],
        values[2 * n : 2 * n + k],
        values[2 * n + k : 2 * n + 2 * k],
        multipliers[:n] + 1j * multipliers[n : 2 * n],
        bool(solver.stats()["success"]),
    )


def bounds(chosen: Controllables) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
    tied = ~np.isnan(chosen.tan_phi)
    low, high = chosen.q_min[0].copy(), chosen.q_max[0].copy()
    low[tied], high[tied] = -np.inf, np.inf
    return (chosen.p_min[0], chosen.p_max[0]), (low, high)


def expense(chosen: Controllables, p: Any, q: Any, rows: list[tuple[Any, Floats, Floats]]) -> tuple[Any, list[Any]]:
    """The cost, with an own variable above every piece of a curve."""
    cost = ca.dot(chosen.c1[0], p) + ca.dot(chosen.c2, p**2) + ca.dot(chosen.q1[0], q)
    extra = []
    for i in range(len(chosen)):
        pieces = []
        if np.isnan(chosen.tan_phi[i]) and chosen.use[i]:
            pieces.append([(sign * chosen.use[i] * q[i], 0.0) for sign in (-1, 1)])
        corners = sorted(chosen.corners[i]) if chosen.corners else []
        if corners:
            pieces.append([((d - b) / (c - a) * (p[i] - a) + b, 0.0) for (a, b), (c, d) in pairwise(corners)])
        for lines in pieces:
            above = ca.MX.sym(f"above{i}")
            extra.append(above)
            cost = cost + above
            for line, _ in lines:
                rows.append((above - line, np.zeros(1), np.full(1, np.inf)))
    return cost, extra


def times(matrix: Any, re: Any, im: Any) -> tuple[Any, Any]:
    """Real and imaginary part of a complex sparse matrix times re + j im."""
    g, b = (sparse_dm(part) for part in (matrix.real, matrix.imag))
    return ca.mtimes(g, re) - ca.mtimes(b, im), ca.mtimes(g, im) + ca.mtimes(b, re)


def sparse_dm(matrix: Any) -> Any:
    return ca.DM(matrix.tocsc().astype(float).toarray())
