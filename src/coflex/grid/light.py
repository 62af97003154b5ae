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
from coflex.grid.network import Complexes, Network
from coflex.grid.powerflow import GridState, solve
from coflex.grid.sensitivity import FROM_END, TO_END, VOLTAGE, Linearisation, Quantities

AC_ROUNDS = 12
# Part of the room kept back on the linearisation, so that the power flow seldom has to shrink the answer.
KEPT_BACK = 1e-4
# A current is bounded in this many directions of the complex plane; what the corners between them hide (up to 3.4 %)
# the power flow finds.
DIRECTIONS = 12
# Rows whose worst split uses at least this share of their room are tried by power flow.
TRIED = 0.85
# A limit whose room is used to this share at a corner is looked at again with the effects that hold there.
NEAR = 0.97


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
        corners += _corners_of(rows, agents, potential_kw[:, t], kw[:, t], t)
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

    A voltage is one row each way. A current is bounded in several directions of the complex plane, where it is all
    but linear in the injections, while its magnitude is not: |I| turns where a flow turns round.
    """
    nodes = network.pq
    per_kw = _per_kw(linear.sensitivities(_voltages(nodes, t)), agents)
    vm = state.vm[t, nodes]
    room = [network.v_max[nodes] - vm, vm - network.v_min[nodes]]
    effect = [per_kw, -per_kw]
    names = [f"voltage_high {network.node_names[i]}" for i in nodes]
    names += [f"voltage_low {network.node_names[i]}" for i in nodes]
    for branch, current, change in _currents(network, state, linear, agents, potential, t):
        for turn in np.exp(2j * np.pi * np.arange(DIRECTIONS) / DIRECTIONS):
            room.append(network.loading_max[branch] - (np.conj(turn) * current).real)
            effect.append((np.conj(turn) * change).real)
            names += [f"loading {network.branch_names[i]}" for i in branch]
    rooms = np.concatenate(room) * (1 - KEPT_BACK)
    effects = np.concatenate(effect)
    could = np.flatnonzero(np.maximum(effects, 0.0) @ potential > rooms)
    return _Rows(tuple(names[r] for r in could), rooms[could], effects[could])


def _voltages(nodes: Ints, t: int) -> Quantities:
    return Quantities(np.full(len(nodes), t, dtype=np.int64), np.full(len(nodes), VOLTAGE), nodes)


def _per_kw(sensitivities: tuple[Floats, Floats], agents: Agents) -> Floats:
    """Effect of one kW of each unit in its direction, with the reactive power that follows, shape (rows, units)."""
    dp, dq = sensitivities
    effect: Floats = agents.sign / 1000.0 * (dp[:, agents.node] + dq[:, agents.node] * agents.tan_phi)
    return effect


def _currents(
    network: Network, state: GridState, linear: Linearisation, agents: Agents, potential: Floats, t: int
) -> list[tuple[Ints, Complexes, Complexes]]:
    """Branches that could be overloaded, by end: their current and its change per kW of each unit, as complex shares
    of the rating. The end that is loaded more speaks for a branch."""
    found = []
    at_from = state.loading_from[t] >= state.loading_to[t]
    y_from, y_to = network.terminal_admittance
    for kind, here, admittance, rating in (
        (FROM_END, at_from, y_from, network.rating_from),
        (TO_END, ~at_from, y_to, network.rating_to),
    ):
        branch = np.flatnonzero(here)
        twice = np.concatenate([branch, branch])
        turn = np.repeat(np.array([1.0 + 0j, 1j]), len(branch))
        period = np.full(len(twice), t, dtype=np.int64)
        parts = _per_kw(linear.sensitivities(Quantities(period, np.full(len(twice), kind), twice, turn)), agents)
        change = parts[: len(branch)] + 1j * parts[len(branch) :]
        current = (admittance @ state.u[t])[branch] / rating[branch]
        could = np.abs(current) + np.abs(change) @ potential > network.loading_max[branch]
        found.append((branch[could], current[could], change[could]))
    return found


def _corners_of(rows: _Rows, agents: Agents, potential: Floats, kw: Floats, t: int) -> list[_Corner]:
    """The worst splits of the rows that come near to full, and everything of one direction at once."""
    corners = [_Corner(t, (agents.sign == sign).astype(np.float64)) for sign in (1, -1)]
    seen: set[bytes] = set()
    for r in range(len(rows.room)):
        split = worst_split(rows.effect[r], potential, agents.part, kw)
        near = rows.effect[r] @ split >= TRIED * rows.room[r]
        if near and split.tobytes() not in seen:
            seen.add(split.tobytes())
            corners.append(_Corner(t, rows.effect[r]))
    return corners


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
    curves = [_Curve.of(effect[r], potential, part, total) for r in range(len(room))]
    ends = np.zeros((len(room), parts))
    for r, curve in enumerate(curves):
        np.maximum.at(ends[r], curve.part, curve.end)
    level = np.ones(parts)
    rising = np.ones(parts, dtype=np.bool_)
    now = 0.0
    while True:
        # A part whose effective units are all drawn loads the row no further and need not stop for it.
        loading = rising & (ends > now)
        full = np.array([curve.full_at(room[r], level, rising) for r, curve in enumerate(curves)])
        full[~loading.any(axis=1)] = np.inf
        r = int(np.argmin(full))
        if full[r] >= 1.0:
            return np.where(rising, 1.0, level), stopped
        now = max(now, full[r])
        hit = loading[r] & (ends[r] > now)
        if not hit.any():
            ends[r] = 0.0
            continue
        level[hit] = now
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
    if not len(units):
        return split
    drawn = np.cumsum(potential[units])
    first = np.r_[True, part[units][1:] != part[units][:-1]]
    before = drawn - potential[units]
    before = before - np.maximum.accumulate(np.where(first, before, 0.0))
    split[units] = np.clip(allowed[part[units]] - before, 0.0, potential[units])
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
    """Shrink `kw` (in place) until every corner keeps every limit by AC power flow; what never does gets nothing.

    A corner's split changes with what its parts may use, so after a shrink all corners of the period are tried anew.
    """
    waiting = corners
    for _ in range(AC_ROUNDS):
        if not waiting:
            return
        splits = np.array(
            [worst_split(c.effect, potential[:, c.period], agents.part, kw[:, c.period]) for c in waiting]
        )
        tried = _try(network, state, agents, waiting, splits)
        shrunk: set[int] = set()
        for k in np.flatnonzero(tried.share < 1.0).tolist():
            t, split = waiting[k].period, splits[k]
            involved = np.unique(agents.part[split > 0])
            # Another corner of this round may have shrunk a part further already.
            used = np.bincount(agents.part, weights=split, minlength=agents.parts)[involved]
            bound = np.minimum(kw[involved, t], used * max(0.0, tried.share[k] * (1 - KEPT_BACK)))
            for p, kept in zip(involved.tolist(), bound.tolist(), strict=True):
                if kept < kw[p, t]:
                    kw[p, t], names[p][t] = kept, tried.limits[k]
            shrunk.add(t)
        sharper = _sharper(network, agents, waiting, splits, potential, kw, tried)
        corners = corners + sharper
        waiting = [corner for corner in corners if corner.period in shrunk] + [
            corner for corner in sharper if corner.period not in shrunk
        ]
    for t in sorted({corner.period for corner in waiting}):
        _shrink_all(network, state, agents, potential, kw, [corner for corner in corners if corner.period == t])


def _shrink_all(
    network: Network, state: GridState, agents: Agents, potential: Floats, kw: Floats, corners: list[_Corner]
) -> None:
    """Shrink every part of one period (in place) by the same share until all its corners hold, at last to nothing."""
    t = corners[0].period
    most = kw[:, t].copy()
    for share in (0.98, 0.95, 0.9, 0.8, 0.6, 0.4, 0.2):
        kw[:, t] = share * most
        splits = np.array([worst_split(c.effect, potential[:, t], agents.part, kw[:, t]) for c in corners])
        if (_try(network, state, agents, corners, splits).share >= 1.0).all():
            return
    kw[:, t] = 0.0


@dataclass(frozen=True, eq=False)
class _Tried:
    """Corners under AC power flow: the share of the way at which the first limit is met (infinity if none grows to
    it), that limit by name, kind and index, how much of its room is used at the end, and the states."""

    share: Floats
    limits: list[str]
    kind: Ints
    index: Ints
    side: Floats
    used: Floats
    state: GridState


def _sharper(
    network: Network,
    agents: Agents,
    corners: list[_Corner],
    splits: Floats,
    potential: Floats,
    kw: Floats,
    tried: _Tried,
) -> list[_Corner]:
    """New corners: where a limit is all but met, the split that is worst for it with the effects that hold there."""
    near = np.flatnonzero((tried.used > NEAR) & (tried.used < np.inf))
    if not len(near):
        return []
    wanted = Quantities(np.arange(len(near)), tried.kind[near], tried.index[near])
    effect = tried.side[near][:, None] * _per_kw(
        Linearisation(network, tried.state.u[near]).sensitivities(wanted), agents
    )
    known = {(corner.period, split.tobytes()) for corner, split in zip(corners, splits, strict=True)}
    found: list[_Corner] = []
    for row, k in enumerate(near.tolist()):
        t = corners[k].period
        split = worst_split(effect[row], potential[:, t], agents.part, kw[:, t])
        if (t, split.tobytes()) not in known:
            known.add((t, split.tobytes()))
            found.append(_Corner(t, effect[row]))
    return found


def _try(network: Network, state: GridState, agents: Agents, corners: list[_Corner], splits: Floats) -> _Tried:
    """AC power flow at the splits (corners, units) in kW."""
    period = np.array([corner.period for corner in corners], dtype=np.int64)
    signed = splits * agents.sign / 1000.0
    change_p, change_q = np.zeros((len(corners), network.n)), np.zeros((len(corners), network.n))
    np.add.at(change_p.T, agents.node, signed.T)
    np.add.at(change_q.T, agents.node, (signed * agents.tan_phi).T)
    there = solve(network, state.p_mw[period] + change_p, state.q_mvar[period] + change_q)
    pq = network.pq
    before, after = state.vm[period][:, pq], there.vm[:, pq]
    begin = np.concatenate([before, -before, state.loading[period]], axis=1)
    end = np.concatenate([after, -after, there.loading], axis=1)
    bound = np.concatenate([network.v_max[pq], -network.v_min[pq], network.loading_max])
    grown = end - begin
    over = (end > bound) & (grown > 1e-9)
    way = np.where(over, (bound - begin) / np.where(over, grown, 1.0), np.inf)
    # A limit that is broken already counts as met when it is made worse.
    used = np.where(grown > 1e-9, grown / np.maximum(bound - begin, 1e-9), 0.0)
    everyone = np.arange(len(corners))
    first = np.where(np.isfinite(way.min(axis=1)), way.argmin(axis=1), used.argmax(axis=1))
    form, place = np.searchsorted([len(pq), 2 * len(pq)], first, side="right"), first % len(pq)
    index = np.where(form < 2, pq[place], np.minimum(first - 2 * len(pq), network.m - 1))
    from_end = (
        there.loading_from[everyone, np.where(form < 2, 0, index)]
        >= there.loading_to[everyone, np.where(form < 2, 0, index)]
    )
    kind = np.where(form < 2, VOLTAGE, np.where(from_end, FROM_END, TO_END))
    return _Tried(
        share=way.min(axis=1),
        limits=[_limit_name(network, int(f), int(i)) for f, i in zip(form, index, strict=True)],
        kind=kind,
        index=index,
        side=np.where(form == 1, -1.0, 1.0),
        used=used[everyone, first],
        state=there,
    )


def _limit_name(network: Network, form: int, index: int) -> str:
    if form < 2:
        return f"{('voltage_high', 'voltage_low')[form]} {network.node_names[index]}"
    return f"loading {network.branch_names[index]}"
