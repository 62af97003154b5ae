"""Clearing on the conic relaxation: the full power flow's answer where it is tight, its own terms kept everywhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coflex.grid.network import build
from coflex.grid.powerflow import solve
from coflex.grid.rows import AcGrid
from coflex.market.book import OrderBook
from coflex.market.clearing import Answer, clear, injections
from coflex.market.model import Demand
from coflex.market.relaxed import clear_conic
from support.books import UP, book, cleared, cost_eur, demand, offer, places_of
from support.small_grids import injections as node_injections
from support.small_grids import radial, worst_margin

SEEDS = st.integers(0, 2**32 - 1)


def loaded(periods: tuple[float, ...] = (1.3,), **limits: float) -> AcGrid:
    tables = radial(**({"i_max_a": 98.0, "v_min": 0.9} | limits))
    network = build(tables)
    p, q = node_injections(tables, network, 1.0)
    scale = np.array([[share] for share in periods])
    return AcGrid(network, p * scale, q * scale)


def on_cones(b: OrderBook, grid: AcGrid, asked: Demand | None = None) -> Answer:
    return clear_conic(b, np.ones(len(b), dtype=np.bool_), asked or Demand.none(), grid)


@pytest.mark.spec("MKT-01")
@settings(max_examples=10, deadline=None, derandomize=True)
@given(SEEDS)
def test_where_loads_congest_it_buys_what_the_full_power_flow_buys_at_the_same_worth(seed: int) -> None:
    rng = np.random.default_rng(seed)
    grid = loaded(tuple(rng.uniform(1.1, 1.45, 3)))
    buses = ["A1", "A2", "A3", "A4", "B2"]
    offers = [
        offer(i + 1, bus, UP, (f"{rng.uniform(10, 90):.2f}", rng.integers(300, 1500, 3).tolist()))
        for i, bus in enumerate(buses)
    ]
    b = book(offers, 3, places_of(grid.network, 0.2))
    mine, true = on_cones(b, grid), cleared(b, None, grid)
    if true.short.any():
        assert mine.short.any()
        return
    assert np.abs(mine.award_kw - true.award_kw).max() <= 3
    assert cost_eur(b, mine.award_kw) == pytest.approx(cost_eur(b, true.award_kw), abs=0.1)
    # Losses cost 1 EUR/MWh there, and some blocks are worth less than a hundredth here.
    bought = mine.award_kw > 0
    assert mine.worth[bought] == pytest.approx(true.worth[bought], abs=1.0)
    dp, dq = injections(b, mine.award_kw / 1000, grid.network.n)
    assert worst_margin(grid.network, solve(grid.network, grid.p_mw + dp, grid.q_mvar + dq)) < 1e-4
    assert mine.rows is not None and (mine.row_price <= 0).all()
    assert set(mine.rows.names) <= {f"loading {name}" for name in grid.network.branch_names}


@pytest.mark.spec("MKT-03")
@settings(max_examples=10, deadline=None, derandomize=True)
@given(SEEDS)
def test_blocks_choices_least_quantities_and_energy_limits_hold(seed: int) -> None:
    rng = np.random.default_rng(seed)
    grid = loaded((1.25, 1.35))
    terms: list[dict[str, object]] = [
        {"block": True},
        {"exclusive": "x"},
        {"exclusive": "x"},
        {"min_quantity_kw": 300},
        {"energy_limit_kwh": 150},
        {},
    ]
    buses = ["A2", "A3", "A4", "A2", "A3", "A4"]
    offers = [
        offer(i + 1, f"u{i}", UP, (f"{rng.uniform(10, 90):.2f}", rng.integers(300, 900, 2).tolist()), **term)
        for i, term in enumerate(terms)
    ]
    places = places_of(grid.network)
    b = book(offers, 2, {f"u{i}": places[bus] for i, bus in enumerate(buses)})
    answer = on_cones(b, grid)
    kw, offered = np.zeros((6, 2), dtype=np.int64), np.zeros((6, 2), dtype=np.int64)
    np.add.at(kw, (b.offer, b.period), answer.award_kw)
    np.add.at(offered, (b.offer, b.period), np.round(b.quantity_mw * 1000).astype(np.int64))
    assert (kw <= offered).all() and kw.any()
    assert (kw[0] == 0).all() or (kw[0] == offered[0]).all()
    assert not (kw[1].any() and kw[2].any())
    assert ((kw[3] == 0) | (kw[3] >= np.minimum(300, offered[3]))).all()
    assert kw[4].sum() / 4 <= 150
    assert answer.gap >= 0


@pytest.mark.spec("MKT-03")
def test_a_block_that_is_not_worth_its_size_gives_way() -> None:
    grid = loaded()
    sold = [offer(1, "A2", UP, ("25.00", [3000]), block=True), offer(2, "A3", UP, ("40.00", [1500]))]
    b = book(sold, 1, places_of(grid.network))
    answer = on_cones(b, grid)
    # The block alone costs 75 EUR an hour; what the line wants of the dearer offer costs half of that.
    assert answer.award_kw[0] in (0, 3000)
    true = cleared(b, None, grid)
    assert cost_eur(b, answer.award_kw) >= cost_eur(b, true.award_kw) - 0.02
    bound = cost_eur(b, answer.award_kw) * (1 - answer.gap)
    assert bound <= cost_eur(b, true.award_kw) + 0.02


def test_nothing_is_bought_beyond_a_request() -> None:
    grid = loaded((1.0, 1.0))
    b = book(
        [offer(1, "A2", UP, ("31.00", [500, 500])), offer(2, "B2", UP, ("30.00", [500, 500]))],
        2,
        places_of(grid.network),
    )
    answer = on_cones(b, grid, demand((UP, 0, 700)))
    assert [int(answer.award_kw[b.period == t].sum()) for t in range(2)] == [700, 0]
    assert answer.award_kw[(b.period == 0) & (b.price == 30.0)].tolist() == [500]
    assert not answer.uncovered_mw.any()
    short = on_cones(b, grid, demand((UP, 0, 1300)))
    assert short.uncovered_mw == pytest.approx([0.3], abs=1e-5)


def test_what_cannot_be_covered_is_named_with_what_it_lacks() -> None:
    grid = loaded(i_max_a=70.0)
    b = book([offer(1, "A2", UP, ("31.00", [150])), offer(2, "A3", UP, ("29.90", [150]))], 1, places_of(grid.network))
    answer, true = on_cones(b, grid), cleared(b, None, grid)
    assert answer.award_kw.tolist() == [150, 150] and answer.rows is not None and true.rows is not None
    mine = {name for name, short in zip(answer.rows.names, answer.short, strict=True) if short > 1e-3}
    theirs = {name for name, short in zip(true.rows.names, true.short, strict=True) if short > 1e-3}
    assert mine == theirs and mine
    assert answer.short.max() == pytest.approx(true.short.max(), abs=1e-3)


def test_a_calm_grid_buys_nothing() -> None:
    grid = loaded((0.5,))
    b = book([offer(1, "A2", UP, ("31.00", [500]))], 1, places_of(grid.network))
    answer = on_cones(b, grid)
    assert not answer.award_kw.any() and not len(answer.short)


@pytest.mark.spec("MKT-19")
def test_the_order_of_arrival_decides_nothing_and_equals_go_by_receipt() -> None:
    grid = loaded()
    sold = [offer(i + 1, f"u{i}", UP, ("30.00", [400])) for i in range(4)]
    place = places_of(grid.network)["A2"]
    places = {f"u{i}": place for i in range(4)}
    first, second = (on_cones(book(one, 1, places), grid) for one in (sold, sold[::-1]))
    assert first.award_kw.tolist() == second.award_kw.tolist()
    assert first.award_kw.tolist() == sorted(first.award_kw.tolist(), reverse=True)
    assert 0 < first.award_kw.sum() < 1600
    everything = np.ones(4, dtype=np.bool_)
    b = book(sold, 1, places)
    assert first.award_kw.sum() == pytest.approx(clear(b, everything, Demand.none(), grid).award_kw.sum(), abs=3)
