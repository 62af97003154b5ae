"""From profiles to injections: what loads, generators and storages put into the nodes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from coflex.domain.quantity import Floats
from coflex.domain.series import Series
from coflex.grid.network import Network
from coflex.grid.tables import GridTables


def element_powers(tables: GridTables, profiles: Series) -> tuple[Floats, Floats]:
    """Active and reactive power of every element in MW and Mvar, shape (elements, periods), injection positive.

    Elements in the order of `Network.element_names`: loads, generators, storages (which rest at zero). A profile
    name that is empty stands for one at all times. Raises CoflexError on an unknown profile.
    """
    loads, generators = tables.loads, tables.generators
    p = [
        -_scaled(profiles, [row.profile_p for row in loads], [row.p_mw for row in loads]),
        _scaled(profiles, [row.profile for row in generators], [row.p_mw for row in generators]),
        np.zeros((len(tables.storages), len(profiles.axis))),
    ]
    q = [
        -_scaled(profiles, [row.profile_q for row in loads], [row.q_mvar for row in loads]),
        _scaled(profiles, [row.profile for row in generators], [row.q_mvar for row in generators]),
        np.zeros((len(tables.storages), len(profiles.axis))),
    ]
    return np.concatenate(p), np.concatenate(q)


def node_injections(network: Network, elements: Floats) -> Floats:
    """Element powers (elements, periods) summed to nodes, shape (periods, nodes)."""
    summed: Floats = np.ascontiguousarray((network.element_incidence.T @ elements).T)
    return summed


def _scaled(profiles: Series, names: Sequence[str], size: Sequence[float]) -> Floats:
    shape: Floats = np.ones((len(names), len(profiles.axis)))
    named = [i for i, name in enumerate(names) if name]
    if named:
        shape[named] = profiles.rows([names[i] for i in named])
    return shape * np.array(size, dtype=np.float64)[:, None]
