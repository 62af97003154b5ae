"""The parts of the engine of market designs, against the small case's numbers found by hand.

Prices and quantities are those of the table in `simulation/coordination/small.py`; hours are local, four quarter-hours
each.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from functools import cache
from typing import Any

import numpy as np
import pytest
import yaml
from scipy.optimize import brentq

from coflex.domain.clearing import Award, Reason, Status
from coflex.domain.errors import Refused, SoldTwice
from coflex.domain.offer import Offer, OfferStep
from coflex.domain.quantity import Direction
from coflex.domain.reserve import Reservation
from coflex.market.coordination.forwarding import aggregates
from coflex.market.coordination.outcome import Actor, Bought, Run
from coflex.market.coordination.run import nothing, obstacles, run
from coflex.market.coordination.state import NOWHERE, State
from coflex.market.coordination.supply import eligible, supply, unit_caps
from coflex.market.coordination.view import View, tasks
from coflex.market.coordination.world import Order, World
from coflex.market.design import Buyer, Design, Service, load_design, read_design, schedule
from coflex.simulation.coordination.assembly import DAY, ZONE
from coflex.simulation.coordination.small import small

UP, DOWN = Direction.UP, Direction.DOWN
BOTH_LEVELS = ["distribution", "transmission"]


@cache
def case() -> World:
    return small()


def without_needs(world: World) -> World:
    """The case in which the system and parties ask for nothing."""
    return replace(world, system_kw=np.zeros(len(world.axis), dtype=np.int64), orders=())


def session(id: str = "one", gate: int = 8, **terms: Any) -> dict[str, Any]:
    """A session of the TSO over all units, requests alone, unless said otherwise; `gate`: hour at which it closes."""
    return {
        "id": id,
        "buyers": ["tso"],
        "sellers": {"levels": BOTH_LEVELS},
        "gate": {"opens": "D-2T08:00", "closes": f"D-1T{gate:02d}:00"},
        "horizon": {"starts": "D", "ends": "D+1", "firm": "rest"},
        "needs": "requests",
        "grid": {"distribution": "none", "transmission": "none"},
        "interface": "free",
        "pricing": "pay_as_bid",
        "validation": "static",
    } | terms


def local(id: str = "local", gate: int = 6, **terms: Any) -> dict[str, Any]:
    """A session of the DSO for its own limits."""
    own = {"buyers": ["dso"], "sellers": {"levels": ["distribution"]}, "needs": "assessment"}
    return session(id, gate, **(own | {"grid": {"distribution": "ac", "transmission": "none"}} | terms))


def design(*sessions: dict[str, Any], **terms: Any) -> Design:
    head = {"id": "test", "title": "test", "source": {"document": "B", "section": "1"}}
    return read_design(yaml.safe_dump(head | {"sessions": list(sessions)} | terms, sort_keys=False), "test.yaml")


def viewed(rules: Design, world: World, number: int = 0) -> View:
    return View(rules, world, schedule(rules, DAY, ZONE)[number])


def at(hour: float) -> int:
    return round(4 * hour)


def sold(world: World, found: Run, hour: float, name: str = "") -> dict[str, int]:
    """kW of each unit in the quarter-hour at an hour, up positive; of one session or all."""
    kw: dict[str, int] = defaultdict(int)
    for one in found.bought:
        if world.axis.position(one.award.start) == at(hour) and (not name or one.award.session == name):
            kw[one.award.unit or one.award.offer] += one.award.direction.sign * one.award.quantity_kw
    return dict(kw)


def award(world: World, unit: str, hour: float, kw: int, name: str = "one", firm: bool = True) -> Bought:
    """`kw` up positive."""
    status = Status.DEFINITIVE if firm else Status.PRELIMINARY
    way = UP if kw > 0 else DOWN
    price = Decimal(30)
    made = Award(
        name, "o", 1, "sp", "dso", "energy", unit, None, way, world.axis[at(hour)], abs(kw), price, price, status
    )
    return Bought(made, world.seller[unit].grid, 1.0, 0.0, 0.0)


def kept(world: World, unit: str, hour: float, kw: int, name: str = "ready", firm: bool = True) -> Reservation:
    status = Status.DEFINITIVE if firm else Status.PRELIMINARY
    way = UP if kw > 0 else DOWN
    start = world.axis[at(hour)]
    terms = (Decimal(5), Decimal(30), status)
    return Reservation(name, "c", 1, "sp", "tso", "afrr", unit, None, way, start, abs(kw), *terms)


# ---------------------------------------------------------------- who holds what


def index(world: World, unit: str) -> int:
    return [one.id for one in world.sellers].index(unit)


def test_what_is_held_flows_at_its_node_and_moves_the_system() -> None:
    world = replace(case(), sellers=tuple(replace(one, tan_phi=0.5) for one in case().sellers))
    state = State.start(world, ["a", "b"])
    assert not state.moved_kw().any() and not state.changes()[0].any()
    first = [(index(world, "s1"), award(world, "s1", 3, 700)), (index(world, "n3"), award(world, "n3", 3, -200))]
    state = state.with_awards("a", world.axis, first)
    state = state.with_awards("b", world.axis, [(index(world, "t1"), award(world, "t1", 3, 50))])
    p, q = state.changes()
    node = world.network.node_of
    assert p[at(3), node("south/end")] == pytest.approx(0.7) and q[at(3), node("south/end")] == pytest.approx(0.35)
    assert p[at(3), node("north/mv")] == pytest.approx(-0.2)
    assert p.sum() == pytest.approx(0.55) and p[at(3)].sum() == pytest.approx(0.55)
    assert state.moved_kw()[at(3)] == 550
    assert state.moved_kw(["a"])[at(3)] == 500 and state.moved_kw(["b"])[at(3)] == 50


@pytest.mark.spec("MKT-09")
def test_a_held_unit_is_free_for_nobody_and_sold_to_nobody_else() -> None:
    world = case()
    s1 = index(world, "s1")
    state = State.start(world, ["a", "b"]).with_awards("a", world.axis, [(s1, award(world, "s1", 3, 300))])
    whole = slice(0, len(world.axis))
    for chain in ("a", "b"):
        free = state.free(chain, (), whole)
        assert not free[s1, at(3)] and free.sum() == free.size - 1
    with pytest.raises(SoldTwice, match=r"s1 is held for .*03:00.* by a"):
        state.with_awards("b", world.axis, [(s1, award(world, "s1", 3, 100))])
    more = state.with_awards("a", world.axis, [(s1, award(world, "s1", 3, 100))])
    assert more.positions.kw[s1, at(3)] == 400
    with pytest.raises(SoldTwice):
        state.with_reservations("b", [(s1, kept(world, "s1", 3, 100))])


def test_what_is_kept_ready_is_free_for_those_alone_that_admit_it() -> None:
    world = case()
    s1 = index(world, "s1")
    state = State.start(world, ["ready", "b"]).with_reservations("ready", [(s1, kept(world, "s1", 3, 300))])
    whole = slice(0, len(world.axis))
    assert not state.free("b", (), whole)[s1, at(3)]
    assert state.free("b", ("ready",), whole)[s1, at(3)]
    assert state.contracted(("ready",), whole).sum() == 1
    assert not state.contracted((), whole).any()
    assert state.positions.reserved_up[s1, at(3)] == 300 and not state.positions.reserved_down.any()
    with pytest.raises(SoldTwice, match="s1 is taken"):
        state.with_reservations("b", [(s1, kept(world, "s1", 3, 100, "b"))])


def test_a_chain_gives_back_what_was_preliminary_and_keeps_what_was_not() -> None:
    world = case()
    s1, n1 = index(world, "s1"), index(world, "n1")
    firm = world.axis.window(world.axis[0], world.axis[at(4)])
    awards = [(s1, award(world, "s1", 3, 300)), (s1, award(world, "s1", 5, 200, firm=False))]
    state = State.start(world, ["a", "b"]).with_awards("a", firm, awards)
    state = state.with_awards("b", firm, [(n1, award(world, "n1", 5, 100, "two", firm=False))])
    ready = [(n1, kept(world, "n1", 6, 40, firm=False)), (n1, kept(world, "n1", 2, 40))]
    state = state.with_reservations("a", ready)
    back = state.released("a", world.axis)
    assert [(one.award.unit, one.award.quantity_kw) for _, one in back.bought] == [("s1", 300), ("n1", 100)]
    assert [one.start for _, one in back.reservations] == [world.axis[at(2)]]
    assert back.positions.kw[s1, at(5)] == 0 and back.positions.kw[s1, at(3)] == 300
    assert back.free("b", (), slice(0, 96))[n1, at(6)] and not back.free("b", (), slice(0, 96))[n1, at(2)]
    early = state.released("a", world.axis.window(world.axis[0], world.axis[at(5)]))
    assert early.positions.kw[s1, at(5)] == 200


def test_steps_of_lower_voltage_are_taken_in_their_order() -> None:
    """45 kW are the whole first step of 30 kW at south/mv and half of the second."""
    world = case()
    state = State.start(world, ["a"])
    lowered = np.zeros_like(state.lowered_kw)
    lowered[..., at(10)] = 45
    state = replace(state, lowered_kw=lowered)
    p = state.changes()[0][at(10)] * 1000
    first, second = world.reductions[0].kw[:2, at(10)]
    step = world.reductions[0].change_p_mw[:2, at(10)] * 1000
    assert (first, second) == (30, 30)
    assert p == pytest.approx(step[0] + step[1] / 2)
    assert p[world.network.node_of("south/mv")] == pytest.approx(45, abs=1)
    assert state.moved_kw()[at(10)] == 45


# ---------------------------------------------------------------- what a session sees


def test_forecasts_grow_better_with_the_root_of_the_hours_ahead() -> None:
    """0.5 MW too high a day ahead, half of it six hours ahead, nothing at the hour itself; the need lacks as much."""
    world = small(forecast_error=1.0)
    end, ten = world.network.node_of("north/end"), world.axis[at(10)]
    for hours, error in ((24, 0.5), (48, 0.5), (6, 0.25), (0, 0.0)):
        seen = ten - timedelta(hours=hours)
        assert world.foreseen(seen)[0][at(10), end] == pytest.approx(world.p_mw[at(10), end] + error)
        assert world.need_kw(seen)[at(10)] == pytest.approx(4000 - 1000 * error)


def test_tasks_of_a_session_follow_its_priority_and_matching() -> None:
    world = case()
    joint = {"buyers": ["dso", "tso", "brp"], "needs": "both", "grid": {"distribution": "ac", "transmission": "ac"}}
    (one,) = tasks(design(session(priority="none", **joint)).sessions[0], world)
    assert one.assessed and one.requested and one.orders == (0, 1, 2) and one.distribution and one.transmission
    dso, tso, brp = tasks(design(session(**joint)).sessions[0], world)
    assert dso.buyers == (Buyer.DSO,) and dso.assessed and not dso.requested and not dso.transmission
    assert tso.buyers == (Buyer.TSO,) and tso.requested and not tso.orders
    assert brp.buyers == (Buyer.BRP,) and not brp.requested and brp.orders == (0, 1, 2) and brp.net
    peers = tasks(design(session(matching="bilateral", **joint)).sessions[0], world)
    assert [one.grid for one in peers] == [0, 1, 2, None, None, None, None]
    assert [one.orders for one in peers[3:]] == [(), (0,), (1,), (2,)]


# ---------------------------------------------------------------- what is offered


def eligible_units(**terms: Any) -> set[str | None]:
    view = viewed(design(session(**terms)), case())
    return {one.unit for one in case().offers if eligible(view, one, None)}


def test_offers_reach_a_session_by_level_and_service() -> None:
    above = {"t1", "t2", "t3"}
    assert eligible_units(sellers={"levels": ["transmission"]}) == above
    assert eligible_units(services=["afrr"]) == {"s3", "t2", "t3"}
    assert eligible_units(services=["afrr", "rr"]) == {"s3", "t2", "t3", "s2", "t1"}
    assert eligible_units(services=["phase_balancing"]) == set()
    assert len(eligible_units()) == 12


def test_an_offer_for_local_buyers_reaches_no_other() -> None:
    offer = replace(next(one for one in case().offers if one.unit == "s1"), local_only=True)
    assert not eligible(viewed(design(session()), case()), offer, None)
    assert eligible(viewed(design(local()), case()), offer, None)


def stepped(world: World, unit: str, *steps: tuple[int, int], group: str | None = None) -> Offer:
    """An offer up of one unit, or of a group: steps as (kW all day, EUR/MWh)."""
    rows = tuple(
        OfferStep(n, world.axis.start, Decimal(price), (kw,) * 96) for n, (kw, price) in enumerate(steps, start=1)
    )
    like = next(one for one in world.offers if one.unit == "s1")
    return replace(like, id=f"made {unit}", direction=UP, unit=None if group else unit, group=group, steps=rows)


def test_a_static_light_takes_the_dearest_off_a_units_steps() -> None:
    """s1 may go 800 kW up: of 500 at 10 and 500 at 20 it can sell 500 and 300. Nothing checks a session without."""
    world = replace(case(), offers=(stepped(case(), "s1", (500, 20), (500, 10)),))
    for validation, expected, lost in (
        ("static", [(10, 500), (20, 300)], 200 * 24),
        ("none", [(10, 500), (20, 500)], 0),
    ):
        view = viewed(design(session(validation=validation)), world)
        state = State.start(world, ["one"])
        (task,) = tasks(view.session, world)
        made = supply(view, task, state, unit_caps(view, state))
        first = made.book.period == 0
        rows = zip(made.book.price[first].tolist(), (made.book.quantity_mw[first] * 1000).round().tolist(), strict=True)
        assert sorted(rows) == expected
        assert np.sum(made.limited_kwh) == pytest.approx(lost)


def test_supply_says_why_a_block_may_not_be_bought() -> None:
    world = replace(case(), value_eur_mwh=66.0)
    s1 = index(world, "s1")
    state = State.start(world, ["other", "one"]).with_awards("other", world.axis, [(s1, award(world, "s1", 3, 10))])
    view = viewed(design(session()), world)
    (task,) = tasks(view.session, world)
    made = supply(view, task, state, unit_caps(view, state))
    units = [made.book.offers[o].unit for o in made.book.offer.tolist()]
    shut = {(units[i], int(made.book.period[i])): reason for i, (reason, _) in made.shut.items()}
    assert {cell for cell, reason in shut.items() if reason is Reason.HELD_ELSEWHERE} == {("s1", at(3))}
    assert {unit for (unit, _), reason in shut.items() if reason is Reason.PRICE_LIMIT} == {"t2"}
    assert not made.admissible[sorted(made.shut)].any()


def test_orders_buy_up_to_their_limits() -> None:
    """At 17 one order wants 600 up to 50 and one 400 down to 50: they meet, and s3 sells the rest up at 20. At 06 a
    limit of 15 finds no seller."""
    found = run(design(session(buyers=["brp"])), case())
    assert sold(case(), found, 6) == {}
    kw = sold(case(), found, 17)
    assert sum(kw.values()) == 200
    assert kw == {"s3": 200}
    assert all((one.share_dso, one.share_tso, one.share_brp) == (0, 0, 1) for one in found.bought)


def test_an_order_that_wants_both_ways_is_served_in_both() -> None:
    kw = np.zeros(96, dtype=np.int64)
    kw[at(5)], kw[at(6)] = 500, -400
    world = replace(without_needs(case()), orders=(Order("o", "brp", kw, 500.0),))
    found = run(design(session(buyers=["brp"])), world)
    assert sold(world, found, 5) == {"s3": 500}
    assert sold(world, found, 6) == {"n3": -400}


def test_orders_of_another_session_are_no_need_of_the_tso() -> None:
    """A party buys 500 kW in a session before: whether told of it or not, the TSO's own need is still 1000."""
    need, kw = np.zeros(96, dtype=np.int64), np.zeros(96, dtype=np.int64)
    need[at(5)], kw[at(5)] = 1000, 500
    world = replace(case(), system_kw=need, orders=(Order("o", "brp", kw, 500.0),))
    for interface in ("free", "netted"):
        found = run(design(session("trade", 6, buyers=["brp"]), session("balance", 8, interface=interface)), world)
        assert sum(sold(world, found, 5, "trade").values()) == 500
        assert sum(sold(world, found, 5, "balance").values()) == 1000, interface
        assert found.final.unbalanced_kwh == 0


def grouped(world: World) -> World:
    """The case in which the units at south/end offer as one group, and alone no more."""
    offers = tuple(one for one in world.offers if one.unit not in ("s1", "s2"))
    return replace(
        world,
        offers=(*offers, stepped(world, "ends", (1800, 10), group="ends")),
        groups={"ends": ("s1", "s2")},
    )


def test_what_a_group_sells_is_laid_on_its_units_within_their_lights() -> None:
    """The cheapest offer of all is the group's 1800 kW; s1 may go 800 up, s2 1500."""
    world = grouped(case())
    found = run(design(session()), world)
    kw = sold(world, found, 10)
    assert kw["s1"] + kw["s2"] == 1800
    assert 0 <= kw["s1"] <= 800 and 0 <= kw["s2"] <= 1500
    assert {one.award.group for one in found.bought if one.award.unit in ("s1", "s2")} == {"ends"}


# ---------------------------------------------------------------- sessions, by hand


def test_the_cheapest_offers_fill_a_request() -> None:
    """4000 at 10: s3 2000 at 20, w1 1000 at 25, n1 1000 at 30. -4000 at 15: n3 2000 at 15, n1 1500 at 20, w1 500."""
    found = run(design(session()), case())
    assert sold(case(), found, 10) == {"s3": 2000, "w1": 1000, "n1": 1000}
    assert sold(case(), found, 15) == {"n3": -2000, "n1": -1500, "w1": -500}
    (held,) = found.held
    cost = 2000 * 20 + 1000 * 25 + 1000 * 30
    mine = [one for one in found.bought if case().axis.position(one.award.start) in range(at(10), at(11))]
    assert sum(float(o.award.price_eur_mwh) * o.award.quantity_kw for o in mine) == pytest.approx(4 * cost)
    assert held.bought_kwh == sum(one.award.quantity_kw for one in found.bought) / 4
    assert held.awards == len(found.bought)


def test_a_local_session_mends_what_its_grids_lack_and_no_more() -> None:
    """1 MW down at north/end at 12 (n1 at 20), 1 MW up at south/end at 19 (s1 800 at 35, s2 200 at 45)."""
    found = run(design(local()), case())
    assert sold(case(), found, 12) == {"n1": -1000}
    assert sold(case(), found, 19) == {"s1": 800, "s2": 200}
    assert sold(case(), found, 8) == sold(case(), found, 10) == {}
    assert found.final.violations_distribution == 0
    (up,) = sold(case(), found, 21).items()
    assert up[0] == "w2" and up[1] == pytest.approx(1541, abs=2)


def test_a_fixed_interface_keeps_every_grid_in_balance() -> None:
    """At 12 north gives 1 MW down at its end (n1 at 20) and takes it back at its busbar (n3 up at 50)."""
    found = run(design(local(interface="fixed")), case())
    assert sold(case(), found, 12) == {"n1": -1000, "n3": 1000}
    assert np.abs(found.final.interface_kw).max() <= 1


def test_a_balanced_session_adds_to_nothing_over_all_grids() -> None:
    """The same MW is given back where it is cheapest: by s3 at 20, in another grid."""
    found = run(design(local(interface="balanced")), case())
    assert sold(case(), found, 12) == {"n1": -1000, "s3": 1000}
    assert np.abs(found.final.interface_kw.sum(axis=0)).max() <= 1


def test_a_priced_interface_sells_what_is_cheaper_than_energy() -> None:
    """Energy at 40: s3 (20), w1 (25) and n1 (30) and s1 (35) sell up to what their lines carry; down nobody gains, as
    what is not injected is lost at 40."""
    world = without_needs(case())
    found = run(design(local(interface="priced")), world)
    kw = sold(world, found, 4)
    assert kw == {"s3": 2000, "w1": 1000, "n1": 1500, "s1": 800}
    dear = run(design(local(interface="priced")), replace(world, energy_eur_mwh=np.full(96, -50.0)))
    # Below nothing, taking earns 50 less the bid: all down at less than 50, within 5 MW of south's line.
    assert sold(world, dear, 4) == {
        "n1": -1500,
        "n2": -1500,
        "n3": -2000,
        "s1": -800,
        "s2": -500,
        "s3": -2000,
        "w1": -1000,
    }


def test_a_listed_buyer_comes_before_the_next() -> None:
    """At 19 the DSO takes s1 and s2, which the TSO then cannot; its 2000 are 1000 less, from s3."""
    terms = {"buyers": ["dso", "tso"], "needs": "both", "grid": {"distribution": "ac", "transmission": "none"}}
    found = run(design(session(interface="netted", **terms)), case())
    by_buyer = defaultdict(dict)
    for one in found.bought:
        if case().axis.position(one.award.start) == at(19):
            by_buyer[one.award.buyer][one.award.unit] = one.award.quantity_kw
    assert by_buyer == {"dso": {"s1": 800, "s2": 200}, "tso": {"s3": 1000}}


def test_a_tso_that_may_reach_less_buys_the_next_dearer() -> None:
    found = run(design(session(sellers={"levels": ["transmission"]})), case())
    assert sold(case(), found, 10) == {"t1": 4000}
    assert sold(case(), found, 15) == {"t2": -4000}


@pytest.mark.spec("MKT-07")
def test_a_struck_line_is_replaced_by_the_next_of_the_list() -> None:
    """North's line leaves 500 of n1's 1000 kW, less a spare of 5e-4 of 4 MW; s1 at 35 is next."""
    found = run(design(session(validation="merit_order")), case())
    assert sold(case(), found, 10) == {"s3": 2000, "w1": 1000, "n1": 498, "s1": 502}
    (held,) = found.held
    assert held.validated >= 2
    assert held.limited_kwh >= 502


@pytest.mark.spec("MKT-08")
def test_a_share_beyond_the_request_is_kept_ready_by_the_next_offers() -> None:
    """A tenth of 4000 from the cheapest left at 10: s1 at 35 (n1's rest is of a unit that has sold)."""
    found = run(design(session(reserve_share=0.1)), case())
    assert sold(case(), found, 10) == {"s3": 2000, "w1": 1000, "n1": 1000}
    ready = [one for one in found.reserved if case().axis.position(one.start) == at(10)]
    per_grid = {(case().seller[one.unit or ""].grid, one.unit): one.quantity_kw for one in ready}
    assert sum(per_grid.values()) <= 400 and all(one.use_eur_mwh > 0 for one in ready)
    assert ("south", "s1") in per_grid and per_grid["south", "s1"] == 200


def test_own_means_come_before_offers() -> None:
    """One step of west's tap mends west/end, so that w2 sells nothing at 21."""
    found = run(design(local(own_means=["taps"])), case())
    assert sold(case(), found, 21) == {}
    assert found.final.violations_distribution == 0
    assert sold(case(), run(design(local()), case()), 21)


def test_lower_voltage_sells_up_in_the_order_of_its_steps() -> None:
    """Four steps of 30 kW at 10, 20, 30 and 40 EUR/MWh before or beside t1 at 40; at 19 the grid allows none."""
    terms = {"levels": ["transmission"], "resources": ["voltage_reduction", "units"]}
    found = run(design(session(sellers=terms)), case())
    kw = sold(case(), found, 10)
    assert 90 <= kw["voltage south"] <= 121 and kw["t1"] == 4000 - kw["voltage south"]
    assert "voltage south" not in sold(case(), found, 19)
    assert found.final.unbalanced_kwh == 0


# ---------------------------------------------------------------- who pays


def test_shares_are_what_an_award_was_worth_to_each() -> None:
    """At 12 north's line wants 1 MW down at its end, the system 1.5 MW down anywhere: n3 at 15 sets the balance, so of
    n1's 20 EUR/MWh the balance is worth 15 to the TSO and the line 5 to the DSO. At 12:30 the system wants 1.5 MW up,
    so n1 down is worth something to the DSO alone."""
    terms = {"buyers": ["dso", "tso"], "priority": "none", "needs": "both"}
    found = run(design(session(grid={"distribution": "ac", "transmission": "ac"}, **terms)), case())
    assert sold(case(), found, 12) == {"n1": -1000, "n3": -500}
    assert sold(case(), found, 12.5) == {"n1": -1000, "s3": 2000, "w1": 500}
    split = {
        (case().axis.position(one.award.start), one.award.unit): (one.share_dso, one.share_tso, one.share_brp)
        for one in found.bought
    }
    assert split[at(12), "n1"] == pytest.approx((0.25, 0.75, 0), abs=1e-3)
    assert split[at(12), "n3"] == pytest.approx((0, 1, 0), abs=1e-3)
    assert split[at(12.5), "n1"] == pytest.approx((1, 0, 0), abs=1e-3)
    assert split[at(12.5), "s3"] == pytest.approx((0, 1, 0), abs=1e-3)
    assert split[at(12.5), "w1"] == pytest.approx((0, 1, 0), abs=1e-3)
    # 2 MW of the transmission line one-two: the TSO's own limit.
    assert all(split[cell] == pytest.approx((0, 1, 0), abs=1e-3) for cell in split if cell[0] == at(8))


def test_parties_and_the_tso_share_a_balance_by_what_each_asked() -> None:
    """300 for the system and 900 for a party in one clearing: s3's kW are paid a quarter and three quarters."""
    need, kw = np.zeros(96, dtype=np.int64), np.zeros(96, dtype=np.int64)
    need[at(5)], kw[at(5)] = 300, 900
    world = replace(case(), system_kw=need, orders=(Order("o", "brp", kw, 500.0),))
    found = run(design(session(buyers=["tso", "brp"], priority="none")), world)
    (one,) = [one for one in found.bought if world.axis.position(one.award.start) == at(5)]
    assert (one.award.unit, one.award.quantity_kw) == ("s3", 1200)
    assert (one.share_dso, one.share_tso, one.share_brp) == pytest.approx((0, 0.25, 0.75))


# ---------------------------------------------------------------- what is forwarded

CENTRAL = {"needs": "both", "grid": {"distribution": "none", "transmission": "ac"}, "interface": "netted"}


def forwarded(offers: str, *later: dict[str, Any], **terms: Any) -> Design:
    below = local(forward={"to": "central", "offers": offers, "carry": "none"}, **terms)
    return design(below, session("central", 8, **CENTRAL), *later)


@cache
def curves() -> tuple[Offer, ...]:
    rules = forwarded("aggregated")
    state = State.start(case(), [one.chain for one in rules.sessions])
    return aggregates(viewed(rules, case(), 1), state)


def curve(grid: str, way: Direction, hour: float) -> list[tuple[int, float]]:
    """Steps (kW, EUR/MWh) of a grid's offer at an hour."""
    offers = [one for one in curves() if one.id == f"aggregate {grid} {way}"]
    steps = [(step.quantity_kw[at(hour)], float(step.price_eur_mwh)) for one in offers for step in one.steps]
    return [step for step in steps if step[0]]


@pytest.mark.spec("MKT-14")
def test_a_grids_curve_is_what_it_has_left_at_its_price() -> None:
    """At 04 south's line has 2 MW of room: all is left, in the order of price."""
    assert curve("south", UP, 4) == [(2000, 20), (800, 35), (1500, 45)]
    assert curve("south", DOWN, 4) == [(800, 30), (500, 35), (2000, 40)]
    assert curve("west", UP, 4) == [(1000, 25), (2000, 55)]


@pytest.mark.spec("MKT-14")
def test_a_grids_curve_stops_where_its_line_does() -> None:
    """At 10 north's line carries 500 of n1's 1500 kW and nothing of n2's: the first step, up to 1500 kW, is n1 500 at
    30 and n3 1000 at 50; the second n3's other 1000."""
    (first, price), (second, last) = curve("north", UP, 10)
    assert first == pytest.approx(1500, abs=2) and second == pytest.approx(1000, abs=2)
    assert price == pytest.approx((500 * 30 + 1000 * 50) / 1500, abs=0.05)
    assert last == pytest.approx(50, abs=0.05)


@pytest.mark.spec("MKT-14")
@pytest.mark.parametrize("later", [False, True])
def test_what_was_taken_of_a_curve_is_laid_on_units(later: bool) -> None:
    """Laid at once, or by a later session of the grid that keeps its interface: the same units, the balance met, no
    limit of a distribution grid broken."""
    last = local("final", 9, interface="fixed", sequence="below")
    firm = {"starts": "D", "ends": "D+1", "firm": "none"}
    rules = forwarded("aggregated", last, sequence="below", horizon=firm) if later else forwarded("aggregated")
    found = run(rules, case())
    assert found.final.unbalanced_kwh == pytest.approx(0, abs=16)
    assert found.final.violations_distribution == 0 and found.final.violations_transmission == 0
    # At 15 nothing binds: -4000 of the cheapest, as in one market.
    assert sold(case(), found, 15) == {"n3": -2000, "n1": -1500, "w1": -500}
    mine = [one for one in found.bought if case().axis.position(one.award.start) == at(15)]
    assert all(one.share_tso == 1 for one in mine)


@pytest.mark.spec("MKT-14")
def test_nothing_forwarded_leaves_the_next_session_its_own_level() -> None:
    rules = design(
        local(forward={"to": "central", "offers": "unused", "carry": "traffic_light"}),
        session("central", 8, grid={"distribution": "capability", "transmission": "none"}, validation="traffic_light"),
    )
    found = run(rules, case())
    kw = sold(case(), found, 10)
    # North's perimeter is limited to what its line carries, however it is split.
    north = sum(value for unit, value in kw.items() if unit.startswith("n"))
    assert north <= 500 and sum(kw.values()) == 4000
    assert found.final.violations_distribution <= 0


# ---------------------------------------------------------------- capacity


def ready(**terms: Any) -> dict[str, Any]:
    own = {"trades": "active_capacity", "services": ["fcr"]}
    return session(**({"id": "ready", "gate": 5} | own | terms))


def held_kw(found: Run, name: str = "ready") -> Counter[tuple[str | None, str]]:
    """kW h of each unit and direction that a session keeps ready."""
    kw: Counter[tuple[str | None, str]] = Counter()
    for one in found.reserved:
        if one.session == name:
            kw[one.unit, one.direction.value] += one.quantity_kw
    return Counter({key: value // 4 for key, value in kw.items()})


def test_capacity_is_held_for_its_request_at_its_availability_price() -> None:
    """1000 each way: n1 500 at 8, w1 500 at 10 EUR/MW and hour, all 24 hours; cleared at 10 for both."""
    found = run(design(ready()), case())
    assert held_kw(found) == {(unit, way): 12_000 for unit in ("n1", "w1") for way in ("up", "down")}
    assert found.held[0].cost_eur == pytest.approx(2 * 24 * (0.5 * 8 + 0.5 * 10))
    assert not found.bought
    cleared = run(design(ready(pricing="pay_as_clear")), case())
    assert cleared.held[0].cost_eur == pytest.approx(2 * 24 * 10)


@pytest.mark.spec("MKT-13")
def test_a_contract_holds_in_its_windows_alone() -> None:
    tender = {"lasts": "P1Y", "windows": ["07:00/11:00", "22:00/24:00"]}
    found = run(design(ready(tender=tender)), case())
    hours = {one.start.astimezone(ZONE).hour for one in found.reserved}
    assert hours == {7, 8, 9, 10, 22, 23}


def test_a_later_session_buys_what_an_earlier_left_of_the_request() -> None:
    """Half of 1000 kW from n1 at 8, then the other half: n1 is taken, so from w1 at 10."""
    found = run(design(ready(request_share=0.5), ready(id="rest", gate=6, interface="netted")), case())
    assert held_kw(found) == {("n1", "up"): 12_000, ("n1", "down"): 12_000}
    assert held_kw(found, "rest") == {("w1", "up"): 12_000, ("w1", "down"): 12_000}


def test_what_is_kept_ready_sells_where_it_is_admitted_and_nowhere_else() -> None:
    """aFRR keeps s3 1000 and t2 500 ready. Not admitted, s3 sells nothing at 10; admitted, 1000 at its 20 EUR/MWh."""
    kept_ready = ready(services=["afrr"])
    shut = run(design(kept_ready, session()), case())
    assert "s3" not in sold(case(), shut, 10) and sum(sold(case(), shut, 10).values()) == 4000
    open_ = run(design(kept_ready, session(admits=["ready"])), case())
    assert sold(case(), open_, 10) == {"s3": 1000, "w1": 1000, "n1": 1500, "s1": 500}
    alone = session(admits=["ready"], sellers={"levels": BOTH_LEVELS, "resources": ["contracts"]})
    called = run(design(kept_ready, alone), case())
    assert sold(case(), called, 10) == {"s3": 1000, "t2": 500}
    assert called.held[1].uncovered


@pytest.mark.spec("MKT-13")
def test_a_conditional_contract_comes_after_every_free_offer() -> None:
    """s3 at 20 would be the cheapest; conditional, it is called once 28,500 kW of free offers up are spent."""
    tender = {"lasts": "P1Y", "activation": "conditional"}
    rules = design(ready(services=["afrr"], tender=tender), session(admits=["ready"]))
    assert "s3" not in sold(case(), run(rules, case()), 10)
    need = case().system_kw.copy()
    need[at(10)] = 60_000
    assert sold(case(), run(rules, replace(case(), system_kw=need)), 10)["s3"] == 1000


def test_capacity_of_a_group_is_held_or_refused_in_words() -> None:
    """Whatever an engine does with a group's capacity, it does not fall over it."""
    world = grouped(case())
    like = world.capacity[Service.FCR][0]
    offer = replace(like.offer, id="of the group", unit=None, group="ends")
    world = replace(world, capacity={**world.capacity, Service.FCR: (replace(like, offer=offer),)})
    try:
        found = run(design(ready()), world)
    except Refused as refused:
        assert any("group" in finding.message for finding in refused.findings)
    else:
        assert {one.unit for one in found.reserved} <= {"s1", "s2"}


# ---------------------------------------------------------------- two gates at once


def at_once(first: str) -> Design:
    other = session("central", 6, exclusion={"session": "local", "first": first})
    return design(local("local", 6), other)


def test_of_two_gates_at_once_the_first_named_keeps_the_unit() -> None:
    """Without n3 both want n1 down at 12: the DSO 1000 for its line, the TSO 1500 by price."""
    world = replace(case(), offers=tuple(one for one in case().offers if one.unit != "n3"))
    found = run(at_once("local"), world)
    assert sold(world, found, 12, "local") == {"n1": -1000}
    assert sold(world, found, 12, "central") == {"w1": -1000, "s1": -500}
    found = run(at_once("central"), world)
    assert sold(world, found, 12, "central") == {"n1": -1500}
    assert sold(world, found, 12, "local") == {"n2": -1000}


def test_gates_at_once_of_capacity_keep_both_reservations() -> None:
    rules = design(ready(id="a"), ready(id="b", services=["afrr"], exclusion={"session": "a", "first": "a"}))
    found = run(rules, case())
    assert held_kw(found, "a") == {(unit, way): 12_000 for unit in ("n1", "w1") for way in ("up", "down")}
    assert held_kw(found, "b") == {
        (u, way): kwh for u, kwh in (("s3", 24_000), ("t2", 12_000)) for way in ("up", "down")
    }


# ---------------------------------------------------------------- sessions that answer each other


def answering(**stop: Any) -> Design:
    own = load_design("flexgrid_welfare_competitive")
    assert own.iterate is not None
    return own.model_copy(update={"iterate": own.iterate.model_copy(update=stop)})


def test_sessions_answer_each_other_until_nothing_moves() -> None:
    found = run(answering(), case())
    assert found.ending == "converged" and 1 < found.rounds <= 30
    fewer = run(answering(at_most=found.rounds - 1), case())
    assert (fewer.ending, fewer.rounds) == ("limit", found.rounds - 1)
    more = run(answering(at_most=200), case())
    assert more.bought == found.bought and more.rounds == found.rounds
    assert found.final.unbalanced_kwh == 0 and found.final.violations_distribution == 0
    assert len({(one.award.unit, one.award.start, one.reactive, one.award.offer) for one in found.bought}) == len(
        found.bought
    )


def test_a_wide_stop_still_waits_for_the_price() -> None:
    """The price goes half way each round, so from 40 to -60 it stands within 0.01 EUR/MWh after 14 halvings."""
    wide, usual = run(answering(until_mw=1e6), case()), run(answering(), case())
    assert 2 <= wide.rounds <= usual.rounds <= 15


def test_a_party_that_buys_in_answers_is_served_once() -> None:
    """Each round answers anew: after two or more, 500 kW of an order are still 500 kW."""
    kw = np.zeros(96, dtype=np.int64)
    kw[at(5)] = 500
    world = replace(without_needs(small(congestion=0.0)), orders=(Order("o", "brp", kw, 500.0),))
    rules = design(
        session("trade", 6, buyers=["brp"]), local("below", 7), iterate={"sessions": ["trade", "below"], "at_most": 4}
    )
    found = run(rules, world)
    assert sold(world, found, 5) == {"s3": 500}
    assert found.final.unbalanced_kwh == 0


# ---------------------------------------------------------------- sessions one after another


@pytest.mark.spec("MKT-10")
def test_what_is_left_of_six_sessions_is_definitive_and_of_the_session_that_decided_it() -> None:
    found = run(load_design("beflexible_six"), case())
    plans = {plan.id: plan for plan in schedule(load_design("beflexible_six"), DAY, ZONE)}
    assert found.bought
    for one in found.bought:
        assert one.award.status is Status.DEFINITIVE
        assert plans[one.award.session].firm.covers(one.award.start)


# ---------------------------------------------------------------- what a run leaves


def shed_at_the_end_of_west() -> float:
    """kW of the load 5 + j3 at west/end, shed with its reactive power, that bring its voltage to 0.95 pu: the root of
    V^4 + V^2 (2 (r P + x Q) - 1) + (r^2 + x^2)(P^2 + Q^2) = 0 in what is shed."""
    r, x, v = 0.005, 0.01, 0.95

    def lacks(mw: float) -> float:
        p, q = 5 - mw, 3 - 0.6 * mw
        return float(v**4 + v**2 * (2 * (r * p + x * q) - 1) + (r**2 + x**2) * (p**2 + q**2))

    return 1000 * float(brentq(lacks, 0.0, 2.0))


def test_mending_without_a_market_costs_what_it_takes_by_hand() -> None:
    """kW up and down together, an hour each: limits in balance, 08 3 MW up at TWO and as much down at the slack, 12 and
    19 the line's 1 MW and as much against it, 21 what is shed at west/end and as much down; then what the balance
    lacks, 10 and 15 4 MW, 12 1.5 MW either way, 19 2 MW and 0.8 MW for half an hour each."""
    limits = 2 * 3000 + 2 * 1000 + 2 * 1000 + 2 * shed_at_the_end_of_west()
    hours = limits + 4000 + 1500 + 4000 + (2000 + 800) / 2
    final = nothing(case()).final
    assert final.mended_kwh == pytest.approx(hours, abs=40)
    assert final.mended_eur == pytest.approx(final.mended_kwh * 0.4)
    assert final.unmended == 0
    assert final.unbalanced_kwh == 4000 + 1500 + 4000 + 1400
    assert final.violations_distribution == final.before_distribution == 12
    assert final.violations_transmission == final.before_transmission == 4
    assert final.worst_voltage_pu == pytest.approx(0.95 - 0.94085, abs=1e-4)
    assert final.worst_loading_share == pytest.approx(0.25, abs=1e-3)  # north/line: 5 MW of 4
    assert not final.interface_kw.any()


def test_what_keeps_every_limit_and_the_balance_needs_no_mending() -> None:
    final = nothing(without_needs(small(congestion=0.0))).final
    assert (final.mended_kwh, final.mended_eur, final.unmended, final.unbalanced_kwh) == (0, 0, 0, 0)
    assert final.before_distribution == final.before_transmission == 0


def test_awards_of_no_unit_change_no_position() -> None:
    state = State.start(case(), ["a"])
    nowhere = replace(award(case(), "s1", 3, 100), grid="south")
    after = state.with_awards("a", case().axis, [(NOWHERE, nowhere)])
    assert not after.positions.kw.any() and len(after.bought) == 1


# ---------------------------------------------------------------- messages


def counts(found: Run, name: str) -> dict[tuple[Actor, Actor, str], int]:
    return {(one.sender, one.receiver, one.information): one.count for one in found.messages if one.session == name}


def test_messages_count_what_there_was_to_tell() -> None:
    """Eleven units offer active power, two offers each; providers are five; each award is a line."""
    found = run(design(session()), case())
    told = counts(found, "one")
    sp = Actor.SERVICE_PROVIDER
    per_information = {key[2]: count for key, count in told.items() if sp in key[:2]}
    assert per_information["offers"] in (22, 5)
    lines = len(found.bought)
    units = len({one.award.unit for one in found.bought})
    providers = len({one.award.provider for one in found.bought})
    assert {per_information[name] for name in ("results", "activation") if name in per_information} <= {
        lines, units, providers, 5,
    }  # fmt: skip
    assert all(count > 0 for count in told.values())


def without_ten(world: World) -> World:
    """The case without the need at 10, which alone asks a line for more than it carries."""
    need = world.system_kw.copy()
    need[at(10) : at(11)] = 0
    return replace(world, system_kw=need)


def test_a_walk_that_is_made_again_is_told_again() -> None:
    once_run = run(design(session(validation="merit_order")), without_ten(case()))
    once = counts(once_run, "one")
    assert once_run.held[0].validated == 1
    twice_run = run(design(session(validation="merit_order")), case())
    twice = counts(twice_run, "one")
    (held,) = twice_run.held
    answer = (Actor.DSO, Actor.TSO, "validation")
    assert held.validated >= 2
    assert twice[answer] == held.awards * held.validated
    (first,) = once_run.held
    assert once[answer] == first.awards * first.validated


# ---------------------------------------------------------------- what cannot be run is refused


def refused_for(rules: Design, world: World) -> set[str]:
    return {one.code for one in obstacles(rules, world)}


CASES: Sequence[tuple[str, dict[str, Any], Callable[[World], World]]] = (
    ("no_reserve", ready(), lambda w: replace(w, reserve_kw={})),
    ("no_phases", local(trades="phase_balancing", services=["phase_balancing"]), lambda w: replace(w, phases=None)),
    ("no_storage", session(trades="storage_capacity"), lambda w: replace(w, lots=(), lease_bids=())),
    ("no_means", local(own_means=["taps"]), lambda w: replace(w, tools=None)),
    (
        "no_reduction",
        session(sellers={"levels": ["transmission"], "resources": ["voltage_reduction"]}),
        lambda w: replace(w, reductions=()),
    ),
    (
        "no_profile",
        session(
            buyers=["dso", "tso"],
            priority="none",
            trades="reactive_energy",
            needs="both",
            grid={"distribution": "ac", "transmission": "none"},
        ),
        lambda w: replace(w, profile_kvar=np.zeros_like(w.profile_kvar)),
    ),
)


@pytest.mark.parametrize(("code", "terms", "without"), CASES, ids=[code for code, *_ in CASES])
def test_what_the_case_has_not_is_refused_in_words(
    code: str, terms: dict[str, Any], without: Callable[[World], World]
) -> None:
    rules = design(terms)
    assert refused_for(rules, case()) == set()
    bare = without(case())
    assert refused_for(rules, bare) == {code}
    with pytest.raises(Refused) as refusal:
        run(rules, bare)
    assert [one.code for one in refusal.value.findings] == [code]
    assert terms["id"] in refusal.value.findings[0].place


def test_orders_and_lower_voltage_are_not_sold_for_a_while() -> None:
    prelim = {"starts": "D", "ends": "D+1", "firm": "none"}
    rules = design(session("one", 6, buyers=["brp"], sequence="s", horizon=prelim), session("two", 8, sequence="s"))
    assert refused_for(rules, case()) == {"preliminary_aside"}


def test_every_obstacle_is_told_at_once() -> None:
    rules = design(ready(id="a"), local("b", own_means=["taps"]), ready(id="c", gate=9, services=["rr"]))
    world = replace(case(), reserve_kw={}, tools=None)
    found = list(obstacles(rules, world))
    assert [(one.code, one.place.split()[-1]) for one in found] == [
        ("no_reserve", "a"), ("no_means", "b"), ("no_reserve", "c"),
    ]  # fmt: skip
    with pytest.raises(Refused) as refusal:
        run(rules, world)
    assert len(refusal.value.findings) == 3
