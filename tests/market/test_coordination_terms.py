"""Terms that hold over sessions and rounds, and those that a design must not leave open: one small case for each.

Prices and quantities are those of the table in `simulation/coordination/small.py`. At 10 local time the system needs
4000 kW up, which in the order of price are s3 2000 at 20, w1 1000 at 25, n1 1500 at 30, s1 800 at 35, t1 10,000 at 40;
north's line carries 500 kW more, up from north/end.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from test_coordination_engine import (
    at,
    case,
    design,
    held_kw,
    local,
    ready,
    refused_for,
    session,
    sold,
    stepped,
    without_needs,
)

from coflex.domain.clearing import Status
from coflex.domain.errors import Refused
from coflex.domain.offer import OfferStep
from coflex.domain.quantity import Direction, Ints
from coflex.market.coordination.outcome import Bought, Run
from coflex.market.coordination.run import obstacles, run
from coflex.market.coordination.world import World
from coflex.market.design import Design, Service
from coflex.simulation.coordination.assembly import ZONE
from coflex.simulation.coordination.small import small

UP, DOWN = Direction.UP, Direction.DOWN
# What serves the need at 10 where s3 does not sell.
WITHOUT_S3 = {"w1": 1000, "n1": 1500, "s1": 800, "t1": 700}
# Of 4 MW, what a walk leaves free of a limit that stops a line, and what rounding to whole kW takes.
SPARE_KW = 3
NORTH_LIGHT = {"grid": {"distribution": "capability", "transmission": "none"}, "validation": "traffic_light"}


def changed(world: World, unit: str, way: Direction, **terms: Any) -> World:
    """The case with a unit's active offer in one direction said otherwise."""
    offers = tuple(
        replace(one, **terms) if one.unit == unit and one.direction is way and one.product == "energy" else one
        for one in world.offers
    )
    return replace(world, offers=offers)


def asking(world: World, hours: dict[float, int]) -> World:
    """The case in which the system alone asks, each hour a kW for its four quarter-hours."""
    kw = np.zeros(len(world.axis), dtype=np.int64)
    for hour, value in hours.items():
        kw[at(hour) : at(hour) + 4] = value
    return replace(without_needs(world), system_kw=kw)


def over(every: str, times: int, **terms: Any) -> dict[str, Any]:
    """A session in rounds over the day, each of which decides its own part."""
    rounds = {"horizon": {"starts": "D", "ends": f"D+{every}", "firm": "rest"}}
    return session(gate=23, **(rounds | {"repeat": {"every": every, "times": times}} | terms))


def kwh(found: Run, unit: str, way: Direction) -> float:
    return sum(o.award.quantity_kw for o in found.bought if (o.award.unit, o.award.direction) == (unit, way)) / 4


def moved_by_grid(world: World, bought: tuple[Bought, ...]) -> Ints:
    """kW (g, t) by which awards bring each distribution grid up."""
    kw = np.zeros((len(world.grids), len(world.axis)), dtype=np.int64)
    for one in bought:
        if one.grid and not one.reactive:
            t = world.axis.position(one.award.start)
            kw[world.grids.index(one.grid), t] += one.award.direction.sign * one.award.quantity_kw
    return kw


# ---------------------------------------------------------------- offers' own terms, over rounds


@pytest.mark.spec("MKT-03")
def test_an_energy_limit_is_spent_once_over_all_rounds() -> None:
    """500 kWh of s3 go at 10, where it is cheapest first; at 12:30 and 19 the next ones serve 1500 and 2000."""
    world = changed(case(), "s3", UP, energy_limit_kwh=500)
    found = run(design(over("PT1H", 24)), world)
    assert kwh(found, "s3", UP) == 500
    assert sum(sold(world, found, 10 + q / 4).get("s3", 0) for q in range(4)) == 2000
    assert sold(world, found, 12.5) == {"w1": 1000, "n1": 500}
    assert sold(world, found, 19) == {"w1": 1000, "n1": 1000}


@pytest.mark.spec("MKT-03")
def test_a_block_is_sold_by_a_round_that_holds_all_of_it() -> None:
    """2000 kW of s3 from 10 to 11, all or none: a round of an hour buys it, rounds of half an hour buy around it."""
    start = case().axis[at(10)]
    world = changed(case(), "s3", UP, block=True, steps=(OfferStep(1, start, Decimal(20), (2000,) * 4),))
    whole = run(design(over("PT1H", 24)), world)
    assert sold(world, whole, 10) == {"s3": 2000, "w1": 1000, "n1": 1000}
    halves = run(design(over("PT30M", 48)), world)
    assert kwh(halves, "s3", UP) == 0
    assert [sold(world, halves, 10 + q / 4) for q in range(4)] == [WITHOUT_S3] * 4


@pytest.mark.spec("MKT-03")
@pytest.mark.parametrize("rolling", [False, True], ids=["two gates", "rounds"])
def test_a_block_is_not_decided_in_parts(rolling: bool) -> None:
    """The block from 10 to 11 lies in the horizon of a session that decides the time up to 10:30, or a quarter-hour:
    it is sold in all four quarter-hours or in none."""
    world = changed(case(), "s3", UP, block=True, steps=(OfferStep(1, case().axis[at(10)], Decimal(20), (2000,) * 4),))
    half = {"starts": "D", "ends": "D+1", "firm": "PT10H30M"}
    rest = {"starts": "D+PT10H30M", "ends": "D+1", "firm": "rest"}
    gates = (session("a", 6, sequence="z", horizon=half), session("b", 8, sequence="z", horizon=rest))
    ahead = over("PT15M", 96, horizon={"starts": "D", "ends": "D+PT3H", "firm": "PT15M"})
    found = run(design(*((ahead,) if rolling else gates)), world)
    assert kwh(found, "s3", UP) in (0, 2000)


@pytest.mark.spec("MKT-02")
def test_an_offer_is_gone_at_the_instant_until_which_it_is_valid() -> None:
    """The gate closes at 08:00 of the day before."""
    for minute, expected in ((0, WITHOUT_S3), (1, {"s3": 2000, "w1": 1000, "n1": 1000})):
        until = datetime(2016, 7, 4, 8, minute, tzinfo=ZONE)
        world = changed(case(), "s3", UP, valid_until=until)
        assert sold(world, run(design(session()), world), 10) == expected


def test_a_product_narrows_the_offers_to_its_own() -> None:
    world = changed(case(), "s1", UP, product="evening")
    found = run(design(session(product="evening")), world)
    assert {one.award.unit for one in found.bought} == {"s1"}
    assert sold(world, found, 10) == {"s1": 800}
    assert refused_for(design(session(product="morning")), world) == {"no_product"}


@pytest.mark.spec("MKT-03")
def test_offers_that_exclude_each_other_are_not_sold_in_two_sessions() -> None:
    """A quarter of 4000 is s3's at 20; w1, of the same label, is out, so n1, s1 and t1 give the rest."""
    world = case()
    for unit in ("s3", "w1"):
        world = changed(world, unit, UP, exclusive="either", provider="sp")
    found = run(design(session("first", 6, request_share=0.25), session("rest", 8)), world)
    assert sold(world, found, 10, "first") == {"s3": 1000}
    assert sold(world, found, 10, "rest") == {"n1": 1500, "s1": 800, "t1": 700}


@pytest.mark.spec("MKT-03")
def test_offers_that_exclude_each_other_are_not_sold_in_two_rounds() -> None:
    """s3 offers at 10 alone and is sold there; at 12:30 w1, of the same label, is out, as it is in one clearing."""
    world = case()
    for unit in ("s3", "w1"):
        world = changed(world, unit, UP, exclusive="either", provider="sp")
    world = changed(world, "s3", UP, steps=(OfferStep(1, case().axis[at(10)], Decimal(20), (2000,) * 4),))
    for rules in (design(session()), design(over("PT1H", 24))):
        found = run(rules, world)
        assert sold(world, found, 10) == {"s3": 2000, "n1": 1500, "s1": 500}
        assert sold(world, found, 12.5) == {"n1": 1500}


@pytest.mark.spec("MKT-03")
def test_a_block_that_a_light_cuts_somewhere_is_gone_everywhere() -> None:
    """2500 of the second quarter-hour are beyond s3's 2000 kW."""
    steps = (OfferStep(1, case().axis[at(10)], Decimal(1), (1000, 2500, 1000, 1000)),)
    world = changed(case(), "s3", UP, block=True, steps=steps)
    found = run(design(session()), world)
    assert [sold(world, found, 10 + q / 4) for q in range(4)] == [WITHOUT_S3] * 4


@pytest.mark.spec("MKT-03")
def test_a_least_quantity_is_of_all_steps_together() -> None:
    """1000 at 20 and 2000 at 21, no less than 1500, within a light of 2000 kW."""
    start = case().axis.start
    steps = tuple(OfferStep(n, start, Decimal(19 + n), (1000 * n,) * 96) for n in (1, 2))
    world = changed(case(), "s3", UP, min_quantity_kw=1500, steps=steps)
    assert sold(world, run(design(session()), world), 10) == {"s3": 2000, "w1": 1000, "n1": 1000}


def test_the_last_mobilised_of_the_clock_hour_is_found_over_all_rounds_in_it() -> None:
    """The dearest of 10 to 11 is t1 at 40, called in the last quarter-hour: it is paid in all four."""
    world = asking(case(), {})
    kw = world.system_kw.copy()
    kw[at(10) : at(11)] = [100, 4000, 100, 6000]
    world = replace(world, system_kw=kw)
    found = run(design(over("PT15M", 96, pricing="marginal")), world)
    assert len({one.award.start for one in found.bought}) == 4
    assert {one.award.price_eur_mwh for one in found.bought} == {Decimal(40)}


# ---------------------------------------------------------------- groups


def together(world: World, kw: int, price: int, members: tuple[str, ...] = ("s1", "s2")) -> World:
    """The case with an offer up of a group beside those of its units."""
    group = replace(stepped(world, "both", (kw, price), group="both"), receipt=999)
    return replace(world, offers=(*world.offers, group), groups={"both": members})


def test_a_group_sells_no_more_than_its_free_units() -> None:
    """300 kW of s1 are sold before under a product of its own, so of the group's 2300 at 1 its other unit can give 1500
    and s3 gives the rest of 2700."""
    world = changed(together(asking(case(), {5: 3000}), 2300, 1), "s1", UP, product="own")
    found = run(design(session("first", 6, product="own", request_share=0.1), session("next", 8)), world)
    assert sold(world, found, 5, "first") == {"s1": 300}
    assert sold(world, found, 5, "next") == {"s2": 1500, "s3": 1200}
    assert found.held[1].bought_kwh == 2700
    assert found.final.unbalanced_kwh == 0


def test_a_unit_sells_what_it_is_confirmed_for_alone_and_in_its_group_together() -> None:
    """s3's 2000 and w1's 1000 kW are all that they can give, in the group's 2000 at 1 or alone."""
    world = together(case(), 2000, 1, ("s3", "w1"))
    kw = sold(world, run(design(session()), world), 10)
    assert kw.get("s3", 0) <= 2000 and kw.get("w1", 0) <= 1000
    assert sum(kw.values()) == 4000


def test_two_gates_at_once_leave_a_group_the_units_that_neither_keeps() -> None:
    """With 0.4 MW too much on south's line at 19 the DSO keeps s1, so of the group's 1800 at 10 only s2's 1500 are
    there for the TSO's 2000."""
    world = changed(together(small(congestion=0.6), 1800, 10), "s1", UP, product="own")
    below = local("local", 6, product="own")
    central = session("central", 6, exclusion={"session": "local", "first": "local"})
    found = run(design(below, central), world)
    assert sold(world, found, 19, "local") == {"s1": 400}
    assert sold(world, found, 19, "central") == {"s2": 1500, "s3": 500}


@pytest.mark.spec("MKT-07")
@pytest.mark.parametrize("checked", [NORTH_LIGHT, {"validation": "merit_order"}], ids=["lights", "walk"])
def test_a_group_over_two_places_keeps_the_limits_at_each(checked: dict[str, Any]) -> None:
    """The group of n1 and s1 offers their 2300 kW at 1, and neither offers alone: n1's part is within the 500 kW of
    north's line, s1's 800 are called in full."""
    world = together(case(), 2300, 1, ("n1", "s1"))
    world = replace(world, offers=tuple(one for one in world.offers if one.unit not in ("n1", "s1")))
    found = run(design(session(**checked)), world)
    kw = sold(world, found, 10)
    assert 500 - SPARE_KW <= kw["n1"] <= 500 and kw["s1"] == 800
    assert found.final.violations_distribution == found.final.before_distribution


@pytest.mark.parametrize("term", [{"block": True}, {"min_quantity_kw": 500}, {"energy_limit_kwh": 500}])
def test_a_group_whose_terms_bind_its_units_is_refused(term: dict[str, Any]) -> None:
    world = together(case(), 1800, 10)
    tied = tuple(replace(one, **term) if one.group else one for one in world.offers)
    assert refused_for(design(session()), world) == set()
    assert refused_for(design(session()), replace(world, offers=tied)) == {"group_terms"}


# ---------------------------------------------------------------- what a request buys, and a contract


@pytest.mark.parametrize("transmission", ["ac", "dc"])
def test_requests_mend_no_limit_whether_or_not_something_is_asked(transmission: str) -> None:
    """One-two is 2 MW beyond its rating at 08. A session of requests sees it; 100 kW are asked for at 00 or nothing."""
    rules = design(session(grid={"distribution": "none", "transmission": transmission}))
    assert run(rules, without_needs(case())).bought == ()
    found = run(rules, asking(case(), {0: 100}))
    assert sold(case(), found, 0) == {"s3": 100}
    assert {one.award.unit for one in found.bought} == {"s3"} and sold(case(), found, 8) == {}


def test_a_dso_asks_for_no_energy_beside_its_limits() -> None:
    asks = local(needs="requests", grid={"distribution": "none", "transmission": "none"})
    assert refused_for(design(asks), case()) == {"no_requests_of_dso"}
    (told,) = obstacles(design(asks), case())
    assert told.place.endswith("local") and "assessment" in told.message


def contracts(admitted: bool) -> Design:
    """The DSOs hold n2 1000 kW each way under a conditional contract, and buy what their limits lack."""
    tender = {"lasts": "P1Y", "activation": "conditional"}
    admits = {"admits": ["year"]} if admitted else {}
    year = ready(
        id="year", buyers=["dso"], sellers={"levels": ["distribution"]}, services=["congestion"], tender=tender
    )
    return design(year, local(gate=7, **admits))


@pytest.mark.spec("MKT-13")
def test_a_contract_that_is_not_called_makes_no_offer_a_gain() -> None:
    """n3 pays 5 EUR/MWh to go down, which no limit needs: admitting n2's contract changes no award."""
    steps = tuple(
        replace(step, price_eur_mwh=Decimal(-5)) for o in case().offers if o.id == "energy-n3-down" for step in o.steps
    )
    world = changed(case(), "n3", DOWN, steps=steps)
    plain, with_it = run(contracts(False), world), run(contracts(True), world)
    assert held_kw(with_it, "year")["n2", "down"] == 24_000
    assert sold(world, with_it, 12) == {"n1": -1000}
    assert [one.award for one in with_it.bought] == [one.award for one in plain.bought]
    assert not [one for one in with_it.bought if one.award.unit == "n3"]


@pytest.mark.spec("MKT-13")
def test_a_conditional_contract_mends_what_free_offers_leave() -> None:
    """600 of the 1000 kW down at north/end are n1's, the rest n2's at its price of use, 45."""
    steps = (OfferStep(1, case().axis.start, Decimal(20), (600,) * 96),)
    world = changed(case(), "n1", DOWN, steps=steps)
    found = run(contracts(True), world)
    assert sold(world, found, 12) == {"n1": -600, "n2": -400}
    assert {one.award.price_eur_mwh for one in found.bought if one.award.unit == "n2"} == {Decimal(45)}
    assert sold(world, run(contracts(False), world), 12) == {"n1": -600}


@pytest.mark.spec("MKT-13")
def test_a_contract_that_is_called_makes_no_offer_a_gain() -> None:
    """n2 is called for 400 kW at 12; n3, which pays 5 EUR/MWh to go down, is needed then as little as at 04."""
    some = (OfferStep(1, case().axis.start, Decimal(20), (600,) * 96),)
    pays = (OfferStep(1, case().axis.start, Decimal(-5), (2000,) * 96),)
    world = changed(changed(case(), "n1", DOWN, steps=some), "n3", DOWN, steps=pays)
    found = run(contracts(True), world)
    assert sold(world, found, 12) == {"n1": -600, "n2": -400}
    assert sold(world, found, 4) == {}


# ---------------------------------------------------------------- lights and walks


def end_of_north(kw: dict[str, int]) -> int:
    """kW up at north/end."""
    return kw.get("n1", 0) + kw.get("n2", 0)


@pytest.mark.spec("MKT-07")
@pytest.mark.parametrize("checked", [NORTH_LIGHT, {"validation": "merit_order"}], ids=["lights", "walk"])
@pytest.mark.parametrize(("share", "room"), [(None, 500), (0.1, 100)])
def test_a_margin_is_kept_in_lights_and_walks(checked: dict[str, Any], share: float | None, room: int) -> None:
    """At 10 the line exports 3.5 of its 4 MW; a tenth of it kept free leaves 100 of the 500 kW."""
    margin = {} if share is None else {"security_margin": {"voltage_pu": 0.0, "loading_share": share}}
    kw = sold(case(), run(design(session(**checked, **margin)), case()), 10)
    assert room - SPARE_KW <= end_of_north(kw) <= room
    assert sum(kw.values()) == 4000


def test_units_without_a_perimeter_have_the_light_of_their_grid() -> None:
    sellers = tuple(replace(one, perimeter="") if one.grid == "north" else one for one in case().sellers)
    world = replace(case(), sellers=sellers)
    found = run(design(session(**NORTH_LIGHT)), world)
    assert 500 - SPARE_KW <= end_of_north(sold(world, found, 10)) <= 500
    assert found.final.violations_distribution <= found.final.before_distribution


@pytest.mark.spec("MKT-07")
def test_a_walk_over_more_lines_than_it_has_rounds_still_breaks_nothing() -> None:
    """Twenty units of 600 kW at north/end, each dearer than the last, one need of 600: room for 500 in all."""
    like = case().seller["n1"]
    names = [f"m{k:02}" for k in range(20)]
    sellers = (*case().sellers, *(replace(like, id=name, up_kw=600, down_kw=0) for name in names))
    offers = tuple(replace(stepped(case(), name, (600, k + 1)), receipt=5000 + k) for k, name in enumerate(names))
    world = replace(asking(case(), {10: 600}), sellers=sellers, offers=offers)
    found = run(design(session(validation="merit_order")), world)
    for q in range(4):
        assert 500 - SPARE_KW <= sum(sold(world, found, 10 + q / 4).values()) <= 500
    assert found.final.violations_distribution == found.final.before_distribution


# ---------------------------------------------------------------- capacity kept ready, all of it at once


def wanting(world: World, *services: Service) -> World:
    """The case in which the TSO wants 5000 kW up of each service, more than there is."""
    return replace(world, reserve_kw={(one, UP): np.full(len(world.axis), 5000) for one in services})


# n1's 498 kW kept ready and n2's 1000 rise together to a third each, so that n2 has 333 beside the 498.


@pytest.mark.spec("MKT-07")
@pytest.mark.parametrize(
    "checked",
    [
        NORTH_LIGHT,
        {"validation": "merit_order"},
        {"validation": "static_together"},
    ],
    ids=["lights", "walk", "filter"],
)
@pytest.mark.parametrize("apart", [False, True], ids=["one session", "two sessions"])
def test_all_capacity_together_fits_the_line(checked: dict[str, Any], apart: bool) -> None:
    """At north/end n1 offers 500 kW of FCR, n2 1000 of congestion management: at 10 the line bears 500 of both."""
    world = wanting(case(), Service.FCR, Service.CONGESTION)
    one = ready(services=["fcr", "congestion"], **checked)
    two = (ready(id="a", services=["fcr"], **checked), ready(id="b", gate=6, services=["congestion"], **checked))
    found = run(design(*(two if apart else (one,))), world)
    kw: dict[str, int] = defaultdict(int)
    for kept in found.reserved:
        if kept.start == world.axis[at(10)]:
            kw[kept.unit or ""] += kept.quantity_kw
    assert 0 < end_of_north(kw) <= 500
    assert kw["t1"] == 1000 and kw["t2"] == 2000


@pytest.mark.spec("MKT-07")
def test_capacity_in_two_perimeters_of_one_line_fits_it() -> None:
    """n2 in a perimeter of its own, beside n1: both are at north/end all the same."""
    sellers = tuple(replace(one, perimeter="north/other") if one.id == "n2" else one for one in case().sellers)
    world = replace(wanting(case(), Service.FCR, Service.CONGESTION), sellers=sellers)
    found = run(design(ready(services=["fcr", "congestion"], **NORTH_LIGHT)), world)
    kw = {one.unit or "": one.quantity_kw for one in found.reserved if one.start == world.axis[at(10)]}
    assert 0 < end_of_north(kw) <= 500


def test_a_light_for_energy_leaves_room_for_what_is_kept_ready() -> None:
    """n1 keeps 300 kW ready at north/end, so n2, which alone sells there, may sell 200 of the line's 500 kW."""
    cut = tuple(
        replace(o, offer=replace(o.offer, steps=(replace(o.offer.steps[0], quantity_kw=(300,) * 96),)))
        for o in case().capacity[Service.FCR]
        if o.offer.unit == "n1" and o.offer.direction is UP
    )
    world = replace(wanting(case(), Service.FCR), capacity={Service.FCR: cut})
    cheap = replace(stepped(world, "n2", (1000, 1)), receipt=999)
    world = replace(world, offers=(*(o for o in world.offers if o.unit != "n2"), cheap))
    found = run(design(ready(), session(**NORTH_LIGHT)), world)
    assert held_kw(found)["n1", "up"] == 300 * 24
    north = {unit: kw for unit, kw in sold(world, found, 10).items() if unit.startswith("n")}
    assert set(north) == {"n2"} and 200 - SPARE_KW <= north["n2"] <= 200


# ---------------------------------------------------------------- what is decided, and by whom


def test_a_gate_at_once_that_gives_up_what_it_held_for_a_while_leaves_nothing_of_it() -> None:
    """A first round of the later of two plans for the balance; with its final one the chain buys for its own limits
    alone, of what the DSO leaves. What is left flows, and nothing else."""
    plan = session(
        "plan",
        5,
        sequence="z",
        horizon={"starts": "D", "ends": "D+1", "firm": "none"},
        sellers={"levels": ["distribution"]},
    )
    above = {"distribution": "none", "transmission": "ac"}
    last = session(
        "last", 8, sequence="z", needs="assessment", grid=above, exclusion={"session": "local", "first": "local"}
    )
    found = run(design(plan, local("local", 8), last), case())
    assert found.held[0].awards > 0
    assert {one.award.session for one in found.bought} == {"local", "last"}
    assert all(one.award.status is Status.DEFINITIVE for one in found.bought)
    assert np.abs(found.final.interface_kw - moved_by_grid(case(), found.bought)).max() < 0.5
    # The plan for 10 has 1000 kW of n1 on a line with room for 500, which the DSO mends with the unit that is left.
    assert sold(case(), found, 10) == {"n2": -500}
    assert sold(case(), found, 15) == {}


def test_gates_at_once_in_rounds_keep_what_each_round_bought() -> None:
    """Two sessions of four rounds each: 1 MW down for north's line at 12 from n1, the balance from others; what the
    rounds say they bought is all there."""
    terms = {"repeat": {"every": "PT6H", "times": 4}, "horizon": {"starts": "D", "ends": "D+PT6H", "firm": "rest"}}
    first = local("local", 8, **terms)
    other = session("central", 8, exclusion={"session": "local", "first": "local"}, **terms)
    found = run(design(first, other), case())
    assert sold(case(), found, 12, "local-3") == {"n1": -1000}
    assert sold(case(), found, 10, "central-2") == {"s3": 2000, "w1": 1000, "n1": 1000}
    for held in found.held:
        mine = [one.award.quantity_kw for one in found.bought if one.award.session == held.session]
        assert sum(mine) / 4 == held.bought_kwh
    assert sum(held.awards for held in found.held) == len(found.bought)


def test_gates_at_once_in_unlike_rounds_are_refused() -> None:
    terms = {"repeat": {"every": "PT6H", "times": 4}, "horizon": {"starts": "D", "ends": "D+PT6H", "firm": "rest"}}
    with pytest.raises(Refused) as refused:
        design(local("local", 8), session("central", 8, exclusion={"session": "local", "first": "local"}, **terms))
    assert {one.code for one in refused.value.findings} == {"excluded_apart"}


def test_a_curve_is_sold_for_good() -> None:
    """What a grid promised to a session that may change its mind, nobody would take back."""
    while_open = {"horizon": {"starts": "D", "ends": "D+1", "firm": "none"}, "sequence": "c"}
    below = local(forward={"to": "first", "offers": "aggregated", "carry": "none"})
    rules = design(below, session("first", 7, interface="netted", **while_open), session("last", 8, sequence="c"))
    (told,) = obstacles(rules, case())
    assert told.code == "preliminary_aside" and told.place.endswith("first")


def test_a_grid_without_a_curve_offers_nothing_above() -> None:
    """Units below may balance and not relieve, so their grids' session for congestion has no curve: t1 serves all."""
    sellers = tuple(
        replace(one, services=tuple(s for s in one.services if s is not Service.CONGESTION)) for one in case().sellers
    )
    world = replace(case(), sellers=sellers)
    below = local(services=["congestion"], forward={"to": "central", "offers": "aggregated", "carry": "none"})
    found = run(design(below, session("central", 8, services=["balancing"])), world)
    assert sold(world, found, 10) == {"t1": 4000}
    assert not moved_by_grid(world, found.bought).any()


def test_a_buyer_knows_what_grids_promised_it() -> None:
    """What the TSO bought of the grids' curves they bring about under their own name; a later session of the TSO that
    is told nothing of others does not buy it again."""
    open_ = {"sequence": "below", "horizon": {"starts": "D", "ends": "D+1", "firm": "none"}}
    below = local("plan", 6, forward={"to": "central", "offers": "aggregated", "carry": "none"}, **open_)
    final = local("final", 8, sequence="below", interface="fixed")
    found = run(design(below, session("central", 7, interface="netted"), final, session("late", 9)), case())
    assert sum(sold(case(), found, 15, "final").values()) == -4000
    assert sold(case(), found, 15, "late") == sold(case(), found, 10, "late") == {}
    assert found.held[-1].bought_kwh <= 1
    assert found.final.unbalanced_kwh <= 1


def test_in_turn_each_grid_keeps_its_interface_and_the_system_buys_after() -> None:
    """At 12 north gives and takes 1 MW within (n1 down, n3 up), then -1500 come from w1 1000 at 25 and s1 500 at 30."""
    terms = {"buyers": ["dso", "tso"], "needs": "both", "grid": {"distribution": "ac", "transmission": "none"}}
    found = run(design(session(interface="fixed", **terms)), case())
    by_buyer: dict[str, dict[str | None, int]] = defaultdict(dict)
    for one in found.bought:
        if case().axis.position(one.award.start) == at(12):
            by_buyer[one.award.buyer][one.award.unit] = one.award.direction.sign * one.award.quantity_kw
    assert by_buyer == {"dso": {"n1": -1000, "n3": 1000}, "tso": {"w1": -1000, "s1": -500}}


# ---------------------------------------------------------------- sessions that answer each other


@pytest.mark.spec("MKT-08")
@pytest.mark.parametrize("at_most", [1, 2, 6])
def test_an_answer_keeps_its_own_spare_lines_ready_and_no_round_s_before(at_most: int) -> None:
    """A tenth of n1's 1000 kW down at 12 is n2's, in whatever round; at 19 and 21 nobody is left at the place."""
    below = local("below", 6, reserve_share=0.1)
    above = session("above", 8, interface="netted")
    found = run(design(below, above, iterate={"sessions": ["below", "above"], "at_most": at_most}), case())
    assert held_kw(found, "below") == {("n2", "down"): 100}
    assert [one.quantity_kw for one in found.reserved] == [100] * 4
    assert sold(case(), found, 12) == {"n1": -1000, "n3": -500}


# ---------------------------------------------------------------- inertia


@pytest.mark.spec("MKT-01")
def test_inertia_is_held_ready_at_the_price_of_the_dearest_that_is_needed() -> None:
    """20,000 kW s are asked for: t2 has 10,000 at 0.2, t1 gives as much at 0.5 EUR/MW and hour, all day."""
    rules = design(ready(trades="inertia", services=[], sellers={"levels": ["transmission"]}, pricing="pay_as_clear"))
    found = run(rules, case())
    held = {(one.unit, one.quantity_kw, one.availability_eur_mw_h, one.product) for one in found.reserved}
    assert held == {(unit, 10_000, Decimal("0.5"), "inertia") for unit in ("t1", "t2")}
    assert len(found.reserved) == 2 * 96 and not found.bought
    assert not any(one.uncovered for one in found.held)
