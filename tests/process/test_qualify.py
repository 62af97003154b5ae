"""Qualify: every unit inside the grid gets its static light, and everyone concerned an answer."""

from __future__ import annotations

import pytest

from coflex.domain.qualification import StaticLight, StaticMode
from coflex.domain.quantity import Direction
from coflex.process.ports import Event
from support.verbs import VERBS, before, refusal, small_day


@pytest.mark.spec("REG-04")
def test_every_unit_of_the_grid_has_a_light_in_both_modes_for_each_direction_it_has_power_in() -> None:
    inside = [unit for unit in small_day().units if unit.element]
    wanted = {
        (unit.id, direction, mode)
        for unit in inside
        for direction, kw in ((Direction.UP, unit.up_kw), (Direction.DOWN, unit.down_kw))
        for mode in StaticMode
        if kw
    }
    with before("plan").transaction() as t:
        lights = t.all(StaticLight)
    assert {(light.unit, light.direction, light.mode) for light in lights} == wanted
    assert all(0 <= light.limit_kw <= light.registered_kw and light.element for light in lights)


@pytest.mark.spec("REG-03")
def test_the_answer_of_the_operator_reaches_the_register_and_every_provider_in_the_grid() -> None:
    with before("plan").transaction() as t:
        events = t.all(Event)
    asked = {unit.provider for unit in small_day().units if unit.element}
    assert {e.receiver for e in events if e.kind == "static_light"} == {"fro"}
    assert {e.receiver for e in events if e.kind == "static_light_forwarded"} == asked


def test_nothing_is_qualified_before_it_is_registered() -> None:
    assert "coflex register" in refusal("qualify", "register").remedy


def test_qualifying_again_replaces_the_lights_by_the_same_lights() -> None:
    store = before("plan")
    with store.transaction() as t:
        first = t.all(StaticLight)
    VERBS["qualify"](store)
    with store.transaction() as t:
        assert t.all(StaticLight) == first
