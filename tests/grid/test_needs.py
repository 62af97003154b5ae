"""Needs: the volume removes the violation, and no smaller one does."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog

from coflex.domain.need import LocalNeed, Violation
from coflex.domain.qualification import LimitKind
from coflex.domain.quantity import Direction
from coflex.domain.time import Axis
from coflex.grid.assess import violations
from coflex.grid.needs import Reach, effects, local_needs
from coflex.grid.network import Network, build
from coflex.grid.powerflow import GridState, solve
from support.books import START
from support.small_grids import injections, radial, solved

BUSES = ("A1", "A2", "A3", "A4", "B3")
AXIS = Axis(START, 1)


def reach(network: Network, kw: float) -> Reach:
    node = np.array([network.node_of(bus) for bus in BUSES])
    power = np.full((len(BUSES), 1), kw)
    return Reach(BUSES, node, np.full(len(BUSES), 0.3), power, power)


def needs_of(network: Network, state: GridState, units: Reach) -> tuple[tuple[Violation, ...], tuple[LocalNeed, ...]]:
    broken = violations(network, state, AXIS)
    return broken, local_needs("session", network, state, AXIS, broken, units)


@pytest.mark.spec("GRID-05")
def test_the_volume_is_the_least_power_that_a_linear_program_finds() -> None:
    network, state = solved(radial(i_max_a=95.0), generation=0.0)
    units = reach(network, 400.0)
    broken, needs = needs_of(network, state, units)
    assert needs and len(needs) == len(broken)
    per_kw = effects(network, state, AXIS, broken, units.node, units.tan_phi)
    for r, need in enumerate(needs):
        assert need.direction is Direction.UP and need.coverable and need.kind is LimitKind.LOADING
        least = linprog(np.ones(5), A_ub=per_kw[[r]], b_ub=[-broken[r].excess], bounds=[(0, 400.0)] * 5)
        assert least.status == 0 and need.volume_kw == int(np.ceil(least.fun - 1e-6))


@pytest.mark.spec("GRID-05")
def test_the_named_volume_from_the_named_units_removes_the_violation_by_power_flow() -> None:
    tables = radial(i_max_a=95.0)
    network, state = solved(tables, generation=0.0)
    _, needs = needs_of(network, state, reach(network, 400.0))
    need = max(needs, key=lambda n: n.volume_kw)
    p, q = state.p_mw.copy(), state.q_mvar.copy()
    left = float(need.volume_kw)
    for acting in need.acting:
        kw = min(400.0, left)
        p[0, network.node_of(acting.unit)] += kw / 1000
        q[0, network.node_of(acting.unit)] += 0.3 * kw / 1000
        left -= kw
    line = network.branch_names.index(need.element)
    # The tangent bends by a few permille over such a step.
    assert solve(network, p, q).loading[0, line] <= 1.0 + 0.003
    assert state.loading[0, line] > 1.02


@pytest.mark.spec("GRID-05")
def test_units_are_named_by_falling_effect_and_those_of_the_other_feeder_not_at_all() -> None:
    network, state = solved(radial(i_max_a=95.0), generation=0.0)
    _, needs = needs_of(network, state, reach(network, 400.0))
    for need in needs:
        sizes = [acting.effect_per_kw for acting in need.acting]
        assert sizes == sorted(sizes, reverse=True) and min(sizes) > 0
        assert need.perimeter == need.element.split("-")[1][0]
        assert all(acting.unit.startswith(need.perimeter) for acting in need.acting)


@pytest.mark.spec("GRID-05")
def test_too_little_power_is_said_to_be_too_little() -> None:
    network, state = solved(radial(i_max_a=80.0), generation=0.0)
    _, needs = needs_of(network, state, reach(network, 10.0))
    assert needs and not any(need.coverable for need in needs)
    assert max(need.volume_kw for need in needs) == 40


@pytest.mark.spec("GRID-05")
@pytest.mark.parametrize(
    ("v_min", "v_max", "load", "generation", "direction"),
    [(0.995, 1.06, 1.5, 0.0, Direction.UP), (0.9, 1.01, 0.0, 3.0, Direction.DOWN)],
)
def test_a_low_voltage_asks_up_and_a_high_one_down(
    v_min: float, v_max: float, load: float, generation: float, direction: Direction
) -> None:
    tables = radial(v_min=v_min, v_max=v_max)
    network = build(tables)
    state = solve(network, *injections(tables, network, load, generation))
    broken, needs = needs_of(network, state, reach(network, 2000.0))
    assert needs and {need.direction for need in needs} == {direction}
    assert needs_of(network, state, reach(network, 2000.0))[1] == needs
    assert [need.element for need in needs] == [v.element for v in broken]
