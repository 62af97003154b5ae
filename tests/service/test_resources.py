"""Points, units and groups: one entry point, every field, every rule, every fault at once (REG-02, REG-03, REG-05)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest

from coflex.domain.clearing import Holding, Status
from coflex.domain.errors import Conflict, Forbidden, NotFound, Outdated, Refused
from coflex.domain.party import Role
from coflex.domain.quantity import Direction
from coflex.register.consents import Availability
from coflex.register.devices import Device
from coflex.register.outcomes import SessionOutcome, Step, pack
from coflex.register.prequalification import GridPrequalification, GridStatus
from coflex.register.resources import GroupEntry, PointEntry, UnitEntry, UnitStatus
from coflex.service import rules
from coflex.service.limits import qualified_kw
from coflex.service.reading import record
from support.registers import START, World, add_unit, group_form, point_form, populated, product_form, unit_form


def codes(caught: pytest.ExceptionInfo[Refused]) -> set[str]:
    return {finding.code for finding in caught.value.findings}


@pytest.fixture
def world() -> World:
    return populated()


def consent(world: World, unit: str, provider: str, owner: str = "own-1") -> str:
    ends = (world.clock.at + timedelta(days=30)).isoformat()
    reply = world.do("consent.give", owner, unit=unit, provider=provider, scope=["offer"], ends=ends)
    return str(reply["id"])


# ---------------------------------------------------------------- one entry point


@pytest.mark.spec("REG-02", "REG-03")
def test_a_unit_enters_with_every_field_and_its_point_and_is_forwarded_to_every_operator(world: World) -> None:
    form = unit_form(1, tan_phi=0.3, energy_up_kwh=500, energy_down_kwh=None)
    reply = world.do("unit.register", "sp-1", **form, point=point_form(1))
    assert {name: reply["unit"][name] for name in form} == form
    assert (reply["unit"]["provider"], reply["status"]) == ("sp-1", "new")
    assert reply["status_since"] == reply["changed_materially"] == "2026-07-01T12:00:00Z"
    point = world.state.get(PointEntry, "p1")
    assert msgspec.to_builtins(point.point) == {k: v for k, v in point_form(1).items() if k != "impacted"}
    registered, forwarded, *asked = world.notes
    assert registered.kind == "unit.registered"
    assert registered.audience == ("brp-1", "dso", "fro", "own-1", "sp-1", "tso")
    assert (forwarded.kind, forwarded.subject) == ("registration.forwarded", "u1")
    assert forwarded.audience == ("dso", "sp-1", "tso")
    assert msgspec.json.decode(forwarded.body) == {"units": ["u1"], "operators": ["dso", "tso"]}
    assert [(one.kind, one.audience) for one in asked] == [
        ("grid_prequalification.requested", ("dso", "sp-1")),
        ("grid_prequalification.requested", ("tso", "sp-1")),
    ]


@pytest.mark.spec("REG-02")
def test_units_of_the_transmission_grid_and_outside_the_model_are_taken(world: World) -> None:
    at_tso = point_form(1, bus="", level="transmission", voltage_kv=220.0, system_operator="tso", impacted=[])
    world.do("unit.register", "sp-1", **unit_form(1, element=""), point=at_tso)
    unmodelled = point_form(2, bus="")
    world.do("unit.register", "sp-1", **unit_form(2, element=""), point=unmodelled)
    world.do("group.register", "sp-1", **group_form("g", 1, 2, scope="global", product="global", perimeter=""))
    assert rules.whole(world.state) == ()


@pytest.mark.spec("REG-02")
def test_all_faults_of_a_unit_and_its_point_are_told_at_once(world: World) -> None:
    form = unit_form(
        1, id="a b", owner="brp-1", balance_responsible_party="nobody", up_kw=-1, max_quantity_kw=500,
        min_duration_s=9000, full_activation_time_s=10, tan_phi=99, category="x" * 300, connection_point="p1",
    )  # fmt: skip
    bad = point_form(1, voltage_kv=-5, latitude=200, impacted=["dso", "own-1"], id="p2", level="transmission")
    with pytest.raises(Refused) as caught:
        world.do("unit.register", "sp-1", **form, point=bad)
    assert codes(caught) == {
        "id", "text", "tan_phi", "voltage", "position", "impacted", "unknown_operator", "other_point", "wrong_role",
        "unknown_party", "unknown_point", "negative", "quantity_range", "duration_range", "activation_time",
    }  # fmt: skip
    assert world.state.count(UnitEntry) == world.state.count(PointEntry) == 0


@pytest.mark.spec("REG-02")
def test_one_element_of_the_grid_is_one_unit_until_it_is_terminated(world: World) -> None:
    add_unit(world, 1)
    with pytest.raises(Refused) as caught:
        world.do("unit.register", "sp-2", **unit_form(2, element="battery 1"), point=point_form(2))
    assert codes(caught) == {"element_taken"}
    assert "u1" not in str([finding.message for finding in caught.value.findings])
    world.do("unit.terminate", "sp-1", "u1")
    world.do("unit.register", "sp-2", **unit_form(2, element="battery 1"), point=point_form(2))


def test_a_second_unit_comes_to_a_point_that_is_there(world: World) -> None:
    add_unit(world, 1)
    again = unit_form(2, connection_point="p1")
    world.do("unit.register", "sp-1", **again, point=point_form(1))
    with pytest.raises(Refused) as caught:
        world.do("unit.register", "sp-1", **unit_form(3, connection_point="p1"), point=point_form(1, bus="B2"))
    assert codes(caught) == {"point_differs"}
    with pytest.raises(Conflict):
        world.do("unit.register", "sp-1", **again)


def test_a_provider_registers_for_itself_and_the_register_operator_for_anybody(world: World) -> None:
    with pytest.raises(Forbidden):
        world.do("unit.register", "sp-1", **unit_form(1, provider="sp-2"), point=point_form(1))
    reply = world.do("unit.register", "fro", **unit_form(1, provider="sp-2"), point=point_form(1))
    assert reply["unit"]["provider"] == "sp-2"
    with pytest.raises(Forbidden):
        world.do("unit.register", "own-1", **unit_form(2), point=point_form(2))


# ---------------------------------------------------------------- changes


@pytest.mark.spec("REG-02")
@pytest.mark.parametrize(
    ("change", "material"),
    [
        ({"up_kw": 120}, True),
        ({"ramping_period_s": 60}, True),
        ({"technology": "hydro"}, True),
        ({"energy_up_kwh": 50}, True),
        ({"category": "second life"}, False),
        ({"up_kw": 100}, False),
    ],
)
def test_only_technical_changes_are_material_and_they_reach_the_groups(
    world: World, change: dict[str, Any], material: bool
) -> None:
    add_unit(world, 1)
    world.do("group.register", "sp-1", **group_form("lg", 1))
    world.later(days=1)
    world.do("unit.change", "sp-1", "u1", **change)
    when = START + timedelta(days=1) if material else START
    assert world.state.get(UnitEntry, "u1").changed_materially == when
    assert world.state.get(GroupEntry, "lg").changed_materially == when
    told = msgspec.json.decode(world.notes[0].body)
    assert told["material"] == material


@pytest.mark.spec("REG-02")
def test_another_place_of_a_point_is_a_material_change_of_its_units(world: World) -> None:
    add_unit(world, 1)
    add_unit(world, 2)
    world.do("group.register", "sp-1", **group_form("lg", 1))
    world.later(days=1)
    world.do("connection_point.change", "dso", "p1", latitude=45.0)
    assert world.state.get(UnitEntry, "u1").changed_materially == START
    world.do("connection_point.change", "dso", "p1", bus="B2")
    assert world.state.get(UnitEntry, "u1").changed_materially == START + timedelta(days=1)
    assert world.state.get(GroupEntry, "lg").changed_materially == START + timedelta(days=1)
    assert world.state.get(UnitEntry, "u2").changed_materially == START
    with pytest.raises(Refused) as caught:
        world.do("connection_point.change", "dso", "p1", bus="B3")
    assert codes(caught) == {"outside_perimeter"}


@pytest.mark.spec("REG-03")
def test_an_operator_that_becomes_concerned_is_told(world: World) -> None:
    world.party("dso-2", Role.DSO)
    add_unit(world, 1)
    world.do("connection_point.change", "dso", "p1", impacted=["tso", "dso-2"])
    forwarded = world.notes[-1]
    assert forwarded.kind == "registration.forwarded" and "dso-2" in forwarded.audience
    assert waiting(world) == {"dso": "sp-1", "dso-2": "sp-1", "tso": "sp-1"}
    assert world.state.number(GridPrequalification, "u1@tso") < world.state.number(GridPrequalification, "u1@dso-2")
    world.do("connection_point.change", "dso", "p1", impacted=[])
    assert waiting(world) == {"dso": "sp-1"}


@pytest.mark.spec("REG-11")
def test_others_find_nothing_and_those_concerned_may_not_write(world: World) -> None:
    add_unit(world, 1)
    answers = set()
    for unit in ("u1", "u9"):
        with pytest.raises(NotFound) as caught:
            world.do("unit.change", "sp-2", unit, up_kw=1)
        answers.add(str(caught.value).replace(unit, "?"))
    assert len(answers) == 1
    world.do("unit.register", "sp-2", **unit_form(2, connection_point="p1"), point=point_form(1))
    with pytest.raises(Forbidden, match=r"point\.owner"):
        world.do("connection_point.change", "sp-1", "p1", owner="own-2")


@pytest.mark.spec("REG-10")
def test_a_provider_does_not_choose_another_owner_whose_consent_it_has(world: World) -> None:
    add_unit(world, 1)
    with pytest.raises(Forbidden, match=r"unit\.owner"):
        world.do("unit.change", "sp-1", "u1", owner="own-2")
    world.do("device.enrol", "own-1", unit="u1", public_key="0" * 63 + "1")
    world.do("unit.change", "fro", "u1", owner="own-2")
    # Its device was the old owner's.
    assert [one.reason for one in world.state.all(Device)] == ["The unit changed owner."]
    world.do("unit.deactivate", "sp-1", "u1")
    with pytest.raises(Refused) as caught:
        world.do("unit.activate", "sp-1", "u1")
    assert codes(caught) == {"no_consent"}


def test_a_change_of_what_was_changed_meanwhile_is_outdated(world: World) -> None:
    add_unit(world, 1)
    number = world.state.number(UnitEntry, "u1")
    world.do("unit.change", "sp-1", "u1", up_kw=110, expects=number)
    with pytest.raises(Outdated):
        world.do("unit.change", "sp-1", "u1", up_kw=120, expects=number)


# ---------------------------------------------------------------- the life of a unit


@pytest.mark.spec("REG-10")
def test_no_unit_is_active_without_its_owners_consent(world: World) -> None:
    world.do("unit.register", "sp-1", **unit_form(1), point=point_form(1))
    with pytest.raises(Refused) as caught:
        world.do("unit.activate", "sp-1", "u1")
    assert codes(caught) == {"no_consent"}
    given = consent(world, "u1", "sp-1")
    world.do("consent.withdraw", "own-1", given)
    with pytest.raises(Refused):
        world.do("unit.activate", "sp-1", "u1")
    consent(world, "u1", "sp-1")
    world.do("party.suspend", "mo", "brp-1", reason="r")
    with pytest.raises(Refused) as caught:
        world.do("unit.activate", "sp-1", "u1")
    assert codes(caught) == {"party_not_approved"}
    world.do("party.resume", "mo", "brp-1")
    assert world.do("unit.activate", "sp-1", "u1")["status"] == "active"


@pytest.mark.spec("REG-02")
def test_a_unit_goes_only_its_way(world: World) -> None:
    add_unit(world, 1)
    with pytest.raises(Conflict):
        world.do("unit.activate", "sp-1", "u1")
    world.later(hours=2)
    assert world.do("unit.deactivate", "own-1", "u1")["status_since"] == "2026-07-01T14:00:00Z"
    world.do("unit.activate", "sp-1", "u1")
    world.do("unit.terminate", "sp-1", "u1")
    for verb in ("activate", "deactivate", "terminate"):
        with pytest.raises(Conflict):
            world.do(f"unit.{verb}", "sp-1", "u1")
    with pytest.raises(Conflict):
        world.do("unit.change", "sp-1", "u1", up_kw=1)
    world.do("connection_point.end", "dso", "p1")
    with pytest.raises(Refused) as caught:
        world.do("unit.register", "sp-1", **unit_form(5, connection_point="p1"))
    assert codes(caught) == {"unknown_point"}


@pytest.mark.spec("REG-05")
def test_a_terminated_unit_leaves_its_groups_and_an_empty_one_ends(world: World) -> None:
    add_unit(world, 1)
    add_unit(world, 2)
    world.do("group.register", "sp-1", **group_form("both", 1, 2))
    world.do("group.register", "sp-1", **group_form("one", 1, scope="global", product="global"))
    world.do("availability.set", "own-1", "u1", windows=[])
    world.do("unit.terminate", "sp-1", "u1")
    assert world.state.get(GroupEntry, "both").group.units == ("u2",)
    assert world.state.get(GroupEntry, "one").status is UnitStatus.TERMINATED
    assert world.state.find(Availability, "u1") is None
    assert rules.whole(world.state) == ()


# ---------------------------------------------------------------- points of others


@pytest.mark.spec("REG-11")
def test_nobody_learns_of_a_point_by_registering_a_unit_there(world: World) -> None:
    add_unit(world, 1)
    answers = set()
    for point in ("p1", "p9"):
        with pytest.raises(Refused) as caught:
            world.do("unit.register", "sp-2", **unit_form(2, connection_point=point))
        answers.add(caught.value.findings[0].message.replace(point, "?"))
        with pytest.raises(Refused) as caught:
            world.do("unit.register", "sp-2", **unit_form(2, connection_point=point), point=point_form(8))
        answers.add(" ".join(one.code for one in caught.value.findings))
    assert answers == {"There is no connection point '?'; add it or correct it.", "other_point unknown_point"}
    guesses = [{"bus": "B2"}, {"latitude": 44.5}, {"owner": "own-2"}, {"impacted": []}, {"owner": "own-2", "bus": "B2"}]
    told = set()
    for guess in guesses:
        with pytest.raises(Refused) as caught:
            world.do("unit.register", "sp-2", **unit_form(2, connection_point="p1"), point=point_form(1, **guess))
        told |= {(one.code, one.message) for one in caught.value.findings}
    ((code, message),) = told
    assert code == "point_differs" and "own-1" not in message
    with pytest.raises(NotFound):
        record(world.state, world.who("sp-2"), PointEntry, "p1")
    world.do("unit.register", "fro", **unit_form(2, connection_point="p1", provider="sp-2"))
    assert record(world.state, world.who("sp-2"), PointEntry, "p1").point.latitude == 44.4


@pytest.mark.spec("REG-11")
def test_a_unit_does_not_move_to_a_point_of_others(world: World) -> None:
    add_unit(world, 1)
    add_unit(world, 2, provider="sp-2")
    answers = set()
    for point in ("p1", "p9"):
        with pytest.raises(Refused) as caught:
            world.do("unit.change", "sp-2", "u2", connection_point=point)
        answers.add(caught.value.findings[0].message.replace(point, "?"))
    assert len(answers) == 1


# ---------------------------------------------------------------- what is sold


def sold(world: World, unit: str, start: datetime) -> datetime:
    """The ledger holds a quarter-hour of a unit; gives its end."""
    holding = Holding(unit, start, "local-1", "dso", Direction.UP, 10, "offer", Status.DEFINITIVE)
    day = start.date()
    session = f"{day}.local-1"
    outcome = SessionOutcome(f"{session}.result", day, session, Step.RESULT, START, "dso", added=pack([holding]))
    world.state.put("session_outcome", outcome.id, outcome, 1)
    return start + timedelta(minutes=15)


@pytest.mark.spec("MKT-09")
def test_an_element_is_taken_until_what_was_sold_of_a_terminated_unit_is_over(world: World) -> None:
    add_unit(world, 1)
    end = sold(world, "u1", START + timedelta(hours=14))
    world.do("unit.terminate", "sp-1", "u1")
    second = {**unit_form(2, element="battery 1"), "point": point_form(2)}
    row = unit_form(3, element="battery 1", connection_point="p1")
    for at in (START, end - timedelta(microseconds=1)):
        world.clock.at = at
        with pytest.raises(Refused) as caught:
            world.do("unit.register", "sp-1", **second)
        assert codes(caught) == {"element_taken"}
        with pytest.raises(Refused) as caught:
            world.do("units.import", "sp-1", rows=[row])
        assert codes(caught) == {"element_taken"}
    world.clock.at = end
    world.do("unit.register", "sp-1", **second)


@pytest.mark.spec("MKT-09")
def test_a_unit_that_is_sold_keeps_its_element_and_its_provider(world: World) -> None:
    add_unit(world, 1)
    consent(world, "u1", "sp-2")
    end = sold(world, "u1", START + timedelta(hours=20))
    for verb, party, form in (
        ("unit.change", "sp-1", {"element": "battery 9"}),
        ("unit.switch", "sp-2", {"balance_responsible_party": "brp-2"}),
    ):
        world.clock.at = end - timedelta(microseconds=1)
        with pytest.raises(Conflict, match="2026-07-02T08:15"):
            world.do(verb, party, "u1", **form)
    world.do("unit.change", "sp-1", "u1", up_kw=120)
    world.clock.at = end
    world.do("unit.change", "sp-1", "u1", element="battery 9")
    world.do("unit.switch", "sp-2", "u1", balance_responsible_party="brp-2")


# ---------------------------------------------------------------- operators are asked by the register itself


def waiting(world: World) -> dict[str, str]:
    """Operators that are asked about u1, and the provider that they answer."""
    there = world.state.all(GridPrequalification)
    return {one.operator: one.provider for one in there if one.unit == "u1" and one.status is GridStatus.REQUESTED}


def approve(world: World) -> None:
    for operator in ("dso", "tso"):
        world.do("grid_prequalification.answer", operator, f"u1@{operator}", status="approved", reason="r", proof="p")


@pytest.mark.spec("REG-03")
def test_a_unit_asks_its_operators_when_it_enters_when_it_changes_and_when_it_is_switched(world: World) -> None:
    add_unit(world, 1)
    assert waiting(world) == {"dso": "sp-1", "tso": "sp-1"}
    assert world.do("grid_prequalification.request", "sp-1", units=["u1"]) == {
        "requested": [], "waiting": ["u1@dso", "u1@tso"],
    }  # fmt: skip
    approve(world)
    world.do("unit.change", "sp-1", "u1", category="other")
    assert waiting(world) == {}
    for verb, party, subject, form in (
        ("unit.change", "sp-1", "u1", {"up_kw": 120}),
        ("connection_point.change", "dso", "p1", {"bus": "B2"}),
    ):
        world.later(hours=1)
        world.do(verb, party, subject, **form)
        assert waiting(world) == {"dso": "sp-1", "tso": "sp-1"}
        assert qualified_kw(world.state, world.clock.at) == {}
        approve(world)
        assert qualified_kw(world.state, world.clock.at)["u1", Direction.UP] == 120
    consent(world, "u1", "sp-2")
    world.do("unit.switch", "sp-2", "u1", balance_responsible_party="brp-2")
    assert waiting(world) == {"dso": "sp-2", "tso": "sp-2"}
    assert {one.audience for one in world.notes if one.kind == "grid_prequalification.requested"} == {
        ("dso", "sp-2"), ("tso", "sp-2"),
    }  # fmt: skip
    assert qualified_kw(world.state, world.clock.at)["u1", Direction.UP] == 120  # the unit is what was approved
    with pytest.raises(NotFound):
        record(world.state, world.who("sp-1"), GridPrequalification, "u1@dso")


@pytest.mark.spec("REG-03")
def test_what_waited_for_an_operator_ends_with_the_unit_and_answers_follow_it(world: World) -> None:
    world.party("dso-2", Role.DSO)
    add_unit(world, 1)
    approve(world)
    world.do("connection_point.change", "dso", "p1", impacted=["dso-2"])
    assert waiting(world) == {"dso-2": "sp-1"}
    consent(world, "u1", "sp-2")
    world.do("unit.switch", "sp-2", "u1", balance_responsible_party="brp-2")
    former = world.state.get(GridPrequalification, "u1@tso")
    assert (former.provider, former.status) == ("sp-2", GridStatus.APPROVED)
    world.do("unit.terminate", "sp-2", "u1")
    assert [one.id for one in world.state.all(GridPrequalification)] == ["u1@tso"]


# ---------------------------------------------------------------- switch of provider


@pytest.mark.spec("REG-10")
def test_a_unit_goes_to_another_provider_with_its_owners_consent_alone(world: World) -> None:
    add_unit(world, 1)
    world.do("group.register", "sp-1", **group_form("lg", 1))
    answers = set()
    for unit in ("u1", "u9"):
        with pytest.raises(NotFound) as caught:
            world.do("unit.switch", "sp-2", unit, balance_responsible_party="brp-2")
        answers.add(str(caught.value).replace(unit, "?"))
    assert len(answers) == 1
    consent(world, "u1", "sp-2")
    with pytest.raises(Refused):
        world.do("unit.switch", "sp-2", "u1", balance_responsible_party="own-1")
    reply = world.do("unit.switch", "sp-2", "u1", balance_responsible_party="brp-2")
    assert (reply["unit"]["provider"], reply["status"]) == ("sp-2", "inactive")
    assert world.notes[0].audience == ("brp-1", "brp-2", "dso", "fro", "own-1", "sp-1", "sp-2", "tso")
    assert world.state.get(GroupEntry, "lg").status is UnitStatus.TERMINATED
    with pytest.raises(NotFound):
        world.do("unit.change", "sp-1", "u1", up_kw=1)
    world.do("unit.activate", "sp-2", "u1")
    with pytest.raises(Conflict):
        world.do("unit.switch", "sp-2", "u1", balance_responsible_party="brp-2")
    with pytest.raises(Forbidden):
        world.do("unit.switch", "sp-1", "u1", provider="sp-2", balance_responsible_party="brp-2")


@pytest.mark.spec("REG-10")
def test_the_consent_of_a_former_owner_counts_no_more(world: World) -> None:
    add_unit(world, 1)
    consent(world, "u1", "sp-2")
    world.do("unit.deactivate", "sp-1", "u1")
    world.do("unit.change", "fro", "u1", owner="own-2")
    with pytest.raises(Refused) as caught:
        world.do("unit.activate", "sp-1", "u1")
    assert codes(caught) == {"no_consent"}
    with pytest.raises(NotFound):
        world.do("unit.switch", "sp-2", "u1", balance_responsible_party="brp-2")
    consent(world, "u1", "sp-2", "own-2")
    world.do("unit.switch", "sp-2", "u1", balance_responsible_party="brp-2")
    world.do("unit.activate", "sp-2", "u1")


# ---------------------------------------------------------------- groups


@pytest.mark.spec("REG-05")
def test_a_unit_is_in_one_local_and_one_global_group(world: World) -> None:
    add_unit(world, 1)
    add_unit(world, 2)
    world.do("group.register", "sp-1", **group_form("l-1", 1))
    world.do("group.register", "sp-1", **group_form("g-1", 1, 2, scope="global", product="global"))
    with pytest.raises(Refused) as caught:
        world.do("group.register", "sp-1", **group_form("l-2", 1, 2))
    assert codes(caught) == {"two_groups_of_a_scope"}
    world.do("group.terminate", "sp-1", "l-1")
    world.do("group.register", "sp-1", **group_form("l-2", 1, 2))


@pytest.mark.spec("REG-05")
def test_every_breach_of_a_group_is_told_at_once(world: World) -> None:
    add_unit(world, 1)
    add_unit(world, 2, balance_responsible_party="brp-2")
    add_unit(world, 3)
    with pytest.raises(Refused) as caught:
        world.do("group.register", "sp-1", **group_form("g", 1, 1, 2, 3, 7, product="global"))
    assert codes(caught) == {
        "unit_repeated", "unknown_unit", "two_balance_responsible_parties", "outside_perimeter", "wrong_scope",
    }  # fmt: skip


@pytest.mark.spec("REG-05", "REG-11")
def test_units_of_others_are_told_like_units_that_are_not_there(world: World) -> None:
    add_unit(world, 1)
    add_unit(world, 2, provider="sp-2")
    told = set()
    for number in (2, 9):
        with pytest.raises(Refused) as caught:
            world.do("group.register", "sp-1", **group_form("g", number))
        told.add(str([str(one) for one in caught.value.findings]).replace(f"u{number}", "?"))
    assert len(told) == 1


@pytest.mark.spec("REG-05")
def test_a_change_of_units_is_material_and_a_change_of_product_is_not(world: World) -> None:
    add_unit(world, 1)
    add_unit(world, 2)
    world.do("product.register", "dso", **product_form("local-2", "local"))
    world.do("group.register", "sp-1", **group_form("lg", 1))
    world.later(days=1)
    world.do("group.change", "sp-1", "lg", product="local-2")
    assert world.state.get(GroupEntry, "lg").changed_materially == START
    world.do("group.change", "sp-1", "lg", units=["u1", "u2"])
    assert world.state.get(GroupEntry, "lg").changed_materially == START + timedelta(days=1)
    with pytest.raises(Refused) as caught:
        world.do("group.change", "sp-1", "lg", units=[])
    assert codes(caught) == {"empty_group"}
    with pytest.raises(NotFound):
        world.do("group.change", "sp-2", "lg", units=["u1"])
    for verb, status in (("activate", "active"), ("deactivate", "inactive"), ("terminate", "terminated")):
        assert world.do(f"group.{verb}", "sp-1", "lg")["status"] == status
    with pytest.raises(Conflict):
        world.do("group.change", "sp-1", "lg", units=["u1"])


@pytest.mark.spec("REG-05")
def test_no_group_is_formed_for_a_withdrawn_product_or_outside_its_location(world: World) -> None:
    add_unit(world, 1)
    world.do("product.register", "dso", **product_form("north", "local", perimeters=["F02"]))
    world.do("product.withdraw", "dso", "local")
    with pytest.raises(Refused) as caught:
        world.do("group.register", "sp-1", **group_form("g", 1))
    assert codes(caught) == {"product_withdrawn"}
    with pytest.raises(Refused) as caught:
        world.do("group.register", "sp-1", **group_form("g", 1, product="north"))
    assert codes(caught) == {"outside_location"}


# ---------------------------------------------------------------- perimeters and points


@pytest.mark.spec("REG-05")
def test_perimeters_are_the_operators_and_no_group_is_torn_by_a_change(world: World) -> None:
    add_unit(world, 1)
    add_unit(world, 2)
    world.do("group.register", "sp-1", **group_form("lg", 1, 2))
    with pytest.raises(Refused) as caught:
        world.do("perimeter.set", "dso", "F03", name="F03", buses=["B2", "B9"])
    assert codes(caught) == {"bus_taken", "outside_perimeter"}
    world.do("perimeter.set", "dso", "F01", name="F01", buses=["B1", "B2", "B5"])
    with pytest.raises(Refused) as caught:
        world.do("perimeter.set", "dso", "F01", name="other", buses=["B1", "B2"])
    assert codes(caught) == {"outside_perimeter"}
    with pytest.raises(Forbidden):
        world.do("perimeter.set", "tso", "F01", name="F01", buses=["B1"])
    with pytest.raises(Forbidden):
        world.do("perimeter.set", "sp-1", "F09", name="F09", buses=["B9"])
    with pytest.raises(Refused) as caught:
        world.do("perimeter.set", "fro", "F09", name="F09", buses=["B9", "B9"])
    assert codes(caught) == {"unknown_operator", "buses"}
    world.do("perimeter.remove", "dso", "F02")


def test_points_are_registered_by_their_operator_or_a_provider(world: World) -> None:
    world.do("connection_point.register", "dso", **point_form(1))
    with pytest.raises(Forbidden):
        world.do("connection_point.register", "tso", **point_form(2))
    with pytest.raises(Conflict):
        world.do("connection_point.register", "sp-1", **point_form(1))
    world.do("connection_point.register", "sp-1", **point_form(3))
    world.do("connection_point.change", "sp-1", "p3", bus="B4")
    with pytest.raises(NotFound):
        world.do("connection_point.change", "sp-2", "p3", bus="B1")
    world.do("unit.register", "sp-2", **unit_form(4, connection_point="p3"), point=point_form(3, bus="B4"))
    with pytest.raises(NotFound):
        world.do("connection_point.change", "sp-1", "p3", bus="B1")
    with pytest.raises(Forbidden):
        world.do("connection_point.change", "sp-2", "p3", bus="B1")
    with pytest.raises(Conflict):
        world.do("connection_point.end", "dso", "p3")
    world.do("connection_point.end", "dso", "p1")
    with pytest.raises(Conflict):
        world.do("connection_point.change", "dso", "p1", bus="B2")
