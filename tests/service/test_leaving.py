"""A unit that goes to another provider leaves the books: nobody but the new one can sell it (REG-05, MKT-09)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from coflex.adapters.store.journal_memory import MemoryJournal
from coflex.domain.activation import Piece
from coflex.domain.errors import Conflict, NotFound, Outdated, Refused
from coflex.domain.quantity import Direction
from coflex.market.engine import SessionState
from coflex.register.activations import Backup, SetPointEntry
from coflex.register.consents import Consent
from coflex.register.market import SessionEntry
from coflex.register.resources import GroupEntry, UnitEntry, UnitStatus
from coflex.service.books import books
from coflex.service.machine import Machine, encode
from coflex.service.ports import Command, StoreFull
from coflex.service.replay import fingerprint, replay, restore
from coflex.service.sequencer import Sequencer
from support.platform import (
    FIRST,
    FIRST_START,
    LONG_AGO,
    OPEN,
    TENANT,
    TEST_VERBS,
    desk,
    offer,
    put,
    ready,
    set_clock,
    submit,
)

UNIT = "cu-0001"
GLOBAL = "2016-07-05.global-1"
SWITCH = {"balance_responsible_party": "brp"}


class Journal(MemoryJournal):
    """One whose disk is full when the test says so."""

    full = False

    def append(self, entries: Any) -> None:
        if self.full:
            raise StoreFull("The test says so.")
        super().append(entries)


def platform() -> tuple[Sequencer, Journal]:
    """Two providers of four units each, and the owner's word that sp-2 may have the first one's first."""
    journal = Journal()
    made = desk(journal)
    for command in ready(8, 2):
        made.submit(command)
    given = made.machine.state(TENANT).get(Consent, f"consent-{UNIT}")
    made.submit(put([replace(given, id="consent-other", provider="sp-2")]))
    return made, journal


def switch(made: Sequencer, unit: str = UNIT, **more: Any) -> None:
    made.submit(Command(TENANT, "unit.switch", unit, "sp-2", "sp-2", "client-sp-2", encode(SWITCH), **more))


def held(made: Sequencer, session: str = FIRST) -> list[str]:
    return [one.id for one in books(made.machine.state(TENANT)).offers(session)]


def close(made: Sequencer, session: str = FIRST) -> None:
    made.submit(set_clock(made.machine.state(TENANT).get(SessionEntry, session).closes))
    made.pass_gates()
    assert made.machine.state(TENANT).get(SessionEntry, session).state == SessionState.CLOSED


def again(journal: MemoryJournal) -> Machine:
    """What a restart reads."""
    machine = Machine(TEST_VERBS)
    restore(machine, journal)
    return machine


def told(journal: MemoryJournal, party: str) -> list[Mapping[str, str]]:
    """What a party heard of offers that were withdrawn."""
    notes = [item.note for item in journal.feed(TENANT, party, (0, 0), 1_000)]
    return [msgspec.json.decode(one.body) for one in notes if one.kind == "offers.withdrawn"]


@pytest.mark.spec("REG-05", "MKT-02", "PLAT-05")
def test_with_the_switch_the_old_provider_s_offers_leave_the_open_book_and_it_is_told() -> None:
    made, journal = platform()
    made.submit(submit("sp-1", [offer("mine", 1), offer("later", 1, first=9), offer("other", 3)]))
    made.submit(submit("sp-2", offer("mine", 2)))
    switch(made)
    assert held(made) == ["sp-1/other", "sp-2/mine"]
    (heard,) = told(journal, "sp-1")
    assert set(heard) == {"sp-1/mine", "sp-1/later"} and UNIT in heard["sp-1/mine"]
    assert not told(journal, "sp-2") and not told(journal, "dso")
    with pytest.raises(NotFound):
        made.submit(submit("sp-1", {"id": "mine"}, verb="offer.withdraw"))
    rest = made.machine.state(TENANT).get(GroupEntry, "sp-1-local")
    made.submit(put([replace(rest, changed_materially=LONG_AGO)]))  # as if it had been tested again
    made.submit(submit("sp-1", offer("mine", 5)))
    assert held(made) == ["sp-1/other", "sp-2/mine", "sp-1/mine"]
    assert fingerprint(again(journal)) == fingerprint(made.machine), "a restart finds them gone, and the new one there"
    assert not list(replay(journal.entries(), Machine(TEST_VERBS)))


@pytest.mark.spec("REG-05", "MKT-09")
def test_the_new_provider_offers_the_unit_in_the_same_session_and_the_old_one_not_even_when_it_has_it_back() -> None:
    made, journal = platform()
    made.submit(submit("sp-1", offer("mine", 1)))
    switch(made)
    state = made.machine.state(TENANT)
    theirs = state.get(GroupEntry, "sp-2-local")
    theirs = replace(theirs, group=replace(theirs.group, units=(*theirs.group.units, UNIT)))
    made.submit(put([theirs, replace(state.get(UnitEntry, UNIT), status=UnitStatus.ACTIVE)]))
    made.submit(submit("sp-2", offer("mine", 1)))
    made.submit(Command(TENANT, "unit.switch", UNIT, "sp-1", "sp-1", "client-sp-1", encode(SWITCH)))
    assert held(made) == []
    assert [len(told(journal, party)) for party in ("sp-1", "sp-2")] == [1, 1]
    assert fingerprint(again(journal)) == fingerprint(made.machine)


@pytest.mark.spec("REG-05", "MKT-09")
def test_offers_of_a_group_with_the_unit_leave_the_book_too() -> None:
    made, journal = platform()
    made.submit(set_clock(made.machine.state(TENANT).get(SessionEntry, GLOBAL).opens))
    for provider in ("sp-1", "sp-2"):
        body = offer("all", 1) | {"product": "global_energy", "unit": None, "group": f"{provider}-global"}
        made.submit(submit(provider, body, session=GLOBAL))
    switch(made)
    assert held(made, GLOBAL) == ["sp-2/all"]
    assert [list(heard) for heard in told(journal, "sp-1")] == [["sp-1/all"]]
    assert fingerprint(again(journal)) == fingerprint(made.machine)


@pytest.mark.spec("MKT-02", "MKT-09")
def test_what_a_gate_has_settled_is_sold_by_whoever_offered_it_and_the_unit_waits_for_the_result() -> None:
    made, _ = platform()
    made.submit(submit("sp-1", offer("mine", 1)))
    close(made)
    with pytest.raises(Conflict, match=f"{FIRST} may still buy"):
        switch(made)
    with pytest.raises(Conflict, match=f"{FIRST} may still buy"):
        body = encode({"element": "other"})
        made.submit(Command(TENANT, "unit.change", UNIT, "sp-1", "sp-1", "client-sp-1", body))
    assert made.machine.state(TENANT).get(UnitEntry, UNIT).unit.provider == "sp-1"
    entry = made.machine.state(TENANT).get(SessionEntry, FIRST)
    made.submit(put([replace(entry, outcome=f"{FIRST}.result", state=SessionState.PUBLISHED.value)]))
    switch(made)


@pytest.mark.spec("MKT-09")
def test_an_offer_that_did_not_stand_at_the_gate_holds_nobody_up() -> None:
    made, _ = platform()
    made.submit(submit("sp-1", [offer("mine", 1), offer("other", 3)]))
    entry = made.machine.state(TENANT).get(UnitEntry, UNIT)
    made.submit(put([replace(entry, status=UnitStatus.INACTIVE)]))
    close(made)
    switch(made)


@pytest.mark.spec("PLAT-05")
def test_a_switch_that_is_refused_or_undone_leaves_the_book_as_it_was() -> None:
    made, journal = platform()
    made.submit(submit("sp-1", [offer("mine", 1), offer("other", 3)]))
    before = fingerprint(made.machine)
    with pytest.raises(Outdated):
        switch(made, expects=1)
    journal.full = True
    with pytest.raises(StoreFull):
        switch(made)
    journal.full = False
    assert fingerprint(made.machine) == before
    with pytest.raises(Refused) as refused:
        made.submit(submit("sp-1", offer("again", 1)))
    assert [one.code for one in refused.value.findings] == ["offered_twice"]
    made.submit(submit("sp-1", {"id": "mine"}, verb="offer.withdraw"))


@pytest.mark.spec("ACT-07")
def test_what_the_old_provider_reserved_is_free_unless_an_order_uses_it() -> None:
    made, journal = platform()
    starts, ends = FIRST_START, FIRST_START + timedelta(hours=1)
    backup = Backup("backup-1", "sp-1", "owner", UNIT, starts, ends, OPEN)
    over = replace(backup, id="backup-0", starts=OPEN - timedelta(hours=1), ends=OPEN)
    used = SetPointEntry(
        "order-1.cu-0001", "order-1", FIRST, UNIT, "owner", "sp-1", "dso", ("dso",), Direction.UP,
        (Piece(starts, ends, 10),), 1, OPEN,
    )  # fmt: skip
    made.submit(put([backup, over, used]))
    with pytest.raises(Conflict, match="backup"):
        switch(made)
    made.submit(put([replace(used, profile=())]))
    switch(made)
    state = made.machine.state(TENANT)
    assert (state.get(Backup, backup.id).released, state.get(Backup, over.id).released) == (OPEN, None)
    kinds = [item.note.kind for item in journal.feed(TENANT, "sp-1", (0, 0), 1_000)]
    assert "backup.released" in kinds
