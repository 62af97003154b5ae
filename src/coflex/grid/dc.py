"""The `dc` grid model, for transmission: real power alone, voltages at 1 pu, no losses.

Flow of branch b from i to j:  P = (a_i - a_j - shift) / (x k),  and  sum of flows = injection  at every node, the model
of B. Stott, J. Jardim and O. Alsac, "DC power flow revisited", IEEE Trans. Power Syst. 24 (2009) 1290,
doi:10.1109/TPWRS.2009.2021235, with ratios k as in MATPOWER. Limits are on MW; voltages have none here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import SuperLU, splu

from coflex.domain.errors import GridFailure
from coflex.domain.quantity import Floats, Ints
from coflex.grid.network import Network
from coflex.grid.powerflow import GridState
from coflex.grid.rows import HIGH, LOW, AcGrid, Guard
from coflex.grid.sensitivity import FROM_END, TO_END, Quantities


class DcGrid(AcGrid):
    """The `dc` model. Loadings are MW over the rating at rated voltage, the same at both ends but for ratings."""

    def with_guard(self, guard: Guard) -> DcGrid:
        return DcGrid(self.network, self.p_mw, self.q_mvar, guard)

    def believe(self, p_mw: Floats, q_mvar: Floats) -> GridState:
        """`q_mvar` does not matter and is zero in the state."""
        network, flow = self.network, dc_flow(self.network)
        angle = flow.angles(p_mw)
        power = flow.powers(angle)
        own = p_mw.copy()
        own[:, network.slack] = 0.0
        delivered = (flow.incidence.T[[network.slack]] @ power.T)[0] + network.node_shunt.real[network.slack]
        return GridState(
            np.exp(1j * angle),
            own,
            np.zeros_like(own),
            np.abs(power) / network.rating_from,
            np.abs(power) / network.rating_to,
            delivered,
            np.zeros(len(own)),
        )

    def slopes(self, state: GridState, wanted: Quantities) -> tuple[Floats, Floats]:
        """Distribution factors in the flow's direction as a share of the rating; voltages never move."""
        network, flow = self.network, dc_flow(self.network)
        power = flow.powers(flow.angles(state.p_mw))
        dp = np.zeros((len(wanted), network.n))
        for kind, rating in ((FROM_END, network.rating_from), (TO_END, network.rating_to)):
            rows = np.flatnonzero(wanted.kind == kind)
            branch = wanted.index[rows]
            sign = np.where(power[wanted.period[rows], branch] < 0, -1.0, 1.0) / rating[branch]
            dp[rows] = sign[:, None] * flow.factors(branch)
        return dp, np.zeros_like(dp)

    def _margins(self, state: GridState) -> dict[int, Floats]:
        margins = super()._margins(state)
        for form in (HIGH, LOW):
            margins[form][:] = -np.inf
        return margins


@dataclass(frozen=True, eq=False)
class DcFlow:
    """Flows of a network: `incidence` (m, n), +1 at from and -1 at to of closed branches; `susceptance`, `shift` (m,);
    `factor` of the matrix between nodes other than the slack."""

    network: Network
    incidence: sparse.csr_array
    susceptance: Floats
    shift: Floats
    factor: SuperLU

    def angles(self, p_mw: Floats) -> Floats:
        """Angles (t, n) in rad for injections (t, n) in MW."""
        at = self.network.not_slack
        constant = self.incidence.T @ (self.susceptance * self.shift) - self.network.node_shunt.real
        angle = np.zeros(p_mw.shape)
        angle[:, at] = self.factor.solve(np.ascontiguousarray((p_mw + constant)[:, at].T)).T
        return angle

    def powers(self, angle: Floats) -> Floats:
        """MW from the from to the to end of each branch, (t, m)."""
        power: Floats = self.susceptance * ((self.incidence @ angle.T).T - self.shift)
        return power

    def factors(self, branch: Ints) -> Floats:
        """MW on each of these branches for one MW injected at each node and taken at the slack, (rows, n)."""
        at = self.network.not_slack
        gradient = (sparse.diags_array(self.susceptance) @ self.incidence)[branch][:, at].toarray()
        found = np.zeros((len(branch), self.network.n))
        found[:, at] = self.factor.solve(np.ascontiguousarray(gradient.T), trans="T").T
        return found


@lru_cache(maxsize=8)
def dc_flow(network: Network) -> DcFlow:
    """The linear system of a network, factorised. Raises GridFailure naming branches without reactance."""
    closed = network.from_on & network.to_on
    x = (1 / network.y_series).imag
    flat = np.flatnonzero(closed & (np.abs(x) < 1e-12))
    if len(flat):
        raise GridFailure(
            f"The dc model needs a reactance, and {network.branch_names[flat[0]]} has none ({len(flat)} in all).",
            "Give its reactance, or use the linear or the ac model.",
        )
    susceptance = np.where(closed, 1 / np.where(closed, x, 1.0) / np.abs(network.tap), 0.0)
    rows = np.arange(network.m)
    index = (np.r_[rows, rows], np.r_[network.from_node, network.to_node])
    incidence = sparse.csr_array((np.r_[closed * 1.0, closed * -1.0], index), shape=(network.m, network.n))
    at = network.not_slack
    matrix = incidence.T @ sparse.diags_array(susceptance) @ incidence
    return DcFlow(
        network, incidence, susceptance, np.angle(network.tap), splu(sparse.csc_array(matrix)[at][:, at].tocsc())
    )
