"""From violations to needs (GRID-05): where, when, direction, volume, and which units act on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coflex.domain.need import ActingUnit, LocalNeed, Violation
from coflex.domain.qualification import LimitKind
from coflex.domain.quantity import Direction, Floats, Ints
from coflex.domain.time import Axis
from coflex.grid.network import Network
from coflex.grid.powerflow import GridState
from coflex.grid.sensitivity import FROM_END, TO_END, VOLTAGE, Linearisation, Quantities

# How many of the units that act are named with a need, the most effective first.
NAMED = 12
# Units with less than this share of the strongest effect do not act on a need.
ACTS = 0.02


@dataclass(frozen=True, eq=False)
class Reach:
    """Units that could act: names, `node[u]`, `tan_phi[u]`, and what they can do, `up_kw[u, t]`, `down_kw[u, t]`."""

    names: tuple[str, ...]
    node: Ints
    tan_phi: Floats
    up_kw: Floats
    down_kw: Floats


def local_needs(
    session: str, network: Network, state: GridState, axis: Axis, broken: Sequence[Violation], reach: Reach
) -> tuple[LocalNeed, ...]:
    """One need for each violation of the state, in the order given.

    The direction is the one in which the units together relieve more; the volume fills from the most effective
    unit down (the least power that does it on the linearisation).
    """
    if not broken:
        return ()
    per_kw = effects(network, state, axis, broken, reach.node, reach.tan_phi)
    parts = _perimeters(network)
    needs = []
    for r, violation in enumerate(broken):
        t = axis.position(violation.start)
        worsening = per_kw[r]
        options = {Direction.UP: (-worsening, reach.up_kw[:, t]), Direction.DOWN: (worsening, reach.down_kw[:, t])}
        relief = {d: float(np.maximum(effect, 0.0) @ kw) for d, (effect, kw) in options.items()}
        direction = max(options, key=lambda d: (relief[d], d))
        effect, kw = options[direction]
        volume, order, coverable = _volume(violation.excess, effect, kw)
        needs.append(
            LocalNeed(
                session=session,
                start=violation.start,
                element=violation.element,
                kind=violation.kind,
                perimeter=parts[(violation.kind is LimitKind.LOADING, violation.element)],
                direction=direction,
                value=round(violation.value, 6),
                bound=round(violation.bound, 6),
                volume_kw=volume,
                coverable=coverable,
                acting=tuple(ActingUnit(reach.names[u], round(float(effect[u]), 9)) for u in order[:NAMED]),
            )
        )
    return tuple(needs)


def effects(
    network: Network, state: GridState, axis: Axis, broken: Sequence[Violation], node: Ints, tan_phi: Floats
) -> Floats:
    """How much one kW more injection of each unit worsens each violation, shape (violations, units), in pu or share
    of rating per kW; negative where it relieves. `node[u]`, `tan_phi[u]` (kvar per kW) of each unit."""
    if not broken:
        return np.zeros((0, len(node)))
    wanted = _quantities(network, state, axis, broken)
    dp, dq = Linearisation(network, state.u).sensitivities(wanted)
    side = np.array([-1.0 if violation.kind is LimitKind.VOLTAGE_LOW else 1.0 for violation in broken])
    worsening: Floats = side[:, None] * (dp[:, node] + dq[:, node] * tan_phi) / 1000.0
    return worsening


def _volume(excess: float, effect: Floats, kw: Floats) -> tuple[int, list[int], bool]:
    """Power that removes `excess`, the acting units by falling effect, and whether they suffice."""
    acting = np.flatnonzero((effect > ACTS * max(float(effect.max(initial=0.0)), 1e-12)) & (kw > 0))
    order = acting[np.lexsort((acting, -effect[acting]))]
    gained = np.cumsum(effect[order] * kw[order])
    enough = int(np.searchsorted(gained, excess))
    if enough == len(order):
        return int(np.ceil(kw[order].sum())), order.tolist(), False
    before = gained[enough - 1] if enough else 0.0
    volume = kw[order[:enough]].sum() + (excess - before) / effect[order[enough]]
    return int(np.ceil(volume)), order.tolist(), True


def _quantities(network: Network, state: GridState, axis: Axis, broken: Sequence[Violation]) -> Quantities:
    nodes = {name: i for i, name in enumerate(network.node_names)}
    branches = {name: i for i, name in enumerate(network.branch_names)}
    period = np.array([axis.position(v.start) for v in broken], dtype=np.int64)
    kind = np.zeros(len(broken), dtype=np.int64)
    index = np.zeros(len(broken), dtype=np.int64)
    for r, violation in enumerate(broken):
        if violation.kind is LimitKind.LOADING:
            index[r] = branches[violation.element]
            t = period[r]
            kind[r] = FROM_END if state.loading_from[t, index[r]] >= state.loading_to[t, index[r]] else TO_END
        else:
            index[r], kind[r] = nodes[violation.element], VOLTAGE
    return Quantities(period, kind, index)


def _perimeters(network: Network) -> dict[tuple[bool, str], str]:
    """Perimeter of each node (False, name) and branch (True, name)."""
    part = network.node_perimeter
    found = {(False, name): part[i] for i, name in enumerate(network.node_names)}
    for b, name in enumerate(network.branch_names):
        found[(True, name)] = part[network.to_node[b]] or part[network.from_node[b]]
    return found
