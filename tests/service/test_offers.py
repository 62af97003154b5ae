"""Offers go into an open session whole or not at all, come out again, and are there after a restart."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coflex.adapters.store.journal_memory import MemoryJournal
from coflex.domain.errors import CoflexError, GateClosed, NotFound, Refused
from coflex.register.consents import Consent
from coflex.register.outcomes import SessionOutcome, Step, outcome_id
from coflex.register.prequalification import ProductQualification
from coflex.register.resources import UnitEntry, UnitStatus
from coflex.service.books import books
from coflex.service.machine import Machine, decode
from coflex.service.replay import fingerprint, replay
from coflex.service.sequencer import Sequencer
from support.platform import (
    FIRST,
    OPEN,
    TENANT,
    TEST_VERBS,
    Clock,
    desk,
    offer,
    put,
    ready,
    set_clock,
    submit,
)


def platform(units: int = 8, providers: int = 2) -> tuple[Sequencer, MemoryJournal]:
    journal = MemoryJournal()
    made = desk(journal)
    for command in ready(units, providers):
        made.submit(command)
    return made, journal


def held(made: Sequencer) -> dict[str, int]:
    """Receipt of each offer in the book."""
    return {one.id: one.receipt for one in books(made.machine.state(TENANT)).offers(FIRST)}


@pytest.mark.spec("MKT-02")
def test_an_offer_goes_into_the_open_session_with_number_and_time() -> None:
    made, _ = platform()
    receipt = made.submit(submit("sp-1", offer("a", 1)))
    reply = decode(receipt.reply, dict)
    assert receipt.status == 201
    assert (reply["session"], reply["accepted"], reply["entry"]) == (FIRST, 1, receipt.number)
    assert held(made) == {"sp-1/a": reply["first_receipt"]}


def test_a_parcel_is_taken_whole_or_not_at_all_with_every_fault() -> None:
    made, _ = platform()
    parcel = [offer("a", 1), offer("b", 2), offer("c", 1, kw=[5000]), offer("d", 3, price="2000")]
    with pytest.raises(Refused) as refused:
        made.submit(submit("sp-1", parcel))
    found = {(one.place.split(",")[0], one.code) for one in refused.value.findings}
    assert {("offer b", "unknown_unit"), ("offer c", "above_qualified"), ("offer d", "price_cap")} <= found
    assert held(made) == {}
    assert made.submit(submit("sp-1", [offer("a", 1), offer("d", 3)])).status == 201
    assert list(held(made)) == ["sp-1/a", "sp-1/d"]


@pytest.mark.spec("REG-07", "MKT-03")
def test_units_offer_together_what_their_group_is_qualified_for_and_are_told_how_much_that_is() -> None:
    made, _ = platform()
    state = made.machine.state(TENANT)
    record = state.get(ProductQualification, "sp-1-local@local_energy")
    assert record.grant is not None
    made.submit(put([replace(record, grant=replace(record.grant, up_kw=150))]))

    def refused(body: Any, verb: str = "offer.submit") -> tuple[str, str]:
        with pytest.raises(Refused) as told:
            made.submit(submit("sp-1", body, verb=verb))
        ((code, message),) = {(one.code, one.message) for one in told.value.findings}
        return code, message

    assert refused(offer("a", 1, kw=[160])) == (
        "above_qualified", "Of the 160 kW offered only 150 kW are qualified; offer at most that.",
    )  # fmt: skip
    made.submit(submit("sp-1", [offer("a", 1, kw=[100, 100]), offer("b", 3, kw=[50])]))
    code, message = refused(offer("b", 3, kw=[50, 60]), "offer.replace")
    assert code == "above_qualified" and "qualified for 150 kW of local_energy up" in message and "50 kW" in message
    made.submit(submit("sp-1", offer("down", 5, kw=[800], direction="down")))
    made.submit(submit("sp-2", offer("other", 2, kw=[800])))
    made.submit(submit("sp-1", {"id": "a"}, verb="offer.withdraw"))
    made.submit(submit("sp-1", offer("b", 3, kw=[150]), verb="offer.replace"))


@pytest.mark.spec("MKT-03", "SET-06")
def test_a_party_does_not_offer_to_a_session_that_buys_for_it() -> None:
    made, _ = platform()
    made.submit(submit("sp-1", offer("before", 1)))
    gate = made.machine.state(TENANT).get(SessionOutcome, outcome_id(FIRST, Step.GATE))
    made.submit(put([replace(gate, buyer="sp-1")]))
    for verb, body in (("offer.submit", offer("a", 3)), ("offer.replace", offer("before", 1, kw=[50]))):
        with pytest.raises(Refused) as refused:
            made.submit(submit("sp-1", body, verb=verb))
        ((code, message),) = {(one.code, one.message) for one in refused.value.findings}
        assert code == "own_account"
        assert message == "local-1 buys for 'sp-1', which would pay itself; offer in another session."
    made.submit(submit("sp-2", offer("a", 2)))
    made.submit(submit("sp-1", {"id": "before"}, verb="offer.withdraw"))


def test_two_providers_may_name_their_offers_alike() -> None:
    made, _ = platform()
    made.submit(submit("sp-1", offer("a", 1)))
    made.submit(submit("sp-2", offer("a", 2)))
    assert list(held(made)) == ["sp-1/a", "sp-2/a"]


def test_an_offer_is_replaced_with_a_new_receipt_or_stays_as_it_was() -> None:
    made, _ = platform()
    made.submit(submit("sp-1", offer("a", 1)))
    before = held(made)
    with pytest.raises(Refused):
        made.submit(submit("sp-1", offer("a", 1, kw=[9999]), verb="offer.replace"))
    assert held(made) == before
    made.submit(submit("sp-1", offer("a", 1, kw=[50]), verb="offer.replace"))
    assert held(made)["sp-1/a"] > before["sp-1/a"]


def test_nobody_takes_out_the_offer_of_another() -> None:
    made, _ = platform()
    made.submit(submit("sp-1", offer("a", 1)))
    with pytest.raises(NotFound) as other:
        made.submit(submit("sp-2", {"id": "a"}, verb="offer.withdraw"))
    with pytest.raises(NotFound) as nothing:
        made.submit(submit("sp-2", {"id": "a"}, verb="offer.withdraw", session=FIRST))
    assert str(other.value) == str(nothing.value)
    made.submit(submit("sp-1", {"id": "a"}, verb="offer.withdraw"))
    assert held(made) == {}
    made.submit(submit("sp-1", offer("a", 1)))


@pytest.mark.spec("MKT-02")
def test_at_the_gates_instant_an_offer_is_late_and_is_told_the_gates_time() -> None:
    clock = Clock()
    journal = MemoryJournal()
    made = desk(journal, clock)
    for command in ready(4, 2, speed=1):
        made.submit(command)
    gate = clock.at + (datetime(2016, 7, 4, 8, tzinfo=UTC) - OPEN)
    clock.at = gate - timedelta(microseconds=1)
    made.submit(submit("sp-1", offer("in", 1)))
    clock.at = gate
    with pytest.raises(GateClosed, match="2016-07-04T10:00"):
        made.submit(submit("sp-1", offer("late", 3)))
    clock.at = gate - timedelta(hours=1)  # a clock that goes back reopens nothing
    with pytest.raises(GateClosed):
        made.submit(submit("sp-1", offer("late", 3)))
    assert list(held(made)) == ["sp-1/in"]


@pytest.mark.spec("REG-10")
def test_a_unit_without_its_owners_consent_is_not_offered() -> None:
    made, _ = platform()
    consent = made.machine.state(TENANT).get(Consent, "consent-cu-0001")
    made.submit(put([replace(consent, withdrawn=OPEN)]))
    with pytest.raises(Refused) as refused:
        made.submit(submit("sp-1", offer("a", 1)))
    assert {one.code for one in refused.value.findings} == {"barred"}


def test_a_change_of_the_register_counts_for_the_next_offer() -> None:
    made, _ = platform()
    made.submit(submit("sp-1", offer("a", 1)))
    entry = made.machine.state(TENANT).get(UnitEntry, "cu-0003")
    made.submit(put([replace(entry, status=UnitStatus.INACTIVE)]))
    with pytest.raises(Refused):
        made.submit(submit("sp-1", offer("b", 3)))
    made.submit(put([entry]))
    made.submit(submit("sp-1", offer("b", 3)))
    assert list(held(made)) == ["sp-1/a", "sp-1/b"]


ACTS = st.lists(
    st.tuples(
        st.sampled_from(["offer.submit", "offer.submit", "offer.replace", "offer.withdraw"]),
        st.integers(1, 2),  # provider
        st.sampled_from("abc"),
        st.integers(1, 8),  # unit
        st.integers(0, 2),  # first quarter-hour
    ),
    max_size=25,
)


@pytest.mark.spec("PLAT-05")
@given(ACTS)
def test_a_restart_and_a_replay_give_the_same_book(acts: list[Any]) -> None:
    made, journal = platform()
    for verb, provider, name, unit, first in acts:
        body: Any = {"id": name} if verb == "offer.withdraw" else offer(name, unit, first, [100, 50])
        try:
            made.submit(submit(f"sp-{provider}", body, verb=verb))
        except CoflexError:
            continue
    again = desk(journal)
    assert held(again) == held(made)
    assert fingerprint(again.machine) == fingerprint(made.machine)
    anew = Machine(TEST_VERBS)
    assert list(replay(journal.entries(), anew)) == []
    assert fingerprint(anew) == fingerprint(made.machine)


@pytest.mark.spec("PLAT-01")
@pytest.mark.parametrize(("name", "unknown"), [("unit", "cu-9999"), ("group", "nobody-local")])
def test_what_is_anothers_is_told_like_what_does_not_exist(name: str, unknown: str) -> None:
    theirs = {"unit": "cu-0002", "group": "sp-2-local"}[name]
    made, _ = platform()

    def told(of: str) -> list[str]:
        body = offer("a", 1) | {"unit": None, name: of}
        with pytest.raises(Refused) as refused:
            made.submit(submit("sp-1", body))
        return [str(one).replace(of, "X") for one in refused.value.findings]

    assert told(theirs) == told(unknown)


@pytest.mark.parametrize(
    "fault",
    [
        {"valid_until": "2016-07-05T10:00:00"},
        {"min_quantity_kw": 10**12},
        {"steps": [{"start": "2016-07-05T00:00:00", "price_eur_mwh": "4", "quantity_kw": [1]}]},
        {"steps": [{"start": "2016-07-05T00:00:00Z", "price_eur_mwh": "4", "quantity_kw": [2**63]}]},
        {"steps": [{"start": "2016-07-05T00:00:00Z", "price_eur_mwh": "NaN", "quantity_kw": [1]}]},
        {"steps": [{"start": "2016-07-05T00:00:00Z", "price_eur_mwh": "1e999999", "quantity_kw": [1]}]},
        {"steps": []},
        {"id": "../a"},
        {"id": ""},
    ],
)
def test_values_that_no_offer_has_are_refused(fault: dict[str, Any]) -> None:
    made, journal = platform()
    made.pass_gates()
    before = journal.head()
    with pytest.raises(Refused):
        made.submit(submit("sp-1", offer("a", 1) | fault))
    assert journal.head() == before


@pytest.mark.spec("PLAT-05")
def test_when_an_offer_was_received_is_known_after_the_clock_was_set_anew_and_a_restart() -> None:
    made, journal = platform()
    made.submit(submit("sp-1", offer("a", 1)))
    made.submit(set_clock(OPEN + timedelta(minutes=30)))
    made.submit(submit("sp-1", offer("b", 3)))
    before = [one.received_at for one in books(made.machine.state(TENANT)).offers(FIRST)]
    after = [one.received_at for one in books(desk(journal).machine.state(TENANT)).offers(FIRST)]
    assert before == after == [OPEN, OPEN + timedelta(minutes=30)]
