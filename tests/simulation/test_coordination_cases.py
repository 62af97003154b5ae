"""The cases that designs are compared on: what their documents claim of them, found again by other means."""

from __future__ import annotations

import gc
import pickle
from collections import Counter
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import fields, is_dataclass
from functools import lru_cache
from math import sqrt
from typing import Any

import numpy as np
import pandapower as pp
import pytest
from hypothesis import given, settings
from power_grid_model import PowerGridModel
from scipy import sparse
from scipy.optimize import linprog

from coflex.domain.errors import CoflexError
from coflex.domain.need import Violation
from coflex.domain.quantity import Direction, Floats
from coflex.domain.unit import Level
from coflex.grid.assess import violations
from coflex.grid.attach import attach
from coflex.grid.means import schedule
from coflex.grid.network import build
from coflex.grid.powerflow import GridState, solve
from coflex.grid.unbalanced import solve as solve_phases
from coflex.market.coordination.world import World
from coflex.market.design import Service
from coflex.simulation.coordination import CASES, case, reference, small
from coflex.simulation.coordination.assembly import DAY, REACTIVE, ZONE, EnergyRow, offers, place
from coflex.simulation.coordination.grids import transmission
from coflex.simulation.coordination.profiles import profiles
from coflex.simulation.coordination.shelf import CaseNotKnown
from coflex.simulation.coordination.small import _grid, _transmission
from support.worlds import worlds

UP, DOWN = Direction.UP, Direction.DOWN


@lru_cache(maxsize=8)
def world(name: str, congestion: float = 1.0) -> World:
    return case(name, congestion=congestion)


@lru_cache(maxsize=8)
def state(name: str, congestion: float = 1.0) -> GridState:
    of = world(name, congestion)
    return solve(of.network, of.p_mw, of.q_mvar)


def broken(name: str, congestion: float = 1.0) -> tuple[Violation, ...]:
    of = world(name, congestion)
    return violations(of.network, state(name, congestion), of.axis)


def counted(found: tuple[Violation, ...]) -> Counter[tuple[str, str]]:
    """Broken limits by grid (a transmission branch by its name) and kind."""
    return Counter((one.element.split("/")[0], str(one.kind)) for one in found)


def at(of: World, hour: float) -> int:
    """The quarter-hour that begins at a local hour."""
    return next(i for i, t in enumerate(of.axis) if (m := t.astimezone(of.zone)).hour + m.minute / 60 == hour)


def branch(of: World, name: str) -> int:
    return of.network.branch_names.index(name)


# ---------------------------------------------------------------- the small case, by hand


def test_the_small_case_breaks_what_its_table_says_and_nothing_else() -> None:
    of = world("small")
    found = {(one.element, str(one.kind), one.start.astimezone(of.zone).hour) for one in broken("small")}
    assert len(broken("small")) == 16
    assert found == {
        ("one-two", "loading", 8),
        ("north/line", "loading", 12),
        ("south/line", "loading", 19),
        ("west/end", "voltage_low", 21),
    }
    assert not broken("small", 0.0)


def test_flows_of_the_small_case_are_those_of_three_equal_lines() -> None:
    """Kirchhoff: of what TWO withdraws, two thirds take the direct line; of THREE's, one third takes the long way."""
    of, found = world("small"), state("small")
    for t in range(len(of.axis)):
        d2 = -of.p_mw[t, [of.network.node_of(n) for n in ("TWO", "north/mv", "north/end")]].sum()
        d3 = -of.p_mw[t, [of.network.node_of(n) for n in ("THREE", "south/mv", "south/end")]].sum()
        by_hand = {"one-two": (2 * d2 + d3) / 3, "one-three": (d2 + 2 * d3) / 3, "two-three": abs(d3 - d2) / 3}
        for name, mw in by_hand.items():
            k = branch(of, name)
            carried = found.loading[t, k] * of.network.rating_to[k]
            assert carried == pytest.approx(mw, abs=0.001)
    rated = of.network.rating_from[[branch(of, n) for n in ("one-two", "north/line", "south/line", "west/line")]]
    assert rated == pytest.approx([36.0, 4.0, 5.0, 10.0])


def test_voltage_of_the_small_case_is_the_root_of_its_quartic() -> None:
    of, found = world("small"), state("small")
    t, end = at(of, 21), of.network.node_of("west/end")
    r, x, p, q = 0.005, 0.01, 5.0, 3.0
    b, c = 2 * (r * p + x * q) - 1, (r * r + x * x) * (p * p + q * q)
    assert found.vm[t, end] == pytest.approx(sqrt((-b + sqrt(b * b - 4 * c)) / 2), abs=5e-6)
    assert found.vm[t, end] == pytest.approx(0.94085, abs=5e-5)
    at_rest = np.setdiff1d(np.arange(len(of.axis)), range(t, t + 4))
    assert np.abs(found.vm[at_rest] - 1).max() < 1e-5
    assert found.losses_mw[at_rest].max() < 30e-6


@pytest.mark.parametrize(
    ("hour", "bus", "element", "mw", "mvar"),
    [
        (8, "TWO", "one-two", 3.0, 0.0),
        (8, "THREE", "one-two", 6.0, 0.0),
        (12, "north/end", "north/line", -1.0, 0.0),
        (19, "south/end", "south/line", 1.0, 0.0),
        (21, "west/end", "west/end", 0.0, 0.831),
        (21, "west/end", "west/end", 1.541, 0.0),
    ],
)
def test_what_mends_a_limit_of_the_small_case_is_told_to_the_kilowatt(
    hour: int, bus: str, element: str, mw: float, mvar: float
) -> None:
    of = world("small")
    t = [at(of, hour)]
    for less, mended in ((0.0, True), (0.002, False)):
        p, q = of.p_mw[t].copy(), of.q_mvar[t].copy()
        share = 1 - less / max(abs(mw), mvar)
        p[:, of.network.node_of(bus)] += share * mw
        q[:, of.network.node_of(bus)] += share * mvar
        found = violations(of.network, solve(of.network, p, q), of.axis.window(of.axis[t[0]], of.axis[t[0] + 1]))
        assert (element not in {one.element for one in found}) is mended


def test_calling_the_cheapest_at_ten_breaks_the_line_of_north_by_half_a_megawatt() -> None:
    of = world("small")
    t = at(of, 10)
    price = {o.unit: o.steps[0].price_eur_mwh for o in of.offers if o.product != REACTIVE and o.direction is UP}
    left, p = int(of.system_kw[t]), of.p_mw[[t]].copy()
    taken = {}
    for unit in sorted(price, key=price.__getitem__):
        taken[unit] = min(left, of.seller[str(unit)].up_kw)
        left -= taken[unit]
        p[0, of.seller[str(unit)].node] += taken[unit] / 1000
    assert {unit: kw for unit, kw in taken.items() if kw} == {"s3": 2000, "w1": 1000, "n1": 1000}
    found = solve(of.network, p, of.q_mvar[[t]])
    assert 4 * found.loading[0, branch(of, "north/line")] == pytest.approx(4.5, abs=1e-4)


def test_steps_of_the_tap_save_one_percent_of_three_megawatts() -> None:
    of = world("small")
    (one,) = of.reductions
    at_work = np.ones(len(of.axis), dtype=bool)
    at_work[at(of, 19) : at(of, 20)] = False
    assert one.kw.shape == (4, 96)
    assert (one.kw[:, at_work] == 30).all()
    assert not one.kw[:, ~at_work].any()
    assert np.abs(1000 * one.change_p_mw.sum(axis=2) - one.kw).max() < 1e-3
    assert np.flatnonzero(one.change_p_mw.any(axis=(0, 1))).tolist() == [of.network.node_of("south/mv")]


def test_needs_of_the_small_case_stand_at_their_quarter_hours() -> None:
    of = world("small")
    asked = {str(of.axis[t].astimezone(ZONE))[11:16]: int(kw) for t, kw in enumerate(of.system_kw) if kw}
    hours = {10: [4000] * 4, 12: [-1500, -1500, 1500, 1500], 15: [-4000] * 4, 19: [2000, 2000, -800, -800]}
    assert asked == {f"{h:02d}:{15 * i:02d}": kw for h, four in hours.items() for i, kw in enumerate(four)}


# ---------------------------------------------------------------- the reference case


@pytest.mark.parametrize(
    ("congestion", "high", "line", "above"), [(0.0, 0, 0, 9), (0.5, 0, 0, 7), (0.8, 17, 0, 5), (1.0, 60, 20, 4)]
)
def test_the_reference_case_breaks_what_its_table_says(congestion: float, high: int, line: int, above: int) -> None:
    """The counts, the elements and the worst of each kind."""
    expected = {
        ("coast", "voltage_high"): high,
        ("town", "loading"): line,
        ("b7-b8", "loading"): above,
    }
    assert counted(broken("reference", congestion)) == {key: n for key, n in expected.items() if n}
    if congestion == 1.0:
        found = broken("reference")
        assert max(v.value for v in found if v.kind == "voltage_high") == pytest.approx(1.0543, abs=1e-4)
        assert max(v.value for v in found if v.kind == "loading") == pytest.approx(1.1134, abs=1e-4)
        lines = {v.element for v in found if v.element.startswith("town/")}
        assert (len(lines), {name.split("-")[0] for name in lines}) == (5, {"town/l1", "town/l2", "town/l4"})
        assert len({v.element for v in broken("reference") if v.element.startswith("coast/")}) == 6


def test_the_reference_case_has_the_size_it_tells() -> None:
    of = world("reference")
    assert of.network.n == 107
    assert dict(zip(of.grids, np.bincount(of.node_grid[of.node_grid >= 0]).tolist(), strict=True)) == {
        "coast": 29,
        "town": 33,
        "valley": 33,
    }
    assert Counter(s.grid for s in of.sellers) == {"": 8, "coast": 22, "town": 23, "valley": 19}


def test_the_transmission_grid_flows_as_another_engine_has_it() -> None:
    """pandapower, from the tables, at the hour of most wind: angles, voltages and currents of the 110 kV mesh."""
    tables = transmission()
    axis = world("reference").axis
    shapes = profiles(axis, ZONE)
    where = place(tables, [])
    p, q = where.injections(shapes)
    t = at(world("reference"), 15)
    ours = solve(where.network, p[[t]], q[[t]])
    net = pp.create_empty_network(f_hz=50.0)
    bus = {row.bus: pp.create_bus(net, row.vn_kv, name=row.bus) for row in tables.buses}
    pp.create_ext_grid(net, bus[tables.sources[0].bus], vm_pu=tables.sources[0].vm_pu)
    for row in tables.lines:
        terms = {
            "r_ohm_per_km": row.r_ohm / row.length_km,
            "x_ohm_per_km": row.x_ohm / row.length_km,
            "c_nf_per_km": row.c_nf / row.length_km,
            "max_i_ka": row.i_max_a / 1000,
        }
        pp.create_line_from_parameters(net, bus[row.from_bus], bus[row.to_bus], row.length_km, **terms)
    for two in tables.transformers:
        pp.create_transformer_from_parameters(
            net, bus[two.hv_bus], bus[two.lv_bus], two.sn_mva, two.vn_hv_kv, two.vn_lv_kv, two.vkr_percent,
            two.vk_percent, two.pfe_kw, two.i0_percent,
        )  # fmt: skip
    for name, node in bus.items():
        n = where.network.node_of(name)
        pp.create_sgen(net, node, p[t, n], q[t, n])
    pp.runpp(net, trafo_model="pi", tolerance_mva=1e-9)
    assert ours.vm[0] == pytest.approx(net.res_bus.vm_pu.to_numpy(), abs=1e-7)
    lines = len(tables.lines)
    assert 100 * ours.loading[0, :lines] == pytest.approx(net.res_line.loading_percent.to_numpy(), abs=1e-4)


def moves(of: World, t: int) -> list[tuple[int, float, float, float]]:
    """(node, MW up most, MW down most, kvar for kW) of each unit's energy offers in a quarter-hour."""
    kw: dict[str, dict[Direction, int]] = {}
    for one in of.offers:
        if one.product != REACTIVE:
            kw.setdefault(str(one.unit), {})[one.direction] = one.steps[0].quantity_kw[t]
    found = []
    for unit, sides in sorted(kw.items()):
        found.append(
            (of.seller[unit].node, sides.get(UP, 0) / 1000, sides.get(DOWN, 0) / 1000, of.seller[unit].tan_phi)
        )
    return found


def mended(of: World, t: int) -> tuple[Violation, ...]:
    """What is still broken at the best that the offers can do, sought by a linear program on finite differences of the
    power flow, three times over, and judged by the power flow."""
    units = moves(of, t)
    k = len(units)
    x = np.zeros(k)
    node, tan = np.array([u[0] for u in units]), np.array([u[3] for u in units])

    def at_x(many: Floats) -> tuple[Floats, Floats]:
        p, q = np.repeat(of.p_mw[[t]], len(many), axis=0), np.repeat(of.q_mvar[[t]], len(many), axis=0)
        for row, values in enumerate(many):
            np.add.at(p[row], node, values)
            np.add.at(q[row], node, tan * values)
        return p, q

    network, step = of.network, 0.01
    for _ in range(3):
        states = solve(network, *at_x(np.vstack([x, x + step * np.eye(k)])))
        limits = np.concatenate(
            [states.vm - network.v_max, network.v_min - states.vm, states.loading - network.loading_max], axis=1
        )
        slope, now = (limits[1:] - limits[0]).T / step, limits[0] + 1e-5
        finite = np.isfinite(now) & (np.abs(slope).max(axis=1) > 1e-12)
        # Least movement, some units dearer than others, and a steep price on what stays broken.
        bound = [(-u[2], u[1]) for u in units] + [(0.0, None)] * (k + 1)
        eye = np.eye(k)
        rows = np.vstack(
            [
                np.hstack([slope[finite], np.zeros((finite.sum(), k)), -np.ones((finite.sum(), 1))]),
                np.hstack([eye, -eye, np.zeros((k, 1))]),
                np.hstack([-eye, -eye, np.zeros((k, 1))]),
            ]
        )
        right = np.concatenate([(slope @ x - now)[finite], np.zeros(2 * k)])
        answer = linprog(np.concatenate([np.zeros(k), 1 + np.arange(k) / k, [1e6]]), rows, right, bounds=bound)
        assert answer.success
        x = answer.x[:k]
    p, q = at_x(x[None])
    return violations(network, solve(network, p, q), of.axis.window(of.axis[t], of.axis[t] + of.axis.step))


def test_offers_mend_every_quarter_hour_of_the_reference_case() -> None:
    of = world("reference")
    hurt = sorted({of.axis.position(one.start) for one in broken("reference")})
    assert 20 <= len(hurt) <= 40
    assert [t for t in hurt if mended(of, t)] == []


def test_sellers_offer_no_more_than_they_have() -> None:
    of = world("reference")
    for one in of.offers:
        kw = np.array(one.steps[0].quantity_kw)
        assert len(kw) == len(of.axis)
        assert (kw >= 0).all()
        if one.product != REACTIVE:
            assert kw.max() == of.seller[str(one.unit)].limit_kw(one.direction)
    pv = [o for o in of.offers if o.unit and "-pv-" in o.unit and o.product != REACTIVE]
    assert {o.direction for o in pv} == {DOWN}
    assert all(not any(o.steps[0].quantity_kw[: 4 * 5]) for o in pv)


def test_reserve_that_is_needed_is_offered_by_both_levels() -> None:
    of = world("reference")
    for (service, direction), needed in of.reserve_kw.items():
        held = [c for c in of.capacity[service] if c.offer.direction is direction]
        assert sum(c.offer.steps[0].quantity_kw[0] for c in held) >= 1.5 * needed.max()
        if service is not Service.INERTIA:
            assert {of.seller[str(c.offer.unit)].level for c in held} == set(Level)


def test_reductions_of_town_are_its_household_loads_alone() -> None:
    of = world("reference")
    (one,) = of.reductions
    town = of.grids.index("town")
    assert (of.node_grid[one.change_p_mw.any(axis=(0, 1))] == town).all()
    gone = 1000 * one.change_p_mw.sum(axis=2)
    assert (gone >= one.kw - 1).all()
    assert np.abs(gone.cumsum(axis=0) - one.kw.cumsum(axis=0))[:, one.kw.all(axis=0)].max() <= 1.0
    # 1.25 % lower, 0.9 % less for each percent: about 1.1 % of what households draw.
    noon = at(of, 12)
    households = 32 * 880 * 0.38
    assert 0.9 * 0.011 * households < one.kw[0, noon] < 3 * 0.011 * households
    assert not one.kw[:, at(of, 20)].any()


# ---------------------------------------------------------------- levers, names, order


@pytest.mark.parametrize("name", sorted(CASES))
def test_more_liquidity_holds_the_offers_of_less(name: str) -> None:
    held: list[set[tuple[str, object]]] = []
    for share in (0.0, 0.3, 0.6, 1.0):
        of = case(name, liquidity=share)
        capacity = {(c.offer.id, c.offer.steps) for all_of in of.capacity.values() for c in all_of}
        held.append({(o.id, o.steps) for o in of.offers} | capacity)
        assert of.sellers == world(name).sellers
    assert held[0] == set()
    assert held[0] < held[1] < held[2] < held[3]


def content(of: Any) -> Any:
    """All that a case holds, as values that compare: arrays as bytes, dataclasses and mappings as their parts. The
    power flow engine is left out."""
    if isinstance(of, np.ndarray):
        return of.dtype.str, of.shape, of.tobytes()
    if sparse.issparse(of):
        return content(of.toarray())
    if isinstance(of, PowerGridModel):
        return None
    if is_dataclass(of):
        return [content(getattr(of, one.name)) for one in fields(of)]
    if isinstance(of, Mapping):
        return [(content(key), content(value)) for key, value in sorted(of.items(), key=lambda item: str(item[0]))]
    return [content(one) for one in of] if isinstance(of, tuple) else of


@pytest.mark.parametrize("name", sorted(CASES))
def test_a_case_is_a_value(name: str) -> None:
    """Built twice, or sent to another process, it is the same in every bit."""
    first, second = case(name, forecast_error=0.5, seed=3), case(name, forecast_error=0.5, seed=3)
    again = pickle.loads(pickle.dumps(first))
    for other in (second, again, deepcopy(first)):
        assert content(other) == content(first)
        assert other.phases.phases.engine is not first.phases.phases.engine
    del again, second, other
    gc.collect()
    held = first.phases
    assert solve_phases(held.phases, held.p_mw[:2], held.q_mvar[:2]).u.shape[0] == 2
    assert content(case(name, congestion=0.5)) != content(case(name))


def test_seeds_move_prices_and_errors_and_leave_the_grid() -> None:
    first, second = case("reference", seed=1), case("reference", seed=2)
    assert np.array_equal(first.p_mw, second.p_mw)
    assert not np.array_equal(first.error_p_mw, second.error_p_mw)
    assert {o.steps[0].price_eur_mwh for o in first.offers} != {o.steps[0].price_eur_mwh for o in second.offers}
    for of in (first, second):
        for direction in (UP, DOWN):
            paid = [o.steps[0].price_eur_mwh for o in of.offers if o.direction is direction and o.product != REACTIVE]
            assert len(set(paid)) == len(paid)


@pytest.mark.parametrize("name", sorted(CASES))
def test_errors_grow_with_the_level_and_balance_the_need(name: str) -> None:
    calm, rough = case(name), case(name, forecast_error=1.0)
    early = calm.axis.start
    assert np.array_equal(calm.foreseen(early)[0], calm.p_mw)
    apart = rough.foreseen(early)[0] - rough.p_mw
    assert np.abs(apart).max() > 0
    assert rough.need_kw(early) == pytest.approx(rough.system_kw - 1000 * apart.sum(axis=1))
    assert not rough.error_p_mw[:, rough.network.slack].any()


@pytest.mark.parametrize("name", sorted(CASES))
def test_what_flows_is_in_balance_and_stands_where_it_belongs(name: str) -> None:
    of = world(name)
    assert np.abs(of.p_mw.sum(axis=1)).max() < 1e-9
    assert of.p_mw.shape == of.q_mvar.shape == of.error_p_mw.shape == (96, of.network.n)
    for g, grid in enumerate(of.grids):
        assert {n.split("/")[0] for n, k in zip(of.network.node_names, of.node_grid, strict=True) if k == g} == {grid}
        assert of.node_grid[of.border[g]] == -1
    for one in of.sellers:
        assert (of.grids.index(one.grid) if one.grid else -1) == of.node_grid[one.node]
        assert bool(one.perimeter) is bool(one.grid)


def test_the_order_of_what_is_given_changes_nothing() -> None:

    parts = [_grid("north", 4.0), _grid("south", 5.0), _grid("west", 10.0)]
    forth, back = place(_transmission(), parts), place(_transmission(), parts[::-1])
    assert forth.tables == back.tables == attach(_transmission(), parts)
    assert np.array_equal(forth.border, back.border)
    of = world("small")
    rows = [
        EnergyRow(str(o.unit), o.direction, np.array(o.steps[0].quantity_kw), o.steps[0].price_eur_mwh, o.product)
        for o in of.offers
    ]
    assert offers(of.axis, of.sellers[::-1], rows[::-1]) == of.offers


def test_a_name_or_a_lever_that_cannot_be_is_refused() -> None:
    with pytest.raises(CaseNotKnown, match="reference, small"):
        case("large")
    for wrong in ({"liquidity": 1.1}, {"liquidity": -0.1}, {"congestion": -1.0}, {"forecast_error": float("nan")}):
        for name in CASES:
            with pytest.raises(CoflexError):
                case(name, **wrong)


def test_cases_stand_on_the_same_day() -> None:
    assert {len(small().axis), len(reference().axis)} == {96}
    assert small().axis.start.astimezone(ZONE).isoformat() == f"{DAY}T00:00:00+02:00"


# ---------------------------------------------------------------- random worlds


@settings(max_examples=40, deadline=None)
@given(of=worlds(reactive=True, reserve=True))
def test_flows_of_a_random_world_are_sums_below_its_lines(of: World) -> None:
    """Kirchhoff's first law by hand, on the shape that the names tell; the triangle of three equal lines as above."""
    net = of.network
    states = solve(net, of.p_mw, of.q_mvar)
    busy = np.flatnonzero(np.abs(of.p_mw).any(axis=1))
    assert len(busy) <= 3
    assert np.abs(states.losses_mw).max() < 1e-4
    for k in np.flatnonzero((of.branch_grid >= 0) & ~net.is_transformer).tolist():
        below, level = {int(net.to_node[k])}, {int(net.to_node[k])}
        while level:
            level = {int(b) for a, b in zip(net.from_node, net.to_node, strict=True) if int(a) in level} - below
            below |= level
        flow = of.p_mw[:, sorted(below)].sum(axis=1)
        assert states.loading[:, k] * net.rating_from[k] == pytest.approx(np.abs(flow), abs=1e-3)
    by_bus = np.array([of.p_mw[:, _part(of, i)].sum(axis=1) for i in range(3 if "T2" in net.node_names else 2)])
    expected = -by_bus[1] if len(by_bus) == 2 else -(2 * by_bus[1] + by_bus[2]) / 3
    assert states.loading[:, 0] * net.rating_from[0] == pytest.approx(np.abs(expected), abs=1e-3)


def _part(of: World, i: int) -> list[int]:
    """Nodes at a transmission bus and in the grids that hang on it."""
    bus = of.network.node_of(f"T{i}")
    grids = np.flatnonzero(of.border == bus)
    return [bus, *np.flatnonzero(np.isin(of.node_grid, grids)).tolist()]


@settings(max_examples=25, deadline=None)
@given(free=worlds(binding=False), tight=worlds(binding=True, grids=2, busy=1))
def test_limits_of_random_worlds_bind_where_they_are_told_to(free: World, tight: World) -> None:
    found = violations(free.network, solve(free.network, free.p_mw, free.q_mvar), free.axis)
    assert not [one for one in found if "/" in one.element]
    # Ratings below the largest flow of a line that carries something break that line.
    states = solve(tight.network, tight.p_mw, tight.q_mvar)
    flows = (states.loading * tight.network.rating_from).max(axis=0)
    lines = (tight.branch_grid >= 0) & ~tight.network.is_transformer & (flows > 0.25)
    assert (states.loading.max(axis=0)[lines] > 1).all()


@settings(max_examples=25, deadline=None)
@given(of=worlds(forecast_error=1.0))
def test_random_worlds_have_prices_of_their_own_and_can_be_sent(of: World) -> None:
    paid = [o.steps[0].price_eur_mwh for o in of.offers]
    assert len(set(paid)) == len(paid) == 2 * len(of.sellers)
    assert all(price == round(price, 2) for price in paid)
    again = pickle.loads(pickle.dumps(of))
    assert again.offers == of.offers
    assert np.array_equal(again.errors(of.axis.start), of.errors(of.axis.start))


# ---------------------------------------------------------------- what a DSO may set itself


def test_one_step_of_the_tap_mends_what_the_small_case_has_of_voltage() -> None:
    """0.94085 pu and 1 % more is above 0.95; the schedule finds it and moves no other tap."""
    of = world("small")
    assert of.tools is not None
    t = [at(of, 21)]
    made = schedule(of.tools.tables, of.tools.means, of.p_mw[t], of.q_mvar[t])
    assert made.burden_before[0] > 0
    assert made.burden_after[0] == 0
    taps = dict(zip(made.means.transformers, made.settings[made.of_period[0]].taps, strict=True))
    assert taps == {"north/transformer": 0, "south/transformer": 0, "west/transformer": 1}


@pytest.mark.parametrize("name", sorted(CASES))
def test_tools_are_those_of_the_distribution_grids_and_the_network_is_built_of_them(name: str) -> None:
    of = world(name)
    assert of.tools is not None
    means = of.tools.means
    assert {one.split("/")[0] for one in means.transformers} == set(of.grids)
    assert all("/" in one for one in (*means.shunts, *means.switches))
    assert content(build(of.tools.tables)) == content(of.network)
    assert of.phases is not None
    assert of.phases.grid in of.grids
