"""Leases of storage: the best allocation by trying all, prices by hand, and a device that never fails its lessees."""

from __future__ import annotations

import doctest
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from itertools import combinations
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coflex.domain.errors import CoflexError, Refused
from coflex.domain.time import Axis
from coflex.market.leasing import (
    Bundle,
    Device,
    Lease,
    LeaseBid,
    Leased,
    Payment,
    Reason,
    Storage,
    auction,
    bounds,
    operate,
)
from support.books import START

HOUR = timedelta(hours=1)
BIG = Device(100_000, 100_000, 100_000)


def storage(power: list[int], energy: list[int], device: Device = BIG, hours: int = 1, **more: Any) -> Storage:
    return Storage(
        "battery", "owner", device, Axis(START, len(power), hours * HOUR), tuple(power), tuple(energy), **more
    )


def bid(
    receipt: int, price: str, kw: int, kwh: int = 1, first: int = 0, last: int = 1, lessee: str = "", **more: Any
) -> LeaseBid:
    """For windows of an hour, from `first` to before `last`."""
    bundle = Bundle(START + first * HOUR, START + last * HOUR, kw, kwh)
    return LeaseBid(f"b{receipt}", receipt, lessee or f"l{receipt}", (bundle,), Decimal(price), **more)


def paid(leased: Leased) -> dict[str, Decimal]:
    return {lease.bid.id: lease.payment_eur for lease in leased.leases}


# ---------------------------------------------------------------- by hand


@pytest.mark.spec("MKT-17")
def test_the_two_apples_of_the_textbook() -> None:
    """Two equal things; A bids 5 for one, B 2 for one, C 6 for both. A and B win; by the rule of Vickrey, Clarke and
    Groves A pays 6 - 2 = 4 and B pays 6 - 5 = 1. As bid they pay 5 and 2; no common price makes C content, who misses
    least, 2, at 2 a piece: B's limit."""
    bids = [bid(1, "5", 1000), bid(2, "2", 1000), bid(3, "6", 2000)]
    offered = storage([2000], [100])
    vickrey = auction(offered, bids, Payment.VICKREY)
    assert paid(vickrey) == {"b1": Decimal("4.00"), "b2": Decimal("1.00")}
    assert vickrey.surplus_eur == Decimal("7.00") and vickrey.revenue_eur == Decimal("5.00")
    assert vickrey.free_kw == (0,) and vickrey.free_kwh == (98,)
    assert paid(auction(offered, bids, Payment.PAY_AS_BID)) == {"b1": Decimal("5.00"), "b2": Decimal("2.00")}
    clearing = auction(offered, bids)
    assert sum(paid(clearing).values()) == Decimal("4.00") and set(paid(clearing).values()) == {Decimal("2.00")}
    (loser,) = clearing.lost
    assert (loser.bid.id, loser.reason, loser.needed_eur) == ("b3", Reason.OUTBID, Decimal("7.00"))
    assert loser.detail == "no power from 2016-06-01T00:00:00+00:00 on (1 windows) left beside b1, b2"


@pytest.mark.spec("MKT-17")
def test_equal_shares_clear_at_the_highest_losing_bid() -> None:
    """Three shares of 1 MW for an hour, bids of 9, 8, 7, 5 and 4 EUR: everyone who wins pays 5, the first that lost;
    by Vickrey's rule too."""
    bids = [bid(i, price, 1000) for i, price in enumerate(["7", "4", "9", "5", "8"], 1)]
    for rule in (Payment.CLEARING, Payment.VICKREY):
        leased = auction(storage([3000], [100]), bids, rule)
        assert paid(leased) == {"b1": Decimal("5.00"), "b3": Decimal("5.00"), "b5": Decimal("5.00")}
    (price,) = auction(storage([3000], [100]), bids).prices
    assert price.power_eur_mw_h + price.energy_eur_mwh_h / 1000 == Decimal("5.000000")


@pytest.mark.spec("MKT-17")
def test_the_reserve_is_the_least_that_is_paid_and_bids_below_it_lose() -> None:
    """2 MW and 4 MWh for three hours at 1.50 EUR/MW/h and 0.25 EUR/MWh/h: 9 + 3 = 12 EUR."""
    offered = storage(
        [9000] * 3,
        [9000] * 3,
        reserve_power_eur_mw_h=Decimal("1.50"),
        reserve_energy_eur_mwh_h=Decimal("0.25"),
    )
    bids = [bid(1, "12.00", 2000, 4000, 0, 3), bid(2, "11.99", 2000, 4000, 0, 3)]
    for rule in Payment:
        leased = auction(offered, bids, rule)
        assert paid(leased) == {"b1": Decimal("12.00")}
        assert [(one.bid.id, one.reason, one.needed_eur) for one in leased.lost] == [
            ("b2", Reason.BELOW_RESERVE, Decimal("12.00"))
        ]


@pytest.mark.spec("MKT-17")
def test_energy_can_be_what_is_scarce_and_windows_are_let_apart() -> None:
    """Energy lets only one of b1 and b2 into hour 0; hour 1 has room for b3."""
    bids = [bid(1, "5", 10, 60), bid(2, "6", 10, 60), bid(3, "1", 10, 60, 1, 2)]
    leased = auction(storage([1000, 1000], [100, 100]), bids, Payment.VICKREY)
    assert paid(leased) == {"b2": Decimal("5.00"), "b3": Decimal("0.00")}
    assert leased.free_kw == (990, 990) and leased.free_kwh == (40, 40)
    assert leased.lost[0].detail.startswith("no energy from")


@pytest.mark.spec("MKT-17")
def test_a_bid_is_never_divided_and_a_bid_beyond_the_offer_is_told_so() -> None:
    leased = auction(storage([100, 50], [100, 100]), [bid(1, "900", 60, 10, 0, 2), bid(2, "1", 50, 10, 0, 2)])
    assert list(paid(leased)) == ["b2"]
    assert (leased.lost[0].reason, leased.lost[0].needed_eur) == (Reason.TOO_LARGE, None)
    assert leased.lost[0].detail == "more than is offered of power from 2016-06-01T01:00:00+00:00 on (1 windows)"


@pytest.mark.spec("MKT-17")
def test_of_exclusive_bids_of_one_lessee_at_most_one_wins() -> None:
    bids = [
        bid(1, "5", 10, 10, lessee="x", exclusive="either"),
        bid(2, "4", 10, 10, 1, 2, lessee="x", exclusive="either"),
        bid(3, "3", 10, 10, 1, 2, lessee="y", exclusive="either"),
    ]
    leased = auction(storage([10, 10], [10, 10]), bids)
    assert list(paid(leased)) == ["b1", "b3"]
    assert [(one.bid.id, one.reason, one.detail) for one in leased.lost] == [
        ("b2", Reason.EXCLUSIVE, "b1 of the same lessee won")
    ]


@pytest.mark.spec("MKT-17")
def test_a_loser_to_a_bid_of_its_own_asks_for_no_price() -> None:
    """x would rather have 10 for hour 0 than 8 for hour 1, both free: nobody is in the way, all prices are nothing."""
    bids = [
        bid(1, "10", 10, 10, lessee="x", exclusive="either"),
        bid(2, "8", 10, 10, 1, 2, lessee="x", exclusive="either"),
    ]
    leased = auction(storage([10, 10], [10, 10]), bids)
    assert paid(leased) == {"b1": Decimal("0.00")}
    assert {(price.power_eur_mw_h, price.energy_eur_mwh_h) for price in leased.prices} == {(0, 0)}


@pytest.mark.spec("MKT-17")
def test_prices_leave_a_lessee_content_with_the_one_of_its_bids_that_won() -> None:
    """Hour 0: x has it for 5, z lost with 3, so it costs 3 and x keeps 2. Hour 1: y has it; x would have paid 9 for it
    instead, so it costs 7, or x had rather won there."""
    bids = [
        bid(1, "5", 10, 10, lessee="x", exclusive="either"),
        bid(2, "9", 10, 10, 1, 2, lessee="x", exclusive="either"),
        bid(3, "3", 10, 10, lessee="z"),
        bid(4, "20", 10, 10, 1, 2, lessee="y"),
    ]
    assert paid(auction(storage([10, 10], [10, 10]), bids)) == {"b1": Decimal("3.00"), "b4": Decimal("7.00")}


@pytest.mark.spec("MKT-17", "MKT-19")
def test_among_equals_the_first_receipt_wins() -> None:
    bids = [bid(4, "5", 10), bid(2, "5", 10), bid(3, "5", 10)]
    assert list(paid(auction(storage([10], [10]), bids))) == ["b2"]
    # 3 + 3 for the later two is as good as 6 for the first, which is in.
    pair = [bid(1, "6", 20), bid(2, "3", 10), bid(3, "3", 10)]
    assert list(paid(auction(storage([20], [10]), pair))) == ["b1"]


@pytest.mark.spec("MKT-17")
def test_an_auction_without_bids_and_one_without_winners() -> None:
    assert auction(storage([10], [10]), []).leases == ()
    dear = storage([10], [10], reserve_power_eur_mw_h=Decimal(1000))
    assert auction(dear, [bid(1, "1", 10)]).revenue_eur == Decimal("0.00")


@pytest.mark.spec("MKT-17")
def test_faults_of_storage_and_bids_are_all_named() -> None:
    device = Device(5, 10, 10, 0.0, 1.0, 2.0)
    with pytest.raises(Refused) as caught:
        auction(storage([6, 6], [11], device, reserve_power_eur_mw_h=Decimal(-1)), [])
    assert {one.code for one in caught.value.findings} == {
        "windows",
        "power",
        "energy",
        "efficiency",
        "level",
        "reserve",
    }
    bundle = Bundle(START, START + 2 * HOUR, 5, 5)
    bids = [
        bid(1, "1.005", 5, 5),
        bid(1, "1", 0, 5),
        bid(2, "1", 5, 5, 0, 9),
        LeaseBid("b3", 3, "l", (), Decimal(1)),
        LeaseBid("b4", 4, "l", (bundle, replace(bundle, start=START + HOUR)), Decimal(1)),
        LeaseBid("b5", 5, "l", (replace(bundle, end=START + timedelta(minutes=10)),), Decimal(1)),
    ]
    with pytest.raises(Refused) as caught:
        auction(storage([10, 10], [10, 10]), bids)
    assert {(one.place, one.code) for one in caught.value.findings} == {
        ("bid b1", "price"),
        ("bid b1", "bid_twice"),
        ("bid b1", "quantity"),
        ("bid b2", "windows"),
        ("bid b3", "nothing"),
        ("bid b4", "overlap"),
        ("bid b5", "windows"),
    }


# ---------------------------------------------------------------- against trying everything


@st.composite
def auctions(draw: st.DrawFn, most: int = 7, lessees: int = 4) -> tuple[Storage, list[LeaseBid]]:
    """Three hours; few prices, so that ties are common."""
    offered = storage(
        draw(st.lists(st.integers(0, 12), min_size=3, max_size=3)),
        draw(st.lists(st.integers(0, 12), min_size=3, max_size=3)),
        reserve_power_eur_mw_h=Decimal(draw(st.sampled_from([0, 0, 1000]))),
        reserve_energy_eur_mwh_h=Decimal(draw(st.sampled_from(["0", "333.33"]))),
    )
    bids = []
    for i in range(draw(st.integers(1, most))):
        first = draw(st.integers(0, 2))
        bids.append(
            bid(
                i + 1,
                str(draw(st.integers(0, 12))),
                draw(st.integers(1, 8)),
                draw(st.integers(1, 8)),
                first,
                draw(st.integers(first + 1, 3)),
                f"l{draw(st.integers(1, lessees))}",
                exclusive=draw(st.sampled_from([None, None, "x"])),
            )
        )
    return offered, bids


def wants(one: LeaseBid, hour: int) -> tuple[int, int]:
    (bundle,) = one.bundles
    inside = bundle.start <= START + hour * HOUR < bundle.end
    return (bundle.power_kw, bundle.energy_kwh) if inside else (0, 0)


def reserve_cents(offered: Storage, one: LeaseBid) -> int:
    milli = sum(
        kw * offered.reserve_power_eur_mw_h + kwh * offered.reserve_energy_eur_mwh_h
        for kw, kwh in (wants(one, hour) for hour in range(3))
    )
    return ceil(milli / 10)


def admissible(offered: Storage, chosen: tuple[LeaseBid, ...]) -> bool:
    for hour in range(3):
        taken = [wants(one, hour) for one in chosen]
        if sum(kw for kw, _ in taken) > offered.power_kw[hour] or sum(e for _, e in taken) > offered.energy_kwh[hour]:
            return False
    labels = [one.lessee for one in chosen if one.exclusive]
    return len(set(labels)) == len(labels)


def best_of_all(offered: Storage, bids: list[LeaseBid]) -> tuple[int, tuple[str, ...]]:
    """Every subset: the highest gain in cents, and of those the one whose receipts come first."""
    found = []
    for size in range(len(bids) + 1):
        for chosen in combinations(bids, size):
            if admissible(offered, chosen):
                gain = sum(int(one.price_eur * 100) - reserve_cents(offered, one) for one in chosen)
                inside = tuple(0 if one in chosen else 1 for one in bids)
                found.append((-gain, inside, tuple(one.id for one in chosen)))
    gain, _, names = min(found)
    return -gain, names


@pytest.mark.spec("MKT-17", "MKT-19")
@settings(max_examples=60, deadline=None)
@given(auctions(), st.data())
def test_the_allocation_is_the_best_of_all_subsets_and_ties_go_by_receipt(
    case: tuple[Storage, list[LeaseBid]], data: st.DataObject
) -> None:
    offered, bids = case
    # A bid below its reserve is never of the best, and one at it is taken where it fits.
    able = [one for one in bids if int(one.price_eur * 100) >= reserve_cents(offered, one)]
    gain, names = best_of_all(offered, able)
    leased = auction(offered, data.draw(st.permutations(bids)))
    assert tuple(lease.bid.id for lease in leased.leases) == names
    assert leased.surplus_eur == Decimal(gain) / 100
    assert {lease.bid.id for lease in leased.leases} | {one.bid.id for one in leased.lost} == {one.id for one in bids}
    for hour in range(3):
        taken = [wants(lease.bid, hour) for lease in leased.leases]
        assert leased.free_kw[hour] == offered.power_kw[hour] - sum(kw for kw, _ in taken) >= 0
        assert leased.free_kwh[hour] == offered.energy_kwh[hour] - sum(kwh for _, kwh in taken) >= 0


@pytest.mark.spec("MKT-17")
@settings(max_examples=50, deadline=None)
@given(auctions(), st.sampled_from(Payment), st.data())
def test_payments_lie_between_reserve_and_bid_and_do_not_depend_on_the_order(
    case: tuple[Storage, list[LeaseBid]], rule: Payment, data: st.DataObject
) -> None:
    offered, bids = case
    leased = auction(offered, bids, rule)
    for lease in leased.leases:
        assert reserve_cents(offered, lease.bid) <= lease.payment_eur * 100 <= lease.bid.price_eur * 100
        assert lease.payment_eur == lease.payment_eur.quantize(Decimal("0.01"))
    again = auction(offered, data.draw(st.permutations(bids)), rule)
    assert (again.leases, again.lost, again.prices) == (leased.leases, leased.lost, leased.prices)


@pytest.mark.spec("MKT-17")
@settings(max_examples=40, deadline=None)
@given(auctions(most=6, lessees=9))
def test_what_a_loser_would_have_needed_is_exactly_that(case: tuple[Storage, list[LeaseBid]]) -> None:
    """A cent more wins, a cent less does not."""
    offered, bids = case
    for loser in auction(offered, bids).lost[:2]:
        if loser.needed_eur is None:
            continue
        for cents, wins in ((1, True), (-1, False)):
            price = max(Decimal(0), loser.needed_eur + Decimal(cents) / 100)
            if loser.needed_eur == 0 and cents < 0:
                continue
            other = [replace(one, price_eur=price) if one.id == loser.bid.id else one for one in bids]
            assert (loser.bid.id in paid(auction(offered, other, Payment.PAY_AS_BID))) == wins


@pytest.mark.spec("MKT-17")
@settings(max_examples=50, deadline=None)
@given(auctions(most=6), st.integers(0, 1500), st.data())
def test_under_vickreys_rule_no_false_bid_beats_the_true_one(
    case: tuple[Storage, list[LeaseBid]], false: int, data: st.DataObject
) -> None:
    """Each lessee has one bid; its value less what it pays is highest when it bids its value, whatever others do."""
    offered, bids = case
    bids = [replace(one, lessee=f"l{one.receipt}", exclusive=None) for one in bids]
    liar = data.draw(st.sampled_from(bids))
    lie = [replace(one, price_eur=Decimal(false) / 100) if one is liar else one for one in bids]
    truth = paid(auction(offered, bids, Payment.VICKREY))
    lied = paid(auction(offered, lie, Payment.VICKREY))
    honest = liar.price_eur - truth[liar.id] if liar.id in truth else Decimal(0)
    cunning = liar.price_eur - lied[liar.id] if liar.id in lied else Decimal(0)
    assert honest >= cunning


@pytest.mark.spec("MKT-17")
@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 500), min_size=2, max_size=8), st.integers(1, 6))
def test_with_equal_bundles_the_clearing_price_leaves_nobody_discontent(values: list[int], shares: int) -> None:
    """Equal bundles are as good as divisible ones: all pay the same, no loser bid more, and it is the highest losing
    bid (nothing where all win)."""
    bids = [bid(i, str(value), 10) for i, value in enumerate(values, 1)]
    leased = auction(storage([10 * shares], [1000]), bids)
    rest = sorted(values, reverse=True)[shares:]
    assert set(paid(leased).values()) == {Decimal(max(rest, default=0))}


# ---------------------------------------------------------------- the shares in use


@st.composite
def batteries(draw: st.DrawFn) -> tuple[Storage, list[Lease], Axis]:
    """A lossy device let to its last kilowatt and kilowatt-hour in each of three windows of two hours."""
    device = Device(
        60,
        80,
        200,
        draw(st.sampled_from([1.0, 0.95, 0.8])),
        draw(st.sampled_from([1.0, 0.9, 0.7])),
        draw(st.sampled_from([0.0, 0.5, 1.0, 0.3])),
    )
    offered = storage([60] * 3, [200] * 3, device, hours=2)
    spans = draw(st.sampled_from([((0, 3), (0, 3)), ((0, 1), (1, 3), (0, 3)), ((0, 2), (2, 3), (1, 3), (0, 1))]))
    leases = []
    for i, (first, last) in enumerate(spans):
        beside = max(sum(a <= w < b for a, b in spans) for w in range(first, last))
        bundle = Bundle(START + 2 * first * HOUR, START + 2 * last * HOUR, 60 // beside, 200 // beside)
        leases.append(Lease(LeaseBid(f"b{i}", i, f"l{i}", (bundle,), Decimal(1)), Decimal(0)))
    return offered, leases, Axis(START, 24, HOUR / 4)


def played(offered: Storage, lease: Lease, steps: Axis, choices: list[float]) -> np.ndarray:
    """A lessee at its worst: within what its share still lets it do, mostly all of it one way or the other."""
    (bundle,) = lease.bid.bundles
    use, device = np.zeros(len(steps)), offered.device
    inside = [t for t, start in enumerate(steps) if bundle.start <= start < bundle.end]
    state = device.level * bundle.energy_kwh
    for t in inside:
        least, most = bounds(device, bundle.power_kw, bundle.energy_kwh, state, inside[-1] - t, steps.hours)
        assert least <= most + 1e-9
        use[t] = least + choices[t % len(choices)] * (most - least)
        given_, taken = max(use[t], 0.0), max(-use[t], 0.0)
        state += steps.hours * (taken * device.charge_efficiency - given_ / device.discharge_efficiency)
    return use


@pytest.mark.spec("MKT-17")
@settings(max_examples=80, deadline=None)
@given(batteries(), st.data())
def test_whatever_all_lessees_do_the_device_stays_within_its_power_and_energy(
    case: tuple[Storage, list[Lease], Axis], data: st.DataObject
) -> None:
    offered, leases, steps = case
    device = offered.device
    extreme = st.lists(st.sampled_from([0.0, 1.0, 0.5, 0.9]), min_size=1, max_size=9)
    use = {lease.bid.id: played(offered, lease, steps, data.draw(extreme)) for lease in leases}
    done = operate(offered, leases, steps, use)
    assert done.state_kwh.min() >= -1e-6 and done.state_kwh.max() <= device.energy_kwh + 1e-6
    assert done.power_kw.max() <= device.discharge_kw + 1e-6 and done.power_kw.min() >= -device.charge_kw - 1e-6
    assert done.surplus_kw.min() >= -1e-9
    assert done.state_kwh[[0, -1]] == pytest.approx(device.level * device.energy_kwh)
    # Energy is kept: what the device takes and gives, with its losses, is what it stores.
    given_, taken = np.maximum(done.power_kw, 0), np.maximum(-done.power_kw, 0)
    stored = (taken * device.charge_efficiency - given_ / device.discharge_efficiency) * steps.hours
    assert np.diff(done.state_kwh) == pytest.approx(stored, abs=1e-9)


@pytest.mark.spec("MKT-17")
def test_one_kilowatt_hour_more_than_there_is_would_not_be_safe() -> None:
    """The limits are no more careful than they must be: two lessees fill 51 of 101 kWh sold on a device of 100."""
    device = Device(1000, 1000, 100, level=0.0)
    leases = [Lease(bid(i, "1", 500, kwh, 0, 1), Decimal(0)) for i, kwh in ((1, 50), (2, 51))]
    steps = Axis(START, 4, HOUR / 4)
    fill = {one.bid.id: one.bid.bundles[0].energy_kwh * np.array([-4.0, 0, 0, 4.0]) for one in leases}
    assert operate(storage([1000], [100], device), leases, steps, fill).state_kwh.max() == pytest.approx(101)
    sold = auction(storage([1000], [100], device), [one.bid for one in leases])
    assert len(sold.leases) == 1


@pytest.mark.spec("MKT-17")
def test_what_one_lessee_gives_another_spares_the_owner_the_losses() -> None:
    """A charges 10 kW while B discharges 8.1 kW for a quarter-hour, 90 % each way: stored + 2.25 - 2.25 = 0, the device
    rests, and the 1.9 kW of the terminals are the owner's... as an injection of 0 against a balance of -1.9 kW."""
    device = Device(100, 100, 100, 0.9, 0.9, 0.5)
    leases = [Lease(bid(i, "1", 50, 50, 0, 1), Decimal(0)) for i in (1, 2)]
    one = np.array([-10.0, 0, 0, 8.1])
    done = operate(storage([100], [100], device), leases, Axis(START, 4, HOUR / 4), {"b1": one, "b2": one[::-1]})
    assert done.power_kw == pytest.approx([0, 0, 0, 0])
    assert done.surplus_kw == pytest.approx([1.9, 0, 0, 1.9])
    assert done.state_kwh == pytest.approx([50] * 5)


@pytest.mark.spec("MKT-17")
def test_a_use_that_leaves_its_share_is_refused_by_name() -> None:
    device = Device(100, 100, 100)
    leases = [Lease(bid(i, "1", 25, 20, 0, 1), Decimal(0)) for i in (1, 2, 3, 4)]
    steps, hour = Axis(START, 4, HOUR / 4), storage([100], [100], device)
    use = {
        "b1": np.array([26.0, -26.0, 0, 0]),
        "b2": np.array([25.0, 25.0, -25.0, -25.0]),
        "b3": np.array([5.0, 0, 0, 0]),
        "b4": np.array([20.0, -20.0, 0, 0]),
    }
    with pytest.raises(Refused) as caught:
        operate(hour, leases, steps, use)
    assert [(one.place, one.code) for one in caught.value.findings] == [
        ("lease b1", "power"),
        ("lease b2", "energy"),
        ("lease b3", "not_returned"),
    ]
    with pytest.raises(CoflexError, match="divide"):
        operate(hour, leases, Axis(START, 3, HOUR / 4), {})
    with pytest.raises(CoflexError, match="3 steps"):
        operate(hour, leases, steps, {"b1": np.zeros(3)})


def test_the_worked_example_of_the_page() -> None:
    page = Path(__file__).parents[2] / "docs/mathematics/leasing.md"
    result = doctest.testfile(str(page), module_relative=False)
    assert result.attempted and not result.failed
