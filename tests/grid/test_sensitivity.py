"""Sensitivities against central finite differences of the power flow itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coflex.adapters.grids.simbench import SimbenchGrid
from coflex.domain.quantity import Floats
from coflex.grid.injection import element_powers, node_injections
from coflex.grid.network import Network, build
from coflex.grid.powerflow import GridState, solve
from coflex.grid.sensitivity import FROM_END, INTERFACE, TO_END, VOLTAGE, Linearisation, Quantities
from support.small_grids import meshed, radial, solved

# Step of 0.1 kW. A current of share c bends with third derivative near a^3 / c^2 (a: its sensitivity, below 0.5), so
# from c = 1 % on the truncation h^2 a^3 / (6 c^2) stays below 1e-6 and mostly far below; the power flow's own error
# (quadratic convergence ends near 1e-12) over 2 h adds 1e-8 to 1e-7.
STEP = 0.0001
CLOSE = 1e-6


def everything(network: Network, period: int) -> Quantities:
    kinds = [VOLTAGE] * (network.n - 1) + [FROM_END] * network.m + [TO_END] * network.m + [INTERFACE]
    index = np.concatenate([network.pq, np.arange(network.m), np.arange(network.m), [0]])
    return Quantities(np.full(len(kinds), period), np.array(kinds), index)


def values(state: GridState, network: Network) -> Floats:
    return np.concatenate(
        [state.vm[0, network.pq], state.loading_from[0], state.loading_to[0], state.interface_p_mw[:1]]
    )


def difference(network: Network, state: GridState, t: int, node: int, reactive: bool) -> Floats:
    """Central difference by the power flow, per MW or Mvar at one node."""
    found = []
    for sign in (1, -1):
        p, q = state.p_mw[[t]].copy(), state.q_mvar[[t]].copy()
        (q if reactive else p)[0, node] += sign * STEP
        found.append(values(solve(network, p, q), network))
    return (found[0] - found[1]) / (2 * STEP)


def agree(network: Network, state: GridState, t: int, nodes: Any) -> None:
    wanted = everything(network, t)
    dp, dq = Linearisation(network, state.u).sensitivities(wanted)
    current = values(state.part(np.array([t])), network)
    smooth = (current > 0.01) | (wanted.kind == VOLTAGE) | (wanted.kind == INTERFACE)
    assert smooth.sum() > network.n
    for node in nodes:
        for reactive, exact in ((False, dp), (True, dq)):
            measured = difference(network, state, t, node, reactive)
            assert np.abs(exact[:, node] - measured)[smooth].max() < CLOSE


@pytest.mark.spec("GRID-05")
@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    ring=st.booleans(),
    load=st.floats(0.0, 2.0),
    generation=st.floats(0.0, 4.0),
    node=st.integers(1, 8),
)
def test_every_quantity_follows_an_injection_as_the_power_flow_says(
    ring: bool, load: float, generation: float, node: int
) -> None:
    network, state = solved(meshed() if ring else radial(), load, generation)
    agree(network, state, 0, [node])


@pytest.mark.spec("GRID-05")
def test_on_a_real_grid_too_at_several_periods_in_one_linearisation(urban: SimbenchGrid) -> None:
    network = build(urban.grid)
    p, q = (node_injections(network, x)[[1_560, 17_760]] for x in element_powers(urban.grid, urban.profiles))
    state = solve(network, p, q)
    nodes = np.random.default_rng(4).choice(network.pq, 3, replace=False)
    for t in range(2):
        agree(network, state, t, nodes)


@pytest.mark.spec("GRID-05")
def test_an_injection_at_the_source_changes_nothing_inside() -> None:
    network, state = solved(radial())
    dp, dq = Linearisation(network, state.u).sensitivities(everything(network, 0))
    assert not dp[:, network.slack].any() and not dq[:, network.slack].any()


@pytest.mark.spec("GRID-06")
@pytest.mark.parametrize("angle", [0.0, 0.7, 2.0, 4.0])
def test_a_current_in_one_direction_of_the_plane_follows_an_injection_too(angle: float) -> None:
    network, state = solved(meshed())
    turn = np.exp(1j * angle)
    ends = zip((FROM_END, TO_END), network.terminal_admittance, (network.rating_from, network.rating_to), strict=True)
    for kind, admittance, rating in ends:
        wanted = Quantities(
            np.zeros(network.m, dtype=np.int64),
            np.full(network.m, kind),
            np.arange(network.m),
            np.full(network.m, turn),
        )
        dp, dq = Linearisation(network, state.u).sensitivities(wanted)
        for exact, reactive in ((dp, False), (dq, True)):
            found = []
            for sign in (1, -1):
                p, q = state.p_mw.copy(), state.q_mvar.copy()
                (q if reactive else p)[0, 4] += sign * STEP
                found.append((np.conj(turn) * (admittance @ solve(network, p, q).u[0])).real / rating)
            assert np.abs(exact[:, 4] - (found[0] - found[1]) / (2 * STEP)).max() < CLOSE


@pytest.mark.spec("GRID-05")
def test_of_one_more_megawatt_the_interface_gives_one_less_and_the_losses() -> None:
    network, state = solved(radial(), load=1.5, generation=0.0)
    wanted = Quantities(np.zeros(1, dtype=np.int64), np.array([INTERFACE]), np.zeros(1, dtype=np.int64))
    dp, _ = Linearisation(network, state.u).sensitivities(wanted)
    # Feeders that import lose less when a node injects: the interface falls by more than the injection.
    assert (dp[0, network.pq] < -1.0).all() and (dp[0, network.pq] > -1.1).all()
