"""Offers with terms: against enumeration, against a linear program with every coupling in it, and with a stated gap."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from coflex.market.book import OrderBook, Place
from coflex.market.clearing import Answer
from coflex.market.model import PENALTY, Demand
from support.books import DOWN, UP, book, bought, cleared, cost_eur, demand, offer

SEEDS = st.integers(0, 2**32 - 1)


def euros(b: OrderBook, answer: Answer) -> float:
    """What is paid, and the penalty for what is left."""
    return cost_eur(b, answer.award_kw) + PENALTY * float(answer.uncovered_mw.sum()) * b.axis.hours


# ---- small enough to enumerate ---------------------------------------------------------------------------------


@pytest.mark.spec("MKT-06")
@settings(max_examples=25, deadline=None, derandomize=True)
@given(SEEDS)
def test_blocks_over_several_quarter_hours_cost_what_enumeration_finds_within_the_gap(seed: int) -> None:
    rng = np.random.default_rng(seed)
    blocks, periods = 6, 3
    kw = rng.integers(20, 200, (blocks, periods))
    price = rng.integers(1000, 12_000, blocks) / 100
    free = rng.integers(20, 160, (3, periods))
    dear = np.sort(rng.integers(6000, 25_000, 3)) / 100
    asked = (kw.sum(axis=0) * rng.uniform(0.3, 0.7)).astype(int)
    offers = [offer(i + 1, f"b{i}", UP, (f"{price[i]:.2f}", kw[i].tolist()), block=True) for i in range(blocks)]
    offers += [offer(10 + i, f"f{i}", UP, (f"{dear[i]:.2f}", free[i].tolist())) for i in range(3)]
    b = book(offers, periods)
    answer = cleared(b, demand(*[(UP, t, int(asked[t])) for t in range(periods)]))
    best = np.inf
    for on in product((0, 1), repeat=blocks):
        left = asked - np.array(on) @ kw
        if (left < 0).any():
            continue
        cost = float(np.array(on) * price @ kw.sum(axis=1))
        for i in range(3):
            used = np.minimum(left, free[i])
            cost, left = cost + dear[i] * used.sum(), left - used
        best = min(best, (cost + PENALTY * left.sum()) / 4000)
    mine, spent = euros(b, answer), cost_eur(b, answer.award_kw)
    assert mine >= best - 1e-3
    assert mine <= best + answer.gap * spent + 0.011
    assert answer.gap * spent <= max(0.011, 1.1e-4 * spent)


@pytest.mark.spec("MKT-06")
@settings(max_examples=25, deadline=None, derandomize=True)
@given(SEEDS)
def test_energy_limits_that_bind_and_those_that_do_not_cost_what_one_program_with_all_of_them_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    units, periods = 8, 5
    kw = rng.integers(50, 300, (units, periods))
    price = rng.integers(1000, 12_000, units) / 100
    limit = (kw.sum(axis=1) * rng.uniform(0.1, 1.2, units) / 4).astype(int) + 1
    asked = (kw.sum(axis=0) * rng.uniform(0.2, 0.8, periods)).astype(int)
    offers = [
        offer(i + 1, f"u{i}", UP, (f"{price[i]:.2f}", kw[i].tolist()), energy_limit_kwh=int(limit[i]))
        for i in range(units)
    ]
    b = book(offers, periods)
    answer = cleared(b, demand(*[(UP, t, int(asked[t])) for t in range(periods)]))
    of_period = np.tile(np.eye(periods), units)
    found = linprog(
        np.r_[np.repeat(price, periods), np.full(periods, PENALTY)] / 4000,
        A_eq=np.hstack([of_period, np.eye(periods)]),
        b_eq=asked,
        A_ub=np.hstack([np.repeat(np.eye(units), periods, axis=1), np.zeros((units, periods))]),
        b_ub=4 * limit,
        bounds=[(0, q) for q in kw.ravel()] + [(0, None)] * periods,
    )
    optimum = float(b.price @ answer.award_mw + PENALTY * answer.uncovered_mw.sum()) * b.axis.hours
    assert optimum == pytest.approx(float(found.fun), rel=1e-6, abs=1e-3)
    used = np.bincount(b.offer, weights=answer.award_kw, minlength=units) / 4
    assert (used <= limit + 1e-9).all()


# ---- named refusals --------------------------------------------------------------------------------------------


@pytest.mark.spec("MKT-06")
def test_a_block_refused_at_a_price_above_its_own_is_named() -> None:
    b = book(
        [
            offer(1, "too large", UP, ("50.00", [100]), block=True),
            offer(2, "too dear", UP, ("120.00", [40]), block=True),
            offer(3, "free", UP, ("90.00", [60])),
        ],
        1,
    )
    answer = cleared(b, demand((UP, 0, 60)))
    assert bought(b, answer)[("offer 3", 1, 0)] == 60
    assert [b.offers[o].id for o in answer.paradoxical] == ["offer 1"]


@pytest.mark.spec("MKT-06")
def test_a_least_quantity_refused_at_a_price_above_its_own_is_named_and_an_accepted_one_is_not() -> None:
    offers = [
        offer(1, "a", UP, ("50.00", [100, 100]), min_quantity_kw=80),
        offer(2, "b", UP, ("90.00", [60, 60])),
    ]
    b = book(offers, 2)
    answer = cleared(b, demand((UP, 0, 60), (UP, 1, 100)))
    assert [b.offers[o].id for o in answer.paradoxical] == ["offer 1"]
    assert cleared(b, demand((UP, 1, 100))).paradoxical.tolist() == []


@pytest.mark.spec("MKT-06")
def test_every_quarter_hour_of_an_accepted_block_is_worth_as_much_above_its_price() -> None:
    b = book([offer(1, "a", UP, ("50.00", [60, 60]), block=True), offer(2, "b", UP, ("90.00", [80, 200]))], 2)
    answer = cleared(b, demand((UP, 0, 100), (UP, 1, 70)))
    surplus = (answer.worth - b.price)[b.offer == 0]
    assert (answer.award_kw[b.offer == 0] == 60).all()
    assert surplus == pytest.approx([40.0, 40.0], abs=1e-3)


# ---- many ------------------------------------------------------------------------------------------------------


def crowd(count: int, periods: int, kind: str) -> tuple[OrderBook, Demand]:
    """Many indivisible offers for a third of what they have, and for blocks dearer ones that fill up."""
    rng = np.random.default_rng(count)
    terms: dict[str, Any] = {
        "block": lambda: {"block": True},
        "least": lambda: {"min_quantity_kw": int(rng.integers(50, 150))},
        "longest": lambda: {"max_periods": int(rng.integers(2, 9))},
    }
    low, high = (20, 120) if kind == "block" else (150, 400)
    offers = []
    for i in range(count):
        kw = (rng.integers(low, high) * (0.6 + 0.4 * rng.random(periods))).astype(int)
        offers.append(
            offer(i + 1, f"u{i}", UP, (f"{rng.integers(2000, 12_000) / 100:.2f}", kw.tolist()), **terms[kind]())
        )
    whole = sum(np.array(o.steps[0].quantity_kw) for o in offers)
    if kind == "block":
        for i in range(max(5, count // 7)):
            kw = rng.integers(60, 200, periods)
            offers.append(offer(1000 + i, f"f{i}", UP, (f"{rng.integers(9000, 25_000) / 100:.2f}", kw.tolist())))
    asked = [(UP, t, int(whole[t] * (0.3 + 0.03 * np.sin(t / 15)))) for t in range(periods)]
    return book(offers, periods), demand(*asked)


@pytest.mark.spec("MKT-06")
@pytest.mark.parametrize(
    ("count", "periods", "kind", "promised"),
    [
        (60, 8, "block", 0.02),
        (40, 6, "least", 2e-4),
        (20, 12, "longest", 0.01),
        pytest.param(300, 96, "block", 0.01, marks=pytest.mark.slow),
        pytest.param(200, 96, "least", 2e-4, marks=pytest.mark.slow),
        pytest.param(60, 96, "longest", 0.01, marks=pytest.mark.slow),
    ],
)
def test_many_indivisible_offers_end_covered_with_a_gap_that_is_small_and_stated(
    count: int, periods: int, kind: str, promised: float
) -> None:
    b, asked = crowd(count, periods, kind)
    answer = cleared(b, asked)
    assert answer.uncovered_mw.sum() <= 1e-6
    assert 0.0 <= answer.gap <= promised
    kw, offered = np.zeros((2, len(b.offers), periods), dtype=np.int64)
    np.add.at(kw, (b.offer, b.period), answer.award_kw)
    np.add.at(offered, (b.offer, b.period), np.round(b.quantity_mw * 1000).astype(np.int64))
    for o, one in enumerate(b.offers):
        if one.block:
            assert (kw[o] == 0).all() or (kw[o] == offered[o]).all()
        if one.min_quantity_kw:
            assert ((kw[o] == 0) | (kw[o] >= np.minimum(one.min_quantity_kw, offered[o]))).all()
        if one.max_periods:
            runs = np.convolve(kw[o] > 0, np.ones(one.max_periods + 1, dtype=int), "valid")
            assert not len(runs) or runs.max() <= one.max_periods


@pytest.mark.spec("MKT-19")
def test_many_indivisible_offers_give_the_same_answer_again_and_in_any_order() -> None:
    b, asked = crowd(60, 8, "block")
    again = book(b.offers[::-1], 8)
    assert bought(b, cleared(b, asked)) == bought(b, cleared(b, asked)) == bought(again, cleared(again, asked))


# ---- ties ------------------------------------------------------------------------------------------------------


@pytest.mark.spec("MKT-19")
def test_ten_thousand_equal_prices_in_different_places_are_served_by_receipt() -> None:
    count = 10_000
    receipts = np.random.default_rng(8).permutation(count) + 1
    offers = [offer(int(r), f"u{r}", DOWN, ("10.00", [7])) for r in receipts]
    places = {f"u{r}": Place(-1, f"F{r % 97}", 0.001 * (r % 89)) for r in receipts}
    b = book(offers, 1, places)
    answer = cleared(b, demand((DOWN, 0, count // 2 * 7)))
    served = [b.offers[int(o)].receipt for o in b.offer[answer.award_kw > 0]]
    assert sorted(served) == list(range(1, count // 2 + 1))
