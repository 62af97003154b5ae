"""Scheduling units: every step by the one whose step it is, when it is due, and a conflict that names the next one
otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from coflex.domain.errors import CoflexError, Conflict, Forbidden, NotFound, Refused
from coflex.domain.party import Role
from coflex.domain.unit import Scope
from coflex.register.parties import Confirmed, Duty, PartyEntry
from coflex.register.prequalification import (
    Agreement,
    Condition,
    MemberStatus,
    ProductTest,
    SchedulingMember,
    SchedulingStatus,
    SchedulingUnit,
    member_id,
)
from coflex.service.machine import Context
from coflex.service.verbs.scheduling import NEXT, _unit_faults
from support.qualifying import Desk, columns
from support.tested import first_order

CONDITIONS = [one.value for one in Condition]


@pytest.fixture
def desk() -> Desk:
    """Units of three providers at two DSOs, all prequalified for the TSO's product."""
    made = Desk()
    made.product("mfrr")
    for name, provider, operator in (("cu-1", "sp", "dso"), ("cu-2", "sp-2", "dso-2"), ("cu-3", "bsp", "dso")):
        made.unit(name, provider, operator)
        made.group(f"g-{name}", (name,), provider=provider)
        made.approved(name)
        made.passed(f"g-{name}")
    return made


def declare(desk: Desk, **more: Any) -> str:
    form = {"id": "su-1", "type": "demand", "products": ["mfrr"], "tso": "tso"} | more
    return str(desk.do("scheduling_unit.declare", "bsp", **form)["id"])


def member(unit: str) -> str:
    return member_id("su-1", unit)


def acquired(desk: Desk) -> None:
    """One unit offered, one asked for, one of the BSP itself."""
    declare(desk)
    desk.do("scheduling_unit.offer_units", "sp", "su-1", units=["cu-1"])
    desk.do("scheduling_unit.ask_for_units", "bsp", "su-1", units=["cu-2"])
    desk.do("scheduling_unit.offer_units", "bsp", "su-1", units=["cu-3"])
    desk.do("scheduling_member.accept", "bsp", member("cu-1"))
    desk.do("scheduling_member.accept", "sp-2", member("cu-2"))


def created(desk: Desk) -> None:
    acquired(desk)
    desk.do("scheduling_unit.close", "bsp", "su-1")
    for party in ("sp", "sp-2", "bsp"):
        desk.do("scheduling_unit.confirm", party, "su-1")


def requested(desk: Desk) -> None:
    created(desk)
    desk.do("scheduling_unit.request_tests", "bsp", "su-1", up_kw=1200, down_kw=0, conditions=CONDITIONS)


def being_tested(desk: Desk) -> str:
    requested(desk)
    desk.do("scheduling_unit.take_part", "dso", "su-1")
    desk.do("scheduling_unit.take_part", "dso-2", "su-1")
    return set_test(desk)


def set_test(desk: Desk) -> str:
    plan = {"product": "mfrr", "starts": (desk.now + timedelta(hours=1)).isoformat()}
    return str(desk.do("scheduling_test.set", "tso", "su-1", **plan)["id"])


def tested(desk: Desk) -> None:
    desk.answered(being_tested(desk), 60.0, "scheduling_test.answer")


def registered(desk: Desk) -> None:
    tested(desk)
    desk.do("scheduling_unit.register", "tso", "su-1")


def the(desk: Desk) -> SchedulingUnit:
    return desk.the(SchedulingUnit, "su-1")


# ---------------------------------------------------------------- the whole way


@pytest.mark.spec("REG-09")
def test_from_the_public_intent_to_the_agreement(desk: Desk) -> None:
    registered(desk)
    desk.do("scheduling_unit.agree", "bsp", "su-1", reference="A-1")
    desk.do("scheduling_unit.agree", "tso", "su-1", reference="A-1")
    unit = the(desk)
    assert [one.status for one in unit.steps] == [
        SchedulingStatus.DECLARED,
        SchedulingStatus.CLOSED,
        SchedulingStatus.CREATED,
        SchedulingStatus.TEST_REQUESTED,
        SchedulingStatus.TESTING,
        SchedulingStatus.TESTED,
        SchedulingStatus.REGISTERED,
        SchedulingStatus.AGREED,
    ]
    assert [one.party for one in unit.steps] == ["bsp", "bsp", "bsp", "bsp", "tso", "bsp", "tso", "tso"]
    assert unit.points == ("pod-cu-1", "pod-cu-2", "pod-cu-3")
    assert (unit.providers, unit.operators) == (("bsp", "sp", "sp-2"), ("dso", "dso-2"))
    agreement = desk.the(Agreement, unit.agreement)
    assert (agreement.tso, agreement.bsp, agreement.reference, agreement.version) == ("tso", "bsp", "A-1", 1)
    assert agreement.scheduling_units == ("su-1",)


@pytest.mark.spec("REG-09")
def test_a_second_scheduling_unit_amends_the_agreement(desk: Desk) -> None:
    id = "tso@bsp"
    desk.put(Agreement(id, "tso", "bsp", "A-1", 1, desk.now, ("su-0",)))
    registered(desk)
    desk.do("scheduling_unit.agree", "tso", "su-1", reference="A-2")
    kinds = [note.kind for note in desk.taken("scheduling_unit.agree", "bsp", "su-1", reference="A-2").notes]
    assert "agreement.amended" in kinds
    agreement = desk.the(Agreement, id)
    assert (agreement.version, agreement.scheduling_units, agreement.pending) == (2, ("su-0", "su-1"), "")


@pytest.mark.spec("REG-09")
def test_one_side_or_two_references_are_no_agreement(desk: Desk) -> None:
    registered(desk)
    for party, reference in (("bsp", "A-1"), ("bsp", "A-1"), ("tso", "A-2"), ("bsp", "A-3")):
        desk.do("scheduling_unit.agree", party, "su-1", reference=reference)
        assert the(desk).status is SchedulingStatus.REGISTERED
    desk.do("scheduling_unit.agree", "tso", "su-1", reference="A-3")
    assert the(desk).status is SchedulingStatus.AGREED


# ---------------------------------------------------------------- intent


@pytest.mark.spec("REG-09")
def test_the_intent_is_public(desk: Desk) -> None:
    form = {"id": "su-1", "type": "storage", "products": ["mfrr"], "tso": "tso", "note": "batteries wanted"}
    (note,) = desk.taken("scheduling_unit.declare", "bsp", **form).notes
    assert (note.kind, note.audience) == ("scheduling_unit.declared", ("*",))
    assert b"storage" in note.body


@pytest.mark.spec("REG-09")
def test_a_provider_without_contract_declares_once_it_confirmed_its_duties(desk: Desk) -> None:
    form = {"id": "su-1", "type": "demand", "products": ["mfrr"], "tso": "tso"}
    with pytest.raises(Forbidden, match="contract"):
        desk.do("scheduling_unit.declare", "sp", **form)
    duties = (Confirmed(Duty.TECHNICAL, "a proxy"), Confirmed(Duty.COMMUNICATION))
    desk.put(replace(desk.the(PartyEntry, "sp"), duties=duties))
    assert desk.do("scheduling_unit.declare", "sp", **form)["bsp"] == "sp"
    with pytest.raises(Forbidden):
        desk.do("scheduling_unit.declare", "dso", **form)


@pytest.mark.spec("REG-09")
def test_an_intent_names_balancing_products_of_the_tso_or_is_refused_with_every_fault(desk: Desk) -> None:
    desk.product("congestion", "dso", scope=Scope.LOCAL)
    with pytest.raises(Refused) as refused:
        declare(desk, id="su 1", products=["congestion", "nothing"], tso="dso")
    assert {one.place for one in refused.value.findings} == {"id", "products[0]", "products[1]", "tso"}
    declare(desk)
    with pytest.raises(Conflict, match="already"):
        declare(desk)


# ---------------------------------------------------------------- units


@pytest.mark.spec("REG-09")
def test_either_side_declines_and_either_side_takes_back(desk: Desk) -> None:
    declare(desk)
    desk.do("scheduling_unit.offer_units", "sp", "su-1", units=["cu-1"])
    desk.do("scheduling_unit.ask_for_units", "bsp", "su-1", units=["cu-2"])
    with pytest.raises(Forbidden, match="waits for bsp"):
        desk.do("scheduling_member.accept", "sp", member("cu-1"))
    desk.do("scheduling_member.decline", "bsp", member("cu-1"), reason="too small")
    desk.do("scheduling_member.decline", "sp-2", member("cu-2"))
    assert {one.status for one in desk.state.all(SchedulingMember)} == {MemberStatus.DECLINED}
    desk.do("scheduling_unit.offer_units", "sp", "su-1", units=["cu-1"])
    desk.do("scheduling_member.withdraw", "sp", member("cu-1"))
    desk.do("scheduling_unit.ask_for_units", "bsp", "su-1", units=["cu-2"])
    desk.do("scheduling_member.withdraw", "bsp", member("cu-2"))
    assert {one.status for one in desk.state.all(SchedulingMember)} == {MemberStatus.WITHDRAWN}


@pytest.mark.spec("REG-09")
def test_only_prequalified_units_come_in_and_others_are_answered_like_none(desk: Desk) -> None:
    declare(desk)
    desk.unit("cu-9", "sp")
    with pytest.raises(Refused) as refused:
        desk.do("scheduling_unit.offer_units", "sp", "su-1", units=["cu-1", "cu-2", "cu-9", "nothing", "cu-1"])
    faults = {(one.place, one.code) for one in refused.value.findings}
    assert faults == {(f"units[{i}]", "not_prequalified") for i in (1, 2, 3)} | {("units[4]", "repeated")}
    foreign = desk.unit("cu-8", "sp-2")
    assert foreign is None
    with pytest.raises(Refused) as refused:
        desk.do("scheduling_unit.ask_for_units", "bsp", "su-1", units=["cu-8", "nothing"])
    first, second = (one.message for one in refused.value.findings)
    assert first.replace("cu-8", "nothing") == second
    assert desk.state.count(SchedulingMember) == 0


def test_ten_thousand_units_are_not_each_looked_for_among_all_before(desk: Desk) -> None:
    class Uncut(tuple[str, ...]):
        """Names of which nobody takes a part."""

        def __getitem__(self, place: Any) -> Any:
            assert not isinstance(place, slice), "the names before are gone through again"
            return super().__getitem__(place)

    declare(desk)
    record = desk.the(SchedulingUnit, "su-1")
    context = Context(1, desk.now, desk.now, "sp", "sp", "user", frozenset({Role.SERVICE_PROVIDER}), "su-1")
    faults = list(_unit_faults(desk.state, context, record, Uncut(("cu-1", "cu-1")), own=True))
    assert [(one.place, one.code) for one in faults] == [("units[1]", "repeated")]


@pytest.mark.spec("REG-09")
def test_a_unit_is_part_of_one_scheduling_unit(desk: Desk) -> None:
    acquired(desk)
    desk.do("scheduling_unit.declare", "bsp", id="su-2", type="demand", products=["mfrr"], tso="tso")
    with pytest.raises(Refused):
        desk.do("scheduling_unit.offer_units", "sp", "su-2", units=["cu-1"])
    desk.do("scheduling_unit.ask_for_units", "bsp", "su-2", units=["cu-1"])
    with pytest.raises(Conflict, match="part of another"):
        desk.do("scheduling_member.accept", "sp", member_id("su-2", "cu-1"))
    desk.do("scheduling_unit.withdraw", "bsp", "su-1", reason="another plan")
    desk.do("scheduling_member.accept", "sp", member_id("su-2", "cu-1"))


@pytest.mark.spec("REG-09")
def test_a_unit_that_lost_its_qualification_is_not_accepted(desk: Desk) -> None:
    declare(desk)
    desk.do("scheduling_unit.offer_units", "sp", "su-1", units=["cu-1"])
    desk.later(hours=1)
    desk.changed("cu-1")
    with pytest.raises(Conflict, match="not prequalified any more"):
        desk.do("scheduling_member.accept", "bsp", member("cu-1"))


@pytest.mark.spec("REG-09")
def test_providers_do_not_learn_of_each_others_units(desk: Desk) -> None:
    declare(desk)
    taken = desk.taken("scheduling_unit.ask_for_units", "bsp", "su-1", units=["cu-1", "cu-2"])
    assert {(note.audience, note.body) for note in taken.notes} == {
        (("bsp", "sp"), b'{"units":["cu-1"]}'),
        (("bsp", "sp-2"), b'{"units":["cu-2"]}'),
    }
    with pytest.raises(NotFound):
        desk.do("scheduling_member.accept", "sp", member("cu-2"))


# ---------------------------------------------------------------- confirming


@pytest.mark.spec("REG-09")
def test_it_is_created_with_the_last_confirmation_and_not_before(desk: Desk) -> None:
    acquired(desk)
    desk.do("scheduling_unit.close", "bsp", "su-1")
    for party in ("bsp", "sp"):
        desk.do("scheduling_unit.confirm", party, "su-1")
        assert the(desk).status is SchedulingStatus.CLOSED
    with pytest.raises(Forbidden):
        desk.do("scheduling_unit.confirm", "dso", "su-1")
    desk.do("scheduling_unit.confirm", "sp-2", "su-1")
    assert the(desk).status is SchedulingStatus.CREATED


@pytest.mark.spec("REG-09")
def test_who_withdraws_before_the_last_confirmation_makes_the_others_confirm_again(desk: Desk) -> None:
    acquired(desk)
    desk.do("scheduling_unit.close", "bsp", "su-1")
    desk.do("scheduling_unit.confirm", "bsp", "su-1")
    desk.do("scheduling_member.withdraw", "sp-2", member("cu-2"))
    unit = the(desk)
    assert (unit.confirmed_by, unit.providers, unit.operators) == ((), ("bsp", "sp"), ("dso",))
    for party in ("bsp", "sp"):
        desk.do("scheduling_unit.confirm", party, "su-1")
    assert the(desk).status is SchedulingStatus.CREATED


@pytest.mark.spec("REG-09")
def test_what_nobody_answered_is_declined_when_the_acquisition_is_closed(desk: Desk) -> None:
    declare(desk)
    with pytest.raises(Conflict, match="no unit"):
        desk.do("scheduling_unit.close", "bsp", "su-1")
    desk.do("scheduling_unit.offer_units", "bsp", "su-1", units=["cu-3"])
    desk.do("scheduling_unit.offer_units", "sp", "su-1", units=["cu-1"])
    desk.do("scheduling_unit.close", "bsp", "su-1")
    assert desk.the(SchedulingMember, member("cu-1")).status is MemberStatus.DECLINED
    desk.do("scheduling_unit.reopen", "bsp", "su-1", reason="more is needed")
    desk.do("scheduling_unit.offer_units", "sp", "su-1", units=["cu-1"])


# ---------------------------------------------------------------- tests


@pytest.mark.spec("REG-09")
def test_tests_need_every_condition_and_no_more_than_the_grid_gives(desk: Desk) -> None:
    created(desk)
    with pytest.raises(Refused) as refused:
        desk.do("scheduling_unit.request_tests", "bsp", "su-1", up_kw=1510, down_kw=0, conditions=["schedules"])
    codes = [one.code for one in refused.value.findings]
    assert (codes.count("not_fulfilled"), codes.count("beyond_grid")) == (3, 1)


@pytest.mark.spec("REG-09")
def test_tests_run_under_the_tso_with_every_connecting_dso(desk: Desk) -> None:
    requested(desk)
    with pytest.raises(Conflict, match="dso, dso-2 did not say"):
        set_test(desk)
    desk.do("scheduling_unit.take_part", "dso", "su-1")
    with pytest.raises(Conflict, match="dso-2 did not say"):
        set_test(desk)
    with pytest.raises(Forbidden):
        desk.do("scheduling_unit.take_part", "tso", "su-1")
    desk.do("scheduling_unit.take_part", "dso-2", "su-1")
    with pytest.raises(Forbidden):
        desk.do("scheduling_test.set", "dso", "su-1", product="mfrr", starts=desk.now.isoformat())
    test = desk.the(ProductTest, set_test(desk))
    assert (test.tester, test.provider, test.present) == ("tso", "bsp", ("dso", "dso-2"))
    assert test.signal.up_kw == 1200


@pytest.mark.spec("REG-09")
def test_a_failed_test_is_corrected_and_requested_again(desk: Desk) -> None:
    test = being_tested(desk)
    desk.answered(test, 800.0, "scheduling_test.answer")
    unit = the(desk)
    assert unit.status is SchedulingStatus.FAILED
    assert "delivered_share" in unit.reason
    desk.do("scheduling_unit.request_tests", "bsp", "su-1", up_kw=900, down_kw=0, conditions=CONDITIONS)
    assert (the(desk).attempt, the(desk).ready, the(desk).tests) == (2, (), ())
    for operator in ("dso", "dso-2"):
        desk.do("scheduling_unit.take_part", operator, "su-1")
    desk.answered(set_test(desk), 60.0, "scheduling_test.answer")
    assert the(desk).status is SchedulingStatus.TESTED


@pytest.mark.spec("REG-09")
def test_a_test_of_a_scheduling_unit_is_not_answered_as_a_groups_nor_by_a_stranger(desk: Desk) -> None:
    test = desk.the(ProductTest, being_tested(desk))
    desk.now = test.ends
    form = columns(first_order(test.signal, 60.0, 60), test.starts)
    with pytest.raises(NotFound):
        desk.do("product_test.answer", "bsp", test.id, **form)
    with pytest.raises(NotFound):
        desk.do("scheduling_test.answer", "sp", test.id, **form)
    with pytest.raises(Forbidden):
        desk.do("scheduling_test.answer", "dso", test.id, **form)


@pytest.mark.spec("REG-09")
def test_a_unit_changed_since_the_tests_is_not_registered(desk: Desk) -> None:
    tested(desk)
    desk.later(hours=1)
    desk.changed("cu-2")
    with pytest.raises(Conflict, match="changed since the tests"):
        desk.do("scheduling_unit.register", "tso", "su-1")
    desk.do("scheduling_unit.refuse", "tso", "su-1", reason="cu-2 was changed")
    assert (the(desk).status, the(desk).reason) == (SchedulingStatus.FAILED, "cu-2 was changed")


# ---------------------------------------------------------------- order

STATES: dict[SchedulingStatus, Callable[[Desk], object]] = {
    SchedulingStatus.DECLARED: declare,
    SchedulingStatus.CLOSED: lambda desk: (acquired(desk), desk.do("scheduling_unit.close", "bsp", "su-1")),
    SchedulingStatus.CREATED: created,
    SchedulingStatus.TEST_REQUESTED: requested,
    SchedulingStatus.TESTING: being_tested,
    SchedulingStatus.TESTED: tested,
    SchedulingStatus.REGISTERED: registered,
}
S = SchedulingStatus
# verb: who takes it, in which states, and a form
STEPS: dict[str, tuple[str, set[SchedulingStatus], dict[str, Any]]] = {
    "scheduling_unit.offer_units": ("sp", {S.DECLARED}, {"units": ["cu-1"]}),
    "scheduling_unit.ask_for_units": ("bsp", {S.DECLARED}, {"units": ["cu-1"]}),
    "scheduling_unit.close": ("bsp", {S.DECLARED}, {}),
    "scheduling_unit.reopen": ("bsp", {S.CLOSED, S.CREATED, S.FAILED}, {}),
    "scheduling_unit.confirm": ("bsp", {S.CLOSED}, {}),
    "scheduling_unit.request_tests": (
        "bsp", {S.CREATED, S.FAILED}, {"up_kw": 900, "down_kw": 0, "conditions": CONDITIONS},
    ),
    "scheduling_unit.take_part": ("dso", {S.TEST_REQUESTED}, {}),
    "scheduling_test.set": (
        "tso", {S.TEST_REQUESTED, S.TESTING}, {"product": "mfrr", "starts": "2026-02-01T00:00:00Z"},
    ),
    "scheduling_unit.register": ("tso", {S.TESTED}, {}),
    "scheduling_unit.refuse": ("tso", {S.TEST_REQUESTED, S.TESTING, S.TESTED}, {"reason": "r"}),
    "scheduling_unit.agree": ("bsp", {S.REGISTERED}, {"reference": "A-1"}),
    "scheduling_unit.withdraw": ("bsp", set(STATES) - {S.REGISTERED}, {}),
}  # fmt: skip


@pytest.mark.spec("REG-09")
@pytest.mark.parametrize("status", list(STATES))
def test_a_step_out_of_order_is_a_conflict_that_names_the_next_one(desk: Desk, status: SchedulingStatus) -> None:
    STATES[status](desk)
    assert the(desk).status is status
    for verb, (party, states, form) in STEPS.items():
        if status in states:
            continue
        before = the(desk)
        with pytest.raises(Conflict) as conflict:
            desk.do(verb, party, "su-1", **form)
        assert conflict.value.remedy == NEXT[status]
        assert status.value in conflict.value.message
        assert the(desk) is before


@pytest.mark.spec("REG-09")
@pytest.mark.parametrize("status", list(STATES))
def test_no_step_is_taken_by_somebody_else(desk: Desk, status: SchedulingStatus) -> None:
    STATES[status](desk)
    for verb, (party, states, form) in STEPS.items():
        if status not in states or verb == "scheduling_unit.offer_units":
            continue
        others = {"mo", "sp", "bsp", "dso", "dso-2", "tso"} - {party}
        others -= {"sp", "sp-2", "bsp"} if verb == "scheduling_unit.confirm" else set()
        others -= {"dso", "dso-2"} if verb == "scheduling_unit.take_part" else set()
        others -= {"tso", "bsp"} if verb == "scheduling_unit.agree" else set()
        before = the(desk)
        for other in sorted(others):
            with pytest.raises((Forbidden, NotFound)):
                desk.do(verb, other, "su-1", **form)
        assert the(desk) is before


def test_every_state_names_its_next_step() -> None:
    assert set(NEXT) == set(SchedulingStatus)
    assert issubclass(Conflict, CoflexError)
