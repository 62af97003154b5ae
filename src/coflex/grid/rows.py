"""Grid rows: the only thing a market sees of a grid.

A row is one limit in one period, linear in the change of injections from the base state:

    sum_b dp[r, b] * change_p[b] + dq[r, b] * change_q[b] <= room[r]

exact at the state it was made at, and made again there until the answer stands under the full AC power flow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from coflex.domain.qualification import LimitKind
from coflex.domain.quantity import Floats, Ints
from coflex.grid import assess
from coflex.grid.network import Network
from coflex.grid.powerflow import GridState, solve
from coflex.grid.sensitivity import FROM_END, TO_END, VOLTAGE, Linearisation, Quantities

HIGH, LOW, FROM, TO = range(4)
_QUANTITY = np.array([VOLTAGE, VOLTAGE, FROM_END, TO_END])
_SIGN = np.array([1.0, -1.0, 1.0, 1.0])
_KIND = (LimitKind.VOLTAGE_HIGH, LimitKind.VOLTAGE_LOW, LimitKind.LOADING, LimitKind.LOADING)


@dataclass(frozen=True, eq=False)
class RowKeys:
    """Which limits: period, form (HIGH, LOW, FROM, TO) and node or branch of each."""

    period: Ints
    form: Ints
    index: Ints

    def __len__(self) -> int:
        return len(self.period)

    def code(self, width: int) -> Ints:
        """One number for each key, for look-ups."""
        return (self.period * 4 + self.form) * width + self.index

    @staticmethod
    def none() -> RowKeys:
        empty = np.zeros(0, dtype=np.int64)
        return RowKeys(empty, empty, empty)

    def then(self, more: RowKeys) -> RowKeys:
        """These keys, then others."""
        return RowKeys(
            np.concatenate([self.period, more.period]),
            np.concatenate([self.form, more.form]),
            np.concatenate([self.index, more.index]),
        )


@dataclass(frozen=True, eq=False)
class GridRows:
    """m rows over n nodes. `names[r]`: limit and element; `period[r]`; `dp`, `dq` [m, n]: effect per MW and Mvar
    in pu or share of rating; `room[m]`: what the base state leaves, negative where it is broken."""

    names: tuple[str, ...]
    period: Ints
    dp: Floats
    dq: Floats
    room: Floats

    def __len__(self) -> int:
        return len(self.period)


@dataclass(frozen=True, eq=False)
class Guard:
    """How much tighter than the true limit the rows are, so that rounding awards to whole kW keeps it."""

    voltage_pu: float = 0.0
    loading_share: float = 0.0


@dataclass(frozen=True, eq=False)
class Linearised:
    """A state, the rows that were asked for there, and what it still breaks.

    `excess`: the worst margin by which a tightened limit is broken (negative if none). `broken`: further keys
    that belong among the rows, the worst of each period, part of the grid and form.
    """

    state: GridState
    excess: float
    broken: RowKeys


class Nodes(Protocol):
    """Where injections may change: `n` nodes."""

    @property
    def n(self) -> int: ...


class GridModel(Protocol):
    """What a clearing asks of a grid, whatever physics answers: a look at the states that changes of injection
    lead to, and rows there. Shapes as in `AcGrid`."""

    @property
    def network(self) -> Nodes: ...

    @property
    def guard(self) -> Guard: ...

    def look(self, change_p: Floats, change_q: Floats, periods: Ints, known: RowKeys) -> Linearised:
        """The states under the changes, and limits that are broken there and not yet known."""
        ...

    def rows(self, state: GridState, periods: Ints, keys: RowKeys, change_p: Floats, change_q: Floats) -> GridRows:
        """Rows of `keys` at `state`, which solves `periods` under the changes."""
        ...

    def headroom(self, state: GridState, periods: Ints, keys: RowKeys) -> Floats:
        """What each limit of `keys` leaves at `state`, negative where it is broken."""
        ...

    def with_guard(self, guard: Guard) -> GridModel:
        """The same grid with limits tighter by another guard."""
        ...


class AcGrid:
    """The `ac` grid model: rows from the full power flow around any change of injections.

    A model of other physics gives its own states and slopes: `believe`, `slopes`.
    """

    def __init__(self, network: Network, p_mw: Floats, q_mvar: Floats, guard: Guard | None = None) -> None:
        """Base injections `p_mw`, `q_mvar` of shape (t, n), MW and Mvar, injection positive."""
        self.network = network
        self.p_mw, self.q_mvar = p_mw, q_mvar
        self.guard = guard or Guard()
        self.width = max(network.n, network.m)
        perimeters = sorted(set(network.node_perimeter))
        part = np.array([perimeters.index(name) for name in network.node_perimeter], dtype=np.int64)
        branch_part = np.where(part[network.to_node] > 0, part[network.to_node], part[network.from_node])
        self._part = {HIGH: part, LOW: part, FROM: branch_part, TO: branch_part}
        self._parts = len(perimeters)

    def with_guard(self, guard: Guard) -> AcGrid:
        """The same grid with limits tighter by another guard."""
        return AcGrid(self.network, self.p_mw, self.q_mvar, guard)

    def believe(self, p_mw: Floats, q_mvar: Floats) -> GridState:
        """The state (t, n) that the model has for injections (t, n) in MW and Mvar: here the power flow's."""
        return solve(self.network, p_mw, q_mvar)

    def slopes(self, state: GridState, wanted: Quantities) -> tuple[Floats, Floats]:
        """(df/dp, df/dq), each (rows, nodes), of quantities of `state` as the model has them."""
        return Linearisation(self.network, state.u).sensitivities(wanted)

    def look(self, change_p: Floats, change_q: Floats, periods: Ints, known: RowKeys) -> Linearised:
        """Solve the periods `periods` under the changes (t, n) and name limits that are broken and not yet known."""
        state = self.believe((self.p_mw + change_p)[periods], (self.q_mvar + change_q)[periods])
        found = RowKeys.none()
        excess = -np.inf
        have = known.code(self.width)
        for form, margin in self._margins(state).items():
            excess = max(excess, float(margin.max(initial=-np.inf)))
            found = found.then(self._worst_of_parts(form, margin, periods, have))
        order = np.argsort(found.code(self.width), kind="stable")
        return Linearised(state, excess, RowKeys(found.period[order], found.form[order], found.index[order]))

    def rows(self, state: GridState, periods: Ints, keys: RowKeys, change_p: Floats, change_q: Floats) -> GridRows:
        """Rows of `keys`, linearised at `state`, which solves `periods` under the changes (t, n)."""
        at = np.searchsorted(periods, keys.period)
        dp, dq = self.slopes(state, Quantities(at, _QUANTITY[keys.form], keys.index))
        sign = _SIGN[keys.form][:, None]
        dp, dq = sign * dp, sign * dq
        moved = np.einsum("rn,rn->r", dp, change_p[keys.period]) + np.einsum("rn,rn->r", dq, change_q[keys.period])
        names = tuple(self._name(form, index) for form, index in zip(keys.form, keys.index, strict=True))
        return GridRows(names, keys.period, dp, dq, self.headroom(state, periods, keys) + moved)

    def headroom(self, state: GridState, periods: Ints, keys: RowKeys) -> Floats:
        """What each limit of `keys` leaves at `state`, negative where it is broken; pu or share of rating."""
        at = np.searchsorted(periods, keys.period)
        left = np.empty(len(keys))
        for form, (values, bounds) in self._values(state).items():
            mask = keys.form == form
            left[mask] = bounds[keys.index[mask]] - values[at[mask], keys.index[mask]]
        return left

    def _values(self, state: GridState) -> dict[int, tuple[Floats, Floats]]:
        """Value and tightened bound of each form, as `value <= bound`."""
        network, guard = self.network, self.guard
        vm = state.vm
        loading_max = network.loading_max - guard.loading_share
        return {
            HIGH: (vm, network.v_max - guard.voltage_pu),
            LOW: (-vm, -(network.v_min + guard.voltage_pu)),
            FROM: (state.loading_from, loading_max),
            TO: (state.loading_to, loading_max),
        }

    def _margins(self, state: GridState) -> dict[int, Floats]:
        margins = {form: value - bound for form, (value, bound) in self._values(state).items()}
        margins[HIGH][:, self.network.slack] = margins[LOW][:, self.network.slack] = -np.inf
        return margins

    def _worst_of_parts(self, form: int, margin: Floats, periods: Ints, have: Ints) -> RowKeys:
        """The most broken limit of each period and part of the grid that is not yet known."""
        broken = margin > assess.TOLERANCE / 10
        if not broken.any():
            return RowKeys.none()
        row, index = np.nonzero(broken)
        keys = RowKeys(periods[row], np.full(len(row), form, dtype=np.int64), index.astype(np.int64))
        new = ~np.isin(keys.code(self.width), have)
        row, index = row[new], index[new]
        group = row * self._parts + self._part[form][index]
        order = np.lexsort((index, -margin[row, index], group))
        _, first = np.unique(group[order], return_index=True)
        chosen = order[first]
        return RowKeys(periods[row[chosen]], np.full(len(chosen), form, dtype=np.int64), index[chosen].astype(np.int64))

    def _name(self, form: int, index: int) -> str:
        names = self.network.node_names if form in (HIGH, LOW) else self.network.branch_names
        return f"{_KIND[form].value} {names[index]}"
