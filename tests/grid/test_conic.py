"""The conic relaxation: the power flow where it is tight, never dearer than Ipopt, and honest where it is loose."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from coflex.domain.errors import GridFailure
from coflex.domain.quantity import Floats, Ints
from coflex.grid.conic import BranchFlow, Moves, RelaxedFlow, relaxation
from coflex.grid.means import Operation
from coflex.grid.network import Network, build
from coflex.grid.powerflow import solve
from coflex.grid.rows import Guard
from coflex.solver import cone
from coflex.solver.cone import ConeSolution
from coflex.solver.program import Ending, Program
from support.ac_optimum import ac_optimum
from support.small_grids import LOADS, injections, meshed, radial

SEEDS = st.integers(0, 2**32 - 1)


def choice(cost: Floats, most: Floats) -> Program:
    """Columns between zero and `most`, without rows."""
    count, none = len(cost), np.zeros(0)
    matrix = sparse.csr_array((0, count))
    return Program(cost, matrix, none, none, np.zeros(count), most, np.zeros(count, dtype=np.bool_))


def moves(network: Network, buses: list[str], sign: Floats, tan_phi: float = 0.0, periods: int = 1) -> Moves:
    node = np.tile([network.node_of(bus) for bus in buses], periods)
    when = np.repeat(np.arange(periods), len(buses))
    signs = np.tile(sign, periods)
    return Moves(np.arange(len(node)), when, node, signs, signs * tan_phi)


def optimum(
    flow: BranchFlow, linear: Program, moved: Moves, loss_price: float = 0.0, penalty: float | None = None
) -> tuple[ConeSolution, RelaxedFlow | None]:
    found = cone.solve(relaxation(flow, linear, moved, loss_price, penalty))
    if found.ending is not Ending.OPTIMAL:
        return found, None
    own = len(linear.cost)
    return found, flow.read(found.x[own : own + len(flow.losses)])


NOTHING = choice(np.zeros(0), np.zeros(0))


def steady(network: Network, p: Floats, q: Floats, guard: Guard | None = None) -> BranchFlow:
    return BranchFlow(Operation.steady(network, len(p)), p, q, guard)


STILL = Moves(*(np.zeros(0, dtype=np.int64),) * 3, np.zeros(0), np.zeros(0))


@pytest.mark.spec("GRID-02")
@settings(max_examples=15, deadline=None, derandomize=True)
@given(SEEDS)
def test_with_injections_given_and_losses_least_it_is_the_power_flow(seed: int) -> None:
    rng = np.random.default_rng(seed)
    network = build(radial(i_max_a=2000.0, v_min=0.5, v_max=1.5, sn_mva=60.0))
    p, q = injections(radial(), network, 1.0, 1.0)
    p, q = p * rng.uniform(-1, 3, (2, network.n)), q * rng.uniform(-1, 3, (2, network.n))
    found, states = optimum(steady(network, p, q), NOTHING, STILL, 1.0)
    true = solve(network, p, q)
    assert states is not None and states.tight
    assert states.vm == pytest.approx(true.vm, abs=1e-6)
    assert states.loading_from == pytest.approx(true.loading_from, abs=1e-5)
    assert states.loading_to == pytest.approx(true.loading_to, abs=1e-5)
    behind = np.abs(true.u[:, network.from_node] / network.tap) ** 2
    iron = (network.y_shunt.real / 2 * (behind + true.vm[:, network.to_node] ** 2)).sum(axis=1)
    assert found.cost == pytest.approx(float((true.losses_mw - iron).sum()), abs=1e-5)


@pytest.mark.spec("MKT-06")
@pytest.mark.parametrize("load", [1.2, 1.3, 1.45])
def test_where_it_is_tight_its_cost_is_the_one_that_ipopt_finds(load: float) -> None:
    network = build(radial(i_max_a=98.0, v_min=0.95))
    p, q = injections(radial(), network, load)
    cost, most, buses = np.array([31.0, 29.9, 40.0, 35.0]), np.array([1.5, 0.7, 1.5, 1.0]), ["A2", "A3", "B3", "A4"]
    found, states = optimum(steady(network, p, q), choice(cost, most), moves(network, buses, np.ones(4), 0.2), 1e-3)
    node = np.array([network.node_of(bus) for bus in buses])
    true, moved = ac_optimum(network, p[0], q[0], node, cost, most, 0.2)
    assert states is not None and states.tight
    assert true > 1.0
    assert float(cost @ found.x[:4]) == pytest.approx(true, rel=1e-5)
    assert found.x[:4] == pytest.approx(moved, abs=1e-4)
    change = np.zeros((2, 1, network.n))
    np.add.at(change[0, 0], node, found.x[:4])
    np.add.at(change[1, 0], node, 0.2 * found.x[:4])
    after = solve(network, p + change[0], q + change[1])
    assert max((after.loading - 1).max(), (0.95 - after.vm).max(), (after.vm - 1.05).max()) < 1e-5


@pytest.mark.spec("MKT-06")
@settings(max_examples=20, deadline=None, derandomize=True)
@given(SEEDS)
def test_it_never_costs_more_than_ipopt_whatever_is_loaded_or_exported(seed: int) -> None:
    rng = np.random.default_rng(seed)
    export = rng.random() < 0.5
    tables = radial(rng.uniform(90, 130), 0.955, rng.uniform(1.023, 1.028)) if export else radial(rng.uniform(80, 100))
    network = build(tables)
    p, q = injections(tables, network, *((0.2, rng.uniform(4, 6)) if export else (rng.uniform(1.1, 1.4), 0.5)))
    buses = [str(bus) for bus in rng.choice(sorted(LOADS), 4, replace=False)] + ["A3", "B2"]
    sign = np.where(rng.random(6) < 0.5, 1.0, -1.0)
    sign[4:] = -1.0 if export else 1.0
    cost, most = rng.uniform(5, 90, 6), np.r_[rng.uniform(0.2, 2, 4), 6.0, 6.0]
    node = np.array([network.node_of(bus) for bus in buses])
    true, _ = ac_optimum(network, p[0], q[0], node, cost, sign * most, 0.1)
    found, _ = optimum(steady(network, p, q), choice(cost, most), moves(network, buses, sign, 0.1))
    assert found.ending is Ending.OPTIMAL
    assert found.bound <= true + 1e-5 * max(1.0, true)


@pytest.mark.spec("MKT-06")
def test_with_export_it_lowers_voltages_by_losses_that_are_not_there_and_says_where() -> None:
    tables = radial(v_max=1.025)
    network = build(tables)
    p, q = injections(tables, network, 0.1, 6.0)
    cost, most, buses = np.array([40.0, 50.0, 30.0]), np.array([5.0, 6.0, 1.0]), ["A3", "B2", "A4"]
    node = np.array([network.node_of(bus) for bus in buses])
    true, _ = ac_optimum(network, p[0], q[0], node, cost, -most)
    found, states = optimum(steady(network, p, q), choice(cost, most), moves(network, buses, -np.ones(3)), 1.0)
    assert states is not None and not states.tight
    mine = float(cost @ found.x[:3])
    assert mine < 0.5 * true
    change = np.zeros((1, network.n))
    np.add.at(change[0], node, -found.x[:3])
    after = solve(network, p + change, q)
    assert after.vm.max() > 1.025 + 1e-3
    # What it calls invented is what its losses have over those of the true flow at the same injections.
    assert states.invented_mw.sum() > 0.1
    assert states.vm.max() <= 1.025 + 1e-6
    assert set(np.flatnonzero(states.gap[0] > 1e-5)) <= set(np.flatnonzero(network.from_on & network.to_on))


def test_periods_side_by_side_are_the_periods_alone() -> None:
    network = build(radial(i_max_a=98.0))
    p, q = injections(radial(), network)
    scale = np.array([[1.2], [1.3], [1.4]])
    cost, most, buses = np.array([31.0, 29.9]), np.array([2.5, 0.7]), ["A2", "A3"]
    alone = []
    for t in range(3):
        flow = steady(network, p * scale[t], q * scale[t])
        alone.append(optimum(flow, choice(cost, most), moves(network, buses, np.ones(2)))[0].cost)
    together, _ = optimum(
        steady(network, p * scale, q * scale),
        choice(np.tile(cost, 3), np.tile(most, 3)),
        moves(network, buses, np.ones(2), periods=3),
    )
    assert alone[0] < alone[1] < alone[2]
    assert together.cost == pytest.approx(sum(alone), rel=1e-6)


def test_prices_of_limits_are_what_wider_limits_save() -> None:
    tables, buses, step = radial(i_max_a=98.0), ["A2"], 1e-4
    p, q = injections(tables, build(tables), 1.3)

    def least(loading_max: float) -> tuple[float, Floats, Network, tuple[Ints, Ints]]:
        network = replace(build(tables), loading_max=np.full(9, loading_max))
        flow = steady(network, p, q)
        one = choice(np.array([30.0]), np.array([3.0]))
        found, _ = optimum(flow, one, moves(network, buses, np.ones(1)))
        return found.cost, found.upper_price[-len(flow.under) :], network, flow.limit

    (low, *_), (_, price, network, (form, index)), (high, *_) = least(1 - step), least(1.0), least(1 + step)
    binding = int(np.argmin(price))
    assert network.branch_names[index[binding]] == "M1-A1"
    assert (high - low) / (2 * step) == pytest.approx(2 * price.sum(), rel=1e-3)
    assert price[binding] == pytest.approx(price.sum(), rel=1e-3)
    assert len(form) == len(price)


def test_a_guard_costs() -> None:
    network = build(radial(i_max_a=98.0, v_min=0.96))
    p, q = injections(radial(), network, 1.3)
    one = choice(np.array([30.0]), np.array([3.0]))
    guards = Guard(), Guard(loading_share=0.02), Guard(voltage_pu=0.01, loading_share=0.02)
    moved = moves(network, ["A2"], np.ones(1))
    costs = [optimum(steady(network, p, q, guard), one, moved)[0].cost for guard in guards]
    assert costs[0] < costs[1] < costs[2]


def test_limits_that_cannot_be_kept_are_proved_and_with_a_penalty_broken_the_least() -> None:
    network = build(radial(i_max_a=70.0, v_min=0.9))
    p, q = injections(radial(), network, 1.3)
    flow, moved = steady(network, p, q), moves(network, ["A2", "A3"], np.ones(2))
    small = choice(np.array([31.0, 29.9]), np.array([0.15, 0.15]))
    assert optimum(flow, small, moved)[0].ending is Ending.INFEASIBLE
    found, states = optimum(flow, small, moved, 1.0, 1e6)
    assert states is not None and found.x[:2] == pytest.approx([0.15, 0.15], abs=1e-5)
    change = np.zeros((1, network.n))
    np.add.at(change[0], moved.node, [0.15, 0.15])
    assert states.loading_from.max() == pytest.approx(solve(network, p + change, q).loading_from.max(), abs=1e-4)


def test_a_mesh_is_refused_with_what_to_do() -> None:
    network = build(meshed())
    with pytest.raises(GridFailure) as failure:
        steady(network, *injections(meshed(), network))
    assert "radial" in failure.value.message and "ac model" in failure.value.remedy
