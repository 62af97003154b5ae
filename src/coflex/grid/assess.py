"""Assessment: which limits a grid state breaks, where, when, by how much (GRID-03)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat

import numpy as np

from coflex.domain.need import Violation
from coflex.domain.qualification import LimitKind
from coflex.domain.quantity import Bools, Floats
from coflex.domain.time import Axis
from coflex.grid.network import Network
from coflex.grid.powerflow import GridState

# Below this a limit counts as kept: the accuracy to which two power flow engines agree.
TOLERANCE = 1e-6


def margins(network: Network, state: GridState) -> tuple[Floats, Floats, Floats]:
    """How far each limit is broken (positive) or kept (negative): high voltage [t, n], low voltage [t, n] in pu,
    loading [t, m] as a share of the rating."""
    vm = state.vm
    return vm - network.v_max, network.v_min - vm, state.loading - network.loading_max


def violations(network: Network, state: GridState, axis: Axis, tolerance: float = TOLERANCE) -> tuple[Violation, ...]:
    """Every broken limit of every quarter-hour, in the order of time, kind and element.

    The slack's own voltage is the grid's above and is left out.
    """
    vm, loading = state.vm, state.loading
    inner = np.arange(network.n) != network.slack
    found = [
        *_beyond(LimitKind.VOLTAGE_HIGH, inner & (vm > network.v_max + tolerance), vm, network.v_max),
        *_beyond(LimitKind.VOLTAGE_LOW, inner & (vm < network.v_min - tolerance), vm, network.v_min),
        *_beyond(LimitKind.LOADING, loading > network.loading_max + tolerance, loading, network.loading_max),
    ]
    names = {kind: network.branch_names if kind is LimitKind.LOADING else network.node_names for kind in LimitKind}
    instants = tuple(axis)
    listed = sorted((t, kind, names[kind][i], value, bound) for t, kind, i, value, bound in found)
    return tuple(Violation(instants[t], element, kind, value, bound) for t, kind, element, value, bound in listed)


def _beyond(
    kind: LimitKind, broken: Bools, value: Floats, bound: Floats
) -> Iterator[tuple[int, LimitKind, int, float, float]]:
    """Period, kind, element, value and bound of each broken limit."""
    t, i = np.nonzero(broken)
    return zip(t.tolist(), repeat(kind), i.tolist(), value[t, i].tolist(), bound[i].tolist(), strict=False)


def worst(network: Network, state: GridState) -> tuple[LimitKind, str, float, float]:
    """The limit that comes nearest to being broken (or is broken most), relative to its bound, over all periods:
    kind, element, value, bound."""
    high, low, loading = margins(network, state)
    high[:, network.slack] = low[:, network.slack] = -np.inf
    candidates = (
        (LimitKind.VOLTAGE_HIGH, high, network.v_max, state.vm, network.node_names),
        (LimitKind.VOLTAGE_LOW, low, network.v_min, state.vm, network.node_names),
        (LimitKind.LOADING, loading, network.loading_max, state.loading, network.branch_names),
    )
    best: tuple[float, LimitKind, str, float, float] | None = None
    for kind, margin, bound, value, names in candidates:
        if not margin.size:
            continue
        t, i = np.unravel_index(int(np.argmax(margin)), margin.shape)
        entry = (float(margin[t, i]), kind, names[i], float(value[t, i]), float(bound[i]))
        if best is None or entry[0] > best[0]:
            best = entry
    assert best is not None  # a network has at least its slack node
    return best[1:]
