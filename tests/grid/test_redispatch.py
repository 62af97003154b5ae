"""A transmission operator's needs: sums, signs, causes, and capacity by the regulation's rules."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coflex.domain.errors import Refused
from coflex.domain.quantity import Floats
from coflex.grid.controllable import Controllables
from coflex.grid.dc import dc_flow
from coflex.grid.network import Network, build
from coflex.grid.redispatch import redispatch_offers, reserve_needs, tso_needs
from support.published_opf import published

BUSES = ("1", "3", "4", "5")


def grid() -> Network:
    return build(published("case5_pjm"))


def schedule(network: Network, short: float = 0.0) -> Floats:
    """The cheapest schedule by merit order, which knows no line: 600 MW at bus 5, 210 at 1, the rest at 3. In the
    second period `short` MW of it are missing at bus 3."""
    found = np.zeros((2, network.n))
    for bus, mw in (("1", 210.0), ("2", -300.0), ("3", 190.0 - 300.0), ("4", -400.0), ("5", 600.0)):
        found[:, network.node_of(bus)] = mw
    found[1, network.node_of("3")] -= short
    return found


def offers(network: Network, room: float = 400.0) -> Controllables:
    node = np.array([network.node_of(bus) for bus in BUSES])
    full = np.full((2, 4), room)
    return redispatch_offers(
        BUSES, node, full, full, np.array([5.0, 10.0, 8.0, 4.0]), np.array([30.0, 32.0, 41.0, 35.0])
    )


@pytest.mark.spec("GRID-13")
def test_a_balanced_schedule_needs_relief_alone_and_an_unbalanced_one_energy_too() -> None:
    network = grid()
    needs = tso_needs(network, schedule(network, 50.0), offers(network))
    assert needs.loading_before[:, 5].min() > 1.1 and needs.flow.loading.max() <= 1 + 1e-9
    assert not needs.balancing_mw[0].any()
    assert needs.balancing_mw.sum(axis=1) == pytest.approx([0.0, 50.0], abs=1e-6)
    assert needs.congestion_mw.sum(axis=1) == pytest.approx([0.0, 0.0], abs=1e-5)
    # The cheapest balance is at bus 1; what relieves 4-5 is more at 4 or 3 and less at 5.
    assert needs.balancing_mw[1, network.node_of("1")] == pytest.approx(50.0, abs=1e-6)
    assert (needs.congestion_mw[:, network.node_of("5")] < -1).all()
    assert (needs.congestion_mw > 1).any(axis=1).all()
    assert needs.balancing_eur_h == pytest.approx([0.0, 50.0 * 30.0], abs=1e-6)
    assert (needs.cost_eur_h > needs.balancing_eur_h).all()
    assert {name for _, name in needs.flow.binding} == {"loading 4-5"}


@pytest.mark.spec("GRID-13")
def test_needs_as_lines_add_up_to_the_tables() -> None:
    network = grid()
    needs = tso_needs(network, schedule(network, 50.0), offers(network))
    lines = list(needs.lines())
    for purpose, table in (("balancing", needs.balancing_mw), ("congestion", needs.congestion_mw)):
        for t in range(2):
            signed = sum(mw if way == "up" else -mw for at, _, what, way, mw in lines if at == t and what == purpose)
            assert signed == pytest.approx(table[t].sum(), abs=1e-6)
            assert all(mw > 0 for *_, mw in lines)


@pytest.mark.spec("GRID-13")
@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.floats(-80.0, 80.0), st.floats(150.0, 400.0))
def test_the_changed_schedule_balances_and_keeps_every_rating(short: float, room: float) -> None:
    network = grid()
    start = schedule(network, short)
    needs = tso_needs(network, start, offers(network, room))
    after = start + needs.balancing_mw + needs.congestion_mw + needs.uncovered_mw
    assert after.sum(axis=1) == pytest.approx([0.0, 0.0], abs=1e-5)
    flow = dc_flow(network)
    assert (np.abs(flow.powers(flow.angles(after))) <= network.rating_from * (1 + 1e-6)).all()


@pytest.mark.spec("GRID-13")
def test_what_no_offer_covers_is_told() -> None:
    network = grid()
    needs = tso_needs(network, schedule(network, 50.0), offers(network, 5.0))
    assert not needs.flow.feasible.any() and len(needs.flow.binding)
    assert np.abs(needs.uncovered_mw).sum(axis=1).min() > 1.0
    assert "uncovered" in {what for _, _, what, _, _ in needs.lines()}


@pytest.mark.spec("GRID-13")
def test_offers_that_cross_are_a_trade_and_refused() -> None:
    network = grid()
    node = np.array([network.node_of("1"), network.node_of("3")])
    room = np.ones((1, 2))
    with pytest.raises(Refused) as refused:
        redispatch_offers(("a", "b"), node, room, -room, np.array([5.0, 40.0]), np.array([30.0, 50.0]))
    assert {finding.code for finding in refused.value.findings} == {"crossed_offers", "impossible_value"}


@pytest.mark.spec("GRID-13")
def test_reserve_covers_the_incident_and_the_record() -> None:
    record = np.concatenate([np.linspace(-200.0, 0.0, 101), np.linspace(0.0, 100.0, 101)[1:]])
    needs = reserve_needs(record, largest_loss_mw=150.0, largest_gain_mw=120.0)
    assert (needs.frr_up, needs.frr_down) == (150.0, 120.0)
    up, down = needs.frr_up + needs.rr_up, needs.frr_down + needs.rr_down
    assert (record >= -up).mean() >= 0.99 > (record >= -(up - 3.0)).mean()
    assert needs.rr_down == 0.0 and (record <= down).all()
    more = reserve_needs(record, 0.0, 0.0, covered=1.0)
    assert (more.rr_up, more.rr_down) == (200.0, 100.0)


@pytest.mark.spec("GRID-13")
def test_a_reserve_without_a_record_is_refused() -> None:
    for record, loss, share in ((np.zeros(0), 1.0, 0.99), (np.zeros(3), -1.0, 0.99), (np.zeros(3), 1.0, 1.5)):
        with pytest.raises(Refused):
            reserve_needs(record, loss, 0.0, share)
