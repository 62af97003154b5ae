"""AC power flow by the iterative current method (implicit Z-bus Gauss), many states at once.

    Y u' = conj(S / u)

One factorisation of the admittance matrix serves every state and every step. What a step leaves unmet is known
without another product: u' carries S u' / u instead of S. The method converges where loads move voltages little,
as in distribution grids; what it does not reach is told, not answered.

T.-H. Chen et al., "Distribution system power flow analysis - a rigid approach", IEEE Trans. Power Delivery 6 (1991)
1146, DOI 10.1109/61.85860.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np
from scipy.sparse.linalg import SuperLU, splu

from coflex.domain.quantity import Floats
from coflex.grid.network import Complexes, Network

# Power in MVA and voltage in pu by which the last step may change the state.
UNMET = 1e-9
CHANGE = 1e-9
STEPS = 40
# Complex numbers that are worked on at a time: they stay in the processor's cache.
ROOM = 65_536

_FACTORS: WeakKeyDictionary[Network, tuple[SuperLU, Complexes]] = WeakKeyDictionary()


def solve(network: Network, p_mw: Floats, q_mvar: Floats) -> Complexes:
    """Voltages (t, n) in pu for injections (t, n) in MW and Mvar of a network without held nodes.

    They are as far as `STEPS` steps lead; whether that is far enough is for the caller to prove.
    """
    factor, unloaded = _factor(network)
    inner = network.not_slack
    u = np.empty(p_mw.shape, dtype=np.complex128)
    u[:, network.slack] = network.slack_vm_pu
    size = max(1, ROOM // network.n)
    for first in range(0, len(p_mw), size):
        part = slice(first, first + size)
        conjugate = (p_mw[part, inner] - 1j * q_mvar[part, inner]).T
        u[part, inner] = _iterate(factor, unloaded[:, None], conjugate).T
    return u


def _iterate(factor: SuperLU, unloaded: Complexes, conjugate: Complexes) -> Complexes:
    """Voltages [nodes, t] of all nodes but the slack for the conjugate powers injected there."""
    u = np.repeat(unloaded.T, conjugate.shape[1], axis=0).T
    with np.errstate(all="ignore"):
        for _ in range(STEPS):
            current = conjugate / np.conj(u)
            following = factor.solve(current)
            following += unloaded
            change = np.abs(following - u)
            unmet = (change * np.abs(current)).max(initial=0.0)
            u = following
            if unmet < UNMET and change.max(initial=0.0) < CHANGE:
                break
    return u


def _factor(network: Network) -> tuple[SuperLU, Complexes]:
    """The factors of the admittances between all nodes but the slack, and the voltages there without load."""
    if network not in _FACTORS:
        y, inner = network.admittance.tocsc(), network.not_slack
        factor = splu(
            y[inner][:, inner].tocsc(),
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )
        from_slack = y[inner][:, [network.slack]].toarray()[:, 0]
        _FACTORS[network] = factor, factor.solve(-from_slack * network.slack_vm_pu)
    return _FACTORS[network]
