"""The linear model against its closed form, a second way of computing it, and the power flow that it approximates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coflex.domain.errors import GridFailure
from coflex.domain.quantity import Floats
from coflex.grid.linear import LinearGrid
from coflex.grid.network import Network, build
from coflex.grid.powerflow import GridState, solve
from coflex.grid.rows import Guard, RowKeys
from coflex.grid.tables import Bus, GridTables, Line, Source
from support.small_grids import injections, meshed, radial
from support.transmission import injections as of_case
from support.transmission import solved_net, tables_of

SEEDS = st.integers(0, 2**32 - 1)


def bare(tables: GridTables) -> GridTables:
    """Without charging and iron losses: series elements alone."""
    lines = tuple(replace(row, c_nf=0.0) for row in tables.lines)
    transformers = tuple(replace(row, pfe_kw=0.0, i0_percent=0.0) for row in tables.transformers)
    return replace(tables, lines=lines, transformers=transformers)


def believed(network: Network, p: Floats, q: Floats) -> GridState:
    return LinearGrid(network, p, q).believe(p, q)


def test_a_line_of_two_buses_has_the_closed_form() -> None:
    buses = tuple(Bus(name, 20.0, 0.9, 1.1, 8.0, 50.0, "") for name in "AB")
    tables = GridTables(buses, (Line("l", "A", "B", 1.0, 4.0, 3.0, 0.0, 300.0, 100.0),), (), (), (), (), (), ())
    network = build(replace(tables, sources=(Source("above", "A", 1.02),)))
    p, q = np.array([[0.0, -3.0]]), np.array([[0.0, -1.0]])
    state = believed(network, p, q)
    r, x = 4.0 / 400, 3.0 / 400
    assert state.vm[0, 1] ** 2 == pytest.approx(1.02**2 - 2 * (3 * r + 1 * x), abs=1e-14)
    assert np.angle(state.u[0, 1]) == pytest.approx(-(x * 3 - r * 1), abs=1e-14)
    rating = 0.3 * np.sqrt(3) * 20
    assert state.loading_from[0, 0] == pytest.approx(np.hypot(3, 1) / rating, abs=1e-14)
    assert (state.interface_p_mw[0], state.interface_q_mvar[0]) == pytest.approx((3.0, 1.0), abs=1e-12)
    assert state.losses_mw[0] == pytest.approx(0.0, abs=1e-12)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(SEEDS)
def test_on_a_radial_grid_it_is_what_sums_of_injections_below_each_branch_give(seed: int) -> None:
    rng = np.random.default_rng(seed)
    network = build(bare(radial()))
    p, q = rng.uniform(-3, 3, (2, network.n)), rng.uniform(-1, 1, (2, network.n))
    state = believed(network, p, q)
    closed = np.flatnonzero(network.from_on & network.to_on)
    parent: dict[int, tuple[int, int]] = {}
    reached = [network.slack]
    while len(reached) < network.n:
        for b in closed:
            a, c = int(network.from_node[b]), int(network.to_node[b])
            if a in reached and c not in reached:
                parent[c] = a, int(b)
                reached.append(c)
    for t in range(2):
        below = (p[t] + 1j * q[t]).astype(complex)
        for node in reversed(reached[1:]):
            below[parent[node][0]] += below[node]
        w = np.full(network.n, network.slack_vm_pu**2)
        for node in reached[1:]:
            above, b = parent[node]
            z = 1 / network.y_series[b]
            w[node] = w[above] / abs(network.tap[b]) ** 2 + 2 * (z.conjugate() * below[node]).real
            assert state.loading_to[t, b] * network.rating_to[b] == pytest.approx(abs(below[node]), abs=1e-9)
        assert state.vm[t] ** 2 == pytest.approx(w, abs=1e-12)


@pytest.mark.spec("GRID-02")
@settings(max_examples=25, deadline=None, derandomize=True)
@given(SEEDS)
def test_without_charging_no_voltage_of_a_radial_grid_lies_above_the_linear_one(seed: int) -> None:
    """L. Gan, N. Li, U. Topcu and S. Low (2015), doi:10.1109/TAC.2014.2332712, lemma 1: loads or generation."""
    rng = np.random.default_rng(seed)
    network = build(bare(radial()))
    p, q = injections(radial(), network, rng.uniform(0, 2), rng.uniform(0, 4))
    true, linear = solve(network, p, q), believed(network, p, q)
    assert (linear.vm >= true.vm - 1e-9).all()
    assert (linear.vm - true.vm).max() > 1e-6


@pytest.mark.parametrize("ring", [False, True])
def test_its_error_falls_with_the_square_of_the_injections(ring: bool) -> None:
    tables = bare(meshed() if ring else radial())
    flat = replace(
        tables,
        sources=(Source("above", "H", 1.0),),
        transformers=tuple(replace(t, tap_pos=0) for t in tables.transformers),
    )
    network = build(flat)
    p, q = injections(flat, network)
    errors = []
    for share in (1.0, 0.5, 0.25):
        true, linear = solve(network, share * p, share * q), believed(network, share * p, share * q)
        errors.append(np.abs(linear.u - true.u).max())
    assert 1e-5 < errors[0] < 2e-3
    assert errors[1] / errors[0] == pytest.approx(0.25, rel=0.05)
    assert errors[2] / errors[1] == pytest.approx(0.25, rel=0.05)


@pytest.mark.parametrize("ring", [False, True])
def test_charging_iron_losses_and_open_ends_are_in_it(ring: bool) -> None:
    tables = meshed() if ring else radial()
    network = build(tables)
    none = np.zeros((1, network.n))
    true, linear = solve(network, none, none), believed(network, none, none)
    assert abs(true.interface_q_mvar[0]) > 0.5
    assert linear.interface_q_mvar[0] == pytest.approx(true.interface_q_mvar[0], rel=1e-2)
    assert linear.interface_p_mw[0] == pytest.approx(0.028, rel=0.05)
    assert linear.vm == pytest.approx(true.vm, abs=1e-4)
    # Currents of the model are powers at rated voltage.
    assert linear.loading_from == pytest.approx(true.loading_from * true.vm[:, network.from_node], rel=1e-2)


@pytest.mark.parametrize("case", ["case9", "case14"])
def test_nodes_that_hold_their_voltage_keep_it_and_flows_are_near_the_true_ones(case: str) -> None:
    tables = tables_of(solved_net(case))
    network = build(tables)
    p, q = of_case(tables, network)
    true, linear = solve(network, p, q), believed(network, p, q)
    assert linear.vm[0, network.held] == pytest.approx(network.held_vm, abs=1e-12)
    assert linear.vm == pytest.approx(true.vm, abs=0.02)
    assert np.angle(linear.u) == pytest.approx(np.angle(true.u), abs=0.05)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(ring=st.booleans(), seed=SEEDS)
def test_a_row_is_the_limit_of_the_model_where_it_was_made_and_its_tangent_beside(ring: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    network = build((meshed if ring else radial)(90.0, 0.985, 1.05))
    p, q = injections(meshed(), network)
    scale = np.array([[0.2], [1.2], [1.6]])
    grid = LinearGrid(network, p * scale, q * scale)
    shape, periods = grid.p_mw.shape, np.arange(3)
    change_p, change_q = rng.uniform(-0.5, 0.5, shape), rng.uniform(-0.2, 0.2, shape)
    seen = grid.look(change_p, change_q, periods, RowKeys.none())
    rows = grid.rows(seen.state, periods, seen.broken, change_p, change_q)
    assert len(rows)

    def left(dp: Floats, dq: Floats) -> Floats:
        along = np.einsum("rn,rn->r", rows.dp, dp[rows.period]) + np.einsum("rn,rn->r", rows.dq, dq[rows.period])
        return rows.room - along

    assert np.allclose(left(change_p, change_q), grid.headroom(seen.state, periods, seen.broken), atol=1e-12)
    step_p, step_q = 1e-3 * rng.normal(size=shape), 1e-3 * rng.normal(size=shape)
    step_p[:, network.slack] = step_q[:, network.slack] = 0
    beside = grid.look(change_p + step_p, change_q + step_q, periods, RowKeys.none()).state
    predicted = left(change_p + step_p, change_q + step_q)
    assert np.allclose(predicted, grid.headroom(beside, periods, seen.broken), atol=2e-6)
    assert np.abs(rows.dp).max() > 1e-4


def test_a_guard_takes_its_band_from_every_room() -> None:
    network = build(radial(90.0, 0.985))
    p, q = injections(radial(), network, 1.6)
    free = LinearGrid(network, p, q)
    seen = free.look(0 * p, 0 * q, np.arange(1), RowKeys.none())
    guarded = free.with_guard(Guard(voltage_pu=0.001, loading_share=0.01))
    difference = free.headroom(seen.state, np.arange(1), seen.broken) - guarded.headroom(
        seen.state, np.arange(1), seen.broken
    )
    assert np.allclose(difference, np.where(seen.broken.form < 2, 0.001, 0.01))
    assert isinstance(guarded, LinearGrid)


def test_a_load_that_no_voltage_can_carry_is_named() -> None:
    network = build(radial())
    p, q = injections(radial(), network, 60.0)
    with pytest.raises(GridFailure, match="no voltage at"):
        believed(network, p, q)
