"""P-Q areas against a closed form, pandapower, random sampling and laws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coflex.domain.quantity import Floats
from coflex.grid.area import Area, area
from coflex.grid.controllable import Controllables, controllables, interface
from coflex.grid.dispatch import VIOLATION, dispatch
from coflex.grid.network import Network, build
from coflex.grid.powerflow import solve
from coflex.grid.tables import Bus, GridTables, Line, Source
from support.dispatches import Problem, problem, units
from support.ipopt_dispatch import ipopt_dispatch
from support.second_engine import pandapower_net, run, worst_margin

EIGHT = 8


def of_first(of: Problem, chosen: Controllables | None = None) -> Area:
    """The area of the first period alone."""
    mine = (chosen or of.units).periods(np.array([0]))
    return area(of.network, of.p_mw[:1], of.q_mvar[:1], mine, of.price[:1], EIGHT)


@pytest.fixture(scope="module")
def imported() -> tuple[Problem, Area]:
    of = problem("import")
    return of, of_first(of)


def two_bus(v_min: float = 0.9) -> Network:
    """110 kV feeding a bus over 12 + 40j ohm; no charging."""
    buses = tuple(Bus(name, 110.0, v_min, 1.1, 0.0, 0.0, "") for name in ("S", "L"))
    line = Line("S-L", "S", "L", 30.0, 12.0, 40.0, 0.0, 0.0, 100.0)
    return build(GridTables(buses, (line,), (), (), (Source("above", "S", 1.0),), (), (), ()))


def closed_form(p: Floats, q: Floats, v_min: float) -> tuple[Floats, Floats]:
    """Exchange of the two-bus line for withdrawals p, q in MW and Mvar: the larger root of
    w^2 + (2 (R p + X q) - V^2) w + |Z|^2 (p^2 + q^2) = 0 is the squared voltage; points below v_min left out."""
    r, x, v2 = 12.0, 40.0, 110.0**2
    b = 2 * (r * p + x * q) - v2
    w = (-b + np.sqrt(b**2 - 4 * (r**2 + x**2) * (p**2 + q**2))) / 2
    held = w >= (v_min * 110.0) ** 2
    squared_current = (p**2 + q**2) / w
    return (p + r * squared_current)[held], (q + x * squared_current)[held]


@pytest.mark.spec("GRID-10")
@pytest.mark.parametrize("v_min", [0.8, 0.95])
def test_the_two_bus_line_reaches_as_far_as_its_closed_form(v_min: float) -> None:
    network = two_bus(v_min)
    bounds = np.full((1, 1), -30.0), np.full((1, 1), 10.0)
    unit = controllables(
        ("u",), np.array([network.node_of("L")]), bounds, (np.full((1, 1), -12.0), np.full((1, 1), 8.0))
    )
    found = area(network, np.zeros((1, 2)), np.zeros((1, 2)), unit)
    p, q = np.meshgrid(np.linspace(-10.0, 30.0, 801), np.linspace(-8.0, 12.0, 401))
    at_p, at_q = closed_form(p.ravel(), q.ravel(), v_min)
    angle = 2 * np.pi * np.arange(16) / 16
    farthest = (np.cos(angle)[:, None] * at_p + np.sin(angle)[:, None] * at_q).max(axis=1)
    # The raster of 0.05 MW and Mvar lies inside the box and misses a limit by less than a step.
    assert (found.support[0] >= farthest - 1e-6).all()
    assert (found.support[0] <= farthest + (1e-6 if v_min == 0.8 else 0.08)).all()


@pytest.mark.spec("GRID-10")
def test_pandapower_finds_every_corner_within_the_limits_and_with_the_exchange_that_is_told(
    imported: tuple[Problem, Area],
) -> None:
    of, found = imported
    net = pandapower_net(of.tables)
    for v in range(2 * EIGHT):
        p, q = of.p_mw[0].copy(), of.q_mvar[0].copy()
        np.add.at(p, of.units.node, found.units_p[0, v])
        np.add.at(q, of.units.node, found.units_q[0, v])
        assert worst_margin(run(net, of.network, p, q), "H") <= VIOLATION
        at_source = net.res_ext_grid.iloc[0]
        assert at_source.p_mw == pytest.approx(found.vertices_p[0, v], abs=1e-4)
        assert at_source.q_mvar == pytest.approx(found.vertices_q[0, v], abs=1e-4)


@pytest.mark.spec("GRID-10")
def test_random_points_inside_can_be_reached_and_cost_what_ipopt_says(imported: tuple[Problem, Area]) -> None:
    of, found = imported
    rng = np.random.default_rng(5)
    share = rng.dirichlet(np.ones(2 * EIGHT), 60)
    p, q = share @ found.vertices_p[0], share @ found.vertices_q[0]
    inside = found.contains(0, p, q)
    p, q = p[inside][:12], q[inside][:12]
    assert len(p) == 12
    first = np.zeros(12, dtype=np.int64)
    fixed = replace(
        interface(of.network, np.zeros(12)), p_min=p[:, None], p_max=p[:, None], q_min=q[:, None], q_max=q[:, None]
    )
    chosen = of.units.periods(first).then(fixed)
    answer = dispatch(of.network, of.p_mw[first], of.q_mvar[first], chosen)
    assert answer.feasible.all()
    for k in range(3):
        other = ipopt_dispatch(of.network, of.injection[0], chosen.periods(np.array([k])), answer.state.u[k])
        assert other.solved and answer.cost_eur_h[k] == pytest.approx(other.cost, rel=1e-4)


@pytest.mark.spec("GRID-10")
@pytest.mark.parametrize("name", ["import", "export", "ring"])
def test_no_sampled_exchange_that_keeps_the_limits_lies_outside(name: str) -> None:
    of = problem(name)
    found = of_first(of)
    rng = np.random.default_rng(3)
    k = 20_000
    # Half of them anywhere, corners as often as the inside; half between the dispatches behind the area's corners.
    half = (k // 2, 4)
    share = rng.dirichlet(np.full(2 * EIGHT, 0.2), half[0])
    p, q = (
        np.concatenate(
            [low + (high - low) * rng.beta(0.4, 0.4, (k // 2, 4)), share @ at + rng.normal(0, 0.02, (k // 2, 4))]
        )
        for low, high, at in (
            (of.units.p_min[0], of.units.p_max[0], found.units_p[0]),
            (of.units.q_min[0], of.units.q_max[0], found.units_q[0]),
        )
    )
    p, q = np.clip(p, of.units.p_min[0], of.units.p_max[0]), np.clip(q, of.units.q_min[0], of.units.q_max[0])
    q[:, 3] = 0.2 * p[:, 3]
    base_p, base_q = np.tile(of.p_mw[0], (k, 1)), np.tile(of.q_mvar[0], (k, 1))
    base_p[:, of.units.node] += p
    base_q[:, of.units.node] += q
    state = solve(of.network, base_p, base_q)
    network, inner = of.network, of.network.pq
    safe = (state.loading <= 1).all(axis=1)
    safe &= ((state.vm <= network.v_max) & (state.vm >= network.v_min))[:, inner].all(axis=1)
    at_p, at_q = state.interface_p_mw[safe], state.interface_q_mvar[safe]
    assert len(at_p) > 300
    angle = 2 * np.pi * np.arange(EIGHT) / EIGHT
    reach = np.cos(angle)[:, None] * at_p + np.sin(angle)[:, None] * at_q
    assert (reach <= found.support[0][:, None] + 1e-6).all()


@pytest.mark.spec("GRID-10")
def test_more_flexibility_never_draws_the_area_in() -> None:
    of = problem("import")
    wide, narrow = (of_first(of, units(of.network, 2, reach)) for reach in (1.5, 1.3))
    assert wide.feasible.all() and narrow.feasible.all()
    assert (wide.support >= narrow.support - 1e-6).all() and (wide.support > narrow.support + 0.01).any()


@pytest.mark.spec("GRID-10")
def test_tighter_limits_never_push_the_area_out() -> None:
    of = problem("import")
    network = replace(of.network, loading_max=0.97 * of.network.loading_max)
    whole, tight = of_first(of), of_first(replace(of, network=network))
    assert (tight.support <= whole.support + 1e-6).all() and (tight.support < whole.support - 0.01).any()


@pytest.mark.spec("GRID-10")
def test_the_cheapest_exchange_is_cheaper_than_every_other_at_its_price(imported: tuple[Problem, Area]) -> None:
    of, found = imported
    least = found.cheapest_cost[0] + of.price[0] * found.cheapest_p[0]
    for cost, p in ((found.cost, found.vertices_p), (found.inside_cost, found.inside_p)):
        assert np.isfinite(cost).all() or not found.convex[0]
        assert (cost[0] + of.price[0] * p[0] >= least - 1e-5)[np.isfinite(cost[0])].all()
    assert found.contains(0, found.inside_p[0], found.inside_q[0]).all()


@pytest.mark.spec("GRID-10")
def test_the_outline_alone_is_the_same_outline(imported: tuple[Problem, Area]) -> None:
    of, found = imported
    bare = area(
        of.network, of.p_mw[:1], of.q_mvar[:1], of.units.periods(np.array([0])), of.price[:1], EIGHT, costs=False
    )
    assert np.hypot(bare.vertices_p - found.vertices_p, bare.vertices_q - found.vertices_q).max() < 1e-5
    assert (bare.support == found.support).all() and np.isnan(bare.cost).all() and np.isnan(bare.inside_cost).all()


@pytest.mark.spec("GRID-10")
def test_a_bent_area_says_so_and_its_outline_follows_the_closed_form() -> None:
    # The lower end of the voltage band cuts a bay between drawing much real and much reactive power.
    network = two_bus(0.95)
    one = np.ones((1, 1))
    unit = controllables(("u",), np.array([network.node_of("L")]), (-40 * one, 10 * one), (-30 * one, 30 * one))
    found = area(network, np.zeros((1, 2)), np.zeros((1, 2)), unit, costs=False)
    p, q = np.meshgrid(np.linspace(-10.0, 40.0, 501), np.linspace(-30.0, 30.0, 601))
    at_p, at_q = closed_form(p.ravel(), q.ravel(), 0.95)
    cloud = at_p + 1j * at_q
    corner = found.vertices_p[0] + 1j * found.vertices_q[0]
    middle = (corner[::2] + np.roll(corner[::2], -1)) / 2
    centre = corner[::2].mean()
    short = np.abs(corner[1::2] - centre) < np.abs(middle - centre) - 0.15
    assert not found.convex[0] and short.any()
    # The cloud is 0.1 MW apart: it comes near every corner, and nowhere near the middles that were given up.
    assert max(np.abs(cloud - c).min() for c in corner) < 0.15
    assert min(np.abs(cloud - m).min() for m in middle[short]) > 0.05


@pytest.mark.spec("GRID-10")
def test_without_flexibility_the_area_is_the_exchange_itself() -> None:
    of = problem("calm")
    still = replace(
        of.units, p_min=0 * of.units.p_min, p_max=0 * of.units.p_max, q_min=0 * of.units.q_min, q_max=0 * of.units.q_max
    )
    found = of_first(of, still)
    state = solve(of.network, of.p_mw, of.q_mvar)
    assert found.vertices_p[0] == pytest.approx(np.full(2 * EIGHT, state.interface_p_mw[0]), abs=1e-6)
    assert found.vertices_q[0] == pytest.approx(np.full(2 * EIGHT, state.interface_q_mvar[0]), abs=1e-6)


@pytest.mark.spec("GRID-10")
def test_a_quarter_hour_without_any_safe_exchange_is_named_and_has_no_corners() -> None:
    of = problem("import")
    p = np.concatenate([of.p_mw[:1], 3 * of.p_mw[:1]])
    q = np.concatenate([of.q_mvar[:1], 3 * of.q_mvar[:1]])
    found = area(of.network, p, q, of.units, of.price, 4)
    assert found.feasible.tolist() == [True, False]
    assert np.isfinite(found.vertices_p[0]).all() and np.isnan(found.vertices_p[1]).all()
    assert {t for t, _ in found.broken} == {1} and (1, "loading M1-A1") in found.broken
