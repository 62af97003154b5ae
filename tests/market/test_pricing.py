"""Prices: what each rule pays, and nodal prices against the change of cost."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coflex.grid.network import build
from coflex.grid.rows import AcGrid
from coflex.market.book import OrderBook
from coflex.market.clearing import Answer
from coflex.market.design import Pricing
from coflex.market.pricing import bid, prices
from support.books import DOWN, UP, book, cleared, cost_eur, demand, offer, places_of
from support.small_grids import radial, solved


def relieved(load_at_a3_mw: float = 0.0, loading_max_percent: float = 100.0) -> tuple[OrderBook, Answer]:
    """An overloaded feeder A: one cheap unit that is used up, one that is marginal, and one too dear at A3."""
    tables = radial(i_max_a=98.0, v_min=0.9)
    tables = replace(tables, lines=tuple(replace(x, loading_max_percent=loading_max_percent) for x in tables.lines))
    network, state = solved(tables, load=1.3)
    p = state.p_mw.copy()
    p[0, network.node_of("A3")] -= load_at_a3_mw
    b = book(
        [
            offer(1, "A1", UP, ("20.00", [200])),
            offer(2, "A2", UP, ("60.00", [5000])),
            offer(3, "A3", UP, ("90.00", [5000])),
        ],
        1,
        places_of(build(tables), 0.0),
    )
    return b, cleared(b, None, AcGrid(network, p, state.q_mvar))


@pytest.mark.spec("MKT-06")
def test_the_nodal_price_is_the_change_of_cost_with_the_need_at_that_bus() -> None:
    b, answer = relieved()
    step = 0.2
    low, high = relieved(-step), relieved(step)
    change = (cost_eur(low[0], high[1].award_kw) - cost_eur(low[0], low[1].award_kw)) / (2 * step * 0.25)
    at_a3 = float(answer.grid_worth[b.price == 90.0][0])
    # Awards are whole kW: 1 kW at 60 EUR/MWh over 400 kW is 0.25 %; the curvature over 0.4 MW is of the same size.
    assert at_a3 == pytest.approx(change, rel=0.01)
    assert 60.0 < at_a3 < 90.0
    # At its own place the marginal unit is worth its own bid.
    assert float(answer.grid_worth[b.price == 60.0][0]) == pytest.approx(60.0, abs=1e-3)


@pytest.mark.spec("MKT-06")
def test_the_price_of_a_row_is_the_change_of_cost_with_its_limit() -> None:
    _, answer = relieved()
    binding = np.flatnonzero(answer.row_price < -1e-6)
    assert answer.rows is not None and len(binding) == 1
    assert answer.rows.names[binding[0]] == "loading M1-A1"
    low, high = relieved(loading_max_percent=97.0), relieved(loading_max_percent=103.0)
    change = (cost_eur(high[0], high[1].award_kw) - cost_eur(low[0], low[1].award_kw)) / (0.06 * 0.25)
    marginal = answer.rows.dp[binding[0], int(relieved()[0].node[1])]
    assert change == pytest.approx(60.0 / marginal, rel=0.01)
    assert answer.row_price[binding[0]] == pytest.approx(change, rel=0.01)


@pytest.mark.spec("MKT-06")
def test_nodal_prices_pay_nobody_less_than_its_bid_and_the_cheap_more() -> None:
    b, answer = relieved()
    paid = prices(b, answer, Pricing.NODAL)
    assert set(paid) == set(np.flatnonzero(answer.award_kw > 0).tolist()) and len(paid) == 2
    assert all(paid[i] >= bid(b, i) for i in paid)
    cheap = int(np.flatnonzero(b.price == 20.0)[0])
    assert Decimal("55") < paid[cheap] < Decimal("60")


@pytest.mark.spec("MKT-06")
def test_a_nodal_price_never_passes_the_dearest_offer_although_something_stays_uncovered() -> None:
    network, state = solved(radial(i_max_a=70.0, v_min=0.9), load=1.3)
    b = book([offer(1, "A3", UP, ("20.00", [100])), offer(2, "A2", UP, ("35.00", [50]))], 1, places_of(network))
    answer = cleared(b, None, AcGrid(network, state.p_mw, state.q_mvar))
    assert answer.short.any() and answer.award_kw.tolist() == [100, 50]
    assert all(price <= Decimal("35.00") for price in prices(b, answer, Pricing.NODAL).values())


@pytest.mark.spec("MKT-05")
@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1))
def test_paid_as_clear_everyone_gets_the_dearest_accepted_bid_and_paid_as_bid_its_own(seed: int) -> None:
    rng = np.random.default_rng(seed)
    offers = [
        offer(
            i + 1,
            f"unit {i}",
            UP if rng.random() < 0.5 else DOWN,
            (f"{rng.integers(100, 9000) / 100:.2f}", rng.integers(0, 200, 2).tolist()),
        )
        for i in range(8)
    ]
    b = book(offers, 2)
    answer = cleared(b, demand(*[(d, t, int(rng.integers(1, 600))) for d in (UP, DOWN) for t in range(2)]))
    accepted = np.flatnonzero(answer.award_kw > 0)
    own, common = prices(b, answer, Pricing.PAY_AS_BID), prices(b, answer, Pricing.PAY_AS_CLEAR)
    assert set(own) == set(common) == set(accepted.tolist())
    cells: dict[tuple[int, int], set[Decimal]] = {}
    for i in accepted.tolist():
        cells.setdefault((int(b.period[i]), int(b.sign[i])), set()).add(common[i])
        assert own[i] == Decimal(f"{b.price[i]:.2f}") <= common[i]
    for (t, s), values in cells.items():
        mine = accepted[(b.period[accepted] == t) & (b.sign[accepted] == s)]
        assert values == {Decimal(f"{b.price[mine].max():.2f}")}
