"""AC power flow with nodes that hold their voltage (PV nodes), by Newton's method in polar form.

W. F. Tinney and C. E. Hart, "Power flow solution by Newton's method", IEEE Trans. PAS-86 (1967) 1449,
DOI 10.1109/TPAS.1967.291823. Limits of reactive power are not enforced.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

from coflex.domain.errors import GridFailure
from coflex.domain.quantity import Bools, Floats
from coflex.grid.network import Complexes, Network
from coflex.grid.sensitivity import Linearisation

# MW and Mvar that an injection may lack at the end.
ACCURACY = 1e-8
STEPS = 30


def solve(network: Network, p_mw: Floats, q_mvar: Floats) -> Complexes:
    """Voltages u (t, n) in pu for injections (t, n) in MW and Mvar; `q_mvar` at held nodes is ignored.

    Begins at the angles of the linear (DC) power flow, and where that leads nowhere at the state without load. Raises
    GridFailure naming the first period that has no solution.
    """
    u = np.zeros((len(p_mw), network.n), dtype=np.complex128)
    waiting = np.arange(len(p_mw))
    for start in (_direct, _idle):
        u[waiting], found = _search(network, p_mw[waiting], q_mvar[waiting], start(network, p_mw[waiting]))
        waiting = waiting[~found]
        if not len(waiting):
            return u
    raise GridFailure(
        f"The power flow of period {int(waiting[0])} has no solution ({len(waiting)} of {len(p_mw)} periods fail).",
        "The grid cannot carry these injections; look at loads and generation scaled too far.",
    )


def _search(network: Network, p_mw: Floats, q_mvar: Floats, u: Complexes) -> tuple[Complexes, Bools]:
    """Newton's steps from u (t, n), and which periods came home."""
    target = p_mw + 1j * q_mvar
    found = np.zeros(len(u), dtype=np.bool_)
    running = np.arange(len(u))
    for _ in range(STEPS + 1):
        missing_p, missing_q = _missing(network, u[running], target[running])
        worst = np.maximum(np.abs(missing_p).max(axis=1), np.abs(missing_q).max(axis=1))
        found[running[worst < ACCURACY]] = True
        # A state that ran away is nan or infinite and never comes home.
        on = (worst >= ACCURACY) & np.isfinite(worst)
        running, missing_p, missing_q = running[on], missing_p[on], missing_q[on]
        if not len(running):
            break
        linear = Linearisation(network, u[running])
        lost = []
        for k, t in enumerate(running.tolist()):
            try:
                angle, magnitude = linear.step(k, missing_p[k], missing_q[k])
            except RuntimeError:  # a singular Jacobian
                lost.append(k)
                continue
            with np.errstate(over="ignore", invalid="ignore"):
                u[t] = (np.abs(u[t]) + magnitude) * np.exp(1j * (np.angle(u[t]) + angle))
        running = np.delete(running, lost)
    return u, found


def _missing(network: Network, u: Complexes, target: Complexes) -> tuple[Floats, Floats]:
    """What injections lack in MW and Mvar, and magnitudes in pu at held nodes; zero at the slack."""
    lacking = target - u * np.conj((network.admittance @ u.T).T)
    missing_p, missing_q = lacking.real.copy(), lacking.imag.copy()
    missing_q[:, network.held] = network.held_vm - np.abs(u[:, network.held])
    missing_p[:, network.slack] = missing_q[:, network.slack] = 0.0
    return missing_p, missing_q


def _direct(network: Network, p_mw: Floats) -> Complexes:
    """Angles of the linear power flow (t, n): B' angle = p with the angles that transformers turn. Magnitudes 1, or
    as held."""
    on = network.from_on & network.to_on
    reactance = (1.0 / network.y_series).imag
    stiffness = np.where(on & (reactance != 0), 1.0 / np.where(reactance != 0, reactance, 1.0), 0.0) / np.abs(
        network.tap
    )
    rows, m = np.arange(network.m), network.m
    ends = np.r_[network.from_node, network.to_node]
    incidence = sparse.csr_array((np.repeat([1.0, -1.0], m), (np.r_[rows, rows], ends)), shape=(m, network.n))
    others = network.not_slack
    matrix = (incidence.T @ sparse.diags_array(stiffness) @ incidence).tocsc()[others][:, others]
    injected = p_mw + incidence.T @ (stiffness * np.angle(network.tap))
    angle = np.zeros((len(p_mw), network.n))
    try:
        angle[:, others] = splu(matrix.tocsc()).solve(np.ascontiguousarray(injected[:, others].T)).T
    except RuntimeError:  # branches without reactance: the other start may do
        angle[:] = np.nan
    return _at(network, angle)


def _idle(network: Network, p_mw: Floats) -> Complexes:
    """Angles of the state without load, the same in all periods."""
    others = network.not_slack
    y = network.admittance.tocsc()
    u = np.full(network.n, complex(network.slack_vm_pu))
    drawn = y[others][:, [network.slack]].toarray()[:, 0] * u[network.slack]
    try:
        u[others] = splu(y[others][:, others].tocsc()).solve(-drawn)
    except RuntimeError:  # shunts in resonance with the grid
        u[others] = np.nan
    return _at(network, np.tile(np.angle(u), (len(p_mw), 1)))


def _at(network: Network, angle: Floats) -> Complexes:
    magnitude = np.ones(network.n)
    magnitude[network.slack] = network.slack_vm_pu
    magnitude[network.held] = network.held_vm
    return np.asarray(magnitude * np.exp(1j * angle), dtype=np.complex128)
