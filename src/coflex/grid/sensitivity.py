"""Exact sensitivities of voltages, terminal currents and the interface to every node's injections.

At a solved state the power flow equations S(x) = S, x = (angles, magnitudes) of the PQ nodes, have the Jacobian J.
A quantity f(x) changes with injections by

    df = (grad f) J^-1 dS,    so that  J' lambda = grad f  gives  lambda = (df/dp, df/dq)

one sparse factorisation a period and one solve a quantity (adjoint). Where a generator holds the voltage, that
equation for reactive power is |u| = held_vm. Derivatives of complex power by the
currents' form of J. Zimmerman, MATPOWER Technical Note 2 (2010), sections 3 and 5, has the same derivatives.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import SuperLU, splu

from coflex.domain.quantity import Floats, Ints
from coflex.grid.network import Complexes, Network

VOLTAGE, FROM_END, TO_END, INTERFACE = 0, 1, 2, 3


@dataclass(frozen=True, eq=False)
class Quantities:
    """What to differentiate: for each row its period, its kind (voltage magnitude of a node in pu, loading of a
    branch's from or to end as a share of its rating, or interface power in MW), and the node or branch.

    `turn[r]`, where given: a unit complex number; instead of the loading, the part of the current in its direction,
    Re(conj(turn) I) / rating, is differentiated.
    """

    period: Ints
    kind: Ints
    index: Ints
    turn: Complexes | None = None

    def __len__(self) -> int:
        return len(self.period)


@lru_cache(maxsize=8)
def _pattern(network: Network) -> tuple[Ints, Ints, Ints, Ints, Ints]:
    """Where the Jacobian's entries stand: node pairs (i, j) of the admittance matrix between PQ nodes, the
    positions of the diagonal among them, and the CSC layout of the transpose with (angle, magnitude) interleaved
    in an elimination order from the leaves to the source."""
    y = sparse.coo_array(network.admittance)
    y.sum_duplicates()
    place = np.full(network.n, -1, dtype=np.int64)
    place[_elimination_order(network)] = np.arange(network.n - 1)
    keep = (place[y.row] >= 0) & (place[y.col] >= 0)
    i, j = y.row[keep].astype(np.int64), y.col[keep].astype(np.int64)
    # Blocks in the order dP/dangle, dP/dmagnitude, dQ/dangle, dQ/dmagnitude; transposed: the row is the unknown.
    unknown = np.concatenate([2 * place[j], 2 * place[j] + 1, 2 * place[j], 2 * place[j] + 1])
    equation = np.concatenate([2 * place[i], 2 * place[i], 2 * place[i] + 1, 2 * place[i] + 1])
    order = np.lexsort((unknown, equation))
    pointer = np.searchsorted(equation[order], np.arange(2 * (network.n - 1) + 1))
    return i, j, order, unknown[order], pointer.astype(np.int64)


@lru_cache(maxsize=8)
def _elimination_order(network: Network) -> Ints:
    """PQ nodes from the leaves to the source (breadth-first, reversed): no fill-in on a radial grid."""
    closed = sparse.csr_array((np.ones(network.admittance.nnz), network.admittance.indices, network.admittance.indptr))
    order = sparse.csgraph.breadth_first_order(closed, network.slack, directed=False, return_predecessors=False)
    return np.asarray(order[:0:-1], dtype=np.int64)


class Linearisation:
    """The Jacobians of several solved states, factorised when first asked for."""

    def __init__(self, network: Network, u: Complexes) -> None:
        """`u[t, n]`: solved complex voltages in pu."""
        self.network = network
        self.u = u
        self._factors: dict[int, SuperLU] = {}
        self._matrix: sparse.csc_matrix | None = None
        self._entries = self._jacobian_entries()

    def _jacobian_entries(self) -> Floats:
        """Entries of the transposed Jacobians in CSC order, shape (t, nnz)."""
        network, u = self.network, self.u
        i, j, order, _, _ = _pattern(network)
        y = sparse.csr_array(network.admittance)
        current = (y @ u.T).T
        values = np.asarray(y[i, j]).ravel()
        flow = u[:, i] * np.conj(values * u[:, j])
        by_angle = -1j * flow
        by_magnitude = flow / np.abs(u[:, j])
        diagonal = np.flatnonzero(i == j)
        own = u[:, i[diagonal]] * np.conj(current[:, i[diagonal]])
        by_angle[:, diagonal] += 1j * own
        by_magnitude[:, diagonal] += own / np.abs(u[:, i[diagonal]])
        q_by_angle, q_by_magnitude = by_angle.imag.copy(), by_magnitude.imag.copy()
        held = np.isin(i, network.held)
        q_by_angle[:, held] = 0.0
        q_by_magnitude[:, held] = i[held] == j[held]
        blocks = (by_angle.real, by_magnitude.real, q_by_angle, q_by_magnitude)
        return np.ascontiguousarray(np.concatenate(blocks, axis=1)[:, order])

    def _factor(self, t: int) -> SuperLU:
        if t not in self._factors:
            if self._matrix is None:
                _, _, _, rows, pointer = _pattern(self.network)
                size = len(pointer) - 1
                self._matrix = sparse.csc_matrix((self._entries[t], rows, pointer), shape=(size, size))
                self._matrix.has_sorted_indices = True
            # All periods share one pattern; the factors keep nothing of the matrix.
            self._matrix.data = self._entries[t]
            self._factors[t] = splu(
                self._matrix, permc_spec="NATURAL", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
            )
        return self._factors[t]

    def responses(self, t: int, node: Ints, tan_phi: Floats) -> Complexes:
        """Change of all complex voltages in pu per MW injected at `node[c]` with `tan_phi[c]` Mvar per MW beside it,
        in period t, shape (nodes, c). The forward side of the same factorisation: one solve an injection."""
        network, order = self.network, _elimination_order(self.network)
        place = np.full(network.n, -1, dtype=np.int64)
        place[order] = np.arange(len(order))
        column = np.flatnonzero(place[node] >= 0)
        injection = np.zeros((2 * len(order), len(node)))
        injection[2 * place[node[column]], column] = 1.0
        injection[2 * place[node[column]] + 1, column] = tan_phi[column]
        change = self._factor(t).solve(injection, "T")
        found = np.zeros((network.n, len(node)), dtype=np.complex128)
        u = self.u[t, order][:, None]
        found[order] = u * (1j * change[0::2] + change[1::2] / np.abs(u))
        return found

    def sensitivities(self, wanted: Quantities) -> tuple[Floats, Floats]:
        """(df/dp, df/dq), each of shape (rows, nodes): change of each quantity per MW and per Mvar injected.

        The slack's column is zero except for interface power, which an injection there does not change either.
        """
        gradient = self._gradients(wanted)
        solved = np.empty_like(gradient)
        by_period = np.argsort(wanted.period, kind="stable")
        periods, first = np.unique(wanted.period[by_period], return_index=True)
        for t, rows in zip(periods.tolist(), np.split(by_period, first[1:]), strict=True) if len(by_period) else ():
            solved[rows] = self._factor(t).solve(np.ascontiguousarray(gradient[rows].T)).T
        dp = np.zeros((len(wanted), self.network.n))
        dq = np.zeros((len(wanted), self.network.n))
        order = _elimination_order(self.network)
        dp[:, order] = solved[:, 0::2]
        dq[:, order] = solved[:, 1::2]
        # A node that holds its voltage takes up whatever reactive power is injected there.
        dq[:, self.network.held] = 0.0
        return dp, dq

    def step(self, t: int, missing_p: Floats, missing_q: Floats) -> tuple[Floats, Floats]:
        """Newton's step at period t: changes of angle (rad) and magnitude (pu) of each node, for power that its
        injection lacks, in MW and Mvar; at nodes of held voltage `missing_q` is the magnitude they lack. Arrays of
        shape (nodes,), or (nodes, c) for several steps at once."""
        order = _elimination_order(self.network)
        lacking = np.empty((2 * len(order), *missing_p.shape[1:]))
        lacking[0::2], lacking[1::2] = missing_p[order], missing_q[order]
        found = self._factor(t).solve(lacking, trans="T")
        angle, magnitude = np.zeros(missing_p.shape), np.zeros(missing_p.shape)
        angle[order], magnitude[order] = found[0::2], found[1::2]
        return angle, magnitude

    def adjoint(self, t: int, by_angle: Floats, by_magnitude: Floats) -> tuple[Floats, Floats]:
        """(df/dp, df/dq) at period t of a quantity with this gradient, all of shape (nodes,), or (nodes, c) for
        several; at nodes of held voltage df/dq is by the magnitude that is held."""
        order = _elimination_order(self.network)
        gradient = np.empty((2 * len(order), *by_angle.shape[1:]))
        gradient[0::2], gradient[1::2] = by_angle[order], by_magnitude[order]
        found = self._factor(t).solve(gradient)
        dp, dq = np.zeros(by_angle.shape), np.zeros(by_angle.shape)
        dp[order], dq[order] = found[0::2], found[1::2]
        return dp, dq

    def _gradients(self, wanted: Quantities) -> Floats:
        """Gradient of each quantity in the interleaved unknowns, shape (rows, 2 (n - 1))."""
        by_angle = np.zeros((len(wanted), self.network.n))
        by_magnitude = np.zeros((len(wanted), self.network.n))
        rows = np.flatnonzero(wanted.kind == VOLTAGE)
        by_magnitude[rows, wanted.index[rows]] = 1.0
        for kind in (FROM_END, TO_END):
            rows = np.flatnonzero(wanted.kind == kind)
            if len(rows):
                turn = None if wanted.turn is None else wanted.turn[rows]
                at = wanted.period[rows], wanted.index[rows], turn
                by_angle[rows], by_magnitude[rows] = self._current_gradient(kind, *at)
        rows = np.flatnonzero(wanted.kind == INTERFACE)
        if len(rows):
            by_angle[rows], by_magnitude[rows] = self._interface_gradient(wanted.period[rows])
        order = _elimination_order(self.network)
        gradient = np.empty((len(wanted), 2 * len(order)))
        gradient[:, 0::2] = by_angle[:, order]
        gradient[:, 1::2] = by_magnitude[:, order]
        return gradient

    def _current_gradient(self, kind: int, period: Ints, branch: Ints, turn: Complexes | None) -> tuple[Floats, Floats]:
        """Of Re(conj(turn) I) / rating with dI = Y du; without a turn the current's own, which gives |I| / rating."""
        network = self.network
        admittance = network.terminal_admittance[0 if kind == FROM_END else 1]
        rating = (network.rating_from if kind == FROM_END else network.rating_to)[branch]
        share = admittance[branch].toarray() * self.u[period]
        if turn is None:
            current = share.sum(axis=1)
            turn = current / np.maximum(np.abs(current), 1e-12)
        turned = np.conj(turn)[:, None] * share / rating[:, None]
        return -turned.imag, turned.real / np.abs(self.u[period])

    def _interface_gradient(self, period: Ints) -> tuple[Floats, Floats]:
        """Of the power that the source delivers, Re(U_s conj(Y_s u))."""
        network = self.network
        u = self.u[period]
        flow = u[:, [network.slack]] * np.conj(network.admittance[[network.slack]].toarray() * u)
        return flow.imag, flow.real / np.abs(u)
