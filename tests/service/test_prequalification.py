"""One request of the provider, every operator's answer, and what a test shows: grid prequalification and product
qualification as the platform's commands."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from coflex.domain.errors import Conflict, Forbidden, NotFound, Refused
from coflex.domain.qualification import StaticMode
from coflex.domain.quantity import Direction
from coflex.domain.unit import Scope
from coflex.grid.qualify import Candidates, static_lights
from coflex.register.prequalification import (
    AnswerRecording,
    Basis,
    GridPrequalification,
    GridStatus,
    ProductQualification,
    ProductStatus,
    ProductTest,
)
from coflex.register.resources import PointEntry, UnitEntry
from coflex.service.limits import qualified_kw, qualified_products
from coflex.service.machine import encode
from coflex.service.verbs.prequalification import begin, checks_in_progress
from support.qualifying import Desk, columns, grid, light
from support.small_grids import radial, solved
from support.tested import STARTS, first_order

UP, DOWN = Direction.UP, Direction.DOWN


def codes(refused: pytest.ExceptionInfo[Refused]) -> set[tuple[str, str]]:
    return {(one.place, one.code) for one in refused.value.findings}


@pytest.fixture
def desk() -> Desk:
    made = Desk()
    made.unit("cu-1")
    made.unit("cu-2")
    return made


# ---------------------------------------------------------------- the single entry point


@pytest.mark.spec("REG-03")
def test_one_request_reaches_the_connecting_and_every_impacted_operator_at_once(desk: Desk) -> None:
    desk.impacts("cu-1", "dso-2", "tso")
    taken = desk.taken("grid_prequalification.request", "sp", units=["cu-1", "cu-2"])
    records = {one.id: one for one in desk.state.all(GridPrequalification)}
    assert sorted(records) == [grid("cu-1"), grid("cu-1", "dso-2"), grid("cu-1", "tso"), grid("cu-2")]
    assert all(one.status is GridStatus.REQUESTED and one.status_since == desk.now for one in records.values())
    assert [one.connecting for one in records.values()] == [True, False, False, True]
    assert {note.audience for note in taken.notes} == {("dso", "sp"), ("dso-2", "sp"), ("tso", "sp")}


@pytest.mark.spec("REG-03")
def test_every_answer_is_shown_by_itself_and_the_smallest_counts(desk: Desk) -> None:
    desk.impacts("cu-1", "tso")
    desk.do("grid_prequalification.request", "sp", units=["cu-1"])
    why = {"reason": "transformer", "proof": "study 7"}
    desk.do("grid_prequalification.answer", "dso", grid("cu-1"), status="approved", **why)
    assert qualified_kw(desk.state, desk.now) == {}  # the TSO has not answered
    desk.do(
        "grid_prequalification.answer", "tso", grid("cu-1", "tso"), status="conditionally_approved", up_kw=120, **why
    )
    assert qualified_kw(desk.state, desk.now) == {("cu-1", UP): 120, ("cu-1", DOWN): 500}
    answers = [one.answer for one in desk.state.all(GridPrequalification)]
    assert [(one.status, one.up_kw, one.answered_by) for one in answers if one is not None] == [
        (GridStatus.APPROVED, 500, "dso"),
        (GridStatus.CONDITIONALLY_APPROVED, 120, "tso"),
    ]


@pytest.mark.spec("REG-03")
def test_a_request_names_every_unit_that_cannot_be_at_once_and_takes_nothing(desk: Desk) -> None:
    desk.unit("cu-9", provider="sp-2")
    with pytest.raises(Refused) as refused:
        desk.do("grid_prequalification.request", "sp", units=["cu-1", "cu-1", "cu-9", "nothing"])
    assert codes(refused) == {("units[1]", "repeated"), ("units[2]", "unknown_unit"), ("units[3]", "unknown_unit")}
    assert desk.state.count(GridPrequalification) == 0


@pytest.mark.spec("REG-03")
def test_a_unit_that_waits_is_not_asked_for_again_and_one_that_was_answered_is(desk: Desk) -> None:
    desk.do("grid_prequalification.request", "sp", units=["cu-1"])
    number = desk.state.number(GridPrequalification, grid("cu-1"))
    again = desk.do("grid_prequalification.request", "sp", units=["cu-1"])
    assert again == {"requested": [], "waiting": [grid("cu-1")]}
    assert desk.state.number(GridPrequalification, grid("cu-1")) == number
    both = desk.do("grid_prequalification.request", "sp", units=["cu-1", "cu-2"])
    assert both == {"requested": [grid("cu-2")], "waiting": [grid("cu-1")]}
    desk.do("grid_prequalification.answer", "dso", grid("cu-1"), status="approved", reason="r", proof="p")
    assert desk.do("grid_prequalification.request", "sp", units=["cu-1"])["requested"] == [grid("cu-1")]


@pytest.mark.spec("REG-03")
def test_a_renewal_under_way_takes_nothing_from_the_answer_that_stands(desk: Desk) -> None:
    desk.approved("cu-1")
    desk.do("grid_prequalification.request", "sp", units=["cu-1"])
    assert desk.the(GridPrequalification, grid("cu-1")).status is GridStatus.REQUESTED
    assert qualified_kw(desk.state, desk.now)["cu-1", UP] == 500


@pytest.mark.spec("REG-03")
def test_nobody_answers_for_another_operator_or_learns_of_its_units(desk: Desk) -> None:
    desk.do("grid_prequalification.request", "sp", units=["cu-1"])
    answer = {"status": "approved", "reason": "r", "proof": "p"}
    with pytest.raises(NotFound):
        desk.do("grid_prequalification.answer", "dso-2", grid("cu-1"), **answer)
    with pytest.raises(NotFound):
        desk.do("grid_prequalification.answer", "dso-2", grid("nothing"), **answer)
    with pytest.raises(Forbidden):
        desk.do("grid_prequalification.answer", "sp", grid("cu-1"), **answer)
    with pytest.raises(Forbidden):
        desk.do("grid_check.computed", "dso", grid("cu-1"), lights=[])


@pytest.mark.spec("REG-03", "REG-04")
@pytest.mark.parametrize(
    ("form", "place"),
    [
        ({"status": "requested"}, "status"),
        ({"status": "approved", "up_kw": 10}, "up_kw"),
        ({"status": "conditionally_approved"}, "up_kw"),
        ({"status": "conditionally_approved", "up_kw": 501}, "up_kw"),
        ({"status": "conditionally_approved", "up_kw": 0, "down_kw": 0}, "up_kw"),
        ({"status": "approved", "reason": " "}, "reason"),
        ({"status": "approved", "proof": ""}, "proof"),
        ({"status": "approved", "valid_until": "2025-01-01T00:00:00Z"}, "valid_until"),
        ({"status": "approved", "valid_until": "2027-01-01T00:00:00"}, "valid_until"),
    ],
)
def test_an_answer_that_contradicts_itself_is_refused(desk: Desk, form: dict[str, Any], place: str) -> None:
    desk.do("grid_prequalification.request", "sp", units=["cu-1"])
    with pytest.raises(Refused) as refused:
        desk.do("grid_prequalification.answer", "dso", grid("cu-1"), **{"reason": "r", "proof": "p"} | form)
    assert place in {where for where, _ in codes(refused)}


# ---------------------------------------------------------------- computed answers


@pytest.mark.spec("REG-04")
@pytest.mark.parametrize("mode", ["one_by_one", "all_together"])
def test_the_operator_chooses_the_mode_and_the_answer_carries_the_power_flows_proof(desk: Desk, mode: str) -> None:
    desk.do("grid_prequalification.request", "sp", units=["cu-1", "cu-2"])
    desk.do("grid_check.request", "dso", mode=mode)
    assert checks_in_progress(desk.state) == {("dso", mode): ("cu-1", "cu-2")}
    lights = [light("cu-1", UP, 120, mode=mode), light("cu-1", DOWN, 500, mode=mode)]  # type: ignore[arg-type]
    lights += [light("cu-2", UP, 0, mode=mode), light("cu-2", DOWN, 0, mode=mode)]  # type: ignore[arg-type]
    desk.do("grid_check.computed", "engine", grid("cu-1"), lights=lights)
    limited, rejected = (desk.the(GridPrequalification, grid(name)) for name in ("cu-1", "cu-2"))
    assert (limited.status, rejected.status) == (GridStatus.CONDITIONALLY_APPROVED, GridStatus.NOT_APPROVED)
    assert limited.answer is not None
    assert [one.element for one in limited.answer.lights] == ["line 7", "line 7"]
    assert "Up: 120 of 500 kW, limited by line 7 (loading 1.02 against 1" in limited.answer.reason
    assert qualified_kw(desk.state, desk.now) == {("cu-1", UP): 120, ("cu-1", DOWN): 500}
    assert checks_in_progress(desk.state) == {}


@pytest.mark.spec("REG-04")
@pytest.mark.parametrize("mode", list(StaticMode))
def test_the_lights_of_a_power_flow_become_the_answers_limits_in_the_mode_chosen(desk: Desk, mode: StaticMode) -> None:
    buses = ("A3", "A4", "B3", "B1")
    network, state = solved(radial(130.0))
    node = np.array([network.node_of(bus) for bus in buses])
    power = np.full(len(buses), 6000, dtype=np.int64)
    lights = static_lights(network, state, ["now"], Candidates(buses, node, np.full(len(buses), 0.2), power, power))
    for name in buses:
        desk.unit(name, up=6000, down=6000)
    desk.do("grid_prequalification.request", "sp", units=list(buses))
    desk.do("grid_check.request", "dso", mode=mode.value)
    chosen = [light for light in lights if light.mode is mode]
    desk.do("grid_check.computed", "engine", grid("A3"), lights=json.loads(encode(chosen)))
    limits = {(light.unit, light.direction): light.limit_kw for light in chosen if light.limit_kw}
    assert 0 < sum(limits.values()) < 8 * 6000
    assert qualified_kw(desk.state, desk.now) == limits
    for one in desk.state.all(GridPrequalification):
        assert one.answer is not None
        assert {light.direction: light.limit_kw for light in one.answer.lights} == {
            UP: one.answer.up_kw,
            DOWN: one.answer.down_kw,
        }


@pytest.mark.spec("REG-04")
def test_lights_of_another_mode_power_or_time_prove_nothing(desk: Desk) -> None:
    for lights, at, words in (
        ([light("cu-1", UP, 500, 600), light("cu-1", DOWN, 500)], None, "power and mode"),
        ([light("cu-1", UP, 500)], None, "power and mode"),
        ([light("cu-1", UP, 500, mode="all_together"), light("cu-1", DOWN, 500)], None, "power and mode"),  # type: ignore[arg-type]
        ([], None, "does not hold the unit"),
        ([light("cu-1", UP, 500), light("cu-1", DOWN, 500)], desk.now - timedelta(days=2), "changed while"),
    ):
        if grid("cu-1") not in {one.id for one in desk.state.all(GridPrequalification)}:
            desk.do("grid_prequalification.request", "sp", units=["cu-1"])
        desk.do("grid_check.request", "dso", mode="one_by_one", units=["cu-1"])
        more = {} if at is None else {"at": at.isoformat()}
        desk.do("grid_check.computed", "engine", grid("cu-1"), lights=lights, **more)
        record = desk.the(GridPrequalification, grid("cu-1"))
        assert record.status is GridStatus.REQUESTED
        assert words in record.reason
        assert record.answer is None


@pytest.mark.spec("REG-04")
def test_a_unit_that_changed_while_it_was_computed_goes_back_to_its_operator(desk: Desk) -> None:
    desk.do("grid_prequalification.request", "sp", units=["cu-1"])
    desk.do("grid_check.request", "dso", mode="one_by_one")
    desk.later(minutes=1)
    desk.changed("cu-1")
    desk.do("grid_check.computed", "engine", grid("cu-1"), lights=[light("cu-1", UP, 500), light("cu-1", DOWN, 500)])
    assert desk.the(GridPrequalification, grid("cu-1")).status is GridStatus.REQUESTED
    assert qualified_kw(desk.state, desk.now) == {}


@pytest.mark.spec("REG-04")
def test_what_could_not_be_computed_says_why_and_what_no_longer_waits_is_left(desk: Desk) -> None:
    desk.do("grid_prequalification.request", "sp", units=["cu-1", "cu-2"])
    desk.do("grid_check.request", "dso", mode="one_by_one")
    desk.do("grid_prequalification.answer", "dso", grid("cu-2"), status="approved", reason="r", proof="p")
    lights = [light("cu-2", UP, 0), light("cu-2", DOWN, 0)]
    failed = [{"unit": "cu-1", "reason": "the power flow has no solution."}]
    reply = desk.do("grid_check.computed", "engine", grid("cu-1"), lights=lights, failed=failed)
    assert reply == {"answered": [grid("cu-1")], "left": ["cu-2"]}
    assert "no solution" in desk.the(GridPrequalification, grid("cu-1")).reason
    assert qualified_kw(desk.state, desk.now)["cu-2", UP] == 500
    with pytest.raises(Conflict):
        desk.do("grid_check.computed", "engine", grid("cu-1"), lights=[])


@pytest.mark.spec("REG-04")
def test_a_computed_answer_holds_as_long_as_the_operator_said(desk: Desk) -> None:
    desk.do("grid_prequalification.request", "sp", units=["cu-1"])
    until = desk.now + timedelta(days=30)
    desk.do("grid_check.request", "dso", mode="one_by_one", valid_until=until.isoformat())
    desk.do("grid_check.computed", "engine", grid("cu-1"), lights=[light("cu-1", UP, 500), light("cu-1", DOWN, 500)])
    assert qualified_kw(desk.state, until - timedelta(microseconds=1))
    assert not qualified_kw(desk.state, until)


def test_a_check_of_nothing_is_a_conflict_and_of_a_foreign_unit_refused(desk: Desk) -> None:
    with pytest.raises(Conflict):
        desk.do("grid_check.request", "dso", mode="one_by_one")
    with pytest.raises(Refused):
        desk.do("grid_check.request", "dso-2", mode="one_by_one", units=["cu-1"])


@pytest.mark.spec("REG-03")
def test_a_registered_or_changed_unit_asks_its_operators_by_itself(desk: Desk) -> None:
    desk.approved("cu-1")
    entry, point = desk.the(UnitEntry, "cu-1"), desk.the(PointEntry, "pod-cu-1")
    desk.later(days=1)
    records, notes = begin(desk.state, [(entry, point)], desk.now, "The unit was changed materially.")
    ((_, id, record),) = records
    assert isinstance(record, GridPrequalification)
    assert (id, record.status, record.status_since) == (grid("cu-1"), GridStatus.REQUESTED, desk.now)
    assert record.answer is not None  # it stays to be read; its timestamps say that it has lapsed
    assert [note.audience for note in notes] == [("dso", "sp")]


@pytest.mark.spec("REG-03")
def test_a_request_of_many_units_compares_none_with_the_others(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def compared(one: object, other: object) -> bool:
        raise AssertionError("records are told apart by their ids")

    desk.do("grid_prequalification.request", "sp", units=["cu-2"])
    monkeypatch.setattr(GridPrequalification, "__eq__", compared)
    both = desk.do("grid_prequalification.request", "sp", units=["cu-1", "cu-2"])
    assert both == {"requested": [grid("cu-1")], "waiting": [grid("cu-2")]}


# ---------------------------------------------------------------- product qualification


@pytest.fixture
def ready(desk: Desk) -> Desk:
    """Two units that the grid approved, their group, and a product of the TSO."""
    desk.product("mfrr")
    desk.group("g", ("cu-1", "cu-2"))
    desk.approved("cu-1", "cu-2")
    return desk


@pytest.mark.spec("REG-07")
def test_a_group_that_passes_its_test_is_qualified_with_verdict_and_numbers(ready: Desk) -> None:
    id = ready.requested()
    assert ready.the(ProductQualification, id).testers == ("tso",)
    test = ready.tested(id, 120.0)
    record = ready.the(ProductQualification, id)
    assert record.status is ProductStatus.PASSED
    assert record.grant is not None
    assert (record.grant.basis, record.grant.up_kw, record.grant.tests) == (Basis.TEST, 500, (test.id,))
    assert test.judgement is not None and test.judgement.passed
    share = next(one for one in test.judgement.criteria if one.name == "delivered_share")
    assert share.measured == pytest.approx(120 * 2.302585, abs=3)
    assert ready.the(AnswerRecording, test.id).recording.interval_s == 60
    assert qualified_products(ready.state, "g", ready.now) == {"mfrr"}


@pytest.mark.spec("REG-07")
def test_a_failed_group_is_corrected_and_tested_again(ready: Desk) -> None:
    id = ready.requested()
    ready.tested(id, 800.0)
    failed = ready.the(ProductQualification, id)
    assert failed.status is ProductStatus.FAILED
    assert "delivered_share" in failed.reason and failed.grant is None
    assert not qualified_products(ready.state, "g", ready.now)
    with pytest.raises(Conflict):
        ready.tested(id, 60.0)
    with pytest.raises(Refused) as refused:
        ready.requested()
    assert codes(refused) == {("correction", "text")}
    ready.requested(correction="a second pump")
    again = ready.the(ProductQualification, id)
    assert (again.attempt, again.correction, again.tests) == (2, "a second pump", ())
    ready.tested(id, 60.0)
    assert qualified_products(ready.state, "g", ready.now) == {"mfrr"}


@pytest.mark.spec("REG-07")
def test_a_passed_test_expires_and_lapses_with_a_material_change(ready: Desk) -> None:
    record = ready.passed()
    assert record.grant is not None and record.grant.valid_until is not None
    assert record.grant.valid_until - record.grant.valid_from == timedelta(days=1826)
    last = record.grant.valid_until - timedelta(microseconds=1)
    assert qualified_products(ready.state, "g", last) == {"mfrr"}
    assert not qualified_products(ready.state, "g", record.grant.valid_until)
    ready.later(days=1)
    ready.changed("cu-2")
    assert not qualified_products(ready.state, "g", ready.now)
    ready.approved("cu-2")
    ready.passed()
    assert qualified_products(ready.state, "g", ready.now) == {"mfrr"}


@pytest.mark.spec("REG-07")
def test_a_group_changed_between_test_and_answer_is_tested_again(ready: Desk) -> None:
    id = ready.requested()
    test = ready.do("product_test.set", "tso", id, starts=ready.now.isoformat())
    ready.later(minutes=1)
    ready.changed("cu-1")
    ready.answered(test["id"])
    record = ready.the(ProductQualification, id)
    assert record.status is ProductStatus.REQUESTED
    assert "changed since the test was set" in record.reason
    assert not qualified_products(ready.state, "g", ready.now)


@pytest.mark.spec("REG-07")
def test_the_answer_comes_after_the_end_and_once(ready: Desk) -> None:
    id = ready.requested()
    test = ready.do("product_test.set", "tso", id, starts=(ready.now + timedelta(hours=1)).isoformat())
    signal = ready.the(ProductTest, test["id"]).signal
    form = columns(first_order(signal, 60.0, 60), STARTS)
    with pytest.raises(Conflict, match="lasts until"):
        ready.do("product_test.answer", "sp", test["id"], **form)
    ready.answered(test["id"])
    with pytest.raises(Conflict, match="judged at"):
        ready.do("product_test.answer", "sp", test["id"], **form)


@pytest.mark.spec("REG-07")
def test_who_has_no_part_in_a_test_neither_sets_nor_answers_nor_learns_of_it(ready: Desk) -> None:
    id = ready.requested()
    plan = {"starts": ready.now.isoformat()}
    for party in ("dso-2", "sp-2"):
        with pytest.raises((NotFound, Forbidden)):
            ready.do("product_test.set", party, id, **plan)
    test = ready.do("product_test.set", "tso", id, **plan)["id"]
    ready.later(days=1)
    signal = ready.the(ProductTest, test).signal
    for party in ("sp-2", "dso-2"):
        with pytest.raises(NotFound):
            ready.do("product_test.answer", party, test, **columns(first_order(signal, 60.0, 60), STARTS))


@pytest.mark.spec("REG-07")
def test_a_hole_in_the_answer_fails_the_group_and_columns_that_do_not_fit_are_refused(ready: Desk) -> None:
    id = ready.requested()
    test = ready.do("product_test.set", "tso", id, starts=ready.now.isoformat())["id"]
    made = ready.the(ProductTest, test)
    ready.now = made.ends
    form = columns(first_order(made.signal, 60.0, 60), made.starts)
    with pytest.raises(Refused) as refused:
        ready.do("product_test.answer", "sp", test, **form | {"kw": form["kw"][:-1], "interval_s": 0})
    assert codes(refused) == {("kw", "length"), ("interval_s", "range")}
    form["kw"][17] = None
    ready.do("product_test.answer", "sp", test, **form)
    assert ready.the(ProductQualification, id).status is ProductStatus.FAILED


@pytest.mark.spec("REG-07")
def test_a_group_asks_for_no_more_than_the_grid_lets_its_units_give(ready: Desk) -> None:
    with pytest.raises(Refused) as refused:
        ready.requested(up=1010)
    assert codes(refused) == {("up_kw", "beyond_grid")}
    assert ready.requested(up=1000)


@pytest.mark.spec("REG-07")
def test_a_group_is_tested_for_products_of_its_scope_and_perimeter(ready: Desk) -> None:
    ready.product("congestion", "dso", scope=Scope.LOCAL, perimeters=("p-1",))
    with pytest.raises(Refused) as refused:
        ready.requested(product="congestion")
    assert codes(refused) == {("group", "wrong_scope"), ("product", "wrong_perimeter")}
    with pytest.raises(NotFound):
        ready.do("product_qualification.request", "sp-2", group="g", product="mfrr", up_kw=500, down_kw=0)


@pytest.mark.spec("REG-07")
def test_a_product_of_several_signals_is_passed_with_the_last_of_them(ready: Desk) -> None:
    ready.do("product_procedure.set", "tso", "mfrr", service="manual_restoration", signals=["step", "ramp", "random"])
    id = ready.requested()
    with pytest.raises(Refused) as refused:
        ready.do("product_test.set", "tso", id, starts=ready.now.isoformat(), signal="random")
    assert codes(refused) == {("seed", "missing")}
    with pytest.raises(Refused) as refused:
        ready.do("product_test.set", "tso", id, starts="2020-01-01T00:00:00Z", signal="random", seed=2**63)
    assert codes(refused) == {("seed", "range"), ("starts", "range")}
    for signal in ("step", "random"):
        ready.tested(id, 60.0, signal=signal, seed=5)
        assert ready.the(ProductQualification, id).status is ProductStatus.TESTING
    with pytest.raises(Conflict, match="No such test"):
        ready.tested(id, 60.0, signal="step")
    last = ready.tested(id, 60.0)
    assert last.signal.kind == "ramp"
    assert ready.the(ProductQualification, id).status is ProductStatus.PASSED


@pytest.mark.spec("REG-07")
def test_a_frequency_step_tests_containment_and_a_restoration_product_follows(ready: Desk) -> None:
    both = (DOWN, UP)
    ready.product("fcr", directions=both, symmetric=True, full_activation_time_s=30, test_within_s=30,
                  test_interval_s=1, min_duration_s=60, min_quantity_kw=100)  # fmt: skip
    ready.do("product_procedure.set", "tso", "fcr", service="frequency_containment", signals=["frequency"])
    id = ready.requested(product="fcr", down=500)
    test = ready.do("product_test.set", "tso", id, starts=ready.now.isoformat())["id"]
    made = ready.the(ProductTest, test)
    assert {one.deviation_mhz for one in made.signal.levels} == {0, -50, -100, -200, 50, 100, 200}
    ready.now = made.ends
    ready.do("product_test.answer", "sp", test, **columns(first_order(made.signal, 3.0, 1), made.starts))
    assert qualified_products(ready.state, "g", ready.now) == {"fcr"}


@pytest.mark.spec("REG-07")
def test_a_procedure_that_cannot_test_its_service_is_refused(ready: Desk) -> None:
    with pytest.raises(Refused) as refused:
        ready.do("product_procedure.set", "tso", "mfrr", service="manual_restoration", signals=["frequency"],
                 dead_band_mhz=300, valid_days=0, ramp_s=0, delay_s=0)  # fmt: skip
    assert {place for place, _ in codes(refused)} == {"signals", "dead_band_mhz", "valid_days", "ramp_s", "delay_s"}
    with pytest.raises(Forbidden):
        ready.do("product_procedure.set", "dso", "mfrr", service="manual_restoration", signals=["step"])


@pytest.mark.spec("REG-07")
def test_what_was_shown_no_longer_counts_when_the_product_asks_for_more(ready: Desk) -> None:
    ready.passed()
    ready.product("mfrr", test_within_s=300)
    assert not qualified_products(ready.state, "g", ready.now)
    ready.product("mfrr", test_within_s=1800)
    assert qualified_products(ready.state, "g", ready.now) == {"mfrr"}


@pytest.mark.spec("REG-07")
def test_a_temporary_qualification_ends_by_itself_and_gives_way_to_the_test(ready: Desk) -> None:
    id = ready.requested()
    until = ready.now + timedelta(days=30)
    ready.do("product_qualification.grant_temporarily", "tso", id, until=until.isoformat(), reason="winter")
    assert qualified_products(ready.state, "g", until - timedelta(seconds=1)) == {"mfrr"}
    assert not qualified_products(ready.state, "g", until)
    ready.tested(id, 800.0)
    assert not qualified_products(ready.state, "g", ready.now)
    with pytest.raises(Conflict):
        ready.do("product_qualification.grant_temporarily", "tso", id, until=until.isoformat(), reason="again")


@pytest.mark.spec("REG-07")
def test_an_operator_revokes_with_its_reason(ready: Desk) -> None:
    record = ready.passed()
    ready.do("product_qualification.revoke", "tso", record.id, reason="three calls missed")
    assert not qualified_products(ready.state, "g", ready.now)
    revoked = ready.the(ProductQualification, record.id)
    assert (revoked.status, revoked.reason) == (ProductStatus.REVOKED, "three calls missed")
    with pytest.raises(Forbidden):
        ready.do("product_qualification.revoke", "sp", record.id, reason="mine")


@pytest.mark.spec("REG-07")
def test_a_baseline_is_nominated_before_the_test_and_not_after_it_began(ready: Desk) -> None:
    id = ready.requested()
    test = ready.do("product_test.set", "tso", id, starts=(ready.now + timedelta(hours=1)).isoformat())["id"]
    points = [{"at_s": 0, "kw": -300.0}, {"at_s": 900, "kw": -310.0}]
    with pytest.raises(Refused):
        ready.do("product_test.nominate", "sp", test, baseline=list(reversed(points)))
    for wrong in ([], [{"at_s": 60, "kw": 0.0}], [{"at_s": 0, "kw": 1e12}]):
        with pytest.raises(Refused):
            ready.do("product_test.nominate", "sp", test, baseline=wrong)
    ready.do("product_test.nominate", "sp", test, baseline=points)
    assert [one.kw for one in ready.the(ProductTest, test).baseline] == [-300.0, -310.0]
    ready.later(hours=1)
    with pytest.raises(Conflict, match="began at"):
        ready.do("product_test.nominate", "sp", test, baseline=points)


@pytest.mark.spec("REG-07")
def test_a_provider_cannot_take_back_a_test_that_has_begun(ready: Desk) -> None:
    id = ready.requested()
    test = ready.do("product_test.set", "tso", id, starts=ready.now.isoformat())["id"]
    with pytest.raises(Conflict, match="began at"):
        ready.do("product_test.cancel", "sp", test, reason="it went badly")


@pytest.mark.spec("REG-07")
def test_a_test_that_cannot_be_held_is_cancelled_and_the_attempt_begins_again(ready: Desk) -> None:
    id = ready.requested()
    for party, wait in (("sp", 60), ("tso", 0)):
        starts = ready.now + timedelta(minutes=wait)
        test = ready.do("product_test.set", "tso", id, starts=starts.isoformat())["id"]
        ready.do("product_test.cancel", party, test, reason="a broken link")
        assert ready.state.find(ProductTest, test) is None
    assert ready.the(ProductQualification, id).status is ProductStatus.REQUESTED
    ready.tested(id)
    assert qualified_products(ready.state, "g", ready.now) == {"mfrr"}


# ---------------------------------------------------------------- equivalences


@pytest.fixture
def both(ready: Desk) -> Desk:
    """The same units in a global and a local group; the local product asks for less."""
    ready.product("congestion", "dso", scope=Scope.LOCAL, full_activation_time_s=1800)
    ready.group("l", ("cu-2", "cu-1"), Scope.LOCAL)
    return ready


def apply(desk: Desk, source: str, group: str = "l", product: str = "congestion") -> Any:
    return desk.do("product_qualification.apply_equivalence", "sp", source=source, group=group, product=product)


@pytest.mark.spec("REG-08")
def test_a_passed_test_counts_for_the_identical_group_and_the_easier_product(both: Desk) -> None:
    source = both.passed()
    assert source.testers == ("dso",)  # the connecting operator tests what counts for both
    assert "congestion" in source.tester_reason
    apply(both, source.id)
    assert qualified_products(both.state, "l", both.now) == {"congestion"}
    grant = both.the(ProductQualification, "l@congestion").grant
    assert grant is not None
    assert (grant.basis, grant.source, grant.source_tests) == (Basis.EQUIVALENCE, source.id, source.tests)
    assert {one.attribute for one in grant.rulings} >= {"service", "within_s", "share"}
    assert all(one.included for one in grant.rulings)


@pytest.mark.spec("REG-08")
def test_an_equivalence_lapses_with_its_source(both: Desk) -> None:
    source = both.passed()
    apply(both, source.id)
    assert source.grant is not None and source.grant.valid_until is not None
    assert not qualified_products(both.state, "l", source.grant.valid_until)
    both.do("product_qualification.revoke", "dso", source.id, reason="missed")
    assert not qualified_products(both.state, "l", both.now)
    # A new test of the source is another test: the equivalence is applied to it anew.
    both.passed()
    assert not qualified_products(both.state, "l", both.now)
    apply(both, source.id)
    assert qualified_products(both.state, "l", both.now) == {"congestion"}


@pytest.mark.spec("REG-08")
def test_the_easier_test_does_not_count_for_the_harder_product_and_every_reason_is_given(both: Desk) -> None:
    both.passed("l", "congestion")
    with pytest.raises(Refused) as refused:
        apply(both, "l@congestion", "g", "mfrr")
    assert {place for place, _ in codes(refused)} == {"full_activation_time_s", "ramp_s", "within_s"}
    assert both.the(ProductQualification, "l@congestion").testers == ("dso",)  # it procures


@pytest.mark.spec("REG-08")
@pytest.mark.parametrize(
    ("units", "how"), [(("cu-1",), "contained"), (("cu-1", "cu-3"), "overlapping"), (("cu-3",), "disjoint")]
)
def test_a_group_of_other_units_is_tested_itself(both: Desk, units: tuple[str, ...], how: str) -> None:
    both.unit("cu-3")
    both.group("other", units, Scope.LOCAL)
    source = both.passed()
    with pytest.raises(Refused) as refused:
        apply(both, source.id, "other")
    assert codes(refused) == {("group", how)}


@pytest.mark.spec("REG-08")
def test_no_equivalence_of_an_equivalence_and_none_of_what_is_not_in_force(both: Desk) -> None:
    source = both.passed()
    apply(both, source.id)
    both.product("voltage", "dso", scope=Scope.LOCAL, full_activation_time_s=1800)
    with pytest.raises(Conflict, match="no passed test"):
        apply(both, "l@congestion", "l", "voltage")
    both.later(days=1)
    both.changed("cu-1")
    assert not qualified_products(both.state, "l", both.now)
    with pytest.raises(Conflict, match="no passed test"):
        apply(both, source.id)
    with pytest.raises(NotFound):
        both.do("product_qualification.apply_equivalence", "sp-2", source=source.id, group="l", product="congestion")
