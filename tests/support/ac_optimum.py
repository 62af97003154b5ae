"""The cheapest injections inside the limits of a network with the full power flow, by Ipopt: a second opinion."""

from __future__ import annotations

from typing import Any

import casadi
import numpy as np

from coflex.domain.quantity import Floats, Ints
from coflex.grid.network import Network


def ac_optimum(
    network: Network,
    p_mw: Floats,
    q_mvar: Floats,
    node: Ints,
    cost: Floats,
    most: Floats,
    tan_phi: float = 0.0,
) -> tuple[float, Floats]:
    """Least cost and the moves of `x[k]` in [0, |most[k]|] MW, in the sign of `most[k]`, at `node[k]`, one period.

    Rectangular voltages, currents at both ends and magnitudes as limits; the slack's voltage is given. Raises
    AssertionError where Ipopt finds no solution.
    """
    n, k = network.n, len(node)
    x, e, f = casadi.MX.sym("x", k), casadi.MX.sym("e", n), casadi.MX.sym("f", n)
    moved = casadi.DM(_place(node, np.sign(most), n)) @ x
    y = network.admittance.toarray()
    i_re, i_im = _product(y, e, f)
    p, q = e * i_re + f * i_im, f * i_re - e * i_im
    inner = network.not_slack.tolist()
    square = e**2 + f**2
    rules: list[tuple[Any, Any, Any]] = [
        ((p - moved)[inner], p_mw[inner], p_mw[inner]),
        ((q - tan_phi * moved)[inner], q_mvar[inner], q_mvar[inner]),
        (square[inner], network.v_min[inner] ** 2, network.v_max[inner] ** 2),
        (e[network.slack], network.slack_vm_pu, network.slack_vm_pu),
        (f[network.slack], 0.0, 0.0),
    ]
    for matrix, rating in zip(network.terminal_admittance, (network.rating_from, network.rating_to), strict=True):
        re, im = _product(matrix.toarray(), e, f)
        rated = np.flatnonzero(np.isfinite(rating)).tolist()
        allowed = ((rating * network.loading_max) ** 2)[rated]
        rules.append((((re**2 + im**2)[rated]) / allowed, np.full(len(rated), -np.inf), np.ones(len(rated))))
    low, high = (np.concatenate([np.atleast_1d(rule[side]) for rule in rules]) for side in (1, 2))
    problem = {
        "x": casadi.vertcat(x, e, f),
        "f": casadi.dot(cost, x),
        "g": casadi.densify(casadi.vertcat(*(r[0] for r in rules))),
    }
    quiet = {"ipopt.print_level": 0, "print_time": 0, "ipopt.sb": "yes", "ipopt.tol": 1e-10}
    solver = casadi.nlpsol("optimum", "ipopt", problem, quiet)
    start = network.slack_vm_pu * np.exp(1j * _angles(network))
    found = solver(
        x0=np.concatenate([np.abs(most) / 2, start.real, start.imag]),
        lbx=np.concatenate([np.zeros(k), np.full(2 * n, -2.0)]),
        ubx=np.concatenate([np.abs(most), np.full(2 * n, 2.0)]),
        lbg=low,
        ubg=high,
    )
    assert solver.stats()["success"], solver.stats()["return_status"]
    return float(found["f"]), np.asarray(found["x"])[:k, 0]


def _place(node: Ints, value: Floats, n: int) -> Floats:
    placed = np.zeros((n, len(node)))
    placed[node, np.arange(len(node))] = value
    return placed


def _product(matrix: Any, e: Any, f: Any) -> tuple[Any, Any]:
    g, b = casadi.DM(matrix.real), casadi.DM(matrix.imag)
    g, b = casadi.sparsify(g), casadi.sparsify(b)
    return g @ e - b @ f, g @ f + b @ e


def _angles(network: Network) -> Floats:
    """Angles of the state without load, which transformers turn."""
    y = network.admittance.toarray()
    at = network.not_slack
    u = np.full(network.n, network.slack_vm_pu, dtype=complex)
    u[at] = np.linalg.solve(y[np.ix_(at, at)], -y[at, network.slack] * network.slack_vm_pu)
    return np.angle(u)
