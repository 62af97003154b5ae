"""Traffic lights: how much a part of the grid may do, safe for every split over its units.

For row r with room h_r and unit effects a_ru, a perimeter p that may use C_p over units with potential Y_u can load
the row by at most

    W_rp(C) = max { sum_u a_ru y_u : 0 <= y <= Y, sum_u y_u <= C }

a fractional knapsack: the positive effects from the largest down. W is concave, piecewise linear and increasing.
Several perimeters (and both directions of one) are safe together when sum_p W_rp(C_p) <= h_r for every row.
The room is shared by one rule: all perimeters rise by the same share of their potential; a row that is full stops
those that load it, the others rise on. Linear rows then give way to the AC power flow at their worst splits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coflex.domain.quantity import Bools, Floats, Ints
from coflex.grid.network import Network
from coflex.grid.powerflow import GridState, solve
from coflex.grid.sensitivity import FROM_END, TO_END, VOLTAGE, Linearisation, Quantities

AC_ROUNDS = 8
# Part of the room kept back on the linearisation, so that the power flow seldom has to shrink the answer.
KEPT_BACK = 1e-4


@dataclass(frozen=True, eq=False)
class Agents:
    """Units that act, and the part each belongs to. u entries: `node[u]`, `tan_phi[u]` (kvar per kW), `sign[u]`
    (+1 up, -1 down), `part[u]`: index of the part (a perimeter in one direction, or a unit by itself)."""

    node: Ints
    tan_phi: Floats
    sign: Ints
    part: Ints
    parts: int


@dataclass(frozen=True, eq=False)
class Capability:
    """`kw[p, t]`: what part p may use in period t, safe with all others; `element[p][t]`: what limits it, empty if
    nothing does."""

    kw: Floats
    element: tuple[tuple[str, ...], ...]


def capability(network: Network, state: GridState, agents: Agents, potential_kw: Floats) -> Capability:
    """Capabilities of all parts over the periods of a solved state; `potential_kw[u, t]` non-negative.

    Exact on the linearisation at `state`, then accepted by AC power flow at the worst split of each full row and at
    everything at once. Part of the grid that `state` already breaks gets nothing from those who would worsen it.
    """
    periods = state.u.shape[0]
    kw = np.zeros((agents.parts, periods))
    names = [[""] * periods for _ in range(agents.parts)]
    linear = Linearisation(network, state.u)
    corners: list[_Corner] = []
    for t in range(periods):
        rows = _rows_at(network, state, linear, agents, potential_kw[:, t], t)
        share, stopped = fill(rows.room, rows.effect, potential_kw[:, t], agents.part, agents.parts)
        part_kw = np.bincount(agents.part, weights=potential_kw[:, t], minlength=agents.parts)
        kw[:, t] = share * part_kw
        for p in np.flatnonzero(stopped >= 0).tolist():
            names[p][t] = rows.names[stopped[p]]
        corners += [_Corner(t, rows.effect[r]) for r in np.unique(stopped[stopped >= 0])]
        corners += [_Corner(t, (agents.sign == sign).astype(np.float64)) for sign in (1, -1)]
    _accept(network, state, agents, potential_kw, kw, names, corners)
    return Capability(kw, tuple(tuple(row) for row in names))


@dataclass(frozen=True, eq=False)
class _Rows:
    names: tuple[str, ...]
    room: Floats
    effect: Floats


@dataclass(frozen=True, eq=False)
class _Corner:
    """A split that loads one row most in a period: `effect[u]` per kW."""

    period: int
    effect: Floats


def _rows_at(
    network: Network, state: GridState, linear: Linearisation, agents: Agents, potential: Floats, t: int
) -> _Rows:
    """The limits of period t that the whole potential could break, with the effect of each unit per kW.

    A current may also turn round: its reverse is bounded by the rating seen from the other side.
    """
    nodes, branches = network.pq, np.arange(network.m)
    worse_end = np.where(state.loading_from[t] >= state.loading_to[t], FROM_END, TO_END)
    wanted = Quantities(
        np.full(len(nodes) + network.m, t, dtype=np.int64),
        np.concatenate([np.full(len(nodes), VOLTAGE), worse_end]),
        np.concatenate([nodes, branches]),
    )
    dp, dq = linear.sensitivities(wanted)
    per_kw = agents.sign / 1000.0 * (dp[:, agents.node] + dq[:, agents.node] * agents.tan_phi)
    voltage, current = per_kw[: len(nodes)], per_kw[len(nodes) :]
    vm, loading = state.vm[t, nodes], state.loading[t]
    room = np.concatenate(
        [
            network.v_max[nodes] - vm,
            vm - network.v_min[nodes],
            network.loading_max - loading,
            network.loading_max + loading,
        ]
    )
    effect = np.concatenate([voltage, -voltage, current, -current])
    room = room * (1 - KEPT_BACK)
    reach = np.maximum(effect, 0.0) @ potential
    could = np.flatnonzero(reach > room)
    kinds = ("voltage_high", "voltage_low", "loading", "loading")
    sizes = np.cumsum([0, len(nodes), len(nodes), network.m, network.m])
    names = []
    for r in could:
        form = int(np.searchsorted(sizes, r, side="right")) - 1
        place = int(r - sizes[form])
        element = network.node_names[nodes[place]] if form < 2 else network.branch_names[place]
        names.append(f"{kinds[form]} {element}")
    return _Rows(tuple(names), room[could], effect[could])


def fill(room: Floats, effect: Floats, potential: Floats, part: Ints, parts: int) -> tuple[Floats, Ints]:
    """Share of its potential that each part may use, and the row that stops it (-1 if none does).

    `room[r]`, `effect[r, u]` per kW, `potential[u]` kW, `part[u]`. All parts rise together; a row that is full stops
    every part that loads it. Shares are exact for the worst split of every row.
    """
    share = np.ones(parts)
    stopped = np.full(parts, -1, dtype=np.int64)
    if not len(room):
        return share, stopped
    total: Floats = np.bincount(part, weights=potential, minlength=parts).astype(np.float64)
    loads = np.zeros((len(room), parts), dtype=np.bool_)
    np.logical_or.at(loads.T, part, (effect > 0).T & (potential > 0)[:, None])
    curves = [_Curve.of(effect[r], potential, part, total) for r in range(len(room))]
    level = np.ones(parts)
    rising = np.ones(parts, dtype=np.bool_)
    while True:
        full = np.array([curve.full_at(room[r], level, rising) for r, curve in enumerate(curves)])
        full[~(loads & rising).any(axis=1)] = np.inf
        r = int(np.argmin(full))
        if full[r] >= 1.0:
            return np.where(rising, 1.0, level), stopped
        hit = loads[r] & rising
        level[hit] = max(0.0, full[r])
        stopped[hit] = r
        rising &= ~hit


@dataclass(frozen=True, eq=False)
class _Curve:
    """W of one row in the share of each part's potential: over units with a positive effect, by falling effect, the
    share at which its part begins (`begin`) and ends (`end`) to draw on it, and the slope while it does."""

    part: Ints
    begin: Floats
    end: Floats
    slope: Floats

    @staticmethod
    def of(effect: Floats, potential: Floats, part: Ints, total: Floats) -> _Curve:
        units = np.flatnonzero((effect > 0) & (potential > 0))
        units = units[np.lexsort((units, -effect[units], part[units]))]
        p = part[units]
        drawn = np.cumsum(potential[units])
        first = np.r_[True, p[1:] != p[:-1]] if len(units) else np.zeros(0, dtype=np.bool_)
        before = np.where(first, drawn - potential[units], 0.0)
        end = drawn - np.maximum.accumulate(before) if len(units) else drawn
        return _Curve(p, (end - potential[units]) / total[p], end / total[p], effect[units] * total[p])

    def full_at(self, room: float, level: Floats, rising: Bools) -> float:
        """The common share of the rising parts at which the row is full, infinity if it never is; the others stay
        at their `level`."""
        mine = rising[self.part]
        still = ~mine
        used = np.clip(level[self.part[still]], self.begin[still], self.end[still]) - self.begin[still]
        left = room - float(used @ self.slope[still])
        if left <= 0:
            return 0.0
        knots = np.concatenate([self.begin[mine], self.end[mine]])
        turns = np.concatenate([self.slope[mine], -self.slope[mine]])
        order = np.argsort(knots, kind="stable")
        knots, slope = knots[order], np.cumsum(turns[order])
        value = np.concatenate([[0.0], np.cumsum(slope[:-1] * np.diff(knots))]) if len(knots) else np.zeros(0)
        beyond = int(np.searchsorted(value, left, side="right"))
        if beyond == len(value):
            return float("inf")
        rise = slope[beyond - 1]
        return float(knots[beyond - 1] + (left - value[beyond - 1]) / rise) if rise > 0 else float(knots[beyond])


def worst_split(effect: Floats, potential: Floats, part: Ints, allowed: Floats) -> Floats:
    """The split (kW per unit) that loads a row most when each part may use `allowed[p]`: largest effects first."""
    split = np.zeros(len(effect))
    units = np.flatnonzero((effect > 0) & (potential > 0))
    units = units[np.lexsort((units, -effect[units], part[units]))]
    left = allowed.copy()
    for u in units:
        split[u] = min(potential[u], left[part[u]])
        left[part[u]] -= split[u]
    return split


def _accept(
    network: Network,
    state: GridState,
    agents: Agents,
    potential: Floats,
    kw: Floats,
    names: list[list[str]],
    corners: list[_Corner],
) -> None:
    """Shrink `kw` (in place) until every corner keeps every limit by AC power flow."""
    waiting = corners
    for _ in range(AC_ROUNDS):
        if not waiting:
            return
        splits = [worst_split(c.effect, potential[:, c.period], agents.part, kw[:, c.period]) for c in waiting]
        share, element = _room_used(network, state, agents, waiting, np.array(splits))
        again: list[_Corner] = []
        for corner, split, s, name in zip(waiting, splits, share, element, strict=True):
            if s >= 1.0:
                continue
            involved = np.unique(agents.part[split > 0]).tolist()
            kw[involved, corner.period] *= max(0.0, s * (1 - KEPT_BACK))
            for p in involved:
                names[p][corner.period] = name
            again.append(corner)
        waiting = again
    for corner in waiting:
        touched = np.unique(agents.part[corner.effect > 0])
        kw[touched, corner.period] = 0.0


def _room_used(
    network: Network, state: GridState, agents: Agents, corners: list[_Corner], splits: Floats
) -> tuple[Floats, list[str]]:
    """For each corner the share of its way at which the first limit is met (1 or more if none), and that limit."""
    period = np.array([corner.period for corner in corners], dtype=np.int64)
    change_p = np.zeros((len(corners), network.n))
    signed = splits * agents.sign / 1000.0
    for k in range(len(corners)):
        np.add.at(change_p[k], agents.node, signed[k])
    change_q = np.zeros_like(change_p)
    for k in range(len(corners)):
        np.add.at(change_q[k], agents.node, signed[k] * agents.tan_phi)
    there = solve(network, state.p_mw[period] + change_p, state.q_mvar[period] + change_q)
    share = np.full(len(corners), np.inf)
    element = [""] * len(corners)
    pq = network.pq
    before, after = state.vm[period][:, pq], there.vm[:, pq]
    nodes = [network.node_names[i] for i in pq]
    for form, begin, end, bound, places in (
        ("voltage_high", before, after, network.v_max[pq], nodes),
        ("voltage_low", -before, -after, -network.v_min[pq], nodes),
        ("loading", state.loading[period], there.loading, network.loading_max, network.branch_names),
    ):
        grown = end - begin
        over = (end > bound) & (grown > 1e-9)
        way = np.where(over, (bound - begin) / np.where(over, grown, 1.0), np.inf)
        nearest = np.argmin(way, axis=1)
        least = way[np.arange(len(corners)), nearest]
        for k in np.flatnonzero(least < share).tolist():
            element[k] = f"{form} {places[int(nearest[k])]}"
        share = np.minimum(share, least)
    return share, element
