"""Plan: a session opens with its forecast and its needs, or with its lights and its requests."""

from __future__ import annotations

import numpy as np
import pytest

from coflex.domain.clearing import Holding, Status
from coflex.domain.light import DynamicLight
from coflex.domain.need import LocalNeed, Request
from coflex.domain.quantity import Direction
from coflex.grid.planning import substations
from coflex.grid.powerflow import solve
from coflex.market.engine import SessionState
from coflex.process.day import states
from coflex.process.ports import Event
from coflex.process.profile import known_profiles, send_profile, sent_in
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


@pytest.mark.spec("GRID-09")
def test_the_system_operator_is_sent_the_profile_of_the_forecast_when_a_local_session_is_planned() -> None:
    day = small_day()
    first = day.plans[0]
    with before("offer").transaction() as t:
        told = [event for event in t.all(Event) if event.kind == "substation_profile"]
        (sent,) = sent_in(t, first)
        outlook = t.series(f"{first.id}/forecast")
    assert [(e.sender, e.receiver, e.at, e.detail) for e in told] == [("dso", "tso", first.opens, "1 for local-1")]
    assert outlook is not None
    state = solve(day.network, *day.injections(outlook.window(first.horizon)))
    # One transformer feeds all, so its profile is the interface of the whole grid.
    assert substations(day.network)[1] == (sent.substation,) == ("T",)
    assert np.abs(sent.p_mw - state.interface_p_mw).max() < 1e-9
    assert np.abs(sent.q_mvar - state.interface_q_mvar).max() < 1e-9


@pytest.mark.spec("GRID-09")
def test_nothing_is_sent_again_until_something_moves_by_a_kilowatt() -> None:
    day = small_day()
    first = day.plans[0]
    store = before("clear")

    def hold(kw: int) -> int:
        with store.transaction() as t:
            start = first.horizon[50]
            unit = next(u.id for u, node in zip(day.units, day.unit_node, strict=True) if node >= 0)
            t.remove(Holding, unit=unit)
            if kw:
                t.add([Holding(unit, start, first.id, "dso", Direction.DOWN, kw, "offer", Status.PRELIMINARY)])
            count = send_profile(day, t, first, first.closes)
            (known,) = known_profiles(day, t, first.horizon)
            seen.append(float(known.p_mw[50]))
        return count

    seen: list[float] = []
    assert [hold(0), hold(100), hold(100), hold(0)] == [0, 1, 0, 1]
    assert seen[1] == seen[2] > seen[0] + 0.09 and seen[3] == pytest.approx(seen[0], abs=1e-9)


@pytest.mark.spec("GRID-09")
def test_what_the_system_operator_knows_is_the_last_that_was_sent_of_every_quarter_hour() -> None:
    day = small_day()
    with before("activate").transaction() as t:
        (known,) = known_profiles(day, t, day.case.axis)
        outlook = day.firm(t, "forecast")
        held = day.held_kw(t.all(Holding), day.case.axis)
    (p, q), (change_p, change_q) = day.injections(outlook), day.changes(held)
    state = solve(day.network, p + change_p, q + change_q)
    assert held.any()
    assert np.abs(known.p_mw - state.interface_p_mw).max() < 0.001
    assert np.abs(known.q_mvar - state.interface_q_mvar).max() < 0.001


def test_no_session_opens_before_units_are_qualified() -> None:
    assert "coflex qualify" in refusal("plan", "qualify").remedy


@pytest.mark.spec("MKT-02")
@pytest.mark.parametrize("stage", ["offer", "activate"])
def test_a_session_opens_once(stage: str) -> None:
    assert "local-1" in refusal("plan", stage).message
