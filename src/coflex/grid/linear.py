"""The `linear` grid model: branch flow without losses, which on a radial grid is LinDistFlow.

Squared voltages w and angles a answer linearly to injections. With U_i' = U_i / t behind a branch's transformer:

    w_i' - w_j = 2 (r P + x Q)          a_i' - a_j = x P - r Q          P + jQ enters the series element and leaves it

The first is the branch flow equation of Baran and Wu (1989, doi:10.1109/61.25627) less its term in r^2 + x^2; on a
radial grid it settles w and all flows alone. The second closes the loops of a meshed one (the imaginary part of
U_i' conj(U_j) for small angles and voltages near 1), so both are one system, with one matrix for all periods.
Charging and magnetising powers are linear in w and stay exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import SuperLU, splu

from coflex.domain.errors import GridFailure
from coflex.domain.quantity import Floats
from coflex.grid.network import Complexes, Network
from coflex.grid.powerflow import GridState
from coflex.grid.rows import AcGrid, Guard
from coflex.grid.sensitivity import FROM_END, TO_END, VOLTAGE, Quantities


class LinearGrid(AcGrid):
    """The `linear` model. Currents are apparent power at rated voltage; rows are tangents of their circle."""

    def with_guard(self, guard: Guard) -> LinearGrid:
        return LinearGrid(self.network, self.p_mw, self.q_mvar, guard)

    def believe(self, p_mw: Floats, q_mvar: Floats) -> GridState:
        """Raises GridFailure where a squared voltage would be negative."""
        network, flow = self.network, linear_flow(self.network)
        w, angle = flow.solve(p_mw, q_mvar)
        if not (w > 0).all():
            t, node = np.argwhere(~(w > 0))[0]
            raise GridFailure(
                f"The linear model has no voltage at {network.node_names[node]} in period {t}.",
                "The grid cannot carry these injections; look at loads scaled too far.",
            )
        s_from, s_to = flow.terminal_powers(w, angle)
        delivered = flow.delivered(w, angle)
        own_p, own_q = p_mw.copy(), q_mvar.copy()
        own_p[:, network.slack] = own_q[:, network.slack] = 0.0
        return GridState(
            np.sqrt(w) * np.exp(1j * angle),
            own_p,
            own_q,
            np.abs(s_from) / network.rating_from,
            np.abs(s_to) / network.rating_to,
            delivered.real.copy(),
            delivered.imag.copy(),
        )

    def slopes(self, state: GridState, wanted: Quantities) -> tuple[Floats, Floats]:
        network, flow = self.network, linear_flow(self.network)
        by_w = np.zeros((len(wanted), network.n))
        by_angle = np.zeros((len(wanted), network.n))
        rows = np.flatnonzero(wanted.kind == VOLTAGE)
        by_w[rows, wanted.index[rows]] = 0.5 / state.vm[wanted.period[rows], wanted.index[rows]]
        powers = flow.terminal_powers(*flow.solve(state.p_mw, state.q_mvar))
        for end, kind in enumerate((FROM_END, TO_END)):
            rows = np.flatnonzero(wanted.kind == kind)
            branch = wanted.index[rows]
            power = powers[end][wanted.period[rows], branch]
            turn = np.conj(power) / np.maximum(np.abs(power), 1e-12)
            turn = turn / (network.rating_from, network.rating_to)[end][branch]
            by_w[rows] = (turn[:, None] * flow.power_by_w[end][branch].toarray()).real
            by_angle[rows] = (turn[:, None] * flow.power_by_angle[end][branch].toarray()).real
        return flow.adjoint(by_w, by_angle)


@dataclass(frozen=True, eq=False)
class LinearFlow:
    """The linear system of a network. Powers entering branch b at end e: `power_by_w[e] w + power_by_angle[e] a +
    power_at_zero[e]`, sparse of shape (m, n) and (m,). `node_*`: the same for the injection of
    each node, (n, n) and (n,). `factor` solves for w and then a of all nodes but the slack. All in pu of 1 MVA."""

    network: Network
    power_by_w: tuple[sparse.csr_array, sparse.csr_array]
    power_by_angle: tuple[sparse.csr_array, sparse.csr_array]
    power_at_zero: tuple[Complexes, Complexes]
    node_by_w: sparse.csr_array
    node_by_angle: sparse.csr_array
    node_at_zero: Complexes
    factor: SuperLU

    def solve(self, p_mw: Floats, q_mvar: Floats) -> tuple[Floats, Floats]:
        """Squared voltages and angles, each (t, n), for injections (t, n); reactive power at held nodes is ignored."""
        network, at = self.network, self.network.not_slack
        lacking = (p_mw + 1j * q_mvar) - self.node_at_zero - network.slack_vm_pu**2 * self._slack_column()
        second = lacking.imag.copy()
        second[:, network.held] = network.held_vm**2
        found = self.factor.solve(np.ascontiguousarray(np.concatenate([lacking.real[:, at], second[:, at]], axis=1).T))
        w, angle = np.full(p_mw.shape, network.slack_vm_pu**2), np.zeros(p_mw.shape)
        w[:, at], angle[:, at] = found[: len(at)].T, found[len(at) :].T
        return w, angle

    def terminal_powers(self, w: Floats, angle: Floats) -> tuple[Complexes, Complexes]:
        """Complex power entering each branch at its from and its to end, each (t, m), MW and Mvar."""
        first, second = (
            (self.power_by_w[e] @ w.T + self.power_by_angle[e] @ angle.T).T + self.power_at_zero[e] for e in (0, 1)
        )
        return first, second

    def delivered(self, w: Floats, angle: Floats) -> Complexes:
        """Complex power that the grid above delivers, (t,)."""
        row = [self.network.slack]
        power: Complexes = (self.node_by_w[row] @ w.T + self.node_by_angle[row] @ angle.T)[0] + self.node_at_zero[row]
        return power

    def adjoint(self, by_w: Floats, by_angle: Floats) -> tuple[Floats, Floats]:
        """(df/dp, df/dq) of quantities with these gradients, all of shape (rows, n)."""
        at = self.network.not_slack
        gradient = np.concatenate([by_w[:, at], by_angle[:, at]], axis=1)
        found = self.factor.solve(np.ascontiguousarray(gradient.T), trans="T").T
        dp, dq = np.zeros_like(by_w), np.zeros_like(by_w)
        dp[:, at], dq[:, at] = found[:, : len(at)], found[:, len(at) :]
        dq[:, self.network.held] = 0.0
        return dp, dq

    def _slack_column(self) -> Complexes:
        column: Complexes = self.node_by_w[:, [self.network.slack]].toarray()[:, 0]
        return column


@lru_cache(maxsize=8)
def linear_flow(network: Network) -> LinearFlow:
    """The linear system of a network, factorised. Networks are compared by identity."""
    by_w, by_angle, at_zero = _terminal_powers(network)
    ends = tuple(
        sparse.csr_array((np.ones(network.m), (node, np.arange(network.m))), shape=(network.n, network.m))
        for node in (network.from_node, network.to_node)
    )
    node_by_w = sparse.csr_array(
        ends[0] @ by_w[0] + ends[1] @ by_w[1] + sparse.diags_array(np.conj(network.node_shunt))
    )
    node_by_angle = sparse.csr_array(ends[0] @ by_angle[0] + ends[1] @ by_angle[1])
    node_at_zero: Complexes = ends[0] @ at_zero[0] + ends[1] @ at_zero[1]
    at = network.not_slack
    inner_w, inner_angle = node_by_w[at][:, at], node_by_angle[at][:, at]
    held = sparse.diags_array(np.isin(at, network.held).astype(np.float64))
    free = sparse.diags_array(1.0 - held.diagonal())
    system = sparse.block_array(
        [[inner_w.real, inner_angle.real], [free @ inner_w.imag + held, free @ inner_angle.imag]], format="csc"
    )
    return LinearFlow(network, by_w, by_angle, at_zero, node_by_w, node_by_angle, node_at_zero, splu(system))


_PerEnd = tuple[sparse.csr_array, sparse.csr_array]


def _terminal_powers(network: Network) -> tuple[_PerEnd, _PerEnd, tuple[Complexes, Complexes]]:
    """Powers entering the branches at either end: by squared voltages, by angles, and the constant part.

    The series element carries S = conj(y) ((w_i' - w_j) / 2 - j (a_i' - a_j)) from its from to its to end.
    """
    y, half, k2 = network.y_series, network.y_shunt / 2, np.abs(network.tap) ** 2
    both = network.from_on & network.to_on
    series: Complexes = np.where(both, np.conj(y), 0)
    # A branch open at one end is its own shunt in series with y, in parallel with the near shunt.
    dangling = half + y * half / (y + half)
    earth_from = np.conj(np.where(both, half, np.where(network.from_on, dangling, 0)))
    earth_to = np.conj(np.where(both, half, np.where(network.to_on, dangling, 0)))
    shift = 1j * series * np.angle(network.tap)
    by_w = (
        _at_ends(network, (series / 2 + earth_from) / k2, -series / 2),
        _at_ends(network, -series / 2 / k2, series / 2 + earth_to),
    )
    by_angle = (_at_ends(network, -1j * series, 1j * series), _at_ends(network, 1j * series, -1j * series))
    return by_w, by_angle, (shift, -shift)


def _at_ends(network: Network, at_from: NDArray[Any], at_to: NDArray[Any]) -> sparse.csr_array:
    rows = np.arange(network.m)
    index = (np.r_[rows, rows], np.r_[network.from_node, network.to_node])
    return sparse.csr_array((np.r_[at_from, at_to], index), shape=(network.m, network.n))
