"""Owners allow, take back and set when their units are to be had (REG-10, ACT-07)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from coflex.domain.errors import Conflict, Forbidden, NotFound, Refused
from coflex.register.consents import Availability, Consent, ConsentScope
from coflex.register.resources import UnitEntry
from coflex.service.reading import records
from support.registers import START, World, add_unit, point_form, populated, unit_form


def codes(caught: pytest.ExceptionInfo[Refused]) -> set[str]:
    return {finding.code for finding in caught.value.findings}


@pytest.fixture
def world() -> World:
    world = populated()
    world.do("unit.register", "sp-1", **unit_form(1), point=point_form(1))
    return world


def hours(count: float) -> str:
    return (START + timedelta(hours=count)).isoformat()


def give(world: World, party: str = "own-1", **changes: Any) -> Any:
    form = {"unit": "u1", "provider": "sp-1", "scope": ["offer"], "ends": hours(48)}
    return world.do("consent.give", party, **(form | changes))


@pytest.mark.spec("REG-10")
def test_a_consent_is_a_record_with_scope_and_end(world: World) -> None:
    reply = give(world, scope=["offer", "measure"])
    kept = world.state.get(Consent, reply["id"])
    assert (kept.owner, kept.unit, kept.provider) == ("own-1", "u1", "sp-1")
    assert kept.scope == (ConsentScope.OFFER, ConsentScope.MEASURE)
    assert (kept.starts, kept.ends) == (START, START + timedelta(hours=48))
    assert world.notes[0].audience == ("fro", "own-1", "sp-1")


@pytest.mark.spec("REG-10")
def test_only_the_owner_gives_it_and_only_for_its_own_unit(world: World) -> None:
    with pytest.raises(Forbidden):
        give(world, "sp-1")
    with pytest.raises(NotFound):
        give(world, "own-2")
    with pytest.raises(NotFound):
        give(world, unit="u9")


@pytest.mark.spec("REG-10")
def test_a_consent_does_not_reach_back_and_names_a_provider(world: World) -> None:
    with pytest.raises(Refused) as caught:
        give(world, provider="brp-1", scope=[], starts=hours(-1), ends=hours(-2))
    assert codes(caught) == {"unknown_provider", "scope", "past", "ends_first"}
    with pytest.raises(Refused) as caught:
        give(world, ends=datetime(2026, 8, 1).isoformat())  # noqa: DTZ001
    assert codes(caught) == {"no_offset"}


@pytest.mark.spec("REG-10")
def test_a_consent_is_taken_back_from_now_on_and_once(world: World) -> None:
    id = give(world)["id"]
    world.later(hours=1)
    for party in ("sp-1", "fro"):
        with pytest.raises(Forbidden):
            world.do("consent.withdraw", party, id)
    with pytest.raises(NotFound):
        world.do("consent.withdraw", "own-2", id)
    world.do("consent.withdraw", "own-1", id)
    assert world.state.get(Consent, id).until == START + timedelta(hours=1)
    with pytest.raises(Conflict):
        world.do("consent.withdraw", "own-1", id)
    over = give(world)["id"]
    world.later(hours=72)
    with pytest.raises(Conflict):
        world.do("consent.withdraw", "own-1", over)


@pytest.mark.spec("REG-10", "REG-11")
def test_consents_are_seen_by_the_two_sides_and_the_register_operator(world: World) -> None:
    give(world)
    seen = {name for name in ("own-1", "own-2", "sp-1", "sp-2", "dso", "tso", "mo", "fro", "brp-1")
            if records(world.state, world.who(name), Consent)}  # fmt: skip
    assert seen == {"own-1", "sp-1", "fro"}


# ---------------------------------------------------------------- availability


def window(first: float, last: float, up: int = 10, down: int = 10) -> dict[str, Any]:
    return {"starts": hours(first), "ends": hours(last), "up_kw": up, "down_kw": down}


@pytest.mark.spec("ACT-07")
def test_an_owner_sets_when_and_how_far_its_unit_is_to_be_had(world: World) -> None:
    world.do("availability.set", "own-1", "u1", windows=[window(4, 6, 0, 0), window(1, 3, 50, 0)])
    kept = world.state.get(Availability, "u1")
    assert [(one.starts, one.up_kw) for one in kept.windows] == [
        (START + timedelta(hours=1), 50), (START + timedelta(hours=4), 0),
    ]  # fmt: skip
    assert world.notes[0].audience == ("fro", "own-1", "sp-1")
    world.do("availability.set", "own-1", "u1", windows=[])
    assert world.state.get(Availability, "u1").windows == ()


@pytest.mark.spec("ACT-07")
def test_every_fault_of_the_windows_is_told(world: World) -> None:
    with pytest.raises(Refused) as caught:
        world.do("availability.set", "own-1", "u1",
                 windows=[window(0, 2), window(1, 3, 101, -1), window(9, 8)])  # fmt: skip
    assert codes(caught) == {"overlap", "power", "ends_first"}
    with pytest.raises(Refused):
        world.do("availability.set", "own-1", "u1", windows=[window(0, 1) | {"colour": "red"}])
    assert world.state.find(Availability, "u1") is None


@pytest.mark.spec("ACT-07", "REG-11")
def test_a_provider_reads_the_availability_and_does_not_set_it(world: World) -> None:
    with pytest.raises(Forbidden):
        world.do("availability.set", "sp-1", "u1", windows=[])
    with pytest.raises(NotFound):
        world.do("availability.set", "own-2", "u1", windows=[])
    world.do("availability.set", "own-1", "u1", windows=[window(0, 1)])
    assert records(world.state, world.who("sp-1"), Availability)
    assert not records(world.state, world.who("sp-2"), Availability)


@pytest.mark.spec("ACT-07")
def test_a_new_owner_begins_without_the_old_ones_windows(world: World) -> None:
    world.do("availability.set", "own-1", "u1", windows=[window(0, 1)])
    world.do("unit.change", "fro", "u1", owner="own-2")
    assert world.state.find(Availability, "u1") is None
    assert world.state.get(UnitEntry, "u1").unit.owner == "own-2"


def test_nothing_is_set_for_a_unit_that_is_over() -> None:
    world = populated()
    add_unit(world, 1)
    world.do("unit.terminate", "sp-1", "u1")
    with pytest.raises(Conflict):
        give(world)
