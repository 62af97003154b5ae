"""Phase balancing against three-phase power flow, ours and pandapower's, exhaustive search, and hand arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coflex.domain.clearing import Status
from coflex.domain.errors import CoflexError, Refused
from coflex.domain.offer import Offer, OfferStep
from coflex.domain.phase import Phase, PhaseLimit
from coflex.domain.quantity import Direction, Floats
from coflex.grid import unbalanced
from coflex.grid.network import build
from coflex.grid.tables import GridTables, Load
from coflex.grid.unbalanced import PhaseState, violations
from coflex.market.coordination.outcome import Bought
from coflex.market.coordination.phases import hold_phases
from coflex.market.coordination.session import Decided
from coflex.market.coordination.state import State
from coflex.market.coordination.view import View
from coflex.market.coordination.world import PhaseFeeder, World
from coflex.market.design import Design, Interface, OwnMeans, Pricing, read_design, schedule
from coflex.simulation.coordination.assembly import DAY, ZONE
from coflex.simulation.coordination.feeder import feeder, feeder_tables
from coflex.simulation.coordination.small import small
from support.low_voltage import elements, four_wire, pandapower_phases

UP, DOWN = Direction.UP, Direction.DOWN
LIMITS = unbalanced.PhaseLimits()
NOON = 12 * 4
SESSION = """
- id: {id}
  buyers: [dso]
  sellers: {{levels: [{level}]}}
  trades: phase_balancing
  services: [phase_balancing]
  gate: {{opens: "D-1T10:00", closes: "{closes}"}}
  horizon: {{starts: "D", ends: "D+1", firm: {firm}}}
  needs: assessment
  grid: {{distribution: ac, transmission: none}}
  interface: free
  pricing: {pricing}
  validation: static
"""


def design(*sessions: str) -> Design:
    head = "id: test\ntitle: test\nsource: {document: O, section: '3.5'}\nsessions:"
    return read_design(head + "".join(sessions), "test.yaml")


def session(id: str = "phases", closes: str = "D-1T11:00", firm: str = "rest", **terms: str) -> str:
    words = {"level": "distribution", "pricing": "pay_as_bid"} | terms
    return SESSION.format(id=id, closes=closes, firm=firm, **words)


ONE = design(session())


@pytest.fixture(scope="module")
def case() -> World:
    return small()


def held(world: World, rules: Design = ONE, number: int = 0, state: State | None = None) -> Decided:
    """The session of that number on what is held so far."""
    plan = schedule(rules, DAY, ZONE)[number]
    before = state or State.start(world, [one.chain for one in rules.sessions])
    return hold_phases(View(rules, world, plan), before)


def bought(decided: Decided) -> list[Bought]:
    return [one for _, one in decided.state.bought]


def after(world: World, awards: Sequence[Bought]) -> PhaseState:
    """The day's three-phase states with awards put into them, one by one."""
    grid = world.phases
    assert grid is not None
    p, q = grid.p_mw.copy(), grid.q_mvar.copy()
    for one in awards:
        v, t = grid.units.index(one.award.unit or ""), world.axis.position(one.award.start)
        mw = one.award.direction.sign * one.award.quantity_kw / 1000 * grid.share[v]
        p[t, grid.node[v]] += mw
        q[t, grid.node[v]] += mw * grid.tan_phi[v]
    return unbalanced.solve(grid.phases, p, q)


def stressed(world: World, scale: float, units: Sequence[tuple[str, str]], offers: Sequence[Offer]) -> World:
    """The case with a feeder that carries loads on single phases in one quarter-hour, and rests otherwise. Units u0,
    u1, ... as (bus, phase)."""
    tables = four_wire()
    grid = unbalanced.build(tables, build(tables))
    times = np.full(len(world.axis), 0.2)
    times[NOON] = scale
    p, q = (unbalanced.injections(grid, x * times) for x in elements(tables))
    names = tuple(f"u{i}" for i in range(len(units)))
    share = np.array([[float(f == phase) for f in "abc"] if phase else [1 / 3] * 3 for _, phase in units])
    node = np.array([grid.network.node_of(bus) for bus, _ in units])
    tan_phi = np.array([0.2 * (i % 2) for i in range(len(units))])
    sold = PhaseFeeder("south", grid, p, q, names, ("sp",) * len(names), node, share, tan_phi, tuple(offers))
    return replace(world, phases=sold)


def offer(world: World, receipt: int, unit: str, way: Direction, *steps: tuple[str, int], least: int = 0) -> Offer:
    """Steps as (price, kW all day)."""
    rows = tuple(
        OfferStep(n, world.axis.start, Decimal(price), (kw,) * len(world.axis))
        for n, (price, kw) in enumerate(steps, 1)
    )
    name = f"o{receipt}"
    return Offer(name, receipt, world.axis.start, "case", "sp", "energy", way, unit, None, rows, min_quantity_kw=least)


# ---------------------------------------------------------------- the feeder of the cases


@pytest.mark.spec("GRID-02")
def test_the_feeder_breaks_phase_a_at_noon_and_phase_b_in_the_evening(case: World) -> None:
    for congestion, counts in ((0.0, ()), (0.5, ()), (1.0, (30, 8, 0)), (1.2, (44, 11, 4))):
        grid = feeder(case.axis, "south", congestion=congestion)
        broken = violations(unbalanced.solve(grid.phases, grid.p_mw, grid.q_mvar), case.axis)
        told = [[v for v in broken if v.kind is kind] for kind in KINDS]
        assert tuple(len(rows) for rows in told) == (counts or (0, 0, 0)) and sum(counts) == len(broken)
        assert {v.phase for v in told[0]} <= {Phase.A} and {v.phase for v in told[1]} <= {Phase.B}
        assert all(10 <= v.start.astimezone(ZONE).hour < 17 for v in told[0])
        assert all(19 <= v.start.astimezone(ZONE).hour < 21 for v in told[1])
    assert len(grid.offers) == 12 and grid.grid == "south"


KINDS = (PhaseLimit.VOLTAGE_HIGH, PhaseLimit.VOLTAGE_LOW, PhaseLimit.UNBALANCE)


@pytest.mark.spec("MKT-01")
@pytest.mark.parametrize("congestion", [1.0, 1.2])
def test_after_the_session_no_limit_is_broken_and_no_award_could_be_smaller(case: World, congestion: float) -> None:
    world = replace(case, phases=feeder(case.axis, "south", congestion=congestion))
    before = {v.start for v in violations(after(world, []), world.axis)}
    decided = held(world)
    awards = bought(decided)
    assert violations(after(world, awards), world.axis) == () and decided.held.uncovered == ()
    # Nothing is bought where nothing was broken, and in each quarter-hour every kW is needed.
    assert {one.award.start for one in awards} == before and len(before) >= 25
    # Every fourth award, a kW smaller, breaks a limit of its quarter-hour again.
    for k, one in list(enumerate(awards))[::4]:
        less = replace(one, award=replace(one.award, quantity_kw=one.award.quantity_kw - 1))
        broken = violations(after(world, [*awards[:k], less, *awards[k + 1 :]]), world.axis)
        assert {v.start for v in broken} == {one.award.start}


@pytest.mark.spec("MKT-01")
def test_pandapower_agrees_that_limits_are_broken_before_and_kept_after(case: World) -> None:
    world = replace(case, phases=feeder(case.axis, "south", congestion=1.2))
    states = after(world, []), after(world, bought(held(world)))
    kept = []
    for t in (int(states[0].vm.max(axis=(1, 2)).argmax()), int(states[0].unbalance.max(axis=1).argmax())):
        for state in states:
            net = pandapower_phases(as_loads(feeder_tables(), state, t))
            vm = net.res_bus_3ph[["vm_a_pu", "vm_b_pu", "vm_c_pu"]].to_numpy()
            assert np.abs(vm - state.vm[t]).max() < 2e-5
            unbalance = net.res_bus_3ph.unbalance_percent.to_numpy() / 100
            inside = vm[1:].max() <= 1.07 + 2e-5 and vm[1:].min() >= 0.93 - 2e-5
            kept.append(inside and unbalance.max() <= 0.02 + 1e-5)
            assert (net.res_line_3ph.loading_percent <= 100).all()
    assert kept == [False, True, False, True]


def as_loads(tables: GridTables, state: PhaseState, t: int) -> GridTables:
    """The grid with what is injected at each node and phase in a quarter-hour as loads."""
    names = state.grid.network.node_names
    rows = tuple(
        Load(f"{names[i]}{f}", names[i], -state.p_mw[t, i, k], -state.q_mvar[t, i, k], "", "", f)
        for i in range(1, len(names))
        for k, f in enumerate("abc")
    )
    return replace(tables, loads=rows, generators=(), storages=())


# ---------------------------------------------------------------- least cost


def cheapest(world: World) -> float | None:
    """EUR/MWh times kW of the cheapest awards in whole kW that keep every limit at noon, by trying all of them; None
    where none do."""
    grid = world.phases
    assert grid is not None
    offers = grid.offers
    all_kw = np.array(list(product(*(range(one.steps[0].quantity_kw[0] + 1) for one in offers))))
    sign = np.array([one.direction.sign for one in offers])
    unit = [grid.units.index(one.unit or "") for one in offers]
    p, q = (np.repeat(base[[NOON]], len(all_kw), axis=0) for base in (grid.p_mw, grid.q_mvar))
    for k, v in enumerate(unit):
        mw = (sign[k] * all_kw[:, k] / 1000)[:, None] * grid.share[v]
        p[:, grid.node[v]] += mw
        q[:, grid.node[v]] += mw * grid.tan_phi[v]
    keeps = kept(unbalanced.solve(grid.phases, p, q))
    cost = all_kw @ np.array([float(one.steps[0].price_eur_mwh) for one in offers])
    return float(cost[keeps].min()) if keeps.any() else None


def kept(state: PhaseState) -> Floats:
    """Whether each state keeps every limit, from voltages and currents themselves."""
    network = state.grid.network
    at = network.not_slack
    broken = (state.vm[:, at] > network.v_max[at][:, None] + 1e-6).any(axis=(1, 2))
    broken |= (state.vm[:, at] < network.v_min[at][:, None] - 1e-6).any(axis=(1, 2))
    broken |= (state.loading > network.loading_max[:, None] + 1e-6).any(axis=(1, 2))
    broken |= (state.neutral_loading > LIMITS.neutral + 1e-6).any(axis=1)
    broken |= (state.unbalance[:, at] > LIMITS.unbalance + 1e-6).any(axis=1)
    return ~broken


@pytest.mark.spec("MKT-01")
@settings(max_examples=25, deadline=None)
@given(
    st.floats(1.2, 2.3),
    st.lists(
        st.tuples(st.sampled_from(["B2", "B3", "B5"]), st.sampled_from(["a", "a", "b", "c", ""])),
        min_size=3,
        max_size=3,
    ),
    st.lists(st.sampled_from([UP, UP, DOWN]), min_size=3, max_size=3),
    st.lists(st.integers(20, 150), min_size=3, max_size=3),
)
def test_no_choice_of_whole_kw_is_cheaper(
    case: World,
    scale: float,
    units: list[tuple[str, str]],
    ways: list[Direction],
    prices: list[int],
) -> None:
    rows = [offer(case, i, f"u{i}", ways[i], (str(prices[i]), 12)) for i in range(3)]
    world = stressed(case, scale, units, rows)
    decided, least = held(world), cheapest(world)
    cost = sum(float(one.award.bid_eur_mwh) * one.award.quantity_kw for one in bought(decided))
    assert (least is None) == bool(decided.held.uncovered)
    if least is not None:
        assert cost <= least + 1e-9
        assert decided.held.cost_eur == pytest.approx(least * 0.25 / 1000, abs=1e-9)
        assert bool(kept(after(world, bought(decided))).all())


@pytest.mark.spec("MKT-01")
def test_the_order_of_offers_and_units_does_not_matter(case: World) -> None:
    world = replace(case, phases=feeder(case.axis, "south", congestion=1.2))
    grid, turn = world.phases, [5, 2, 8, 0, 7, 1, 4, 3, 6]
    assert grid is not None
    turned = replace(
        grid,
        units=tuple(grid.units[v] for v in turn),
        providers=tuple(grid.providers[v] for v in turn),
        node=grid.node[turn],
        share=grid.share[turn],
        tan_phi=grid.tan_phi[turn],
        offers=grid.offers[5:] + grid.offers[:5][::-1],
    )
    assert bought(held(replace(world, phases=turned))) == bought(held(world))


# ---------------------------------------------------------------- what does not suffice, who holds what


@pytest.mark.spec("MKT-01")
def test_what_the_offers_do_not_cover_is_told_with_element_and_phase(case: World) -> None:
    world = stressed(case, 2.2, [("B3", "a")], [offer(case, 0, "u0", UP, ("50", 3))])
    decided = held(world)
    assert [(one.award.quantity_kw, one.award.direction) for one in bought(decided)] == [(3, UP)]
    left = violations(after(world, bought(decided)), world.axis)
    told = {(one.start, one.what): one.amount for one in decided.held.uncovered}
    assert told == {
        (v.start, f"{v.kind} {v.element}" + (f" phase {v.phase}" if v.phase else "")): pytest.approx(v.excess, abs=1e-8)
        for v in left
    }
    assert any(one.what == "voltage_low B3 phase a" and one.unit == "pu" for one in decided.held.uncovered)
    assert all(one.binding for one in decided.held.uncovered)
    nobody = held(stressed(case, 2.2, [("B3", "a")], []))
    assert not bought(nobody) and len(nobody.held.uncovered) >= len(told)
    assert nobody.held.uncovered[0].binding == ("nothing more is offered",)


@pytest.mark.spec("MKT-09")
def test_what_one_chain_holds_another_cannot_buy_and_its_own_preliminary_awards_are_bought_anew(case: World) -> None:
    # The first chain may buy from u0 alone; then u1 comes, which is cheaper, and what u0 sold is not sold again.
    units = [("B3", "a"), ("B3", "a")]
    first = offer(case, 0, "u0", UP, ("80", 4))
    second = offer(case, 1, "u1", UP, ("50", 30))
    rules = design(session("one"), session("two", "D-1T12:00"), session("three", "D-1T13:00"))
    early = rules.sessions[0].horizon.model_copy(update={"firm": "PT15M"})
    first_round = rules.sessions[0].model_copy(update={"horizon": early})
    rules = rules.model_copy(update={"sessions": (first_round, rules.sessions[1], renamed(rules, 2, "one"))})
    alone, both = stressed(case, 1.8, units, [first]), stressed(case, 1.8, units, [first, second])
    start = held(alone, rules, 0)
    assert [(c, one.award.unit, one.award.quantity_kw) for c, one in start.state.bought] == [("one", "u0", 4)]
    assert bought(start)[0].award.status is Status.PRELIMINARY and start.held.uncovered
    other = held(both, rules, 1, replace(start.state, world=both))
    mine = [(c, one.award.unit) for c, one in other.state.bought]
    assert mine == [("one", "u0"), ("two", "u1")] and not other.held.uncovered
    assert violations(after(both, bought(other)), both.axis) == ()
    # The first chain comes again: its 4 kW lapse; u1 is another's, so u0 gives again what is missing without it.
    again = held(both, rules, 2, other.state)
    kw = {(c, one.award.unit): one.award.quantity_kw for c, one in again.state.bought}
    assert set(kw) == {("two", "u1"), ("one", "u0")} and kw["two", "u1"] == bought(other)[1].award.quantity_kw
    assert violations(after(both, bought(again)), both.axis) == () and not again.held.uncovered
    assert len(bought(again)) == 2 and again.state.positions.kw.any() == np.False_
    # By itself, without what another holds, the chain takes the cheaper unit and lets the other lapse.
    fresh = held(both, rules, 2, replace(start.state, world=both))
    assert [(c, one.award.unit) for c, one in fresh.state.bought] == [("one", "u1")]


def renamed(rules: Design, place: int, sequence: str) -> object:
    return rules.sessions[place].model_copy(update={"sequence": sequence})


@pytest.mark.spec("MKT-01")
def test_a_unit_goes_one_way_and_nothing_is_bought_because_a_provider_pays(case: World) -> None:
    both = [offer(case, 0, "u0", UP, ("-5", 30)), offer(case, 1, "u0", DOWN, ("-90", 30))]
    world = stressed(case, 1.8, [("B3", "a")], both)
    awards = bought(held(world))
    assert [one.award.direction for one in awards] == [UP]
    # Only what is needed: the same kW as of a unit that is paid.
    paid = stressed(case, 1.8, [("B3", "a")], [offer(case, 0, "u0", UP, ("60", 30))])
    assert [one.award.quantity_kw for one in awards] == [one.award.quantity_kw for one in bought(held(paid))]


@pytest.mark.spec("MKT-01")
def test_a_least_quantity_is_kept(case: World) -> None:
    units = [("B3", "a"), ("B2", "a")]
    rest = offer(case, 1, "u1", UP, ("70", 30))
    loose = stressed(case, 1.4, units, [offer(case, 0, "u0", UP, ("60", 30)), rest])
    need = sum(one.award.quantity_kw for one in bought(held(loose)))
    assert 0 < need < 20
    firm = stressed(case, 1.4, units, [offer(case, 0, "u0", UP, ("60", 30), least=25), rest])
    # 25 kW at 60 cost more than the few at 70, which are nearer to the source.
    assert [one.award.unit for one in bought(held(firm))] == ["u1"]


@pytest.mark.spec("MKT-01")
def test_a_security_margin_stays_free(case: World) -> None:
    world = replace(case, phases=feeder(case.axis, "south"))
    margin = "security_margin: {voltage_pu: 0.006, loading_share: 0.1}\n"
    state = after(world, bought(held(world, design(session() + "  " + margin))))
    assert 0.936 - 1e-6 <= state.vm.min() < 0.939 and 1.061 < state.vm.max() <= 1.064 + 1e-6


# ---------------------------------------------------------------- prices, and what has no meaning


@pytest.mark.spec("MKT-01")
def test_nodal_prices_pay_what_the_limit_is_worth_at_bus_and_phase(case: World) -> None:
    """One bus, one phase, no reactive power: kW of two units do the same, so the dearer that is partly taken sets the
    price of both. A unit nearer to the source acts less, and its kW are worth less by the ratio of their effects."""
    units = [("B3", "a"), ("B2", "a"), ("B3", "a")]
    rows = [
        offer(case, i, f"u{i}", UP, (price, kw)) for i, (price, kw) in enumerate((("30", 3), ("35", 3), ("80", 30)))
    ]
    rules = design(session(pricing="nodal"))
    world = stressed(case, 1.5, units, rows)
    decided = held(world, rules)
    paid = {one.award.unit: float(one.award.price_eur_mwh) for one in bought(decided)}
    kw = {one.award.unit: one.award.quantity_kw for one in bought(decided)}
    assert kw["u0"] == kw["u1"] == 3 and 0 < kw["u2"] < 30
    assert paid["u0"] == paid["u2"] == 80
    ratio = effect(world, decided, 1) / effect(world, decided, 2)
    assert 0.5 < ratio < 0.9 and paid["u1"] == pytest.approx(80 * ratio, abs=0.02)
    assert decided.held.cost_eur == pytest.approx(sum(kw[u] * paid[u] for u in kw) * 0.25 / 1000)


def effect(world: World, decided: Decided, v: int) -> float:
    """By how much a kW up of a unit lifts phase a of B3 at noon, the one limit that the answer is near to."""
    grid, state = world.phases, after(world, bought(decided))
    assert grid is not None
    node = grid.phases.network.node_of("B3")
    assert 0.9 - 1e-6 < state.vm[NOON, node, 0] < 0.9025 < np.delete(state.vm[NOON], node, axis=0).min()
    assert (
        state.unbalance[NOON].max() < 0.019 and max(state.loading[NOON].max(), state.neutral_loading[NOON].max()) < 0.9
    )
    ends = []
    for kw in (0.1, -0.1):
        p, q = state.p_mw[[NOON]].copy(), state.q_mvar[[NOON]].copy()
        p[0, grid.node[v]] += kw / 1000 * grid.share[v]
        q[0, grid.node[v]] += kw / 1000 * grid.share[v] * grid.tan_phi[v]
        ends.append(unbalanced.solve(grid.phases, p, q).vm[0, node, 0])
    return float(ends[0] - ends[1]) / 0.2


@pytest.mark.spec("MKT-01")
def test_prices_and_terms_without_meaning_are_refused(case: World) -> None:
    world = replace(case, phases=feeder(case.axis, "south"))
    for change, word in (
        ({"pricing": "pay_as_clear"}, "pays one price"),
        ({"pricing": "marginal"}, "pays one price"),
        ({"interface": "fixed"}, "grid above"),
        ({"own_means": ("taps",)}, "means of its own"),
    ):
        other = type(ONE.sessions[0]).model_validate(ONE.sessions[0].model_dump() | _words(change))
        with pytest.raises(CoflexError, match=word):
            held(world, ONE.model_copy(update={"sessions": (other,)}))
    with pytest.raises(CoflexError, match="three phases"):
        held(replace(case, phases=None))
    bad = [
        replace(offer(case, 0, "u0", UP, ("30", 3)), block=True),
        replace(offer(case, 1, "u0", UP, ("30", 3)), energy_limit_kwh=2),
        offer(case, 2, "u9", UP, ("30", 3)),
    ]
    with pytest.raises(Refused) as refused:
        held(stressed(case, 1.8, [("B3", "a")], bad))
    assert [finding.code for finding in refused.value.findings] == [
        "terms_across_periods",
        "terms_across_periods",
        "unknown_unit",
    ]


def _words(change: dict[str, object]) -> dict[str, object]:
    """The words of a design as its document reads them."""
    kinds = {"pricing": Pricing, "interface": Interface}
    return {
        key: tuple(OwnMeans(one) for one in value) if isinstance(value, tuple) else kinds[key](value)
        for key, value in change.items()
    }


@pytest.mark.spec("MKT-01")
def test_a_session_that_does_not_reach_the_feeder_tells_its_needs(case: World) -> None:
    world = replace(case, phases=feeder(case.axis, "south"))
    decided = held(world, design(session(level="transmission")))
    assert not bought(decided) and decided.held.offers == 0 and len(decided.held.uncovered) == 38
