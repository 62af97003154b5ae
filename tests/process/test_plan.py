"""Plan: a session opens with its forecast and its needs, or with its lights and its requests."""

from __future__ import annotations

import pytest

from coflex.domain.light import DynamicLight
from coflex.domain.need import LocalNeed, Request
from coflex.market.engine import SessionState
from coflex.process.day import states
from coflex.process.ports import Event
from support.verbs import before, refusal, small_day


@pytest.mark.spec("GRID-03", "GRID-05")
def test_a_planned_local_session_is_open_with_a_forecast_of_its_horizon_and_a_need_for_each_violation() -> None:
    first = small_day().plans[0]
    with before("offer").transaction() as t:
        planned, outlook = t.document(f"planned/{first.id}"), t.series(f"{first.id}/forecast")
        needs = t.all(LocalNeed)
        assert states(t) == {first.id: SessionState.OPEN}
        assert not t.all(Request)
    assert outlook is not None
    assert outlook.axis == first.horizon
    assert planned is not None
    assert planned["violations"] == planned["needs"] == len(needs) > 0
    assert {need.session for need in needs} == {first.id}


@pytest.mark.spec("GRID-06", "MKT-04")
def test_a_planned_global_session_has_one_light_a_perimeter_direction_and_quarter_hour_and_requests() -> None:
    day = small_day()
    session = day.plans[1]
    with before("activate").transaction() as t:
        lights, requests = t.all(DynamicLight, session=session.id), t.all(Request, session=session.id)
    assert len(lights) == 2 * len(day.perimeters) * len(session.horizon)
    assert all(0 <= light.capability_kw <= light.potential_kw for light in lights)
    assert requests
    assert {request.buyer for request in requests} == {"tso"}


@pytest.mark.spec("MKT-02")
def test_every_provider_is_told_that_the_session_is_open_and_until_when() -> None:
    first = small_day().plans[0]
    with before("offer").transaction() as t:
        told = [event for event in t.all(Event) if event.kind == "session_open"]
    assert {event.receiver for event in told} == {unit.provider for unit in small_day().units}
    assert all(event.detail == f"{first.id} until {first.closes.isoformat()}" for event in told)


def test_no_session_opens_before_units_are_qualified() -> None:
    assert "coflex qualify" in refusal("plan", "qualify").remedy


@pytest.mark.spec("MKT-02")
@pytest.mark.parametrize("stage", ["offer", "activate"])
def test_a_session_opens_once(stage: str) -> None:
    assert "local-1" in refusal("plan", stage).message
