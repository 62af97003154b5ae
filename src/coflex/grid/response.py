"""How limits and balances of one solved state answer to controls: first and second derivatives.

A quantity f of the voltages u has a complex gradient g and changes by df = Re(g' du). Controls act through ports: an
injection of real or reactive power at a node, or a magnitude that a node holds. `Z` (nodes, ports) is du per unit of
each port. Second derivatives along Z need no others, because in rectangular coordinates powers are quadratic in u,

    d2 Re(conj(w) S_i) [a, b] = Re conj(w) (a_i conj(Y b)_i + b_i conj(Y a)_i),        S_i = u_i conj(Y u)_i

and magnitudes are lengths of linear functions, d2 |c| [a, b] = Im(conj(e) a) Im(conj(e) b) / |c|,  e = c / |c|.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from coflex.domain.quantity import Floats, Ints
from coflex.grid.network import Complexes, Network
from coflex.grid.rows import FROM, HIGH, LOW
from coflex.grid.sensitivity import Linearisation

REAL, REACTIVE, MAGNITUDE = range(3)
_TINY = 1e-12


@dataclass(frozen=True, eq=False)
class Ports:
    """Where controls act: `kind` (REAL in MW, REACTIVE in Mvar, MAGNITUDE in pu) and `node` of each."""

    kind: Ints
    node: Ints

    def __len__(self) -> int:
        return len(self.kind)


class Point:
    """One solved state with its derivatives. `apparent`: limits of branches are on |S| and not on |I|, both as a share
    of the rating."""

    def __init__(self, network: Network, u: Complexes, apparent: bool = False) -> None:
        """`u` (n,): solved voltages in pu."""
        self.network, self.u, self.apparent = network, u, apparent

    @cached_property
    def linear(self) -> Linearisation:
        return Linearisation(self.network, self.u[None, :])

    @cached_property
    def injected(self) -> Complexes:
        """Complex power in MVA that each node injects, (n,)."""
        power: Complexes = self.u * np.conj(self._current)
        return power

    @cached_property
    def _current(self) -> Complexes:
        current: Complexes = self.network.admittance @ self.u
        return current

    @cached_property
    def ends(self) -> tuple[Complexes, Complexes]:
        """Currents into each branch at its from and its to end, (m,)."""
        first, second = (y @ self.u for y in self.network.terminal_admittance)
        return first, second

    @cached_property
    def values(self) -> tuple[Floats, Floats, Floats, Floats]:
        """Quantities of the forms HIGH, LOW, FROM and TO, as `value <= bound`: |u|, -|u|, share of rating twice."""
        network, vm = self.network, np.abs(self.u)
        first, second = (np.abs(i) for i in self.ends)
        if self.apparent:
            first, second = first * vm[network.from_node], second * vm[network.to_node]
        return vm, -vm, first / network.rating_from, second / network.rating_to

    def gradients(self, form: Ints, index: Ints) -> sparse.csr_array:
        """Complex gradients of limits, sparse (rows, n)."""
        parts = [self._gradient(int(f), int(i)) for f, i in zip(form, index, strict=True)]
        count = np.array([len(columns) for columns, _ in parts], dtype=np.int64)
        if not len(count):
            return sparse.csr_array((0, self.network.n), dtype=np.complex128)
        row, column = np.repeat(np.arange(len(count)), count), np.concatenate([columns for columns, _ in parts])
        entry = np.concatenate([entries for _, entries in parts])
        return sparse.csr_array((entry, (row, column)), shape=(len(count), self.network.n))

    def _gradient(self, form: int, index: int) -> tuple[Ints, Complexes]:
        if form in (HIGH, LOW):
            unit = np.conj(self.u[index]) / abs(self.u[index]) * (1 if form == HIGH else -1)
            return np.array([index]), np.array([unit])
        node, (columns, row), current, rating = self._end(form, index)
        if not self.apparent:
            turn = np.conj(current) / max(abs(current), _TINY) / rating
            return columns, turn * row
        power = self.u[node] * np.conj(current)
        turn = np.conj(power) / max(abs(power), _TINY) / rating
        by_end = turn * np.conj(current)
        return np.append(columns, node), np.append(np.conj(turn) * np.conj(self.u[node]) * row, by_end)

    def _end(self, form: int, index: int) -> tuple[int, tuple[Ints, Complexes], complex, float]:
        """Node, row of admittances (nodes and entries), current and rating of a branch's end."""
        network = self.network
        end = 0 if form == FROM else 1
        node = int((network.from_node, network.to_node)[end][index])
        rating = float((network.rating_from, network.rating_to)[end][index])
        return node, _row(network.terminal_admittance[end], index), complex(self.ends[end][index]), rating

    def power_gradients(self, nodes: Ints) -> tuple[sparse.csr_array, sparse.csr_array]:
        """Complex gradients of the real and of the reactive power that nodes inject, each sparse (rows, n)."""
        rows = [_row(self.network.admittance, node) for node in nodes.tolist()]
        count = np.array([len(columns) for columns, _ in rows], dtype=np.int64)
        row = np.concatenate([np.repeat(np.arange(len(nodes)), count), np.arange(len(nodes))])
        column = np.concatenate([*(columns for columns, _ in rows), nodes])
        own = np.conj(self._current[nodes])
        others = np.repeat(np.conj(self.u[nodes]), count) * np.concatenate([entries for _, entries in rows])
        real, reactive = (
            sparse.csr_array((entry, (row, column)), shape=(len(nodes), len(self.u)))
            for entry in (np.concatenate([others, own]), np.concatenate([1j * others, -1j * own]))
        )
        return real, reactive

    def responses(self, ports: Ports) -> Complexes:
        """Z (n, ports): change of the voltages per unit of each port."""
        network, u, columns = self.network, self.u, np.arange(len(ports))
        missing_p, missing_q = np.zeros((network.n, len(ports))), np.zeros((network.n, len(ports)))
        at_slack = ports.node == network.slack
        inner = np.flatnonzero(~at_slack)
        real = inner[ports.kind[inner] == REAL]
        missing_p[ports.node[real], real] = 1.0
        # The second equation of a node that holds its voltage is the magnitude itself.
        other = inner[ports.kind[inner] != REAL]
        missing_q[ports.node[other], other] = 1.0
        slack = columns[at_slack & (ports.kind == MAGNITUDE)]
        unit = u[network.slack] / abs(u[network.slack])
        if len(slack):
            power = u * np.conj(network.admittance[:, [network.slack]].toarray()[:, 0] * unit)
            missing_p[:, slack], missing_q[:, slack] = -power.real[:, None], -power.imag[:, None]
            missing_q[network.held[:, None], slack] = 0.0
        angle, magnitude = self.linear.step(0, missing_p, missing_q)
        found: Complexes = u[:, None] * (1j * angle + magnitude / np.abs(u)[:, None])
        found[network.slack, slack] = unit
        return found

    def adjoint(self, gradient: Complexes) -> tuple[Floats, Floats]:
        """(df/dp, df/dq), each (n, c), for complex gradients (n, c); zero at the slack, and df/dq at nodes of held
        voltage is by the magnitude that they hold."""
        u = self.u[:, None]
        return self.linear.adjoint(0, (gradient * 1j * u).real, (gradient * u / np.abs(u)).real)

    def power_curvature(self, weight: Complexes, z: Complexes) -> Floats:
        """Second derivatives (ports, ports) of sum_i Re(conj(weight_i) S_i) along Z."""
        half: Floats = ((np.conj(weight)[:, None] * z).T @ np.conj(self.network.admittance @ z)).real
        return half + half.T

    def limit_curvature(self, form: Ints, index: Ints, weight: Floats, z: Complexes) -> Floats:
        """Second derivatives (ports, ports) of sum_r weight_r f_r along Z."""
        total = np.zeros((z.shape[1], z.shape[1]))
        for f, i, w in zip(form.tolist(), index.tolist(), weight.tolist(), strict=True):
            if f in (HIGH, LOW):
                across = (np.conj(self.u[i]) * z[i]).imag / abs(self.u[i])
                total += (w if f == HIGH else -w) / abs(self.u[i]) * np.outer(across, across)
                continue
            node, (columns, row), current, rating = self._end(f, i)
            moved = row @ z[columns]
            length, turned, bent = abs(current), np.conj(current) * moved, 0.0
            if self.apparent:
                power = self.u[node] * np.conj(current)
                length = abs(power)
                turned = np.conj(power) * (z[node] * np.conj(current) + self.u[node] * np.conj(moved))
                mixed = (np.conj(power) * np.outer(z[node], np.conj(moved))).real / max(length, _TINY)
                bent = mixed + mixed.T
            across = turned.imag / max(length, _TINY)
            total += w / rating * (bent + np.outer(across, across) / max(length, _TINY))
        return total

    def moved(self, z: Complexes, step: Floats) -> Complexes:
        """Where the voltages go by a step of the ports, to first order in angles and magnitudes."""
        change = (z @ step) / self.u
        there: Complexes = np.abs(self.u) * (1 + change.real) * np.exp(1j * (np.angle(self.u) + change.imag))
        return there


def _row(matrix: sparse.csr_array, index: int) -> tuple[Ints, Complexes]:
    """Columns and entries of one row."""
    part = slice(matrix.indptr[index], matrix.indptr[index + 1])
    return matrix.indices[part], matrix.data[part]
