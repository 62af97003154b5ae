"""Phase-balancing needs: what they name is put into the power flow, and the limit holds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coflex.domain.phase import Phase, PhaseLimit, PhaseNeed, PhaseViolation
from coflex.domain.quantity import Direction
from coflex.domain.time import Axis
from coflex.grid import unbalanced
from coflex.grid.balance import PhaseReach, gravest, phase_needs
from coflex.grid.network import build
from coflex.grid.unbalanced import PhaseLimits, PhaseState, violations
from support.books import START
from support.low_voltage import elements, four_wire

AXIS = Axis(START, 3)
LIMITS = PhaseLimits(unbalance=0.02, neutral=0.5)


@pytest.fixture(scope="module")
def state() -> PhaseState:
    """A quiet quarter-hour, and two in which phase a carries too much."""
    tables = four_wire()
    grid = unbalanced.build(tables, build(tables))
    p, q = (unbalanced.injections(grid, np.concatenate([0.3 * x, 1.5 * x, 2.2 * x], axis=1)) for x in elements(tables))
    return unbalanced.solve(grid, p, q)


@pytest.fixture(scope="module")
def broken(state: PhaseState) -> tuple[PhaseViolation, ...]:
    return violations(state, AXIS, LIMITS)


def reach(state: PhaseState, kw: float) -> PhaseReach:
    node = [state.grid.network.node_of(bus) for bus in ("B3", "B5", "B3", "B2")]
    share = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1 / 3] * 3], dtype=float)
    names = ("on a", "on b", "on c", "on all")
    return PhaseReach(names, np.array(node), share, np.array([0.0, 0.0, 0.3, 0.0]), *(np.full((4, 3), kw),) * 2)


def after(state: PhaseState, t: int, node: np.ndarray, kw: np.ndarray, kvar: np.ndarray | float = 0.0) -> PhaseState:
    """Period t with changes kw [s, 3] at nodes [s]."""
    p, q = state.p_mw[[t]].copy(), state.q_mvar[[t]].copy()
    np.add.at(p[0], node, kw / 1000)
    np.add.at(q[0], node, kvar / 1000 * np.ones((1, 3)))
    return unbalanced.solve(state.grid, p, q)


def excess(state: PhaseState, need: PhaseNeed | PhaseViolation) -> float:
    network = state.grid.network
    phase = "abc".index(need.phase) if need.phase else 0
    value = {
        PhaseLimit.VOLTAGE_HIGH: lambda: state.vm[0, network.node_of(need.element), phase],
        PhaseLimit.VOLTAGE_LOW: lambda: -state.vm[0, network.node_of(need.element), phase],
        PhaseLimit.LOADING: lambda: state.loading[0, network.branch_names.index(need.element), phase],
        PhaseLimit.NEUTRAL: lambda: state.neutral_loading[0, network.branch_names.index(need.element)],
        PhaseLimit.UNBALANCE: lambda: state.unbalance[0, network.node_of(need.element)],
    }[need.kind]()
    return float(value - (-need.bound if need.kind is PhaseLimit.VOLTAGE_LOW else need.bound))


@pytest.mark.spec("GRID-05")
def test_the_volumes_of_a_need_remove_its_violation_and_a_tenth_less_does_not(
    state: PhaseState, broken: tuple[PhaseViolation, ...]
) -> None:
    needs = phase_needs("session", state, AXIS, broken, reach(state, 8.0))
    assert len(needs) == len(broken) > 15
    assert {need.kind for need in needs} == set(PhaseLimit) - {PhaseLimit.VOLTAGE_HIGH}
    for need in needs:
        t, node = AXIS.position(need.start), np.array([state.grid.network.node_of(need.bus)])
        kw = np.zeros((1, 3))
        for volume in need.volumes:
            kw[0, "abc".index(volume.phase)] = volume.direction.sign * volume.volume_kw
        assert np.abs(kw).sum() > 0
        assert excess(after(state, t, node, kw), need) <= 1e-6
        fewer = np.sign(kw) * np.maximum(np.abs(kw) - 1, 0) * 0.9
        assert excess(after(state, t, node, fewer), need) > 0
    unbalance = next(need for need in needs if need.kind is PhaseLimit.UNBALANCE)
    assert unbalance.volumes[0].phase is Phase.A and unbalance.volumes[0].direction is Direction.UP


@pytest.mark.spec("GRID-05")
def test_effects_are_the_slopes_of_the_power_flow(state: PhaseState, broken: tuple[PhaseViolation, ...]) -> None:
    units = reach(state, 8.0)
    step = 0.02
    for need in phase_needs("session", state, AXIS, gravest(broken), units):
        t = AXIS.position(need.start)
        assert (
            need.acting and [a.effect_per_kw for a in need.acting] == sorted(a.effect_per_kw for a in need.acting)[::-1]
        )
        for acting in need.acting:
            u = units.names.index(acting.unit)
            assert acting.phase == (None if u == 3 else "abc"[u])
            kw = acting.direction.sign * step * units.share[[u]]
            ends = [after(state, t, units.node[[u]], s * kw, s * kw * units.tan_phi[u]) for s in (1, -1)]
            slope = (excess(ends[1], need) - excess(ends[0], need)) / (2 * step)
            assert slope == pytest.approx(acting.effect_per_kw, rel=1e-3, abs=1e-8)


@pytest.mark.spec("GRID-05")
def test_a_need_is_coverable_exactly_when_the_units_suffice(
    state: PhaseState, broken: tuple[PhaseViolation, ...]
) -> None:
    """Voltages only: there every unit helps or harms alike at any power, so all of it at once is the most."""
    low = [v for v in broken if v.kind is PhaseLimit.VOLTAGE_LOW]
    seen = set()
    for kw in (0.0, 2.0, 4.0, 8.0, 30.0):
        units = reach(state, kw)
        for need in phase_needs("session", state, AXIS, low, units):
            # The best there is: each unit as far as it goes in its own relieving direction.
            sign = {acting.unit: acting.direction.sign for acting in need.acting}
            power = np.array([[kw * sign.get(name, 0)] for name in units.names]) * units.share
            best = after(state, AXIS.position(need.start), units.node, power, power * units.tan_phi[:, None])
            assert need.coverable == (excess(best, need) <= 1e-6)
            seen.add(need.coverable)
    assert seen == {True, False}


@pytest.mark.spec("GRID-05")
def test_the_gravest_of_each_quarter_hour_and_kind_stand_for_the_others(broken: tuple[PhaseViolation, ...]) -> None:
    chosen = gravest(broken)
    assert len(chosen) == len({(v.start, v.kind) for v in broken})
    assert all(max(w.excess for w in broken if (w.start, w.kind) == (v.start, v.kind)) == v.excess for v in chosen)


@pytest.mark.spec("GRID-05")
def test_a_branch_needs_change_at_its_end_away_from_the_source(
    state: PhaseState, broken: tuple[PhaseViolation, ...]
) -> None:
    branches = [v for v in broken if v.kind in (PhaseLimit.LOADING, PhaseLimit.NEUTRAL)]
    ends = {need.element: need.bus for need in phase_needs("s", state, AXIS, branches, reach(state, 8.0))}
    assert len(ends) > 2 and all(bus == {"T": "B0"}.get(element, element[-2:]) for element, bus in ends.items())


@pytest.mark.spec("GRID-05")
def test_without_units_a_need_still_says_what_must_change(
    state: PhaseState, broken: tuple[PhaseViolation, ...]
) -> None:
    nobody = PhaseReach((), np.zeros(0, int), np.zeros((0, 3)), np.zeros(0), np.zeros((0, 3)), np.zeros((0, 3)))
    one = [replace(broken[0])]
    (need,) = phase_needs("s", state, AXIS, one, nobody)
    assert need.volumes and not need.coverable and need.acting == ()
    assert phase_needs("s", state, AXIS, [], nobody) == ()
