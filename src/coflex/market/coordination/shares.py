"""Who pays for an award that a clearing for several buyers made: by what it was worth to each.

An award is worth what the requests and the grid's limits would pay for one more MWh of it. What limits of distribution
grids would pay counts for the DSO, limits of transmission and the balance for the TSO, the balance also for balance
responsible parties, by how much each of the two asked. Worth below zero (a limit that the award loads) counts as
nothing. An award that is worth nothing to anyone (a tie) is the first buyer's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from coflex.domain.quantity import Floats, Ints
from coflex.market.book import OrderBook
from coflex.market.clearing import Answer
from coflex.market.coordination.world import World
from coflex.market.design import Buyer


def shares(
    world: World, book: OrderBook, answer: Answer, buyers: Sequence[Buyer], system_kw: Floats, orders_kw: Floats
) -> Floats:
    """Shares (n blocks, 3) of DSO, TSO and BRP, adding to one.

    `system_kw[t]`: what the TSO asked for on the book's axis, up positive; `orders_kw[t]`: what balance responsible
    parties were given there, up positive.
    """
    order = (Buyer.DSO, Buyer.TSO, Buyer.BRP)
    found = np.zeros((len(book), 3))
    if len(buyers) == 1:
        found[:, order.index(buyers[0])] = 1.0
        return found
    local, central = grid_worth(world, book, answer)
    balance = np.maximum(answer.request_worth, 0.0)
    asked = np.abs(system_kw) + np.abs(orders_kw)
    commercial = np.where(asked > 0, np.abs(orders_kw) / np.maximum(asked, 1e-9), 0.0)[book.period]
    if Buyer.BRP not in buyers:
        commercial = np.zeros(len(book))
    found[:, 0] = np.maximum(local, 0.0)
    found[:, 1] = np.maximum(central, 0.0) + (1 - commercial) * balance
    found[:, 2] = commercial * balance
    for k, buyer in enumerate(order):
        if buyer not in buyers:
            found[:, k] = 0.0
    total = found.sum(axis=1)
    found[total <= 1e-9] = np.eye(3)[order.index(buyers[0])]
    parts: Floats = found / found.sum(axis=1, keepdims=True)
    return parts


def grid_worth(world: World, book: OrderBook, answer: Answer) -> tuple[Floats, Floats]:
    """EUR/MWh (n blocks) that limits of distribution grids and of the transmission grid would pay for each block; the
    two add to the answer's grid worth."""
    local, central = np.zeros(len(book)), np.zeros(len(book))
    rows = answer.rows
    if rows is None or not len(rows):
        return local, central
    pressed = np.flatnonzero(answer.row_price)
    below = _of_distribution(world, [rows.names[r] for r in pressed.tolist()])
    placed = np.flatnonzero(book.node >= 0)
    node, at = book.node[placed], book.period[placed]
    for level, worth in ((1, local), (0, central)):
        mine = pressed[below == level]
        p = np.zeros((len(book.axis), world.network.n))
        q = np.zeros_like(p)
        np.add.at(p, rows.period[mine], answer.row_price[mine, None] * rows.dp[mine])
        np.add.at(q, rows.period[mine], answer.row_price[mine, None] * rows.dq[mine])
        effect = book.p_share[placed] * p[at, node] + book.tan_phi[placed] * q[at, node]
        worth[placed] = book.sign[placed] * effect
    return local, central


def _of_distribution(world: World, names: Sequence[str]) -> Ints:
    """1 for limits of a distribution grid, 0 for those of transmission, by the element that a row's name ends with."""
    network = world.network
    known = dict(zip(network.node_names, (world.node_grid >= 0).tolist(), strict=True))
    known |= dict(zip(network.branch_names, (world.branch_grid >= 0).tolist(), strict=True))
    found = [known[name.split(" ", 1)[1]] for name in names]
    return np.array(found, dtype=np.int64)
