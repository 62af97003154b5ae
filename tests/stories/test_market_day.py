"""One market day on a real medium-voltage grid, from registered units to paid statements."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from coflex.adapters.grids.simbench import SimbenchGrid
from coflex.adapters.store.memory import MemoryStore
from coflex.domain.activation import Limitation, Replacement, SetPoint
from coflex.domain.clearing import Award, Holding, MeritLine, Reason, Status, Uncovered
from coflex.domain.light import Colour, DynamicLight
from coflex.domain.need import LocalNeed, Request
from coflex.domain.quantity import Direction
from coflex.domain.statement import Cause, Posting, Statement
from coflex.domain.unit import Scope, Technology
from coflex.process.day import Day
from coflex.process.lookups import planned_holdings
from coflex.process.measure import grid_states
from coflex.process.ports import CaseSettings, DeviceSettings, Transaction, TsoSettings
from coflex.simulation.cases import draw_case
from support.days import settled_day
from support.simbench_grids import net_of

GRID = "1-MV-urban--0-sw"
SETTINGS = CaseSettings(
    id="urban",
    title="A summer day in town",
    grid=GRID,
    day=date(2016, 7, 5),
    zone="Europe/Berlin",
    seed=2,
    design="beflexible_six",
    load_scale=8.0,
    pv_scale=36.0,
    tso=TsoSettings(up_mw=10.0, down_mw=10.0, price_limit_eur_mwh=Decimal(300)),
    devices=DeviceSettings(failure_share=0.04, noise_share=0.0),
)


@pytest.fixture(scope="module")
def past(urban: SimbenchGrid) -> tuple[Day, MemoryStore]:
    case = draw_case(urban.grid, urban.profiles, SETTINGS)
    day, store, _ = settled_day(case)
    assert isinstance(store, MemoryStore)
    return day, store


@pytest.fixture
def day(past: tuple[Day, MemoryStore]) -> Day:
    return past[0]


@pytest.fixture
def t(past: tuple[Day, MemoryStore]) -> Iterator[Transaction]:
    with past[1].transaction() as transaction:
        yield transaction


def violations(t: Transaction, state: str) -> list[dict]:
    document = t.document(f"violations/{state}")
    assert document is not None
    return document["violations"]


@pytest.mark.spec("GRID-03")
def test_the_untouched_day_has_congestions_and_voltage_violations_at_several_hours(t: Transaction) -> None:
    hours = {
        kind: {row["start"][:13] for row in violations(t, "untouched") if row["kind"].startswith(kind)}
        for kind in ("loading", "voltage")
    }
    assert len(hours["loading"]) >= 5
    assert len(hours["voltage"]) >= 3
    assert violations(t, "forecast")


@pytest.mark.spec("MKT-06", "MKT-10")
def test_a_second_engine_finds_no_violation_in_what_the_definitive_schedules_plan(
    day: Day, t: Transaction, grids: Path
) -> None:
    import pandapower as pp

    assert not violations(t, "planned")
    planned = grid_states(day, t, np.zeros((len(day.units), len(day.case.axis))))["planned"]
    net = net_of(GRID, grids)
    slack = net.bus.name[net.ext_grid.bus.iloc[0]]
    net.load.drop(net.load.index, inplace=True)
    net.sgen.drop(net.sgen.index, inplace=True)
    first = {int(node): bus for bus, node in reversed(list(enumerate(day.network.node_of_bus)))}
    of_name = {name: index for index, name in net.bus.name.items()}
    loads = [pp.create_load(net, of_name[day.network.bus_names[first[n]]], 0.0) for n in range(day.network.n)]
    watched = net.bus.name != slack
    for period in range(len(day.case.axis)):
        net.load.loc[loads, "p_mw"] = -planned.p_mw[period]
        net.load.loc[loads, "q_mvar"] = -planned.q_mvar[period]
        pp.runpp(net, trafo_model="pi", tolerance_mva=1e-9, init="auto" if period == 0 else "results", numba=False)
        vm = net.res_bus.vm_pu[watched]
        assert (vm - net.bus.max_vm_pu[watched]).max() <= 1e-6
        assert (net.bus.min_vm_pu[watched] - vm).max() <= 1e-6
        assert (net.res_line.loading_percent - net.line.max_loading_percent).max() <= 1e-4
        assert (net.res_trafo.loading_percent - net.trafo.max_loading_percent).max() <= 1e-4


@pytest.mark.spec("REG-02", "REG-05")
def test_twelve_providers_and_three_hundred_units_of_mixed_technology_take_part(day: Day) -> None:
    inside = [unit for unit in day.units if unit.element]
    assert len({unit.provider for unit in inside}) >= 12
    assert len(inside) >= 300
    assert {unit.technology for unit in inside} >= {Technology.PV, Technology.BATTERY, Technology.HEAT_PUMP}
    by_scope = {scope: {unit for group in day.groups(scope) for unit in group.units} for scope in Scope}
    assert by_scope[Scope.LOCAL] & by_scope[Scope.GLOBAL]


@pytest.mark.spec("GRID-05")
def test_every_foreseen_violation_has_a_need_with_a_direction_a_volume_and_units_that_act(t: Transaction) -> None:
    needs = [need for need in t.all(LocalNeed) if need.session == "local-1"]
    assert needs
    for need in needs:
        assert need.volume_kw > 0
        assert need.acting
        assert all(one.effect_per_kw > 0 for one in need.acting)


@pytest.mark.spec("MKT-09")
def test_what_was_awarded_is_held_once_unit_by_unit_and_adds_up(day: Day, t: Transaction) -> None:
    held: Counter = Counter()
    for holding in planned_holdings(t):
        held[(holding.session, holding.start, holding.direction)] += holding.quantity_kw
    awarded: Counter = Counter()
    for award in t.all(Award, status=Status.DEFINITIVE):
        awarded[(award.session, award.start, award.direction)] += award.quantity_kw
    assert held == awarded
    holdings = t.all(Holding)
    assert len({(h.unit, h.start) for h in holdings}) == len(holdings)
    assert {h.buyer for h in holdings} == {"dso", "tso"}


@pytest.mark.spec("GRID-06")
def test_a_local_activation_turns_the_opposite_light_red_and_no_global_award_exceeds_its_light(
    day: Day, t: Transaction
) -> None:
    local = {
        (day.unit_perimeter[day.unit_index[h.unit]], h.direction.opposite, h.start)
        for h in t.all(Holding, buyer="dso")
        if h.status is Status.DEFINITIVE
    }
    firm = {plan.id: plan.firm for plan in day.plans}
    lights = {(x.perimeter, x.direction, x.start): x for x in t.all(DynamicLight) if firm[x.session].covers(x.start)}
    assert local
    assert all(lights[key].colour is Colour.RED and lights[key].capability_kw == 0 for key in local)
    used: Counter = Counter()
    for holding in planned_holdings(t):
        perimeter = day.unit_perimeter[day.unit_index[holding.unit]]
        if holding.buyer == "tso" and perimeter:
            used[(perimeter, holding.direction, holding.start)] += holding.quantity_kw
    assert used
    assert all(kw <= lights[key].capability_kw for key, kw in used.items())
    assert {light.colour for light in lights.values()} == set(Colour)


@pytest.mark.spec("MKT-05")
def test_every_skipped_line_of_a_merit_order_list_says_why_and_accepted_lines_are_the_awards(t: Transaction) -> None:
    lines = t.all(MeritLine)
    skipped = [line for line in lines if line.accepted_kw < line.offered_kw]
    assert skipped
    assert all(line.reason is not Reason.ACCEPTED and line.detail for line in skipped)
    for line in lines[:2000]:
        assert line.reason is not Reason.ACCEPTED or line.accepted_kw == line.offered_kw
    ranks: dict = {}
    for line in sorted(lines, key=lambda x: (x.session, x.start, x.direction, x.rank)):
        key = line.session, line.start, line.direction
        assert line.price_eur_mwh >= ranks.get(key, Decimal(-1000))
        ranks[key] = line.price_eur_mwh
    accepted = sum(line.accepted_kw for line in lines if line.status is Status.DEFINITIVE)
    assert accepted == sum(award.quantity_kw for award in t.all(Award, status=Status.DEFINITIVE))


@pytest.mark.spec("MKT-04", "MKT-11")
def test_the_system_operator_buys_what_it_asks_net_of_what_local_activations_moved(day: Day, t: Transaction) -> None:
    requests = t.all(Request)
    assert any(r.netted_kw < 0 for r in requests)
    assert any(r.netted_kw > 0 for r in requests)
    bought: Counter = Counter()
    for award in t.all(Award, buyer="tso", status=Status.DEFINITIVE):
        bought[(award.start, award.direction)] += award.quantity_kw
    firm = {plan.id: plan.firm for plan in day.plans}
    short = {(u.start, u.what) for u in t.all(Uncovered)}
    for request in requests:
        key = request.start, request.direction
        if firm[request.session].covers(request.start) and (request.start, f"request {request.direction}") not in short:
            assert abs(bought[key] - request.quantity_kw) <= 2


@pytest.mark.spec("ACT-01", "ACT-03")
def test_the_operator_limits_orders_that_harm_its_grid_and_the_day_ends_with_fewer_violations(t: Transaction) -> None:
    limits = t.all(Limitation)
    assert limits
    points = {(p.unit, p.start): p for p in t.all(SetPoint)}
    for limit in limits:
        point = points[(limit.unit, limit.start)]
        assert limit.to_kw == point.ordered_kw < point.awarded_kw == limit.from_kw
    for point in points.values():
        sign = 1 if point.direction is Direction.UP else -1
        assert point.power_kw == pytest.approx(point.baseline_kw + sign * point.ordered_kw, abs=1e-6)
    assert len(violations(t, "actual")) < len(violations(t, "untouched")) / 2


@pytest.mark.spec("ACT-03")
def test_what_the_operator_takes_from_the_system_operator_is_called_elsewhere_at_the_next_price_of_the_list(
    day: Day, t: Transaction
) -> None:
    lost: Counter = Counter()
    for limit in t.all(Limitation, buyer="tso"):
        lost[limit.start] += limit.from_kw - limit.to_kw
    called: Counter = Counter()
    lines = {(x.session, x.offer, x.step, x.start): x for x in t.all(MeritLine)}
    points = {(p.unit, p.start): p for p in t.all(SetPoint)}
    for one in t.all(Replacement):
        called[one.start] += one.quantity_kw
        assert one.price_eur_mwh == lines[(one.session, one.offer, one.step, one.start)].price_eur_mwh
        assert points[(one.unit, one.start)].ordered_kw == one.quantity_kw
    assert called
    assert all(0 < called[start] <= lost[start] for start in called)


@pytest.mark.spec("SET-06", "SET-03")
def test_paid_is_received_plus_fees_to_the_cent(t: Transaction) -> None:
    postings = t.all(Posting)
    assert sum(p.cents for p in postings) == 0
    booked: Counter = Counter()
    for posting in postings:
        booked[posting.booking] += posting.cents
    assert set(booked.values()) == {0}
    fees = sum(p.cents for p in postings if p.account == "platform")
    assert fees == sum(p.cents for p in postings if p.cause is Cause.FEE and p.cents > 0) > 0
    statements = t.all(Statement)
    parties = [s for s in statements if s.party != "platform"]
    assert sum(s.balance_cents for s in parties) == -fees
    assert sum(s.paid_cents for s in parties) == sum(s.received_cents for s in parties) > 0
