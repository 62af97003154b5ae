"""Grid rows: linear, exact where they were made, and complete about what is broken."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coflex.grid.network import build
from coflex.grid.powerflow import solve
from coflex.grid.rows import AcGrid, Guard, RowKeys
from support.small_grids import injections, meshed, radial


def grid(ring: bool, guard: Guard | None = None) -> AcGrid:
    tables = (meshed if ring else radial)(90.0, 0.985, 1.05)
    network = build(tables)
    p, q = injections(tables, network)
    scale = np.array([[0.2], [1.2], [1.6]])
    return AcGrid(network, p * scale, q * scale, guard)


@pytest.mark.spec("GRID-05")
@settings(max_examples=25, deadline=None, derandomize=True)
@given(ring=st.booleans(), seed=st.integers(0, 2**32 - 1))
def test_a_row_is_the_limit_itself_where_it_was_made_and_its_tangent_beside(ring: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ac = grid(ring)
    shape = ac.p_mw.shape
    change_p, change_q = rng.uniform(-0.5, 0.5, shape), rng.uniform(-0.2, 0.2, shape)
    change_p[:, ac.network.slack] = change_q[:, ac.network.slack] = 0
    periods = np.arange(3)
    seen = ac.look(change_p, change_q, periods, RowKeys.none())
    rows = ac.rows(seen.state, periods, seen.broken, change_p, change_q)
    at = np.einsum("rn,rn->r", rows.dp, change_p[rows.period]) + np.einsum("rn,rn->r", rows.dq, change_q[rows.period])
    assert np.allclose(rows.room - at, ac.headroom(seen.state, periods, seen.broken), atol=1e-12)
    step = 1e-3 * rng.normal(size=shape)
    step[:, ac.network.slack] = 0
    beside = ac.look(change_p + step, change_q, periods, RowKeys.none()).state
    predicted = rows.room - at - np.einsum("rn,rn->r", rows.dp, step[rows.period])
    assert np.allclose(predicted, ac.headroom(beside, periods, seen.broken), atol=2e-6)


@pytest.mark.spec("GRID-05")
@pytest.mark.parametrize("ring", [False, True])
def test_looking_again_and_again_names_every_broken_limit_once(ring: bool) -> None:
    ac = grid(ring)
    nothing = np.zeros_like(ac.p_mw)
    periods = np.arange(3)
    known = RowKeys.none()
    while True:
        seen = ac.look(nothing, nothing, periods, known)
        if not len(seen.broken):
            break
        known = known.then(seen.broken)
    assert len(np.unique(known.code(ac.width))) == len(known)
    state = solve(ac.network, ac.p_mw, ac.q_mvar)
    network = ac.network
    low = (state.vm < network.v_min - 1e-7)[:, network.pq].sum()
    ends = (state.loading_from > 1 + 1e-7).sum() + (state.loading_to > 1 + 1e-7).sum()
    assert len(known) == low + ends and low and ends
    assert seen.excess > 0


@pytest.mark.spec("GRID-05")
def test_a_guard_takes_its_band_from_every_room() -> None:
    free, guarded = grid(False), grid(False, Guard(voltage_pu=0.001, loading_share=0.01))
    nothing = np.zeros_like(free.p_mw)
    seen = free.look(nothing, nothing, np.arange(3), RowKeys.none())
    keys = seen.broken
    difference = free.headroom(seen.state, np.arange(3), keys) - guarded.headroom(seen.state, np.arange(3), keys)
    is_current = np.array(
        [name.startswith("loading") for name in free.rows(seen.state, np.arange(3), keys, nothing, nothing).names]
    )
    assert np.allclose(difference, np.where(is_current, 0.01, 0.001))
