"""The same book on every grid model, measured by pandapower: what each would have cost and broken."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coflex.grid.means import OperatedGrid, Operation
from coflex.grid.network import build, moved
from coflex.grid.rows import AcGrid, Guard
from coflex.grid.tables import Branch, Bus, GridTables, Source
from coflex.market.book import OrderBook
from coflex.market.clearing import injections
from coflex.market.comparison import ModelOutcome, clear_on, compare
from coflex.market.design import DistributionGrid
from coflex.market.model import Demand
from support import second_engine
from support.books import DOWN, UP, book, offer, places_of
from support.small_grids import injections as node_injections
from support.small_grids import meshed, radial

NONE, CAPABILITY, LINEAR, CONIC, DC, AC = DistributionGrid
EVERY = (NONE, LINEAR, CONIC, DC)
CONGESTED = (("A2", UP, "31.00", 1500), ("A3", UP, "29.90", 700), ("B3", UP, "40.00", 1500))
EXPORT = (("A3", DOWN, "40.00", 5000), ("B2", DOWN, "50.00", 6000), ("A4", DOWN, "30.00", 1000))


def market(tables: GridTables, sold: tuple, load: float, pv: float = 1.0) -> tuple[AcGrid, OrderBook]:
    network = build(tables)
    p, q = node_injections(tables, network, load, pv)
    offers = [offer(i + 1, bus, way, (price, [kw])) for i, (bus, way, price, kw) in enumerate(sold)]
    return AcGrid(network, p, q), book(offers, 1, places_of(network, 0.2))


def outcomes(
    grid: AcGrid, b: OrderBook, models: tuple[DistributionGrid, ...] = EVERY, chosen: DistributionGrid = AC
) -> dict[str, ModelOutcome]:
    everything = np.ones(len(b), dtype=np.bool_)
    answer = clear_on(chosen, b, everything, Demand.none(), grid)
    found = compare(models, chosen, answer, b, everything, Demand.none(), grid)
    assert [one.chosen for one in found] == [True] + [False] * (len(found) - 1)
    return {one.model: one for one in found}


@pytest.mark.spec("MKT-01", "GRID-03")
def test_on_a_congested_feeder_only_models_with_losses_keep_every_limit() -> None:
    tables = radial(i_max_a=98.0, v_min=0.9)
    grid, b = market(tables, CONGESTED, 1.3)
    found = outcomes(grid, b)
    assert list(found) == ["ac", "none", "linear", "conic", "dc"]
    ac, none, linear, conic, dc = (found[name] for name in ("ac", "none", "linear", "conic", "dc"))
    assert (ac.violated, ac.worst_loading_share, ac.uncovered) == (0, 0.0, 0)
    assert ac.remark.startswith("certified: within 0.")
    assert (none.cost_eur, none.bought_mwh) == (0.0, 0.0) and none.violated
    # Flows without losses need less relief than there are: cheaper, and still over the limit.
    assert linear.violated and linear.cost_eur is not None and ac.cost_eur is not None
    assert 0 < linear.cost_eur < 0.97 * ac.cost_eur
    assert none.worst_loading_share is not None and linear.worst_loading_share is not None
    assert 0.005 < linear.worst_loading_share < none.worst_loading_share
    # Real power alone does not see what reactive power loads.
    assert dc.worst_loading_share is not None and dc.worst_loading_share > linear.worst_loading_share
    assert conic.cost_eur == pytest.approx(ac.cost_eur, abs=0.1)
    assert conic.worst_loading_share is not None and conic.worst_loading_share < 1e-4


@pytest.mark.spec("MKT-01")
def test_with_export_the_linear_model_is_dear_and_the_relaxation_breaks_what_it_claims_to_keep() -> None:
    found = outcomes(*market(radial(v_max=1.025), EXPORT, 0.1, 6.0))
    ac, linear, conic = found["ac"], found["linear"], found["conic"]
    assert ac.violated == 0 and ac.remark.startswith("no certificate: the relaxation invents losses at")
    assert linear.violated == 0 and linear.cost_eur is not None and ac.cost_eur is not None
    assert linear.cost_eur > 1.1 * ac.cost_eur
    assert conic.cost_eur is not None and conic.cost_eur < 0.5 * ac.cost_eur
    assert conic.violated and conic.uncovered == 0 and (conic.worst_voltage_pu or 0) > 1e-3
    assert found["dc"].cost_eur == 0.0 and found["dc"].violated == found["none"].violated


@pytest.mark.spec("GRID-03")
@pytest.mark.parametrize("model", [NONE, LINEAR, CONIC, DC, AC])
def test_pandapower_counts_the_same_violations(model: DistributionGrid) -> None:
    tables = radial(i_max_a=98.0, v_min=0.985)
    grid, b = market(tables, CONGESTED, 1.3)
    network = grid.network
    answer = clear_on(model, b, np.ones(3, dtype=np.bool_), Demand.none(), grid)
    (mine,) = compare((), model, answer, b, np.ones(3, dtype=np.bool_), Demand.none(), grid)
    dp, dq = injections(b, answer.award_kw / 1000, network.n)
    net = second_engine.run(second_engine.pandapower_net(tables), network, (grid.p_mw + dp)[0], (grid.q_mvar + dq)[0])
    # Two buses behind one closed switch are one node here and two there.
    vm = net.res_bus.vm_pu[~net.bus.name.isin(["H", "M1"])]
    low = 0.985 - vm[vm < 0.985 - 1e-6]
    loading = np.concatenate([net.res_line.loading_percent, net.res_trafo.loading_percent]) / 100
    over = loading[np.nan_to_num(loading) > 1 + 1e-6] - 1
    assert mine.violated == len(low) + len(over)
    assert mine.worst_voltage_pu == pytest.approx(low.max() if len(low) else 0.0, abs=1e-6)
    assert mine.worst_loading_share == pytest.approx(over.max() if len(over) else 0.0, abs=1e-5)
    assert mine.cost_eur == pytest.approx(float(b.price @ answer.award_kw) / 4000, abs=1e-6)


@pytest.mark.spec("MKT-01")
def test_a_model_that_cannot_stand_for_the_grid_is_told_with_its_reason() -> None:
    found = outcomes(*market(meshed(i_max_a=98.0, v_min=0.9), CONGESTED, 1.5))
    assert found["conic"].cost_eur is None and "radial" in found["conic"].remark
    assert found["ac"].remark.startswith("no certificate: The conic model needs a radial grid")
    assert found["linear"].cost_eur is not None and found["linear"].violated is not None


def test_a_chosen_model_is_not_compared_with_itself_and_only_an_ac_answer_is_certified() -> None:
    grid, b = market(radial(i_max_a=98.0, v_min=0.9), CONGESTED, 1.3)
    found = outcomes(grid, b, (LINEAR, CONIC), LINEAR)
    assert list(found) == ["linear", "conic"]
    assert found["linear"].remark == "" and found["linear"].violated


def test_margins_are_kept_by_the_models_and_left_out_of_the_measure() -> None:
    grid, b = market(radial(i_max_a=98.0, v_min=0.9), CONGESTED, 1.3)
    wide = outcomes(grid.with_guard(Guard(loading_share=0.05)), b, (LINEAR,))
    assert wide["linear"].violated == 0
    assert (wide["linear"].cost_eur or 0) > (outcomes(grid, b, (LINEAR,))["linear"].cost_eur or 0)


# ---- the five-bus system of PJM -------------------------------------------------------------------------------------


@pytest.mark.spec("GRID-13", "MKT-01")
def test_a_market_on_the_dc_model_has_the_published_cost_and_prices() -> None:
    reactance = {"1-2": 0.0281, "1-4": 0.0304, "1-5": 0.0064, "2-3": 0.0108, "3-4": 0.0297, "4-5": 0.0297}
    rating = {"1-2": 400.0, "4-5": 240.0}
    tables = GridTables(
        buses=tuple(Bus(name, 230.0, 0.9, 1.1, 0.0, 0.0, name) for name in "12345"),
        lines=(),
        transformers=(),
        switches=(),
        sources=(Source("above", "4", 1.0),),
        loads=(),
        generators=(),
        storages=(),
        branches=tuple(
            Branch(name, name[0], name[2], 0.0, x, 0.0, 0.0, 1.0, 0.0, 100.0, rating.get(name, 426.0), 100.0)
            for name, x in reactance.items()
        ),
    )
    network = build(tables)
    p = np.zeros((1, network.n))
    for bus, mw in (("2", 300.0), ("3", 300.0), ("4", 400.0)):
        p[0, network.node_of(bus)] = -mw
    # The last offer is never bought; it shows the price at the bus without a generator.
    units = (("1", "14.00", 40), ("1", "15.00", 170), ("3", "30.00", 520), ("4", "40.00", 200), ("5", "10.00", 600))
    units += (("2", "900.00", 10),)
    offers = [offer(i + 1, f"u{i}", UP, (price, [mw * 1000])) for i, (_, price, mw) in enumerate(units)]
    places = places_of(network)
    b = book(offers, 1, {f"u{i}": places[bus] for i, (bus, *_) in enumerate(units)})
    # One market for the balance of the system: 1,000 MW net.
    balance = Demand(
        np.ones(1, dtype=np.int64), np.zeros(1, dtype=np.int64), np.array([1000.0]), np.full(1, np.inf), True
    )
    answer = clear_on(DC, b, np.ones(len(b), dtype=np.bool_), balance, AcGrid(network, p, 0 * p))
    cost = float(b.price @ answer.award_kw) / 1000
    assert cost == pytest.approx(17480, rel=5e-4)
    worth = {network.node_names[n]: w for n, w in zip(b.node, answer.worth, strict=True)}
    assert worth["1"] == pytest.approx(16.977, abs=1e-3)
    assert worth["2"] == pytest.approx(26.384, abs=1e-3)
    assert worth["3"] == pytest.approx(30.0, abs=1e-3)
    assert worth["4"] == pytest.approx(39.943, abs=1e-3)
    assert worth["5"] == pytest.approx(10.0, abs=1e-3)


# ---- a grid whose taps move over the day ----------------------------------------------------------------------------


@pytest.mark.spec("GRID-04", "MKT-01")
@pytest.mark.parametrize("model", [LINEAR, CONIC, AC])
def test_each_quarter_hour_is_cleared_and_measured_on_its_own_network(model: DistributionGrid) -> None:
    tables = radial(i_max_a=98.0, v_min=0.97)
    raised = replace(tables, transformers=tuple(replace(row, tap_pos=-1) for row in tables.transformers))
    normal = build(tables)
    networks = normal, moved(normal, raised)
    p, q = node_injections(tables, normal, 1.3)
    offers = [offer(i + 1, bus, way, (price, [kw, kw])) for i, (bus, way, price, kw) in enumerate(CONGESTED)]
    b, everything = book(offers, 2, places_of(normal, 0.2)), np.ones(6, dtype=np.bool_)
    twice = np.repeat(p, 2, axis=0), np.repeat(q, 2, axis=0)
    grid = OperatedGrid(Operation(networks, np.array([0, 1])), *twice, Guard())
    together = clear_on(model, b, everything, Demand.none(), grid)
    for t, network in enumerate(networks):
        one = book(
            [replace(o, steps=(replace(o.steps[0], quantity_kw=o.steps[0].quantity_kw[:1]),)) for o in offers],
            1,
            places_of(network, 0.2),
        )
        alone = clear_on(model, one, np.ones(3, dtype=np.bool_), Demand.none(), AcGrid(network, p, q))
        assert np.abs(together.award_kw[b.period == t] - alone.award_kw).max() <= 1
    assert together.award_kw[b.period == 0].sum() > together.award_kw[b.period == 1].sum() > 0
    found = {
        one.model: one
        for one in compare(
            (CONIC,), AC, clear_on(AC, b, everything, Demand.none(), grid), b, everything, Demand.none(), grid
        )
    }
    assert found["ac"].violated == 0 and found["ac"].remark.startswith("certified")
    assert found["conic"].cost_eur == pytest.approx(found["ac"].cost_eur, abs=0.2)
