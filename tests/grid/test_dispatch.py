"""The optimal dispatch against Ipopt, pandapower, random search and laws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coflex.domain.errors import Refused
from coflex.domain.quantity import Floats
from coflex.grid.controllable import controllables, interface
from coflex.grid.dispatch import VIOLATION, Dispatched, dispatch
from coflex.grid.network import build
from coflex.grid.powerflow import solve
from coflex.grid.tables import Bus, GridTables, Line, Source
from support.dispatches import Problem, problem, units
from support.ipopt_dispatch import ipopt_dispatch
from support.second_engine import pandapower_net, run, worst_margin
from support.small_grids import injections, radial

NAMES = ("calm", "import", "export", "ring")


def answered(of: Problem) -> Dispatched:
    return dispatch(of.network, of.p_mw, of.q_mvar, of.chosen)


@pytest.mark.spec("MKT-06")
@pytest.mark.parametrize("name", NAMES)
def test_ipopt_finds_the_same_cost(name: str) -> None:
    of = problem(name)
    answer = answered(of)
    assert answer.feasible.all() and (answer.promised < 1e-5).all()
    assert bool(len(answer.limit_names)) == (name != "calm")
    for t in range(len(of.price)):
        other = ipopt_dispatch(of.network, of.injection[t], of.chosen.periods(np.array([t])), answer.state.u[t])
        assert other.solved
        assert answer.cost_eur_h[t] == pytest.approx(other.cost, rel=1e-6)


@pytest.mark.spec("MKT-06")
@pytest.mark.parametrize("name", NAMES)
def test_pandapower_finds_every_limit_kept_and_those_that_have_a_price_reached(name: str) -> None:
    of = problem(name)
    answer = answered(of)
    net = pandapower_net(of.tables)
    inside = np.zeros((4, of.network.n))
    inside[np.arange(4), of.units.node] = 1.0
    for t in range(len(of.price)):
        p = of.p_mw[t] + answer.p_mw[t, :4] @ inside
        q = of.q_mvar[t] + answer.q_mvar[t, :4] @ inside
        margin = worst_margin(run(net, of.network, p, q), "H")
        assert margin <= VIOLATION
        assert not (answer.limits.period == t).any() or margin >= -VIOLATION


@pytest.mark.spec("MKT-06")
def test_costs_are_those_of_the_injections_and_the_interface_delivers_the_rest() -> None:
    of = problem("import")
    answer = answered(of)
    p, q = answer.p_mw, answer.q_mvar
    curve = np.interp(p[:, 2], [-2.0, 0.0, 0.4, 2.0], [-80.0, 0.0, 22.0, 130.0])
    by_hand = 70 * p[:, 0] + 2 * np.abs(q[:, 0]) + 52 * p[:, 1] + 3 * p[:, 1] ** 2 + curve + np.abs(q[:, 2])
    by_hand += 66 * p[:, 3] + of.price * p[:, 4]
    assert answer.cost_eur_h == pytest.approx(by_hand, rel=1e-9)
    assert p[:, 4] == pytest.approx(answer.state.interface_p_mw, abs=1e-7)
    assert q[:, 4] == pytest.approx(answer.state.interface_q_mvar, abs=1e-7)
    assert q[:, 3] == pytest.approx(0.2 * p[:, 3], abs=1e-9)


@pytest.mark.spec("MKT-06")
@pytest.mark.parametrize("name", ["import", "ring"])
def test_no_random_dispatch_that_keeps_the_limits_is_cheaper(name: str) -> None:
    of = problem(name)
    answer = answered(of)
    rng = np.random.default_rng(7)
    network, four = of.network, of.units
    for t in range(len(of.price)):
        k = 4000
        near = answer.p_mw[t, :4] + rng.normal(0.0, 0.05, (k, 4))
        p = np.clip(np.where(rng.random((k, 1)) < 0.5, near, rng.uniform(-0.75, 1.5, (k, 4))), -0.75, 1.5)
        q = np.clip(answer.q_mvar[t, :4] + rng.normal(0.0, 0.05, (k, 4)), -0.375, 0.75)
        q[:, 3] = 0.2 * p[:, 3]
        base_p, base_q = np.tile(of.p_mw[t], (k, 1)), np.tile(of.q_mvar[t], (k, 1))
        base_p[:, four.node] += p
        base_q[:, four.node] += q
        state = solve(network, base_p, base_q)
        inner = network.pq
        safe = (state.loading <= 1).all(axis=1)
        safe &= ((state.vm <= network.v_max) & (state.vm >= network.v_min))[:, inner].all(axis=1)
        cost = four.periods(np.full(k, t)).cost(p, q).sum(axis=1) + of.price[t] * state.interface_p_mw
        assert safe.sum() > 20
        assert cost[safe].min() >= answer.cost_eur_h[t] - 1e-6


@pytest.mark.spec("MKT-06")
def test_periods_are_answered_by_themselves_in_any_order() -> None:
    of = problem("ring")
    whole = answered(of)
    back = np.array([1, 0])
    turned = dispatch(of.network, of.p_mw[back], of.q_mvar[back], of.chosen.periods(back))
    assert (turned.p_mw[back] == whole.p_mw).all() and (turned.cost_eur_h[back] == whole.cost_eur_h).all()


@pytest.mark.spec("MKT-06")
@settings(max_examples=8, deadline=None, derandomize=True)
@given(st.floats(0.2, 1.0), st.sampled_from(["import", "export"]))
def test_more_room_never_costs_more(share: float, name: str) -> None:
    of = problem(name)
    less = replace(of, units=units(of.network, len(of.price), 1.5 * share))
    wide, narrow = answered(of), answered(less)
    held = narrow.feasible
    assert (wide.cost_eur_h[held] <= narrow.cost_eur_h[held] + 1e-6).all()
    # What is short stays short of less with more room.
    assert wide.broken.max(initial=0.0) <= narrow.broken.max(initial=0.0) + VIOLATION


@pytest.mark.spec("GRID-03")
def test_what_cannot_be_relieved_is_named_and_never_passed_over() -> None:
    tables = radial(60.0)
    network = build(tables)
    p, q = injections(tables, network, 1.6)
    few = controllables(
        ("B3",), np.array([network.node_of("B3")]), (np.zeros((1, 1)), np.full((1, 1), 0.3)), price=80.0
    )
    answer = dispatch(network, p, q, few.then(interface(network, np.array([50.0]))))
    assert not answer.feasible[0]
    left = {name for name, by in zip(answer.limit_names, answer.broken, strict=True) if by > VIOLATION}
    loading = answer.state.loading[0]
    assert left == {f"loading {network.branch_names[i]}" for i in np.flatnonzero(loading > 1 + VIOLATION)}
    assert "loading M1-A1" in left
    # The unit of the other feeder is called as far as it goes: what can be relieved is.
    assert answer.p_mw[0, 0] == pytest.approx(0.3)


@pytest.mark.spec("GRID-10")
def test_an_exchange_that_is_given_is_met_or_told_to_be_out_of_reach() -> None:
    of = problem("calm")
    for target, met in ((4.0, True), (12.0, False)):
        fixed = interface(of.network, of.price)
        fixed = replace(fixed, p_min=np.full((1, 1), target), p_max=np.full((1, 1), target))
        answer = dispatch(of.network, of.p_mw, of.q_mvar, of.units.then(fixed))
        assert answer.feasible.tolist() == [met]
        assert (answer.state.interface_p_mw[0] == pytest.approx(target, abs=1e-6)) == met
        assert met or answer.unbalanced[0] > 1.0


@pytest.mark.spec("GRID-10")
def test_a_far_exchange_is_not_lost_to_the_nearest_corner() -> None:
    # 30 MW over 12 + 40j ohm at 110 kV take most at the reactive bound that loses most, q = -12, and not at q = 8:
    # the larger root w of w^2 + (2 (12 * 30 + 40 * 12) - 110^2) w + (12^2 + 40^2) (30^2 + 12^2) = 0 gives 30 + 12 I^2.
    buses = tuple(Bus(name, 110.0, 0.8, 1.1, 0.0, 0.0, "") for name in ("S", "L"))
    line = Line("S-L", "S", "L", 30.0, 12.0, 40.0, 0.0, 0.0, 100.0)
    network = build(GridTables(buses, (line,), (), (), (Source("above", "S", 1.0),), (), (), ()))
    one: Floats = np.ones((1, 1))
    unit = controllables(("u",), np.array([network.node_of("L")]), (-30 * one, 10 * one), (-12 * one, 8 * one))
    nothing = np.zeros((1, 2))
    answer = dispatch(network, nothing, nothing, unit.then(interface(network, np.array([-1.0]))))
    b = 2 * (12 * 30 + 40 * 12) - 110.0**2
    w = (-b + np.sqrt(b**2 - 4 * (12**2 + 40**2) * (30**2 + 12**2))) / 2
    assert answer.state.interface_p_mw[0] == pytest.approx(30 + 12 * (30**2 + 12**2) / w, abs=1e-6)


@pytest.mark.spec("MKT-06")
def test_faults_of_controllables_are_refused_together() -> None:
    network = build(radial())
    node = np.array([network.node_of("A3")])
    one: Floats = np.ones((1, 1))
    crossed = controllables(("crossed",), node, (one, -one))
    endless = controllables(("endless",), node, (-one, np.inf * one))
    hollow = replace(controllables(("hollow",), node, (-one, one)), corners=(((-1.0, 0.0), (0.0, 5.0), (1.0, 6.0)),))
    with pytest.raises(Refused) as refused:
        dispatch(network, np.zeros((1, network.n)), np.zeros((1, network.n)), crossed.then(endless).then(hollow))
    codes = {(finding.place, finding.code) for finding in refused.value.findings}
    assert codes == {
        ("controllable crossed", "impossible_value"),
        ("controllable endless", "without_bound"),
        ("controllable hollow", "not_convex"),
        ("bus H", "no_interface"),
    }
