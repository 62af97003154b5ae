"""The two-stage clearing against its extensive form by another solver, closed forms, enumeration, AC power flow, and
the laws that every two-stage program keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, linprog, minimize

from coflex.domain.errors import CoflexError, Refused, SolverFailure
from coflex.domain.quantity import Direction, Floats
from coflex.domain.reserve import CapacityOffer
from coflex.grid.network import Network, build
from coflex.grid.powerflow import GridState, solve
from coflex.grid.rows import AcGrid
from coflex.grid.tables import GridTables
from coflex.market.book import OrderBook, Place
from coflex.market.clearing import injections as changes
from coflex.market.stochastic import (
    Outlook,
    ReserveBook,
    Surroundings,
    TwoStage,
    build_reserve,
    clear_two_stage,
    redispatch,
    reservations,
    value_of,
)
from coflex.market.two_stage import passes
from coflex.solver import highs
from coflex.solver.audit import audit
from coflex.solver.program import Program, Solution
from support import second_engine
from support.books import DOWN, UP, axis, book, offer, places_of
from support.small_grids import LOADS, injections, meshed, radial, worst_margin

SEEDS = st.integers(0, 2**32 - 1)
laws = settings(max_examples=20, deadline=None, derandomize=True)
PENALTY = 900.0
HOURS = 0.25


def capacity(
    receipt: int,
    unit: str,
    direction: Direction,
    *steps: tuple[str, str, Sequence[int]],
    **terms: Any,
) -> CapacityOffer:
    """Steps as (availability price, use price, kW of each quarter-hour)."""
    offered = offer(receipt, unit, direction, *((use, kw) for _, use, kw in steps), name=f"capacity {receipt}", **terms)
    return CapacityOffer(offered, tuple(Decimal(held) for held, _, _ in steps))


def reserve(offers: Sequence[CapacityOffer], periods: int, places: dict[str, Place] | None = None) -> ReserveBook:
    nowhere = {o.offer.unit or "": Place(-1, "", 0.0) for o in offers}
    return build_reserve(offers, axis(periods), nowhere | (places or {}))


def lacks(*scenarios: Sequence[float], weight: Sequence[float] | None = None) -> Outlook:
    """Needs in MW, scenario by scenario."""
    need = np.array(scenarios, dtype=float)
    return Outlook(np.full(len(need), 1 / len(need)) if weight is None else np.array(weight), need)


def euro(rng: np.random.Generator, low: int, high: int) -> str:
    return f"{rng.integers(100 * low, 100 * high) / 100:.2f}"


def balancing(seed: int, scenarios: int = 4, periods: int = 3) -> tuple[OrderBook, ReserveBook, Outlook]:
    """Sellers with energy, capacity or both, in both directions, some with an energy limit, and uneven scenarios."""
    rng = np.random.default_rng(seed)
    energy, held = [], []
    for i in range(6):
        direction = UP if rng.random() < 0.6 else DOWN
        kw = rng.integers(0, 600, periods).tolist()
        limit = {"energy_limit_kwh": int(rng.integers(20, 150))} if rng.random() < 0.4 else {}
        if rng.random() < 0.7:
            energy.append(offer(i, f"unit {i}", direction, (euro(rng, 20, 90), kw), **limit))
        if rng.random() < 0.8:
            more = rng.integers(0, 600, periods).tolist()
            steps = (euro(rng, 0, 20), euro(rng, 20, 150), kw), (euro(rng, 0, 20), euro(rng, 20, 150), more)
            held.append(capacity(100 + i, f"unit {i}", direction, *steps, **limit))
    need = rng.normal(0.3, 0.6, (scenarios, periods))
    weight = rng.uniform(0.2, 1, scenarios)
    return book(energy, periods), reserve(held, periods), lacks(*need, weight=weight / weight.sum())


def unit_of(of: OrderBook, i: int) -> str:
    return of.offers[int(of.offer[i])].unit or ""


def by_linprog(a: OrderBook, r: ReserveBook, outlook: Outlook, penalty: float = PENALTY) -> float:
    """The extensive form, written row by row: expected cost in EUR."""
    na, nr, (s_count, t_count) = len(a), len(r), outlook.need_mw.shape
    width = na + nr + s_count * (nr + 2 * t_count)

    def y(s: int, j: int) -> int:
        return na + nr + s * (nr + 2 * t_count) + j

    cost, bounds = np.zeros(width), [(0.0, None)] * width
    upper, limits, equal, needs = [], [], [], []
    for i in range(na):
        cost[i], bounds[i] = HOURS * a.price[i], (0, a.quantity_mw[i])
    for j in range(nr):
        cost[na + j], bounds[na + j] = HOURS * r.availability[j], (0, r.book.quantity_mw[j])
    for s, p in enumerate(outlook.probability):
        for j in range(nr):
            cost[y(s, j)] = p * HOURS * r.book.price[j]
            row = np.zeros(width)
            row[y(s, j)], row[na + j] = 1, -1
            upper.append(row), limits.append(0.0)
        for t in range(t_count):
            cost[y(s, nr + 2 * t)] = cost[y(s, nr + 2 * t + 1)] = p * HOURS * penalty
            row = np.zeros(width)
            for i in np.flatnonzero(a.period == t):
                row[i] = a.sign[i]
            for j in np.flatnonzero(r.book.period == t):
                row[y(s, j)] = r.book.sign[j]
            row[y(s, nr + 2 * t)], row[y(s, nr + 2 * t + 1)] = 1, -1
            equal.append(row), needs.append(outlook.need_mw[s, t])
    for o, one in enumerate(a.offers):
        if one.energy_limit_kwh is not None:
            row = np.zeros(width)
            row[:na][a.offer == o] = HOURS * 1000
            upper.append(row), limits.append(one.energy_limit_kwh)
    for o, one in enumerate(r.book.offers):
        for s in range(s_count) if one.energy_limit_kwh is not None else ():
            row = np.zeros(width)
            row[[y(s, j) for j in np.flatnonzero(r.book.offer == o)]] = HOURS * 1000
            upper.append(row), limits.append(one.energy_limit_kwh)
    for unit in {unit_of(a, i) for i in range(na)} & {unit_of(r.book, j) for j in range(nr)}:
        for t, sign in product(range(t_count), (1, -1)):
            mine = [i for i in range(na) if (unit_of(a, i), a.period[i], a.sign[i]) == (unit, t, sign)]
            its = [j for j in range(nr) if (unit_of(r.book, j), r.book.period[j], r.book.sign[j]) == (unit, t, sign)]
            row = np.zeros(width)
            row[mine + [na + j for j in its]] = 1
            upper.append(row), limits.append(max(a.quantity_mw[mine].sum(), r.book.quantity_mw[its].sum()))
    found = linprog(cost, np.array(upper), limits, np.array(equal), needs, bounds)
    assert found.status == 0
    return float(found.fun)


# ---- the program -----------------------------------------------------------------------------------------------


@pytest.mark.spec("MKT-15")
@laws
@given(SEEDS)
def test_the_expected_cost_is_that_of_the_extensive_form(seed: int) -> None:
    a, r, outlook = balancing(seed)
    found = clear_two_stage(a, r, outlook, PENALTY)
    best = by_linprog(a, r, outlook)
    assert found.ideal.cost_eur == pytest.approx(best, rel=1e-6, abs=1e-5)
    # Whole kW cost at most a kW of penalty in each quarter-hour and a kW of price in each block.
    slack = HOURS * PENALTY * 3 / 1000 + HOURS * (len(a) + len(r)) * 0.15
    assert best - 1e-5 <= found.cost_eur <= best + slack


@pytest.mark.spec("MKT-15")
@laws
@given(SEEDS)
def test_value_and_foresight_are_those_of_the_extensive_form(seed: int) -> None:
    a, r, outlook = balancing(seed)
    value = value_of(a, r, outlook, PENALTY)
    apart = [by_linprog(a, r, lacks(need)) for need in outlook.need_mw]
    assert value.foresight == pytest.approx(float(outlook.probability @ apart), rel=1e-6, abs=1e-5)
    assert value.recourse == pytest.approx(by_linprog(a, r, outlook), rel=1e-6, abs=1e-5)
    assert value.of_stochastic_solution >= -1e-5 and value.of_perfect_information >= -1e-5
    # One scenario is its own mean and leaves nothing to foresee.
    sure = value_of(a, r, lacks(outlook.need_mw[0]), PENALTY)
    assert sure.of_stochastic_solution == pytest.approx(0, abs=1e-5)
    assert sure.of_perfect_information == pytest.approx(0, abs=1e-9)


@pytest.mark.spec("MKT-15")
@laws
@given(SEEDS)
def test_a_plan_for_the_mean_is_worth_what_its_own_recourse_costs(seed: int) -> None:
    a, r, outlook = balancing(seed)
    mean = lacks(outlook.probability @ outlook.need_mw)
    naive = clear_two_stage(a, r, mean, PENALTY).ideal
    held = replace(
        r,
        availability=np.zeros(len(r)),
        book=replace(r.book, quantity_mw=naive.reserved_mw[0]),
    )
    left = outlook.need_mw.copy()
    for i, x in enumerate(naive.award_mw[0]):
        left[:, a.period[i]] -= a.sign[i] * x
    spent = HOURS * float(a.price @ naive.award_mw[0] + r.availability @ naive.reserved_mw[0])
    used = by_linprog(book([], 3), held, replace(outlook, need_mw=left))
    assert value_of(a, r, outlook, PENALTY).mean_value == pytest.approx(spent + used, rel=1e-6, abs=1e-4)


@pytest.mark.spec("MKT-15")
@laws
@given(SEEDS, st.integers(1, 40))
def test_the_reserve_for_one_demand_is_its_critical_fractile(seed: int, count: int) -> None:
    """The newsvendor (Arrow, Harris and Marschak 1951): hold r with F(r) = 1 - a / (V - u)."""
    rng = np.random.default_rng(seed)
    demand_kw = np.sort(rng.integers(1, 4000, count))
    held, use = rng.integers(1, 9000) / 100, rng.integers(1, 9000) / 100
    r = reserve([capacity(1, "a", UP, (f"{held:.2f}", f"{use:.2f}", [5000]))], 1)
    found = clear_two_stage(book([], 1), r, lacks(*demand_kw[:, None] / 1000), 120.0)
    fractile = 1 - held / (120.0 - use)
    level = np.arange(1, count + 1) / count
    if np.abs(level - fractile).min() < 1e-9:
        return
    best = int(demand_kw[np.searchsorted(level, fractile)]) if fractile > 0 else 0
    assert found.reserved_kw.tolist() == [best]
    assert found.called_mw[:, 0] == pytest.approx(np.minimum(demand_kw, best)[np.argsort(np.argsort(demand_kw))] / 1000)
    expected = held * best + np.mean(use * np.minimum(demand_kw, best) + 120 * np.maximum(demand_kw - best, 0))
    assert found.cost_eur == pytest.approx(expected * HOURS / 1000, rel=1e-9)
    assert found.lacking_mw[:, 0] == pytest.approx(np.maximum(demand_kw - best, 0) / 1000, abs=1e-9)


@pytest.mark.spec("MKT-15")
def test_the_worth_of_a_held_megawatt_is_what_one_more_would_save() -> None:
    def cost(kw: int) -> TwoStage:
        r = reserve([capacity(1, "a", UP, ("1.00", "30.00", [kw])), capacity(2, "b", UP, ("9.00", "80.00", [4000]))], 1)
        return clear_two_stage(book([], 1), r, lacks([0.2], [0.9], [1.7], [2.6]), PENALTY)

    less, found, more = cost(490), cost(500), cost(510)
    slope = (less.cost_eur - more.cost_eur) / 0.020 / HOURS
    assert found.worth[0] - 1.0 == pytest.approx(slope, rel=1e-4)
    assert found.worth[1] == pytest.approx(9.0, abs=1e-3)


@pytest.mark.spec("MKT-15")
@settings(max_examples=15, deadline=None, derandomize=True)
@given(SEEDS)
def test_indivisible_offers_are_chosen_as_full_enumeration_would(seed: int) -> None:
    rng = np.random.default_rng(seed)
    need = rng.integers(0, 900, (3, 2)) / 1000
    kw = rng.integers(50, 500, (5, 2))
    kinds = ("block", "block", "either", "either", "least")
    terms: dict[str, dict[str, Any]] = {
        "block": {"block": True},
        "either": {"block": True, "exclusive": "x"},
        "least": {"min_quantity_kw": 40, "block": True},
    }
    prices = [(euro(rng, 0, 60), euro(rng, 5, 200)) for _ in range(5)]
    energy = [offer(i, f"u{i}", UP, (prices[i][1], kw[i].tolist()), **terms[kinds[i]]) for i in range(2)]
    held = [capacity(i, f"u{i}", UP, (*prices[i], kw[i].tolist()), **terms[kinds[i]]) for i in range(2, 5)]
    a, r = book(energy, 2), reserve(held, 2)
    found = clear_two_stage(a, r, lacks(*need), PENALTY)
    best = np.inf
    for on in product((0, 1), repeat=5):
        if on[2] and on[3]:
            continue
        total = 0.0
        for i in range(5):
            total += on[i] * kw[i].sum() / 1000 * float(prices[i][1 if i < 2 else 0])
        for s, t in product(range(3), range(2)):
            left = need[s, t] - sum(on[i] * kw[i, t] for i in range(2)) / 1000
            for i in sorted(range(2, 5), key=lambda i: float(prices[i][1])):
                used = min(max(left, 0.0), on[i] * kw[i, t] / 1000)
                left -= used
                total += used * float(prices[i][1]) / 3
            total += abs(left) * PENALTY / 3
        best = min(best, total * HOURS)
    assert found.cost_eur == pytest.approx(best, rel=2e-4, abs=0.011)
    bought = {a.offers[int(o)].id: q for o, q in zip(a.offer, found.award_kw, strict=True)}
    assert set(bought.values()) <= {0, *kw[:2].ravel().tolist()}


@pytest.mark.spec("MKT-15")
def test_minimum_quantity_and_longest_run_bind_what_is_held() -> None:
    kw = [100, 100, 100]
    least = reserve([capacity(1, "a", UP, ("1.00", "10.00", kw), min_quantity_kw=80)], 3)
    found = clear_two_stage(book([], 3), least, lacks([0.05, 0.0, 0.09]), PENALTY)
    assert found.reserved_kw.tolist() == [80, 0, 90]
    run = reserve([capacity(1, "a", UP, ("1.00", "10.00", kw), max_periods=2)], 3)
    held = clear_two_stage(book([], 3), run, lacks([0.1, 0.1, 0.1], [0.1, 0.1, 0.1]), PENALTY).reserved_kw
    assert sorted(held.tolist()) == [0, 100, 100]


@pytest.mark.spec("MKT-15", "MKT-09")
@laws
@given(SEEDS)
def test_nothing_is_sold_twice_called_beyond_its_reserve_or_past_its_energy(seed: int) -> None:
    a, r, outlook = balancing(seed)
    found = clear_two_stage(a, r, outlook, PENALTY)
    assert (found.award_kw <= np.round(1000 * a.quantity_mw)).all() and (found.award_kw >= 0).all()
    assert (found.called_mw <= found.reserved_kw / 1000 + 1e-9).all() and (found.called_mw >= 0).all()
    energy = np.zeros((len(outlook), len(r.book.offers)))
    np.add.at(energy.T, r.book.offer, 1000 * HOURS * found.called_mw.T)
    for o, one in enumerate(r.book.offers):
        assert (energy[:, o] <= (one.energy_limit_kwh or np.inf) + 1e-6).all()
    for o, one in enumerate(a.offers):
        assert HOURS * found.award_kw[a.offer == o].sum() <= (one.energy_limit_kwh or np.inf)
    sold: dict[tuple[str, int], list[float]] = {}
    for of, kw, place in ((a, found.award_kw, 0), (r.book, found.reserved_kw, 1)):
        for i in range(len(of)):
            cell = sold.setdefault((unit_of(of, i), int(of.period[i])), [0.0, 0.0, 0.0])
            cell[place] += round(1000 * of.quantity_mw[i])
            cell[2] += kw[i]
    assert all(both <= max(energy_kw, held_kw) for energy_kw, held_kw, both in sold.values())
    balance = found.lacking_mw - found.surplus_mw
    for of, mw in ((a, found.award_kw / 1000 * np.ones((len(outlook), 1))), (r.book, found.called_mw)):
        for i in range(len(of)):
            balance[:, of.period[i]] += of.sign[i] * mw[:, i]
    np.testing.assert_allclose(balance, outlook.need_mw, atol=1e-8)


@pytest.mark.spec("MKT-15")
def test_offers_dearer_than_what_is_lost_without_them_are_left() -> None:
    r = reserve([capacity(1, "a", UP, ("0.00", "901.00", [500])), capacity(2, "b", UP, ("899.99", "1.00", [500]))], 1)
    found = clear_two_stage(book([], 1), r, lacks([0.3], [0.3]), PENALTY)
    assert found.reserved_kw.tolist() == [0, 0] and found.lacking_mw[:, 0].tolist() == [0.3, 0.3]
    assert found.cost_eur == pytest.approx(0.3 * PENALTY * HOURS)


# ---- laws of two stages ----------------------------------------------------------------------------------------


@pytest.mark.spec("MKT-15", "MKT-19")
@laws
@given(SEEDS)
def test_the_order_of_offers_and_scenarios_decides_nothing(seed: int) -> None:
    a, r, outlook = balancing(seed)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(outlook))
    turned_a = book([a.offers[i] for i in rng.permutation(len(a.offers))], 3)
    offers = [CapacityOffer(o, availability_of(r, k)) for k, o in enumerate(r.book.offers)]
    turned_r = reserve([offers[i] for i in rng.permutation(len(offers))], 3)
    one, other = (
        clear_two_stage(a, r, outlook, PENALTY),
        clear_two_stage(turned_a, turned_r, outlook.part(order), PENALTY),
    )
    assert np.array_equal(one.award_kw, other.award_kw) and np.array_equal(one.reserved_kw, other.reserved_kw)
    assert np.array_equal(one.called_mw[order], other.called_mw) and one.cost_eur == other.cost_eur
    assert np.array_equal(one.second_eur[order], other.second_eur) and np.array_equal(one.worth, other.worth)


def availability_of(r: ReserveBook, offer_index: int) -> tuple[Decimal, ...]:
    """The availability prices of an offer; of a step without any quantity none is known, and none matters."""
    found = []
    for s in range(len(r.book.offers[offer_index].steps)):
        mine = np.flatnonzero((r.book.offer == offer_index) & (r.book.step == s))
        found.append(Decimal(f"{r.availability[mine[0]]:.2f}") if len(mine) else Decimal(0))
    return tuple(found)


@pytest.mark.spec("MKT-15")
@laws
@given(SEEDS)
def test_what_is_known_only_later_changes_nothing_now(seed: int) -> None:
    """Non-anticipativity: a scenario cut into two alike is the same problem, and the first stage is one for all."""
    a, r, outlook = balancing(seed)
    found = clear_two_stage(a, r, outlook, PENALTY)
    assert found.award_kw.shape == (len(a),) and found.ideal.reserved_mw.shape == (1, len(r))
    twice = outlook.part(np.array([0, 0, 1, 2, 3]))
    twice = replace(twice, probability=np.r_[outlook.probability[0] * np.array([0.3, 0.7]), outlook.probability[1:]])
    again = clear_two_stage(a, r, twice, PENALTY)
    assert again.ideal.cost_eur == pytest.approx(found.ideal.cost_eur, rel=1e-7, abs=1e-6)
    spent = HOURS * (a.price @ found.award_kw + r.availability @ found.reserved_kw) / 1000
    assert found.first_eur == pytest.approx(spent)
    assert found.cost_eur == pytest.approx(found.first_eur + outlook.probability @ found.second_eur)


@pytest.mark.spec("MKT-15")
@settings(max_examples=6, deadline=None, derandomize=True)
@given(SEEDS)
def test_more_scenarios_never_look_cheaper_on_average(seed: int) -> None:
    """Mak, Morton and Wood (1999), doi:10.1016/S0167-6377(98)00054-6: the expected optimum of a sample rises with its
    size; over all samples without repetition exactly so."""
    a, r, outlook = balancing(seed, scenarios=5, periods=1)
    means = []
    for size in range(1, 6):
        costs = [
            clear_two_stage(a, r, lacks(*outlook.need_mw[list(few)]), PENALTY).ideal.cost_eur
            for few in combinations(range(5), size)
        ]
        means.append(np.mean(costs))
    assert (np.diff(means) >= -1e-5).all()


@pytest.mark.spec("MKT-15")
@laws
@given(SEEDS)
def test_a_dearer_loss_costs_more_and_another_offer_less(seed: int) -> None:
    a, r, outlook = balancing(seed)
    costs = [clear_two_stage(a, r, outlook, penalty).ideal.cost_eur for penalty in (50.0, 200.0, 900.0)]
    assert costs[0] <= costs[1] + 1e-5 <= costs[2] + 2e-5
    fewer = clear_two_stage(book(a.offers[:-1], 3), r, outlook, PENALTY) if a.offers else None
    assert fewer is None or fewer.ideal.cost_eur >= costs[2] - 1e-5


@pytest.mark.spec("MKT-15")
def test_energy_for_what_is_sure_and_reserve_for_what_is_not() -> None:
    a = book([offer(1, "a", UP, ("40.00", [5000]))], 1)
    r = reserve([capacity(2, "b", UP, ("5.00", "60.00", [5000]))], 1)
    found = clear_two_stage(a, r, lacks([1.0], [1.0], [1.0], [1.0], [1.0], [1.0], [1.0], [1.0], [1.0], [3.0]), PENALTY)
    assert found.award_kw.tolist() == [1000] and found.reserved_kw.tolist() == [2000]
    assert found.called_mw[:, 0] == pytest.approx([0.0] * 9 + [2.0], abs=1e-9)
    # The mean plan buys 1.2 MW of energy and no reserve: 0.2 too much nine times, 1.8 too little once.
    value = value_of(a, r, lacks(*[[1.0]] * 9, [3.0]), PENALTY)
    assert value.mean_value == pytest.approx(HOURS * (1.2 * 40 + PENALTY * (0.9 * 0.2 + 0.1 * 1.8)), rel=1e-5)
    assert value.recourse == pytest.approx(HOURS * (40 + 2 * 5 + 0.1 * 2 * 60), rel=1e-5)
    assert value.foresight == pytest.approx(HOURS * 1.2 * 40, rel=1e-5)


# ---- the grid --------------------------------------------------------------------------------------------------


def weather(tables: GridTables, network: Network, seed: int, scenarios: int, periods: int) -> Outlook:
    rng = np.random.default_rng(seed)
    p, q = np.zeros((2, scenarios, periods, network.n))
    for s, t in product(range(scenarios), range(periods)):
        one = injections(tables, network, rng.uniform(0.8, 1.4), rng.uniform(0, 3))
        p[s, t], q[s, t] = one[0][0], one[1][0]
    return Outlook(np.full(scenarios, 1 / scenarios), None, Surroundings(network, p, q))


def on_grid(seed: int, scenarios: int = 4) -> tuple[GridTables, OrderBook, ReserveBook, Outlook]:
    rng = np.random.default_rng(seed)
    tables = (meshed if rng.random() < 0.3 else radial)(rng.uniform(80, 120), rng.uniform(0.93, 0.95), 1.05)
    network = build(tables)
    places = places_of(network, 0.2)
    energy, held = [], []
    for i, bus in enumerate(LOADS):
        for direction in (UP, DOWN):
            kw = rng.integers(100, 1800, 2).tolist()
            number = 2 * i + (direction is UP)
            if rng.random() < 0.5:
                energy.append(offer(number, bus, direction, (euro(rng, 20, 60), kw)))
            held.append(capacity(100 + number, bus, direction, (euro(rng, 1, 10), euro(rng, 30, 90), kw)))
    outlook = weather(tables, network, seed, scenarios, 2)
    return tables, book(energy, 2, places), reserve(held, 2, places), outlook


def after(a: OrderBook, r: ReserveBook, found: TwoStage, outlook: Outlook) -> GridState:
    """The states of all scenarios, one after the other, with awards and activations in them."""
    grid = outlook.grid
    n = grid.network.n
    p, q = grid.p_mw.copy(), grid.q_mvar.copy()
    for s in range(len(outlook)):
        for of, mw in ((a, found.award_kw / 1000), (r.book, found.called_mw[s])):
            dp, dq = changes(of, mw, n)
            p[s] += dp
            q[s] += dq
    return solve(grid.network, p.reshape(-1, n), q.reshape(-1, n))


@pytest.mark.spec("MKT-15", "MKT-06")
@settings(max_examples=8, deadline=None, derandomize=True)
@given(SEEDS)
def test_every_scenario_stands_under_two_power_flows(seed: int) -> None:
    tables, a, r, outlook = on_grid(seed)
    found = clear_two_stage(a, r, outlook, 3000.0)
    state = after(a, r, found, outlook)
    for s, short in enumerate(found.short):
        here = state.part(np.array([2 * s, 2 * s + 1]))
        if short:
            assert worst_margin(outlook.grid.network, here) > 0
        else:
            assert worst_margin(outlook.grid.network, here) <= 1e-6
    if not found.short[0] and found.called_mw[0].any():
        net = second_engine.pandapower_net(tables)
        second_engine.run(net, outlook.grid.network, state.p_mw[0], state.q_mvar[0])
        assert second_engine.worst_margin(net, "H") <= 1e-5


@pytest.mark.spec("MKT-15")
@settings(max_examples=6, deadline=None, derandomize=True)
@given(SEEDS)
def test_on_the_grid_too_scenarios_are_worth_looking_at(seed: int) -> None:
    _, a, r, outlook = on_grid(seed)
    value = value_of(a, r, outlook, 3000.0)
    # Rows are made at each program's own state: they agree to the accuracy at which an answer stands.
    accuracy = 1e-5 * max(1.0, value.recourse)
    assert value.of_stochastic_solution >= -accuracy and value.of_perfect_information >= -accuracy


@pytest.mark.spec("MKT-15", "MKT-19")
@settings(max_examples=6, deadline=None, derandomize=True)
@given(SEEDS)
def test_on_the_grid_too_no_order_decides(seed: int) -> None:
    _, a, r, outlook = on_grid(seed)
    order = np.random.default_rng(seed).permutation(len(outlook))
    one, other = (clear_two_stage(a, r, of, 3000.0) for of in (outlook, outlook.part(order)))
    assert np.array_equal(one.reserved_kw, other.reserved_kw) and np.array_equal(one.award_kw, other.award_kw)
    assert np.array_equal(one.called_mw[order], other.called_mw)
    assert [one.short[s] for s in order] == list(other.short)


@pytest.mark.spec("MKT-15")
def test_one_unit_is_held_for_the_worst_scenario_as_the_power_flow_alone_says() -> None:
    tables = radial(i_max_a=98.0, v_min=0.9)
    network = build(tables)
    loads = (1.05, 1.2, 1.35)
    p, q = (np.array([injections(tables, network, load, 1.0)[k] for load in loads]) for k in (0, 1))
    r = reserve([capacity(1, "A3", UP, ("6.00", "50.00", [4000]))], 1, places_of(network, 0.2))
    outlook = Outlook(np.array([0.5, 0.3, 0.2]), None, Surroundings(network, p, q))
    found = clear_two_stage(book([], 1), r, outlook, 3000.0)

    def over(kw: float, s: int) -> float:
        dp, dq = np.zeros((2, 1, network.n))
        dp[0, network.node_of("A3")], dq[0, network.node_of("A3")] = kw / 1000, 0.2 * kw / 1000
        state = solve(network, p[s] + dp, q[s] + dq)
        return float((state.loading - 1).max())

    needed = [brentq(over, 0, 2500, args=(s,), xtol=1e-6) if over(0, s) > 0 else 0.0 for s in range(3)]
    assert needed[0] == 0 < needed[1] < needed[2]
    assert found.called_mw[:, 0] * 1000 == pytest.approx(needed, abs=0.01)
    assert found.reserved_kw.tolist() == [int(np.ceil(needed[2]))]
    # Where a loss costs less than holding for the rare case, only the frequent one is held for.
    cheap = clear_two_stage(book([], 1), r, outlook, 70.0)
    assert cheap.reserved_kw.tolist() == [int(np.ceil(needed[1]))]
    assert len(cheap.short[2]) == 1 and not cheap.short[1]


@pytest.mark.spec("MKT-15")
def test_awards_and_reserve_cost_on_the_grid_what_slsqp_finds_with_the_power_flow() -> None:
    tables = radial(i_max_a=98.0, v_min=0.9)
    network = build(tables)
    p, q = (np.array([injections(tables, network, load, 1.0)[k] for load in (1.22, 1.3, 1.42)]) for k in (0, 1))
    places = places_of(network, 0.2)
    a = book([offer(1, "A3", UP, ("30.00", [2000]))], 1, places)
    r = reserve([capacity(2, "A2", UP, ("5.00", "45.00", [900])), capacity(3, "B3", UP, ("9.00", "20.00", [900])),
                 capacity(4, "A4", UP, ("4.00", "70.00", [2000]))], 1, places)  # fmt: skip
    chance = np.array([0.6, 0.3, 0.1])
    found = clear_two_stage(a, r, Outlook(chance, None, Surroundings(network, p, q)), 3000.0)
    names, most = ("A3", "A2", "B3", "A4"), np.array([2.0, 0.9, 0.9, 2.0])
    price = {unit_of(r.book, j): (r.availability[j], r.book.price[j]) for j in range(3)}
    held, use = (np.array([price[name][k] for name in names[1:]]) for k in (0, 1))

    def parts(v: Floats) -> tuple[Floats, Floats, Floats]:
        return v[:1], v[1:4], v[4:].reshape(3, 3)

    def cost(v: Floats) -> float:
        x, hold, y = parts(v)
        return float(HOURS * (30 * x[0] + held @ hold + chance @ (y @ use)))

    def room(v: Floats) -> Floats:
        x, hold, y = parts(v)
        dp = np.zeros((3, network.n))
        for k, name in enumerate(names):
            dp[:, network.node_of(name)] += x[0] if k == 0 else y[:, k - 1]
        state = solve(network, p[:, 0] + dp, q[:, 0] + 0.2 * dp)
        return np.concatenate([(1 - state.loading[:, tight]).ravel(), (hold - y).ravel()])

    def slopes(v: Floats) -> Floats:
        return np.array([(room(v + h) - room(v - h)) / 2e-4 for h in 1e-4 * np.eye(13)]).T

    # Lines whose current does not turn round: the others' loading has a corner and is looked at afterwards.
    tight = [network.branch_names.index(name) for name in ("M1-A1", "A1-A2", "M0-B1")]
    upper = np.concatenate([most, np.tile(most[1:], 3)])
    slope = HOURS * np.concatenate([[30.0], held, np.outer(chance, use).ravel()])
    best = minimize(
        cost,
        0.5 * upper,
        jac=lambda v: slope,
        bounds=[(0, u) for u in upper],
        constraints={"type": "ineq", "fun": room, "jac": slopes},
        method="SLSQP",
        options={"ftol": 1e-10, "maxiter": 500},
    )
    assert best.success and room(best.x).min() > -1e-7
    assert best.x[0] > 0.01 and best.x[1:4].max() > 0.01
    assert found.ideal.cost_eur == pytest.approx(best.fun, rel=1e-5)
    assert found.cost_eur == pytest.approx(best.fun, rel=1e-3)


@pytest.mark.spec("MKT-15")
def test_a_balance_and_a_grid_are_kept_at_once() -> None:
    _, a, r, outlook = on_grid(11)
    need = np.random.default_rng(1).normal(0.2, 0.3, (4, 2))
    both = clear_two_stage(a, r, replace(outlook, need_mw=need), 3000.0)
    state = after(a, r, both, outlook)
    moved = state.p_mw.reshape(4, 2, -1).sum(axis=2) - outlook.grid.p_mw[..., outlook.grid.network.pq].sum(axis=2)
    np.testing.assert_allclose(moved + both.lacking_mw - both.surplus_mw, need, atol=1e-8)
    clean = [s for s in range(4) if not both.short[s]]
    assert (
        clean
        and worst_margin(outlook.grid.network, state.part(np.array([[2 * s, 2 * s + 1] for s in clean]).ravel()))
        <= 1e-6
    )
    alone = clear_two_stage(a, r, replace(outlook, need_mw=need, grid=None), 3000.0)
    assert both.ideal.cost_eur >= alone.ideal.cost_eur - 1e-6


# ---- real time -------------------------------------------------------------------------------------------------


@pytest.mark.spec("MKT-15")
@settings(max_examples=8, deadline=None, derandomize=True)
@given(SEEDS)
def test_real_time_calls_the_reserve_as_cheaply_as_the_plan_foresaw(seed: int) -> None:
    _, a, r, outlook = on_grid(seed)
    found = clear_two_stage(a, r, outlook, 3000.0)
    network = outlook.grid.network
    dp, dq = changes(a, found.award_kw / 1000, network.n)
    for s in range(2):
        grid = AcGrid(network, outlook.grid.p_mw[s] + dp, outlook.grid.q_mvar[s] + dq)
        answer = redispatch(r, found.reserved_kw, grid)
        assert (answer.award_kw <= found.reserved_kw).all()
        if found.short[s] or answer.short.any():
            continue
        cost = HOURS * r.book.price @ answer.award_kw / 1000
        # Whole kW and their guard band cost a few kW on each block.
        assert cost == pytest.approx(found.second_eur[s], abs=HOURS * 90 * 0.004 * (1 + (answer.award_kw > 0).sum()))
        ep, eq = changes(r.book, answer.award_kw / 1000, network.n)
        assert worst_margin(network, solve(network, grid.p_mw + ep, grid.q_mvar + eq)) <= 1e-6


@pytest.mark.spec("MKT-15")
def test_real_time_balances_in_merit_order_what_awards_leave() -> None:
    r = reserve(
        [
            capacity(1, "a", UP, ("1.00", "50.00", [300, 300]), block=True),
            capacity(2, "b", UP, ("1.00", "40.00", [300, 300])),
            capacity(3, "c", DOWN, ("1.00", "-5.00", [300, 300])),
            capacity(4, "d", UP, ("1.00", "400.00", [300, 300])),
        ],
        2,
    )
    answer = redispatch(r, np.full(8, 200), None, np.array([0.33, -0.12]), penalty_eur_mwh=300.0)
    called = {(unit_of(r.book, i), int(r.book.period[i])): int(answer.award_kw[i]) for i in range(8)}
    assert {k: kw for k, kw in called.items() if kw} == {("b", 0): 200, ("a", 0): 130, ("c", 1): 120}
    beyond = redispatch(r, np.full(8, 100), None, np.array([0.33, 0.0]), penalty_eur_mwh=300.0)
    assert beyond.award_kw.sum() == 200 and beyond.uncovered_mw == pytest.approx([0.13, 0.0])


@pytest.mark.spec("MKT-15")
def test_what_is_held_is_on_record_with_both_prices() -> None:
    offers = [capacity(1, "a", UP, ("2.50", "40.00", [300, 300]), ("3.50", "60.00", [0, 100]))]
    r = reserve(offers, 2)
    found = clear_two_stage(book([], 2), r, lacks([0.1, 0.35]), PENALTY)
    kept = reservations(r, offers, found.reserved_kw, "sdafm", "dso")
    assert [(k.step, k.start, k.quantity_kw, k.availability_eur_mw_h, k.use_eur_mwh) for k in kept] == [
        (1, axis(2)[0], 100, Decimal("2.50"), Decimal("40.00")),
        (1, axis(2)[1], 300, Decimal("2.50"), Decimal("40.00")),
        (2, axis(2)[1], 50, Decimal("3.50"), Decimal("60.00")),
    ]
    assert {(k.offer, k.unit, k.direction, k.buyer, k.session) for k in kept} == {
        ("capacity 1", "a", UP, "dso", "sdafm")
    }


# ---- what is refused, and the audit ----------------------------------------------------------------------------


@pytest.mark.spec("MKT-15")
def test_faulty_capacity_is_refused_all_at_once() -> None:
    short = replace(capacity(1, "a", UP, ("1.00", "9.00", [5])), availability_eur_mw_h=())
    with pytest.raises(Refused) as refused:
        reserve([short, capacity(2, "b", UP, ("-1.00", "9.00", [5]))], 1)
    assert [(f.place, f.code) for f in refused.value.findings] == [
        ("offer capacity 1", "availability_steps"),
        ("offer capacity 2", "availability_negative"),
    ]
    with pytest.raises(Refused) as twice:
        reserve([capacity(2, "b", UP, ("1.00", "9.00", [5]))] * 2, 1)
    assert [f.code for f in twice.value.findings] == ["offer_twice"]


@pytest.mark.spec("MKT-15")
def test_a_seller_who_would_pay_for_both_ways_is_refused_by_name() -> None:
    a = book([offer(1, "a", UP, ("10.00", [5])), offer(2, "b", UP, ("10.00", [5]))], 1)
    r = reserve([capacity(3, "a", DOWN, ("1.00", "-10.50", [5])), capacity(4, "b", DOWN, ("1.00", "-9.00", [5]))], 1)
    with pytest.raises(Refused) as refused:
        clear_two_stage(a, r, lacks([0.1]), PENALTY)
    assert [f.place for f in refused.value.findings] == ["offers of a"]


@pytest.mark.spec("MKT-15")
@pytest.mark.parametrize(
    ("outlook", "penalty", "word"),
    [
        (lacks([0.1], [0.2], weight=[0.5, 0.6]), 100.0, "add to one"),
        (lacks([0.1], [0.2], weight=[1.0, 0.0]), 100.0, "positive"),
        (lacks([0.1, 0.2]), 100.0, "do not fit"),
        (lacks([np.nan]), 100.0, "finite"),
        (lacks([0.1]), 0.0, "value of lost flexibility"),
    ],
)
def test_an_outlook_that_cannot_be_is_said(outlook: Outlook, penalty: float, word: str) -> None:
    with pytest.raises(CoflexError, match=word):
        clear_two_stage(book([], 1), reserve([], 1), outlook, penalty)


@pytest.mark.spec("MKT-15")
def test_nothing_on_offer_leaves_the_whole_need_and_every_broken_limit() -> None:
    found = clear_two_stage(book([], 1), reserve([], 1), lacks([0.1], [-0.2]), PENALTY)
    assert found.cost_eur == pytest.approx(HOURS * PENALTY * 0.15)
    assert found.lacking_mw.tolist() == [[0.1], [0.0]] and found.surplus_mw.tolist() == [[0.0], [0.2]]
    tables = radial(i_max_a=60.0)
    outlook = weather(tables, build(tables), 0, 2, 1)
    bare = clear_two_stage(book([], 1), reserve([], 1), outlook, PENALTY)
    state = solve(outlook.grid.network, outlook.grid.p_mw[:, 0], outlook.grid.q_mvar[:, 0])
    for s in range(2):
        over = {f"loading {outlook.grid.network.branch_names[i]}" for i in np.flatnonzero(state.loading[s] > 1)}
        assert over and over <= {name for name, _, _ in bare.short[s]}


@pytest.mark.spec("MKT-15")
def test_passes_without_an_end_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "PASSES", 1)
    _, a, r, outlook = on_grid(0)
    with pytest.raises(SolverFailure, match="still differ"):
        clear_two_stage(a, r, outlook, 3000.0)


@pytest.mark.spec("MKT-15")
@pytest.mark.parametrize("seed", range(3))
def test_every_linear_program_passes_the_audit(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    gaps = []

    def audited(program: Program, start: Solution | None = None, gap: float = 0.01) -> Solution:
        solution = solve_program(program, start, gap)
        gaps.append(audit(program, solution))
        return solution

    solve_program = highs.solve
    monkeypatch.setattr(highs, "solve", audited)
    _, a, r, outlook = on_grid(seed)
    clear_two_stage(a, r, outlook, 3000.0)
    clear_two_stage(*balancing(seed), PENALTY)
    assert len(gaps) >= 4 and all(gap.holds() for gap in gaps)
