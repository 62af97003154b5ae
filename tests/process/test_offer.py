"""Offer: a parcel is taken whole into an open session, with receipts, or refused with every fault."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coflex.domain.errors import NotReady, Refused
from coflex.domain.offer import Offer
from coflex.process.offer import session_call, submit
from coflex.process.ports import Event
from support.verbs import VERBS, before, everything, providers, small_day


def parcel() -> list[Offer]:
    """What the simulated providers send to the first session."""
    with before("offer").transaction() as t:
        return list(providers().offers(session_call(small_day(), t, small_day().plans[0])))


@pytest.mark.spec("MKT-03")
def test_offers_are_kept_with_receipts_in_the_order_of_arrival_and_every_provider_is_answered() -> None:
    store = before("clear")
    with store.transaction() as t:
        offers, events = t.all(Offer), t.all(Event)
    by_receipt = sorted(offers, key=lambda offer: offer.receipt)
    assert [offer.receipt for offer in by_receipt] == list(range(1, len(offers) + 1))
    assert by_receipt == sorted(offers, key=lambda offer: (offer.received_at, offer.id))
    assert {e.receiver for e in events if e.kind == "offers_accepted"} == {offer.provider for offer in offers}


@pytest.mark.spec("MKT-02")
@pytest.mark.parametrize("stage", ["plan", "activate"])
def test_a_session_that_is_not_open_takes_no_offer(stage: str) -> None:
    store, sent = before(stage), parcel()
    held = everything(store)
    with pytest.raises(NotReady, match="not open"):
        submit(small_day(), store, small_day().plans[0], sent)
    assert everything(store) == held


def test_the_same_parcel_is_not_taken_twice() -> None:
    store, sent = before("clear"), parcel()
    held = everything(store)
    with pytest.raises(Refused) as told:
        submit(small_day(), store, small_day().plans[0], sent)
    assert len({finding.place for finding in told.value.findings}) == len(sent)
    assert everything(store) == held


@pytest.mark.spec("PLAT-05")
def test_a_day_interrupted_after_its_offers_goes_on_with_the_offers_it_has() -> None:
    store = before("clear")
    held = everything(store)
    assert VERBS["offer"](store) == ()
    assert everything(store) == held


def test_an_offer_from_outside_stands_for_its_unit() -> None:
    store, mine = before("offer"), parcel()[0]
    submit(small_day(), store, small_day().plans[0], [replace(mine, id="mine")])
    taken = VERBS["offer"](store)
    assert taken
    assert (mine.unit, mine.direction) not in {(offer.unit, offer.direction) for offer in taken}


def test_one_faulty_offer_keeps_its_whole_parcel_out() -> None:
    store, (first, *others) = before("offer"), parcel()
    held = everything(store)
    with pytest.raises(Refused) as told:
        submit(small_day(), store, small_day().plans[0], [replace(first, unit="nobody", group=None), *others])
    assert {finding.code for finding in told.value.findings} == {"unknown_unit"}
    assert everything(store) == held


@pytest.mark.spec("MKT-03")
def test_a_unit_offered_to_the_local_market_only_has_nothing_free_in_the_global_session_that_follows() -> None:
    local, following = small_day().plans[:2]
    with before("activate").transaction() as t:
        kept = {offer.unit for offer in t.all(Offer, session=local.id) if offer.local_only}
        call = session_call(small_day(), t, following)
    mine = np.array([unit.id in kept for unit in call.units])
    assert mine.any()
    assert call.up_kw[mine].max() == call.down_kw[mine].max() == 0
    assert call.up_kw[~mine].any()
