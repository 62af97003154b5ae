"""Assessment: the broken limits of a state, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from coflex.domain.qualification import LimitKind
from coflex.domain.time import Axis
from coflex.grid.assess import margins, violations, worst
from coflex.grid.network import build
from coflex.grid.powerflow import solve
from support.small_grids import injections, radial, solved

from support.books import START  # isort: skip


@pytest.mark.spec("GRID-03")
def test_every_limit_beyond_its_bound_is_listed_once_with_time_place_and_size() -> None:
    tables = radial(i_max_a=90.0, v_min=0.99)
    network = build(tables)
    p, q = injections(tables, network)
    scale = np.linspace(0.2, 1.6, 29)[:, None]
    state = solve(network, p * scale, q * scale)
    axis = Axis(START, 29)
    listed = {(v.start, v.kind, v.element): v for v in violations(network, state, axis)}
    expected = set()
    for t, start in enumerate(axis):
        for i, name in enumerate(network.node_names):
            if i != network.slack and state.vm[t, i] < 0.99:
                expected.add((start, LimitKind.VOLTAGE_LOW, name))
        for b, name in enumerate(network.branch_names):
            if max(state.loading_from[t, b], state.loading_to[t, b]) > 1:
                expected.add((start, LimitKind.LOADING, name))
    assert listed.keys() == expected and len(expected) > 5
    assert {kind for _, kind, _ in expected} == {LimitKind.VOLTAGE_LOW, LimitKind.LOADING}
    assert all(v.excess > 0 for v in listed.values())
    assert 0 < min(v.excess for v in listed.values() if v.kind is LimitKind.LOADING) < 0.03
    for (start, kind, element), violation in listed.items():
        t = axis.position(start)
        if kind is LimitKind.LOADING:
            value = state.loading[t, network.branch_names.index(element)]
        else:
            value = state.vm[t, network.node_of(element)]
        assert (violation.value, violation.bound) == (value, 1.0 if kind is LimitKind.LOADING else 0.99)
    assert list(listed) == sorted(listed)


@pytest.mark.spec("GRID-03")
def test_a_high_voltage_is_seen_and_the_sources_own_is_left_out() -> None:
    network, state = solved(radial(v_max=1.01), load=0.0, generation=3.0)
    found = violations(network, state, Axis(START, 1))
    assert {v.kind for v in found} == {LimitKind.VOLTAGE_HIGH} and "H" not in {v.element for v in found}
    assert {v.element for v in found} == {
        name for i, name in enumerate(network.node_names) if state.vm[0, i] > 1.01 and name != "H"
    }


@pytest.mark.spec("GRID-03")
def test_a_calm_grid_has_no_violation_and_still_a_nearest_limit() -> None:
    network, state = solved(radial())
    assert violations(network, state, Axis(START, 1)) == ()
    kind, element, value, bound = worst(network, state)
    high, low, loading = margins(network, state)
    high[:, network.slack] = low[:, network.slack] = -np.inf
    nearest = max(high.max(), low.max(), loading.max())
    side = -1 if kind is LimitKind.VOLTAGE_LOW else 1
    assert np.isclose(side * (value - bound), nearest) and element != "H"
