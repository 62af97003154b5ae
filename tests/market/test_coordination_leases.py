"""Sessions that let storage: the small case's auction by hand, who then holds the unit, and rounds that let anew."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coflex.domain.clearing import Status
from coflex.domain.errors import Refused
from coflex.domain.time import Axis
from coflex.market.coordination.outcome import Actor, LeaseAgreement, Run
from coflex.market.coordination.run import obstacles, run
from coflex.market.coordination.world import LeaseRequest, StorageLot, World
from coflex.market.design import Buyer, Design, load_design, read_design
from coflex.market.design.exchanges import Phase, exchanges
from coflex.market.leasing import Bundle, Device, LeaseBid, Storage
from coflex.reporting.coordination.kpis import kpis
from coflex.simulation.coordination import case

NAME = "flexgrid_storage_leasing"
GOLDEN = Path(__file__).parents[1] / "golden" / "designs" / f"{NAME}.yaml"
HOUR = timedelta(hours=1)
DEVICE = Device(2000, 2000, 4000)


@cache
def small() -> World:
    return case("small")


def session(id: str = "let", gate: int = 8, **terms: Any) -> dict[str, Any]:
    return {
        "id": id,
        "buyers": ["dso", "tso", "brp"],
        "priority": "none",
        "sellers": {"levels": ["distribution", "transmission"]},
        "trades": "storage_capacity",
        "gate": {"opens": "D-2T08:00", "closes": f"D-1T{gate:02d}:00"},
        "horizon": {"starts": "D", "ends": "D+1", "firm": "rest"},
        "needs": "requests",
        "grid": {"distribution": "none", "transmission": "none"},
        "interface": "free",
        "pricing": "pay_as_bid",
        "validation": "none",
    } | terms


def energy(id: str = "energy", gate: int = 12, **terms: Any) -> dict[str, Any]:
    """The TSO's balancing need from any unit, paid as bid."""
    sold = session(id, gate, buyers=["tso"], trades="active_energy", **terms)
    del sold["priority"]
    return sold


def design(*sessions: dict[str, Any]) -> Design:
    head = {"id": "test", "title": "test", "source": {"document": "F", "section": "5.2.6"}}
    return read_design(yaml.safe_dump(head | {"sessions": list(sessions)}, sort_keys=False), "test.yaml")


def lot(unit: str = "", kw: int = 2000, kwh: int = 4000, name: str = "lot", **more: Any) -> StorageLot:
    """Hour by hour, without a reserve; at south unless it is a seller of the case."""
    hours = Axis(small().axis.start, 24, HOUR)
    storage = Storage(name, "owner", DEVICE, hours, 24 * (kw,), 24 * (kwh,), **more)
    return StorageLot(storage, small().seller[unit].grid if unit else "south", unit)


def request(
    receipt: int, price: str, kw: int, hours: tuple[int, int], buyer: Buyer = Buyer.BRP, of: str = "lot", **more: Any
) -> LeaseRequest:
    start = small().axis.start
    bundle = Bundle(start + hours[0] * HOUR, start + hours[1] * HOUR, kw, 1)
    lessee = more.pop("lessee", f"l{receipt}")
    return LeaseRequest(of, buyer, LeaseBid(f"b{receipt}", receipt, lessee, (bundle,), Decimal(price), **more))


def with_storage(lots: list[StorageLot], bids: list[LeaseRequest]) -> World:
    return replace(small(), lots=tuple(lots), lease_bids=tuple(bids))


def won(found: Run) -> dict[str, Decimal]:
    return {one.lease.bid.id: one.lease.payment_eur for one in found.leases}


def sold_hours(found: Run, unit: str, name: str = "energy") -> set[float]:
    """Hours in which a session bought of a unit."""
    start = small().axis.start
    mine = [one.award for one in found.bought if one.award.unit == unit and one.award.session == name]
    return {(award.start - start) / HOUR for award in mine}


# ---------------------------------------------------------------- the design that comes with coflex


@cache
def shipped() -> Run:
    return run(load_design(NAME), small())


@pytest.mark.spec("MKT-01", "MKT-17")
def test_the_auction_of_the_small_case_is_that_of_its_golden_file() -> None:
    """Evening: the highest losing bid of equal halves; night: the reserve; noon: below it."""
    stated = yaml.safe_load(GOLDEN.read_text(encoding="utf-8"))["leases"]
    start = small().axis.start
    found = {}
    for one in shipped().leases:
        (bundle,) = one.lease.bid.bundles
        when = "-".join(f"{(at - start) // HOUR:02d}:00" for at in (bundle.start, bundle.end))
        terms = (one.lease.bid.lessee, one.buyer, bundle.power_kw, bundle.energy_kwh, float(one.lease.payment_eur))
        found[when, terms] = one.status
    assert found == {(line["when"], tuple(line["is"])): Status.DEFINITIVE for line in stated["lines"]}
    (held,) = shipped().held
    assert held.cost_eur == stated["eur"] == sum(line["is"][4] for line in stated["lines"])
    assert (held.offers, held.awards) == (1, 3)
    assert held.remark == "3 of 5 bids lease storage; lost: 1 below_reserve, 1 outbid"


@pytest.mark.spec("MKT-17")
def test_as_bid_lessees_pay_what_they_bid() -> None:
    paid = won(run(design(session()), small()))
    assert paid == {
        "store-evening-dso": Decimal("40.00"),
        "store-evening-one": Decimal("30.00"),
        "store-night": Decimal("60.00"),
    }


@pytest.mark.spec("MKT-17")
def test_leases_move_nothing_and_cost_operators_nothing_in_the_indicators() -> None:
    bare = run(design(energy(sellers={"levels": ["distribution"]}, services=["inertia"])), small())
    assert not bare.bought and not shipped().bought and not shipped().reserved
    assert shipped().final.violations_distribution == bare.final.violations_distribution == 12
    assert shipped().final.mended_eur == bare.final.mended_eur
    told = kpis(shipped(), small(), None)
    assert (told.cost_procurement_eur, told.cost_availability_eur, told.reserved_mw_h) == (0, 0, 0)


@pytest.mark.spec("MKT-17")
def test_messages_of_an_auction_count_lots_owners_and_bids() -> None:
    """One lot, one owner, three distribution grids, three bids of providers; nobody orders or measures a lease."""
    told = {(one.sender, one.receiver, one.information): one.count for one in shipped().messages if one.session}
    provider, runs, party = Actor.SERVICE_PROVIDER, Actor.MARKET_OPERATOR, Actor.BALANCE_RESPONSIBLE_PARTY
    assert told[provider, runs, "offers"] == 1
    assert told[party, runs, "requests"] == 3
    assert told[Actor.DSO, runs, "requests"] == 3 and told[Actor.TSO, runs, "requests"] == 1
    assert told[runs, provider, "results"] == told[runs, provider, "settlement"] == 1
    before = {one.information: one.count for one in shipped().messages if one.sender is provider and not one.session}
    assert before == {"qualification_request": 1}
    made = exchanges(load_design(NAME))
    assert not [one for one in made if one.phase is Phase.DELIVERY or one.information == "baseline"]


@pytest.mark.spec("MKT-17")
def test_the_reference_case_lets_within_its_batteries_and_pays_within_bid_and_reserve() -> None:
    world = case("reference")
    found = run(load_design(NAME), world)
    assert len({one.buyer for one in found.leases}) >= 2 and len({one.lot for one in found.leases}) == len(world.lots)
    assert_within(world, found)
    for one in world.lots:
        assert one.storage.power_kw[0] <= min(world.seller[one.unit].up_kw, world.seller[one.unit].down_kw)
    few = run(load_design(NAME), case("reference", liquidity=0.0))
    assert not few.leases and few.held[0].offers == len(world.lots)


def assert_within(world: World, found: Run) -> None:
    """No more let of a lot than it offers in any of its windows; payments between reserve and bid."""
    for one in world.lots:
        storage = one.storage
        let = np.zeros((2, len(storage.windows)))
        for lease in (held.lease for held in found.leases if held.lot == one.id):
            least = Decimal(0)
            for bundle in lease.bid.bundles:
                for w, start in enumerate(storage.windows):
                    if bundle.start <= start < bundle.end:
                        let[:, w] += bundle.power_kw, bundle.energy_kwh
                        least += bundle.power_kw * storage.reserve_power_eur_mw_h / 1000
                        least += bundle.energy_kwh * storage.reserve_energy_eur_mwh_h / 1000
            assert least <= lease.payment_eur <= lease.bid.price_eur
        assert (let <= np.array([storage.power_kw, storage.energy_kwh])).all()


# ---------------------------------------------------------------- who holds the unit


@pytest.mark.spec("MKT-09", "MKT-17")
def test_what_is_let_is_sold_by_no_other_session_and_free_outside_its_windows() -> None:
    """The need at 10 and at 19 takes s3 first, at 20 EUR/MWh; once s3 is let from 10 to 12, only at 19."""
    world = with_storage([lot("s3")], [request(1, "9", 1000, (10, 12))])
    bare = run(design(session(), energy()), replace(world, lease_bids=()))
    assert {10.0, 10.75, 19.0, 19.25} <= sold_hours(bare, "s3")
    found = run(design(session(), energy()), world)
    assert won(found) == {"b1": Decimal("9.00")}
    assert sold_hours(found, "s3") == {at for at in sold_hours(bare, "s3") if not 10 <= at < 12}
    assert found.leases[0].unit == "s3" and found.leases[0].owner == "owner"


@pytest.mark.spec("MKT-09", "MKT-17")
def test_what_is_sold_already_is_not_let() -> None:
    """Energy first: s3 is held at 10 and 19, so leases that touch those hours lose, those beside them win."""
    bids = [request(1, "9", 1000, (9, 11)), request(2, "5", 1000, (11, 12)), request(3, "4", 1000, (19, 20))]
    found = run(design(energy(gate=6), session(gate=8)), with_storage([lot("s3")], bids))
    assert {10.0, 19.0} <= sold_hours(found, "s3")
    assert won(found) == {"b2": Decimal("5.00")}
    assert found.held[1].remark == "1 of 3 bids lease storage; lost: 2 too_large"


@pytest.mark.spec("MKT-09", "MKT-17")
def test_capacity_kept_ready_all_day_leaves_nothing_to_let() -> None:
    """aFRR takes s3, the cheapest, for 1000 of 1500 kW up and down."""
    ready = session("ready", 6, buyers=["tso"], trades="active_capacity", services=["afrr"])
    del ready["priority"]
    world = with_storage([lot("s3")], [request(1, "9", 10, (3, 4))])
    found = run(design(ready, session(gate=8)), world)
    assert any(one.unit == "s3" for one in found.reserved) and not found.leases
    turned = run(design(session(gate=5), ready), world)
    assert won(turned) == {"b1": Decimal("9.00")}
    kept = {(one.start - world.axis.start) / HOUR for one in turned.reserved if one.unit == "s3"}
    assert kept == {q / 4 for q in range(96)} - {3.0, 3.25, 3.5, 3.75}


@pytest.mark.spec("MKT-17")
def test_a_lot_let_by_one_session_is_not_let_in_the_same_hours_by_another() -> None:
    """Half of it is left at 10, and belongs to who has let the other half; 11 is free. Seller or not."""
    for unit in ("", "s3"):
        bids = [
            request(1, "9", 1000, (10, 11), Buyer.TSO),
            request(2, "9", 10, (10, 11)),
            request(3, "9", 10, (11, 12)),
        ]
        first, second = session("a", 6, buyers=["tso"]), session("b", 8, buyers=["brp"])
        del first["priority"], second["priority"]
        found = run(design(first, second), with_storage([lot(unit)], bids))
        assert [(one.session, one.lease.bid.id) for one in found.leases] == [("a", "b1"), ("b", "b3")]


@pytest.mark.spec("MKT-17")
def test_a_static_light_bounds_the_power_that_is_let() -> None:
    """s1 is confirmed for 800 kW either way, its lot has 2000."""
    world = with_storage([lot("s1")], [request(1, "9", 1300, (3, 4)), request(2, "5", 800, (3, 4))])
    assert set(won(run(design(session(validation="static")), world))) == {"b2"}
    assert set(won(run(design(session(validation="none")), world))) == {"b1"}


# ---------------------------------------------------------------- hours, buyers, order


@pytest.mark.spec("MKT-17")
def test_leases_stay_within_the_horizon_and_the_hours_of_the_tender() -> None:
    bids = [request(n + 1, "5", 10, hours) for n, hours in enumerate([(5, 7), (6, 8), (8, 9), (17, 18), (20, 22)])]
    world = with_storage([lot()], bids)
    tender = session(tender={"lasts": "P1Y", "windows": ["06:00/08:00", "17:00/21:00"]})
    assert set(won(run(design(tender), world))) == {"b2", "b4"}
    half = session(horizon={"starts": "D+PT6H", "ends": "D+PT18H", "firm": "rest"})
    assert set(won(run(design(half), world))) == {"b2", "b3", "b4"}


@pytest.mark.spec("MKT-17")
def test_buyers_in_turn_come_before_value_and_one_auction_after_it() -> None:
    """One place. Together the 9 EUR of a provider win; in turn the DSO's 2; bilateral the first provider's 5."""
    bids = [
        request(1, "5", 2000, (3, 4)),
        request(2, "9", 2000, (3, 4)),
        request(3, "2", 2000, (3, 4), Buyer.DSO),
    ]
    world = with_storage([lot()], bids)
    assert set(won(run(design(session()), world))) == {"b2"}
    listed = session(priority="listed")
    assert set(won(run(design(listed), world))) == {"b3"}
    only = session(priority="listed", buyers=["brp"])
    assert set(won(run(design(only), world))) == {"b2"}
    pairs = session(priority="listed", buyers=["brp", "dso"], matching="bilateral")
    assert set(won(run(design(pairs), world))) == {"b1"}


@pytest.mark.spec("MKT-17")
def test_exclusive_bids_win_once_over_turns() -> None:
    """Bilateral: the lessee's second bid with the label is not weighed any more."""
    bids = [request(n, "5", 100, (n, n + 1), lessee="one", exclusive="x") for n in (1, 2)]
    only = session(priority="listed", buyers=["brp"], matching="bilateral")
    found = run(design(only), with_storage([lot()], bids))
    assert set(won(found)) == {"b1"}
    assert found.held[0].remark == "1 of 2 bids lease storage; lost: 1 exclusive"


ROUNDS: Mapping[str, Any] = {
    "horizon": {"starts": "D", "ends": "D+1", "firm": "PT6H"},
    "repeat": {"every": "PT6H", "times": 4},
}


@pytest.mark.spec("MKT-17")
def test_rounds_let_anew_what_is_preliminary_and_keep_what_has_begun() -> None:
    """b1 begins at 5 in the first round's firm part and lasts to 8, for good; the others are let again by the round
    that decides them, beside what of b1 is left in it. Each wins once."""
    bids = [request(1, "9", 1200, (5, 8)), request(2, "5", 1000, (7, 8)), request(3, "4", 800, (6, 8))]
    found = run(design(session(gate=23, **ROUNDS)), with_storage([lot("s3")], bids))
    assert [(one.session, one.lease.bid.id, one.status) for one in found.leases] == [
        ("let-1", "b1", Status.DEFINITIVE),
        ("let-2", "b3", Status.DEFINITIVE),
    ]
    assert [one.awards for one in found.held] == [2, 1, 0, 0]


@pytest.mark.spec("MKT-09", "MKT-17")
def test_a_preliminary_lease_holds_the_unit_until_it_is_let_anew() -> None:
    """Let for the whole day the day before, definitively only from 12 on: at 10 the second session of the sequence lets
    it to another, whose hours are held; what the first had let is free again."""
    prelim = {"starts": "D", "ends": "D+1", "firm": "none"}
    first = session("first", 6, buyers=["tso"], sequence="s", horizon=prelim)
    second = session("second", 8, buyers=["dso"], sequence="s")
    del first["priority"], second["priority"]
    bids = [request(1, "9", 2000, (10, 11), Buyer.TSO), request(2, "9", 10, (19, 20), Buyer.DSO)]
    world = with_storage([lot("s3")], bids)
    alone = run(design(first, energy("between", 7), second), world)
    assert 10.0 not in sold_hours(alone, "s3", "between") and 19.0 in sold_hours(alone, "s3", "between")
    assert not alone.leases
    found = run(design(first, second, energy()), world)
    assert [(one.session, one.lease.bid.id) for one in found.leases] == [("second", "b2")]
    assert 10.0 in sold_hours(found, "s3") and 19.0 not in sold_hours(found, "s3")


# ---------------------------------------------------------------- what cannot be run


def refused_for(rules: Design, world: World) -> set[str]:
    return {one.code for one in obstacles(rules, world)}


def admitting(name: str) -> dict[str, Any]:
    return energy(admits=[name], sellers={"levels": ["distribution"], "resources": ["contracts"]})


TERMS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("lease_pricing", {"pricing": "marginal"}),
    ("lease_terms", {"validation": "merit_order"}),
    ("lease_terms", {"grid": {"distribution": "capability", "transmission": "none"}}),
    ("lease_terms", {"interface": "netted"}),
    ("lease_terms", {"request_share": 0.5}),
    ("lease_terms", {"services": ["fcr"]}),
    ("lease_terms", {"tender": {"lasts": "P1Y", "called_share": 0.1}}),
    ("no_storage", {"sellers": {"levels": ["transmission"]}}),
)


@pytest.mark.spec("MKT-17")
@pytest.mark.parametrize(("code", "terms"), TERMS, ids=[f"{code}-{next(iter(terms))}" for code, terms in TERMS])
def test_what_an_auction_of_leases_does_not_hold_is_refused(code: str, terms: dict[str, Any]) -> None:
    assert refused_for(design(session()), small()) == set()
    rules = design(session(**terms))
    assert refused_for(rules, small()) == {code}
    with pytest.raises(Refused):
        run(rules, small())


@pytest.mark.spec("MKT-17")
def test_what_is_let_is_for_nobody_to_call_and_gets_no_offers() -> None:
    assert refused_for(design(session(), admitting("let")), small()) == {"lease_admitted"}
    sends = {"to": "let", "offers": "unused", "carry": "none"}
    assert refused_for(design(energy(gate=6, forward=sends), session()), small()) == {"lease_terms"}
    other = session("other", buyers=["dso"], exclusion={"session": "let", "first": "let"})
    del other["priority"]
    found = list(obstacles(design(session(), other), small()))
    assert {one.code for one in found} == {"lease_terms"} and len({one.place for one in found}) == 2


def shifted(one: StorageLot, by: timedelta) -> StorageLot:
    windows = Axis(one.storage.windows.start + by, 24, HOUR)
    return replace(one, storage=replace(one.storage, windows=windows))


FAULTS: tuple[tuple[str, Callable[[], World]], ...] = (
    ("no_storage", lambda: with_storage([], [])),
    ("lot_twice", lambda: with_storage([lot(), lot()], [])),
    ("lot_twice", lambda: with_storage([lot("s1", name="a"), lot("s1", name="b")], [])),
    ("lot_windows", lambda: with_storage([shifted(lot(), HOUR)], [])),
    ("lot_windows", lambda: with_storage([shifted(lot(), -HOUR)], [])),
    ("lot_unit", lambda: with_storage([replace(lot(), unit="nobody")], [])),
    ("bid_lot", lambda: with_storage([lot()], [request(1, "5", 10, (0, 1), of="other")])),
)


@pytest.mark.spec("MKT-17")
@pytest.mark.parametrize(("code", "world"), FAULTS, ids=[code for code, _ in FAULTS])
def test_lots_and_bids_that_do_not_fit_the_case_are_refused(code: str, world: Callable[[], World]) -> None:
    assert refused_for(design(session()), world()) == {code}
    assert code == "no_storage" or refused_for(design(energy()), world()) == set()


@pytest.mark.spec("MKT-17")
def test_faults_of_the_auction_are_told_as_it_tells_them() -> None:
    world = with_storage([lot()], [request(1, "0.001", 10, (3, 3))])
    with pytest.raises(Refused) as refusal:
        run(design(session()), world)
    assert {one.code for one in refusal.value.findings} == {"price", "windows"}


# ---------------------------------------------------------------- laws


@st.composite
def let(draw: st.DrawFn) -> World:
    units = draw(st.lists(st.sampled_from(["", "s1", "s3", "n3", "t2"]), min_size=1, max_size=3, unique=True))
    lots = [
        lot(unit, draw(st.integers(0, 2000)), draw(st.integers(1, 4000)), f"lot-{number}")
        for number, unit in enumerate(units)
    ]
    bids = []
    for receipt in range(1, draw(st.integers(1, 12)) + 1):
        first = draw(st.integers(0, 22))
        hours = (first, draw(st.integers(first + 1, 24)))
        price, kw = f"{draw(st.integers(0, 5000)) / 100:.2f}", draw(st.integers(1, 1500))
        of = draw(st.sampled_from([one.id for one in lots]))
        bids.append(request(receipt, price, kw, hours, draw(st.sampled_from(list(Buyer))), of))
    return with_storage(lots, bids)


@pytest.mark.spec("MKT-09", "MKT-17")
@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(world=let(), seed=st.integers(0, 99), rounds=st.booleans())
def test_nothing_is_let_twice_or_sold_beside_and_order_decides_nothing(world: World, seed: int, rounds: bool) -> None:
    rules = design(session(gate=23, **ROUNDS)) if rounds else design(session(), energy())
    found = run(rules, world)
    assert_within(world, found)
    ids = [one.lease.bid.id for one in found.leases]
    assert len(set(ids)) == len(ids) and all(one.status is Status.DEFINITIVE for one in found.leases)
    for one in found.leases:
        (bundle,) = one.lease.bid.bundles
        assert not [
            award for award in found.bought
            if one.unit and award.award.unit == one.unit and bundle.start <= award.award.start < bundle.end
        ]  # fmt: skip
    by = random.Random(seed)
    mixed = replace(
        world, lots=tuple(by.sample(world.lots, len(world.lots))),
        lease_bids=tuple(by.sample(world.lease_bids, len(world.lease_bids))),
    )  # fmt: skip
    assert run(rules, mixed).leases == found.leases


def test_a_case_with_storage_can_be_sent_to_another_process() -> None:
    sent: World = pickle.loads(pickle.dumps(small()))
    assert (sent.lots, sent.lease_bids) == (small().lots, small().lease_bids)
    one: LeaseAgreement = pickle.loads(pickle.dumps(shipped().leases[0]))
    assert one == shipped().leases[0]
