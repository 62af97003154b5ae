"""Register: parties, points, units, groups and products enter once, whole or not at all."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coflex.adapters.store.memory import MemoryStore
from coflex.domain.errors import Refused
from coflex.domain.party import Party
from coflex.domain.product import Product
from coflex.domain.unit import ConnectionPoint, Group, Unit
from coflex.process.day import Day
from coflex.process.ports import Event
from coflex.process.register import register
from support.verbs import VERBS, before, everything, refusal, small_day


@pytest.mark.spec("REG-02")
def test_the_register_holds_what_the_case_brought() -> None:
    store, case = before("register"), small_day().case
    told = VERBS["register"](store)
    with store.transaction() as t:
        for kind, brought in (
            (Party, case.parties),
            (ConnectionPoint, case.points),
            (Unit, case.units),
            (Group, case.groups),
            (Product, case.products),
        ):
            assert t.all(kind) == tuple(sorted(brought, key=lambda one: one.id))
    assert (told.units, told.groups) == (len(case.units), len(case.groups))


@pytest.mark.spec("REG-03")
def test_a_provider_registers_at_one_place_and_the_connecting_operators_are_told() -> None:
    case = small_day().case
    operators = {point.id: point.system_operator for point in case.points}
    concerned = {(unit.provider, operators[unit.connection_point]) for unit in case.units}
    with before("qualify").transaction() as t:
        events = t.all(Event)
    assert {e.receiver for e in events if e.kind == "registration"} == {"fro"}
    forwarded = [e for e in events if e.kind == "registration_forwarded"]
    assert {(e.detail.rpartition(" of ")[2], e.receiver) for e in forwarded} == concerned


def test_a_full_register_is_not_filled_again() -> None:
    assert "already filled" in str(refusal("register", "qualify"))


def test_a_faulty_register_is_refused_with_every_fault_and_nothing_is_kept() -> None:
    day = small_day()
    first, second, *others = day.case.units
    spoiled = (replace(first, up_kw=-1), replace(second, connection_point="nowhere"), *others)
    store = MemoryStore(day.case.zone)
    held = everything(store)
    with pytest.raises(Refused) as told:
        register(Day(replace(day.case, units=spoiled), day.design), store, day.plans[0].opens)
    places = " ".join(finding.place for finding in told.value.findings)
    assert first.id in places
    assert second.id in places
    assert everything(store) == held
