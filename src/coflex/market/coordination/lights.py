"""Lights and filters around what is held: how far distribution grids let a session go without seeing them.

A light is one number for a perimeter and direction, safe for every split over its units (`grid.light`). A filter is one
number for each unit and direction, safe for all together.
"""

from __future__ import annotations

import numpy as np

from coflex.domain.quantity import Floats, Ints
from coflex.grid.light import Agents, capability
from coflex.market.coordination.state import FREE, State
from coflex.market.coordination.view import View


def lights(view: View, state: State, free_kw: Floats) -> dict[tuple[str, int], Floats]:
    """Capability in MW (h,) of each perimeter and direction (+1, -1), on the state with all that is held.

    `free_kw[u, 2, h]`: what units still offer. A perimeter in which another session moved units one way is red the
    other way (document B, section 6.3); what is kept ready for others is off the light, as it may be called too.
    """
    world, inside = view.world, _below(view)
    names = sorted({world.sellers[u].light for u in inside.tolist()})
    if not names:
        return {}
    perimeter = np.array([names.index(world.sellers[u].light) for u in inside.tolist()], dtype=np.int64)
    part = np.concatenate([2 * perimeter, 2 * perimeter + 1])
    held = state.positions.kw[inside][:, view.part]
    opposite = np.zeros((2 * len(names), held.shape[1]), dtype=np.bool_)
    np.logical_or.at(opposite, 2 * perimeter, held < 0)
    np.logical_or.at(opposite, 2 * perimeter + 1, held > 0)
    ready = ready_kw(view, state)[inside]
    potential = np.concatenate([free_kw[inside, 0], free_kw[inside, 1]])
    potential = np.where(opposite[part], 0.0, potential)
    kw = _capability(view, state, inside, part, 2 * len(names), potential, ready)
    found = {}
    for p, name in enumerate(names):
        found[(name, 1)], found[(name, -1)] = kw[2 * p] / 1000.0, kw[2 * p + 1] / 1000.0
    return found | {("", 1): np.full(kw.shape[1], np.inf), ("", -1): np.full(kw.shape[1], np.inf)}


def filtered(view: View, state: State, free_kw: Floats, caps: Floats) -> Floats:
    """Caps (u, 2, h) in kW of all units, those in distribution grids cut to what is safe when all go as far."""
    inside = _below(view)
    if not len(inside):
        return caps
    parts = 2 * len(inside)
    ready = ready_kw(view, state)[inside]
    potential = np.concatenate([free_kw[inside, 0], free_kw[inside, 1]])
    kw = _capability(view, state, inside, np.arange(parts, dtype=np.int64), parts, potential, ready)
    cut = caps.copy()
    cut[inside, 0], cut[inside, 1] = np.floor(kw[: len(inside)] + 1e-6), np.floor(kw[len(inside) :] + 1e-6)
    return cut


def ready_kw(view: View, state: State) -> Floats:
    """kW (u, 2, h) that units keep ready for others, up and down: they may be called beside what is bought here.
    What is called already is in the state."""
    positions, part = state.positions, view.part
    kept = np.stack([positions.reserved_up[:, part], positions.reserved_down[:, part]], axis=1).astype(np.float64)
    aside = state.contracted(view.admits, part) | (positions.holder[:, part] != FREE)
    return np.where(aside[:, None, :], 0.0, kept)


def _below(view: View) -> Ints:
    """Units at a node of a distribution grid, by index."""
    sellers = view.world.sellers
    return np.array([u for u, one in enumerate(sellers) if one.grid and one.node >= 0], dtype=np.int64)


def _capability(
    view: View, state: State, inside: Ints, part: Ints, parts: int, potential: Floats, ready: Floats
) -> Floats:
    """Whole kW (parts, h) that the distribution grids' limits leave beside what units keep `ready` (units, 2, h), which
    stands in parts of its own that give up nothing."""
    sellers = [view.world.sellers[u] for u in inside.tolist()]
    node = np.tile(np.array([one.node for one in sellers], dtype=np.int64), 2)
    tan_phi = np.tile(np.array([one.tan_phi for one in sellers]), 2)
    sign = np.concatenate([np.ones(len(inside), dtype=np.int64), -np.ones(len(inside), dtype=np.int64)])
    agents, floor, kept = Agents(node, tan_phi, sign, part, parts), None, np.concatenate([ready[:, 0], ready[:, 1]])
    if kept.any():
        twice = np.concatenate([part, parts + part])
        agents = Agents(np.tile(node, 2), np.tile(tan_phi, 2), np.tile(sign, 2), twice, 2 * parts)
        potential = np.concatenate([potential, kept])
        floor = np.zeros((2 * parts, potential.shape[1]))
        np.add.at(floor, parts + part, kept)
    kw = np.zeros((agents.parts, potential.shape[1]))
    for network, solved, at in view.below(state):
        least = None if floor is None else floor[:, at]
        kw[:, at] = capability(network, solved, agents, potential[:, at], least).kw
    return np.floor(kw[:parts] + 1e-6)
