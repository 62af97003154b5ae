"""The gateway: what goes up fits lights and offers, what comes back adds up to the kilowatt and to the cent."""

from __future__ import annotations

import doctest
from collections import Counter, defaultdict
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coflex.domain.clearing import Award, Status
from coflex.domain.errors import CoflexError, Refused
from coflex.domain.light import Colour, DynamicLight
from coflex.domain.need import Request
from coflex.domain.offer import Offer
from coflex.domain.quantity import Direction
from coflex.market.gateway import (
    Acceptance,
    Forwarded,
    Kept,
    Missing,
    Spot,
    Wanted,
    aggregate,
    amounts,
    buy,
    owed,
    split,
)
from support.books import DOWN, START, UP, axis, offer

LATER = START + timedelta(minutes=15)
GATE = START - timedelta(hours=1)


def light(perimeter: str, direction: Direction, kw: int, period: int = 0) -> DynamicLight:
    start = START + period * timedelta(minutes=15)
    return DynamicLight("session", perimeter, direction, start, Colour.YELLOW, 10_000, kw, "line 7")


def of(one: Offer, provider: str) -> Offer:
    return replace(one, provider=provider)


def award(one: Offer, kw: int, unit: str | None) -> Award:
    price = one.steps[0].price_eur_mwh
    return Award(
        "local", one.id, 1, one.provider, "dso", one.product, unit, one.group, one.direction, START, kw, price, price,
        Status.DEFINITIVE,
    )  # fmt: skip


def forwarded(offers: list[Offer], lights: list[DynamicLight], periods: int = 1, **more: Any) -> Forwarded:
    spots = {one.unit or one.group or "": Spot("north", "feeder", "P") for one in offers}
    return aggregate(offers, axis(periods), more.pop("spots", spots), lights, GATE, **more)


def answers(listed: Forwarded, *kw: int) -> list[Acceptance]:
    return [Acceptance(line.id, part, START) for line, part in zip(listed.lines, kw, strict=True)]


def by_offer(awards: tuple[Award, ...]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for one in awards:
        found[one.offer] += one.quantity_kw
    return dict(found)


# ---------------------------------------------------------------- by hand


@pytest.mark.spec("MKT-14")
def test_equal_prices_of_a_place_become_one_line_and_the_list_stands_in_economic_order() -> None:
    offers = [offer(1, "a", UP, ("50", [100])), offer(2, "b", UP, ("40", [30])), offer(3, "c", UP, ("50", [20]))]
    spots = {"a": Spot("north", "f1"), "b": Spot("north", "f2"), "c": Spot("north", "f1")}
    listed = forwarded(offers, [], spots=spots)
    assert [(line.rank, line.tag, str(line.price_eur_mwh), line.quantity_kw) for line in listed.lines] == [
        (1, "f2", "40", 30),
        (2, "f1", "50", 120),
    ]
    assert listed.lines[0].id == "north/product/up/2016-06-01T00:00Z/1"
    assert listed.kept == ()


@pytest.mark.spec("MKT-14")
def test_a_line_never_mixes_areas_tags_parties_directions_or_quarter_hours() -> None:
    offers = [offer(i, name, UP if i < 5 else DOWN, ("50", [10, 10])) for i, name in enumerate("abcde", 1)]
    spots = {
        "a": Spot("north", "f1", "", "x"),
        "b": Spot("north", "f1", "", "y"),
        "c": Spot("north", "f2", "", "x"),
        "d": Spot("south", "f1", "", "x"),
        "e": Spot("north", "f1", "", "x"),
    }
    listed = forwarded(offers, [], 2, spots=spots)
    assert len(listed.lines) == 10 and all(line.quantity_kw == 10 for line in listed.lines)
    assert len({line.id for line in listed.lines}) == 10


@pytest.mark.spec("MKT-14")
def test_the_light_is_filled_cheapest_first_and_what_it_cuts_is_said() -> None:
    """60 kW fit: all 40 kW at 30, then 20 of the 50 kW at 45 that came first, none of the other 50."""
    offers = [offer(2, "late", UP, ("45", [50])), offer(1, "early", UP, ("45", [50])), offer(3, "c", UP, ("30", [40]))]
    listed = forwarded(offers, [light("P", UP, 60)])
    assert [(line.price_eur_mwh, line.quantity_kw) for line in listed.lines] == [(30, 40), (45, 20)]
    assert [(one.offer, one.quantity_kw, one.reason) for one in listed.kept] == [
        ("offer 1", 30, Kept.LIGHT),
        ("offer 2", 50, Kept.LIGHT),
    ]
    assert by_offer(split(listed, answers(listed, 40, 20), "tso-1", "tso").awards) == {"offer 3": 40, "offer 1": 20}


@pytest.mark.spec("MKT-14")
def test_the_light_binds_all_products_of_a_perimeter_and_the_narrower_of_two_counts() -> None:
    other = replace(offer(2, "b", UP, ("20", [50])), product="other")
    offers = [offer(1, "a", UP, ("45", [50])), other]
    listed = forwarded(offers, [light("P", UP, 70), light("P", UP, 90)])
    assert {line.product: line.quantity_kw for line in listed.lines} == {"other": 50, "product": 20}


@pytest.mark.spec("MKT-14")
def test_what_is_not_forwarded_and_why() -> None:
    offers = [
        offer(1, "a", UP, ("10", [11]), local_only=True),
        offer(2, "b", UP, ("10", [12]), block=True),
        offer(3, "c", UP, ("10", [13]), energy_limit_kwh=5),
        offer(4, "d", UP, ("10", [14]), valid_until=GATE - timedelta(seconds=1)),
        offer(5, "e", UP, ("10", [15])),
        offer(6, "f", DOWN, ("10", [16])),
        offer(7, "g", UP, ("10", [17])),
        offer(8, "h", UP, ("10", [18]), valid_until=GATE),
    ]
    listed = forwarded(offers, [light("P", UP, 1000)], sold=[award(offers[4], 5, "e")], room_kw={("g", START): 7})
    assert [(one.offer, one.quantity_kw, one.reason) for one in listed.kept] == [
        ("offer 1", 11, Kept.LOCAL_ONLY),
        ("offer 2", 12, Kept.TERMS),
        ("offer 3", 13, Kept.TERMS),
        ("offer 4", 14, Kept.EXPIRED),
        ("offer 5", 10, Kept.HELD),
        ("offer 6", 16, Kept.NO_LIGHT),
        ("offer 7", 10, Kept.HELD),
    ]
    assert [line.quantity_kw for line in listed.lines] == [7 + 18]


@pytest.mark.spec("MKT-14", "MKT-09")
def test_a_group_that_sold_a_part_forwards_the_rest_and_a_unit_that_did_forwards_nothing() -> None:
    group = replace(offer(1, "", UP, ("10", [100])), unit=None, group="g")
    unit = offer(2, "u", UP, ("10", [100]))
    listed = forwarded([group, unit], [light("P", UP, 1000)], sold=[award(group, 30, None), award(unit, 30, "u")])
    assert [(share.offer.id, share.quantity_kw) for line in listed.lines for share in line.shares] == [("offer 1", 70)]


@pytest.mark.spec("MKT-14", "MKT-09")
def test_what_a_seller_can_still_give_holds_for_all_its_steps_together() -> None:
    listed = forwarded([offer(1, "g", UP, ("10", [8]), ("20", [8]))], [light("P", UP, 99)], room_kw={("g", START): 10})
    assert [(line.price_eur_mwh, line.quantity_kw) for line in listed.lines] == [(10, 8), (20, 2)]


@pytest.mark.spec("MKT-14")
def test_small_prices_are_joined_until_the_tso_takes_them_and_each_is_still_paid_its_own() -> None:
    """Smallest line 1 MW: 600 at 20 and 700 at 30 make one at 30; 400 at 90 stay. 800 kW for a quarter-hour cost
    0.15 MWh x 20 + 0.05 MWh x 30 = 4.50 EUR, less than 0.2 MWh x 30."""
    offers = [
        of(offer(1, "a", UP, ("20", [600])), "sp1"),
        of(offer(2, "b", UP, ("30", [700])), "sp2"),
        of(offer(3, "c", UP, ("90", [400])), "sp1"),
    ]
    listed = forwarded(offers, [light("P", UP, 9000)], least_kw=1000)
    assert [(line.price_eur_mwh, line.quantity_kw) for line in listed.lines] == [(30, 1300)]
    assert [(one.offer, one.reason) for one in listed.kept] == [("offer 3", Kept.TOO_SMALL)]
    done = split(listed, answers(listed, 800), "tso-1", "tso")
    assert [(one.provider, one.cents) for one in amounts(done.awards, listed.axis)] == [("sp1", 300), ("sp2", 150)]
    assert owed(listed, {listed.lines[0].id: 800}) == Decimal("4.50")


@pytest.mark.spec("MKT-14")
def test_the_awards_say_who_sold_what_to_whom() -> None:
    listed = forwarded([of(offer(1, "a", DOWN, ("-4.10", [90])), "sp1")], [light("P", DOWN, 90)])
    (one,) = split(listed, answers(listed, 50), "mfrr-7", "tso").awards
    assert (one.session, one.buyer, one.provider, one.unit, one.step) == ("mfrr-7", "tso", "sp1", "a", 1)
    assert (one.direction, one.start, one.quantity_kw, one.bid_eur_mwh) == (DOWN, START, 50, Decimal("-4.10"))
    assert one.price_eur_mwh == one.bid_eur_mwh


@pytest.mark.spec("MKT-14")
def test_wrong_answers_are_refused_by_name_and_the_others_stand() -> None:
    offers = [offer(i, name, UP, (str(10 * i), [100])) for i, name in enumerate("abcde", 1)]
    listed = forwarded(offers, [light("P", UP, 1000)])
    a, b, c, d, e = (line.id for line in listed.lines)
    given_ = [
        Acceptance("north/none", 5, START),
        Acceptance(a, 101, START),
        Acceptance(b, -1, START),
        Acceptance(c, 40, START + timedelta(minutes=5)),
        Acceptance(d, 40, START),
        Acceptance(d, 40, START + timedelta(hours=1)),
        Acceptance(d, 60, START + timedelta(minutes=1)),
        Acceptance(e, 0, START),
    ]
    done = split(listed, given_, "tso-1", "tso", deadline=START + timedelta(minutes=2))
    assert {(found.place, found.code) for found in done.findings} == {
        ("line north/none", "unknown_line"),
        (f"line {a}", "over_accepted"),
        (f"line {b}", "negative"),
        (f"line {c}", "late"),
        (f"line {d}", "answered_twice"),
    }
    assert by_offer(done.awards) == {"offer 4": 40}
    assert done.unanswered == (a, b, c)


@pytest.mark.spec("MKT-14", "MKT-09")
def test_no_unit_is_sold_in_both_directions_or_both_by_itself_and_in_its_group() -> None:
    group = replace(offer(3, "", UP, ("30", [60])), unit=None, group="g")
    offers = [offer(1, "a", UP, ("10", [50])), offer(2, "a", DOWN, ("5", [50])), group]
    lights = [light("P", UP, 1000), light("P", DOWN, 1000)]
    listed = forwarded(offers, lights, units={"g": ("a", "b")})
    up, group_up, down = listed.lines
    in_time = [Acceptance(down.id, 20, START), Acceptance(up.id, 10, LATER), Acceptance(group_up.id, 10, LATER)]
    done = split(listed, in_time, "tso-1", "tso")
    assert by_offer(done.awards) == {"offer 2": 20}
    assert [found.code for found in done.findings] == ["sold_twice", "sold_twice"]


@pytest.mark.spec("MKT-14")
def test_an_active_tso_buys_the_cheapest_within_its_limit_and_learns_what_is_missing() -> None:
    offers = [offer(1, "a", UP, ("10", [50])), offer(2, "b", UP, ("20", [50])), offer(3, "c", UP, ("80", [50]))]
    listed = forwarded(offers, [light("P", UP, 1000)])
    request = Request("tso-1", "tso", "product", UP, START, 120, 0, Decimal(40))
    wanted = Wanted(request, "north")
    accepted, missing = buy(listed, [wanted, Wanted(request, "north", "elsewhere")], GATE)
    assert by_offer(split(listed, accepted, "tso-1", "tso").awards) == {"offer 1": 50, "offer 2": 50}
    assert missing == (Missing(wanted, 20), Missing(Wanted(request, "north", "elsewhere"), 120))


@pytest.mark.spec("MKT-14", "MKT-09")
def test_an_active_tso_does_not_buy_a_unit_in_both_directions() -> None:
    offers = [offer(1, "a", UP, ("10", [50])), offer(2, "a", DOWN, ("5", [50])), offer(3, "b", DOWN, ("6", [30]))]
    listed = forwarded(offers, [light("P", UP, 1000), light("P", DOWN, 1000)])
    up = Wanted(Request("s", "tso", "product", UP, START, 10, 0, Decimal(90)), "north")
    down = Wanted(Request("s", "tso", "product", DOWN, START, 40, 0, Decimal(80)), "north")
    accepted, missing = buy(listed, [down, up], GATE)
    done = split(listed, accepted, "s", "tso")
    assert by_offer(done.awards) == {"offer 1": 10, "offer 3": 30}
    assert missing == (Missing(down, 10),) and done.findings == ()


@pytest.mark.spec("MKT-14")
def test_the_request_with_the_higher_limit_is_served_first() -> None:
    listed = forwarded([offer(1, "a", UP, ("10", [50]))], [light("P", UP, 1000)])
    dear = Wanted(Request("s", "tso 2", "product", UP, START, 40, 0, Decimal(90)), "north")
    cheap = Wanted(Request("s", "tso 1", "product", UP, START, 40, 0, Decimal(30)), "north")
    for order in ([dear, cheap], [cheap, dear]):
        accepted, missing = buy(listed, order, GATE)
        assert [one.quantity_kw for one in accepted] == [50] and missing == (Missing(cheap, 30),)


@pytest.mark.spec("MKT-14")
def test_faults_of_what_is_given_are_all_named() -> None:
    twice = [offer(1, "a", UP, ("10", [5]), name="x"), offer(2, "b", UP, ("10", [5]), name="x")]
    with pytest.raises(Refused) as caught:
        forwarded(twice, [], spots={"a": Spot("north", "f")})
    assert {found.code for found in caught.value.findings} == {"offer_twice", "no_spot"}
    with pytest.raises(CoflexError, match="smallest line"):
        forwarded([], [], least_kw=0)
    listed = forwarded([offer(1, "a", UP, ("10", [5]))], [light("P", UP, 1000)])
    with pytest.raises(CoflexError, match="not forwarded"):
        owed(listed, {listed.lines[0].id: 6})


# ---------------------------------------------------------------- laws


@st.composite
def markets(draw: st.DrawFn, directions: tuple[Direction, ...] = (UP, DOWN)) -> dict[str, Any]:
    """Offers of units of two feeders, two prices a step, and a light of each; one seller an offer."""
    count = draw(st.integers(1, 7))
    offers = []
    for i in range(count):
        prices = sorted(draw(st.lists(st.integers(-500, 9000), min_size=1, max_size=2, unique=True)))
        steps = [(str(Decimal(p) / 100), draw(st.lists(st.integers(0, 60), min_size=2, max_size=2))) for p in prices]
        one = offer(i + 1, f"u{i}", draw(st.sampled_from(directions)), *steps)
        offers.append(of(one, draw(st.sampled_from(["sp1", "sp2", "sp3"]))))
    spots = {
        f"u{i}": Spot(draw(st.sampled_from(["n", "s"])), f"f{i % 2}", f"P{i % 2}", draw(st.sampled_from(["x", "y"])))
        for i in range(count)
    }
    lights = [
        light(f"P{p}", direction, draw(st.integers(0, 200)), t)
        for p in (0, 1)
        for direction in (UP, DOWN)
        for t in (0, 1)
    ]
    return {"offers": offers, "spots": spots, "lights": lights, "least_kw": draw(st.sampled_from([1, 1, 50]))}


def run(market: dict[str, Any]) -> Forwarded:
    more = {key: value for key, value in market.items() if key not in ("offers", "lights")}
    return forwarded(market["offers"], market["lights"], 2, **more)


@pytest.mark.spec("MKT-14")
@settings(max_examples=80, deadline=None)
@given(markets(), st.data())
def test_split_adds_to_what_was_accepted_and_stays_within_lights_and_offers(
    market: dict[str, Any], data: st.DataObject
) -> None:
    listed = run(market)
    accepted = {line.id: data.draw(st.integers(0, line.quantity_kw)) for line in listed.lines}
    done = split(listed, [Acceptance(name, kw, START) for name, kw in accepted.items()], "tso-1", "tso")
    assert done.findings == () and done.unanswered == ()
    assert sum(one.quantity_kw for one in done.awards) == sum(accepted.values())
    offered = {
        (one.id, step.number, START + i * timedelta(minutes=15)): kw
        for one in market["offers"]
        for step in one.steps
        for i, kw in enumerate(step.quantity_kw)
    }
    lit: Counter[Any] = Counter()
    for one in done.awards:
        assert 0 < one.quantity_kw <= offered[(one.offer, one.step, one.start)]
        lit[(market["spots"][one.unit].perimeter, one.direction, one.start)] += one.quantity_kw
    allowed = {(lamp.perimeter, lamp.direction, lamp.start): lamp.capability_kw for lamp in market["lights"]}
    assert all(kw <= allowed[lamp] for lamp, kw in lit.items())
    # To the cent: what the TSO owes is what the providers receive, and each is paid its own bids.
    paid = amounts(done.awards, listed.axis)
    assert Decimal(sum(one.cents for one in paid)) / 100 == owed(listed, accepted)
    exact: dict[str, Decimal] = defaultdict(Decimal)
    for one in done.awards:
        exact[one.provider] += one.bid_eur_mwh * one.quantity_kw / 4000
    assert all(one.exact_eur == exact[one.provider] and abs(one.cents - 100 * one.exact_eur) < 1 for one in paid)
    ceiling = sum(line.price_eur_mwh * accepted[line.id] / 4000 for line in listed.lines)
    assert sum(exact.values()) <= ceiling


@pytest.mark.spec("MKT-14")
@settings(max_examples=60, deadline=None)
@given(markets())
def test_all_that_is_offered_is_forwarded_or_kept_and_all_that_is_accepted_comes_back(market: dict[str, Any]) -> None:
    """The round trip: accept everything, and every offer has what was forwarded of it; with room in the lights and no
    smallest line that is all of it."""
    listed = run(market)
    back = by_offer(split(listed, answers(listed, *(line.quantity_kw for line in listed.lines)), "s", "tso").awards)
    kept: Counter[str] = Counter()
    for one in listed.kept:
        kept[one.offer] += one.quantity_kw
    whole = {one.id: sum(sum(step.quantity_kw) for step in one.steps) for one in market["offers"]}
    assert {name: back.get(name, 0) + kept[name] for name in whole} == whole
    wide = [replace(lamp, capability_kw=10_000) for lamp in market["lights"]]
    listed = run(market | {"lights": wide, "least_kw": 1})
    done = split(listed, answers(listed, *(line.quantity_kw for line in listed.lines)), "s", "tso")
    assert by_offer(done.awards) == {name: kw for name, kw in whole.items() if kw}


@pytest.mark.spec("MKT-14", "MKT-19")
@settings(max_examples=60, deadline=None)
@given(markets(), st.data())
def test_any_order_of_offers_lights_and_answers_gives_the_same(market: dict[str, Any], data: st.DataObject) -> None:
    first = run(market)
    shuffled = market | {name: data.draw(st.permutations(market[name])) for name in ("offers", "lights")}
    second = run(shuffled)
    assert (first.lines, first.kept) == (second.lines, second.kept)
    given_ = [
        Acceptance(line.id, data.draw(st.integers(-1, line.quantity_kw + 1)), START + timedelta(minutes=minutes))
        for line in first.lines
        for minutes in data.draw(st.lists(st.integers(0, 3), max_size=2))
    ]
    one = split(first, given_, "s", "tso", deadline=START + timedelta(minutes=2))
    two = split(second, data.draw(st.permutations(given_)), "s", "tso", deadline=START + timedelta(minutes=2))
    assert (one.awards, one.findings, one.unanswered) == (two.awards, two.findings, two.unanswered)


@pytest.mark.spec("MKT-14")
@settings(max_examples=60, deadline=None)
@given(markets(), st.data())
def test_partial_answers_of_a_line_are_filled_cheapest_first(market: dict[str, Any], data: st.DataObject) -> None:
    """No award of a line is dearer than a bid behind the same line that was not used up."""
    listed = run(market | {"least_kw": 50})
    for line in listed.lines:
        kw = data.draw(st.integers(0, line.quantity_kw))
        got = {(one.offer, one.step): one for one in split(listed, [Acceptance(line.id, kw, START)], "s", "t").awards}
        dearest = max((one.bid_eur_mwh for one in got.values()), default=Decimal("-Infinity"))
        for share in line.shares:
            used = got[(share.offer.id, share.step)].quantity_kw if (share.offer.id, share.step) in got else 0
            assert used == share.quantity_kw or share.price_eur_mwh >= dearest


@pytest.mark.spec("MKT-14")
@settings(max_examples=60, deadline=None)
@given(
    markets(), st.lists(st.tuples(st.sampled_from([UP, DOWN]), st.integers(1, 150), st.integers(0, 100)), max_size=4)
)
def test_what_an_active_tso_buys_is_always_a_valid_answer(
    market: dict[str, Any], asked: list[tuple[Direction, int, int]]
) -> None:
    listed = run(market)
    wanted = [
        Wanted(Request(f"s{i}", "tso", "product", direction, START, kw, 0, Decimal(limit)), "n")
        for i, (direction, kw, limit) in enumerate(asked)
    ]
    accepted, missing = buy(listed, wanted, GATE)
    done = split(listed, accepted, "s", "tso")
    assert done.findings == ()
    bought = sum(one.quantity_kw for one in done.awards)
    assert bought + sum(one.quantity_kw for one in missing) == sum(kw for _, kw, _ in asked)
    for one in missing:
        request = one.wanted.request
        open_ = [
            line
            for line in listed.lines
            if (line.area, line.direction, line.start) == ("n", request.direction, START)
            and line.price_eur_mwh <= request.price_limit_eur_mwh
        ]
        # Whatever it could have bought is sold out.
        assert all(line.quantity_kw == {a.line: a.quantity_kw for a in accepted}.get(line.id, 0) for line in open_)


def test_the_worked_example_of_the_page() -> None:
    page = Path(__file__).parents[2] / "docs/mathematics/gateway.md"
    result = doctest.testfile(str(page), module_relative=False)
    assert result.attempted and not result.failed
