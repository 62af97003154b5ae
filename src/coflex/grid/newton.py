"""AC power flow with nodes that hold their voltage (PV nodes), by Newton's method in polar form.

W. F. Tinney and C. E. Hart, "Power flow solution by Newton's method", IEEE Trans. PAS-86 (1967) 1449,
DOI 10.1109/TPAS.1967.291823. Limits of reactive power are not enforced.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse.linalg import splu

from coflex.domain.errors import GridFailure
from coflex.domain.quantity import Floats
from coflex.grid.network import Complexes, Network
from coflex.grid.sensitivity import Linearisation

# MW and Mvar that an injection may lack at the end.
ACCURACY = 1e-8
STEPS = 30


def solve(network: Network, p_mw: Floats, q_mvar: Floats) -> Complexes:
    """Voltages u (t, n) in pu for injections (t, n) in MW and Mvar; `q_mvar` at held nodes is ignored.

    Raises GridFailure naming the first period that has no solution.
    """
    u = np.tile(_start(network), (len(p_mw), 1))
    target = p_mw + 1j * q_mvar
    waiting = np.arange(len(p_mw))
    for _ in range(STEPS + 1):
        missing_p, missing_q = _missing(network, u[waiting], target[waiting])
        worst = np.maximum(np.abs(missing_p).max(axis=1), np.abs(missing_q).max(axis=1))
        # A state that ran away is nan or infinite and never comes home.
        open_still = ~(worst < ACCURACY)
        waiting, missing_p, missing_q = waiting[open_still], missing_p[open_still], missing_q[open_still]
        if not len(waiting):
            return u
        if not np.isfinite(missing_p).all():
            break
        linear = Linearisation(network, u[waiting])
        for k, t in enumerate(waiting.tolist()):
            angle, magnitude = linear.step(k, missing_p[k], missing_q[k])
            u[t] = (np.abs(u[t]) + magnitude) * np.exp(1j * (np.angle(u[t]) + angle))
    raise GridFailure(
        f"The power flow of period {int(waiting[0])} has no solution ({len(waiting)} of {len(p_mw)} periods fail).",
        "The grid cannot carry these injections; look at loads and generation scaled too far.",
    )


def _missing(network: Network, u: Complexes, target: Complexes) -> tuple[Floats, Floats]:
    """What injections lack in MW and Mvar, and magnitudes in pu at held nodes; zero at the slack."""
    lacking = target - u * np.conj((network.admittance @ u.T).T)
    missing_p, missing_q = lacking.real.copy(), lacking.imag.copy()
    missing_q[:, network.held] = network.held_vm - np.abs(u[:, network.held])
    missing_p[:, network.slack] = missing_q[:, network.slack] = 0.0
    return missing_p, missing_q


def _start(network: Network) -> Complexes:
    """The state without load: it knows the angles that transformers turn. Magnitudes start at 1, or as held."""
    others = network.not_slack
    y = network.admittance.tocsc()
    u = np.full(network.n, complex(network.slack_vm_pu))
    u[others] = splu(y[others][:, others].tocsc()).solve(
        -y[others][:, [network.slack]].toarray()[:, 0] * u[network.slack]
    )
    start = np.exp(1j * np.angle(u))
    start[network.slack] = network.slack_vm_pu
    start[network.held] *= network.held_vm
    return np.asarray(start, dtype=np.complex128)
