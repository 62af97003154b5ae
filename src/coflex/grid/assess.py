"""Assessment: which limits a grid state breaks, where, when, by how much (GRID-03)."""

from __future__ import annotations

import numpy as np

from coflex.domain.need import Violation
from coflex.domain.qualification import LimitKind
from coflex.domain.quantity import Floats
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
    instants = tuple(axis)
    high, low, loading = margins(network, state)
    high[:, network.slack] = low[:, network.slack] = -np.inf
    found: list[Violation] = []
    vm = state.vm
    for kind, margin, bound in (
        (LimitKind.VOLTAGE_HIGH, high, network.v_max),
        (LimitKind.VOLTAGE_LOW, low, network.v_min),
    ):
        for t, i in np.argwhere(margin > tolerance):
            found.append(Violation(instants[t], network.node_names[i], kind, float(vm[t, i]), float(bound[i])))
    for t, i in np.argwhere(loading > tolerance):
        value, bound_of = float(state.loading[t, i]), float(network.loading_max[i])
        found.append(Violation(instants[t], network.branch_names[i], LimitKind.LOADING, value, bound_of))
    return tuple(sorted(found, key=lambda v: (v.start, v.kind, v.element)))


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
