"""What the elements of a grid could do differently: as its dispatch table says, or by a stated rule."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coflex.domain.errors import CoflexError, Finding
from coflex.domain.quantity import Floats, Ints
from coflex.reporting.study.case import GridCase

# Without a dispatch table: share of its consumption that a load can forgo.
LOAD_SHARE = 0.2


@dataclass(frozen=True, eq=False)
class Flexibility:
    """Elements that can move, u of them: `names`, `element[u]` (index among the network's elements), `node[u]`, how
    far up and down in MW `[u, t]`, the reactive power that follows, kvar per kW, and `findings` about assumptions."""

    names: tuple[str, ...]
    element: Ints
    node: Ints
    up_mw: Floats
    down_mw: Floats
    tan_phi: Floats
    findings: tuple[Finding, ...]


def flexibility(case: GridCase) -> Flexibility:
    """By the dispatch table, where the grid has one for its loads, generators and storages. Otherwise generators
    can go down to zero, storages work at their rating either way, and loads forgo a fifth. Raises CoflexError where
    nothing may move."""
    tables, names = case.tables, case.network.element_names
    place = {name: k for k, name in enumerate(names)}
    p = case.p_mw
    up, down = np.zeros_like(p), np.zeros_like(p)
    given = [row for row in tables.dispatches if row.element in place]
    findings: tuple[Finding, ...] = ()
    if given:
        for row in given:
            k = place[row.element]
            up[k] = np.maximum(row.p_max_mw - p[k], 0.0)
            down[k] = np.maximum(p[k] - row.p_min_mw, 0.0)
    else:
        for load in tables.loads:
            up[place[load.load]] = LOAD_SHARE * np.maximum(-p[place[load.load]], 0.0)
        for generator in tables.generators:
            down[place[generator.generator]] = np.maximum(p[place[generator.generator]], 0.0)
        for storage in tables.storages:
            up[place[storage.storage]] = down[place[storage.storage]] = storage.p_rated_mw
        message = (
            "The grid does not say what its elements can do; assumed: generators down to zero, storages at their "
            f"rating, loads {LOAD_SHARE:.0%} less. Give a dispatch table to say it."
        )
        findings = (Finding("dispatches.csv", "assumed_flexibility", message),)
    reactive = np.zeros(len(names), dtype=np.bool_)
    reactive[[place[row.element] for row in given if row.q_max_mvar > row.q_min_mvar]] = True
    moving = np.flatnonzero(((up + down).max(axis=1, initial=0.0) > 0) | reactive)
    if not len(moving):
        raise CoflexError(
            "Nothing in the grid may be called.", "Give a dispatch table that says what its elements can do."
        )
    own = np.abs(p[moving]).max(axis=1, initial=0.0)
    at = np.abs(p[moving]).argmax(axis=1) if len(moving) else np.zeros(0, dtype=np.int64)
    rows = np.arange(len(moving))
    follows = np.where(own > 0, case.q_mvar[moving][rows, at] / np.where(own > 0, p[moving][rows, at], 1.0), 0.0)
    return Flexibility(
        tuple(names[k] for k in moving.tolist()),
        moving,
        case.network.element_node[moving],
        up[moving],
        down[moving],
        follows,
        findings,
    )
