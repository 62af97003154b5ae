"""The `conic` grid model: branch flow with its one equation that is not convex relaxed to a second-order cone.

For a branch from i to j with series r + jx, half shunt h at either end, U_i' = U_i / t behind its transformer,
v = |U|^2, l = |I|^2 and P + jQ entering the series element:

    v_j = v_i' - 2 (r P + x Q) + (r^2 + x^2) l           l v_i' >= P^2 + Q^2

Terminal powers and squared terminal currents are linear in (v, P, Q, l). On a radial grid a solution with equality in
every cone is a power flow, so the cheapest solution costs no more than the cheapest power flow: a lower bound. Where
a cone is loose, its branch shows a current, and so a loss, that is not there. M. Farivar and S. H. Low, "Branch flow
model: relaxations and convexification", IEEE Trans. Power Syst. 28 (2013) 2554, doi:10.1109/TPWRS.2013.2255317.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from coflex.domain.errors import GridFailure
from coflex.domain.quantity import Floats, Ints
from coflex.grid.linear import linear_flow
from coflex.grid.means import Operation
from coflex.grid.network import Complexes, Network
from coflex.grid.rows import FROM, HIGH, LOW, TO, Guard
from coflex.solver.cone import ConeProgram
from coflex.solver.program import Program

# Share of the squared rating by which l v may exceed P^2 + Q^2 in a cone that counts as tight.
TIGHT = 1e-5


@dataclass(frozen=True, eq=False)
class Moves:
    """Injections to choose: column `column[k]` of a program adds `p[k]` MW and `q[k]` Mvar per unit at node `node[k]`
    in the `period[k]`-th state."""

    column: Ints
    period: Ints
    node: Ints
    p: Floats
    q: Floats


@dataclass(frozen=True, eq=False)
class RelaxedFlow:
    """States of the relaxation, t periods, m branches; branches open at an end carry zeros.

    `vm[t, n]` pu; `loading_from`, `loading_to` [t, m] as shares of the rating; `gap[t, m]`: l v - P^2 - Q^2 as a share
    of the squared rating; `invented_mw[t, m]`: the loss of the current by which l exceeds the true one.
    """

    vm: Floats
    loading_from: Floats
    loading_to: Floats
    gap: Floats
    invented_mw: Floats

    @property
    def tight(self) -> bool:
        """Whether every cone holds with equality, so that these are power flows."""
        return bool((self.gap <= TIGHT).all())


class BranchFlow:
    """The relaxed branch flow of a radial grid in several periods, as blocks of a cone program.

    Columns of a period: v (n), then P, Q and l of the closed branches in units of their rating, so that none is far
    from one. Rows and limits of all periods are alike, whichever network holds in them.
    """

    def __init__(self, operation: Operation, p_mw: Floats, q_mvar: Floats, guard: Guard | None = None) -> None:
        """Base injections `p_mw`, `q_mvar` of shape (t, n) on the network of each period. Raises GridFailure where one
        is meshed."""
        self.operation, self.p_mw, self.q_mvar = operation, p_mw, q_mvar
        each = {i: _OnePeriod(operation.networks[i], guard or Guard()) for i in np.unique(operation.of_period).tolist()}
        self._parts = [each[i] for i in operation.of_period.tolist()]

    @property
    def periods(self) -> int:
        return len(self.p_mw)

    @cached_property
    def equal(self) -> sparse.csr_array:
        """Voltages held, voltage drops, balances of P at all nodes but the slack and of Q at all of free voltage."""
        return self._side_by_side("equal")

    @cached_property
    def equal_to(self) -> Floats:
        """Right side of `equal`."""
        parts = zip(self._parts, self.p_mw, self.q_mvar, strict=True)
        return np.concatenate([part.equal_to(p, q) for part, p, q in parts])

    @property
    def limit(self) -> tuple[Ints, Ints]:
        """Form (HIGH, LOW, FROM, TO) and node or branch of each limit of one period."""
        return self._parts[0].limit

    @cached_property
    def upper(self) -> sparse.csr_array:
        """Limits, in squared voltages and in squares of currents as shares of what is allowed."""
        return self._side_by_side("upper")

    @cached_property
    def under(self) -> Floats:
        """Right side of `upper`."""
        return np.concatenate([part.under for part in self._parts])

    @cached_property
    def cone(self) -> sparse.csr_array:
        """(l + v, 2 P, 2 Q, l - v) of each closed branch."""
        return self._side_by_side("cone")

    @cached_property
    def losses(self) -> Floats:
        """MW of series losses per unit of each column; shunts left out."""
        return np.concatenate([part.losses for part in self._parts])

    @cached_property
    def effect(self) -> Floats:
        """By how much one MW (and as many Mvar) at the best place moves each limit, in its unit."""
        return np.concatenate([part.effect for part in self._parts])

    def moved(self, moves: Moves, columns: int) -> sparse.csr_array:
        """What `columns` further columns bring into the rows of `equal` through their injections."""
        height = self._parts[0].equal.shape[0]
        places = np.array([part.balance_rows for part in self._parts])
        rows = np.concatenate([places[moves.period, 0, moves.node], places[moves.period, 1, moves.node]])
        on = rows >= 0
        rows = rows + np.tile(moves.period * height, 2)
        values, column = -np.concatenate([moves.p, moves.q]), np.tile(moves.column, 2)
        return sparse.csr_array((values[on], (rows[on], column[on])), shape=(height * self.periods, columns))

    def read(self, x: Floats) -> RelaxedFlow:
        """The states that the columns of this flow describe."""
        columns = x.reshape(self.periods, -1)
        found = [part.read(one) for part, one in zip(self._parts, columns, strict=True)]
        return RelaxedFlow(*(np.array(values) for values in zip(*found, strict=True)))

    def _side_by_side(self, name: str) -> sparse.csr_array:
        return sparse.csr_array(sparse.block_diag([getattr(part, name) for part in self._parts], format="csr"))


class _OnePeriod:
    """The blocks of one period of a network; `equal`, `upper`, `cone` and the rest as in `BranchFlow`."""

    def __init__(self, network: Network, guard: Guard) -> None:
        self.network, self.guard = network, guard
        self.closed = np.flatnonzero(network.from_on & network.to_on)
        self.width = network.n + 3 * len(self.closed)
        if len(self.closed) != network.n - 1:
            raise GridFailure(
                "The conic model needs a radial grid: round a loop it forgets that angles must add to zero.",
                "Open the loops by switches, or use the linear or the ac model.",
            )

    @cached_property
    def scale(self) -> Floats:
        """Unit of power of each closed branch, MVA: its rating, or the largest where it has none."""
        rating = self.network.rating_to[self.closed]
        known = rating[np.isfinite(rating)]
        return np.where(np.isfinite(rating), rating, known.max(initial=1.0))

    @cached_property
    def equal(self) -> sparse.csr_array:
        network, n, s = self.network, self.network.n, self.scale
        z = 1 / network.y_series[self.closed]
        start, end, earth_from, earth_to = self._ends
        v = sparse.eye_array(n, format="csr")
        none = sparse.csr_array((n, len(self.closed)))
        to_earth = start.T @ _diagonal(earth_from) @ start + end.T @ _diagonal(earth_to) @ end
        to_earth = sparse.csr_array(to_earth + _diagonal(self._dangling[0] + np.conj(network.node_shunt)))
        through, lost = (start - end).T @ _diagonal(s), end.T @ _diagonal(z * s**2)
        drop = [end - _diagonal(1 / self._k2) @ start, 2 * z.real * s, 2 * z.imag * s, -(np.abs(z) ** 2) * s**2]
        blocks = [
            sparse.hstack([v, none, none, none])[self._fixed],
            sparse.hstack([drop[0], *(_diagonal(part) for part in drop[1:])]),
            sparse.hstack([to_earth.real, through, none, lost.real]).tocsr()[network.not_slack],
            sparse.hstack([to_earth.imag, none, through, lost.imag]).tocsr()[network.pq],
        ]
        return sparse.csr_array(sparse.vstack(blocks))

    def equal_to(self, p_mw: Floats, q_mvar: Floats) -> Floats:
        """Right side of `equal` for injections (n,)."""
        network = self.network
        held = np.full(network.n, network.slack_vm_pu)
        held[network.held] = network.held_vm
        drop = np.zeros(len(self.closed))
        return np.concatenate([held[self._fixed] ** 2, drop, p_mw[network.not_slack], q_mvar[network.pq]])

    @cached_property
    def limit(self) -> tuple[Ints, Ints]:
        # Ends that are open have no current and keep their limit, so that all networks of a day have the same ones.
        network = self.network
        rated = (np.flatnonzero(np.isfinite(rating)) for rating in (network.rating_from, network.rating_to))
        index = [network.not_slack, network.not_slack, *rated]
        form = np.repeat([HIGH, LOW, FROM, TO], [len(part) for part in index])
        return form.astype(np.int64), np.concatenate(index).astype(np.int64)

    @cached_property
    def upper(self) -> sparse.csr_array:
        network, guard = self.network, self.guard
        form, index = self.limit
        v = sparse.eye_array(network.n, self.width, format="csr")[network.not_slack]
        currents = []
        for end, (f, rating) in enumerate(((FROM, network.rating_from), (TO, network.rating_to))):
            branch = index[form == f]
            allowed = rating[branch] * (network.loading_max[branch] - guard.loading_share)
            currents.append(_diagonal(1 / allowed**2) @ self._squared_currents[end][branch])
        return sparse.csr_array(sparse.vstack([v, -v, *currents]))

    @cached_property
    def under(self) -> Floats:
        network, guard, at = self.network, self.guard, self.network.not_slack
        high, low = network.v_max[at] - guard.voltage_pu, network.v_min[at] + guard.voltage_pu
        currents = np.ones(len(self.limit[0]) - 2 * len(at))
        return np.concatenate([high**2, -(low**2), currents])

    @cached_property
    def cone(self) -> sparse.csr_array:
        count = len(self.closed)
        v = _diagonal(1 / self._k2) @ self._ends[0]
        one, none = sparse.eye_array(count), sparse.csr_array((count, count))
        flat = sparse.csr_array((count, self.network.n))
        parts = sparse.vstack(
            [
                sparse.hstack([v, none, none, one]),
                sparse.hstack([flat, 2 * one, none, none]),
                sparse.hstack([flat, none, 2 * one, none]),
                sparse.hstack([-v, none, none, one]),
            ]
        ).tocsr()
        together = np.arange(4 * count).reshape(4, count).T.ravel()
        return sparse.csr_array(parts[together])

    @cached_property
    def losses(self) -> Floats:
        lost = (1 / self.network.y_series[self.closed]).real * self.scale**2
        return np.concatenate([np.zeros(self.width - len(lost)), lost])

    @cached_property
    def effect(self) -> Floats:
        network = self.network
        form, index = self.limit
        sides = linear_flow(network).adjoint(np.eye(network.n), np.zeros((network.n, network.n)))
        voltage = np.maximum(*(np.abs(side).max(axis=1) for side in sides))
        rating = np.where(form == FROM, *(r[index % network.m] for r in (network.rating_from, network.rating_to)))
        return np.where(form <= LOW, voltage[index % network.n], 2 / rating)

    @cached_property
    def balance_rows(self) -> Ints:
        """Row of each node's balance of P and of Q in `equal`, (2, n), -1 where there is none."""
        network = self.network
        first = len(self._fixed) + len(self.closed)
        rows = np.full((2, network.n), -1)
        rows[0, network.not_slack] = first + np.arange(len(network.not_slack))
        rows[1, network.pq] = first + len(network.not_slack) + np.arange(len(network.pq))
        return rows

    def read(self, x: Floats) -> tuple[Floats, Floats, Floats, Floats, Floats]:
        """The fields of `RelaxedFlow`, without periods, from the columns."""
        network, n, count = self.network, self.network.n, len(self.closed)
        v, (p, q, current) = x[:n], (x[n + k * count :][:count] for k in range(3))
        behind = v[network.from_node[self.closed]] / self._k2
        slack = np.maximum(current * behind - p**2 - q**2, 0.0)
        gap, invented = np.zeros(network.m), np.zeros(network.m)
        gap[self.closed] = slack
        invented[self.closed] = (1 / network.y_series[self.closed]).real * self.scale**2 * slack / behind
        at_from, at_to = (np.sqrt(np.maximum(square @ x, 0.0)) for square in self._squared_currents)
        return (
            np.sqrt(np.maximum(v, 0.0)),
            at_from / network.rating_from,
            at_to / network.rating_to,
            gap,
            invented,
        )

    @cached_property
    def _fixed(self) -> Ints:
        return np.concatenate([[self.network.slack], self.network.held]).astype(np.int64)

    @cached_property
    def _k2(self) -> Floats:
        return np.abs(self.network.tap[self.closed]) ** 2

    @cached_property
    def _ends(self) -> tuple[sparse.csr_array, sparse.csr_array, Complexes, Complexes]:
        """Which node each closed branch leaves and reaches (branches, n), and what its half shunts draw per v there."""
        network, count = self.network, len(self.closed)
        start, end = (
            sparse.csr_array((np.ones(count), (np.arange(count), node[self.closed])), shape=(count, network.n))
            for node in (network.from_node, network.to_node)
        )
        drawn: Complexes = np.conj(network.y_shunt[self.closed] / 2)
        return start, end, drawn / self._k2, drawn

    @cached_property
    def _dangling(self) -> tuple[Complexes, Floats, Floats]:
        """Power per v that branches open at one end draw at each node (n,), and their squared current per v at the
        from and at the to end (m,)."""
        network = self.network
        half, y = network.y_shunt / 2, network.y_series
        alone = half + y * half / (y + half)
        k2 = np.abs(network.tap) ** 2
        only_from, only_to = network.from_on & ~network.to_on, ~network.from_on & network.to_on
        drawn = np.zeros(network.n, dtype=np.complex128)
        np.add.at(drawn, network.from_node[only_from], np.conj(alone / k2)[only_from])
        np.add.at(drawn, network.to_node[only_to], np.conj(alone)[only_to])
        return drawn, np.where(only_from, np.abs(alone / k2) ** 2, 0.0), np.where(only_to, np.abs(alone) ** 2, 0.0)

    @cached_property
    def _squared_currents(self) -> tuple[sparse.csr_array, sparse.csr_array]:
        """Squared current at the from and to end of every branch by the columns of a period, pu, (m, width)."""
        network, s, count = self.network, self.scale, len(self.closed)
        half, z = network.y_shunt[self.closed] / 2, 1 / network.y_series[self.closed]
        start, end, _, _ = self._ends
        by_v = _diagonal(np.abs(half) ** 2 / self._k2) @ start, _diagonal(np.abs(half) ** 2) @ end
        by_p, by_q = 2 * half.real * s, -2 * half.imag * s
        by_current = s**2, s**2 * (1 + 2 * (half * z).real)
        place = sparse.csr_array((np.ones(count), (self.closed, np.arange(count))), shape=(network.m, count))
        found = []
        for e, (sign, ratio, node) in enumerate(
            ((1.0, self._k2, network.from_node), (-1.0, np.ones(count), network.to_node))
        ):
            parts = [by_v[e], _diagonal(sign * by_p), _diagonal(sign * by_q), _diagonal(by_current[e])]
            closed = place @ _diagonal(1 / ratio) @ sparse.hstack(parts)
            index = np.arange(network.m), node
            alone = sparse.csr_array((self._dangling[1 + e], index), shape=(network.m, self.width))
            found.append(sparse.csr_array(closed + alone))
        return found[0], found[1]


def relaxation(
    flow: BranchFlow, linear: Program, moves: Moves, loss_price: float = 0.0, penalty: float | None = None
) -> ConeProgram:
    """The cone program of a linear one whose columns move injections of the flow; its integers are relaxed.

    Columns: those of `linear`, those of `flow`, then, with a `penalty` (cost of one MW that is missing), one a limit
    for what it is broken by. `loss_price`: cost per MW of losses.
    """
    own = len(linear.cost)
    tied = linear.row_lower == linear.row_upper
    above, below = ~tied & np.isfinite(linear.row_upper), ~tied & np.isfinite(linear.row_lower)
    fixed = linear.lower == linear.upper
    most, least = ~fixed & np.isfinite(linear.upper), ~fixed & np.isfinite(linear.lower)
    one = sparse.eye_array(own, format="csr")
    equal = sparse.block_array(
        [[linear.matrix[tied], None], [one[fixed], None], [flow.moved(moves, own), flow.equal]], format="csr"
    )
    upper = sparse.block_array(
        [
            [sparse.vstack([linear.matrix[above], -linear.matrix[below], one[most], -one[least]]), None],
            [None, flow.upper],
        ],
        format="csr",
    )
    under = [linear.row_upper[above], -linear.row_lower[below], linear.upper[most], -linear.lower[least], flow.under]
    program = ConeProgram(
        cost=np.concatenate([linear.cost, loss_price * flow.losses]),
        equal=equal,
        equal_to=np.concatenate([linear.row_lower[tied], linear.lower[fixed], flow.equal_to]),
        upper=upper,
        under=np.concatenate(under),
        cone=sparse.csr_array(sparse.hstack([sparse.csr_array((flow.cone.shape[0], own)), flow.cone])),
        offset=np.zeros(flow.cone.shape[0]),
        sizes=np.full(flow.cone.shape[0] // 4, 4, dtype=np.int64),
    )
    return program if penalty is None else _softened(program, flow, penalty)


def _softened(program: ConeProgram, flow: BranchFlow, penalty: float) -> ConeProgram:
    """The program with limits of the flow that may be broken, each MW that is missing for it at the penalty."""
    count = len(flow.under)
    first = len(program.under) - count
    row = np.arange(count)
    slack = sparse.csr_array((-flow.effect, (first + row, row)), shape=(len(program.under), count))
    sign = sparse.csr_array((-np.ones(count), (row, len(program.cost) + row)), shape=(count, len(program.cost) + count))

    def wider(matrix: sparse.csr_array) -> sparse.csr_array:
        return sparse.csr_array(sparse.hstack([matrix, sparse.csr_array((matrix.shape[0], count))]))

    return ConeProgram(
        cost=np.concatenate([program.cost, np.full(count, penalty)]),
        equal=wider(program.equal),
        equal_to=program.equal_to,
        upper=sparse.csr_array(sparse.vstack([sparse.hstack([program.upper, slack]), sign])),
        under=np.concatenate([program.under, np.zeros(count)]),
        cone=wider(program.cone),
        offset=program.offset,
        sizes=program.sizes,
    )


def _diagonal(values: Floats | Complexes) -> sparse.dia_array:
    return sparse.diags_array(values)
