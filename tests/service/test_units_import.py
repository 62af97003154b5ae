"""Many units in one command: all or none, every fault with its row (REG-02, REG-03)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from coflex.domain.errors import Forbidden, Refused
from coflex.register.prequalification import GridPrequalification
from coflex.register.resources import PointEntry, UnitEntry
from coflex.service import rules
from coflex.service.replay import fingerprint
from support.registers import World, add_unit, point_form, populated, unit_form


@pytest.fixture
def world() -> World:
    return populated()


def row(number: int, **changes: Any) -> dict[str, Any]:
    """A unit with its point."""
    point = {name: value for name, value in point_form(number).items() if name not in ("id", "owner")}
    return unit_form(number) | point | changes


def refused(world: World, rows: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """Place and code of every fault; nothing may have changed."""
    before = fingerprint(world.machine)
    with pytest.raises(Refused) as caught:
        world.do("units.import", "sp-1", rows=rows)
    assert fingerprint(world.machine) == before
    return {(finding.place, finding.code) for finding in caught.value.findings}


@pytest.mark.spec("REG-02", "REG-03")
def test_rows_become_units_and_points_and_are_forwarded_to_their_operators(world: World) -> None:
    alone = row(3, level="transmission", system_operator="tso", impacted=[], voltage_kv=220.0, bus="", element="")
    reply = world.do("units.import", "sp-1", rows=[row(1), row(2), alone])
    assert (reply["units"], reply["connection_points"]) == (3, 3)
    forwarded = {
        note.audience: msgspec.json.decode(note.body)["units"] for note in world.notes
        if note.kind == "registration.forwarded"
    }  # fmt: skip
    assert forwarded == {("dso", "sp-1", "tso"): ["u1", "u2"], ("sp-1", "tso"): ["u3"]}
    assert rules.whole(world.state) == ()


@pytest.mark.spec("REG-02")
def test_one_command_gives_what_many_give(world: World) -> None:
    other = populated()
    for number in (1, 2):
        other.do("unit.register", "sp-1", **unit_form(number), point=point_form(number))
    world.do("units.import", "sp-1", rows=[row(1), row(2)])
    for kind in (UnitEntry, PointEntry):
        assert world.state.all(kind) == other.state.all(kind)


@pytest.mark.spec("REG-02")
def test_every_fault_of_every_row_is_told_with_its_row_and_nothing_is_taken(world: World) -> None:
    add_unit(world, 5)
    found = refused(
        world,
        [
            row(1, up_kw=-1, down_kw=100, place="units.csv, line 2"),
            row(2, id="u1", place="units.csv, line 3"),
            row(3, owner="nobody", tan_phi=77.0, place="units.csv, line 4"),
            row(4, element="battery 5", voltage_kv=-1.0, place="units.csv, line 5"),
            row(5),
            row(6, latitude=None),
            unit_form(7),
        ],
    )
    assert found == {
        ("units.csv, line 2: unit u1", "negative"),
        ("units.csv, line 3, column id", "id_taken"),
        ("units.csv, line 4, column tan_phi", "tan_phi"),
        ("units.csv, line 4: unit u3", "unknown_party"),
        ("units.csv, line 4: connection point p3", "unknown_party"),
        ("units.csv, line 5, column voltage_kv", "voltage"),
        ("units.csv, line 5: unit u4", "element_taken"),
        ("row 5, column id", "id_taken"),
        ("row 6, column latitude", "incomplete_point"),
        ("row 6: unit u6", "unknown_point"),
        ("row 7: unit u7", "unknown_point"),
    }


@pytest.mark.spec("REG-02")
def test_rows_share_a_point_when_they_say_the_same_of_it(world: World) -> None:
    again = unit_form(2, connection_point="p1")
    world.do("units.import", "sp-1", rows=[row(1), again])
    assert world.state.count(PointEntry) == 1
    other = row(3, connection_point="p1", bus="B2")
    assert refused(world, [other]) == {("row 1, column connection_point", "point_differs")}
    same_elements = [row(6), row(7, element="battery 6")]
    assert refused(world, same_elements) == {("row 2: unit u7", "element_taken")}


def test_the_size_is_bounded_and_the_provider_is_the_caller(world: World) -> None:
    assert refused(world, []) == {("rows", "row_count")}
    with pytest.raises(Forbidden):
        world.do("units.import", "sp-1", rows=[row(1, provider="sp-2")])
    world.do("units.import", "fro", rows=[row(1, provider="sp-2")])
    assert world.state.get(UnitEntry, "u1").unit.provider == "sp-2"


def test_an_owner_of_the_point_may_be_another_than_the_units(world: World) -> None:
    world.do("units.import", "sp-1", rows=[row(1, point_owner="own-2")])
    assert world.state.get(PointEntry, "p1").point.owner == "own-2"


@pytest.mark.spec("REG-03")
def test_imported_units_ask_their_operators_by_one_note_to_each(world: World) -> None:
    world.do("units.import", "sp-1", rows=[row(number) for number in (1, 2, 3)])
    asked = [one for one in world.notes if one.kind == "grid_prequalification.requested"]
    assert [one.audience for one in asked] == [("dso", "sp-1"), ("tso", "sp-1")]
    assert msgspec.json.decode(asked[0].body) == {"ids": ["u1@dso", "u2@dso", "u3@dso"]}
    assert world.state.count(GridPrequalification) == 6


@pytest.mark.spec("REG-11")
def test_a_row_tells_of_no_point_of_others(world: World) -> None:
    world.do("units.import", "sp-2", rows=[row(1)])
    place = "row 1: unit u2"
    assert refused(world, [unit_form(2, connection_point="p1")]) == {(place, "unknown_point")}
    assert refused(world, [unit_form(2, connection_point="p9")]) == {(place, "unknown_point")}
    other = row(2, connection_point="p1", bus="B4")
    assert refused(world, [other]) == {("row 1, column connection_point", "point_differs")}
    as_it_is, empty = row(2, connection_point="p1", bus="B1"), unit_form(3, connection_point="p1")
    world.do("units.import", "sp-1", rows=[empty, as_it_is])
