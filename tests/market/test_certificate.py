"""Certificates: a lower bound below every answer, close where the relaxation is tight, refused where it is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coflex.grid.network import build
from coflex.grid.powerflow import solve
from coflex.grid.rows import AcGrid, Guard
from coflex.grid.tables import GridTables
from coflex.market.book import OrderBook
from coflex.market.certificate import Certificate, Invented, Verdict, certify
from coflex.market.clearing import Answer, injections
from coflex.market.model import Demand
from support.ac_optimum import ac_optimum
from support.books import DOWN, UP, book, cleared, cost_eur, demand, offer, places_of
from support.small_grids import LOADS, radial, worst_margin
from support.small_grids import injections as node_injections

SEEDS = st.integers(0, 2**32 - 1)
Sold = tuple[str, object, str, int]  # bus, direction, price, kW


def market(
    tables: GridTables, load: float, generation: float, *sold: Sold, guard: Guard | None = None, **terms: object
) -> tuple[AcGrid, OrderBook]:
    """One quarter-hour with an offer a bus."""
    network = build(tables)
    p, q = node_injections(tables, network, load, generation)
    offers = [offer(i + 1, bus, way, (price, [kw]), **terms) for i, (bus, way, price, kw) in enumerate(sold)]  # type: ignore[arg-type]
    return AcGrid(network, p, q, guard), book(offers, 1, places_of(network))


def ipopt_eur(grid: AcGrid, b: OrderBook) -> float:
    """What the cheapest injections of the book's blocks cost for a quarter-hour."""
    p, q = grid.p_mw[0], grid.q_mvar[0]
    return ac_optimum(grid.network, p, q, b.node, b.price / 4, b.sign * b.quantity_mw)[0]


CONGESTED = ("A2", UP, "31.00", 1500), ("A3", UP, "29.90", 700), ("B3", UP, "40.00", 1500)
EXPORT = ("A3", DOWN, "40.00", 5000), ("B2", DOWN, "50.00", 6000), ("A4", DOWN, "30.00", 1000)


@pytest.mark.spec("MKT-06")
@pytest.mark.parametrize("load", [1.2, 1.3, 1.4])
def test_a_congested_feeder_is_certified_and_ipopt_agrees(load: float) -> None:
    grid, b = market(radial(i_max_a=98.0, v_min=0.9), load, 1.0, *CONGESTED)
    answer = cleared(b, None, grid)
    found = certify(b, answer, Demand.none(), grid)
    true = ipopt_eur(grid, b)
    assert found.verdict is Verdict.CERTIFIED and found.gap < 1e-5 and not found.invented
    assert found.bound_eur == pytest.approx(true, rel=1e-5)
    assert found.cost_eur == pytest.approx(cost_eur(b, answer.award_kw), rel=1e-5)
    # Whole kW and the band against their rounding are all that is between the answer and the best.
    assert 0 <= found.share < 0.005
    assert found.sentence == f"certified: within {found.share:.2%} of any answer"


@pytest.mark.spec("MKT-06")
def test_a_dear_answer_is_certified_as_dear() -> None:
    grid, b = market(radial(i_max_a=98.0, v_min=0.9), 1.3, 1.0, *CONGESTED)
    answer = cleared(b, None, grid)
    worse = replace(answer, award_kw=np.where(b.price == 40.0, 500, answer.award_kw))
    found = certify(b, worse, Demand.none(), grid)
    assert found.verdict is Verdict.CERTIFIED
    assert found.share == pytest.approx(1 - ipopt_eur(grid, b) / cost_eur(b, worse.award_kw), abs=1e-4)


@pytest.mark.spec("MKT-06")
def test_with_export_no_certificate_is_given_and_the_branches_are_named() -> None:
    grid, b = market(radial(v_max=1.025), 0.1, 6.0, *EXPORT)
    answer = cleared(b, None, grid)
    found = certify(b, answer, Demand.none(), grid)
    true = ipopt_eur(grid, b)
    assert found.verdict is Verdict.NOT_TIGHT and found.gap > 0.1
    # The bound holds, and is worth little: losses that are not there stand in for most of what must be bought.
    assert found.bound_eur <= true
    assert found.bound_eur < 0.5 * true <= 0.51 * found.cost_eur
    losses = [one.mwh for one in found.invented]
    assert losses == sorted(losses, reverse=True) and losses[0] > 0.001
    assert found.invented[0].branch in grid.network.branch_names
    assert found.sentence.startswith(f"no certificate: the relaxation invents losses at {found.invented[0].branch}, ")
    assert f"no answer costs less than {found.bound_eur:.2f} EUR" in found.sentence


@pytest.mark.spec("MKT-06")
@settings(max_examples=12, deadline=None, derandomize=True)
@given(SEEDS)
def test_the_bound_lies_below_what_ipopt_finds_and_below_every_answer_that_stands(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tables = radial(rng.uniform(85, 110), 0.95, rng.uniform(1.024, 1.05))
    export = rng.random() < 0.4
    sold: list[Sold] = [
        (str(bus), UP if rng.random() < 0.6 else DOWN, f"{rng.uniform(5, 90):.2f}", int(rng.integers(200, 2000)))
        for bus in rng.choice(sorted(LOADS), 4, replace=False)
    ]
    strong: list[Sold] = [(bus, DOWN if export else UP, "95.00", 6000) for bus in ("A3", "B2")]
    grid, b = market(tables, *((0.2, 5.0) if export else (rng.uniform(1, 1.4), 0.5)), *sold, *strong)
    answer = cleared(b, None, grid)
    if answer.short.any():
        return
    found = certify(b, answer, Demand.none(), grid)
    if found.verdict is Verdict.CERTIFIED:
        assert found.bound_eur == pytest.approx(ipopt_eur(grid, b), rel=1e-4, abs=1e-3)
    assert found.bound_eur <= ipopt_eur(grid, b) + 1e-3
    kw = answer.award_kw
    for _ in range(20):
        other = np.clip(kw + rng.integers(-300, 300, len(kw)), 0, np.round(b.quantity_mw * 1000)).astype(np.int64)
        dp, dq = injections(b, other / 1000, grid.network.n)
        if worst_margin(grid.network, solve(grid.network, grid.p_mw + dp, grid.q_mvar + dq)) <= 0:
            assert found.bound_eur <= cost_eur(b, other) + 1e-3


@pytest.mark.spec("MKT-06")
def test_what_no_offer_can_cover_is_proved_to_be_so() -> None:
    small = ("A2", UP, "31.00", 150), ("A3", UP, "29.90", 150)
    grid, b = market(radial(i_max_a=70.0, v_min=0.9), 1.3, 1.0, *small)
    answer = cleared(b, None, grid)
    assert answer.short.any()
    found = certify(b, answer, Demand.none(), grid)
    assert found.verdict is Verdict.IMPOSSIBLE and np.isnan(found.bound_eur) and np.isnan(found.share)
    assert found.sentence == "certified: no answer of these offers covers everything"


def test_what_is_left_uncovered_without_need_is_not_certified() -> None:
    grid, b = market(radial(i_max_a=98.0, v_min=0.9), 1.3, 1.0, *CONGESTED)
    answer = cleared(b, None, grid)
    assert answer.rows is not None and len(answer.rows)
    lazy = replace(answer, award_kw=0 * answer.award_kw, short=np.full(len(answer.rows), 0.1))
    found = certify(b, lazy, Demand.none(), grid)
    assert found.verdict is Verdict.OPEN
    assert "could cover" in found.sentence


def test_a_calm_grid_needs_nothing_and_nothing_is_missed() -> None:
    grid, b = market(radial(), 1.0, 1.0, *CONGESTED)
    found = certify(b, cleared(b, None, grid), Demand.none(), grid)
    assert (found.verdict, found.cost_eur, found.bound_eur, found.share) == (Verdict.CERTIFIED, 0.0, 0.0, 0.0)


@pytest.mark.spec("MKT-06")
def test_requests_on_a_grid_are_in_the_bound() -> None:
    grid, b = market(radial(i_max_a=98.0, v_min=0.9), 1.3, 1.0, *CONGESTED)
    asked = demand((UP, 0, 1200))
    answer = cleared(b, asked, grid)
    found = certify(b, answer, asked, grid)
    # The line wants 872 kW at the two cheap offers; the rest of the request goes to the cheapest too.
    assert answer.award_kw.sum() == 1200 and not answer.short.any()
    assert found.verdict is Verdict.CERTIFIED and found.share < 1e-3
    assert found.bound_eur == pytest.approx((0.7 * 29.9 + 0.5 * 31.0) / 4, rel=1e-4)


@pytest.mark.spec("MKT-06")
def test_what_a_block_costs_for_being_whole_is_in_the_share() -> None:
    loose, b = market(radial(i_max_a=98.0, v_min=0.9), 1.3, 1.0, ("A2", UP, "31.00", 1500))
    _, whole = market(radial(i_max_a=98.0, v_min=0.9), 1.3, 1.0, ("A2", UP, "31.00", 1500), block=True)
    divided, at_once = (certify(x, cleared(x, None, loose), Demand.none(), loose) for x in (b, whole))
    assert at_once.cost_eur == pytest.approx(1.5 * 31 / 4, rel=1e-4)
    assert at_once.bound_eur == pytest.approx(divided.bound_eur, rel=1e-4)
    assert at_once.share > 0.3 > 0.01 > divided.share


def test_a_margin_is_part_of_what_is_certified() -> None:
    sold, tables = CONGESTED, radial(i_max_a=98.0, v_min=0.9)
    bounds = []
    for guard in (Guard(), Guard(loading_share=0.03)):
        grid, b = market(tables, 1.3, 1.0, *sold, guard=guard)
        found = certify(b, cleared(b, None, grid), Demand.none(), grid)
        assert found.verdict is Verdict.CERTIFIED and found.share < 0.005
        bounds.append(found.bound_eur)
    assert bounds[1] > 1.05 * bounds[0]


def test_a_long_list_of_branches_is_cut_in_words_alone() -> None:
    invented = tuple(Invented(f"line {i}", 1.0 - 0.1 * i) for i in range(5))
    told = Certificate(Verdict.NOT_TIGHT, 10.0, 6.0, 0.5, invented).sentence
    expected = "line 0, line 1, line 2 and 2 more; no answer costs less than 6.00 EUR, 40.00% below"
    assert told == f"no certificate: the relaxation invents losses at {expected}"


def test_the_same_answer_has_the_same_certificate() -> None:
    grid, b = market(radial(i_max_a=98.0, v_min=0.9), 1.3, 1.0, *CONGESTED)
    answer: Answer = cleared(b, None, grid)
    assert certify(b, answer, Demand.none(), grid) == certify(b, answer, Demand.none(), grid)
