"""Generators that hold a voltage only as far as their reactive power reaches.

A machine beyond a limit gives what the limit allows and lets its voltage go: its node is no longer held (PV to PQ), all
that are beyond at once. One that stands at its upper limit with its voltage too high, or at its lower one with it too
low, takes hold again; each a few times at most, lest two pass the task on for ever.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from coflex.domain.quantity import Floats
from coflex.grid.network import Network
from coflex.grid.powerflow import GridState, solve
from coflex.grid.tables import GridTables

# Mvar beyond a limit that still count as within.
WITHIN = 1e-6
# pu by which a voltage may differ from the one held and count as the same; how often a machine takes hold again.
SAME_PU, RETURNS = 1e-9, 3


@dataclass(frozen=True, eq=False)
class Reach:
    """Of each held node h: the machines there by name, and `low[h]`, `high[h]` in Mvar, infinite where not known."""

    names: tuple[str, ...]
    low: Floats
    high: Floats


def reach(tables: GridTables, network: Network) -> Reach:
    """What the dispatch rows of the generators at held nodes allow together."""
    limits = {row.element: (row.q_min_mvar, row.q_max_mvar) for row in tables.dispatches}
    names: dict[int, list[str]] = {int(node): [] for node in network.held}
    low = dict.fromkeys(names, 0.0)
    high = dict.fromkeys(names, 0.0)
    for row in tables.generators:
        node = network.node_of(row.bus)
        if node in names:
            least, most = limits.get(row.generator, (-np.inf, np.inf))
            # A machine that holds no voltage of its own gives what it is told.
            if row.vm_pu:
                names[node].append(row.generator)
                low[node], high[node] = low[node] + least, high[node] + most
            else:
                low[node], high[node] = low[node] + row.q_mvar, high[node] + row.q_mvar
    at = network.held.tolist()
    joined = tuple(" and ".join(sorted(names[node])) for node in at)
    return Reach(joined, np.array([low[node] for node in at]), np.array([high[node] for node in at]))


def machine_mvar(network: Network, state: GridState, q_mvar: Floats) -> Floats:
    """What the machines at the held nodes give, (t, h) in Mvar, beside the other injections `q_mvar` (t, n) there."""
    given: Floats = state.q_mvar[:, network.held] - q_mvar[:, network.held]
    return given


def solve_within(network: Network, limits: Reach, p_mw: Floats, q_mvar: Floats) -> GridState:
    """AC power flow (t, n) in which no machine passes its limits; `q_mvar`: all injections but those of the machines
    that hold. Raises GridFailure as `solve`."""
    states = [_one(network, limits, p_mw[[t]], q_mvar[[t]]) for t in range(len(p_mw))]
    names = ("u", "p_mw", "q_mvar", "loading_from", "loading_to", "interface_p_mw", "interface_q_mvar")
    return GridState(*(np.concatenate([getattr(state, name) for state in states]) for name in names))


def _one(network: Network, limits: Reach, p_mw: Floats, q_mvar: Floats) -> GridState:
    held, own = network.held, q_mvar[0, network.held]
    holding = np.ones(len(held), dtype=np.bool_)
    returned = np.zeros(len(held), dtype=np.int64)
    at = np.zeros(len(held))
    q = q_mvar.copy()
    while True:
        there = replace(network, held=held[holding], held_vm=network.held_vm[holding])
        state = solve(there, p_mw, q)
        given = state.q_mvar[0, held] - own
        beyond = holding & ((given > limits.high + WITHIN) | (given < limits.low - WITHIN))
        vm = state.vm[0, held] - network.held_vm
        idle = ~holding & (((at == limits.high) & (vm > SAME_PU)) | ((at == limits.low) & (vm < -SAME_PU)))
        idle &= returned < RETURNS
        if not (beyond.any() or idle.any()):
            return state
        at[beyond] = np.clip(given, limits.low, limits.high)[beyond]
        q[0, held[beyond]] = (own + at)[beyond]
        returned[idle] += 1
        holding = (holding & ~beyond) | idle
