from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import date, timedelta
from importlib import resources
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from random_designs import documents, placed, written

from coflex.domain.clearing import Status
from coflex.domain.errors import CoflexError, Finding, OutsideAxis, Refused
from coflex.domain.party import Role
from coflex.domain.time import delivery_day
from coflex.domain.unit import Level, Scope
from coflex.market.design import Buyer, Needs, OwnMeans, designs, load_design, read_design, schedule

ROME = ZoneInfo("Europe/Rome")
DAYS = {92: date(2016, 3, 27), 96: date(2016, 7, 5), 100: date(2016, 10, 30)}
SHIPPED = resources.files("coflex.market").joinpath("designs", "beflexible_six.yaml").read_text(encoding="utf-8")
Document = dict[str, Any]


def shipped() -> Document:
    """The shipped design as plain values, nothing shared between its sessions."""
    return copy.deepcopy(yaml.safe_load(SHIPPED)) | {
        "sessions": [copy.deepcopy(session) for session in yaml.safe_load(SHIPPED)["sessions"]]
    }


def faults(document: Document | str) -> tuple[Finding, ...]:
    text = document if isinstance(document, str) else written(document)[0]
    with pytest.raises(Refused) as refused:
        read_design(text, "mine.yaml")
    return refused.value.findings


def put(session: int, *path: str, value: object) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        target = document["sessions"][session]
        for step in path[:-1]:
            target = target[step]
        target[path[-1]] = value

    return change


def both(*changes: Callable[[Document], None]) -> Callable[[Document], None]:
    """Several changes of one document."""

    def change(document: Document) -> None:
        for one in changes:
            one(document)

    return change


def drop(session: int, *path: str) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        target = document["sessions"][session]
        for step in path[:-1]:
            target = target[step]
        del target[path[-1]]

    return change


# change of the shipped document, place, code
FAULTS = [
    (put(3, "gaet", value=1), "sessions[3].gaet", "unknown_key"),
    (put(3, "gate", "close", value="D"), "sessions[3].gate.close", "unknown_key"),
    (drop(4, "needs"), "sessions[4].needs", "missing_key"),
    (put(0, "security_margin", "loading_share", value=1.5), "sessions[0].security_margin.loading_share", "malformed"),
    (put(0, "security_margin", "voltage_pu", value="0.1"), "sessions[0].security_margin.voltage_pu", "malformed"),
    (put(5, "reserve_share", value=1.1), "sessions[5].reserve_share", "malformed"),
    (put(5, "buyers", value=[]), "sessions[5].buyers", "malformed"),
    (put(3, "gate", "closes", value="noon"), "sessions[3].gate.closes", "malformed"),
    (put(3, "gate", "closes", value="D-1T27:00"), "sessions[3].gate.closes", "malformed"),
    (put(3, "horizon", "starts", value="D+99999999999"), "sessions[3].horizon.starts", "malformed"),
    (put(3, "horizon", "starts", value="D+1400"), "sessions[3].horizon.starts", "malformed"),
    (put(3, "horizon", "firm", value="4h"), "sessions[3].horizon.firm", "malformed"),
    (put(3, "horizon", "firm", value="PT0M"), "sessions[3].horizon.firm", "malformed"),
    (put(3, "horizon", "firm", value="PT99999999999999H"), "sessions[3].horizon.firm", "malformed"),
    (put(2, "grid", "distribution", value="three_phase"), "sessions[2].grid.distribution", "not_offered"),
    (put(2, "grid", "compare", value=["copperplate"]), "sessions[2].grid.compare[0]", "not_offered"),
    (put(0, "grid", "compare", value=["capability"]), "sessions[0].grid.compare", "capability_without_lights"),
    (put(3, "grid", "compare", value=["linear"]), "sessions[3].grid.compare", "compare_without_grid"),
    (put(2, "grid", "compare", value=["dc", "linear", "dc"]), "sessions[2].grid.compare", "repeated_model"),
    (put(3, "grid", "distribution", value="linear"), "sessions[3].grid.distribution", "groups_without_place"),
    (put(2, "grid", "transmission", value="linear"), "sessions[2].grid.transmission", "not_offered"),
    (put(2, "validation", value="by_hand"), "sessions[2].validation", "not_offered"),
    (put(2, "interface", value="open"), "sessions[2].interface", "not_offered"),
    (put(2, "needs", value="given"), "sessions[2].needs", "not_offered"),
    (put(2, "buyers", value=["retailer"]), "sessions[2].buyers[0]", "not_offered"),
    (put(4, "id", value="local-1"), "sessions[4].id", "repeated_id"),
    (put(4, "forward", "to", value="global-9"), "sessions[4].forward.to", "unknown_session"),
    (put(4, "forward", "to", value="global-1"), "sessions[4].forward.to", "forward_back"),
    (put(4, "forward", "to", value="local-3"), "sessions[4].forward.to", "forward_back"),
    (put(4, "buyers", value=["dso", "dso"]), "sessions[4].buyers", "repeated_buyer"),
    (put(4, "sellers", "levels", value=["distribution"] * 2), "sessions[4].sellers.levels", "repeated_level"),
    (put(4, "buyers", value=["tso"]), "sessions[4].needs", "needs_without_dso"),
    (put(4, "grid", "distribution", value="none"), "sessions[4].grid.distribution", "needs_without_grid"),
    (put(5, "pricing", value="nodal"), "sessions[5].pricing", "nodal_without_grid"),
    (put(4, "pricing", value="pay_as_clear"), "sessions[4].pricing", "clear_without_requests"),
    (put(4, "interface", value="netted"), "sessions[4].interface", "netted_without_requests"),
    (put(4, "product", value="congestion"), "sessions[0].product", "mixed_products"),
    (put(2, "own_means", value=["storage"]), "sessions[2].own_means[0]", "not_offered"),
    (put(5, "own_means", value=["taps"]), "sessions[5].own_means", "means_without_assessment"),
    (
        both(put(4, "own_means", value=["taps"]), put(4, "grid", "distribution", value="linear")),
        "sessions[4].own_means",
        "means_without_ac",
    ),
    (
        both(put(4, "own_means", value=["taps"]), put(4, "grid", "compare", value=["linear"])),
        "sessions[4].grid.compare",
        "compare_with_means",
    ),
    (put(5, "grid", "compare", value=["none"]), "sessions[5].grid.compare", "compare_without_grid"),
    (put(4, "grid", "compare", value=["capability"]), "sessions[4].grid.compare", "capability_without_lights"),
    (put(4, "grid", "compare", value=["none", "none"]), "sessions[4].grid.compare", "repeated_model"),
    (put(2, "services", value=["congestion", "mffr"]), "sessions[2].services[1]", "not_offered"),
    (put(2, "trades", value="power"), "sessions[2].trades", "not_offered"),
    (put(6, "gate", "closes", value="D+PT9H"), "sessions[6].gate.closes", "gate_empty"),
    (put(6, "gate", "closes", value="D+PT12H"), "sessions[6].gate.closes", "gate_late"),
    (put(7, "gate", "closes", value="D+PT15H"), "sessions[8].gate.closes", "gate_order"),
    (put(6, "horizon", "ends", value="D+PT8H"), "sessions[6].horizon.ends", "horizon_empty"),
    (put(6, "horizon", "ends", value="D+2"), "sessions[6].horizon.ends", "outside_day"),
    (put(6, "horizon", "starts", value="D-1"), "sessions[6].horizon.starts", "outside_day"),
    (put(6, "horizon", "ends", value="D+PT13H"), "sessions[6].horizon.firm", "firm_too_long"),
    (put(6, "horizon", "firm", value="PT3H50M"), "sessions[6].horizon.firm", "off_quarter_hour"),
    (put(6, "horizon", "firm", value="PT3H"), "sessions", "firm_hole"),
    (put(10, "horizon", "starts", value="D+PT21H"), "sessions", "firm_hole"),
    (put(6, "horizon", "firm", value="PT5H"), "sessions[8].horizon.firm", "firm_overlap"),
    (put(10, "horizon", "firm", value="PT4H"), "sessions", "firm_hole"),
]


def test_the_shipped_designs_can_be_read_and_carry_their_file_s_name() -> None:
    assert "beflexible_six" in designs()
    for name in designs():
        assert load_design(name).id == name


def test_an_unknown_design_is_answered_with_those_there_are() -> None:
    with pytest.raises(CoflexError, match="beflexible_six"):
        load_design("beflexible_seven")


@pytest.mark.spec("MKT-10")
@pytest.mark.parametrize("quarters", DAYS)
@pytest.mark.parametrize("scope", Scope)
def test_six_sessions_of_each_scope_tile_the_day_in_steps_of_four_hours(quarters: int, scope: Scope) -> None:
    axis = delivery_day(DAYS[quarters], ROME)
    plans = [
        plan for plan in schedule(load_design("beflexible_six"), DAYS[quarters], ROME) if plan.session.scope is scope
    ]
    assert [plan.number for plan in plans] == [1, 2, 3, 4, 5, 6]
    assert [start for plan in plans for start in plan.firm] == list(axis)
    assert len(axis) == quarters
    for plan in plans:
        assert plan.firm.start == axis.start + (plan.number - 1) * timedelta(hours=4)
        assert (plan.horizon.start, plan.horizon.end) == (plan.firm.start, axis.end)
        assert len(plan.firm) == (quarters - 80 if plan.number == 6 else 16)


@pytest.mark.spec("MKT-10")
@pytest.mark.parametrize("quarters", DAYS)
def test_each_local_session_closes_before_its_global_one_and_both_before_what_they_settle(quarters: int) -> None:
    plans = schedule(load_design("beflexible_six"), DAYS[quarters], ROME)
    assert [plan.id for plan in plans] == [f"{scope}-{k}" for k in range(1, 7) for scope in ("local", "global")]
    for local, world in zip(plans[::2], plans[1::2], strict=True):
        assert local.opens < local.closes < world.opens < world.closes < world.firm.start == local.firm.start
        assert local.session.forward is not None
        assert local.session.forward.to == world.id
    instants = [instant for plan in plans for instant in (plan.opens, plan.closes)]
    assert len(set(instants)) == len(instants)
    assert all(plan.closes < delivery_day(DAYS[quarters], ROME).start for plan in plans[:2])


@pytest.mark.spec("MKT-01")
def test_the_shipped_design_says_who_buys_from_whom_what_grid_is_seen_and_what_is_forwarded() -> None:
    local, world, *_ = load_design("beflexible_six").sessions
    assert [buyer.role for buyer in (*local.buyers, *world.buyers)] == [Role.DSO, Role.TSO]
    assert local.sellers.levels == (Level.DISTRIBUTION,)
    assert world.sellers.levels == (Level.DISTRIBUTION, Level.TRANSMISSION)
    assert (local.grid.distribution, world.grid.distribution) == ("ac", "capability")
    assert (local.interface, world.interface) == ("free", "netted")
    assert (local.validation, world.validation) == ("static", "traffic_light")
    assert local.security_margin is not None and world.security_margin is None
    assert local.forward is not None
    assert (local.forward.offers, local.forward.carry) == ("unused", "traffic_light")
    assert world.forward is None


@pytest.mark.spec("MKT-04")
def test_needs_come_from_the_assessment_of_the_grid_or_from_requests_and_from_nowhere_else() -> None:
    local, world, *_ = load_design("beflexible_six").sessions
    assert (local.needs, world.needs) == (Needs.ASSESSMENT, Needs.REQUESTS)
    document = shipped()
    put(1, "needs", value="given")(document)
    (fault,) = faults(document)
    assert "'assessment', 'requests' or 'both'" in fault.message


def test_a_session_tells_definitive_from_preliminary_and_knows_its_horizon() -> None:
    plan = schedule(load_design("beflexible_six"), DAYS[96], ROME)[2]
    assert plan.status(plan.firm[15]) is Status.DEFINITIVE
    assert plan.status(plan.firm.end) is Status.PRELIMINARY
    with pytest.raises(OutsideAxis):
        plan.status(plan.horizon.start - timedelta(minutes=15))


def test_a_design_is_frozen() -> None:
    session = load_design("beflexible_six").sessions[0]
    with pytest.raises(ValidationError):
        session.buyers = (Buyer.TSO,)  # type: ignore[misc]


@pytest.mark.spec("MKT-01")
@pytest.mark.parametrize(
    ("change", "place", "code"), FAULTS, ids=[f"{code}-{i}" for i, (_, _, code) in enumerate(FAULTS)]
)
def test_each_fault_is_named_with_its_place(change: Callable[[Document], None], place: str, code: str) -> None:
    document = shipped()
    read_design(yaml.safe_dump(document), "mine.yaml")
    change(document)
    assert (placed(document, place), code) in {(fault.place, fault.code) for fault in faults(document)}


# Faults that leave each other's place alone, each in a session of its own or at a key of its own.
APART = [entry for entry in FAULTS if entry[2] in ("unknown_key", "malformed", "not_offered", "unknown_session")]


@pytest.mark.spec("MKT-01")
@settings(max_examples=40, deadline=None)
@given(st.sets(st.integers(0, len(APART) - 1), min_size=2, max_size=6), st.sampled_from([6, 8]))
def test_all_faults_are_named_at_once_those_of_form_and_those_of_rule(chosen: set[int], late: int) -> None:
    document = shipped()
    changed = {APART[i][1]: APART[i] for i in sorted(chosen)}
    for change, _, _ in changed.values():
        change(document)
    put(late, "gate", "closes", value=document["sessions"][late]["horizon"]["starts"])(document)
    found = {(fault.place, fault.code) for fault in faults(document)}
    assert {(placed(document, place), code) for _, place, code in changed.values()} <= found
    assert (placed(document, f"sessions[{late}].gate.closes"), "gate_late") in found


def test_what_is_not_run_is_refused_with_what_is() -> None:
    document = shipped()
    put(0, "grid", "distribution", value="zonal")(document)
    (fault,) = faults(document)
    assert fault.message == "'zonal' is not offered; choose 'none', 'capability', 'linear', 'conic', 'dc' or 'ac'."


@pytest.mark.spec("MKT-01")
@pytest.mark.parametrize("model", ["linear", "conic", "dc", "ac"])
def test_a_local_session_clears_on_any_model_of_the_network_and_names_others_to_compare(model: str) -> None:
    document = shipped()
    put(0, "grid", "distribution", value=model)(document)
    put(0, "grid", "compare", value=["none", "linear", "conic", "dc", "ac"])(document)
    session = read_design(yaml.safe_dump(document), "mine.yaml").sessions[0]
    assert session.grid.distribution.sees_network and session.grid.distribution.value == model
    assert len(session.grid.compare) == 5


@pytest.mark.spec("GRID-04", "MKT-01")
def test_an_operator_may_set_any_of_its_means_before_an_assessment_and_none_unless_it_is_said() -> None:
    document = shipped()
    assert not any(session.own_means for session in read_design(yaml.safe_dump(document), "mine.yaml").sessions)
    put(0, "own_means", value=["taps", "capacitors", "switching"])(document)
    assert read_design(yaml.safe_dump(document), "mine.yaml").sessions[0].own_means == tuple(OwnMeans)


def test_an_unknown_key_is_refused_with_the_keys_there_are() -> None:
    document = shipped()
    put(0, "gate", "shuts", value="D")(document)
    (fault,) = faults(document)
    assert fault.message == "The key 'shuts' is not known; known here are opens, closes."


def test_a_fault_of_some_days_only_names_their_length() -> None:
    document = shipped()
    put(10, "horizon", "firm", value="PT4H")(document)
    found = {fault.code: fault.message for fault in faults(document)}
    assert set(found) == {"firm_too_long", "firm_hole"}
    assert found["firm_too_long"].endswith("This concerns days of 92 quarter-hours.")
    assert found["firm_hole"].endswith("This concerns days of 100 quarter-hours.")
    assert "D+PT24H" in found["firm_hole"]


def test_a_gate_on_the_clock_is_checked_on_the_day_the_clock_changes() -> None:
    document = shipped()
    put(0, "gate", "opens", value="D-1T02:15")(document)
    put(0, "gate", "closes", value="D-1T03:15")(document)
    (fault,) = faults(document)
    assert (fault.place, fault.code) == (placed(document, "sessions[0].gate.closes"), "gate_empty")


def test_a_horizon_that_returns_to_what_is_settled_is_refused() -> None:
    document = shipped()
    first, second = document["sessions"][0], document["sessions"][2]
    first["horizon"] = {"starts": "D+PT4H", "ends": "D+PT8H", "firm": "rest"}
    second["horizon"] = {"starts": "D+PT3H", "ends": "D+1", "firm": "PT1H"}
    found = {(fault.place, fault.code) for fault in faults(document)}
    assert (placed(document, "sessions[2].horizon"), "horizon_settled") in found


def test_a_definitive_part_inside_another_is_an_overlap_and_no_hole() -> None:
    document = shipped()
    put(2, "horizon", "firm", value="PT12H")(document)
    put(6, "horizon", "starts", value="D+PT12H15M")(document)
    put(6, "horizon", "firm", value="PT15M")(document)
    assert {fault.code for fault in faults(document)} == {"firm_overlap"}


# Six sessions in the text; what is wrong with the second stands in the first, in an alias, or in its own lines.
SHARED = """\
id: mine
title: Two hours
source: {document: B, section: "6.3"}
gates:
- &gate {opens: "D-1T08:00", closes: "D-1T27:00"}
sessions:
- &first
  id: one
  buyers: [dso]
  sellers: {levels: [distribution]}
  gate: {opens: "D-1T08:00", closes: "D-1T09:00"}
  horizon: {starts: D, ends: D+1, firm: rest}
  needs: assessment
  grid: {distribution: none, transmission: none}
  interface: free
  pricing: pay_as_bid
  validation: none
- <<: *first
  id: two
  gate:
    opens: D-1T10:00
    closes: D-1T09:30
- <<: *first
  id: three
  gate: *gate
- *first
"""


@pytest.mark.spec("MKT-01")
def test_what_a_session_takes_over_has_the_line_of_the_session_that_takes_it_over() -> None:
    found = {(fault.place, fault.code) for fault in faults(SHARED)}
    assert found == {
        ("mine.yaml, line 4: gates", "unknown_key"),
        ("mine.yaml, line 14: sessions[0].grid.distribution", "needs_without_grid"),
        ("mine.yaml, line 18: sessions[1].grid.distribution", "needs_without_grid"),
        ("mine.yaml, line 22: sessions[1].gate.closes", "gate_empty"),
        ("mine.yaml, line 25: sessions[2].gate.closes", "malformed"),
        ("mine.yaml, line 26: sessions[3].grid.distribution", "needs_without_grid"),
        ("mine.yaml, line 26: sessions[3].id", "repeated_id"),
        ("mine.yaml, line 26: sessions[3].gate.closes", "gate_order"),
    }


@pytest.mark.parametrize(
    ("text", "place", "code"),
    [
        ("id: [", "mine.yaml, line 1", "not_yaml"),
        ("id: \x07", "mine.yaml", "not_yaml"),
        ("- a\n- b", "mine.yaml", "not_a_document"),
        ("", "mine.yaml", "not_a_document"),
        ("&a\nid: *a", "mine.yaml", "not_a_document"),
        ("? [a, b]\n: 1", "mine.yaml, line 1", "not_yaml"),
        ("id: a\nid: b", "mine.yaml, line 2", "repeated_key"),
        ("id: a\nsessions:\n- id: x\n  gate: {opens: D, opens: D}", "mine.yaml, line 4", "repeated_key"),
        ("id: x\nsessions: 7", "mine.yaml, line 2: sessions", "malformed"),
        ("id: x\nsessions: [7]", "mine.yaml, line 2: sessions[0]", "malformed"),
        ("id: x\nsessions: []", "mine.yaml, line 2: sessions", "malformed"),
        ("id: x\ntitle: y", "mine.yaml: source", "missing_key"),
    ],
)
def test_what_is_no_design_is_refused_with_its_place(text: str, place: str, code: str) -> None:
    assert (place, code) in {(fault.place, fault.code) for fault in faults(text)}


@pytest.mark.spec("MKT-01", "MKT-10")
@settings(max_examples=60, deadline=None)
@given(documents())
def test_any_design_that_can_be_read_settles_every_quarter_hour_once_on_days_of_every_length(
    document: Document,
) -> None:
    design = read_design(yaml.safe_dump(document), "drawn.yaml")
    for quarters, day in DAYS.items():
        plans = schedule(design, day, ROME)
        for scope in {plan.session.scope for plan in plans}:
            firm = sorted(start for plan in plans if plan.session.scope is scope for start in plan.firm)
            assert firm == list(delivery_day(day, ROME)), quarters
        for plan in plans:
            assert set(plan.firm) <= set(plan.horizon)
            assert plan.opens < plan.closes < plan.horizon.start


@settings(max_examples=60, deadline=None)
@given(documents(), st.data())
def test_a_design_whose_definitive_parts_are_moved_is_refused(document: Document, data: st.DataObject) -> None:
    session = data.draw(st.sampled_from(document["sessions"]))
    kept = dict(session["horizon"])
    session["horizon"]["firm"] = data.draw(
        st.sampled_from(["PT15M", "PT1H", "PT23H15M"]).filter(lambda x: x != kept["firm"])
    )
    if kept["firm"] == "PT60M":
        session["horizon"]["firm"] = "PT15M"
    assert any(fault.code.startswith("firm") for fault in faults(document))
