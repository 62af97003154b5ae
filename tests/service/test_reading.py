"""Reads by the table of fields: who knows of what, and what others answer like nothing (REG-11)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from coflex.domain.errors import NotFound
from coflex.register.fields import Relation, value
from coflex.register.parties import PartyEntry
from coflex.register.products import ProductEntry
from coflex.register.records import KIND_OF, KINDS
from coflex.register.resources import GroupEntry, Perimeter, PointEntry, UnitEntry, UnitStatus
from coflex.service import reading
from coflex.service.reading import MOST_LISTS, as_of, history, record, records, shown, where
from coflex.service.relations import concerned, relations
from support.registers import ROLES, START, TENANT, World, add_unit, group_form, populated
from support.watched import Asks


@pytest.fixture(scope="module")
def world() -> World:
    world = populated()
    add_unit(world, 1)
    add_unit(world, 2, provider="sp-2", owner="own-2", balance_responsible_party="brp-2")
    world.do("group.register", "sp-1", **group_form("lg", 1))
    return world


def seen(world: World, party: str, kind: type[Any]) -> list[str]:
    return [one.id for one, _ in records(world.state, world.who(party), kind)]


@pytest.mark.spec("REG-11")
@pytest.mark.parametrize(
    ("party", "units", "groups"),
    [
        ("sp-1", ["u1"], ["lg"]),
        ("sp-2", ["u2"], []),
        ("own-1", ["u1"], ["lg"]),
        ("own-2", ["u2"], []),
        ("brp-1", ["u1"], ["lg"]),
        ("dso", ["u1", "u2"], ["lg"]),
        ("tso", ["u1", "u2"], ["lg"]),
        ("mo", ["u1", "u2"], ["lg"]),
        ("fro", ["u1", "u2"], ["lg"]),
        ("nobody", [], []),
    ],
)
def test_each_sees_what_concerns_it(world: World, party: str, units: list[str], groups: list[str]) -> None:
    assert seen(world, party, UnitEntry) == units
    assert seen(world, party, PointEntry) == [unit.replace("u", "p") for unit in units]
    assert seen(world, party, GroupEntry) == groups


@pytest.mark.spec("REG-11")
def test_lists_and_single_records_agree_for_everybody(world: World) -> None:
    """The lists go through an index, single records through the table alone."""
    for name in [*ROLES, "nobody"]:
        who = world.who(name)
        for kind in KINDS.values():
            one_by_one = []
            for other in world.state.all(kind):
                try:
                    one_by_one.append(record(world.state, who, kind, other.id))  # type: ignore[attr-defined]
                except NotFound:
                    assert shown(world.state, who, other) == {}
            assert [one for one, _ in records(world.state, who, kind)] == one_by_one
            assert all(shown(world.state, who, one) for one in one_by_one)


@pytest.mark.spec("REG-11")
def test_what_one_may_not_know_answers_like_what_is_not_there(world: World) -> None:
    answers = set()
    for id in ("u1", "u9"):
        with pytest.raises(NotFound) as caught:
            record(world.state, world.who("sp-2"), UnitEntry, id)
        answers.add(str(caught.value).replace(id, "?"))
    assert len(answers) == 1


@pytest.mark.spec("REG-11")
def test_fields_are_shown_to_whom_they_concern(world: World) -> None:
    unit, point, group = (world.state.get(kind, id) for kind, id in
                          ((UnitEntry, "u1"), (PointEntry, "p1"), (GroupEntry, "lg")))  # fmt: skip
    of = {name: shown(world.state, world.who(name), unit)["unit"] for name in ("sp-1", "own-1", "dso", "mo", "brp-1")}
    assert all("owner" in of[name] for name in ("sp-1", "own-1", "dso"))
    assert all("owner" not in of[name] and "up_kw" in of[name] for name in ("mo", "brp-1"))
    assert "latitude" not in shown(world.state, world.who("brp-1"), point)["point"]
    assert "units" not in shown(world.state, world.who("own-1"), group)["group"]
    assert shown(world.state, world.who("sp-1"), unit)["unit"]["up_kw"] == 100


@pytest.mark.spec("REG-11")
def test_products_are_public_and_companies_known_to_members(world: World) -> None:
    stranger = Asks("", frozenset())
    assert [one.id for one, _ in records(world.state, stranger, ProductEntry)] == ["global", "local"]
    assert records(world.state, stranger, PartyEntry) == []
    assert records(world.state, stranger, Perimeter) == []
    assert seen(world, "sp-2", PartyEntry) == sorted(ROLES)
    assert seen(world, "sp-2", Perimeter) == ["F01", "F02"]
    assert "tso_contract" not in shown(world.state, world.who("sp-2"), world.state.get(PartyEntry, "sp-1"))


@pytest.mark.spec("REG-11")
def test_a_suspended_party_still_reads_its_own() -> None:
    world = populated()
    add_unit(world, 1)
    world.do("party.suspend", "mo", "sp-1", reason="r")
    assert seen(world, "sp-1", UnitEntry) == ["u1"]
    assert seen(world, "sp-1", PartyEntry) == ["sp-1"]


@pytest.mark.spec("REG-03", "REG-11")
def test_news_go_to_those_who_may_read_them(world: World) -> None:
    for kind in (UnitEntry, GroupEntry, PointEntry):
        for one in world.state.all(kind):
            for party in concerned(world.state, one):
                assert shown(world.state, world.who(party), one), (party, one)
    assert concerned(world.state, world.state.get(UnitEntry, "u1")) == ("brp-1", "dso", "own-1", "sp-1", "tso")


@pytest.mark.spec("REG-11")
def test_the_platform_itself_sees_everything(world: World) -> None:
    who = Asks("", frozenset(), "engine")
    assert [one.id for one, _ in records(world.state, who, UnitEntry)] == ["u1", "u2"]
    assert Relation.PLATFORM in relations(world.state, who, world.state.get(UnitEntry, "u1"))


# ---------------------------------------------------------------- history


@pytest.mark.spec("REG-11")
def test_the_whole_history_of_a_record_is_there_each_version_for_those_it_concerned() -> None:
    world = populated()
    add_unit(world, 1)
    world.later(days=1)
    world.do("unit.change", "sp-1", "u1", up_kw=120)
    world.do("consent.give", "own-1", unit="u1", provider="sp-2", scope=["offer"], ends="2027-01-01T00:00:00Z")
    world.later(days=1)
    world.do("unit.switch", "sp-2", "u1", balance_responsible_party="brp-2")
    versions = world.journal.history(TENANT, "unit", "u1")
    of = {name: history(world.state, world.who(name), versions) for name in ("sp-1", "sp-2", "dso")}
    assert [one.record["unit"]["up_kw"] for one in of["dso"] if one.record] == [100, 100, 120, 120]
    assert [one.record["unit"]["provider"] for one in of["sp-1"] if one.record] == ["sp-1"] * 3
    assert [one.record["unit"]["provider"] for one in of["sp-2"] if one.record] == ["sp-2"]
    assert [one.number for one in of["dso"]] == [version.number for version in versions]
    with pytest.raises(NotFound):
        history(world.state, world.who("own-2"), versions)
    with pytest.raises(NotFound):
        history(world.state, world.who("dso"), [])


@pytest.mark.spec("REG-11")
def test_the_register_as_of_any_moment_is_what_it_was_then() -> None:
    world = populated()
    add_unit(world, 1)
    world.later(days=1)
    world.do("unit.change", "sp-1", "u1", up_kw=120)
    world.later(days=1)
    world.do("unit.terminate", "sp-1", "u1")
    for day, up, status in ((0, 100, "active"), (1, 120, "active"), (2, 120, "terminated")):
        at = START.replace(day=1 + day)
        found = as_of(world.state, world.who("sp-1"), world.journal.as_of(TENANT, "unit", at))
        assert [(one.record["unit"]["up_kw"], one.record["status"]) for one in found if one.record] == [(up, status)]
        assert as_of(world.state, world.who("sp-2"), world.journal.as_of(TENANT, "unit", at)) == []


@pytest.mark.spec("REG-11")
def test_an_ended_record_keeps_its_history() -> None:
    world = populated()
    world.do("perimeter.remove", "dso", "F02")
    versions = world.journal.history(TENANT, KIND_OF[Perimeter], "F02")
    found = history(world.state, world.who("sp-1"), versions)
    assert [one.record is None for one in found] == [False, True]
    with pytest.raises(NotFound):
        history(world.state, Asks("", frozenset()), versions)


# ---------------------------------------------------------------- lists that are kept


@pytest.mark.spec("REG-11")
def test_a_list_is_asked_by_what_the_caller_may_read(world: World) -> None:
    def asked(party: str, path: str, text: str) -> list[str]:
        found = where(world.state, world.who(party), UnitEntry, (path,), lambda one: value(one, path) == text)
        return [one.id for one in found]

    assert asked("dso", "unit.owner", "own-1") == ["u1"] and asked("dso", "status", "active") == ["u1", "u2"]
    assert asked("own-2", "unit.owner", "own-2") == ["u2"] and asked("own-2", "unit.owner", "own-1") == []
    assert asked("mo", "unit.owner", "own-1") == []  # the market operator knows the unit, not its owner
    assert asked("brp-1", "unit.owner", "own-1") == []


def test_what_roles_alone_let_read_is_asked_without_a_look_at_each_record(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def looked(*given: object) -> frozenset[Relation]:
        raise AssertionError("a record was looked at")

    monkeypatch.setattr(reading, "relations", looked)
    assert len(where(world.state, world.who("fro"), UnitEntry, ("status",), lambda one: True)) == 2


def test_a_write_is_followed_by_a_look_at_what_was_written_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    world = populated()
    for number in (1, 2, 3):
        add_unit(world, number)
    assert seen(world, "sp-1", UnitEntry) == ["u1", "u2", "u3"]
    looked: list[str] = []

    def counted(state: Any, who: Any, one: Any) -> frozenset[Relation]:
        looked.append(one.id)
        return relations(state, who, one)

    monkeypatch.setattr(reading, "relations", counted)
    world.state.put("unit", "u2", replace(world.state.get(UnitEntry, "u2"), status=UnitStatus.INACTIVE), 99)
    assert seen(world, "sp-1", UnitEntry) == ["u1", "u2", "u3"] and looked == ["u2"]
    world.state.put("connection_point", "p2", replace(world.state.get(PointEntry, "p2"), impacted=()), 100)
    looked.clear()
    assert seen(world, "sp-1", UnitEntry) == ["u1", "u2", "u3"] and looked == ["u1", "u2", "u3"]


def test_no_more_lists_are_kept_than_are_read() -> None:
    world = populated()
    for number in range(3 * MOST_LISTS):
        records(world.state, Asks(f"party-{number}", frozenset()), UnitEntry)
    kept = world.state.attached("lists", dict)
    assert len(kept._kept) == MOST_LISTS  # type: ignore[attr-defined]
    assert len(world.state._derived) < MOST_LISTS
