"""How near a clearing on the grid comes to the optimum of the full equations, in cost, limits and prices."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coflex.domain.quantity import Floats
from coflex.grid.network import Network, build
from coflex.grid.powerflow import solve
from coflex.grid.rows import AcGrid
from coflex.market.book import OrderBook
from coflex.market.clearing import Answer, injections
from support.ac_optimum import ac_optimum
from support.books import DOWN, UP, book, cleared, offer, places_of
from support.small_grids import LOADS, meshed, radial, worst_margin
from support.small_grids import injections as loads

SEEDS = st.integers(0, 2**32 - 1)


def congested(seed: int) -> tuple[Network, Floats, Floats, OrderBook]:
    """A grid with too much load or too much sun, and offers in both directions at every bus."""
    rng = np.random.default_rng(seed)
    sunny = rng.random() < 0.5
    current, low, high = rng.uniform(75, 110), rng.uniform(0.94, 0.965), rng.uniform(1.03, 1.05)
    tables = (meshed if rng.random() < 0.5 else radial)(current, low, high)
    network = build(tables)
    p, q = loads(tables, network, *((0.1, rng.uniform(4, 6)) if sunny else (rng.uniform(1.2, 1.5), 0.0)))
    offers = [
        offer(2 * i + way + 1, bus, DOWN if way else UP, (f"{rng.integers(2000, 9000) / 100:.2f}", [4000]))
        for i, bus in enumerate(LOADS)
        for way in range(2)
    ]
    return network, p, q, book(offers, 1, places_of(network, 0.2))


def optimum_eur(b: OrderBook, answer: Answer) -> float:
    return float(b.price @ answer.award_mw) * b.axis.hours


@pytest.mark.spec("MKT-06")
@settings(max_examples=25, deadline=None, derandomize=True)
@given(SEEDS)
def test_the_cost_is_that_of_ipopt_and_whole_kw_keep_every_limit(seed: int) -> None:
    network, p, q, b = congested(seed)
    answer = cleared(b, None, AcGrid(network, p, q))
    assert not answer.short.any()
    best, _ = ac_optimum(network, p[0], q[0], b.node, b.price * b.axis.hours, b.sign * b.quantity_mw, 0.2)
    assert optimum_eur(b, answer) == pytest.approx(best, rel=1e-4, abs=1e-5)
    change = injections(b, answer.award_kw / 1000, network.n)
    assert worst_margin(network, solve(network, p + change[0], q + change[1])) <= 1e-6


@pytest.mark.spec("MKT-06")
@settings(max_examples=15, deadline=None, derandomize=True)
@given(SEEDS)
def test_nodal_prices_are_the_change_of_cost_to_a_cent(seed: int) -> None:
    network, p, q, b = congested(seed)
    grid = AcGrid(network, p, q)
    answer = cleared(b, None, grid)
    step = 0.01
    for node in np.unique(b.node)[::2]:
        at = np.flatnonzero((b.node == node) & (b.sign > 0))[0]
        moved = []
        for way in (step, -step):
            there, beside = p.copy(), q.copy()
            there[0, node] += way
            beside[0, node] += 0.2 * way
            moved.append(optimum_eur(b, cleared(b, None, AcGrid(network, there, beside))))
        sides = [(moved[1] - optimum_eur(b, answer)), (optimum_eur(b, answer) - moved[0])]
        low, high = sorted(side / (step * b.axis.hours) for side in sides)
        # Where the best corner changes at this very need, every price between the two sides is right.
        assert low - 0.01 <= float(answer.grid_worth[at]) <= high + 0.01
