"""Reactive power, zones and tolls: against hand arithmetic, the closed form of a two-bus line, and another solver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from math import ceil, floor, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from coflex.domain.errors import CoflexError, GridFailure
from coflex.domain.offer import Offer
from coflex.domain.quantity import Direction, Floats
from coflex.grid import network as networks
from coflex.grid.network import Network
from coflex.grid.powerflow import solve
from coflex.grid.rows import AcGrid
from coflex.grid.tables import Bus, GridTables, Line, Source
from coflex.market import pricing
from coflex.market.book import OrderBook, Place, build
from coflex.market.clearing import Answer, _rounded, clear, injections
from coflex.market.comparison import clear_on
from coflex.market.design import DistributionGrid, Pricing
from coflex.market.model import Demand, assemble
from coflex.market.passes import Passes
from support import small_grids
from support.books import DOWN, UP, axis, book, bought, cleared, cost_eur, demand, offer, places_of, total

SEEDS = st.integers(0, 2**32 - 1)
laws = settings(max_examples=40, deadline=None, derandomize=True)
few = settings(max_examples=12, deadline=None, derandomize=True)

# ---- a line between a stiff bus at 20 kV and a bus that draws P and Q (MW, Mvar)

R, X, KV = 2.4, 1.8, 20.0


def line(v_min: float = 0.9, v_max: float = 1.1) -> Network:
    buses = (
        Bus("S", KV, 0.5, 1.5, 8.0, 50.0, ""),
        Bus("L", KV, v_min, v_max, 8.0, 50.0, "F"),
    )
    return networks.build(
        GridTables(
            buses=buses,
            lines=(Line("S-L", "S", "L", 1.0, R, X, 0.0, 5000.0, 100.0),),
            transformers=(),
            switches=(),
            sources=(Source("above", "S", 1.0),),
            loads=(),
            generators=(),
            storages=(),
        )
    )


def on_line(network: Network, p_mw: float, q_mvar: float) -> AcGrid:
    """The line where bus L draws P and Q."""
    p, q = np.zeros((1, network.n)), np.zeros((1, network.n))
    p[0, network.node_of("L")], q[0, network.node_of("L")] = -p_mw, -q_mvar
    return AcGrid(network, p, q)


def drawn_mvar(v_pu: float, p_mw: float) -> float:
    """The reactive power that bus L draws at a voltage and P: V^4 + V^2 (2 (R P + X Q) - V1^2) + Z^2 (P^2 + Q^2) = 0,
    solved for the Q of the upper branch, V in kV."""
    v2, z2 = (v_pu * KV) ** 2, R**2 + X**2
    rest = v2**2 + v2 * (2 * R * p_mw - KV**2) + z2 * p_mw**2
    return (-X * v2 + sqrt(X**2 * v2**2 - z2 * rest)) / z2


def reactive_book(offers: Sequence[Offer], network: Network, *reactive: str, tan_phi: float = 0.0) -> OrderBook:
    """Offers at bus L; those whose id is named are of reactive power."""
    marked = [replace(o, product="voltage") if o.id in reactive else o for o in offers]
    node = network.node_of("L")
    places = {o.unit or "": Place(node, "F", tan_phi) for o in offers}
    return build(marked, axis(1), places, frozenset({"voltage"}))


@pytest.mark.spec("MKT-06")
@few
@given(st.floats(4.0, 7.0), st.floats(0.5, 2.0))
def test_reactive_power_lifts_an_undervoltage_by_what_the_closed_form_asks(p_mw: float, q_mvar: float) -> None:
    network = line(v_min=0.96)
    needed = 1000 * (q_mvar - drawn_mvar(0.96, p_mw))
    b = reactive_book([offer(1, "u", UP, ("5.00", [8000])), offer(2, "u", DOWN, ("1.00", [8000]))], network, "offer 1")
    answer = cleared(b, None, on_line(network, p_mw, q_mvar))
    assert not answer.short.any()
    up, down = bought(b, answer)["offer 1", 1, 0], bought(b, answer)["offer 2", 1, 0]
    # 1 kvar moves the voltage by some 5e-6 pu, and 1e-7 pu may be missed.
    assert down == 0 and max(0.0, needed) - 0.05 <= up <= max(0.0, needed) + 1.05


@pytest.mark.spec("MKT-06")
@few
@given(st.floats(5.0, 8.0))
def test_reactive_power_lowers_an_overvoltage_by_what_the_closed_form_asks(fed_mw: float) -> None:
    network = line(v_max=1.02)
    needed = 1000 * drawn_mvar(1.02, -fed_mw)
    b = reactive_book([offer(1, "u", DOWN, ("5.00", [9000]))], network, "offer 1", tan_phi=0.4)
    answer = cleared(b, None, on_line(network, -fed_mw, 0.0))
    assert not answer.short.any() and needed > 1000
    assert needed - 0.05 <= int(answer.award_kw[0]) <= needed + 1.05


@pytest.mark.spec("MKT-06")
@few
@given(st.floats(5.0, 7.0), st.floats(0.5, 1.5), st.sampled_from([0.8, 1.25]))
def test_active_and_reactive_power_compete_by_the_price_of_their_effect(
    p_mw: float, q_mvar: float, ratio: float
) -> None:
    network = line(v_min=0.97)
    # Slopes of the closed form at the limit: d/dP = 2 (R V^2 + Z^2 P), d/dQ = 2 (X V^2 + Z^2 Q).
    v2, z2 = (0.97 * KV) ** 2, R**2 + X**2
    slope_p, slope_q = R * v2 + z2 * p_mw, X * v2 + z2 * drawn_mvar(0.97, p_mw)
    price_q = 40.0
    price_p = round(ratio * price_q * slope_p / slope_q, 2)
    offers = [offer(1, "u", UP, (f"{price_p}", [8000])), offer(2, "u", UP, (f"{price_q}", [8000]))]
    b = reactive_book(offers, network, "offer 2")
    grid = on_line(network, p_mw, q_mvar)
    answer = cleared(b, None, grid)
    of = bought(b, answer)
    active, reactive = of["offer 1", 1, 0], of["offer 2", 1, 0]
    assert not answer.short.any()
    assert (reactive == 0 and active > 100) if ratio < 1 else (active == 0 and reactive > 100)
    change_p, change_q = told(b, answer)
    state = solve(network, grid.p_mw + change_p, grid.q_mvar + change_q)
    assert state.vm[0, network.node_of("L")] == pytest.approx(0.97, abs=2e-5)


def told(b: OrderBook, answer: Answer) -> tuple[Floats, Floats]:
    return injections(b, answer.award_kw / 1000, 2)


@pytest.mark.spec("MKT-06")
def test_a_block_is_active_power_with_what_follows_or_reactive_power_alone() -> None:
    network = line()
    offers = [offer(1, "u", UP, ("5.00", [100])), offer(2, "v", DOWN, ("6.00", [30]))]
    b = reactive_book(offers, network, "offer 2", tan_phi=0.25)
    assert b.p_share.tolist() == [1.0, 0.0] and b.tan_phi.tolist() == [0.25, 1.0] and b.zone.tolist() == [-1, -1]
    change_p, change_q = injections(b, b.quantity_mw, network.n)
    at = network.node_of("L")
    assert change_p[0, at] == pytest.approx(0.1) and change_q[0, at] == pytest.approx(0.25 * 0.1 - 0.03)


@pytest.mark.spec("MKT-04")
def test_reactive_power_fills_no_request_and_counts_in_no_light() -> None:
    network = line()
    offers = [offer(1, "u", UP, ("50.00", [300])), offer(2, "u", UP, ("-9.00", [300]))]
    b = reactive_book(offers, network, "offer 2")
    answer = cleared(b, demand((UP, 0, 400)), None, {("F", 1): np.array([0.25])})
    assert bought(b, answer) == {("offer 1", 1, 0): 250, ("offer 2", 1, 0): 0}
    assert answer.uncovered_mw == pytest.approx([0.15])
    net = replace(demand((UP, 0, 200)), net=True)
    assert bought(b, cleared(b, net))["offer 1", 1, 0] == 200


@pytest.mark.spec("MKT-06")
def test_reactive_power_makes_room_for_a_request() -> None:
    """2 MW more at the end of a line that already stands at its voltage limit: room is made by drawing kvar."""
    network = line(v_max=1.02)
    grid = on_line(network, -2.0, drawn_mvar(1.02, -2.0))
    offers = [offer(1, "u", UP, ("50.00", [3000])), offer(2, "u", DOWN, ("4.00", [6000]))]
    asked = demand((UP, 0, 2000))
    alone = cleared(book(offers[:1], 1, {"u": Place(network.node_of("L"), "F", 0.0)}), asked, grid)
    assert alone.award_kw.sum() <= 1
    b = reactive_book(offers, network, "offer 2")
    answer = cleared(b, asked, grid)
    needed = 1000 * (drawn_mvar(1.02, -4.0) - drawn_mvar(1.02, -2.0))
    assert bought(b, answer)["offer 1", 1, 0] == 2000
    assert needed - 0.05 <= bought(b, answer)["offer 2", 1, 0] <= needed + 1.05


@pytest.mark.spec("MKT-03")
def test_a_unit_goes_up_in_active_and_down_in_reactive_power_at_once() -> None:
    network = line(v_max=1.02)
    grid = on_line(network, -6.0, 0.0)
    # Feeding in more is worth 90 at the interface, and drawing kvar makes the room for it.
    offers = [offer(1, "u", UP, ("10.00", [500])), offer(2, "u", DOWN, ("1.00", [9000]))]
    b = reactive_book(offers, network, "offer 2")
    toll = np.where(b.reactive, 0.0, -90.0)
    answer = clear(b, np.ones(2, dtype=np.bool_), Demand.none(), grid, toll=toll)
    needed = 1000 * drawn_mvar(1.02, -6.5)
    assert bought(b, answer)["offer 1", 1, 0] == 500
    assert needed - 0.05 <= bought(b, answer)["offer 2", 1, 0] <= needed + 1.05


@pytest.mark.spec("MKT-06")
def test_the_dearest_bid_of_active_power_does_not_set_the_price_of_reactive_power() -> None:
    network = line(v_min=0.96)
    p_mw, q_mvar = 6.0, 1.0
    lacking = ceil(1000 * (q_mvar - drawn_mvar(0.96, p_mw)))
    offers = [
        offer(1, "u", UP, ("3.00", [lacking // 2])),
        offer(2, "v", UP, ("3.50", [lacking])),
        offer(3, "w", UP, ("1.00", [50])),
    ]
    b = reactive_book(offers, network, "offer 1", "offer 2")
    answer = cleared(b, None, on_line(network, p_mw, q_mvar))
    paid = pricing.prices(b, answer, Pricing.PAY_AS_CLEAR)
    by_offer = {b.offers[int(b.offer[i])].id: price for i, price in paid.items()}
    assert by_offer == {"offer 1": Decimal("3.50"), "offer 2": Decimal("3.50"), "offer 3": Decimal("1.00")}


# ---- zones -----------------------------------------------------------------------------------------------------


def zoned(seed: int, zones: int = 3, periods: int = 2) -> tuple[list[Offer], dict[str, Place]]:
    """Sellers up, and buyers who enter as down at a negative price."""
    rng = np.random.default_rng(seed)
    offers, places = [], {}
    for i in range(int(rng.integers(4, 16))):
        places[f"unit {i}"] = Place(-1, "", 0.0, int(rng.integers(-1, zones)))
        direction = UP if rng.random() < 0.5 else DOWN
        low, high = (500, 9000) if direction is UP else (-9000, 1000)
        steps = [(f"{rng.integers(low, high) / 100:.2f}", rng.integers(0, 300, periods).tolist()) for _ in range(2)]
        offers.append(offer(i + 1, f"unit {i}", direction, *steps))
    return offers, places


def schedules(zones: Sequence[int], periods: int, kw: Sequence[int] | None = None) -> Demand:
    """Net requests: 0 kW, or as given, for each zone and quarter-hour."""
    pairs = [(z, t) for z in zones for t in range(periods)]
    asked = np.zeros(len(pairs)) if kw is None else np.array(kw, dtype=float)
    sign = np.where(asked < 0, -1, 1).astype(np.int64)
    zone = np.array([z for z, _ in pairs], dtype=np.int64)
    period = np.array([t for _, t in pairs], dtype=np.int64)
    return Demand(sign, period, np.abs(asked) / 1000, np.full(len(pairs), np.inf), True, zone)


def by_linprog(b: OrderBook, asked: Demand, toll: Floats | None = None) -> tuple[float, float]:
    """(missed kW, EUR) of net requests for zones or all, by another solver."""
    n, k = len(b), len(asked)
    zones = np.full(k, -1) if asked.zone is None else asked.zone
    inside = (asked.period[:, None] == b.period) & ((zones[:, None] < 0) | (zones[:, None] == b.zone))
    inside &= asked.is_reactive[:, None] == b.reactive
    a_eq = np.hstack([inside * b.sign, np.eye(k), -np.eye(k)])
    value = b.price + (0.0 if toll is None else toll)
    found = linprog(
        np.r_[value, np.full(2 * k, 1e6)],
        A_eq=a_eq,
        b_eq=asked.sign * asked.quantity_mw * 1000,
        bounds=[(0, q * 1000) for q in b.quantity_mw] + [(0, None)] * (2 * k),
    )
    return float(found.x[n:].sum()), float(value @ found.x[:n]) / 1000 * b.axis.hours


def balances(b: OrderBook, answer: Answer, asked: Demand) -> list[int]:
    """kW up less down of what each request is about."""
    found = []
    for t, z, reactive in zip(asked.period, asked.zones, asked.is_reactive, strict=True):
        mine = (b.period == t) & (b.reactive == reactive) & ((z < 0) | (b.zone == z))
        found.append(int((b.sign * answer.award_kw)[mine].sum()))
    return found


@pytest.mark.spec("MKT-06")
@laws
@given(SEEDS)
def test_zones_that_hold_their_schedules_trade_what_another_solver_trades(seed: int) -> None:
    offers, places = zoned(seed)
    b = book(offers, 2, places)
    # Blocks of no zone would else be bought wherever they pay.
    everything = b.zone >= 0
    asked = schedules(range(3), 2)
    answer = clear(b, everything, asked)
    assert balances(b, answer, asked) == [0] * 6 and not answer.award_kw[~everything].any()
    inside = book([o for o in offers if places[o.unit or ""].zone >= 0], 2, places)
    missed, cost = by_linprog(inside, asked)
    assert missed == pytest.approx(0.0, abs=1e-6)
    # Data are whole kW, and so are the vertices; ties by receipt weigh below a hundredth of a cent.
    assert cost_eur(b, answer.award_kw) == pytest.approx(cost, abs=1e-3)


@pytest.mark.spec("MKT-06")
@laws
@given(SEEDS)
def test_zones_and_one_request_for_all_hold_together(seed: int) -> None:
    rng = np.random.default_rng(seed)
    offers, places = zoned(seed)
    b = book(offers, 2, places)
    kw = rng.integers(-150, 150, 8).tolist()
    asked = schedules([-1, 0, 1, 2], 2, kw)
    answer = cleared(b, asked)
    missed, cost = by_linprog(b, asked)
    assert 1000 * answer.uncovered_mw.sum() == pytest.approx(missed, abs=1e-3)
    off = np.abs(np.array(balances(b, answer, asked)) - np.array(kw))
    assert off == pytest.approx(1000 * answer.uncovered_mw, abs=1e-3)
    if missed < 1e-6:
        assert cost_eur(b, answer.award_kw) == pytest.approx(cost, abs=1e-3)


@pytest.mark.spec("MKT-19")
@laws
@given(SEEDS)
def test_zones_and_tolls_know_no_order_of_arrival(seed: int) -> None:
    offers, places = zoned(seed)
    rng = np.random.default_rng(seed + 1)
    shuffled = [offers[i] for i in rng.permutation(len(offers))]
    asked = schedules([0, 1], 2)
    mixed = rng.permutation(len(asked))
    nothing = asked.quantity_mw
    other = Demand(asked.sign[mixed], asked.period[mixed], nothing, asked.price_limit, True, asked.zones[mixed])
    answers = []
    for given_offers, wanted in ((offers, asked), (shuffled, other)):
        b = book(given_offers, 2, places)
        toll = np.where(b.zone == 2, -30.0, 5.0) * b.sign
        answers.append(bought(b, clear(b, np.ones(len(b), dtype=np.bool_), wanted, toll=toll)))
    assert answers[0] == answers[1]


@pytest.mark.spec("MKT-04")
@laws
@given(SEEDS)
def test_a_request_of_a_zone_is_filled_there_and_one_for_all_by_what_is_left(seed: int) -> None:
    rng = np.random.default_rng(seed)
    offers, places = zoned(seed, periods=1)
    offers = [replace(o, direction=UP) for o in offers]
    offers = [
        replace(o, steps=tuple(replace(s, price_eur_mwh=abs(s.price_eur_mwh) + 1) for s in o.steps)) for o in offers
    ]
    b = book(offers, 1, places)
    with_all = bool(rng.random() < 0.5)
    zones = np.array([0, 1, 0, -1] if with_all else [0, 1, 0])
    kw = rng.integers(1, 400, len(zones))
    asked = Demand(
        np.ones(len(kw), np.int64), np.zeros(len(kw), np.int64), kw / 1000, np.full(len(kw), 1e3), zone=zones
    )
    answer = cleared(b, asked)
    offered = np.round(b.quantity_mw * 1000)
    n = len(b)
    # Another form: kW of each block for each request, from its zone.
    may = (zones[:, None] < 0) | (zones[:, None] == b.zone)
    k = len(kw)
    ones = np.kron(np.eye(k), np.ones(n))
    each = np.kron(np.ones(k), np.eye(n))
    found = linprog(
        np.r_[np.tile(b.price, k), np.full(k, 1e6)],
        A_eq=np.hstack([ones, np.eye(k)]),
        b_eq=kw,
        A_ub=np.hstack([each, np.zeros((n, k))]) if n else None,
        b_ub=offered if n else None,
        bounds=[(0, q if m else 0) for row in may for q, m in zip(offered, row, strict=True)] + [(0, None)] * k,
    )
    assert 1000 * answer.uncovered_mw.sum() == pytest.approx(found.x[n * k :].sum(), abs=1e-3)
    cost = float(np.tile(b.price, k) @ found.x[: n * k]) / 4000
    assert cost_eur(b, answer.award_kw) == pytest.approx(cost, abs=1e-3)
    assert answer.award_kw.sum() <= kw.sum()


def trading(seed: int) -> tuple[AcGrid, OrderBook, Demand]:
    """Two feeders whose sellers and buyers trade, each feeder a zone that keeps its schedule, under tight limits."""
    rng = np.random.default_rng(seed)
    load = rng.uniform(0.8, 1.1)
    # Calm before anything is traded, with little room.
    calm, state = small_grids.solved(small_grids.radial(), load, 0.5)
    v_min, v_max = float(state.vm[0].min()) - 0.002, float(np.delete(state.vm[0], calm.slack).max()) + 0.001
    tables = small_grids.radial(125.0 * load, v_min, v_max)
    network = networks.build(tables)
    p, q = small_grids.injections(tables, network, load, 0.5)
    places = {}
    offers = []
    for i in range(24):
        bus = str(rng.choice(sorted(small_grids.LOADS)))
        at = places_of(network, 0.2)[bus]
        places[f"unit {i}"] = replace(at, zone=0 if bus.startswith("A") else 1)
        direction = UP if i % 2 else DOWN
        cents = int(rng.integers(1000, 9000)) * (1 if direction is UP else -1)
        offers.append(offer(i + 1, f"unit {i}", direction, (f"{cents / 100:.2f}", [int(rng.integers(50, 1900))])))
    return AcGrid(network, p, q), book(offers, 1, places), schedules([0, 1], 1)


@pytest.mark.spec("MKT-06")
@pytest.mark.parametrize("seed", range(12))
def test_schedules_of_zones_hold_to_the_kw_under_the_limits_of_the_grid(seed: int) -> None:
    grid, b, asked = trading(seed)
    answer = cleared(b, asked, grid)
    assert balances(b, answer, asked) == [0, 0] or answer.uncovered_mw.any()
    assert answer.award_kw.any()
    if not answer.short.any():
        change_p, change_q = injections(b, answer.award_kw / 1000, grid.network.n)
        state = solve(grid.network, grid.p_mw + change_p, grid.q_mvar + change_q)
        assert small_grids.worst_margin(grid.network, state) <= 1e-6
    # The relaxation by another solver bounds the gain from above; a few kW less are traded for whole ones.
    relaxed = clear_on(DistributionGrid.CONIC, b, np.ones(len(b), dtype=np.bool_), asked, grid)
    best = float(b.price @ relaxed.award_mw) * b.axis.hours
    assert best - 1e-3 <= cost_eur(b, answer.award_kw) <= best + 0.05


# ---- requests of reactive power ----------------------------------------------------------------------------------


def requests(*asked: tuple[str, Direction, int, int, int], net: bool = False) -> Demand:
    """Requests as ("p" or "q", direction, quarter-hour, zone, kW or kvar)."""
    of = demand(*((way, t, kw) for _, way, t, _, kw in asked))
    zone = np.array([z for *_, z, _ in asked], dtype=np.int64)
    return replace(of, net=net, zone=zone, reactive=np.array([kind == "q" for kind, *_ in asked], dtype=np.bool_))


def of_both(offers: Sequence[Offer], periods: int, places: Mapping[str, Place], *reactive: str) -> OrderBook:
    """The book of offers, those whose id is named of reactive power."""
    marked = [replace(o, product="voltage") if o.id in reactive else o for o in offers]
    return build(marked, axis(periods), places, frozenset({"voltage"}))


def two_grids() -> OrderBook:
    """Units a and b in the grid of zone 0, c in that of zone 1, d in neither; offers 1 to 5 of reactive power."""
    places = {unit: Place(-1, "", 0.3, zone) for unit, zone in zip("abcd", (0, 0, 1, -1), strict=True)}
    offers = [
        offer(1, "a", UP, ("4.00", [100, 100]), ("9.00", [100, 100])),
        offer(2, "b", UP, ("6.00", [80, 80])),
        offer(3, "c", UP, ("5.00", [90, 90])),
        offer(4, "c", DOWN, ("2.00", [60, 60])),
        offer(5, "d", UP, ("-1.00", [40, 40])),
        offer(6, "a", UP, ("30.00", [500, 500])),
        offer(7, "c", UP, ("20.00", [500, 500])),
    ]
    return of_both(offers, 2, places, *(f"offer {i}" for i in range(1, 6)))


@pytest.mark.spec("MKT-04")
def test_each_grid_gets_its_profile_of_kvar_from_the_cheapest_offers_there() -> None:
    b = two_grids()
    asked = requests(
        ("q", UP, 0, 0, 150),
        ("q", UP, 1, 0, 250),
        ("q", UP, 0, 1, 120),
        ("q", DOWN, 1, 1, 50),
        ("p", UP, 0, -1, 600),
    )
    answer = cleared(b, asked)
    of = bought(b, answer)
    # Zone 0 takes 100 at 4 and 50 at 6, then 100 at 4, 80 at 6 and 70 at 9; zone 1 has 90 of 120, then 50 down.
    assert [of["offer 1", 1, t] for t in (0, 1)] == [100, 100] and [of["offer 1", 2, t] for t in (0, 1)] == [0, 70]
    assert [of["offer 2", 1, t] for t in (0, 1)] == [50, 80]
    assert [of["offer 3", 1, t] for t in (0, 1)] == [90, 0] and [of["offer 4", 1, t] for t in (0, 1)] == [0, 50]
    # Nothing of the unit in neither grid, though it pays; active power fills its own request alone.
    assert [of["offer 5", 1, t] for t in (0, 1)] == [0, 0]
    assert [of[f"offer {i}", 1, 0] for i in (6, 7)] == [100, 500] and [of[f"offer {i}", 1, 1] for i in (6, 7)] == [0, 0]
    assert answer.uncovered_mw == pytest.approx([0, 0, 0.03, 0, 0], abs=1e-9)
    # One kvar more is worth what the last costs; c in quarter-hour 0 is all sold and more is missing.
    worth = {(b.offers[int(o)].id, int(t)): w for o, t, w in zip(b.offer, b.period, answer.request_worth, strict=True)}
    assert [worth["offer 2", t] for t in (0, 1)] == pytest.approx([6.0, 9.0], abs=1e-5)
    assert worth["offer 4", 1] == pytest.approx(2.0, abs=1e-5) and worth["offer 6", 0] == pytest.approx(30.0, abs=1e-5)
    paid = pricing.prices(b, answer, Pricing.NODAL)
    named = {(b.offers[int(b.offer[i])].id, int(b.step[i]) + 1, int(b.period[i])): price for i, price in paid.items()}
    assert named["offer 1", 1, 0] == Decimal("6.00") and named["offer 1", 1, 1] == Decimal("9.00")


@pytest.mark.spec("MKT-04")
def test_a_request_of_kvar_for_all_takes_those_who_pay_first_and_no_more() -> None:
    b = two_grids()
    answer = cleared(b, requests(("q", UP, 0, -1, 30)))
    assert bought(b, answer)["offer 5", 1, 0] == 30 == answer.award_kw.sum()
    # The price is the bid of the last, which is below zero.
    assert answer.request_worth[(b.period == 0) & b.reactive & (b.sign > 0)] == pytest.approx(-1.0, abs=1e-5)
    assert list(pricing.prices(b, answer, Pricing.NODAL).values()) == [Decimal("-1.00")]
    # A toll of 7 on offer 5 and of -3 on offer 3 makes c the cheapest, at 2, and what is paid is not moved by it.
    toll = np.select([b.offer == 4, b.offer == 2], [7.0, -3.0], 0.0)
    answer = clear(b, np.ones(len(b), dtype=np.bool_), requests(("q", UP, 0, -1, 30)), toll=toll)
    assert bought(b, answer)["offer 3", 1, 0] == 30 == answer.award_kw.sum()
    assert answer.request_worth[(b.offer == 2) & (b.period == 0)] == pytest.approx(5.0, abs=1e-5)


@pytest.mark.spec("MKT-06")
def test_a_net_request_of_kvar_holds_the_balance_of_each_grid() -> None:
    b = two_grids()
    asked = requests(("q", UP, 0, 0, 120), ("q", DOWN, 0, 1, 20), ("q", UP, 1, -1, 0), ("p", UP, 0, -1, 0), net=True)
    answer = cleared(b, asked)
    of = bought(b, answer)
    assert [of["offer 1", 1, 0], of["offer 2", 1, 0], of["offer 4", 1, 0]] == [100, 20, 20]
    # Quarter-hour 1: d pays 1 for 40 up, and nobody takes them for less than 2.
    assert of["offer 5", 1, 1] == 0 and answer.award_kw[b.period == 1].sum() == 0
    assert balances(b, answer, asked) == [120, -20, 0, 0] and not answer.uncovered_mw.any()


@pytest.mark.spec("MKT-03")
def test_a_unit_that_stands_both_ways_keeps_what_fills_two_requests_and_nets_the_rest() -> None:
    """An answer whose passes ended before they agreed, active power 100 up and 40 down, reactive 50 up and 20 down."""
    lines = ((UP, 100), (DOWN, 40), (UP, 50), (DOWN, 20))
    offers = [offer(i, "u", way, ("5.00", [kw])) for i, (way, kw) in enumerate(lines, start=1)]
    b = of_both(offers, 1, {"u": Place(-1, "", 0.0)}, "offer 3", "offer 4")
    for asked, left in (
        (requests(("q", UP, 0, -1, 50), ("q", DOWN, 0, -1, 20)), [60, 0, 50, 20]),
        (requests(("q", UP, 0, -1, 30), net=True), [60, 0, 30, 0]),
    ):
        passes = Passes(assemble(b, np.arange(4), asked, None), None)
        passes.x[:4] = b.quantity_mw
        award = _rounded(passes.model, passes)
        assert [int(award[b.offer == i].sum()) for i in range(4)] == left


def mixed(seed: int, zones: int = 2, periods: int = 2) -> tuple[list[Offer], dict[str, Place], list[str]]:
    """Offers up and down of units in zones or in none, about half of reactive power."""
    rng = np.random.default_rng(seed)
    offers, places, named = [], {}, []
    for i in range(int(rng.integers(16, 40))):
        places[f"unit {i}"] = Place(-1, "", 0.1, int(rng.integers(-1, zones)))
        steps = [(f"{rng.integers(-500, 9000) / 100:.2f}", rng.integers(0, 300, periods).tolist()) for _ in range(2)]
        offers.append(offer(i + 1, f"unit {i}", UP if rng.random() < 0.6 else DOWN, *steps))
        if rng.random() < 0.5:
            named.append(offers[-1].id)
    return offers, places, named


def wanted(seed: int, net: bool) -> Demand:
    """Requests of both kinds for two zones and for all; one each where they are net."""
    rng = np.random.default_rng(seed + 1)
    cells = [(kind, t, z) for kind in "pq" for t in range(2) for z in (-1, 0, 1) if rng.random() < 0.6 or kind == "q"]
    asked = [(kind, UP if rng.random() < 0.6 else DOWN, t, z, int(rng.integers(0, 80))) for kind, t, z in cells]
    return requests(*asked, net=net)


@pytest.mark.spec("MKT-04")
@laws
@given(SEEDS)
def test_requests_of_both_kinds_cost_what_another_solver_finds(seed: int) -> None:
    offers, places, named = mixed(seed)
    b, asked = of_both(offers, 2, places, *named), wanted(seed, net=False)
    answer = cleared(b, asked)
    n, k = len(b), len(asked)
    # Another form: kW of each block for each request that it may fill.
    may = (asked.period[:, None] == b.period) & (asked.sign[:, None] == b.sign)
    may &= (asked.is_reactive[:, None] == b.reactive) & ((asked.zones[:, None] < 0) | (asked.zones[:, None] == b.zone))
    offered = np.round(b.quantity_mw * 1000)
    found = linprog(
        np.r_[np.tile(b.price, k), np.full(k, 1e6)],
        A_eq=np.hstack([np.kron(np.eye(k), np.ones(n)), np.eye(k)]),
        b_eq=asked.quantity_mw * 1000,
        A_ub=np.hstack([np.kron(np.ones(k), np.eye(n)), np.zeros((n, k))]),
        b_ub=offered,
        bounds=[(0, q if m else 0) for row in may for q, m in zip(offered, row, strict=True)] + [(0, None)] * k,
    )
    assert 1000 * answer.uncovered_mw.sum() == pytest.approx(found.x[n * k :].sum(), abs=1e-3)
    cost = float(np.tile(b.price, k) @ found.x[: n * k]) / 4000
    assert cost_eur(b, answer.award_kw) == pytest.approx(cost, abs=2e-3)
    for kind in (False, True):
        most = asked.quantity_mw[asked.is_reactive == kind].sum() * 1000
        assert answer.award_kw[b.reactive == kind].sum() <= most + 1e-6


@pytest.mark.spec("MKT-06")
@laws
@given(SEEDS)
def test_balances_of_both_kinds_cost_what_another_solver_finds(seed: int) -> None:
    offers, places, named = mixed(seed)
    b, asked = of_both(offers, 2, places, *named), wanted(seed, net=True)
    answer = cleared(b, asked)
    # Where nothing is asked of a kind of power, none is bought because it pays.
    about = b.reactive if not (~asked.is_reactive).any() else np.ones(len(b), dtype=np.bool_)
    assert not answer.award_kw[~about].any()
    missed, cost = by_linprog(b, asked)
    assert 1000 * answer.uncovered_mw.sum() == pytest.approx(missed, abs=1e-3)
    off = np.abs(np.array(balances(b, answer, asked)) - asked.sign * np.round(asked.quantity_mw * 1000))
    assert off == pytest.approx(1000 * answer.uncovered_mw, abs=1e-3)
    if missed < 1e-6 and about.all():
        assert cost_eur(b, answer.award_kw) == pytest.approx(cost, abs=2e-3)


@pytest.mark.spec("MKT-19")
@laws
@given(SEEDS, st.booleans())
def test_requests_of_both_kinds_know_no_order(seed: int, net: bool) -> None:
    offers, places, named = mixed(seed)
    rng = np.random.default_rng(seed + 2)
    asked = wanted(seed, net)
    order = rng.permutation(len(asked))
    b = of_both(offers, 2, places, *named)
    other = of_both([offers[i] for i in rng.permutation(len(offers))], 2, places, *named)
    first, second = cleared(b, asked), cleared(other, asked.part(order))
    assert bought(b, first) == bought(other, second)
    assert first.uncovered_mw.sum() == pytest.approx(second.uncovered_mw.sum(), abs=1e-9)


def fork(v_min: float, v_max: float = 1.1) -> Network:
    """Two lines like the one above from the stiff bus, which knows nothing of either: L in zone 0, M in zone 1."""
    one = Line("S-L", "S", "L", 1.0, R, X, 0.0, 5000.0, 100.0)
    buses = (Bus("S", KV, 0.5, 1.5, 8.0, 50.0, ""), *(Bus(at, KV, v_min, v_max, 8.0, 50.0, "F") for at in "LM"))
    lines = (one, replace(one, line="S-M", to_bus="M"))
    source = (Source("above", "S", 1.0),)
    return networks.build(
        GridTables(
            buses=buses,
            lines=lines,
            transformers=(),
            switches=(),
            sources=source,
            loads=(),
            generators=(),
            storages=(),
        )
    )


@pytest.mark.spec("MKT-06")
@few
@given(SEEDS)
def test_profiles_and_voltage_limits_of_two_grids_cost_what_another_solver_finds(seed: int) -> None:
    """The closed form says how many kvar each grid needs, so that all is one linear program."""
    rng = np.random.default_rng(seed)
    network = fork(v_min=0.96)
    p_mw, q_mvar = rng.uniform(4.0, 7.0, 2), rng.uniform(0.5, 2.0, 2)
    at = [network.node_of(bus) for bus in "LM"]
    p, q = np.zeros((1, network.n)), np.zeros((1, network.n))
    p[0, at], q[0, at] = -p_mw, -q_mvar
    need = np.array([1000 * (q_mvar[z] - drawn_mvar(0.96, p_mw[z])) for z in range(2)])
    places = {f"unit {i}": Place(at[i % 2], "F", 0.0, i % 2) for i in range(12)}
    offers = [
        offer(i + 1, unit, UP if i < 9 else DOWN, (f"{rng.integers(-300, 900) / 100:.2f}", [int(rng.integers(2500))]))
        for i, unit in enumerate(sorted(places))
    ]
    # The least cost of a program in which nothing pays: prices are raised alike where one does.
    b = of_both(offers, 1, places, *(o.id for o in offers))
    kvar = rng.integers(0, 2500, 2)
    asked = requests(("q", UP, 0, 0, int(kvar[0])), ("q", UP, 0, 1, int(kvar[1])))
    answer = cleared(b, asked, AcGrid(network, p, q))
    raised = b.price + max(0.0, 0.02 - float(b.price.min(initial=1.0)))
    in_zone, up = b.zone == np.arange(2)[:, None], b.sign > 0
    found = linprog(
        np.r_[raised, np.full(4, 1e6)],
        A_ub=-np.block([[in_zone & up, np.eye(2), np.zeros((2, 2))], [in_zone * b.sign, np.zeros((2, 2)), np.eye(2)]]),
        b_ub=-np.r_[kvar, need],
        bounds=[(0, one * 1000) for one in b.quantity_mw] + [(0, None)] * 4,
    )
    assert answer.short.any() == (found.x[-2:].sum() > 0.05)
    if answer.short.any():
        return
    assert 1000 * answer.uncovered_mw.sum() == pytest.approx(found.x[len(b) : len(b) + 2].sum(), abs=0.05)
    assert raised @ answer.award_mw * 1000 == pytest.approx(raised @ found.x[: len(b)], abs=0.5)
    # Whole kvar: at most one more of each that is bought, where a limit asks for it.
    assert np.all(answer.award_kw - answer.award_mw * 1000 <= 1.0 + 1e-6)
    change_p, change_q = injections(b, answer.award_kw / 1000, network.n)
    state = solve(network, p + change_p, q + change_q)
    assert state.vm[0, at].min() >= 0.96 - 1e-6


@pytest.mark.spec("MKT-06")
@few
@given(st.floats(4.5, 7.0), st.floats(0.5, 2.0), st.integers(0, 4000))
def test_a_limit_takes_kvar_beyond_a_request_as_far_as_it_needs_them(p_mw: float, q_mvar: float, kvar: int) -> None:
    network = line(v_min=0.96)
    needed = max(0.0, 1000 * (q_mvar - drawn_mvar(0.96, p_mw)))
    offers = [offer(1, "u", UP, ("-5.00", [9000])), offer(2, "u", DOWN, ("-7.00", [9000]))]
    b = reactive_book(offers, network, "offer 1", "offer 2")
    answer = cleared(b, requests(("q", UP, 0, -1, kvar)), on_line(network, p_mw, q_mvar))
    up, down = (bought(b, answer)[f"offer {i}", 1, 0] for i in (1, 2))
    assert down == 0 and max(needed - 0.05, kvar) <= up <= max(needed + 1.05, kvar)
    assert not answer.uncovered_mw.any() and not answer.short.any()
    # Whoever asks for the last kvar, it is worth the bid of the one who gives it.
    assert up in (0, 9000) or answer.worth[b.sign > 0] == pytest.approx(-5.0, abs=1e-4)


@pytest.mark.spec("MKT-06")
def test_a_limit_takes_the_other_direction_of_another_unit() -> None:
    network = line(v_min=0.96)
    p_mw, q_mvar = 6.0, 1.0
    needed = 1000 * (q_mvar - drawn_mvar(0.96, p_mw))
    offers = [offer(1, "u", UP, ("5.00", [9000])), offer(2, "v", DOWN, ("1.00", [400]))]
    b = reactive_book(offers, network, "offer 1", "offer 2")
    answer = cleared(b, requests(("q", DOWN, 0, -1, 300)), on_line(network, p_mw, q_mvar))
    assert bought(b, answer)["offer 2", 1, 0] == 300
    assert needed + 300 - 0.05 <= bought(b, answer)["offer 1", 1, 0] <= needed + 300 + 1.05
    # Of one unit, 300 kvar down and 300 up more would be nothing: the request stays uncovered.
    b = reactive_book([offers[0], replace(offers[1], unit="u")], network, "offer 1", "offer 2")
    answer = cleared(b, requests(("q", DOWN, 0, -1, 300)), on_line(network, p_mw, q_mvar))
    assert min(answer.award_kw) == 0 and answer.uncovered_mw == pytest.approx([0.3])
    assert needed - 0.05 <= bought(b, answer)["offer 1", 1, 0] <= needed + 1.05 and not answer.short.any()


@pytest.mark.spec("MKT-06")
def test_an_indivisible_offer_beyond_a_request_is_taken_for_a_limit_alone() -> None:
    network = line(v_min=0.96)
    lacking = drawn_mvar(0.96, 6.0)
    for missing, kw in ((0.3, 500), (-0.3, 0)):
        b = reactive_book([offer(1, "u", UP, ("5.00", [500]), block=True)], network, "offer 1")
        answer = cleared(b, requests(("q", UP, 0, -1, 100)), on_line(network, 6.0, lacking + missing))
        assert int(answer.award_kw[0]) == kw
        assert answer.uncovered_mw == pytest.approx([0.0 if kw else 0.1], abs=1e-9)
    # Over two quarter-hours: the first needs it, and in the second only the other direction is asked for.
    p, q = np.zeros((2, 2)), np.zeros((2, 2))
    at = network.node_of("L")
    p[:, at], q[:, at] = -6.0, [-lacking - 0.3, -lacking + 1.0]
    whole = offer(1, "u", UP, ("5.00", [500, 500]), block=True)
    places = {unit: Place(at, "F", 0.0) for unit in "uv"}
    b = of_both([whole, offer(2, "v", DOWN, ("3.00", [100, 100]))], 2, places, "offer 1", "offer 2")
    answer = cleared(b, requests(("q", DOWN, 1, -1, 80)), AcGrid(network, p, q))
    of = bought(b, answer)
    assert [of["offer 1", 1, t] for t in (0, 1)] == [500, 500] and [of["offer 2", 1, t] for t in (0, 1)] == [0, 80]
    assert not answer.short.any() and not answer.uncovered_mw.any()


@pytest.mark.spec("MKT-06")
def test_requests_of_kvar_leave_active_power_to_the_limits() -> None:
    """Active power at a hundredth of the price of kvar, or paid for, is bought for the voltage and for nothing else."""
    network = line(v_min=0.96)
    # The closed form gives kvar for MW: 0.5 MW less drawn, beside 200 kvar, is just enough.
    q_mvar = drawn_mvar(0.96, 5.5) + 0.2
    offers = [offer(1, "u", UP, ("-0.50", [4000])), offer(2, "v", UP, ("50.00", [4000]))]
    b = reactive_book(offers, network, "offer 2")
    for net in (False, True):
        asked = requests(("q", UP, 0, -1, 200), net=net)
        answer = cleared(b, asked, on_line(network, 6.0, q_mvar))
        assert bought(b, answer)["offer 2", 1, 0] == 200 and not answer.uncovered_mw.any()
        assert 500 - 0.05 <= bought(b, answer)["offer 1", 1, 0] <= 500 + 1.05
        calm = cleared(b, asked, on_line(network, 1.0, 0.0))
        assert bought(b, calm) == {("offer 1", 1, 0): 0, ("offer 2", 1, 0): 200}


@pytest.mark.spec("MKT-06")
@few
@given(st.floats(5.0, 7.0), st.floats(1.0, 2.0))
def test_a_balance_of_kvar_holds_to_the_kvar_beside_a_voltage_limit(p_mw: float, q_mvar: float) -> None:
    network = line(v_min=0.96)
    needed = max(0.0, 1000 * (q_mvar - drawn_mvar(0.96, p_mw)))
    places = {unit: Place(network.node_of("L") if unit == "u" else -1, "", 0.0) for unit in "uvw"}
    offers = [
        offer(1, "u", UP, ("5.00", [9000])),
        offer(2, "v", DOWN, ("2.00", [1000])),
        offer(3, "w", DOWN, ("3.00", [9000])),
    ]
    b = of_both(offers, 1, places, *(o.id for o in offers))
    asked = requests(("q", UP, 0, -1, 0), net=True)
    answer = cleared(b, asked, on_line(network, p_mw, q_mvar))
    up = bought(b, answer)["offer 1", 1, 0]
    assert balances(b, answer, asked) == [0] and bought(b, answer)["offer 2", 1, 0] == min(up, 1000)
    # A few kvar more where rounding to a balance would miss the limit: 2e-5 pu at 5e-6 pu a kvar.
    assert needed - 0.05 <= up <= needed + 12 and not answer.short.any()


# ---- negative prices and tolls ---------------------------------------------------------------------------------


@pytest.mark.spec("MKT-06")
def test_a_buyer_takes_what_is_offered_below_its_price_and_no_more() -> None:
    offers = [
        offer(1, "buyer", DOWN, ("-60.00", [500])),
        offer(2, "cheap", UP, ("50.00", [300])),
        offer(3, "dear", UP, ("70.00", [300])),
        offer(4, "late buyer", DOWN, ("-40.00", [500])),
    ]
    b = book(offers, 1)
    answer = cleared(b, schedules([-1], 1))
    assert [bought(b, answer)[f"offer {i}", 1, 0] for i in (1, 2, 3, 4)] == [300, 300, 0, 0]
    assert cost_eur(b, answer.award_kw) == pytest.approx(0.3 * 0.25 * (50 - 60))
    # Nobody is paid less than asked, or pays more than offered: the price lies between 60 (partly bought) and 50.
    assert -answer.worth[b.offer == 0] == pytest.approx([60.0]) and answer.worth[b.offer == 1] == pytest.approx([60.0])


@pytest.mark.spec("MKT-06")
@laws
@given(SEEDS, st.integers(10, 90))
def test_at_a_toll_the_market_takes_exactly_what_is_cheaper_than_the_interface(seed: int, eur: int) -> None:
    offers, places = zoned(seed)
    b = book(offers, 2, places)
    # Half a tenth of a cent: no offer stands exactly at the price.
    toll = -(eur + 0.0005) * b.sign
    answer = clear(b, np.ones(len(b), dtype=np.bool_), Demand.none(), toll=toll)
    assert np.array_equal(answer.award_kw > 0, b.price + toll < 0)
    assert np.array_equal(answer.award_kw, np.where(b.price + toll < 0, np.round(b.quantity_mw * 1000), 0))
    paid = pricing.prices(b, answer, Pricing.NODAL)
    for i, price in paid.items():
        assert float(price) >= b.price[i] and float(price) <= -toll[i] + 0.01


@pytest.mark.spec("MKT-06")
@laws
@given(SEEDS, st.integers(-300, 300))
def test_the_price_of_a_balance_as_a_toll_buys_the_same(seed: int, kw: int) -> None:
    """A market for all and a local market that sells at its price are one: where the price tells the marginal offers
    apart, awards agree, and the marginal ones are those at the price."""
    offers, places = zoned(seed, periods=1)
    b = book(offers, 1, places)
    everything = np.ones(len(b), dtype=np.bool_)
    together = clear(b, everything, schedules([-1], 1, [kw]))
    if together.uncovered_mw.any() or not len(b):
        return
    energy = float((together.worth * b.sign)[0])
    alone = clear(b, everything, Demand.none(), toll=-energy * b.sign)
    apart = np.abs(b.price - energy * b.sign) > 1e-3
    assert np.array_equal(alone.award_kw[apart], together.award_kw[apart])
    assert balances(b, together, schedules([-1], 1)) == [kw]


@pytest.mark.spec("MKT-06")
def test_a_toll_holds_within_the_limits_of_the_grid() -> None:
    """Feeding in pays until the voltage limit: the closed form says how far."""
    network = line(v_max=1.02)
    grid = on_line(network, -2.0, 0.0)
    b = book([offer(1, "u", UP, ("30.00", [9000]))], 1, {"u": Place(network.node_of("L"), "F", 0.0)})
    answer = clear(b, np.ones(1, dtype=np.bool_), Demand.none(), grid, toll=np.array([-50.0]))
    # The closed form of the line, solved for P at Q = 0.
    v2, z2 = (1.02 * KV) ** 2, R**2 + X**2
    fed_mw = (sqrt(R**2 * v2**2 - z2 * v2 * (v2 - KV**2)) - R * v2) / -z2
    assert int(answer.award_kw[0]) == floor(1000 * (fed_mw - 2.0)) and not answer.short.any()
    # What is paid at the place is the price of the last MWh there: its own bid.
    assert answer.worth[0] == pytest.approx(30.0, abs=1e-6) and answer.request_worth[0] == 50.0
    # Without the toll nothing is asked for, and nothing bought.
    assert not cleared(b, None, grid).award_kw.any()


@pytest.mark.spec("MKT-19")
def test_equal_prices_with_the_toll_are_served_by_receipt() -> None:
    offers = [offer(1, "a", UP, ("40.00", [100])), offer(2, "b", UP, ("30.00", [100]))]
    b = book(offers, 1)
    # With the toll both cost 20 each, and 100 kW are asked for.
    toll = np.where(b.price == 40.0, -20.0, -10.0)
    answer = clear(b, np.ones(2, dtype=np.bool_), demand((UP, 0, 100)), toll=toll)
    assert bought(b, answer) == {("offer 1", 1, 0): 100, ("offer 2", 1, 0): 0}
    assert total(b, answer, UP, 0) == 100


def test_a_toll_that_does_not_fit_and_a_model_that_takes_none_are_refused() -> None:
    network = line()
    b = reactive_book([offer(1, "u", UP, ("5.00", [100]))], network, "offer 1")
    everything = np.ones(1, dtype=np.bool_)
    with pytest.raises(CoflexError, match="one finite number"):
        clear(b, everything, Demand.none(), toll=np.zeros(3))
    grid = on_line(network, 1.0, 0.0)
    with pytest.raises(GridFailure, match="reactive"):
        clear_on(DistributionGrid.CONIC, b, everything, Demand.none(), grid)
    with pytest.raises(GridFailure, match="toll"):
        clear_on(DistributionGrid.CONIC, b, everything, Demand.none(), grid, toll=np.zeros(1))
