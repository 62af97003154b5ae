"""Nodal prices against finite differences of the optimal cost, Ipopt's multipliers, published prices and a session."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coflex.domain.quantity import Floats
from coflex.grid.controllable import Controllables, interface
from coflex.grid.dispatch import Dispatched, dispatch
from coflex.grid.network import build
from coflex.grid.nodal import NodalPrices, cleared_prices, prices
from coflex.grid.opf import called, given, optimal_flow
from coflex.grid.powerflow import solve
from coflex.grid.rows import AcGrid
from support.books import UP, book, cleared, offer, places_of
from support.dispatches import Problem, problem
from support.ipopt_dispatch import ipopt_dispatch
from support.published_opf import published
from support.small_grids import radial, solved

NAMES = ("calm", "import", "export", "ring")
STEP = 1e-3


def exchanged(of: Problem) -> Controllables:
    """The problem's controllables with an interface that charges reactive power too and takes only so much of it."""
    priced = interface(of.network, of.price, np.full(len(of.price), 3.0))
    return of.units.then(replace(priced, q_max=np.full((len(of.price), 1), 1.2)))


def solve_all(of: Problem, chosen: Controllables) -> tuple[Dispatched, NodalPrices]:
    answer = dispatch(of.network, of.p_mw, of.q_mvar, chosen)
    assert answer.feasible.all()
    return answer, prices(of.network, answer)


def difference(of: Problem, chosen: Controllables, node: int, reactive: bool) -> Floats:
    """Central difference (t,) of the optimal cost by what is withdrawn at a node, per MW or Mvar."""
    found = []
    for sign in (1, -1):
        p, q = of.p_mw.copy(), of.q_mvar.copy()
        (q if reactive else p)[:, node] -= sign * STEP
        found.append(dispatch(of.network, p, q, chosen).cost_eur_h)
    return (found[0] - found[1]) / (2 * STEP)


@pytest.mark.spec("MKT-06")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("charged", [False, True])
def test_a_price_is_the_change_of_cost_when_more_is_withdrawn(name: str, charged: bool) -> None:
    of = problem(name)
    chosen = exchanged(of) if charged else of.chosen
    _, found = solve_all(of, chosen)
    for bus in ("H", "A4", "B2"):
        node = of.network.node_of(bus)
        assert found.real.total[:, node] == pytest.approx(difference(of, chosen, node, False), abs=0.01)
        assert found.reactive.total[:, node] == pytest.approx(difference(of, chosen, node, True), abs=0.01)


@pytest.mark.spec("MKT-06")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("charged", [False, True])
def test_ipopt_has_the_same_multiplier_at_every_node(name: str, charged: bool) -> None:
    of = problem(name)
    chosen = exchanged(of) if charged else of.chosen
    answer, found = solve_all(of, chosen)
    for t in range(len(of.price)):
        other = ipopt_dispatch(of.network, of.injection[t], chosen.periods(np.array([t])), answer.state.u[t])
        assert other.solved
        assert np.abs(found.real.total[t] - other.price.real).max() < 1e-3
        assert np.abs(found.reactive.total[t] - other.price.imag).max() < 1e-3


@pytest.mark.spec("MKT-06")
def test_each_part_is_there_when_its_cause_is_and_else_zero() -> None:
    at = {name: solve_all(problem(name), problem(name).chosen) for name in NAMES}
    for name, (answer, found) in at.items():
        kinds = {limit.split()[0] for limit in answer.limit_names}
        assert np.abs(found.real.congestion).max() > 1.0 if "loading" in kinds else not found.real.congestion.any()
        volts = {"voltage_low", "voltage_high"} & kinds
        assert np.abs(found.real.voltage).max() > 0.1 if volts else not found.real.voltage.any()
        assert np.abs(found.real.exchange).max() < 1e-9, name
    assert at["import"][1].real.voltage.max() > 0 > at["export"][1].real.voltage.min()
    charged, found = solve_all(problem("calm"), exchanged(problem("calm")))
    assert np.abs(found.reactive.exchange).max() > 0.01 and charged.feasible.all()


@pytest.mark.spec("MKT-06")
def test_losses_alone_make_the_price_where_nothing_binds() -> None:
    of = problem("calm")
    _, found = solve_all(of, of.chosen)
    node = of.network.node_of("A4")
    lost = []
    answer = dispatch(of.network, of.p_mw, of.q_mvar, of.chosen)
    for sign in (1, -1):
        p = answer.state.p_mw.copy()
        p[0, node] -= sign * STEP
        lost.append(solve(of.network, p, answer.state.q_mvar).losses_mw[0])
    marginal = (lost[0] - lost[1]) / (2 * STEP)
    assert found.real.loss[0, node] == pytest.approx(of.price[0] * marginal, abs=1e-4)
    assert (found.real.energy == of.price[:, None]).all() or np.allclose(
        found.real.energy, of.price[:, None], atol=1e-6
    )


@pytest.mark.spec("MKT-06")
def test_prices_with_voltages_to_choose_are_those_that_were_published() -> None:
    # B. C. Lesieutre et al., Allerton (2011), doi:10.1109/Allerton.2011.6120344, table of its three-bus case.
    flow = optimal_flow(published("case3_lmbd"), "ac")
    assert flow.price[0] == pytest.approx([37.575, 30.101, 45.537], abs=1.1e-3)
    assert flow.reactive_price[0] == pytest.approx([0.0, 0.0, 0.0], abs=1e-6)


@pytest.mark.spec("MKT-06")
@pytest.mark.parametrize("case", ["case5_pjm", "case14_ieee"])
def test_ipopt_has_the_same_multipliers_on_transmission_cases(case: str) -> None:
    tables = published(case)
    network = build(tables)
    chosen, _ = called(tables, network)
    injection = given(tables, network)
    answer = dispatch(network, injection.real, injection.imag, chosen, voltages=True, apparent=True)
    found = prices(network, answer)
    other = ipopt_dispatch(network, injection[0], chosen, answer.state.u[0], voltages=True, apparent=True)
    assert other.solved and answer.cost_eur_h[0] == pytest.approx(other.cost, rel=1e-7)
    assert np.abs(found.real.total[0] - other.price.real).max() < 1e-3
    assert np.abs(found.reactive.total[0] - other.price.imag).max() < 1e-3


@pytest.mark.spec("MKT-06")
def test_a_session_s_rows_and_prices_split_as_the_dispatch_itself() -> None:
    of = problem("import")
    answer, found = solve_all(of, of.chosen)
    grid = AcGrid(of.network, answer.state.p_mw, answer.state.q_mvar)
    nothing = np.zeros_like(of.p_mw)
    rows = grid.rows(answer.state, np.arange(len(of.price)), answer.limits, nothing, nothing)
    split = cleared_prices(of.network, rows, answer.limit_price, of.price, answer.state)
    for mine, theirs in ((split.real, found.real), (split.reactive, found.reactive)):
        for part in ("energy", "loss", "congestion", "voltage", "exchange"):
            assert getattr(mine, part) == pytest.approx(getattr(theirs, part), abs=1e-6), part


@pytest.mark.spec("MKT-06")
def test_in_a_cleared_session_a_bus_is_worth_what_its_block_was() -> None:
    network, state = solved(radial(i_max_a=98.0, v_min=0.9), load=1.3)
    grid = AcGrid(network, state.p_mw, state.q_mvar)
    names = ("A2", "A3", "B3")
    b = book([offer(i + 1, u, UP, (str(30 + i), [1500])) for i, u in enumerate(names)], 1, places_of(network))
    answer = cleared(b, None, grid)
    assert answer.rows is not None and answer.row_price.any() and not answer.short.any()
    split = cleared_prices(network, answer.rows, answer.row_price, np.array([60.0]), state)
    worth = (split.real.congestion + split.real.voltage)[0, b.node]
    assert worth == pytest.approx(answer.grid_worth, abs=1e-6)
    assert (split.real.energy == 60.0).all()


@pytest.mark.spec("MKT-06")
def test_a_row_without_its_kind_of_limit_is_no_row_of_ours() -> None:
    of = problem("import")
    answer, _ = solve_all(of, of.chosen)
    grid = AcGrid(of.network, answer.state.p_mw, answer.state.q_mvar)
    nothing = np.zeros_like(of.p_mw)
    rows = grid.rows(answer.state, np.arange(len(of.price)), answer.limits, nothing, nothing)
    with pytest.raises(ValueError, match="'flow"):
        strange = replace(rows, names=("flow A",) * len(rows))
        cleared_prices(of.network, strange, answer.limit_price, of.price, answer.state)
