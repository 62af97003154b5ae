"""The static traffic light (REG-04): what the grid lets each unit do, by power flow, in both modes.

A unit answers for a limit that its activation breaks, or that was broken before and gets worse by more than
`MATTERS`: otherwise one bad element would refuse every unit of the grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coflex.domain.qualification import LimitKind, StaticLight, StaticMode, Verdict
from coflex.domain.quantity import Bools, Direction, Floats, Ints
from coflex.grid.light import MATTERS, Agents, capability
from coflex.grid.network import Network
from coflex.grid.powerflow import GridState, solve


@dataclass(frozen=True, eq=False)
class Candidates:
    """Units to qualify: names, `node[u]`, `tan_phi[u]`, `up_kw[u]`, `down_kw[u]` (whole kW, as registered)."""

    names: tuple[str, ...]
    node: Ints
    tan_phi: Floats
    up_kw: Ints
    down_kw: Ints


@dataclass(frozen=True, eq=False)
class _Proof:
    """Of each trial: does it hold, and the limit that came nearest or was broken most."""

    holds: Bools
    kind: list[LimitKind]
    element: list[str]
    value: Floats
    bound: Floats
    state: Ints


def static_lights(
    network: Network, states: GridState, labels: Sequence[str], units: Candidates
) -> tuple[StaticLight, ...]:
    """Lights of all units, both directions and modes, against all reference states (named by `labels`)."""
    lights: list[StaticLight] = []
    for direction in (Direction.UP, Direction.DOWN):
        registered = units.up_kw if direction is Direction.UP else units.down_kw
        for mode, limits in (
            (StaticMode.ONE_BY_ONE, _one_by_one(network, states, units, direction, registered)),
            (StaticMode.ALL_TOGETHER, _all_together(network, states, units, direction, registered)),
        ):
            lights += _lights(network, states, labels, units, direction, mode, registered, limits)
    return tuple(sorted(lights, key=lambda light: (light.unit, light.direction, light.mode)))


def _one_by_one(network: Network, states: GridState, units: Candidates, direction: Direction, registered: Ints) -> Ints:
    """The largest whole kW at which each unit alone is safe, by bisection on power flows."""
    low, high = np.zeros_like(registered), registered.copy()
    safe = _trials(network, states, units, direction, np.diag(registered)).holds
    low[safe] = registered[safe]
    open_ = np.flatnonzero(~safe)
    while len(open_):
        middle = (low[open_] + high[open_]) // 2
        trial = np.zeros((len(open_), len(registered)), dtype=np.int64)
        trial[np.arange(len(open_)), open_] = middle
        safe = _trials(network, states, units, direction, trial).holds
        low[open_] = np.where(safe, middle, low[open_])
        high[open_] = np.where(safe, high[open_], middle)
        open_ = open_[high[open_] - low[open_] > 1]
    return low


def _all_together(
    network: Network, states: GridState, units: Candidates, direction: Direction, registered: Ints
) -> Ints:
    """Limits under which any set of units may act at once: each unit is a part of its own, all rise together."""
    count = len(registered)
    sign = np.full(count, direction.sign, dtype=np.int64)
    agents = Agents(units.node, units.tan_phi, sign, np.arange(count, dtype=np.int64), count)
    potential = np.repeat(registered[:, None].astype(np.float64), states.u.shape[0], axis=1)
    safe = capability(network, states, agents, potential).kw.min(axis=1)
    limits: Ints = np.floor(safe + 1e-6).astype(np.int64)
    return limits


def _trials(network: Network, states: GridState, units: Candidates, direction: Direction, kw: Ints) -> _Proof:
    """Power flows of k trials `kw[k, units]` in every reference state, each judged by its worst state."""
    trials, count = len(kw), states.u.shape[0]
    signed = kw * direction.sign / 1000.0
    change_p, change_q = np.zeros((trials, network.n)), np.zeros((trials, network.n))
    np.add.at(change_p.T, units.node, signed.T)
    np.add.at(change_q.T, units.node, (signed * units.tan_phi).T)
    p = (states.p_mw[None] + change_p[:, None]).reshape(-1, network.n)
    q = (states.q_mvar[None] + change_q[:, None]).reshape(-1, network.n)
    return _judge(network, states, solve(network, p, q), trials, count)


def _judge(network: Network, states: GridState, there: GridState, trials: int, count: int) -> _Proof:
    pq = network.pq
    forms = (
        (LimitKind.VOLTAGE_HIGH, states.vm[:, pq], there.vm[:, pq], network.v_max[pq], 1.0),
        (LimitKind.VOLTAGE_LOW, states.vm[:, pq], there.vm[:, pq], network.v_min[pq], -1.0),
        (LimitKind.LOADING, states.loading, there.loading, network.loading_max, 1.0),
    )
    names = [[network.node_names[i] for i in pq]] * 2 + [list(network.branch_names)]
    margins, columns = [], []
    for f, (_, before, after, bound, side) in enumerate(forms):
        after = after.reshape(trials, count, -1)
        margin = side * (after - bound)
        worse = side * (after - before[None])
        # A limit broken before counts as met unless it gets worse by more than matters.
        excused = (side * (before - bound) > 0)[None] & (worse <= MATTERS)
        margins.append(np.where(excused, np.minimum(margin, -1e-9), margin))
        columns += [(f, i) for i in range(margin.shape[2])]
    margin = np.concatenate(margins, axis=2)
    flat = margin.reshape(trials, -1)
    # A hundredth of a voltage band compares with a hundredth of a rating, so that "nearest" means the same.
    band = np.concatenate([(network.v_max - network.v_min)[pq]] * 2 + [np.ones(network.m)])
    at = np.argmax((margin / band).reshape(trials, -1), axis=1)
    state, column = np.divmod(at, margin.shape[2])
    values, bounds, kinds, elements = np.zeros(trials), np.zeros(trials), [], []
    for k in range(trials):
        f, i = columns[column[k]]
        kind, _, after, bound, _ = forms[f]
        kinds.append(kind)
        elements.append(names[f][i])
        values[k] = after.reshape(trials, count, -1)[k, state[k], i]
        bounds[k] = bound[i]
    return _Proof(flat.max(axis=1) <= 1e-9, kinds, elements, values, bounds, state.astype(np.int64))


def _lights(
    network: Network,
    states: GridState,
    labels: Sequence[str],
    units: Candidates,
    direction: Direction,
    mode: StaticMode,
    registered: Ints,
    limits: Ints,
) -> list[StaticLight]:
    """Lights with their proof: the power flow at the registered power where it was limited, at the limit elsewhere."""
    if mode is StaticMode.ONE_BY_ONE:
        trial = np.diag(registered)
    else:
        trial = np.where(np.eye(len(registered), dtype=np.bool_), registered, limits[None, :])
    proof = _trials(network, states, units, direction, trial)
    lights = []
    for u, name in enumerate(units.names):
        if registered[u] == 0:
            continue
        full, some = limits[u] >= registered[u], limits[u] > 0
        verdict = Verdict.CONFIRMED if full else Verdict.LIMITED if some else Verdict.REJECTED
        lights.append(
            StaticLight(
                unit=name,
                direction=direction,
                mode=mode,
                verdict=verdict,
                registered_kw=int(registered[u]),
                limit_kw=int(limits[u]),
                element=proof.element[u],
                kind=proof.kind[u],
                value=round(float(proof.value[u]), 6),
                bound=round(float(proof.bound[u]), 6),
                state=labels[int(proof.state[u])],
            )
        )
    return lights
