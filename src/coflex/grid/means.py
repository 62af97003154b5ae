"""The DSO's own means first (GRID-04): tap positions, capacitor steps and open points that spare bought flexibility.

Every device moves in whole steps. For each quarter-hour the setting is sought that burdens the limits least,

    burden = sum of voltage excess / 0.01 pu + sum of loading excess / 10 %

from the normal setting by one step of one device at a time, each tried by AC power flow at all quarter-hours it could
serve. Among the settings found, the day's schedule is the path of least burden and fewest steps,

    min  sum_t 1000 burden(s_t, t) + steps between s_t and s_t+1        (Viterbi, 1967)

so that nothing is switched for less than 1e-3 of burden, and back only when it pays. An open point moves along its
ring: its switch closes, another on the loop opens, and the grid stays as radial as it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from coflex.domain.errors import GridFailure
from coflex.domain.quantity import Floats, Ints
from coflex.grid.network import Network, build, moved
from coflex.grid.powerflow import GridState, solve
from coflex.grid.rows import AcGrid, GridRows, Guard, Linearised, RowKeys
from coflex.grid.tables import GridTables, Switch

# What one unit of burden is worth in steps of a device.
BURDEN = 1000.0
VOLTAGE_PU, LOADING_SHARE = 0.01, 0.10
# Rounds of single steps from the normal setting.
ROUNDS = 40
# Of a setting's neighbours the best few at the worst few of its periods are tried at all of them.
SAMPLE, CHOSEN = 4, 3


@dataclass(frozen=True, slots=True)
class Means:
    """What the operator may move, by name: transformers with taps, shunts with steps, switches at ends of branches."""

    transformers: tuple[str, ...] = ()
    shunts: tuple[str, ...] = ()
    switches: tuple[str, ...] = ()

    @staticmethod
    def all_of(tables: GridTables) -> Means:
        """Every tap changer, bank and branch switch of a grid."""
        return Means(
            tuple(row.transformer for row in tables.transformers if row.tap_max > row.tap_min and row.tap_step_percent),
            tuple(row.shunt for row in tables.shunts if row.step_max > 0),
            tuple(row.switch for row in tables.switches if row.kind != "bus"),
        )


@dataclass(frozen=True, slots=True)
class Setting:
    """Positions of what may move: tap of each transformer, step of each shunt, the switches that are open."""

    taps: tuple[int, ...]
    steps: tuple[int, ...]
    open: frozenset[str]

    def distance(self, other: Setting) -> int:
        """Steps of devices between two settings; a switch is one."""
        taps = sum(abs(a - b) for a, b in zip(self.taps, other.taps, strict=True))
        steps = sum(abs(a - b) for a, b in zip(self.steps, other.steps, strict=True))
        return taps + steps + len(self.open ^ other.open)


@dataclass(frozen=True, eq=False)
class Operation:
    """How a grid is run over t periods: `networks`, alike in nodes, branches and limits, and which of them holds in
    each period, `of_period[t]`. The first is the grid at its normal setting."""

    networks: tuple[Network, ...]
    of_period: Ints

    @staticmethod
    def steady(network: Network, periods: int) -> Operation:
        """The normal setting all the time."""
        return Operation((network,), np.zeros(periods, dtype=np.int64))

    @property
    def normal(self) -> Network:
        return self.networks[0]

    def parts(self) -> Iterator[tuple[Network, Ints]]:
        """Each network in use and the periods in which it holds."""
        for i in np.unique(self.of_period).tolist():
            yield self.networks[i], np.flatnonzero(self.of_period == i)

    def solve(self, p_mw: Floats, q_mvar: Floats) -> GridState:
        """AC power flow (t, n), each period with its own network."""
        if not len(self.of_period):
            return solve(self.normal, p_mw, q_mvar)
        states = [solve(network, p_mw[at], q_mvar[at]) for network, at in self.parts()]
        return _joined(states, np.concatenate([at for _, at in self.parts()]))


@dataclass(frozen=True, eq=False)
class Schedule:
    """A setting for each of t periods. `settings` distinct, the normal one first; `operation`: the grid at them;
    `burden_before`, `burden_after` [t]."""

    means: Means
    settings: tuple[Setting, ...]
    operation: Operation
    burden_before: Floats
    burden_after: Floats

    @property
    def of_period(self) -> Ints:
        """Index of each period's setting."""
        return self.operation.of_period

    @property
    def operations(self) -> int:
        """Steps of devices over the horizon, from the normal setting on."""
        path = [self.settings[0], *(self.settings[i] for i in self.of_period)]
        return sum(a.distance(b) for a, b in pairwise(path))


def schedule(tables: GridTables, means: Means, p_mw: Floats, q_mvar: Floats, guard: Guard | None = None) -> Schedule:
    """The schedule of `means` for injections (t, n) in MW and Mvar, injection positive; limits tightened by `guard`.

    Raises Refused as `build` does, KeyError on a device that the tables do not have, and GridFailure when a period
    has no solution at the normal setting.
    """
    search = _Search(tables, means, p_mw, q_mvar, guard or Guard())
    normal = search.normal
    before = search.burden(normal, np.arange(len(p_mw)), must=True)
    best = {t: (float(before[t]), normal) for t in np.flatnonzero(before > 0).tolist()}
    # Settings that were the best of a period and have not been stepped from yet, with the periods they serve.
    for _ in range(ROUNDS):
        origins: dict[Setting, list[int]] = {}
        for t, (value, setting) in sorted(best.items()):
            if value > 0 and (setting, t) not in search.stepped:
                search.stepped.add((setting, t))
                origins.setdefault(setting, []).append(t)
        if not origins:
            break
        for origin, periods in origins.items():
            served = np.array(periods)
            for neighbour in search.promising(origin, served):
                for t, value in zip(periods, search.burden(neighbour, served).tolist(), strict=True):
                    if value < best[t][0] - 1 / BURDEN:
                        best[t] = value, neighbour
    found = sorted({setting for _, setting in best.values()} - {normal}, key=search.order)
    settings = (normal, *found)
    everywhere = np.arange(len(p_mw))
    burdens = np.array([before, *(search.burden(setting, everywhere) for setting in found)])
    path = _least(burdens, settings)
    used = sorted({0, *path.tolist()})
    return Schedule(
        means=means,
        settings=tuple(settings[i] for i in used),
        operation=Operation(tuple(search.network(settings[i]) for i in used), np.searchsorted(used, path)),
        burden_before=before,
        burden_after=burdens[path, everywhere],
    )


def burden(network: Network, state: GridState, guard: Guard) -> Floats:
    """How far the limits are broken in each period (t,), voltages per 0.01 pu and loadings per 10 %."""
    inner = network.pq
    vm = state.vm[:, inner]
    high = np.maximum(vm - (network.v_max[inner] - guard.voltage_pu), 0.0).sum(axis=1)
    low = np.maximum(network.v_min[inner] + guard.voltage_pu - vm, 0.0).sum(axis=1)
    over = np.maximum(state.loading - (network.loading_max - guard.loading_share), 0.0).sum(axis=1)
    total: Floats = (high + low) / VOLTAGE_PU + over / LOADING_SHARE
    return total


class _Search:
    """Settings of one grid, their networks and burdens, each computed once."""

    def __init__(self, tables: GridTables, means: Means, p_mw: Floats, q_mvar: Floats, guard: Guard) -> None:
        self.tables, self.means, self.guard = tables, means, guard
        self.p_mw, self.q_mvar = p_mw, q_mvar
        self.stepped: set[tuple[Setting, int]] = set()
        self._normal = build(tables)
        self._networks: dict[Setting, Network] = {}
        self._movable = frozenset(means.switches)
        self._switches = {row.switch: row for row in tables.switches}
        self._transformers = {row.transformer: row for row in tables.transformers}
        self._shunts = {row.shunt: row for row in tables.shunts}
        self.normal = Setting(
            tuple(self._transformers[name].tap_pos for name in means.transformers),
            tuple(self._shunts[name].step for name in means.shunts),
            frozenset(name for name in means.switches if not self._switches[name].closed),
        )

    def order(self, setting: Setting) -> tuple[int, tuple[int, ...], tuple[int, ...], tuple[str, ...]]:
        """A canonical order of settings: the nearest to the normal one first."""
        return self.normal.distance(setting), setting.taps, setting.steps, tuple(sorted(setting.open))

    def network(self, setting: Setting) -> Network:
        """The grid at a setting."""
        if setting not in self._networks:
            self._networks[setting] = moved(self._normal, apply(self.tables, self.means, setting))
        return self._networks[setting]

    def burden(self, setting: Setting, periods: Ints, must: bool = False) -> Floats:
        """Burden of a setting in some periods; infinite where it has no state, unless it `must` have one."""
        network = self.network(setting)
        try:
            state = solve(network, self.p_mw[periods], self.q_mvar[periods])
        except GridFailure:
            if must:
                raise
            return np.full(len(periods), np.inf)
        return burden(network, state, self.guard)

    def promising(self, origin: Setting, periods: Ints) -> list[Setting]:
        """The neighbours of a setting that burden some of the worst of the periods least."""
        now = self.burden(origin, periods)
        worst = periods[np.argsort(-now, kind="stable")[:SAMPLE]]
        before = self.burden(origin, worst)
        neighbours = list(self.neighbours(origin))
        tried = np.array([self.burden(one, worst) for one in neighbours]).reshape(len(neighbours), len(worst))
        chosen: set[int] = set()
        for t in range(len(worst)):
            order = np.argsort(tried[:, t], kind="stable")[:CHOSEN]
            chosen |= {int(k) for k in order if tried[k, t] < before[t]}
        return [neighbours[k] for k in sorted(chosen)]

    def neighbours(self, setting: Setting) -> Iterator[Setting]:
        """One step of one device away: a tap, a bank's step, an open point moved along its ring."""
        for k, name in enumerate(self.means.transformers):
            row = self._transformers[name]
            for tap in (setting.taps[k] - 1, setting.taps[k] + 1):
                if row.tap_min <= tap <= row.tap_max:
                    yield replace(setting, taps=(*setting.taps[:k], tap, *setting.taps[k + 1 :]))
        for k, name in enumerate(self.means.shunts):
            for step in (setting.steps[k] - 1, setting.steps[k] + 1):
                if 0 <= step <= self._shunts[name].step_max:
                    yield replace(setting, steps=(*setting.steps[:k], step, *setting.steps[k + 1 :]))
        for name in sorted(setting.open):
            tables = apply(self.tables, self.means, setting)
            for other in on_the_loop(self.network(setting), tables, self._switches[name]):
                if other in self._movable:
                    yield replace(setting, open=setting.open - {name} | {other})


def on_the_loop(network: Network, tables: GridTables, closing: Switch) -> tuple[str, ...]:
    """Closed switches that may open when one at the end of a branch closes: those at the branches of the loop that it
    makes. None where the branch is open at its other end too, or makes no loop."""
    b = network.branch_names.index(closing.element)
    ends = int(network.from_node[b]), int(network.to_node[b])
    live = network.from_on & network.to_on
    other_end_on = network.to_on[b] if network.node_of(closing.bus) == ends[0] else network.from_on[b]
    if live[b] or not other_end_on:
        return ()
    edges = np.stack([network.from_node[live], network.to_node[live]])
    graph = sparse.csr_array((np.ones(edges.shape[1]), tuple(edges)), shape=(network.n, network.n))
    _, before = csgraph.breadth_first_order(graph, ends[0], directed=False)
    walked, node = set(), ends[1]
    while node != ends[0]:
        if before[node] < 0:
            return ()
        walked.add(frozenset((node, int(before[node]))))
        node = int(before[node])
    path = {
        network.branch_names[k]
        for k in np.flatnonzero(live)
        if frozenset((int(network.from_node[k]), int(network.to_node[k]))) in walked
    }
    return tuple(row.switch for row in tables.switches if row.kind != "bus" and row.closed and row.element in path)


def apply(tables: GridTables, means: Means, setting: Setting) -> GridTables:
    """The tables of a grid at a setting."""
    tap = dict(zip(means.transformers, setting.taps, strict=True))
    step = dict(zip(means.shunts, setting.steps, strict=True))
    # Most rows stay as they are; copying them would take longer than the power flow.
    movable = set(means.switches)
    turned = setting.open ^ {row.switch for row in tables.switches if not row.closed and row.switch in movable}
    return replace(
        tables,
        transformers=tuple(replace(t, tap_pos=tap.get(t.transformer, t.tap_pos)) for t in tables.transformers),
        shunts=tuple(replace(s, step=step.get(s.shunt, s.step)) for s in tables.shunts),
        switches=tuple(replace(s, closed=not s.closed) if s.switch in turned else s for s in tables.switches),
    )


def _least(burdens: Floats, settings: tuple[Setting, ...]) -> Ints:
    """The path of least burden and fewest steps, from the normal setting (index 0); ties to the earlier setting."""
    count, periods = burdens.shape
    # A settled period counts as nothing, else sums of tiny excess would move devices.
    cost = BURDEN * np.where(burdens < 1 / BURDEN, 0.0, burdens)
    steps = np.array([[a.distance(b) for b in settings] for a in settings], dtype=np.float64)
    total = steps[0] + cost[:, 0] if periods else np.zeros(count)
    came = np.zeros((periods, count), dtype=np.int64)
    for t in range(1, periods):
        reach = total[:, None] + steps
        came[t] = reach.argmin(axis=0)
        total = reach.min(axis=0) + cost[:, t]
    path = np.zeros(periods, dtype=np.int64)
    if periods:
        path[-1] = int(total.argmin())
    for t in range(periods - 1, 0, -1):
        path[t - 1] = came[t, path[t]]
    return path


@dataclass(frozen=True, eq=False)
class OperatedGrid:
    """A grid model where the operator's own means move: each period is seen with its own network, by `kind`."""

    operation: Operation
    p_mw: Floats
    q_mvar: Floats
    guard: Guard
    kind: type[AcGrid] = AcGrid

    @property
    def network(self) -> Network:
        """The grid at its normal setting; nodes, branches and limits are those of all settings."""
        return self.operation.normal

    @cached_property
    def _grids(self) -> tuple[AcGrid, ...]:
        return tuple(self.kind(network, self.p_mw, self.q_mvar, self.guard) for network in self.operation.networks)

    def with_guard(self, guard: Guard) -> OperatedGrid:
        """The same grid with limits tighter by another guard."""
        return OperatedGrid(self.operation, self.p_mw, self.q_mvar, guard, self.kind)

    def look(self, change_p: Floats, change_q: Floats, periods: Ints, known: RowKeys) -> Linearised:
        """As AcGrid.look, each period with its network."""
        if not len(periods):
            return self._grids[0].look(change_p, change_q, periods, known)
        index = self.operation.of_period[periods]
        used = np.unique(index).tolist()
        seen = [self._grids[i].look(change_p, change_q, periods[index == i], known) for i in used]
        broken = RowKeys.none()
        for one in seen:
            broken = broken.then(one.broken)
        order = np.argsort(broken.code(max(self.network.n, self.network.m)), kind="stable")
        state = _joined([one.state for one in seen], np.concatenate([np.flatnonzero(index == i) for i in used]))
        found = RowKeys(broken.period[order], broken.form[order], broken.index[order])
        return Linearised(state, max(one.excess for one in seen), found)

    def rows(self, state: GridState, periods: Ints, keys: RowKeys, change_p: Floats, change_q: Floats) -> GridRows:
        """As AcGrid.rows, each period with its network."""
        n, count = self.network.n, len(keys)
        names = [""] * count
        dp, dq, room = np.zeros((count, n)), np.zeros((count, n)), np.zeros(count)
        for grid, at, mine in self._parts(periods, keys):
            some = RowKeys(keys.period[mine], keys.form[mine], keys.index[mine])
            part = grid.rows(state.part(at), periods[at], some, change_p, change_q)
            dp[mine], dq[mine], room[mine] = part.dp, part.dq, part.room
            for k, name in zip(mine.tolist(), part.names, strict=True):
                names[k] = name
        return GridRows(tuple(names), keys.period, dp, dq, room)

    def headroom(self, state: GridState, periods: Ints, keys: RowKeys) -> Floats:
        """As AcGrid.headroom, each period with its network."""
        left = np.zeros(len(keys))
        for grid, at, mine in self._parts(periods, keys):
            some = RowKeys(keys.period[mine], keys.form[mine], keys.index[mine])
            left[mine] = grid.headroom(state.part(at), periods[at], some)
        return left

    def _parts(self, periods: Ints, keys: RowKeys) -> Iterator[tuple[AcGrid, Ints, Ints]]:
        """Each grid in use, its places in `periods`, and those of its keys."""
        of_key = self.operation.of_period[keys.period]
        index = self.operation.of_period[periods]
        for i in np.unique(of_key).tolist():
            yield self._grids[i], np.flatnonzero(index == i), np.flatnonzero(of_key == i)


def _joined(states: Sequence[GridState], places: Ints) -> GridState:
    """States put together; `places`: where each of their periods belongs, one after the other."""
    if len(states) == 1:
        return states[0]
    whole = (np.concatenate([getattr(state, one.name) for state in states]) for one in fields(GridState))
    return GridState(*whole).part(np.argsort(places, kind="stable"))
